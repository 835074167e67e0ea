"""Turns a problem file, checked by `sciml.configuration`, into the arguments of `sciml.solve`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from . import configuration
from .boundary import AXES, Boundary, Condition, Dirichlet, Neumann, Periodic, Robin, suggestion
from .configuration import ArrayTable, BoundaryTable, ConditionTable, EquationTable, ProblemTable, SidesTable, shown
from .equations import Equation, catalogue, evaluate, parse_expression
from .errors import InputError
from .grid import Grid
from .scheme import FiniteDifference, FiniteVolume, Scheme

_SCHEMES: dict[str, type] = {kind.__name__: kind for kind in (FiniteDifference, FiniteVolume)}


@dataclass(frozen=True)
class Problem:
    """A problem file turned into the arguments of `sciml.solve`.

    Attributes:
        path: the file it came from.
        name, formats: what the results are called, and which files are wanted of "h5", "png", "vti".
        equation, domain, fields, scheme, method, rtol, atol: as `sciml.solve` takes them.
    """

    path: Path
    name: str
    formats: tuple[str, ...]
    equation: Equation
    domain: Grid
    fields: dict[str, Any]
    scheme: Scheme | None
    method: Any
    rtol: float | None
    atol: float


def read(path: str | os.PathLike[str], methods: Mapping[str, type] | None = None, device: str | None = None) -> Problem:
    """Read a problem file.

    Args:
        path: the TOML file.
        methods: what `method` and `preconditioner` may name, by name.
        device: in place of the file's.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    path = Path(path)
    table = configuration.read(path)
    with _at(path, "[equation]"):
        equation = _make_equation(table.equation)
    grid = _make_grid(path, table, equation.unknowns, device or table.domain.device)
    given = {}
    for name, source in table.fields.items():
        with _at(path, f"[fields] {name}"):
            given[name] = _make_field(source, grid, path)
    with _at(path, "[scheme]"):
        scheme = None if table.scheme is None else _make_object(table.scheme, _SCHEMES, "scheme")
    with _at(path, "[solver] method"):
        method = None if table.solver.method is None else _make_object(table.solver.method, methods or {}, "method")
    return Problem(
        path=path,
        name=table.output.name or path.stem,
        formats=tuple(table.output.formats),
        equation=equation,
        domain=grid,
        fields=given,
        scheme=scheme,
        method=method,
        rtol=table.solver.rtol,
        atol=table.solver.atol,
    )


