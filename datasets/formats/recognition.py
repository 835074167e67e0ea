"""Which format a file has, by its first bytes and its content: endings are often wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from sciml import container
from sciml.errors import InputError

from .. import dataset as own
from ..columns import HDF5Files
from ..dataset import Dataset
from ..description import common_parameters
from ..manifest import FIRST_SPLITS, NAME
from ..well_layout import is_well
from . import arrays, hdf5, matlab, pdebench, well
from .reading import OWN, Reading, build, refuse

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
        return _ours(own.open(path), reading, path)
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
        return _of_well([("", path)], reading)
    try:
        if head.startswith(b"MATLAB 7.3 MAT-file"):
            found = matlab.find_73(path, files)
        elif pdebench.is_pdebench(file):
            found = pdebench.find(path, files)
        else:
            found = hdf5.find(path, files)
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError, RuntimeError) as error:
        raise InputError(f"{path} does not have the layout that its names promise: {error}") from error
    return build(found, reading)


def _read_folder(folder: Path, reading: Reading, damaged: Literal["refuse", "skip"]) -> Dataset:
    if (folder / NAME).exists():
        return _ours(own.open(folder, damaged=damaged), reading, folder)
    roots = [folder / "data" / split for split in FIRST_SPLITS] + [folder / split for split in FIRST_SPLITS]
    found = {(root.name, path) for root in roots if root.is_dir() for path in _hdf5_in(root)}
    listed = sorted(found, key=lambda item: (FIRST_SPLITS.index(item[0]), item[1])) or [
        ("", path) for path in _hdf5_in(folder)
    ]
    if listed:
        return _of_well(listed, reading)
    singles = sorted(folder.glob("*.npy"))
    if singles:
        return build(arrays.find_npy({path.stem: path for path in singles}, folder), reading)
    raise InputError(f"{folder} has no manifest.json, no .hdf5 files of The Well and no .npy files")


def _hdf5_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".h5", ".hdf5"))


def _of_well(files: Sequence[tuple[str, Path]], reading: Reading) -> Dataset:
    """The dataset in files of The Well, each with the split that it belongs to."""
    described = [(split, path, *well.read_well(path, reading)) for split, path in files]
    same, others = common_parameters([description.parameters for _, _, description, _ in described])
    first = replace(described[0][2], parameters=same)
    parts = []
    for (split, path, description, part), numbers in zip(described, others, strict=True):
        own.check_same(first, replace(description, parameters=same), f"{files[0][1]} and {path}")
        parts.append(replace(part.with_parameters(numbers), split=split))
    return _completed(Dataset(first, parts), reading)


def _ours(dataset: Dataset, reading: Reading, path: Path) -> Dataset:
    refuse(reading, OWN, path)
    return _completed(dataset, reading)


def _completed(dataset: Dataset, reading: Reading) -> Dataset:
    described = dataset.description
    changed = replace(
        described,
        name=reading.name or described.name,
        equation=reading.equation or described.equation,
        inputs=reading.inputs or described.inputs,
        outputs=reading.outputs or described.outputs,
    )
    return Dataset(changed, dataset.parts, dataset.provenance, dataset.damaged)
