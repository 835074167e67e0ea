"""torchode: every row of the batch with steps of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..bench import version_of
from ..timing import Contender, Outcome
from .systems import SystemProblem, gradient_of

DOPRI5 = "Dopri5"
TSIT5 = "Tsit5"


def _solver(problem: SystemProblem, method: str) -> Any:
    import torchode

    term = torchode.ODETerm(problem.rate)
    step = getattr(torchode, method)(term=term)
    # Its own default, of solve_ivp.
    controller = torchode.PIDController(
        atol=problem.tolerance, rtol=problem.tolerance, pcoeff=0.2, icoeff=0.5, dcoeff=0.0, term=term
    )
    return torchode.AutoDiffAdjoint(step, controller, backprop_through_step_size_control=False).to(
        problem.initial.device
    )


def _integrate(problem: SystemProblem, solver: Any, initial: Tensor) -> Any:
    import torchode

    times = torch.tensor(problem.times, dtype=torch.float64, device=initial.device)
    rows = initial.shape[0]
    start, end = (t.expand(rows) for t in (times[0], times[-1]))
    at = times.expand(rows, -1) if len(times) > 2 else None  # without it, torchode makes only the end
    return solver.solve(torchode.InitialValueProblem(y0=initial, t_start=start, t_end=end, t_eval=at))


def _counts(solution: Any) -> tuple[int, dict[str, Any]]:
    return int(solution.stats["n_steps"].max()), {"evaluations": int(solution.stats["n_f_evals"].max())}


def forward(problem: SystemProblem, method: str) -> Contender:
    """All times without gradients; the outcome is `(batch, times, unknowns)`, or the end alone if no more is asked."""

    @torch.no_grad()
    def solve(solver: Any) -> Any:
        return _integrate(problem, solver, problem.initial)

    def finish(solution: Any) -> Outcome:
        steps, extra = _counts(solution)
        return Outcome(solution.ys.cpu().numpy(), steps, extra=extra)

    return _contender(problem, method, solve, finish)


def gradient(problem: SystemProblem, method: str) -> Contender:
    """Forward and backward, step sizes frozen; the outcome is the gradient."""
    counted: list[tuple[int, dict[str, Any]]] = []

    def solve(solver: Any) -> Tensor:
        def integrate(y: Tensor) -> Tensor:
            solution = _integrate(problem, solver, y)
            counted[:] = [_counts(solution)]
            final: Tensor = solution.ys[:, -1]
            return final

        return gradient_of(problem, integrate)

    def finish(found: Tensor) -> Outcome:
        steps, extra = counted[0]
        return Outcome(found.cpu().numpy(), steps, extra=extra)

    return _contender(problem, method, solve, finish)


def _contender(problem: SystemProblem, method: str, solve: Any, finish: Any) -> Contender:
    device = problem.initial.device.type
    version = version_of("torchode")
    return Contender(
        method, "torchode", version, solve, finish, prepare=lambda: _solver(problem, method), device=device
    )
