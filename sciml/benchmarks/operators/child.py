"""Work in a process of its own: `python -m sciml.benchmarks.operators.child`, started by `run`.

It reads one order (JSON) from its input and writes one result (JSON). What libraries print goes to the error stream.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..runner import ENVIRONMENT

# -P: a folder in which the program happens to be started is no place to import from.
_COMMAND = (sys.executable, "-P", "-m", "sciml.benchmarks.operators.child")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(work: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Have work done in a process of its own, on one thread where the order's "device" is the CPU.

    Args:
        work: "measure_steps", "train_one" or "train_short".
        order: what the function of that name takes.

    Raises:
        RuntimeError: the process ended before it had a result; it says what it said last.
    """
    process = start(work, order)
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise RuntimeError(f"{work}: the process ended with {process.returncode}: {last[0]}")
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def start(work: str, order: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """As `run`, whatever becomes of it."""
    return subprocess.run(
        _COMMAND,
        input=json.dumps({"work": work, "order": order}),
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **os.environ, **(_ONE_THREAD if order["device"] == "cpu" else {})},
    )


def work_on(work: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Do the work here; what `run` has done elsewhere."""
    from . import short, training

    functions: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "measure_steps": training.measure_steps,
        "train_one": training.train_one,
        "train_short": short.train_short,
    }
    return functions[work](order)


def main() -> None:
    """Read the order and write the result."""
    given = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with answer:
        json.dump(work_on(given["work"], given["order"]), answer)


if __name__ == "__main__":
    main()
