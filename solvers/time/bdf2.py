"""The backward differentiation formula of order 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciml.evolving import EvolvingSystem, Tolerance

from ..linear.base import LinearSolver
from .implicit import ImplicitStepper, is_tracked
from .implicit_linear import check_linear
from .implicit_tableau import ALEXANDER
from .multistep import same_step
from .stage_solver import StageSolver
from .stepper import Attempt, Integrator, Stepper


@final
@dataclass(frozen=True)
class Bdf2(Integrator):
    """The backward differentiation formula of order 2, L-stable, one nonlinear system a step:

        M (3 y_(n+1) - 4 y_n + y_(n-1)) = 2 h G(y_(n+1), t_(n+1)),

    after one step of Alexander's method. Of fixed step; where the step changes it begins anew.

    Hairer and Wanner, Solving Ordinary Differential Equations II, 2nd ed., Springer 1996, section V.1.

    Args:
        linear: solves for Newton's corrections; None chooses by the matrix.
    """

    linear: LinearSolver | None = None

    def __post_init__(self) -> None:
        check_linear(self.linear)

    def describe(self) -> str:
        return "BDF2, implicit"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        return Bdf2Stepper(system, StageSolver(system, rtol, atol, self.linear))


@final
class Bdf2Stepper(Stepper):
    """Its memory is the latest step size, the state before the present one, and the force at the latest start.

    Attributes:
        solver: of the steps, which counts what it does.
    """

    def __init__(self, system: EvolvingSystem, solver: StageSolver) -> None:
        self.system = system
        self.solver = solver
        self.order = 2
        self.embedded = 0
        self.even = True
        self._first = ImplicitStepper(ALEXANDER, system, solver)

    def begin(self, y: Tensor, t: float) -> tuple[float, Tensor, Tensor]:
        return 0.0, y, self._first.begin(y, t)

    def step(self, y: Tensor, t: float, h: float, memory: tuple[float, Tensor, Tensor]) -> Attempt:
        h_before, before, force = memory
        solver = self.solver
        if not same_step(h, h_before):
            first = self._first.step(y, t, h, force)
            return first._replace(memory=(h, y, force), error=None, interpolate=None)
        a = 2 / 3 * h
        step = solver.begin_step(y, t, a, is_tracked(y, before, force))
        right = solver.mass.apply(torch.lerp(before, y, 4 / 3))
        value = step.solve(right, torch.lerp(before, y, 2.0), t + h)
        if value is None:
            return Attempt(y, memory, solved=False)
        return Attempt(value, (h, y, force), solved=step.solved)

    def counts(self) -> dict[str, int]:
        return self.solver.counts()
