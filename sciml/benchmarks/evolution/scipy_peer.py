"""scipy's solve_ivp, one trajectory after the other."""

from __future__ import annotations

from typing import Any

import numpy

from ..bench import version_of
from ..timing import Contender, Outcome
from .problems import Array
from .systems import LORENZ_PARAMETERS, SystemProblem

RK45 = "solve_ivp, RK45"


def lorenz(problem: SystemProblem, rows: int) -> Contender:
    """The first rows of Lorenz' system, with its rate in plain numbers, which is the quickest there."""
    from scipy.integrate import solve_ivp

    sigma, rho, beta = LORENZ_PARAMETERS.values()
    starts = problem.initial[:rows].cpu().numpy()
    span = problem.times[0], problem.times[-1]
    tolerances = {"rtol": problem.tolerance, "atol": problem.tolerance}

    def rate(t: float, y: Array) -> tuple[float, float, float]:
        del t
        first, second, third = y.tolist()
        return sigma * (second - first), first * (rho - third) - second, first * second - beta * third

    def solve(_: Any) -> list[Any]:
        return [solve_ivp(rate, span, start, method="RK45", t_eval=problem.times, **tolerances) for start in starts]

    def finish(solved: list[Any]) -> Outcome:
        values = numpy.stack([one.y.T for one in solved])
        evaluations = max(int(one.nfev) for one in solved)
        return Outcome(values, None, f"{rows} trajectories", {"evaluations": evaluations, "trajectories": rows})

    return Contender(RK45, "scipy", version_of("scipy"), solve, finish)
