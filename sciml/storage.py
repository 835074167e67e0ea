"""Solutions as HDF5 files in the layout of The Well.

The layout (https://github.com/PolymathicAI/the_well, docs/data_format.md): groups `dimensions`,
`boundary_conditions`, `scalars`, `t0_fields`, `t1_fields` and `t2_fields` with their attributes. A steady solution is
one time step; the batch, flattened, is the axis of trajectories. Every unknown and every coefficient that varies in
space is a dataset of `t0_fields`; parameters and uniform coefficients are `scalars`. The numbers keep their dtype.

A mesh, for which The Well has no layout, stands in the group `mesh`: `points`, `cells`, `facets`, and indices into the
last two by the names of `regions` and `boundaries`. The attribute `grid_type` is "unstructured"; the one axis of space
in `t0_fields` is that of the points, or of the cells where the attribute `location` of the dataset says so.

What The Well has no place for stands in the group `sciml`: the dataset `description`, one JSON text with the equation,
the domain, the scheme, the method, notes and versions, and arrays beside it (status codes, solid cells, values of
boundary conditions, statistics, history). Nothing is pickled. What guards the file against damage: `sciml.container`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h5py
import torch

from . import container, storage_of_grids, storage_of_meshes
from .discretization import NonlinearSystem, System
from .elements import MeshSystem, NonlinearMeshSystem
from .equations import Equation
from .errors import InputError
from .mesh import Mesh
from .well import Arrays, Category, numpy_of, tensor_of

if TYPE_CHECKING:
    from .solution import Solution

KIND = "solution"
FORMAT = 2  # 1 had linear systems on grids only

_AnySystem = System | NonlinearSystem | MeshSystem | NonlinearMeshSystem


def save(solution: Solution, path: str | os.PathLike[str]) -> None:
    """Write a solution to `path` (.h5 or .hdf5), whole or not at all. The file is made in memory first.

    Functions of the coordinates are kept by their values where the discretization asks for them.

    Raises:
        InputError: the solution has no domain, or `path` cannot become a file.
        OSError: the disk is full or not writable; what stood at `path` is unharmed.
    """
    system = solution.system
    if system is None:
        raise InputError("this solution belongs to a bare operator: without equation and domain it cannot be stored")
    container.write(path, KIND, FORMAT, lambda file: _fill(file, solution, system))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """The arguments from which the solution in a file is made again, its tensors on `device`, bit for bit as saved.

    Raises:
        InputError: the file is missing, cut short, damaged, of a newer version or of another kind.
    """
    place = torch.empty(0, device=device).device  # torch's own complaint about a device, before the file is to blame
    with container.read(path, KIND, FORMAT) as file:
        return _rebuild(file, place)


def _fill(file: h5py.File, solution: Solution, system: _AnySystem) -> None:
    batch, rows = tuple(solution.codes.shape), solution.codes.numel()
    own = file.create_group("sciml")
    arrays = Arrays(own)
    fields, scalars = Category(file, "t0_fields"), Category(file, "scalars")
    for name in ("t1_fields", "t2_fields"):
        Category(file, name)
    attributes = {"location": "points"} if isinstance(system.domain, Mesh) else {}
    for name, value in solution.fields.items():
        space = value.shape[len(batch) :]
        data = numpy_of(value.reshape(-1, 1, *space))
        varying = {"sample_varying": True, "time_varying": True, "dim_varying": [True] * len(space)}
        fields.add(name, data, **varying, **attributes)
    if isinstance(system, MeshSystem | NonlinearMeshSystem):
        described = storage_of_meshes.describe(file, system, batch, rows, fields, scalars, arrays)
    else:
        described = storage_of_grids.describe(file, system, batch, rows, fields, scalars, arrays)
    description = {
        "equation": system.equation.to_json(),
        "batch": batch,
        **described,
        "codes": arrays.put("codes", solution.codes),
        "statistics": {name: arrays.keep(f"statistics/{name}", item) for name, item in solution.statistics.items()},
        "history": {name: arrays.put(f"history/{name}", item) for name, item in solution.history.items()},
        "method": solution.method,
        "notes": solution.notes,
        "versions": solution.versions,
    }
    own["description"] = json.dumps(description, indent=1)


def _rebuild(file: h5py.File, device: torch.device) -> dict[str, Any]:
    description = json.loads(file["sciml/description"].asstr()[()])

    def tensor(item: Any) -> Any:
        return tensor_of(file, item, device) if isinstance(item, Mapping) else item

    batch = tuple(description["batch"])
    equation = Equation.from_json(description["equation"])
    system: _AnySystem
    if "mesh" in description:
        system = storage_of_meshes.rebuild(file, description, equation, device)
        space: tuple[int, ...] = (len(system.domain.points),)
    else:
        system = storage_of_grids.rebuild(file, description, equation, device)
        space = system.domain.shape
    values = [tensor_of(file, {"dataset": f"t0_fields/{name}"}, device) for name in system.unknowns]
    shaped = [value.reshape(*batch, *space) for value in values]
    return {
        "value": shaped[0] if len(shaped) == 1 else torch.stack(shaped, len(batch)),
        "codes": tensor(description["codes"]),
        "statistics": {name: tensor(item) for name, item in description["statistics"].items()},
        "history": {name: tensor(item) for name, item in description["history"].items()},
        "method": description["method"],
        "notes": tuple(description["notes"]),
        "versions": dict(description["versions"]),
        "system": system,
    }
