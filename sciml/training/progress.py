"""How far a training is, for whoever waits: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY = 10.0  # seconds between two plain lines,
_NEWS_EVERY = 2.0  # or where there is news

Show = Callable[[float, str, bool], None]
"""Told the part of the training that is done, a line about it, and whether that line is news."""


@contextmanager
def progress(shown: bool, opening: str = "") -> Iterator[Show]:
    """Show a training on the error stream, after an opening line if there is one, or nothing at all."""
    if shown and opening:
        print(opening, file=sys.stderr, flush=True)  # stays above the bar, which is gone in the end
    if not shown:
        yield lambda share, line, news: None
    elif sys.stderr.isatty():
        yield from _bar()
    else:
        lines = _Lines()
        try:
            yield lines.show
        finally:
            lines.print()


class _Lines:
    """Some of the lines, and always the last one."""

    def __init__(self) -> None:
        self._line, self._printed = "", time.monotonic()

    def show(self, share: float, line: str, news: bool) -> None:
        self._line = f"training {share:4.0%}  {line}"
        if time.monotonic() >= self._printed + (_NEWS_EVERY if news else _LINE_EVERY):
            self.print()

    def print(self) -> None:
        if self._line:
            print(self._line, file=sys.stderr, flush=True)
            self._line, self._printed = "", time.monotonic()


def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=1.0)
        yield lambda share, line, news: bar.update(task, completed=share, description=line)
