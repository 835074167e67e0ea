"""Fluxes of conservation laws from limited slopes, for solutions with shocks.

In every cell each unknown is taken for linear, with a limited slope; on a face that gives a state from either side, and
the flux between them is that of Lax and Friedrichs with the local wave speed a (Rusanov's),
(f(u-) + f(u+))/2 - a (u+ - u-)/2. Sources: van Leer, J. Comput. Phys. 32 (1979) 101-136; Rusanov, USSR Comput. Math.
Math. Phys. 1 (1962) 304-320; Kurganov and Tadmor, J. Comput. Phys. 160 (2000) 241-282, equation 4.4.

On a wall the flux is f of the state there, which the conditions give: u of Dirichlet's, the cell's own with the slope
of Neumann's and Robin's. One unknown by itself leaves freely where waves run outward, whatever value is given: where
the jump between the cell and that value would move out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import sympy
import torch
from torch import Tensor

from ..equations.evaluation import evaluate_all
from ..equations.residuals import partial
from ..errors import InputError
from .inputs import Number
from .jets import JetMap
from .limiters import Limiter, spectral_radius
from .problem import Problem
from .second_order import extrapolated_to_face
from .walls import Wall

Entry = tuple[str, tuple[int, ...], Number]
Cells = dict[str, Number]


@dataclass(frozen=True)
class Law:
    """Unknowns whose fluxes hang together, and these fluxes.

    Args:
        names: of the unknowns.
        fluxes: for each axis one expression an unknown.
        slopes: for each axis the derivatives of these, `slopes[axis][i][j]` of flux i by unknown j.
    """

    names: tuple[str, ...]
    fluxes: tuple[tuple[sympy.Expr, ...], ...]
    slopes: tuple[tuple[tuple[sympy.Expr, ...], ...], ...]

    @cached_property
    def others(self) -> tuple[tuple[str, ...], ...]:
        """By axis the names of what else stands in the fluxes."""
        found = ({symbol.name for flux in axis for symbol in flux.free_symbols} for axis in self.fluxes)
        return tuple(tuple(sorted(names.difference(self.names))) for names in found)

    @cached_property
    def curved(self) -> tuple[bool, ...]:
        """By axis whether wave speeds depend on the unknowns."""
        own = {sympy.Symbol(name, real=True) for name in self.names}
        return tuple(any(slope.free_symbols & own for row in axis for slope in row) for axis in self.slopes)


def laws_of(fluxes: Mapping[str, Sequence[sympy.Expr]]) -> list[Law]:
    """The conservation laws, those of unknowns that stand in each other's fluxes together.

    Args:
        fluxes: by unknown, one expression an axis.
    """
    groups: list[set[str]] = []
    for name, own in fluxes.items():
        near = {name} | {symbol.name for flux in own for symbol in flux.free_symbols if symbol.name in fluxes}
        joined = [group for group in groups if group & near]
        groups = [group for group in groups if group not in joined]
        groups.append(near.union(*joined))
    laws = []
    for group in groups:
        names = tuple(name for name in fluxes if name in group)
        symbols = [sympy.Symbol(name, real=True) for name in names]
        by_axis = tuple(zip(*(fluxes[name] for name in names), strict=True))
        slopes = tuple(tuple(tuple(partial(flux, s) for s in symbols) for flux in axis) for axis in by_axis)
        laws.append(Law(names, by_axis, slopes))
    return laws


class LimitedFlux:
    """The divergence of the fluxes of a conservation law, for the row of one of its unknowns.

    Args:
        law: the fluxes.
        unknown: whose row.
        problem: on the grid.
        tangents: derivatives of other unknowns that stand in the fluxes, by symbol.
        limiter: of the slopes.
    """

    def __init__(
        self, law: Law, unknown: str, problem: Problem, tangents: Mapping[sympy.Symbol, JetMap], limiter: Limiter
    ) -> None:
        self.law = law
        self.place = law.names.index(unknown)
        self.problem = problem
        self.tangents = dict(tangents)
        self.limiter = limiter

    def at(self, problem: Problem, tangents: Mapping[sympy.Symbol, JetMap]) -> LimitedFlux:
        """See `FaceFlux.at`."""
        other = copy.copy(self)
        other.problem, other.tangents = problem, dict(tangents)
        return other

    def divergence(self, cells: Cells) -> Tensor:
        """The sum over axes of df/dx, `(*batch, *space)`; see `FaceFlux.divergence`."""
        # The rows of a law share the states on faces: what the first of them computes is kept with the cells.
        key = f"limited#{'#'.join(self.law.names)}#{{}}"
        if key.format(0) not in cells:
            totals: list[Tensor | None] = [None] * len(self.law.names)
            for axis, fluxes in enumerate(self.law.fluxes):
                if all(flux == 0 for flux in fluxes):
                    continue
                for row, part in enumerate(self._along(axis, cells)):
                    known = totals[row]
                    totals[row] = part if known is None else known + part
            for row, total in enumerate(totals):
                cells[key.format(row)] = 0.0 if total is None else total
        return torch.as_tensor(cells[key.format(self.place)])

    def outflow(self, cells: Cells, boundary: str) -> Iterator[tuple[Wall, Number]]:
        """See `FaceFlux.outflow`."""
        for axis in range(self.problem.grid.dimension):
            walls = {name: self.problem.walls(name, axis) for name in self.law.names}
            for number, wall in enumerate(walls[self.law.names[0]]):
                if wall.name == boundary:
                    yield wall, self._at_wall(axis, number, walls, cells).outflow[self.place]

    def linearized(self, cells: Cells, factor: Number, lagged: bool) -> Iterator[Entry]:
        """Limited slopes have no stencil for a derivative."""
        raise InputError(
            "fluxes with limited slopes have no derivative as a matrix; take FiniteVolume(limiter='none') for it"
        )

    def _along(self, axis: int, cells: Cells) -> list[Tensor]:
        """df/dx along one axis, by row."""
        law, grid = self.law, self.problem.grid
        dim, h, periodic = axis - grid.dimension, grid.spacing[axis], grid.periodic[axis]
        walls = {name: self.problem.walls(name, axis) for name in law.names}
        ends = [self._at_wall(axis, number, walls, cells) for number in range(len(walls[law.names[0]]))]
        below: Cells = {}
        above: Cells = {}
        for place, name in enumerate(law.names):
            u = _dense(cells[name])
            back, forth = self._differences(u, axis)
            for wall, end in zip(walls[name], ends, strict=True):
                if wall.side:
                    forth = wall.place.put(forth, end.differences[place])
                else:
                    back = wall.place.put(back, end.differences[place])
            half = 0.5 * self.limiter(back, forth)
            below[name], above[name] = self._onto_faces(u + half, u - half, dim, periodic)
        shared = self._shared_on_faces(axis, cells)
        jumps = [_dense(above[name]) - _dense(below[name]) for name in law.names]
        speed = self._speed(axis, {**cells, **shared}, below, above)
        sides = [evaluate_all(law.fluxes[axis], {**cells, **shared, **states}) for states in (below, above)]
        results = []
        for row, jump in enumerate(jumps):
            flux = 0.5 * (sides[0][row] + sides[1][row]) - 0.5 * speed * jump
            if periodic:
                if grid.solid is not None:
                    flux = flux * self.problem.geometry.open_faces(axis).narrow(axis, 1, grid.shape[axis])
                total = (flux - flux.roll(1, dims=dim)) / h
            else:
                if grid.solid is not None:
                    flux = flux * self.problem.geometry.open_faces(axis).narrow(axis, 1, grid.shape[axis] - 1)
                padded = torch.nn.functional.pad(flux, [0, 0] * (-dim - 1) + [1, 1])
                total = torch.diff(padded, dim=dim) / h
            for wall, end in zip(walls[law.names[0]], ends, strict=True):
                total = wall.place.put(total, end.outflow[row] / h)
            results.append(total)
        return results

    def _differences(self, u: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """To the neighbours below and above, 0 across closed faces."""
        grid = self.problem.grid
        dim = axis - grid.dimension
        if grid.periodic[axis]:
            forth = u.roll(-1, dims=dim) - u
            back = forth.roll(1, dims=dim)
        else:
            inside = torch.diff(u, dim=dim)
            filler = [0, 0] * (-dim - 1)
            back = torch.nn.functional.pad(inside, [*filler, 1, 0])
            forth = torch.nn.functional.pad(inside, [*filler, 0, 1])
        if grid.solid is not None:
            back, forth = back * self.problem.geometry.open(axis, 0), forth * self.problem.geometry.open(axis, 1)
        return back, forth

    def _onto_faces(self, upper: Tensor, lower: Tensor, dim: int, periodic: bool) -> tuple[Tensor, Tensor]:
        """States below and above each face, from those at the upper and the lower end of each cell."""
        if periodic:
            return upper, lower.roll(-1, dims=dim)
        n = upper.shape[dim]
        return upper.narrow(dim, 0, n - 1), lower.narrow(dim, 1, n - 1)

    def _shared_on_faces(self, axis: int, cells: Cells) -> Cells:
        """What else stands in the fluxes, a mean of its values in the two cells."""
        grid = self.problem.grid
        dim, found = axis - grid.dimension, {}
        for name in self.law.others[axis]:
            value = cells[name]
            if isinstance(value, Tensor) and value.shape[dim] > 1:
                found[name] = sum(self._onto_faces(value, value, dim, grid.periodic[axis])) * 0.5
        return found

    def _speed(self, axis: int, known: Cells, below: Cells, above: Cells) -> Tensor:
        """The largest speed of a wave on the faces."""
        slopes = self.law.slopes[axis]
        expressions = tuple(slope for row in slopes for slope in row)
        states = [below, above]
        if len(slopes) == 1 and self.law.curved[axis]:
            # The largest speed between two states may lie between them where f is not convex.
            states.append({name: 0.5 * (below[name] + above[name]) for name in below})
        count = len(slopes)
        speed: Tensor | None = None
        for state in states:
            entries = list(evaluate_all(expressions, {**known, **state}))
            if not any(isinstance(entry, Tensor) for entry in entries):
                entries[0] = self._tensor(entries[0])
            radius = spectral_radius([entries[count * i : count * (i + 1)] for i in range(count)])
            speed = radius if speed is None else torch.maximum(speed, radius)
        return self._tensor(0.0 if speed is None else speed)

    def _tensor(self, value: Number) -> Tensor:
        return torch.as_tensor(value, dtype=self.problem.grid.dtype, device=self.problem.grid.device)

    # Walls

    def _at_wall(self, axis: int, number: int, walls: Mapping[str, Sequence[Wall]], cells: Cells) -> _End:
        """The flux through a wall, and the differences that the slopes beside it are made of."""
        law = self.law
        first = walls[law.names[0]][number]
        known = {**cells, **{name: extrapolated_to_face(cells[name], first) for name in law.others[axis]}}
        given: Cells = {}
        differences = []
        for name in law.names:
            wall = walls[name][number]
            cell = _dense(wall.take(cells[name]))
            r, s = wall.slope(wall.take(self.problem.normal(name, axis)))
            rise = wall.spacing * (r - s * cell)
            given[name] = cell + 0.5 * rise
            differences.append(wall.outward * rise)
        flux = evaluate_all(law.fluxes[axis], {**known, **given})
        if len(law.names) > 1 or first.kind != "dirichlet":
            return _End(differences, [first.outward * part for part in flux])
        (name,) = law.names
        cell = _dense(first.take(cells[name]))
        sides = self._differences(_dense(cells[name]), axis)
        inside = _dense(first.take(sides[0] if first.side else sides[1]))
        (own,) = evaluate_all(law.fluxes[axis], {**known, name: cell})
        leaves = self._tensor(first.outward * (own - flux[0]) * (cell - _dense(given[name]))) >= 0.0
        (free,) = evaluate_all(law.fluxes[axis], {**known, name: cell + 0.5 * first.outward * inside})
        outflow = first.outward * torch.where(leaves, self._tensor(free), self._tensor(flux[0]))
        return _End([torch.where(leaves, inside, differences[0])], [outflow])


@dataclass(frozen=True, eq=False)
class _End:
    """At one wall: for each unknown the difference across it, upward, and the outward flux."""

    differences: list[Tensor]
    outflow: list[Number]


def _dense(value: Number) -> Tensor:
    return torch.as_tensor(value)
