"""The grid of the domain in which values of other programs stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.boundary import AXES, Periodic, read_sides, split_by_unknown
from sciml.errors import InputError
from sciml.grid import Grid

from .description import Points

_UNIFORM = 2e-3  # of the spacing: coordinates are often stored in float32


def grid_at(coordinates: Sequence[Tensor], boundary: Any, points: Points) -> Grid:
    """The domain of values that stand at these coordinates, as `grid_over` makes it.

    Args:
        coordinates: one tensor `(n,)` an axis, uniform and increasing. A last one that closes a periodic axis is no
            unknown of its own and must have been left out.
        boundary: as of a `Grid`.
        points: as of `grid_over`.

    Raises:
        InputError: coordinates that are not uniform and increasing, or a single node.
    """
    lower, upper = [], []
    for axis, places, wraps in zip(AXES, coordinates, _periodic(boundary, len(coordinates)), strict=False):
        n, places = len(places), places.to(torch.float64)
        if places.ndim != 1 or not n or not bool(torch.isfinite(places).all()):
            raise InputError(f"the coordinates along {axis} are finite numbers in one axis, got {tuple(places.shape)}")
        h = float(places[-1] - places[0]) / (n - 1) if n > 1 else 1.0
        steps = places.diff()
        if not h > 0 or bool(((steps - h).abs() > _UNIFORM * h).any()):
            raise InputError(
                f"the coordinates along {axis} must be uniform and increasing; their steps go from "
                f"{float(steps.min()):.6g} to {float(steps.max()):.6g}"
            )
        centred = points == "cells" and not wraps
        first = float(places[0]) - (h / 2 if centred else 0.0)
        lower.append(first)
        upper.append(first + (n if centred or wraps else n - 1) * h)
    return grid_over([len(places) for places in coordinates], lower, upper, boundary, points)


def grid_over(
    shape: Sequence[int], lower: Sequence[float], upper: Sequence[float], boundary: Any, points: Points
) -> Grid:
    """The grid of a domain in which so many values stand along each axis.

    Args:
        shape: values along each axis.
        lower: corner of the domain.
        upper: corner of the domain.
        boundary: as of a `Grid`.
        points: "cells" where values stand at the centres of the grid's cells; "nodes" where they stand between them,
            along an axis that is not periodic at its ends too: the grid then has one cell less.

    Raises:
        InputError: a single node along an axis.
    """
    cells = list(shape)
    for k, wraps in enumerate(_periodic(boundary, len(shape))):
        if points == "nodes" and not wraps:
            if shape[k] < 2:
                raise InputError(f"axis {AXES[k]} has {shape[k]} nodes; at least 2 stand on the ends of the domain")
            cells[k] -= 1
    return Grid(cells, lower, upper, boundary)


def _periodic(boundary: Any, dimension: int) -> list[bool]:
    axes = AXES[:dimension]
    by_unknown = split_by_unknown(boundary, axes)
    sides = read_sides(next(iter(by_unknown.values())) if by_unknown else boundary, axes)
    return [axis in sides and isinstance(sides[axis][0], Periodic) for axis in axes]
