"""What it costs to choose, beside the solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch

from sciml.solvers.linear import SOR
from sciml.solvers.tuning import BanditTuner, Policy

from ..bench import Bench, version_of
from ..row import Row
from ..timing import Contender, Outcome
from .policies import ARMS, RANGE, policies
from .relaxation import BINS, HIGH, INTERVAL, shifted

DECISIONS, ROUNDS = "decisions of a policy, 20 arms", "rounds of a tuner, n=100, 20 arms of equal cost"
PLAIN = "no choice"

_OMEGA = 1.7


@dataclass(frozen=True)
class Decisions:
    """How many are made for one time.

    Args:
        decisions: of a policy by itself.
        rounds: of a tuner, with their solves.
    """

    decisions: int = 2000
    rounds: int = 400


def measure_decisions(settings: Decisions, bench: Bench) -> list[Row]:
    """Choosing and learning, of costs that were found before."""
    experiment = replace(HIGH, rounds=settings.decisions)
    shifts, right = experiment.systems(0)
    operator = shifted(shifts)
    grid = numpy.linspace(*RANGE, ARMS).tolist()
    solvers = [SOR(omega, rtol=1e-8, max_iterations=10_000) for omega in grid]
    counts = [solver.solve(operator, right).statistics["iterations"] for solver in solvers]
    costs, contexts = torch.stack(counts, 1).tolist(), shifts.tolist()

    def decide(policy: Policy) -> Callable[[Any], float]:
        def run(_: Any) -> float:
            state, generator, total = policy.begin(ARMS), numpy.random.default_rng(0), 0.0
            for context, cost in zip(contexts, costs, strict=True):
                choice = policy.choose(state, context, generator)
                policy.update(state, choice, cost[choice.arm] - 1.0, context)
                total += cost[choice.arm]
            return total

        return run

    contenders = [
        Contender(method, "sciml", version_of("sciml"), decide(policy), lambda _: Outcome())
        for method, policy in policies(INTERVAL, BINS).items()
    ]
    rows = bench.compare(DECISIONS, contenders, unknowns=HIGH.unknowns)
    return [_per(row, "seconds_per_decision", settings.decisions) for row in rows]


def measure_rounds(settings: Decisions, bench: Bench) -> list[Row]:
    """Solves by a tuner, and by the same solver itself; the difference is what the tuner costs."""
    experiment = replace(HIGH, rounds=settings.rounds)
    shifts, right = experiment.systems(0)
    solver = SOR(_OMEGA, rtol=1e-8)
    # Arms that differ in nothing else than their number.
    values = numpy.linspace(_OMEGA, _OMEGA + 1e-9, ARMS).tolist()

    @torch.no_grad()
    def plain(_: Any) -> None:
        for shift, b in zip(shifts, right, strict=True):
            solver.solve(shifted(shift), b)

    def tuned(policy: Policy) -> Callable[[Any], None]:
        @torch.no_grad()
        def run(_: Any) -> None:
            tuner = BanditTuner(solver, {"relaxation": values}, policy=policy)
            for shift, b in zip(shifts, right, strict=True):
                tuner.with_context(float(shift)).solve(shifted(shift), b)

        return run

    runs = {PLAIN: plain, **{method: tuned(policy) for method, policy in policies(INTERVAL, BINS).items()}}
    contenders = [
        Contender(method, "sciml", version_of("sciml"), run, lambda _: Outcome()) for method, run in runs.items()
    ]
    rows = bench.compare(ROUNDS, contenders, unknowns=HIGH.unknowns)
    rows = [_per(row, "seconds_per_round", settings.rounds) for row in rows]
    alone = rows[0].extra.get("seconds_per_round")
    if alone is None:
        return rows
    return [
        replace(row, extra={**row.extra, "seconds_of_the_tuner": row.extra["seconds_per_round"] - alone})
        if "seconds_per_round" in row.extra
        else row
        for row in rows
    ]


def _per(row: Row, name: str, count: int) -> Row:
    if row.solve_seconds is None:
        return row
    each = row.solve_seconds / count
    return replace(row, extra={**row.extra, name: each, "note": f"{1e6 * each:.0f} us each"})
