"""The divergence of a nonlinear flux on a grid, and its exact derivative as a stencil."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import sympy
import torch
from torch import Tensor

from ..equations.evaluation import evaluate_all, names
from ..stencil import shifted
from .builder import Offset
from .differences import varies
from .flux_formula import (
    ON_FACE,
    SPACING,
    Condition,
    FluxFormula,
    coefficient_symbol,
    face_symbol,
    normal_symbol,
    slopes_of,
    value_symbol,
    wall_flux,
)
from .inputs import Number
from .jets import JetMap
from .means import arithmetic_mean, harmonic_mean, harmonic_slopes
from .problem import Problem
from .second_order import extrapolated_to_face
from .walls import Wall

Entry = tuple[str, Offset, Number]
"""An unknown, an offset and the coefficient of that unknown there."""


@dataclass(frozen=True, eq=False)
class _ClosedFaces:
    """The faces of one wall: the flux through them and its derivatives by cell quantity; `lagged` keep coefficients.

    `number` is that of the wall, and `extrapolated` are the names of the fields that `data` has there.
    """

    wall: Wall
    number: int
    extrapolated: tuple[str, ...]
    outflow: sympy.Expr
    slopes: dict[sympy.Symbol, sympy.Expr]
    lagged: dict[sympy.Symbol, sympy.Expr]
    data: dict[str, Number]


class FaceFlux:
    """d(flux)/dx_axis in flux form: one flux a face, so that what leaves a cell enters the next.

    Args:
        formula: the flux.
        problem: on the grid.
        tangents: the derivatives along other axes that stand in the flux, by symbol.
        conditions: by unknown and wall number, the condition.
    """

    def __init__(
        self,
        formula: FluxFormula,
        problem: Problem,
        tangents: Mapping[sympy.Symbol, JetMap],
        conditions: Mapping[str, list[Condition]],
    ) -> None:
        self.formula = formula
        self.problem = problem
        self.tangents = {symbol: tangents[symbol] for symbol in formula.tangents}
        self.spacing = problem.grid.spacing[formula.axis]
        unknowns = tuple(sympy.Symbol(name, real=True) for name in problem.unknowns)
        symbols = tuple(mean.symbol for mean in formula.means)
        self._face_slopes = slopes_of(formula.on_face, (*symbols, *formula.normals.values(), *formula.tangents))
        self._cell_slopes = {mean.symbol: slopes_of(mean.expression, unknowns) for mean in formula.means}
        self._closed = list(self._find_closed_faces(conditions, unknowns))

    def at(self, problem: Problem, tangents: Mapping[sympy.Symbol, JetMap]) -> FaceFlux:
        """The same flux with the values that a problem has at another time, on walls and of fields that stand in no
        term."""
        other = copy.copy(self)
        other.problem = problem
        other.tangents = {symbol: tangents[symbol] for symbol in self.tangents}
        walls = {name: problem.walls(name) for name in problem.unknowns}
        other._closed = []
        for closed in self._closed:
            data = {**closed.data, **_on_wall(problem, closed.extrapolated, closed.wall)}
            for name, own in walls.items():
                data[value_symbol(name).name] = own[closed.number].value
            other._closed.append(replace(closed, data=data))
        return other

    def divergence(self, cells: Mapping[str, Number]) -> Tensor:
        """d(flux)/dx_axis.

        Args:
            cells: fields, parameters, coordinates, unknowns and their derivatives in the cells, by name.

        Returns:
            `(*batch, *space)`.
        """
        (flux,) = self._evaluate_on_faces((self.formula.on_face,), cells)
        lower, upper = self._beside(flux)
        total = (upper - lower) / self.spacing
        for closed in self._closed:
            (outflow,) = evaluate_all((closed.outflow,), self._at_wall(closed, cells))
            total = closed.wall.place.put(total, outflow / self.spacing)
        return total

    def outflow(self, cells: Mapping[str, Number], boundary: str) -> Iterator[tuple[Wall, Number]]:
        """The outward flux through the faces of a boundary, per area."""
        for closed in self._closed:
            if closed.wall.name == boundary:
                yield closed.wall, evaluate_all((closed.outflow,), self._at_wall(closed, cells))[0]

    def linearized(self, cells: Mapping[str, Number], factor: Number, lagged: bool) -> Iterator[Entry]:
        """The derivative of `divergence`, times a factor, as a sum of stencil entries; `lagged` keeps its coefficients
        fixed."""
        left, right, tangents = self._face_derivatives(cells, lagged)
        grid, axis, scale = self.problem.grid, self.formula.axis, factor / self.spacing
        centre = (0,) * grid.dimension
        ahead = tuple(int(k == axis) for k in range(grid.dimension))
        behind = tuple(-o for o in ahead)
        for unknown in left.keys() | right.keys():
            from_left, from_right = (self._beside(part.get(unknown, 0.0)) for part in (left, right))
            yield unknown, ahead, from_right[1] * scale
            yield unknown, behind, from_left[0] * -scale
            yield unknown, centre, (from_left[1] - from_right[0]) * scale
        for symbol, slope in tangents.items():
            jet = self.tangents[symbol]
            lower, upper = (part * (scale / 2) for part in self._beside(slope))
            for offset, weight in jet.entries():
                yield jet.unknown, offset, (upper - lower) * weight
                for step, share in ((ahead, upper), (behind, -lower)):
                    there = shifted(weight, grid.shape, step, grid.periodic)
                    yield jet.unknown, tuple(o + s for o, s in zip(offset, step, strict=True)), share * there
        for closed in self._closed:
            yield from self._linearized_wall(closed, cells, scale, lagged)

    def _face_derivatives(
        self, cells: Mapping[str, Number], lagged: bool
    ) -> tuple[dict[str, Number], dict[str, Number], dict[sympy.Symbol, Number]]:
        """The flux on faces by the unknowns in the cells before and behind, and by tangential derivatives."""
        formula = self.formula
        names_of = {symbol: unknown for unknown, symbol in formula.normals.items()}
        if lagged:
            slopes = {formula.normals[unknown]: factor for unknown, factor in formula.frozen.items()}
        else:
            slopes = self._face_slopes
        by_symbol = dict(zip(slopes, self._evaluate_on_faces(tuple(slopes.values()), cells), strict=True))
        left: dict[str, Number] = {}
        right: dict[str, Number] = {}
        tangents: dict[sympy.Symbol, Number] = {}
        for symbol, slope in by_symbol.items():
            if symbol in names_of:
                across = slope / self.spacing
                _add(left, names_of[symbol], -across)
                _add(right, names_of[symbol], across)
            elif symbol in self.tangents:
                tangents[symbol] = slope
        for mean in formula.means:
            if mean.symbol not in by_symbol:
                continue
            expressions = (mean.expression, *self._cell_slopes[mean.symbol].values())
            value, *by_unknown = evaluate_all(expressions, cells)
            shares = harmonic_slopes(*self._neighbours(value)) if mean.harmonic else (0.5, 0.5)
            for unknown, growth in zip(self._cell_slopes[mean.symbol], by_unknown, strict=True):
                for target, share, part in zip((left, right), shares, self._neighbours(growth), strict=True):
                    _add(target, unknown.name, by_symbol[mean.symbol] * share * part)
        return left, right, tangents

    def _evaluate_on_faces(
        self, expressions: tuple[sympy.Expr, ...], cells: Mapping[str, Number]
    ) -> tuple[Number, ...]:
        """Expressions in means, normals, tangents and parameters, on the faces between two cells."""
        formula = self.formula
        needed = set().union(*(names(expression) for expression in expressions))
        values: dict[str, Number] = {}
        means = [mean for mean in formula.means if mean.symbol.name in needed]
        for mean, value in zip(means, evaluate_all(tuple(m.expression for m in means), cells), strict=True):
            first, second = self._neighbours(value)
            if first is second:
                values[mean.symbol.name] = value
            elif mean.harmonic:
                values[mean.symbol.name] = harmonic_mean(first, second)
            else:
                values[mean.symbol.name] = arithmetic_mean(first, second)
        for unknown, symbol in formula.normals.items():
            if symbol.name in needed:
                first, second = self._neighbours(cells[unknown])
                values[symbol.name] = (second - first) / self.spacing
        for symbol in formula.tangents:
            if symbol.name in needed:
                first, second = self._neighbours(cells[symbol.name])
                values[symbol.name] = arithmetic_mean(first, second)
        return evaluate_all(expressions, {**cells, **values})

    def _neighbours(self, value: Number) -> tuple[Number, Number]:
        """A cell quantity before and behind each face that may be open: n + 1 faces of a periodic axis, whose first is
        its last, and n - 1 of any other."""
        grid, axis = self.problem.grid, self.formula.axis
        if not isinstance(value, Tensor) or not varies(value, axis, grid.dimension):
            return value, value
        dim, n = axis - grid.dimension, grid.shape[axis]
        if grid.periodic[axis]:
            last, first = value.narrow(dim, n - 1, 1), value.narrow(dim, 0, 1)
            return torch.cat([last, value], dim), torch.cat([value, first], dim)
        return value.narrow(dim, 0, n - 1), value.narrow(dim, 1, n - 1)

    def _beside(self, faces: Number) -> tuple[Tensor, Tensor]:
        """What stands on the faces, on the lower and upper face of every cell, 0 where these are closed."""
        grid, axis = self.problem.grid, self.formula.axis
        dim, n = axis - grid.dimension, grid.shape[axis]
        dense = torch.as_tensor(faces, dtype=grid.dtype, device=grid.device)
        count = n + 1 if grid.periodic[axis] else n - 1
        dense = dense.reshape((1,) * max(0, grid.dimension - dense.ndim) + tuple(dense.shape))
        if dense.shape[dim] != count:
            shape = list(dense.shape)
            shape[dim] = count
            dense = dense.expand(shape)
        if not grid.periodic[axis]:
            dense = torch.nn.functional.pad(dense, [0, 0] * (-dim - 1) + [1, 1])
        if grid.solid is not None:
            dense = torch.where(self.problem.geometry.open_faces(axis) > 0.0, dense, 0.0)
        return dense.narrow(dim, 0, n), dense.narrow(dim, 1, n)

    # Walls

    def _find_closed_faces(
        self, conditions: Mapping[str, list[Condition]], unknowns: tuple[sympy.Symbol, ...]
    ) -> Iterator[_ClosedFaces]:
        problem, formula = self.problem, self.formula
        parameters = frozenset(problem.parameters)
        walls = {name: problem.walls(name) for name in problem.unknowns}
        for number, wall in enumerate(walls[problem.unknowns[0]]):
            if wall.axis != formula.axis:
                continue
            by_unknown = {name: conditions[name][number] for name in problem.unknowns}
            lagged, means = wall_flux(formula, by_unknown, int(wall.outward), wall.name, parameters)
            outflow = lagged.xreplace(means)
            data: dict[str, Number] = {SPACING.name: wall.spacing}
            for name in problem.unknowns:
                own = walls[name][number]
                data[value_symbol(name).name] = own.value
                data[coefficient_symbol(name).name] = own.coefficient
                data[normal_symbol(name).name] = wall.take(problem.normal(name, wall.axis))
            involved = [s for s in formula.rest.free_symbols if face_symbol(s) in outflow.free_symbols]
            extrapolated = tuple(symbol.name for symbol in involved)
            data.update(_on_wall(problem, extrapolated, wall))
            slopes = slopes_of(outflow, (*unknowns, *formula.tangents))
            kept = {symbol: slope.xreplace(means) for symbol, slope in slopes_of(lagged, unknowns).items()}
            yield _ClosedFaces(wall, number, extrapolated, outflow, slopes, kept, data)

    def _at_wall(self, closed: _ClosedFaces, cells: Mapping[str, Number]) -> dict[str, Number]:
        needed = {symbol.name for symbol in closed.outflow.free_symbols} - closed.data.keys()
        return {**closed.data, **{name: closed.wall.take(cells[name]) for name in needed}}

    def _linearized_wall(
        self, closed: _ClosedFaces, cells: Mapping[str, Number], scale: Number, lagged: bool
    ) -> Iterator[Entry]:
        values = self._at_wall(closed, cells)
        grid = self.problem.grid
        slopes = closed.lagged if lagged else closed.slopes
        for symbol, slope in zip(slopes, evaluate_all(tuple(slopes.values()), values), strict=True):
            jet = self.tangents.get(symbol)
            zero = torch.zeros(grid.shape, dtype=grid.dtype, device=grid.device)
            factor = closed.wall.place.put(zero, slope) * scale
            if jet is None:
                yield symbol.name, (0,) * grid.dimension, factor
                continue
            for offset, weight in jet.entries():
                yield jet.unknown, offset, factor * weight


def _on_wall(problem: Problem, names_of_fields: tuple[str, ...], wall: Wall) -> dict[str, Number]:
    """Fields extrapolated to a wall, by the names of their symbols there."""
    values = problem.values(names_of_fields)
    return {f"{name}{ON_FACE}": extrapolated_to_face(value, wall) for name, value in values.items()}


def _add(target: dict[str, Number], unknown: str, amount: Number) -> None:
    target[unknown] = target[unknown] + amount if unknown in target else amount
