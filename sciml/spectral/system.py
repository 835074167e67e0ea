"""discretize_spectral(equation, grid): an evolving equation in its Fourier coefficients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, final

import sympy
import torch
from torch import Tensor

from ..discretization.inputs import batch_shape, resolve_field, resolve_parameters
from ..equations import Equation
from ..equations.evaluation import evaluate_all, names
from ..equations.residuals import partial
from ..errors import InputError
from ..evolving import EvolvingSystem, Time, Tolerance, by_row
from ..given import Number
from ..grid import Grid
from ..inference import outside_inference_mode
from ..kernels.fourier import symmetrize
from ..scheme import Spectral
from . import forward_mode
from .given_fields import GivenFields, split_by_time
from .jacobian import ShiftedJacobian
from .modes import Modes
from .operator import FourierOperator, times
from .plan import make_plan
from .requirements import require_periodic
from .tables import Symbol, Tables, added, combined, common_shape, stacked
from .workspace import Workspace, Workspaces, available, find_polynomials, rows_at_once

MAX_WORKSPACES = 8


@final
class SpectralSystem(EvolvingSystem):
    """An evolving equation on a periodic grid, in its Fourier coefficients.

    A state is `(*batch, *kept, 2)`, of several unknowns `(*batch, channel, *kept, 2)`: real and imaginary parts of the
    kept coefficients c_k of u(x) = sum of c_k exp(i k (x - lower)), of the last axis for k >= 0 only.

    Attributes:
        modes: which coefficients are kept, and the transforms.
        plan: the equation taken apart; `plan.inputs` and `plan.products` are the inverse and the forward transforms.
        symbol: of the linear part, complex128: `(*batch, *kept)`, of several unknowns
            `(*batch, channel, channel, *kept)`.
    """

    domain: Grid

    def __init__(
        self, equation: Equation, grid: Grid, fields: Mapping[str, Any], parameters: Mapping[str, Any], scheme: Spectral
    ) -> None:
        require_periodic(equation, grid)
        self.equation = equation
        self.domain = grid
        self.scheme = scheme
        self.boundary = grid.boundary
        self.unknowns = equation.unknowns
        self.dtype, self.device = grid.dtype, grid.device
        self.modes = Modes(grid, scheme)
        varying = split_by_time(fields, equation, grid.dimension)
        resolved = {
            name: resolve_field(value, grid, f"field {name!r}") for name, value in fields.items() if name not in varying
        }
        self.parameters = resolve_parameters(parameters, equation.parameters, grid)
        self.fields = {name: resolved.get(name, fields[name]) for name in equation.coefficients}
        self.batch = batch_shape([*resolved.items(), *self.parameters.items()], grid.dimension)
        self.plan = make_plan(equation, grid.dimension, varying)
        self.channels = len(self.unknowns)
        self.axes = grid.dimension
        self.space = grid.shape if self.channels == 1 else (self.channels, *grid.shape)
        kept = (*self.modes.kept, 2)
        self.state_space = kept if self.channels == 1 else (self.channels, *kept)
        self.given = GivenFields(fields, varying, resolved, self.parameters, self.modes, equation)
        self.complex_dtype = torch.complex128 if grid.dtype == torch.float64 else torch.complex64
        self._prepare()
        self.notes = (self._describe(),)

    def _prepare(self) -> None:
        tables = Tables(self.plan, self.modes, self.parameters)
        self.symbol = stacked(tables.linear, self.modes)
        self._linear = self.symbol.to(self.complex_dtype)
        has_linear = any(part is not None for row in tables.linear for part in row)
        self.linear_part = FourierOperator(self._linear, self.modes, self.channels) if has_linear else None
        self._linear_table = self._cast(tables.linear)
        self._inputs = self._cast(tables.inputs)
        self._outputs = self._cast(tables.outputs)
        self._constrained = self._cast(tables.constrained)
        self._feedback = self._cast(tables.feedback)
        self._constraint_products = self._cast(tables.products)
        self._left_null = tables.left_null
        self._driven = self._cast(tables.driven)
        sources = self._transformed_sources()
        self._sources = sources[: self.channels]
        self._constraint_sources = sources[self.channels :]
        if any(source is not None for source in self._constraint_sources):
            response = self._cast(tables.response)
            for i, row in enumerate(response):
                for part, source in zip(row, self._constraint_sources, strict=True):
                    if part is not None and source is not None:
                        self._sources[i] = added(self._sources[i], part * source)
        self._offsets = [self._offset(field, order) for field, order in self.plan.inputs]
        self._product_names = set().union(*(names(e) for e in self.plan.products)) - set(self._input_names)
        # Growing modes would let the redundant half of the coefficients drift from being conjugate to the other.
        growing = self.axes > 1 and (self.channels > 1 or bool((self.symbol.detach().real > 0).any()))
        self._drifts = growing and has_linear
        last = self.modes.kept[-1] - 1
        self._doubled = [0, last] if last > 0 and 2 * last == self.modes.shape[-1] else [0]
        data = (*self.fields.values(), *self.parameters.values())
        self._learned = bool(self.given.varying) or any(isinstance(v, Tensor) and v.requires_grad for v in data)
        by_torch = find_polynomials(self.plan, self.given, any(o is not None for o in self._offsets)) is None
        self._by_row = bool(self.batch or self.given.varying)
        self._fixed_rows = self._by_row or by_torch
        tensors = any(isinstance(value, Tensor) for value in data)
        self.constant_data = not self.given.varying and not (tensors and forward_mode.active())
        self._workspaces = Workspaces()
        self.fast = self.device.type == "cpu" and self.axes < 3 and available()

    @property
    def _input_names(self) -> list[str]:
        return [self.plan.name(factor) for factor in self.plan.inputs]

    def _cast(self, table: list[list[Symbol]]) -> list[list[Symbol]]:
        return [[None if part is None else part.to(self.complex_dtype) for part in row] for row in table]

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
        row = self._feedback[self.plan.constrained.index(field)]
        total: Symbol = None
        for part, source in zip(row, self._constraint_sources, strict=True):
            if part is not None and source is not None:
                total = added(total, part * source)
        if total is None:
            return None
        real, power = self.modes.derivative(order)
        symbol = (real * (1, 1j, -1, -1j)[power]).to(self.complex_dtype)
        return self.modes.inverse(symbol * total, self.modes.fine)

    def _describe(self) -> str:
        kept, full = self.modes.size, prod((*self.modes.shape[:-1], self.modes.shape[-1] // 2 + 1))
        count = f"{len(self.plan.inputs)} inverse and {len(self.plan.products)} forward transforms a right-hand side"
        products = "" if self.modes.fine == self.modes.shape else f", products on {self.modes.fine} points"
        return (
            f"Fourier series with {kept} of {full} coefficients (dealiasing {self.scheme.dealias}{products}), {count}"
        )

    def _on_fine(self, value: Number) -> Tensor:
        fine = self.modes.fine
        if not isinstance(value, Tensor):
            return torch.full(fine, float(value), dtype=self.dtype, device=self.device)
        return value.expand(common_shape(value.shape, fine))

    def hold(self, u: Tensor, t: Time) -> Tensor:
        return u

    # States

    def encode(self, u: Tensor) -> Tensor:
        self._check_space(u)
        c = self.modes.forward(u)
        self._check_means(c, u)
        return torch.view_as_real(c.contiguous())

    def decode(self, y: Tensor) -> Tensor:
        return self.modes.inverse(torch.view_as_complex(y.contiguous()), self.modes.shape)

    def project(self, y: Tensor) -> Tensor:
        """The state with coefficients that stand for a real field, which rounding may leave where modes grow."""
        if not self._drifts:
            return y
        return torch.view_as_real(self._symmetrized(torch.view_as_complex(y.contiguous())))

    def project_(self, c: Tensor) -> None:
        """The same of coefficients in place, where `fast` holds."""
        if self._drifts:
            symmetrize(c, self._doubled)

    def multiplied(self, factor: Tensor, y: Tensor) -> Tensor:
        """A number, or a small matrix, for each wavenumber times a state.

        Args:
            factor: complex, of the shape of `symbol`.
            y: a state.
        """
        return torch.view_as_real(times(factor, torch.view_as_complex(y.contiguous()), self.modes, self.channels))

    def _symmetrized(self, c: Tensor) -> Tensor:
        """Coefficients with c(-k) = conj(c(k)) also where both are kept."""
        dims = tuple(range(-self.axes, -1))
        columns = []
        for place in self._doubled:
            column = c.narrow(-1, place, 1)
            mirrored = torch.roll(torch.flip(column, dims), [1] * len(dims), dims)
            columns.append((column + mirrored.conj()) / 2)
        inner = c.narrow(-1, 1, c.shape[-1] - len(self._doubled))
        return torch.cat([columns[0], inner, *columns[1:]], dim=-1)

    def _check_space(self, u: Tensor) -> None:
        if tuple(u.shape[-len(self.space) :]) != self.space:
            raise InputError(f"a field of shape {tuple(u.shape)}, expected (*batch, *{self.space})")

    def _check_means(self, c: Tensor, u: Tensor) -> None:
        """Refuse a state from which a constraint cannot be satisfied in the mean."""
        if self._left_null is None:
            return
        channels = self._split(c.detach())
        sides = []
        for row, source in zip(self._driven, self._constraint_sources, strict=True):
            total = torch.zeros((), dtype=c.dtype, device=c.device)
            for part, channel in zip(row, channels, strict=True):
                if part is not None:
                    total = total + self.modes.mean(part.detach()) * self.modes.mean(channel)
            sides.append(total if source is None else total + self.modes.mean(source.detach()))
        sides = torch.broadcast_tensors(*sides)
        off = (self._left_null.to(c.dtype) @ torch.stack(sides, dim=-1)[..., None])[..., 0].abs()
        size = u.detach().abs().flatten(-len(self.space)).amax(-1)
        allowed = 1e3 * torch.finfo(self.dtype).eps * size
        if bool((off.amax(-1) > allowed).any()):
            texts = "', '".join(self.equation.constraints)
            raise InputError(
                f"constraint '{texts}': the mean of the right side must vanish on a periodic grid, and is "
                f"{float(off.max()):.3g} for the given state; subtract the mean"
            )

    def _split(self, c: Tensor) -> tuple[Tensor, ...]:
        return (c,) if self.channels == 1 else c.unbind(-self.axes - 1)

    # Rates

    def rate(self, u: Tensor, t: Time) -> Tensor:
        self._check_space(u)
        c = self.modes.forward(u)
        return self.modes.inverse(self._slope(c, t, linear=True), self.modes.shape)

    def nonlinear_part(self, u: Tensor, t: Time) -> Tensor:
        self._check_space(u)
        return self.modes.inverse(self._slope(self.modes.forward(u), t, linear=False), self.modes.shape)

    def constrained(self, u: Tensor, t: Time) -> dict[str, Tensor]:
        self._check_space(u)
        c = self.modes.forward(u)
        self._check_means(c, u)
        channels = self._split(c)
        driven = any(part is not None for row in self._constraint_products for part in row)
        products = self._products(channels, t) if driven else (None,) * len(self.plan.products)
        found: dict[str, Tensor] = {}
        sides = [
            combined(row, products, source)
            for row, source in zip(self._constraint_products, self._constraint_sources, strict=True)
        ]
        for name, row, feedback in zip(self.plan.constrained, self._constrained, self._feedback, strict=True):
            total = combined(row, channels, None)
            for part, side in zip(feedback, sides, strict=True):
                if part is not None and side is not None:
                    total = added(total, part * side)
            if total is None:
                total = torch.zeros_like(channels[0])
            found[name] = self.modes.inverse(total, self.modes.shape)
        return found

    def slope(self, y: Tensor, t: Time) -> Tensor:
        return self._on_states(y, t, linear=True)

    def force(self, y: Tensor, t: Time) -> Tensor:
        return self._on_states(y, t, linear=True)

    def explicit_force(self, y: Tensor, t: Time) -> Tensor:
        return self._on_states(y, t, linear=False)

    def coefficients(self, y: Tensor) -> Tensor:
        """A state's complex coefficients `(*rows, [channel,] *kept)`, contiguous, with all rows that the data have."""
        c = torch.view_as_complex(y.contiguous())
        if self.batch:
            inner = len(self.state_space) - 1
            rows = common_shape(c.shape[: c.ndim - inner], self.batch)
            c = c.expand(*rows, *c.shape[c.ndim - inner :]).contiguous()
        return c

    def _on_states(self, y: Tensor, t: Time, *, linear: bool) -> Tensor:
        if not self.tracked(y):
            return self._untracked(y, t, linear=linear)
        if self.constant_data and forward_mode.alone(y):
            return forward_mode.along(
                lambda state: self._untracked(state, t, linear=linear),
                lambda states, directions: self._derivative(states[0], directions[0], t, linear=linear),
                y,
            )
        return torch.view_as_real(self._slope(torch.view_as_complex(y.contiguous()), t, linear=linear))

    def plain_force(self, y: Tensor, t: Time) -> Tensor:
        """`explicit_force` by torch's operations alone."""
        return torch.view_as_real(self._slope(torch.view_as_complex(y.contiguous()), t, linear=False))

    def _untracked(self, y: Tensor, t: Time, *, linear: bool) -> Tensor:
        if not self.fast:
            return torch.view_as_real(self._slope(torch.view_as_complex(y.contiguous()), t, linear=linear))
        c = self.coefficients(y)
        inner = len(self.state_space) - 1
        rows: tuple[int, ...] = tuple(c.shape[: c.ndim - inner])
        own_times = isinstance(t, Tensor) and t.ndim > 0
        if isinstance(t, Tensor) and own_times:
            rows = common_shape(rows, t.shape)
            c = c.expand(*rows, *c.shape[c.ndim - inner :]).contiguous()
        out = torch.empty_like(c)
        for part, piece in [(c, out)] if own_times else self.blocks(rows, c, out):
            self.evaluate(part, t, piece, linear=linear)
        if linear and self._drifts:
            symmetrize(out, self._doubled)
        return torch.view_as_real(out)

    def evaluate(self, c: Tensor, t: Time, out: Tensor, *, linear: bool) -> None:
        """Write the rate of coefficients, or the nonlinear part of it, into `out`, where `fast` holds.

        Args:
            c, out: `(*rows, [channel,] *kept)`, contiguous, one of `blocks`.
            t: the time.
            linear: whether the linear part belongs to it.
        """
        rows = c.shape[: c.ndim - len(self.state_space) + 1]
        self._workspace(rows).rate(c, t, out, prod(rows), linear=linear)

    def blocks(self, rows: tuple[int, ...], *tensors: Tensor, size: int | None = None) -> Iterator[tuple[Tensor, ...]]:
        """Contiguous tensors of the same rows in blocks of `size` rows, None for what fits the cache; all rows together
        where their data differ."""
        many = prod(rows)
        size = rows_at_once(self.plan, self.modes) if size is None else size
        if self._by_row or many <= size:
            yield tensors
            return
        flat = [tensor.view(many, *tensor.shape[len(rows) :]) for tensor in tensors]
        for start in range(0, many, size):
            yield tuple(tensor[start : start + size] for tensor in flat)

    def _workspace(self, rows: tuple[int, ...]) -> Workspace:
        """Memory of this thread for states of a batch shape."""
        key = (rows if self._fixed_rows else (), torch.get_num_threads())
        found = self._workspaces.known.get(key)
        return self._new_workspace(key, rows) if found is None else found

    @outside_inference_mode
    def _new_workspace(self, key: tuple[tuple[int, ...], int], rows: tuple[int, ...]) -> Workspace:
        known = self._workspaces.known
        if len(known) >= MAX_WORKSPACES:
            known.pop(next(iter(known)))
        tables = (self._inputs, self._outputs, self._sources, self._offsets, self._linear_table)
        known[key] = Workspace(self.plan, self.modes, self.given, *tables, rows)
        return known[key]

    def tracked(self, *tensors: Tensor) -> bool:
        """Whether derivatives are recorded, of the data or of these tensors, or torch transforms the computation."""
        if forward_mode.active() or torch.compiler.is_compiling():
            return True
        return torch.is_grad_enabled() and (self._learned or any(tensor.requires_grad for tensor in tensors))

    def _slope(self, c: Tensor, t: Time, *, linear: bool) -> Tensor:
        products = self._products(self._split(c), t)
        found = self._gathered(products, self._sources, c)
        if linear and self.linear_part is not None:
            found = found + times(self._linear, c, self.modes, self.channels)
            if self._drifts:
                found = self._symmetrized(found)
        return found.contiguous()

    def _gathered(self, products: Sequence[Tensor], sources: Sequence[Symbol], c: Tensor) -> Tensor:
        """What the transforms of products, and sources, add to the rates of coefficients c."""
        channels = self._split(c)
        rows = [combined(row, products, source) for row, source in zip(self._outputs, sources, strict=True)]
        shape = common_shape(channels[0].shape, *(row.shape for row in rows if row is not None))
        shape = common_shape(shape, (*self.batch, *self.modes.kept))
        zero = torch.zeros(shape, dtype=c.dtype, device=c.device)
        full = [zero if row is None else row.expand(shape) for row in rows]
        return full[0] if self.channels == 1 else torch.stack(full, dim=-self.axes - 1)

    def _products(self, channels: tuple[Tensor, ...], t: Time) -> tuple[Tensor, ...]:
        """The transforms of the plan's products."""
        if not self.plan.products:
            return ()
        values = {**self._input_values(channels), **self.given.values(self._product_names, t)}
        found = [self._on_fine(value) for value in evaluate_all(self.plan.products, values)]
        return tuple(self.modes.forward(value) for value in found)

    def _input_values(self, channels: tuple[Tensor, ...], *, offsets: bool = True) -> dict[str, Number]:
        """The plan's inputs on the finer grid."""
        if not self.plan.inputs:
            return {}
        coefficients = [combined(row, channels, None) for row in self._inputs]
        shape = common_shape(*(c.shape for c in coefficients if c is not None))
        zero = torch.zeros(shape, dtype=self.complex_dtype, device=self.device)
        stack = torch.stack([zero if c is None else c.expand(shape) for c in coefficients])
        fields = self.modes.inverse(stack, self.modes.fine).unbind(0)
        if offsets:
            fields = tuple(f if o is None else f + o for f, o in zip(fields, self._offsets, strict=True))
        return dict(zip(self._input_names, fields, strict=True))

    def explicit_derivative(self, y: Tensor, direction: Tensor, t: Time) -> Tensor:
        """The derivative of `explicit_force` along a direction; derivatives of it are not recorded."""
        return self._derivative(y, direction, t, linear=False)

    def _derivative(self, y: Tensor, direction: Tensor, t: Time, *, linear: bool) -> Tensor:
        """The derivative of the rate, or of the nonlinear part of it, along a direction."""
        state, ahead = (torch.view_as_complex(part.contiguous()) for part in (y, direction))
        channels, along = self._split(state), self._split(ahead)
        products: tuple[Tensor, ...] = ()
        if self.plan.products:
            values = self._input_values(channels)
            slopes = self._input_values(along, offsets=False)
            values.update(self.given.values(self._product_names, t))
            partials = iter(evaluate_all([partial for row in self._partials for _, partial in row], values))
            sums = [sum(next(partials) * slopes[name] for name, _ in row) for row in self._partials]
            products = tuple(self.modes.forward(self._on_fine(total)) for total in sums)
        found = self._gathered(products, [None] * self.channels, ahead)
        if linear and self.linear_part is not None:
            found = found + times(self._linear, ahead, self.modes, self.channels)
            found = self._symmetrized(found) if self._drifts else found
        return torch.view_as_real(found.contiguous())

    @cached_property
    def _partials(self) -> list[list[tuple[str, sympy.Expr]]]:
        """Of every product its partial derivatives with respect to the inputs that it holds."""
        found = []
        for product in self.plan.products:
            symbols = sorted(product.free_symbols, key=str)
            found.append([(s.name, partial(product, s)) for s in symbols if s.name in self._input_names])
        return found

    # What integrators ask for

    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        """Norms of fields by Parseval's theorem: rms(error) / (atol + rtol max(rms(before), rms(after)))."""
        size = torch.maximum(self._size(before), self._size(after))
        ratio = self._size(error) / (by_row(atol, size, int(self.channels > 1)) + rtol * size)
        return ratio if self.channels == 1 else torch.linalg.vector_norm(ratio, dim=-1) / self.channels**0.5

    def _size(self, y: Tensor) -> Tensor:
        """Root mean square of the field of a state, `(*batch, [channel])`."""
        scaled = (y * self.modes.weights.sqrt().unsqueeze(-1)).flatten(-self.axes - 1)
        return torch.linalg.vector_norm(scaled, dim=-1)

    def apply_mass(self, y: Tensor) -> Tensor:
        return y

    def shifted(self, y: Tensor, t: Time, step: float) -> ShiftedJacobian:
        batch = common_shape(y.shape[: y.ndim - len(self.state_space)], self.batch)
        inverse = self.shifted_linear(step).inverse()
        return ShiftedJacobian(lambda state: self.slope(state, t), y, step, batch, self.state_space, inverse)

    def shifted_linear(self, step: float) -> FourierOperator:
        return FourierOperator(self._linear, self.modes, self.channels, on_states=True).shifted(step)


