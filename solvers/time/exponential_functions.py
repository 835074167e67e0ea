"""The functions phi_k of exponential integrators, without cancellation."""

from __future__ import annotations

from math import factorial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.one_thread import one_thread

RADIUS = 4.0  # beyond, the recurrence does not cancel; below, the series does not
TERMS = 36  # RADIUS**TERMS / TERMS! is below the rounding of any of them
LARGEST_CONDITION = 1e3  # of eigenvectors that are used


def phi(z: Tensor, count: int) -> list[Tensor]:
    """phi_0 = exp, ..., phi_count of numbers: phi_k(z) = sum of z**n / (n + k)! over n >= 0.

    Args:
        z: complex, of any shape; dimensionless.
        count: the last k.

    The series where |z| is at most 4, elsewhere the recurrence phi_{k+1} = (phi_k - 1/k!) / z (Hochbruck and Ostermann,
    Acta Numerica 19 (2010) 209-286, equation 2.6), whose cancellation is harmless there.
    """
    large = z.abs() > RADIUS
    outer, inner = torch.where(large, z, RADIUS), torch.where(large, 0.0, z)
    exponential = torch.exp(z)
    found = [exponential]
    far = torch.where(large, exponential, 1.0)
    for k in range(1, count + 1):
        far = (far - 1 / factorial(k - 1)) / outer
        near = torch.full_like(z, 1 / factorial(TERMS + k))
        for n in range(TERMS - 1, -1, -1):
            near = near * inner + 1 / factorial(n + k)
        found.append(torch.where(large, far, near))
    return found


def phi_of_matrices(a: Tensor, count: int) -> list[Tensor]:
    """phi_0, ..., phi_count of small matrices.

    Args:
        a: complex, `(..., n, n)`; dimensionless.
        count: the last k.

    By eigenvectors where they are well-conditioned, so that slow modes next to fast ones stay exact, else by scaling
    and squaring; the latter alone where derivatives are recorded, since eigenvectors of equal eigenvalues have none.
    """
    recorded = torch.is_grad_enabled() and a.requires_grad
    if recorded or forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None:
        return _squared(a, count)
    with one_thread():
        values, vectors = torch.linalg.eig(a)
        condition = torch.linalg.cond(vectors)
    good = (condition < LARGEST_CONDITION)[..., None, None]
    unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    with one_thread():
        inverse = torch.linalg.inv(torch.where(good, vectors, unit))
    found = [(torch.where(good, vectors, unit) * f.unsqueeze(-2)) @ inverse for f in phi(values, count)]
    if bool(good.all()):
        return found
    return [torch.where(good, x, y) for x, y in zip(found, _squared(torch.where(good, 0.0, a), count), strict=True)]


def _squared(a: Tensor, count: int) -> list[Tensor]:
    """By the series of a / 2**s and phi_k(2a) = 2**-k (phi_0 phi_k + sum of phi_j / (k-j)! over 1 <= j <= k)."""
    scale = _balance(a.detach())
    a = a / scale[..., :, None] * scale[..., None, :]
    norm = torch.linalg.matrix_norm(a.detach(), ord=1)
    halvings = torch.ceil(torch.log2(norm.clamp_min(2.0**-20))).clamp_min(0)
    unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    small = a * torch.exp2(-halvings)[..., None, None]
    found = []
    for k in range(count + 1):
        series = unit * (1 / factorial(20 + k))
        for n in range(19, -1, -1):
            series = series @ small + unit * (1 / factorial(n + k))
        found.append(series)
    for level in range(int(halvings.max()) if halvings.numel() else 0):
        doubled = []
        for k, part in enumerate(found):
            total = found[0] @ part
            for j in range(1, k + 1):
                total = total + found[j] / factorial(k - j)
            doubled.append(total / 2**k)
        more = (halvings > level)[..., None, None]
        found = [torch.where(more, new, old) for new, old in zip(doubled, found, strict=True)]
    return [part * scale[..., :, None] / scale[..., None, :] for part in found]


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
