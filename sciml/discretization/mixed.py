"""Off-diagonal entries of a diffusion tensor, d/dx_k(b du/dx_l) with k and l different, up to walls.

The flux through a face across axis k is b du/dx_l, the mean of its values at the two edges of the face along l, where
four cells meet: du/dx_l is there the mean of two differences. At an edge on a wall across an axis m,

* du/dx_m follows from the value given there (Dirichlet), or
* from the flux given there (Neumann), which is the whole one, n.A grad u: in the outer half of the cells at the wall,
  entries b_kl become those of the Schur complement, b_kl - b_km b_ml / a_m.

Through a face on a Neumann wall the whole flux is given, and nothing is added. The discrete operator is symmetric if
the tensor is. The coefficient at an edge is the mean of b / sqrt(a_k a_l) times the root of harmonic means of a_k and
a_l, those of the operator on faces: by Cauchy's inequality, the energy of the faces around an edge is then positive for
every tensor of two axes that is positive definite in each cell, whatever its jumps. Of second order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..grid import Grid
from ..scheme import FiniteVolume
from .builder import Offset, StencilBuilder
from .inputs import Number
from .means import harmonic_mean
from .problem import Piece, Problem
from .walls import Everywhere, Right, Slab, Wall, has_zero


def add_mixed_flux(problem: Problem, builder: StencilBuilder, right: Right, unknown: str, piece: Piece) -> None:
    """Add outer d/dx_k(inner du/dx_l).

    Raises:
        InputError: for a Robin condition across k or l.
    """
    flux = face_flux(problem, unknown, piece)
    axis, grid = flux.axis, problem.grid
    dim, n = axis - grid.dimension, grid.shape[axis]
    factor = piece.outer * (1.0 / grid.spacing[axis])
    for offset, weight in flux.weights.items():
        above = tuple(o + (k == axis) for k, o in enumerate(offset))
        builder.add(above, factor * _narrow(weight, dim, 1, n))
        builder.add(offset, -(factor * _narrow(weight, dim, 0, n)))
    if isinstance(flux.datum, Tensor):
        lower, upper = (_narrow(flux.datum, dim, start, n) for start in (0, 1))
        right.append((Everywhere(), factor * (lower - upper)))


def mixed_flux(problem: Problem, unknown: str, piece: Piece, wall: Wall, u: Tensor) -> Tensor:
    """The outward flux inner du/dx_l n_k through a side of the box, of length 1 along its axis."""
    flux, dimension = face_flux(problem, unknown, piece), problem.grid.dimension
    face = Slab(wall.axis, problem.grid.shape[wall.axis] if wall.side else 0, dimension)
    total = torch.as_tensor(face.take(flux.datum))
    for offset, weight in flux.weights.items():
        if offset[wall.axis] == -wall.side:
            # What comes around an axis with walls meets a weight of zero.
            shifts = [0 if k == wall.axis else -o for k, o in enumerate(offset)]
            neighbours = torch.as_tensor(wall.take(u)).roll(shifts, dims=tuple(range(-dimension, 0)))
            total = total + torch.as_tensor(face.take(weight)) * neighbours
    return wall.outward * total


def mixed_slope(problem: Problem, unknown: str, wall: Wall, u: Tensor) -> Number:
    """The sum over l of n b_ml / a_m du/dx_l along a side across m: du/dn is the given flux over a_m without it."""
    total: Number = 0.0
    for axis in range(problem.grid.dimension):
        entry = 0.0 if axis == wall.axis else mixed_inner(problem, unknown, wall.axis, axis)
        if not _is_zero(entry):
            below, above = _beside(problem.grid, torch.as_tensor(wall.take(u)), axis)
            n, dim, h = problem.grid.shape[axis], axis - problem.grid.dimension, problem.grid.spacing[axis]
            difference = (_narrow(above, dim, 1, n) - _narrow(below, dim, 0, n)) / h
            cells = torch.full((n,), 0.5, dtype=u.dtype, device=u.device)
            if not problem.grid.periodic[axis]:
                cells[[0, -1]] = 1.0
            shape = [-1 if k == axis else 1 for k in range(problem.grid.dimension)]
            normal = problem.normal(unknown, wall.axis)
            total = total + wall.outward * wall.take(entry / normal) * (difference * cells.reshape(shape))
    return total


def mixed_inner(problem: Problem, unknown: str, flux_axis: int, axis: int) -> Number:
    """What stands before du/dx_axis in the flux along another axis in an unknown's own row, 0.0 if nothing."""
    total: Number = 0.0
    for piece in problem.own_pieces(unknown):
        if piece.mixed and piece.flux_axis == flux_axis and piece.derivative[axis]:
            total = total + piece.inner
    return total


