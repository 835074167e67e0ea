"""From arrays in a file of another program to a dataset: what the file says, what its project documents, and what the
caller says where neither does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.boundary import AXES, Boundary, Unstated, suggestion
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid

from ..columns import Column, Part, Role
from ..dataset import Dataset
from ..description import Description, Field, Points, is_name
from ..spacing import grid_at, grid_over

OWN = ("fields", "axes", "points", "boundary", "lower", "upper", "times")
"""What of a `Reading` a file with a description of ours says itself."""
WELL = ("fields", "axes", "times")
"""What any file of The Well says itself."""
ROLES = ("sample", "time", "component", "channel", "x", "y", "z", "-")


@dataclass(frozen=True)
class Reading:
    """What a caller says of a file where it does not say it itself; anything given here goes before what is known.

    Args:
        fields: name of each field -> name of its array in the file; empty: those that are known, or all that fit.
        axes: name of a field or of its array -> what its axes are, each one of "sample", "time", "x", "y", "z",
            "component" (of a vector), "channel" (each becomes a field of its own), "-" (of length 1, left out).
        inputs: names of fields that determine a sample.
        outputs: names of fields that are to be predicted.
        points: "cells" or "nodes", the latter if values stand on the boundary.
        boundary: as of a `Grid`.
        lower: corner of the domain, one number an axis.
        upper: corner of the domain.
        times: of evolving fields.
        name: of the dataset.
        equation: that the fields satisfy.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    points: Points | None = None
    boundary: Boundary | None = None
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    times: tuple[float, ...] | None = None
    name: str | None = None
    equation: Equation | None = None


def refuse(reading: Reading, names: Sequence[str], path: Path) -> None:
    """Refuse what a caller says of a file that says it itself.

    Args:
        reading: what the caller says.
        names: of what the file says itself.
        path: of the file.
    """
    given = [name for name in names if getattr(reading, name)]
    if given:
        raise InputError(f"{path} says itself what it holds; {', '.join(given)} cannot be given for it")


@dataclass(frozen=True)
class Raw:
    """An array in a file.

    Args:
        shape: as the program that wrote it has it.
        column: makes what reads it, from what its axes are.
    """

    shape: tuple[int, ...]
    column: Callable[[Sequence[Role]], Column]


@dataclass(frozen=True)
class Found:
    """What a file holds, and what its project documents of it.

    Args:
        path: of the file.
        arrays: all that can be fields.
        fields: name of each field -> array, where the project documents it.
        axes: of arrays, where documented.
        coordinates: by axis, where the file has them.
        times: where the file has them; more than the fields have are cut.
        parameters: numbers, one for all samples.
        boundary: where documented.
        points: where documented; None is taken as "cells", with a note.
        unit: whether the domain is documented to be 1 along each axis.
        inputs: where documented.
        outputs: where documented.
        equation: as text, where documented.
        notes: on all of this.
        others: what else stands in the file by name, and what it holds in place of real numbers.
    """

    path: Path
    arrays: Mapping[str, Raw]
    fields: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    coordinates: Mapping[str, Tensor] = field(default_factory=dict)
    times: Tensor | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    boundary: Boundary | None = None
    points: Points | None = None
    unit: bool = False
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    equation: Equation | None = None
    notes: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)


def build(found: Found, reading: Reading) -> Dataset:
    """The dataset, of which no value is read yet.

    Raises:
        InputError: an array, an axis or a length is missing or does not fit; it says which, and what is expected.
    """
    try:
        return _build(found, reading)
    except InputError as error:
        raise InputError(f"{found.path}: {error}") from error


