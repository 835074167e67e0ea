"""Fields at the unknowns of one Grid, at those of another Grid of the same box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cell_transfer import average


def resample(u: Tensor, shape: Sequence[int], periodic: Sequence[bool], *, held: bool = False) -> Tensor:
    """A field on another grid, to second order, an axis at a time.

    Unknowns stand at cell centres, and along a periodic axis at the lower ends of the cells, the first at the same
    place on all grids. A coarser grid has the means over its cells (along a periodic axis those around its points), so
    that the integral stays; a finer one has linear interpolants, which go on as lines from the outermost centres to the
    walls, or stay what they are there.

    Args:
        u: `(*any, *space)`.
        shape: of the other grid.
        periodic: one bool an axis.
        held: whether values beyond the outermost centres are those there: of first order at the walls, and within the
            range of u everywhere, as coefficients need it.

    Returns:
        `(*any, *shape)`.
    """
    first = u.dim() - len(shape)
    u = average(u, [min(n, old) for n, old in zip(shape, u.shape[first:], strict=True)], periodic)
    for axis, (n, wraps) in enumerate(zip(shape, periodic, strict=True), first):
        if n != u.shape[axis]:
            u = torch.matmul(u.movedim(axis, -1), _lines(u.shape[axis], n, wraps, held, u).T).movedim(-1, axis)
    return u


def _lines(old: int, new: int, periodic: bool, held: bool, like: Tensor) -> Tensor:
    """Weights of linear interpolation, `(new, old)`."""
    offset = 0.0 if periodic else 0.5
    places = (torch.arange(new, dtype=torch.float64, device=like.device) + offset) * old / new - offset
    if held and not periodic:
        places = places.clamp(0, old - 1)
    left = places.floor().long()
    if not periodic:
        left = left.clamp(0, max(old - 2, 0))
    share = (places - left)[:, None]
    columns = torch.arange(old, device=like.device)
    before, after = ((index % old)[:, None] == columns for index in (left, left + 1))
    return ((1 - share) * before + share * after).to(like.dtype)
