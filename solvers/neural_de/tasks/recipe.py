"""Recipes: how a neural differential equation is trained on a task, in a TOML file.

description = "..."
[task]
name = "digits-ode"                  # one of PROBLEMS; further keys are its settings:
hidden = 100                         # sizes of the model,
tolerance = 1.4e-8                   # and how it is solved
adjoint = "recorded"
backend = "sciml"
[regularizer]                        # without the table there is none
name = "error"                       # one of sciml.solvers.neural_de.tasks.regularization.NAMES
weight = 30.0                        # without weights those that are usual for the task
last_weight = 3.0                    # falling to this by the end
reduction = "mean"                   # further keys are its settings
[training]                           # and [training.optimizer], [training.schedule], [run]: see
epochs = 50                          # sciml.training.configuration; on one device. The seed of the training is that of
                                     # the first weights, too.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast, final

from pydantic import BeforeValidator, Field, InstanceOf, model_validator
from torch import nn

from sciml.boundary import suggestion
from sciml.errors import InputError
from sciml.recipe_files import described, read_recipe
from sciml.tables import Table, parse, validate
from sciml.training.configuration import RunTable, TrainingTable, one_of

from ...linear.learned.weights import fill, load_weights
from ..regularizers import Regularizer
from .classification import DigitsODE, MnistODE
from .density import Gaussians
from .fitting import SpiralODE
from .problem import Problem
from .regularization import Regularization, named
from .series import LatentSpirals, PhysioNet2012
from .stochastic import DigitsSDE, MnistSDE, SpiralSDE
from .task import KIND, RESULT, WEIGHTS, Task

PROBLEMS: Mapping[str, type[Problem]] = {
    kind.name: kind
    for kind in (
        DigitsODE,
        DigitsSDE,
        SpiralODE,
        SpiralSDE,
        LatentSpirals,
        Gaussians,
        MnistODE,
        MnistSDE,
        PhysioNet2012,
    )
}
"""By the names that they have in recipes."""

_problem = one_of(PROBLEMS)


class RecipeTable(Table):
    """The outermost table."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "operator": ": this recipe is of a task",
        "preconditioner": ": this recipe is of a task",
        "data": ": each task has its own; [task] folder names files",
        "loss": ": each task has its own",
    }
    description: str = ""
    task: Annotated[InstanceOf[Problem], BeforeValidator(_problem)]
    regularizer: dict[str, Any] = Field(default_factory=lambda: {"name": "none"})
    training: TrainingTable
    run: RunTable = RunTable()

    @model_validator(mode="after")
    def _check(self) -> RecipeTable:
        for key, only in (("devices", 1), ("nodes", 1), ("strategy", "auto")):
            if getattr(self.run, key) != only:
                raise ValueError(f"[run] {key}: a task is trained on one device")
        try:
            regularization = self.regularization()
        except InputError as error:
            raise ValueError(f"[regularizer] {error}") from None
        Task(self.task, self.training.plan(), regularization)
        return self

    def regularization(self) -> Regularization:
        """What the table of the regularizer says."""
        return named(self.regularizer, self.task.usual)


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with this package: name -> what it trains."""
    return described(__package__)


def is_recipe(source: str | os.PathLike[str]) -> bool:
    """Whether a file, or the name of a recipe that is shipped, is about a task; of a file also where the name of the
    table is misspelt.

    Raises:
        InputError: a file that cannot be read, or is not TOML.
    """
    if not Path(source).is_file():
        return str(source) in shipped_recipes()
    return bool(difflib.get_close_matches("task", parse(Path(source)), n=1, cutoff=0.7))


def load_recipe(source: str | os.PathLike[str]) -> Task:
    """Read and check a recipe.

    Args:
        source: the name of one of `shipped_recipes()`, or the path of a TOML file.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    path, content = read_recipe(source, __package__)
    near = difflib.get_close_matches("task", content, n=1, cutoff=0.7)
    if "task" not in content and near:
        raise InputError(f"{path.name}: a table [task] is needed, and [{near[0]}] is none")
    table = validate(path, content, RecipeTable)
    options = {key: value for key, value in table.run.options().items() if key not in ("devices", "nodes", "strategy")}
    return Task(table.task, table.training.plan(), table.regularization(), path.stem, options)


def shipped_task(
    name: str, regularizer: Regularization | Regularizer | str | Mapping[str, Any] | None = None, **changes: Any
) -> Task:
    """The task of a recipe that comes with this package, with changes.

    Args:
        name: one of `shipped_recipes()`.
        regularizer, changes: see `Task.with_changes`: "none" is the plain model, None leaves the recipe's.

    Raises:
        InputError: an unknown name, or a value out of range.
    """
    known = shipped_recipes()
    if name not in known:
        raise InputError(f"there is no task {name!r}{suggestion(name, known)}")
    return load_recipe(name).with_changes(regularizer, **changes)


@final
@dataclass(frozen=True, eq=False)
class TrainedTask:
    """What a training left in its folder.

    Args:
        problem: that the model was trained on.
        model: in evaluation mode, on the CPU.
        result: what is in result.json.
    """

    problem: Problem
    model: nn.Module
    result: Mapping[str, Any]


def load_task(folder: str | os.PathLike[str]) -> TrainedTask:
    """The model that the training of a task left in a folder.

        model = load_task("digits-ode").model
        scores, solution = model(images)

    Raises:
        InputError: there is none, or it is damaged.
    """
    place = Path(folder)
    settings, tensors = load_weights(place / WEIGHTS, KIND)
    try:
        problem = cast(Problem, _problem({"name": settings["problem"], **settings["settings"]}))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place / WEIGHTS} is of a task that this sciml does not know: {error}") from error
    model = problem.model(None)
    fill(model, tensors, str(place / WEIGHTS))
    try:
        result = json.loads((place / RESULT).read_bytes())
    except OSError as error:
        raise InputError(f"{place / RESULT} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{place / RESULT} is damaged: {error}") from error
    return TrainedTask(problem, model.eval(), result)