def _build(found: Found, reading: Reading) -> Dataset:
    chosen = dict(reading.fields or found.fields or {name: name for name in found.arrays})
    if not chosen:
        held = "; ".join(f"{name!r} holds {what}" for name, what in found.others.items())
        raise InputError(f"it holds no array of real numbers{f': {held}' if held else ''}")
    for stray in reading.axes:
        if stray not in chosen and stray not in chosen.values():
            raise InputError(f"axes are given of {stray!r}, which is none of the fields {', '.join(chosen)}")
    columns: dict[str, Column] = {}
    kinds: dict[str, Field] = {}
    lengths: dict[str, tuple[int, str]] = {}
    labels: dict[str, list[str]] = {}
    for name, array in chosen.items():
        if array in found.others:
            raise InputError(f"{array!r} holds {found.others[array]}; an array of real numbers is needed")
        if array not in found.arrays:
            raise InputError(f"it has no array {array!r}{suggestion(array, found.arrays)}")
        if not is_name(name):
            raise InputError(f"{name!r} cannot name a field; call it otherwise, by letters, digits and _: u={array}")
        raw = found.arrays[array]
        given = reading.axes.get(name, reading.axes.get(array))
        roles = _read_roles(name, raw.shape, given if given is not None else found.axes.get(array))
        for role, n in zip(roles, raw.shape, strict=True):
            if role in ("sample", "time", *AXES):
                before, first = lengths.setdefault(role, (n, name))
                if before != n:
                    raise InputError(f"axis {role!r} has {before} places in field {first!r} and {n} in {name!r}")
        for label, picked in _split_channels(name, raw.shape, roles):
            if label in columns:
                raise InputError(f"two of its fields would be called {label!r}; name them otherwise")
            labels.setdefault(name, []).append(label)
            columns[label] = raw.column(picked)
            vector = roles.count("component") * (raw.shape[roles.index("component")],) if "component" in roles else ()
            kinds[label] = Field("sample" in roles, "time" in roles, vector)
    if "sample" not in lengths:
        raise InputError("none of its fields has an axis 'sample'")
    axes = AXES[: sum(axis in lengths for axis in AXES)]
    if not axes or any(axis not in lengths for axis in axes):
        raise InputError(f"its fields have the axes {', '.join(lengths)}; of space x, then y, then z are needed")
    for label, column in columns.items():
        if column.dtype.kind not in "fiu" or column.dtype.itemsize > 8:
            raise InputError(f"field {label!r} holds {column.dtype} values; real numbers of at most 64 bits are needed")
        if column.shape[-len(axes) :] != tuple(lengths[axis][0] for axis in axes):
            raise InputError(f"field {label!r} lacks an axis of space; it needs all of {', '.join(axes)}")
    grid, points, notes = make_grid(found, reading, [lengths[axis][0] for axis in axes])
    times, more = _make_times(found, reading, lengths.get("time", (0, ""))[0])
    inputs, outputs = (
        tuple(label for name in names for label in labels.get(name, [name]))
        for names in (reading.inputs or found.inputs, reading.outputs or found.outputs)
    )
    for name in inputs:
        if name not in columns:
            raise InputError(f"the input {name!r} is no field of it{suggestion(name, columns)}")
    description = Description(
        reading.name or found.path.stem,
        grid,
        kinds,
        times,
        reading.equation or found.equation,
        found.parameters,
        inputs,
        outputs,
        points,
        (*found.notes, *notes, *more),
    )
    return Dataset(description, [Part(str(found.path), lengths["sample"][0], columns, {})])


def _read_roles(name: str, shape: tuple[int, ...], roles: Sequence[str] | None) -> tuple[str, ...]:
    example = f"{name}=sample,x,y"
    if roles is None:
        raise InputError(
            f"nothing says what the axes of {name!r}, of shape {shape}, are; give them, as in {example}, "
            f"each one of {', '.join(ROLES)}"
        )
    for role in roles:
        if role not in ROLES:
            raise InputError(f"axes of {name!r}: unknown axis {role!r}{suggestion(role, ROLES)}")
    if len(roles) != len(shape):
        expected = ", ".join(roles)
        raise InputError(f"{name!r} has {len(shape)} axes, of shape {shape}; {len(roles)} are expected: {expected}")
    for role, n in zip(roles, shape, strict=True):
        if role == "-" and n != 1:
            raise InputError(f"axes of {name!r}: one that is left out has {n} places, and only 1 can be left out")
        if n == 0:
            raise InputError(f"{name!r} has shape {shape}: it is empty along {role!r}")
    named = [role for role in roles if role != "-"]
    if len(set(named)) < len(named):
        raise InputError(f"axes of {name!r}: one is named twice: {', '.join(roles)}")
    if "component" in roles and "channel" in roles:
        raise InputError(f"axes of {name!r}: components and channels exclude each other")
    return tuple(roles)


