"""Trainings outlast a run: each has a folder of its own, until all trainings of its case are complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciml import solvers
from sciml.solvers.neural_de.tasks import Task, load_task

from ... import training
from ...files import write_whole
from ..bench import version_of

Measured = dict[str, Any]

_MEASURED = "measured.json"
_PARTS = ("neural_de", "time")  # of the solvers, that trainings are computed by


def folder() -> Path:
    """Where everything here is kept; it may be removed at any time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return cache / "sciml" / "bench-neural-de"


class Trainings:
    """Trainings of a case, each kept until the whole case is complete; one that was interrupted goes on.

    A training is known by its task, its plan, the device, the versions of the libraries, and the programs that it is
    computed by: those that others computed are done again.

    Args:
        case: name of the folder.
        device: where they run.
    """

    def __init__(self, case: str, device: str) -> None:
        self._folder, self._device = folder() / case, device
        self._programs = _programs()

    def result(self, task: Task) -> tuple[Measured, nn.Module]:
        """What a training came to, and its model, in evaluation mode on the CPU.

        "training_seconds" are those of the processor, beside a GPU those of the clock; "clock_seconds" are always the
        latter.
        """
        order = [task.described(), task.plan.described(), self._device, self._programs]
        digest = hashlib.sha256(json.dumps(order, sort_keys=True, default=repr).encode()).hexdigest()[:16]
        place = self._folder / digest
        done = place / _MEASURED
        if not done.is_file():
            place.mkdir(parents=True, exist_ok=True)
            write_whole(done, json.dumps(self._trained(task, place)).encode())
        found: Measured = json.loads(done.read_bytes())
        return found, load_task(place).model

    def _trained(self, task: Task, place: Path) -> Measured:
        clock, processor = time.perf_counter(), time.process_time()
        found = task.train(place, resume=True, device=self._device).described()
        # Another process's time is not the method's: seconds of the clock count as far as this one had the processor.
        share = (time.process_time() - processor) / (time.perf_counter() - clock)
        seconds = found["training_seconds"]
        if self._device == "cpu":
            found["training_seconds"] = seconds * min(share / torch.get_num_threads(), 1.0)
        return {**found, "clock_seconds": seconds}

    def complete(self) -> None:
        """Remove what was kept: the next run measures everything anew."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _programs() -> Mapping[str, Any]:
    places = [*map(Path, training.__path__), *[Path(path) / part for path in solvers.__path__ for part in _PARTS]]
    files = [Path(__file__), *(path for place in places for path in place.rglob("*") if path.suffix == ".py")]
    content = hashlib.sha256()
    for path in sorted(files):
        content.update(hashlib.sha256(path.read_bytes()).digest())
    versions = {name: version_of(name) for name in ("sciml", "torch", "torchdiffeq", "torchsde", "scikit-learn")}
    return {"versions": versions, "python": sys.version, "files": content.hexdigest()}
