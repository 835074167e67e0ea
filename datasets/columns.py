"""The values of one field in one file, read when they are asked for.

No file stays open between reads, except HDF5 files of other programs whose arrays are cut into chunks, and those are
opened by every process for itself: HDF5 does not survive a fork.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import h5py
import numpy as np
import torch
from torch import Tensor

from sciml.errors import InputError

Array = np.ndarray[Any, Any]
Role = str | int
"""What an axis of a stored array is: "sample", "time", "component", "x", "y", "z", or the one index that is taken."""

_ORDER = ("sample", "time", "component", "component2", "x", "y", "z")


class Column(ABC):
    """The values of a field in one file."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """`([sample,] [time,] *components, *space)`, in the order in which values are read."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """As stored, in the byte order of this machine."""

    @abstractmethod
    def read(self, samples: Array | None, times: Array | None = None) -> Array:
        """Values in memory of their own.

        Args:
            samples: int64, `(n,)`; None of a field that has no axis of samples.
            times: int64, `(n,)`: one time for each sample, then without an axis of time; None: all of them.
        """


@final
@dataclass(frozen=True)
class StoredColumn(Column):
    """Values in one piece of a file, in the order of their axes: read without HDF5.

    Args:
        path: of the file.
        offset: of the first value, in bytes.
        stored: the shape in the file, `([sample,] [time,] *space, *components)`.
        kind: dtype in the file.
        leading: which of the axes "sample" and "time" there are.
        trailing: number of axes of components.
    """

    path: Path
    offset: int
    stored: tuple[int, ...]
    kind: np.dtype[Any]
    leading: tuple[str, ...]
    trailing: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        first, last = len(self.leading), len(self.stored) - self.trailing
        return (*self.stored[:first], *self.stored[last:], *self.stored[first:last])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.kind.newbyteorder("=")

    def read(self, samples: Array | None, times: Array | None = None) -> Array:
        axes = 0 if samples is None else 1
        rows = np.zeros(1, np.int64) if samples is None else samples
        if times is not None and "time" in self.leading:
            axes, rows = len(self.leading), rows * self.stored[axes] + times
        row = self.stored[axes:]
        values = np.empty((len(rows), *row), self.kind)
        self._fill(values, rows)
        if samples is None and times is None:
            values = values[0]
        inner = values.ndim - (len(self.stored) - len(self.leading))
        for place in range(self.trailing):
            values = np.moveaxis(values, values.ndim - self.trailing + place, inner + place)
        return np.ascontiguousarray(values, self.dtype)

    def _fill(self, values: Array, rows: Array) -> None:
        """Runs of rows that follow one another are read at once."""
        if not values.size:
            return
        size = values[0].nbytes
        target = values.reshape(-1).view(np.uint8).data
        starts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        try:
            with open(self.path, "rb", buffering=0) as file:
                for first, last in pairwise(starts):
                    place, done, end = self.offset + int(rows[first]) * size, first * size, last * size
                    while done < end:
                        got = os.preadv(file.fileno(), [target[done:end]], place)
                        if not got:
                            raise InputError(f"{self.path} is cut short: it ends before the values that it lists")
                        done, place = done + got, place + got
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error


@final
class ArrayColumn(Column):
    """Values in an array of another program, whose axes may stand in any order.

    Args:
        open_array: returns what is indexed as an array: one of numpy, mapped or in memory, or a dataset of HDF5. It
            goes to other processes with the column.
        shape: of the array.
        dtype: of the array.
        roles: of its axes, in their order.
    """

    def __init__(
        self, open_array: Callable[[], Any], shape: Sequence[int], dtype: np.dtype[Any], roles: Sequence[Role]
    ) -> None:
        self._open = open_array
        self._roles = tuple(roles)
        self._stored = tuple(shape)
        self._dtype = dtype.newbyteorder("=")
        kept = [role for role in self._roles if isinstance(role, str)]
        self._named = sorted(kept, key=_ORDER.index)
        self._axes = [kept.index(role) for role in self._named]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._stored[self._roles.index(role)] for role in self._named)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    def read(self, samples: Array | None, times: Array | None = None) -> Array:
        array = self._open()
        picks = times if "time" in self._named else None
        if isinstance(array, np.ndarray):
            view = self._logical(array, slice(None))
            index = tuple(part for part in (samples, picks) if part is not None)
            if samples is None and picks is not None:
                index = (picks,)
            return np.array(view[index] if index else view, self._dtype, order="C")
        if samples is None:
            whole = self._logical(array, slice(None))
            return np.array(whole if picks is None else whole[picks], self._dtype, order="C")
        unique, inverse = np.unique(samples, return_inverse=True)
        runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1) if len(unique) else []
        parts = [self._logical(array, slice(int(run[0]), int(run[-1]) + 1)) for run in runs]
        values = np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self._dtype)
        index = (inverse,) if picks is None else (inverse, picks)
        return np.array(values[index], self._dtype, order="C")

    def _logical(self, array: Any, samples: slice) -> Array:
        chosen: list[Any] = [
            role if isinstance(role, int) else samples if role == "sample" else slice(None) for role in self._roles
        ]
        return np.asarray(array[tuple(chosen)]).transpose(self._axes)


@final
class StackedColumn(Column):
    """Values of which every sample stands in an array of its own, as `columns` without an axis of samples."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._columns), *self._columns[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._columns[0].dtype

    def read(self, samples: Array | None, times: Array | None = None) -> Array:
        rows = range(len(self._columns)) if samples is None else [int(s) for s in samples]
        values = np.empty((len(rows), *self.shape[1 if times is None else 2 :]), self.dtype)
        for place, row in enumerate(rows):
            one = self._columns[row].read(None, None if times is None else times[place : place + 1])
            values[place] = one if times is None else one[0]
        return values


