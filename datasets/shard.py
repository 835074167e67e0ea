"""One file of a dataset: HDF5 in the layout of The Well, https://github.com/PolymathicAI/the_well,
docs/data_format.md, which its readers open, made by `sciml.container`.

Fields of a steady problem are `time_varying = False` and `dimensions/time` holds one zero, so that The Well's own
reader gives them as constant fields. A number that is the same for all samples is a scalar of shape `()`: the text of
the specification has `(1,)`, which that reader cannot join with numbers that differ between samples. Components stand
last in the file, and before space here. What The Well has no place for stands in the group `sciml`: the dataset
`description`, one JSON text (grid with its boundary, equation, units, inputs and outputs, notes), and `identities`, the
digests of the inputs of all samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from sciml import container
from sciml.boundary import SidesByAxis, suggestion
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.storage_of_grids import describe_side, write_boundaries
from sciml.well import Arrays, Category, dtype_name, numpy_of, write_frame

from .columns import Array
from .description import Description
from .manifest import FORMAT, KIND, ShardEntry, shard_file

_NAMES = ("t0_fields", "t1_fields", "t2_fields")


def write_shard(
    folder: str | os.PathLike[str],
    split: str,
    number: int,
    description: Description,
    values: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor] | None = None,
) -> ShardEntry:
    """Write data/`split`/shard-`number`.hdf5 in `folder`, whole or not at all; the same content gives the same bytes.

    The file is made in memory first.

    Args:
        folder: of the dataset; made if need be, as is what lies below.
        split: train, valid, test or another word.
        number: of the file within the split, from 0.
        description: what all files of the dataset share.
        values: of every field of the description, `([n,] [time,] *components, *space)`, with n where it varies between
            samples; float32 or float64, and stored so.
        parameters: numbers that differ between samples, `(n,)` each.

    Returns:
        What the manifest is to say of the file.

    Raises:
        InputError: a name is missing or unknown, a shape or dtype does not fit, or a value is NaN or infinite; it says
            which, and of which sample.
        OSError: the disk is full or not writable; what stood there before is unharmed.
    """
    path = Path(folder) / shard_file(split, number)
    content = _Content(description, values, dict(parameters or {}), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    container.write(path, KIND, FORMAT, content.fill)
    size, digest = container.check(path, KIND, FORMAT, content=False)
    return ShardEntry(split, number, content.samples, size, digest, content.identities)


def inspect_shard(folder: str | os.PathLike[str], split: str, number: int) -> ShardEntry | None:
    """What the manifest is to say of a shard that `write_shard` made; None if there is no such file.

    Raises:
        InputError: the file is damaged, or not a shard.
    """
    path = Path(folder) / shard_file(split, number)
    if not path.exists():
        return None
    size, digest = container.check(path, KIND, FORMAT)
    with container.reading(path, KIND) as file:
        names = read_identities(file)
        return ShardEntry(split, number, int(file.attrs["n_trajectories"]), size, digest, names)


def read_identities(file: h5py.File) -> tuple[str, ...]:
    """The identities of the samples of an open shard."""
    return tuple(row.tobytes().hex() for row in file["sciml/identities"][()])


def input_names(description: Description, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields and parameters that determine a sample: those named, else all that vary between samples."""
    if description.inputs:
        return tuple(n for n in description.inputs if n not in description.fields or varies(description, n))
    return (*(name for name in description.fields if varies(description, name)), *parameters)


def varies(description: Description, name: str) -> bool:
    """Whether a field differs between samples."""
    return description.fields[name].sample_varying


def identify(description: Description, values: Mapping[str, Array], parameters: Mapping[str, Array]) -> list[str]:
    """Digest of the inputs of every sample.

    Args:
        description: names the inputs.
        values: of fields, each with its axis of samples; of an evolving one the first time only.
        parameters: `(n,)` each.
    """
    names = [name for name in input_names(description, parameters) if name in values or name in parameters]
    arrays = {name: np.ascontiguousarray(values[name] if name in values else parameters[name]) for name in names}
    heads = {name: f"{name} {array.dtype.str} {array.shape[1:]}\n".encode() for name, array in arrays.items()}
    found = []
    for row in range(len(next(iter(arrays.values()))) if arrays else 0):
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(heads[name])
            digest.update(arrays[name][row].tobytes())
        found.append(digest.hexdigest()[:32])
    return found


