"""NumPy's .npy and .npz, and safetensors: arrays by name, of which nothing else is said. Nothing is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import InputError

from ..columns import Array, ArrayColumn, Whole
from .reading import Found, Raw


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn what NumPy raises on damage, which has no common kind, into a message."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(f"{what}: {(str(error) or type(error).__name__).splitlines()[0]}") from error


def find_npy(paths: Mapping[str, Path], where: Path) -> Found:
    """Arrays in .npy files, by the names that they are to have; they are mapped, not loaded.

    Raises:
        InputError: a file is damaged, or holds objects, which would have to be unpickled.
    """

    def raw(path: Path) -> Raw:
        array = _map(path)
        return Raw(tuple(array.shape), partial(ArrayColumn, Whole(partial(_map, path)), array.shape, array.dtype))

    return Found(where, {name: raw(path) for name, path in paths.items()})


def _map(path: Path) -> Array:
    with _reading(f"{path} cannot be read as an .npy file of numbers"):
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def find_npz(path: Path) -> Found:
    """Arrays in an .npz file: of each only its header is read, and the whole of it when it is first needed.

    Raises:
        InputError: the file is damaged, or holds objects.
    """
    with _reading(f"{path} cannot be read as an .npz file of numbers"), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        headers = {name.removesuffix(".npy"): _header(archive, name) for name in names}
    arrays: dict[str, Raw] = {}
    others: dict[str, str] = {}
    for name, (shape, dtype) in headers.items():
        if dtype.hasobject:
            others[name] = "Python objects, which are never unpickled"
        elif dtype.kind not in "fiu":
            others[name] = f"{dtype} values"
        else:
            arrays[name] = Raw(shape, partial(ArrayColumn, Whole(partial(_load, path, name)), shape, dtype))
    return Found(path, arrays, others=others)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name!r} is of version {version[0]}.{version[1]}, which holds records and no numbers")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        end = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (not dtype.hasobject and end != archive.getinfo(name).file_size):
        raise ValueError(f"{name!r} is damaged: its length is not that of {dtype} values of shape {shape}")
    return shape, dtype


def _load(path: Path, name: str) -> Array:
    with _reading(f"{path}: {name!r} cannot be read as an array of numbers"):
        with np.load(path, allow_pickle=False) as archive:
            array: Array = archive[name]
    return array


_DTYPES = {  # of NumPy, in which values are read: it has neither bfloat16 nor floats of 8 bits
    "F64": "f8",
    "F32": "f4",
    "F16": "f4",
    "BF16": "f4",
    "F8_E4M3": "f4",
    "F8_E5M2": "f4",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
}


class _Slices:
    """A tensor in a safetensors file, read in slices as an array of NumPy is."""

    def __init__(self, path: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._path, self._name, self._dtype = path, name, dtype

    def __call__(self) -> _Slices:
        return self

    def __getitem__(self, index: tuple[Any, ...]) -> Array:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, "pt") as file:
                part = file.get_slice(self._name)[index]
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self._path}: {self._name!r} cannot be read: {error}") from error
        return np.asarray((part.float() if self._dtype == np.float32 else part).numpy(), self._dtype)


def find_safetensors(path: Path) -> Found:
    """Tensors in a safetensors file, read in slices.

    Raises:
        InputError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, Raw] = {}
    others: dict[str, str] = {}
    try:
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                part = file.get_slice(name)
                kind, shape = part.get_dtype(), tuple(part.get_shape())
                if kind in _DTYPES:
                    dtype = np.dtype(_DTYPES[kind])
                    found[name] = Raw(shape, partial(ArrayColumn, _Slices(path, name, dtype), shape, dtype))
                else:
                    others[name] = f"values of the kind {kind}"
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a safetensors file: {error}") from error
    return Found(path, found, others=others)