@contextmanager
def _at(path: Path, place: str) -> Iterator[None]:
    """Say in which file and table an input was refused."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path.name}, {place}: {error}") from error


def _make_equation(table: EquationTable) -> Equation:
    if table.catalogue is not None:
        return catalogue.get(table.catalogue, **table.parameters).equation
    texts = table.text or []
    return Equation(
        texts[0] if len(texts) == 1 else texts,
        unknowns=table.unknowns,
        coefficients=table.coefficients,
        parameters=table.parameters,
        constraints=table.constraints,
    )


def _make_grid(path: Path, table: ProblemTable, unknowns: tuple[str, ...], device: str) -> Grid:
    domain = table.domain
    axes = AXES[: len(domain.shape)]
    with _at(path, "[domain] device"):
        _check_device(device)
    with _at(path, "[boundary]"):
        boundary = _make_boundary(table.boundary, axes, unknowns)
    dtype = torch.float64 if domain.dtype == "float64" else torch.float32
    with _at(path, "[domain]"):
        grid = Grid(domain.shape, domain.lower, domain.upper, boundary, device=device, dtype=dtype)
    if domain.walls is not None:
        with _at(path, "[domain] walls"):
            if domain.solid is None:
                raise InputError("walls are the faces of solid cells; give `solid` too")
            walls = _make_condition(domain.walls, axes)
            if isinstance(walls, Periodic):
                raise InputError("the faces of solid cells cannot be periodic")
            grid = replace(grid, walls=walls)
    if domain.solid is not None:
        with _at(path, "[domain] solid"):
            grid = replace(grid, solid=_make_solid(domain.solid, grid, path))
    return grid


def _check_device(name: str) -> None:
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise InputError(f"{name!r} is not a device; known: cpu, cuda, cuda:1, ...") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{name!r}: there is no CUDA device here; use cpu")


def _make_boundary(table: BoundaryTable, axes: tuple[str, ...], unknowns: tuple[str, ...]) -> Boundary:
    for name in table.unknowns:
        if name not in unknowns:
            raise InputError(f"the equation has no unknown {name!r}{suggestion(name, unknowns)}")
    for given in (table, *table.unknowns.values()):
        for axis in AXES[len(axes) :]:
            if any(getattr(given, f"{axis}{side}") is not None for side in ("", "_lower", "_upper")):
                raise InputError(f"a condition is given for {axis}, but the domain has only the axes {', '.join(axes)}")

    def side(tables: Sequence[SidesTable], axis: str, name: str) -> Condition:
        for given in tables:
            for key in (f"{axis}_{name}", axis, "all"):
                condition: ConditionTable | None = getattr(given, key)
                if condition is not None:
                    return _make_condition(condition, axes)
        return Dirichlet(0.0)

    def sides(*tables: SidesTable) -> dict[str, tuple[Condition, Condition]]:
        return {axis: (side(tables, axis, "lower"), side(tables, axis, "upper")) for axis in axes}

    if not table.unknowns:
        return sides(table)
    return {name: sides(*([table.unknowns[name]] if name in table.unknowns else []), table) for name in unknowns}


def _make_condition(table: ConditionTable, axes: tuple[str, ...]) -> Condition:
    value, flux, coefficient = (
        _make_function(item, axes) if isinstance(item, str) else item
        for item in (table.value, table.flux, table.coefficient)
    )
    if value is not None and coefficient is not None:
        return Robin(coefficient, value)
    if value is not None:
        return Dirichlet(value)
    return Periodic() if flux is None else Neumann(flux)


def _make_function(text: str, axes: tuple[str, ...]) -> Callable[..., float | Tensor]:
    """An expression of the coordinates as a function of one tensor an axis."""
    expression = parse_expression(text, axes)

    def function(*coordinates: Tensor) -> float | Tensor:
        return evaluate(expression, dict(zip(axes, coordinates, strict=True)))

    return function


def _make_field(source: float | str | ArrayTable, grid: Grid, path: Path) -> Any:
    if isinstance(source, ArrayTable):
        return torch.from_numpy(_read_array(source, grid, path)).to(grid.device, grid.dtype)
    return _make_function(source, grid.axes) if isinstance(source, str) else source


def _make_solid(source: float | str | ArrayTable, grid: Grid, path: Path) -> Tensor:
    if isinstance(source, ArrayTable):
        array = torch.from_numpy(_read_array(source, grid, path)).to(grid.device)
        if array.dim() > grid.dimension:
            raise InputError(f"the array has shape {tuple(array.shape)}, the domain {grid.shape}")
        return _positive(array, grid, f"{source.file}: {source.dataset!r}")
    if not isinstance(source, str):
        raise InputError("an expression, positive inside the solid, or an array is needed, not a number")
    left, *rest = re.split("(<=|>=|<|>)", source)
    if len(rest) > 2:
        raise InputError(f"{source!r}: one comparison at most is understood")
    level: float | Tensor = _make_function(left, grid.axes)(*grid.coordinates)
    if rest:
        other = _make_function(rest[1], grid.axes)(*grid.coordinates)
        level = level - other if ">" in rest[0] else other - level
    return _positive(torch.as_tensor(level, device=grid.device), grid, repr(source), equal="=" in "".join(rest[:1]))


def _positive(level: Tensor, grid: Grid, name: str, equal: bool = False) -> Tensor:
    if not bool(torch.isfinite(level).all()):
        raise InputError(f"{name} is not finite everywhere on the grid")
    return (level >= 0 if equal else level > 0).expand(grid.shape).clone()


def _read_array(source: ArrayTable, grid: Grid, path: Path) -> np.ndarray[Any, Any]:
    """An array whose last axes are the grid's, in float64."""
    place = path.parent / source.file
    if not place.is_file():
        raise InputError(f"there is no file {source.file!r} beside {path.name}")
    try:
        with h5py.File(place, "r") as file:
            if not isinstance(file.get(source.dataset), h5py.Dataset):
                raise InputError(
                    f"{source.file}: there is no array {source.dataset!r}{suggestion(source.dataset, _datasets(file))}"
                )
            data = file[source.dataset]
            if data.dtype.kind not in "fiub":
                raise InputError(f"{source.file}: {source.dataset!r} holds {data.dtype}, and no numbers")
            space = data.shape[max(0, data.ndim - grid.dimension) :]
            if any(n not in (1, wanted) for n, wanted in zip(space[::-1], grid.shape[::-1], strict=False)):
                raise InputError(
                    f"{source.file}: {source.dataset!r} has shape {data.shape}, expected one that broadcasts to "
                    f"(*batch, *{grid.shape})"
                )
            return np.asarray(data[()], dtype=np.float64)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source.file} cannot be read as HDF5, it may be cut short or damaged: {error}") from error


def _datasets(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def _make_object(entry: Any, known: Mapping[str, type], kind: str) -> Any:
    """A frozen dataclass from its name, or from a table of its name and arguments; a preconditioner likewise."""
    options = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"a {kind} is a name, or a table with the key `name` and its arguments, not {shown(entry)}")
    made = {word.lower(): item for word, item in known.items()}.get(re.sub("[_ -]", "", name).lower())
    if made is None:
        raise InputError(f"unknown {kind} {name!r}{suggestion(name, known)}")
    words = [field.name for field in fields(made) if field.init]
    for word in options:
        if word not in words:
            raise InputError(f"{made.__name__}: unknown argument {word!r}{suggestion(word, words)}")
        if word == "preconditioner":
            options[word] = _make_object(options[word], known, "preconditioner")
    try:
        return made(**options)
    except TypeError as error:
        raise InputError(f"{made.__name__}: an argument is of the wrong type ({error})") from error
