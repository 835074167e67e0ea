"""The tables of a recipe file, checked key by key before anything is computed; `recipe.py` shows one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from sciml.boundary import Boundary, suggestion
from sciml.configuration import BoundaryTable, EquationTable, GridTable, SolverTable
from sciml.errors import InputError
from sciml.tables import Number, Table, shown

from .distributions import (
    Constant,
    Distribution,
    Formula,
    GaussianField,
    LogUniform,
    Threshold,
    TrigonometricMultiscale,
    Uniform,
)
from .random_fields import Covariance, InversePower, Matern, SquaredExponential, condition_named

_LARGEST = 100_000_000  # samples


class DistributionTable(Table):
    """A distribution, told from others by its `kind`."""

    @abstractmethod
    def make(self) -> Distribution:
        """The distribution."""

    @model_validator(mode="after")
    def _check_makes(self) -> DistributionTable:
        self.make()  # what it refuses stands under the key of this table
        return self


class ConstantTable(DistributionTable):
    """The same number always."""

    kind: Literal["constant"]
    value: Number

    def make(self) -> Constant:
        return Constant(self.value)


class UniformTable(DistributionTable):
    """Numbers between two bounds."""

    kind: Literal["uniform"]
    lower: Number
    upper: Number

    def make(self) -> Uniform:
        return Uniform(self.lower, self.upper)


class LogUniformTable(DistributionTable):
    """Numbers between two bounds, uniform in their logarithm."""

    kind: Literal["log_uniform"]
    lower: Number
    upper: Number

    def make(self) -> LogUniform:
        return LogUniform(self.lower, self.upper)


class SeriesTable(DistributionTable):
    """What Gaussian fields of every covariance have in common."""

    boundary: str | dict[str, str | list[str]] | None = None
    mean: Number = 0.0
    zero_mean: bool = True
    modes: int | None = None

    @abstractmethod
    def covariance(self) -> Covariance:
        """Of the field."""

    def make(self) -> GaussianField:
        return GaussianField(self.covariance(), _sides(self.boundary), self.mean, self.zero_mean, self.modes)


class GaussianTable(SeriesTable):
    """A Gaussian field of covariance sigma**2 (-Laplacian + tau**2)**(-alpha)."""

    kind: Literal["gaussian"]
    alpha: Number
    tau: Number
    sigma: Number | None = None

    def covariance(self) -> InversePower:
        return InversePower(self.alpha, self.tau, self.sigma)


class MaternTable(SeriesTable):
    """A Gaussian field with Matern's covariance."""

    kind: Literal["matern"]
    length: Number
    smoothness: Number = 1.5
    deviation: Number = 1.0

    def covariance(self) -> Matern:
        return Matern(self.length, self.smoothness, self.deviation)


class SquaredExponentialTable(SeriesTable):
    """A Gaussian field with the squared exponential covariance."""

    kind: Literal["squared_exponential"]
    length: Number
    deviation: Number = 1.0

    def covariance(self) -> SquaredExponential:
        return SquaredExponential(self.length, self.deviation)


class ThresholdTable(DistributionTable):
    """Two values, by whether another field is above a level."""

    kind: Literal["threshold"]
    field: AnyDistribution
    above: Number
    below: Number
    level: Number = 0.0

    def make(self) -> Threshold:
        return Threshold(make_distribution(self.field), self.above, self.below, self.level)


class FormulaTable(DistributionTable):
    """An expression of the coordinates and of other distributions."""

    kind: Literal["formula"]
    text: str
    of: dict[str, AnyDistribution] = Field(default_factory=dict)

    def make(self) -> Formula:
        return Formula(self.text, {name: make_distribution(item) for name, item in self.of.items()})


class TrigonometricMultiscaleTable(DistributionTable):
    """The oscillating coefficient of the multiscale data."""

    kind: Literal["trigonometric_multiscale"]
    scales: int = 6

    def make(self) -> TrigonometricMultiscale:
        return TrigonometricMultiscale(self.scales)


_FIELDS: Mapping[str, type[DistributionTable]] = {
    "constant": ConstantTable,
    "uniform": UniformTable,
    "log_uniform": LogUniformTable,
    "gaussian": GaussianTable,
    "matern": MaternTable,
    "squared_exponential": SquaredExponentialTable,
    "threshold": ThresholdTable,
    "formula": FormulaTable,
    "trigonometric_multiscale": TrigonometricMultiscaleTable,
}
_NUMBERS = ("constant", "uniform", "log_uniform")


