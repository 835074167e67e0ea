"""torchdiffeq: dopri5 with one step size for the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..bench import version_of
from ..timing import Contender, Outcome
from .systems import SystemProblem, gradient_of

DOPRI5 = "dopri5"


class _Counting(nn.Module):
    """Counts what the solver does; only outside of the timing."""

    def __init__(self, rate: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.rate = rate
        self.evaluations = self.steps = 0

    def forward(self, t: Any, y: Tensor) -> Tensor:
        self.evaluations += 1
        return self.rate(t, y)

    def callback_step(self, t: Any, y: Tensor, h: Any) -> None:
        """Called by torchdiffeq before every step that it tries."""
        del t, y, h
        self.steps += 1


def _integrate(problem: SystemProblem, rate: Callable[[Any, Tensor], Tensor], initial: Tensor) -> Tensor:
    from torchdiffeq import odeint

    times = torch.tensor(problem.times, dtype=torch.float64, device=initial.device)
    values: Tensor = odeint(rate, initial, times, rtol=problem.tolerance, atol=problem.tolerance, method="dopri5")
    return values


def _counted(problem: SystemProblem) -> tuple[int, dict[str, Any]]:
    counting = _Counting(problem.rate)
    with torch.no_grad():
        _integrate(problem, counting, problem.initial)
    return counting.steps, {"evaluations": counting.evaluations}


def forward(problem: SystemProblem) -> Contender:
    """All times without gradients; the outcome is `(batch, times, unknowns)`."""

    @torch.no_grad()
    def solve(_: Any) -> Tensor:
        return _integrate(problem, problem.rate, problem.initial)

    def finish(values: Tensor) -> Outcome:
        steps, extra = _counted(problem)
        return Outcome(values.movedim(0, 1).cpu().numpy(), steps, extra=extra)

    return Contender(
        DOPRI5, "torchdiffeq", version_of("torchdiffeq"), solve, finish, device=problem.initial.device.type
    )


def gradient(problem: SystemProblem) -> Contender:
    """Forward, and backward through the recorded steps; the outcome is the gradient."""

    def solve(_: Any) -> Tensor:
        return gradient_of(problem, lambda y: _integrate(problem, problem.rate, y)[-1])

    def finish(found: Tensor) -> Outcome:
        steps, extra = _counted(problem)
        return Outcome(found.cpu().numpy(), steps, extra=extra)

    return Contender(
        DOPRI5, "torchdiffeq", version_of("torchdiffeq"), solve, finish, device=problem.initial.device.type
    )
