"""Explicit Runge-Kutta methods in which every row of the batch has steps of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem
from sciml.kernels.steps import RowControl, RowSteps
from sciml.ordinary import OrdinarySystem
from sciml.status import Status

from .control import FORGOTTEN, Controller, initial_step
from .explicit import ExplicitRungeKutta, dense, stiffness
from .tableau import Row
from .teller import Teller
from .trajectory import Task, Trajectory

_CHUNK = 8  # steps between two looks at whether all rows have ended
_LARGE = 40.0  # the logarithm of an error that is infinite or NaN
_CHUNK_ENTRIES = 1 << 18  # of the stages that are kept until then, for the outputs within these steps


@dataclass(frozen=True, eq=False)
class State:
    """Of every row; the numbers are of batch shape.

    Attributes:
        y, first: the state and its slope, `(*batch, *state_space)`.
        t, h: the time and the next step.
        memory: the logarithm of the factor that the step before contributes to the size of the next.
        limit: of the logarithm of the growth of the step.
    """

    y: Tensor
    first: Tensor
    t: Tensor
    h: Tensor
    memory: Tensor
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


def integrate_rows(method: ExplicitRungeKutta, system: EvolvingSystem, initial: Tensor, task: Task) -> Trajectory:
    """Integrate a system with step sizes, rejections and times of its own for every row.

    Args:
        method, system, initial, task: as for `march.integrate`; task.step must be None.

    Raises:
        InputError: for a method without error estimate or dense output, checkpointing, or events.
    """
    tableau = method.tableau
    if tableau.error is None or tableau.dense is None or not method.dense:
        raise InputError(
            "control='row' needs a method with an error estimate and dense output, that of Tsitouras or of Dormand "
            f"and Prince, not {tableau.name}"
        )
    if task.gradient == "checkpointed":
        raise InputError("control='row' keeps all steps for gradients: take gradient='recorded', or control='joint'")
    if task.events:
        raise InputError("control='row' does not look for events in this version: take control='joint'")
    times = torch.tensor(task.times, dtype=torch.float64, device=initial.device)
    start = times[0].expand(initial.shape[: initial.ndim - len(system.state_space)])
    tracked = forward_ad._current_level >= 0 or (
        torch.is_grad_enabled() and (initial.requires_grad or system.slope(initial, start).requires_grad)
    )
    with torch.set_grad_enabled(tracked and torch.is_grad_enabled()):
        weights = (tableau.error, tableau.dense)
        return _Rows(method, weights, system, initial, task, times, tracked).run()


class _Rows:
    def __init__(
        self,
        method: ExplicitRungeKutta,
        weights: tuple[Row, tuple[Row, ...]],
        system: EvolvingSystem,
        initial: Tensor,
        task: Task,
        times: Tensor,
        tracked: bool,
    ) -> None:
        self.method, self.system, self.task, self.tracked = method, system, task, tracked
        self.tableau = method.tableau
        self.controller: Controller = method.controller
        self.initial, self.times = dense(initial), times
        self.double = initial.dtype == torch.float64
        self.batch = tuple(initial.shape[: initial.ndim - len(system.state_space)])
        self.spread = (*self.batch, *(1,) * len(system.state_space))
        self.order = self.tableau.embedded + 1
        self.log_target = self.order * log(self.controller.safety)
        self.log_forgotten = log(FORGOTTEN) - self.log_target
        self.log_smallest, self.log_largest = log(self.controller.smallest), log(self.controller.largest)
        span = float(times[-1] - times[0])
        self.smallest = 16 * torch.finfo(torch.float64).eps * max(float(times.abs().max()), span)
        self.end = times[-1].expand(self.batch).clone()
        self.codes = torch.zeros(self.batch, dtype=torch.int64, device=initial.device)
        self.since = torch.full_like(self.end, torch.nan)
        self.steps = torch.zeros_like(self.codes)
        self.rejected = torch.zeros_like(self.codes)
        self.sizes = (torch.full_like(self.end, torch.inf), torch.zeros_like(self.end))
        self.kept: list[Tried] = []
        place: dict[str, Any] = {"dtype": initial.dtype, "device": initial.device}
        self.error_weights, powers = weights
        self.dense = torch.tensor(powers, **place)  # (stages, powers)
        entries = self.tableau.stages * max(1, initial.numel())
        self.c = torch.tensor(self.tableau.c, dtype=torch.float64, device=initial.device)
        self.c = self.c.reshape(-1, *(1,) * len(self.batch))
        self.chunk = max(1, min(_CHUNK, _CHUNK_ENTRIES // entries))

    def run(self) -> Trajectory:
        state = self._first()
        states: list[tuple[Tensor, Tensor, Tensor]] = []  # of pairs (row, time): flat row, time index, state
        step = self._stepping()
        tried_in_all = 0
        teller = Teller(self.task.observer, self.initial, self.times, len(self.batch))
        while tried_in_all < self.controller.max_steps:
            tried: list[Tried] = []
            for _ in range(self.chunk):
                state, one = step(state, len(tried))
                tried.append(one)
            tried_in_all += len(tried)
            if len(self.times) > 2 and (outputs := self._outputs(tried)) is not None:
                states.append(outputs)
                teller.put(*outputs)
            self._count(tried)
            if self.method.record:
                self.kept += [self._recorded(one) for one in tried]
            state = self._without_failed(state)
            if len(self.times) > 2:
                teller.tell(torch.where(self.codes != 0, torch.inf, state.t))
            if not bool((self.end > state.t).any()):
                break
        else:
            late = self.end > state.t
            self.codes = torch.where(late, int(Status.MAX_STEPS), self.codes)
            self.since = torch.where(late, state.t, self.since)
        if len(self.times) == 2:
            row = (state.t == self.times[1]).reshape(-1).nonzero().squeeze(-1)
            states.append((row, torch.ones_like(row), state.y.reshape(len(self.codes.reshape(-1)), -1)[row]))
            teller.put(*states[-1])
        teller.tell(torch.full_like(state.t, torch.inf))
        return self._trajectory(states)

    def _first(self) -> State:
        t = self.times[0].expand(self.batch).clone()
        first = self.system.slope(self.initial, t)
        task = self.task
        with torch.no_grad():
            span = float(self.times[-1] - self.times[0])
            h = initial_step(
                self.system,
                self.initial.detach(),
                float(self.times[0]),
                first.detach(),
                self.tableau.embedded,
                task.rtol,
                task.atol,
                span,
            ).to(torch.float64)
        return State(self.initial, first, t, h, torch.zeros_like(t), torch.full_like(t, self.log_largest))

    # Steps

    def _stepping(self) -> Callable[[State, int], tuple[State, Tried]]:
        if self.method.compile:
            compiled = torch.compile(self._try_out_of_place, dynamic=False)
            return lambda state, place: compiled(state)
        if self.tracked:
            return lambda state, place: self._try_out_of_place(state)
        return _InPlace(self).step

    def _try_out_of_place(self, state: State) -> tuple[State, Tried]:
        tableau, slope = self.tableau, self.system.slope
        h, last = self._sizes(state)
        times = self._times(state.t, h)
        spread = h.to(state.y.dtype).reshape(self.spread)
        stages, k = [spread * state.first], state.first
        equal: dict[int, tuple[Tensor, Tensor]] = {}
        value = state.y
        for i in range(1, tableau.stages):
            value = _weighted(state.y, stages, tableau.a[i])
            k = slope(value, times[i])
            stages.append(spread * k)
            if self.method.record and tableau.equal is not None and i in tableau.equal:
                equal[i] = (value, k)
        error = _weighted(0.0, stages, self.error_weights)
        with torch.set_grad_enabled(self.method.record and torch.is_grad_enabled()):
            ratio = self.system.error_ratio(error, state.y, value, self.task.rtol, self.task.atol)
        return self._after(state, value, k, ratio, h, last, stages, equal)

    def _after(
        self,
        state: State,
        value: Tensor,
        k: Tensor,
        ratio: Tensor,
        h: Tensor,
        last: Tensor,
        stages: list[Tensor],
        equal: dict[int, tuple[Tensor, Tensor]],
    ) -> tuple[State, Tried]:
        """The state after a step that has its error ratio."""
        accepted, new_h, memory, limit = self._control(state, ratio.detach(), h)
        chosen = accepted.view(self.spread)
        after = State(
            torch.where(chosen, value, state.y),
            torch.where(chosen, k, state.first),
            torch.where(accepted, torch.where(last, self.end, state.t + h), state.t),
            new_h,
            memory,
            limit,
        )
        stiff = stiffness(list(equal.values()), len(self.system.state_space)) if equal else None
        return after, Tried(state.y, state.t, h, accepted, ratio, stages, stiff)

    def _times(self, t: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """The times of the stages, one tensor of batch shape each."""
        return torch.addcmul(t, self.c, h).unbind(0)

    def _sizes(self, state: State) -> tuple[Tensor, Tensor]:
        """The steps, 0 of rows that have ended, and which of them are the last."""
        remaining = self.end - state.t
        last = state.h >= remaining
        return torch.where(last, remaining, state.h), last

    def _control(self, state: State, ratio: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which rows are accepted, and their next steps with what these depend on; `Controller` in logarithms."""
        controller, order = self.controller, self.order
        latest, middle, _ = controller.exponents(order)
        accepted = ratio <= 1.0
        logarithm = torch.log(ratio if self.double else ratio.to(torch.float64)).sub_(self.log_target)
        logarithm = torch.nan_to_num(logarithm, _LARGE, _LARGE, -_LARGE)
        grown = torch.minimum(torch.add(state.memory, logarithm, alpha=latest), state.limit)
        growth = torch.where(accepted, grown, logarithm * (-1 / order)).clamp_(min=self.log_smallest)
        memory = logarithm.clamp_(min=self.log_forgotten).mul_(middle)
        limit = torch.where(accepted, self.log_largest, 0.0)
        return accepted, growth.exp_().mul_(h), memory, limit

    def compiled_control(self) -> RowControl | None:
        """The same in one call, None without a compiler."""
        latest, middle, _ = self.controller.exponents(self.order)
        control = RowControl(
            self.log_target,
            latest,
            middle,
            -1 / self.order,
            self.log_smallest,
            self.log_largest,
            self.log_forgotten,
            c=self.tableau.c,
        )
        return control if control.available else None

    # Between chunks

    def _outputs(self, tried: list[Tried]) -> tuple[Tensor, Tensor, Tensor] | None:
        """States at the output times within accepted steps: flat rows, time indices, and states `(pairs, *space)`."""
        starts = torch.stack([one.t for one in tried]).reshape(len(tried), -1)
        sizes = torch.stack([one.h for one in tried]).reshape(len(tried), -1)
        accepted = torch.stack([one.accepted for one in tried]).reshape(len(tried), -1)
        ends = torch.where(sizes == (self.end.reshape(-1) - starts), self.end.reshape(-1), starts + sizes)
        low = torch.searchsorted(self.times, starts, right=True)
        count = torch.searchsorted(self.times, ends, right=True) - low
        count = torch.where(accepted & (sizes > 0), count, 0).reshape(-1)
        total = int(count.sum())
        if not total:
            return None
        rows_in_all = starts.shape[1]
        pair = torch.repeat_interleave(torch.arange(count.numel(), device=count.device), count, output_size=total)
        begin = torch.cumsum(count, 0) - count
        index = low.reshape(-1)[pair] + torch.arange(total, device=count.device) - begin[pair]
        place, row = pair // rows_in_all, pair % rows_in_all
        theta = ((self.times[index] - starts.reshape(-1)[pair]) / sizes.reshape(-1)[pair]).clamp(max=1.0)
        powers = theta[:, None] ** torch.arange(1, self.dense.shape[1] + 1, device=theta.device)
        weights = powers.to(self.dense.dtype) @ self.dense.t()  # (pairs, stages)
        size = prod(self.system.state_space)
        stages = torch.stack([torch.stack(one.stages) for one in tried]).reshape(
            len(tried), self.tableau.stages, rows_in_all, size
        )
        base = torch.stack([one.y for one in tried]).reshape(len(tried), rows_in_all, size)
        states = base[place, row] + torch.einsum("ps,psn->pn", weights, stages[place, :, row])
        return row, index, states

    def _count(self, tried: list[Tried]) -> None:
        with torch.no_grad():
            sizes = torch.stack([one.h for one in tried])
            active = sizes > 0
            accepted = torch.stack([one.accepted for one in tried]) & active
            self.steps += accepted.sum(0)
            self.rejected += (active & ~accepted).sum(0)
            taken = torch.where(accepted, sizes, torch.inf)
            self.sizes = (
                torch.minimum(self.sizes[0], taken.amin(0)),
                torch.maximum(self.sizes[1], torch.where(accepted, sizes, 0.0).amax(0)),
            )

    def _without_failed(self, state: State) -> State:
        """End the rows whose steps are too small to go on; their time stays where it is."""
        failing = (state.h < self.smallest) & (state.limit <= 0.0) & (self.end > state.t)
        if bool(failing.any()):
            slope = self.system.slope(state.y.detach(), state.t)
            axes = tuple(range(-len(self.system.state_space), 0))
            finite = torch.isfinite(slope).all(axes) if axes else torch.isfinite(slope)
            codes = torch.where(finite, int(Status.STEP_UNDERFLOW), int(Status.NON_FINITE))
            self.codes = torch.where(failing, codes, self.codes)
            self.since = torch.where(failing, state.t, self.since)
            self.end = torch.where(failing, state.t, self.end)
        return state

    def _recorded(self, one: Tried) -> Tried:
        return Tried(one.t, one.t.clone(), one.h.clone(), one.accepted.clone(), one.ratio, [], one.stiffness)

    # Results

    def _trajectory(self, states: list[tuple[Tensor, Tensor, Tensor]]) -> Trajectory:
        space = self.system.state_space
        rows_in_all = prod(self.batch)
        shape = (rows_in_all, len(self.times), prod(space))
        found = torch.full(shape, torch.nan, dtype=self.initial.dtype, device=self.initial.device)
        row = torch.cat([torch.arange(rows_in_all, device=found.device), *(part[0] for part in states)])
        index = torch.cat([row.new_zeros(rows_in_all), *(part[1] for part in states)])
        value = torch.cat([self.initial.reshape(rows_in_all, -1), *(part[2] for part in states)])
        found = found.index_put((row, index), value)
        stages = self.tableau.stages - 1
        statistics = {
            "evaluations": (self.steps + self.rejected) * stages + 2,
            "steps": self.steps,
            "rejected": self.rejected,
            "smallest_step": torch.where(self.steps > 0, self.sizes[0], torch.nan),
            "largest_step": torch.where(self.steps > 0, self.sizes[1], torch.nan),
            "failed_at": self.since,
        }
        states_in_time = found.reshape(*self.batch, len(self.times), *space)
        return Trajectory(states_in_time, self.codes, statistics, self._history())

    def _history(self) -> dict[str, Tensor]:
        if not self.kept:
            return {}
        found = {
            "time": torch.stack([one.t for one in self.kept]),
            "step": torch.stack([one.h for one in self.kept]),
            "accepted": torch.stack([one.accepted for one in self.kept]),
            "error": torch.stack([one.ratio for one in self.kept]),
        }
        if self.kept[0].stiffness is not None:
            found["stiffness"] = torch.stack([one.stiffness for one in self.kept])  # type: ignore[misc]
        return found