@dataclass(frozen=True, eq=False)
class FaceFlux:
    """Fluxes through the n + 1 faces across an axis: the sum over offsets of weight(f) u(f + offset), and a datum.

    Cell f lies above face f. Tensors broadcast to `(*batch, *space)` with n + 1 in place of n along the axis.
    """

    axis: int
    weights: dict[Offset, Tensor]
    datum: Number


def face_flux(problem: Problem, unknown: str, piece: Piece) -> FaceFlux:
    """The flux inner du/dx_l of a term through the faces across its flux axis."""
    axis, across = piece.flux_axis or 0, piece.derivative.index(1)
    for wall in (*problem.walls(unknown, axis), *problem.walls(unknown, across)):
        if wall.kind == "robin":
            raise InputError(
                f"{wall.name}: Robin conditions do not go with off-diagonal entries of a tensor in this version; give "
                "a value or a flux"
            )
    faces = _Faces(problem, unknown, axis)
    faces.add_derivative(piece.inner, across)
    for wall in problem.walls(unknown, across):
        if wall.kind == "neumann":
            faces.add_given_flux(piece.inner, wall)
    return FaceFlux(axis, dict(faces.weights), faces.datum)


class _Faces:
    """The flux through the faces across one axis under construction.

    On a face, a field is the mean of both cells, at a Dirichlet wall that of the cell inside, and 0 at a Neumann wall,
    where nothing is to be added.
    """

    def __init__(self, problem: Problem, unknown: str, axis: int) -> None:
        self.problem, self.unknown, self.axis = problem, unknown, axis
        self.weights: dict[Offset, Tensor] = {}
        self.datum: Number = 0.0
        grid = problem.grid
        # Without walls all faces are alike.
        n, h = 0 if grid.periodic[axis] else grid.shape[axis], grid.spacing[axis]
        shares = [[0.5] * (n + 1), [0.5] * (n + 1)]  # of the cell below and above each face
        slopes = [[-1.0 / h] * (n + 1), [1.0 / h] * (n + 1)]  # their weights in du/dx_axis
        self.slope_datum: Number = 0.0
        for wall in problem.walls(unknown, axis):
            face, inside, given = n * wall.side, 1 - wall.side, wall.kind == "dirichlet"
            for side in (0, 1):
                shares[side][face] = float(given and side == inside)
                slopes[side][face] = shares[side][face] * (side - wall.side) * 2.0 / h
            if given and not _is_zero(wall.value):
                at_face = self._unit(axis, n + 1, face)
                self.slope_datum = self.slope_datum + (wall.outward * 2.0 / h) * (at_face * wall.value)
        self.shares = [self._vector(axis, values) for values in shares]
        self.slopes = [self._vector(axis, values) for values in slopes]

    def add_derivative(self, b: Number, across: int) -> None:
        """Add b du/dx_across, but for edges on Neumann walls."""
        grid = self.problem.grid
        n, h, dim = grid.shape[across], grid.spacing[across], across - grid.dimension
        edges = self._edge_values(b, across)
        closed = () if grid.periodic[across] else (0, n)
        inside = self._vector(across, [float(edge not in closed) for edge in range(n + 1 if closed else 1)])
        for side, share in enumerate(self.shares):
            lower, upper = (
                share * (0.5 / h) * _narrow(edges, dim, start, n) * _narrow(inside, dim, start, n) for start in (0, 1)
            )
            self._add(side, across, -1, -lower)
            self._add(side, across, 0, lower - upper)
            self._add(side, across, 1, upper)
        for wall in self.problem.walls(self.unknown, across):
            if wall.kind != "dirichlet":
                continue
            row = self._unit(across, n, (n - 1) * wall.side)
            weight = row * (wall.outward / h) * _narrow(edges, dim, n * wall.side, 1)
            for side, share in enumerate(self.shares):
                self._add(side, across, 0, -(weight * share))
            if not _is_zero(wall.value):
                self.datum = self.datum + weight * self._mean(wall.value)

    def add_given_flux(self, b: Number, wall: Wall) -> None:
        """Add b du/dx_m in the outer half of the cells at a Neumann wall across m, where
        du/dx_m = (n flux - sum over l of b_ml du/dx_l) / a_m.
        """
        grid, problem = self.problem.grid, self.problem
        normal = problem.normal(self.unknown, wall.axis)
        if has_zero(normal):
            raise InputError(f"{wall.name}: the coefficient of du/dn is 0 next to off-diagonal entries of a tensor")
        n = grid.shape[wall.axis]
        row = self._unit(wall.axis, n, (n - 1) * wall.side)
        half = 0.5 * b / normal
        if not _is_zero(wall.value):
            self.datum = self.datum + row * self._mean(wall.outward * wall.take(half) * wall.value)
        for other in range(grid.dimension):
            entry = mixed_inner(problem, self.unknown, wall.axis, other)
            if other == wall.axis or _is_zero(entry):
                continue
            if other != self.axis:
                self.add_derivative(-(row * (half * entry)), other)
                continue
            own = problem.normal(self.unknown, self.axis)
            weight = wall.take(_face_means(problem, own, self.axis)) * self._mean(wall.take(half * entry / own)) * row
            for side, slope in enumerate(self.slopes):
                self._add(side, wall.axis, 0, -(weight * slope))
            if not _is_zero(self.slope_datum):
                self.datum = self.datum - weight * wall.take(self.slope_datum)

    def _add(self, side: int, across: int, distance: int, weight: Tensor) -> None:
        """Add weight(f) u in the cell below (0) or above (1) face f, moved along another axis."""
        offset = [0] * self.problem.grid.dimension
        offset[self.axis], offset[across] = side - 1, distance
        known = self.weights.get(tuple(offset))
        self.weights[tuple(offset)] = weight if known is None else known + weight

    def _mean(self, field: Number) -> Tensor:
        """A field of cells on the faces."""
        below, above = _beside(self.problem.grid, field, self.axis)
        return self.shares[0] * below + self.shares[1] * above

    def _edge_values(self, b: Number, across: int) -> Number:
        """A coefficient where faces across both axes meet."""
        problem, axes = self.problem, (self.axis, across)
        first, second = (problem.normal(self.unknown, axis) for axis in axes)
        lows, highs = zip(problem.bounds(first), problem.bounds(second), strict=True)
        if min(lows) <= 0.0 <= max(highs):
            return _mean_of_four(problem.grid, b, axes)
        means = [
            harmonic_mean(*_beside(problem.grid, _face_means(problem, value, axis), other))
            for value, axis, other in ((first, *axes), (second, *axes[::-1]))
        ]
        return _mean_of_four(problem.grid, b / (first * second) ** 0.5, axes) * (means[0] * means[1]) ** 0.5

    def _vector(self, axis: int, values: list[float]) -> Tensor:
        grid = self.problem.grid
        shape = [-1 if k == axis else 1 for k in range(grid.dimension)]
        return torch.tensor(values, dtype=grid.dtype, device=grid.device).reshape(shape)

    def _unit(self, axis: int, n: int, place: int) -> Tensor:
        return self._vector(axis, [float(k == place) for k in range(n)])


