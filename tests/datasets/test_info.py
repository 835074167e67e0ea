"""What `sciml data info` finds, and the two commands from the outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sciml import Dirichlet, Grid, InputError, Neumann, Periodic, datasets
from sciml.command_line import app
from sciml.datasets import Description, Field, Manifest, write_shard
from sciml.datasets.formats import options
from sciml.datasets.info import examine


def make(folder: Path, offset: float = 0.0) -> dict[str, torch.Tensor]:
    """A dataset of two shards with known values."""
    grid = Grid((16,), 0.0, 2.0, Periodic())
    fields = {"a": Field(unit="m"), "u": Field(time_varying=True)}
    description = Description("waves", grid, fields, torch.tensor([0.0, 1.0]), inputs=("a",), outputs=("u",))
    generator = torch.Generator().manual_seed(0)
    values = {
        "a": offset + torch.randn(8, 16, generator=generator),
        "u": torch.randn(8, 2, 16, generator=generator),
    }
    entries = (
        write_shard(folder, "train", 0, description, {name: item[:5] for name, item in values.items()}),
        write_shard(folder, "test", 0, description, {name: item[5:] for name, item in values.items()}),
    )
    Manifest("waves", entries, {"seed": 0}).write(folder)
    return values


@pytest.mark.parametrize("block", [64, 1 << 26])
def test_ranges_are_those_of_all_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Also where they are gone through a sample at a time, and where the mean is large against the deviation."""
    monkeypatch.setattr("sciml.datasets.dataset._BLOCK", block)
    values = make(tmp_path, offset=1000.0)
    facts = examine(datasets.open(tmp_path), tmp_path)
    for name, item in values.items():
        exact = item.double()
        found = facts["fields"][name]
        assert found["min"] == float(exact.min()) and found["max"] == float(exact.max())
        assert found["mean"] == pytest.approx(float(exact.mean()), rel=1e-12)
        assert found["std"] == pytest.approx(float(exact.std(correction=0)), rel=1e-10)
    assert facts["splits"] == {"train": 5, "test": 3} and facts["problems"] == []
    assert facts["grid"]["boundary"] == {"x": "periodic"} and facts["fields"]["a"]["unit"] == "m"


def test_samples_in_two_splits_are_found_in_files_of_others(tmp_path: Path) -> None:
    """A dataset of ours is refused when it is opened; of others it is told."""
    make(tmp_path / "once")
    for split in ("train", "test"):
        folder = tmp_path / f"other/data/{split}"
        folder.mkdir(parents=True)
        (folder / "a.hdf5").write_bytes((tmp_path / "once/data/train/shard-00000.hdf5").read_bytes())
    facts = examine(datasets.read(tmp_path / "other"), tmp_path)
    assert facts["duplicates_across_splits"] == 5
    assert "which is of another split" in facts["problems"][0]


