"""What the evaluation of an operator found: as numbers, as JSON, and as tables to print."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from sciml.grid import Grid

from .against_solver import Comparison
from .spectrum import Spectrum

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

PERCENTILES = (50, 90, 95, 99, 100)
_WIDTH = 110  # of a report that is printed as text
_MOST_TIMES = 6  # lines of the table of a rollout
_MOST_NAMED = 8


@final
@dataclass(frozen=True, eq=False)
class Case:
    """One sample, to be looked at.

    Args:
        title: what it stands for.
        sample: its number in the split.
        time: of the truth; None of a steady problem.
        error: its relative L2 error, the mean over the outputs.
        inputs: by name, `(*components, *space)`; of a parameter `()`.
        truth, prediction: by name of the output, `(*components, *space)`.
    """

    title: str
    sample: int
    time: float | None
    error: float
    inputs: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    prediction: Mapping[str, Tensor]


@final
@dataclass(frozen=True, eq=False)
class Rollout:
    """Errors of an operator that goes on from its own answers.

    Args:
        times: `(steps,)` of the answers, in the unit of the dataset's times.
        errors: by output, `(samples, steps)` relative L2; infinite from where an answer is not finite.
        standing: as `errors`, of the state at the first time in place of an answer.
    """

    times: Tensor
    errors: Mapping[str, Tensor]
    standing: Mapping[str, Tensor]


@final
@dataclass(frozen=True, eq=False)
class Report:
    """How good an operator is on a dataset, and how quick.

    Args:
        operator: what it is: network, number of parameters, and where it was trained.
        dataset: name, split, number of samples, of pairs of times, and the grid.
        grid: of the dataset.
        errors: by output and norm ("L2", "H1", "largest"), one a sample (and time, all samples of the first before
            those of the next); dimensionless. "largest" is the largest error over the largest value. Infinite where an
            answer is not finite.
        not_finite: samples with such answers, by number.
        spectra: by output.
        rollout: of an operator from one time to a later one, or None.
        cases: the worst two samples and the median one, each at its worst time.
        comparison: with the solver, or None where that was not asked for.
        notes: what a reader should know.
    """

    operator: Mapping[str, Any]
    dataset: Mapping[str, Any]
    grid: Grid
    errors: Mapping[str, Mapping[str, Tensor]]
    not_finite: tuple[int, ...]
    spectra: Mapping[str, Spectrum]
    rollout: Rollout | None
    cases: tuple[Case, ...]
    comparison: Comparison | None
    notes: tuple[str, ...]

    def table(self) -> dict[str, dict[str, dict[str, float]]]:
        """By output and norm: "mean", and "50" to "100", what so many percent of the samples do not exceed."""
        return {name: {norm: _summary(values) for norm, values in norms.items()} for name, norms in self.errors.items()}

    def described(self) -> dict[str, Any]:
        """All numbers, as JSON can hold them; what is not finite is None."""
        return _plain(
            {
                "format": 1,
                "operator": self.operator,
                "dataset": self.dataset,
                "errors": self.table(),
                "error_of_each": {
                    name: {norm: values.tolist() for norm, values in norms.items()}
                    for name, norms in self.errors.items()
                },
                "not_finite": self.not_finite,
                "cases": [
                    {"title": case.title, "sample": case.sample, "time": case.time, "L2": case.error}
                    for case in self.cases
                ],
                "spectra": {
                    name: {
                        "basis": spectrum.basis,
                        "wavenumbers": spectrum.wavenumbers.tolist(),
                        "truth": spectrum.truth.tolist(),
                        "error": spectrum.error.tolist(),
                        "resolved": spectrum.resolved,
                        "lost_from": spectrum.lost,
                    }
                    for name, spectrum in self.spectra.items()
                },
                "rollout": None if self.rollout is None else _describe_rollout(self.rollout),
                "comparison": None if self.comparison is None else self.comparison.described(),
                "notes": self.notes,
            }
        )

    def to_json(self) -> str:
        """`described()` as text."""
        return json.dumps(self.described(), indent=1, allow_nan=False) + "\n"

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=_WIDTH)
        console.print(self)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        yield Text(_head(self.operator, self.dataset), style="bold")
        yield Text()
        yield self._error_table()
        if self.not_finite:
            named = ", ".join(map(str, self.not_finite[:_MOST_NAMED]))
            more = f" and {len(self.not_finite) - _MOST_NAMED} more" if len(self.not_finite) > _MOST_NAMED else ""
            yield Text(f"NaN or infinite answers for sample {named}{more}", style="bold red")
        yield Text()
        for name, spectrum in self.spectra.items():
            yield Text(_spectrum_line(name, spectrum))
        for name in self.rollout.errors if self.rollout is not None else ():
            yield Text()
            yield self._rollout_table(name)
        if self.comparison is not None:
            yield Text()
            yield from self.comparison.renderables()
        for note in self.notes:
            yield Text(f"note: {note}", style="dim")

    def _error_table(self) -> RenderableType:
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("error, %")
        for title in ("mean", *(f"{q} %" for q in PERCENTILES[:-1]), "worst"):
            table.add_column(title, justify="right")
        words = {"L2": "relative L2", "H1": "relative H1", "largest": "largest error / largest value"}
        for name, norms in self.table().items():
            for norm, numbers in norms.items():
                table.add_row(f"{name}: {words[norm]}", *(percent(value) for value in numbers.values()))
        return table

    def _rollout_table(self, name: str) -> RenderableType:
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        for title in (f"{name}, from its own answers, %", "mean", "median", "worst", "standing still"):
            table.add_column(title, justify="right" if title[0] != name[0] else "left")
        rollout = self.rollout
        if rollout is None:
            return table
        steps = len(rollout.times)
        chosen = sorted({round(i * (steps - 1) / max(1, min(steps, _MOST_TIMES) - 1)) for i in range(_MOST_TIMES)})
        for step in (s for s in chosen if s < steps):
            numbers = _summary(rollout.errors[name][:, step])
            standing = float(rollout.standing[name][:, step].mean())
            values = (numbers["mean"], numbers["50"], numbers["100"], standing)
            table.add_row(f"time {float(rollout.times[step]):g}", *map(percent, values))
        return table


def percent(value: float) -> str:
    """A share as a number of percent."""
    return f"{100 * value:#.3g}".rstrip(".") if math.isfinite(value) else "not finite"


def _summary(values: Tensor) -> dict[str, float]:
    ordered = values.double().sort().values
    ranks = {str(q): float(ordered[max(0, math.ceil(q * len(ordered) / 100) - 1)]) for q in PERCENTILES}
    return {"mean": float(ordered.mean()), **ranks}


def _head(operator: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    at, here = (" x ".join(map(str, item["shape"])) for item in (operator, dataset))
    pairs = f", {dataset['pairs']} pairs of times" if dataset["pairs"] != dataset["samples"] else ""
    trained = f" on {operator['trained_on']}" if operator["trained_on"] else ""
    split = f" of the split {dataset['split']}" if dataset["split"] else ""
    return (
        f"{operator['network']} of {operator['parameters']:,} parameters, trained{trained} at {at}, on "
        f"{dataset['samples']} samples{split} of {dataset['name']} at {here}{pairs}"
    )


def _spectrum_line(name: str, spectrum: Spectrum) -> str:
    total = float(spectrum.truth.sum())
    share = math.sqrt(float(spectrum.error.sum()) / total) if total > 0 else math.inf
    where = f"as large as {name} itself from wavenumber {spectrum.lost:.3g}" if spectrum.lost is not None else ""
    fine = f"smaller than {name} at every wavenumber up to {spectrum.resolved:.3g}"
    return f"error of {name} by {spectrum.basis}: {percent(share)} % in all, {where or fine}"


def _describe_rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "times": rollout.times.tolist(),
        "L2": {
            name: {
                "mean": values.mean(0).tolist(),
                "median": [_summary(column)["50"] for column in values.T],
                "worst": values.amax(0).tolist(),
                "standing_still": rollout.standing[name].mean(0).tolist(),
            }
            for name, values in rollout.errors.items()
        },
    }


def _plain(item: Any) -> Any:
    """JSON values."""
    if isinstance(item, Mapping):
        return {str(name): _plain(value) for name, value in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(value) for value in item]
    if isinstance(item, Tensor):
        return _plain(item.tolist())
    if isinstance(item, torch.device):
        return str(item)
    return None if isinstance(item, float) and not math.isfinite(item) else item