@outside_inference_mode
def discretize_spectral(
    equation: Equation,
    grid: Grid,
    fields: Mapping[str, Any],
    parameters: Mapping[str, Any],
    scheme: Spectral | None = None,
) -> SpectralSystem:
    """Discretize an evolving equation on a periodic grid by Fourier series.

    Terms that are linear with constant coefficients are one number, or for several unknowns one small matrix, a
    wavenumber; so are constraints, which are eliminated. Everything else is formed on the grid, after a search for the
    way to write it that takes the fewest transforms.

    Args:
        equation: evolving.
        grid: periodic in all its axes, without solid cells.
        fields: one value for each of `equation.coefficients`: a number, a tensor that broadcasts to `(*batch, *space)`,
            or a function of the coordinates, or of the coordinates and t, called with one tensor an axis and a number
            (or a tensor that broadcasts, where rows have their own times).
        parameters: values that replace those stored in the equation: numbers, or tensors of the batch's shape.
        scheme: Spectral(...); None takes the 2/3 rule.

    Returns:
        the system; everything is differentiable with respect to fields, parameters and the state.

    Raises:
        InputError: for a grid that is not periodic or has solid cells, an equation that does not evolve, names missing
            or unknown, values of a wrong shape, dtype or device, constraints that are singular beyond the constant mode
            or not linear in what they determine.
    """
    return SpectralSystem(equation, grid, fields, parameters, Spectral() if scheme is None else scheme)
