"""What each of two processes does: operators trained together, the answers left in FOLDER/RANK.json.

`folder`, with the datasets in it, and `environment` are given.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from sciml import Grid, datasets
from sciml.datasets import Dataset, Description, Field, Manifest, write_shard
from sciml.operators import MgNO, train_operator
from sciml.training import Adam, Plan

os.environ.update(globals().get("environment", {}))


def write(folder: Path, *splits: str, count: int = 13, factor: float = 0.2, **changes: Any) -> Dataset:
    """A dataset whose solution is known: u = v/5. Two ranks cannot divide 13 samples evenly."""
    fields = {"v": Field(), "u": Field()}
    given = {"name": "made", "grid": Grid((8, 8)), "fields": fields, "parameters": {"f": 1.0}, "inputs": ("v",)}
    described = Description(**{**given, "outputs": ("u",), **changes})
    entries = []
    for seed, split in enumerate(splits):
        v = 3 + 2 * torch.randn(count, 8, 8, generator=torch.Generator().manual_seed(seed))
        entries.append(write_shard(folder, split, 0, described, {"v": v, "u": factor * v}))
    Manifest("made", tuple(entries)).write(folder)
    return datasets.open(folder)


def trained(folder: Path, data: Dataset, strategy: str = "auto") -> dict[str, Any]:
    """Losses, the operator's answer, and whether this rank is the first."""
    torch.manual_seed(0)
    network = MgNO(in_channels=1, channels=4, layers=2, levels=[[1, 0], [1, 0]])
    plan = Plan(steps=8, batch_size=5, optimizer=Adam(3e-2), monitor="L2" if "valid" in data.splits else "loss")
    operator, training = train_operator(network, data, plan, folder=folder, strategy=strategy)
    answer = operator({"v": torch.linspace(1.0, 5.0, 64).reshape(8, 8)})["u"]
    return {"loss": training.history["loss"].tolist(), "answer": answer.flatten().tolist(), "first": training.first}


def both(folder: Path) -> dict[str, Any]:
    """By strategy and dataset."""
    return {
        f"{strategy} {name}": trained(folder / f"{strategy}-{name}", datasets.open(folder / name), strategy)
        for strategy in ("ddp", "fsdp")
        for name in ("validated", "unvalidated")
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    here, rank = Path(folder), os.environ["RANK"]  # type: ignore[name-defined]  # noqa: F821
    os.dup2(os.open(here / f"errors-{rank}", os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["two_ranks"]
    (here / f"{rank}.json").write_text(json.dumps(both(here)))
