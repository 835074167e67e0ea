"""Uniform rectangular grids of one to three axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import isfinite, prod
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from .boundary import (
    AXES,
    Boundary,
    Dirichlet,
    Neumann,
    Periodic,
    SideCondition,
    SidesByAxis,
    read_sides,
    split_by_unknown,
)
from .differentiation import kept
from .errors import InputError
from .voxelization import Method, Surface, voxelize


@dataclass(frozen=True, eq=False, init=False)
class Grid:
    """A box with a uniform grid of unknowns, spacing h = (upper - lower)/n along each axis.

    Unknowns stand at cell centres, x_i = lower + (i + 1/2) h, and on a periodic axis at x_i = lower + i h; boundary
    values stand on faces.

    Args:
        shape: number of unknowns along each axis, one to three axes; an int for one axis.
        lower: lower corner, one number an axis or one for all, in the unit of length of the problem.
        upper: upper corner, as `lower`.
        boundary: one condition for all sides; a dict by axis, `{"x": (Dirichlet(0), Neumann(0)), "y": Periodic()}`;
            or a dict of these by unknown. Afterwards a dict axis -> (lower, upper), or unknown -> that.
        solid: bool tensor of `shape`, True in cells that are no part of the domain, or None.
        walls: condition on the faces between fluid and solid cells, or a dict of them by unknown.
        device: where tensors made from the grid live.
        dtype: torch.float64 or torch.float32.

    Raises:
        InputError: for anything that does not fit together, with what would.
    """

    shape: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    boundary: dict[str, Any]
    solid: Tensor | None = field(repr=False)
    walls: SideCondition | Mapping[str, SideCondition]
    device: torch.device
    dtype: torch.dtype

    def __init__(
        self,
        shape: int | Sequence[int],
        lower: float | Sequence[float] = 0.0,
        upper: float | Sequence[float] = 1.0,
        boundary: Boundary = Dirichlet(0.0),  # noqa: B008 (frozen)
        solid: Tensor | None = None,
        walls: SideCondition | Mapping[str, SideCondition] = Neumann(0.0),  # noqa: B008 (frozen)
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        lengths = _read_shape(shape)
        axes = AXES[: len(lengths)]
        low, high = _read_corner(lower, lengths, "lower"), _read_corner(upper, lengths, "upper")
        for axis, start, stop in zip(axes, low, high, strict=True):
            if not stop > start:
                raise InputError(
                    f"Grid: the spacing along {axis} would not be positive: lower {start}, upper {stop}; "
                    "upper must be greater"
                )
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"Grid: dtype is torch.float64 or torch.float32, got {dtype}")
        try:
            place = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"Grid: {device!r} is not a device") from error
        _check_walls(walls)
        put = object.__setattr__
        put(self, "shape", lengths)
        put(self, "lower", low)
        put(self, "upper", high)
        put(self, "boundary", _read_boundary(boundary, axes))
        put(self, "solid", _read_solid(solid, lengths, place))
        put(self, "walls", walls)
        put(self, "device", place)
        put(self, "dtype", dtype)

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return AXES[: len(self.shape)]

    @cached_property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring unknowns, one number an axis."""
        return tuple((high - low) / n for n, low, high in zip(self.shape, self.lower, self.upper, strict=True))

    @property
    def cell_volume(self) -> float:
        """Product of the spacings."""
        return prod(self.spacing)

    @cached_property
    def periodic(self) -> tuple[bool, ...]:
        """One bool an axis."""
        sides = self.sides()
        return tuple(isinstance(sides[axis][0], Periodic) for axis in self.axes)

    @property
    def boundaries(self) -> tuple[str, ...]:
        """Names of the boundaries: `x_lower`, `x_upper`, ... of the axes that are not periodic, `walls` of solids."""
        names = [f"{a}_{s}" for a, wraps in zip(self.axes, self.periodic, strict=True) if not wraps for s in _SIDES]
        return (*names, *(["walls"] if self.solid is not None else []))

    @kept
    def axis_coordinates(self) -> tuple[Tensor, ...]:
        """Where the unknowns stand along each axis: tensors of shape `(n,)`."""
        return tuple(self._places(axis, 0.0 if wraps else 0.5, 0) for axis, wraps in enumerate(self.periodic))

    @kept
    def coordinates(self) -> tuple[Tensor, ...]:
        """Where the unknowns stand: one tensor of the grid's shape an axis (views of `axis_coordinates`)."""
        return torch.meshgrid(*self.axis_coordinates, indexing="ij")

    def face_coordinates(self, axis: int) -> tuple[Tensor, ...]:
        """Centres of the faces across an axis: one tensor an axis, with n + 1 places along `axis`, the ends included.

        Face i lies half a spacing below unknown i, face i + 1 half a spacing above it.
        """
        places = list(self.axis_coordinates)
        places[axis] = self._places(axis, -0.5 if self.periodic[axis] else 0.0, 1)
        return torch.meshgrid(*places, indexing="ij")

    def sides(self, unknown: str | None = None) -> SidesByAxis:
        """Conditions by axis, (lower, upper), of one unknown (any, if the grid does not tell them apart).

        Raises:
            InputError: if the boundary is given by unknown and this one is not among them.
        """
        by_axis = next(iter(self.boundary)) in self.axes
        if by_axis:
            sides: SidesByAxis = self.boundary
        elif unknown is None:
            sides = next(iter(self.boundary.values()))
        elif unknown in self.boundary:
            sides = self.boundary[unknown]
        else:
            raise InputError(
                f"the grid's boundary is given for {', '.join(self.boundary)}, and not for the unknown {unknown!r}"
            )
        return sides

    def voxelize(self, surface: Surface, *, method: Method | None = None) -> Tensor:
        """Where the unknowns of a grid of three axes lie inside a surface of triangles, for `solid=` or a coefficient.

        A closed surface is decided exactly, by counting crossings along lines (`voxelization.py` says how ties break);
        shells inside shells are hollow. The surface may reach out of the grid; along periodic axes it is not repeated.

        Args:
            surface: path of a file in a format that meshio reads (.stl, .obj, .ply, ...), a mesh of tetrahedra, or a
                pair of points `(n, 3)`, in the grid's unit of length, and triangles `(m, 3)`, the numbers of the points
                at their corners.
            method: None for a surface that must be closed with all triangles turned the same way (`surface_check`
                says whether). "parity" for one that must be closed, whichever way its triangles are turned. "winding"
                for one with holes, or of bodies that overlap: inside is where the generalized winding number, of
                either sign, is more than one half, in the box that holds the surface. It takes a time in proportion to
                unknowns times open edges.

        Returns:
            bool of the grid's shape, on its device.

        Raises:
            InputError: for a surface that is not closed, with the number of edges at fault; for one that lies outside
                the grid or has no unknown inside, with the places of both; for a grid that has not three axes.
        """
        return voxelize(self, surface, method)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Grid:
        """The same grid for another device or dtype; tensors in it (solid, boundary values) go with it."""
        device = self.device if device is None else torch.device(device)
        dtype = self.dtype if dtype is None else dtype
        return replace(
            self,
            device=device,
            dtype=dtype,
            solid=None if self.solid is None else self.solid.to(device),
            boundary=_moved(self.boundary, device, dtype),
            walls=_moved(self.walls, device, dtype),
        )

    def _places(self, axis: int, shift: float, extra: int) -> Tensor:
        steps = torch.arange(self.shape[axis] + extra, dtype=torch.float64, device=self.device)
        return (self.lower[axis] + (steps + shift) * self.spacing[axis]).to(self.dtype)


