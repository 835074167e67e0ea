"""The domain of a problem file: a grid or a mesh, the conditions on its boundary, and what is given on it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from .boundary import AXES, Boundary, Dirichlet, Neumann, Periodic, Robin, SideCondition, Stated, suggestion
from .configuration import (
    ArrayTable,
    BoundaryTable,
    BoxTable,
    ConditionTable,
    GridProblem,
    MeshProblem,
    MeshTable,
    NamedBoundaryTable,
    SidesTable,
    SurfaceTable,
)
from .discretization.conditions import rates_of
from .elements.boundary import read_conditions
from .elements.values import REST
from .equations import Equation, evaluate, parse_expression, parse_predicate
from .errors import InputError
from .grid import Grid
from .mesh import Mesh

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


@contextmanager
def at(path: Path, place: str) -> Iterator[None]:
    """Say in which file and table an input was refused."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path.name}, {place}: {error}") from error


def make_grid(path: Path, table: GridProblem, equation: Equation, device: str) -> Grid:
    """The grid with its conditions."""
    domain, evolving = table.domain, equation.evolving
    unknowns = _asked_for(equation, table.boundary.unknowns)
    axes = AXES[: len(domain.shape)]
    with at(path, "[domain] device"):
        _check_device(device)
    with at(path, "[boundary]"):
        boundary = _sides_of_grid(table.boundary, axes, unknowns, evolving)
    with at(path, "[domain]"):
        grid = Grid(domain.shape, domain.lower, domain.upper, boundary, device=device, dtype=_DTYPES[domain.dtype])
    if domain.walls is not None:
        with at(path, "[domain] walls"):
            if domain.solid is None:
                raise InputError("walls are the faces of solid cells; give `solid` too")
            walls = _make_condition(domain.walls, axes, evolving)
            if isinstance(walls, Periodic):
                raise InputError("the faces of solid cells cannot be periodic")
            grid = replace(grid, walls=walls)
    if domain.solid is not None:
        with at(path, "[domain] solid"):
            grid = replace(grid, solid=_make_solid(domain.solid, grid, path))
    return grid


def make_mesh(path: Path, table: MeshProblem, equation: Equation, device: str) -> tuple[Mesh, Boundary]:
    """The mesh with its names, and the conditions on its boundary."""
    domain = table.domain
    unknowns = _asked_for(equation, table.boundary.unknowns)
    with at(path, "[domain] device"):
        _check_device(device)
    with at(path, "[domain] mesh"):
        mesh = _read_mesh(domain, path).to(device, _DTYPES[domain.dtype]).refine(domain.refine)
    named = {}
    for kind, conditions in (("boundaries", domain.boundaries), ("regions", domain.regions)):
        for name, text in conditions.items():
            with at(path, f"[domain.{kind}] {name}"):
                if name == REST:
                    raise InputError(f"{REST!r} stands for what the other names leave; take another name")
                select = {name: parse_predicate(text, mesh.axes)}
                mesh = mesh.with_boundaries(select) if kind == "boundaries" else mesh.with_regions(select)
    with at(path, "[boundary]"):
        named = _conditions_on_mesh(table.boundary, mesh, unknowns, equation.evolving)
    return mesh, named if len(unknowns) > 1 else named[unknowns[0]]


def _asked_for(equation: Equation, named: Mapping[str, Any]) -> tuple[str, ...]:
    """The unknowns with conditions: a rate inherits those of what it is the rate of, unless it is given its own."""
    unknowns = (*equation.unknowns, *equation.constrained)
    return tuple(name for name in unknowns if name not in rates_of(unknowns) or name in named)


