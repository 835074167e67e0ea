"""The loop over time steps: their sizes, output times, rows that fail, events, and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, log2
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem
from sciml.status import Status

from .control import Controller, initial_step
from .event_search import EventSearch
from .explicit import ExplicitStepper
from .stepper import Attempt, Integrator, Stepper
from .trajectory import Task, Trajectory

_ROUNDING = 2.5e-7  # of times, which may come in float32
_CHECK_EVERY = 16  # steps of fixed size between two looks for rows that are no longer finite


class Clock(NamedTuple):
    """Where a run stands between two steps.

    Attributes:
        t: the time.
        h: the size that the next step should have; of steps of one size that of all that are left.
        next: index of the next output time.
        left: steps left to it, where they are of one size.
        ratios: of the two latest accepted steps, the latest first.
        rejected: whether the latest step was.
        good: size of the latest accepted step.
        steps: accepted so far.
        failed: codes of the rows that have failed, 0 of the others, int64 of batch shape; None while there are none.
        since: when they failed, NaN of the others.
    """

    t: float
    h: float
    next: int = 1
    left: int = 0
    ratios: tuple[float, float] = (1.0, 1.0)
    rejected: bool = False
    good: float = 0.0
    steps: int = 0
    failed: Tensor | None = None
    since: Tensor | None = None


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
    """What some steps made: the state and memory at their end, and the states at the output times on the way."""

    y: Tensor
    memory: Any
    outputs: list[Tensor]


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
    stepper = method.stepper(system, None if task.step is not None else task.rtol, task.atol)
    if task.step is None and not stepper.embedded:
        raise InputError(f"{method.describe()} has no error estimate: give step=, the size of its steps")
    tracked = forward_ad._current_level >= 0 or (
        torch.is_grad_enabled() and (initial.requires_grad or system.slope(initial, task.times[0]).requires_grad)
    )
    checkpointed = tracked and task.gradient == "checkpointed"
    if checkpointed and task.events:
        raise InputError("events do not go with gradient='checkpointed' in this version: take 'recorded'")
    with torch.set_grad_enabled(tracked and torch.is_grad_enabled()):
        return _March(method, stepper, system, initial, task).run(checkpointed)


class _March:
    def __init__(
        self, method: Integrator, stepper: Stepper, system: EvolvingSystem, initial: Tensor, task: Task
    ) -> None:
        self.method = method
        self.stepper = stepper
        self.system = system
        self.initial = initial
        self.task = task
        self.times = task.times
        self.controller: Controller = getattr(method, "controller", None) or Controller()
        self.record = bool(getattr(method, "record", False))
        self.batch = tuple(initial.shape[: initial.ndim - len(system.state_space)])
        self.entries: list[Entry] = []
        self.tried = self.rejected = self.evaluations = 0
        self.sizes = (inf, 0.0)
        span = self.times[-1] - self.times[0]
        # Steps below this would hardly change the time.
        self.smallest = 16 * torch.finfo(torch.float64).eps * max(abs(self.times[0]), abs(self.times[-1]), span)
        self.dense = False
        self.search = EventSearch(task.events, system, stepper, self.batch) if task.events else None

    def run(self, checkpointed: bool) -> Trajectory:
        y, t = self.initial, self.times[0]
        outputs = [y]
        if self.task.observer is not None:
            self.task.observer(0, t, y)
        if self.search is not None:
            self.search.begin(y, t)
        memory = self.stepper.begin(y, t)
        clock = self._first(y, t, memory)
        length = 1
        while not self._is_over(clock):
            entries: list[Entry] = []
            if checkpointed:
                # Segments of 1, 2, 3, ... steps: their number and the longest both grow like the square root.
                piece = checkpoint(self._advance, y, memory, clock, entries, length, use_reentrant=False)
                length += 1
            else:
                piece = self._advance(y, memory, clock, entries, _CHECK_EVERY)
            if self.task.step is None:
                self.entries += entries
            y, memory, clock = piece.y, piece.memory, entries[-1].after
            outputs += piece.outputs
        return self._trajectory(outputs, clock)

    def _is_over(self, clock: Clock) -> bool:
        if clock.next >= len(self.times) or self._is_at_limit():
            return True
        if self.search is not None and self.search.over:
            return True
        return clock.failed is not None and bool((clock.failed != 0).all())

    def _is_at_limit(self) -> bool:
        """Whether no further step may be tried; steps of fixed size are as many as were asked for."""
        return self.task.step is None and self.tried >= self.controller.max_steps

    def _advance(self, y: Tensor, memory: Any, clock: Clock, entries: list[Entry], limit: int) -> Piece:
        """Up to `limit` steps; called again with the entries that it made, it repeats them."""
        replay = tuple(entries)
        outputs: list[Tensor] = []
        for place in range(len(replay) or limit):
            if not replay and self._is_over(clock):
                break
            h = replay[place].h if replay else self._size(clock)
            attempt = self.stepper.step(y, clock.t, h, memory)
            if replay:
                entry = replay[place]
            else:
                entry = self._judge(y, attempt, clock, h, last=place == limit - 1)
                entries.append(entry)
            if entry.accepted:
                value = attempt.value if self.search is None else self.search.look(y, attempt, clock.t, h)
                outputs += self._outputs(clock, entry, attempt, value, observe=not replay)
                y, memory = value, attempt.memory
            clock = entry.after
        return Piece(y, memory, outputs)

    # Sizes of steps

    def _first(self, y: Tensor, t: float, memory: Any) -> Clock:
        if self.task.step is not None:
            self.evaluations += isinstance(memory, Tensor)
            return self._fixed(Clock(t, self.task.step))
        with torch.no_grad():
            rows = initial_step(
                self.system,
                y,
                t,
                memory if isinstance(self.stepper, ExplicitStepper) and memory is not None else self.system.slope(y, t),
                self.stepper.embedded,
                self.task.rtol,
                self.task.atol,
                self.times[-1] - t,
            )
        self.evaluations += 2
        clock = Clock(t, float(rows.min()))
        return self._even(clock) if self.stepper.even else clock

    def _fixed(self, clock: Clock) -> Clock:
        """Equal steps to the next output time, as few as the largest allowed makes possible."""
        largest, interval = self.task.step or inf, self.times[clock.next] - clock.t
        rounding = _ROUNDING * max(abs(clock.t), abs(self.times[clock.next])) / interval
        count = max(1, ceil(interval / largest * (1 - min(rounding, 1e-3)) - 1e-9))
        exact = abs(count * largest - interval) <= (rounding + 1e-9) * interval
        h = largest if exact else _snapped(interval / count)
        return clock._replace(h=h, left=count)

    def _even(self, clock: Clock) -> Clock:
        """Equal steps to the next output time, their number 2**k or 3 * 2**k, and none longer than the clock's."""
        interval = self.times[clock.next] - clock.t
        wanted = max(1.0, interval / clock.h * (1 - 1e-9))
        power = 2 ** ceil(log2(wanted))
        count = power if wanted > 0.75 * power or power < 4 else 3 * power // 4
        return clock._replace(h=_snapped(interval / count), left=count)

    def _size(self, clock: Clock) -> float:
        """The size of the next step."""
        if clock.left:
            return clock.h
        remaining = (self.times[-1] if self.dense else self.times[clock.next]) - clock.t
        if clock.h >= remaining * (1 - 1e-10):
            return remaining
        return 0.5 * remaining if clock.h > 0.5 * remaining else clock.h

    def _judge(self, y: Tensor, attempt: Attempt, clock: Clock, h: float, last: bool) -> Entry:
        self.tried += 1
        self.evaluations += attempt.evaluations
        self.dense = attempt.interpolate is not None
        if self.task.step is not None:
            return self._judge_fixed(attempt, clock, h, last)
        task, controller, order = self.task, self.controller, self.stepper.embedded + 1
        rows = attempt.ratio
        if rows is None:
            with torch.set_grad_enabled(self.record and torch.is_grad_enabled()):
                error = torch.zeros_like(y) if attempt.error is None else attempt.error
                rows = self.system.error_ratio(error, y, attempt.value, task.rtol, task.atol)
        if clock.failed is not None:
            rows = torch.where(clock.failed == 0, rows, 0.0)
        ratio = _joint(rows) if attempt.solved else inf
        kept = rows if self.record else ratio
        if ratio <= 1.0:
            factor = controller.after_accepted((ratio, *clock.ratios), order)
            if clock.rejected:
                factor = min(factor, 1.0)
            self.sizes = (min(self.sizes[0], h), max(self.sizes[1], h))
            after = self._moved(clock, h, factor)._replace(
                ratios=(ratio, clock.ratios[0]),
                rejected=False,
                good=h,
                steps=clock.steps + 1,
            )
            return Entry(clock.t, h, True, after, kept, attempt.stiffness)
        self.rejected += 1
        smaller = h * controller.after_rejected(ratio, order)
        after = clock._replace(h=smaller, rejected=True)
        if clock.left:
            halvings = max(1, ceil(log2(h / smaller) - 1e-9))
            after = after._replace(h=h / 2**halvings, left=clock.left * 2**halvings)
        if after.h < self.smallest:
            after = self._fail(after, rows.detach(), h, attempt.solved)
        return Entry(clock.t, h, False, after, kept, attempt.stiffness)

    def _judge_fixed(self, attempt: Attempt, clock: Clock, h: float, last: bool) -> Entry:
        self.sizes = (min(self.sizes[0], h), max(self.sizes[1], h))
        after = self._moved(clock, h, 1.0)._replace(steps=clock.steps + 1)
        if not attempt.solved:
            stagnated = torch.full(self.batch, int(Status.STAGNATED), device=attempt.value.device)
            after = self._failed(after, stagnated)
        elif last or after.next != clock.next:
            finite = torch.isfinite(self._sums(attempt.value.detach()))
            if not bool(finite.all()):
                after = self._failed(after, torch.where(finite, 0, int(Status.NON_FINITE)))
        return Entry(clock.t, h, True, after)

    def _moved(self, clock: Clock, h: float, factor: float) -> Clock:
        """The clock after an accepted step, with the size of the next."""
        target = self.times[clock.next]
        if clock.left:
            left = clock.left - 1
            if left == 0:
                on = clock._replace(t=target, h=h * factor, next=clock.next + 1, left=0)
                if on.next == len(self.times):
                    return on
                return self._even(on) if self.task.step is None else self._fixed(on)
            if factor >= 2.0 and left % 2 == 0:
                return clock._replace(t=target - left * h, h=2 * h, left=left // 2)
            return clock._replace(t=target - left * h, left=left)
        t = clock.t + h
        passed = clock.next
        while passed < len(self.times) and self.times[passed] <= t + 1e-12 * h:
            passed += 1
        if passed > clock.next and abs(self.times[passed - 1] - t) <= 1e-12 * h:
            t = self.times[passed - 1]
        # A step cut short to end on an output time says nothing against a longer one.
        wanted = max(h * factor, clock.h) if h < 0.99 * clock.h else h * factor
        return clock._replace(t=t, h=wanted, next=passed)

    # Rows that fail

    def _fail(self, clock: Clock, ratios: Tensor, h: float, solved: bool) -> Clock:
        """Give up the rows that would need even smaller steps, and go on with the others as before."""
        bad = ~(ratios <= 1.0) if solved else torch.ones_like(ratios, dtype=torch.bool)
        if not bool(bad.any()):
            bad = ratios >= ratios.max()
        finite = torch.isfinite(ratios) if solved else bad
        codes = torch.where(finite, int(Status.STEP_UNDERFLOW), int(Status.NON_FINITE))
        after = self._failed(clock, torch.where(bad, codes, 0))
        after = after._replace(h=clock.good or (self.times[-1] - self.times[0]) * 1e-6, rejected=False)
        return self._even(after) if clock.left else after

    def _failed(self, clock: Clock, codes: Tensor) -> Clock:
        """The clock with further failures, 0 meaning none."""
        if clock.failed is None or clock.since is None:
            failed = torch.zeros(self.batch, dtype=torch.int64, device=codes.device)
            clock = clock._replace(failed=failed, since=torch.full_like(failed, torch.nan, dtype=torch.float64))
        new = (clock.failed == 0) & (codes != 0)
        return clock._replace(
            failed=torch.where(new, codes, clock.failed),  # type: ignore[arg-type]
            since=torch.where(new, clock.t, clock.since),  # type: ignore[arg-type]
        )

    def _sums(self, y: Tensor) -> Tensor:
        axes = tuple(range(-len(self.system.state_space), 0))
        return y.sum(axes) if axes else y

    # Results

    def _outputs(self, clock: Clock, entry: Entry, attempt: Attempt, value: Tensor, *, observe: bool) -> list[Tensor]:
        found = []
        for place in range(clock.next, entry.after.next):
            time = self.times[place]
            state = value
            if time != entry.after.t and attempt.interpolate is not None:
                state = attempt.interpolate((time - clock.t) / entry.h)
            if self.search is not None:
                state = self.search.hold(state, time)
            state = self._without_failed(state, entry.after)
            found.append(state)
            if observe and self.task.observer is not None:
                self.task.observer(place, time, state.detach())
        return found

    def _without_failed(self, state: Tensor, clock: Clock) -> Tensor:
        if clock.failed is None:
            return state
        spread = (clock.failed != 0).reshape((*self.batch, *(1,) * len(self.system.state_space)))
        return torch.where(spread, torch.nan, state)

    def _trajectory(self, outputs: list[Tensor], clock: Clock) -> Trajectory:
        place: dict[str, Any] = {"device": self.initial.device}
        codes = torch.zeros(self.batch, dtype=torch.int64, **place) if clock.failed is None else clock.failed
        stopped = self.search is not None and self.search.over
        if clock.next < len(self.times):
            fill = torch.full_like(outputs[-1].detach(), torch.nan)
            if stopped and self.search is not None:
                fill = self.search.hold(outputs[-1], inf)
            elif self._is_at_limit():
                codes = torch.where(codes == 0, int(Status.MAX_STEPS), codes)
            outputs = [*outputs, *[fill] * (len(self.times) - len(outputs))]
        since = torch.full(self.batch, torch.nan, dtype=torch.float64, **place) if clock.since is None else clock.since
        if self._is_at_limit():
            since = torch.where((codes == int(Status.MAX_STEPS)), clock.t, since)

        def everywhere(number: float, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.full(self.batch, number, dtype=dtype, **place)

        statistics = {
            "evaluations": everywhere(self.evaluations),
            "steps": everywhere(clock.steps),
            "rejected": everywhere(self.rejected),
            "smallest_step": everywhere(self.sizes[0] if clock.steps else torch.nan, torch.float64),
            "largest_step": everywhere(self.sizes[1] if clock.steps else torch.nan, torch.float64),
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
            found["error"] = torch.stack([entry.error for entry in self.entries])  # type: ignore[misc]
            stiffness = [entry.stiffness for entry in self.entries if entry.stiffness is not None]
            if stiffness:
                found["stiffness"] = torch.stack(stiffness)
        else:
            found["error"] = rows([entry.error for entry in self.entries])  # type: ignore[misc]
        return found


def _joint(rows: Tensor) -> float:
    """The root mean square over rows."""
    rows = rows.detach()
    if rows.ndim == 0:
        return float(rows)
    return float(torch.linalg.vector_norm(rows)) / max(1, rows.numel()) ** 0.5


def _snapped(h: float) -> float:
    """A step size without the rounding of its last digits, so that equal intervals have equal steps."""
    return float(f"{h:.12g}")
