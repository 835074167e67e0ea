"""Networks trained on the same data for the same time: errors on the grid of the training and on one twice as fine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..bench import Bench, version_of
from ..row import Row
from . import child, kept
from .contestants import Contestant, contestants

Result = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """How the networks are compared.

    Args:
        points: along an axis of the grid of the training; the other one has twice as many.
        samples: by split.
        seconds: of the processor that a training may take, on one thread; beside a GPU of the clock.
        seeds: of first weights and of the order of the samples.
        rounds: of measuring the steps, and
        round_seconds: seconds of each.
    """

    points: int = 64
    samples: Mapping[str, int] | None = None
    seconds: float = 180.0
    seeds: Sequence[int] = (0, 1, 2)
    rounds: int = 4
    round_seconds: float = 3.0


def accuracy_case(contest: Contest) -> str:
    """Name of the case."""
    return f"accuracy, Darcy (12 and 3) {contest.points}x{contest.points}, {contest.seconds:g} s of training"


def measure_accuracy(contest: Contest, bench: Bench) -> list[Row]:
    """One row a network, its errors the medians over the seeds.

    The steps are timed first, all networks in turn, and every network is trained for as many as fit the time. Each
    training is kept until all are done, so that a run that was interrupted goes on behind the last complete one.
    """
    case = accuracy_case(contest)
    data, fine = _data(contest, bench)
    common = {"size": bench.size, "device": bench.device, "data": str(data)}
    entries = {item.name: item for item in contestants(bench.size)}
    parts = kept.Parts("accuracy")
    bench.say(f"{case}: timing the steps")
    timed = parts.result(
        "steps",
        {**common, "networks": list(entries), "rounds": contest.rounds, "seconds": contest.round_seconds},
        lambda order: child.run("measure_steps", order),
    )
    found: dict[str, list[Result]] = {}
    failures = {
        name: f"{library} is not installed (pip install 'sciml-torch[bench]')"
        for name, library in timed["missing"].items()
    }
    for seed in contest.seeds:
        for name, step_seconds in timed["step_seconds"].items():
            if name in failures:
                continue
            steps = max(1, round(contest.seconds / step_seconds))
            bench.say(f"{case}: {name}, seed {seed}, {steps} steps")
            order = {**common, "fine": str(fine), "network": name, "seed": seed, "steps": steps}
            try:
                result = parts.result(f"seed-{seed}", order, lambda order: child.run("train_one", order))
            except RuntimeError as error:
                failures[name] = str(error)
                continue
            found.setdefault(name, []).append({"seed": seed, **result})
    rows = []
    for name, item in entries.items():
        if name in failures:
            rows.append(_failed(case, item, failures[name], bench))
        else:
            rows.append(_row(case, item, contest, found[name], timed["step_seconds"][name], bench))
    if failures.keys() == timed["missing"].keys():
        parts.complete()
    return rows


def _data(contest: Contest, bench: Bench) -> tuple[Any, Any]:
    """The folders of the samples, and of the test samples on the finer grid: the same media, solved there."""
    bench.say("making samples of Darcy flow")
    sizes = dict(contest.samples or {})
    data = kept.dataset("darcy-64", contest.points, sizes, bench.device)
    fine_sizes = {"train": 1, "valid": 0, **({"test": sizes["test"]} if "test" in sizes else {})}
    return data, kept.dataset("darcy-128", 2 * contest.points, fine_sizes, bench.device)


def _failed(case: str, item: Contestant, failure: str, bench: Bench) -> Row:
    extra = {"failure": failure}
    return bench.row(case, item.name, item.library, version=version_of(item.library), dtype="float32", extra=extra)


def _row(
    case: str, item: Contestant, contest: Contest, found: Sequence[Result], step_seconds: float, bench: Bench
) -> Row:
    errors = {name: statistics.median(result["errors"][name] for result in found) for name in found[0]["errors"]}
    seconds = statistics.median(result["seconds"] for result in found)
    memory = max(result["peak_bytes"] for result in found)
    fine = 2 * contest.points
    count = found[0]["parameters"]
    coarse = f"L2 {_percent(errors['L2'])}, H1 {_percent(errors['H1'])}"
    finer = f"at {fine}x{fine} {_percent(errors['L2 fine'])}, {_percent(errors['H1 fine'])}"
    extra = {
        "seconds_per_step": step_seconds,
        "parameters": count,
        "peak_bytes": memory,
        "errors": errors,
        "seeds": list(found),
        "note": f"{coarse}; {finer}; {count:,} parameters; {memory / 1e6:.0f} MB",
    }
    row = bench.row(
        case,
        item.name,
        item.library,
        version=version_of(item.library),
        dtype="float32",
        solve_seconds=seconds,
        iterations=found[0]["steps"],
        error=errors["L2"],
        extra=extra,
    )
    return replace(row, threads=1) if bench.device == "cpu" else row


def _percent(error: float) -> str:
    return f"{100 * error:.3g} %"
