"""The Well: its files are read, and its own reader opens ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from sciml import Dirichlet, Grid, InputError, Neumann, Periodic, datasets
from sciml.datasets import Description, Field, Manifest, Reading, import_dataset, write_shard

SAMPLES, TIMES, X, Y = 3, 4, 8, 6


def write_well(path: Path, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """A file as docs/data_format.md of The Well describes it, written with h5py alone."""
    generator = np.random.default_rng(seed)
    values = {
        "density": generator.random((SAMPLES, TIMES, X, Y), np.float32),
        "profile": generator.random(X, np.float32),
        "velocity": generator.random((SAMPLES, TIMES, X, Y, 2), np.float32),
        "stress": generator.random((SAMPLES, TIMES, X, Y, 2, 2), np.float32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="flow", grid_type="cartesian", n_spatial_dims=2, n_trajectories=SAMPLES)
        file.attrs["simulation_parameters"] = ["mach"]
        file.attrs["mach"] = 0.3
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        dimensions["time"] = np.linspace(0.0, 1.5, TIMES, dtype=np.float32)
        dimensions["x"] = (np.arange(X, dtype=np.float32) + 0.5) / X
        dimensions["y"] = np.linspace(0.0, 2.5, Y, dtype=np.float32)
        for name in ("time", "x", "y"):
            dimensions[name].attrs["sample_varying"] = False
        boundary = file.create_group("boundary_conditions")
        for name, kind, axis, mask in (
            ("x_all", "PERIODIC", "x", [True] + [False] * (X - 2) + [True]),
            ("y_low", "wall", "y", [True] + [False] * (Y - 1)),
            ("y_high", "OPEN", "y", [False] * (Y - 1) + [True]),
        ):
            entry = boundary.create_group(name)
            entry.attrs.update(bc_type=kind, sample_varying=False, time_varying=False)
            entry.attrs["associated_dims"] = [axis]
            entry.attrs["associated_fields"] = ["density"] if name == "y_low" else np.array([], h5py.string_dtype())
            entry["mask"] = np.array(mask)
            if name == "y_low":
                entry["values"] = np.array([0.75], np.float32)
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["mach", "rate", "clock"]
        for name, data, sample, time in (
            ("mach", np.array(0.3), False, False),
            ("rate", np.arange(SAMPLES) + 1.0, True, False),
            ("clock", np.arange(TIMES) + 0.0, False, True),
        ):
            scalars[name] = data
            scalars[name].attrs.update(sample_varying=sample, time_varying=time)
        for order, names in enumerate((["density", "profile"], ["velocity"], ["stress"])):
            group = file.create_group(f"t{order}_fields")
            group.attrs["field_names"] = names
            for name in names:
                group[name] = values[name]
                whole = name != "profile"
                group[name].attrs.update(sample_varying=whole, time_varying=whole, dim_varying=[True, whole])
    return values


def test_a_file_of_the_well_is_read(tmp_path: Path) -> None:
    values = write_well(tmp_path / "flow.hdf5")
    dataset = datasets.read(tmp_path / "flow.hdf5")
    assert dataset.name == "flow" and dataset.grid.shape == (X, Y)
    np.testing.assert_array_equal(dataset.read("density", [2, 0]), values["density"][[2, 0]])
    np.testing.assert_array_equal(dataset.read("velocity")[:, :, 1], values["velocity"][..., 1])
    np.testing.assert_array_equal(dataset.read("stress", [1], [3])[:, 1, 0], values["stress"][[1], 3, ..., 1, 0])
    assert dataset.fields["profile"] == Field(sample_varying=False)
    np.testing.assert_array_equal(dataset.read("profile", [0])[0], np.repeat(values["profile"][:, None], Y, 1))
    assert dataset.parameters["mach"] == 0.3
    assert torch.as_tensor(dataset.parameters["rate"]).tolist() == [1.0, 2.0, 3.0]
    sides = dataset.grid.boundary
    assert sides["x"] == (Periodic(), Periodic()) and sides["y"] == (Dirichlet(0.75), Neumann(0.0))
    assert any("'OPEN' at the upper end of axis y" in note for note in dataset.notes)
    assert any("'clock'" in note for note in dataset.notes)
    x, y = dataset.grid.coordinates
    np.testing.assert_allclose(x[:, 0], (np.arange(X) + 0.5) / X, rtol=1e-6)
    np.testing.assert_allclose(y[0], np.linspace(0.0, 2.5, Y), rtol=1e-6, atol=1e-6)


def test_a_folder_of_the_well_keeps_its_splits(tmp_path: Path) -> None:
    values = {}
    for seed, name in enumerate(("train/a", "train/b", "valid/a", "test/a")):
        values[name] = write_well(tmp_path / f"flow/data/{name}.hdf5", seed)["density"]
    source = datasets.read(tmp_path / "flow", Reading(inputs=("density",), outputs=("density",)))
    import_dataset(source, tmp_path / "ours")
    dataset = datasets.open(tmp_path / "ours")
    assert dataset.splits == ("train", "valid", "test")
    expected = np.concatenate([values["train/a"], values["train/b"]])
    np.testing.assert_array_equal(dataset.split("train").read("density"), expected)
    np.testing.assert_array_equal(dataset.split("test").read("density"), values["test/a"])
    assert torch.as_tensor(dataset.parameters["rate"]).tolist() == [1.0, 2.0, 3.0] * 4
    assert dataset.grid.boundary["y"][0] == Dirichlet(0.75)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.__delitem__("scalars"), "no group 'scalars'"),
        (lambda f: f.attrs.update(grid_type="spherical"), "its grid is spherical"),
        (
            lambda f: f.attrs.update(n_trajectories=9),
            r"field 'density' has shape \(3, 4, 8, 6\).*expected \(9, 4, 8, 6\)",
        ),
        (lambda f: f["t1_fields/velocity"].attrs.update(time_varying=False), "'t1_fields/velocity' has shape"),
        (lambda f: f["t0_fields/density"].attrs.__delitem__("sample_varying"), "layout of The Well.*sample_varying"),
        (lambda f: f["dimensions/x"].write_direct(np.geomspace(1, 2, X).astype("f4")), "along x must be uniform"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, damage: Callable[[h5py.File], object], message: str
) -> None:
    write_well(tmp_path / "flow.hdf5")
    with h5py.File(tmp_path / "flow.hdf5", "a") as file:
        damage(file)
    with pytest.raises(InputError, match=message):
        datasets.read(tmp_path / "flow.hdf5")


def test_its_own_reader_opens_ours(tmp_path: Path) -> None:
    well = pytest.importorskip("the_well.data.datasets")
    grid = Grid((X, Y), boundary={"x": Periodic(), "y": (Dirichlet(1.5), Neumann(0.0))})
    fields = {"a": Field(), "u": Field(time_varying=True), "v": Field(time_varying=True, components=(2,))}
    description = Description("ours", grid, fields, torch.arange(3.0), parameters={"k": 2.0})
    values = {name: torch.randn(description.shape(name, 4)) for name in fields}
    entry = write_shard(tmp_path, "train", 0, description, values, {"rate": torch.arange(4.0)})
    Manifest("ours", (entry,)).write(tmp_path)
    sample = well.WellDataset(path=str(tmp_path), well_split_name="train", n_steps_input=1, n_steps_output=1)[2 * 2 + 1]
    assert torch.equal(sample["input_fields"][0, ..., 0], values["u"][2, 1])
    assert torch.equal(sample["output_fields"][0, ..., 1:].movedim(-1, 0), values["v"][2, 2])
    assert torch.equal(sample["constant_fields"][..., 0], values["a"][2])
    assert sample["constant_scalars"].tolist() == [2.0, 2.0]
    assert sample["boundary_conditions"].tolist() == [[2.0, 2.0], [0.0, 0.0]]  # periodic; wall
    assert torch.equal(sample["space_grid"][..., 1], grid.coordinates[1])
