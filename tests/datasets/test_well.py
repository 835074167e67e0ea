"""The Well: its files are read, and its own reader opens ours."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from sciml import Dirichlet, Grid, InputError, Neumann, Periodic, datasets
from sciml.boundary import Unstated
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
    by_field = dataset.domain.boundary
    assert set(by_field) == set(values)
    for name, sides in by_field.items():  # a wall holds the fields that it names, and no others
        lower = Dirichlet(0.75) if name == "density" else Unstated()
        assert sides == {"x": (Periodic(), Periodic()), "y": (lower, Unstated())}
    assert dataset.notes[:3] == (
        "the file says only 'WALL' of the lower end of axis y for profile, velocity, stress",
        "the file says only 'OPEN' of the upper end of axis y",
        "nothing is said of where values stand; taken as cell centres, and not as nodes on the boundary",
    )
    assert any("'clock'" in note for note in dataset.notes)
    x, y = dataset.grid.coordinates
    np.testing.assert_allclose(x[:, 0], (np.arange(X) + 0.5) / X, rtol=1e-6)
    np.testing.assert_allclose(y[0], np.linspace(0.0, 2.5, Y), rtol=1e-6, atol=1e-6)


def test_the_caller_says_what_a_file_of_the_well_leaves_open(tmp_path: Path) -> None:
    write_well(tmp_path / "flow.hdf5")
    dataset = datasets.read(tmp_path / "flow.hdf5", Reading(points="nodes"))
    assert dataset.points == "nodes" and dataset.grid.shape == (X, Y) and dataset.domain.shape == (X, Y - 1)
    np.testing.assert_allclose(dataset.domain.lower, (0.5 / X, 0.0), rtol=1e-6)  # where the first values stand
    np.testing.assert_allclose(dataset.domain.upper, (1 + 0.5 / X, 2.5), rtol=1e-6)
    np.testing.assert_allclose(dataset.grid.coordinates[1][0], np.linspace(0.0, 2.5, Y), rtol=1e-6, atol=1e-6)
    assert not any("where values stand" in note for note in dataset.notes)
    assert dataset.domain.boundary["density"]["y"][0] == Dirichlet(0.75)

    sides = {"x": (Neumann(1.0), Dirichlet(2.0)), "y": Neumann(0.0)}
    dataset = datasets.read(tmp_path / "flow.hdf5", Reading(boundary=sides, points="cells", lower=(0, 0), upper=(1, 3)))
    assert dataset.domain.boundary == {**sides, "y": (Neumann(0.0), Neumann(0.0))} and dataset.grid is dataset.domain
    assert (dataset.domain.lower, dataset.domain.upper) == ((0.0, 0.0), (1.0, 3.0))
    assert dataset.notes == ("the scalar 'clock', which changes in time, is left out",)

    with pytest.raises(InputError, match="says itself what it holds; axes, times cannot be given"):
        datasets.read(tmp_path / "flow.hdf5", Reading(axes={"density": ("sample",)}, times=(0.0,)))
    import_dataset(dataset, tmp_path / "ours")
    for path in (tmp_path / "ours", tmp_path / "ours/data/train", tmp_path / "ours/data/train/shard-00000.hdf5"):
        with pytest.raises(InputError, match="says itself what it holds; points cannot be given"):
            datasets.read(path, Reading(points="nodes"))


def test_files_of_other_numbers_are_one_dataset(tmp_path: Path) -> None:
    """The Well has a file for each value of its parameters: these become numbers of the samples."""
    for seed, mach in enumerate((0.3, 0.5)):
        write_well(tmp_path / f"flow/{seed}.hdf5", seed)
        with h5py.File(tmp_path / f"flow/{seed}.hdf5", "a") as file:
            file["scalars/mach"][()] = mach
    dataset = datasets.read(tmp_path / "flow")
    assert dataset.read("mach").tolist() == [0.3] * SAMPLES + [0.5] * SAMPLES
    with h5py.File(tmp_path / "flow/1.hdf5", "a") as file:
        file["boundary_conditions/y_low/values"][()] = 0.5
    with pytest.raises(InputError, match="differ in boundary"):
        datasets.read(tmp_path / "flow")


def test_a_field_that_repeats_itself_is_stored_once(tmp_path: Path) -> None:
    values = write_well(tmp_path / "flow.hdf5")
    with h5py.File(tmp_path / "flow.hdf5", "a") as file:
        narrow = values["density"][..., :1]
        for name, data in (("shorter", narrow[..., 0]), ("one", narrow), ("whole", np.repeat(narrow, Y, -1))):
            file[f"t0_fields/{name}"] = data
            file[f"t0_fields/{name}"].attrs.update(sample_varying=True, time_varying=True, dim_varying=[True, False])
        file["t0_fields"].attrs["field_names"] = ["density", "profile", "shorter", "one", "whole"]
    dataset = pickle.loads(pickle.dumps(datasets.read(tmp_path / "flow.hdf5")))
    for name in ("shorter", "one", "whole"):
        np.testing.assert_array_equal(dataset.read(name), np.repeat(narrow, Y, -1))
        np.testing.assert_array_equal(dataset.read(name, [2, 0], [1, 3]), np.repeat(narrow, Y, -1)[[2, 0], [1, 3]])


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
    assert dataset.grid.boundary["density"]["y"] == (Dirichlet(0.75), Unstated())


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


def evolving() -> Description:
    grid = Grid((X, Y), boundary={"x": Periodic(), "y": (Dirichlet(1.5), Neumann(0.0))})
    fields = {
        "a": Field(),
        "u": Field(time_varying=True),
        "v": Field(time_varying=True, components=(2,)),
        "s": Field(components=(2, 2)),
        "f": Field(sample_varying=False),
    }
    return Description("evolving", grid, fields, torch.arange(3.0), parameters={"k": 2.0})


def steady() -> Description:
    return Description("steady", Grid((X, Y)), {"a": Field(), "u": Field()})


def nodal() -> Description:
    return Description("nodal", Grid((X, Y)), {"a": Field(), "u": Field()}, points="nodes")


def by_unknown() -> Description:
    sides = {"u": {"x": (Dirichlet(2.0), Unstated())}, "p": {"x": (Neumann(0.0), Unstated())}}
    return Description("by-unknown", Grid(X, boundary=sides), {"u": Field(), "p": Field()})


def obstructed() -> Description:
    solid = torch.zeros(X, Y, 5, dtype=torch.bool)
    solid[2:4, 1:3, 2] = True
    return Description("obstructed", Grid((X, Y, 5), solid=solid), {"u": Field(time_varying=True)}, torch.arange(2.0))


KINDS = [evolving, steady, nodal, by_unknown, obstructed]


def written(folder: Path, description: Description) -> dict[str, torch.Tensor]:
    values = {name: torch.randn(description.shape(name, 4)) for name in description.fields}
    entry = write_shard(folder, "train", 0, description, values, {"rate": torch.arange(4.0)})
    Manifest(description.name, (entry,)).write(folder)
    return values


def is_bool(value: object) -> bool:
    return isinstance(value, bool | np.bool_)


def names_in(group: h5py.Group) -> list[str]:
    assert all(isinstance(name, str) for name in group.attrs["field_names"])
    assert sorted(group) == sorted(group.attrs["field_names"])
    return list(group.attrs["field_names"])


@pytest.mark.parametrize("kind", KINDS)
def test_ours_have_all_that_its_specification_asks_for(tmp_path: Path, kind: Callable[[], Description]) -> None:
    """Every group, dataset and attribute of docs/data_format.md of The Well."""
    description = kind()
    values, grid, d = written(tmp_path, description), description.places, description.grid.dimension
    with h5py.File(tmp_path / "data/train/shard-00000.hdf5") as file:
        root = file.attrs
        assert root["dataset_name"] == description.name and root["grid_type"] == "cartesian"
        assert int(root["n_spatial_dims"]) == d and int(root["n_trajectories"]) == 4
        assert {name: float(root[name]) for name in root["simulation_parameters"]} == dict(description.parameters)

        dimensions, steps = file["dimensions"], 1 if description.times is None else len(description.times)
        assert list(dimensions.attrs["spatial_dims"]) == list("xyz"[:d])
        assert dimensions["time"].shape == (steps,) and not dimensions["time"].attrs["sample_varying"]
        assert is_bool(dimensions["time"].attrs["sample_varying"])
        for name, places in zip("xyz", grid.axis_coordinates, strict=False):
            np.testing.assert_array_equal(dimensions[name][()], places.numpy())
            for word in ("sample_varying", "time_varying"):
                assert is_bool(dimensions[name].attrs[word]) and not dimensions[name].attrs[word]

        scalars = file["scalars"]
        assert names_in(scalars) == [*description.parameters, "rate"]
        for name in scalars:
            assert scalars[name].shape == ((4,) if name == "rate" else ())
            assert bool(scalars[name].attrs["sample_varying"]) == (name == "rate")
            assert is_bool(scalars[name].attrs["time_varying"]) and not scalars[name].attrs["time_varying"]

        for order in range(3):
            group = file[f"t{order}_fields"]
            for name in names_in(group):
                field, stored = description.fields[name], group[name]
                assert len(field.components) == order and stored.attrs["dim_varying"].tolist() == [True] * d
                assert stored.attrs["dim_varying"].dtype == bool
                assert bool(stored.attrs["sample_varying"]) == field.sample_varying
                assert bool(stored.attrs["time_varying"]) == field.time_varying
                assert all(is_bool(stored.attrs[f"{word}_varying"]) for word in ("sample", "time"))
                leading = (4,) * field.sample_varying + (steps,) * field.time_varying
                assert stored.shape == (*leading, *grid.shape, *field.components)
                first = len(leading)
                last = np.moveaxis(values[name].numpy(), range(first, first + order), range(-order, 0))
                np.testing.assert_array_equal(stored[()], last)
                assert order < 2 or not (stored.attrs["symmetric"] or stored.attrs["antisymmetric"])

        for name, entry in file["boundary_conditions"].items():
            axes = list(entry.attrs["associated_dims"])
            assert axes == (list("xyz"[:d]) if name == "walls" else [name[0]])
            assert entry.attrs["bc_type"] == ("PERIODIC" if name == "x_periodic" else "WALL")
            assert all(is_bool(entry.attrs[f"{word}_varying"]) for word in ("sample", "time"))
            mask = entry["mask"][()]
            assert mask.dtype == bool and mask.shape == tuple(grid.shape["xyz".index(axis)] for axis in axes)
            held = list(entry.attrs["associated_fields"])
            assert set(held) <= set(description.fields) and ("values" in entry) == (len(held) == 1)
            if held:
                assert held == ["u"] and name == "x_lower" and entry["values"][()].tolist() == [2.0] * int(mask.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_reader_opens_ours(tmp_path: Path, kind: Callable[[], Description]) -> None:
    well = pytest.importorskip("the_well.data.datasets")
    description = kind()
    values, grid = written(tmp_path, description), description.places
    steps = 0 if description.times is None else 1  # a steady problem has constant fields only
    reader = well.WellDataset(path=str(tmp_path), well_split_name="train", n_steps_input=1, n_steps_output=steps)
    windows = 1 if description.times is None else len(description.times) - 1
    assert len(reader) == 4 * windows
    sample = reader[3 * windows - 1]  # of the third trajectory, the last window
    flat = {
        name: value[2 if description.fields[name].sample_varying else slice(None)] for name, value in values.items()
    }
    for word, moving, time in (("input_fields", True, -2), ("output_fields", True, -1), ("constant_fields", False, 0)):
        chosen = [
            flat[name][time] if moving else flat[name]
            for order in range(3)
            for name, field in description.fields.items()
            if field.time_varying == moving and len(field.components) == order
        ]
        if chosen:
            expected = torch.cat([value.reshape(-1, *grid.shape) for value in chosen]).movedim(0, -1)
            assert torch.equal(sample[word][0] if moving else sample[word], expected), word
    assert sample["constant_scalars"].tolist() == [*description.parameters.values(), 2.0]
    assert torch.equal(sample["space_grid"], torch.stack(grid.coordinates, -1))
    codes = {"evolving": [[2.0, 2.0], [0.0, 0.0]], "by-unknown": [[0.0, 1.0]]}  # periodic 2, open 1, wall 0
    assert sample["boundary_conditions"].tolist() == codes.get(description.name, [[0.0, 0.0]] * grid.dimension)
