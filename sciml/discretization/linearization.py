"""A discretized nonlinear equation: a residual and its exact derivative.

A residual is an expression in cell quantities that are affine in the unknowns (values and derivatives, by the formulas
of the linear scheme) and in divergences of fluxes, which are expressions in such quantities on faces. Its derivative is
therefore the same sum with each quantity replaced by its linear part, and each expression by its partial derivative,
taken symbolically: the two cannot drift apart, and the derivative is a stencil like that of any linear equation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch import Tensor

from ..boundary import StatedByAxis
from ..equations.evaluation import evaluate_all
from ..errors import InputError
from ..grid import Grid
from ..linear_operator import BlockOperator, LinearOperator
from ..scheme import Scheme
from .assembly import Assembly
from .builder import StencilBuilder
from .face_flux import FaceFlux
from .fluxes import face_of, has_flux, integral, reference, row_flux
from .inputs import Number
from .jets import JetMap
from .limited_flux import LimitedFlux
from .second_order import extrapolated_to_face

if TYPE_CHECKING:
    from ..equations import Equation

Cells = dict[str, Number]


@dataclass(frozen=True, eq=False)
class Row:
    """The nonlinear part of one equation.

    Args:
        rest: an expression in cell quantities and in the divergences of `fluxes`.
        slopes: its partial derivatives.
        jets: the derivatives of unknowns that stand in `rest` itself, by symbol.
        fluxes: by symbol.
        upwind: of the derivatives that are taken against the wind, (backward, forward) by symbol.
        sign: that of the row's diagonal, by which the wind is told.
    """

    rest: sympy.Expr
    slopes: dict[sympy.Symbol, sympy.Expr]
    jets: dict[sympy.Symbol, JetMap]
    fluxes: dict[sympy.Symbol, FaceFlux | LimitedFlux]
    upwind: dict[sympy.Symbol, tuple[JetMap, JetMap]]
    sign: float


@dataclass(frozen=True, eq=False)
class NonlinearSystem:
    """A discretized steady equation F(u) = 0, in point form: everything of it stands on the left side.

    Within this package it is also made of an evolving equation, F then being minus the rate, followed by constraints.

    Attributes:
        equation, domain, unknowns: what was discretized; channels are in the order of `unknowns`.
        fields, parameters: the values used, as floats or tensors that broadcast to `(*batch, *space)`.
        boundary: unknown -> axis -> (lower, upper), the conditions used.
        scheme: the scheme used.
        notes: what was chosen, for people to read.
        rebuild: parameters -> the system with these changed.
        batch: the shape that fields, parameters and boundary values broadcast to.
        implicit: (unknown, axis, side) where du/dn follows from a flux whose coefficient depends on the solution.
    """

    equation: Equation
    domain: Grid
    unknowns: tuple[str, ...]
    fields: dict[str, Number]
    parameters: dict[str, Number]
    boundary: dict[str, StatedByAxis]
    scheme: Scheme
    notes: tuple[str, ...]
    batch: tuple[int, ...]
    implicit: frozenset[tuple[str, int, int]]
    rebuild: Callable[[Mapping[str, Any]], NonlinearSystem] = field(repr=False)
    assembly: Assembly = field(repr=False)
    rows: tuple[Row, ...] = field(repr=False)
    sources: tuple[Tensor, ...] = field(repr=False)
    known: Cells = field(repr=False)

    @property
    def space(self) -> tuple[int, ...]:
        """The shape of one field: that of the grid, of several unknowns `(channel, *grid)`."""
        channels = () if len(self.unknowns) == 1 else (len(self.unknowns),)
        return (*channels, *self.domain.shape)

    @property
    def axes(self) -> int:
        """Trailing axes of one unknown's field: those of the grid."""
        return self.domain.dimension

    def with_parameters(self, values: Mapping[str, Any]) -> NonlinearSystem:
        """The same problem with other values of some parameters: numbers, or tensors of the batch's shape.

        Raises:
            InputError: for a name that is no parameter of the equation.
        """
        return self.rebuild(values)

    def residual(self, u: Tensor) -> Tensor:
        """F(u), in the unit of the equation; u itself in solid cells.

        Args:
            u: `(*batch, *space)`, of several unknowns `(*batch, channel, *space)`.

        Returns:
            the shape of u and of the data, broadcast; differentiable with respect to u and to all data.

        Raises:
            InputError: for a u of another shape.
        """
        channels = self._channels(u)
        cells = self.cells(channels)
        results = []
        for number, row in enumerate(self.rows):
            total = self._linear_residual(number, channels)
            if row.rest != 0:
                total = total + self.rest(number, cells)
            if self.domain.solid is not None:
                total = torch.where(self.domain.solid, channels[self.unknowns[number]], total)
            results.append(total)
        if len(results) == 1:
            return results[0]
        return torch.stack(torch.broadcast_tensors(*results), dim=-1 - self.domain.dimension)

    def jacobian(self, u: Tensor) -> LinearOperator:
        """The derivative of `residual` at u, exactly: a stencil, of several unknowns a BlockOperator of stencils.

        Where the wind turns (`advection="upwind"`), or at a kink of abs, it is the derivative on one side. Its
        coefficients are differentiable with respect to u and to all data.

        Raises:
            InputError: for a u of another shape.
        """
        return self._linearized(u, lagged=False)

    def lagged(self, u: Tensor) -> LinearOperator:
        """The operator with its coefficients evaluated at u and kept there, as Picard's iteration takes it.

        Of each divergence and each product it keeps the derivatives of the unknowns and takes their factors as given;
        nonlinear terms without derivatives are left out.
        """
        return self._linearized(u, lagged=True)

    def flux(self, value: Tensor, boundary_name: str, count: int | None = None) -> Tensor:
        """The outward flux of a field through a named boundary, by the face formula of the residual; see `System.flux`.

        Args:
            count: how many rows, from the first, each 0 if it has no flux; None for all.

        Raises:
            InputError: for another name, a value of another shape, or an equation without a flux.
        """
        channels = self._channels(value)
        if boundary_name not in self.domain.boundaries:
            known = ", ".join(self.domain.boundaries) or "none, every axis is periodic"
            raise InputError(f"there is no boundary {boundary_name!r}; the grid has: {known}")
        cells = self.cells(channels)
        rows = []
        for number, (row, unknown) in enumerate(zip(self.rows[:count], self.unknowns, strict=False)):
            total = torch.zeros((), dtype=value.dtype, device=value.device)
            if not row.fluxes:
                absent = count is not None and not has_flux(self.assembly, number)
                rows.append(total if absent else row_flux(self.assembly, value, boundary_name, number))
                continue
            unit: Number = 1.0
            divisor = row.slopes[next(iter(row.fluxes))]
            if any(piece.flux_axis is not None for piece in self.assembly.problem.pieces(number, unknown)):
                total = row_flux(self.assembly, value, boundary_name, number)
                divisor, unit = sympy.Integer(1), reference(self.assembly, number)
            for symbol, flux in row.fluxes.items():
                share = row.slopes[symbol] / divisor
                if not share.is_number:
                    raise InputError(f"the divergences in the equation of {unknown!r} have factors of their own")
                for wall, density in flux.outflow(cells, boundary_name):
                    relative = density * float(share) / wall.take(unit)
                    total = total + integral(self.domain, wall, relative, channels[unknown])
            rows.append(total)
        if len(rows) == 1:
            return rows[0]
        return torch.stack(torch.broadcast_tensors(*rows), dim=-1)

    def boundary_value(self, value: Tensor, axis: int, side: int) -> Tensor:
        """The field on a side of the box, second order; see `System.boundary_value`.

        Under a flux condition whose coefficient depends on the solution it is extrapolated from the cells.
        """
        channels = self._channels(value)
        if self.domain.periodic[axis]:
            raise InputError(f"axis {self.domain.axes[axis]} is periodic and has no sides")
        faces = []
        for unknown, u in channels.items():
            if (unknown, axis, side) in self.implicit:
                wall = next(w for w in self.assembly.problem.walls(unknown, axis) if w.side == side)
                face = torch.as_tensor(extrapolated_to_face(u, wall))
                faces.append(face.squeeze(axis - self.domain.dimension))
            else:
                faces.append(face_of(self.assembly, unknown, u, axis, side))
        return faces[0] if len(faces) == 1 else torch.stack(torch.broadcast_tensors(*faces), dim=-self.domain.dimension)

    # Cells

    def _channels(self, u: Tensor) -> dict[str, Tensor]:
        if tuple(u.shape[max(0, u.ndim - len(self.space)) :]) != self.space:
            raise InputError(f"u has shape {tuple(u.shape)}, expected (*batch, *{self.space})")
        if len(self.unknowns) == 1:
            return {self.unknowns[0]: u}
        return dict(zip(self.unknowns, u.unbind(-1 - self.domain.dimension), strict=True))

    def cells(self, channels: Mapping[str, Tensor], rows: Sequence[Row] | None = None) -> Cells:
        """All that the rest of the rows (None: of all) is made of, from the unknowns that stand in it."""
        cells: Cells = {**self.known, **channels}
        for row in self.rows if rows is None else rows:
            for jets in (row.jets, *(flux.tangents for flux in row.fluxes.values())):
                for symbol, jet in jets.items():
                    if symbol.name not in cells:
                        cells[symbol.name] = jet.apply(channels[jet.unknown])
        return cells

    def rest(self, number: int, cells: Cells) -> Number:
        """The nonlinear part of the residual of a row."""
        row = self.rows[number]
        own = self._with_divergences(row, self._against_wind(row, cells), (row.rest,))
        return evaluate_all((row.rest,), own)[0]

    def slope_of(self, number: int, symbol: sympy.Symbol, cells: Cells) -> Number:
        """The partial derivative of the rest of a row."""
        row = self.rows[number]
        expressions = (row.slopes[symbol],)
        return evaluate_all(expressions, self._with_divergences(row, self._against_wind(row, cells), expressions))[0]

    def _with_divergences(self, row: Row, cells: Cells, expressions: tuple[sympy.Expr, ...]) -> Cells:
        """The cells with the divergences that stand in the expressions."""
        if not row.fluxes:
            return cells
        needed = _symbols_in(expressions)
        found = {symbol.name: flux.divergence(cells) for symbol, flux in row.fluxes.items() if symbol in needed}
        return {**cells, **found}

    def _winds(self, row: Row, cells: Cells) -> dict[sympy.Symbol, Tensor]:
        """Where each derivative is taken backward, by the sign of what multiplies it."""
        winds = {}
        with torch.no_grad():
            for symbol in row.upwind:
                slope = (row.slopes[symbol],)
                speed = evaluate_all(slope, self._with_divergences(row, cells, slope))[0]
                winds[symbol] = torch.as_tensor(speed, device=self.domain.device) * row.sign > 0.0
        return winds

    def _against_wind(self, row: Row, cells: Cells) -> Cells:
        if not row.upwind:
            return cells
        taken = {}
        for symbol, backward in self._winds(row, cells).items():
            before, after = (jet.apply(cells[jet.unknown]) for jet in row.upwind[symbol])  # type: ignore[arg-type]
            taken[symbol.name] = torch.where(backward, before, after)
        return {**cells, **taken}

    def _linear_residual(self, number: int, channels: Mapping[str, Tensor]) -> Tensor:
        total = -self.sources[number]
        for block, unknown in zip(self.assembly.blocks[number], self.unknowns, strict=True):
            if block is not None and self.assembly.problem.pieces(number, unknown):
                total = total + block.apply(channels[unknown])
        return total

    # The derivative

    def _linearized(self, u: Tensor, lagged: bool) -> LinearOperator:
        channels = self._channels(u)
        cells = self.cells(channels)
        block: LinearOperator | None
        blocks: list[list[LinearOperator | None]] = []
        for number in range(len(self.rows)):
            builders, symmetric = self.linearized(number, cells, lagged)
            blocks.append([])
            for column, unknown in enumerate(self.unknowns):
                if column == number:
                    block = builders[unknown].diagonal_block(symmetric=symmetric, null_space=None)
                else:
                    block = builders[unknown].coupling_block()
                blocks[number].append(block)
        (first, *_), *_ = blocks
        return first if len(self.unknowns) == 1 and first is not None else BlockOperator(blocks)

    def linearized(self, number: int, cells: Cells, lagged: bool = False) -> tuple[dict[str, StencilBuilder], bool]:
        """The derivative of a row by unknown, and whether it is symmetric in its own by construction."""
        row = self.rows[number]
        builders = {unknown: StencilBuilder(self.domain) for unknown in self.unknowns}
        for block, unknown in zip(self.assembly.blocks[number], self.unknowns, strict=True):
            if block is not None and self.assembly.problem.pieces(number, unknown):
                for offset, coefficient in zip(block.offsets, block.coefficients, strict=True):
                    builders[unknown].add(offset, coefficient)
        return builders, self._add_rest(number, row, builders, cells, lagged)

    def _add_rest(
        self, number: int, row: Row, builders: Mapping[str, StencilBuilder], cells: Cells, lagged: bool
    ) -> bool:
        """Adds the nonlinear part; returns whether the diagonal block is symmetric by construction."""
        symmetric = self.assembly.properties[number].symmetric
        if not row.slopes:
            return symmetric
        winds = self._winds(row, cells)
        expressions = tuple(row.slopes.values())
        slopes = evaluate_all(expressions, self._with_divergences(row, self._against_wind(row, cells), expressions))
        for symbol, slope in zip(row.slopes, slopes, strict=True):
            if symbol in row.fluxes:
                symmetric = False
                for unknown, offset, coefficient in row.fluxes[symbol].linearized(cells, slope, lagged):
                    builders[unknown].add(offset, coefficient)
                continue
            if symbol.name in self.unknowns:
                if not lagged:
                    builder = builders[symbol.name]
                    builder.add(builder.centre, slope)
                continue
            symmetric = symmetric and row.jets[symbol].unknown != self.unknowns[number]
            parts: list[tuple[JetMap, Number]] = [(row.jets[symbol], slope)]
            if symbol in winds:
                zero = torch.zeros((), dtype=self.domain.dtype, device=self.domain.device)
                dense = torch.as_tensor(slope, dtype=self.domain.dtype, device=self.domain.device)
                backward, forward = row.upwind[symbol]
                parts = [
                    (backward, torch.where(winds[symbol], dense, zero)),
                    (forward, torch.where(winds[symbol], zero, dense)),
                ]
            for jet, factor in parts:
                for offset, weight in jet.entries():
                    builders[jet.unknown].add(offset, factor * weight)
        return symmetric


@lru_cache(maxsize=256)
def _symbols_in(expressions: tuple[sympy.Expr, ...]) -> frozenset[sympy.Symbol]:
    return frozenset().union(*(expression.free_symbols for expression in expressions))
