"""Neural differential equations trained with every regularizer: how good, how long, and how cheap they become."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sciml.solvers.neural_de.tasks import Task, shipped_task

from ...training import TrainingError
from ..bench import Bench
from ..row import Row
from ..timing import Contender, Outcome, take_turns
from . import kept
from .methods import OF_STOCHASTIC, PUBLISHED, SETTINGS, settings

Result = dict[str, Any]


@dataclass(frozen=True)
class Course:
    """A task, and what it is trained with.

    Args:
        task: name of a shipped recipe.
        methods: None for all that the task can have.
        seeds: of the trainings: of the first weights, and of the order of the samples.
        changes: of the recipe.
    """

    task: str
    seeds: Sequence[int] = (0, 1, 2)
    methods: Sequence[str] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the case."""
        return f"training, {self.task}" + (" of little" if "steps" in self.changes else "")

    def chosen(self) -> Sequence[str]:
        """The methods."""
        return self.methods or (OF_STOCHASTIC if self.task.endswith("-sde") else tuple(SETTINGS))

    def made(self, method: str, seed: int) -> Task:
        """What is trained."""
        return shipped_task(self.task, settings(self.task, method), seed=seed, **self.changes)


def measure_training(course: Course, bench: Bench) -> list[Row]:
    """One row a method, its numbers the medians over the seeds.

    The methods are trained one after the other, seed by seed; then their predictions are timed in turn. Each training
    is kept until all are done, so that a run that was interrupted goes on where it was.
    """
    trainings = kept.Trainings(course.name.replace(", ", "-").replace(" ", "-"), bench.device)
    found: dict[str, list[Result]] = {method: [] for method in course.chosen()}
    failures: dict[str, str] = {}
    for seed in course.seeds:
        models: dict[str, nn.Module] = {}
        for method in found:
            bench.say(f"{course.name}: {method}, seed {seed}")
            copy = bench.calibration.measure()
            try:
                result, models[method] = trainings.result(course.made(method, seed))
            except TrainingError as error:
                failures[method] = f"seed {seed}: {error}"
                continue
            copy = max(copy, bench.calibration.measure())
            found[method].append({"seed": seed, "copy_seconds": copy, **result})
        for method, seconds in _predictions(course, models, seed, bench).items():
            found[method][-1]["prediction_seconds"] = seconds
    rows = [_row(course, method, results, failures.get(method), bench) for method, results in found.items()]
    trainings.complete()
    return rows


def _predictions(course: Course, models: Mapping[str, nn.Module], seed: int, bench: Bench) -> dict[str, float]:
    """Seconds of a pass over the test samples in batches as in the training, the least of several, all in turn."""
    task = course.made(next(iter(SETTINGS)), seed)
    test, size = task.data.test.to(torch.device(bench.device)), task.plan.batch_size
    batches = [test.batch(part) for part in torch.arange(len(test)).split(size)]
    contenders = []
    for method, model in models.items():
        passing = _Pass(task, model.to(bench.device), batches)
        contenders.append(Contender(method, "sciml", None, passing, lambda _: Outcome(), device=bench.device))
    series = take_turns(
        contenders, bench.clock, bench.calibration, lambda text: bench.say(f"{course.name}: {text}"), bench.patience
    )
    limit = bench.calibration.limit
    return {each.contender.method: min(sample.solve for sample in each.kept(limit)) for each in series}


class _Pass:
    """A prediction of all batches, always with the same random numbers."""

    def __init__(self, task: Task, model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self.task, self.model, self.batches = task, model, batches

    def __call__(self, _: Any) -> None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            for batch in self.batches:
                self.task.problem.outcome(self.model, batch, 0)


_OF_SEED = (
    *("seed", "metrics", "evaluations", "training_seconds", "clock_seconds", "prediction_seconds", "validations"),
    *("steps", "epochs", "notes", "copy_seconds"),
)


def _row(course: Course, method: str, results: Sequence[Result], failure: str | None, bench: Bench) -> Row:
    task = course.made(method, course.seeds[0])
    dtype = getattr(task.problem, "dtype", None)
    published = PUBLISHED.get(course.task, {}).get(method)
    extra: dict[str, Any] = {
        "regularizer": str(task.regularization),
        "published": None if published is None else published.described(),
        "seeds": [{key: result[key] for key in _OF_SEED} for result in results],
    }
    if failure is not None:
        return bench.row(course.name, method, dtype=dtype, extra={**extra, "failure": failure})

    def median(name: str) -> float:
        return float(statistics.median(result[name] for result in results))

    headline = results[0]["headline"]
    value = float(statistics.median(result["metrics"][headline] for result in results))
    shown = f"{100 * value:.2f} %" if headline == "accuracy" else f"{headline} {value:.3g}"
    note = f"{shown}, {1e3 * median('prediction_seconds'):.3g} ms a prediction"
    if published is not None:
        note += f"; published: {published.value + ', ' if published.value else ''}{published.evaluations:g} evaluations"
        note += f" ({published.of})"
    count = median("evaluations")
    extra |= {
        "headline": headline,
        "value": value,
        "evaluations": int(count) if count.is_integer() else round(count, 1),
        "training_seconds": median("training_seconds"),
        "prediction_seconds": median("prediction_seconds"),
        "copy_seconds": max(result["copy_seconds"] for result in results),
        "parameters": results[0]["parameters"],
        "note": note,
    }
    return bench.row(
        course.name,
        method,
        dtype=dtype,
        solve_seconds=median("training_seconds"),
        iterations=round(count),
        error=1.0 - value if headline == "accuracy" else value,
        extra=extra,
    )
