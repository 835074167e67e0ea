"""One arm's try at a linear system: set up when first needed, cut off in time, its better rows kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

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

    Attributes:
        latest: number of the one that tried last.
    """

    def __init__(self, operator: LinearOperator, solvers: Sequence[LinearSolver]) -> None:
        self.operator = operator
        self.solvers = solvers
        self.latest = 0
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
        share_left: of the way from the start of the solve to the tolerance, by the logarithm of the residual, what is
            still to go.
        progress: how much of its steps to the tolerance it did, by its rate of late, in [0, 1].
        cut_off: whether it ran into its limit.
        error: by which it was refused or broke off.
        prepared: what tried.
    """

    converged: bool = False
    iterations: float = 0.0
    seconds: float = 0.0
    seconds_setup: float = 0.0
    share_left: float = 1.0
    progress: float = 0.0
    cut_off: bool = False
    error: Exception | None = None
    prepared: Prepared | None = None

    def continued(self, further: Attempt) -> Attempt:
        """This try and another by the same solver, as one."""
        return replace(
            further,
            iterations=self.iterations + further.iterations,
            seconds=self.seconds + further.seconds,
            seconds_setup=self.seconds_setup,
        )


def attempt(task: Iteration, arms: Arms, number: int, limit: int, deadline: float) -> Attempt:
    """Advance the rows that run by one of the solvers, and count what that took.

    Rows that it takes for converged are taken for that; whoever called the tuner computes their residual afresh. Those
    that did not come nearer to their tolerance are put back to where they were.

    Args:
        task: `r` must be b - A x; it is again afterwards, if a row did not converge.
        arms: the solvers.
        number: of the one to try.
        limit: on its iterations.
        deadline: of `time.perf_counter()`.
    """
    rows, start = task.rows, time.perf_counter()
    before, x0, running, begun = task.history[-1], task.x.clone(), task.active(), len(task.history) - 1
    counted = torch.zeros_like(task.iterations)
    fields = task.operator, rows, task.b, task.x, task.r, task.tolerance
    part = Iteration(*fields, limit, counted, task.codes, task.history, deadline)
    found = Attempt()
    arms.latest = number
    try:
        prepared = found.prepared = arms.prepared(number)
        found.seconds_setup = time.perf_counter() - start
        if not part.expired:
            prepared.solver.iterate(part, prepared.state)
    except (InputError, RuntimeError, MemoryError) as error:
        found.error = error
    found.converged = found.error is None and not bool((running & (part.codes != Status.CONVERGED)).any())
    found.seconds = (time.perf_counter() - start) / rows.count
    found.iterations = float(part.iterations.double().mean())
    task.seconds_setup += found.seconds_setup
    task.iterations += part.iterations
    task.x, task.codes = part.x, part.codes
    if not found.converged:
        _put_back(task, found, before, x0, running, begun)
    return found


def _put_back(task: Iteration, found: Attempt, before: Tensor, x0: Tensor, running: Tensor, begun: int) -> None:
    """See which rows failed, and keep only what came nearer to the solution.

    Args:
        task: after the try.
        found: of the try, completed here.
        before: residual norms at its beginning.
        x0: iterate then.
        running: the rows that ran.
        begun: place of `before` in the history.
    """
    rows, distance = task.rows, _Distance(task.tolerance)
    failed = running & (task.codes != Status.CONVERGED)
    left_over = task.codes == Iteration.RUNNING
    found.cut_off = found.error is None and bool(left_over.any())
    task.codes = torch.where(
        failed & left_over if found.error is None else failed,
        int(Status.MAX_ITERATIONS if found.error is None else Status.BREAKDOWN),
        task.codes,
    )
    if task.operator.null_space is not None:
        rows.project_out(task.x, task.operator.null_space)
    task.r = task.operator.residual(task.b, task.x, out=task.r)
    norms = rows.norm(task.r)
    worse = running & (~(norms < before) | (found.error is not None))
    if bool(worse.any()):
        task.x = torch.where(rows.spread(worse, x0).bool(), x0, task.x)
        task.r = task.operator.residual(task.b, task.x, out=task.r)
        norms = torch.where(worse, before, norms)
    met = running & (norms <= task.tolerance)
    task.codes = torch.where(met, int(Status.CONVERGED), task.codes)
    found.converged = found.error is None and not bool((failed & ~met).any())
    found.progress = _progress(task.history[begun:], distance)
    found.share_left = min(distance(norms) / max(distance(task.history[0]), _TINY), 1.0)
    task.history.append(norms)


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
