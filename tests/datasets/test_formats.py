"""Files of other programs, made here as their projects document them, are read for what they mean."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from sciml import Dirichlet, Equation, InputError, Neumann, Periodic, datasets, solve
from sciml.boundary import Unstated
from sciml.datasets import Field, Reading, import_dataset

Array = np.ndarray[Any, Any]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def centres(n: int, lower: float = 0.0, upper: float = 1.0) -> Array:
    return (lower + (upper - lower) * (np.arange(n) + 0.5) / n).astype("f4")


def equal(found: torch.Tensor, expected: Array) -> bool:
    return found.dtype == torch.from_numpy(expected).dtype and np.array_equal(found.numpy(), expected)


# -- PDEBench ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (1,)])  # (1, N, t, x): issue 57 of PDEBench
@pytest.mark.parametrize("chunked", [False, True])
def test_pdebench_one_dimension(tmp_path: Path, leading: tuple[int, ...], chunked: bool) -> None:
    values = numbers(*leading, 10, 5, 16)
    with h5py.File(tmp_path / "advection.hdf5", "w") as file:
        file.create_dataset("tensor", data=values, **({"chunks": True, "compression": "gzip"} if chunked else {}))
        file["x-coordinate"] = centres(16, 0.0, 2.0)
        file["t-coordinate"] = np.linspace(0.0, 2.5, 6)  # one more than there are values
        file.attrs["beta"] = 0.4
    dataset = datasets.read(tmp_path / "advection.hdf5", Reading(boundary=Periodic()))
    whole = values.reshape(10, 5, 16)
    assert equal(dataset.read("u"), whole)
    assert equal(dataset.read("u", [7, 0, 7], [4, 0, 1]), whole[[7, 0, 7], [4, 0, 1]])
    assert dataset.times is not None and np.allclose(dataset.times.numpy(), [0.0, 0.5, 1.0, 1.5, 2.0])
    assert any("last time is left out" in note for note in dataset.notes)
    assert dataset.parameters == {"beta": pytest.approx(0.4)}
    # The grid stands where the values do, though a periodic one counts from its lower corner.
    np.testing.assert_allclose(dataset.grid.coordinates[0].numpy(), centres(16, 0.0, 2.0), rtol=1e-6)
    assert dataset.grid.upper[0] - dataset.grid.lower[0] == pytest.approx(2.0, rel=1e-6)


def test_pdebench_darcy(tmp_path: Path) -> None:
    nu, values = numbers(6, 8, 9), numbers(6, 1, 8, 9, seed=1)
    with h5py.File(tmp_path / "darcy.hdf5", "w") as file:
        file["nu"], file["tensor"] = nu, values
        file["x-coordinate"], file["y-coordinate"] = centres(8), centres(9)
        file.attrs["beta"] = 10.0
    dataset = datasets.read(tmp_path / "darcy.hdf5")
    assert equal(dataset.read("a"), nu) and equal(dataset.read("u", [5, 2]), values[[5, 2], 0])
    assert dataset.inputs == ("a",) and dataset.outputs == ("u",) and dataset.times is None
    assert dataset.equation is not None and dataset.equation.parameters == {"beta": 10.0}
    assert dataset.grid.boundary["y"] == (Dirichlet(0.0), Dirichlet(0.0))
    assert dataset.grid.lower == pytest.approx((0.0, 0.0), abs=1e-6)
    assert dataset.grid.upper == pytest.approx((1.0, 1.0), abs=1e-6)


def test_pdebench_compressible_flow(tmp_path: Path) -> None:
    fields = {name: numbers(3, 4, 6, 5, 7, seed=k) for k, name in enumerate(("density", "pressure", "Vx", "Vy", "Vz"))}
    with h5py.File(tmp_path / "flow.hdf5", "w") as file:
        for name, values in fields.items():
            file[name] = values
        for axis, n in zip("xyz", (6, 5, 7), strict=True):
            file[f"{axis}-coordinate"] = centres(n)
        file["t-coordinate"] = np.arange(5.0)
    dataset = datasets.read(tmp_path / "flow.hdf5")
    assert dataset.grid.shape == (6, 5, 7) and set(dataset.fields) == set(fields)
    for name, values in fields.items():
        assert equal(dataset.read(name, [2]), values[[2]])


def test_pdebench_groups(tmp_path: Path) -> None:
    values = numbers(4, 3, 8, 9, 2)
    with h5py.File(tmp_path / "reaction.h5", "w") as file:
        for number, sample in enumerate(values):
            file[f"{number:04d}/data"] = sample
            file[f"{number:04d}/grid/x"], file[f"{number:04d}/grid/y"] = centres(8, -1.0), centres(9, -1.0)
            file[f"{number:04d}/grid/t"] = np.linspace(0.0, 1.0, 3)
    dataset = datasets.read(tmp_path / "reaction.h5")
    assert list(dataset.fields) == ["u_0", "u_1"] == list(dataset.inputs)
    assert equal(dataset.read("u_1"), np.ascontiguousarray(values[..., 1]))
    assert equal(dataset.read("u_0", [3, 1], [2, 0]), np.ascontiguousarray(values[[3, 1], [2, 0], ..., 0]))
    assert dataset.grid.boundary["x"] == (Neumann(0.0), Neumann(0.0))


def test_pdebench_incompressible_flow(tmp_path: Path) -> None:
    velocity, particles, force = numbers(2, 3, 6, 5, 2), numbers(2, 3, 6, 5, 1), numbers(2, 6, 5, 2)
    with h5py.File(tmp_path / "ns.h5", "w") as file:
        file["velocity"], file["particles"], file["force"] = velocity, particles, force
        file["t"] = np.stack([np.arange(3.0)] * 2)
    dataset = datasets.read(tmp_path / "ns.h5")
    assert dataset.fields["velocity"] == Field(time_varying=True, components=(2,))
    assert equal(dataset.read("velocity"), np.ascontiguousarray(np.moveaxis(velocity, -1, 2)))
    assert equal(dataset.read("force", [1]), np.ascontiguousarray(np.moveaxis(force, -1, 1)[[1]]))
    assert equal(dataset.read("particles"), particles[..., 0])


# -- .mat --------------------------------------------------------------------------------------------------------------


def save_73(path: Path, arrays: dict[str, Array]) -> None:
    """As MATLAB does: a user block of 512 bytes, and the axes in the opposite order."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values.T
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))


