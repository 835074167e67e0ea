""".mat files, of version 5 and 7.3, with what the papers on the Fourier neural operator and on MgNO keep in them.

- Darcy flow: `coeff` and `sol` (sample, x, y), nodes on the unit square, u = 0 on its boundary, f = 1;
- Burgers: `a` and `u` (sample, x), the periodic unit interval, initial state and state at time 1;
- Navier-Stokes: `a` (sample, x, y), `u` (sample, x, y, time), `t`; the periodic unit square.

Version 7.3 is HDF5, in which the axes stand in the opposite order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.boundary import Dirichlet, Periodic
from sciml.equations import Equation
from sciml.errors import InputError

from ..columns import Array, ArrayColumn, Column, HDF5Files, Role, Whole
from ..well_layout import text
from .reading import Found, Raw, tensor_from

_NUMBERS = {  # classes of MATLAB, and the dtypes of NumPy
    "double": "f8",
    "single": "f4",
    **{f"{sign}int{8 * size}": f"{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)},
}


def find_5(path: Path) -> Found:
    """What a file of version 5 holds.

    Raises:
        InputError: it is damaged.
    """
    from scipy.io import whosmat

    _check_length(path)
    try:
        listed = whosmat(path)
    except Exception as error:  # what scipy raises on damage has no common kind
        raise InputError(f"{path} cannot be read as a .mat file of version 5: {error}") from error
    arrays = {
        name: _raw_5(path, name, shape, np.dtype(_NUMBERS[kind])) for name, shape, kind in listed if kind in _NUMBERS
    }
    others = {name: f"a MATLAB {kind} array" for name, _, kind in listed if kind not in _NUMBERS}
    return _documented(path, arrays, others, lambda name: _load_5(path, name, np.dtype(float)))


def _check_length(path: Path) -> None:
    """What is missing at the end of a file, `whosmat` leaves out without a word."""
    place, size = 128, path.stat().st_size
    with open(path, "rb") as file:
        order: Any = "big" if file.read(place)[126:] == b"MI" else "little"
        while place < size:
            file.seek(place + 4)
            place += 8 + int.from_bytes(file.read(4), order)
    if place != size:
        raise InputError(f"{path} is cut short or damaged: its arrays end at byte {place}, and it has {size}")


def _raw_5(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Raw:
    return Raw(shape, partial(ArrayColumn, Whole(partial(_load_5, path, name, dtype)), shape, dtype))


def _load_5(path: Path, name: str, dtype: np.dtype[Any]) -> Array:
    from scipy.io import loadmat

    try:
        array: Array = loadmat(path, variable_names=[name])[name]
    except Exception as error:
        raise InputError(f"{path}: {name!r} cannot be read, the file is cut short or damaged: {error}") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name!r} holds {array.dtype} values; real numbers are needed")
    return array.astype(dtype, copy=False)  # MATLAB stores whole numbers as smaller integers


def find_73(path: Path, files: HDF5Files) -> Found:
    """What a file of version 7.3 holds."""
    file = files.file(path)
    arrays: dict[str, Raw] = {}
    others: dict[str, str] = {}
    for name in sorted(set(file) - {"#refs#", "#subsystem#"}):
        item = file.get(name)
        if item is None:
            others[name] = "a link to nothing"
            continue
        kind = text(item.attrs.get("MATLAB_class", b""))
        if isinstance(item, h5py.Group):
            others[name] = f"a MATLAB {kind or 'struct'} array"
        elif item.dtype.names:
            others[name] = "complex numbers"
        elif item.dtype.kind not in "fiu" or kind not in ("", *_NUMBERS):
            others[name] = f"a MATLAB {kind or item.dtype} array"
        elif "MATLAB_empty" in item.attrs:
            others[name] = "an empty array"
        else:
            arrays[name] = Raw(tuple(reversed(item.shape)), partial(_column_73, files, path, name))
    return _documented(path, arrays, others, lambda name: file[name][()])


def _column_73(files: HDF5Files, path: Path, name: str, roles: Sequence[Role]) -> Column:
    return files.column(path, name, tuple(reversed(roles)))


def _documented(path: Path, arrays: Mapping[str, Raw], others: Mapping[str, str], load: Callable[[str], Any]) -> Found:
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
            others=others,
        )
    if ranks.get("a") == ranks.get("u") == 2:
        axes: dict[str, Sequence[str]] = dict.fromkeys(("a", "u"), ("sample", "x"))
    elif ranks.get("a") == 3 and ranks.get("u") == 4:
        axes = {"a": ("sample", "x", "y"), "u": ("sample", "x", "y", "time")}
    else:
        return Found(path, arrays, others=others)
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
        others=others,
    )
