"""Section: a neural ODE that becomes cheap to solve while it learns, and stays accurate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from sciml.solvers.neural_de import (
    ErrorEstimate,
    ExponentialAnnealing,
    LocalError,
    NeuralODE,
    Regularizer,
    TimeDependent,
)
from sciml.solvers.neural_de.tasks.data import Images
from sciml.solvers.neural_de.tasks.digits import digits
from sciml.solvers.time import Controller, ExplicitRungeKutta

from . import figures
from .chapter import Chapter, Section

VANILLA, GLOBAL, LOCAL = "vanilla", "errors in the loss", "one error in the loss"
SEED = 0
_COLOURS = {VANILLA: figures.LINES[0], GLOBAL: figures.LINES[1], LOCAL: figures.LINES[2]}
_CLASSES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#8a7fc7",
    "#b58900",
    "#56a0d3",
    "#a05a2c",
    "#7a7f87",
    "#c23b5e",
)


Model = tuple[NeuralODE, nn.Linear]


def model(regularizer: Regularizer | None, tolerance: float) -> Model:
    """The trajectory that begins at 64 pixels, and a linear layer at its end."""
    rate = TimeDependent((64, 100, 64), last=True).double()
    tsit5 = ExplicitRungeKutta.tsit5()
    method = replace(tsit5, controller=Controller(rows="mean"))
    given: dict[str, Any] = {"rtol": tolerance, "atol": tolerance}
    ode = NeuralODE(rate, method=method, regularizer=regularizer, **given)
    return ode, nn.Linear(64, 10).double()


def epoch(
    ode: NeuralODE,
    classify: nn.Linear,
    optimizer: torch.optim.Optimizer,
    data: Images,
    weight: float,
) -> int:
    """Once through the images; evaluations of the rate that this took."""
    evaluations = 0
    ode.train()
    for batch in torch.randperm(len(data.image)).split(96):
        end, solution = ode(data.image[batch])
        loss = nn.functional.cross_entropy(classify(end), data.label[batch])
        loss = loss + weight * solution.statistics["penalty"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        evaluations += int(solution.statistics["evaluations"].max())
    ode.eval()
    return evaluations


@dataclass
class Course:
    """A training and what came of it.

    Attributes:
        ode, classify: the model.
        evaluations, accuracy: of a prediction for the test images, before the first epoch and after each.
        spent: evaluations of the training.
        seconds: of the training.
    """

    ode: NeuralODE
    classify: nn.Linear
    evaluations: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    spent: int = 0
    seconds: float = 0.0

    def judge(self, data: Images) -> None:
        """How it does now."""
        with torch.no_grad():
            end, solution = self.ode(data.test_image)
            right = self.classify(end).argmax(1) == data.test_label
        self.evaluations.append(int(solution.statistics["evaluations"].max()))
        self.accuracy.append(100 * float(right.double().mean()))


def write(chapter: Chapter, quick: bool) -> None:
    data = digits(seed=SEED)
    epochs, tolerance = 4 if quick else 10, 1.4e-8
    regularizers: dict[str, Regularizer | None] = {VANILLA: None, GLOBAL: ErrorEstimate("mean", rows="together")}
    if not quick:
        regularizers[LOCAL] = LocalError()
    courses = {name: _learned(regularizer, data, epochs, tolerance) for name, regularizer in regularizers.items()}
    plain, cheap = courses[VANILLA], courses[GLOBAL]
    share = cheap.evaluations[-1] / plain.evaluations[-1]
    works = {name: _work(course, data) for name, course in courses.items()}
    reaching = {name: _needed(works[name], 1e-6) for name in (VANILLA, GLOBAL)}
    agree = _agreement(cheap, data)

    chapter.say(
        "A right-hand side may be a network, and what it is trained for the value of the solution at the end: a neural "
        "ODE. Nothing in such a training asks that the equation be easy to solve, and it becomes ever harder. But the "
        "solver knows how hard it is: it estimates the error of each of its steps. These estimates are part of the "
        "graph, and with their sum in the loss the network learns to be right with little effort (Pal, Ma, Shah and "
        "Rackauckas, ICML 2021). Here 1,437 handwritten digits of 8 x 8 pixels are the initial values of trajectories "
        "in 64 dimensions, and a linear layer tells from their ends what they are; 360 others are the test."
    )
    chapter.code(model, epoch)
    chapter.pictures(
        f"What a prediction costs, and how often it is right, in the course of {epochs} epochs; with the errors in the "
        "loss, whose weight falls from 3 to 0.1."
        + ("" if quick else " With one error, that of a random step, the solver may stay a closed box."),
        (_curves(courses, "evaluations", "evaluations of the network"), "curves, of which that of vanilla is highest"),
        (_curves(courses, "accuracy", "right in the test, %"), "curves that rise side by side to a common level"),
    )
    chapter.pictures(
        "The trajectories of 80 of the test images, from near their common middle to where they are told apart, in the "
        "plane in which the ends are spread most; each digit has a colour, and its number stands at the farthest of "
        "its ends.",
        (_paths(plain, data, VANILLA), "coloured curves that part from each other, some of them bent"),
        (_paths(cheap, data, GLOBAL), "coloured curves that part from each other, straighter"),
    )
    chapter.pictures(
        "Left: the error at the end of the trajectories, against evaluations, for tolerances from 1e-2 to 1e-10. It is "
        "the equation that has become easier: the same accuracy costs less, whatever it is. Right: the steps that the "
        "solver takes to the tolerance of the training.",
        (_precision(works), "falling curves, of which the lowest belongs to the model trained with errors"),
        (_steps(courses, data), "steps, of which those of the regularized model are longest"),
    )
    chapter.table(
        ["training", "evaluations", "ratio", "right", "in the training", "seconds"],
        [
            [
                name,
                f"{course.evaluations[-1]}",
                f"{course.evaluations[-1] / plain.evaluations[-1]:.2f}",
                f"{course.accuracy[-1]:.1f} %",
                f"{course.spent:,}",
                f"{course.seconds:.1f}",
            ]
            for name, course in courses.items()
        ],
        f"One seed, {epochs} epochs, tolerance {tolerance:.1e}, steps by Tsitouras's method. Evaluations of the "
        "network for one prediction, and of the whole training. One image more or less in the test is 0.3 %. "
        "`sciml bench neural-de` compares nine such methods, on this and other problems.",
        strong=[list(courses).index(GLOBAL)],
    )
    chapter.claim(
        f"With errors in the loss a prediction takes {cheap.evaluations[-1]} evaluations of the network, without "
        f"{plain.evaluations[-1]}.",
        share <= 0.75,
    )
    chapter.claim(
        f"It is as good: {cheap.accuracy[-1]:.1f} % of the test are right, and {plain.accuracy[-1]:.1f} % without.",
        cheap.accuracy[-1] >= plain.accuracy[-1] - 1.5,
    )
    chapter.claim(
        f"To an error of 1e-6 the one equation takes {reaching[GLOBAL]} evaluations, the other {reaching[VANILLA]}.",
        reaching[GLOBAL] <= reaching[VANILLA],
    )
    chapter.claim(
        "The few steps are no compromise on the digits: with a tolerance of 1e-10 in the place of that of the training "
        f"{agree} of 360 answers are the same.",
        agree == len(data.test_label),
    )
    chapter.headline = (
        f"{cheap.evaluations[-1]} evaluations a prediction in the place of {plain.evaluations[-1]}, "
        f"{cheap.accuracy[-1]:.1f} % right and {plain.accuracy[-1]:.1f} %"
    )
    chapter.numbers = {
        "epochs": epochs,
        "tolerance": tolerance,
        "evaluations": {name: course.evaluations for name, course in courses.items()},
        "accuracy": {name: course.accuracy for name, course in courses.items()},
        "spent": {name: course.spent for name, course in courses.items()},
        "to_1e-6": reaching,
    }


def _learned(regularizer: Regularizer | None, data: Images, epochs: int, tolerance: float) -> Course:
    torch.manual_seed(SEED)
    course = Course(*model(regularizer, tolerance))
    parameters = [*course.ode.parameters(), *course.classify.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    annealing = ExponentialAnnealing(1.0 if isinstance(regularizer, LocalError) else 3.0, 0.1, epochs)
    course.ode.eval()
    course.judge(data)
    for number in range(epochs):
        start = time.perf_counter()
        course.spent += epoch(course.ode, course.classify, optimizer, data, annealing.weight(number))
        course.seconds += time.perf_counter() - start
        course.judge(data)
    return course


def _solved(course: Course, images: Tensor, tolerance: float, times: Tensor | None = None) -> tuple[Tensor, Any]:
    """By the model of a course, to another tolerance."""
    given: dict[str, Any] = {"rtol": tolerance, "atol": tolerance}
    with torch.no_grad():
        ode = NeuralODE(course.ode.rate, method=course.ode.method, **given).eval()
        found: tuple[Tensor, Any] = ode(images, times)
        return found


def _work(course: Course, data: Images) -> list[tuple[int, float]]:
    """Evaluations and largest error of the ends, for falling tolerances."""
    images = data.test_image
    exact, _ = _solved(course, images, 1e-12)
    found = []
    for power in range(2, 11):
        end, solution = _solved(course, images, 10.0**-power)
        error = float((end - exact).square().mean().sqrt())
        found.append((int(solution.statistics["evaluations"].max()), error))
    return found


def _needed(work: list[tuple[int, float]], error: float) -> int:
    """Evaluations to an error, of the cheapest run that has it."""
    return min((count for count, reached in work if reached <= error), default=10**9)


def _agreement(course: Course, data: Images) -> int:
    """Images of the test that are taken for the same with a tolerance of 1e-10."""
    with torch.no_grad():
        answers = [
            course.classify(end).argmax(1)
            for end in (course.ode(data.test_image)[0], _solved(course, data.test_image, 1e-10)[0])
        ]
    return int((answers[0] == answers[1]).sum())


def _curves(courses: Mapping[str, Course], what: str, label: str) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.2)
        for name, course in courses.items():
            values = getattr(course, what)
            axes.plot(range(len(values))[1:], values[1:], "o-", markersize=3.2, color=_COLOURS[name], label=name)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if what == "evaluations":
            axes.set_ylim(0, 1.3 * max(max(course.evaluations) for course in courses.values()))
            axes.legend(loc="upper right", ncols=2, handlelength=1.4)
        figures.tidy(axes)
        return figure


def _paths(course: Course, data: Images, title: str) -> Figure:
    times = torch.linspace(0, 1, 60, dtype=torch.float64)
    chosen = slice(0, 80)
    paths, _ = _solved(course, data.test_image[chosen], 1e-8, times)
    ends = paths[:, -1]
    _, _, directions = torch.linalg.svd(ends - ends.mean(0), full_matrices=False)
    plane = (paths - ends.mean(0)) @ directions[:2].T
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.9)
        for path, label in zip(plane, data.test_label[chosen].tolist(), strict=True):
            axes.plot(*path.T, color=_CLASSES[label], linewidth=0.9, alpha=0.75)
            axes.plot(*path[-1], "o", color=_CLASSES[label], markersize=3.6, markeredgewidth=0)
        axes.set_title(title, loc="left")
        for label, colour in enumerate(_CLASSES):
            there = plane[data.test_label[chosen] == label, -1]
            if len(there):
                place = 1.12 * there[there.square().sum(1).argmax()]
                axes.text(*place.tolist(), f"{label}", color=colour, ha="center", va="center", weight="bold")
                axes.update_datalim([place.tolist()])
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.06)
        axes.set_axis_off()
        return figure


def _precision(works: Mapping[str, list[tuple[int, float]]]) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.2)
        for name, work in works.items():
            counts, errors = zip(*work, strict=True)
            axes.loglog(counts, errors, "o-", markersize=3.2, color=_COLOURS[name], label=name)
        axes.set(xlabel="evaluations of the network", ylabel="error at the end, root mean square")
        axes.set_xticks((10, 20, 50, 100, 200), ("10", "20", "50", "100", "200"))
        axes.xaxis.minorticks_off()
        axes.legend(loc="lower left", handlelength=1.4)
        figures.tidy(axes)
        return figure


def _steps(courses: Mapping[str, Course], data: Images) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.2)
        for name, course in courses.items():
            with torch.no_grad():
                history = course.ode(data.test_image)[1].history
            sizes = history["step"][history["accepted"][:, 0], 0]  # all rows have the same steps
            edges = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
            axes.stairs(sizes, edges, baseline=None, color=_COLOURS[name], linewidth=1.5)
        axes.set(xlabel="t", ylabel="size of the step", xlim=(0, 1), ylim=(0, None))
        figures.tidy(axes)
        return figure


SECTION = Section("neural-equations", "An equation that learns to be easy", write, needs=("sklearn",))