@pytest.mark.parametrize("save", [scipy.io.savemat, save_73])
def test_mat_files_of_the_papers(tmp_path: Path, save: Any) -> None:
    coefficient, pressure = numbers(5, 9, 8).astype("f8"), numbers(5, 9, 8, seed=1).astype("f8")
    save(tmp_path / "darcy.mat", {"coeff": coefficient, "sol": pressure, "Kcoeff": pressure})
    dataset = datasets.read(tmp_path / "darcy.mat")
    assert equal(dataset.read("a", [4, 1]), coefficient[[4, 1]]) and equal(dataset.read("u"), pressure)
    assert dataset.points == "nodes"
    x, y = dataset.grid.coordinates
    np.testing.assert_allclose(x[:, 0], np.linspace(0.0, 1.0, 9), atol=1e-14)  # on the boundary itself
    np.testing.assert_allclose(y[0], np.linspace(0.0, 1.0, 8), atol=1e-14)
    assert dataset.domain.lower == (0.0, 0.0) and dataset.domain.upper == (1.0, 1.0)
    assert dataset.domain.boundary["x"] == (Dirichlet(0.0), Dirichlet(0.0))

    initial, later = numbers(4, 16), numbers(4, 16, seed=1)
    save(tmp_path / "burgers.mat", {"a": initial, "u": later})
    dataset = datasets.read(tmp_path / "burgers.mat")
    assert equal(dataset.read("a"), initial) and equal(dataset.read("u", [2]), later[[2]])
    assert dataset.grid.periodic == (True,) and dataset.points == "cells"

    vorticity, history = numbers(3, 8, 6), numbers(3, 8, 6, 5, seed=1)
    save(tmp_path / "ns.mat", {"a": vorticity, "u": history, "t": np.arange(1.0, 6.0)[None]})
    dataset = datasets.read(tmp_path / "ns.mat")
    assert equal(dataset.read("u"), np.ascontiguousarray(np.moveaxis(history, -1, 1)))
    assert equal(dataset.read("u", [2, 0], [4, 1]), np.ascontiguousarray(history[[2, 0], ..., [4, 1]]))
    assert dataset.times is not None and dataset.times.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


