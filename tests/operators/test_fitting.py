"""Operators trained on a dataset: what they learn, what is stored of them, resumed, and refused."""

from __future__ import annotations

import json
import math
import multiprocessing
import runpy
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml import Grid, InputError, datasets
from sciml.datasets import Dataset, Description, Field, Manifest, write_shard
from sciml.datasets.samples import DatasetSamples
from sciml.operators import LegacyH1, MgNO, RelativeL2, TrainedOperator, load, train_operator
from sciml.training import Adam, Cosine, Plan, TrainingError

TWO_RANKS = str(Path(__file__).with_name("two_ranks.py"))
SETTINGS = {"channels": 4, "layers": 2, "levels": [[1, 0], [1, 0], [1, 0]]}


HERE = runpy.run_path(TWO_RANKS)
write = HERE["write"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """u = v/5"""
    return write(tmp_path_factory.mktemp("data"), "train", "valid", count=12)


def test_training_finds_a_linear_operator(data: Dataset, tmp_path: Path):
    torch.manual_seed(0)
    network = MgNO(in_channels=1, channels=6, layers=1, levels=[[1, 0], [1, 0]])
    plan = Plan(steps=100, batch_size=12, optimizer=Adam(3e-2), schedule=Cosine())
    operator, training = train_operator(network, data, plan, folder=tmp_path)
    assert float(training.validations["L2"][-1]) < 0.05
    v = torch.full((8, 8), 3.0)
    with torch.no_grad():
        torch.testing.assert_close(operator({"v": v})["u"], 0.2 * v, rtol=0.2, atol=0)
        assert torch.equal(load(tmp_path)({"v": v})["u"], operator({"v": v})["u"])
    v = data.split("train").read("v")
    assert operator.inputs[0].lowest == (float(v.min()),)
    assert operator.inputs[0].highest == (float(v.max()),)
    assert operator.parameters == {"f": 1.0}


def test_a_training_that_is_resumed_ends_with_the_same_bits(data: Dataset, tmp_path: Path):
    """Kernels lie in another order in memory than their axes; what a checkpoint restores must do so too."""

    def run(steps: int, folder: Path, resume: bool = False) -> TrainedOperator:
        torch.manual_seed(0)
        plan = Plan(steps=steps, batch_size=4, optimizer=Adam(1e-2))
        return train_operator(MgNO(in_channels=1, **SETTINGS), data, plan, folder=folder, resume=resume)[0]

    whole = run(9, tmp_path / "whole")
    run(5, tmp_path / "parts")
    resumed = run(9, tmp_path / "parts", resume=True)
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], weights), name