@dataclass
class _Content:
    description: Description
    values: Mapping[str, Tensor]
    parameters: dict[str, Tensor]
    where: str
    samples: int = field(init=False)
    arrays: dict[str, Array] = field(init=False)
    identities: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        known = self.description.fields
        for name in self.values:
            if name not in known:
                raise InputError(f"{self.where}: values of {name!r}, which is no field of it{suggestion(name, known)}")
        missing = [name for name in known if name not in self.values]
        if missing:
            raise InputError(f"{self.where}: the values of field {missing[0]!r} are missing")
        for name in self.parameters:
            if name in known or name in self.description.parameters:
                raise InputError(f"{self.where}: the parameter {name!r} is also a field, or the same for all samples")
        self.samples = self._count()
        self.arrays = {name: self._checked(name) for name in known}
        self.parameters = {name: self._checked_parameter(name) for name in self.parameters}
        for name in self.description.inputs:
            if name not in known and name not in self.parameters:
                raise InputError(
                    f"{self.where}: the input {name!r} is no field and no parameter that varies between samples"
                    f"{suggestion(name, (*known, *self.parameters))}"
                )
        first = {
            name: array[:, 0] if known[name].time_varying else array
            for name, array in self.arrays.items()
            if known[name].sample_varying
        }
        scalars = {name: numpy_of(tensor) for name, tensor in self.parameters.items()}
        self.identities = tuple(identify(self.description, first, scalars))
        if len(self.identities) != self.samples:
            raise InputError(
                f"{self.where}: none of the inputs varies between samples, so that nothing tells them apart"
            )

    def _count(self) -> int:
        lengths = {name: len(self.values[name]) for name in self.description.fields if varies(self.description, name)}
        lengths.update({name: len(tensor) for name, tensor in self.parameters.items() if tensor.ndim})
        if not lengths:
            raise InputError(f"{self.where}: no field varies between samples")
        if len(set(lengths.values())) > 1 or not next(iter(lengths.values())):
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InputError(f"{self.where}: every field and parameter needs the same number of samples; got {listed}")
        return next(iter(lengths.values()))

    def _checked(self, name: str) -> Array:
        value, expected = self.values[name], self.description.shape(name, self.samples)
        if value.dtype not in (torch.float32, torch.float64):
            raise InputError(f"{self.where}: field {name!r} is float32 or float64, got {value.dtype}")
        if tuple(value.shape) != expected:
            raise InputError(f"{self.where}: field {name!r} has shape {tuple(value.shape)}, expected {expected}")
        array = numpy_of(value)
        self._refuse_infinite(name, array, varies(self.description, name))
        return array

    def _checked_parameter(self, name: str) -> Tensor:
        value = self.parameters[name]
        if tuple(value.shape) != (self.samples,) or not value.is_floating_point():
            raise InputError(
                f"{self.where}: parameter {name!r} is one number a sample, shape ({self.samples},), of a floating "
                f"dtype; got {tuple(value.shape)}, {value.dtype}"
            )
        self._refuse_infinite(name, numpy_of(value), True)
        return value

    def _refuse_infinite(self, name: str, array: Array, by_sample: bool) -> None:
        bad = ~np.isfinite(array)
        if bad.any():
            place = f", first in sample {int(bad.reshape(len(array), -1).any(1).argmax())}" if by_sample else ""
            raise InputError(f"{self.where}: {int(bad.sum())} values of {name!r} are NaN or infinite{place}")

    def fill(self, file: h5py.File) -> None:
        """Write all of it."""
        description = self.description
        grid = description.grid
        by_unknown = next(iter(grid.boundary)) not in grid.axes
        boundary: dict[str, SidesByAxis] = grid.boundary if by_unknown else {"": grid.boundary}
        places, times = description.places, description.times
        coordinates = places.axis_coordinates
        group = write_frame(
            file, description.name, description.parameters, "cartesian", self.samples, coordinates, times
        )
        write_boundaries(group, places, boundary)
        scalars = Category(file, "scalars")
        for name, number in description.parameters.items():
            scalars.add(name, np.array(number), sample_varying=False, time_varying=False)
        for name, tensor in self.parameters.items():
            scalars.add(name, numpy_of(tensor), sample_varying=True, time_varying=False)
        orders = [Category(file, name) for name in _NAMES]
        for name, kind in description.fields.items():
            trailing = len(kind.components)
            first = self.arrays[name].ndim - grid.dimension - trailing
            array = np.moveaxis(self.arrays[name], range(first, first + trailing), range(-trailing, 0))
            more = {"symmetric": False, "antisymmetric": False} if trailing == 2 else {}
            orders[trailing].add(
                name,
                array,
                sample_varying=kind.sample_varying,
                time_varying=kind.time_varying,
                dim_varying=[True] * grid.dimension,
                **more,
            )
        own = file.create_group("sciml")
        arrays = Arrays(own)
        described = {
            "grid": describe_grid(grid, boundary, arrays),
            "equation": None if description.equation is None else description.equation.to_json(),
            "steady": times is None,
            "fields": list(description.fields),
            "units": {name: kind.unit for name, kind in description.fields.items() if kind.unit},
            "inputs": description.inputs,
            "outputs": description.outputs,
            "points": description.points,
            "notes": description.notes,
        }
        own["description"] = json.dumps(described, indent=1)
        digests = [np.frombuffer(bytes.fromhex(identity), np.uint8) for identity in self.identities]
        own["identities"] = np.stack(digests)


def describe_grid(grid: Grid, boundary: Mapping[str, SidesByAxis], arrays: Arrays) -> dict[str, Any]:
    """What the description says of a grid; `boundary` by unknown, or by "" for all of them."""
    walls = {"": grid.walls} if not isinstance(grid.walls, Mapping) else grid.walls
    for condition in walls.values():
        if any(callable(value) and not isinstance(value, Tensor) for value in vars(condition).values()):
            raise InputError("dataset: a condition on walls that is a function cannot be stored; give a number")
    return {
        "shape": grid.shape,
        "lower": grid.lower,
        "upper": grid.upper,
        "dtype": dtype_name(grid.dtype),
        "boundary": {
            unknown: {
                axis: [
                    describe_side(c, grid, k, side, arrays, f"{unknown or 'all'}/{axis}", None)
                    for side, c in enumerate(sides[axis])
                ]
                for k, axis in enumerate(grid.axes)
            }
            for unknown, sides in boundary.items()
        },
        "walls": {
            unknown: {
                "kind": type(condition).__name__,
                **{w: arrays.keep(f"walls/{unknown or 'all'}/{w}", v) for w, v in vars(condition).items()},
            }
            for unknown, condition in walls.items()
        },
        "solid": None if grid.solid is None else arrays.put("solid", grid.solid),
    }