# -- arrays without a description --------------------------------------------------------------------------------------


def save_npy(folder: Path, arrays: dict[str, Array]) -> Path:
    folder.mkdir()
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def save_npz(folder: Path, arrays: dict[str, Array]) -> Path:
    np.savez_compressed(folder.with_suffix(".npz"), **arrays)
    return folder.with_suffix(".npz")


def save_tensors(folder: Path, arrays: dict[str, Array]) -> Path:
    save_file(arrays, folder.with_suffix(".safetensors"))
    return folder.with_suffix(".safetensors")


def save_hdf5(folder: Path, arrays: dict[str, Array]) -> Path:
    with h5py.File(folder.with_suffix(".h5"), "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return folder.with_suffix(".h5")


@pytest.mark.parametrize("save", [save_npy, save_npz, save_tensors, save_hdf5])
@given(order=st.permutations(["sample", "time", "x", "y", "component"]), rows=st.lists(st.integers(0, 3), max_size=6))
@settings(max_examples=12)
def test_axes_in_any_order(
    save: Any, tmp_path_factory: pytest.TempPathFactory, order: list[str], rows: list[int]
) -> None:
    sizes = {"sample": 4, "time": 3, "component": 2, "x": 5, "y": 6}
    whole = numbers(*sizes.values())
    stored = np.ascontiguousarray(whole.transpose([list(sizes).index(role) for role in order]))
    path = save(tmp_path_factory.mktemp("f") / "d", {"v": stored})
    dataset = datasets.read(path, Reading(axes={"v": order}))
    assert equal(dataset.read("v"), whole)
    assert equal(dataset.read("v", rows), whole[np.array(rows, dtype=int)])
    assert equal(dataset.read("v", [3, 0], [1, 2]), whole[[3, 0], [1, 2]])


def test_names_channels_and_corners_as_the_caller_says(tmp_path: Path) -> None:
    values = numbers(4, 1, 6, 3)
    np.save(tmp_path / "data.npy", values)
    reading = Reading(
        {"w": "data"},
        {"w": ("sample", "-", "x", "channel")},
        inputs=("w",),
        boundary={"x": (Dirichlet(1.0), Neumann(0.0))},
        points="nodes",
        lower=(-1.0,),
        upper=(4.0,),
    )
    dataset = datasets.read(tmp_path / "data.npy", reading)
    assert dataset.inputs == ("w_0", "w_1", "w_2")
    assert equal(dataset.read("w_2"), np.ascontiguousarray(values[:, 0, :, 2]))
    np.testing.assert_allclose(dataset.grid.coordinates[0], np.linspace(-1.0, 4.0, 6))


def test_what_nobody_says_is_not_made_up(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", numbers(4, 8))
    dataset = datasets.read(tmp_path / "u.npy", Reading(axes={"u": ("sample", "x")}))
    assert dataset.notes == (
        "nothing is said of the boundary",
        "nothing is said of the size of the domain; taken as 1 along each axis",
        "nothing is said of where values stand; taken as cell centres, and not as nodes on the boundary",
    )
    with pytest.raises(InputError, match="does not state what holds for 'u' at x_lower"):
        solve(Equation("-laplacian(u) = 1"), dataset.domain)
    import_dataset(dataset, tmp_path / "out")
    made = datasets.open(tmp_path / "out").domain
    assert made.boundary == dataset.domain.boundary == {"x": (Unstated(), Unstated())}
    # -u'' = 1 with u = 0 at the ends of [0, 1]; the scheme is exact for a parabola but for h^2/8 of the walls.
    x = made.coordinates[0]
    found = solve(Equation("-laplacian(u) = 1"), made, boundary=Dirichlet(0.0)).value
    torch.testing.assert_close(found, x * (1 - x) / 2 + (1 / 8) ** 2 / 8, rtol=0.0, atol=1e-12)
    with h5py.File(tmp_path / "out/data/train/shard-00000.hdf5") as file:
        assert not set(file["boundary_conditions"])


@pytest.mark.parametrize("save", [save_npy, save_npz, save_tensors, save_hdf5, "mat", "mat73", "chunks"])
def test_a_dataset_goes_to_other_processes(tmp_path: Path, save: Any) -> None:
    values = numbers(4, 5, 6).astype("f8")
    reading = Reading(axes={"v": ("x", "sample", "y")})
    if save == "mat":
        path, reading = tmp_path / "d.mat", Reading({"v": "sol"}, {"v": ("x", "sample", "y")})
        scipy.io.savemat(path, {"sol": values})
    elif save == "mat73":
        path = tmp_path / "d.mat"
        save_73(path, {"v": values})
    elif save == "chunks":
        path = tmp_path / "d.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("v", data=values, chunks=(2, 2, 2))
    else:
        path = save(tmp_path / "d", {"v": values})
    dataset = datasets.read(path, reading)
    first = pickle.dumps(dataset)
    expected = np.ascontiguousarray(values.transpose(1, 0, 2))
    assert equal(dataset.read("v", [4, 0]), expected[[4, 0]])
    for sent in (first, pickle.dumps(dataset)):  # before it was read from, and after
        assert equal(pickle.loads(sent).read("v", [4, 0]), expected[[4, 0]])


def test_only_the_array_that_is_asked_for_is_read(tmp_path: Path) -> None:
    values = numbers(4, 8)
    np.savez(tmp_path / "d.npz", a=values, other=np.zeros(2_000_000), later=np.asfortranarray(values))
    tracemalloc.start()
    dataset = datasets.read(tmp_path / "d.npz", Reading({"a": "a", "b": "later"}, dict.fromkeys("ab", ("sample", "x"))))
    assert equal(dataset.read("a", [2]), values[[2]]) and equal(dataset.read("b", [3]), values[[3]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # `other` has 16 MB


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "i8", "f4", "f8", "f2"])
@pytest.mark.parametrize("save", [save_npy, save_npz, save_tensors, save_hdf5, scipy.io.savemat])
def test_numbers_of_any_kind(tmp_path: Path, save: Any, kind: str) -> None:
    if save is scipy.io.savemat and kind == "f2":
        kind = "f4"  # MATLAB has none of 16 bits
    values = np.arange(24).reshape(4, 6).astype(kind)
    path = tmp_path / "d.mat" if save is scipy.io.savemat else tmp_path / "d"
    path = save(path, {"v": values}) or path
    dataset = datasets.read(path, Reading(axes={"v": ("sample", "x")}, inputs=("v",), outputs=("v",)))
    assert dataset.read("v", [3, 1]).double().tolist() == values[[3, 1]].astype("f8").tolist()
    import_dataset(dataset, tmp_path / "out")
    assert equal(datasets.open(tmp_path / "out").read("v"), values.astype("f4"))


@pytest.mark.parametrize("kind", [">f8", ">f4", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [save_npy, save_npz, save_hdf5])
def test_bytes_and_axes_in_the_other_order(tmp_path: Path, save: Any, order: Any, kind: str) -> None:
    values = np.asarray(100 * numbers(4, 5, 6), kind, order=order)
    dataset = datasets.read(save(tmp_path / "d", {"u": values}), Reading(axes={"u": ("sample", "x", "y")}))
    assert equal(dataset.read("u", [3, 1]), np.ascontiguousarray(values[[3, 1]], np.dtype(kind).newbyteorder("=")))


def test_bfloat16_is_read(tmp_path: Path) -> None:
    values = torch.randn(3, 8).bfloat16()
    save_torch({"u": values}, tmp_path / "u.safetensors")
    dataset = datasets.read(tmp_path / "u.safetensors", Reading(axes={"u": ("sample", "x")}))
    assert torch.equal(dataset.read("u", [2, 0]), values[[2, 0]].float())