def test_what_would_fail_after_a_training_fails_before(data: Dataset, tmp_path: Path):
    times, fields = torch.tensor([0.0, 1.0, 3.0]), {"u": Field(time_varying=True)}
    uneven = Description(name="uneven", grid=Grid((8, 8)), fields=fields, times=times, inputs=("u",), outputs=("u",))
    entry = write_shard(tmp_path, "train", 0, uneven, {"u": torch.rand(2, 3, 8, 8)})
    Manifest("uneven", (entry,)).write(tmp_path)
    network = MgNO(in_channels=1, **SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not equally spaced"):
        train_operator(network, datasets.open(tmp_path), Plan(steps=1), folder=tmp_path / "run")
    with pytest.raises(InputError, match="only DeepONet, FNO, MgNO, UNet can be stored, not Conv2d"):
        train_operator(torch.nn.Conv2d(1, 1, 1), data, Plan(steps=1), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_leaves_its_best_operator(data: Dataset, tmp_path: Path):
    calls = []

    def loss(prediction: Tensor, truth: Tensor) -> Tensor:
        calls.append(len(truth))
        values = (prediction - truth).square().mean((1, 2, 3))
        return values if len(calls) <= 4 else values * math.nan  # a step and its validation twice, then

    network = MgNO(in_channels=1, **SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="not finite") as failed:
        train_operator(network, data, Plan(steps=9, batch_size=12), loss=loss, folder=tmp_path)
    best = failed.value.training.best
    assert best is not None
    for name, weights in load(tmp_path).network.state_dict().items():
        assert torch.equal(weights, best.weights[name]), name


def test_the_stored_validation_is_that_of_the_stored_weights(data: Dataset, tmp_path: Path):
    torch.manual_seed(0)
    network = MgNO(in_channels=1, **SETTINGS)  # type: ignore[arg-type]
    plan = Plan(steps=12, batch_size=12, optimizer=Adam(0.3), monitor="L2")  # far too large a rate: up and down
    operator, training = train_operator(network, data, plan, folder=tmp_path)
    best = int(training.validations["L2"].argmin())
    assert best < len(training.validations["L2"]) - 1
    batch = data.split("valid").samples().batch(torch.arange(12))
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
def test_a_dataset_that_does_not_fit_is_refused(settings, message, data: Dataset):
    with pytest.raises(InputError, match=message):
        train_operator(MgNO(channels=4, **settings), data, Plan(steps=1))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each batch had."""
    found: list[int] = []
    batch = DatasetSamples.batch
    monkeypatch.setattr(DatasetSamples, "batch", lambda self, rows: (found.append(len(rows)), batch(self, rows))[1])
    return found


def test_what_a_resumed_training_is_about_stays(data: Dataset, sizes: list[int], tmp_path: Path):
    """Loss, data, inputs, settings that leave all shapes as they are: what differs is named. The pass over all samples
    that finds their means is not made again."""

    def run(steps: int, data: Dataset, **changes: Any) -> TrainedOperator:
        network = MgNO(in_channels=1, **{**SETTINGS, **changes.pop("settings", {})})
        plan = Plan(steps=steps, batch_size=5)
        return train_operator(network, data, plan, folder=tmp_path / "run", resume=True, **changes)[0]

    first = run(2, data)
    assert sizes.count(12) == 1
    sizes.clear()
    longer = run(3, data)
    assert sizes and 12 not in sizes
    assert longer.inputs == first.inputs
    assert longer.network.settings == first.network.settings
    other = write(tmp_path / "other", "train", "valid", count=12, factor=0.3)
    for given, changes, message in (
        (data, {"loss": LegacyH1()}, r"loss 'RelativeL2\(\)' there, 'LegacyH1\(\)' here"),
        (other, {}, r"data\.train '\w+' there, '\w+' here"),
        (data, {"mirrored": ("x",)}, r"data\.mirrored \[\] there, \['x'\] here"),
        (data, {"logarithm": True}, r"normalization\.logarithm \[False\] there, \[True\] here"),
        (data, {"settings": {"restriction": "residual"}}, "operator.restriction 'right_side' there, 'residual' here"),
        (data, {"settings": {"padding": "even"}}, r"operator\.padding 'zeros' there, 'even' here"),
    ):
        with pytest.raises(InputError, match=message):
            run(4, given, **changes)


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A vector field and a temperature of 300 K, both turned and cooled by the same each half unit of time."""
    folder = tmp_path_factory.mktemp("turning")
    grid = Grid((6, 5))
    fields = {"v": Field(time_varying=True, components=(2,)), "T": Field(time_varying=True)}
    times = torch.tensor([1.0, 1.5, 2.0, 2.5])
    description = Description(name="turning", grid=grid, fields=fields, times=times, inputs=("v",), outputs=("v",))
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(8, 2, 6, 5, generator=generator)
    v = torch.stack([turned(first, 0.3 * n) for n in range(4)], 1)
    temperature = torch.stack([300 * 0.5**n + 0.01 * first[:, 0] for n in range(4)], 1)
    rates = {"nu": torch.linspace(0.1, 0.8, 8, dtype=torch.float64)}
    entry = write_shard(folder, "train", 0, description, {"v": v, "T": temperature}, rates)
    Manifest("turning", (entry,), {}).write(folder)
    return datasets.open(folder)


def turned(v: Tensor, angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack((c * v[:, 0] - s * v[:, 1], s * v[:, 0] + c * v[:, 1]), 1)


def test_an_evolving_vector_field_is_learned(turning: Dataset):
    """Each component is a channel, a number one more; two steps ahead in time make one unit."""
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 2, 1)
    plan = Plan(steps=300, batch_size=16, optimizer=Adam(3e-2), schedule=Cosine())
    operator, _ = train_operator(network, turning, plan, inputs=("v", "nu"), outputs=("v",), steps=2)
    assert operator.interval == pytest.approx(1.0)
    assert [(channel.name, channel.components) for channel in operator.inputs] == [("v", (2,)), ("nu", ())]
    v = 0.3 * torch.randn(3, 2, 6, 5, generator=torch.Generator().manual_seed(1))
    answer = operator({"v": v, "nu": torch.tensor([0.2, 0.3, 0.5])})["v"]
    torch.testing.assert_close(answer, turned(v, 0.6), rtol=1e-3, atol=1e-3)


def test_the_interval_without_an_evolving_input_is_the_whole_time(turning: Dataset):
    network = torch.nn.Conv2d(1, 2, 1)
    operator, _ = train_operator(network, turning, Plan(steps=1), inputs=("nu",), outputs=("v",))
    assert operator.interval == pytest.approx(1.5)


def test_outputs_of_different_sizes_are_measured_one_by_one(turning: Dataset):
    """As one field the error of the velocity would be hidden behind 300 K."""
    network = torch.nn.Conv2d(3, 3, 1)
    torch.nn.init.zeros_(network.weight)
    torch.nn.init.zeros_(network.bias)
    plan = Plan(steps=1, batch_size=24, optimizer=Adam(1e-3))
    operator, training = train_operator(network, turning, plan, inputs=("v", "T"), outputs=("v", "T"))
    samples = turning.split("train").samples(("v", "T"), ("v", "T"), 1)
    truth = samples.batch(torch.arange(24))["output"]
    mean = truth.mean((0, 2, 3), keepdim=True).expand_as(truth)  # what a network of zeros answers
    expected = (RelativeL2()(mean[:, :2], truth[:, :2]) + RelativeL2()(mean[:, 2:], truth[:, 2:])).mean() / 2
    assert float(training.history["loss"][0]) == pytest.approx(float(expected), rel=1e-4)
    assert "MeanOverFields" in operator.origin["loss"]


def test_all_samples_are_read_in_pieces_of_bounded_size(
    data: Dataset, sizes: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sciml.operators.fitting._PIECE", 5 * 2 * 64 * 4 + 1)  # five samples of 8x8 in and out
    operator, _ = train_operator(torch.nn.Conv2d(1, 1, 1), data, Plan(steps=1, batch_size=1))
    assert sizes[:5] == [1, 1, 5, 5, 2]
    v = data.split("train").read("v")
    assert operator.network.input_mean.item() == pytest.approx(v.mean().item())
    assert operator.network.input_std.item() == pytest.approx(v.std(correction=0).item())
    assert operator.inputs[0].lowest == (v.min().item(),)


def test_a_symmetry_is_one_of_the_fixed_fields_too(tmp_path: Path):
    """A coefficient that is no input does not turn with the samples; as an input it does."""
    fields = {"v": Field(), "u": Field(), "f": Field(sample_varying=False)}
    description = Description(name="f", grid=Grid((8, 8)), fields=fields, inputs=("v",), outputs=("u",))
    v, f = torch.rand(4, 8, 8), torch.arange(8.0)[:, None].expand(8, 8)
    Manifest("f", (write_shard(tmp_path, "train", 0, description, {"v": v, "u": v, "f": f}),)).write(tmp_path)
    data, plan = datasets.open(tmp_path), Plan(steps=1)
    with pytest.raises(InputError, match="the field 'f'"):
        train_operator(torch.nn.Conv2d(1, 1, 1), data, plan, mirrored=("x",))
    train_operator(torch.nn.Conv2d(1, 1, 1), data, plan, mirrored=("y",))
    train_operator(torch.nn.Conv2d(2, 1, 1), data, plan, mirrored=("x",), inputs=("v", "f"))


def test_what_is_monitored_and_added_is_looked_at_before_anything_is_read(data: Dataset, turning: Dataset):
    with pytest.raises(InputError, match="the plan monitors 'l2'; an operator is validated by loss, L2, H1"):
        train_operator(MgNO(in_channels=1, **SETTINGS), data, Plan(steps=1, monitor="l2"))
    network = MgNO(in_channels=3, out_channels=2, residual_output=True, **SETTINGS)
    with pytest.raises(InputError, match="residual_output adds the first inputs, nu, v, to the outputs, v, v: name v"):
        train_operator(network, turning, Plan(steps=1), inputs=("nu", "v"), outputs=("v",))
    train_operator(network, turning, Plan(steps=1), inputs=("v", "nu"), outputs=("v",))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks have left."""
    folder = tmp_path_factory.mktemp("pair")
    write(folder / "validated", "train", "valid")
    write(folder / "unvalidated", "train")
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


@pytest.fixture(scope="module")
def alone(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    return {name: HERE["trained"](folder / name, datasets.open(pair / name)) for name in ("validated", "unvalidated")}


@pytest.mark.parametrize("name", ["validated", "unvalidated"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_the_operator_of_one(strategy: str, name: str, pair: Path, alone: dict[str, Any]):
    """Whether the best weights are told or the last ones, and whether each rank holds all of them or a part."""
    files = [pair / f"{rank}.json" for rank in (0, 1)]
    assert all(file.exists() for file in files), (pair / "errors-0").read_text()
    ranks = [json.loads(file.read_text())[f"{strategy} {name}"] for file in files]
    for found in ranks:
        assert found["loss"] == pytest.approx(alone[name]["loss"], rel=1e-5)
        assert found["answer"] == pytest.approx(alone[name]["answer"], rel=1e-4)
    assert ranks[0]["answer"] == ranks[1]["answer"]
    assert [found["first"] for found in ranks] == [True, False]
    v = torch.linspace(1.0, 5.0, 64).reshape(8, 8)
    stored = load(pair / f"{strategy}-{name}")
    assert stored({"v": v})["u"].flatten().tolist() == ranks[0]["answer"]
