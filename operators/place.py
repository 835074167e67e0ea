"""Where an operator was trained: the points, the box, and what holds on its boundary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from sciml.boundary import Condition
from sciml.discretization.inputs import resolve_on_side
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.time_functions import depends_on_time

from .resampling import resample

Points = Literal["cells", "nodes"]

_SAME_CORNER = 1e-5  # of the extent: coordinates are often stored in float32
_SAME_NUMBER = 1e-6  # relative
_COMPARED = 16  # places along an axis of a side where values that vary are compared
_SAME_VALUES = 0.05  # of their spread: grids of other spacing see them a little differently


@final
@dataclass(frozen=True)
class Place:
    """Where an operator was trained; `Place.of` makes it.

    Args:
        shape: points along each axis.
        lower, upper: corners of the domain, in the unit of length of the problem.
        periodic: one bool an axis.
        conditions: by unknown ("" for all), then by side ("x_lower", ..., "walls" of solid cells): kind and values of
            the condition. Values that vary along the side are given at 16 places along each axis, and values that
            change in time or by sample as None.
        points: "cells", their centres, or "nodes", of which the outermost stand on the boundary, but for periodic axes.
        solid: SHA-256 of which cells are solid, or None.
    """

    shape: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    periodic: tuple[bool, ...]
    conditions: Mapping[str, Mapping[str, Mapping[str, Any]]]
    points: Points = "cells"
    solid: str | None = None

    @classmethod
    def of(cls, domain: Grid, points: Points = "cells") -> Place:
        """That of values at the unknowns of a grid, or at the nodes between its cells."""
        nodes = [points == "nodes" and not wraps for wraps in domain.periodic]
        return cls(
            tuple(n + at for n, at in zip(domain.shape, nodes, strict=True)),
            domain.lower,
            domain.upper,
            domain.periodic,
            _describe(domain, "cells"),
            points,
            _digest(domain.solid),
        )

    @property
    def nodes(self) -> tuple[bool, ...]:
        """One bool an axis, as `resample` takes them."""
        return tuple(wraps or self.points == "nodes" for wraps in self.periodic)

    def nodes_of(self, grid: Grid) -> tuple[bool, ...]:
        """`nodes` of a grid of the same domain, with the same conditions and obstacles, or with none stated.

        A grid whose unknowns stand at nodes reaches half a spacing beyond the domain, as those of datasets do.

        Raises:
            InputError: it says what differs.
        """
        if not isinstance(grid, Grid):
            raise InputError(f"operator: grid is a sciml.Grid, got {type(grid).__name__}")
        points = self._points_of(grid)
        if grid.periodic != self.periodic:
            raise InputError(
                f"operator: trained with {_axes(self.periodic)}, and the grid has {_axes(grid.periodic)}; the "
                "conditions are part of what was learned"
            )
        self._check_solid(grid)
        theirs = _describe(grid, points)
        for unknown, sides in self.conditions.items():
            for where, name, other in _matching(unknown, theirs):
                for side, condition in sides.items():
                    if not _same(condition, other.get(side)):
                        raise InputError(
                            f"operator: trained with {_shown(condition)} at {side}{where}, and the grid has "
                            f"{_shown(other.get(side))} there{name}; the conditions are part of what was learned"
                        )
        return tuple(wraps or points == "nodes" for wraps in grid.periodic)

    def _points_of(self, grid: Grid) -> Points:
        kinds: tuple[Points, Points] = ("cells", "nodes")
        mine = (*self.lower, *self.upper)
        extent = max(high - low for low, high in zip(self.lower, self.upper, strict=True))
        for points in kinds:
            lower, upper = _corners(grid, points)
            other = (*lower, *upper)
            if len(mine) == len(other) and all(
                abs(a - b) <= _SAME_CORNER * extent for a, b in zip(mine, other, strict=True)
            ):
                return points
        raise InputError(
            f"operator: trained on the box {self.lower} to {self.upper}, and the grid reaches from {grid.lower} to "
            f"{grid.upper}; scale the problem to that box"
        )

    def _check_solid(self, grid: Grid) -> None:
        if _digest(grid.solid) == self.solid:
            return
        if self.solid is None:
            raise InputError("operator: trained without solid cells, and the grid has some")
        raise InputError(
            f"operator: trained with certain solid cells on a grid of {' x '.join(map(str, self.shape))}, and the grid "
            "has others; they are part of what was learned, and are not brought to other grids"
        )


def _corners(grid: Grid, points: Points) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the domain."""
    rim = [
        h / 2 if points == "nodes" and not wraps else 0.0 for h, wraps in zip(grid.spacing, grid.periodic, strict=True)
    ]
    lower = tuple(low + r for low, r in zip(grid.lower, rim, strict=True))
    return lower, tuple(high - r for high, r in zip(grid.upper, rim, strict=True))


