"""What the test processes do, each in a fork of one that has loaded the libraries.

`task`, `folder` and `environment` are given; a task leaves its results in FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciml import InputError
from sciml.training import (
    Adam,
    AdamW,
    Cosine,
    OneCycle,
    Plan,
    Samples,
    TensorSamples,
    Training,
    TrainingError,
    checkpoint,
    evaluate,
    train,
)

os.environ.update(globals().get("environment", {}))
RANK = int(os.environ.get("RANK", "0"))


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Linear(3, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    )


def samples(count: int, seed: int) -> TensorSamples:
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    return TensorSamples(x=x, y=torch.sin(3 * x.sum(1, keepdim=True)))


def convolutions() -> nn.Module:
    """With weights that are not contiguous."""
    torch.manual_seed(7)
    made = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 1))
    return made.to(memory_format=torch.channels_last)


def images() -> TensorSamples:
    x = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    return TensorSamples(x=x, y=x.cumsum(2))


class Noisy(Samples):
    """Samples that are made on the fly, from torch's global generator."""

    def __init__(self, count: int = 70) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        x = torch.rand(len(indices), 3) + 1e-3 * indices[:, None]
        return {"x": x, "y": torch.sin(3 * x.sum(1, keepdim=True))}


def loss(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
    return (module(batch["x"]) - batch["y"]).square().flatten(1).mean(1)


def metrics(module: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"largest": (module(batch["x"]) - batch["y"]).abs().amax(1)}


def outcome(training: Training, trained: nn.Module | None = None) -> dict[str, Any]:
    assert training.first == (RANK == 0)
    assert len(training.history["step"]) == training.steps  # on every rank
    return {
        "loss": training.history["loss"].tolist(),
        "gradient": training.history["gradient"].tolist(),
        "validation": training.validations.get("loss", torch.empty(0)).tolist(),
        "largest": training.validations.get("largest", torch.empty(0)).tolist(),
        "best": {name: value.tolist() for name, value in (training.best.weights if training.best else {}).items()},
        "weights": {name: value.tolist() for name, value in trained.state_dict().items()} if trained else {},
    }


def killed_anywhere(folder: Path) -> dict[str, Any]:
    """Everything that has a state: dropout, samples on the fly, float16's scaler, a best validation, a schedule."""
    plan = Plan(
        epochs=6,
        batch_size=16,
        optimizer=AdamW(1e-2),
        schedule=OneCycle(),
        precision="float16",
        accumulate=2,
        clip=1.0,
        seed=3,
    )
    trained = network(0.2)
    training = train(
        trained, loss, Noisy(), plan, folder=folder / "run", validation=samples(20, 2), metrics=metrics, resume=True,
        save_every=0.0, keep=2,
    )  # fmt: skip
    return outcome(training, trained)


def interrupted(folder: Path) -> dict[str, Any]:
    def slow(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        if not (folder / "begun").exists() and (folder / "run/log.jsonl").exists():
            (folder / "begun").touch()
        time.sleep(0.01)
        return loss(module, batch)

    plan = Plan(epochs=20, batch_size=16)
    training = train(network(), slow, samples(70, 1), plan, folder=folder / "run", resume=True)
    return outcome(training)


PLAN = Plan(epochs=4, batch_size=9, optimizer=Adam(1e-2), schedule=Cosine(), accumulate=2, clip=0.5)


def together(folder: Path) -> dict[str, Any]:
    """What two ranks do in turn: the same as one, sharded, resumed; and in the end one of them is killed."""
    results: dict[str, Any] = {}
    trained = network()
    common: dict[str, Any] = {"validation": samples(21, 2), "metrics": metrics}
    results["plain"] = outcome(train(trained, loss, samples(70, 1), PLAN, folder=folder / "plain", **common), trained)
    results["evaluated"] = evaluate(trained, metrics, samples(21, 2), batch_size=4).values["largest"].tolist()
    sharded = train(network(), loss, samples(70, 1), PLAN, folder=folder / "sharded", strategy="fsdp", **common)
    results["sharded"] = outcome(sharded)

    whole, first, second = network(0.2), network(0.2), network(0.2)
    results["whole"] = outcome(train(whole, loss, Noisy(), Plan(epochs=4, batch_size=9)), whole)
    train(first, loss, Noisy(), Plan(epochs=2, batch_size=9), folder=folder / "parts")
    parts = train(second, loss, Noisy(), Plan(epochs=4, batch_size=9), folder=folder / "parts", resume=True)
    results["parts"] = outcome(parts, second)

    pictures = images()
    for name, epochs in (("whole", (4,)), ("parts", (2, 4))):
        for end in epochs:
            plan = Plan(epochs=end, batch_size=9, optimizer=AdamW(1e-2), accumulate=2, clip=0.5)
            sharded = train(
                convolutions(), loss, pictures, plan, folder=folder / f"sharded-{name}", strategy="fsdp",
                validation=pictures, resume=True,
            )  # fmt: skip
        results[f"sharded-{name}"] = outcome(sharded)
    assert sharded.best is not None
    (folder / f"best-{RANK}.json").write_text(json.dumps(outcome(sharded)["best"]))
    assert {type(value) for value in sharded.best.weights.values()} == {Tensor}

    def refused(name: str, run: str, count: int = 70, resume: bool = True) -> None:
        try:
            train(network(), loss, Noisy(count), PLAN, folder=folder / run, resume=resume)
        except InputError as error:
            (folder / f"{name}-{RANK}.txt").write_text(str(error))

    # What the second machine sees of the folder: nothing yet, or a checkpoint of another training.
    for place in ("absent", "other"):
        (folder / place).mkdir(exist_ok=True)
    if RANK == 0:
        step = checkpoint.found(folder / "plain/checkpoints")[0].name
        shutil.copytree(folder / "plain/checkpoints" / step, folder / "other/checkpoints" / step)
        manifest = folder / "other/checkpoints" / step / "manifest.json"
        manifest.write_text(manifest.read_text() + " ")
    refused("absent", "plain" if RANK == 0 else "absent")
    refused("other", "plain" if RANK == 0 else "other")
    refused("samples", "plain", 70 - RANK)
    refused("none", "fresh", 70 * (1 - RANK))
    refused("twice", "plain", resume=False)

    def poisoned(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        values = loss(module, batch)
        return torch.where(batch["number"] == 41, torch.nan, values)

    numbered = TensorSamples(**samples(70, 1).tensors, number=torch.arange(70))
    try:
        train(network(), poisoned, numbered, PLAN, folder=folder / "poisoned")
    except TrainingError as error:
        results["poisoned"] = str(error)

    calls = 0

    def deadly(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 12 and RANK == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(module, batch)

    begun = time.monotonic()
    try:
        train(network(), deadly, samples(70, 1), PLAN, folder=folder / "deadly", save_every=0.0, timeout=30.0)
    except TrainingError as error:
        results["deadly"] = str(error)
        results["waited"] = time.monotonic() - begun
    return results


def run(task: str, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for descriptor, name in ((1, f"output-{RANK}"), (2, f"errors-{RANK}")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = [task]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell has it ignored in what it starts in the background
    tasks = {"killed_anywhere": killed_anywhere, "interrupted": interrupted, "together": together}
    (folder / f"{RANK}.json").write_text(json.dumps(tasks[task](folder)))


if __name__ == "__main__":
    run(task, Path(folder))  # type: ignore[name-defined]  # noqa: F821
