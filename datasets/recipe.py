"""Recipes: what a dataset is made from, in a TOML file.

    description = "..."
    [equation]                           # as in problem files: text = "..." or catalogue = "..."
    catalogue = "diffusion"
    [domain]                             # a grid, on which is solved
    shape = [422, 422]
    lower = [0.0, 0.0]
    upper = [1.0, 1.0]
    [boundary]                           # as in problem files
    all = { kind = "dirichlet", value = 0.0 }

    [fields]                             # coefficients and forcing: a number, an expression of the coordinates, or
    f = 1.0                              # a distribution
    [fields.a]
    kind = "threshold"
    above = 12.0
    below = 3.0
    field = { kind = "gaussian", alpha = 2.0, tau = 3.0, boundary = "neumann" }
    [parameters]                         # numbers that differ between samples
    nu = { kind = "log_uniform", lower = 1e-3, upper = 1e-1 }
    [initial]                            # of an evolving equation the state at the first time, by unknown
    u = { kind = "formula", text = "exp(g)", of = { g = { kind = "matern", length = 0.1, boundary = "periodic" } } }

    [scheme]                             # as in problem files
    name = "FiniteVolume"
    [solver]                             # method, rtol, atol; of an evolving equation times, step, control
    rtol = 1e-8
    [stored]
    coarsen = 2                          # cells are averaged, 2 along each axis; of a periodic axis, whose unknowns are
    dtype = "float32"                    # nodes, every second is taken
    fields = ["a", "u"]                  # without it all but numbers
    [samples]
    train = 1000                         # train is needed, valid and test are not
    valid = 100
    test = 100
    shard = 50                           # samples a file, the unit of work
    batch = 10                           # samples that are solved at once
    seed = 0
    threads = 1                          # of every process; results differ in their last bits between numbers of them
    failures = "refuse"                  # or "redraw": what comes of a sample whose solve fails

Kinds of distributions and their further keys (those with a value may be left out):

    constant    value                                uniform, log_uniform    lower, upper
    gaussian    alpha, tau, sigma                    threshold   field, above, below, level = 0
    matern      length, smoothness = 1.5, deviation = 1
    squared_exponential   length, deviation = 1
                of the last three also boundary = that of the domain ("periodic", "neumann", "dirichlet", or by axis
                { x = "periodic", y = ["dirichlet", "neumann"] }), mean = 0, zero_mean = true, modes
    formula     text, of = distributions by name     trigonometric_multiscale   scales = 6

What a sample is made of depends on the seed, its split, its number in it and the name of the field alone; not on the
size of the grid or of the dataset, nor on how many processes make it. A recipe names no other files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from sciml.boundary import suggestion
from sciml.configuration import EquationTable, GridProblem
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.problem_domain import at, make_grid
from sciml.problem_file import make_equation, make_solving
from sciml.recipe_files import described, shipped_files
from sciml.scheme import Scheme, Spectral
from sciml.solvers import linear, nonlinear
from sciml.solvers.time.by_name import INTEGRATORS
from sciml.tables import parse, validate

from .distributions import Distribution, Number
from .manifest import FIRST_SPLITS
from .recipe_tables import RecipeTable, make_distribution

_METHODS = {name: getattr(kind, name) for kind in (linear, nonlinear) for name in kind.__all__}


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a dataset is made from; `load_recipe` makes one.

    Args:
        name, description: for people.
        content: the tables of the file, which say it all.
        equation, grid, scheme, method, rtol, atol: as `sciml.solve` and `sciml.evolve` take them; the grid is on the
            CPU.
        times, step, control: as `sciml.evolve` takes them; times is None of a steady equation.
        fields: what coefficients and forcing are drawn from.
        parameters: what numbers of the equation are drawn from.
        initial: what states at the first time are drawn from, by unknown.
        coarsen: cells along each axis that one stored value stands for.
        dtype: of what is stored.
        stored: names of the fields that are kept.
        sizes: number of samples by split.
        shard, batch: samples a file, and samples that are solved at once.
        seed, threads: of the random numbers, and of every process.
        redraw: whether a sample whose solve fails is drawn anew; otherwise nothing is kept of its file.
    """

    name: str
    description: str
    content: Mapping[str, Any]
    equation: Equation
    grid: Grid
    scheme: Scheme | Spectral | None
    method: Any
    rtol: float | None
    atol: float | None
    times: tuple[float, ...] | None
    step: float | None
    control: Literal["joint", "row"]
    fields: Mapping[str, Distribution]
    parameters: Mapping[str, Number]
    initial: Mapping[str, Distribution]
    coarsen: int
    dtype: torch.dtype
    stored: tuple[str, ...]
    sizes: Mapping[str, int]
    shard: int
    batch: int
    seed: int
    threads: int
    redraw: bool

    @property
    def stored_grid(self) -> Grid:
        """The grid of what is kept."""
        return replace(self.grid, shape=tuple(n // self.coarsen for n in self.grid.shape))


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with this package: name -> what it makes."""
    return described(__package__)


def load_recipe(
    source: str | os.PathLike[str] | Mapping[str, Any], *, sizes: Mapping[str, int] | None = None
) -> Recipe:
    """Read and check a recipe.

    Args:
        source: the name of one of `shipped_recipes()`, the path of a TOML file, or what such a file holds as a dict.
        sizes: other numbers of samples, by split.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    if isinstance(source, Mapping):
        path, content = Path("recipe"), deepcopy(dict(source))
    else:
        path = _find(source)
        content = parse(path)
        if {"operator", "training"} <= {*content}:
            raise InputError(f"{path.name} says how an operator is trained: sciml train {path}")
    for split, number in (sizes or {}).items():
        if split not in FIRST_SPLITS:
            raise InputError(f"there is no split {split!r}{suggestion(split, FIRST_SPLITS)}")
        if isinstance(content.get("samples"), dict):
            content["samples"][split] = number
    content.setdefault("name", path.stem)
    return _make(path, content, validate(path, content, RecipeTable))


def _find(source: str | os.PathLike[str]) -> Path:
    path = Path(source)
    if path.suffix == ".toml" or path.is_file() or len(path.parts) != 1:
        return path
    shipped = shipped_files(__package__)
    if str(source) not in shipped:
        raise InputError(f"no recipe is called {str(source)!r}{suggestion(str(source), shipped)}")
    return shipped[str(source)]


def _make(path: Path, content: dict[str, Any], table: RecipeTable) -> Recipe:
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: only tables, lists, texts, numbers and true or false are known ({error})"
        ) from error
    samples, stored = table.samples, table.stored
    parameters: dict[str, Any] = {name: make_distribution(item) for name, item in table.parameters.items()}
    with at(path, "[equation]"):
        equation = _equation(table.equation, parameters)
    evolving = equation.evolving
    with at(path, "[domain]"):
        grid = _grid(path, table, equation)
    fields = {name: make_distribution(item) for name, item in table.fields.items()}
    initial = {name: make_distribution(item) for name, item in table.initial.items()}
    for word, distributions in (("fields", fields), ("initial", initial)):
        for name, distribution in distributions.items():
            with at(path, f"[{word}.{name}]"):
                distribution.check(grid)
    with at(path, "[fields]"):
        _check_names(fields, equation.coefficients, "the equation has no coefficient")
    with at(path, "[parameters]"):
        _check_names(parameters, equation.parameters, "the equation has no parameter", complete=False)
    with at(path, "[initial]"):
        _check_names(initial, equation.unknowns if evolving else (), "no initial state is needed of")
    if table.solver.initial is not None:
        raise InputError(f"{path.name}, [solver]: initial: states are drawn by [initial], with a key for each unknown")
    solving = make_solving(path, table.scheme, table.solver, equation, _METHODS, INTEGRATORS)
    if not any(item.random for item in (*fields.values(), *parameters.values(), *initial.values())):
        raise InputError(f"{path.name}: nothing in it is random, so that all samples would be the same")
    with at(path, "[stored]"):
        kept = _stored(stored.fields, fields, equation)
        _check_coarsen(stored.coarsen, grid)
    return Recipe(
        name=table.name or path.stem,
        description=table.description,
        content=content,
        equation=equation,
        grid=grid,
        **solving,
        fields=fields,
        parameters=parameters,
        initial=initial,
        coarsen=stored.coarsen,
        dtype={"float32": torch.float32, "float64": torch.float64}[stored.dtype],
        stored=kept,
        sizes={split: getattr(samples, split) for split in FIRST_SPLITS},
        shard=samples.shard,
        batch=samples.batch,
        seed=samples.seed,
        threads=samples.threads,
        redraw=samples.failures == "redraw",
    )


def _equation(table: EquationTable, parameters: Mapping[str, Number]) -> Equation:
    """The equation; parameters that are drawn need no number in the file, and have one that a seed of 0 gives."""
    numbers = {name: float(item.draw([0])) for name, item in parameters.items()}
    return make_equation(table.model_copy(update={"parameters": {**numbers, **table.parameters}}))


def _grid(path: Path, table: RecipeTable, equation: Equation) -> Grid:
    domain = table.domain
    if "device" in domain.model_fields_set:
        raise InputError("device: a recipe is the same on every machine; name the device where it is made")
    if domain.solid is not None and not isinstance(domain.solid, str):
        raise InputError("solid: a recipe names no files; give a condition or an expression")
    problem = GridProblem.model_construct(equation=table.equation, domain=domain, boundary=table.boundary)
    return make_grid(path, problem, equation, "cpu")


def _check_names(given: Mapping[str, Any], known: Any, refusal: str, *, complete: bool = True) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"{refusal} {name!r}{suggestion(name, known)}")
    missing = [name for name in known if name not in given] if complete else []
    if missing:
        raise InputError(f"nothing is said of {', '.join(missing)}")


def _stored(asked: list[str] | None, fields: Mapping[str, Distribution], equation: Equation) -> tuple[str, ...]:
    varying = [name for name, item in fields.items() if not isinstance(item, Number)]
    if asked is None:
        return (*varying, *equation.unknowns)
    known = (*varying, *equation.unknowns, *equation.constrained)
    for name in asked:
        if name not in known:
            raise InputError(f"fields: {name!r} is not among what can be kept{suggestion(name, known)}")
    if not set(asked) & {*equation.unknowns, *equation.constrained}:
        raise InputError(f"fields: of the solution nothing is kept; add {', '.join(equation.unknowns)}")
    return tuple(dict.fromkeys(asked))


def _check_coarsen(factor: int, grid: Grid) -> None:
    for axis, n in zip(grid.axes, grid.shape, strict=True):
        if n % factor:
            raise InputError(f"coarsen: {factor} cells cannot be taken together along {axis}, which has {n}")
    if factor > 1 and grid.solid is not None:
        raise InputError("coarsen: with solid cells the grid is stored as it is; leave coarsen out")
