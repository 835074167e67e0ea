"""Problem files: what `sciml solve FILE.toml` reads, checked key by key before anything is computed.

    [equation]
    text = "-div(a*grad(u)) = f"         # or a list of texts; or: catalogue = "poisson"
    parameters = { nu = 0.01 }           # also: unknowns, coefficients, constraints

    [domain]
    shape = [256, 256]
    lower = [0.0, 0.0]
    upper = [1.0, 1.0]
    solid = "(x - 0.5)**2 + (y - 0.5)**2 < 0.04"        # or what is positive inside; or { file = ..., dataset = ... }
    walls = { kind = "neumann", flux = 0.0 }            # on the faces of solid cells
    device = "cpu"
    dtype = "float64"

    [boundary]                           # all, an axis, or one side of it; the narrowest wins
    all = { kind = "dirichlet", value = 0.0 }
    x = { kind = "periodic" }
    y_upper = { kind = "robin", coefficient = 1.0, value = "sin(pi*x)" }
                                         # of several unknowns: [boundary.unknowns.NAME] with the same keys
    [fields]
    a = "1 + x**2"                       # a number, an expression of the coordinates, or an array in an HDF5 file
    f = { file = "source.h5", dataset = "f" }

    [scheme]
    name = "FiniteVolume"                # further keys are its arguments

    [solver]
    method = "ConjugateGradient"         # or { name = "ConjugateGradient", preconditioner = "Multigrid", ... }
    rtol = 1e-8
    atol = 0.0

    [output]
    name = "poisson"
    formats = ["h5", "png", "vti"]

Only `equation` and `domain` are needed. Files are looked for beside the problem file. Expressions are read by the
parser of `sciml.equations`, never executed.
"""

from __future__ import annotations

import math
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, ValidationError, model_validator

from .boundary import suggestion
from .errors import InputError

_MOST_UNKNOWNS = 1 << 40
_LARGEST_FILE = 1 << 20  # bytes of a problem file; numbers by the million belong into HDF5


class _Table(BaseModel):
    """A table of the file. Unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            raise ValueError(f"a table is needed here, not {shown(content)}")
        unknown = [key for key in content if key not in cls.model_fields]
        if unknown:
            raise ValueError("; ".join(f"unknown key {key!r}{suggestion(key, cls.model_fields)}" for key in unknown))
        return content


def _number(content: Any) -> float:
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ValueError(f"a number is needed, not {shown(content)}")
    if not abs(content) <= sys.float_info.max:
        raise ValueError(f"a finite number is needed, not {shown(content)}")
    return float(content)


def _value(content: Any) -> float | str:
    if isinstance(content, str):
        return content
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ValueError(f"a number or an expression of the coordinates is needed, not {shown(content)}")
    return _number(content)


def _listed(content: Any) -> Any:
    return [content] if isinstance(content, str) else content


Number = Annotated[float, BeforeValidator(_number)]
Value = Annotated[float | str, BeforeValidator(_value)]
Texts = Annotated[list[str], BeforeValidator(_listed)]


class ArrayTable(_Table):
    """An array in an HDF5 file."""

    file: str
    dataset: str


def _source_kind(content: Any) -> str:
    return "array" if isinstance(content, dict) else "value"


Source = Annotated[Annotated[Value, Tag("value")] | Annotated[ArrayTable, Tag("array")], Discriminator(_source_kind)]


class EquationTable(_Table):
    """What is solved."""

    text: Texts | None = None
    catalogue: str | None = None
    unknowns: list[str] | None = None
    coefficients: list[str] | None = None
    parameters: dict[str, Number] = {}
    constraints: Texts = []

    @model_validator(mode="after")
    def _check_one(self) -> EquationTable:
        if (self.text is None) == (self.catalogue is None):
            raise ValueError("give the equation either as `text` or by its name in the `catalogue`")
        if self.catalogue is not None and (self.unknowns or self.coefficients or self.constraints):
            raise ValueError("an equation of the catalogue has its own unknowns, coefficients and constraints")
        return self


_WORDS: dict[str, tuple[str, ...]] = {
    "dirichlet": ("value",),
    "neumann": ("flux",),
    "robin": ("coefficient", "value"),
    "periodic": (),
}


class ConditionTable(_Table):
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


class SidesTable(_Table):
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

    unknowns: dict[str, SidesTable] = {}


class DomainTable(_Table):
    """Where it is solved."""

    shape: list[int]
    lower: list[Number]
    upper: list[Number]
    solid: Source | None = None
    walls: ConditionTable | None = None
    device: str = "cpu"
    dtype: Literal["float64", "float32"] = "float64"

    @model_validator(mode="after")
    def _check_size(self) -> DomainTable:
        unknowns = math.prod(self.shape)
        if unknowns > _MOST_UNKNOWNS:
            raise ValueError(f"shape has {unknowns} unknowns, which fit in no memory")
        return self


class SolverTable(_Table):
    """How it is solved; what is left out is chosen."""

    method: str | dict[str, Any] | None = None
    rtol: Number | None = None
    atol: Number = 0.0


class OutputTable(_Table):
    """What is written: NAME.h5, NAME.png, NAME.vti; NAME.json always."""

    name: str | None = None
    formats: list[Literal["h5", "png", "vti"]] = ["h5", "png", "vti"]

    @model_validator(mode="after")
    def _check_name(self) -> OutputTable:
        if self.name is not None and not re.fullmatch(r"\w[\w.+-]{0,99}", self.name):
            raise ValueError(
                f"name: {self.name!r} does not do as a file name; letters, digits and _ . + - are allowed, no folders"
            )
        return self


class ProblemTable(_Table):
    """A whole problem file."""

    equation: EquationTable
    domain: DomainTable
    boundary: BoundaryTable = BoundaryTable()
    fields: dict[str, Source] = {}
    scheme: dict[str, Any] | None = None
    solver: SolverTable = SolverTable()
    output: OutputTable = OutputTable()


def read(path: Path) -> ProblemTable:
    """Read and check a problem file.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    content = _parse(path)
    try:
        return ProblemTable.model_validate(content)
    except ValidationError as error:
        lines = [_line(path, content, problem) for problem in error.errors()]
        raise InputError("\n".join(dict.fromkeys(lines))) from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(
                f"{path} has more than {_LARGEST_FILE} bytes; keep arrays in HDF5 files and name them here"
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8 (byte {error.start})") from error
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with thousands of digits
        raise InputError(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply") from error


def _line(path: Path, content: Any, error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a line with the file and the table."""
    tables: list[str] = []
    key = ""
    for part in error["loc"]:  # names the branch of a union too, which is not in the file
        if isinstance(content, dict) and part in content:
            tables, key = [*tables, *([key] if key else [])], str(part)
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            key += f"[{part}]"
        else:
            continue
        content = content[part]
    kind, message = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        message = f"{error['loc'][-1]!r} is missing"
    elif kind != "value_error":
        message = f"{message[0].lower()}{message[1:]}, not {shown(content)}"
    if isinstance(content, dict):
        tables, key = [*tables, *([key] if key else [])], ""
    place = f" [{'.'.join(tables)}]" if tables else ""
    return f"{path.name},{place}{' ' + key if key else ''}: {message}".replace(",:", ":")


def shown(content: Any) -> str:
    """A value of a file for a message, cut where it is long."""
    text = repr(content)
    return text if len(text) <= 40 else f"{text[:37]}..."
