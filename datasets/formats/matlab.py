""".mat files, of version 5 and 7.3, with what the papers on the Fourier neural operator and on MgNO keep in them.

- Darcy flow: `coeff` and `sol` (sample, x, y), nodes on the unit square, u = 0 on its boundary, f = 1;
- Burgers: `a` and `u` (sample, x), the periodic unit interval, initial state and state at time 1;
- Navier-Stokes: `a` (sample, x, y), `u` (sample, x, y, time), `t`; the periodic unit square.

Version 7.3 is HDF5, in which the axes stand in the opposite order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.boundary import Dirichlet, Periodic
from sciml.equations import Equation
from sciml.errors import InputError

from ..columns import ArrayColumn, Column, HDF5Files, Role
from .reading import Found, Raw, tensor_from


def find_5(path: Path) -> Found:
    """What a file of version 5 holds.

    Raises:
        InputError: it is damaged.
    """
    from scipy.io import loadmat, whosmat

    try:
        listed = whosmat(path)
    except Exception as error:  # what scipy raises on damage has no common kind
        raise InputError(f"{path} cannot be read as a .mat file of version 5: {error}") from error

    @cache
    def load(name: str) -> Any:
        try:
            return loadmat(path, variable_names=[name])[name]
        except Exception as error:
            raise InputError(f"{path}: {name!r} cannot be read, the file is cut short or damaged: {error}") from error

    def raw(name: str, shape: tuple[int, ...]) -> Raw:
        return Raw(shape, lambda roles: ArrayColumn(lambda: load(name), roles))

    numeric = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    arrays = {name: raw(name, tuple(shape)) for name, shape, kind in listed if kind in numeric}
    return _documented(path, arrays, load)


def find_73(path: Path, files: HDF5Files) -> Found:
    """What a file of version 7.3 holds."""
    file = files.file(path)

    def raw(name: str) -> Raw:
        def column(roles: Sequence[Role]) -> Column:
            return files.column(path, name, tuple(reversed(roles)))

        return Raw(tuple(reversed(file[name].shape)), column)

    arrays = {
        name: raw(name) for name, item in file.items() if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu"
    }
    return _documented(path, arrays, lambda name: file[name][()])


def _documented(path: Path, arrays: Mapping[str, Raw], load: Any) -> Found:
    if not arrays:
        raise InputError(f"{path} holds no array of numbers")
    ranks = {name: len(raw.shape) for name, raw in arrays.items()}
    if ranks.get("coeff") == ranks.get("sol") == 3:
        return Found(
            path,
            arrays,
            {"a": "coeff", "u": "sol"},
            dict.fromkeys(("coeff", "sol"), ("sample", "x", "y")),
            boundary=Dirichlet(0.0),
            points="nodes",
            unit=True,
            inputs=("a",),
            outputs=("u",),
            equation=Equation("-div(a*grad(u)) = 1"),
        )
    if ranks.get("a") == ranks.get("u") == 2:
        axes: dict[str, Sequence[str]] = dict.fromkeys(("a", "u"), ("sample", "x"))
    elif ranks.get("a") == 3 and ranks.get("u") == 4:
        axes = {"a": ("sample", "x", "y"), "u": ("sample", "x", "y", "time")}
    else:
        return Found(path, arrays)
    times = tensor_from(np.asarray(load("t"))) if "t" in arrays and "time" in axes["u"] else None
    return Found(
        path,
        arrays,
        {"a": "a", "u": "u"},
        axes,
        times=times,
        boundary=Periodic(),
        unit=True,
        inputs=("a",),
        outputs=("u",),
    )
