"""Timing methods in turn on a machine that others may use too.

All methods of a case run once, then all again, and so on, so that whatever slows the machine for a while slows them
alike. Before and after every run a fixed array is copied: a run counts only if both copies took at most 1.5 times the
best one so far. Runs that do not count are repeated, up to three times a method; after that they are kept, and said to
be noisy.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .row import NOISE

_QUICK_ROUND = 1.0  # seconds that a round of all methods may take for more rounds to be made
_LONG, _VERY_LONG = 20.0, 60.0  # seconds a run, above which 2 and 1 are made
_SHORTEST = 0.02  # seconds; solves that are shorter are repeated within one run,
_MOST_LOOPS = 10_000  # but not more often than this
_COPY_BYTES = 1 << 25
_COPIES = 3


@dataclass(frozen=True)
class Patience:
    """How many runs to make.

    Args:
        repeats: runs of every method (2 where one takes more than 20 seconds, 1 above 60).
        quick_repeats: the same where a round of all methods takes less than a second.
        retries: how many more of a method for runs that were not quiet, as long as it has taken less than
        most_seconds: on the case in all.
        settle: seconds of copying at the start, to know what a quiet machine can do.
        warm_up: seconds above which a first run counts, since what warms up is small beside it.
    """

    repeats: int = 5
    quick_repeats: int = 15
    retries: int = 3
    most_seconds: float = 60.0
    settle: float = 0.5
    warm_up: float = 2.0


PATIENCE = Patience()
IMPATIENCE = Patience(repeats=1, quick_repeats=1, retries=0, settle=0.05)
ONE_RUN = Patience(repeats=1, quick_repeats=1, retries=0, settle=0.05, warm_up=0.0)


@dataclass(frozen=True)
class Outcome:
    """What a method found.

    Args:
        value: its solution, a tensor or an array; None if the case looks at none.
        iterations: how many it took, the most of a batch.
        note: what else it said of its end, for example the status of a failure.
        extra: goes into the row's `extra`.
    """

    value: Any = None
    iterations: int | None = None
    note: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """A method as it is timed.

    Args:
        method, library, version: who it is.
        prepare: timed as the set-up; None if the method has none that could be told apart.
        solve: timed; takes what `prepare` returned.
        finish: makes the Outcome of what `solve` returned, not timed.
        device: where it runs.
        loops: solves within one run; None for as many as make the run long enough for the clock.
        setup_within: seconds of set-up that `solve` contains, as what it returned tells; they count as set-up instead.
    """

    method: str
    library: str
    version: str | None
    solve: Callable[[Any], Any]
    finish: Callable[[Any], Outcome]
    prepare: Callable[[], Any] | None = None
    device: str = "cpu"
    loops: int | None = 1
    setup_within: Callable[[Any], float] | None = None

    @property
    def has_setup(self) -> bool:
        """Whether a set-up is told apart."""
        return self.prepare is not None or self.setup_within is not None


@dataclass(frozen=True)
class Sample:
    """One run: seconds of set-up and of one solve, and of the slower of the copies around it."""

    setup: float
    solve: float
    copy: float

    @property
    def total(self) -> float:
        """Set-up and solve."""
        return self.setup + self.solve


@dataclass
class Series:
    """All runs of one method on one case."""

    contender: Contender
    patience: Patience
    samples: list[Sample] = field(default_factory=list)
    outcome: Outcome | None = None
    failure: str | None = None
    wanted: int = 0
    loops: int = 1
    first: float = 0.0  # seconds of the first run

    def kept(self, limit: float) -> list[Sample]:
        """The quiet runs, if there are as many as wanted; else all. `limit`: seconds of a copy in a quiet one."""
        quiet = [sample for sample in self.samples if sample.copy <= limit]
        return quiet if len(quiet) >= self.wanted else self.samples

    def unfinished(self, limit: float) -> bool:
        """Whether another run is due."""
        if self.failure is not None or len(self.samples) < self.wanted:
            return self.failure is None
        quiet = sum(sample.copy <= limit for sample in self.samples)
        taken = sum(sample.total for sample in self.samples)
        more = len(self.samples) < self.wanted + self.patience.retries and taken < self.patience.most_seconds
        return quiet < self.wanted and more

    def summary(self, limit: float) -> dict[str, Any]:
        """Minima and medians, for the `extra` of a row."""
        kept = self.kept(limit)
        return {
            "repeats": len(kept),
            "discarded": len(self.samples) - len(kept),
            "loops": self.loops,
            "total_seconds": min(sample.total for sample in kept),
            "total_median": statistics.median(sample.total for sample in kept),
            "setup_median": statistics.median(sample.setup for sample in kept) if self.contender.has_setup else None,
            "solve_median": statistics.median(sample.solve for sample in kept),
            "copy_seconds": max(sample.copy for sample in kept),
        }


class Clock:
    """Seconds, read when the device has done all that it was given."""

    def __init__(self, device: str) -> None:
        self._synchronize: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None

    def __call__(self) -> float:
        self._synchronize()
        return time.perf_counter()


class Calibration:
    """The time of a fixed copy, which tells how quiet the machine is.

    Args:
        clock: seconds.
        copy: does it once.
        best: the quickest that is known already, in seconds.

    Attributes:
        best: seconds of the quickest copy so far.
        size: bytes that a copy reads and writes, None if not known.
    """

    def __init__(self, clock: Callable[[], float], copy: Callable[[], Any], best: float = math.inf) -> None:
        self._clock, self._copy = clock, copy
        self.best = best
        self.size: int | None = None

    @staticmethod
    def on(device: str, clock: Callable[[], float], best: float = math.inf) -> Calibration:
        """Copies within the memory of a device."""
        source = torch.ones(_COPY_BYTES // 8 * (16 if device == "cuda" else 1), dtype=torch.float64, device=device)
        target = torch.zeros_like(source)
        calibration = Calibration(clock, lambda: target.copy_(source), best)
        calibration.size = 2 * source.numel() * source.element_size()
        return calibration

    @property
    def limit(self) -> float:
        """Seconds up to which a copy counts as undisturbed."""
        return NOISE * self.best

    def settle(self, seconds: float) -> None:
        """Copy for a while, so that `best` is near what the machine can do."""
        end = self._clock() + seconds
        while self._clock() < end:
            self.measure()

    def measure(self) -> float:
        """Seconds of the quickest of a few copies."""
        times = []
        for _ in range(_COPIES):
            start = self._clock()
            self._copy()
            times.append(self._clock() - start)
        self.best = min(self.best, *times)
        return min(times)


def take_turns(
    contenders: Sequence[Contender],
    clock: Callable[[], float],
    calibration: Calibration,
    say: Callable[[str], None] = lambda text: None,
    patience: Patience = PATIENCE,
) -> list[Series]:
    """Time methods in turn.

    A method that raises an exception is left out from then on, and its series says what it raised.

    Args:
        contenders: in the order of their turns.
        clock: seconds.
        calibration: judges every run.
        say: is told before every run what it is.
        patience: how many runs to make.

    Returns:
        one series a contender, in the same order.
    """
    series = [Series(contender, patience) for contender in contenders]
    copy = calibration.measure()
    for entry in series:
        say(f"{entry.contender.method} ({entry.contender.library}), first run")
        first, copy = _run(entry, clock, calibration, copy)
        if first is not None:
            _plan(entry, first)
    if sum(entry.first for entry in series) < _QUICK_ROUND:
        for entry in series:
            entry.wanted = patience.quick_repeats
    turn = 0
    while any(entry.unfinished(calibration.limit) for entry in series):
        turn += 1
        for entry in series:
            if entry.unfinished(calibration.limit):
                say(f"{entry.contender.method} ({entry.contender.library}), round {turn}")
                sample, copy = _run(entry, clock, calibration, copy)
                if sample is not None:
                    entry.samples.append(sample)
    return series


def _plan(entry: Series, first: Sample) -> None:
    """From the first run, how many more to make."""
    entry.first = first.total
    entry.wanted = 1 if first.total > _VERY_LONG else 2 if first.total > _LONG else entry.patience.repeats
    entry.loops = entry.contender.loops or max(1, min(_MOST_LOOPS, math.ceil(_SHORTEST / max(first.solve, 1e-9))))
    if first.total > entry.patience.warm_up and entry.loops == 1:
        entry.samples.append(first)


def _run(
    entry: Series, clock: Callable[[], float], calibration: Calibration, before: float
) -> tuple[Sample | None, float]:
    """One run, None if it raised an exception; and the copy after it, which is the one before the next run."""
    contender = entry.contender
    gc.collect()
    gc.disable()  # as timeit does: a collection that one method's garbage set off would count as another's time
    try:
        start = clock()
        state = contender.prepare() if contender.prepare else None
        ready = clock()
        for _ in range(entry.loops):
            found = contender.solve(state)
        end = clock()
        if entry.outcome is None:
            entry.outcome = contender.finish(found)
    except Exception as error:  # whatever another library throws, the others are still to be measured
        entry.failure = _describe(error)
        return None, calibration.measure()
    finally:
        gc.enable()
    setup = ready - start if contender.prepare else 0.0
    within = contender.setup_within(found) if contender.setup_within else 0.0
    after = calibration.measure()
    return Sample(setup + within, (end - ready) / entry.loops - within, max(before, after)), after


def _describe(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed (pip install 'sciml-torch[bench]')"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