def _describe(grid: Grid, points: Points) -> dict[str, dict[str, dict[str, Any]]]:
    """`conditions` of a grid."""
    obstacles = grid.walls if grid.solid is not None else {}
    by_unknown: set[str] = {*([] if next(iter(grid.boundary)) in grid.axes else grid.boundary)}
    by_unknown |= {*obstacles} if isinstance(obstacles, Mapping) else set()
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for unknown in sorted(by_unknown) or [""]:
        sides = grid.sides(unknown)
        found[unknown] = {
            f"{axis}_{side}": _describe_side(condition, grid, points, number, end)
            for number, axis in enumerate(grid.axes)
            for end, (side, condition) in enumerate(zip(("lower", "upper"), sides[axis], strict=True))
        }
        wall = obstacles.get(unknown) if isinstance(obstacles, Mapping) else obstacles
        if wall is not None:
            numbers = {word: float(v) if _is_number(v) else None for word, v in vars(wall).items()}
            found[unknown]["walls"] = {"kind": type(wall).__name__, **numbers}
    return found


def _describe_side(condition: Condition, grid: Grid, points: Points, axis: int, side: int) -> dict[str, Any]:
    values = {word: _value(value, grid, points, axis, side) for word, value in vars(condition).items()}
    return {"kind": type(condition).__name__, **values}


def _value(value: Any, grid: Grid, points: Points, axis: int, side: int) -> Any:
    """A number, nested lists of them, or None."""
    if _is_number(value):
        return float(value)
    name = f"the boundary at {grid.axes[axis]}_{('lower', 'upper')[side]}"
    if depends_on_time(value, grid.dimension, name):
        return None
    found = resolve_on_side(value, grid, axis, side, name)
    if not isinstance(found, Tensor) or found.numel() == 1:
        return float(found)
    face = [n for number, n in enumerate(grid.shape) if number != axis]
    if found.dim() > grid.dimension:
        return None
    found = found.detach().cpu().double().squeeze(axis - grid.dimension).expand(face)
    wraps = [flag for number, flag in enumerate(grid.periodic) if number != axis]
    nodes = [flag or points == "nodes" for flag in wraps]
    return resample(found, [_COMPARED] * len(face), wraps, nodes=nodes, to=wraps, held=True).tolist()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)


def _matching(
    unknown: str, conditions: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What of a grid's conditions is to agree with those of one unknown: two words for messages, and the sides."""
    mine = f" of {unknown}" if unknown else ""
    if unknown in conditions or "" in conditions:
        yield mine, "", conditions.get(unknown, conditions.get("", {}))
    elif unknown:
        yield mine, "", {}
    else:
        for name, sides in conditions.items():
            yield "", f" for {name}", sides


def _same(mine: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    if other is not None and "Unstated" in (mine["kind"], other["kind"]):
        return True  # as on the grids of datasets whose values stand on the boundary
    if other is None or mine["kind"] != other["kind"]:
        return False
    for word in mine.keys() - {"kind"}:
        if mine[word] is None:
            continue
        if other[word] is None:
            return False
        a, b = (torch.as_tensor(values[word], dtype=torch.float64) for values in (mine, other))
        spread = max(float(values.max() - values.min()) for values in (a, b))
        size = max(float(values.abs().max()) for values in (a, b))
        if float((a - b).abs().max()) > _SAME_NUMBER * size + _SAME_VALUES * spread:
            return False
    return True


def _shown(described: Mapping[str, Any] | None) -> str:
    if described is None:
        return "nothing"
    return f"{described['kind']}({', '.join(_words(v) for word, v in described.items() if word != 'kind')})"


def _words(value: Any) -> str:
    if value is None:
        return "values in time or by sample"
    if isinstance(value, list):
        values = torch.tensor(value)
        return f"values from {float(values.min()):.3g} to {float(values.max()):.3g}"
    return f"{value:g}"


def _axes(periodic: Sequence[bool]) -> str:
    names = [axis for axis, wraps in zip("xyz", periodic, strict=False) if wraps]
    return f"periodic axes {', '.join(names)}" if names else "no periodic axes"


def _digest(solid: Tensor | None) -> str | None:
    if solid is None or not bool(solid.any()):
        return None
    return hashlib.sha256(repr(tuple(solid.shape)).encode() + solid.cpu().numpy().tobytes()).hexdigest()
