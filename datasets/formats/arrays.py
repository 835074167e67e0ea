"""NumPy's .npy and .npz, and safetensors: arrays by name, of which nothing else is said. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import InputError

from ..columns import Array, ArrayColumn
from .reading import Found, Raw


def find_npy(paths: Mapping[str, Path], where: Path) -> Found:
    """Arrays in .npy files, by the names that they are to have; they are mapped, not loaded.

    Raises:
        InputError: a file is damaged, or holds objects, which would have to be unpickled.
    """

    def raw(path: Path) -> Raw:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{path} cannot be read as an .npy file of numbers: {error}") from error
        return Raw(tuple(array.shape), lambda roles: ArrayColumn(lambda: array, roles))

    return Found(where, {name: raw(path) for name, path in paths.items()})


def find_npz(path: Path) -> Found:
    """Arrays in an .npz file, each of which is loaded as a whole when it is needed.

    Raises:
        InputError: the file is damaged, or holds objects.
    """

    @cache
    def load(name: str) -> Array:
        try:
            with np.load(path, allow_pickle=False) as archive:
                array: Array = archive[name]
                return array
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
            raise InputError(f"{path}: {name!r} cannot be read as an array of numbers: {error}") from error

    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an .npz file: {error}") from error

    def raw(name: str) -> Raw:
        return Raw(tuple(load(name).shape), lambda roles: ArrayColumn(lambda: load(name), roles))

    return Found(path, {name: raw(name) for name in names})


class _Slices:
    """A tensor in a safetensors file, read in slices as an array of NumPy is."""

    def __init__(self, path: Path, name: str) -> None:
        from safetensors import safe_open

        self._path, self._name, self._open = path, name, safe_open
        with self._open(path, "pt") as file:
            part = file.get_slice(name)
            self.shape = tuple(part.get_shape())
            kinds = {"F64": "f8", "F32": "f4", "F16": "f4", "BF16": "f4"}
            self.dtype = np.dtype(kinds.get(part.get_dtype(), "O"))

    def __getitem__(self, index: tuple[Any, ...]) -> Array:
        with self._open(self._path, "pt") as file:
            part = file.get_slice(self._name)[index]
            array: Array = (part if self.dtype.itemsize == 8 else part.float()).numpy()
            return array


def find_safetensors(path: Path) -> Found:
    """Tensors in a safetensors file, read in slices.

    Raises:
        InputError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = sorted(file.keys())
        tensors = {name: _Slices(path, name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a safetensors file: {error}") from error

    def raw(tensor: _Slices) -> Raw:
        return Raw(tensor.shape, lambda roles: ArrayColumn(lambda: tensor, roles))

    return Found(path, {name: raw(tensor) for name, tensor in tensors.items()})
