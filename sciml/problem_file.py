"""Turns a problem file, checked by `sciml.configuration`, into the arguments of `sciml.solve`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import configuration
from .boundary import Boundary, suggestion
from .configuration import GRID_FORMATS, MESH_FORMATS, EquationTable, GridProblem, MeshProblem, SolverTable, shown
from .equations import Equation, catalogue
from .errors import InputError
from .grid import Grid
from .mesh import Mesh
from .problem_domain import at, make_field, make_function, make_grid, make_mesh
from .scheme import FiniteDifference, FiniteElement, FiniteVolume, Scheme

_SCHEMES: dict[str, type] = {kind.__name__: kind for kind in (FiniteDifference, FiniteElement, FiniteVolume)}
# Arguments of methods that are methods themselves.
_PARTS = ("forcing", "inner", "line_search", "linear", "method", "preconditioner")


@dataclass(frozen=True)
class Problem:
    """A problem file turned into the arguments of `sciml.solve`.

    Attributes:
        path: the file it came from.
        name, formats: what the results are called, and which files are wanted of "h5", "png", "vti", "vtu", ...
        equation, domain, fields, boundary, scheme, method, initial, rtol, atol: as `sciml.solve` takes them.
    """

    path: Path
    name: str
    formats: tuple[str, ...]
    equation: Equation
    domain: Grid | Mesh
    fields: dict[str, Any]
    boundary: Boundary | None
    scheme: Scheme | FiniteElement | None
    method: Any
    initial: Any
    rtol: float | None
    atol: float | None


def read(path: str | os.PathLike[str], methods: Mapping[str, type] | None = None, device: str | None = None) -> Problem:
    """Read a problem file.

    Args:
        path: the TOML file.
        methods: what `method` and the methods within it may name, by name.
        device: in place of the file's.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    path = Path(path)
    table = configuration.read(path)
    with at(path, "[equation]"):
        equation = _make_equation(table.equation)
    with at(path, "[output] formats"):
        formats = _choose_formats(table)
    place = device or table.domain.device
    unknowns = (*equation.unknowns, *equation.constrained)
    domain: Grid | Mesh
    boundary: Boundary | None = None
    if isinstance(table, GridProblem):
        domain = make_grid(path, table, unknowns, place)
    else:
        domain, boundary = make_mesh(path, table, unknowns, place)
    given = {}
    for name, source in table.fields.items():
        with at(path, f"[fields] {name}"):
            given[name] = make_field(source, domain, path)
    with at(path, "[scheme]"):
        scheme = None if table.scheme is None else _make_object(table.scheme, _SCHEMES, "scheme")
    with at(path, "[solver] method"):
        method = None if table.solver.method is None else _make_object(table.solver.method, methods or {}, "method")
    with at(path, "[solver] initial"):
        initial = _make_initial(table.solver, equation, domain)
    return Problem(
        path=path,
        name=table.output.name or path.stem,
        formats=formats,
        equation=equation,
        domain=domain,
        fields=given,
        boundary=boundary,
        scheme=scheme,
        method=method,
        initial=initial,
        rtol=table.solver.rtol,
        atol=table.solver.atol,
    )


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


def _choose_formats(table: GridProblem | MeshProblem) -> tuple[str, ...]:
    on_mesh = isinstance(table, MeshProblem)
    known = MESH_FORMATS if on_mesh else GRID_FORMATS
    for word in table.output.formats or ():
        if word not in known:
            kinds = ("grids", "a mesh") if on_mesh else ("meshes", "a grid")
            raise InputError(f"{word!r} is for {kinds[0]}, and the domain is {kinds[1]}: take {', '.join(known)}")
    return known[:3] if table.output.formats is None else tuple(table.output.formats)


def _make_initial(table: SolverTable, equation: Equation, domain: Grid | Mesh) -> Any:
    given = table.initial
    if given is None:
        return None
    if equation.linear:
        raise InputError("it is the start for a nonlinear equation, and this one is linear")

    def make(item: float | str) -> Any:
        return make_function(item, domain.axes) if isinstance(item, str) else item

    return {name: make(item) for name, item in given.items()} if isinstance(given, dict) else make(given)


def _make_object(entry: Any, known: Mapping[str, type], kind: str) -> Any:
    """A frozen dataclass from its name, or from a table of its name and arguments; the methods within it likewise."""
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
        if word in _PARTS:
            options[word] = None if options[word] == "none" else _make_object(options[word], known, word)
    try:
        return made(**options)
    except TypeError as error:
        raise InputError(f"{made.__name__}: an argument is of the wrong type ({error})") from error
