"""discretize_spectral(equation, grid): an evolving equation in its Fourier coefficients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, final

import torch
from torch import Tensor

from ..discretization.inputs import batch_shape, resolve_field, resolve_parameters
from ..equations import Equation
from ..errors import InputError
from ..evolving import EvolvingSystem, Time, Tolerance, by_row
from ..grid import Grid
from ..kernels.fourier import symmetrize
from ..modes import in_plain_mode
from ..scheme import Spectral
from . import forward_mode
from .given_fields import GivenFields, split_by_time
from .jacobian import ShiftedJacobian
from .modes import Modes
from .operator import FourierOperator, times
from .plan import make_plan
from .rates import Rates
from .requirements import require_periodic
from .tables import Tables, common_shape, stacked
from .workspace import Workspace, Workspaces, available, find_polynomials, rows_at_once

MAX_WORKSPACES = 8
NEGLIGIBLE = 1e-12  # part of the square of a field: 1e-6 of the field, the tolerance that runs have of their own


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
        rates: the right-hand side by torch's operations, with all tables.
        fast: whether it is also evaluated by compiled kernels in memory that is used again, where nothing is tracked.
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
        self.channels = len(self.unknowns)
        self.axes = grid.dimension
        self.dtype, self.device = grid.dtype, grid.device
        varying = split_by_time(fields, equation, grid.dimension)
        resolved = {
            name: resolve_field(value, grid, f"field {name!r}") for name, value in fields.items() if name not in varying
        }
        self.parameters = resolve_parameters(parameters, equation.parameters, grid)
        self.fields = {name: resolved.get(name, fields[name]) for name in equation.coefficients}
        self.plan = make_plan(equation, grid.dimension, varying)
        self.modes = Modes(grid, "none" if self.plan.keeps_all else scheme.dealias)
        self.given = GivenFields(fields, varying, resolved, self.parameters, self.modes, equation, self.plan.given)
        self.batch = batch_shape(
            [*resolved.items(), *self.parameters.items(), *self.given.samples().items()], grid.dimension
        )
        self.space = grid.shape if self.channels == 1 else (self.channels, *grid.shape)
        kept = (*self.modes.kept, 2)
        self.state_space = kept if self.channels == 1 else (self.channels, *kept)
        tables = Tables(self.plan, self.modes, self.parameters)
        self.symbol = stacked(tables.linear, self.modes)
        dtype = torch.complex128 if grid.dtype == torch.float64 else torch.complex64
        self.rates = Rates(self.plan, self.modes, self.given, tables, self.batch, dtype)
        linear = self.rates.linear
        self.linear_part = None if linear is None else FourierOperator(linear, self.modes, self.channels)
        data = (*self.fields.values(), *self.parameters.values())
        self._learned = bool(varying) or any(isinstance(v, Tensor) and v.requires_grad for v in data)
        tensors = any(isinstance(value, Tensor) for value in data)
        self.constant_data = not varying and not (tensors and forward_mode.active())
        by_torch = find_polynomials(self.plan, self.given, any(o is not None for o in self.rates.offsets)) is None
        self._fixed_rows = bool(self.batch) or by_torch
        self._workspaces = Workspaces()
        self.fast = self.device.type == "cpu" and self.axes < 3 and available() and self.rates.pairs is not None
        self.notes = (self._describe(), *self._warnings())

    def _describe(self) -> str:
        kept, full = self.modes.size, prod((*self.modes.shape[:-1], self.modes.shape[-1] // 2 + 1))
        count = f"{len(self.plan.inputs)} inverse and {len(self.plan.products)} forward transforms a right-hand side"
        products = "" if self.modes.fine == self.modes.shape else f", products on {self.modes.fine} points"
        cut = "nothing is multiplied" if self.plan.keeps_all else f"dealiasing {self.modes.dealias}{products}"
        return f"Fourier series with {kept} of {full} coefficients ({cut}), {count}"

    def _warnings(self) -> tuple[str, ...]:
        if self.rates.watched is None:
            return ()
        names = ", ".join(self.plan.constrained)
        return (f"the right-hand side moves means: where the constraint on {names} has no solution rates are NaN",)

    def hold(self, u: Tensor, t: Time) -> Tensor:
        """The field itself.

        Raises:
            InputError: for a constraint that has no solution at the beginning of a run, since it leaves the mean open
                and its right side has one.
        """
        self._check_space(u)
        self.rates.require_balance(self.modes.forward(u), t)
        return u

    # States

    def encode(self, u: Tensor) -> Tensor:
        self._check_space(u)
        c = self.modes.forward(u)
        self._warn_of_loss(c, u)
        if self.rates.constant_mode is not None:
            c = self.rates.constant_mode.settled(c)
        return torch.view_as_real(c.contiguous())

    def decode(self, y: Tensor) -> Tensor:
        return self.modes.inverse(torch.view_as_complex(y.contiguous()), self.modes.shape)

    def project(self, y: Tensor) -> Tensor:
        """The state with coefficients that stand for a real field, which rounding may leave where modes grow."""
        if not self.rates.drifts:
            return y
        return torch.view_as_real(self.modes.symmetrized(torch.view_as_complex(y.contiguous())))

    def project_(self, c: Tensor) -> None:
        """The same of coefficients in place, where `fast` holds."""
        if self.rates.drifts:
            symmetrize(c, self.modes.doubled)

    def multiplied(self, factor: Tensor, y: Tensor) -> Tensor:
        """A number, or a small matrix, for each wavenumber times a state.

        Args:
            factor: complex, of the shape of `symbol`.
            y: a state.
        """
        return torch.view_as_real(times(factor, torch.view_as_complex(y.contiguous()), self.modes, self.channels))

    def _check_space(self, u: Tensor) -> None:
        if tuple(u.shape[-len(self.space) :]) != self.space:
            raise InputError(f"a field of shape {tuple(u.shape)}, expected (*batch, *{self.space})")

    def _warn_of_loss(self, c: Tensor, u: Tensor) -> None:
        """Say how much of a field is above the wavenumbers that are kept."""
        if self.modes.dealias == "none" or forward_mode.active() or torch.compiler.is_compiling():
            return
        axes = tuple(range(-self.axes, 0))
        u, kept = u.detach(), self.modes.inverse(c.detach(), self.modes.shape)
        lost, whole = (torch.linalg.vector_norm(part, dim=axes).square() for part in (u - kept, u))
        cut = lost > NEGLIGIBLE * whole
        if bool(cut.any()):
            limit, more = "n/2", ""
            if self.modes.dealias == "2/3":
                limit, more = "n/3", "Spectral(dealias='3/2') keeps those below n/2, "
            warnings.warn(
                f"{float((lost / whole)[cut].max()):.2g} of the square of the given field is dropped: dealiasing "
                f"{self.modes.dealias} keeps the wavenumbers below {limit} of n points. {more}"
                "Spectral(dealias='none') keeps all; else take more points",
                stacklevel=3,
            )

    # Rates

    def rate(self, u: Tensor, t: Time) -> Tensor:
        return self._rate(u, t, linear=True)

    def nonlinear_part(self, u: Tensor, t: Time) -> Tensor:
        return self._rate(u, t, linear=False)

    def _rate(self, u: Tensor, t: Time, *, linear: bool) -> Tensor:
        self._check_space(u)
        found = self.rates.of(self.modes.forward(u), t, linear=linear, anywhere=True)
        return self.modes.inverse(found, self.modes.shape)

    def constrained(self, u: Tensor, t: Time) -> dict[str, Tensor]:
        self._check_space(u)
        return self.rates.constrained(self.modes.forward(u), t)

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
                lambda states, directions: self._along(states[0], directions[0], t, linear=linear),
                y,
            )
        return self._plain(y, t, linear=linear)

    def plain_force(self, y: Tensor, t: Time) -> Tensor:
        """`explicit_force` by torch's operations alone."""
        return self._plain(y, t, linear=False)

    def explicit_derivative(self, y: Tensor, direction: Tensor, t: Time) -> Tensor:
        """The derivative of `explicit_force` along a direction; derivatives of it are not recorded."""
        return self._along(y, direction, t, linear=False)

    def _plain(self, y: Tensor, t: Time, *, linear: bool) -> Tensor:
        return torch.view_as_real(self.rates.of(torch.view_as_complex(y.contiguous()), t, linear=linear))

    def _along(self, y: Tensor, direction: Tensor, t: Time, *, linear: bool) -> Tensor:
        c, ahead = (torch.view_as_complex(part.contiguous()) for part in (y, direction))
        return torch.view_as_real(self.rates.along(c, ahead, t, linear=linear))

    def _untracked(self, y: Tensor, t: Time, *, linear: bool) -> Tensor:
        if not self.fast:
            return self._plain(y, t, linear=linear)
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
        if linear and self.rates.drifts:
            symmetrize(out, self.modes.doubled)
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
        self.rates.spoil(c, out)

    def blocks(self, rows: tuple[int, ...], *tensors: Tensor, size: int | None = None) -> Iterator[tuple[Tensor, ...]]:
        """Contiguous tensors of the same rows in blocks of `size` rows, None for what fits the cache; all rows together
        where their data differ."""
        many = prod(rows)
        size = rows_at_once(self.plan, self.modes) if size is None else size
        if self.batch or many <= size:
            yield tensors
            return
        flat = [tensor.view(many, *tensor.shape[len(rows) :]) for tensor in tensors]
        for start in range(0, many, size):
            yield tuple(tensor[start : start + size] for tensor in flat)

    def _workspace(self, rows: tuple[int, ...]) -> Workspace:
        """Memory of this thread for states of a batch shape."""
        known = self._workspaces.known
        key = (rows if self._fixed_rows else (), torch.get_num_threads())
        if key not in known:
            while len(known) >= MAX_WORKSPACES:
                known.popitem(last=False)
            known[key] = self._new_workspace(rows)
        known.move_to_end(key)
        return known[key]

    @in_plain_mode
    def _new_workspace(self, rows: tuple[int, ...]) -> Workspace:
        rates, tables = self.rates, self.rates.tables
        parts = (tables.inputs, tables.outputs, rates.sources, rates.offsets, tables.linear)
        return Workspace(self.plan, self.modes, self.given, *parts, rows)

    def tracked(self, *tensors: Tensor) -> bool:
        """Whether derivatives are recorded, of the data or of these tensors, or torch transforms the computation."""
        if forward_mode.active() or torch.compiler.is_compiling():
            return True
        return torch.is_grad_enabled() and (self._learned or any(tensor.requires_grad for tensor in tensors))

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
        symbol = self.symbol.to(self.rates.dtype) if self.rates.linear is None else self.rates.linear
        return FourierOperator(symbol, self.modes, self.channels, on_states=True).shifted(step)


@in_plain_mode
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
        the system; everything is differentiable with respect to fields, parameters and the state, once for each system:
        see `sciml.discretize`. Rates and constrained fields are NaN in rows in which a constraint that leaves a mean
        open has no solution, since its right side has a mean.

    Raises:
        InputError: for a grid that is not periodic or has solid cells, an equation that does not evolve, names missing
            or unknown, values of a wrong shape, dtype or device, constraints that are singular beyond the constant mode
            or not linear in what they determine.
    """
    return SpectralSystem(equation, grid, fields, parameters, Spectral() if scheme is None else scheme)
