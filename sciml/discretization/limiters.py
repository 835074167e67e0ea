"""Limited slopes, and bounds of the wave speeds of conservation laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Limiter = Callable[[Tensor, Tensor], Tensor]


def minmod(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two differences, 0 where they disagree in sign."""
    return torch.where(a * b > 0.0, torch.where(a.abs() < b.abs(), a, b), 0.0)


def van_leer(a: Tensor, b: Tensor) -> Tensor:
    """Their harmonic mean, 0 where they disagree in sign."""
    product = a * b
    total = a + b
    return torch.where(product > 0.0, 2.0 * product / torch.where(product > 0.0, total, 1.0), 0.0)


def monotonized_central(a: Tensor, b: Tensor) -> Tensor:
    """Their mean, but no more than twice the smaller."""
    return minmod(0.5 * (a + b), 2.0 * minmod(a, b))


def superbee(a: Tensor, b: Tensor) -> Tensor:
    """The larger of min(2a, b) and min(a, 2b) in size."""
    first, second = minmod(2.0 * a, b), minmod(a, 2.0 * b)
    return torch.where(first.abs() > second.abs(), first, second)


SLOPES: dict[str, Limiter] = {
    "minmod": minmod,
    "van_leer": van_leer,
    "mc": monotonized_central,
    "superbee": superbee,
}
"""By the words of `FiniteVolume`. Source: LeVeque, Finite Volume Methods for Hyperbolic Problems, Cambridge 2002,
section 6.9 and table 6.1."""

_SQUARINGS = 5


def spectral_radius(matrix: list[list[Tensor]]) -> Tensor:
    """The largest |eigenvalue| of a small matrix in every place, or a bound of it from above.

    Exact for one and two rows, and for three with real eigenvalues; otherwise |A^k|^(1/k) with k = 32 and the Frobenius
    norm, at most n^(1/64) times the square root of the eigenvectors' condition to the power 1/16 too large.

    Args:
        matrix: rows of entries that broadcast.
    """
    size = len(matrix)
    if size == 1:
        return matrix[0][0].abs()
    tiny = torch.finfo(matrix[0][0].dtype).tiny
    if size == 2:
        (a, b), (c, d) = matrix
        mean, half = 0.5 * (a + d), 0.5 * (a - d)
        square = half * half + b * c
        # Of a complex pair |eigenvalue|^2 is the determinant, mean^2 - square.
        real = mean.abs() + square.clamp(min=tiny).sqrt()
        return torch.where(square >= 0.0, real, (mean * mean - square).clamp(min=tiny).sqrt())
    entries = torch.broadcast_tensors(*(entry for row in matrix for entry in row))
    dense = torch.stack(entries, dim=-1).unflatten(-1, (size, size))
    return _of_three(dense, tiny) if size == 3 else _from_powers(dense, tiny)


def _of_three(a: Tensor, tiny: float) -> Tensor:
    """By the trigonometric formula where all eigenvalues are real (Press et al., Numerical Recipes, 3rd ed., section
    5.6), from powers elsewhere."""
    mean = a.diagonal(dim1=-2, dim2=-1).sum(-1) / 3.0
    shifted = a - mean[..., None, None] * torch.eye(3, dtype=a.dtype, device=a.device)
    # lambda^3 - 3 p lambda - 2 q = 0
    p = (shifted @ shifted).diagonal(dim1=-2, dim2=-1).sum(-1) / 6.0
    q = torch.linalg.det(shifted) / 2.0
    root = p.clamp(min=tiny).sqrt()
    cosine = (q / (p.clamp(min=tiny) * root)).clamp(-1.0 + 1e-12, 1.0 - 1e-12)
    angle = torch.acos(cosine) / 3.0
    largest, smallest = mean + 2.0 * root * torch.cos(angle), mean + 2.0 * root * torch.cos(angle + 2.0 * math.pi / 3.0)
    real = torch.maximum(largest.abs(), smallest.abs())
    return torch.where((p > 0.0) & (q * q <= p**3), real, _from_powers(a, tiny))


def _from_powers(a: Tensor, tiny: float) -> Tensor:
    """|A^k|^(1/k), k = 2^5, from above (Gelfand's formula)."""
    scale = torch.zeros(a.shape[:-2], dtype=a.dtype, device=a.device)
    for squaring in range(_SQUARINGS):
        norm = a.square().sum((-2, -1)).clamp(min=tiny).sqrt()
        scale = scale + norm.log() * 0.5**squaring
        a = a / norm[..., None, None]
        a = a @ a
    return torch.exp(scale + a.square().sum((-2, -1)).clamp(min=tiny).sqrt().log() * 0.5**_SQUARINGS)