def _face_means(problem: Problem, value: Number, axis: int) -> Number:
    """A diagonal entry on all n + 1 faces across its axis, by the mean of the scheme."""
    below, above = _beside(problem.grid, value, axis)
    if isinstance(problem.scheme, FiniteVolume) and problem.scheme.average == "harmonic":
        return harmonic_mean(below, above)
    return 0.5 * (below + above)


def _mean_of_four(grid: Grid, value: Number, axes: tuple[int, int]) -> Number:
    for axis in axes:
        below, above = _beside(grid, value, axis)
        value = below if below is above else 0.5 * (below + above)
    return value


def _beside(grid: Grid, value: Number, axis: int) -> tuple[Number, Number]:
    """A field of cells below and above each of the n + 1 faces across an axis; beyond a wall it goes on as it is."""
    dim = axis - grid.dimension
    if not isinstance(value, Tensor) or value.shape[dim] == 1:
        return value, value
    n = value.shape[dim]
    first, last = value.narrow(dim, 0, 1), value.narrow(dim, n - 1, 1)
    if grid.periodic[axis]:
        first, last = last, first
    extended = torch.cat([first, value, last], dim=dim)
    return extended.narrow(dim, 0, n + 1), extended.narrow(dim, 1, n + 1)


def _narrow(value: Number, dim: int, start: int, length: int) -> Number:
    return value.narrow(dim, start, length) if isinstance(value, Tensor) and value.shape[dim] > 1 else value


def _is_zero(value: Number) -> bool:
    return not isinstance(value, Tensor) and value == 0.0
