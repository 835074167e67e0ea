"""Where a run stands in time, and how long its next step is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil, inf, log2
from typing import NamedTuple

import torch
from torch import Tensor

from .control import Controller

_DOUBLE = torch.finfo(torch.float64).eps


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


def ends_of_steps(times: tuple[float, ...], step: float) -> tuple[float, ...]:
    """The times between the steps of a run with steps of at most this size, outputs included."""
    schedule = Schedule(times, step, False, 1.0, Controller())
    clock = schedule.first(step)
    found = [clock.t]
    while clock.next < len(times):
        clock = schedule.accepted(clock, clock.h, 0.0)
        found.append(clock.t)
    return tuple(found)


class Schedule:
    """The sizes of the steps between the output times.

    Args:
        times: of the outputs, increasing.
        step: the largest step where all between two outputs are equal; None where they adapt.
        even: whether adaptive steps are equal parts of the time between two outputs, halved and doubled.
        order: of the error of a step.
        controller: of adaptive steps.
        fitted: (t, h) -> a step from t, at most h and not much less, that suits the method better; None where all do.
    """

    def __init__(
        self,
        times: tuple[float, ...],
        step: float | None,
        even: bool,
        order: float,
        controller: Controller,
        fitted: Callable[[float, float], float] | None = None,
    ) -> None:
        self.times, self.step, self.even, self.order, self.controller = times, step, even, order, controller
        self._fitted = fitted
        self.interpolated = False
        span = times[-1] - times[0]
        # Steps below this would hardly change the time.
        self.smallest = 16 * _DOUBLE * max(abs(times[0]), abs(times[-1]), span)
        numbers = torch.tensor(times, dtype=torch.float64)
        single = bool((numbers.float().double() == numbers).all())
        self._rounding = 2 * torch.finfo(torch.float32).eps if single else 8 * _DOUBLE  # of times as they were given
        self._intervals = [inf]
        for first, second in pairwise(times):
            # Intervals that differ by the rounding of times alone have steps of the same size.
            interval, before = second - first, self._intervals[-1]
            same = abs(interval - before) <= self._rounding * max(abs(first), abs(second))
            self._intervals.append(before if same else interval)

    def first(self, h: float) -> Clock:
        """The clock at the start, with a size for its first step; that of `step` where it is given."""
        if self.step is not None:
            return self._fixed(Clock(self.times[0], self.step))
        wanted = self.controller.first_step if self.controller.first_step is not None else h
        clock = Clock(self.times[0], min(wanted, self.controller.largest_step))
        return self._even(clock) if self.even else clock

    def size(self, clock: Clock) -> float:
        """The size of the next step."""
        if clock.left:
            return clock.h
        remaining = (self.times[-1] if self.interpolated else self.times[clock.next]) - clock.t
        if clock.h >= remaining * (1 - 1e-10):
            return remaining
        h = 0.5 * remaining if clock.h > 0.5 * remaining else clock.h
        return h if self._fitted is None else self._fitted(clock.t, h)

    def is_cut(self, clock: Clock, h: float) -> bool:
        """Whether a step is shorter than it should have been, to end on an output time."""
        return h < 0.99 * (clock.h if self._fitted is None or clock.left else self._fitted(clock.t, clock.h))

    def accepted(self, clock: Clock, h: float, ratio: float) -> Clock:
        """The clock after a step that was accepted, with the error `ratio`."""
        factor = 1.0
        if self.step is None:
            factor = self.controller.after_accepted((ratio, *clock.ratios), self.order)
            if clock.rejected:
                factor = min(factor, 1.0)
        moved = self._moved(clock, h, factor)
        return moved._replace(ratios=(ratio, clock.ratios[0]), rejected=False, good=h, steps=clock.steps + 1)

    def rejected(self, clock: Clock, h: float, ratio: float) -> Clock:
        """The clock after a step that was rejected."""
        smaller = h * self.controller.after_rejected(ratio, self.order)
        after = clock._replace(h=smaller, rejected=True)
        if clock.left:
            halvings = max(1, ceil(log2(h / smaller) - 1e-9))
            after = after._replace(h=h / 2**halvings, left=clock.left * 2**halvings)
        return after

    def resumed(self, clock: Clock) -> Clock:
        """The clock to go on with once the rows that needed ever smaller steps are given up."""
        after = clock._replace(h=clock.good or (self.times[-1] - self.times[0]) * 1e-6, rejected=False)
        return self._even(after) if clock.left else after

    def _interval(self, clock: Clock) -> float:
        """The time to the next output."""
        if clock.t == self.times[clock.next - 1]:
            return self._intervals[clock.next]
        return self.times[clock.next] - clock.t

    def _fixed(self, clock: Clock) -> Clock:
        """Equal steps to the next output time, as few as the largest allowed makes possible."""
        largest, interval = self.step or inf, self._interval(clock)
        rounding = self._rounding * max(abs(clock.t), abs(self.times[clock.next])) / interval
        count = max(1, ceil(interval / largest * (1 - min(rounding, 1e-3)) - 1e-9))
        exact = abs(count * largest - interval) <= rounding * interval
        return clock._replace(h=largest if exact else interval / count, left=count)

    def _even(self, clock: Clock) -> Clock:
        """Equal steps to the next output time, their number 2**k or 3 * 2**k, and none longer than the clock's."""
        interval = self._interval(clock)
        wanted = max(1.0, interval / clock.h * (1 - 1e-9))
        power = 2 ** ceil(log2(wanted))
        count = power if wanted > 0.75 * power or power < 4 else 3 * power // 4
        return clock._replace(h=interval / count, left=count)

    def _moved(self, clock: Clock, h: float, factor: float) -> Clock:
        target, largest = self.times[clock.next], self.controller.largest_step
        if clock.left:
            left = clock.left - 1
            if left == 0:
                on = clock._replace(t=target, h=min(h * factor, largest), next=clock.next + 1, left=0)
                if on.next == len(self.times):
                    return on
                return self._even(on) if self.step is None else self._fixed(on)
            if factor >= 2.0 and left % 2 == 0 and 2 * h <= largest:
                return clock._replace(t=target - left * h, h=2 * h, left=left // 2)
            return clock._replace(t=target - left * h, left=left)
        t = clock.t + h
        passed = clock.next
        while passed < len(self.times) and self.times[passed] <= t + 1e-12 * h:
            passed += 1
        if passed > clock.next and abs(self.times[passed - 1] - t) <= 1e-12 * h:
            t = self.times[passed - 1]
        # A step cut short to end on an output time says nothing against a longer one.
        wanted = max(h * factor, clock.h) if self.is_cut(clock, h) else h * factor
        return clock._replace(t=t, h=min(wanted, largest), next=passed)
