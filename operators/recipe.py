"""Recipes: how an operator is trained, in a TOML file.

description = "..."
[data]
folder = "darcy-64"                  # a dataset, relative to the current folder
inputs = ["a"]                       # without them those that the dataset names
outputs = ["u"]
steps = 1                            # between input and output, where a field is both
mirrored = ["x", "y"]                # axes along which the problem may be reversed: images are samples too
exchanged = ["x", "y"]               # axes that may take each other's place
[operator]
name = "MgNO"                        # or "FNO", "DeepONet", "UNet"; further keys are its settings. Numbers of
channels = 24                        # channels and axes are those of the dataset.
logarithm = false                    # give the network the logarithm of its inputs; or one word a channel
coordinates = false                  # give it the coordinates too
seed = 0                             # of its first weights
[loss]
name = "RelativeH1"                  # or "RelativeL2", "LegacyH1"; of several outputs the mean of theirs
[training]                           # and [training.optimizer], [training.schedule], [run]: see
epochs = 20                          # sciml.training.configuration
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from pydantic import BeforeValidator, ConfigDict, Field, create_model, field_validator
from torch import nn

from sciml.boundary import suggestion
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.recipe_files import described, read_recipe
from sciml.tables import Table, Texts, shown, validate
from sciml.training import Plan
from sciml.training.configuration import Count, RunTable, TrainingTable

from .coordinates import coordinate_count
from .data import OperatorData
from .losses import LegacyH1, OperatorLoss, RelativeH1, RelativeL2, over_fields
from .storage import NETWORKS

_FROM_DATA = ("in_channels", "out_channels", "dimension", "grid")
_LOSSES: dict[str, Callable[[Grid, str], OperatorLoss]] = {
    "RelativeL2": lambda grid, field: RelativeL2(),
    "RelativeH1": RelativeH1.on,
    "LegacyH1": lambda grid, field: LegacyH1(),
}


class DataTable(Table):
    """What an operator is trained with."""

    folder: str
    inputs: Texts | None = None
    outputs: Texts | None = None
    steps: Count | None = None
    mirrored: Texts = Field(default_factory=list)
    exchanged: Texts = Field(default_factory=list)

    @field_validator("inputs", "outputs")
    @classmethod
    def _check_names(cls, names: list[str] | None) -> list[str] | None:
        if names == []:
            raise ValueError("name one or more, or leave the key out to take those of the dataset")
        return names


class LossTable(Table):
    """What is made small."""

    name: Literal["RelativeL2", "RelativeH1", "LegacyH1"] = "RelativeL2"


class OperatorTable(Table):
    """A network, and what it is given; `_table` adds the settings of each network."""

    model_config = ConfigDict(allow_inf_nan=False)
    elsewhere = dict.fromkeys(_FROM_DATA, ": the dataset determines it")
    name: str
    logarithm: bool | list[bool] = False
    coordinates: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def settings(self) -> dict[str, Any]:
        """The settings of the network that the file names."""
        return self.model_dump(exclude_unset=True, exclude=set(OperatorTable.model_fields))


def _table(kind: type[nn.Module]) -> type[OperatorTable]:
    """The table of a network: its arguments, as they are annotated, but for those that the dataset determines."""
    hints = get_type_hints(kind.__init__)
    given: dict[str, Any] = {
        name: (_with_lists(hints[name]), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(kind).parameters.items()
        if name not in _FROM_DATA
    }
    given["name"] = (Literal[kind.__name__], ...)
    return create_model(kind.__name__, __base__=OperatorTable, **given)


def _with_lists(hint: Any) -> Any:
    """An annotation with lists, which files have, for sequences."""
    parts = tuple(_with_lists(part) for part in get_args(hint)) if get_origin(hint) is not Literal else ()
    if get_origin(hint) is Sequence:
        return list[parts]  # type: ignore[valid-type]
    return reduce(or_, parts) if parts else hint


def _check_name(content: Any) -> Any:
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise ValueError(f"a table with the name of a network is needed: {', '.join(NETWORKS)}")
    if content["name"] not in NETWORKS:
        raise ValueError(f"there is no network {shown(content['name'])}{suggestion(content['name'], NETWORKS)}")
    return content


if TYPE_CHECKING:
    _Operator = OperatorTable
else:
    _Operator = Annotated[
        Union[tuple(_table(kind) for kind in NETWORKS.values())],  # noqa: UP007
        Field(discriminator="name"),
        BeforeValidator(_check_name),
    ]


class RecipeTable(Table):
    """The outermost table."""

    description: str = ""
    data: DataTable
    operator: _Operator
    loss: LossTable = LossTable()
    training: TrainingTable
    run: RunTable = RunTable()


@dataclass(frozen=True, eq=False)
class OperatorRecipe:
    """How an operator is trained; `load_recipe` makes one.

    Args:
        name, description: for people.
        folder: of the dataset.
        inputs, outputs, steps, mirrored, exchanged: as `train_operator` takes them.
        network: name of the network and its settings, without what the dataset determines.
        logarithm, coordinates: as `train_operator` takes them.
        seed: of the first weights.
        loss: its name.
        plan: how it is trained.
        options: where it is trained: further arguments of `sciml.training.train`.
    """

    name: str
    description: str
    folder: str
    inputs: Sequence[str] | None
    outputs: Sequence[str] | None
    steps: int | None
    mirrored: Sequence[str]
    exchanged: Sequence[str]
    network: tuple[str, Mapping[str, Any]]
    logarithm: bool | Sequence[bool]
    coordinates: bool
    seed: int
    loss: str
    plan: Plan
    options: Mapping[str, Any]

    def make_network(self, dataset: OperatorData) -> nn.Module:
        """The network with its first weights, for the channels and axes of a dataset.

        Raises:
            InputError: settings that do not fit together or to the dataset.
        """
        name, settings = self.network
        kind, grid = NETWORKS[name], dataset.grid
        batch = (
            dataset.split("train")
            .samples(self.inputs, self.outputs, self.steps)
            .batch(torch.zeros(1, dtype=torch.int64))
        )
        places = coordinate_count(grid.periodic) if self.coordinates else 0
        found = {
            "in_channels": batch["input"].shape[1] + places,
            "out_channels": batch["output"].shape[1],
            "dimension": grid.dimension,
            "grid": list(grid.shape),
        }
        known = inspect.signature(kind).parameters
        given = {**{word: value for word, value in found.items() if word in known}, **settings}
        if "padding" in known and "padding" not in settings and any(grid.periodic) and name != "FNO":
            given["padding"] = ["circular" if wraps else "zeros" for wraps in grid.periodic]
        if "periodic" in known and "periodic" not in settings:
            given["periodic"] = list(grid.periodic)
        if "positions" in known and "positions" not in settings and not any(grid.periodic):
            given["positions"] = 0.5  # cell centres
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            try:
                return kind(**given)
            except (TypeError, ValueError) as error:
                raise InputError(f"[operator] {name}: {str(error).removeprefix(f'{name}: ')}") from error

    def make_loss(self, dataset: OperatorData) -> OperatorLoss:
        """The loss on the grid of a dataset; of several outputs their mean."""
        counts = {name: prod(dataset.fields[name].components) for name in self.outputs or dataset.outputs}
        return over_fields(lambda name: _LOSSES[self.loss](dataset.grid, name), counts)


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with this package: name -> what it trains."""
    return described(__package__)


def load_recipe(source: str | os.PathLike[str]) -> OperatorRecipe:
    """Read and check a recipe.

    Args:
        source: the name of one of `shipped_recipes()`, or the path of a TOML file.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    path, content = read_recipe(source, __package__)
    if {"equation", "samples"} <= {*content}:
        raise InputError(f"{path.name} says how a dataset is made: sciml data generate {path}")
    table = validate(path, content, RecipeTable)
    return OperatorRecipe(
        path.stem,
        table.description,
        table.data.folder,
        table.data.inputs,
        table.data.outputs,
        table.data.steps,
        table.data.mirrored,
        table.data.exchanged,
        (table.operator.name, table.operator.settings()),
        table.operator.logarithm,
        table.operator.coordinates,
        table.operator.seed,
        table.loss.name,
        table.training.plan(),
        table.run.options(),
    )
