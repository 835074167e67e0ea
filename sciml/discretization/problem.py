"""An equation on a grid with everything resolved: linear terms evaluated, boundary values sampled."""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, prod
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ..boundary import Boundary, Dirichlet, Neumann, Periodic, SideCondition, check_tensor
from ..equations.evaluation import evaluate, names
from ..errors import InputError
from ..grid import Grid
from ..scheme import FiniteDifference, FiniteVolume, Scheme
from .conditions import Conditions, rates_of, read_conditions
from .differences import differentiate
from .inputs import (
    Number,
    batch_shape,
    resolve_fields,
    resolve_on_side,
    resolve_on_walls,
    resolve_parameters,
)
from .walls import Geometry, Place, Scattered, Slab, Wall

if TYPE_CHECKING:
    import sympy

    from ..equations import Equation
    from ..equations.forms import Term

Role = Literal["reaction", "advection", "diffusion", "other"]


@dataclass(frozen=True, eq=False)
class Piece:
    """outer D^derivative u, or with a flux axis k: outer d/dx_k(inner D^derivative u)."""

    outer: Number
    derivative: tuple[int, ...]
    flux_axis: int | None = None
    inner: Number = 1.0

    @cached_property
    def total(self) -> tuple[int, ...]:
        """The multi-index of all derivatives taken."""
        return tuple(order + (k == self.flux_axis) for k, order in enumerate(self.derivative))

    @cached_property
    def axis(self) -> int:
        """The axis of the highest derivative."""
        return max(range(len(self.total)), key=lambda k: self.total[k])

    @cached_property
    def mixed(self) -> bool:
        """Whether it is an off-diagonal entry of a diffusion tensor, d/dx_k(inner du/dx_l) with k and l different."""
        return self.flux_axis is not None and sum(self.total) == 2 and self.total[self.axis] == 1

    @cached_property
    def role(self) -> Role:
        """Which kind of term it is."""
        order = sum(self.total)
        if order == 0:
            return "reaction"
        if order == 1:
            return "advection"
        return "diffusion" if order == 2 and self.total[self.axis] == 2 else "other"


