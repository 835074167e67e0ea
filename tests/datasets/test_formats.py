"""Files of other programs, made here as their projects document them, are read for what they mean."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
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

from sciml import Dirichlet, Equation, InputError, Neumann, Periodic, datasets, solve
from sciml.boundary import Unstated
from sciml.datasets import Dataset, Field, Reading, import_dataset

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


def test_bfloat16_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    values = torch.randn(3, 8).bfloat16()
    save_torch({"u": values}, tmp_path / "u.safetensors")
    dataset = datasets.read(tmp_path / "u.safetensors", Reading(axes={"u": ("sample", "x")}))
    assert torch.equal(dataset.read("u", [2, 0]), values[[2, 0]].float())


# -- what is refused ---------------------------------------------------------------------------------------------------


def save_objects(path: Path) -> None:
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.h5", b"", "is empty; expected HDF5"),
        ("text.mat", b"hello, this is no file of any format" * 10, "of no format that can be read; expected HDF5"),
        ("cut.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "cannot be read as an .npy file"),
        ("cut.npz", b"PK\x03\x04 and nothing more", "cannot be read as an .npz file"),
        ("cut.safetensors", b"\xff\x00\x00\x00\x00\x00\x00\x00{", "cannot be read as a safetensors file"),
        ("cut.hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "cannot be read as HDF5"),
        ("cut.mat", b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM\x0f\x00\x00\x00\xff\xff\x00\x00", "version 5"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        datasets.read(tmp_path / name)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    save_objects(tmp_path / "o.npy")
    with pytest.raises(InputError, match="Python objects"):
        datasets.read(tmp_path / "o.npy", Reading(axes={"o": ("sample", "x")}))
    np.savez(tmp_path / "o.npz", o=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="holds Python objects, which are never unpickled"):
        datasets.read(tmp_path / "o.npz", Reading(axes={"o": ("sample",)}))


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_pdebench_cut_short_is_refused(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "advection.hdf5"
    with h5py.File(path, "w") as file:
        file["tensor"], file["x-coordinate"] = numbers(50, 5, 16), centres(16)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(InputError, match=r"cannot be read as HDF5: .*truncated"):
        datasets.read(path)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (None, r"nothing says what the axes of 'u', of shape \(4, 5, 6\), are; give them, as in u=sample,x,y"),
        (("sample", "x"), r"'u' has 3 axes, of shape \(4, 5, 6\); 2 are expected: sample, x"),
        (("sample", "x", "w"), "unknown axis 'w'"),
        (("sample", "x", "x"), "named twice"),
        (("time", "x", "y"), "none of its fields has an axis 'sample'"),
        (("sample", "x", "z"), "of space x, then y, then z are needed"),
        (("sample", "x", "-"), "has 6 places, and only 1 can be left out"),
    ],
)
def test_axes_that_do_not_fit_are_refused(tmp_path: Path, axes: tuple[str, ...] | None, message: str) -> None:
    np.save(tmp_path / "u.npy", numbers(4, 5, 6))
    with pytest.raises(InputError, match=message):
        datasets.read(tmp_path / "u.npy", Reading(axes={} if axes is None else {"u": axes}))


def test_arrays_that_disagree_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=numbers(4, 5), u=numbers(4, 6), c=numbers(4, 5) + 1j)
    axes = {"a": ("sample", "x"), "u": ("sample", "x")}
    with pytest.raises(InputError, match="axis 'x' has 5 places in field 'a' and 6 in 'u'"):
        datasets.read(tmp_path / "d.npz", Reading({"a": "a", "u": "u"}, axes))
    with pytest.raises(InputError, match="holds complex"):
        datasets.read(tmp_path / "d.npz", Reading({"c": "c"}, {"c": ("sample", "x")}))
    with pytest.raises(InputError, match="no array 'uu'; did you mean 'u'"):
        datasets.read(tmp_path / "d.npz", Reading({"u": "uu"}, {"u": ("sample", "x")}))


def test_pdebench_with_an_axis_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.hdf5"
    with h5py.File(path, "w") as file:
        file["tensor"] = numbers(4, 5, 16)
    with pytest.raises(InputError, match="'x-coordinate' beside tensor; it is missing"):
        datasets.read(path)
    with h5py.File(path, "a") as file:
        file["x-coordinate"] = centres(15)
    with pytest.raises(InputError, match="axis x has 16 places and 15 coordinates"):
        datasets.read(path)
    with h5py.File(path, "a") as file:
        del file["x-coordinate"]
        file["x-coordinate"] = np.linspace(0.0, 1.0, 16) ** 2
    with pytest.raises(InputError, match="along x must be uniform"):
        datasets.read(path)


# -- importing ---------------------------------------------------------------------------------------------------------


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
    assert dataset.provenance["imported"][0]["file"] == "darcy.mat"
    # It can be imported again, with its splits, to the same bytes.
    import_dataset(datasets.read(tmp_path / "out"), tmp_path / "again", shard_bytes=3 * 2 * 4 * 81)
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
    with pytest.raises(InputError, match="1 values of 'u' are NaN or infinite, first in sample 5"):
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


# -- files that belong together ----------------------------------------------------------------------------------------


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
