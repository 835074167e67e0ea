"""Operators trained on a dataset: what they learn, what is stored of them, resumed, and refused."""

from __future__ import annotations

import json
import math
import multiprocessing
import runpy
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sciml import Grid, InputError
from sciml.operators import MgNO, RelativeL2, TrainedOperator, load, train_operator
from sciml.training import Adam, Plan, TensorSamples, TrainingError

TWO_RANKS = str(Path(__file__).with_name("two_ranks.py"))
SETTINGS = {"channels": 4, "layers": 2, "levels": [[1, 0], [1, 0], [1, 0]]}


class Made:
    """A dataset whose solution is known: u = v, in three samples of many points."""

    name, digest, times, equation, inputs, outputs = "made", "1", None, None, ("v",), ("u",)
    splits, points = ("train", "valid"), "cells"
    parameters: dict[str, float] = {"f": 1.0}  # noqa: RUF012
    grid = Grid((8, 8))

    class _Kind:
        components, sample_varying, time_varying = (), True, False

    fields = {"v": _Kind, "u": _Kind}  # noqa: RUF012

    def split(self, name: str) -> Made:
        return self

    def samples(self, inputs, outputs, steps):
        v = 3 + 2 * torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        return TensorSamples(input=v, output=0.2 * v)


def test_training_finds_a_linear_operator(tmp_path: Path):
    torch.manual_seed(0)
    network = MgNO(in_channels=1, channels=6, layers=1, levels=[[1, 0], [1, 0]])
    plan = Plan(steps=400, batch_size=12, optimizer=Adam(1e-2))
    operator, training = train_operator(network, Made(), plan, folder=tmp_path)
    assert float(training.validations["L2"][-1]) < 0.05
    v = torch.full((8, 8), 3.0)
    with torch.no_grad():
        torch.testing.assert_close(operator({"v": v})["u"], 0.2 * v, rtol=0.2, atol=0)
        assert torch.equal(load(tmp_path)({"v": v})["u"], operator({"v": v})["u"])
    made = Made().samples(None, None, None).batch(torch.arange(12))["input"]
    assert operator.inputs[0].lowest == (float(made.min()),)
    assert operator.inputs[0].highest == (float(made.max()),)
    assert operator.parameters == {"f": 1.0}


def test_a_training_that_is_resumed_ends_with_the_same_bits(tmp_path: Path):
    """Kernels lie in another order in memory than their axes; what a checkpoint restores must do so too."""

    def run(steps: int, folder: Path, resume: bool = False) -> TrainedOperator:
        torch.manual_seed(0)
        plan = Plan(steps=steps, batch_size=4, optimizer=Adam(1e-2))
        return train_operator(MgNO(in_channels=1, **SETTINGS), Made(), plan, folder=folder, resume=resume)[0]

    whole = run(9, tmp_path / "whole")
    run(5, tmp_path / "parts")
    resumed = run(9, tmp_path / "parts", resume=True)
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], weights), name


def test_what_would_fail_after_a_training_fails_before(tmp_path: Path):
    class Uneven(Made):
        times = torch.tensor([0.0, 1.0, 3.0])
        inputs = outputs = ("u",)

    network = MgNO(in_channels=1, **SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not equally spaced"):
        train_operator(network, Uneven(), Plan(steps=1), folder=tmp_path / "run")
    with pytest.raises(InputError, match="only DeepONet, FNO, MgNO, UNet can be stored, not Conv2d"):
        train_operator(torch.nn.Conv2d(1, 1, 1), Made(), Plan(steps=1), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_leaves_its_best_operator(tmp_path: Path):
    calls = []

    def loss(prediction: Tensor, truth: Tensor) -> Tensor:
        calls.append(len(truth))
        values = (prediction - truth).square().mean((1, 2, 3))
        return values if len(calls) <= 4 else values * math.nan  # a step and its validation twice, then

    network = MgNO(in_channels=1, **SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="not finite") as failed:
        train_operator(network, Made(), Plan(steps=9, batch_size=12), loss=loss, folder=tmp_path)
    best = failed.value.training.best
    assert best is not None
    for name, weights in load(tmp_path).network.state_dict().items():
        assert torch.equal(weights, best.weights[name]), name


def test_the_stored_validation_is_that_of_the_stored_weights(tmp_path: Path):
    torch.manual_seed(0)
    network = MgNO(in_channels=1, **SETTINGS)  # type: ignore[arg-type]
    plan = Plan(steps=12, batch_size=12, optimizer=Adam(0.3), monitor="L2")  # far too large a rate: up and down
    operator, training = train_operator(network, Made(), plan, folder=tmp_path)
    best = int(training.validations["L2"].argmin())
    assert best < len(training.validations["L2"]) - 1
    batch = Made().samples(None, None, None).batch(torch.arange(12))
    with torch.no_grad():
        measured = RelativeL2()(load(tmp_path).network(batch["input"]), batch["output"]).mean()
    assert operator.origin["validation"]["L2"] == pytest.approx(float(measured), rel=1e-5)
    assert operator.origin["validation"]["step"] == best + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": 2}, "in_channels of MgNO is 2, but there are 1"),
        ({"in_channels": 1, "dimension": 1}, r"dataset 'made' has inputs v of shape \(1, 8, 8\).*MgNO: takes fields"),
        ({"in_channels": 1, "out_channels": 2}, "out_channels of MgNO is 2, but there are 1"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        train_operator(MgNO(channels=4, **settings), Made(), Plan(steps=1))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks have left."""
    folder = tmp_path_factory.mktemp("pair")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sciml.training.train", "sciml.operators.fitting"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    processes = []
    for rank in ("0", "1"):
        given = {"folder": str(folder), "environment": {**common, "RANK": rank, "LOCAL_RANK": rank}}
        processes.append(context.Process(target=runpy.run_path, args=(TWO_RANKS, given, "__main__")))
        processes[-1].start()
    for process in processes:
        process.join(60)
        process.kill()
    return folder


@pytest.mark.parametrize("splits", ["train valid", "train"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_the_operator_of_one(strategy: str, splits: str, pair: Path, tmp_path: Path):
    """Whether the best weights are told or the last ones, and whether each rank holds all of them or a part."""
    files = [pair / f"{rank}.json" for rank in (0, 1)]
    assert all(file.exists() for file in files), (pair / "errors-0").read_text() + (pair / "errors-1").read_text()
    ranks = [json.loads(file.read_text())[f"{strategy} {splits}"] for file in files]
    alone = runpy.run_path(TWO_RANKS)["trained"](tmp_path / "alone", *splits.split())
    for found in ranks:
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert found["answer"] == pytest.approx(alone["answer"], rel=1e-4)
    assert ranks[0]["answer"] == ranks[1]["answer"]
    assert [found["first"] for found in ranks] == [True, False]
    v = torch.linspace(1.0, 5.0, 64).reshape(8, 8)
    stored = load(pair / f"{strategy}-{splits}")
    assert stored({"v": v})["u"].flatten().tolist() == ranks[0]["answer"]
