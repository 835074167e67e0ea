"""Means of two values beside a face."""

from __future__ import annotations

import torch
from torch import Tensor

from .inputs import Number


def arithmetic_mean(first: Number, second: Number) -> Number:
    """Half the sum."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.lerp(first, second, 0.5)
    return 0.5 * (first + second)


def harmonic_mean(first: Number, second: Number) -> Number:
    """2 a b / (a + b), the coefficient of two half cells in series.

    Where both are 0 it has no derivative but along a = b; there it is given that of the half sum, so that coefficients
    that are learned can leave 0.
    """
    if first is second:
        return first
    total = first + second
    if not isinstance(total, Tensor):
        return 2.0 * first * second / total if total else 0.0
    zero = total == 0.0
    return torch.where(zero, 0.5 * total, 2.0 * (first * second) / torch.where(zero, 1.0, total))


def harmonic_slopes(first: Number, second: Number) -> tuple[Number, Number]:
    """The derivatives of `harmonic_mean` by a and b."""
    total = first + second
    if not isinstance(total, Tensor):
        return (2.0 * (second / total) ** 2, 2.0 * (first / total) ** 2) if total else (0.5, 0.5)
    zero = total == 0.0
    safe = torch.where(zero, 1.0, total)
    return torch.where(zero, 0.5, 2.0 * (second / safe) ** 2), torch.where(zero, 0.5, 2.0 * (first / safe) ** 2)
