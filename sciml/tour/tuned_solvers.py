"""Section: a bandit chooses the relaxation of a preconditioner, step by step of a simulation, and learns from it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from torch import Tensor

from sciml.solvers.linear import SSOR, ConjugateGradient
from sciml.solvers.linear.base import LinearSolver
from sciml.solvers.tuning import BanditTuner, ChebCB, Policy, TsallisINF, TunerState

from ..benchmarks.tuning.heat import FIXED, Heat
from ..grid import Grid
from ..linear_operator import LinearOperator
from . import figures
from .chapter import Chapter, Section
from .evolution_figures import DASHES, snapshots_figure

TUNED, BLIND, AGAIN = "tuned", "tuned without a context", "tuned, a second time"
BEST = "the best of all for every step"
SEED = 0
_FASTER = 4  # than in the published experiment, the conductivity comes and goes, so that a short run sees it repeat

_LEAST_SHOWN = 0.05  # conductivity below which every relaxation takes a handful of iterations
_DOT = {"markersize": 3.4, "markeredgewidth": 0.4, "label": "chosen"}
_COLOURS = {BLIND: figures.LINES[2], TUNED: figures.LINES[0], AGAIN: figures.LINES[1]}

System = tuple[LinearOperator, Tensor, Tensor]
"""Operator, right side and start of a step."""


@dataclass
class Run:
    """What came of a simulation so far.

    Attributes:
        heat: the problem.
        u: the state.
        counts: iterations of every step.
        chosen: relaxation of every step, where it was chosen.
    """

    heat: Heat
    u: Tensor
    counts: list[int] = field(default_factory=list)
    chosen: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Iterations of all steps."""
        return sum(self.counts)

    def conductivity(self, step: int) -> float:
        """In the middle of a step."""
        return self.heat.conductivity(_FASTER * step)

    @cached_property
    def sources(self) -> list[Tensor]:
        """Of the steps of a round."""
        return self.heat.sources()

    def system(self, kappa: float) -> System:
        """Of the next step, by Crank and Nicolson."""
        operator = self.heat.operator(kappa)
        source = self.sources[len(self.counts) % len(self.sources)]
        return operator, 2 * self.u - operator.apply(self.u) + source, self.u


def tune(policy: Policy, state: TunerState | None = None) -> BanditTuner:
    """Of conjugate gradients with SSOR, whose relaxation is to be learned."""
    family = ConjugateGradient(preconditioner=SSOR(), rtol=1e-8)
    ranges = {"preconditioner.relaxation": (1.0, 1.95)}
    given: dict[str, Any] = {} if state is None else {"state": state}
    return BanditTuner(family, ranges, policy=policy, seed=SEED, **given)


def advance(run: Run, solver: LinearSolver, steps: int) -> Run:
    """A tuner is told how well heat is conducted, and chooses by that."""
    for _ in range(steps):
        kappa = run.conductivity(len(run.counts))
        if isinstance(solver, BanditTuner):
            solver = solver.with_context(kappa)
        solution = solver.solve(*run.system(kappa))
        run.u = solution.value
        run.counts.append(int(solution.statistics["iterations"]))
        run.chosen += solution.statistics.get("value", [])
    return run


