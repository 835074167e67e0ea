"""Section: a neural operator trained on solutions, asked on another grid, and its answers as initial guesses."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sciml.datasets import generate
from sciml.datasets import open as open_dataset
from sciml.datasets.dataset import Dataset
from sciml.operators import MgNO, RelativeH1, RelativeL2, TrainedOperator, train_operator
from sciml.solvers.linear import ConjugateGradient, Jacobi, Multigrid
from sciml.solvers.linear.base import LinearSolver
from sciml.solvers.solve import solve

from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from ..training import AdamW, Linear, Plan, Training
from . import figures
from .chapter import Chapter, Section
from .evolution_figures import DASHES, curves_figure

Learned = tuple[TrainedOperator, Training]
SEED = 0
TOLERANCE, IN_WORDS = 1e-2, "1e-2"
METHODS: dict[str, LinearSolver] = {
    "CG + Jacobi": ConjugateGradient(preconditioner=Jacobi()),
    "CG + Multigrid": ConjugateGradient(preconditioner=Multigrid()),
}


def recipe(cells: int, samples: dict[str, int]) -> dict[str, Any]:
    """Flow through a medium of two permeabilities, in patches of no order."""
    patches = {"kind": "gaussian", "alpha": 2.0, "tau": 3.0, "boundary": "neumann"}
    a = {"kind": "threshold", "above": 12.0, "below": 3.0, "field": patches}
    return {
        "equation": {"text": "-div(a*grad(u)) = f"},
        "domain": {"shape": [cells] * 2, "lower": [0.0, 0.0], "upper": [1.0, 1.0]},
        "boundary": {"all": {"kind": "dirichlet", "value": 0.0}},
        "fields": {"a": a, "f": 1.0},
        "samples": {**samples, "shard": 256, "batch": 64, "seed": SEED},
    }


def learn(data: Dataset, channels: int, steps: int) -> Learned:
    """Three multigrid cycles of four levels, which see a, x and y."""
    torch.manual_seed(SEED)
    network = MgNO(in_channels=3, channels=channels, layers=3, levels=[(1, 0)] * 4)
    plan = Plan(
        steps=steps,
        batch_size=8,
        optimizer=AdamW(2e-3, betas=(0.9, 0.99)),
        schedule=Linear(warmup=0.1, start=0.1),
        clip=3.0,
        monitor="L2",
    )
    loss = RelativeH1.on(data.grid)
    return train_operator(network, data, plan, loss=loss, coordinates=True)


def finish(grid: Grid, a: Tensor, method: LinearSolver, guess: Any) -> Solution:
    """The solver from a guess such as the operator's {"u": ...}, or from zero."""
    equation = Equation("-div(a*grad(u)) = f")
    given: dict[str, Any] = {"method": method, "initial": guess, "rtol": TOLERANCE}
    return solve(equation, grid, fields={"a": a, "f": 1.0}, **given)


@dataclass(frozen=True)
class Answers:
    """What the operator says of samples that it was not trained with, in float64.

    Args:
        grid: of the samples.
        a, truth, prediction: `(n, nx, ny)`.
        seconds: of the operator, for all of them.
    """

    grid: Grid
    a: Tensor
    truth: Tensor
    prediction: Tensor
    seconds: float

    @property
    def l2(self) -> Tensor:
        """Relative errors `(n,)`."""
        return RelativeL2()(self.prediction.unsqueeze(1), self.truth.unsqueeze(1))

    @property
    def h1(self) -> Tensor:
        """Relative errors of values and slopes `(n,)`."""
        return RelativeH1.on(self.grid)(self.prediction.unsqueeze(1), self.truth.unsqueeze(1))


