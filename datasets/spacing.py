"""The grid that puts its unknowns where the values of other programs stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.boundary import AXES, Periodic, read_sides
from sciml.errors import InputError
from sciml.grid import Grid

from .description import Points

_UNIFORM = 2e-3  # of the spacing: coordinates are often stored in float32


def grid_at(coordinates: Sequence[Tensor], boundary: Any, points: Points = "cells") -> tuple[Grid, Points]:
    """The grid whose unknowns stand at these coordinates.

    Where the first and last of them lie on the boundary ("nodes"), the grid reaches half a spacing beyond the domain.

    Args:
        coordinates: one tensor `(n,)` an axis, uniform and increasing. A last one that closes a periodic axis is no
            unknown of its own and must have been left out.
        boundary: as of a `Grid`.
        points: "cells" or "nodes".

    Returns:
        The grid, and "cells" in place of "nodes" where all axes are periodic: there is no difference then.

    Raises:
        InputError: coordinates that are not uniform and increasing.
    """
    axes = AXES[: len(coordinates)]
    lower, upper = [], []
    sides = read_sides(boundary, axes)
    wraps = [isinstance(sides[axis][0], Periodic) for axis in axes]
    for axis, places, periodic in zip(axes, coordinates, wraps, strict=True):
        n, places = len(places), places.to(torch.float64)
        if places.ndim != 1 or not bool(torch.isfinite(places).all()):
            raise InputError(f"the coordinates along {axis} are finite numbers in one axis, got {tuple(places.shape)}")
        h = float(places[-1] - places[0]) / (n - 1) if n > 1 else 1.0
        steps = places.diff()
        if not h > 0 or bool(((steps - h).abs() > _UNIFORM * h).any()):
            raise InputError(
                f"the coordinates along {axis} must be uniform and increasing; their steps go from "
                f"{float(steps.min()):.6g} to {float(steps.max()):.6g}"
            )
        first = float(places[0]) - (0.0 if periodic else h / 2)
        lower.append(first)
        upper.append(first + n * h)
    grid = Grid(tuple(len(places) for places in coordinates), lower, upper, boundary)
    return grid, "cells" if all(wraps) else points


def grid_over(
    shape: Sequence[int], lower: Sequence[float], upper: Sequence[float], boundary: Any, points: Points
) -> tuple[Grid, Points]:
    """The grid for so many values along each axis of a domain.

    Args:
        shape: values along each axis.
        lower: corner of the domain.
        upper: corner of the domain.
        boundary: as of a `Grid`.
        points: "cells", or "nodes" where the first and last value along an axis that is not periodic stand on the
            boundary.

    Raises:
        InputError: fewer than two nodes along an axis.
    """
    axes = AXES[: len(shape)]
    sides = read_sides(boundary, axes)
    low, high = list(lower), list(upper)
    for k, axis in enumerate(axes):
        if points == "nodes" and not isinstance(sides[axis][0], Periodic):
            if shape[k] < 2:
                raise InputError(f"axis {axis} has {shape[k]} nodes; at least 2 stand on the ends of the domain")
            rim = (high[k] - low[k]) / (shape[k] - 1) / 2
            low[k], high[k] = low[k] - rim, high[k] + rim
    periodic = all(isinstance(sides[axis][0], Periodic) for axis in axes)
    return Grid(tuple(shape), low, high, boundary), "cells" if periodic else points
