"""Recipes of tasks: what they train, what they refuse, and what the command leaves and says."""

from __future__ import annotations

import gzip
import json
import re
import signal
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from sciml.command_line import app
from sciml.errors import InputError
from sciml.solvers.neural_de import ErrorEstimate
from sciml.solvers.neural_de.tasks import load_recipe, load_task, shipped_recipes
from sciml.solvers.neural_de.tasks.physionet import MEASURED
from sciml.solvers.neural_de.tasks.recipe import PROBLEMS, is_recipe
from sciml.training import SGD

TEXT = """
description = "small"
[task]
name = "digits-ode"
hidden = 6
tolerance = 1e-5
[regularizer]
name = "error"
weight = 20.0
last_weight = 2.0
[training]
epochs = 2
batch_size = 500
optimizer = { name = "SGD", rate = 0.1, momentum = 0.9 }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(old="", new="", name="mine.toml"):
    assert old in TEXT
    Path(name).write_text(TEXT.replace(old, new, 1) if old else TEXT)
    return name


def run(*arguments):
    return CliRunner().invoke(app, ["train", *arguments])


def write_mnist(folder: Path, pixels: int = 28) -> None:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for name, count in (("train", 30), ("t10k", 12)):
        images = torch.randint(256, (count, pixels, pixels), generator=generator, dtype=torch.uint8)
        labels = torch.arange(count, dtype=torch.uint8) % 10
        header = struct.pack(">HBBIII", 0, 8, 3, count, pixels, pixels)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.numpy().tobytes()))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">HBBI", 0, 8, 1, count) + labels.numpy().tobytes()
        )


def write_physionet(folder: Path) -> None:
    folder.mkdir()
    for patient in range(10):
        lines = ["Time,Parameter,Value", f"00:00,RecordID,{1000 + patient}", "00:00,Age,50"]
        lines += [f"{hour:02}:{2 * patient:02},HR,{60 + 3 * patient + hour}" for hour in range(0, 49, 6)]
        lines += [f"{10 + patient}:30,Temp,{36 + 0.1 * patient}", "50:00,HR,500"]
        (folder / f"{1000 + patient}.txt").write_text("\n".join(lines))


def test_shipped_recipes_say_what_they_are_and_can_be_read():
    assert set(shipped_recipes()) == set(PROBLEMS)
    for name, description in shipped_recipes().items():
        assert description and is_recipe(name)
        task = load_recipe(name)
        assert task.name == name and task.problem.name == name


def test_shipped_recipes_are_told_apart_from_others(folder):
    assert not is_recipe("multigrid-2d") and not is_recipe("mgno-darcy-64")
    listed = run("--list").stdout
    assert all(re.search(rf"^{name} ", listed, re.MULTILINE) for name in (*PROBLEMS, "multigrid-2d", "mgno-darcy-64"))


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_every_shipped_recipe_runs(name, folder, monkeypatch):
    """Two steps, of fewer samples where there are many."""
    write_mnist(folder / "mnist")
    write_physionet(folder / "set-a")
    small = {
        "latent-spirals": {"count": 30, "batch_size": 12},
        "gaussians": {"samples": 64, "batch_size": 32},
        "spiral-sde": {"observed": 100, "predicted": 20},
    }
    task = load_recipe(name).with_changes(steps=2, **small.get(name, {}))
    result = task.train(folder / name)
    assert result.training.steps == 2
    assert torch.isfinite(result.training.history["loss"]).all()
    assert all(value == value for value in result.metrics.values())
    kept = json.loads((folder / name / "result.json").read_text())
    assert kept["problem"] == name and kept["metrics"] == result.metrics
    first = result.task.data.test.batch(torch.arange(1))
    loaded, state = load_task(folder / name), result.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in loaded.model.state_dict().items())
    inputs = [tensor for key, tensor in first.items() if key in ("image", "initial", "point", "value", "mask")]
    inputs = inputs[:1] if name.startswith("spiral") else inputs
    with torch.no_grad():
        assert torch.equal(loaded.model(*inputs)[0], result.model(*inputs)[0])


def test_a_recipe_is_read(folder):
    task = load_recipe(write())
    assert (task.name, task.problem.hidden, task.problem.tolerance) == ("mine", 6, 1e-5)
    assert task.regularization.regularizer == ErrorEstimate("mean", rows="together"), (
        "the rest is as usual for the task"
    )
    assert (task.regularization.weight, task.regularization.last_weight) == (20.0, 2.0)
    assert task.plan.optimizer == SGD(0.1, 0.9)
    Path("plain.toml").write_text(re.sub(r"\[regularizer\].*\[training\]", "[training]", TEXT, flags=re.DOTALL))
    assert load_recipe("plain.toml").regularization.regularizer is None


def test_the_command_leaves_everything_and_says_what_it_came_to(folder):
    result = run(write())
    assert result.exit_code == 0, result.output
    names = {path.name for path in Path("mine").iterdir()}
    assert {"model.safetensors", "result.json", "evaluations.png", "curves.png", "log.jsonl", "checkpoints"} <= names
    kept = json.loads(Path("mine/result.json").read_text())
    assert f"accuracy     {100 * kept['metrics']['accuracy']:.2f} %" in result.stdout
    assert f"evaluations  {kept['evaluations']:.4g}" in result.stdout
    assert "mine, ErrorEstimate" in result.stdout and "falling to 2: 6 steps" in result.stdout
    assert 'use it by: sciml.solvers.neural_de.tasks.load_task("mine").model' in result.stdout
    assert Path("mine/evaluations.png").read_bytes()[:4] == b"\x89PNG"
    model = load_task("mine").model
    log = [json.loads(line) for line in Path("mine/log.jsonl").read_text().splitlines()]
    assert [line["evaluations"] for line in log if line["kind"] == "validation"] == kept["validations"]["evaluations"]
    assert model.ode.rate.layers[0].weight.shape == (6, 64)
    assert run("mine.toml", "--quiet", "--output", "other").stdout == ""


def test_the_command_is_interrupted_and_resumed_to_the_last_bit(folder, monkeypatch):
    problem = PROBLEMS["digits-ode"]
    outcome, calls = problem.outcome, []

    def interrupted(self, model, batch, step):
        calls.append(step)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return outcome(self, model, batch, step)

    begun = run(write(), "--output", "whole", "--resume")
    assert begun.exit_code == 0 and "nothing to resume in whole: beginning" in begun.stderr
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell in the background has ignored
    try:
        with monkeypatch.context() as patch:
            patch.setattr(problem, "outcome", interrupted)
            stopped = run("mine.toml", "--output", "parts")
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.exit_code == 130 and "--resume goes on from here" in stopped.stderr
    assert not Path("parts/result.json").exists()
    resumed = run("mine.toml", "--output", "parts", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "nothing to resume" not in resumed.stderr
    first, second = (safetensors.torch.load_file(Path(name, "model.safetensors")) for name in ("whole", "parts"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    both = [json.loads(Path(name, "result.json").read_text()) for name in ("whole", "parts")]
    assert both[0]["metrics"] == both[1]["metrics"] and both[0]["steps"] == both[1]["steps"] == 6
    write("hidden = 6", "hidden = 7")
    refused = run("mine.toml", "--output", "parts", "--resume")
    assert refused.exit_code == 2 and "settings.hidden 6 there, 7 here" in refused.stderr


def test_data_are_files_of_users(folder):
    write_mnist(folder / "here")
    Path("mine.toml").write_text(TEXT.replace('"digits-ode"', '"mnist-ode"\nfolder = "nowhere"'))
    refused = run("mine.toml")
    assert refused.exit_code == 2 and "nowhere is no folder: MNIST is read from one with" in refused.stderr
    assert not Path("mine").exists()
    assert run("mine.toml", "--data", "here", "--output", "a").exit_code == 0
    assert json.loads(Path("a/result.json").read_text())["settings"]["folder"] == "here"
    write_mnist(folder / "smaller", 20)
    refused = run("mine.toml", "--data", "smaller", "--output", "b")
    assert refused.exit_code == 2 and "images have 400 pixels, and the model is for 784" in refused.stderr
    refused = run(write(), "--data", "here")
    assert (
        refused.exit_code == 2 and "whose data are made, or come with a library: there is no --data" in refused.stderr
    )
    refused = run("mine.toml", "--skip-damaged")
    assert refused.exit_code == 2 and "there is no --skip-damaged" in refused.stderr


def test_later_measurements_are_left_out(folder):
    write_physionet(folder / "set-a")
    data = load_recipe("physionet").with_changes(folder="set-a").data
    assert len(data.training) == 8 and len(data.test) == 2
    assert data.training.tensors["value"].shape == (8, 49, 37)
    rate = torch.cat([part.tensors["value"] for part in data])[..., MEASURED.index("HR")]
    expected = [(3 * patient + hour) / 75 for patient in range(10) for hour in range(0, 49, 6)]
    assert sorted(rate[rate > 0].tolist()) == pytest.approx(sorted(expected)[1:]), "not by the 500 of hour 50"
    coarse = load_recipe("physionet").with_changes(folder="set-a", rounded=6.0).data.training.tensors
    assert coarse["value"].shape == (8, 9, 37) and coarse["mask"].sum() == 8 * (9 + 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden = 6", "hiden = 6", "mine.toml, [task]: unknown key 'hiden' of digits-ode; did you mean 'hidden'"),
        ("hidden = 6", "hidden = 0", "mine.toml, [task]: hidden must be at least 1, got 0"),
        ("hidden = 6", "hidden = 1.5", "mine.toml, [task]: hidden: Input should be a valid integer"),
        ("hidden = 6", "folder = 'x'", "unknown key 'folder' of digits-ode"),
        ("1e-5", "-1.0", "tolerance must be positive and finite, got -1.0"),
        ("hidden = 6", "adjoint = 'back'", "adjoint: Input should be 'recorded', 'checkpointed' or 'continuous'"),
        (
            "hidden = 6",
            "adjoint = 'continuous'",
            "whose gradient the continuous adjoint does not see: take LocalError()",
        ),
        ("hidden = 6", "backend = 'torchdiffeq'", "torchdiffeq does not give them: take LocalError()"),
        ('"digits-ode"', '"digit-ode"', "mine.toml, [task]: unknown name 'digit-ode'; did you mean 'digits-ode'"),
        ('name = "digits-ode"', "", "mine.toml, [task]: a name is needed: digits-ode, "),
        ("[task]", "[tasks]", "mine.toml: a table [task] is needed, and [tasks] is none"),
        ('"error"', '"eror"', "mine.toml: [regularizer] there is no regularizer 'eror'; did you mean 'error'"),
        ("last_weight", "final", "[regularizer] unknown key 'final' of the regularizer 'error'"),
        ("weight = 20.0", "weight = 0", "[regularizer] weight of a regularizer must be positive and finite, got 0"),
        ("[training]", "[training]\nsteps = 2", "exactly one of epochs, steps and seconds, got epochs and steps"),
        ("epochs = 2", "seconds = 2", "the weight of a regularizer follows the samples: give epochs or steps"),
        ("epochs = 2", "epochs = 2\ncompile = true", "compile: the model of a task is trained as it is"),
        ("epochs = 2", "epoch = 2", "mine.toml, [training]: unknown key 'epoch'; did you mean 'epochs'"),
        ("[training]", "[run]\ndevices = 2\n[training]", "[run] devices: a task is trained on one device"),
        ("[training]", "[loss]\nname = 'L2'\n[training]", "unknown key 'loss': each task has its own"),
        ("[training]", "[data]\nfolder = 'd'\n[training]", "unknown key 'data': each task has its own; [task] folder"),
        ("[training]", "[run]\ndevice = 'meta'\n[training]", "device meta cannot be used"),
    ],
)
def test_what_is_wrong_is_named(old, new, message, folder):
    result = run(write(old, new))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert not Path("mine").exists()


def test_names_that_are_no_recipes(folder):
    with pytest.raises(InputError, match="there is no file 'digits-odes', and no recipe of this name; did you mean"):
        load_recipe("digits-odes")
    refused = run("digits-odes")
    assert refused.exit_code == 2 and "did you mean 'digits-ode'" in refused.stderr
    Path("damaged").mkdir()
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        load_task("damaged")
