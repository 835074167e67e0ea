"""The right-hand side of a spectral system on complex coefficients, by operations that torch can differentiate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import sympy
import torch
from torch import Tensor

from ..equations.evaluation import evaluate, evaluate_all, names
from ..equations.residuals import partial
from ..evolving import Time
from ..given import Number
from .constant_mode import ConstantMode
from .given_fields import GivenFields
from .modes import Modes
from .operator import times
from .plan import Plan
from .tables import Symbol, Tables, added, combined, common_shape, stacked


class Rates:
    """A plan with its numbers.

    Args:
        plan: the equation taken apart.
        modes: the modes kept.
        given: the fields.
        tables: in complex128.
        batch: the shape that all data broadcast to.

    Attributes:
        tables: in the complex dtype of coefficients.
        linear: the symbol of the linear part; None if there is none.
        sources: of the unknowns, what depends neither on the state nor on time.
        offsets: what the sources of the constraints add to each input, as values.
        drifts: whether rounding may let the redundant coefficients of real fields drift from being conjugate.
        constant_mode: what the constraints ask of means; None if nothing.
        watched: the same where that may be lost in the course of time.
        pairs: `(product, input, input)`, the products that it asks for as sums of products of two inputs; None if they
            are none.
    """

    def __init__(
        self, plan: Plan, modes: Modes, given: GivenFields, tables: Tables, batch: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self.plan, self.modes, self.given, self.batch, self.dtype = plan, modes, given, batch, dtype
        self.channels, self.axes = len(plan.unknowns), modes.dimension
        self.tables = tables.to(dtype)
        present = any(part is not None for row in tables.linear for part in row)
        self.linear = stacked(tables.linear, modes).to(dtype) if present else None
        sources = self._transformed_sources()
        self.sources, self._constraint_sources = sources[: self.channels], sources[self.channels :]
        for i, row in enumerate(self.tables.response):
            self.sources[i] = combined(row, self._constraint_sources, self.sources[i])
        self.offsets = [self._offset(field, order) for field, order in plan.inputs]
        self._input_names = [plan.name(factor) for factor in plan.inputs]
        self._given_names = set().union(*(names(e) for e in plan.products)) - set(self._input_names)
        growing = self.linear is not None and bool((self.linear.detach().real > 0).any())
        self.drifts = self.axes > 1 and self.linear is not None and (self.channels > 1 or growing)
        self.constant_mode = None
        if tables.left_null is not None:
            asked = ConstantMode(tables.left_null, self.tables, self._constraint_sources, modes, plan.constrained)
            self.constant_mode = None if asked.trivial else asked
        self.watched = self.constant_mode
        if self.constant_mode is not None and not self.constant_mode.may_move(self.tables, self.sources):
            self.watched = None
        self.pairs = self._pairs()

    def _pairs(self) -> Tensor | None:
        places = () if self.watched is None else self.watched.products
        grid, count = self.modes.grid, len(self.plan.inputs)
        found = torch.zeros(len(places), count, count, dtype=grid.dtype, device=grid.device)
        for numbers, place in zip(found, places, strict=True):
            polynomial = self.plan.polynomials[place]
            for monomial, coefficient in polynomial or ():
                number = evaluate(coefficient, self.given.parameters)
                inputs = [self.plan.inputs.index(factor) for factor in monomial]
                if isinstance(number, Tensor) or len(inputs) != 2 or any(self.offsets[i] is not None for i in inputs):
                    return None
                numbers[inputs[0], inputs[1]] += number
            if polynomial is None:
                return None
        return found

    def _transformed_sources(self) -> list[Symbol]:
        found: list[Symbol] = [None] * (self.channels + len(self.plan.constrained))
        for row, expression in self.plan.sources:
            value = evaluate_all((expression,), self.given.values(names(expression), None))[0]
            found[row] = added(found[row], self.modes.forward(self._on_fine(value)))
        return found

    def _offset(self, field: str, order: tuple[int, ...]) -> Symbol:
        """What the sources of the constraints add to an input, as values."""
        if field not in self.plan.constrained:
            return None
        row = self.tables.feedback[self.plan.constrained.index(field)]
        total = combined(row, self._constraint_sources, None)
        if total is None:
            return None
        real, power = self.modes.derivative(order)
        symbol = (real * (1, 1j, -1, -1j)[power]).to(self.dtype)
        return self.modes.inverse(symbol * total, self.modes.fine)

    def _on_fine(self, value: Number) -> Tensor:
        fine, grid = self.modes.fine, self.modes.grid
        if not isinstance(value, Tensor):
            return torch.full(fine, float(value), dtype=grid.dtype, device=grid.device)
        return value.to(grid.dtype).expand(common_shape(value.shape, fine))

    def split(self, c: Tensor) -> tuple[Tensor, ...]:
        """The coefficients of each unknown."""
        return (c,) if self.channels == 1 else c.unbind(-self.axes - 1)

    # The right-hand side

    def of(self, c: Tensor, t: Time, *, linear: bool, anywhere: bool = False) -> Tensor:
        """The rate of coefficients `(*batch, [channel,] *kept)`, or without the linear part of it; NaN in rows whose
        constraints have no solution.

        Args:
            anywhere: whether the coefficients may be any, not only those in the course of a run.
        """
        channels = self.split(c)
        products = self._products(channels, t)
        found = self._gathered(products, self.sources, c)
        if linear and self.linear is not None:
            found = found + times(self.linear, c, self.modes, self.channels)
            if self.drifts:
                found = self.modes.symmetrized(found)
        asked = self.constant_mode if anywhere else self.watched
        if asked is not None:
            found = self.without(found, asked.unsolvable(channels, asked.shares(products)))
        return found.contiguous()

    def spoil(self, c: Tensor, rate: Tensor) -> None:
        """Write NaN into the rate of rows whose constraints have no solution, where products are `pairs`; on the CPU,
        for coefficients in the course of a run."""
        if self.watched is None or self.pairs is None or self.watched.is_plainly_met(c):
            return
        channels = self.split(c)
        factors = [combined(row, channels, None) for row in self.tables.inputs if len(self.pairs)]
        inputs = [torch.zeros_like(channels[0]) if factor is None else factor.detach() for factor in factors]
        failed = self.watched.unsolvable(channels, self.watched.shares_of_pairs(self.pairs, inputs))
        if bool(failed.any()):
            rate.copy_(self.without(rate, failed))

    def without(self, c: Tensor, rows: Tensor) -> Tensor:
        """Coefficients that are NaN in some rows."""
        inner = self.axes + (self.channels > 1)
        return torch.where(rows.reshape(*rows.shape, *[1] * inner), torch.nan, c)

    def along(self, c: Tensor, direction: Tensor, t: Time, *, linear: bool) -> Tensor:
        """The derivative of the same along a direction."""
        channels, ahead = self.split(c), self.split(direction)
        products: tuple[Tensor, ...] = ()
        if self.plan.products:
            values = self._input_values(channels)
            slopes = self._input_values(ahead, offsets=False)
            values.update(self.given.values(self._given_names, t))
            partials = iter(evaluate_all([partial for row in self._partials for _, partial in row], values))
            sums = [sum(next(partials) * slopes[name] for name, _ in row) for row in self._partials]
            products = tuple(self.modes.forward(self._on_fine(total)) for total in sums)
        found = self._gathered(products, [None] * self.channels, direction)
        if linear and self.linear is not None:
            found = found + times(self.linear, direction, self.modes, self.channels)
            found = self.modes.symmetrized(found) if self.drifts else found
        return found.contiguous()

    def constrained(self, c: Tensor, t: Time) -> dict[str, Tensor]:
        """The fields that the constraints determine, as values; NaN in rows that have none."""
        channels, tables = self.split(c), self.tables
        driven = any(part is not None for row in tables.products for part in row)
        products = self._products(channels, t) if driven else ()
        sides = [
            combined(row, products, source) if driven else source
            for row, source in zip(tables.products, self._constraint_sources, strict=True)
        ]
        asked = self.constant_mode
        wrong = None if asked is None else asked.unsolvable(channels, asked.shares(products))
        found: dict[str, Tensor] = {}
        for name, row, feedback in zip(self.plan.constrained, tables.constrained, tables.feedback, strict=True):
            total = combined(feedback, sides, combined(row, channels, None))
            value = self.modes.inverse(torch.zeros_like(channels[0]) if total is None else total, self.modes.shape)
            if wrong is not None:
                value = torch.where(wrong.reshape(*wrong.shape, *[1] * self.axes), torch.nan, value)
            found[name] = value
        return found

    def require_balance(self, c: Tensor, t: Time) -> None:
        """Refuse coefficients from which the constraints have no solution at the beginning of a run.

        Raises:
            InputError: in that case.
        """
        if self.constant_mode is not None:
            with torch.no_grad():
                products = self._products(self.split(c), t) if self.constant_mode.by_products else ()
                self.constant_mode.require(self.split(c), self.constant_mode.shares(products))

    def _gathered(self, products: Sequence[Tensor], sources: Sequence[Symbol], c: Tensor) -> Tensor:
        """What the transforms of products, and sources, add to the rates of coefficients c."""
        channels = self.split(c)
        rows = [combined(row, products, source) for row, source in zip(self.tables.outputs, sources, strict=True)]
        shape = common_shape(channels[0].shape, *(row.shape for row in rows if row is not None))
        shape = common_shape(shape, (*self.batch, *self.modes.kept))
        zero = torch.zeros(shape, dtype=c.dtype, device=c.device)
        full = [zero if row is None else row.expand(shape) for row in rows]
        return full[0] if self.channels == 1 else torch.stack(full, dim=-self.axes - 1)

    def _products(self, channels: tuple[Tensor, ...], t: Time) -> tuple[Tensor, ...]:
        """The transforms of the plan's products."""
        if not self.plan.products:
            return ()
        values = {**self._input_values(channels), **self.given.values(self._given_names, t)}
        found = [self._on_fine(value) for value in evaluate_all(self.plan.products, values)]
        return tuple(self.modes.forward(value) for value in found)

    def _input_values(self, channels: tuple[Tensor, ...], *, offsets: bool = True) -> dict[str, Number]:
        """The plan's inputs on the finer grid."""
        if not self.plan.inputs:
            return {}
        coefficients = [combined(row, channels, None) for row in self.tables.inputs]
        shape = common_shape(*(c.shape for c in coefficients if c is not None))
        zero = torch.zeros(shape, dtype=self.dtype, device=self.modes.grid.device)
        stack = torch.stack([zero if c is None else c.expand(shape) for c in coefficients])
        fields = self.modes.inverse(stack, self.modes.fine).unbind(0)
        if offsets:
            fields = tuple(f if o is None else f + o for f, o in zip(fields, self.offsets, strict=True))
        return dict(zip(self._input_names, fields, strict=True))

    @cached_property
    def _partials(self) -> list[list[tuple[str, sympy.Expr]]]:
        """Of every product its partial derivatives with respect to the inputs that it holds."""
        found = []
        for product in self.plan.products:
            symbols = sorted(product.free_symbols, key=str)
            found.append([(s.name, partial(product, s)) for s in symbols if s.name in self._input_names])
        return found
