"""Files that are damaged, lie, or hold other things than real numbers are refused for what they are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from safetensors.torch import save_file as save_torch

from sciml import InputError, datasets
from sciml.datasets import Reading

Array = np.ndarray[Any, Any]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def centres(n: int, lower: float = 0.0, upper: float = 1.0) -> Array:
    return (lower + (upper - lower) * (np.arange(n) + 0.5) / n).astype("f4")


def equal(found: torch.Tensor, expected: Array) -> bool:
    return found.dtype == torch.from_numpy(expected).dtype and np.array_equal(found.numpy(), expected)


def save_73(path: Path, arrays: dict[str, Array]) -> None:
    """As MATLAB does: a user block of 512 bytes, and the axes in the opposite order."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values.T
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))


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
        ("cut.mat", b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM\x0f\x00\x00\x00\xff\xff\x00\x00", "cut short"),
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


def odd_mat(path: Path) -> dict[str, str]:
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = "a", numbers(3)
    values = numbers(4, 5)
    arrays = {"text": "hi", "cells": cells, "record": {"a": 1}, "flags": values > 0, "waves": values + 1j}
    scipy.io.savemat(path, {**arrays, "sparse": scipy.sparse.eye(4), "u": values})
    kinds = {"text": "char", "cells": "cell", "record": "struct", "flags": "logical", "sparse": "sparse"}
    found = {name: f"{name!r} holds a MATLAB {kind} array; an array of real numbers" for name, kind in kinds.items()}
    return {**found, "waves": "'waves' holds complex64 values; real numbers are needed"}


def odd_mat_73(path: Path) -> dict[str, str]:
    values = numbers(4, 5)
    save_73(path, {"u": values})
    with h5py.File(path, "a") as file:
        inside = file.create_group("#refs#")
        inside["a"] = values
        file.create_dataset("cells", data=np.array([inside["a"].ref] * 2, h5py.ref_dtype))
        file["text"] = np.array([[104], [105]], np.uint16)
        file["flags"] = (values > 0).astype("u1")
        file["none"] = np.array([0, 5], np.uint64)
        file["none"].attrs["MATLAB_empty"] = np.uint8(1)
        file["waves"] = np.zeros((5, 4), [("real", "f8"), ("imag", "f8")])
        file["record/a"] = 1.0
        file["gone"] = h5py.SoftLink("/nowhere")
        for name, kind in (("cells", "cell"), ("text", "char"), ("flags", "logical"), ("none", "double")):
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
    return {
        "cells": "a MATLAB cell array",
        "text": "a MATLAB char array",
        "flags": "a MATLAB logical array",
        "none": "an empty array",
        "waves": "complex numbers",
        "record": "a MATLAB struct array",
        "gone": "a link to nothing",
    }


def odd_hdf5(path: Path) -> dict[str, str]:
    values = numbers(4, 5)
    with h5py.File(path, "w") as file:
        file["u"], file["flags"], file["waves"] = values, values > 0, values + 1j
        file["record"] = np.zeros((4, 5), [("a", "f8"), ("b", "i4")])
        file["text"] = np.array(["a"] * 4, h5py.string_dtype())
        file["null"] = h5py.Empty("f8")
        file.create_dataset("lists", (4,), dtype=h5py.vlen_dtype(np.float64))
        file["quad"], file["empty"] = values.astype(np.longdouble), np.zeros((0, 5))
    return {
        "flags": "bool values",
        "waves": "complex64 values",
        "record": "'a', '<f8'",
        "text": "'text' holds text",
        "null": "an empty array",
        "lists": "lists or references",
        "quad": "of at most 64 bits are needed",
        "empty": "it is empty along 'sample'",
    }


def odd_npz(path: Path) -> dict[str, str]:
    values = numbers(4, 5)
    np.savez(path, u=values, flags=values > 0, dates=np.zeros((4, 5), "M8[s]"), text=np.array([["a"]]))
    return {"flags": "bool values", "dates": r"datetime64\[s\] values", "text": "<U1 values", "v": "has no array"}


def odd_safetensors(path: Path) -> dict[str, str]:
    values = torch.rand(4, 5)
    save_torch({"u": values, "flags": values > 0.5, "waves": values + 1j}, path)
    return {"flags": "values of the kind BOOL", "waves": "values of the kind C64"}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("d.mat", odd_mat),
        ("d73.mat", odd_mat_73),
        ("d.h5", odd_hdf5),
        ("d.npz", odd_npz),
        ("d.safetensors", odd_safetensors),
    ],
)
def test_arrays_of_other_things_are_refused_for_what_they_are(tmp_path: Path, name: str, write: Any) -> None:
    messages = write(tmp_path / name)
    axes = {"v": ("sample", "x")}
    assert datasets.read(tmp_path / name, Reading({"v": "u"}, axes)).read("v").shape == (4, 5)
    for array, message in messages.items():
        with pytest.raises(InputError, match=message):
            datasets.read(tmp_path / name, Reading({"v": array}, axes)).read("v")


def test_names_that_cannot_be_kept_are_given_anew(tmp_path: Path) -> None:
    values = numbers(4, 5)
    np.savez(tmp_path / "d.npz", **{"ein Feld/ü": values})
    with pytest.raises(InputError, match=r"'ein Feld/ü' cannot name a field; call it otherwise, .*: u=ein Feld/ü"):
        datasets.read(tmp_path / "d.npz", Reading(axes={"ein Feld/ü": ("sample", "x")}))
    assert equal(
        datasets.read(tmp_path / "d.npz", Reading({"u": "ein Feld/ü"}, {"u": ("sample", "x")})).read("u"), values
    )


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("cut", [100, 130, 300, -2000, -8, -1])
def test_mat_cut_short_is_refused(tmp_path: Path, cut: int, compressed: bool) -> None:
    values = numbers(4, 20, 20)
    scipy.io.savemat(tmp_path / "d.mat", {"coeff": values, "sol": values}, do_compression=compressed)
    (tmp_path / "d.mat").write_bytes((tmp_path / "d.mat").read_bytes()[:cut])
    with pytest.raises(InputError, match="is cut short or damaged: its arrays end at byte"):
        datasets.read(tmp_path / "d.mat")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 50000000000), }", "length"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-4, 5), }", "length"),
        ("{'descr': '<f8', 'shape': (4, 5), }", "correct keys"),
        ("(" * 1000, "cannot be read as an .np. file of numbers"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 5), }" + " " * 20_000, "length .* is large"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: str, message: str) -> None:
    text = header.encode() + b"\n"
    content = b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + numbers(20).astype("f8").tobytes()
    (tmp_path / "u.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("u.npy", content)
    for name in ("u.npy", "d.npz"):
        with pytest.raises(InputError, match=message) as caught:
            datasets.read(tmp_path / name, Reading(axes={"u": ("sample", "x")}))
        assert "allow_pickle" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: f.create_dataset("x-coordinate", data=["a"] * 8),
            "layout that its names promise: could not convert",
        ),
        (lambda f: f.create_dataset("x-coordinate", data=np.arange(0.0)), "8 places and 0 coordinates"),
    ],
)
def test_coordinates_that_are_none_are_refused(tmp_path: Path, damage: Any, message: str) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["tensor"] = numbers(3, 4, 8)
        damage(file)
    with pytest.raises(InputError, match=message):
        datasets.read(tmp_path / "d.h5")


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
