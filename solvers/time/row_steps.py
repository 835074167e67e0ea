"""Steps of an explicit Runge-Kutta method in which every row of the batch has a time and a size of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.evolving import EvolvingSystem
from sciml.kernels.steps import RowControl, RowSteps
from sciml.ordinary import OrdinarySystem

from .control import FORGOTTEN, NEGLIGIBLE, Controller
from .explicit import ExplicitRungeKutta, dense, stiffness
from .stepper import combined, interpolated
from .tableau import Row
from .trajectory import Task

_LARGE = 40.0  # the logarithm of an error that is infinite or NaN


@dataclass(frozen=True, eq=False)
class State:
    """Of every row; the numbers are of batch shape.

    Attributes:
        y, first: the state and its slope, `(*batch, *state_space)`.
        t, h: the time and the next step.
        memory: the logarithm of the factor that the steps before contribute to the size of the next.
        before: the logarithm of the error of the latest accepted step relative to the target.
        limit: of the logarithm of the growth of the step.
    """

    y: Tensor
    first: Tensor
    t: Tensor
    h: Tensor
    memory: Tensor
    before: Tensor
    limit: Tensor


@dataclass(frozen=True, eq=False)
class Tried:
    """What was tried in a step: its start, size (0 of rows that have ended), whether it was accepted, error ratio, the
    stages times h, and the stiffness estimate if asked for."""

    y: Tensor
    t: Tensor
    h: Tensor
    accepted: Tensor
    ratio: Tensor
    stages: list[Tensor]
    stiffness: Tensor | None


class RowStepper:
    """The method prepared for one system.

    Args:
        method: with an error estimate and dense output, whose weights are `error` and `powers`.
        system: what is to evolve.
        task: whose tolerances hold.
        initial: a state like those to come.
        chunk: how many steps must be kept until they are overwritten.
        recorded: whether there are derivatives to keep.
    """

    def __init__(
        self,
        method: ExplicitRungeKutta,
        error: Row,
        powers: tuple[Row, ...],
        system: EvolvingSystem,
        task: Task,
        initial: Tensor,
        chunk: int,
        recorded: bool,
    ) -> None:
        self.tableau, self.error_weights = method.tableau, error
        self.system, self.task = system, task
        self.record, self.recorded = method.record, recorded
        self.batch = tuple(initial.shape[: initial.ndim - len(system.state_space)])
        self.spread = (*self.batch, *(1,) * len(system.state_space))
        self.double = initial.dtype == torch.float64
        self.control = _control(method.controller, self.tableau.embedded + 1, self.tableau.c)
        self.c = torch.tensor(self.tableau.c, dtype=torch.float64, device=initial.device)
        self.c = self.c.reshape(-1, *(1,) * len(self.batch))
        self.dense = torch.tensor(powers, dtype=initial.dtype, device=initial.device)  # (stages, powers)
        self._try = torch.compile(self._out_of_place, dynamic=False) if method.compile else self._out_of_place
        self._in_place = None
        transformed = forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None
        if not (method.compile or recorded or transformed):
            self._in_place = _InPlace(self, dense(initial), chunk)

    def begin(self, y: Tensor, first: Tensor, t: Tensor, h: Tensor) -> State:
        """Where rows stand that begin."""
        y = dense(y)
        control = self.control
        before = torch.full_like(t, -control.target)  # as if the error had been the tolerance
        memory = before * (control.middle + control.oldest)
        return State(y, first, t, h, memory, before, torch.full_like(t, control.largest))

    def step(self, state: State, end: Tensor, place: int) -> tuple[State, Tried]:
        """Try a step of every row.

        Args:
            state: where the rows stand.
            end: their last times.
            place: of the step in its chunk; between chunks rows may have been changed.
        """
        if self._in_place is not None:
            return self._in_place.step(state, end, place)
        after, one = self._try(state, end)
        if not self.recorded:
            return after, one
        lost = (one.h > 0) & ~torch.isfinite(one.ratio.detach())
        if not bool(lost.any()):
            return after, one
        # In a backward pass what is not finite would make all derivatives NaN, although it is rejected.
        kept, clean = self._try(replace(state, h=torch.where(lost, 0.0, state.h)), end)
        ratio = torch.where(lost, one.ratio.detach(), clean.ratio)
        return replace(after, y=kept.y, first=kept.first), replace(clean, h=one.h, accepted=one.accepted, ratio=ratio)

    def interpolate(self, one: Tried, theta: Tensor) -> Tensor:
        """The states within a step, at one place a row."""
        return interpolated(one.y, one.stages, self.dense, theta)

    def _out_of_place(self, state: State, end: Tensor) -> tuple[State, Tried]:
        tableau, slope = self.tableau, self.system.slope
        h, last = self.sizes(state, end)
        times = self.times(state.t, h)
        spread = h.to(state.y.dtype).reshape(self.spread)
        stages, k = [spread * state.first], state.first
        equal: list[tuple[Tensor, Tensor]] = []
        value = state.y
        for i in range(1, tableau.stages):
            value = combined(state.y, stages, tableau.a[i], 1.0)
            k = slope(value, times[i])
            stages.append(spread * k)
            if self.record and tableau.equal is not None and i in tableau.equal:
                equal.append((value, k))
        error = combined(0.0, stages, self.error_weights, 1.0)
        with torch.set_grad_enabled(self.record and torch.is_grad_enabled()):
            ratio = self.system.error_ratio(error, state.y, value, self.task.rtol, self.task.atol)
        return self.after(state, end, value, k, ratio, h, last, stages, equal)

    def after(
        self,
        state: State,
        end: Tensor,
        value: Tensor,
        k: Tensor,
        ratio: Tensor,
        h: Tensor,
        last: Tensor,
        stages: list[Tensor],
        equal: list[tuple[Tensor, Tensor]],
    ) -> tuple[State, Tried]:
        """The state after a step that has its error ratio; `Controller` in logarithms, row by row."""
        control = self.control
        accepted = ratio.detach() <= 1.0
        logarithm = torch.log(ratio.detach().to(torch.float64)) - control.target
        logarithm = torch.nan_to_num(logarithm, _LARGE, _LARGE, -_LARGE).clamp(min=control.least)
        alone = logarithm * control.alone
        low = logarithm < control.far_below
        steady = torch.add(state.memory, logarithm, alpha=control.latest)
        grown = torch.minimum(torch.where(low, alone, steady), state.limit)
        growth = torch.where(accepted, grown, alone).clamp(min=control.smallest)
        remembered = torch.where(low, 0.0, logarithm.clamp(min=control.forgotten))
        memory = torch.add(remembered * control.middle, state.before, alpha=control.oldest)
        chosen = accepted.view(self.spread)
        after = State(
            torch.where(chosen, value, state.y),
            torch.where(chosen, k, state.first),
            torch.where(accepted, torch.where(last, end, state.t + h), state.t),
            (growth.exp() * h).clamp(max=control.longest),
            torch.where(accepted, memory, state.memory),
            torch.where(accepted, remembered, state.before),
            torch.where(accepted, control.largest, 0.0),
        )
        return after, Tried(state.y, state.t, h, accepted, ratio, stages, self.stiffness(equal))

    def stiffness(self, equal: list[tuple[Tensor, Tensor]]) -> Tensor | None:
        return stiffness(equal, len(self.system.state_space)) if equal else None

    def times(self, t: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """The times of the stages, one tensor of batch shape each."""
        return torch.addcmul(t, self.c, h).unbind(0)

    def sizes(self, state: State, end: Tensor) -> tuple[Tensor, Tensor]:
        """The steps, 0 of rows that have ended, and which of them are the last."""
        remaining = end - state.t
        last = state.h >= remaining
        return torch.where(last, remaining, state.h), last


def _control(controller: Controller, order: int, c: Row) -> RowControl:
    """A controller in logarithms."""
    target = order * log(controller.safety)
    latest, middle, oldest = controller.exponents(order)
    return RowControl(
        c=c,
        target=target,
        latest=latest,
        middle=middle,
        oldest=oldest,
        alone=-1 / order,
        far_below=log(controller.forgotten_below) if controller.forgotten_below else -_LARGE,
        smallest=log(controller.smallest),
        largest=log(controller.largest_growth),
        least=log(NEGLIGIBLE) - target,
        forgotten=log(FORGOTTEN) - target,
        longest=controller.largest_step,
    )


class _InPlace:
    """The same step without gradients: stages, times h, are the rows of a matrix, one for each step of a chunk."""

    def __init__(self, stepper: RowStepper, y: Tensor, chunk: int) -> None:
        self.stepper = stepper
        tableau, system = stepper.tableau, stepper.system
        place: dict[str, Any] = {"dtype": y.dtype, "device": y.device}
        self.weights = [torch.tensor(row, **place) for row in tableau.a]
        self.error_weights = torch.tensor(stepper.error_weights, **place)
        stages = torch.zeros(chunk, tableau.stages, y.numel(), **place)
        self.length, self.shape, self.strides = (y.numel(),), y.shape, y.stride()
        self.stages = [
            [row.as_strided(self.shape, self.strides, row.storage_offset()) for row in part] for part in stages
        ]
        self.transposed = [part.t() for part in stages]
        self.earlier = [[part[:, :i] for i in range(tableau.stages)] for part in self.transposed]
        self.value, self.error = torch.empty(y.numel(), **place), torch.empty(y.numel(), **place)
        self.shaped_value = self.value.as_strided(self.shape, self.strides)
        self.shaped_error = self.error.as_strided(self.shape, self.strides)
        self.tape = system.tape(y) if isinstance(system, OrdinarySystem) and stepper.double else None
        self.slots = None
        if y.device.type == "cpu" and stepper.control.compiled:
            self.slots = [RowSteps(stepper.batch, tableau.stages) for _ in range(chunk + 1)]
            self.accepted = [torch.empty(stepper.batch, dtype=torch.bool) for _ in range(chunk)]

    def step(self, state: State, end: Tensor, place: int) -> tuple[State, Tried]:
        stepper = self.stepper
        tableau, slope = stepper.tableau, self.slope
        if self.slots is None:
            h, last = stepper.sizes(state, end)
            times = stepper.times(state.t, h)
        else:
            now = self.slots[place]
            if place == 0:
                self._enter(state, end, now)
            h, last, times = now.taken, now.last, now.times
        spread = (h if stepper.double else h.to(state.y.dtype)).view(stepper.spread)
        stages, earlier, value = self.stages[place], self.earlier[place], self.shaped_value
        base = self._flat(state.y)
        torch.mul(state.first, spread, out=stages[0])
        equal: list[tuple[Tensor, Tensor]] = []
        for i in range(1, tableau.stages):
            torch.addmv(base, earlier[i], self.weights[i], out=self.value)
            k = slope(value, times[i])
            torch.mul(k, spread, out=stages[i])
            if stepper.record and tableau.equal is not None and i in tableau.equal:
                equal.append((value.clone(), k))
        torch.mv(self.transposed[place], self.error_weights, out=self.error)
        task = stepper.task
        ratio = stepper.system.error_ratio(self.shaped_error, state.y, value, task.rtol, task.atol)
        if self.slots is None:
            return stepper.after(state, end, value, k, ratio, h, last, stages, equal)
        following, accepted = self.slots[place + 1], self.accepted[place]
        stepper.control.advance(ratio if stepper.double else ratio.double(), end, now, following, accepted)
        chosen = accepted.view(stepper.spread)
        after = State(
            torch.where(chosen, value, state.y),
            torch.where(chosen, k, state.first),
            following.t,
            following.wanted,
            following.memory,
            following.before,
            following.limit,
        )
        return after, Tried(state.y, now.t, h, accepted, ratio, stages, stepper.stiffness(equal))

    def slope(self, y: Tensor, t: Tensor) -> Tensor:
        """The right-hand side at states in the order of the stages; no need to look for the quickest way again."""
        if self.tape is None:
            return self.stepper.system.slope(y, t)
        rate = torch.empty_strided(self.shape, self.strides, dtype=y.dtype)
        self.tape.rate(y, t, rate)
        return rate

    def _enter(self, state: State, end: Tensor, slot: RowSteps) -> None:
        """Take up the rows at the beginning of a chunk, when some may have been ended."""
        h, last = self.stepper.sizes(state, end)
        for target, source in (
            (slot.t, state.t),
            (slot.wanted, state.h),
            (slot.taken, h),
            (slot.last, last),
            (slot.memory, state.memory),
            (slot.before, state.before),
            (slot.limit, state.limit),
            *zip(slot.times, self.stepper.times(state.t, h), strict=True),
        ):
            target.copy_(source)

    def _flat(self, y: Tensor) -> Tensor:
        """The state in the order of its memory, which is that of the stages."""
        if y.stride() != self.strides:
            y = torch.empty_strided(self.shape, self.strides, dtype=y.dtype, device=y.device).copy_(y)
        return y.as_strided(self.length, (1,))
