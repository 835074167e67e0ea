"""Runs suites in processes of their own and gathers what they measured."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .row import Row, Rows
from .suite import Case, Figure, Plan, Suite

# Read once, when OpenMP starts. Workers that spin for long while they wait slow down everything else on the machine;
# those that do not spin take so long to wake, after seconds of one thread, that a second one is of no use.
ENVIRONMENT = {"GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": "PASSIVE"}
# -P: a folder in which the program happens to be started is no place to import from.
COMMAND = (sys.executable, "-P", "-m", "sciml.benchmarks.worker")

_LAST_LINES = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Reached:
    """A figure and what was reached; `value` is None where it was not measured at this size or on this device."""

    figure: Figure
    value: float | None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached."""
        return None if self.value is None else self.value <= self.figure.goal


@dataclass
class Run:
    """All that came out of one suite."""

    suite: str
    size: str
    device: str
    rows: list[Row] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    figures: list[Reached] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    best_copy: float | None = None
    copy_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The run as JSON can hold it."""
        return {
            "suite": self.suite,
            "size": self.size,
            "device": self.device,
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "figures": [
                {
                    "what": reached.figure.what,
                    "goal": reached.figure.goal,
                    "reached": reached.value,
                    "met": reached.met,
                    "note": reached.note,
                }
                for reached in self.figures
            ],
            "notes": self.notes,
        }


def run(suite: Suite, size: str, device: str, say: Say, plan: Plan | None = None) -> Run:
    """Measure a suite.

    The cases run in a process of their own, one for all that ask for the same environment. If it dies, the case that it
    was at is left out with a note, and another process goes on with the next. An interrupt from the keyboard ends the
    measuring and keeps what there is.

    Args:
        suite: what to measure.
        size, device: values of Size and Device.
        say: told what is being done, one short line each.
        plan: some of the suite's cases; None for all.
    """
    result = Run(suite.name, size, device)
    plan = plan or suite.plan(size, device)
    try:
        groups = list(_by_environment(plan.cases))
        plain = [cases for cases in groups if not cases[0].environment] or groups
        for cases in groups:
            left = list(cases)
            while left:
                left = _measure(suite, left, len(plan.cases), result, say, describe=cases is plain[0])
    except KeyboardInterrupt:
        result.notes.append("interrupted: the cases from there on were not measured")
    if result.best_copy is not None:
        result.rows = [row.judged(result.best_copy, result.copy_bytes) for row in result.rows]
        result.machine["copy_bytes_per_second"] = result.copy_bytes / result.best_copy
    order = {case.name: place for place, case in enumerate(plan.cases)}
    result.rows.sort(key=lambda row: order[row.case])
    result.figures = [reached(figure, Rows(result.rows)) for figure in plan.figures]
    return result


def reached(figure: Figure, rows: Rows) -> Reached:
    """What the rows say of a figure."""
    try:
        value = figure.reached(rows)
        return Reached(figure, value, figure.note(rows) if figure.note and value is not None else "")
    except LookupError:
        return Reached(figure, None)


def _by_environment(cases: Sequence[Case]) -> Iterator[list[Case]]:
    groups: dict[tuple[tuple[str, str], ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(tuple(sorted(case.environment.items())), []).append(case)
    yield from groups.values()


def _measure(suite: Suite, cases: Sequence[Case], total: int, result: Run, say: Say, *, describe: bool) -> list[Case]:
    """Run cases in one process, which may describe the machine; returns those that are left if it died."""
    order = {
        "suite": suite.name,
        "size": result.size,
        "device": result.device,
        "cases": [case.name for case in cases],
        "best_copy": result.best_copy,
        "machine": describe,
    }
    environment = {**ENVIRONMENT, **os.environ, **cases[0].environment}
    finished: set[str] = set()
    current = ""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        try:
            current = _follow(process, order, finished, total, result, say)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        last = errors.read().strip().splitlines()[-_LAST_LINES:]
    if code == 0:
        return []
    reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    where = f"at {current!r}" if current else "before the first case"
    result.notes.append(f"the measuring process ended {where} ({reason}): {' | '.join(last) or 'it said nothing'}")
    left = [case for case in cases if case.name not in finished and case.name != current]
    return left if current else []


def _follow(
    process: subprocess.Popen[str], order: dict[str, Any], finished: set[str], total: int, result: Run, say: Say
) -> str:
    """Take in the events of a process until it ends; returns the case that it was at."""
    current = ""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the measuring process has no pipes")
    with contextlib.suppress(BrokenPipeError):  # it died at once; its exit code says so
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.close()
    for line in process.stdout:
        if not line.endswith("\n"):
            break  # it died while writing
        event = json.loads(line)
        kind = event["event"]
        if kind == "case":
            current = event["name"]
        elif kind == "row":
            result.rows.append(Row.from_json(event["row"]))
        elif kind == "done":
            finished.add(event["case"])
            result.best_copy = min(event["best_copy"], result.best_copy or event["best_copy"])
            result.copy_bytes = event["copy_bytes"]
        elif kind == "machine":
            result.machine = event["machine"]
        elif kind == "say":
            done = len({row.case for row in result.rows})
            say(f"{result.suite} {min(done + 1, total)}/{total}  {event['text']}")
    return current