class _InPlace:
    """The same step without gradients: stages, times h, are the rows of a matrix, one for each step of a chunk."""

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows
        tableau, y = rows.tableau, rows.initial
        place: dict[str, Any] = {"dtype": y.dtype, "device": y.device}
        self.weights = [torch.tensor(row, **place) for row in tableau.a]
        self.error_weights = torch.tensor(rows.error_weights, **place)
        stages = torch.zeros(rows.chunk, tableau.stages, y.numel(), **place)
        self.length, self.shape, self.strides = (y.numel(),), y.shape, y.stride()
        self.stages = [
            [row.as_strided(self.shape, self.strides, row.storage_offset()) for row in part] for part in stages
        ]
        self.transposed = [part.t() for part in stages]
        self.earlier = [[part[:, :i] for i in range(tableau.stages)] for part in self.transposed]
        self.value, self.error = torch.empty(y.numel(), **place), torch.empty(y.numel(), **place)
        self.shaped_value = self.value.as_strided(self.shape, self.strides)
        self.shaped_error = self.error.as_strided(self.shape, self.strides)
        self.tape = rows.system.tape(y) if isinstance(rows.system, OrdinarySystem) and rows.double else None
        self.control = self.slots = None
        control = rows.compiled_control() if y.device.type == "cpu" else None
        if control is not None:
            self.control = control
            self.slots = [RowSteps(rows.batch, tableau.stages) for _ in range(rows.chunk + 1)]
            self.accepted = [torch.empty(rows.batch, dtype=torch.bool) for _ in range(rows.chunk)]

    def step(self, state: State, place: int) -> tuple[State, Tried]:
        rows = self.rows
        tableau, slope = rows.tableau, self.slope
        if self.slots is None:
            h, last = rows._sizes(state)
            times = rows._times(state.t, h)
        else:
            now = self.slots[place]
            if place == 0:
                self._enter(state, now)
            h, last, times = now.taken, now.last, now.times
        spread = (h if rows.double else h.to(state.y.dtype)).view(rows.spread)
        stages, earlier, value = self.stages[place], self.earlier[place], self.shaped_value
        base = self._flat(state.y)
        torch.mul(state.first, spread, out=stages[0])
        equal: dict[int, tuple[Tensor, Tensor]] = {}
        for i in range(1, tableau.stages):
            torch.addmv(base, earlier[i], self.weights[i], out=self.value)
            k = slope(value, times[i])
            torch.mul(k, spread, out=stages[i])
            if rows.method.record and tableau.equal is not None and i in tableau.equal:
                equal[i] = (value.clone(), k)
        torch.mv(self.transposed[place], self.error_weights, out=self.error)
        ratio = rows.system.error_ratio(self.shaped_error, state.y, value, rows.task.rtol, rows.task.atol)
        if self.slots is None or self.control is None:
            return rows._after(state, value, k, ratio, h, last, stages, equal)
        following, accepted = self.slots[place + 1], self.accepted[place]
        self.control.advance(ratio if rows.double else ratio.double(), rows.end, now, following, accepted)
        chosen = accepted.view(rows.spread)
        after = State(
            torch.where(chosen, value, state.y),
            torch.where(chosen, k, state.first),
            following.t,
            following.wanted,
            following.memory,
            following.limit,
        )
        stiff = stiffness(list(equal.values()), len(rows.system.state_space)) if equal else None
        return after, Tried(state.y, now.t, h, accepted, ratio, stages, stiff)

    def slope(self, y: Tensor, t: Tensor) -> Tensor:
        """The right-hand side at states in the order of the stages; no need to look for the quickest way again."""
        if self.tape is None:
            return self.rows.system.slope(y, t)
        rate = torch.empty_strided(self.shape, self.strides, dtype=y.dtype)
        self.tape.rate(y, t, rate)
        return rate

    def _enter(self, state: State, slot: RowSteps) -> None:
        """Take up the rows at the beginning of a chunk, when some may have been ended."""
        h, last = self.rows._sizes(state)
        for target, source in (
            (slot.t, state.t),
            (slot.wanted, state.h),
            (slot.taken, h),
            (slot.last, last),
            (slot.memory, state.memory),
            (slot.limit, state.limit),
            *zip(slot.times, self.rows._times(state.t, h), strict=True),
        ):
            target.copy_(source)

    def _flat(self, y: Tensor) -> Tensor:
        """The state in the order of its memory, which is that of the stages."""
        if y.stride() != self.strides:
            y = torch.empty_strided(self.shape, self.strides, dtype=y.dtype, device=y.device).copy_(y)
        return y.as_strided(self.length, (1,))


def _weighted(y: Tensor | float, stages: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """y + sum(w k)."""
    total = y
    for k, weight in zip(stages, weights, strict=True):
        if weight:
            total = torch.add(total, k, alpha=weight) if isinstance(total, Tensor) else weight * k
    return torch.as_tensor(total)
