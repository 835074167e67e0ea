"""What keeps an evolution from being lost: its values as they come, files on the way, and an orderly end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from .evolving import EvolvingSystem
from .solution import Solution
from .status import Status

SAVE_EVERY = 30.0  # seconds between two partial files, and
SAVE_SHARE = 20.0  # at least that many times as long as writing one takes
_LINE_EVERY = 10.0  # seconds between two plain lines

Show = Callable[[int, float], None]
"""Told of an output: its index and its time."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


class Record:
    """The values of an evolution so far, as `sciml.evolve` tells its observer.

    They are kept as they come, without copies: where states are fields they are the very tensors that the run keeps for
    its result. A partial file is written anew each time, and so seldom that this takes a small part of the time.

    Args:
        system: what is integrated.
        times: all that are asked for.
        method: for the solution.
        path: where partial results are written now and then; None for nowhere.
        show: told of every output.
    """

    def __init__(
        self, system: EvolvingSystem, times: Sequence[float], method: str, path: Path | None, show: Show
    ) -> None:
        self.system, self.times, self.method, self.path, self.show = system, tuple(times), method, path, show
        self.values: list[Tensor] = []
        self._begun = time.monotonic()
        self._saved = self._cost = 0.0

    def __call__(self, place: int, t: float, value: Tensor) -> None:
        self.values.append(value.detach())
        self.show(place, t)
        now = time.monotonic()
        if len(self.values) == 1:
            self._saved = now  # the initial state alone is not worth a file
        elif self.path is not None and now - self._saved >= max(SAVE_EVERY, SAVE_SHARE * self._cost):
            self.solution("still running when this was written").save(self.path)
            self._saved = time.monotonic()
            self._cost = self._saved - now

    def solution(self, why: str) -> Solution:
        """What there is, as the beginning of the solution that was asked for; `why` it is not all.

        A row whose latest value is not finite has failed, and has the code NON_FINITE whatever ended it.
        """
        values = list(self.values)
        axes = len(self.system.space)
        value = torch.stack(values, values[0].ndim - axes)
        last = values[-1]
        finite = torch.isfinite(last).all(tuple(range(-axes, 0))) if axes else torch.isfinite(last)
        codes = torch.where(finite, int(Status.CONVERGED), int(Status.NON_FINITE))
        reached = self.times[len(values) - 1]
        note = f"{why}: ends at t = {reached:g} of {self.times[-1]:g}, with {len(values)} of {len(self.times)} times"
        return Solution(
            value,
            codes,
            {"seconds_solve": time.monotonic() - self._begun},
            {},
            method=self.method,
            notes=(*self.system.notes, note),
            system=self.system,
            times=torch.tensor(self.times[: len(values)], dtype=torch.float64),
        )


@contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM raises `Terminated`, as SIGINT raises KeyboardInterrupt; outside the main thread all stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress(times: Sequence[float], quiet: bool) -> Iterator[Show]:
    """A bar on a terminal, plain lines now and then elsewhere."""
    first, last, count = times[0], times[-1], len(times)
    if quiet:
        yield lambda place, t: None
    elif sys.stderr.isatty():
        yield from _bar(first, last)
    else:
        said = [time.monotonic(), 0.0]

        def show(place: int, t: float) -> None:
            share, now = (t - first) / (last - first), time.monotonic()
            if place and (share >= said[1] + 0.1 or now >= said[0] + _LINE_EVERY):
                said[:] = now, share
                print(f"evolving t = {t:g} of {last:g}, {place + 1} of {count} times", file=sys.stderr, flush=True)

        yield show


def _bar(first: float, last: float) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("evolving", total=last - first)

        def show(place: int, t: float) -> None:
            shown.update(task, completed=t - first, description=f"evolving t = {t:g} of {last:g}")

        yield show
