"""The process that measures: `python -m sciml.benchmarks.worker`, started by `runner`.

It reads one order (JSON) from its input and answers with one event (JSON) a line. What libraries print goes to the
error stream, so that nothing comes between the events.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

Emit = Callable[..., None]


def main() -> None:
    """Measure the cases of the order."""
    order = json.loads(sys.stdin.readline())
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    work(order, lambda kind, **content: _send(events, {"event": kind, **content}))


def _send(events: TextIO, event: dict[str, Any]) -> None:
    print(json.dumps(event), file=events, flush=True)


def work(order: dict[str, Any], emit: Emit) -> None:
    """Measure cases and emit what happens.

    Args:
        order: "suite", "size", "device", "cases" (their names), "best_copy" (seconds, or None) and "machine" (whether
            to describe it).
        emit: called with the kind of an event and its content: "say" (text), "case" (name), "row" (row),
            "done" (case, best_copy, copy_bytes), "machine" (machine).
    """
    from .bench import Bench
    from .row import Row
    from .suites import SUITES

    suite = next(suite for suite in SUITES if suite.name == order["suite"])
    plan = suite.plan(order["size"], order["device"])
    gc.freeze()  # the collections before every run need not look at what the libraries are made of
    emit("say", text="copying, to see how quiet the machine is")
    best = order["best_copy"] or float("inf")
    bench = Bench(suite.name, order["size"], order["device"], lambda text: emit("say", text=text), best)
    if order["machine"]:
        emit("machine", machine=bench.machine())
    for case in plan.cases:
        if case.name not in order["cases"]:
            continue
        emit("case", name=case.name)
        try:
            rows = list(case.measure(bench))
        except Exception as error:  # one case does not take the others down
            failure = f"{type(error).__name__}: {error}"
            rows = [Row(suite.name, case.name, "all", "sciml", device=order["device"], extra={"failure": failure})]
        for row in rows:
            emit("row", row=row.to_json())
        emit("done", case=case.name, best_copy=bench.calibration.best, copy_bytes=bench.calibration.size)


if __name__ == "__main__":
    main()
