"""The tables of recipe files that say how a network is trained.

    [training]                         # exactly one of epochs, steps and seconds
    epochs = 20
    batch_size = 8
    clip = 1.0
    precision = "float32"              # the other keys of sciml.training.Plan likewise

    [training.optimizer]
    name = "Adam"                      # or "AdamW", "Adamax", "SGD"; further keys are its arguments
    rate = 1e-3

    [training.schedule]
    name = "OneCycle"                  # or "Constant", "Cosine", "Linear", "Exponential", "InverseDecay", "Steps"
    peak = 0.2

    [run]                              # where, not what: none of it changes the result but for rounding
    device = "cuda"
    devices = 4
    save_every = 60.0
    tensorboard = true

A recipe's own table has `training: TrainingTable` and `run: RunTable = RunTable()` among its fields; `train` is called
with `recipe.training.plan()` and `**recipe.run.options()`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, InstanceOf, TypeAdapter, ValidationError, model_validator

from ..boundary import suggestion
from ..tables import Number, Table, shown
from .optimizers import SGD, Adam, Adamax, AdamW, Optimizer
from .plan import Plan, Precision
from .schedules import Constant, Cosine, Exponential, InverseDecay, Linear, OneCycle, Schedule, Steps

Count = Annotated[int, Field(ge=1)]


def one_of(by_name: Mapping[str, type]) -> Callable[[Any], Any]:
    """A validator that makes one of these dataclasses from a table with its name, or from the name alone.

    Args:
        by_name: dataclasses, whose fields are the other keys of a table.
    """
    adapters = {name: TypeAdapter[Any](kind) for name, kind in by_name.items()}

    def choose(content: Any) -> Any:
        if isinstance(content, tuple(by_name.values())):
            return content
        given = {"name": content} if isinstance(content, str) else content
        if not isinstance(given, dict):
            raise ValueError(f"a table with a name is needed, not {shown(content)}: {', '.join(by_name)}")
        name = given.get("name")
        if not isinstance(name, str):
            raise ValueError(f"a name is needed: {', '.join(by_name)}")
        if name not in by_name:
            raise ValueError(f"unknown name {name!r}{suggestion(name, by_name)}")
        known = [field.name for field in dataclasses.fields(by_name[name])]
        settings = {key: value for key, value in given.items() if key != "name"}
        unknown = [f"unknown key {key!r} of {name}{suggestion(key, known)}" for key in settings if key not in known]
        if unknown:
            raise ValueError("; ".join(unknown))
        try:
            return adapters[name].validate_json(json.dumps(settings, default=str), strict=True)
        except ValidationError as error:
            lines = [
                ".".join(map(str, problem["loc"])) + ": " * bool(problem["loc"]) + problem["msg"]
                for problem in error.errors()
            ]
            raise ValueError("; ".join(line.replace("Value error, ", "") for line in lines)) from None

    return choose


def _by_class(*kinds: type) -> BeforeValidator:
    return BeforeValidator(one_of({kind.__name__: kind for kind in kinds}))


_DEFAULT = Plan(epochs=1)


class TrainingTable(Table):
    """What a Plan says."""

    epochs: Count | None = None
    steps: Count | None = None
    seconds: Number | None = None
    clock: Literal["wall", "cpu"] = _DEFAULT.clock
    batch_size: Count = _DEFAULT.batch_size
    optimizer: Annotated[InstanceOf[Optimizer], _by_class(Adam, AdamW, Adamax, SGD)] = _DEFAULT.optimizer
    schedule: Annotated[
        InstanceOf[Schedule],
        _by_class(Constant, OneCycle, Cosine, Linear, Exponential, InverseDecay, Steps),
    ] = _DEFAULT.schedule
    clip: Number | None = _DEFAULT.clip
    accumulate: Count = _DEFAULT.accumulate
    precision: Precision = _DEFAULT.precision
    compile: bool = _DEFAULT.compile
    drop_last: bool = _DEFAULT.drop_last
    validate_every: Count = _DEFAULT.validate_every
    monitor: str = _DEFAULT.monitor
    patience: Count | None = _DEFAULT.patience
    seed: Annotated[int, Field(ge=0)] = _DEFAULT.seed

    @model_validator(mode="after")
    def _check_plan(self) -> TrainingTable:
        self.plan()
        return self

    def plan(self) -> Plan:
        """The plan that the table describes."""
        return Plan(**{name: getattr(self, name) for name in type(self).model_fields})


class RunTable(Table):
    """Where a training runs, and what it leaves behind."""

    device: str = "cpu"
    devices: Count = 1
    nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    save_every: Annotated[float, Field(ge=0)] = 60.0
    keep: Count = 2
    log_every: Count = 1
    tensorboard: bool = False
    timeout: Annotated[float, Field(gt=0)] = 600.0

    def options(self) -> dict[str, Any]:
        """The arguments of `train` by these names."""
        return dict(self)
