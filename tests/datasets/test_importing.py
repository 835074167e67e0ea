"""Datasets of other programs, written as ours."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from sciml import Dirichlet, Equation, InputError, Periodic, datasets, solve
from sciml.datasets import Dataset, Manifest, Reading, import_dataset

Array = np.ndarray[Any, Any]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def centres(n: int, lower: float = 0.0, upper: float = 1.0) -> Array:
    return (lower + (upper - lower) * (np.arange(n) + 0.5) / n).astype("f4")


def equal(found: torch.Tensor, expected: Array) -> bool:
    return found.dtype == torch.from_numpy(expected).dtype and np.array_equal(found.numpy(), expected)


@pytest.fixture
def darcy(tmp_path: Path) -> tuple[Dataset, Array]:
    values = numbers(12, 9, 9).astype("f8")
    scipy.io.savemat(tmp_path / "darcy.mat", {"coeff": values, "sol": 2 * values})
    return datasets.read(tmp_path / "darcy.mat"), values


def test_splits_by_counts(tmp_path: Path, darcy: tuple[Dataset, Array]) -> None:
    source, values = darcy
    import_dataset(source, tmp_path / "out", {"train": 7, "valid": 2, "test": 3}, shard_bytes=3 * 2 * 4 * 81)
    dataset = datasets.open(tmp_path / "out")
    assert [len(dataset.split(name)) for name in dataset.splits] == [7, 2, 3]
    assert len(dataset.parts) == 3 + 1 + 1
    assert equal(dataset.read("a"), values.astype("f4")) and equal(
        dataset.split("test").read("u"), 2 * values[9:].astype("f4")
    )
    assert dataset.points == "nodes" and dataset.grid.lower == source.grid.lower
    digest = hashlib.sha256((tmp_path / "darcy.mat").read_bytes()).hexdigest()
    assert dataset.provenance["imported"] == [{"file": "darcy.mat", "sha256": digest}]
    # It can be imported again, with its splits, to the same bytes.
    import_dataset(datasets.read(tmp_path / "out"), tmp_path / "again", shard_bytes=3 * 2 * 4 * 81)
    again = datasets.open(tmp_path / "again").provenance["imported"]
    assert [item["sha256"] for item in again] == [entry.sha256 for entry in Manifest.read(tmp_path / "out").shards]
    file = "data/train/shard-00002.hdf5"
    assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


def test_a_shuffle_draws_every_sample_once(tmp_path: Path, darcy: tuple[Dataset, Array]) -> None:
    source, values = darcy
    import_dataset(source, tmp_path / "out", {"train": 8, "test": 4}, shuffle=3)
    found = datasets.open(tmp_path / "out").read("a").numpy()
    order = [int(np.flatnonzero((values.astype("f4") == row).all((1, 2)))[0]) for row in found]
    assert sorted(order) == list(range(12)) and order != list(range(12))


def test_nodes_become_cells_to_second_order(tmp_path: Path) -> None:
    """Means over cells of sin(pi x) y^2 at nodes: the error at the cell centres falls as h^2."""
    errors = []
    for n in (17, 33):
        x, y = np.meshgrid(np.linspace(0.0, 1.0, n), np.linspace(0.0, 1.0, n), indexing="ij")
        scipy.io.savemat(
            tmp_path / f"{n}.mat", {"coeff": np.stack([x, y]), "sol": np.stack([np.sin(np.pi * x) * y**2] * 2)}
        )
        import_dataset(datasets.read(tmp_path / f"{n}.mat"), tmp_path / f"{n}", to_cells=True, dtype=torch.float64)
        dataset = datasets.open(tmp_path / f"{n}")
        assert dataset.points == "cells" and dataset.grid.shape == (n - 1, n - 1)
        assert dataset.grid.lower == pytest.approx((0.0, 0.0), abs=1e-14) and dataset.grid.upper == pytest.approx(
            (1.0, 1.0)
        )
        places = dataset.grid.coordinates
        torch.testing.assert_close(dataset.read("a")[0], places[0], rtol=0.0, atol=1e-14)
        exact = torch.sin(torch.pi * places[0]) * places[1] ** 2
        errors.append(float((dataset.read("u")[0] - exact).abs().max()))
    assert 3.8 < errors[0] / errors[1] < 4.2


def test_equations_are_solved_on_the_domain_of_node_data(tmp_path: Path) -> None:
    """-laplacian(u) = f with u = 0 on [0, 1]^2: where the conditions hold the solution is of second order, and on the
    grid of the values, half a cell further out, nothing is stated and nothing is solved."""
    errors = []
    for n in (17, 33):
        x, y = np.meshgrid(np.linspace(0.0, 1.0, n), np.linspace(0.0, 1.0, n), indexing="ij")
        u = np.sin(np.pi * x) * np.sin(np.pi * y)
        scipy.io.savemat(tmp_path / f"{n}.mat", {"coeff": np.stack([x, y]), "sol": np.stack([u, 2 * u])})
        source = datasets.read(tmp_path / f"{n}.mat")
        assert source.grid.shape == (n, n) and source.domain.shape == (n - 1, n - 1)
        import_dataset(source, tmp_path / f"{n}", to_cells=True, dtype=torch.float64)
        made = datasets.open(tmp_path / f"{n}")
        for grid in (source.domain, made.domain, made.grid):
            assert grid.shape == (n - 1, n - 1) and (grid.lower, grid.upper) == ((0.0, 0.0), (1.0, 1.0))
            assert all(pair == (Dirichlet(0.0), Dirichlet(0.0)) for pair in grid.boundary.values())
            places = grid.coordinates
            exact = torch.sin(torch.pi * places[0]) * torch.sin(torch.pi * places[1])
            solution = solve(Equation("-laplacian(u) = f"), grid, fields={"f": 2 * torch.pi**2 * exact})
        errors.append(float((solution.value - made.read("u")[0]).norm() / exact.norm()))
    assert 3.8 < errors[0] / errors[1] < 4.2
    with pytest.raises(InputError, match=r"does not state what holds for 'u' at x_lower; give it by .* `domain`"):
        solve(Equation("-laplacian(u) = 1"), source.grid)
    import_dataset(source, tmp_path / "nodes", dtype=torch.float64)
    again = datasets.open(tmp_path / "nodes")
    assert again.points == "nodes" and again.domain.boundary == source.domain.boundary
    assert equal(again.read("u"), np.stack([u, 2 * u]))
    with h5py.File(tmp_path / "nodes/data/train/shard-00000.hdf5") as file:  # as The Well has it: walls at the nodes
        assert np.allclose(file["dimensions/x"][()], np.linspace(0.0, 1.0, 33), atol=1e-15)


def test_a_sample_in_two_splits_is_refused_before_anything_is_written(
    tmp_path: Path, darcy: tuple[Dataset, Array]
) -> None:
    values = darcy[1].copy()
    values[10] = values[2]
    scipy.io.savemat(tmp_path / "twice.mat", {"coeff": values, "sol": darcy[1]})
    source = datasets.read(tmp_path / "twice.mat")
    with pytest.raises(InputError, match=r"sample 0 of split test .*has the inputs of sample 2 of split train"):
        import_dataset(source, tmp_path / "out", {"train": 10, "test": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["darcy.mat", "twice.mat"]
    import_dataset(source, tmp_path / "out", {"train": 10})
    assert len(datasets.open(tmp_path / "out")) == 10


def test_a_value_that_is_not_finite_is_refused_and_nothing_is_left(
    tmp_path: Path, darcy: tuple[Dataset, Array]
) -> None:
    values = darcy[1].copy()
    values[5, 0, 0] = np.nan
    scipy.io.savemat(tmp_path / "nan.mat", {"coeff": darcy[1], "sol": values})
    with pytest.raises(
        InputError, match=r"1 values of 'u' are NaN or infinite in torch.float32, first in sample 5 \(.*nan.mat\)"
    ):
        import_dataset(datasets.read(tmp_path / "nan.mat"), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["darcy.mat", "nan.mat"]


def test_what_a_killed_import_left_goes_and_one_that_runs_stays(tmp_path: Path, darcy: tuple[Dataset, Array]) -> None:
    remains = tmp_path / ".out.part/data/train"
    remains.mkdir(parents=True)
    (remains / "shard-00007.hdf5").write_bytes(b"half of it")
    seen = []

    def again(done: int, total: int) -> None:
        with pytest.raises(InputError, match="out is being written by another process"):
            import_dataset(darcy[0], tmp_path / "out")
        seen.append(done)

    import_dataset(darcy[0], tmp_path / "out", progress=again)
    assert seen == [12] and len(datasets.open(tmp_path / "out")) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["darcy.mat", "out"]
    assert [path.name for path in (tmp_path / "out/data/train").iterdir()] == ["shard-00000.hdf5"]


def test_a_dataset_may_be_written_into_the_folder_one_is_in(
    tmp_path: Path, darcy: tuple[Dataset, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    import_dataset(darcy[0], ".")
    assert len(datasets.open(tmp_path / "here")) == 12


def test_splits_that_do_not_fit_are_refused(tmp_path: Path, darcy: tuple[Dataset, Array]) -> None:
    with pytest.raises(InputError, match="train 10, test 3 do not fit a source of 12 samples"):
        import_dataset(darcy[0], tmp_path / "out", {"train": 10, "test": 3})
    with pytest.raises(InputError, match="not an empty folder"):
        import_dataset(darcy[0], tmp_path)
    with pytest.raises(InputError, match="says itself what it holds; boundary cannot be given"):
        import_dataset(darcy[0], tmp_path / "out")
        datasets.read(tmp_path / "out", Reading(boundary=Periodic()))


def test_nothing_is_said_while_reading(darcy: tuple[Dataset, Array]) -> None:
    """Arrays handed to torch are our own: NumPy's read-only ones would make it warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        darcy[0].read("a", [3, 1])


