"""MgNO on rough Darcy flow at 256x256, as it was published, for the time that a GPU needs: in float32 and in bf16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sciml.datasets import open

from ..bench import Bench
from ..row import Row
from . import child, kept
from .contestants import MGNO, ROUGH_MGNO, contestant

PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class Rough:
    """The data and the time.

    Args:
        points: along an axis.
        samples: by split; None for the recipe's 1280, 112 and 112.
        seconds: that a training may take.
        compile: whether the network is compiled.
    """

    points: int = 256
    samples: Mapping[str, int] | None = None
    seconds: float = 300.0
    compile: bool = True


def rough_case(rough: Rough) -> str:
    """Name of the case."""
    return f"rough Darcy (12 and 2) {rough.points}x{rough.points}, {rough.seconds:g} s of training"


def method(precision: str) -> str:
    """Of a row."""
    return f"{MGNO}, {precision}"


def measure_rough(rough: Rough, bench: Bench) -> list[Row]:
    """One training in each precision, in a process of its own; the time includes the reading of the data."""
    case = rough_case(rough)
    bench.say("making samples of rough Darcy flow")
    data = kept.dataset("darcy-rough", rough.points, rough.samples or {}, bench.device)
    train = len(open(data).split("train"))
    batches = -(-train // contestant(bench.size, ROUGH_MGNO).plan.batch_size)
    rows = []
    for precision in PRECISIONS:
        bench.say(f"{case}, {precision}")
        order: dict[str, Any] = {
            "size": bench.size,
            "device": bench.device,
            "data": str(data),
            "network": ROUGH_MGNO,
            "seed": 0,
            "seconds": rough.seconds,
            "precision": precision,
            "compile": rough.compile,
        }
        try:
            found = child.run("train_one", order)
        except RuntimeError as error:
            rows.append(bench.row(case, method(precision), dtype="float32", extra={"failure": str(error)}))
            continue
        step = found["training_seconds"] / found["steps"]
        extra = {
            "seconds_per_step": step,
            "seconds_per_epoch": step * batches,
            "parameters": found["parameters"],
            "peak_bytes": found["peak_bytes"],
            "errors": found["errors"],
            "note": (
                f"L2 {100 * found['errors']['L2']:.3g} %, H1 {100 * found['errors']['H1']:.3g} %; "
                f"{step * batches:.3g} s an epoch; {found['peak_bytes'] / 1e6:.0f} MB"
            ),
        }
        rows.append(
            bench.row(
                case,
                method(precision),
                dtype="float32",
                solve_seconds=found["training_seconds"],
                iterations=found["steps"],
                error=found["errors"]["L2"],
                extra=extra,
            )
        )
    return rows
