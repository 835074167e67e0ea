"""Diagonally implicit Runge-Kutta methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Time, Tolerance

from ..linear.base import LinearSolver
from . import implicit_tableau as tableaus
from .control import Controller
from .implicit_linear import check_linear
from .implicit_tableau import ImplicitTableau
from .stage_solver import StageSolver
from .stepper import Attempt, Integrator, Stepper, by_row, combined


@final
@dataclass(frozen=True)
class ImplicitRungeKutta(Integrator):
    """A diagonally implicit Runge-Kutta method for stiff systems, adaptive where its tableau has an embedded solution.

    The stages are solved one after the other, by simplified Newton iterations whose matrix M - a J is the same for all
    of them; its set-up (factors, multigrid) is kept as long as the step size stays and the iteration converges quickly.
    On grids and meshes, steps are equal parts of the intervals between output times for that reason.

    Args:
        tableau: the method; the constructors below name the usual ones.
        controller: of the step size.
        linear: solves for Newton's corrections; None chooses by the matrix.
    """

    usual: ClassVar[Controller] = Controller(far_below=0.0)
    tableau: ImplicitTableau
    controller: Controller = field(default_factory=Controller)
    linear: LinearSolver | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tableau, ImplicitTableau):
            raise InputError(
                f"tableau must be an ImplicitTableau, got {self.tableau!r}: write for example "
                "ImplicitRungeKutta.kvaerno5()"
            )
        check_linear(self.linear)

    @classmethod
    def backward_euler(cls) -> ImplicitRungeKutta:
        """Euler's implicit method, order 1, L-stable, of fixed step."""
        return cls(tableaus.BACKWARD_EULER)

    @classmethod
    def crank_nicolson(cls) -> ImplicitRungeKutta:
        """The trapezoidal rule, order 2, A-stable (what is stiff oscillates and is not damped), of fixed step."""
        return cls(tableaus.CRANK_NICOLSON)

    @classmethod
    def sdirk2(cls) -> ImplicitRungeKutta:
        """Alexander's method, order 2, L-stable, of fixed step."""
        return cls(tableaus.ALEXANDER)

    @classmethod
    def kvaerno3(cls) -> ImplicitRungeKutta:
        """Kvaerno's pair of orders 3 and 2, L-stable, for low accuracy."""
        return cls(tableaus.KVAERNO3)

    @classmethod
    def kvaerno4(cls) -> ImplicitRungeKutta:
        """Kvaerno's pair of orders 4 and 3, L-stable."""
        return cls(tableaus.KVAERNO4)

    @classmethod
    def kvaerno5(cls) -> ImplicitRungeKutta:
        """Kvaerno's pair of orders 5 and 4, L-stable, for high accuracy."""
        return cls(tableaus.KVAERNO5)

    def describe(self) -> str:
        return f"{self.tableau.name}, implicit"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        return ImplicitStepper(self.tableau, system, StageSolver(system, rtol, atol, self.linear))


@final
class ImplicitStepper(Stepper):
    """One step of a diagonally implicit Runge-Kutta method; its memory is the force at the state.

    Where M is not the identity, forces stand for slopes, so that no system with M alone is ever solved, and rows of M
    that are zero ask of every stage that the force vanishes there.

    Attributes:
        solver: of the stages, which counts what it does.
    """

    def __init__(self, tableau: ImplicitTableau, system: EvolvingSystem, solver: StageSolver) -> None:
        self.tableau, self.system, self.solver = tableau, system, solver
        self.order, self.embedded = tableau.order, tableau.embedded
        self.even = system.domain is not None

    def begin(self, y: Tensor, t: float) -> Tensor:
        return self.solver.force(y, t)

    def step(self, y: Tensor, t: float, h: float, memory: Tensor) -> Attempt:
        tableau, solver = self.tableau, self.solver
        a = tableau.diagonal * h
        tracked = is_tracked(y, memory)
        step = solver.begin_step(y, t, a, tracked)
        start = solver.mass.apply(y)
        states, forces = ([y], [memory]) if tableau.explicit_first else ([], [])
        for i in range(len(states), tableau.stages):
            right = combined(start, forces, tableau.a[i], h)
            guess = self._guess(i, y, right, states, (forces or [memory])[-1], a)
            state = step.solve(right, guess, t + tableau.c[i] * h)
            if state is None:
                return unsolved(y, memory, self.embedded > 0)
            states.append(state)
            forces.append((solver.mass.apply(state) - right) / a)
        value = states[-1]
        error = value - states[-2] if tableau.embedded else None
        interpolate = None
        if self.system.domain is None:
            interpolate = self._interpolant(y, value, h, forces if tableau.explicit_first else [memory, *forces])
        return Attempt(value, forces[-1], error, interpolate=interpolate, solved=step.solved)

    def counts(self) -> dict[str, int]:
        return self.solver.counts()

    def _guess(self, i: int, y: Tensor, right: Tensor, states: list[Tensor], force: Tensor, a: float) -> Tensor:
        """Where to begin with stage i: with the latest slope, or on the line through the start and the latest stage."""
        if self.solver.mass.identity:
            return torch.add(right, force, alpha=a)
        if len(states) < 1 + self.tableau.explicit_first:
            return y
        c = self.tableau.c
        return torch.lerp(y, states[-1], c[i] / c[i - 1])

    def _interpolant(self, y: Tensor, value: Tensor, h: float, slopes: list[Tensor]) -> Callable[[Time], Tensor]:
        """By the dense output of the tableau, or the cubic through both ends and their slopes; M is the identity."""
        dense = self.tableau.dense

        def at(theta: Time) -> Tensor:
            if not isinstance(theta, Tensor) and theta == 1.0:
                return value
            weights: dict[int, Time]
            if dense is None:
                whole = theta * theta * (3 - 2 * theta)
                found = torch.lerp(y, value, by_row(whole, y))
                weights = {0: theta * (theta - 1) ** 2, len(slopes) - 1: theta * theta * (theta - 1)}
            else:
                found = y
                weights = {
                    j: sum(b * theta ** (k + 1) for k, b in enumerate(row)) for j, row in enumerate(dense) if any(row)
                }
            for j, weight in weights.items():
                found = found + by_row(h * weight, y) * slopes[j]
            return found

        return at


def unsolved(y: Tensor, memory: Any, adaptive: bool) -> Attempt:
    """A step whose equations could not be solved."""
    error = torch.full_like(y, torch.nan) if adaptive else None
    return Attempt(y, memory, error, solved=False)


def is_tracked(*tensors: Tensor) -> bool:
    """Whether derivatives with respect to what made these tensors are asked for."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
