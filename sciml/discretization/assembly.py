"""Assembles the blocks of a system and its right side from the terms of a problem."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..scheme import FiniteVolume
from ..stencil import StencilOperator
from .builder import StencilBuilder
from .differences import (
    WallPolynomial,
    difference,
    difference_up_to_walls,
    differentiate,
    extrapolated,
    flux_difference,
    varies,
)
from .mixed import add_mixed_flux
from .null_space import coupled_groups, names_in, system_null_space
from .problem import Piece, Problem
from .properties import Properties, cell_peclet, diagonal_sign, properties
from .second_order import add_advective_flux, add_diffusion, add_first_derivative
from .walls import Right, Wall
from .weights import central_weights

PECLET_LIMIT = 2.0


class Assembly:
    """The operator's blocks and the right side of a problem, and what had to be decided on the way.

    Attributes:
        blocks: `blocks[i][j]` acts on unknown j in row i; None stands for zero.
        diagonal_blocks: `blocks[i][i]`.
        right_sides: one `(*batch, *space)` tensor a row.
        properties: of the diagonal block of each row.
        null_space: of the whole operator, `(k, *space)` or `(k, channel, *space)`; None if nothing of it is known.
        upwind: for each row, whether first derivatives of its own unknown are taken against the wind.
        signs: for each row, the sign of its diagonal.
        notes: the decisions in words.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        notes = [_describe_scheme(problem)]
        self.upwind: list[bool] = []
        self.signs: list[float] = []
        self.properties: list[Properties] = []
        self.diagonal_blocks: list[StencilOperator] = []
        self.blocks: list[list[StencilOperator | None]] = []
        self.right_sides: list[Tensor] = []
        for row in range(len(problem.rows)):
            upwind, note = _choose_upwind(problem, row)
            notes.extend(note)
            self.upwind.append(upwind)
            self.signs.append(diagonal_sign(problem, row))
            self.properties.append(properties(problem, row, self.signs[row]))
            right: Right = []
            self.blocks.append(self._blocks(row, right))
            self.right_sides.append(self._right_side(row, right))
        self.null_space = self.properties[0].null_space
        if len(problem.unknowns) > 1 and problem.complete:
            self.null_space = system_null_space(problem, [known.null_space for known in self.properties])
        if self.null_space is not None:
            for names in dict.fromkeys(names_in(vector, problem.unknowns) for vector in self.null_space):
                notes.append(f"{names}: determined up to a constant on each part of the domain that nothing holds")
        self.notes = tuple(notes)

    def polynomial(self, wall: Wall, unknown: str) -> WallPolynomial:
        """The fourth-order closure of an unknown at a wall."""
        a = self.problem.normal(unknown, wall.axis)
        return WallPolynomial(wall, extrapolated(a, wall, self.problem.grid))

    def is_upwind(self, row: int, unknown: str, piece: Piece) -> bool:
        """Whether a term is taken against the wind; a coupling to another unknown never is, it carries nothing."""
        return piece.role == "advection" and self.upwind[row] and unknown == self.problem.unknowns[row]

    def _blocks(self, row: int, right: Right) -> list[StencilOperator | None]:
        problem, known = self.problem, self.properties[row]
        blocks: list[StencilOperator | None] = []
        for column, unknown in enumerate(problem.unknowns):
            builder = StencilBuilder(problem.grid)
            for piece in problem.pieces(row, unknown):
                self._add(builder, right, row, unknown, piece)
            if column != row:
                blocks.append(builder.coupling_block())
                continue
            # The kernel of a block that is coupled to others is not that of the whole.
            null_space = known.null_space if [row] in coupled_groups(problem) else None
            self.diagonal_blocks.append(builder.diagonal_block(symmetric=known.symmetric, null_space=null_space))
            blocks.append(self.diagonal_blocks[row])
        return blocks

    def _add(self, builder: StencilBuilder, right: Right, row: int, unknown: str, piece: Piece) -> None:
        self.add(builder, right, unknown, piece, self.is_upwind(row, unknown, piece), self.signs[row])

    def add(
        self, builder: StencilBuilder, right: Right, unknown: str, piece: Piece, upwind: bool, sign: float = 1.0
    ) -> None:
        """Add a term to a block; a first derivative is taken against the wind of a row whose diagonal has `sign`."""
        problem = self.problem
        if piece.role == "reaction":
            builder.add(builder.centre, piece.outer)
        elif piece.role == "other":
            self._add_other(builder, right, unknown, piece)
        elif problem.order == 4 and not upwind:
            self._add_expanded(builder, right, unknown, piece)
        elif piece.role == "diffusion":
            add_diffusion(problem, builder, right, unknown, piece)
        elif piece.flux_axis is None:
            add_first_derivative(problem, builder, right, unknown, piece, upwind, sign)
        else:
            add_advective_flux(problem, builder, right, unknown, piece, upwind, sign)

    def _add_other(self, builder: StencilBuilder, right: Right, unknown: str, piece: Piece) -> None:
        """A mixed derivative, or one above the second."""
        grid = self.problem.grid
        taken = [k for k, order in enumerate(piece.total) if order]
        walled = [grid.axes[k] for k in taken if not grid.periodic[k]]
        if piece.mixed and grid.solid is None and self.problem.order == 2:
            return add_mixed_flux(self.problem, builder, right, unknown, piece)
        if walled or grid.solid is not None:
            kind = "mixed derivatives" if len(taken) > 1 else f"derivatives of order {sum(piece.total)}"
            where = f"axis {' and '.join(walled)}, which is not periodic" if walled else "a grid with solid cells"
            tensor = "write them as div([a*u_x + b*u_y, b*u_x + c*u_y]), at order 2 and without solid cells"
            system = "write the equation as a system of second-order equations"
            raise InputError(
                f"{kind} are taken along {where}; this version has no formula for them at walls: make the axes "
                f"periodic, or {tensor if sum(piece.total) == 2 else system}"
            )
        accuracy = self.problem.order
        for k in taken:
            _require_cells(self.problem, k, 1 + 2 * central_weights(piece.total[k], accuracy)[-1][0])
        axis, inner = piece.flux_axis, piece.inner
        if axis is not None and isinstance(inner, Tensor) and varies(inner, axis, grid.dimension):
            flux_difference(builder, piece.outer, inner, axis, piece.derivative, accuracy)
        else:
            difference(builder, piece.outer * inner, piece.total, accuracy)

    def _add_expanded(self, builder: StencilBuilder, right: Right, unknown: str, piece: Piece) -> None:
        """A first or second derivative at order 4: d(b Du)/dx as b dDu/dx + b_x Du, each by five-point differences."""
        problem, axis = self.problem, piece.axis
        grid = problem.grid
        _require_cells(problem, axis, 5 if grid.periodic[axis] else 4)
        walls = [(wall, self.polynomial(wall, unknown)) for wall in problem.walls(unknown, axis)]
        order = piece.total[axis]
        factors = {order: piece.outer * piece.inner}
        slope = differentiate(piece.inner, grid, axis, 1, 4, "the coefficient inside div")
        if isinstance(slope, Tensor):
            factors[order - 1] = piece.outer * slope
        for derivative, factor in factors.items():
            if derivative == 0:
                builder.add(builder.centre, factor)
            elif grid.periodic[axis]:
                difference(builder, factor, builder.along(axis, derivative), 4)
            else:
                difference_up_to_walls(builder, right, factor, axis, derivative, walls)

    def _right_side(self, row: int, right: Right) -> Tensor:
        problem = self.problem
        grid = problem.grid
        shape = (*problem.batch, *grid.shape)
        total = sum(problem.sources[row][1:], start=problem.sources[row][0]) if problem.sources[row] else 0.0
        if isinstance(total, Tensor):
            result = total.expand(shape).clone(memory_format=torch.contiguous_format)
        else:
            result = torch.full(shape, total, dtype=grid.dtype, device=grid.device)
        for place, amount in right:
            result = place.put(result, amount)
        return result if grid.solid is None else result.masked_fill_(grid.solid, 0.0)


