"""Evolving equations on grids by finite differences and finite volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ..boundary import Boundary
from ..differentiation import directional_derivative
from ..errors import InputError
from ..evolving import EvolvingSystem, Prepare, Time, Tolerance, root_mean_square_ratio
from ..given import require_names
from ..grid import Grid
from ..kernels.stencil import broadcast
from ..linear_operator import BlockOperator, Kind, LinearOperator
from ..modes import in_plain_mode
from ..scheme import FiniteVolume, Scheme
from ..shifted import ShiftedOperator, shifted_through
from ..stencil import StencilOperator
from ..time_functions import depends_on_time
from .builder import StencilBuilder
from .central_fluxes import CentralFluxes
from .conditions import Moving, read_evolving_conditions, split_moving
from .conservation import Fluxes, share_fluxes, with_linear_parts_apart
from .constraint import Constraint, in_order_of_unknowns
from .linearization import Cells, NonlinearSystem
from .motion import Motion
from .nonlinear import Builder, choose_scheme, is_fourth_order
from .problem import Problem
from .properties import is_semidefinite

if TYPE_CHECKING:
    from ..equations import Equation


@final
class GridEvolution(EvolvingSystem):
    """An evolving equation on a grid in point form: du/dt in every cell, 0 in solid cells. See `EvolvingSystem`.

    Args:
        equation: with time derivatives; of second order in time its unknowns are u and u_t, and u_t inherits the
            conditions of u, differentiated in time, unless it is given its own.
        grid: the domain.
        fields, parameters, boundary: as of `discretize`. Fields, and boundary values but for Robin's coefficient, may
            be functions of the coordinates and of time, t last.
        scheme: FiniteDifference(...) or FiniteVolume(...); None takes finite volumes if the equation has div(...).
        prepare: prepares the solution of the constraints.

    Raises:
        InputError: as `discretize_nonlinear`; for constraints that are not linear in their fields with coefficients
            that stay as they are, or that are singular but for constants.
    """

    @in_plain_mode
    def __init__(
        self,
        equation: Equation,
        grid: Grid,
        fields: Mapping[str, Any],
        parameters: Mapping[str, Any],
        boundary: Boundary | None,
        scheme: Scheme | None,
        prepare: Prepare,
    ) -> None:
        if not equation.evolving:
            raise InputError("the equation has no time derivative, and so no rate: it is a steady one")
        require_names(fields, equation.coefficients)
        moving = {
            name: Moving(f"field {name!r}", value, grid.coordinates)
            for name, value in fields.items()
            if depends_on_time(value, grid.dimension, f"field {name!r}")
        }
        conditions = read_evolving_conditions(grid, equation.unknowns, equation.constrained, boundary)
        still, values = split_moving(conditions, grid)
        varying = {"t", *moving}
        forms = self._forms(equation, grid, varying, conservative=True)
        chosen = choose_scheme(scheme, forms)
        expanded = self._forms(equation, grid, varying, conservative=False) if is_fourth_order(chosen) else forms
        given = {**fields, **{name: torch.zeros_like(field.at(0.0).detach()) for name, field in moving.items()}}
        limited: Fluxes = {}
        central: Fluxes = {}
        limiter = ""
        if isinstance(chosen, FiniteVolume):
            constants = frozenset(equation.parameters)
            limiter = "van_leer" if chosen.limiter == "auto" else chosen.limiter
            forms, limited, central = share_fluxes(
                forms, equation.unknowns, constants, grid.dimension, limiter=chosen.limiter
            )
            forms = expanded = [with_linear_parts_apart(form, frozenset(varying), constants) for form in forms]
        builder = Builder(
            equation, grid, given, parameters, still, chosen, forms, expanded, advective=limited, limiter=limiter
        )
        self._limited = bool(limited)
        self._central = CentralFluxes(central, builder.problem, asked=limiter == "none")
        system = builder.system(_refuse_rebuilding)
        problem = builder.problem
        self._prepare = prepare
        self._motion = Motion(builder, system, moving, values)
        self._problem = problem
        self._count = len(equation.unknowns)
        self._has_rest = [row.rest != 0 for row in system.rows[: self._count]]
        self._constraint = Constraint(problem, system, equation.constrained, prepare) if equation.constrained else None
        self._linear = _linear_blocks(problem, system, self._count)
        self._positive = [_is_positive(problem, row) for row in range(self._count)]
        self._reaction = [_least_reaction(problem, row) for row in range(self._count)]
        self.equation = equation
        self.domain: Grid = grid
        self.unknowns = equation.unknowns
        self.fields = {**problem.fields, **{name: fields[name] for name in moving}}
        self.parameters = problem.parameters
        self.boundary = conditions.sides
        self.scheme = chosen
        self.notes = (*system.notes, *self._central.notes)
        self.batch = problem.batch
        self.axes = grid.dimension
        self.space = (*([] if self._count == 1 else [self._count]), *grid.shape)
        self.state_space = self.space
        self.dtype, self.device = grid.dtype, grid.device
        self.linear_part = self._linear_operator()

    @staticmethod
    def _forms(equation: Equation, grid: Grid, varying: set[str], conservative: bool) -> Sequence[Any]:
        forms = equation.residual_forms(grid.dimension, conservative=conservative, varying=varying)
        return in_order_of_unknowns(forms, equation.unknowns, equation.constrained)

    # The rate

    def rate(self, u: Tensor, t: Time) -> Tensor:
        return self._rate(u, t, linear=True)

    def nonlinear_part(self, u: Tensor, t: Time) -> Tensor:
        return self._rate(u, t, linear=False)

    def constrained(self, u: Tensor, t: Time) -> dict[str, Tensor]:
        if self._constraint is None:
            return {}
        return self._constraint.solve(self._motion.at(t), self._channels(u))

    def flux(self, value: Tensor, boundary_name: str, t: Time) -> Tensor:
        """The outward flux of a field through a named boundary at a time, by the face formula of the rate; see
        `System.flux`.

        Args:
            value: `(*batch, *space)`.
            boundary_name: one of `domain.boundaries`.
            t: a number, or a tensor of the batch's shape.

        Returns:
            `(*batch,)`, of several unknowns `(*batch, channel)`: one flux an equation, 0 of one without a divergence.

        Raises:
            InputError: for another name, or a value of another shape.
        """
        now, whole = self._with_constrained(value, t)
        return now.flux(whole, boundary_name, self._count)

    def boundary_value(self, value: Tensor, axis: int, side: int, t: Time) -> Tensor:
        """The field on a side of the box (0 lower, 1 upper) at a time, second order: what the condition makes of it.

        Args:
            value: `(*batch, *space)`.
            t: a number, or a tensor of the batch's shape.

        Returns:
            the same shape without the axis.

        Raises:
            InputError: for a value of another shape, or a side of a periodic axis.
        """
        now, whole = self._with_constrained(value, t)
        faces = now.boundary_value(whole, axis, side)
        channel = -self.axes
        if len(now.unknowns) == 1 or self._count > 1:
            return faces if len(now.unknowns) == 1 else faces.narrow(channel, 0, self._count)
        return faces.select(channel, 0)

    def _with_constrained(self, u: Tensor, t: Time) -> tuple[NonlinearSystem, Tensor]:
        """The whole system at a time, and its field."""
        now, channels = self._motion.complete(t), self._channels(u)
        if self._constraint is None:
            return now, u
        channels |= self._constraint.solve(now, channels)
        return now, torch.stack(torch.broadcast_tensors(*channels.values()), dim=-1 - self.axes)

    def at(self, t: Time) -> NonlinearSystem:
        """F(u) = -rate, followed by the constraints, at a time: for fluxes through walls and values on them."""
        return self._motion.complete(t)

    def _rate(self, u: Tensor, t: Time, linear: bool) -> Tensor:
        now = self._motion.at(t)
        channels = self._channels(u)
        if self._constraint is not None:
            channels |= self._constraint.solve(now, channels)
        rows = now.rows[: self._count]
        cells: Cells = now.cells(channels, rows) if any(self._has_rest) else {}
        results = []
        for number in range(self._count):
            total = now.sources[number]
            if self._has_rest[number]:
                total = total - now.rest(number, cells)
            for unknown, block in self._linear[number].items():
                if linear or unknown not in self.unknowns:
                    total = _subtract(total, block, channels[unknown])
            if self.domain.solid is not None:
                total = torch.where(self.domain.solid, 0.0, total)
            results.append(total)
        if self._count == 1:
            (total,) = results
            shape = broadcast(total.shape, u.shape)
            # The caller may work in place on what it gets.
            return total.expand(shape).clone() if total.shape != shape or total is now.sources[0] else total
        *parts, _ = torch.broadcast_tensors(*results, channels[self.unknowns[0]])
        return torch.stack(parts, dim=-1 - self.axes)

    def _channels(self, u: Tensor) -> dict[str, Tensor]:
        if tuple(u.shape[max(0, u.ndim - len(self.space)) :]) != self.space:
            raise InputError(f"u has shape {tuple(u.shape)}, expected (*batch, *{self.space})")
        if self._count == 1:
            return {self.unknowns[0]: u}
        return dict(zip(self.unknowns, u.unbind(-1 - self.axes), strict=True))

    def _linear_operator(self) -> LinearOperator | None:
        """Minus the linear blocks among the evolving unknowns."""
        own = [[row.get(unknown) for unknown in self.unknowns] for row in self._linear]
        if not any(block is not None for row in own for block in row):
            return None
        for number, row in enumerate(own):
            row[number] = row[number] or StencilBuilder(self.domain).diagonal_block(symmetric=True)
        blocks = [[None if block is None else block.negated() for block in row] for row in own]
        (first, *_), *_ = blocks
        return first if self._count == 1 and first is not None else BlockOperator(blocks)

    def hold(self, u: Tensor, t: Time) -> Tensor:
        """The field itself; warns of central fluxes beyond the cell Peclet number up to which these are sound.

        Raises:
            InputError: for a constraint that is determined up to a constant, whose right side has a mean.
        """
        now, channels = self._motion.at(t), self._channels(u)
        if self._constraint is not None:
            self._constraint.check_balance(now, channels)
        if self._central.laws:
            self._central.warn(now.cells(channels))
        return u

    # States

    def encode(self, u: Tensor) -> Tensor:
        """The field itself, 0 in solid cells."""
        self._channels(u)
        return u if self.domain.solid is None else torch.where(self.domain.solid, 0.0, u)

    def decode(self, y: Tensor) -> Tensor:
        return y

    def slope(self, y: Tensor, t: Time) -> Tensor:
        return self._rate(y, t, linear=True)

    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        solid = self.domain.solid
        if solid is None:
            return root_mean_square_ratio(error, before, after, rtol, atol, len(self.space))
        ratio = root_mean_square_ratio(error, before, torch.where(solid, 1.0, after), rtol, atol, len(self.space))
        return ratio * (solid.numel() / int((~solid).sum())) ** 0.5

    # Implicit methods

    def apply_mass(self, y: Tensor) -> Tensor:
        return y

    def force(self, y: Tensor, t: Time) -> Tensor:
        return self._rate(y, t, linear=True)

    def explicit_force(self, y: Tensor, t: Time) -> Tensor:
        return self._rate(y, t, linear=False)

    def shifted(self, y: Tensor, t: Time, step: float) -> LinearOperator:
        """I - step * (the derivative of the rate) at (y, t).

        A stencil, of several unknowns a BlockOperator of stencils; with constraints a `ShiftedOperator`. Its kind is
        `Kind.SYMMETRIC_POSITIVE` where it is certainly symmetric and positive definite. Of fluxes with limited slopes
        the derivative is applied by automatic differentiation, in a `ShiftedOperator` too.
        """
        if self._limited:
            near = self.shifted_linear(step)
            return ShiftedOperator(near, *self._by_differentiation(y, t, step), self._prepare)
        now, channels = self._motion.at(t), self._channels(y)
        if self._constraint is not None:
            channels |= self._constraint.solve(now, channels)
        cells = now.cells(channels)
        found = [now.linearized(row, cells) for row in range(self._count)]
        positive = [
            known and symmetric and 1.0 + step * (self._reaction[row] + self._least_slope(now, row, cells)) > 0.0
            for row, (known, (_, symmetric)) in enumerate(zip(self._positive, found, strict=True))
        ]
        table = [builders for builders, _ in found]
        direct = self._identity_plus(step, table, [symmetric for _, symmetric in found], positive)
        if self._constraint is None:
            return direct
        constraint = self._constraint
        fields = [now.linearized(row, cells)[0] for row in range(self._count, len(now.unknowns))]
        return shifted_through(
            direct,
            step,
            [[builders[name].coupling_block() for name in constraint.names] for builders in table],
            [[builders[name].coupling_block() for name in self.unknowns] for builders in fields],
            constraint.response,
            constraint.response_transposed,
            self._prepare,
            axes=self.axes,
            solid=self.domain.solid,
        )

    def shifted_linear(self, step: float) -> LinearOperator:
        table = []
        for row in self._linear:
            builders = {unknown: StencilBuilder(self.domain) for unknown in self.unknowns}
            for unknown, block in row.items():
                if unknown in builders:
                    for offset, coefficient in zip(block.offsets, block.coefficients, strict=True):
                        builders[unknown].add(offset, coefficient)
            table.append(builders)
        symmetric = [known.symmetric for known in self._motion.system.assembly.properties[: self._count]]
        positive = [
            known and 1.0 + step * least > 0.0 for known, least in zip(self._positive, self._reaction, strict=True)
        ]
        return self._identity_plus(step, table, symmetric, positive)

    def _identity_plus(
        self,
        step: float,
        table: Sequence[Mapping[str, StencilBuilder]],
        symmetric: Sequence[bool],
        positive: Sequence[bool],
    ) -> LinearOperator:
        blocks: list[list[LinearOperator | None]] = []
        for number, builders in enumerate(table):
            blocks.append([])
            for column, unknown in enumerate(self.unknowns):
                builder = builders[unknown].scaled(step)
                if column != number:
                    blocks[number].append(builder.coupling_block())
                    continue
                builder.add(builder.centre, 1.0)
                kind = Kind.SYMMETRIC_POSITIVE if positive[number] and symmetric[number] and step >= 0 else Kind.LINEAR
                blocks[number].append(builder.diagonal_block(symmetric=symmetric[number], kind=kind))
        (first, *_), *_ = blocks
        return first if self._count == 1 and first is not None else BlockOperator(blocks)

    def _least_slope(self, now: NonlinearSystem, number: int, cells: Cells) -> float:
        """The least that the rest of a row adds to the diagonal; -inf where it adds to more than that."""
        row = now.rows[number]
        if row.fluxes or row.jets:
            return -inf
        own = next((symbol for symbol in row.slopes if symbol.name == self.unknowns[number]), None)
        slope = 0.0 if own is None else now.slope_of(number, own, cells)
        return float(slope.detach().min()) if isinstance(slope, Tensor) else slope

    def _by_differentiation(self, y: Tensor, t: Time, step: float) -> tuple[Any, Any]:
        """x -> -step times the derivative of the nonlinear part, and its transpose."""

        def part(u: Tensor) -> Tensor:
            return self._rate(u, t, linear=False)

        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            shape = broadcast(x.shape, y.shape)
            return y.expand(shape).contiguous(), x.expand(shape).contiguous()

        def forward(x: Tensor) -> Tensor:
            at, direction = both(x)
            return -step * directional_derivative(part, at, direction)

        def backward(x: Tensor) -> Tensor:
            at, weights = both(x)
            return -step * torch.func.vjp(part, at)[1](weights)[0]

        return forward, backward


def _subtract(total: Tensor, block: StencilOperator, x: Tensor) -> Tensor:
    """total - block x."""
    if total.shape != x.shape:
        shape = broadcast(total.shape, x.shape)
        total, x = total.expand(shape), x.expand(shape)
    return block.residual(total, x)


def _linear_blocks(problem: Problem, system: NonlinearSystem, count: int) -> list[dict[str, StencilOperator]]:
    """By row the blocks of the unknowns that have terms in it, 0 in solid cells."""
    rows: list[dict[str, StencilOperator]] = []
    for number in range(count):
        rows.append({})
        for unknown, block in zip(problem.unknowns, system.assembly.blocks[number], strict=True):
            if block is not None and problem.pieces(number, unknown):
                rows[number][unknown] = block if problem.grid.solid is None else _zero_in_solid(block, problem.grid)
    return rows


def _zero_in_solid(block: StencilOperator, grid: Grid) -> StencilOperator:
    coefficients = [
        coefficient if any(offset) else torch.where(torch.as_tensor(grid.solid), 0.0, coefficient)
        for offset, coefficient in zip(block.offsets, block.coefficients, strict=True)
    ]
    return StencilOperator(block.space, block.offsets, coefficients, block.periodic, symmetric=block.symmetric)


def _is_positive(problem: Problem, row: int) -> bool:
    """Whether the derivatives of an unknown in its own row certainly make a positive semidefinite operator."""
    own = problem.restricted((problem.unknowns[row],))
    (pieces,) = own.rows
    own.rows = [{name: [p for p in terms if p.role != "reaction"] for name, terms in pieces.items()}]
    return is_semidefinite(own, 0)


def _least_reaction(problem: Problem, row: int) -> float:
    """A lower bound of what terms without derivatives give to the diagonal."""
    pieces = problem.pieces(row, problem.unknowns[row])
    return sum(problem.bounds(piece.outer)[0] for piece in pieces if piece.role == "reaction")


def _refuse_rebuilding(_: Mapping[str, Any]) -> NonlinearSystem:
    raise InputError("an evolving equation is discretized anew for other parameters")
