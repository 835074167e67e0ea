"""Limited slopes, and bounds of the wave speeds of conservation laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .inputs import Number

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


def spectral_radius(matrix: list[list[Number]]) -> Tensor:
    """The largest |eigenvalue| of a small matrix in every place, or a bound of it from above.

    Exact for one and two rows, and for three with real eigenvalues; otherwise |A^k|^(1/k) with k = 32 and the Frobenius
    norm, at most n^(1/64) times the condition of the eigenvectors to the power 1/32 too large.

    Args:
        matrix: rows of entries that broadcast, at least one of them a tensor.
    """
    size = len(matrix)
    tensors = [entry for row in matrix for entry in row if isinstance(entry, Tensor)]
    tiny = torch.finfo(tensors[0].dtype).tiny
    if size == 1:
        return tensors[0].abs()
    if size == 2:
        (a, b), (c, d) = matrix
        mean, half = 0.5 * (a + d), 0.5 * (a - d)
        square = tensors[0].new_zeros(()) + (_times(half, half) + _times(b, c))
        mean = tensors[0].new_zeros(()) + mean
        # Of a complex pair |eigenvalue|^2 is the determinant, mean^2 - square.
        real = mean.abs() + square.clamp(min=tiny).sqrt()
        return torch.where(square >= 0.0, real, (mean * mean - square).clamp(min=tiny).sqrt())
    if size > 3:
        return _from_powers(matrix, tensors[0], tiny)
    found, real = _of_three(matrix, tensors[0], tiny)
    if real.device.type == "cpu" and bool(real.all()):  # elsewhere asking would wait for the device
        return found
    return torch.where(real, found, _from_powers(matrix, tensors[0], tiny))


def _of_three(matrix: list[list[Number]], like: Tensor, tiny: float) -> tuple[Tensor, Tensor]:
    """By the trigonometric formula (Press et al., Numerical Recipes, 3rd ed., section 5.6), and whether the eigenvalues
    are real, as it supposes."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    mean = like.new_zeros(()) + (a + e + i) / 3.0
    a, e, i = a - mean, e - mean, i - mean
    bd, cg, fh = _times(b, d), _times(c, g), _times(f, h)
    # lambda^3 - 3 p lambda - 2 q = 0
    p = (0.5 * (a * a + e * e + i * i) + (bd + cg + fh)) / 3.0
    mixed = _times(_times(b, f), g) + _times(_times(c, d), h)
    q = 0.5 * (a * e * i - _times(a, fh) - _times(e, cg) - _times(i, bd) + mixed)
    p = p.clamp(min=tiny)
    cube = p * p.sqrt()
    cosine = q / cube
    third = torch.acos(cosine.clamp(-1.0 + 1e-14, 1.0 - 1e-14)) / 3.0
    size = 2.0 * p.sqrt()
    largest, smallest = mean + size * torch.cos(third), mean + size * torch.cos(third + 2.0 * math.pi / 3.0)
    return torch.maximum(largest.abs(), smallest.abs()), cosine.detach().abs() <= 1.0 + 1e-6


def _from_powers(matrix: list[list[Number]], like: Tensor, tiny: float) -> Tensor:
    """|A^k|^(1/k), k = 2^5, from above (Gelfand's formula)."""
    entries = torch.broadcast_tensors(
        *(torch.as_tensor(entry, dtype=like.dtype, device=like.device) for row in matrix for entry in row)
    )
    a = torch.stack(entries).unflatten(0, (len(matrix), len(matrix)))
    scale = torch.zeros_like(a[0, 0])
    for squaring in range(_SQUARINGS):
        norm = torch.linalg.vector_norm(a, dim=(0, 1)).clamp(min=tiny)
        scale = scale + norm.log() * 0.5**squaring
        a = a / norm
        a = torch.stack([(row.unsqueeze(1) * a).sum(0) for row in a])
    return torch.exp(scale + torch.linalg.vector_norm(a, dim=(0, 1)).clamp(min=tiny).log() * 0.5**_SQUARINGS)


def _times(first: Number, second: Number) -> Number:
    """The product, without work where a factor is the number 0."""
    zero = any(not isinstance(factor, Tensor) and factor == 0.0 for factor in (first, second))
    return 0.0 if zero else first * second
