"""The command `sciml train`: what it leaves behind, and what it says to mistakes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from sciml import Grid, operators
from sciml.command_line import app
from sciml.datasets import Description, Field, Manifest, write_shard

RECIPE = """
[data]
folder = "data"
[operator]
name = "UNet"
width = 4
levels = 2
[training]
steps = 3
batch_size = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset u = 2 v, a recipe, and nothing else."""
    description = Description(
        name="twice", grid=Grid((8, 8)), fields={"v": Field(), "u": Field()}, inputs=("v",), outputs=("u",)
    )
    entries = []
    for seed, (split, number) in enumerate((("train", 0), ("train", 1), ("valid", 0))):
        v = 1 + torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(seed))
        entries.append(write_shard(tmp_path / "data", split, number, description, {"v": v, "u": 2 * v}))
    Manifest("twice", tuple(entries)).write(tmp_path / "data")
    (tmp_path / "mine.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, old: str = "", new: str = "") -> Result:
    if old:
        assert old in RECIPE
        Path("mine.toml").write_text(RECIPE.replace(old, new))
    return CliRunner().invoke(app, ["train", "mine.toml", *arguments])


def test_the_operator_is_that_of_the_recipe(folder: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    operator = operators.load("mine")
    valid = 1 + torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(2))
    error = operators.RelativeL2()(operator({"v": valid})["u"][:, None], 2 * valid[:, None]).mean()
    told = re.search(r"^L2 +([\d.]+) %", result.stdout, re.MULTILINE)
    assert told is not None
    assert float(told[1]) == pytest.approx(100 * float(error), abs=1e-3)
    assert "all 3 steps are done" in result.stdout
    again = run("--resume", old="steps = 3", new="steps = 4")
    assert "all 4 steps are done" in again.stdout
    assert run("--quiet", "--output", "other").stdout == ""


def test_where_there_is_nothing_to_resume_it_says_so_and_begins(folder: Path) -> None:
    begun = run("--resume")
    assert begun.exit_code == 0 and begun.stderr.splitlines()[0] == "nothing to resume in mine: beginning"
    assert "nothing to resume" not in run("--resume", old="steps = 3", new="steps = 4").stderr
    assert run("--resume", "--quiet", "--output", "quiet").stderr == ""
    assert "nothing to resume" not in run("--output", "new").stderr


def test_only_the_first_of_several_processes_prints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = operators.train_operator

    def second(*given, **named):
        operator, training = train(*given, **named)
        return operator, dataclasses.replace(training, first=False)

    monkeypatch.setattr(operators, "train_operator", second)
    assert run().stdout == ""


def test_damaged_files_are_left_out_where_that_is_asked_for(folder: Path) -> None:
    path = folder / "data/data/train/shard-00001.hdf5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused = run()
    assert refused.exit_code == 2
    assert "shard-00001.hdf5 is damaged" in refused.stderr and "--skip-damaged" in refused.stderr
    skipped = run("--skip-damaged")
    assert skipped.exit_code == 0
    assert "left out: data/data/train/shard-00001.hdf5 is damaged" in skipped.stderr
    low, high = operators.load("mine").inputs[0].lowest[0], operators.load("mine").inputs[0].highest[0]
    first = 1 + torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (low, high) == (first.min().item(), first.max().item())


def test_a_training_that_diverges_says_so_in_lines(folder: Path) -> None:
    result = run(old="batch_size = 5", new="batch_size = 12\noptimizer = { name = 'Adam', rate = 1e30 }")
    assert result.exit_code == 1
    assert "sciml: note: validation after step 1: loss is not finite" in result.stderr
    assert "sciml: the loss of step 2" in result.stderr and "lower the rate" in result.stderr
    assert "Warning" not in result.output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[training]", "[trainin]", "unknown key 'trainin'; did you mean 'training'"),
        ('"data"', '"nowhere"', "nowhere does not exist"),
        ('"data"', '"darcy-64"', "make it by: sciml data generate darcy-64 --output darcy-64"),
        ('"data"', '"data"\ninputs = ["w"]', "no field or parameter 'w'"),
        ('"data"', '"data"\nsteps = 2', "steps counts times between input and output of one field; none is both here"),
        ('"data"', '"data"\nmirrored = ["z"]', "the grid has the axes x, y, and none called 'z'"),
        ("width = 4", "width = 0", "[operator] UNet: width is 0"),
        ("width = 4", "width = nan", "[operator] width: input should be a valid integer, not nan"),
        ("width = 4", "width = 4\nlogarithm = [true, false]", "logarithm 2"),
        (
            '"UNet"\nwidth = 4\nlevels = 2',
            '"FNO"\nwidth = 4\nmodes = [4]',
            "dataset 'twice' has inputs v of shape (1, 8, 8), and outputs u of shape (1, 8, 8); FNO: takes fields of "
            "shape (batch, 1 channels, x), got (1, 1, 8, 8)",
        ),
        ("steps = 3", "steps = 3\nmonitor = 'l2'", "monitors 'l2'; an operator is validated by loss, L2, H1"),
        ("steps = 3", "steps = 3\nepochs = 1", "exactly one of epochs, steps and seconds, got epochs and steps"),
        ("steps = 3", "steps = 3\noptimizer = 'LBFGS'", "[training] optimizer: unknown name 'LBFGS'; known: Adam"),
        ("[training]", "[run]\ndevice = 'meta'\n[training]", "device meta cannot be used"),
        ("[training]", "[loss]\nname = 'L2'\n[training]", "[loss] name: input should be 'RelativeL2'"),
    ],
)
def test_a_mistake_is_named_in_a_line(old: str, new: str, message: str, folder: Path) -> None:
    result = run(old=old, new=new)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert not (folder / "mine").exists()
