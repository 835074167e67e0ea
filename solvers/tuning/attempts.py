"""One arm's try at a linear system: set up when first needed, cut off in time, its better rows kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator
from sciml.status import Status

from ..linear.base import Iteration, LinearSolver, Prepared

_TINY = 1e-300


class Arms:
    """Solvers for one operator, each set up when it is first asked for.

    Args:
        operator: without gradients.
        solvers: by number.
    """

    def __init__(self, operator: LinearOperator, solvers: Sequence[LinearSolver]) -> None:
        self.operator = operator
        self.solvers = solvers
        self._prepared: dict[int, Prepared] = {}

    def prepared(self, number: int) -> Prepared:
        """One of the solvers, ready.

        Raises:
            InputError: if it does not suit the operator.
        """
        if number not in self._prepared:
            solver = self.solvers[number]
            with torch.inference_mode(False), torch.no_grad():
                self._prepared[number] = Prepared(solver, self.operator, solver.setup(self.operator))
        return self._prepared[number]


@dataclass
class Attempt:
    """How a try ended.

    Attributes:
        converged: whether all rows did.
        iterations: mean over the rows.
        seconds: with the set-up, divided by the number of rows.
        seconds_setup: of these, but for the whole batch.
        share: of the way to the tolerance that was still to go at the start, from 1 for the start of the solve to 0;
            the way goes by the logarithm of the residual.
        progress: how much of its steps to the tolerance it did, by its rate of late, in [0, 1].
        cut_off: whether it ran into its limit.
        error: by which it was refused or broke off.
        prepared: what tried.
    """

    converged: bool = False
    iterations: float = 0.0
    seconds: float = 0.0
    seconds_setup: float = 0.0
    share: float = 1.0
    progress: float = 0.0
    cut_off: bool = False
    error: Exception | None = None
    prepared: Prepared | None = None


def attempt(task: Iteration, arms: Arms, number: int, limit: int, deadline: float) -> Attempt:
    """Advance the rows that run by one of the solvers, and count what that took.

    Rows that did not come nearer to their tolerance are put back to where they were.

    Args:
        task: `r` must be b - A x; it is again afterwards, for rows that did not converge.
        arms: the solvers.
        number: of the one to try.
        limit: on its iterations.
        deadline: of `time.perf_counter()`.
    """
    rows, start = task.rows, time.perf_counter()
    before, x0 = rows.norm(task.r), task.x.clone()
    running = task.active().clone()
    part = Iteration(
        task.operator,
        rows,
        task.b,
        task.x,
        task.r,
        task.tolerance,
        limit,
        torch.zeros_like(task.iterations),
        task.codes.clone(),
        task.history,
        deadline,
    )
    distance, begun = _Distance(task.tolerance), len(task.history) - 1
    found = Attempt(share=min(distance(before) / max(distance(task.history[0]), _TINY), 1.0))
    norms = before
    try:
        prepared = arms.prepared(number)
        found.seconds_setup = time.perf_counter() - start
        if part.expired:
            part.codes = torch.where(running, int(Status.MAX_ITERATIONS), part.codes)
        else:
            norms = prepared.advance(part, before)
        found.prepared = prepared
    except (InputError, RuntimeError, MemoryError) as error:
        found.error = error
        part.codes = torch.where(running, int(Status.BREAKDOWN), part.codes)
        norms = torch.full_like(before, inf)
    found.seconds = (time.perf_counter() - start) / rows.count
    task.seconds_setup += found.seconds_setup
    task.iterations += part.iterations
    found.iterations = float(part.iterations.double().mean())
    task.x, task.codes = part.x, part.codes
    failed = running & (part.codes != Status.CONVERGED)
    found.converged = not bool(failed.any())
    if not found.converged:
        worse = failed & ~(norms < before)
        task.x = torch.where(rows.spread(worse, x0).bool(), x0, task.x)
        task.r = task.operator.residual(task.b, task.x, out=task.r)
        if found.error is None:
            found.progress = _progress(task.history[begun:], distance)
        spent = bool((failed & (part.codes == Status.MAX_ITERATIONS)).any())
        found.cut_off = found.error is None and spent
    return found


class _Distance:
    """Residual norms, of batch shape -> how far they are from the tolerance: logarithms, summed over the rows."""

    def __init__(self, tolerance: Tensor) -> None:
        self.tolerance = tolerance.clamp_min(torch.finfo(torch.float64).tiny)

    def __call__(self, norms: Tensor) -> float:
        return float((norms / self.tolerance).clamp_min(1.0).log().sum())


def _progress(history: Sequence[Tensor], distance: _Distance) -> float:
    """The share of the steps to the tolerance that were made, if it goes on as in the latter half of them."""
    steps = len(history) - 1
    latter = steps - steps // 2
    if latter == 0:
        return 0.0
    left, before = distance(history[-1]), distance(history[-1 - latter])
    fall = (before - left) / latter
    return steps / (steps + left / fall) if fall > 0.0 and isfinite(left) else 0.0