def _require_cells(problem: Problem, axis: int, least: int) -> None:
    grid = problem.grid
    if grid.shape[axis] < least:
        raise InputError(
            f"the differences along {grid.axes[axis]} need at least {least} cells, the grid has {grid.shape[axis]}"
        )


def _describe_scheme(problem: Problem) -> str:
    scheme = problem.scheme
    if not isinstance(scheme, FiniteVolume):
        return f"finite differences of order {scheme.order}"
    return f"finite volumes of order 2, {scheme.average} means of coefficients on faces"


def _choose_upwind(problem: Problem, row: int) -> tuple[bool, list[str]]:
    """Whether first derivatives of a row's own unknown go against the wind, and the note that says so."""
    unknown = problem.unknowns[row]
    if not any(piece.role == "advection" for piece in problem.pieces(row, unknown)):
        return False, []
    where = "first derivatives" if len(problem.unknowns) == 1 else f"first derivatives of {unknown} in its equation"
    orders = {True: "upwind, of order 1", False: f"central, of order {problem.order}"}
    if problem.scheme.advection != "auto":
        upwind = problem.scheme.advection == "upwind"
        return upwind, [f"{where}: {orders[upwind]} (as asked)"]
    peclet = cell_peclet(problem, row)
    upwind = peclet > PECLET_LIMIT
    relation = ">" if upwind else "<="
    return upwind, [f"{where}: {orders[upwind]} (cell Peclet number {peclet:.3g} {relation} {PECLET_LIMIT:g})"]
