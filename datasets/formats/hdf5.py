"""Arrays of real numbers in HDF5 files, and files of nobody's layout."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import h5py

from sciml.errors import InputError

from ..columns import HDF5Files
from .reading import Found, Raw


def find(path: Path, files: HDF5Files) -> Found:
    """All arrays of a file, by their place in it; those of more than one axis are taken as fields.

    Raises:
        InputError: there are none.
    """
    places: list[str] = []
    files.file(path).visititems(lambda name, item: places.append(name) if isinstance(item, h5py.Dataset) else None)
    arrays, others = read_arrays(path, places, files)
    if not places:
        raise InputError(f"{path} is an HDF5 file without arrays")
    return Found(path, arrays, {name: name for name, raw in arrays.items() if len(raw.shape) > 1}, others=others)


def read_arrays(path: Path, places: Iterable[str], files: HDF5Files) -> tuple[dict[str, Raw], dict[str, str]]:
    """The arrays at these places, and of what is none of real numbers what it is."""
    file = files.file(path)
    arrays: dict[str, Raw] = {}
    others: dict[str, str] = {}
    for place in places:
        item = file.get(place)
        try:
            kind = item.dtype if isinstance(item, h5py.Dataset) else None
        except TypeError:  # NumPy has no such type
            kind = None
        if kind is None:
            others[place] = "no array"
        elif item.shape is None:
            others[place] = "an empty array"
        elif kind.kind == "O":
            others[place] = "text" if h5py.check_string_dtype(kind) else "lists or references"
        elif kind.kind not in "fiu":
            others[place] = f"{kind} values"
        else:
            arrays[place] = Raw(item.shape, partial(files.column, path, place))
    return arrays, others
