"""Problem files: what `sciml solve FILE.toml` reads, checked key by key before anything is computed.

    [equation]
    text = "-div(a*grad(u)) = f"         # or a list of texts; or: catalogue = "poisson"
    parameters = { nu = 0.01 }           # also: unknowns, coefficients, constraints

    [domain]                             # a grid ...
    shape = [256, 256]
    lower = [0.0, 0.0]
    upper = [1.0, 1.0]
    solid = "0.2 < x < 0.4 and y > 0.5"  # a condition, or an expression that is positive inside, or an array
                                         # { file = ..., dataset = ... }, or a closed surface: { surface = "body.stl" }
    walls = { kind = "neumann", flux = 0.0 }            # on the faces of solid cells
    device = "cpu"
    dtype = "float64"

    [domain]                             # ... or a mesh: its file, or a box of triangles or tetrahedra,
    mesh = "part.msh"                    # mesh = { shape = [40, 20], lower = [0, 0], upper = [2, 1] }
    refine = 0                           # how often its cells are cut
    boundaries = { inlet = "x < 1e-6", hole = "x**2 + y**2 < 0.26 and y > 0" }        # more names for parts of its
    regions = { core = "abs(x - 0.5) < 0.1" }                                         # surface and of its inside

    [boundary]                           # of a grid: all, an axis, or one side of it; the narrowest wins
    all = { kind = "dirichlet", value = 0.0 }
    x = { kind = "periodic" }
    y_upper = { kind = "robin", coefficient = 1.0, value = "sin(pi*x)" }

    [boundary]                           # of a mesh: by name; `rest` is what is left
    inlet = { kind = "dirichlet", value = "1 - y**2" }
    rest = { kind = "neumann", flux = 0.0 }
                                         # of several unknowns: [boundary.unknowns.NAME] with the same keys
    [fields]
    a = "1 + x**2"                       # a number, an expression of the coordinates, or an array in an HDF5 file
    f = { file = "source.h5", dataset = "f" }
    b = { core = 10.0, rest = 1.0 }      # or, on a mesh, a number for each region

    [scheme]
    name = "FiniteVolume"                # further keys are its arguments

    [solver]
    method = "ConjugateGradient"         # or { name = "ConjugateGradient", preconditioner = "Multigrid", ... }; of a
    rtol = 1e-8                          # nonlinear equation "Newton", "Picard", or { name = "Continuation",
    atol = 0.0                           # parameter = "nu", start = 0.1, method = { name = "Newton", ... } };
                                         # "none" leaves a part of a method out: line_search = "none"
    initial = "x*(1 - x)"                # where the iteration for a nonlinear equation begins; by unknown if several

    [solver]                             # of an equation with a time derivative
    initial = "sin(x)"                   # at the first time; by unknown if several: { u = "sin(x)", v = 0.0 }; an array
                                         # { file = ..., dataset = ... }; or an earlier result: { file = "run.h5" }
    times = [0.0, 0.5, 1.0]              # or { start = 0.0, end = 1.0, count = 101 }
    method = "tsit5"                     # or with its arguments, { name = "tsit5", controller = { first_step = 1e-4,
                                         # largest_step = 0.1, safety = 0.8 } }; rk4, etd4, bdf2, ...
    step = 0.01                          # of fixed steps; without it rtol and atol decide
    control = "joint"                    # or "row": steps of its own for every row

    [output]
    name = "poisson"
    formats = ["h5", "png", "vti"]       # on a mesh vtu, vtk or xdmf in place of vti; of an evolution h5, png, gif,
                                         # mp4, and pvd, a series for ParaView

Only `equation` and `domain` are needed, and of a mesh `boundary`; of an evolution also `initial` and `times`. Its
fields and boundary values may be expressions with t. Ordinary differential equations have `coordinates = []` in
`equation`, and no `domain`. Files are looked for beside the problem file.
Expressions and conditions are read by the parsers of `sciml.equations`, never executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from .tables import Number, Table, Texts, Value, parse, validate

_MOST_UNKNOWNS = 1 << 40


class ArrayTable(Table):
    """An array in an HDF5 file."""

    file: str
    dataset: str


class SurfaceTable(Table):
    """A surface of triangles in a file."""

    surface: str
    method: Literal["parity", "winding"] | None = None


# Kinds of a union, in brackets since pydantic puts them among the keys of a message, where `tables` must know them.
def _source_kind(content: Any) -> str:
    return "<array>" if isinstance(content, dict) else "<value>"


def _solid_kind(content: Any) -> str:
    return "<surface>" if isinstance(content, dict) and "surface" in content else _source_kind(content)


def _source_on_mesh_kind(content: Any) -> str:
    if not isinstance(content, dict):
        return "<value>"
    return "<array>" if any(isinstance(item, str) for item in content.values()) else "<regions>"


_OneValue = Annotated[Value, Tag("<value>")]
_OneArray = Annotated[ArrayTable, Tag("<array>")]
Source = Annotated[_OneValue | _OneArray, Discriminator(_source_kind)]
Solid = Annotated[_OneValue | _OneArray | Annotated[SurfaceTable, Tag("<surface>")], Discriminator(_solid_kind)]
SourceOnMesh = Annotated[
    _OneValue | _OneArray | Annotated[dict[str, Number], Tag("<regions>")], Discriminator(_source_on_mesh_kind)
]


class EquationTable(Table):
    """What is solved."""

    text: Texts | None = None
    catalogue: str | None = None
    unknowns: list[str] | None = None
    coefficients: list[str] | None = None
    parameters: dict[str, Number] = Field(default_factory=dict)
    constraints: Texts = Field(default_factory=list)
    coordinates: list[str] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> EquationTable:
        if (self.text is None) == (self.catalogue is None):
            raise ValueError("give the equation either as `text` or by its name in the `catalogue`")
        own = (self.unknowns, self.coefficients, self.constraints, self.coordinates is not None)
        if self.catalogue is not None and any(own):
            raise ValueError(
                "an equation of the catalogue has its own unknowns, coefficients, constraints and coordinates"
            )
        return self


_WORDS: dict[str, tuple[str, ...]] = {
    "dirichlet": ("value",),
    "neumann": ("flux",),
    "robin": ("coefficient", "value"),
    "periodic": (),
}


class ConditionTable(Table):
    """One boundary condition."""

    kind: Literal["dirichlet", "neumann", "robin", "periodic"]
    value: Value | None = None
    flux: Value | None = None
    coefficient: Value | None = None

    @model_validator(mode="after")
    def _check_words(self) -> ConditionTable:
        wanted = _WORDS[self.kind]
        given = [word for word in ("value", "flux", "coefficient") if getattr(self, word) is not None]
        if set(given) != set(wanted):
            needs = " and ".join(wanted) or "no further key"
            raise ValueError(f"a {self.kind} condition takes {needs}, not {' and '.join(given) or 'nothing'}")
        return self


class SidesTable(Table):
    """Conditions for all sides, for both sides of an axis, or for one side: the narrowest wins."""

    all: ConditionTable | None = None
    x: ConditionTable | None = None
    x_lower: ConditionTable | None = None
    x_upper: ConditionTable | None = None
    y: ConditionTable | None = None
    y_lower: ConditionTable | None = None
    y_upper: ConditionTable | None = None
    z: ConditionTable | None = None
    z_lower: ConditionTable | None = None
    z_upper: ConditionTable | None = None


class BoundaryTable(SidesTable):
    """Conditions for every unknown, or one table for each."""

    unknowns: dict[str, SidesTable] = Field(default_factory=dict)


class NamedBoundaryTable(Table):
    """Conditions by the names of a mesh, for every unknown or one table for each."""

    named: dict[str, ConditionTable] = Field(default_factory=dict)
    unknowns: dict[str, dict[str, ConditionTable]] = Field(default_factory=dict)


def _split_names(content: Any) -> Any:
    """Names of boundaries are free, but for `unknowns`, unless that one has a condition."""
    if not isinstance(content, dict):
        return content
    by_unknown = content.get("unknowns", {})
    if isinstance(by_unknown, dict) and "kind" in by_unknown:
        return {"named": content}
    return {"named": {name: item for name, item in content.items() if name != "unknowns"}, "unknowns": by_unknown}


_OF_MESHES = ": it belongs to a mesh, and the domain is a grid; a mesh has the key `mesh`, and no `shape`"
_OF_GRIDS = ": it belongs to a grid, and the domain is a mesh; cut obstacles out of the mesh itself"
_OF_BOXES = "; the box of a mesh is given as mesh = { shape = ..., lower = ..., upper = ... }"


def _check_size(shape: list[int], cells: int = 1) -> None:
    unknowns = math.prod(shape) * cells
    if unknowns > _MOST_UNKNOWNS:
        raise ValueError(f"shape has {unknowns} {'unknowns' if cells == 1 else 'cells'}, which fit in no memory")


class GridTable(Table):
    """A grid."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(("mesh", "boundaries", "regions", "refine"), _OF_MESHES)

    shape: list[int]
    lower: list[Number]
    upper: list[Number]
    solid: Solid | None = None
    walls: ConditionTable | None = None
    device: str = "cpu"
    dtype: Literal["float64", "float32"] = "float64"

    @model_validator(mode="after")
    def _check_shape(self) -> GridTable:
        _check_size(self.shape)
        return self


