"""Explicit Runge-Kutta methods: one step for all tableaus."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.evolving import EvolvingSystem, Time, Tolerance
from sciml.kernels.tape import Tape
from sciml.ordinary import OrdinarySystem

from . import tableau as tableaus
from .control import Controller
from .stage_sums import StageSums, Sums, pays, sums
from .stepper import Attempt, Integrator, Stepper, interpolated
from .tableau import Row, Tableau


@final
@dataclass(frozen=True)
class ExplicitRungeKutta(Integrator):
    """An explicit Runge-Kutta method, adaptive where its tableau has an embedded solution.

    Args:
        tableau: the method; the constructors below name the usual ones.
        controller: of the step size.
        dense: whether values at the output times are interpolated within steps where the method can do so; otherwise
            steps end on each output time.
        record: keep each step's error ratio and stiffness estimate, row by row and with gradients, in the history;
            otherwise the error ratio that decided, without gradients.
        compile: run a step through torch.compile, which pays where a step is short and there are many of them: it takes
            some seconds once for every shape.
    """

    tableau: Tableau
    controller: Controller = field(default_factory=Controller)
    dense: bool = True
    record: bool = False
    compile: bool = False

    @classmethod
    def euler(cls) -> ExplicitRungeKutta:
        """Euler's method, order 1, of fixed step."""
        return cls(tableaus.EULER)

    @classmethod
    def heun(cls) -> ExplicitRungeKutta:
        """Heun's method, order 2, with Euler's embedded."""
        return cls(tableaus.HEUN)

    @classmethod
    def rk4(cls) -> ExplicitRungeKutta:
        """The classical method, order 4, of fixed step."""
        return cls(tableaus.RK4)

    @classmethod
    def bogacki_shampine(cls) -> ExplicitRungeKutta:
        """Bogacki and Shampine's pair of orders 3 and 2, for low accuracy."""
        return cls(tableaus.BOGACKI_SHAMPINE)

    @classmethod
    def dormand_prince(cls) -> ExplicitRungeKutta:
        """Dormand and Prince's pair of orders 5 and 4."""
        return cls(tableaus.DORMAND_PRINCE)

    @classmethod
    def tsit5(cls) -> ExplicitRungeKutta:
        """Tsitouras' pair of orders 5 and 4."""
        return cls(tableaus.TSITOURAS)

    @classmethod
    def prince_dormand(cls) -> ExplicitRungeKutta:
        """Prince and Dormand's pair of orders 8 and 7, for high accuracy."""
        return cls(tableaus.PRINCE_DORMAND)

    def describe(self) -> str:
        return f"{self.tableau.name}, explicit"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        return ExplicitStepper(self, system, rtol, atol)


