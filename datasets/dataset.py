"""Datasets: samples of fields on one grid, read from files when they are asked for."""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from sciml import container
from sciml.boundary import suggestion
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.training import Samples

from .columns import Array, Column, HDF5Files, Part
from .description import Description, Field, Points
from .manifest import FORMAT, KIND, Manifest, split_order
from .samples import make_samples
from .shard import identify, input_names, read_identities, varies
from .well_layout import read_layout

_BLOCK = 1 << 26  # bytes that are read at a time where all of a field is gone through


@final
class Dataset:
    """Samples of fields on one grid; `open` makes it of files.

    No value is read before it is asked for, and no file stays open: a dataset may be larger than the memory, may go to
    other processes, and may be there before a fork.

    Args:
        description: what the samples share.
        parts: the files, in the order of the samples.
        provenance: where the data come from, as the manifest has it.
        damaged: files that were left out, and why.

    Raises:
        InputError: the files have different parameters.
    """

    def __init__(
        self,
        description: Description,
        parts: Sequence[Part],
        provenance: Mapping[str, Any] | None = None,
        damaged: Mapping[str, str] | None = None,
    ) -> None:
        self.description = description
        self.parts = tuple(parts)
        self.provenance = dict(provenance or {})
        self.damaged = dict(damaged or {})
        names = {tuple(sorted(part.parameters)) for part in self.parts}
        if len(names) > 1:
            raise InputError(f"dataset {self.name!r}: its files have different parameters: {sorted(names)}")
        self._ends = np.cumsum([part.samples for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def __repr__(self) -> str:
        counts = "".join(f", {len(self.split(name))} {name}" for name in self.splits)
        return f"Dataset({self.name!r}, {len(self)} samples{counts}; fields {', '.join(self.fields)})"

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def equation(self) -> Equation | None:
        """What the fields satisfy; None where that is not known."""
        return self.description.equation

    @property
    def grid(self) -> Grid:
        """The grid whose unknowns stand where the values do.

        It is `domain`, but for values that stand on the boundary ("nodes"): then it reaches half a spacing beyond, and
        says nothing of the conditions there, so that no equation is solved on it by mistake.
        """
        return self.description.places

    @property
    def domain(self) -> Grid:
        """The domain with the conditions on its boundary, on which equations are solved; its unknowns stand between the
        values of a dataset whose `points` are "nodes"."""
        return self.description.grid

    @property
    def times(self) -> Tensor | None:
        """`(time,)`, float64; None of a steady problem."""
        return self.description.times

    @property
    def fields(self) -> Mapping[str, Field]:
        """How every field varies, by name."""
        return self.description.fields

    @property
    def points(self) -> Points:
        """Whether values stand at cell centres or also on the boundary."""
        return self.description.points

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the fields and parameters that determine a sample; empty where that was not said."""
        return self.description.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the fields that are to be predicted; empty where that was not said."""
        return self.description.outputs

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user of the data should know."""
        return self.description.notes

    @cached_property
    def parameters(self) -> dict[str, float | Tensor]:
        """Numbers by name: one for all samples, or `(len(self),)` in float64."""
        varying = self.parts[0].parameters if self.parts else ()
        joined = {name: torch.cat([part.parameters[name].double() for part in self.parts]) for name in varying}
        return {**self.description.parameters, **joined}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, train, valid and test first."""
        return tuple(sorted({part.split for part in self.parts if part.split}, key=split_order))

    def split(self, name: str) -> Dataset:
        """The samples of one split.

        Raises:
            InputError: there is no such split; it says which there are.
        """
        parts = [part for part in self.parts if part.split == name]
        if not name or not parts:
            raise InputError(f"dataset {self.name!r} has no split {name!r}{suggestion(name, self.splits)}")
        return Dataset(self.description, parts, self.provenance, self.damaged)

    @property
    def digest(self) -> str:
        """Of all values, from what the files bear: another one where a file is another, or is left out."""
        return hashlib.sha256(" ".join(part.digest for part in self.parts).encode()).hexdigest()

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """Digests of the inputs of all samples, as the files bear them, or made now where they bear none."""
        found: list[str] = []
        for part in self.parts:
            if part.identities is not None:
                found += part.identities
            else:
                found += self.identities_of(part)
        return tuple(found)

    def identities_of(self, part: Part) -> list[str]:
        """Digests of the inputs of the samples of one file, from its values."""
        names = input_names(self.description, part.parameters)
        fields = [name for name in names if name in self.fields and varies(self.description, name)]
        if not fields and not any(name in part.parameters for name in names):
            raise InputError(f"{part.file}: none of the inputs {', '.join(names)} varies between samples")
        scalars = {name: part.parameters[name].numpy() for name in names if name in part.parameters}
        found: list[str] = []
        for rows in self._blocks(part, fields):
            first = np.zeros(len(rows), np.int64)
            values = {n: part.columns[n].read(rows, first if self.fields[n].time_varying else None) for n in fields}
            found += identify(self.description, values, {name: scalars[name][rows] for name in scalars})
        return found

    def read(
        self,
        name: str,
        indices: Tensor | Sequence[int] | None = None,
        times: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """Values of a field or of a parameter.

        Args:
            name: of either.
            indices: of samples, int64, `(n,)`, in any order; None: all.
            times: indices into `times`, `(n,)`: one for each sample, whose axis of time then goes; None: all times.

        Returns:
            `(n, [time,] *components, *space)` as stored, or `(n,)` of a parameter; a field that is the same for all
            samples is repeated without taking memory.

        Raises:
            InputError: an unknown name, or an index outside the dataset.
        """
        rows = self._rows(indices, len(self), "sample")
        if name not in self.fields:
            return self._read_parameter(name, rows)
        kind = self.fields[name]
        picks = None
        if times is not None and kind.time_varying:
            picks = self._rows(times, len(torch.as_tensor(self.times)), "time")
            if len(picks) != len(rows):
                raise InputError(f"one time for each of {len(rows)} samples is needed, got {len(picks)}")
        if not kind.sample_varying:
            column = self.parts[0].columns[name]
            if picks is not None:
                return torch.from_numpy(column.read(None, picks))
            whole = torch.from_numpy(column.read(None))
            return whole.expand(len(rows), *whole.shape)
        return torch.from_numpy(self._gather(name, rows, picks))

    def part_of(self, sample: int) -> Part:
        """The file that a sample stands in."""
        return self.parts[int(np.searchsorted(self._ends, sample, side="right"))]

    def blocks(self, names: Sequence[str]) -> Iterator[tuple[Part, Array, dict[str, Array]]]:
        """All values of some fields that vary between samples, a few samples at a time.

        Yields:
            The file, the samples in it, and their values by field.
        """
        for part in self.parts:
            for rows in self._blocks(part, names):
                yield part, rows, {name: part.columns[name].read(rows) for name in names}

    def samples(
        self,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        steps: int | None = None,
        memory: int = 2 << 30,
    ) -> Samples:
        """What a network is trained with: `{"input": (n, channel, *space), "output": (n, channel, *space)}`, float32.

        A scalar field makes one channel, a vector as many as it has components, a parameter a constant one. Where a
        field is both input and output every pair of its values `steps` times apart is a sample. Otherwise an evolving
        input stands for its first time and an evolving output for its last.

        Args:
            inputs: names of fields and parameters; None: the dataset's.
            outputs: names of fields; None: the dataset's.
            steps: how far apart in time input and output are where the same field is both; None: 1.
            memory: bytes up to which all values are held in memory; beyond it they are read batch by batch.

        Raises:
            InputError: an unknown name, none named where the dataset names none, or steps that do not fit.
        """
        return make_samples(self, inputs, outputs, steps, memory)

    def _rows(self, indices: Tensor | Sequence[int] | None, length: int, what: str) -> Array:
        if indices is None:
            return np.arange(length, dtype=np.int64)
        rows = torch.as_tensor(indices).cpu()
        if rows.numel() == 0:
            return np.empty(0, np.int64)
        if rows.ndim != 1 or rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
            raise InputError(f"{what} indices are integers in one axis, got {tuple(rows.shape)}, {rows.dtype}")
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high >= length:
            raise InputError(f"{what} {low if low < 0 else high} of dataset {self.name!r}, which has {length}")
        return rows.to(torch.int64).numpy()

    def _read_parameter(self, name: str, rows: Array) -> Tensor:
        if name not in self.parameters:
            known = (*self.fields, *self.parameters)
            raise InputError(f"dataset {self.name!r} has no field or parameter {name!r}{suggestion(name, known)}")
        value = self.parameters[name]
        if isinstance(value, Tensor):
            return value[torch.from_numpy(rows)]
        return torch.full((len(rows),), value, dtype=torch.float64)

    def _gather(self, name: str, rows: Array, times: Array | None) -> Array:
        owner = np.searchsorted(self._ends, rows, side="right")
        present = np.unique(owner)
        first = self.parts[0].columns[name]
        if len(present) == 1:
            return self._read_part(int(present[0]), name, rows, times)
        values = np.empty((len(rows), *first.shape[1 if times is None else 2 :]), first.dtype)
        for number in present:
            here = owner == number
            values[here] = self._read_part(int(number), name, rows[here], None if times is None else times[here])
        return values

    def _read_part(self, number: int, name: str, rows: Array, times: Array | None) -> Array:
        part = self.parts[number]
        return part.columns[name].read(rows - (int(self._ends[number]) - part.samples), times)

    def _blocks(self, part: Part, names: Sequence[str]) -> Iterator[Array]:
        size = sum(_row_bytes(part.columns[name]) for name in names)
        count = max(1, _BLOCK // max(size, 1))
        for start in range(0, part.samples, count):
            yield np.arange(start, min(start + count, part.samples), dtype=np.int64)


def _row_bytes(column: Column) -> int:
    return int(np.prod(column.shape[1:], dtype=np.int64)) * column.dtype.itemsize


def open(
    path: str | os.PathLike[str], *, damaged: Literal["refuse", "skip"] = "refuse", verify: bool = True
) -> Dataset:
    """Open a dataset.

    Args:
        path: the folder with its manifest.json, or one of its files.
        damaged: "refuse" files that are missing, cut short or changed, or "skip" them and use the rest: they are then
            listed in `damaged`.
        verify: False compares the lengths of the files only, and does not read them through.

    Raises:
        InputError: there is no dataset, it is damaged, or of a newer version; a sample stands in two splits.
    """
    if damaged not in ("refuse", "skip"):
        raise InputError(f"damaged is 'refuse' or 'skip', got {damaged!r}")
    place = Path(path)
    if place.is_dir():
        return _open_folder(place, damaged == "skip", verify)
    if not place.exists():
        raise InputError(f"{place} does not exist; a dataset is a folder with manifest.json, or one of its files")
    _, digest = container.check(place, KIND, FORMAT, content=verify)
    description, part = _read_checked(place)
    with container.reading(place, KIND) as file:
        return Dataset(description, [replace(part, identities=read_identities(file), digest=digest)])


def _open_folder(folder: Path, skip: bool, verify: bool) -> Dataset:
    manifest = Manifest.read(folder)
    bad = manifest.damaged(folder, content=verify)
    if bad and not skip:
        reasons = "\n".join(f"  {reason}" for reason in bad.values())
        raise InputError(
            f"{len(bad)} of the {len(manifest.shards)} files of the dataset {folder} cannot be used:\n{reasons}\n"
            "make them again, or use the rest (damaged='skip', --skip-damaged)"
        )
    usable = [shard for shard in manifest.shards if shard not in bad]
    if not usable:
        raise InputError(f"none of the {len(manifest.shards)} files of the dataset {folder} can be used: make it again")
    parts = []
    described: list[Description] = []
    for shard in usable:
        found, part = _read_checked(folder / shard.file)
        described.append(found)
        check_same(described[0], found, f"{folder / usable[0].file} and {folder / shard.file}")
        if part.samples != shard.samples:
            raise InputError(f"{folder / shard.file} holds {part.samples} samples, the manifest lists {shard.samples}")
        parts.append(
            replace(part, split=shard.split, file=shard.file, identities=shard.identities, digest=shard.sha256)
        )
    return Dataset(described[0], parts, manifest.provenance, {shard.file: why for shard, why in bad.items()})


def _read_checked(path: Path) -> tuple[Description, Part]:
    """What a file that has been checked holds; it is not left open."""
    files = HDF5Files()
    try:
        return read_layout(path, files)
    finally:
        files.close()


def check_same(one: Description, other: Description, where: str) -> None:
    """Refuse files of one dataset that differ in what all of them must share."""
    compared: dict[str, Callable[[Description], Any]] = {
        "fields": lambda d: dict(d.fields),
        "grid": lambda d: (d.places.shape, d.grid.lower, d.grid.upper),
        "boundary": lambda d: _conditions(d.grid),
        "times": lambda d: None if d.times is None else d.times.tolist(),
        "points": lambda d: d.points,
        "equation": lambda d: None if d.equation is None else d.equation.to_json(),
        "parameters": lambda d: dict(d.parameters),
        "inputs": lambda d: d.inputs,
        "outputs": lambda d: d.outputs,
    }
    for name, part in compared.items():
        if part(one) != part(other):
            found = f"{reprlib.repr(part(one))} and {reprlib.repr(part(other))}"
            raise InputError(f"{where} are files of one dataset and differ in {name}: {found}")


def _conditions(grid: Grid) -> dict[str, Any]:
    """Kind and values of the condition on every side, which can be compared."""
    by_unknown = {"": grid.boundary} if next(iter(grid.boundary)) in grid.axes else grid.boundary
    return {
        f"{axis}_{side}{unknown and f' for {unknown}'}": (
            type(condition).__name__,
            [value.tolist() if isinstance(value, Tensor) else value for value in vars(condition).values()],
        )
        for unknown, sides in by_unknown.items()
        for axis, pair in sides.items()
        for side, condition in zip(("lower", "upper"), pair, strict=True)
    }
