"""Fields at the points of one grid, brought to those of another grid of the same box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def resample(
    u: Tensor,
    shape: Sequence[int],
    periodic: Sequence[bool],
    *,
    nodes: Sequence[bool] | None = None,
    to: Sequence[bool] | None = None,
    held: bool = False,
) -> Tensor:
    """Linear interpolation, and on a coarser grid means over the cells of its points; of second order, axis by axis.

    A cell reaches halfway to the next points; its mean is over values of the interpolant, as few as are no further
    apart than the points of u, so that cells made of whole cells have the mean of those. What stands on a wall stays.
    All is products with matrices: gradients are the same to the last bit in every run, and compile.

    Args:
        u: `(*any, *space)`.
        shape: points of the other grid along each axis.
        periodic: one bool an axis.
        nodes: one bool an axis: n points at i/n of a periodic axis and at i/(n - 1) of another, or at the centres of n
            equal cells, (i + 1/2)/n. None: nodes along periodic axes, as on a `Grid`.
        to: the same of the other grid; None: as `nodes`.
        held: whether values beyond the outermost centres are those there, rather than on the line through the outermost
            two: of first order at the walls, and within the range of u everywhere, as coefficients need it.

    Returns:
        `(*any, *shape)`.
    """
    before = periodic if nodes is None else nodes
    after = before if to is None else to
    first = u.dim() - len(shape)
    for axis, (new, wraps, a, b) in enumerate(zip(shape, periodic, before, after, strict=True), first):
        old = u.shape[axis]
        if old == new and a == b:
            continue
        if old % new == 0 and not (a or b):
            u = u.unflatten(axis, (new, old // new)).mean(axis + 1)
        elif new == 2 * old and not (a or b) and (held or wraps):
            u = _double(u, axis, wraps)
        else:
            u = torch.matmul(u.movedim(axis, -1), _weights(old, new, wraps, a, b, held, u).T).movedim(-1, axis)
    return u


def _double(u: Tensor, axis: int, wraps: bool) -> Tensor:
    """At the centres of half the cells: 3/4 of the nearest value and 1/4 of the next."""
    n = u.shape[axis]
    first, last = u.narrow(axis, 0, 1), u.narrow(axis, n - 1, 1)
    before = torch.cat((last if wraps else first, u.narrow(axis, 0, n - 1)), axis)
    after = torch.cat((u.narrow(axis, 1, n - 1), first if wraps else last), axis)
    pair = torch.stack((0.75 * u + 0.25 * before, 0.75 * u + 0.25 * after), axis + 1)
    return pair.flatten(axis, axis + 1)


def _weights(old: int, new: int, wraps: bool, nodes: bool, to: bool, held: bool, like: Tensor) -> Tensor:
    """`(new, old)`."""
    device = like.device
    cells, wanted = (max(1, n - 1) if at and not wraps else n for n, at in ((old, nodes), (new, to)))
    places = (torch.arange(new, dtype=torch.float64, device=device) + (0.0 if to else 0.5)) / wanted
    # Points on walls have no cell around them.
    width = torch.full_like(places, 1 / wanted)
    if to and not wraps:
        width = torch.where((places > 0) & (torch.arange(new, device=device) < new - 1), width, 0.0)
    columns = torch.arange(old, device=device)
    weights = torch.zeros(new, old, dtype=torch.float64, device=device)
    parts = -(-cells // wanted)
    for part in range(parts):
        place = (places + ((part + 0.5) / parts - 0.5) * width) * cells - (0.0 if nodes else 0.5)
        if held and not wraps:
            place = place.clamp(0, old - 1)
        left = place.floor()
        if not wraps:
            left = left.clamp(0, max(old - 2, 0))
        share = (place - left)[:, None]
        for index, weight in ((left, 1 - share), (left + 1, share)):
            weights = weights + weight * ((index.long() % old)[:, None] == columns)
    return (weights / parts).to(like.dtype)
