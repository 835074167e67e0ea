"""Solutions as HDF5 files in the layout of The Well.

The layout (https://github.com/PolymathicAI/the_well, docs/data_format.md): groups `dimensions`,
`boundary_conditions`, `scalars`, `t0_fields`, `t1_fields` and `t2_fields` with their attributes. A steady solution is
one time step; the batch, flattened, is the axis of trajectories. Every unknown, of an evolution also what constraints
determine, and every coefficient that varies in space is a dataset of `t0_fields`; parameters and uniform coefficients
are `scalars`. Ordinary differential equations have no axis of space. The numbers keep their dtype.

A mesh, for which The Well has no layout, stands in the group `mesh`: `points`, `cells`, `facets`, and indices into the
last two by the names of `regions` and `boundaries`. The attribute `grid_type` is "unstructured"; the one axis of space
in `t0_fields` is that of the points, or of the cells where the attribute `location` of the dataset says so.

What The Well has no place for stands in the group `sciml`: the dataset `description`, one JSON text with the equation,
the domain, the scheme, the method, notes and versions, and arrays beside it (status codes, solid cells, values of
boundary conditions, statistics, history, events). Functions of the time are kept by their values at the times of the
solution. Nothing is pickled. What guards the file against damage: `sciml.container`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import h5py
import torch
from torch import Tensor

from . import container, storage_of_grids, storage_of_meshes, storage_of_ordinary
from .discretization import GridEvolution, NonlinearSystem, System
from .elements import MeshSystem, NonlinearMeshSystem
from .elements.evolving import MeshEvolution
from .equations import Equation
from .errors import InputError
from .linear_operator import LinearOperator
from .mesh import Mesh
from .ordinary import OrdinarySystem
from .spectral import SpectralSystem
from .well import Arrays, Category, numpy_of, tensor_of

if TYPE_CHECKING:
    from .solution import Solution

KIND = "solution"
FORMAT = 3  # 1 had linear systems on grids only, 2 steady ones only

_AnySystem = storage_of_grids.GridSystem | storage_of_meshes.AnyMeshSystem | OrdinarySystem
_KINDS = (
    System,
    NonlinearSystem,
    GridEvolution,
    SpectralSystem,
    MeshSystem,
    NonlinearMeshSystem,
    MeshEvolution,
    OrdinarySystem,
)


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
    if not isinstance(system, _KINDS):
        raise InputError(f"a solution of a {type(system).__name__}, which has no equation as text, cannot be stored")
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
    times, axes = solution.times, (1 if isinstance(system.domain, Mesh) else _axes(system))
    for name, value in solution.fields.items():
        space = value.shape[value.ndim - axes :]
        data = numpy_of(value.reshape(-1, 1 if times is None else len(times), *space))
        varying = {"sample_varying": True, "time_varying": True, "dim_varying": [True] * len(space)}
        fields.add(name, data, **varying, **attributes)
    parts = (batch, rows, fields, scalars, arrays, times)
    if isinstance(system, OrdinarySystem):
        described = storage_of_ordinary.describe(file, system, *parts)
    elif isinstance(system, MeshSystem | NonlinearMeshSystem | MeshEvolution):
        described = storage_of_meshes.describe(file, system, *parts)
    else:
        described = storage_of_grids.describe(file, system, *parts)
    description = {
        "equation": system.equation.to_json(),
        "batch": batch,
        **described,
        "codes": arrays.put("codes", solution.codes),
        "statistics": {name: arrays.keep(f"statistics/{name}", item) for name, item in solution.statistics.items()},
        "history": {name: arrays.put(f"history/{name}", item) for name, item in solution.history.items()},
        "times": None if times is None else arrays.put("times", times),
        "events": [
            {word: arrays.put(f"events/{number}/{word}", item) for word, item in event.items()}
            for number, event in enumerate(solution.events)
        ],
        "method": solution.method,
        "notes": solution.notes,
        "versions": solution.versions,
    }
    own["description"] = json.dumps(description, indent=1)


def _axes(system: _AnySystem) -> int:
    return 0 if isinstance(system, OrdinarySystem) else system.domain.dimension


def _rebuild(file: h5py.File, device: torch.device) -> dict[str, Any]:
    description = json.loads(file["sciml/description"].asstr()[()])

    def tensor(item: Any) -> Any:
        return tensor_of(file, item, device) if isinstance(item, Mapping) else item

    batch = tuple(description["batch"])
    equation = Equation.from_json(description["equation"])
    times = tensor_of(file, description["times"], torch.device("cpu")) if description.get("times") else None
    system: _AnySystem
    space: tuple[int, ...]
    if "ordinary" in description:
        system, space = storage_of_ordinary.rebuild(file, description, equation, device, times), ()
    elif "mesh" in description:
        system = storage_of_meshes.rebuild(file, description, equation, device, _without_solver, times)
        space = (len(system.domain.points),)
    else:
        system = storage_of_grids.rebuild(file, description, equation, device, _without_solver, times)
        space = system.domain.shape
    shape = (*batch, *(() if times is None else (len(times),)), *space)
    names = (*system.unknowns, *(() if times is None else equation.constrained))
    found = {name: tensor_of(file, {"dataset": f"t0_fields/{name}"}, device).reshape(shape) for name in names}
    values = [found.pop(name) for name in system.unknowns]
    return {
        "value": values[0] if len(values) == 1 else torch.stack(values, len(shape) - len(space)),
        "constrained": found,
        "codes": tensor(description["codes"]),
        "statistics": {name: tensor(item) for name, item in description["statistics"].items()},
        "history": {name: tensor(item) for name, item in description["history"].items()},
        "times": times,
        "events": tuple(
            {word: tensor(item) for word, item in event.items()} for event in description.get("events", ())
        ),
        "method": description["method"],
        "notes": tuple(description["notes"]),
        "versions": dict(description["versions"]),
        "system": system,
    }


def _without_solver(operator: LinearOperator) -> Callable[[Tensor], Tensor]:
    """In place of what prepares the solution of constraints; what they determined stands in the file."""

    def solve(right: Tensor) -> Tensor:
        raise InputError(
            "this system was read from a file, without a solver for its constraints: make it again by sciml.discretize"
        )

    return solve
