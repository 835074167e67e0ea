"""Checks of the settings of solvers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import torch

from sciml.errors import InputError


def check_count(value: object, name: str) -> None:
    """Raise InputError for a setting that is not a whole number of at least 1."""
    if not _is_whole(value) or value < 1:  # type: ignore[operator]
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_number(value: object, name: str, low: float, high: float, ends: str = "()") -> None:
    """Raise InputError for a setting that is not a number between two.

    Args:
        value: what was given.
        name: of the setting, for the message.
        low, high: the ends of the interval.
        ends: its brackets: "[" or "]" where the end belongs to it.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        above = number > low or (ends[0] == "[" and number == low)
        if above and (number < high or (ends[1] == "]" and number == high)):
            return
    raise InputError(f"{name} must be a number in {ends[0]}{low:g}, {high:g}{ends[1]}, got {value!r}")


def check_cycle(value: object, name: str) -> None:
    """Raise InputError for a setting that is not the number of visits of a multigrid cycle."""
    if not _is_whole(value) or value not in (1, 2):
        raise InputError(f"{name} must be 1 (V) or 2 (W), got {value!r}")


def check_precision(value: object, name: str) -> None:
    """Raise InputError for a setting that is neither a floating dtype of solvers nor None."""
    if value is not None and value is not torch.float32 and value is not torch.float64:
        raise InputError(f"{name} must be torch.float32, torch.float64 or None, got {value!r}")


def check_word(value: object, name: str, words: Sequence[str]) -> None:
    """Raise InputError for a setting that is not one of some words."""
    if value not in words:
        raise InputError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
