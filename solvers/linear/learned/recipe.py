"""Recipes: how the network of a preconditioner is trained, in a TOML file.

description = "..."
[preconditioner]
name = "CoarseningNetwork"           # of LearnedMultigrid
width = 16                           # of the hidden layers
sweeps = 3                           # smoothing steps on the finest grid
largest = [32, 32, 32]               # cells of the largest systems that it is trained on
dimensions = [3]                     # numbers of axes that it is for; without it the number of those of `largest`
samples = 2500                       # systems of an epoch
held_out = 32                        # systems of the validation
seed = 0                             # of its first weights, and of the systems
[training]                           # and [training.optimizer], [training.schedule], [run]: see
epochs = 1                           # sciml.training.configuration; on one device, in float64

or, for -laplacian(u) = f in the unit cube, in stages from small grids to larger ones:

[preconditioner]
name = "DirectionNetwork"            # of DeepConjugateDirection
published = 64                       # which of the published networks: that for 64 or 128 points an axis
insulated = ["x_upper", "y"]         # sides, or both sides of an axis, where the flux is zero; u = 0 on the others
mirrored = false                     # whether the problem has the symmetries of the cube
seed = 0                             # of its first weights, the Ritz vectors and the residuals
[[stages]]
points = 16                          # cells an axis
steps = 2500                         # of the optimizer
batch_size = 16
rate = 2e-3                          # the largest, of one cycle
vectors = 800                        # Ritz vectors
precision = "bf16"                   # of the convolutions
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, final, get_args

import torch
from pydantic import ConfigDict, Field, model_validator

from sciml.boundary import Boundary, Dirichlet, Neumann, suggestion
from sciml.errors import InputError
from sciml.machine import processor
from sciml.recipe_files import described, read_recipe
from sciml.tables import Number, Table, parse, shown, validate
from sciml.training import Plan
from sciml.training.configuration import Count, RunTable, TrainingTable
from sciml.training.plan import Precision

from .direction_network import DirectionNetwork
from .direction_recipe import DirectionRecipe, Stage
from .learned_multigrid import LearnedMultigrid
from .multigrid_coarsening import CoarseningNetwork
from .multigrid_training import CoarseningTraining, train_coarsening
from .weights import about_weights

WEIGHTS = "preconditioner.safetensors"
_DEFAULT = CoarseningTraining()
_NETWORK = inspect.signature(CoarseningNetwork).parameters

Side = Literal["x", "x_lower", "x_upper", "y", "y_lower", "y_upper", "z", "z_lower", "z_upper"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class TrainedPreconditioner:
    """What a training left behind.

    Args:
        path: of the weights.
        parameters: their number.
        steps, seconds, loss: of the training; the last loss of its validation.
        why: it ended.
        usage: the line that loads the weights.
        kind: of network.
        notes: what a user should know besides.
    """

    path: Path
    parameters: int
    steps: int
    seconds: float
    loss: float
    why: str
    usage: str
    kind: str
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What to tell of it."""
        return [
            f"{self.kind} of {self.parameters:,} parameters, {self.steps:,} steps in {self.seconds:.0f} s: {self.why}",
            f"loss {self.loss:.4g}, the mean over the validation samples",
        ]


