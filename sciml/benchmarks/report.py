"""What a run looks like: tables of its rows and its figures, for a terminal and for a file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from .row import Row
from .runner import Reached, Run

HEADINGS = ("method", "library", "set-up", "solve", "both", "median", "ratio", "iterations", "residual", "error", "")
_NUMBERS = range(2, 10)  # columns that are aligned on the right
_FIGURE_HEADINGS = ("figure", "at most", "reached", "met", "")
_SECONDS_BETWEEN_LINES = 5.0
_LEGEND = (
    "The methods of a case run in turn. set-up, solve, both: the least of the repeats; median: of both;",
    "ratio: both, over that of the first line; residual: |b - A x| / |b|, computed afresh by numpy for every method.",
    "A run is noisy if copying an array just before or after it took over 1.5 times the least of the whole suite.",
    "The sparse kernels of scipy and pyamg use one thread. iterations: where time passes, the steps that were tried.",
)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that says what is being done now: a spinner on a terminal; elsewhere lines, one every few seconds."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        with Console(stderr=True).status("") as status:
            yield lambda text: status.update(escape(text))
    else:
        last = -math.inf

        def say(text: str) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                print(text, file=sys.stderr, flush=True)

        yield say


def show(run: Run) -> None:
    """Print the machine, the rows case by case, and the figures."""
    for line in _about(run):
        print(line)
    for case, group in groupby(run.rows, key=lambda row: row.case):
        rows = list(group)
        size = f", {rows[0].unknowns:,} unknowns" if rows[0].unknowns else ""
        _print_table(f"{case}{size}", HEADINGS, [cells(row, rows[0]) for row in rows], _NUMBERS)
    if run.figures:
        _print_table("figures", _FIGURE_HEADINGS, [_figure_cells(item) for item in run.figures], (1, 2))
    for note in run.notes:
        print(f"note: {note}")


def _about(run: Run) -> Iterator[str]:
    machine = run.machine
    yield f"suite {run.suite}, size {run.size}, device {run.device}"
    if "versions" in machine:
        versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["versions"].items())
        yield f"{machine['processor']}, {machine['threads']} threads" + (
            f", {machine['device']}" if run.device == "cuda" else ""
        )
        yield versions
        yield f"compiled kernels: {'yes' if machine['compiled_kernels'] else 'no'}"
        if "copy_bytes_per_second" in machine:
            yield f"limit: copying a large array reads and writes {machine['copy_bytes_per_second'] / 1e9:.1f} GB/s"
    yield from _LEGEND


def cells(row: Row, first: Row) -> tuple[str, ...]:
    """A row as text, beside the first row of its case."""
    extra, own, other = row.extra, row.total_seconds, first.total_seconds
    return (
        row.method,
        row.library if row.device == first.device == "cpu" else f"{row.library} ({row.device})",
        seconds(row.setup_seconds),
        seconds(row.solve_seconds),
        seconds(row.total_seconds),
        seconds(extra.get("total_median")),
        "" if own is None or other is None else f"{own / other:.3g}",
        "" if row.iterations is None else str(row.iterations),
        "" if row.relative_residual is None else f"{row.relative_residual:.1e}",
        "" if row.error is None else f"{row.error:.1e}",
        "; ".join(_remarks(row)),
    )


def _remarks(row: Row) -> Iterator[str]:
    extra = row.extra
    if "failure" in extra:
        yield f"not measured: {extra['failure']}"
    if row.missed:
        yield "MISSES the tolerance"
    if "note" in extra:
        yield extra["note"]
    if "seconds_per_iteration" in extra:
        yield f"{seconds(extra['seconds_per_iteration'])} an iteration"
    if "seconds_per_step" in extra:
        yield f"{seconds(extra['seconds_per_step'])} a step"
    if "per_second" in extra:
        yield f"{extra['per_second']:,.0f} {extra['counted']}/s"
    if "evaluations" in extra:
        yield f"{extra['evaluations']} evaluations"
    if "bytes_per_second" in extra:
        share = extra["bytes_per_second"] / extra["copy_bytes_per_second"]
        yield f"{extra['bytes_per_second'] / 1e9:.1f} GB/s, {share:.2f} of copying"
    if extra.get("noisy"):
        yield "noisy"
    if extra.get("repeats", 5) < 5:
        yield f"only {extra['repeats']} run{'' if extra['repeats'] == 1 else 's'}"


def seconds(value: float | None) -> str:
    """A time with three digits and its unit."""
    if value is None:
        return ""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}" if value * factor < 1000 else f"{value * factor:.0f} {unit}"
    return f"{value * 1e6:.3g} us"


def _figure_cells(item: Reached) -> tuple[str, ...]:
    numbers = (_number(value, item.figure.form) for value in (item.figure.goal, item.value))
    return (item.figure.what, *numbers, {True: "yes", False: "NO", None: "not measured here"}[item.met], item.note)


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    if form == "share":
        return f"1/{1 / value:.3g}"
    if form == "times":
        return f"{value:.2f} x"
    if form == "seconds":
        return seconds(value)
    return f"{value:.0f}" if form == "count" else f"{value:.2g}"


def _print_table(title: str, headings: Sequence[str], table: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    used = [column for column in range(len(headings)) if any(line[column] for line in table)]
    headings = [headings[column] for column in used]
    table = [[line[column] for column in used] for line in table]
    aligned = [column in right for column in used]
    if sys.stdout.isatty():
        _print_rich(title, headings, table, aligned)
    else:
        print("\n" + plain_table(title, headings, table, aligned))


def plain_table(title: str, headings: Sequence[str], table: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table in columns of spaces."""
    lines = [headings, *table]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    text = [title]
    for line in lines:
        padded = (
            item.rjust(width) if on_right else item.ljust(width)
            for item, width, on_right in zip(line, widths, right, strict=True)
        )
        text.append("  " + "  ".join(padded).rstrip())
    return "\n".join(text)


def _print_rich(title: str, headings: Sequence[str], table: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title, style="bold"), title_justify="left", header_style="dim", box=None, padding=(0, 1))
    for heading, on_right in zip(headings, right, strict=True):
        drawn.add_column(heading, justify="right" if on_right else "left", no_wrap=on_right)
    for line in table:
        drawn.add_row(*(Text(item, style=_style(item)) for item in line))
    console = Console()
    console.print()
    console.print(drawn)


def _style(item: str) -> str:
    if item == "NO" or item.startswith(("MISSES", "not measured:")):
        return "bold red"
    return "green" if item == "yes" else ""


def as_json(runs: Sequence[Run]) -> dict[str, Any]:
    """What `--json` writes."""
    return {"format": 1, "runs": [run.to_json() for run in runs]}