class Problem:
    """One equation, or a system, on one grid.

    Args:
        boundary: as the caller gave it, or read already.
        terms: one sequence an equation, in place of those of `equation`, which may then be nonlinear or evolving: what
            `rows` and `sources` hold is only its linear part.

    Attributes:
        complete: the linear terms are the whole equation.
        unknowns: names; row i of `rows` and `sources` is paired with unknown i.
        rows: for each row, unknown -> its pieces, everything on the left side.
        sources: for each row the numbers and tensors that stand on the right side.
        fields, parameters: resolved values by name.
        sides: unknown -> axis -> (lower, upper).
        batch: the shape that all inputs broadcast to.
    """

    def __init__(
        self,
        equation: Equation,
        grid: Grid,
        fields: Mapping[str, Any],
        parameters: Mapping[str, Any],
        boundary: Boundary | Conditions | None,
        scheme: Scheme | None,
        terms: Sequence[Sequence[Term]] | None = None,
    ) -> None:
        _refuse_too_few_axes(equation, grid)
        self.complete = terms is None
        if terms is None:
            refuse_evolving(equation)
            _refuse_what_is_not_linear(equation)
            terms = [form.terms for form in equation.forms(grid.dimension)]
        self.equation = equation
        self.grid = grid
        self.unknowns = (*equation.unknowns, *equation.constrained)
        self.geometry = Geometry(grid)
        self.fields = resolve_fields(fields, equation.coefficients, grid)
        self.parameters = resolve_parameters(parameters, equation.parameters, grid)
        self._values: dict[str, Number] = {**self.fields, **self.parameters, "t": 0.0}
        self._evaluated: dict[sympy.Expr, Number] = {}
        self._bounds: dict[int, tuple[Tensor, tuple[float, float]]] = {}  # with the tensor, so that its id stays taken
        self.scheme = _choose_scheme(scheme, grid, [term for row in terms for term in row])
        rows = [self._read_terms(row) for row in terms]
        as_written = range(len(rows))
        order = _pairing([pieces for pieces, _ in rows], self.unknowns) if self.complete else as_written
        self.rows = [rows[i][0] for i in order]
        self.sources = [rows[i][1] for i in order]
        self.conditions = (
            boundary if isinstance(boundary, Conditions) else read_conditions(grid, self.unknowns, boundary)
        )
        self.sides = self.conditions.sides
        self._walls: dict[str, tuple[Wall, ...]] = {}
        for unknown in self.unknowns:
            self._walls[unknown] = tuple(self._find_walls(unknown))
        data = [(f"boundary {w.name}", v) for ws in self._walls.values() for w in ws for v in (w.coefficient, w.value)]
        self.batch = batch_shape([*self._values.items(), *data], grid.dimension)

    @property
    def order(self) -> int:
        """Order of the scheme."""
        return self.scheme.order if isinstance(self.scheme, FiniteDifference) else 2

    def walls(self, unknown: str, axis: int | None = None) -> list[Wall]:
        """The closed faces (across one axis) with their conditions on an unknown."""
        return [wall for wall in self._walls[unknown] if axis in (None, wall.axis)]

    def pieces(self, row: int, unknown: str) -> list[Piece]:
        """The terms of one unknown in one row."""
        return self.rows[row].get(unknown, [])

    def own(self, unknown: str) -> tuple[int, str]:
        """The row in which the flux of an unknown stands, and the unknown whose derivative makes that flux.

        Of an equation of second order in time, u_tt = div(a*grad(u)), that is the row of u_t for both u and u_t.
        """
        rates = rates_of(self.equation.unknowns)
        base = unknown
        while base in rates:
            base = rates[base]
        last, above = base, {before: rate for rate, before in rates.items()}
        while last in above:
            last = above[last]
        return (self.unknowns.index(last), base) if last in self.unknowns else (self.unknowns.index(unknown), unknown)

    def own_pieces(self, unknown: str) -> list[Piece]:
        """The terms of which the flux of an unknown is made."""
        return self.pieces(*self.own(unknown))

    def normal(self, unknown: str, axis: int) -> Number:
        """The a of `a du/dn` in the boundary conditions of an unknown: what stands before du/dx inside the divergence
        of its own row, 1.0 where there is none.
        """
        total: Number | None = None
        for piece in self.own_pieces(unknown):
            if piece.role == "diffusion" and piece.flux_axis == axis:
                total = piece.inner if total is None else total + piece.inner
        return 1.0 if total is None else total

    def bounds(self, value: Number) -> tuple[float, float]:
        """The smallest and the largest value, remembered for the tensors of this problem."""
        if not isinstance(value, Tensor):
            return value, value
        if id(value) not in self._bounds:
            low, high = value.detach().aminmax()
            self._bounds[id(value)] = (value, (float(low), float(high)))
        return self._bounds[id(value)][1]

    def describe(self, value: Number) -> str:
        """The name of a field, or the expression, that a value was made from."""
        for name, known in self.fields.items():
            if value is known:
                return f"field {name!r}"
        return next((f"the coefficient {e}" for e, known in self._evaluated.items() if value is known), "a coefficient")

    def values(self, wanted: Iterable[str]) -> dict[str, Number]:
        """Fields and their derivatives, parameters and coordinates by name.

        Raises:
            InputError: for a name that is none of these.
        """
        for name in set(wanted) - self._values.keys():
            self._values[name] = self._find_value(name)
        return {name: self._values[name] for name in wanted}

    def evaluate(self, expression: sympy.Expr) -> Number:
        """A coefficient as a float or a tensor that broadcasts to `(*batch, *space)`.

        Raises:
            InputError: if it is not finite.
        """
        if expression not in self._evaluated:
            self.values(names(expression))
            value = evaluate(expression, self._values)
            if not isinstance(value, Tensor):
                value = float(value)
                if not isfinite(value):
                    raise InputError(f"the coefficient {expression} is {value}; it must be finite")
            elif not any(value is known for known in self._values.values()):
                check_tensor(value, f"the coefficient {expression}")
            self._evaluated[expression] = value
        return self._evaluated[expression]

    def at(
        self, time: Number, fields: Mapping[str, Number], walls: Mapping[tuple[str, int], Number] | None = None
    ) -> Problem:
        """The same problem with other values of the time, of some fields that stand in no term, and on some walls.

        Args:
            time: a number, or a tensor of at least as many axes as the grid.
            fields: by name.
            walls: by unknown and number of the wall.
        """
        part = copy.copy(self)
        part.fields = {**self.fields, **fields}
        kept = {name: v for name, v in self._values.items() if name.rpartition("_")[0] not in fields}
        part._values = {**kept, **fields, "t": time}
        if walls:
            part._walls = {
                unknown: tuple(
                    replace(wall, value=walls[unknown, number]) if (unknown, number) in walls else wall
                    for number, wall in enumerate(own)
                )
                for unknown, own in self._walls.items()
            }
        return part

    def restricted(self, unknowns: tuple[str, ...]) -> Problem:
        """The linear problem that the rows of some unknowns are for these alone."""
        part = copy.copy(self)
        numbers = [self.unknowns.index(unknown) for unknown in unknowns]
        part.unknowns, part.complete = unknowns, True
        part.rows = [{name: self.pieces(row, name) for name in unknowns if self.pieces(row, name)} for row in numbers]
        part.sources = [self.sources[row] for row in numbers]
        return part

    def _find_value(self, name: str) -> Number:
        """A coordinate, or the derivative `a_xy` of a field, the names that nobody gives."""
        grid, coordinates = self.grid, tuple(self.equation.coordinates[: self.grid.dimension])
        if name in coordinates:
            axis = coordinates.index(name)
            return grid.axis_coordinates[axis].reshape([-1 if k == axis else 1 for k in range(grid.dimension)])
        base, _, suffix = name.rpartition("_")
        if base in self.fields and suffix and all(letter in coordinates for letter in suffix):
            value = self.fields[base]
            for axis, coordinate in enumerate(coordinates):
                if coordinate in suffix:
                    value = differentiate(value, grid, axis, suffix.count(coordinate), self.order, f"field {base!r}")
            return value
        raise InputError(f"the equation needs a value for {name!r}, which has none on this grid")

    def _read_terms(self, terms: Sequence[Term]) -> tuple[dict[str, list[Piece]], list[Number]]:
        # Fluxes with the same factor before the derivative are one flux: div(a*grad(u)) + div(b*grad(u)).
        inner: dict[Any, Any] = defaultdict(int)
        for term in terms:
            if term.unknown is not None and term.flux_axis is not None:
                inner[term.unknown, term.coefficient, term.derivative, term.flux_axis] += term.flux_coefficient
        pieces: dict[str, list[Piece]] = defaultdict(list)
        sources: list[Number] = []
        for term in terms:
            if term.unknown is None:
                sources.append(self.evaluate(-term.coefficient))
            elif term.flux_axis is None:
                pieces[term.unknown].append(Piece(self.evaluate(term.coefficient), term.derivative))
        for (unknown, outer, derivative, axis), flux in inner.items():
            piece = Piece(self.evaluate(outer), derivative, axis, self.evaluate(flux))
            if piece.role == "diffusion":
                self._refuse_changing_sign(piece.inner)
            pieces[unknown].append(piece)
        return dict(pieces), sources

    def _in_fluid(self, value: Tensor) -> Tensor:
        """The entries, `(*batch, cells)` where there are solid cells and the value varies over all axes."""
        value, grid = value.detach(), self.grid
        if grid.solid is None or tuple(value.shape[-grid.dimension :]) != grid.shape:
            return value
        return value[..., self.geometry.fluid]

    def _refuse_changing_sign(self, value: Number) -> None:
        low, high = self.bounds(value)
        if not isinstance(value, Tensor) or low * high >= 0.0:
            return
        rows = self._in_fluid(value)
        rows = rows.reshape(prod(value.shape[: value.ndim - self.grid.dimension]), -1)
        for row in rows:
            below = row[row < 0.0]
            if len(below) and bool((row > 0.0).any()):
                raise InputError(
                    f"{self.describe(value)} changes sign: {len(below)} of {len(row)} values are negative, the "
                    f"smallest {float(below.min()):.4g}, and the largest is {float(row.max()):.4g}; a diffusion "
                    "coefficient has one sign everywhere"
                )

    def _find_walls(self, unknown: str) -> list[Wall]:
        grid, walls = self.grid, []
        for axis, name in enumerate(grid.axes):
            for side, side_name in enumerate(("lower", "upper")):
                condition = self.sides[unknown][name][side]
                if not isinstance(condition, Periodic):
                    place: Place = Slab(axis, grid.shape[axis] - 1 if side else 0, grid.dimension)
                    walls.append(_make_wall(condition, f"{name}_{side_name}", axis, side, place, grid))
                if grid.solid is not None:
                    place = Scattered(self.geometry.touches_solid(axis, side))
                    walls.append(_make_wall(self.conditions.walls[unknown], "walls", axis, side, place, grid))
        return walls