_SIDES = ("lower", "upper")


def _read_shape(shape: Any) -> tuple[int, ...]:
    lengths = (shape,) if isinstance(shape, Integral) else shape
    if not isinstance(lengths, Sequence) or not 1 <= len(lengths) <= len(AXES):
        raise InputError(f"Grid: shape is one to three positive integers, got {shape!r}")
    for length in lengths:
        if not isinstance(length, Integral) or isinstance(length, bool) or length < 1:
            raise InputError(f"Grid: shape is one to three positive integers, got {tuple(lengths)!r}")
    return tuple(int(length) for length in lengths)


def _read_corner(corner: Any, shape: tuple[int, ...], name: str) -> tuple[float, ...]:
    numbers = (corner,) * len(shape) if isinstance(corner, Real) else corner
    if not isinstance(numbers, Sequence) or len(numbers) != len(shape):
        raise InputError(f"Grid: {name} is one number for each of the {len(shape)} axes, got {corner!r}")
    for number in numbers:
        if not isinstance(number, Real) or isinstance(number, bool) or not isfinite(number):
            raise InputError(f"Grid: {name} is one finite number an axis, got {corner!r}")
    return tuple(float(number) for number in numbers)


def _read_boundary(boundary: Boundary, axes: tuple[str, ...]) -> dict[str, Any]:
    by_unknown = split_by_unknown(boundary, axes)
    if by_unknown is None:
        return _complete_sides(boundary, axes, "boundary")
    result = {name: _complete_sides(item, axes, f"boundary[{name!r}]") for name, item in by_unknown.items()}
    for axis in axes:
        if len({isinstance(sides[axis][0], Periodic) for sides in result.values()}) > 1:
            raise InputError(f"boundary: axis {axis!r} is periodic for one unknown and not for another")
    return result


def _complete_sides(boundary: Boundary, axes: tuple[str, ...], where: str) -> SidesByAxis:
    sides = read_sides(boundary, axes, where)
    missing = [axis for axis in axes if axis not in sides]
    if missing:
        raise InputError(f"{where}: nothing is said about axis {', '.join(missing)}; give a condition for every axis")
    return {axis: sides[axis] for axis in axes}


def _read_solid(solid: Any, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
    if solid is None:
        return None
    if not isinstance(solid, Tensor) or solid.dtype != torch.bool:
        kind = f"a tensor of {solid.dtype}" if isinstance(solid, Tensor) else type(solid).__name__
        raise InputError(f"Grid: solid is a bool tensor, True inside the obstacles; got {kind}")
    if tuple(solid.shape) != shape:
        raise InputError(f"Grid: solid has shape {tuple(solid.shape)}, expected the grid's {shape}")
    if solid.device.type != device.type:
        raise InputError(f"Grid: solid is on {solid.device} and the grid on {device}; move one of them")
    if bool(solid.all()):
        raise InputError("Grid: every cell is solid; nothing is left to solve on")
    return solid


def _check_walls(walls: Any) -> None:
    conditions = walls.values() if isinstance(walls, Mapping) else (walls,)
    for condition in conditions:
        if not isinstance(condition, SideCondition):
            raise InputError(f"Grid: walls is Dirichlet, Neumann or Robin, or a dict of them by unknown, got {walls!r}")


def _moved(boundary: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The conditions in nested dicts and pairs with their tensors on another device and of another dtype."""
    if isinstance(boundary, Mapping):
        return {name: _moved(item, device, dtype) for name, item in boundary.items()}
    if isinstance(boundary, tuple):
        return tuple(_moved(item, device, dtype) for item in boundary)
    values = {item.name: getattr(boundary, item.name) for item in fields(boundary)}
    moved = {name: v.to(device=device, dtype=dtype) for name, v in values.items() if isinstance(v, Tensor)}
    return replace(boundary, **moved)
