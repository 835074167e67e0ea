"""A task: a problem, a regularizer and a plan, which become a trained model and what it is worth."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from sciml.boundary import suggestion
from sciml.errors import InputError
from sciml.files import write_whole
from sciml.machine import processor
from sciml.training import Plan, Training, evaluate, train
from sciml.training.order import batches, mixed

from ...linear.learned.weights import save_weights
from ..regularizers import Regularizer
from .problem import Data, Fold, Problem, Regularized, loss_of, metrics_of
from .regularization import Regularization, named

WEIGHTS = "model.safetensors"
RESULT = "result.json"
PICTURE = "evaluations.png"
KIND = "neural-differential-equation"
_PASSES = 5
_LONGEST = 5.0  # seconds of passes over the test that are timed


@final
@dataclass(frozen=True, eq=False)
class Result:
    """What a training came to, measured over the test samples with the weights of its end.

    Args:
        task: that was trained.
        model: on the device of the training, in evaluation mode.
        training: how it went: losses step by step, and validations with "evaluations" and the headline.
        metrics: means over the test samples: "loss" without the regularizer, and those of the problem.
        evaluations: of the right-hand side to predict a test sample, the mean over them.
        training_seconds: of steps, without validations and checkpoints.
        prediction_seconds: of a pass over all test samples in batches as in the training: the median of several.
        path: of the weights, where there is a folder.
    """

    task: Task
    model: nn.Module = field(repr=False)
    training: Training = field(repr=False)
    metrics: Mapping[str, float]
    evaluations: float
    training_seconds: float
    prediction_seconds: float
    path: Path | None = None

    @property
    def headline(self) -> float:
        """The value that tells how good the model is, such as the accuracy: what `task.problem.headline` names."""
        return self.metrics[self.task.problem.headline]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know besides."""
        return self.training.notes

    @property
    def usage(self) -> str:
        """The line that loads the model."""
        folder = "FOLDER" if self.path is None else self.path.parent.as_posix()
        return f'sciml.solvers.neural_de.tasks.load_task("{folder}").model'

    def described(self) -> dict[str, Any]:
        """In JSON's values."""
        training = self.training
        return {
            "task": self.task.name,
            **self.task.described(),
            "headline": self.task.problem.headline,
            "metrics": dict(self.metrics),
            "evaluations": self.evaluations,
            "training_seconds": self.training_seconds,
            "prediction_seconds": self.prediction_seconds,
            "steps": training.steps,
            "epochs": training.epochs,
            "why": training.why,
            "notes": list(training.notes),
            "validations": {name: values.tolist() for name, values in training.validations.items()},
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "test_samples": len(self.task.data.test),
            "plan": self.task.plan.described(),
            "processor": processor(next(self.model.parameters()).device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def lines(self) -> list[str]:
        """What to tell of it."""
        name, count, task = self.task.problem.headline, len(self.task.data.test), self.task
        shown = f"{100 * self.headline:.2f} %" if name == "accuracy" else f"{self.headline:.4g}"
        others = "".join(f"; {other} {value:.4g}" for other, value in self.metrics.items() if other != name)
        samples = f"{count:,} test samples" if count > 1 else "one test sample"
        seconds = f"{self.training.steps:,} steps in {self.training_seconds:.0f} s"
        return [
            f"{task.name}, {task.regularization}: {seconds}: {self.training.why}",
            f"{name:12} {shown}   over {samples}{others}",
            f"{'evaluations':12} {self.evaluations:.4g}   of the right-hand side for a prediction{self._change()}",
            f"{'prediction':12} {self.prediction_seconds:.3g} s   for {samples}",
        ]

    def _change(self) -> str:
        """How the number of evaluations changed in the course of the training."""
        found = self.training.validations
        if len(found.get("evaluations", ())) < 2:
            return ""
        along, steps = found["evaluations"].tolist(), found["step"].tolist()
        most = max(range(len(along)), key=along.__getitem__)
        return f"; {along[0]:.4g} at step {steps[0]:.0f}, most at step {steps[most]:.0f}: {along[most]:.4g}"


@final
@dataclass(frozen=True, eq=False)
class Task:
    """A problem to be trained on.

        result = digits_ode(regularizer="error", seed=1, epochs=20).train()
        result.metrics["accuracy"], result.evaluations, result.training_seconds

    Args:
        problem: data and model.
        plan: of the training; its seed is that of the first weights, too.
        regularization: what is added to the loss.
        name: for people.
        options: where the training runs, and what it leaves behind: further arguments of `sciml.training.train`.
        fold: held out of the samples for training in place of the test.

    Raises:
        InputError: a plan that a task cannot be trained by.
    """

    problem: Problem
    plan: Plan
    regularization: Regularization = field(default_factory=Regularization)
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    fold: Fold | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.problem.name)
        for key, value in (("precision", "float32"), ("compile", False), ("accumulate", 1)):
            if getattr(self.plan, key) != value:
                raise InputError(f"{key}: the model of a task is trained as it is, in its own dtype and batch by batch")
        self.problem.check(self.regularization.regularizer)
        if self.plan.seconds is not None:
            raise InputError("seconds: the weight of a regularizer follows the samples: give epochs or steps")

    def with_changes(
        self,
        regularizer: Regularization | Regularizer | str | Mapping[str, Any] | None = None,
        *,
        seed: int | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        fold: Fold | None = None,
        **settings: Any,
    ) -> Task:
        """The task with other settings.

        Args:
            regularizer: a name, with the weights that are usual for the problem ("none" for the plain model); a table
                as in recipes; a Regularizer, of weight 1; or a Regularization. None leaves it as it is.
            seed: of the plan.
            epochs, steps: of the plan, one of them.
            fold: see `Task`; None leaves it as it is.
            settings: fields of the problem, or of the plan.

        Raises:
            InputError: an unknown name, or a value out of range.
        """
        fields = {item.name for item in dataclasses.fields(self.problem)}  # type: ignore[arg-type]
        planned = {item.name for item in dataclasses.fields(self.plan)}
        unknown = [name for name in settings if name not in fields | planned]
        if unknown:
            raise InputError(f"{self.name} has no {unknown[0]!r}{suggestion(unknown[0], fields | planned)}")
        problem = replace(self.problem, **{key: value for key, value in settings.items() if key in fields})  # type: ignore[type-var]
        plan = replace(self.plan, **{key: value for key, value in settings.items() if key not in fields})
        if epochs is not None or steps is not None:
            plan = replace(plan, epochs=epochs, steps=steps)
        if seed is not None:
            plan = replace(plan, seed=seed)
        regularization, fold = self._chosen(regularizer), self.fold if fold is None else fold
        return replace(self, problem=problem, plan=plan, regularization=regularization, fold=fold)

    def _chosen(self, regularizer: Regularization | Regularizer | str | Mapping[str, Any] | None) -> Regularization:
        if regularizer is None:
            return self.regularization
        if isinstance(regularizer, Regularization):
            return regularizer
        if isinstance(regularizer, Regularizer):
            return Regularization(regularizer)
        settings = {"name": regularizer} if isinstance(regularizer, str) else regularizer
        return named(settings, self.problem.usual)

    @cached_property
    def data(self) -> Data:
        """The samples; read or made once."""
        found = self.problem.data()
        return found if self.fold is None else self.fold.divided(found.training)

    def described(self) -> dict[str, Any]:
        """What the training is about, in JSON's values."""
        settings = {item.name: getattr(self.problem, item.name) for item in dataclasses.fields(self.problem)}  # type: ignore[arg-type]
        held_out = {} if self.fold is None else {"fold": dataclasses.asdict(self.fold)}
        return {"problem": self.problem.name, "settings": settings, **self.regularization.described(), **held_out}

    def make_network(self) -> Regularized:
        """The model with its first weights, and its loss. torch's generator stays as it was."""
        plan, samples = self.plan, len(self.data.training)
        a_batch = batches(samples, plan.batch_size, plan.drop_last)
        an_epoch = min(samples, a_batch * plan.batch_size)
        total = plan.epochs * an_epoch if plan.epochs is not None else (plan.steps or 1) * an_epoch / a_batch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed(plan.seed, 1))
            model = self.problem.model(self.regularization.regularizer)
        return Regularized(self.problem, model, self.regularization, max(round(total), 1))

    def train(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        resume: bool = False,
        device: str | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Result:
        """Train, and test.

        Args:
            folder: for weights, checkpoints, log, pictures and result.json; None keeps everything in memory.
            resume: go on where a training in the folder ended, to the same last bit.
            device: in place of that of `options`.
            progress: show it on the terminal.
            options: further arguments of `sciml.training.train`.

        Raises:
            InputError: the folder holds another training, or one that is not to be resumed; no such device.
            TrainingError, KeyboardInterrupt: see `sciml.training.train`.
        """
        settings = {**self.options, **options, **({} if device is None else {"device": device})}
        network = self.make_network()
        training = train(
            network,
            loss_of,
            self.data.training,
            self.plan,
            folder=folder,
            validation=self.data.test,
            metrics=metrics_of,
            resume=resume,
            about=self.described(),
            progress=progress,
            **settings,
        )
        result = self._tested(network, training)
        return result if folder is None else _stored(result, Path(folder))

    def _tested(self, network: Regularized, training: Training) -> Result:
        network.eval()
        device = next(network.parameters()).device
        test, size = self.data.test, self.plan.batch_size
        means = evaluate(network, metrics_of, test, batch_size=size, device=device).means
        parts = [test.to(device).batch(part) for part in torch.arange(len(test)).split(size)]
        seconds = _timed(network, parts)
        evaluations = means.pop("evaluations")
        return Result(self, network.model, training, means, evaluations, training.seconds, seconds)


def _timed(network: Regularized, parts: list[Mapping[str, Tensor]]) -> float:
    """The median of seconds of passes, the first of which does not count."""
    seconds: list[float] = []
    with torch.no_grad():
        for _ in range(1 + _PASSES):
            begun = time.perf_counter()
            for batch in parts:
                network(batch)["loss"].cpu()
            seconds.append(time.perf_counter() - begun)
            if sum(seconds) > _LONGEST and len(seconds) > 1:
                break
    return statistics.median(seconds[1:])


def _stored(result: Result, folder: Path) -> Result:
    """The files of a result."""
    from .pictures import save  # matplotlib takes its time, and a training without a folder never draws

    result = replace(result, path=folder / WEIGHTS)
    task = result.task
    settings = {"name": task.name, **task.described()}
    save_weights(folder / WEIGHTS, KIND, settings, result.model, {"steps": result.training.steps})
    write_whole(folder / RESULT, json.dumps(_tidy(result.described()), indent=1).encode() + b"\n")
    save(result, folder / PICTURE)
    return result


def _tidy(content: Any) -> Any:
    """JSON's values without NaN and infinity, which JSON does not have: null in their place."""
    if isinstance(content, Mapping):
        return {key: _tidy(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_tidy(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content