def _refuse_what_is_not_linear(equation: Equation) -> None:
    if not equation.linear:
        raise InputError(
            "the equation is not linear in its unknowns, and has no operator and right side: take "
            "discretize_nonlinear, or sciml.solve"
        )


def refuse_evolving(equation: Equation) -> None:
    """Raise InputError for an equation with time derivatives."""
    if equation.evolving:
        raise InputError(
            "the equation has time derivatives, and is not solved as a steady one: take sciml.evolve, or "
            "sciml.discretize for its rate"
        )


def _refuse_too_few_axes(equation: Equation, grid: Grid) -> None:
    if equation.dimension > grid.dimension:
        raise InputError(
            f"the equation needs {equation.dimension} axes, the grid has {grid.dimension} ({', '.join(grid.axes)})"
        )


def _choose_scheme(scheme: Scheme | None, grid: Grid, terms: Sequence[Term]) -> Scheme:
    if scheme is None:
        return FiniteVolume() if any(term.flux_axis is not None for term in terms) else FiniteDifference()
    if not isinstance(scheme, Scheme):
        raise InputError(f"scheme: expected FiniteDifference(...), FiniteVolume(...) or None, got {scheme!r}")
    if isinstance(scheme, FiniteDifference) and scheme.order == 4 and grid.solid is not None:
        raise InputError("scheme: FiniteDifference(order=4) does not go with solid cells in this version; use order 2")
    return scheme


