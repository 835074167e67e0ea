"""Fields between grids inside a network: cell averages and linear interpolation, for any numbers of points.

A grid of n points is taken as n equal cells of the same box. Both transfers are products with matrices, so that
gradients are the same to the last bit in every run, on the GPU too, and compile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def average(u: Tensor, shape: Sequence[int], nodes: Sequence[bool] | None = None) -> Tensor:
    """Averages over the cells of another grid of a field that is constant in each cell; integrals are kept.

    Args:
        u: `(..., *space)`.
        shape: points of the other grid along each axis of space.
        nodes: one bool an axis, whether it is periodic with point i of n in the middle of a cell around i/n, so that
            point 0 of both grids is at the same place; None and False: its cell reaches from i/n to (i + 1)/n.

    Returns:
        `(..., *shape)`.
    """
    centred = nodes or [False] * len(shape)
    for axis, (new, around) in enumerate(zip(shape, centred, strict=True), u.dim() - len(shape)):
        old = u.shape[axis]
        if old == new:
            continue
        if old % new == 0 and not around:
            u = u.unflatten(axis, (new, old // new)).mean(axis + 1)
        else:
            u = _along(u, axis, _overlaps(old, new, around, u))
    return u


def interpolate(u: Tensor, shape: Sequence[int], periodic: Sequence[bool]) -> Tensor:
    """Values at the cell centres of another grid, linear between those of this one.

    Args:
        u: `(..., *space)`.
        shape: points of the other grid along each axis of space.
        periodic: one bool an axis; on one that is not periodic, values beyond the outermost centres are those there.

    Returns:
        `(..., *shape)`.
    """
    for axis, (new, wraps) in enumerate(zip(shape, periodic, strict=True), u.dim() - len(shape)):
        old = u.shape[axis]
        if old == new:
            continue
        u = _double(u, axis, wraps) if new == 2 * old else _along(u, axis, _hats(old, new, wraps, u))
    return u


def _along(u: Tensor, axis: int, matrix: Tensor) -> Tensor:
    return torch.matmul(u.movedim(axis, -1), matrix.T).movedim(-1, axis)


def _double(u: Tensor, axis: int, wraps: bool) -> Tensor:
    """Interpolation to twice the points: 3/4 of the nearest value and 1/4 of the next."""
    n = u.shape[axis]
    first, last = u.narrow(axis, 0, 1), u.narrow(axis, n - 1, 1)
    before = torch.cat((last if wraps else first, u.narrow(axis, 0, n - 1)), axis)
    after = torch.cat((u.narrow(axis, 1, n - 1), first if wraps else last), axis)
    pair = torch.stack((0.75 * u + 0.25 * before, 0.75 * u + 0.25 * after), axis + 1)
    return pair.flatten(axis, axis + 1)


def _overlaps(old: int, new: int, around: bool, like: Tensor) -> Tensor:
    """`(new, old)`: the share of each new cell that lies in each old one."""
    # In units of 1/(2 old new), in which edges are whole numbers also for cells around points.
    back = 1 if around else 0
    lower = (2 * torch.arange(new, device=like.device)[:, None] - back) * old
    start = (2 * torch.arange(old, device=like.device) - back) * new
    length = torch.zeros(new, old, dtype=torch.float64, device=like.device)
    for turn in (-1, 0, 1) if around else (0,):
        moved = start + turn * 2 * old * new
        part = torch.minimum(lower + 2 * old, moved + 2 * new) - torch.maximum(lower, moved)
        length = length + part.clamp(min=0)
    return (length / (2 * old)).to(like.dtype)


def _hats(old: int, new: int, wraps: bool, like: Tensor) -> Tensor:
    """`(new, old)`: weights of linear interpolation."""
    place = (torch.arange(new, device=like.device, dtype=torch.float64) + 0.5) * old / new - 0.5
    below = place.floor()
    share = (place - below)[:, None]
    columns = torch.arange(old, device=like.device)

    def chosen(neighbour: Tensor) -> Tensor:
        index = neighbour.long()
        index = index % old if wraps else index.clamp(0, old - 1)
        return (index[:, None] == columns).double()

    return ((1 - share) * chosen(below) + share * chosen(below + 1)).to(like.dtype)