@final
class RepeatedColumn(Column):
    """Values that are the same along some axes of space, which `column` lacks.

    Args:
        column: the values once.
        missing: the axes of space it lacks, from 0.
        space: points along all axes of space.
    """

    def __init__(self, column: Column, missing: Sequence[int], space: Sequence[int]) -> None:
        self._column, self._missing, self._space = column, tuple(missing), tuple(space)

    @property
    def shape(self) -> tuple[int, ...]:
        stored = self._column.shape
        return (*stored[: len(stored) - (len(self._space) - len(self._missing))], *self._space)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._column.dtype

    def read(self, samples: Array | None, times: Array | None = None) -> Array:
        values = self._column.read(samples, times)
        leading = values.ndim - (len(self._space) - len(self._missing))
        whole = np.expand_dims(values, tuple(leading + axis for axis in self._missing))
        return np.array(np.broadcast_to(whole, (*values.shape[:leading], *self._space)), order="C")


@final
class Whole:
    """An array that can only be read as a whole: it is, when it is first needed, and then kept.

    Args:
        load: reads it; goes to other processes, which read it for themselves.
    """

    def __init__(self, load: Callable[[], Array]) -> None:
        self._load = load
        self._kept: Array | None = None

    def __call__(self) -> Array:
        if self._kept is None:
            self._kept = self._load()
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        return {"_load": self._load, "_kept": None}


@final
@dataclass(frozen=True, eq=False)
class Part:
    """The samples that one file holds, or several that belong together.

    Args:
        file: where they come from, for messages.
        samples: how many.
        columns: the values of every field.
        parameters: numbers that differ between samples, `(samples,)` each.
        split: which one they belong to; "" where nothing was said.
        identities: digests of their inputs, where the file bears them.
        digest: of the whole file, as its first bytes bear it; "" of other programs' files.
    """

    file: str
    samples: int
    columns: Mapping[str, Column]
    parameters: Mapping[str, Tensor]
    split: str = ""
    identities: tuple[str, ...] | None = None
    digest: str = ""

    def with_parameters(self, numbers: Mapping[str, float]) -> Part:
        """The same with more numbers, each the same for all its samples."""
        more = {name: torch.full((self.samples,), value, dtype=torch.float64) for name, value in numbers.items()}
        return replace(self, parameters={**self.parameters, **more})


class HDF5Files:
    """HDF5 files of other programs, each opened once a process and when it is first needed."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, Path], h5py.File] = {}

    def file(self, path: Path) -> h5py.File:
        """The open file.

        Raises:
            InputError: it is not HDF5, or is cut short.
        """
        key = os.getpid(), path
        if key not in self._open:
            try:
                self._open[key] = h5py.File(path, "r")
            except OSError as error:
                raise InputError(f"{path} cannot be read as HDF5: {error}") from error
        return self._open[key]

    def column(self, path: Path, name: str, roles: Sequence[Role]) -> Column:
        """The values of a dataset; past HDF5 where they stand in one piece."""
        dataset = self.file(path)[name]
        if Path(dataset.file.filename).resolve() != path.resolve():
            raise InputError(f"{path}: {name!r} is a link into {dataset.file.filename}; give that file instead")
        offset = dataset.id.get_offset()
        kept = [role for role in roles if isinstance(role, str)]
        leading = tuple(role for role in ("sample", "time") if role in kept)
        trailing = [role for role in kept if role.startswith("component")]
        wanted = [*leading, *(role for role in ("x", "y", "z") if role in kept), *trailing]
        single = all(isinstance(role, str) or n == 1 for role, n in zip(roles, dataset.shape, strict=True))
        plain = dataset.dtype.kind == "f" and math.prod(dataset.shape) > 0
        inside = dataset.chunks is None and not dataset.external and not dataset.is_virtual
        if offset is not None and inside and kept == wanted and single and plain:
            stored = tuple(n for role, n in zip(roles, dataset.shape, strict=True) if isinstance(role, str))
            return StoredColumn(path, offset, stored, dataset.dtype, leading, len(trailing))
        return ArrayColumn(partial(self._dataset, path, name), dataset.shape, dataset.dtype, roles)

    def _dataset(self, path: Path, name: str) -> h5py.Dataset:
        return self.file(path)[name]

    def close(self) -> None:
        """Close what this process has opened; columns read past HDF5 remain usable."""
        for key in [key for key in self._open if key[0] == os.getpid()]:
            self._open.pop(key).close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": {}}  # another process opens its own