def _split_channels(name: str, shape: tuple[int, ...], roles: tuple[str, ...]) -> list[tuple[str, tuple[Role, ...]]]:
    """Names and axes of the fields that an array makes: one, or one for each channel."""
    plain: tuple[Role, ...] = tuple(0 if role == "-" else role for role in roles)
    if "channel" not in roles:
        return [(name, plain)]
    place = roles.index("channel")
    picks = range(shape[place])
    labels = [name] if len(picks) == 1 else [f"{name}_{number}" for number in picks]
    return [(label, (*plain[:place], number, *plain[place + 1 :])) for label, number in zip(labels, picks, strict=True)]


def make_grid(found: Found, reading: Reading, shape: Sequence[int]) -> tuple[Grid, Points, list[str]]:
    """The domain, where values stand in it, and notes on what nobody says.

    Args:
        found: of it only coordinates, boundary, points and unit.
        reading: goes before it.
        shape: values along each axis.

    Raises:
        InputError: lengths that do not fit, or coordinates that are not uniform.
    """
    axes = AXES[: len(shape)]
    notes = []
    boundary = reading.boundary if reading.boundary is not None else found.boundary
    if boundary is None:
        boundary = Unstated()
        notes.append("nothing is said of the boundary")
    points = reading.points or found.points or "cells"
    if reading.lower is None and reading.upper is None and all(axis in found.coordinates for axis in axes):
        for axis, n in zip(axes, shape, strict=True):
            if len(found.coordinates[axis]) != n:
                raise InputError(f"axis {axis} has {n} places and {len(found.coordinates[axis])} coordinates")
        grid = grid_at([found.coordinates[axis] for axis in axes], boundary, points)
    else:
        lower, upper = reading.lower or (0.0,) * len(shape), reading.upper or (1.0,) * len(shape)
        if len(lower) != len(shape) or len(upper) != len(shape):
            raise InputError(f"the corners {lower} and {upper} of the domain need {len(shape)} numbers each")
        if reading.upper is None and not found.unit:
            notes.append("nothing is said of the size of the domain; taken as 1 along each axis")
        grid = grid_over(shape, lower, upper, boundary, points)
    if all(grid.periodic):
        return grid, "cells", notes  # there is no difference then
    if not (reading.points or found.points):
        notes.append("nothing is said of where values stand; taken as cell centres, and not as nodes on the boundary")
    return grid, points, notes


def _make_times(found: Found, reading: Reading, count: int) -> tuple[Tensor | None, list[str]]:
    if not count:
        return None, []
    if reading.times is not None:
        times = torch.tensor(reading.times, dtype=torch.float64)
    elif found.times is not None:
        times = found.times.to(torch.float64).reshape(-1)
        if len(times) == count + 1:
            note = f"the file has {len(times)} times for {count} values; the last time is left out"
            return times[:count], [note]
    else:
        return torch.arange(count, dtype=torch.float64), ["nothing is said of the times; taken as 0, 1, 2, ..."]
    if len(times) != count:
        raise InputError(f"its fields have {count} values in time and there are {len(times)} times")
    return times, []


def tensor_from(values: Any) -> Tensor:
    """Numbers of a file in one axis, float64."""
    return torch.from_numpy(np.asarray(values, np.float64).reshape(-1).copy())
