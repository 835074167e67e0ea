"""A plan in numbers: the symbols of the linear part, of the factors and of what products contribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import sympy
import torch
from torch import Tensor

from ..equations.evaluation import evaluate
from ..errors import InputError
from ..given import Number
from ..one_thread import one_thread
from .modes import Modes
from .plan import Plan
from .polynomials import Order

Symbol = Tensor | None
"""A complex128 tensor that broadcasts to `(*batch, *kept)`; None where it is zero."""

LARGEST_LISTED = 4


class Tables:
    """Constraints eliminated wavenumber by wavenumber.

    Attributes:
        linear: `linear[i][j]`, the symbol of unknown j in the rate of unknown i.
        inputs: `inputs[a][j]`, of unknown j in input a of the plan.
        outputs: `outputs[i][r]`, of product r in the rate of unknown i.
        constrained: `constrained[c][j]`, of unknown j in constrained field c.
        feedback: `feedback[c][d]`, of the rest of constraint d (its sources and products) in constrained field c.
        products: `products[d][r]`, of product r in constraint d.
        driven: `driven[d][j]`, of unknown j in constraint d.
        response: `response[i][d]`, of the rest of constraint d in the rate of unknown i.
        left_null: the projection onto what the constraints' constant mode cannot reach, `(*batch, d, d)`; None if it
            reaches all.
    """

    def __init__(self, plan: Plan, modes: Modes, parameters: Mapping[str, Number]) -> None:
        self.plan = plan
        self.modes = modes
        self.parameters = {
            name: value.to(torch.float64) if isinstance(value, Tensor) else value for name, value in parameters.items()
        }
        unknowns, count = len(plan.unknowns), len(plan.unknowns) + len(plan.constrained)
        places = {name: place for place, name in enumerate((*plan.unknowns, *plan.constrained))}
        table: list[list[Symbol]] = [[None] * count for _ in range(count)]
        scale = torch.zeros([1] * modes.dimension, dtype=torch.float64, device=modes.grid.device)
        for term in plan.linear:
            symbol = self.symbol(term.coefficient, term.order)
            column = places[term.field]
            table[term.row][column] = added(table[term.row][column], symbol)
            if term.row >= unknowns and column >= unknowns:
                scale = scale + symbol.detach().abs()
        self.feedback, self.left_null = self._inverted([row[unknowns:] for row in table[unknowns:]], scale)
        self.driven = [row[:unknowns] for row in table[unknowns:]]
        self.constrained = _product(self.feedback, self.driven, unknowns)
        coupling = [row[unknowns:] for row in table[:unknowns]]
        through = _product(coupling, self.constrained, unknowns)
        self.linear = [[added(table[i][j], through[i][j]) for j in range(unknowns)] for i in range(unknowns)]
        self.inputs: list[list[Symbol]] = []
        for field, order in plan.inputs:
            symbol = self.symbol(sympy.Integer(1), order)
            if field in plan.unknowns:
                self.inputs.append([symbol if name == field else None for name in plan.unknowns])
            else:
                row = self.constrained[plan.constrained.index(field)]
                self.inputs.append([None if part is None else symbol * part for part in row])
        results: list[list[Symbol]] = [[None] * len(plan.products) for _ in range(count)]
        for output in plan.outputs:
            symbol = self.symbol(output.coefficient, output.order)
            results[output.row][output.product] = added(results[output.row][output.product], symbol)
        self.products = results[unknowns:]
        self.response = _product(coupling, self.feedback, len(plan.constrained))
        through = _product(self.response, self.products, len(plan.products))
        self.outputs = [
            [added(results[i][r], through[i][r]) for r in range(len(plan.products))] for i in range(unknowns)
        ]

    def symbol(self, coefficient: sympy.Expr, order: Order) -> Tensor:
        """coefficient * (ik)^order."""
        real, power = self.modes.derivative(order)
        value = evaluate(coefficient, self.parameters)
        return (value * real) * (1, 1j, -1, -1j)[power]

    def to(self, dtype: torch.dtype) -> Tables:
        """The same tables in a complex dtype."""
        found = copy(self)
        for name in ("linear", "inputs", "outputs", "constrained", "feedback", "products", "driven", "response"):
            table = getattr(self, name)
            setattr(found, name, [[None if part is None else part.to(dtype) for part in row] for row in table])
        return found

    def _inverted(self, block: list[list[Symbol]], scale: Tensor) -> tuple[list[list[Symbol]], Tensor | None]:
        """Minus the inverse of the constraints' block for every wavenumber, where the constant mode has a kernel the
        pseudo-inverse; and the projection onto what the constant mode cannot reach, None where it reaches all."""
        count = len(block)
        if count == 0:
            return [], None
        matrix = _stacked(block, self.modes)
        scale = scale.expand(matrix.shape[:-2])
        singular = torch.linalg.svdvals(matrix.detach())[..., -1] <= 1e-12 * scale
        singular = (
            singular.flatten(0, -1 - self.modes.dimension).any(0) if singular.ndim > self.modes.dimension else singular
        )
        at_zero = bool(singular.flatten()[0])
        places = torch.nonzero(singular).tolist()
        wrong = [place for place in places if any(place)]
        if wrong:
            numbers = [tuple(int(n.flatten()[k]) for n, k in zip(self.modes.numbers, p, strict=True)) for p in wrong]
            listed = ", ".join(str(number if len(number) > 1 else number[0]) for number in numbers[:LARGEST_LISTED])
            more = f" and {len(numbers) - LARGEST_LISTED} more" if len(numbers) > LARGEST_LISTED else ""
            axes = ", ".join(self.modes.grid.axes)
            raise InputError(
                f"the constraints do not determine {', '.join(self.plan.constrained)}: they are singular at the "
                f"wavenumbers ({axes}) = {listed}{more}, in units of 2 pi / length; only the constant mode may be left "
                "open, which is then taken to be zero"
            )
        mask = torch.zeros(self.modes.kept, dtype=torch.bool, device=matrix.device)
        left = None
        if at_zero:
            mask.view(-1)[0] = True
            zero = matrix.flatten(-2 - self.modes.dimension, -3)[..., 0, :, :]
            pseudo = torch.linalg.pinv(zero, rtol=1e-12)
            unit = torch.eye(count, dtype=matrix.dtype, device=matrix.device)
            left = (unit - zero @ pseudo).detach()
            matrix = torch.where(mask[..., None, None], unit, matrix)
        with one_thread():
            inverse = torch.linalg.inv(matrix) if count > 1 else matrix.reciprocal()
        if at_zero:
            inverse = torch.where(
                mask[..., None, None],
                pseudo.reshape(*pseudo.shape[:-2], *[1] * self.modes.dimension, count, count),
                inverse,
            )
        return [[-inverse[..., i, j] for j in range(count)] for i in range(count)], left


def _stacked(block: list[list[Symbol]], modes: Modes) -> Tensor:
    """`(*batch, *kept, rows, columns)`."""
    present = [part for row in block for part in row if part is not None]
    zero = torch.zeros(modes.kept, dtype=torch.complex128, device=modes.grid.device)
    shape = torch.broadcast_shapes(zero.shape, *(part.shape for part in present))
    rows = [torch.stack([(zero if part is None else part).expand(shape) for part in row], dim=-1) for row in block]
    return torch.stack(rows, dim=-2)


def stacked(block: list[list[Symbol]], modes: Modes) -> Tensor:
    """A square table as `(*batch, *kept)` if it has one entry, else `(*batch, rows, columns, *kept)`."""
    matrix = _stacked(block, modes)
    if len(block) == 1:
        return matrix[..., 0, 0]
    return torch.movedim(matrix, (-2, -1), (-2 - modes.dimension, -1 - modes.dimension))


def added(first: Symbol, second: Symbol) -> Symbol:
    """first + second."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


def combined(row: Sequence[Symbol], parts: Sequence[Symbol], start: Symbol) -> Symbol:
    """start + sum of row[j] * parts[j], None if there is nothing."""
    total = start
    for factor, part in zip(row, parts, strict=True):
        if factor is not None and part is not None:
            total = added(total, factor * part)
    return total


def common_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that all broadcast to; torch.broadcast_shapes takes longer than a transform."""
    longest = max(shapes, key=len)
    if all(shape == longest[len(longest) - len(shape) :] for shape in shapes):
        return longest
    return tuple(torch.broadcast_shapes(*shapes))


def _product(left: list[list[Symbol]], right: list[list[Symbol]], columns: int) -> list[list[Symbol]]:
    found: list[list[Symbol]] = []
    for row in left:
        entries: list[Symbol] = []
        for column in range(columns):
            total: Symbol = None
            for part, other in zip(row, right, strict=True):
                other_part = other[column]
                if part is not None and other_part is not None:
                    total = added(total, part * other_part)
            entries.append(total)
        found.append(entries)
    return found
