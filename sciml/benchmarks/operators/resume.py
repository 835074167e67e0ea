"""A training that is killed and resumed, against the same one that is not."""

from __future__ import annotations

import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..bench import Bench
from ..row import Row
from . import child
from .contestants import MGNO

RESUME = "resume"


@dataclass(frozen=True)
class Short:
    """The training: steps in all, and those completed when it is killed."""

    channels: int = 24
    points: int = 32
    steps: int = 24
    killed: int = 13


def measure_resume(short: Short, bench: Bench) -> list[Row]:
    """One row, whose `losses_that_differ` counts the steps whose losses have other bits, or are missing."""
    common = {"device": bench.device, "channels": short.channels, "points": short.points, "steps": short.steps}
    with tempfile.TemporaryDirectory(prefix="sciml-") as scratch:
        bench.say("a training without interruption")
        whole = child.run("train_short", {**common, "folder": str(Path(scratch) / "whole"), "killed": None})
        bench.say(f"the same one, killed in step {short.killed + 1}")
        broken = {**common, "folder": str(Path(scratch) / "broken")}
        code = child.start("train_short", {**broken, "killed": short.killed}).returncode
        bench.say("and resumed")
        resumed = child.run("train_short", {**broken, "killed": None})
    theirs, ours = whole["losses"], resumed["losses"]
    differ = sum(a != b for a, b in zip(theirs, ours, strict=False)) + abs(len(theirs) - len(ours))
    same = resumed["weights"] == whole["weights"]
    extra = {
        "killed": code == -signal.SIGKILL,
        "losses_that_differ": differ,
        "weights_are_equal": same,
        "note": f"{differ} of {short.steps} losses differ; the last weights are {'equal' if same else 'NOT equal'}",
    }
    if code != -signal.SIGKILL:
        extra["failure"] = f"the training ended with {code} before it could be killed"
    return [bench.row(RESUME, MGNO, dtype="float32", iterations=short.steps, extra=extra)]
