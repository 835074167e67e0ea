"""What is done in a process of its own: networks trained, and their steps timed.

Each function takes an order and returns a result, both of which JSON can hold; `child.run` has it done.
"""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciml.datasets import Dataset, open
from sciml.operators import RelativeH1, RelativeL2, TrainedOperator, train_operator

from ...training import Training
from .contestants import Contestant, contestant
from .peers import real_numbers

AXES = ("x", "y")
"""Darcy flow in a square may be reversed along both, and they may take each other's place: every network sees all eight
images of the samples."""

_PIECE = 50  # samples at a time


def measure_steps(order: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of a training step of several networks, in turns: the median over all steps of all rounds but the first.

    They are of the processor on the CPU, and of the clock beside a GPU; a step contains the reading of its batch.

    Args:
        order: "size", "device", "data" (a folder), "networks" (their names), "rounds" and "seconds" (of a round).

    Returns:
        "step_seconds" by name, and "missing", the library that a network lacks, by its name.
    """
    torch.set_num_threads(1 if order["device"] == "cpu" else torch.get_num_threads())
    data = open(order["data"])
    times: dict[str, list[float]] = {name: [] for name in order["networks"]}
    missing: dict[str, str] = {}
    for turn in range(order["rounds"] + 1):
        for name in order["networks"]:
            if name in missing:
                continue
            item = contestant(order["size"], name)
            try:
                network = item.make(data, turn)
            except ModuleNotFoundError as error:
                missing[name] = str(error.name)
                continue
            _, training = _train(item, network, data, order, seconds=order["seconds"] if turn else 1e-3)
            if turn:
                seconds = [*training.history["seconds"].tolist(), training.seconds]
                times[name] += [after - before for before, after in pairwise(seconds)]
    medians = {name: statistics.median(found) for name, found in times.items() if found}
    return {"step_seconds": medians, "missing": missing}


def train_one(order: Mapping[str, Any]) -> dict[str, Any]:
    """Train a network from the weights of a seed, and measure its errors on the test samples of two grids.

    Args:
        order: "size", "device", "data" and "fine" (folders), "network" (its name), "seed", and "steps" or "seconds";
            "precision" and "compile" where they are not the plan's.

    Returns:
        "seconds" (of the processor, or of the clock beside a GPU), "steps", "epochs", "parameters", "peak_bytes",
        "validation", "errors": by name.
    """
    torch.set_num_threads(1 if order["device"] == "cpu" else torch.get_num_threads())
    item = contestant(order["size"], order["network"])
    data = open(order["data"])
    network = item.make(data, order["seed"])
    clock = time.process_time if order["device"] == "cpu" else time.perf_counter
    begin = clock()
    operator, training = _train(item, network, data, order, steps=order.get("steps"), seconds=order.get("seconds"))
    seconds = clock() - begin
    errors = {"": errors_on_test(operator, data)}
    if order.get("fine"):
        errors[" fine"] = errors_on_test(operator, open(order["fine"]))
    return {
        "seconds": seconds,
        "training_seconds": training.seconds,
        "steps": training.steps,
        "epochs": training.epochs,
        "parameters": real_numbers(network),
        "peak_bytes": peak_bytes(order["device"]),
        "validation": {name: float(training.validations[name][-1]) for name in ("L2", "H1")},
        "errors": {name + where: value for where, found in errors.items() for name, value in found.items()},
    }


def _train(
    item: Contestant,
    network: nn.Module,
    data: Dataset,
    order: Mapping[str, Any],
    steps: int | None = None,
    seconds: float | None = None,
) -> tuple[TrainedOperator, Training]:
    device, seed = order["device"], order.get("seed", 0)
    plan = item.clocked(seconds or 1.0, seed, device) if steps is None else item.lasting(steps, seed)
    changed = {name: order[name] for name in ("precision", "compile") if name in order}
    loss = RelativeH1.on(data.grid)
    return train_operator(
        network,
        data,
        replace(plan, **changed),
        loss=loss,
        logarithm=item.logarithm,
        coordinates=item.coordinates,
        mirrored=AXES,
        exchanged=AXES,
        device=device,
    )


def errors_on_test(operator: TrainedOperator, data: Dataset) -> dict[str, float]:
    """Means over the test samples of the relative errors in L2 and in the true H1, on the grid of the data."""
    test, grid = data.split("test"), data.grid
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"L2": RelativeL2(), "H1": RelativeH1.on(grid)}
    found: dict[str, list[Tensor]] = {name: [] for name in measures}
    for start in range(0, len(test), _PIECE):
        rows = range(start, min(start + _PIECE, len(test)))
        a, u = test.read("a", list(rows)), test.read("u", list(rows))
        with torch.no_grad():
            answer = operator({"a": a}, grid)["u"]
        for name, measure in measures.items():
            found[name].append(measure(answer[:, None], u[:, None]))
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}


def peak_bytes(device: str) -> int:
    """The most memory that this process has held, or has held on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # What getrusage tells on Linux starts with the memory of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists() and (line := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return 1024 * int(line[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
