"""The choice among preconditioners by the seconds that they take, while the systems drift, or change their kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.linear import (
    SSOR,
    Chebyshev,
    ConjugateGradient,
    IncompleteCholesky,
    Jacobi,
    LearnedMultigrid,
    Multigrid,
)
from sciml.solvers.linear.base import LinearSolver
from sciml.solvers.tuning import BanditTuner, ThompsonSampling

from ...boundary import Dirichlet
from ...discretization import discretize
from ...equations import Equation
from ...grid import Grid
from ...linear_operator import LinearOperator
from ..bench import Bench
from ..row import Row

TUNED, BEST = "tuner", "best preconditioner of each system"
DRIFTING, CHANGING = "diffusion that drifts", "diffusion that drifts, in long steps after short ones"

_RTOL = 1e-8
_HOPELESS, _SELDOM = 3.0, 10  # what takes so many times the least is measured on every tenth system only
_EQUATION = Equation("u - div(a*grad(u)) = f")


def preconditioners() -> dict[str, Any]:
    """Those to choose from, by the name of their rows. A new one is added here."""
    return {
        "Jacobi": Jacobi(),
        "SSOR": SSOR(1.5),
        "IC(0)": IncompleteCholesky(),
        "Chebyshev": Chebyshev(),
        "multigrid": Multigrid(),
        "learned multigrid": LearnedMultigrid.pretrained("poisson-2d"),
    }


@dataclass(frozen=True)
class Choice:
    """Implicit steps of a diffusion, u - div(a grad u) = f, a the exponential of a random field that becomes another.

    Args:
        kind: `DRIFTING`, or `CHANGING`, where the first half of the systems has steps ten thousand times as short.
        cells: along an axis.
        systems: number of systems.
        seeds: of the tuners, each of which solves all systems.
    """

    kind: str = DRIFTING
    cells: int = 192
    systems: int = 500
    seeds: Sequence[int] = (0, 1, 2, 3, 4)

    @property
    def name(self) -> str:
        """Of the case."""
        return f"{self.kind}, {self.systems} systems of {self.cells}x{self.cells}"

    def system(self, number: int, fields: Sequence[Tensor]) -> tuple[LinearOperator, Tensor]:
        """A and b of one of them, from three smooth random fields."""
        share = number / self.systems
        angle = 0.5 * math.pi * share
        length = 1e-4 if self.kind == CHANGING and share < 0.5 else 1.0
        a = length * torch.exp(math.cos(angle) * fields[0] + math.sin(angle) * fields[1])
        grid = Grid((self.cells, self.cells), boundary=Dirichlet(0.0))
        system = discretize(_EQUATION, grid, {"a": a, "f": fields[2].roll(number, 0)})
        return system.operator, system.right_side

    def fields(self) -> list[Tensor]:
        """Sums of a few waves, with a standard deviation of 1."""
        generator = torch.Generator().manual_seed(0)
        places = (torch.arange(self.cells, dtype=torch.float64) + 0.5) / self.cells
        found = []
        for _ in range(3):
            field = torch.zeros(self.cells, self.cells, dtype=torch.float64)
            for p in range(1, 5):
                for q in range(1, 5):
                    weight = torch.randn((), generator=generator, dtype=torch.float64) / (p * p + q * q)
                    field += weight * torch.cos(p * math.pi * places)[:, None] * torch.cos(q * math.pi * places)
            found.append(field / field.std())
        return found


def tuner(seed: int) -> BanditTuner:
    """What the suite measures: arms are cut off at one and a half times what the best one takes."""
    return BanditTuner(
        ConjugateGradient(rtol=_RTOL),
        {"preconditioner": list(preconditioners().values())},
        policy=ThompsonSampling(),
        cost="seconds",
        fallback="best",
        patience=1.5,
        seed=seed,
    )


def measure_choice(choice: Choice, bench: Bench) -> list[Row]:
    """Every system by every method in turn, set-up included, so that whatever slows the machine slows them alike.

    A method that is kept to and takes more than three times the least solves every tenth system; between them the
    latest of its times counts.
    """
    fixed = {name: ConjugateGradient(each, rtol=_RTOL) for name, each in preconditioners().items()}
    tuners = [tuner(seed) for seed in choice.seeds]
    seconds: dict[str, list[float]] = {name: [] for name in fixed}
    counts: dict[str, list[int]] = {name: [] for name in fixed}
    tuned: list[list[float]] = [[] for _ in tuners]
    fields = choice.fields()
    operator, b = choice.system(0, fields)
    for solver in fixed.values():
        solver.solve(operator, b)  # what is loaded or laid out at a first call belongs to no system
    for number in range(choice.systems):
        if number % 20 == 0:
            bench.say(f"{choice.name}: system {number + 1}")
        operator, b = choice.system(number, fields)
        least = min((taken[-1] for taken in seconds.values() if taken), default=math.inf)
        for name, solver in fixed.items():
            due = number % _SELDOM == 0 or seconds[name][-1] <= _HOPELESS * least
            found = _timed(solver, operator, b, bench) if due else (seconds[name][-1], counts[name][-1])
            seconds[name].append(found[0])
            counts[name].append(found[1])
        for place, each in enumerate(tuners):
            tuned[place].append(_timed(each, operator, b, bench)[0])
    totals = {name: sum(taken) for name, taken in seconds.items()}
    best = min(totals, key=totals.__getitem__)
    rows = [_row(choice, name, [totals[name]], totals[best], bench, iterations=sum(counts[name])) for name in fixed]
    every = sum(map(min, zip(*seconds.values(), strict=True)))
    rows.append(_row(choice, BEST, [every], totals[best], bench))
    pulls = [[int(count) for count in each.state.learned.pulls] for each in tuners]
    extra = {"pulls": {name: [row[arm] for row in pulls] for arm, name in enumerate(fixed)}}
    rows.append(_row(choice, TUNED, list(map(sum, tuned)), totals[best], bench, extra))
    return rows


@torch.no_grad()
def _timed(solver: LinearSolver, operator: LinearOperator, b: Tensor, bench: Bench) -> tuple[float, int]:
    start = bench.clock()
    solution = solver.solve(operator, b)
    return bench.clock() - start, int(solution.statistics["iterations"])


def _row(
    choice: Choice,
    method: str,
    totals: Sequence[float],
    best: float,
    bench: Bench,
    extra: dict[str, Any] | None = None,
    iterations: int | None = None,
) -> Row:
    over = mean(totals) / best
    return bench.row(
        choice.name,
        method,
        unknowns=choice.cells**2,
        solve_seconds=mean(totals),
        iterations=iterations,
        extra={
            "per_seed": list(totals),
            "over_best_fixed": over,
            "note": f"{over:.2f} x the best that keeps to one",
            **(extra or {}),
        },
    )