@final
@dataclass(frozen=True, eq=False)
class CoarseningRecipe:
    """How the network of a LearnedMultigrid is trained.

    Args:
        name: for people.
        network: settings of the CoarseningNetwork.
        training: on what, and how.
        options: where: further arguments of `sciml.training.train`.
    """

    name: str
    network: Mapping[str, Any]
    training: CoarseningTraining
    options: Mapping[str, Any]
    kind: ClassVar[str] = "CoarseningNetwork"

    def make_network(self) -> CoarseningNetwork:
        """The network with its first weights, in float64."""
        return CoarseningNetwork(**self.network, seed=self.training.seed).double()

    def train(
        self,
        folder: str | os.PathLike[str],
        *,
        resume: bool = False,
        device: str | None = None,
        progress: bool = False,
    ) -> TrainedPreconditioner:
        """Train, and write the weights beside checkpoints, log and curves.

        Args:
            folder: for all of these.
            resume: go on where a training in the folder ended, to the same last bit.
            device: in place of the recipe's.
            progress: show it on the terminal.

        Raises:
            InputError: the folder holds another training, or one that is not to be resumed; no such device.
            TrainingError, KeyboardInterrupt: see `sciml.training.train`.
        """
        network = self.make_network()
        options = {**self.options, **({} if device is None else {"device": device})}
        done = train_coarsening(network, self.training, folder=folder, resume=resume, progress=progress, **options)
        if done.best is not None:
            network.load_state_dict(dict(done.best.weights))
            loss = done.best.value
        else:
            loss = float("nan")
        path = Path(folder) / WEIGHTS
        plan = self.training.plan
        about = {
            "recipe": self.name,
            "largest": list(self.training.largest),
            "steps": done.steps,
            "samples": done.steps * plan.batch_size,
            "seconds": round(done.seconds, 1),
            "validation_loss": loss if done.best is not None else None,
            "plan": plan.described(),
            "processor": processor(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "seed": self.training.seed,
        }
        LearnedMultigrid(network.cpu().float()).save(path, about)
        return TrainedPreconditioner(
            path,
            sum(parameter.numel() for parameter in network.parameters()),
            done.steps,
            done.seconds,
            loss,
            done.why,
            f'ConjugateGradient(preconditioner=LearnedMultigrid.load("{path.as_posix()}"))',
            self.kind,
            done.notes,
        )


@final
@dataclass(frozen=True, eq=False)
class DirectionNetworkRecipe:
    """How the network of a DeepConjugateDirection is trained.

    Args:
        name: for people.
        recipe: the stages.
    """

    name: str
    recipe: DirectionRecipe
    kind: ClassVar[str] = "DirectionNetwork"

    def train(
        self,
        folder: str | os.PathLike[str],
        *,
        resume: bool = False,
        device: str | None = None,
        progress: bool = False,
    ) -> TrainedPreconditioner:
        """Train in stages, on the CPU alone; the rest see CoarseningRecipe.train."""
        if device not in (None, "cpu"):
            raise InputError(f"the stages of a direction network are trained on the cpu, got device {device!r}")
        if not resume and any((Path(folder) / name).exists() for name in ("stage-0", WEIGHTS)):
            raise InputError(f"{folder} holds a training already: go on with it by resume, or name another folder")
        path = self.recipe.train(folder, resume=resume, progress=progress).replace(Path(folder) / WEIGHTS)
        about = about_weights(path)
        network = DirectionNetwork.load(path)
        return TrainedPreconditioner(
            path,
            sum(parameter.numel() for parameter in network.parameters()),
            sum(stage.steps for stage in self.recipe.stages),
            about["seconds"],
            about["stages"][-1]["loss"],
            f"all {len(self.recipe.stages)} stages are done",
            f'DeepConjugateDirection(DirectionNetwork.load("{path.as_posix()}"))',
            self.kind,
        )


PreconditionerRecipe = CoarseningRecipe | DirectionNetworkRecipe
"""How the network of a preconditioner is trained."""


class CoarseningTable(Table):
    """A coarsening network, and what it is trained on."""

    model_config = ConfigDict(allow_inf_nan=False)
    name: Literal["CoarseningNetwork"]
    width: Count = _NETWORK["width"].default
    sweeps: Count = _NETWORK["sweeps"].default
    largest: list[int] = Field(default_factory=lambda: list(_DEFAULT.largest))
    dimensions: list[int] | None = None
    samples: Count = _DEFAULT.samples
    held_out: Count = _DEFAULT.held_out
    seed: Seed = 0

    @model_validator(mode="after")
    def _check(self) -> CoarseningTable:
        self.problems(_DEFAULT.plan)
        CoarseningNetwork(**self.network())
        return self

    def network(self) -> dict[str, Any]:
        """The settings of the network."""
        dimensions = [len(self.largest)] if self.dimensions is None else self.dimensions
        return {"width": self.width, "sweeps": self.sweeps, "dimensions": tuple(dimensions)}

    def problems(self, plan: Plan) -> CoarseningTraining:
        """On what it is trained."""
        return CoarseningTraining(
            largest=tuple(self.largest), samples=self.samples, held_out=self.held_out, plan=plan, seed=self.seed
        )


class DirectionTable(Table):
    """A direction network, and the problem it is for."""

    elsewhere: ClassVar[Mapping[str, str]] = {"points": ": it belongs into [[stages]]"}
    name: Literal["DirectionNetwork"]
    published: Literal[64, 128] = 64
    insulated: list[Side] = Field(default_factory=list)
    mirrored: bool = False
    seed: Seed = 0

    @model_validator(mode="after")
    def _check(self) -> DirectionTable:
        open_sides = [side for pair in self.boundary().values() for side in pair if isinstance(side, Dirichlet)]
        if not open_sides:
            raise ValueError("insulated: u must be given on one side at least; all are insulated")
        if self.mirrored and len(open_sides) < 6:
            raise ValueError("mirrored: the problem has the symmetries of the cube only if no side is insulated")
        return self

    def boundary(self) -> dict[str, tuple[Dirichlet | Neumann, Dirichlet | Neumann]]:
        """The conditions by axis."""
        shut = {side + end for side in self.insulated for end in (("",) if "_" in side else ("_lower", "_upper"))}
        sides = {side: Neumann(0.0) if side in shut else Dirichlet(0.0) for side in get_args(Side) if "_" in side}
        return {axis: (sides[f"{axis}_lower"], sides[f"{axis}_upper"]) for axis in "xyz"}


class StageTable(Table):
    """A part of the training of a direction network."""

    points: Annotated[int, Field(ge=4)]
    steps: Count
    batch_size: Count
    rate: Annotated[Number, Field(gt=0)]
    vectors: Count
    precision: Precision = "float32"


_PRECONDITIONERS = {"CoarseningNetwork": CoarseningTable, "DirectionNetwork": DirectionTable}
_ELSEWHERE = {
    "operator": ": this recipe is of a preconditioner",
    "data": ": what a preconditioner is trained on is made as it is needed",
    "loss": ": each preconditioner has its own",
}


class CoarseningRecipeTable(Table):
    """The outermost table."""

    elsewhere: ClassVar[Mapping[str, str]] = {**_ELSEWHERE, "stages": ": a CoarseningNetwork is trained at once"}
    description: str = ""
    preconditioner: CoarseningTable
    training: TrainingTable
    run: RunTable = RunTable()

    @model_validator(mode="after")
    def _check_run(self) -> CoarseningRecipeTable:
        for key, only in (("devices", 1), ("nodes", 1), ("strategy", "auto")):
            if getattr(self.run, key) != only:
                raise ValueError(f"[run] {key}: a CoarseningNetwork is trained on one device")
        for key, value in (("precision", "float32"), ("compile", False)):
            if getattr(self.training, key) != value:
                raise ValueError(f"[training] {key}: a CoarseningNetwork is trained in float64, as it is")
        if self.training.monitor != "loss":
            raise ValueError(f"[training] monitor: the loss alone is validated, not {shown(self.training.monitor)}")
        return self


class DirectionRecipeTable(Table):
    """The outermost table."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        **_ELSEWHERE,
        "training": ": a DirectionNetwork is trained in [[stages]]",
        "run": ": a DirectionNetwork is trained in [[stages]] on the cpu",
    }
    description: str = ""
    preconditioner: DirectionTable
    stages: Annotated[list[StageTable], Field(min_length=1)]


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with this package: name -> what it trains."""
    return described(__package__)


def is_recipe(source: str | os.PathLike[str]) -> bool:
    """Whether a file, or the name of a recipe that is shipped, is about a preconditioner; of a file also where the name
    of the table is misspelt.

    Raises:
        InputError: a file that cannot be read, or is not TOML.
    """
    if not Path(source).is_file():
        return str(source) in shipped_recipes()
    return bool(difflib.get_close_matches("preconditioner", parse(Path(source)), n=1, cutoff=0.8))


def load_recipe(source: str | os.PathLike[str]) -> PreconditionerRecipe:
    """Read and check a recipe.

    Args:
        source: the name of one of `shipped_recipes()`, or the path of a TOML file.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    path, content = read_recipe(source, __package__)
    given = content.get("preconditioner")
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str):
        near = [] if given is not None else difflib.get_close_matches("preconditioner", content, n=1, cutoff=0.8)
        misspelt = f", and [{near[0]}] is none" if near else ""
        raise InputError(
            f"{path.name}, [preconditioner]: a table with the name of a network is needed: "
            f"{', '.join(_PRECONDITIONERS)}{misspelt}"
        )
    if name not in _PRECONDITIONERS:
        raise InputError(
            f"{path.name}, [preconditioner] name: there is no network {shown(name)}{suggestion(name, _PRECONDITIONERS)}"
        )
    if name == "CoarseningNetwork":
        table = validate(path, content, CoarseningRecipeTable)
        settings = table.preconditioner
        options = {
            key: value for key, value in table.run.options().items() if key not in ("devices", "nodes", "strategy")
        }
        return CoarseningRecipe(path.stem, settings.network(), settings.problems(table.training.plan()), options)
    staged = validate(path, content, DirectionRecipeTable)
    problem = staged.preconditioner
    boundary: Boundary = problem.boundary() if problem.insulated else Dirichlet(0.0)
    stages = tuple(Stage(**stage.model_dump()) for stage in staged.stages)
    recipe = DirectionRecipe(
        path.stem, boundary, problem.mirrored, stages, published=problem.published, seed=problem.seed
    )
    return DirectionNetworkRecipe(path.stem, recipe)
