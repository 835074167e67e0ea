"""Constraints whose operator is singular: their right side must have no part that the operator cannot reach."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import InputError


def without(field: Tensor, null_space: Tensor) -> Tensor:
    """A field `(*batch, *space)` without its part along orthonormal vectors `(k, *space)`."""
    axes = tuple(range(1 - null_space.ndim, 0))
    for vector in null_space:
        field = field - (field * vector).sum(dim=axes, keepdim=True) * vector
    return field


def imbalance(right: Tensor, terms: Sequence[Tensor], null_space: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """The size of what a singular operator cannot reach, and that of the terms of a right side, for `unbalanced`.

    Args:
        right: `(*batch, *space)`.
        terms: what it is the sum of, each over the last `axes` axes.
        null_space: `(k, *space)`, orthonormal, of the transposed operator.
        axes: of one unknown's field.
    """
    space = tuple(range(1 - null_space.ndim, 0))
    parts = torch.stack([(right.detach() * vector).sum(dim=space) for vector in null_space])
    norms = [torch.linalg.vector_norm(term.detach(), dim=tuple(range(-axes, 0))) for term in terms]
    return torch.linalg.vector_norm(parts, dim=0), sum(norms[1:], start=norms[0])


def unbalanced(part: Tensor, size: Tensor) -> Tensor:
    """Whether a right side has more than rounding of what a singular operator cannot reach, row by row.

    Rounding is up to sqrt(eps) of the right side, since in a mean the rounding of many steps adds up.

    Args:
        part: size of what cannot be reached, such as |mean|, `(*batch)`.
        size: of the right side in the same norm (such as its root mean square), or the sum of the sizes of its terms
            where these may cancel, `(*batch)`.
    """
    return part > torch.finfo(size.dtype).eps ** 0.5 * size


def drifted(part: Tensor, size: Tensor) -> Tensor:
    """The same in the course of a run, up to eps^(1/4) of the right side: as that decays, the rounding of earlier steps
    stays in its mean.

    Args:
        part, size: see `unbalanced`.
    """
    return part > torch.finfo(size.dtype).eps ** 0.25 * size


def require_balanced(part: Tensor, size: Tensor, names: tuple[str, ...]) -> None:
    """Refuse a right side that is `unbalanced` in any row.

    Args:
        part, size: see there.
        names: of the fields that the constraints determine.

    Raises:
        InputError: with how large the part is.
    """
    wrong = unbalanced(part, size)
    if bool(wrong.any()):
        worst = float((part / size)[wrong].max())
        raise InputError(
            f"constraint on {', '.join(names)}: nothing fixes the value, so that the mean of the right side must be "
            f"zero, and it is {worst:.2e} of its size: subtract the mean, or give a Dirichlet condition on a side"
        )
