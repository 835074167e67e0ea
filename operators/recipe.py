"""Recipes: how an operator is trained, in a TOML file.

description = "..."
[data]
folder = "darcy-64"                  # a dataset, relative to the current folder
inputs = ["a"]                       # without them those that the dataset names
outputs = ["u"]
steps = 1                            # between input and output, where a field is both
[operator]
name = "MgNO"                        # or "FNO", "DeepONet", "UNet"; further keys are its settings. Numbers of
channels = 24                        # channels and axes are those of the dataset.
logarithm = false                    # give the network the logarithm of its inputs
coordinates = false                  # give it the coordinates too
seed = 0                             # of its first weights
[loss]
name = "RelativeH1"                  # or "RelativeL2", "LegacyH1"
[training]                           # and [training.optimizer], [training.schedule], [run]: see
epochs = 20                          # sciml.training.configuration
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from sciml.boundary import suggestion
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.tables import Table, Texts, parse, validate
from sciml.training import Plan
from sciml.training.configuration import Count, RunTable, TrainingTable

from .coordinates import coordinate_count
from .data import OperatorData
from .losses import LegacyH1, OperatorLoss, RelativeH1, RelativeL2, over_fields
from .storage import NETWORKS

_SHIPPED = "recipes"
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


class LossTable(Table):
    """What is made small."""

    name: Literal["RelativeL2", "RelativeH1", "LegacyH1"] = "RelativeL2"


class RecipeTable(Table):
    """The outermost table."""

    description: str = ""
    data: DataTable
    operator: Annotated[dict[str, Any], Field(min_length=1)]
    loss: LossTable = LossTable()
    training: TrainingTable
    run: RunTable = RunTable()

    @field_validator("operator")
    @classmethod
    def _check_operator(cls, content: dict[str, Any]) -> dict[str, Any]:
        name = content.get("name")
        if not isinstance(name, str) or name not in NETWORKS:
            known = suggestion(name, NETWORKS) if isinstance(name, str) else f": {', '.join(NETWORKS)}"
            raise ValueError(f"a name of a network is needed, not {name!r}{known}")
        own = [key for key in inspect.signature(NETWORKS[name]).parameters if key not in _FROM_DATA]
        known_keys = ["name", "logarithm", "coordinates", "seed", *own]
        unknown = [
            f"unknown key {key!r} of {name}{suggestion(key, known_keys)}" for key in content if key not in known_keys
        ]
        if unknown:
            raise ValueError("; ".join(unknown))
        for key in ("logarithm", "coordinates"):
            if not isinstance(content.get(key, False), bool):
                raise ValueError(f"{key} is true or false, not {content[key]!r}")
        if not isinstance(content.get("seed", 0), int):
            raise ValueError(f"seed is a whole number, not {content['seed']!r}")
        return content


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
    logarithm: bool
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
                raise InputError(f"[operator] {name}: {error}") from error

    def make_loss(self, dataset: OperatorData) -> OperatorLoss:
        """The loss on the grid of a dataset; of several outputs their mean."""
        counts = {name: prod(dataset.fields[name].components) for name in self.outputs or dataset.outputs}
        return over_fields(lambda name: _LOSSES[self.loss](dataset.grid, name), counts)


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with this package: name -> what it trains."""
    found = (Path(str(item)) for item in files(__package__).joinpath(_SHIPPED).iterdir())
    return {path.stem: str(parse(path).get("description", "")) for path in sorted(found) if path.suffix == ".toml"}


def load_recipe(source: str | os.PathLike[str]) -> OperatorRecipe:
    """Read and check a recipe.

    Args:
        source: the name of one of `shipped_recipes()`, or the path of a TOML file.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    path = Path(source)
    if not path.is_file():
        shipped = Path(str(files(__package__).joinpath(_SHIPPED, f"{source}.toml")))
        if path.suffix or not shipped.is_file():
            raise InputError(
                f"there is no file {str(source)!r}, and no recipe of this name"
                f"{suggestion(str(source), shipped_recipes())}"
            )
        path = shipped
    content = parse(path)
    if {"equation", "samples"} <= {*content}:
        raise InputError(f"{path.name} says how a dataset is made: sciml data generate {path}")
    table = validate(path, content, RecipeTable)
    own = {"name", "logarithm", "coordinates", "seed"}
    return OperatorRecipe(
        path.stem,
        table.description,
        table.data.folder,
        table.data.inputs,
        table.data.outputs,
        table.data.steps,
        table.data.mirrored,
        table.data.exchanged,
        (table.operator["name"], {key: value for key, value in table.operator.items() if key not in own}),
        table.operator.get("logarithm", False),
        table.operator.get("coordinates", False),
        table.operator.get("seed", 0),
        table.loss.name,
        table.training.plan(),
        table.run.options(),
    )
