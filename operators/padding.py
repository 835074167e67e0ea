"""Fields beyond their walls: what a convolution sees outside the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from sciml.errors import InputError

Side = Literal["zeros", "even", "odd", "reflect", "circular"]
"""What stands one point beyond a wall: zero; the last value again (even about the wall, which is half a cell away:
Neumann's condition); its negative (odd about the wall: Dirichlet's); the last but one value (even about the last
point, as where points are nodes; a single point is repeated); the value of the other end (periodic)."""
Sides = tuple[tuple[Side, Side], ...]
"""A pair, lower and upper, for each axis of space."""

SIDES: tuple[Side, ...] = get_args(Side)


def read_sides(padding: Side | Sequence[Side | Sequence[Side]], dimension: int) -> Sides:
    """Padding as callers give it, one word for all sides, or one word or pair an axis, as a pair for every axis.

    Raises:
        InputError: an unknown word, not one entry an axis, or "circular" on one side of an axis alone.
    """
    entries = [padding] * dimension if isinstance(padding, str) else list(padding)
    pairs = [(entry, entry) if isinstance(entry, str) else tuple(entry) for entry in entries]
    if len(pairs) != dimension or any(len(pair) != 2 for pair in pairs):
        raise InputError(
            f"padding: {padding!r} is neither one word nor a word or a pair (lower, upper) for each of {dimension} axes"
        )
    for axis, pair in zip("xyz", pairs, strict=False):
        for side in pair:
            if side not in SIDES:
                raise InputError(f"padding: {side!r} along {axis} is none of {', '.join(SIDES)}")
        if "circular" in pair and pair != ("circular", "circular"):
            raise InputError(f"padding: along {axis} one side alone is circular; a periodic axis has no other side")
    return tuple(pairs)  # type: ignore[arg-type]


def pad_by_one(x: Tensor, sides: Sides) -> Tensor:
    """A field with one more point beyond each side.

    Args:
        x: `(batch, channel, *space)`.
        sides: a pair for each axis of space.

    Returns:
        `(batch, channel, *space)` with two more points along each axis.
    """
    if all(pair == ("zeros", "zeros") for pair in sides):
        return functional.pad(x, (1, 1) * len(sides))
    for axis, (lower, upper) in enumerate(sides, 2):
        x = torch.cat((_beyond(x, axis, lower, 0), x, _beyond(x, axis, upper, -1)), axis)
    return x


def _beyond(x: Tensor, axis: int, side: Side, end: int) -> Tensor:
    """The layer of points beyond one end (0 or -1) of an axis."""
    if side == "circular":
        return x.narrow(axis, 0 if end else x.shape[axis] - 1, 1)
    n = x.shape[axis]
    if side == "reflect":
        return x.narrow(axis, min(1, n - 1) if end == 0 else max(n - 2, 0), 1)
    last = x.narrow(axis, 0 if end == 0 else x.shape[axis] - 1, 1)
    if side == "even":
        return last
    return -last if side == "odd" else torch.zeros_like(last)
