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
        try:
            item = file[place]
            kind = item.dtype
        except (KeyError, TypeError, AttributeError) as error:  # a link to nothing, a type NumPy has not, a group
            others[place] = f"nothing that can be read ({error})"
            continue
        if kind.kind not in "fiu" or item.shape is None:
            others[place] = f"{kind} values" if item.shape is not None else "an empty array"
        else:
            arrays[place] = Raw(item.shape, partial(files.column, path, place))
    return arrays, others
