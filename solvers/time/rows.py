"""Explicit Runge-Kutta methods in which every row of the batch has steps of its own."""

from __future__ import annotations

from dataclasses import replace
from math import inf, prod

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem
from sciml.status import Status

from .control import Controller, initial_step
from .event_search import EventSearch
from .explicit import ExplicitRungeKutta
from .row_steps import RowStepper, State, Tried
from .stepper import Attempt
from .teller import Teller
from .trajectory import Task, Trajectory

_CHUNK = 8  # steps between two looks at whether all rows have ended
_CHUNK_ENTRIES = 1 << 18  # of the stages that are kept until then, for the outputs within these steps


def integrate_rows(method: ExplicitRungeKutta, system: EvolvingSystem, initial: Tensor, task: Task) -> Trajectory:
    """Integrate a system with step sizes, rejections and times of its own for every row.

    Args:
        method, system, initial, task: as for `march.integrate`; task.step must be None.

    Raises:
        InputError: for a method without error estimate or dense output, checkpointing, and functions that do not take
            the times of all rows at once.
    """
    tableau = method.tableau
    if tableau.error is None or tableau.dense is None or not method.dense:
        raise InputError(
            "control='row' needs a method with an error estimate and dense output, that of Tsitouras or of Dormand "
            f"and Prince, not {tableau.name}"
        )
    if task.gradient == "checkpointed":
        raise InputError("control='row' keeps all steps for gradients: take gradient='recorded', or control='joint'")
    recorded = torch.is_grad_enabled() and (initial.requires_grad or system.has_derivatives)
    entries = tableau.stages * max(1, initial.numel())
    chunk = max(1, min(_CHUNK, _CHUNK_ENTRIES // entries))
    stepper = RowStepper(method, tableau.error, tableau.dense, system, task, initial, chunk, recorded)
    # Events may depend on tensors of their own, whatever the steps depend on.
    with torch.set_grad_enabled(recorded or (torch.is_grad_enabled() and bool(task.events))):
        return _Rows(method, stepper, system, initial, task, chunk).run()


class _Rows:
    def __init__(
        self,
        method: ExplicitRungeKutta,
        stepper: RowStepper,
        system: EvolvingSystem,
        initial: Tensor,
        task: Task,
        chunk: int,
    ) -> None:
        self.stepper, self.system, self.task, self.chunk = stepper, system, task, chunk
        self.tableau, self.record = method.tableau, method.record
        self.controller: Controller = method.controller
        self.initial = initial
        self.times = times = torch.tensor(task.times, dtype=torch.float64, device=initial.device)
        self.batch = stepper.batch
        span = float(times[-1] - times[0])
        self.smallest = 16 * torch.finfo(torch.float64).eps * max(float(times.abs().max()), span)
        self.end = times[-1].expand(self.batch).clone()
        self.codes = torch.zeros(self.batch, dtype=torch.int64, device=initial.device)
        self.since = torch.full_like(self.end, torch.nan)
        if task.failed is not None:
            self.codes = task.failed.to(initial.device)
            self.end = torch.where(self.codes != 0, times[0], self.end)
            self.since = torch.where(self.codes != 0, times[0], self.since)
        self.steps = torch.zeros_like(self.codes)
        self.rejected = torch.zeros_like(self.codes)
        self.sizes = (torch.full_like(self.end, torch.inf), torch.zeros_like(self.end))
        self.kept: list[Tried] = []
        self.search = EventSearch(task.events, system, None, self.batch) if task.events else None

    def run(self) -> Trajectory:
        state = self._first()
        states: list[tuple[Tensor, Tensor, Tensor]] = []  # of pairs (row, time): flat row, time index, state
        tried_in_all = 0
        teller = Teller(self.task.observer, self._as_told(self.initial), self.times, len(self.batch))
        while tried_in_all < self.controller.max_steps:
            tried: list[Tried] = []
            stopped = None if self.search is None else self.search.stopped
            for _ in range(self.chunk):
                with torch.set_grad_enabled(self.stepper.recorded):
                    after, one = self.stepper.step(state, self.end, len(tried))
                tried.append(one)
                before, state = state, after
                if self.search is not None:
                    self._look(self.search, before, state, one)
                    if self.search.stopped is not stopped:
                        break
            tried_in_all += len(tried)
            if len(self.times) > 2 and (outputs := self._outputs(tried)) is not None:
                states.append(outputs)
                teller.put(*outputs)
            self._count(tried)
            if self.record:
                self.kept += [_recorded(one) for one in tried]
            state = self._replaced(state, self._stop(state, stopped, teller) | self._fail(state, tried[-1]))
            if len(self.times) > 2:
                teller.tell(torch.where(self._over(), torch.inf, state.t))
            if not bool((self.end > state.t).any()):
                break
        else:
            late = self.end > state.t
            self.codes = torch.where(late, int(Status.MAX_STEPS), self.codes)
            self.since = torch.where(late, state.t, self.since)
        if len(self.times) == 2:
            row = ((state.t == self.times[1]) & ~self._over()).reshape(-1).nonzero().squeeze(-1)
            states.append((row, torch.ones_like(row), state.y.reshape(len(self.codes.reshape(-1)), -1)[row]))
            teller.put(*states[-1])
        teller.tell(torch.full_like(state.t, torch.inf))
        return self._trajectory(states)

    def _first(self) -> State:
        t, task = self.times[0].expand(self.batch).clone(), self.task
        with torch.set_grad_enabled(self.stepper.recorded):
            first = self._slope(t)
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
            )
            h = h.detach().to(torch.float64)
        if self.controller.first_step is not None:
            h = torch.full_like(h, self.controller.first_step)
        if self.search is not None:
            self.search.begin(self.initial, float(self.times[0]))
        return self.stepper.begin(self.initial, first, t, h.clamp(max=self.controller.largest_step))

    def _slope(self, t: Tensor) -> Tensor:
        """The first slope, with a word on functions that take one time only."""
        try:
            return self.system.slope(self.initial, t)
        except (TypeError, ValueError, RuntimeError) as error:
            try:
                self.system.slope(self.initial, self.task.times[0])
            except Exception:
                raise error from None
            raise InputError(
                "control='row': every row has a time of its own, and functions of the time are called with a tensor "
                f"of them (torch.sin(t), not math.sin(t), and torch.where in place of if): {error}"
            ) from error

    # Between steps

    def _look(self, search: EventSearch, before: State, after: State, one: Tried) -> None:
        """Look for events in the steps that were accepted."""
        h = torch.where(one.accepted, one.h, 0.0)
        attempt = Attempt(after.y, None, interpolate=lambda theta: self.stepper.interpolate(one, theta))  # type: ignore[arg-type]
        search.look(before.y, attempt, before.t, h, self.codes != 0)

    # Between chunks

    def _outputs(self, tried: list[Tried]) -> tuple[Tensor, Tensor, Tensor] | None:
        """States at the output times within accepted steps: flat rows, time indices, and states `(pairs, *space)`."""
        dense = self.stepper.dense
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
        powers = theta[:, None] ** torch.arange(1, dense.shape[1] + 1, device=theta.device)
        weights = powers.to(dense.dtype) @ dense.t()  # (pairs, stages)
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
            starts = torch.stack([one.t for one in tried])
            accepted = torch.stack([one.accepted for one in tried])
            active = sizes > 0
            accepted = accepted & active
            self.steps += accepted.sum(0)
            self.rejected += (active & ~accepted).sum(0)
            # The last step is cut short to end on the last time, which says nothing.
            whole = accepted & (sizes < self.end - starts)
            self.sizes = (
                torch.minimum(self.sizes[0], torch.where(whole, sizes, torch.inf).amin(0)),
                torch.maximum(self.sizes[1], torch.where(accepted, sizes, 0.0).amax(0)),
            )

    def _over(self) -> Tensor:
        """Which rows have failed or stopped at an event."""
        failed = self.codes != 0
        return failed if self.search is None or self.search.stopped is None else failed | self.search.stopped

    def _stop(self, state: State, before: Tensor | None, teller: Teller) -> Tensor:
        """End the rows that stopped at an event since, and tell what they are from then on."""
        search = self.search
        if search is None or search.stopped is None or search.stopped is before:
            return torch.zeros_like(self.codes, dtype=torch.bool)
        new = search.stopped if before is None else search.stopped & ~before
        self.end = torch.where(new, state.t, self.end)
        later = (new & (search.stopped_at <= self.times.reshape(-1, *(1,) * new.ndim))).reshape(len(self.times), -1)
        index, row = later.nonzero().unbind(-1)
        teller.put(row, index, search.hold(state.y, inf).reshape(new.numel(), -1)[row])
        return new

    def _fail(self, state: State, latest: Tried) -> Tensor:
        """End the rows whose steps are too small to go on; their time stays where it is."""
        failing = (state.h < self.smallest) & (state.limit <= 0.0) & (self.end > state.t)
        if bool(failing.any()):
            finite = torch.isfinite(latest.ratio.detach())
            codes = torch.where(finite, int(Status.STEP_UNDERFLOW), int(Status.NON_FINITE))
            self.codes = torch.where(failing, codes, self.codes)
            self.since = torch.where(failing, state.t, self.since)
            self.end = torch.where(failing, state.t, self.end)
        return failing

    def _replaced(self, state: State, over: Tensor) -> State:
        """The state of a living row for rows that are over: all rows go through all further steps, and what is not
        finite there would make all derivatives NaN."""
        living = ~self._over()
        if not bool(over.any()) or not bool(living.any()):
            return state
        place = int(living.reshape(-1).int().argmax())
        spread = over.reshape(self.stepper.spread)

        def of_living(y: Tensor) -> Tensor:
            return torch.where(spread, y.detach().reshape(over.numel(), -1)[place].reshape(self.system.state_space), y)

        return replace(state, y=of_living(state.y), first=of_living(state.first))

    def _as_told(self, y: Tensor) -> Tensor:
        """The initial state, NaN in rows that had failed before."""
        if self.task.failed is None:
            return y
        return torch.where((self.codes != 0).reshape(self.stepper.spread), torch.nan, y)

    # Results

    def _trajectory(self, states: list[tuple[Tensor, Tensor, Tensor]]) -> Trajectory:
        space = self.system.state_space
        rows_in_all = prod(self.batch)
        shape = (rows_in_all, len(self.times), prod(space))
        found = torch.full(shape, torch.nan, dtype=self.initial.dtype, device=self.initial.device)
        row = torch.cat([torch.arange(rows_in_all, device=found.device), *(part[0] for part in states)])
        index = torch.cat([row.new_zeros(rows_in_all), *(part[1] for part in states)])
        value = torch.cat([self._as_told(self.initial).reshape(rows_in_all, -1), *(part[2] for part in states)])
        found = found.index_put((row, index), value).reshape(*self.batch, len(self.times), *space)
        events: tuple[dict[str, Tensor], ...] = ()
        if self.search is not None:
            axis = len(self.batch)
            held = self.search.hold(found.movedim(axis, 0), self.times.reshape(-1, *(1,) * axis))
            found, events = held.movedim(0, axis), self.search.results()
        counted = self.steps > 0
        smallest = torch.where(self.sizes[0].isfinite(), self.sizes[0], self.sizes[1])
        statistics = {
            "evaluations": (self.steps + self.rejected) * (self.tableau.stages - 1) + 2,
            "steps": self.steps,
            "rejected": self.rejected,
            "smallest_step": torch.where(counted, smallest, torch.nan),
            "largest_step": torch.where(counted, self.sizes[1], torch.nan),
            "failed_at": self.since,
        }
        return Trajectory(found, self.codes, statistics, self._history(), events)

    def _history(self) -> dict[str, Tensor]:
        if not self.kept:
            return {}
        names = {"time": "t", "step": "h", "accepted": "accepted", "error": "ratio", "stiffness": "stiffness"}
        return {
            name: torch.stack([getattr(one, attribute) for one in self.kept])
            for name, attribute in names.items()
            if getattr(self.kept[0], attribute) is not None
        }


def _recorded(one: Tried) -> Tried:
    """What the history keeps of a step; nothing was tried for rows that have ended."""
    active = one.h > 0
    stiffness = None if one.stiffness is None else torch.where(active, one.stiffness, torch.nan)
    ratio = torch.where(active, one.ratio, torch.nan)
    return Tried(one.t, one.t.clone(), one.h.clone(), one.accepted & active, ratio, [], stiffness)