def write(chapter: Chapter, quick: bool) -> None:
    cells, channels, steps = (16, 16, 128) if quick else (32, 16, 512)
    sizes = {"train": 128, "valid": 16, "test": 32} if quick else {"train": 512, "valid": 64, "test": 128}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        generate(recipe(cells, sizes), folder / "coarse", workers=0)
        generate(recipe(2 * cells, {"train": 1, "test": sizes["test"]}), folder / "fine", workers=0)
        data = open_dataset(folder / "coarse")
        operator, training = learn(data, channels, steps)
        coarse = answer(operator, data.split("test"))
        fine = answer(operator, open_dataset(folder / "fine").split("test"))
        standing = data.split("train").read("u").double().mean(0)
    nothing = Answers(coarse.grid, coarse.a, coarse.truth, standing.expand_as(coarse.truth), 0.0)
    parameters = sum(parameter.numel() for parameter in operator.network.parameters())
    solves = {
        (name, start): finish(coarse.grid, coarse.a, method, guess)
        for name, method in METHODS.items()
        for start, guess in (("zero", None), ("operator", {"u": coarse.prediction}))
    }
    counts = {key: float(solution.statistics["iterations"].double().mean()) for key, solution in solves.items()}
    spared = {name: counts[name, "zero"] - counts[name, "operator"] for name in METHODS}
    apart = float((solves["CG + Jacobi", "operator"].value - coarse.truth).abs().max() / coarse.truth.abs().max())
    mean, fine_mean = float(coarse.l2.mean()), float(fine.l2.mean())
    ratio = fine_mean / mean

    chapter.say(
        f"A solver can teach a network. {sizes['train']} media of two permeabilities, 12 and 3, are drawn and solved "
        f"on {cells} x {cells} cells; from these pairs of a coefficient and a solution an MgNO learns the map from "
        f"the one to the other. Its layers are multigrid cycles with learned stencils between {channels} channels "
        "(He, Liu and Xu, ICLR 2024). The recipe of a dataset, and that of a training, may stand in files too: "
        "`sciml data generate` and `sciml train` read them."
    )
    chapter.equation(Equation("-div(a*grad(u)) = f"))
    chapter.code(recipe, learn)
    chapter.pictures(
        f"Left: the loss, the relative error in H1, of each of {steps} steps of the optimizer and its running mean, "
        f"and errors on {sizes['valid']} samples that are held back. Right: how many of {sizes['test']} test samples "
        "have a smaller error than what the abscissa says.",
        (_curves(training), "the loss falls steeply at first and ever more slowly"),
        (_distribution({f"{cells} x {cells}": coarse, f"{2 * cells} x {2 * cells}": fine}), "two steep curves"),
    )
    order = coarse.l2.argsort()
    middle, worst = int(order[len(order) // 2]), int(order[-1])
    chapter.pictures(
        f"Test samples: the one in the middle of the {sizes['test']} by its error, the same on twice the resolution, "
        "and the worst. Colours of u are the same for solver and operator.",
        (
            _gallery([("median", coarse, middle), ("twice as fine", fine, middle), ("worst", coarse, worst)]),
            "maps of three media, their solutions by solver and operator, which look alike, and faint differences",
        ),
    )
    chapter.say(
        f"The second row asks the operator about a grid that it has never seen: it takes the means of the coefficient "
        f"over its own cells, and its answer is interpolated. The test samples on {2 * cells} x {2 * cells} cells have "
        "the same media, drawn from the same random numbers, and were solved anew."
    )
    rows = {
        "mean of all training solutions": nothing,
        f"operator, {cells} x {cells}": coarse,
        f"operator, {2 * cells} x {2 * cells}": fine,
    }
    chapter.table(
        ["relative error", "mean", "median", "90 %", "worst", "H1, mean"],
        [[name, *_row(answers)] for name, answers in rows.items()],
        f"Of the {sizes['test']} test samples, in L2, and in H1, which counts slopes too; the operator was not trained "
        "again for the finer grid. The first row is what it costs to know nothing of the medium.",
        strong=[1],
    )
    chapter.say(
        "What an operator says is nearly right, and nothing tells how nearly. A solver makes it right: it takes the "
        "answer as its initial guess, and its tolerance is a promise."
    )
    chapter.code(finish)
    chapter.pictures(
        f"The residual, on average over the test samples, from zero and from the operator's answer, down to "
        f"{IN_WORDS} |b|.",
        *((_residuals(name, solves), f"residuals of {name} from two guesses") for name in METHODS),
    )
    chapter.table(
        ["iterations, mean", "from zero", "from the operator", "spared"],
        [
            [name, f"{counts[name, 'zero']:.1f}", f"{counts[name, 'operator']:.1f}", f"{spared[name]:.1f}"]
            for name in METHODS
        ],
        f"To |b - A x| <= {IN_WORDS} |b|. The residual weighs what is rough in an error, and most of the operator's "
        "is; and multigrid has so few iterations that a guess can spare it little.",
    )
    exact = solves["CG + Multigrid", "zero"].statistics
    chapter.facts(
        {
            "parameters": f"{parameters:,}",
            "steps": f"{training.steps:,} of 8 samples",
            "training": f"{training.seconds:.1f} s",
            f"{sizes['test']} answers": f"{coarse.seconds:.2f} s",
            f"{sizes['test']} solves, multigrid": f"{exact['seconds_setup'] + exact['seconds_solve']:.2f} s",
        }
    )
    bound = 0.2 if quick else 0.05
    chapter.claim(
        f"On {sizes['test']} samples that it has not seen the operator's mean error is {mean:.1%}, at most "
        f"{bound:.0%}; the mean of all training solutions has {float(nothing.l2.mean()):.0%}.",
        mean <= min(bound, 0.7 * float(nothing.l2.mean())),
    )
    chapter.claim(
        f"At twice the resolution, without further training, the error is {ratio:.2f} times as large.", ratio <= 1.5
    )
    chapter.claim(
        f"As initial guess its answer spares conjugate gradients {spared['CG + Jacobi']:.1f} of "
        f"{counts['CG + Jacobi', 'zero']:.1f} iterations, and every sample converges, to within {apart:.0e} of the "
        "solution.",
        spared["CG + Jacobi"] >= 1
        and all(bool(solution.converged.all()) for solution in solves.values())
        and apart <= 10 * TOLERANCE,
    )
    chapter.headline = (
        f"error {mean:.1%} on unseen samples, {fine_mean:.1%} at twice the resolution, after {training.seconds:.0f} s "
        "of training"
    )
    chapter.numbers = {
        "parameters": parameters,
        "steps": training.steps,
        "loss": training.history["loss"],
        "validation": {name: training.validations[name] for name in ("L2", "H1")},
        "errors": {name: {"L2": answers.l2.mean(), "H1": answers.h1.mean()} for name, answers in rows.items()},
        "worst": float(coarse.l2.max()),
        "ratio": ratio,
        "iterations": {f"{name} from {start}": count for (name, start), count in counts.items()},
        "spared": spared,
        "apart": apart,
    }


def answer(operator: TrainedOperator, samples: Dataset) -> Answers:
    """What the operator says of all samples of a dataset."""
    a, truth = samples.read("a"), samples.read("u")
    start = time.perf_counter()
    with torch.no_grad():
        prediction = operator({"a": a}, samples.grid)["u"]
    seconds = time.perf_counter() - start
    return Answers(samples.grid, a.double(), truth.double(), prediction.double(), seconds)


def _row(answers: Answers) -> list[str]:
    errors = answers.l2
    middle, late = errors.quantile(torch.tensor([0.5, 0.9], dtype=errors.dtype)).tolist()
    return [f"{100 * e:.2f} %" for e in (float(errors.mean()), middle, late, float(errors.max()), answers.h1.mean())]


def _curves(training: Training) -> Figure:
    history, found = training.history, training.validations
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.2)
        steps, losses = history["step"], history["loss"]
        window = max(1, len(losses) // 40)
        axes.semilogy(steps, losses, color=figures.LINES[0], alpha=0.3, linewidth=0.7)
        smooth = losses.unfold(0, window, 1).mean(1)
        axes.semilogy(steps[window - 1 :], smooth, color=figures.LINES[0], label="training, H1")
        for name, colour in (("H1", figures.LINES[1]), ("L2", figures.LINES[2])):
            axes.semilogy(found["step"], found[name], "o-", color=colour, markersize=3.5, label=f"validation, {name}")
        figures.name_places(axes)
        axes.set(xlabel="step", ylabel="relative error")
        axes.legend(loc="best")
        figures.tidy(axes)
        return figure


def _distribution(found: Mapping[str, Answers]) -> Figure:
    return curves_figure(
        {
            name: (100 * answers.l2.sort().values, 100 * (torch.arange(len(answers.l2)) + 1) / len(answers.l2))
            for name, answers in found.items()
        },
        labels=("relative error in L2, percent", "test samples, percent"),
        height=3.2,
    )


def _gallery(rows: list[tuple[str, Answers, int]]) -> Figure:
    """Coefficient, solution, answer and their difference, a row each."""
    with figures.style():
        figure = figures.blank(1.25 * figures.WHOLE, 2.15 * len(rows))
        panels = figure.subplots(len(rows), 4)
        for place, (line, (name, answers, sample)) in enumerate(zip(panels, rows, strict=True)):
            truth, prediction = answers.truth[sample], answers.prediction[sample]
            limits = (0.0, float(torch.maximum(truth, prediction).max()))
            titles = ("a", "u, solver", "u, operator", "difference") if place == 0 else ("",) * 4
            drawn: tuple[tuple[Tensor, dict[str, Any]], ...] = (
                (answers.a[sample], {"colours": "cividis", "limits": (3.0, 12.0), "ticks": (3, 12)}),
                (truth, {"limits": limits, "bar": False}),
                (prediction, {"limits": limits}),
                (prediction - truth, {"colours": "RdBu_r", "centred": True}),
            )
            for axes, (field, options), title in zip(line, drawn, titles, strict=True):
                figures.draw_map(axes, answers.grid, field, title=title, **options)
                axes.set_xticks([]), axes.set_yticks([])
            error = float(answers.l2[sample])
            cells = " x ".join(str(n) for n in answers.grid.shape)
            line[0].set_ylabel(f"{name}, {error:.1%}\n{cells}")
        return figure


def _residuals(name: str, solves: Mapping[tuple[str, str], Solution]) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.0)
        first = solves[name, "zero"].history["residual_norm"][0]
        for (method, start), solution in solves.items():
            if method == name:
                norms = (solution.history["residual_norm"] / first).mean(-1)
                colour = figures.LINES[0 if start == "zero" else 1]
                mark = "o" if len(norms) < 20 else ""
                axes.semilogy(norms, color=colour, marker=mark, markersize=3.5, label=f"from {start}")
        axes.axhline(TOLERANCE, color=figures.SOFT, linewidth=0.9, linestyle=DASHES)
        axes.set(xlabel="iteration", ylabel="residual |b - A x| / |b|")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_title(name, loc="left")
        axes.legend(loc="best")
        figures.tidy(axes)
        return figure


SECTION = Section("learning", "An operator learned from solutions", write)
