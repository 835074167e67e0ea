"""Files of The Well, https://github.com/PolymathicAI/the_well, docs/data_format.md, that others wrote.

They say at which coordinates values stand, and of the boundary whether it is a wall, open or periodic, and on a wall
which fields have which values. They do not say whether values stand at cell centres or on the boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from sciml.boundary import AXES, Boundary, Dirichlet, Periodic, Unstated
from sciml.errors import InputError
from sciml.grid import Grid

from ..columns import HDF5Files, Part
from ..description import Description, Points
from ..well_layout import describes_itself, is_well, read_layout, text, texts
from .reading import OWN, WELL, Found, Reading, make_grid, refuse


def read_well(path: Path, reading: Reading) -> tuple[Description, Part]:
    """What a file holds.

    Raises:
        InputError: it does not have the layout, or `reading` gives what the file says itself.
    """
    files = HDF5Files()
    file = files.file(path)
    if not is_well(file):
        raise InputError(f"{path} does not have the layout of The Well; HDF5 files of others are given one by one")
    refuse(reading, OWN if describes_itself(file) else WELL, path)
    return read_layout(path, files, partial(_place, path, reading))


def _place(
    path: Path, reading: Reading, coordinates: Sequence[Tensor], file: h5py.File
) -> tuple[Grid, Points, list[str]]:
    found = dict(zip(AXES, coordinates, strict=False))
    boundary, notes = (None, []) if reading.boundary is not None else _boundary(file)
    grid, points, more = make_grid(
        Found(path, {}, coordinates=found, boundary=boundary), reading, [len(places) for places in coordinates]
    )
    return grid, points, [*notes, *more]


def _boundary(file: h5py.File) -> tuple[Boundary, list[str]]:
    """Conditions by field where they differ; what the file leaves open is `Unstated`, and said."""
    names = [name for order in range(3) for name in texts(file[f"t{order}_fields"].attrs["field_names"])]
    axes = dict(zip(AXES, texts(file["dimensions"].attrs["spatial_dims"]), strict=False))
    notes: list[str] = []
    sides: dict[str, dict[str, Any]] = {name: {} for name in names}
    for axis, own in axes.items():
        pairs = _pairs(file["boundary_conditions"], own, names, notes)
        for name in names:
            sides[name][axis] = pairs[name]
    first = next(iter(sides.values()), {})
    return first if all(other == first for other in sides.values()) else sides, notes


def _pairs(group: h5py.Group, axis: str, names: Sequence[str], notes: list[str]) -> dict[str, Any]:
    """Conditions by field at the lower and the upper end of one axis."""
    found: dict[str, list[Any]] = {name: [Unstated(), Unstated()] for name in names}
    kinds: list[list[str]] = [[], []]
    for entry in group.values():
        if texts(entry.attrs["associated_dims"]) != [axis]:
            continue
        kind, mask = text(entry.attrs["bc_type"]).upper(), np.asarray(entry["mask"][()], bool).reshape(-1)
        if kind == "PERIODIC":
            return dict.fromkeys(names, Periodic())
        values = np.asarray(entry["values"][()]) if "values" in entry else np.empty(0)
        fixed = kind == "WALL" and values.shape == (mask.sum(),) and mask.any()  # the same for all samples and times
        held = [name for name in texts(entry.attrs["associated_fields"]) if fixed and name in found]
        for side, place in enumerate((0, -1)):
            if mask[place]:
                kinds[side].append(kind)
                for name in held:
                    found[name][side] = Dirichlet(float(values[place]))
    for side, end in enumerate(("lower", "upper")):
        left = [name for name in names if isinstance(found[name][side], Unstated)]
        if left:
            which = "" if len(left) == len(names) else f" for {', '.join(left)}"
            said = f"only {', '.join(map(repr, kinds[side]))}" if kinds[side] else "nothing"
            notes.append(f"the file says {said} of the {end} end of axis {axis}{which}")
    return {name: tuple(pair) for name, pair in found.items()}
