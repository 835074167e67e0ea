"""The functions phi_k of exponential integrators, without cancellation."""

from __future__ import annotations

from math import factorial
from typing import final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.one_thread import one_thread

RADIUS = 4.0  # beyond, the recurrence does not cancel; below, the series does not
TERMS = 30  # RADIUS**TERMS / (TERMS + 3)! is below the rounding of phi_3(-RADIUS)


def phi(z: Tensor, count: int) -> list[Tensor]:
    """phi_0 = exp, ..., phi_count of numbers: phi_k(z) = sum of z**n / (n + k)! over n >= 0.

    Args:
        z: real or complex, of any shape; dimensionless.
        count: the last k.

    The series where |z| is at most 4, elsewhere the recurrence phi_{k+1} = (phi_k - 1/k!) / z (Hochbruck and Ostermann,
    Acta Numerica 19 (2010) 209-286, equation 2.6), whose cancellation is harmless there.
    """
    large = z.abs() > RADIUS
    outer, inner = torch.where(large, z, RADIUS), torch.where(large, 0.0, z)
    terms = [1 / factorial(n) for n in range(TERMS + count + 1)]
    weights = torch.tensor(terms, dtype=z.dtype, device=z.device).unbind()
    near, series = weights[-1], []
    for n in range(TERMS + count - 1, 0, -1):
        near = torch.addcmul(weights[n], near, inner)
        if n <= count:
            series.append(near)
    found = [torch.exp(z)]
    far = torch.where(large, found[0], 1.0)
    for k, part in enumerate(reversed(series)):
        far = (far - 1 / factorial(k)) / outer
        found.append(torch.where(large, far, part))
    return found


@final
class PhiOfMatrices:
    """phi_0, ..., phi_count of s A for small matrices A and any number of scales s.

    Args:
        a: real or complex, `(..., n, n)`, with one axis at least before the last two.

    After balancing, so that the unit of length does not matter where A couples a field to its rate. By eigenvectors
    where these lose less than scaling and squaring does, so that slow modes next to fast ones stay exact: the latter
    multiplies rounding errors by the norm of s A, eigenvectors by up to the square of their condition. Derivatives are
    those of scaling and squaring everywhere, since eigenvectors of equal eigenvalues have none.
    """

    def __init__(self, a: Tensor) -> None:
        a = a.to(torch.promote_types(a.dtype, torch.complex64))
        self._scale = _balance(a.detach())
        self._balanced = a / self._scale[..., :, None] * self._scale[..., None, :]
        plain = self._balanced.detach()
        self._norm = torch.linalg.matrix_norm(plain, ord=1)
        with one_thread():
            self._values, vectors = torch.linalg.eig(plain)
            self._condition = torch.linalg.cond(vectors)
            regular = (self._condition < 1 / torch.finfo(self._norm.dtype).eps)[..., None, None]
            unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
            self._vectors = torch.where(regular, vectors, unit)
            self._inverse = torch.linalg.inv(self._vectors)

    def __call__(self, s: float, count: int) -> list[Tensor]:
        """phi_0(s A), ..., phi_count(s A), each `(..., n, n)`; s A dimensionless."""
        found = self._values_of(s, count)
        if _derivatives_wanted(self._balanced):
            squared = _squared(s * self._balanced, count)
            found = [exact + (part - part.detach()) for exact, part in zip(found, squared, strict=True)]
        return [part * self._scale[..., :, None] / self._scale[..., None, :] for part in found]

    def _values_of(self, s: float, count: int) -> list[Tensor]:
        by_eigenvectors = self._condition.square() < abs(s) * self._norm
        found = [(self._vectors * f.unsqueeze(-2)) @ self._inverse for f in phi(s * self._values, count)]
        others = ~by_eigenvectors
        if bool(others.any()):
            squared = _squared(s * self._balanced.detach()[others], count)
            found = [exact.index_put((others,), part) for exact, part in zip(found, squared, strict=True)]
        return found


def _derivatives_wanted(a: Tensor) -> bool:
    recorded = torch.is_grad_enabled() and a.requires_grad
    return recorded or forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None


def _squared(a: Tensor, count: int) -> list[Tensor]:
    """By the series of a / 2**s and phi_k(2a) = 2**-k (phi_0 phi_k + sum of phi_j / (k-j)! over 1 <= j <= k)."""
    norm = torch.linalg.matrix_norm(a.detach(), ord=1)
    halvings = torch.ceil(torch.log2(norm.clamp_min(2.0**-20))).clamp_min(0)
    unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    small = a * torch.exp2(-halvings)[..., None, None]
    series = unit * (1 / factorial(20 + count))
    for n in range(19, -1, -1):
        series = series @ small + unit * (1 / factorial(n + count))
    found = [series]
    for k in range(count - 1, -1, -1):
        found.insert(0, found[0] @ small + unit * (1 / factorial(k)))
    for level in range(int(halvings.max()) if halvings.numel() else 0):
        doubled = []
        for k, part in enumerate(found):
            total = found[0] @ part
            for j in range(1, k + 1):
                total = total + found[j] / factorial(k - j)
            doubled.append(total / 2**k)
        more = (halvings > level)[..., None, None]
        found = [torch.where(more, new, old) for new, old in zip(doubled, found, strict=True)]
    return found


def _balance(a: Tensor) -> Tensor:
    """Powers of two d with which the rows and columns of D^-1 A D are about equally large (Osborne, J. ACM 7 (1960)
    338-345); `(..., n)`."""
    size = a.abs()
    size = size - torch.diag_embed(torch.diagonal(size, dim1=-2, dim2=-1))
    scale = torch.ones(a.shape[:-1], dtype=size.dtype, device=a.device)
    for _ in range(4):
        for place in range(a.shape[-1]):
            row, column = size[..., place, :].sum(-1), size[..., :, place].sum(-1)
            known = (row > 0) & (column > 0)
            ratio = torch.where(known, row, 1.0) / torch.where(known, column, 1.0)
            factor = torch.exp2(torch.round(torch.log2(ratio) / 2))
            scale[..., place] *= factor
            size[..., place, :] /= factor[..., None]
            size[..., :, place] *= factor[..., None]
    return scale
