"""What each of two processes does: operators trained together, the answers left in FOLDER/RANK.json.

`folder` and `environment` are given.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sciml import Grid
from sciml.datasets import Field
from sciml.operators import MgNO, train_operator
from sciml.training import Adam, Plan, TensorSamples

os.environ.update(globals().get("environment", {}))


class Data:
    """A dataset whose solution is known: u = v/5."""

    name, digest, points, times, equation = "made", "1", "cells", None, None
    inputs, outputs = ("v",), ("u",)
    fields: Mapping[str, Field] = {"v": Field(), "u": Field()}
    parameters: Mapping[str, float] = {"f": 1.0}
    grid = Grid((8, 8))

    def __init__(self, *splits: str, count: int = 13) -> None:  # two ranks cannot divide 13 evenly
        self.splits, self.count = splits, count

    def split(self, name: str) -> Data:
        return self

    def samples(self, inputs: Any, outputs: Any, steps: Any) -> TensorSamples:
        v = 3 + 2 * torch.randn(self.count, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        return TensorSamples(input=v, output=0.2 * v)


def trained(folder: Path, *splits: str, strategy: str = "auto") -> dict[str, Any]:
    """Losses, the operator's answer, and whether this rank is the first."""
    torch.manual_seed(0)
    network = MgNO(in_channels=1, channels=4, layers=2, levels=[[1, 0], [1, 0]])
    plan = Plan(steps=8, batch_size=5, optimizer=Adam(3e-2), monitor="L2" if len(splits) > 1 else "loss")
    operator, training = train_operator(network, Data(*splits), plan, folder=folder, strategy=strategy)
    answer = operator({"v": torch.linspace(1.0, 5.0, 64).reshape(8, 8)})["u"]
    return {"loss": training.history["loss"].tolist(), "answer": answer.flatten().tolist(), "first": training.first}


def both(folder: Path) -> dict[str, Any]:
    """By strategy and splits."""
    return {
        f"{strategy} {splits}": trained(folder / f"{strategy}-{splits}", *splits.split(), strategy=strategy)
        for strategy in ("ddp", "fsdp")
        for splits in ("train valid", "train")
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    here, rank = Path(folder), os.environ["RANK"]  # type: ignore[name-defined]  # noqa: F821
    os.dup2(os.open(here / f"errors-{rank}", os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["two_ranks"]
    (here / f"{rank}.json").write_text(json.dumps(both(here)))