def test_info_as_a_command(tmp_path: Path) -> None:
    make(tmp_path / "d")
    result = CliRunner().invoke(
        app,
        ["data", "info", str(tmp_path / "d"), "--json", str(tmp_path / "i.json"), "--picture", str(tmp_path / "p.png")],
    )
    assert result.exit_code == 0, result.output
    assert "8 (train 5, test 3) in 2 files" in result.output and "a [m]" in result.output
    facts = json.loads((tmp_path / "i.json").read_text())
    assert facts["fields"]["u"]["shape"] == [8, 2, 16] and facts["provenance"] == {"seed": 0}
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_info_of_a_damaged_dataset_names_the_file(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "data/test/shard-00000.hdf5"
    path.write_bytes(path.read_bytes()[:-1])
    result = CliRunner().invoke(app, ["data", "info", str(tmp_path), "--json", str(tmp_path / "i.json")])
    assert result.exit_code == 1
    facts = json.loads((tmp_path / "i.json").read_text())
    assert facts["samples"] == 5
    assert len(facts["problems"]) == 1 and "data/test/shard-00000.hdf5: " in facts["problems"][0]
    assert "cut short" in facts["problems"][0]


def test_info_finds_what_is_not_finite(tmp_path: Path) -> None:
    values = np.ones((4, 8), "f4")
    values[2, 3:5] = [np.nan, np.inf]
    values += np.arange(4, dtype="f4")[:, None]
    np.save(tmp_path / "u.npy", values)
    result = CliRunner().invoke(app, ["data", "info", str(tmp_path / "u.npy"), "--axes", "u=sample,x"])
    assert result.exit_code == 1 and "2 values of 'u' are NaN or infinite" in result.output


def test_import_as_a_command(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = {name: generator.random((10, 6, 5)) for name in ("k", "p")}
    np.savez(tmp_path / "d.npz", **values)
    reading = [
        *("--field", "a=k", "--field", "u=p", "--axes", "a=sample,x,y", "--axes", "u=sample,x,y"),
        *("--inputs", "a", "--outputs", "u", "--boundary", "x=periodic", "--boundary", "y_lower=dirichlet:2"),
        *("--boundary", "y_upper=neumann", "--lower", "0,0", "--upper", "3,1", "--name", "mine", "--points", "nodes"),
        *("--equation", "-div(a*grad(u)) = 1"),
    ]
    described = ["data", "info", str(tmp_path / "d.npz"), "--json", str(tmp_path / "d.json"), "--quiet", *reading]
    result = CliRunner().invoke(app, described)
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "d.json").read_text())
    assert facts["grid"]["points"] == "nodes" and facts["grid"]["upper"] == [3.0, 1.0] and facts["notes"] == []
    assert facts["grid"]["boundary"] == {"x": "periodic", "y": "Dirichlet(2), Neumann(0)"}
    assert facts["name"] == "mine" and facts["inputs"] == ["a"] and facts["outputs"] == ["u"]

    arguments = ["data", "import", str(tmp_path / "d.npz"), "--output", str(tmp_path / "out"), "--split", "6/0/4"]
    arguments += [*reading, "--double", "--quiet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    dataset = datasets.open(tmp_path / "out")
    np.testing.assert_array_equal(dataset.split("test").read("a"), values["k"][6:])
    assert dataset.name == "mine" and dataset.splits == ("train", "test") and dataset.domain.upper == (3.0, 1.0)
    assert dataset.domain.boundary == {"x": (Periodic(), Periodic()), "y": (Dirichlet(2.0), Neumann(0.0))}
    assert str(dataset.equation) == str(datasets.open(tmp_path / "out").equation) != "None"
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and "not an empty folder" in again.output


def test_splits_by_files_as_a_command(tmp_path: Path) -> None:
    parts = {name: np.random.default_rng(seed).random((4, 8)) for seed, name in enumerate(("train", "test"))}
    for name, values in parts.items():
        np.savez(tmp_path / f"{name}.npz", u=values)
    sources = [f"{name}={tmp_path / name}.npz" for name in parts]
    arguments = ["data", "import", *sources, "--output", str(tmp_path / "out"), "--axes", "u=sample,x", "--double"]
    result = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert result.exit_code == 0, result.output
    dataset = datasets.open(tmp_path / "out")
    for name, values in parts.items():
        np.testing.assert_array_equal(dataset.split(name).read("u"), values)


@pytest.mark.parametrize(
    ("read", "argument", "message"),
    [
        (options.read_split, "100-20", "numbers of samples are needed"),
        (options.read_split, "0/10", "numbers of samples are needed"),
        (options.read_boundary, ["perodic"], "did you mean 'periodic'"),
        (options.read_boundary, ["x_lower=neumann"], "nothing is said about x_upper"),
        (options.read_boundary, ["w=neumann"], "a side is x, y or z"),
        (options.read_boundary, ["dirichlet:one"], "'one' is no number"),
    ],
)
def test_words_that_mean_nothing_are_refused(read: Any, argument: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(argument)


def test_two_numbers_are_train_and_test() -> None:
    assert options.read_split("10/2") == {"train": 10, "test": 2}
    assert options.read_split("10/2/3") == {"train": 10, "valid": 2, "test": 3}