def make_function(text: str, axes: tuple[str, ...], *, evolving: bool = False) -> Callable[..., float | Tensor]:
    """An expression of the coordinates as a function of one tensor an axis; where it holds t, of the time too."""
    names = (*axes, "t") if evolving else axes
    expression = parse_expression(text, names)
    if evolving and "t" not in {symbol.name for symbol in expression.free_symbols}:
        names = axes

    def function(*coordinates: Tensor) -> float | Tensor:
        return evaluate(expression, dict(zip(names, coordinates, strict=True)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD  # by its names a function of the time is told from others
    function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return function


def make_field(
    source: float | str | ArrayTable | dict[str, float], domain: Grid | Mesh, path: Path, *, evolving: bool = False
) -> Any:
    """A coefficient as `sciml.solve` takes it."""
    if isinstance(source, dict) and isinstance(domain, Mesh):
        for name in source:
            if name != REST and name not in domain.regions:
                raise _unknown_part("region", name, domain.regions, "regions")
    if isinstance(source, ArrayTable):
        return torch.from_numpy(_read_array(source, domain, path)).to(domain.device, domain.dtype)
    return make_function(source, domain.axes, evolving=evolving) if isinstance(source, str) else source


def make_number(source: float | str, evolving: bool) -> Any:
    """A value without coordinates: a number, or a function of the time."""
    if not isinstance(source, str):
        return source
    function = make_function(source, (), evolving=evolving)
    return function if inspect.signature(function).parameters else float(function())


def _check_device(name: str) -> None:
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise InputError(f"{name!r} is not a device; known: cpu, cuda, cuda:1, ...") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{name!r}: there is no CUDA device here; use cpu")


def _read_mesh(domain: MeshTable, path: Path) -> Mesh:
    if isinstance(domain.mesh, BoxTable):
        return Mesh.box(domain.mesh.shape, domain.mesh.lower, domain.mesh.upper)
    return Mesh.read(beside(domain.mesh, path))


def beside(name: str, path: Path) -> Path:
    """A file that a problem file names, from the folder of the latter."""
    place = path.parent / name
    if "\0" in name or not place.is_file():
        raise InputError(f"there is no file {name!r} beside {path.name}")
    return place


def _sides_of_grid(table: BoundaryTable, axes: tuple[str, ...], unknowns: tuple[str, ...], evolving: bool) -> Boundary:
    _check_unknowns(table.unknowns, unknowns)
    for given in (table, *table.unknowns.values()):
        for axis in AXES[len(axes) :]:
            if any(getattr(given, f"{axis}{side}") is not None for side in ("", "_lower", "_upper")):
                raise InputError(f"a condition is given for {axis}, but the domain has only the axes {', '.join(axes)}")

    def side(tables: Sequence[SidesTable], axis: str, name: str) -> Stated:
        for given in tables:
            for key in (f"{axis}_{name}", axis, "all"):
                condition: ConditionTable | None = getattr(given, key)
                if condition is not None:
                    return _make_condition(condition, axes, evolving)
        return Dirichlet(0.0)

    def sides(*tables: SidesTable) -> dict[str, tuple[Stated, Stated]]:
        return {axis: (side(tables, axis, "lower"), side(tables, axis, "upper")) for axis in axes}

    if not table.unknowns:
        return sides(table)
    return {name: sides(*([table.unknowns[name]] if name in table.unknowns else []), table) for name in unknowns}


def _conditions_on_mesh(
    table: NamedBoundaryTable, mesh: Mesh, unknowns: tuple[str, ...], evolving: bool
) -> dict[str, dict[str, SideCondition]]:
    """Unknown -> name -> condition; what is said of one unknown holds before what is said of all."""
    _check_unknowns(table.unknowns, unknowns)
    for name in dict.fromkeys(name for given in (table.named, *table.unknowns.values()) for name in given):
        if name != REST and name not in mesh.boundaries:
            raise _unknown_part("boundary", name, mesh.boundaries, "boundaries")
    result = {}
    for unknown in unknowns:
        own = table.unknowns.get(unknown, {})
        given = {**own, **{name: item for name, item in table.named.items() if name not in own}}
        made = {name: _make_condition(item, mesh.axes, evolving) for name, item in given.items()}
        result[unknown] = {name: condition for name, (condition, _) in read_conditions(made, mesh, unknown).items()}
    return result


def _unknown_part(kind: str, name: str, known: Mapping[str, Tensor], table: str) -> InputError:
    near = suggestion(name, [*known, REST])
    near = near if "did you mean" in near and name != "all" else ""
    hint = near or f"; [domain.{table}] names more, and {REST} is what is left, also where that is all"
    return InputError(f"the mesh has no {kind} {name!r}, but {', '.join(known) or 'none at all'}{hint}")


def _check_unknowns(given: Mapping[str, Any], unknowns: tuple[str, ...]) -> None:
    for name in given:
        if name not in unknowns:
            raise InputError(f"the equation has no unknown {name!r}{suggestion(name, unknowns)}")


def _make_condition(table: ConditionTable, axes: tuple[str, ...], evolving: bool) -> Stated:
    value, flux, coefficient = (
        make_function(item, axes, evolving=evolving) if isinstance(item, str) else item
        for item in (table.value, table.flux, table.coefficient)
    )
    if value is not None and coefficient is not None:
        return Robin(coefficient, value)
    if value is not None:
        return Dirichlet(value)
    return Periodic() if flux is None else Neumann(flux)


def _make_solid(source: float | str | ArrayTable | SurfaceTable, grid: Grid, path: Path) -> Tensor:
    if isinstance(source, SurfaceTable):
        return grid.voxelize(beside(source.surface, path), method=source.method)
    if isinstance(source, ArrayTable):
        array = torch.from_numpy(_read_array(source, grid, path)).to(grid.device)
        if array.dim() > grid.dimension:
            raise InputError(f"the array has shape {tuple(array.shape)}, the domain {grid.shape}")
        return _positive(array, grid, f"{source.file}: {source.dataset!r}")
    if not isinstance(source, str):
        raise InputError(
            "a condition such as 'x < 0.5', an expression, positive inside the solid, an array or a surface is needed, "
            "not a number"
        )
    if re.search("[<>]", source):
        return parse_predicate(source, grid.axes)(*grid.coordinates).clone()
    level = make_function(source, grid.axes)(*grid.coordinates)
    return _positive(torch.as_tensor(level, device=grid.device), grid, repr(source))


def _positive(level: Tensor, grid: Grid, name: str) -> Tensor:
    if not bool(torch.isfinite(level).all()):
        raise InputError(f"{name} is not finite everywhere on the grid")
    return (level > 0).expand(grid.shape).clone()


def _read_array(source: ArrayTable, domain: Grid | Mesh, path: Path) -> np.ndarray[Any, Any]:
    """An array whose last axes are the grid's, or the points or cells of the mesh, in float64."""
    place = beside(source.file, path)
    try:
        with h5py.File(place, "r") as file:
            if not isinstance(file.get(source.dataset), h5py.Dataset):
                raise InputError(
                    f"{source.file}: there is no array {source.dataset!r}{suggestion(source.dataset, _datasets(file))}"
                )
            data = file[source.dataset]
            if data.dtype.kind not in "fiub":
                raise InputError(f"{source.file}: {source.dataset!r} holds {data.dtype}, and no numbers")
            _check_shape(data.shape, domain, f"{source.file}: {source.dataset!r} has shape {data.shape}")
            return np.asarray(data[()], dtype=np.float64)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source.file} cannot be read as HDF5, it may be cut short or damaged: {error}") from error


def _check_shape(shape: tuple[int, ...], domain: Grid | Mesh, what: str) -> None:
    if isinstance(domain, Mesh):
        points, cells = len(domain.points), len(domain.cells)
        if shape and shape[-1] not in (1, points, cells):
            raise InputError(
                f"{what}, expected (*batch, {points}), a value a point, or (*batch, {cells}), a value a cell"
            )
        return
    space = shape[max(0, len(shape) - domain.dimension) :]
    if any(n not in (1, wanted) for n, wanted in zip(space[::-1], domain.shape[::-1], strict=False)):
        raise InputError(f"{what}, expected one that broadcasts to (*batch, *{domain.shape})")


def _datasets(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found
