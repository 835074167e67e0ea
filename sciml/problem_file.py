"""Turns a problem file, checked by `sciml.configuration`, into the arguments of `sciml.solve` or `sciml.evolve`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from . import configuration
from .boundary import Boundary, suggestion
from .configuration import (
    EVOLUTION_FORMATS,
    GRID_FORMATS,
    MESH_FORMATS,
    AnyProblem,
    ArrayTable,
    EquationTable,
    GridProblem,
    MeshProblem,
    OrdinaryProblem,
    RunTable,
    SolverTable,
    TimesTable,
)
from .equations import Equation, catalogue
from .errors import InputError
from .grid import Grid
from .mesh import Mesh
from .problem_domain import at, beside, make_field, make_grid, make_mesh, make_number
from .scheme import FiniteDifference, FiniteElement, FiniteVolume, Scheme, Spectral
from .solution import Solution
from .tables import shown

SCHEMES: dict[str, type] = {kind.__name__: kind for kind in (FiniteDifference, FiniteElement, FiniteVolume, Spectral)}
# Arguments of methods that are methods themselves.
_OF_FORMULA = ("name", "tableau")  # what makes an integrator the one it is
_PARTS = ("forcing", "inner", "line_search", "linear", "method", "preconditioner")


@dataclass(frozen=True)
class Problem:
    """A problem file turned into the arguments of `sciml.solve`, or of `sciml.evolve` if there are times.

    Attributes:
        path: the file it came from.
        name, formats: what the results are called, and which files are wanted of "h5", "png", "vti", "vtu", ...
        equation, domain, fields, boundary, scheme, method, initial, rtol, atol: as `sciml.solve` takes them.
        times, step, control: as `sciml.evolve` takes them; times None of a steady problem.
    """

    path: Path
    name: str
    formats: tuple[str, ...]
    equation: Equation
    domain: Grid | Mesh | None
    fields: dict[str, Any]
    boundary: Boundary | None
    scheme: Scheme | FiniteElement | Spectral | None
    method: Any
    initial: Any
    rtol: float | None
    atol: float | None
    times: tuple[float, ...] | None = None
    step: float | None = None
    control: Literal["joint", "row"] = "joint"


def read(
    path: str | os.PathLike[str],
    methods: Mapping[str, type] | None = None,
    device: str | None = None,
    integrators: Mapping[str, Callable[[], Any]] | None = None,
) -> Problem:
    """Read a problem file.

    Args:
        path: the TOML file.
        methods: what `method` and the methods within it may name, by name.
        integrators: what `method` of an evolving equation may name, by name what makes it.
        device: in place of the file's.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    path = Path(path)
    table = configuration.read(path)
    with at(path, "[equation]"):
        equation = make_equation(table.equation)
    evolving = equation.evolving
    with at(path, "[output] formats"):
        formats = _choose_formats(table, evolving)
    domain: Grid | Mesh | None = None
    boundary: Boundary | None = None
    if isinstance(table, GridProblem):
        domain = make_grid(path, table, equation, device or table.domain.device)
    elif isinstance(table, MeshProblem):
        domain, boundary = make_mesh(path, table, equation, device or table.domain.device)
    elif equation.coordinates:
        raise InputError(f"{path.name}: 'domain' is missing")
    given = {}
    for name, source in table.fields.items():
        with at(path, f"[fields] {name}"):
            given[name] = _make_given(source, domain, path, evolving)
    scheme = None if isinstance(table, OrdinaryProblem) else table.scheme
    solving = make_solving(path, scheme, table.solver, equation, methods or {}, integrators or {})
    with at(path, "[solver] initial"):
        initial = _make_initial(table.solver, equation, domain, path)
    return Problem(
        path=path,
        name=table.output.name or path.stem,
        formats=formats,
        equation=equation,
        domain=domain,
        fields=given,
        boundary=boundary,
        initial=initial,
        **solving,
    )


def make_equation(table: EquationTable) -> Equation:
    if table.catalogue is not None:
        return catalogue.get(table.catalogue, **table.parameters).equation
    texts = table.text or []
    return Equation(
        texts[0] if len(texts) == 1 else texts,
        unknowns=table.unknowns,
        coefficients=table.coefficients,
        parameters=table.parameters,
        constraints=table.constraints,
        **({} if table.coordinates is None else {"coordinates": tuple(table.coordinates)}),
    )


def make_solving(
    path: Path,
    scheme: Mapping[str, Any] | None,
    solver: SolverTable,
    equation: Equation,
    methods: Mapping[str, type],
    integrators: Mapping[str, Callable[[], Any]],
) -> dict[str, Any]:
    """How an equation is solved: scheme, method, rtol, atol, times, step and control, as `sciml.evolve` takes them.

    Args:
        path: the file, for messages.
        scheme, solver: its tables.
        equation: which is solved; of a steady one times is None.
        methods, integrators: as of `read`.

    Raises:
        InputError: with the file and the table.
    """
    made = None
    if scheme is not None:
        with at(path, "[scheme]"):
            made = make_object(scheme, SCHEMES, "scheme")
    with at(path, "[solver] method"):
        method = _make_method(solver.method, methods, integrators if equation.evolving else None)
    with at(path, "[solver]"):
        times = _make_times(solver, equation)
    return {
        "scheme": made,
        "method": method,
        "rtol": solver.rtol,
        "atol": solver.atol,
        "times": times,
        "step": solver.step,
        "control": solver.control or "joint",
    }


