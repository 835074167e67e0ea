"""The published experiment with SOR: systems that differ in a random shift, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy
import torch
from torch import Tensor

from sciml.solvers.linear import SOR
from sciml.solvers.tuning import BanditTuner, Policy

from ...stencil import StencilOperator
from ..bench import Bench
from ..row import Row
from .policies import ARMS, RANGE, counted, fixed, policies

UNIFORM, BEST = "uniform over the grid", "best relaxation of each system"
FIXED = (1.0, 1.2, 1.4, 1.6, 1.8)
INTERVAL = (-0.15, 0.65)
BINS = 5

_POINTS = 10
_SOLVER = SOR(rtol=1e-8, max_iterations=10_000)
_OFFSETS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Experiment:
    """Systems (A + c) x = b, A the 5-point Laplacian on 10 x 10 points without the factor 1 / h^2.

    c = -0.15 + 0.6 z with z from a beta distribution; b normal, given that |b| <= 10, the root of the number of
    unknowns. The operator is written out: a `Grid` has its unknowns in the middles of cells, half a cell from a wall.

    Source: Khodak, Chow, Balcan and Talwalkar, Learning to Relax, ICLR 2024, section 5, without its matrix of
    40 trials.

    Args:
        law: name of the distribution of z.
        beta: its parameters.
        rounds: number of systems.
        seeds: of the systems and of the policies.
    """

    law: str = "high"
    beta: tuple[float, float] = (0.5, 1.5)
    rounds: int = 5000
    seeds: Sequence[int] = (0, 1, 2, 3, 4)

    @property
    def unknowns(self) -> int:
        """Of a system."""
        return _POINTS**2

    @property
    def name(self) -> str:
        """Of the case."""
        return f"SOR, n=100, shifts of {self.law} variance, {self.rounds} solves"

    def systems(self, seed: int) -> tuple[Tensor, Tensor]:
        """Shifts `(rounds,)` and right sides `(rounds, 10, 10)`."""
        generator = numpy.random.default_rng(seed)
        shifts = -0.15 + 0.6 * generator.beta(*self.beta, self.rounds)
        kept = numpy.empty((0, self.unknowns))
        while len(kept) < self.rounds:
            drawn = generator.standard_normal((self.rounds, self.unknowns))
            kept = numpy.concatenate([kept, drawn[(drawn**2).sum(1) <= self.unknowns]])
        return torch.from_numpy(shifts), torch.from_numpy(kept[: self.rounds]).reshape(-1, _POINTS, _POINTS)


HIGH = Experiment()
LOW = Experiment("low", (2.0, 6.0))


def shifted(shifts: Tensor) -> StencilOperator:
    """The operators of shifts, of any batch shape."""
    one = torch.ones((1, 1), dtype=shifts.dtype, device=shifts.device)
    diagonal = 4.0 + shifts[..., None, None]
    return StencilOperator(
        (_POINTS, _POINTS), _OFFSETS, [diagonal, -one, -one, -one, -one], (False, False), symmetric=True
    )


def best_relaxation(shift: float) -> float:
    """Of SOR: 1 + (beta / (1 + sqrt(1 - beta^2)))^2, beta the contraction of Jacobi's iteration (Young, 1971)."""
    contraction = 4.0 * math.cos(math.pi / (_POINTS + 1)) / (4.0 + shift)
    return 1.0 + (contraction / (1.0 + math.sqrt(1.0 - contraction**2))) ** 2


@torch.no_grad()
def measure_relaxation(experiment: Experiment, bench: Bench) -> list[Row]:
    """Fixed relaxations, all systems at once; the policies, one system after the other; the best for each system."""
    systems = {seed: experiment.systems(seed) for seed in experiment.seeds}
    rows = [_fixed_row(experiment, systems, [omega], fixed(omega), bench) for omega in FIXED]
    grid = [float(omega) for omega in numpy.linspace(*RANGE, ARMS)]
    rows.append(_fixed_row(experiment, systems, grid, UNIFORM, bench))
    for method, policy in policies(INTERVAL, BINS).items():
        rows.append(_tuned_row(experiment, systems, method, policy, bench))
    counts, seconds = [], []
    for seed, (shifts, right) in systems.items():
        bench.say(f"{experiment.name}: {BEST}, seed {seed}")
        start = bench.clock()
        solvers = [SOR(best_relaxation(shift), rtol=1e-8) for shift in shifts.tolist()]
        found = [solver.solve(shifted(c), b) for solver, c, b in zip(solvers, shifts, right, strict=True)]
        seconds.append(bench.clock() - start)
        counts.append([int(solution.statistics["iterations"]) for solution in found])
    rows.append(_row(experiment, BEST, counts, seconds, bench))
    return rows


def _fixed_row(
    experiment: Experiment,
    systems: dict[int, tuple[Tensor, Tensor]],
    omegas: Sequence[float],
    method: str,
    bench: Bench,
) -> Row:
    """The mean over some relaxations, each for all systems at once."""
    counts, seconds = [], []
    for seed, (shifts, right) in systems.items():
        bench.say(f"{experiment.name}: {method}, seed {seed}")
        operator = shifted(shifts)
        start = bench.clock()
        found = [SOR(omega, rtol=1e-8, max_iterations=10_000).solve(operator, right) for omega in omegas]
        seconds.append((bench.clock() - start) / len(omegas))
        iterations = torch.stack([solution.statistics["iterations"] for solution in found])
        counts.append(iterations.double().mean(0).tolist())
    return _row(experiment, method, counts, seconds, bench, abreast=True)


def _tuned_row(
    experiment: Experiment, systems: dict[int, tuple[Tensor, Tensor]], method: str, policy: Policy, bench: Bench
) -> Row:
    counts, seconds = [], []
    for seed, (shifts, right) in systems.items():
        bench.say(f"{experiment.name}: {method}, seed {seed}")
        tuner = BanditTuner(_SOLVER, {"relaxation": RANGE}, policy=policy, seed=seed)
        iterations = []
        start = bench.clock()
        for shift, b in zip(shifts, right, strict=True):
            solution = tuner.with_context(float(shift)).solve(shifted(shift), b)
            iterations.append(int(solution.statistics["iterations"]))
        seconds.append(bench.clock() - start)
        counts.append(iterations)
    return _row(experiment, method, counts, seconds, bench)


def _row(
    experiment: Experiment,
    method: str,
    counts: Sequence[Sequence[float]],
    seconds: Sequence[float],
    bench: Bench,
    *,
    abreast: bool = False,
) -> Row:
    """Of the iterations of every solve, seed by seed, and the seconds of a seed."""
    per_seed = [mean(count) for count in counts]
    latest = min(1000, experiment.rounds)
    extra = counted(
        mean(per_seed),
        per_seed,
        iterations_per_solve_of_the_latest=mean(mean(count[-latest:]) for count in counts),
        latest=latest,
        seconds_per_solve=mean(seconds) / experiment.rounds,
        abreast=abreast,
    )
    return bench.row(
        experiment.name,
        method,
        unknowns=experiment.unknowns,
        solve_seconds=min(seconds),
        iterations=round(mean(per_seed)),
        extra=dict(extra),
    )