@final
class ExplicitStepper(Stepper):
    """One step of an explicit Runge-Kutta method for the whole batch; its memory is the slope at the state."""

    def __init__(self, method: ExplicitRungeKutta, system: EvolvingSystem, rtol: float | None, atol: Tolerance) -> None:
        tableau = method.tableau
        self.rtol, self.atol = rtol, atol
        self.method = method
        self.tableau = tableau
        self.system = system
        self.axes = len(system.state_space)
        self.order = tableau.order
        self.embedded = tableau.embedded
        self.even = False
        self._has_tape = not method.record and isinstance(system, OrdinarySystem)
        self._work: _Work | None = None
        self._evaluations = 0

    def begin(self, y: Tensor, t: float) -> Tensor | None:
        if not self.tableau.first_same_as_last:
            return None
        self._evaluations += 1
        return self.system.slope(y, t)

    def step(self, y: Tensor, t: float, h: float, memory: Tensor | None) -> Attempt:
        self._evaluations += self.tableau.stages - (memory is not None)
        if self.method.compile:
            return self._compiled_step(y, t, h, memory)
        if torch.is_grad_enabled() or forward_ad._current_level >= 0 or (pays(y) and not self._has_tape):
            return self._step_out_of_place(y, t, h, memory)
        return self._step_in_place(y, t, h, memory)

    def counts(self) -> dict[str, int]:
        return {"evaluations": self._evaluations}

    def _step_in_place(self, y: Tensor, t: float, h: float, memory: Tensor | None) -> Attempt:
        """Stages are the rows of one matrix, and each combination of them one matrix-vector product."""
        tableau, slope = self.tableau, self.system.slope
        work = self._work
        if work is None or not work.fits(y):
            y = dense(y)
            work = self._work = _Work(tableau, y)
        flat, shape, strides = y.as_strided(work.length, (1,)), y.shape, y.stride()
        torch.mul(work.numbers, h, out=work.scaled)
        if self._has_tape and isinstance(self.system, OrdinarySystem):
            tape = self.system.tape(y)
            if tape is not None:
                return self._step_of_tape(tape, work, y, t, h, memory)
        last = tableau.stages - 1
        k = slope(y, t) if memory is None else memory
        work.stages[0].copy_(k)
        value = y
        equal: list[tuple[Tensor, Tensor]] = []
        for i in range(1, last + 1):
            value = torch.addmv(flat, work.earlier[i], work.rows[i]).as_strided(shape, strides)
            k = slope(value, t + tableau.c[i] * h)
            work.stages[i].copy_(k)
            if self.method.record and tableau.equal is not None and i in tableau.equal:
                equal.append((value, k))
        if not tableau.first_same_as_last:
            value = torch.addmv(flat, work.transposed, work.weights).as_strided(shape, strides)
        error = None
        if tableau.error is not None:
            error = torch.mv(work.transposed, work.errors).as_strided(shape, strides)
        return Attempt(
            value,
            k if tableau.first_same_as_last else None,
            error,
            None,
            stiffness(equal, self.axes) if equal else None,
            self._interpolant(flat, value, h, work.transposed),
            self._between(y, h, work.stages),
        )

    def _step_of_tape(self, tape: Tape, work: _Work, y: Tensor, t: float, h: float, memory: Tensor | None) -> Attempt:
        """The whole step in one call."""
        tableau, reuse = self.tableau, self.tableau.first_same_as_last
        value = torch.empty_strided(y.shape, y.stride(), dtype=y.dtype)
        error = None if tableau.error is None else torch.empty_strided(y.shape, y.stride(), dtype=y.dtype)
        if memory is not None:
            work.stages[0].copy_(memory)
        tape.step(y, t, h, work.scaled, work.c, work.matrix, value, error, whole=memory is None, last_is_end=reuse)
        return Attempt(
            value,
            work.stages[-1].clone() if reuse else None,
            error,
            interpolate=self._interpolant(y.as_strided(work.length, (1,)), value, h, work.transposed),
        )

    def _step_out_of_place(self, y: Tensor, t: float, h: float, memory: Tensor | None) -> Attempt:
        tableau, slope = self.tableau, self.system.slope
        stages = [slope(y, t) if memory is None else memory]
        add = sums(y, h)
        value = y
        equal: list[tuple[Tensor, Tensor]] = []
        for i in range(1, tableau.stages):
            value = add(stages, tableau.a[i])
            stages.append(slope(value, t + tableau.c[i] * h))
            if self.method.record and tableau.equal is not None and i in tableau.equal:
                equal.append((value, stages[i]))
        if not tableau.first_same_as_last:
            value = add(stages, tableau.b)
        memory = stages[-1] if tableau.first_same_as_last else None
        interpolate = self._interpolant_of(add, value, stages)
        estimates = self._estimated(add, stages, value, equal)
        return Attempt(value, memory, *estimates, interpolate, self._between(y, h, stages))

    def _estimated(
        self, add: Sums | StageSums, stages: list[Tensor], value: Tensor, equal: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The error, its ratio where that is found at once, and the stiffness."""
        weights, record = self.tableau.error, self.method.record
        error = None
        if weights is not None:
            if record and self.rtol is not None and isinstance(add, StageSums) and self.system.plain_ratio:
                pair = (equal[0][0], equal[1][0], equal[0][1], equal[1][1]) if equal else None
                return add.estimates(stages, weights, value, pair, self.rtol, self.atol, self.axes)
            with torch.set_grad_enabled(record and torch.is_grad_enabled()):
                error = add.increment(stages, weights)
        return error, None, stiffness(equal, self.axes) if equal else None

    def _compiled_step(self, y: Tensor, t: float, h: float, memory: Tensor | None) -> Attempt:
        tableau = self.tableau
        if memory is None:
            memory = self.system.slope(y, t)
        moment = torch.tensor((t, h), dtype=torch.float64, device=y.device)
        # Properties that are computed at their first use are no code that can be compiled.
        c, reuse = tableau.c, tableau.first_same_as_last
        value, error, ratio, rate, stages = _compiled()(
            tableau, c, reuse, self.method.record, self.system, self.rtol, self.atol, y, moment, memory
        )
        return Attempt(
            value,
            stages[-1] if reuse else None,
            error,
            ratio,
            rate,
            interpolate=self._interpolant_of(Sums(y, h), value, list(stages)),
            between=self._between(y, h, stages),
        )

    # What comes with a step

    def _interpolant(self, flat: Tensor, value: Tensor, h: float, stages: Tensor) -> Callable[[Time], Tensor] | None:
        table = self._dense_table
        if table is None:
            return None

        def at(theta: Time) -> Tensor:
            if isinstance(theta, Tensor):
                y, *slopes = [
                    x.as_strided(value.shape, value.stride(), x.storage_offset()) for x in (flat, *stages.t())
                ]
                return interpolated(y, slopes, theta.new_tensor(table) * h, theta)
            if theta == 1.0:
                return value
            weights = torch.tensor(_weights(table, theta), dtype=flat.dtype, device=flat.device).mul_(h)
            return torch.addmv(flat, stages, weights).as_strided(value.shape, value.stride())

        return at

    def _between(
        self, y: Tensor, h: float, stages: Sequence[Tensor]
    ) -> Callable[[Sequence[float]], Sequence[Tensor]] | None:
        table = self._dense_table
        if table is None:
            return None

        def at(thetas: Sequence[float]) -> Sequence[Tensor]:
            place: dict[str, Any] = {"dtype": y.dtype, "device": y.device}
            weights = torch.tensor([_weights(table, theta) for theta in thetas], **place).mul_(h)
            slopes = torch.stack([k.reshape(-1) for k in stages])
            return torch.addmm(y.reshape(1, -1), weights, slopes).view(len(thetas), *y.shape).unbind()

        return at

    def _interpolant_of(
        self, add: Sums | StageSums, value: Tensor, stages: list[Tensor]
    ) -> Callable[[Time], Tensor] | None:
        table = self._dense_table
        if table is None:
            return None

        def at(theta: Time) -> Tensor:
            if isinstance(theta, Tensor):
                return interpolated(add.y, stages, theta.new_tensor(table) * add.h, theta)
            return value if theta == 1.0 else add(stages, _weights(table, theta))

        return at

    @cached_property
    def _dense_table(self) -> tuple[Row, ...] | None:
        """For each stage the coefficients of theta, theta^2, ... in its weight; None where steps end on the output
        times."""
        tableau = self.tableau
        if not self.method.dense or tableau.dense is not None:
            return tableau.dense if self.method.dense else None
        if tableau.order > 3 or not tableau.first_same_as_last:
            return None
        # The cubic through both ends and their slopes, of which the first and the last stage are those.
        last = tableau.stages - 1
        ends = [(float(i == 0), float(i == last)) for i in range(tableau.stages)]
        return tuple(
            (left, 3 * whole - 2 * left - right, left + right - 2 * whole)
            for whole, (left, right) in zip(tableau.b, ends, strict=True)
        )


# Value, error, error relative to the tolerance, stiffness, and slopes of the stages.
_CompiledStep = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, tuple[Tensor, ...]]


@cache
def _compiled() -> Callable[..., _CompiledStep]:
    """One for all runs: what was compiled for a system serves all those like it, as are those around one network."""
    return torch.compile(_whole_step)


def _whole_step(
    tableau: Tableau,
    c: tuple[float, ...],
    reuse: bool,
    record: bool,
    system: EvolvingSystem,
    rtol: float | None,
    atol: Tolerance,
    y: Tensor,
    moment: Tensor,
    first: Tensor,
) -> _CompiledStep:
    """A step for torch.compile to read; `moment` holds its start and size, c and reuse are those of the tableau."""
    t, h = moment.unbind()
    small = h.to(y.dtype)
    stages = [first]

    def total(weights: tuple[float, ...]) -> Tensor:
        return small * sum(w * k for w, k in zip(weights, stages, strict=True) if w)

    value = y
    equal: list[tuple[Tensor, Tensor]] = []
    for i in range(1, tableau.stages):
        value = y + total(tableau.a[i])
        stages.append(system.slope(value, t + c[i] * h))
        if record and tableau.equal is not None and i in tableau.equal:
            equal.append((value, stages[i]))
    if not reuse:
        value = y + total(tableau.b)
    error = ratio = None
    if tableau.error is not None:
        with torch.set_grad_enabled(record and torch.is_grad_enabled()):
            error = total(tableau.error)
            if rtol is not None:
                ratio = system.error_ratio(error, y, value, rtol, atol)
    rate = stiffness(equal, len(system.state_space)) if equal else None
    return value, error, ratio, rate, tuple(stages)


class _Work:
    """What a step under no_grad needs space for, for states of one shape and one order in memory."""

    def __init__(self, tableau: Tableau, y: Tensor) -> None:
        place: dict[str, Any] = {"dtype": y.dtype, "device": y.device}
        s = tableau.stages
        error = tableau.error or (0.0,) * s
        table = [(*row, *[0.0] * (s - len(row))) for row in tableau.a]
        self.key = (y.shape, y.stride(), y.dtype, y.device)
        self.length = (y.numel(),)
        self.numbers = torch.tensor([*table, tableau.b, error], **place)
        self.scaled = torch.empty_like(self.numbers)
        self.rows = [self.scaled[i, :i] for i in range(s)]
        self.weights, self.errors = self.scaled[s], self.scaled[s + 1]
        stages = torch.zeros(s, y.numel(), **place)
        self.matrix, self.transposed = stages, stages.t()
        self.c = (ctypes.c_double * s)(*tableau.c)
        self.earlier = [self.transposed[:, :i] for i in range(s)]
        self.stages = [row.as_strided(y.shape, y.stride(), row.storage_offset()) for row in stages]

    def fits(self, y: Tensor) -> bool:
        return self.key == (y.shape, y.stride(), y.dtype, y.device)


def dense(y: Tensor) -> Tensor:
    """The same tensor if it fills its memory in some order of its axes, else a contiguous copy."""
    expected = 1
    for stride, length in sorted(zip(y.stride(), y.shape, strict=True)):
        if length != 1 and stride != expected:
            return y.contiguous()
        expected *= length
    return y


def _weights(table: tuple[Row, ...], theta: float) -> tuple[float, ...]:
    """The weights of the stages at one place in a step."""
    return tuple(sum(c * theta ** (k + 1) for k, c in enumerate(row)) for row in table)


def stiffness(pair: list[tuple[Tensor, Tensor]], axes: int) -> Tensor:
    """How fast the fastest motion is, row by row: |f(g_j) - f(g_i)| / |g_j - g_i| of two stages at the same time.

    Hairer and Wanner, Solving Ordinary Differential Equations II, 2nd ed., Springer 1996, equation IV.2.8.

    Args:
        pair: state and slope of both stages.
        axes: trailing axes of a row.
    """
    (first, slope_there), (second, slope_here) = pair
    finfo = torch.finfo(first.dtype)
    squares = [x * x for x in (slope_here - slope_there, second - first)]
    above, below = squares if axes == 0 else [x.flatten(-axes).sum(-1) for x in squares]
    # The floors keep 0/0 from being NaN, or 1, and the gradient of a norm at 0 finite.
    return (above + finfo.tiny).sqrt() / (below + finfo.tiny / finfo.eps**2).sqrt()