def _choose_formats(table: AnyProblem, evolving: bool) -> tuple[str, ...]:
    asked = table.output.formats
    if evolving:
        known = EVOLUTION_FORMATS[: -1 if isinstance(table, OrdinaryProblem) else None]
        for word in asked or ():
            if word not in known:
                raise InputError(f"{word!r} is not for evolutions of this kind: take {', '.join(known)}")
        return known[:2] if asked is None else tuple(asked)
    on_mesh = isinstance(table, MeshProblem)
    known = MESH_FORMATS if on_mesh else GRID_FORMATS
    for word in asked or ():
        if word in EVOLUTION_FORMATS and word not in known:
            raise InputError(f"{word!r} is for evolving equations, and this one is steady: take {', '.join(known)}")
        if word not in known:
            kinds = ("grids", "a mesh") if on_mesh else ("meshes", "a grid")
            raise InputError(f"{word!r} is for {kinds[0]}, and the domain is {kinds[1]}: take {', '.join(known)}")
    return known[:3] if asked is None else tuple(asked)


def _make_given(source: Any, domain: Grid | Mesh | None, path: Path, evolving: bool) -> Any:
    if domain is not None:
        return make_field(source, domain, path, evolving=evolving)
    if isinstance(source, ArrayTable):
        raise InputError("without a domain a number or an expression is needed, not an array")
    return make_number(source, evolving)


def _make_times(table: SolverTable, equation: Equation) -> tuple[float, ...] | None:
    times = table.times
    if not equation.evolving:
        for word in ("times", "step", "control"):
            if getattr(table, word) is not None:
                raise InputError(f"{word} is for evolving equations, and this one has no time derivative")
        return None
    if times is None:
        raise InputError("the equation evolves: give times = [0.0, ...] or { start = ..., end = ..., count = ... }")
    if isinstance(times, TimesTable):
        if not times.start < times.end:
            raise InputError(f"times: start must come before end, got {times.start:g} and {times.end:g}")
        last, span = times.count - 1, times.end - times.start
        return (*(times.start + span * k / last for k in range(last)), times.end)
    return tuple(times)


def _make_initial(table: SolverTable, equation: Equation, domain: Grid | Mesh | None, path: Path) -> Any:
    given = table.initial
    if given is None:
        if equation.evolving:
            raise InputError("the equation evolves: give its state at the first time")
        return None
    if equation.linear and not equation.evolving:
        raise InputError("it is the start for a nonlinear equation, and this one is linear")
    if isinstance(given, RunTable):
        if not equation.evolving:
            raise InputError("a file of an earlier solution is for evolving equations; name a `dataset` in it")
        place = "cpu" if domain is None else domain.device
        return Solution.load(beside(given.file, path), place)
    if isinstance(given, dict):
        return {name: _make_given(item, domain, path, False) for name, item in given.items()}
    return _make_given(given, domain, path, False)


def _make_method(entry: Any, methods: Mapping[str, type], integrators: Mapping[str, Callable[[], Any]] | None) -> Any:
    if entry is None or integrators is None:
        return None if entry is None else make_object(entry, methods, "method")
    options = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"a method is a name, or a table with the key `name` and its arguments, not {shown(entry)}")
    make = integrators.get(re.sub("[- ]", "_", name).lower())
    if make is None:
        raise InputError(f"unknown method {name!r}{suggestion(name, integrators)}")
    made = make()
    words = [field.name for field in fields(made) if field.init and field.name not in _OF_FORMULA]
    for word, value in options.items():
        if word not in words:
            raise InputError(f"{name}: unknown argument {word!r}{suggestion(word, words)}")
        if word == "controller":
            if not isinstance(value, Mapping):
                raise InputError(f"{name}: controller is a table, such as {{ safety = 0.8 }}, not {shown(value)}")
            kind = type(made.controller)
            options[word] = make_object({"name": kind.__name__, **value}, {kind.__name__: kind}, word)
        elif word == "linear":
            options[word] = None if value == "none" else make_object(value, methods, word)
        elif isinstance(getattr(made, word), bool) and not isinstance(value, bool):
            raise InputError(f"{name}: {word} is true or false, not {shown(value)}")
    try:
        return replace(made, **options)
    except TypeError as error:
        raise InputError(f"{name}: an argument is of the wrong type ({error})") from error


def make_object(entry: Any, known: Mapping[str, type], kind: str) -> Any:
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
            options[word] = None if options[word] == "none" else make_object(options[word], known, word)
    try:
        return made(**options)
    except TypeError as error:
        raise InputError(f"{made.__name__}: an argument is of the wrong type ({error})") from error