def test_a_link_into_another_file_is_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["tensor"] = np.full((4, 1, 8, 8), 7.0, "f4")
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["nu"] = numbers(4, 8, 8)
        file["x-coordinate"] = file["y-coordinate"] = centres(8)
        file["tensor"] = h5py.ExternalLink("part.h5", "tensor")
    with pytest.raises(InputError, match=r"'tensor' is a link into .*part.h5; give that file instead"):
        datasets.read(tmp_path / "master.h5", Reading(boundary=Dirichlet(0.0)))


@pytest.mark.parametrize("word", ["beta", "x"])
def test_splits_of_other_numbers(tmp_path: Path, word: str) -> None:
    """A number of the equation becomes one of the sample; another domain is refused before anything is written."""
    for number, name in enumerate(("train", "test")):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file["tensor"] = numbers(3, 5, 16, seed=number)
            file["x-coordinate"] = centres(16, 0.0, 2.0 + number * (word == "x"))
            file["t-coordinate"] = np.linspace(0.0, 2.0, 5)
            file.attrs["beta"] = 0.25 * (1 + number * (word == "beta"))
    source = {
        name: datasets.read(tmp_path / f"{name}.hdf5", Reading(boundary=Periodic())) for name in ("train", "test")
    }
    if word == "x":
        with pytest.raises(InputError, match="differ in grid"):
            import_dataset(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    import_dataset(source, tmp_path / "out")
    made = datasets.open(tmp_path / "out")
    assert made.split("train").read("beta").tolist() == [0.25] * 3
    assert made.split("test").read("beta").tolist() == [0.5] * 3
