"""The published experiment with the heat equation: CG with SSOR, a system a step, whose stiffness comes and goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean

import numpy
import torch
from torch import Tensor

from sciml.solvers.linear import SSOR, ConjugateGradient
from sciml.solvers.linear.base import LinearSolver
from sciml.solvers.tuning import BanditTuner

from ...stencil import StencilOperator
from ..bench import Bench
from ..row import Row
from .policies import ARMS, RANGE, fixed, policies

PLAIN, BEST = "CG", "best relaxation of each step, of 20"
FIXED = (1.0, 1.3, 1.5, 1.75, 1.95)
BINS = 6

_OFFSETS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
_TURN = 125  # steps in which the source goes round

Choose = Callable[[float], LinearSolver]


@dataclass(frozen=True)
class Heat:
    """u_t = kappa(t) laplacian(u) + f on the unit square, u = 0 around it, by Crank and Nicolson.

    kappa = max(0.1 sin 2 pi t, -10 sin 2 pi t); f and the start are bumps, f goes round a circle 8 times in a unit of
    time. The start of every solve is the solution before. The operators are written out, with (n - 1)^2 unknowns at
    distances 1 / n: a `Grid` has its unknowns in the middles of cells, half a cell from a wall.

    Source: Khodak, Chow, Balcan and Talwalkar, Learning to Relax, ICLR 2024, section 5.

    Args:
        intervals: n, along an axis.
        steps: of 0.001 units of time.
        seeds: of the policies.
        searched: whether the best relaxation of each step is searched for, which takes 20 solves.
    """

    intervals: int = 100
    steps: int = 5000
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    searched: bool = True

    @property
    def unknowns(self) -> int:
        """Of a step."""
        return (self.intervals - 1) ** 2

    @property
    def name(self) -> str:
        """Of the case."""
        return f"heat, n={self.unknowns}, {self.steps} steps"

    def conductivity(self, step: int) -> float:
        """kappa in the middle of a step."""
        wave = math.sin(2 * math.pi * (step + 0.5) * 1e-3)
        return max(0.1 * wave, -10.0 * wave)

    def operator(self, conductivity: float) -> StencilOperator:
        """1 - kappa dt / 2 laplacian."""
        weight = 0.5 * conductivity * 1e-3 * self.intervals**2
        values = [torch.full((1, 1), v, dtype=torch.float64) for v in (1 + 4 * weight, *[-weight] * 4)]
        space = (self.intervals - 1, self.intervals - 1)
        return StencilOperator(space, _OFFSETS, values, (False, False), symmetric=True)

    def bump(self, centre: tuple[float, float], radius: float) -> Tensor:
        """exp(1 - 1 / (1 - s^2)), s the distance from the centre in radii; 0 beyond."""
        places = torch.arange(1, self.intervals, dtype=torch.float64) / self.intervals
        square = ((places[:, None] - centre[0]) ** 2 + (places[None, :] - centre[1]) ** 2) / radius**2
        return torch.exp(1 - 1 / (1 - square.clamp(max=1.0)))

    def sources(self) -> list[Tensor]:
        """dt f in the middles of the steps of a round."""
        angles = [16 * math.pi * (step + 0.5) * 1e-3 for step in range(_TURN)]
        centres = [(0.5 + math.cos(angle) / 4, 0.5 + math.sin(angle) / 4) for angle in angles]
        return [1e-3 * 32 * self.bump(centre, 0.125) for centre in centres]


@cache
def _sources(heat: Heat) -> list[Tensor]:
    return heat.sources()


@torch.no_grad()
def simulate(heat: Heat, choose: Choose, others: Sequence[LinearSolver] = ()) -> tuple[list[int], Tensor]:
    """Iterations of every step, and the last state.

    Args:
        heat: the problem.
        choose: the solver of a step, of its conductivity.
        others: solve every step too, without effect; the least of their iterations counts.
    """
    sources = _sources(heat)
    u = heat.bump((0.5, 0.5), 0.25)
    counts = []
    for step in range(heat.steps):
        conductivity = heat.conductivity(step)
        operator = heat.operator(conductivity)
        b = 2 * u - operator.apply(u) + sources[step % _TURN]
        solution = choose(conductivity).solve(operator, b, u)
        count = int(solution.statistics["iterations"])
        for other in others:
            found = replace(other, max_iterations=max(1, count)).solve(operator, b, u, throw=False)
            if bool(found.converged):
                count = min(count, int(found.statistics["iterations"]))
        counts.append(count)
        u = solution.value
    return counts, u


def measure_heat(heat: Heat, bench: Bench) -> list[Row]:
    """CG, CG with SSOR of fixed relaxations, of relaxations chosen by the policies, and of the best for each step."""
    rows = [_row(heat, PLAIN, [lambda _: ConjugateGradient(rtol=1e-8)], bench)]
    for omega in FIXED:
        rows.append(_row(heat, fixed(omega), [_always(omega)], bench))
    conductivities = [heat.conductivity(step) for step in range(heat.steps)]
    interval = min(conductivities), max(conductivities)
    for method, policy in policies(interval, BINS).items():
        tuners = [
            BanditTuner(
                ConjugateGradient(SSOR(), rtol=1e-8), {"preconditioner.relaxation": RANGE}, policy=policy, seed=seed
            )
            for seed in heat.seeds
        ]
        rows.append(_row(heat, method, [tuner.with_context for tuner in tuners], bench))
    if heat.searched:
        grid = [ConjugateGradient(SSOR(float(omega)), rtol=1e-8) for omega in numpy.linspace(*RANGE, ARMS)]
        middle = grid.pop(ARMS // 2)
        rows.append(_row(heat, BEST, [lambda _: middle], bench, grid))
    return rows


def _always(omega: float) -> Choose:
    solver = ConjugateGradient(SSOR(omega), rtol=1e-8)
    return lambda _: solver


def _row(heat: Heat, method: str, runs: Sequence[Choose], bench: Bench, others: Sequence[LinearSolver] = ()) -> Row:
    """Of one run each of several seeds."""
    totals, seconds, last = [], [], []
    for number, choose in enumerate(runs):
        bench.say(f"{heat.name}: {method}, run {number + 1} of {len(runs)}")
        start = bench.clock()
        counts, state = simulate(heat, choose, others)
        seconds.append(bench.clock() - start)
        totals.append(sum(counts))
        last.append(float(state.norm()))
    return bench.row(
        heat.name,
        method,
        unknowns=heat.unknowns,
        solve_seconds=min(seconds),
        iterations=round(mean(totals)),
        extra={
            "total_iterations": mean(totals),
            "per_seed": totals,
            "seconds_per_step": mean(seconds) / heat.steps,
            "norm_of_the_last_state": mean(last),
        },
    )
