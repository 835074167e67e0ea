"""HDF5 files of PDEBench, https://github.com/pdebench/PDEBench.

- one-dimensional equations: `tensor` (sample, time, x), `x-coordinate`, `t-coordinate`;
- Darcy flow: `nu` (sample, x, y), `tensor` (sample, 1, x, y), `x-coordinate`, `y-coordinate`;
- compressible flow: `density`, `pressure`, `Vx`, `Vy`, `Vz`, each (sample, time, x[, y[, z]]);
- incompressible flow: `velocity` (sample, time, x, y, 2), `particles` (sample, time, x, y, 1), `force` (sample, x, y,
  2), `t` (sample, time);
- diffusion and reaction, shallow water: a group a sample, `0000/data` (time, x[, y], channel), `0000/grid/{x,y,t}`.

How many axes of space there are is read off the coordinates, and not off the rank of the arrays: their own generator
writes (1, sample, time, x) too (issue 57 there). None of the files says what holds on the boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.boundary import AXES, Dirichlet, Neumann
from sciml.equations import Equation
from sciml.errors import InputError

from ..columns import Column, HDF5Files, Role, StackedColumn
from .hdf5 import read_arrays
from .reading import Found, Raw, tensor_from

_FLOW = ("density", "pressure", "Vx", "Vy", "Vz")
_INCOMPRESSIBLE = ("velocity", "particles", "force")


def is_pdebench(file: h5py.File) -> bool:
    """Whether a file has one of the documented layouts."""
    names = set(file)
    return bool(names & {"tensor", "density"}) or set(_INCOMPRESSIBLE) <= names or bool(_groups(file))


def find(path: Path, files: HDF5Files) -> Found:
    """What a file holds.

    Raises:
        InputError: it lacks what its layout has.
    """
    file = files.file(path)
    if groups := _groups(file):
        return _find_groups(path, files, groups)
    fields = [name for name in file if name != "t" and not name.endswith("-coordinate")]
    arrays, others = read_arrays(path, fields, files)
    coordinates = {axis: tensor_from(file[f"{axis}-coordinate"][()]) for axis in AXES if f"{axis}-coordinate" in file}
    times = tensor_from(file["t-coordinate"][()]) if "t-coordinate" in file else None
    if set(_INCOMPRESSIBLE) <= set(arrays):
        return Found(
            path,
            arrays,
            {name: name for name in _INCOMPRESSIBLE},
            {
                "velocity": ("sample", "time", "x", "y", "component"),
                "particles": ("sample", "time", "x", "y", "-"),
                "force": ("sample", "x", "y", "component"),
            },
            coordinates,
            _times_of_first(path, file),
            boundary=Dirichlet(0.0),
            points="cells",
            inputs=("velocity", "particles", "force"),
            outputs=("velocity", "particles"),
            others=others,
        )
    if not coordinates:
        raise InputError(f"{path}: PDEBench's layout has 'x-coordinate' beside {', '.join(arrays)}; it is missing")
    space = tuple(coordinates)
    if "nu" in arrays and "tensor" in arrays:
        numbers = _numbers(file)
        force = {"beta": numbers["beta"]} if "beta" in numbers else None
        return Found(
            path,
            arrays,
            {"a": "nu", "u": "tensor"},
            {"nu": ("sample", *space), "tensor": _roles(arrays["tensor"].shape, ("sample", *space))},
            coordinates,
            parameters=numbers,
            boundary=Dirichlet(0.0),
            points="cells",
            inputs=("a",),
            outputs=("u",),
            equation=Equation("-div(a*grad(u)) = beta", parameters=force) if force else None,
            others=others,
        )
    moving = {"u": "tensor"} if "tensor" in arrays else {name: name for name in _FLOW if name in arrays}
    wanted = ("sample", "time", *space)
    return Found(
        path,
        arrays,
        moving,
        {array: _roles(arrays[array].shape, wanted) for array in moving.values()},
        coordinates,
        times,
        parameters=_numbers(file),
        points="cells",
        inputs=tuple(moving),
        outputs=tuple(moving),
        others=others,
    )


def _roles(shape: tuple[int, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """`wanted`, with axes of length 1 that are too many left out: from the front, else after the samples, else last."""
    extra = len(shape) - len(wanted)
    for place in (0, 1, len(wanted)):
        if extra > 0 and shape[place : place + extra] == (1,) * extra:
            return (*wanted[:place], *("-",) * extra, *wanted[place:])
    return wanted


def _groups(file: h5py.File) -> list[str]:
    return sorted(n for n, item in file.items() if isinstance(item, h5py.Group) and "data" in item and "grid" in item)


def _find_groups(path: Path, files: HDF5Files, groups: list[str]) -> Found:
    file = files.file(path)
    first = file[groups[0]]
    shape = tuple(first["data"].shape)
    for name in groups:
        if tuple(file[name]["data"].shape) != shape:
            raise InputError(
                f"{path}: sample {name!r} has shape {file[name]['data'].shape} and {groups[0]!r} has {shape}"
            )
    space = tuple(axis for axis in AXES if axis in first["grid"])

    def column(roles: Sequence[Role]) -> Column:
        if not roles or roles[0] != "sample":
            raise InputError("the samples stand in groups: 'sample' is the first axis")
        return StackedColumn([files.column(path, f"{name}/data", roles[1:]) for name in groups])

    return Found(
        path,
        {"data": Raw((len(groups), *shape), column)},
        {"u": "data"},
        {"data": ("sample", "time", *space, "channel")},
        {axis: tensor_from(first["grid"][axis][()]) for axis in space},
        tensor_from(first["grid"]["t"][()]) if "t" in first["grid"] else None,
        boundary=Neumann(0.0),
        points="cells",
        inputs=("u",),
        outputs=("u",),
        notes=("boundary as PDEBench documents it: no flow",),
    )


def _times_of_first(path: Path, file: h5py.File) -> Any:
    if "t" not in file:
        return None
    times = np.asarray(file["t"][()], np.float64)
    if times.ndim == 2 and not np.allclose(times, times[:1]):
        raise InputError(f"{path}: its samples have different times; the same times for all are needed")
    return tensor_from(times[0] if times.ndim == 2 else times)


def _numbers(file: h5py.File) -> dict[str, float]:
    found = {}
    for name, value in file.attrs.items():
        number = np.asarray(value)
        if number.dtype.kind in "fiu" and number.size == 1 and name.isidentifier():
            found[name] = float(number.reshape(-1)[0])
    return found