def _checked_kind(content: Any) -> Any:
    """A number stands for a constant, a text for a formula."""
    if isinstance(content, str):
        return {"kind": "formula", "text": content}
    if isinstance(content, int | float) and not isinstance(content, bool):
        return {"kind": "constant", "value": content}
    if not isinstance(content, dict):
        raise ValueError(f"a number, an expression, or a table with the key `kind` is needed, not {shown(content)}")
    kind = content.get("kind")
    if kind not in _FIELDS:
        hint = suggestion(kind, _FIELDS) if isinstance(kind, str) else f"; known: {', '.join(_FIELDS)}"
        raise ValueError(f"kind says which distribution it is, not {shown(kind)}{hint}")
    return content


def _checked_number(content: Any) -> Any:
    checked = _checked_kind(content)
    if checked["kind"] not in _NUMBERS:
        raise ValueError(f"a parameter is a number for each sample: {', '.join(_NUMBERS)}, not {checked['kind']}")
    return checked


def _tag(content: Any) -> str:
    return f"<{content['kind'] if isinstance(content, dict) else content.kind}>"


AnyDistribution = Annotated[
    Annotated[ConstantTable, Tag("<constant>")]
    | Annotated[UniformTable, Tag("<uniform>")]
    | Annotated[LogUniformTable, Tag("<log_uniform>")]
    | Annotated[GaussianTable, Tag("<gaussian>")]
    | Annotated[MaternTable, Tag("<matern>")]
    | Annotated[SquaredExponentialTable, Tag("<squared_exponential>")]
    | Annotated[ThresholdTable, Tag("<threshold>")]
    | Annotated[FormulaTable, Tag("<formula>")]
    | Annotated[TrigonometricMultiscaleTable, Tag("<trigonometric_multiscale>")],
    Discriminator(_tag),
    BeforeValidator(_checked_kind),
]
AnyNumber = Annotated[
    Annotated[ConstantTable, Tag("<constant>")]
    | Annotated[UniformTable, Tag("<uniform>")]
    | Annotated[LogUniformTable, Tag("<log_uniform>")],
    Discriminator(_tag),
    BeforeValidator(_checked_number),
]

ThresholdTable.model_rebuild()
FormulaTable.model_rebuild()


class StoredTable(Table):
    """What of a solution is kept."""

    coarsen: Annotated[int, Field(ge=1, le=64)] = 1
    dtype: Literal["float32", "float64"] = "float32"
    fields: list[str] | None = None


class SamplesTable(Table):
    """How many samples, and how they are cut into files and solves."""

    train: Annotated[int, Field(ge=1, le=_LARGEST)]
    valid: Annotated[int, Field(ge=0, le=_LARGEST)] = 0
    test: Annotated[int, Field(ge=0, le=_LARGEST)] = 0
    shard: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    failures: Literal["refuse", "redraw"] = "refuse"

    @model_validator(mode="after")
    def _check_batch(self) -> SamplesTable:
        if self.batch > self.shard:
            raise ValueError(f"batch, {self.batch} samples, is a part of a shard, which has {self.shard}")
        return self


class RecipeTable(Table):
    """A whole recipe."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "output": ": what is kept stands in [stored]",
        "times": ": it belongs into [solver]",
    }

    name: str | None = None
    description: str = ""
    equation: EquationTable
    domain: GridTable
    boundary: BoundaryTable = BoundaryTable()
    fields: dict[str, AnyDistribution] = Field(default_factory=dict)
    parameters: dict[str, AnyNumber] = Field(default_factory=dict)
    initial: dict[str, AnyDistribution] = Field(default_factory=dict)
    scheme: dict[str, Any] | None = None
    solver: SolverTable = SolverTable()
    stored: StoredTable = StoredTable()
    samples: SamplesTable


def make_distribution(table: Any) -> Distribution:
    """The distribution that a table of the file describes."""
    made: Distribution = table.make()
    return made


def _sides(words: str | Mapping[str, str | list[str]] | None) -> Boundary | None:
    if words is None:
        return None
    if isinstance(words, str):
        return condition_named(words)
    sides: dict[str, Any] = {}
    for axis, pair in words.items():
        if isinstance(pair, list) and len(pair) != 2:
            raise InputError(f"boundary of {axis}: one word, or two for its lower and its upper side, not {pair!r}")
        sides[axis] = condition_named(pair) if isinstance(pair, str) else tuple(condition_named(word) for word in pair)
    return sides
