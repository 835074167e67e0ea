"""The loop over time steps of one size for the whole batch: rows that fail, events, outputs, and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from sciml.differentiation import refuse_transforms_but_jvp
from sciml.errors import InputError
from sciml.evolving import EvolvingSystem
from sciml.status import Status
from sciml.stochastic_system import StochasticSystem

from .clock import Clock, Schedule
from .control import Controller, initial_step
from .event_search import EventSearch
from .explicit import ExplicitStepper
from .stepper import Attempt, Integrator, Stepper
from .stochastic import StochasticIntegrator, StochasticStepper
from .trajectory import Task, Trajectory

_SEVERAL = 3  # output times within one step at which they are interpolated together
_CHECK_EVERY = 16  # steps of fixed size between two looks for rows that are no longer finite


class Entry(NamedTuple):
    """A step that was tried: its start, its size, whether it was accepted, and the clock after it; error relative to
    the tolerance, and stiffness, of the whole batch or row by row."""

    t: float
    h: float
    accepted: bool
    after: Clock
    error: float | Tensor | None = None
    stiffness: Tensor | None = None


class Piece(NamedTuple):
    """What some steps made: the state and memory at their end, the states at the output times on the way, and, if it
    ends because rows were no longer finite a little later, which."""

    y: Tensor
    memory: Any
    outputs: list[Tensor]
    lost: Tensor | None = None


def integrate(method: Integrator, system: EvolvingSystem, initial: Tensor, task: Task) -> Trajectory:
    """Integrate a system with one step size for the whole batch.

    Args:
        method: the integrator.
        system: what to integrate.
        initial: states `(*batch, *state_space)` at task.times[0], of the full shape of the batch.
        task: what is asked for.

    Raises:
        InputError: for a method that does not fit the system or the task.
    """
    if isinstance(system, StochasticSystem):
        _check_stochastic(method, system, task)
    record = bool(getattr(method, "record", False))
    stepper = method.stepper(system, task.rtol if task.step is None or record else None, task.atol)
    if task.step is None and not stepper.embedded:
        raise InputError(f"{method.describe()} has no error estimate: give step=, the size of its steps")
    tracked = torch.is_grad_enabled() and (initial.requires_grad or system.has_derivatives)
    if task.gradient == "checkpointed":
        fixed = record and task.step is not None
        for unfit, what in ((task.events, "events do"), (fixed, "record=True and steps of fixed size do")):
            if unfit:
                raise InputError(f"{what} not go with gradient='checkpointed': take 'recorded'")
    if tracked and task.gradient == "checkpointed":
        refuse_transforms_but_jvp("gradient='checkpointed'")
    if tracked and task.events and isinstance(system, StochasticSystem):
        raise InputError("the times of events of a stochastic system have no derivatives: take torch.no_grad()")
    march = _March(method, stepper, system, initial, task, record, tracked)
    # Events may depend on tensors of their own, whatever the steps depend on.
    with torch.set_grad_enabled(tracked or (torch.is_grad_enabled() and bool(task.events))):
        return march.run(tracked and task.gradient == "checkpointed")


def _check_stochastic(method: Integrator, system: StochasticSystem, task: Task) -> None:
    if not isinstance(method, StochasticIntegrator):
        raise InputError(
            f"{method.describe()} knows no noise, and the system is stochastic: take StochasticRungeKutta.sosri2() or "
            "Milstein(), or method=None; without noise, sciml.FunctionSystem(drift, space)"
        )
    noise, start, end = system.noise, task.times[0], task.times[-1]
    slack = 1e-10 * (end - start)
    if start < noise.start - slack or end > noise.end + slack:
        raise InputError(
            f"path is known from time {noise.start} to {noise.end}, and times go from {start} to {end}: make it for "
            "these times"
        )


class _March:
    def __init__(
        self,
        method: Integrator,
        stepper: Stepper,
        system: EvolvingSystem,
        initial: Tensor,
        task: Task,
        record: bool,
        tracked: bool,
    ) -> None:
        self.method, self.stepper, self.system = method, stepper, system
        self.initial, self.task, self.record, self.tracked = initial, task, record, tracked
        self.times = task.times
        controller: Controller = getattr(method, "controller", None) or Controller()
        self.controller = controller.suited(method.usual)
        fitted = stepper.fitted if isinstance(stepper, StochasticStepper) else None
        self.schedule = Schedule(task.times, task.step, stepper.even, stepper.embedded + 1, self.controller, fitted)
        self.batch = tuple(initial.shape[: initial.ndim - len(system.state_space)])
        self.spread = (*self.batch, *(1,) * len(system.state_space))
        self.lent = _lent(system) if task.gradient == "checkpointed" else ()
        self.entries: list[Entry] = []
        self.tried = self.rejected = 0
        self.extra = 0  # evaluations besides those of the stepper
        self.sizes = (inf, 0.0)
        self.ended: Tensor | None = None  # counts of the rows that are over, -1 of the others
        self.search = EventSearch(task.events, system, method.stepper(system), self.batch) if task.events else None

    def run(self, checkpointed: bool) -> Trajectory:
        y, t = self.initial, self.times[0]
        if self.search is not None:
            self.search.begin(y, t)
        memory = self.stepper.begin(y, t)
        clock = self._first(y, memory)
        outputs = [self._as_told(y, t, clock)]
        if self.task.observer is not None:
            self.task.observer(0, t, outputs[0].detach())
        length = 1
        while not self._is_over(clock):
            entries: list[Entry] = []
            if checkpointed:
                # Segments of 1, 2, 3, ... steps: their number and the longest both grow like the square root.
                piece = checkpoint(self._advance, y, memory, clock, entries, length, use_reentrant=False)
                lost = piece.lost
                if lost is not None and entries:  # the steps that are kept, as they will be repeated
                    piece = checkpoint(self._advance, y, memory, clock, entries, length, use_reentrant=False)
                length += 1
            else:
                piece = self._advance(y, memory, clock, entries, _CHECK_EVERY)
                lost = piece.lost
            if self.task.step is None or self.record:
                self.entries += entries
            y, memory, clock = piece.y, piece.memory, entries[-1].after if entries else clock
            outputs += piece.outputs
            if lost is not None:
                clock = self._after_loss(lost, y, memory, clock)
                over = self._over(clock)
                if over is not None:
                    self._end(clock, over)
                    if not bool(over.all()):
                        y = self._replaced(y, over)
                        memory = self.stepper.begin(y, clock.t)
        return self._trajectory(outputs, clock)

    def _first(self, y: Tensor, memory: Any) -> Clock:
        task, h = self.task, inf
        if task.step is None and self.controller.first_step is None:
            span = self.times[-1] - self.times[0]
            with torch.no_grad():
                if isinstance(self.stepper, StochasticStepper):
                    rows = self.stepper.first_step(y, self.times[0], task.rtol, task.atol, span)
                    return self._started(float(rows.min()))
                known = memory is not None and isinstance(self.stepper, ExplicitStepper)
                slope = memory if known else self.system.slope(y, self.times[0])
                order = self.stepper.embedded
                rows = initial_step(self.system, y, self.times[0], slope, order, task.rtol, task.atol, span)
            self.extra += 1 if known else 2
            h = float(rows.min())
        return self._started(h)

    def _started(self, h: float) -> Clock:
        task, clock = self.task, self.schedule.first(h)
        return clock if task.failed is None else self._failed(clock, task.failed, self.times[0])

    def _is_over(self, clock: Clock) -> bool:
        if clock.next >= len(self.times) or self._is_at_limit():
            return True
        over = self._over(clock)
        return over is not None and bool(over.all())

    def _is_at_limit(self) -> bool:
        """Whether no further step may be tried; steps of fixed size are as many as were asked for."""
        return self.task.step is None and self.tried >= self.controller.max_steps

    def _advance(self, y: Tensor, memory: Any, clock: Clock, entries: list[Entry], limit: int) -> Piece:
        """Up to `limit` steps; called again with the entries that it made, it repeats them."""
        replay, fixed = tuple(entries), self.task.step is not None
        if replay and self.lent != _lent(self.system):
            raise InputError(
                "gradient='checkpointed' takes the steps once more in the backward pass, and the right-hand side has "
                "other parameters by then, as after torch.func.functional_call: take 'recorded'"
            )
        outputs: list[Tensor] = []
        kept, number = Piece(y, memory, []), 0  # as of the latest look for values that are not finite
        over = self._over(clock)
        for place in range(len(replay) or limit):
            if not replay and self._is_over(clock):
                break
            h = replay[place].h if replay else self.schedule.size(clock)
            with torch.set_grad_enabled(self.tracked):
                attempt = self.stepper.step(y, clock.t, h, memory)
            # What is recorded has a gradient, too: a repetition computes all that the first passage did.
            rows = self._ratios(y, attempt, over) if not replay or self.record else None
            entry = replay[place] if replay else self._judge(rows, attempt, clock, h, over, y)
            look = fixed and not replay and self._is_due(place, limit, clock, entry, attempt)
            if look and (lost := self._lost(attempt, over)) is not None:
                del entries[number:]
                return kept._replace(lost=lost)
            if not replay:
                entries.append(entry)
            if entry.accepted:
                if self.search is not None:
                    self.search.look(y, attempt, clock.t, h, over)
                if self.task.step_observer is not None and not replay:
                    self.task.step_observer(clock.t, h, y.detach())
                outputs += self._outputs(clock, entry, attempt, observe=not replay)
                y, memory = attempt.value, attempt.memory
            before, over = over, self._over(entry.after)
            if over is not None and not bool(over.all()):
                y = self._replaced(y, over)
                if before is None or not torch.equal(before, over):
                    memory = self.stepper.begin(y, entry.after.t)
            if over is not None and not replay:
                self._end(entry.after, over)
            clock = entry.after
            if look:
                kept, number = Piece(y, memory, list(outputs)), len(entries)
        return Piece(y, memory, outputs)

    def _ratios(self, y: Tensor, attempt: Attempt, over: Tensor | None) -> Tensor | None:
        """The errors of the rows relative to the tolerance; None where they are not needed, or not known."""
        rows = attempt.ratio
        if rows is None and (self.task.step is None or self.record) and self.stepper.embedded:
            with torch.set_grad_enabled(self.record and torch.is_grad_enabled()):
                error = torch.zeros_like(y) if attempt.error is None else attempt.error
                rows = self.system.error_ratio(error, y, attempt.value, self.task.rtol, self.task.atol)
        return rows if rows is None or over is None else torch.where(over, 0.0, rows)

    def _judge(
        self, rows: Tensor | None, attempt: Attempt, clock: Clock, h: float, over: Tensor | None, y: Tensor
    ) -> Entry:
        self.tried += 1
        self.schedule.interpolated = attempt.interpolate is not None
        adaptive = self.task.step is None
        if not adaptive or rows is None:
            self._measure(clock, h)
            return Entry(clock.t, h, True, self.schedule.accepted(clock, h, 0.0), rows, attempt.stiffness)
        unsolved = self._unsolved(attempt, over)
        ratios = rows.detach() if unsolved is None else torch.where(unsolved, inf, rows.detach())
        ratio = self.controller.of_batch(ratios, over)
        kept = rows if self.record else ratio
        if ratio <= 1.0:
            self._measure(clock, h)
            return Entry(clock.t, h, True, self.schedule.accepted(clock, h, ratio), kept, attempt.stiffness)
        self.rejected += 1
        after = self.schedule.rejected(clock, h, ratio)
        underflow, blind = after.h < self.schedule.smallest, False
        if unsolved is None and not isfinite(ratio):
            # Before states at which the rate is not finite, steps too short to move them would be taken for ever.
            blind = after.h < self.schedule.smallest * torch.finfo(y.dtype).eps / torch.finfo(torch.float64).eps
        if underflow or blind:
            # Rows that would need even smaller steps are given up, and the others go on as before.
            few = int(Status.STEP_UNDERFLOW) if underflow else 0
            codes = torch.where(torch.isfinite(ratios), few, int(Status.NON_FINITE))
            if unsolved is not None:
                codes = torch.where(unsolved, int(Status.STEP_UNDERFLOW), codes)
            codes = torch.where(ratios <= 1.0, 0, codes)
            after = self._without(self.schedule.resumed(self._failed(after, codes, after.t)), y)
        # The solution does not depend on it, and where it overflowed even a gradient of 0 would come back as NaN.
        stiffness = None if attempt.stiffness is None else attempt.stiffness.detach()
        return Entry(clock.t, h, False, after, rows.detach() if self.record else ratio, stiffness)

    def _without(self, clock: Clock, y: Tensor) -> Clock:
        """The clock with a first step of the rows that go on, of methods whose steps grow so slowly that it would take
        hundreds to forget those of the rows given up."""
        over = self._over(clock)
        if not isinstance(self.stepper, StochasticStepper) or over is None or bool(over.all()):
            return clock
        with torch.no_grad():
            living, span = self._replaced(y.detach(), over), self.times[-1] - clock.t
            rows = self.stepper.first_step(living, clock.t, self.task.rtol, self.task.atol, span)
        return clock._replace(h=min(float(rows[~over].min()), self.controller.largest_step))

    def _measure(self, clock: Clock, h: float) -> None:
        """Remember the smallest and the largest step; one that is cut short to end on an output time says nothing."""
        if not self.sizes[1] or not self.schedule.is_cut(clock, h):
            self.sizes = (min(self.sizes[0], h), max(self.sizes[1], h))

    # Rows that are over

    def _over(self, clock: Clock) -> Tensor | None:
        """Which rows have failed, or stopped at an event; None while there are none."""
        stopped = None if self.search is None else self.search.stopped
        if clock.failed is None:
            return stopped
        failed = clock.failed != 0
        return failed if stopped is None else failed | stopped

    def _replaced(self, y: Tensor, over: Tensor) -> Tensor:
        """The states with one of a living row for the rows that are over, which nothing depends on any more: they go
        through all further steps, and what is not finite there would make all gradients NaN."""
        living = (~over).reshape(-1).nonzero()[0, 0]
        return torch.where(over.reshape(self.spread), y.flatten(0, len(self.batch) - 1)[living].detach(), y)

    def _failed(self, clock: Clock, codes: Tensor, since: float | Tensor) -> Clock:
        """The clock with further failures, 0 meaning none."""
        if clock.failed is None or clock.since is None:
            failed = torch.zeros(self.batch, dtype=torch.int64, device=codes.device)
            clock = clock._replace(failed=failed, since=torch.full_like(failed, torch.nan, dtype=torch.float64))
        new = (clock.failed == 0) & (codes != 0)
        return clock._replace(
            failed=torch.where(new, codes, clock.failed),  # type: ignore[arg-type]
            since=torch.where(new, since, clock.since),  # type: ignore[arg-type]
        )

    def _end(self, clock: Clock, over: Tensor) -> None:
        """Remember what the rows that are over have cost."""
        if self.ended is None:
            self.ended = torch.full((len(self._counts(clock)), *self.batch), -1, dtype=torch.int64, device=over.device)
        now = torch.tensor(list(self._counts(clock).values()), device=over.device)
        now = now.reshape(-1, *(1,) * len(self.batch))
        self.ended = torch.where(over & (self.ended < 0), now, self.ended)

    def _counts(self, clock: Clock) -> dict[str, int]:
        """What has been done so far."""
        counts = self.stepper.counts()
        counts["evaluations"] += self.extra + (0 if self.search is None else self.search.evaluations)
        return {**counts, "steps": clock.steps, "rejected": self.rejected}

    # Rows that fail in steps of fixed size

    def _is_due(self, place: int, limit: int, clock: Clock, entry: Entry, attempt: Attempt) -> bool:
        """Whether to look for values that are not finite: in time for every output, and seldom in between."""
        return (
            (place + 1) % _CHECK_EVERY == 0
            or place + 1 == limit
            or entry.after.next != clock.next
            or self.search is not None
            or attempt.solved is not True
        )

    def _lost(self, attempt: Attempt, over: Tensor | None) -> Tensor | None:
        """Codes of the living rows that a step lost, 0 of the others; None where there are none."""
        finite = self._finite(attempt.value.detach())
        codes = torch.where(finite, 0, int(Status.NON_FINITE))
        if (unsolved := self._unsolved(attempt, over)) is not None:
            codes = torch.where(unsolved, int(Status.STAGNATED), codes)
        if over is not None:
            codes = torch.where(over, 0, codes)
        return codes if bool((codes != 0).any()) else None

    def _unsolved(self, attempt: Attempt, over: Tensor | None) -> Tensor | None:
        """The living rows whose equations within the step were not solved; None if there are none."""
        if attempt.solved is True:
            return None
        unsolved = ~torch.as_tensor(attempt.solved, device=attempt.value.device).expand(self.batch)
        if over is not None:
            unsolved = unsolved & ~over
        return unsolved if bool(unsolved.any()) else None

    def _finite(self, y: Tensor) -> Tensor:
        axes = tuple(range(-len(self.system.state_space), 0))
        found = torch.isfinite(y.sum(axes) if axes else y)
        # A sum can overflow where no entry does.
        return found if not axes or bool(found.all()) else torch.isfinite(y).all(axes)

    def _after_loss(self, lost: Tensor, y: Tensor, memory: Any, clock: Clock) -> Clock:
        """The clock with the failures of the rows that are lost some steps on, which are repeated to find the times."""
        over, now = self._over(clock), clock
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
            y = y.detach()
            for _ in range(_CHECK_EVERY):
                attempt = self.stepper.step(y, now.t, self.schedule.size(now), memory)
                now = self.schedule.accepted(now, now.h, 0.0)
                if (codes := self._lost(attempt, over)) is not None:
                    clock = self._failed(clock, codes, now.t)
                    lost = torch.where(codes != 0, 0, lost)
                if now.next != clock.next or not bool((lost != 0).any()):
                    break
                y, memory = attempt.value, attempt.memory
        return self._failed(clock, lost, now.t)

    # Results

    def _outputs(self, clock: Clock, entry: Entry, attempt: Attempt, *, observe: bool) -> list[Tensor]:
        first, last = clock.next, entry.after.next
        thetas = [(time - clock.t) / entry.h for time in self.times[first:last] if time != entry.after.t]
        inner: Sequence[Tensor] = ()
        if attempt.between is not None and len(thetas) >= _SEVERAL:
            inner = attempt.between(thetas)
        elif attempt.interpolate is not None:
            inner = [attempt.interpolate(theta) for theta in thetas]
        found = []
        for place, state in zip(range(first, last), (*inner, *[attempt.value] * (last - first)), strict=False):
            time = self.times[place]
            told = self._as_told(state, time, entry.after)
            found.append(told)
            if observe and self.task.observer is not None:
                self.task.observer(place, time, told.detach())
        return found

    def _as_told(self, state: Tensor, time: float, clock: Clock) -> Tensor:
        """A state with those at their events of the rows that stopped, and NaN for the rows that have failed."""
        if self.search is not None:
            state = self.search.hold(state, time)
        if clock.failed is None:
            return state
        return torch.where((clock.failed != 0).reshape(self.spread), torch.nan, state)

    def _trajectory(self, outputs: list[Tensor], clock: Clock) -> Trajectory:
        place: dict[str, Any] = {"device": self.initial.device}
        codes = torch.zeros(self.batch, dtype=torch.int64, **place) if clock.failed is None else clock.failed
        since = torch.full(self.batch, torch.nan, dtype=torch.float64, **place) if clock.since is None else clock.since
        missing = len(self.times) - len(outputs)
        if missing:
            stopped = None if self.search is None else self.search.stopped
            if self._is_at_limit():
                late = codes == 0 if stopped is None else (codes == 0) & ~stopped
                codes = torch.where(late, int(Status.MAX_STEPS), codes)
                since = torch.where(late, clock.t, since)
            fill = torch.full_like(outputs[-1].detach(), torch.nan)
            if self.search is not None:
                fill = self.search.hold(fill, inf)
            outputs = [*outputs, *[fill] * missing]
        named = self._counts(clock)
        counts = torch.tensor(list(named.values()), **place).reshape(-1, *(1,) * len(self.batch))
        counts = counts.expand(-1, *self.batch)
        if self.ended is not None:
            counts = torch.where(self.ended < 0, counts, self.ended)
        sizes = self.sizes if clock.steps else (torch.nan, torch.nan)
        smallest, largest = (torch.full(self.batch, size, dtype=torch.float64, **place) for size in sizes)
        statistics = {
            **dict(zip(named, counts, strict=True)),
            "smallest_step": smallest,
            "largest_step": largest,
            "failed_at": since,
        }
        events = () if self.search is None else self.search.results()
        # Time comes first in memory: whole states are copied, and read again, in one piece.
        states = torch.stack(outputs).movedim(0, len(self.batch))
        return Trajectory(states, codes, statistics, self._history(), events)

    def _history(self) -> dict[str, Tensor]:
        if not self.entries:
            return {}
        place: dict[str, Any] = {"device": self.initial.device}

        def rows(numbers: Sequence[float], dtype: torch.dtype = torch.float64) -> Tensor:
            column = torch.tensor(numbers, dtype=dtype, **place).reshape(-1, *(1,) * len(self.batch))
            return column.expand(len(numbers), *self.batch)

        found = {
            "time": rows([entry.t for entry in self.entries]),
            "step": rows([entry.h for entry in self.entries]),
            "accepted": rows([entry.accepted for entry in self.entries], torch.bool),
        }
        if self.record:
            errors = [entry.error for entry in self.entries if isinstance(entry.error, Tensor)]
            stiffness = [entry.stiffness for entry in self.entries if entry.stiffness is not None]
            found |= {name: torch.stack(kept) for name, kept in (("error", errors), ("stiffness", stiffness)) if kept}
        else:
            found["error"] = rows([entry.error for entry in self.entries])  # type: ignore[misc]
        return found


def _lent(system: EvolvingSystem) -> tuple[int, ...]:
    """Which tensors are the parameters of the right-hand side at the moment."""
    modules = (found for found in system.fields.values() if isinstance(found, nn.Module))
    return tuple(id(parameter) for module in modules for parameter in module.parameters())
