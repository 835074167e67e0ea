"""What reading the data takes of a training: batches in a shuffled order, from memory and from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sciml.datasets import open

from ...training import AdamW, Samples
from ...training.order import batches, permutation
from ..bench import Bench, version_of
from ..evolution.one_core import one_core
from ..row import Row
from ..timing import Contender, Outcome
from . import kept
from .contestants import MGNO
from .step import Problem, Step

IN_MEMORY = "an epoch read, in memory"
FROM_FILES = "an epoch read, from files"


@dataclass(frozen=True)
class Reading:
    """What is read, and the step beside it.

    Args:
        problem: points, batch and network.
        samples: by split; None for the recipe's.
    """

    problem: Problem
    samples: Mapping[str, int] | None = None


def reading_case(reading: Reading) -> str:
    """Name of the case."""
    return f"reading, Darcy {reading.problem.points}x{reading.problem.points}, batch {reading.problem.batch}"


def measure_reading(reading: Reading, bench: Bench) -> list[Row]:
    """The order of an epoch and all its batches, in turn with one step of MgNO; `seconds_per_step` is of one batch."""
    bench.say("making samples of Darcy flow")
    problem = reading.problem
    data = open(kept.dataset("darcy-64", problem.points, reading.samples or {}, bench.device))
    train = data.split("train")
    count = batches(len(train), problem.batch, drop_last=False)
    x, y = problem.fields(bench.device)
    step = Step(problem.mgno, AdamW(1e-3).build, x, y)
    step()
    held, streamed = train.samples(), train.samples(memory=0)

    def contender(method: str, act: Any) -> Contender:
        return Contender(method, "sciml", version_of("sciml"), act, lambda _: Outcome(), device=bench.device)

    contenders = [
        contender(MGNO, lambda _: step()),
        contender(IN_MEMORY, lambda _: read_epoch(held, problem.batch, bench.device)),
        contender(FROM_FILES, lambda _: read_epoch(streamed, problem.batch, bench.device)),
    ]
    with one_core():
        rows = bench.compare(reading_case(reading), contenders, unknowns=x.numel())
    return [_per_step(row, 1 if row.method == MGNO else count) for row in rows]


def read_epoch(samples: Samples, batch: int, device: str) -> Tensor:
    """All batches of an epoch, as a training has them; returns the last one's input."""
    order = permutation(len(samples), 0, 0)
    found = {}
    for start in range(0, len(samples), batch):
        found = {name: item.to(device) for name, item in samples.batch(order[start : start + batch]).items()}
    return found["input"]


def _per_step(row: Row, steps: int) -> Row:
    if row.solve_seconds is None:
        return replace(row, dtype="float32")
    extra = {**row.extra, "seconds_per_step": row.solve_seconds / steps}
    return replace(row, dtype="float32", iterations=steps, extra=extra)