def write(chapter: Chapter, quick: bool) -> None:
    steps, arms = (375, 8) if quick else (750, 20)
    heat = Heat(intervals=40 if quick else 64, steps=steps)
    policy = ChebCB(arms=arms, interval=(0.0, 10.0))
    runs = {_name(omega): _fixed(heat, omega) for omega in FIXED}
    runs[BLIND] = advance(begin(heat), tune(TsallisINF(arms=arms)), steps)
    tuner = tune(policy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.json"
        runs[TUNED], kept, states = _watched(heat, tuner, steps, _telling(heat, quick), path)
        resumed = _resumed(heat, policy, runs[TUNED], states, steps, path)
        size = path.stat().st_size
    runs[AGAIN] = advance(begin(heat), tuner, steps)
    truth = Truth.measured(kept, arms)
    best, hindsight = truth.best(steps), truth.best_fixed(steps)
    runs[_name(hindsight)] = _fixed(heat, hindsight)
    fixed = [name for name in runs if name.startswith(_name())]
    least = min(fixed, key=lambda name: runs[name].total)
    tuned, other = runs[TUNED], runs[least]
    apart = float((tuned.u - other.u).norm() / other.u.norm())

    chapter.say(
        "The best relaxation of SSOR depends on the matrix, and in a simulation the matrix changes: here that of heat "
        "in a square whose conductivity kappa comes and goes, while a burner goes "
        f"round. With Crank and Nicolson's method each of {steps} steps asks for the solution of one linear system. "
        "Which relaxation should its preconditioner have? A tuner tries and learns. All that it sees of a system is "
        "one number, kappa, and afterwards how many iterations it took. It fits the iterations of every relaxation "
        "by a polynomial of kappa, prefers what looks cheap and tries the others ever more rarely: ChebCB, of Khodak, "
        "Chow, Balcan and Talwalkar (ICLR 2024), whose experiment this is, smaller and with a quicker kappa."
    )
    chapter.code(tune, advance)
    square = Grid(tuple(tuned.u.shape))
    chapter.pictures(
        "The temperature after "
        + ", ".join(f"{step}" for step in states)
        + " steps; the burner's trace is washed out where kappa is large. Each picture is scaled by its own largest "
        "value.",
        (
            snapshots_figure(
                square,
                [u / u.max() for u in states.values()],
                [f"step {step}, kappa {tuned.conductivity(step - 1):.2g}" for step in states],
                colours="inferno",
                limits=(0.0, 1.0),
            ),
            "four maps of temperature: spots and traces of a burner, and smooth ones",
        ),
    )
    chapter.pictures(
        f"Left: how many iterations each of {arms} relaxations takes, measured on {len(kept)} of these systems, "
        f"the best in orange; white are the choices of the tuner in the second half of its first run. Right: its "
        "choices from the first step on, and kappa in grey.",
        (
            _choices(tuned, truth, steps // 2),
            "a valley in a map of iterations over kappa and relaxation, along which the choices lie",
        ),
        (_course(tuned), "choices that scatter at first and then follow the conductivity up and down"),
    )
    chapter.pictures(
        f"Iterations from the first step on, and how many of them are more than {BEST} would have taken, which "
        f"nobody knows beforehand: about {float(best.sum()):,.0f}, interpolated between systems that were measured.",
        (_sums(runs, best, fixed), "curves that rise, those of the tuned solver less than those of fixed relaxations"),
        (_excess(runs, best, least), "curves of which those of the tuned solver are the lowest"),
    )
    order = sorted(runs, key=lambda name: runs[name].total)
    chapter.table(
        ["method", "iterations", "a step", "ratio"],
        [
            [name, f"{runs[name].total:,}", f"{runs[name].total / steps:.2f}", f"{runs[name].total / other.total:.2f}"]
            for name in order
        ],
        f"Iterations of {steps} steps with {heat.unknowns:,} unknowns to a residual of 1e-8; ratio: over those of the "
        f"best fixed relaxation, which is {least.split()[-1]} in hindsight. Without kappa to go by, a tuner "
        "(Tsallis-INF) can at best find that one, and pays for finding it. The second time the tuner begins with what "
        "it learned the first time.",
        strong=[order.index(TUNED)],
    )
    chapter.say(
        "What a tuner has learned is a `TunerState`, which only solving changes. It can be written to a file and read "
        "again; whoever goes on from there makes the very choices that would have been made without the interruption."
    )
    chapter.facts(
        {
            "unknowns": f"{heat.unknowns:,}",
            "steps": f"{steps}",
            "relaxations": f"{arms}, from 1 to 1.95",
            "saved state": f"{size / 1e3:.0f} kB",
        }
    )
    chapter.claim(
        f"The tuner takes {tuned.total:,} iterations, {1 - tuned.total / other.total:.0%} fewer than the best fixed "
        f"relaxation, {least.split()[-1]}, with {other.total:,}.",
        tuned.total < other.total,
    )
    chapter.claim(
        f"The second time, with what it learned, the same simulation takes it {runs[AGAIN].total:,}.",
        runs[AGAIN].total < tuned.total,
    )
    chapter.claim(
        "Whatever it chooses, the solution is the same: after the last step the temperatures differ by "
        f"{apart:.1e} of their norm.",
        apart <= 1e-6,
    )
    chapter.claim("Stopped half way, saved, read and resumed, it makes the same choices to the last bit.", resumed)
    chapter.headline = (
        f"{tuned.total:,} iterations tuned, {other.total:,} with the best fixed relaxation; best of every step about "
        f"{float(best.sum()):,.0f}"
    )
    chapter.numbers = {
        "steps": steps,
        "unknowns": heat.unknowns,
        "iterations": {name: run.total for name, run in runs.items()},
        "best_fixed": least,
        "best_of_every_step": float(best.sum()),
        "apart": apart,
        "resumed": resumed,
        "relaxations": tuned.chosen,
    }


def begin(heat: Heat) -> Run:
    """A bump of warmth in the middle."""
    return Run(heat, heat.bump((0.5, 0.5), 0.25))


def _name(relaxation: float | None = None) -> str:
    """Of a run that keeps to one."""
    return "relaxation " + ("" if relaxation is None else f"{relaxation:.3g}")


def _fixed(heat: Heat, relaxation: float) -> Run:
    return advance(begin(heat), ConjugateGradient(SSOR(relaxation), rtol=1e-8), heat.steps)


def _telling(heat: Heat, quick: bool) -> set[int]:
    """Steps whose systems are looked at: some of all, and some of the last wave that are evenly apart in log kappa."""
    run, every = begin(heat), 6
    wave = range(heat.steps - 1000 // _FASTER, heat.steps)
    targets = numpy.geomspace(_LEAST_SHOWN, 10.0, 12 if quick else 24)
    found = {min(wave, key=lambda step: abs(run.conductivity(step) / target - 1)) for target in targets}
    return found | set(range(every // 2, heat.steps, every))


def _watched(
    heat: Heat, tuner: BanditTuner, steps: int, telling: Collection[int], path: Path
) -> tuple[Run, list[tuple[int, float, System]], dict[int, Tensor]]:
    """A run that is tuned, with what was learned written to a file half way.

    Returns:
        The run; step, conductivity and system of the telling steps; states by the number of steps before them.
    """
    run, kept, states = begin(heat), [], {}
    for step in range(steps):
        if step in telling:
            kappa = run.conductivity(step)
            kept.append((step, kappa, run.system(kappa)))
        advance(run, tuner, 1)
        if (step + 1) in (steps // 8, steps // 4, steps // 2, steps):
            states[step + 1] = run.u
        if step + 1 == steps // 2:
            tuner.state.save(path)
    return run, kept, states


def _resumed(heat: Heat, policy: Policy, whole: Run, states: Mapping[int, Tensor], steps: int, path: Path) -> bool:
    """Whether a tuner that reads the file goes on exactly as the one that wrote it did."""
    half = steps // 2
    run = Run(heat, states[half], whole.counts[:half], whole.chosen[:half])
    advance(run, tune(policy, TunerState.load(path)), steps - half)
    return run.chosen == whole.chosen and run.counts == whole.counts and bool((run.u == whole.u).all())


@dataclass(frozen=True)
class Truth:
    """Iterations of all relaxations on some of the systems of a run.

    Args:
        steps, conductivities: of the systems.
        relaxations: `(arms,)`.
        counts: `(systems, arms)`.
    """

    steps: Tensor
    conductivities: Tensor
    relaxations: Tensor
    counts: Tensor

    @staticmethod
    def measured(kept: Sequence[tuple[int, float, System]], arms: int) -> Truth:
        """By solving them."""
        relaxations = numpy.linspace(1.0, 1.95, arms)
        solvers = [ConjugateGradient(SSOR(float(omega)), rtol=1e-8) for omega in relaxations]
        counts = [[int(solver.solve(*system).statistics["iterations"]) for solver in solvers] for _, _, system in kept]
        return Truth(
            torch.tensor([step for step, _, _ in kept]),
            torch.tensor([kappa for _, kappa, _ in kept], dtype=torch.float64),
            torch.from_numpy(relaxations),
            torch.tensor(counts),
        )

    def best(self, steps: int) -> Tensor:
        """Iterations of the best relaxation for every step, `(steps,)`, between those that were measured."""
        least = self.counts.amin(1).double().numpy()
        return torch.from_numpy(numpy.interp(numpy.arange(steps), self.steps.numpy(), least))

    def best_fixed(self, steps: int) -> float:
        """The relaxation that takes the fewest iterations if it is kept."""
        every, places = numpy.arange(steps), self.steps.numpy()
        totals = [numpy.interp(every, places, counts).sum() for counts in self.counts.T.double().numpy()]
        return float(self.relaxations[int(numpy.argmin(totals))])


def _choices(run: Run, truth: Truth, since: int) -> Figure:
    """The relaxations that were chosen, over what each would have cost."""
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.5)
        order = truth.conductivities.argsort()
        order = order[truth.conductivities[order] >= _LEAST_SHOWN]
        places, counts = truth.conductivities[order], truth.counts[order]
        middles = (places[1:] * places[:-1]).sqrt()
        edges = torch.cat([places[:1], middles, places[-1:]])
        width = float(truth.relaxations[1] - truth.relaxations[0])
        sides = torch.cat([truth.relaxations - width / 2, truth.relaxations[-1:] + width / 2])
        norm = LogNorm(max(1, int(counts.min())), int(counts.max()))
        image = axes.pcolormesh(edges, sides, counts.T, norm=norm, cmap="viridis_r", rasterized=True)
        conductivities = torch.tensor([run.conductivity(step) for step in range(since, len(run.counts))])
        axes.plot(conductivities, run.chosen[since:], "o", color="white", markeredgecolor="black", **_DOT)
        axes.plot(places, truth.relaxations[counts.argmin(1)], "_", color="#d55e00", markersize=7, label="best")
        axes.set_xscale("log")
        axes.set(xlim=(float(edges[0]), max(float(edges[-1]), 10.0)), ylim=(float(sides[0]), float(sides[-1])))
        axes.set(xlabel="kappa, the context", ylabel="relaxation")
        axes.set_xticks((0.1, 1.0, 10.0), ("0.1", "1", "10"))
        bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=26, ticks=(3, 5, 10, 20, 40))
        bar.ax.yaxis.set_major_formatter(ScalarFormatter())
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.outline.set_linewidth(0.4)
        bar.set_label("iterations")
        return figure


def _course(run: Run) -> Figure:
    """The relaxations that were chosen, over the steps."""
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.5)
        steps = range(len(run.counts))
        beside = axes.twinx()
        beside.fill_between(steps, [run.conductivity(step) for step in steps], color=figures.SOLID, linewidth=0)
        beside.set(ylim=(0, 20), yticks=(0, 5, 10))
        beside.set_ylabel("kappa", loc="bottom")
        beside.spines["top"].set_visible(False)
        axes.set_zorder(beside.get_zorder() + 1)
        axes.plot(steps, run.chosen, "o", color=figures.LINES[0], markersize=2.2, markeredgewidth=0)
        axes.set(xlabel="step", ylabel="relaxation", xlim=(0, len(run.counts)))
        figures.tidy(axes)
        return figure


def _sums(runs: Mapping[str, Run], best: Tensor, fixed: Collection[str]) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.4)
        height, below = max(runs[name].total for name in fixed) / 26, 0.0
        for name in sorted(fixed, key=lambda name: runs[name].total):
            total = list(accumulate(runs[name].counts))
            axes.plot(total, color="#8f949b", linewidth=1.0)
            below = max(float(total[-1]), below + height)  # numbers do not touch
            place = (1.01 * len(total), below)
            axes.annotate(name.split()[-1], place, va="center", fontsize=7.5, color=figures.SOFT)
        for name, colour in _COLOURS.items():
            axes.plot(list(accumulate(runs[name].counts)), color=colour, label=name)
        axes.plot(best.cumsum(0), color=figures.INK, linestyle=DASHES, linewidth=1.0, label=BEST)
        axes.plot([], [], color="#8f949b", linewidth=1.0, label="fixed relaxations")
        axes.set(xlabel="step", ylabel="iterations so far", xlim=(0, 1.09 * len(best)), ylim=(0, None))
        axes.legend(loc="upper left", handlelength=1.6, fontsize=7.5)
        figures.tidy(axes)
        return figure


def _excess(runs: Mapping[str, Run], best: Tensor, least: str) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.4)
        for name, colour in ({least: figures.SOFT} | _COLOURS).items():
            more = torch.tensor(runs[name].counts) - best
            axes.plot(more.cumsum(0), color=colour, label=name)
        axes.axhline(0.0, color=figures.INK, linestyle=DASHES, linewidth=1.0)
        axes.set(xlabel="step", ylabel=f"iterations more than {BEST.split(' of ')[0]}", xlim=(0, len(best)))
        axes.legend(loc="upper left", handlelength=1.6, fontsize=7.5)
        figures.tidy(axes)
        return figure


SECTION = Section("tuned-solvers", "A relaxation that is learned while solving", write)