def _pairing(rows: Sequence[Mapping[str, list[Piece]]], unknowns: tuple[str, ...]) -> tuple[int, ...]:
    """Which row goes with which unknown: as written if every row contains its own, else by the highest derivatives."""

    def highest(row: int, unknown: str) -> int:
        return max((sum(piece.total) for piece in rows[row].get(unknown, [])), default=-1)

    as_written = tuple(range(len(rows)))
    if all(highest(i, unknown) >= 0 for i, unknown in enumerate(unknowns)) or len(rows) > 6:
        return as_written
    return max(
        itertools.permutations(as_written),
        key=lambda order: sum(highest(i, unknown) for i, unknown in zip(order, unknowns, strict=True)),
    )


def _make_wall(condition: SideCondition, name: str, axis: int, side: int, place: Place, grid: Grid) -> Wall:
    def resolve(value: Any, what: str) -> Number:
        on = resolve_on_side if isinstance(place, Slab) else resolve_on_walls
        return on(value, grid, axis, side, f"boundary {name}, {what}")

    coefficient: Number = 0.0
    if isinstance(condition, Dirichlet):
        kind: Literal["dirichlet", "neumann", "robin"] = "dirichlet"
        value = resolve(condition.value, "Dirichlet value")
    elif isinstance(condition, Neumann):
        kind, value = "neumann", resolve(condition.flux, "Neumann flux")
    else:
        coefficient = resolve(condition.coefficient, "Robin coefficient")
        kind = "neumann" if isinstance(coefficient, float) and coefficient == 0.0 else "robin"
        value = resolve(condition.value, "Robin value")
    return Wall(name, axis, side, place, grid.spacing[axis], kind, coefficient, value)