class BoxTable(Table):
    """A box of triangles or tetrahedra."""

    shape: list[int]
    lower: list[Number]
    upper: list[Number]

    @model_validator(mode="after")
    def _check_shape(self) -> BoxTable:
        _check_size(self.shape, 6)
        return self


def _mesh_kind(content: Any) -> str:
    return "<box>" if isinstance(content, dict) else "<file>"


class MeshTable(Table):
    """A mesh."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("solid", "walls"), _OF_GRIDS),
        **dict.fromkeys(("shape", "lower", "upper"), _OF_BOXES),
    }

    mesh: Annotated[Annotated[str, Tag("<file>")] | Annotated[BoxTable, Tag("<box>")], Discriminator(_mesh_kind)]
    refine: Annotated[int, Field(ge=0, le=10)] = 0
    boundaries: dict[str, str] = Field(default_factory=dict)
    regions: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    dtype: Literal["float64", "float32"] = "float64"


def _initial_kind(content: Any) -> str:
    if not isinstance(content, dict):
        return "<value>"
    if "file" in content and isinstance(content["file"], str):
        return "<array>" if "dataset" in content else "<run>"
    return "<unknowns>"


class RunTable(Table):
    """The file of an earlier solution."""

    file: str


class TimesTable(Table):
    """Times with equal distances."""

    start: Number
    end: Number
    count: Annotated[int, Field(ge=2, le=10_000_000)]


def _times_kind(content: Any) -> str:
    return "<range>" if isinstance(content, dict) else "<list>"


class SolverTable(Table):
    """How it is solved; what is left out is chosen."""

    method: str | dict[str, Any] | None = None
    rtol: Number | None = None
    atol: Number | None = None
    initial: (
        Annotated[
            _OneValue | _OneArray | Annotated[RunTable, Tag("<run>")] | Annotated[dict[str, Source], Tag("<unknowns>")],
            Discriminator(_initial_kind),
        ]
        | None
    ) = None
    times: (
        Annotated[
            Annotated[list[Number], Tag("<list>")] | Annotated[TimesTable, Tag("<range>")], Discriminator(_times_kind)
        ]
        | None
    ) = None
    step: Number | None = None
    control: Literal["joint", "row"] | None = None


GRID_FORMATS = ("h5", "png", "vti")
MESH_FORMATS = ("h5", "png", "vtu", "vtk", "xdmf")
EVOLUTION_FORMATS = ("h5", "png", "gif", "mp4", "pvd")


class OutputTable(Table):
    """What is written: NAME.h5, NAME.png, NAME.vti or NAME.vtu, ...; NAME.json always."""

    name: str | None = None
    formats: list[Literal["h5", "png", "vti", "vtu", "vtk", "xdmf", "gif", "mp4", "pvd"]] | None = None

    @model_validator(mode="after")
    def _check_name(self) -> OutputTable:
        if self.name is not None and not re.fullmatch(r"\w[\w.+-]{0,99}", self.name):
            raise ValueError(
                f"name: {self.name!r} does not do as a file name; letters, digits and _ . + - are allowed, no folders"
            )
        return self


class GridProblem(Table):
    """A whole problem file, of a problem on a grid."""

    equation: EquationTable
    domain: GridTable
    boundary: BoundaryTable = BoundaryTable()
    fields: dict[str, Source] = Field(default_factory=dict)
    scheme: dict[str, Any] | None = None
    solver: SolverTable = SolverTable()
    output: OutputTable = OutputTable()


class MeshProblem(Table):
    """A whole problem file, of a problem on a mesh."""

    equation: EquationTable
    domain: MeshTable
    boundary: Annotated[NamedBoundaryTable, BeforeValidator(_split_names)] = NamedBoundaryTable()
    fields: dict[str, SourceOnMesh] = Field(default_factory=dict)
    scheme: dict[str, Any] | None = None
    solver: SolverTable = SolverTable()
    output: OutputTable = OutputTable()


class OrdinaryProblem(Table):
    """A whole problem file, of a problem without a domain."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("boundary", "scheme"), ": ordinary differential equations have none"
    )

    equation: EquationTable
    fields: dict[str, Value] = Field(default_factory=dict)
    solver: SolverTable = SolverTable()
    output: OutputTable = OutputTable()


AnyProblem = GridProblem | MeshProblem | OrdinaryProblem


def read(path: Path) -> AnyProblem:
    """Read and check a problem file.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    content = parse(path)
    domain = content.get("domain")
    kind: type[AnyProblem] = MeshProblem if isinstance(domain, dict) and "mesh" in domain else GridProblem
    equation = content.get("equation")
    if domain is None and isinstance(equation, dict) and (equation.get("coordinates") == [] or "catalogue" in equation):
        kind = OrdinaryProblem
    return validate(path, content, kind)
