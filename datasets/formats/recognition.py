"""Which format a file has, by its first bytes and its content: endings are often wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py

from sciml import container
from sciml.errors import InputError

from .. import dataset as own
from ..columns import HDF5Files
from ..dataset import Dataset
from ..manifest import FIRST_SPLITS, NAME
from ..well_layout import is_well, read_layout
from . import arrays, matlab, pdebench
from .reading import Found, Reading, build

_FORMATS = "HDF5 of The Well or PDEBench, .mat, .npy, .npz and safetensors"


def read(path: Path, reading: Reading | None = None, *, damaged: Literal["refuse", "skip"] = "refuse") -> Dataset:
    """The dataset in a file or folder of any format that is known, of which no value is read yet.

    Args:
        path: a dataset of ours; a file of The Well, PDEBench, MATLAB, NumPy or safetensors; a folder of The Well's
            files, with or without data/train, data/valid and data/test; or a folder of .npy files, one a field.
        reading: what the file does not say.
        damaged: what is done with damaged files of a dataset of ours, as by `sciml.datasets.open`.

    Raises:
        InputError: it is of no known format, damaged, or lacks something; it says what was expected.
    """
    reading = reading or Reading()
    if path.is_dir():
        return _read_folder(path, reading, damaged)
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path} is empty; expected {_FORMATS}")
    if container.is_ours(head):
        return _refuse_options(own.open(path), reading, path)
    if head.startswith(b"MATLAB 5.0 MAT-file"):
        return build(matlab.find_5(path), reading)
    if head.startswith(b"\x93NUMPY"):
        return build(arrays.find_npy({path.stem: path}, path), reading)
    if head.startswith(b"PK"):
        return build(arrays.find_npz(path), reading)
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and head[7] == 0):
        return build(arrays.find_safetensors(path), reading)
    if container.HDF5_SIGNATURE in (head[start : start + 8] for start in (0, 512)):
        return _read_hdf5(path, head, reading)
    raise InputError(f"{path} is of no format that can be read; expected {_FORMATS}")


def _read_hdf5(path: Path, head: bytes, reading: Reading) -> Dataset:
    files = HDF5Files()
    file = files.file(path)
    if is_well(file):
        description, part = read_layout(path, files)
        return _refuse_options(Dataset(description, [part]), reading, path)
    if head.startswith(b"MATLAB 7.3 MAT-file"):
        return build(matlab.find_73(path, files), reading)
    if pdebench.is_pdebench(file):
        return build(pdebench.find(path, files), reading)
    found = _plain(path, file, files)
    return build(found, reading)


def _plain(path: Path, file: h5py.File, files: HDF5Files) -> Found:
    """Arrays in an HDF5 file of nobody's layout, by their place in it."""
    from .reading import Raw

    places: list[str] = []
    file.visititems(lambda name, item: places.append(name) if isinstance(item, h5py.Dataset) else None)
    if not places:
        raise InputError(f"{path} is an HDF5 file without arrays; expected {_FORMATS}")
    return Found(
        path,
        {
            name: Raw(tuple(file[name].shape), lambda roles, name=name: files.column(path, name, roles))  # type: ignore[misc]
            for name in places
            if file[name].dtype.kind in "fiu" and file[name].ndim > 1
        },
    )


def _read_folder(folder: Path, reading: Reading, damaged: Literal["refuse", "skip"]) -> Dataset:
    if (folder / NAME).exists():
        return _refuse_options(own.open(folder, damaged=damaged), reading, folder)
    roots = [folder / "data" / split for split in FIRST_SPLITS] + [folder / split for split in FIRST_SPLITS]
    found = {(root.name, path) for root in roots if root.is_dir() for path in _hdf5_in(root)}
    listed = sorted(found, key=lambda item: (FIRST_SPLITS.index(item[0]), item[1])) or [
        ("", path) for path in _hdf5_in(folder)
    ]
    if listed:
        files = HDF5Files()
        described = [(split, *read_layout(path, files)) for split, path in listed]
        first = described[0][1]
        for (_, path), (_, other, _) in zip(listed, described, strict=True):
            own.check_same(first, other, f"{listed[0][1]} and {path}")
        parts = [replace(part, split=split) for split, _, part in described]
        return _refuse_options(Dataset(first, parts), reading, folder)
    singles = sorted(folder.glob("*.npy"))
    if singles:
        return build(arrays.find_npy({path.stem: path for path in singles}, folder), reading)
    raise InputError(f"{folder} has no manifest.json, no .hdf5 files of The Well and no .npy files")


def _hdf5_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".h5", ".hdf5"))


def _refuse_options(dataset: Dataset, reading: Reading, path: Path) -> Dataset:
    """Of files that say what they hold only what they leave open can be given."""
    fixed = ("fields", "axes", "points", "boundary", "lower", "upper", "times")
    given = [name for name in fixed if getattr(reading, name)]
    if given:
        raise InputError(f"{path} says itself what it holds; {', '.join(given)} cannot be given for it")
    described = dataset.description
    changed = replace(
        described,
        name=reading.name or described.name,
        equation=reading.equation or described.equation,
        inputs=reading.inputs or described.inputs,
        outputs=reading.outputs or described.outputs,
    )
    return Dataset(changed, dataset.parts, dataset.provenance, dataset.damaged)
