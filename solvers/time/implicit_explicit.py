"""Methods that take the linear part of a system implicitly and the rest explicitly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Tolerance
from sciml.linear_operator import LinearOperator

from ..linear import ConjugateGradient, Jacobi
from ..linear.base import LinearSolver, Prepared
from . import implicit_tableau as tableaus
from .control import Controller
from .implicit import is_tracked, unsolved
from .implicit_linear import Mass, ShiftedSolver, check_linear, finite_rows
from .implicit_tableau import AdditiveTableau
from .multistep import same_step
from .stepper import Attempt, Integrator, Stepper, combined

_KEPT = 4  # step sizes whose set-ups are kept

# How much later a force is asked for to see whether it depends on the time.
_LATER = (1e-3, 0.7, 31.0)


@final
@dataclass(frozen=True)
class ImplicitExplicit(Integrator):
    """The linear part of a system implicitly, the rest explicitly: one linear system with M - a L a stage, whose set-up
    is kept for every step size, and no nonlinear one.

    Steps are equal parts of the intervals between output times for that reason, but of ordinary differential equations.

    Args:
        tableau: a pair of Runge-Kutta methods; None is Crank-Nicolson and Adams-Bashforth of order 2.
        controller: of the step size.
        linear: solves the linear systems; None chooses by the matrix.
    """

    usual: ClassVar[Controller] = Controller(far_below=0.0)
    tableau: AdditiveTableau | None
    controller: Controller = field(default_factory=Controller)
    linear: LinearSolver | None = None

    def __post_init__(self) -> None:
        if self.tableau is not None and not isinstance(self.tableau, AdditiveTableau):
            raise InputError(
                f"tableau must be an AdditiveTableau or None, got {self.tableau!r}: write for example "
                "ImplicitExplicit.ark4()"
            )
        check_linear(self.linear)

    @classmethod
    def cnab2(cls) -> ImplicitExplicit:
        """Crank-Nicolson and Adams-Bashforth, order 2, of fixed step; one explicit evaluation a step.

        The first step, and every one after a change of the step size, is by Crank-Nicolson and Heun.
        """
        return cls(None)

    @classmethod
    def ark3(cls) -> ImplicitExplicit:
        """Kennedy and Carpenter's ARK3(2)4L[2]SA, orders 3 and 2, adaptive, L-stable in the linear part."""
        return cls(tableaus.KENNEDY_CARPENTER_3)

    @classmethod
    def ark4(cls) -> ImplicitExplicit:
        """Kennedy and Carpenter's ARK4(3)6L[2]SA, orders 4 and 3, adaptive, L-stable in the linear part."""
        return cls(tableaus.KENNEDY_CARPENTER_4)

    def describe(self) -> str:
        name = "Crank-Nicolson Adams-Bashforth 2" if self.tableau is None else self.tableau.name
        return f"{name}, implicit in the linear part"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        if system.linear_part is None:
            raise InputError(
                f"{self.describe()}: the equation has no linear part with coefficients constant in time; use "
                "ImplicitRungeKutta, or ExplicitRungeKutta if it is not stiff"
            )
        solver = LinearPart(system, rtol, self.linear)
        return CnabStepper(system, solver) if self.tableau is None else AdditiveStepper(self.tableau, system, solver)


@final
class LinearPart:
    """The linear part L of a system in implicit steps, with set-ups kept for the latest step sizes.

    Args:
        system: what evolves.
        rtol: the tolerance of the run, to a fraction of which linear systems are solved; None for rounding.
        method: of their solution; None chooses.

    Attributes:
        mass: the mass matrix.
        evaluations, setups: of the explicit force and of the solver.
        linear_iterations: in all; a solution by factors counts as one.
    """

    def __init__(self, system: EvolvingSystem, rtol: float | None, method: LinearSolver | None) -> None:
        self.system = system
        self.method = method
        self.mass = Mass(system)
        self.evaluations = self.setups = 0
        self._linear_iterations = 0
        finest = 1e-12 if system.dtype == torch.float64 else 1e-6
        self.reduction = finest if rtol is None else max(1e-3 * rtol, finest)
        self._tracked = False
        self._kept: OrderedDict[float, ShiftedSolver] = OrderedDict()
        self._chosen = method
        self._lumped: Prepared | None = None

    @property
    def linear_iterations(self) -> int:
        return self._linear_iterations + sum(solver.iterations for solver in self._kept.values())

    def counts(self) -> dict[str, int]:
        """As a `Stepper` tells them."""
        return {
            "evaluations": self.evaluations,
            "linear_iterations": self.linear_iterations,
            "setups": self.setups,
        }

    def begin(self, y: Tensor, t: float) -> Tensor:
        """N(y, t); notes whether derivatives with respect to anything in the system are asked for."""
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            self._tracked = is_tracked(self.system.force(y, t))
            self.evaluations += 1
        return self.explicit_force(y, t)

    def at(self, a: float, *states: Tensor) -> _Shifted:
        """M - a L, with its gradients if they or those of the states are tracked."""
        differentiable = torch.is_grad_enabled() or forward_ad._current_level >= 0
        tracked = differentiable and (self._tracked or is_tracked(*states))
        solver = self._kept.get(a)
        operator = self.system.shifted_linear(a) if solver is None or tracked else solver.given
        if solver is None:
            solver = ShiftedSolver(operator.detach(), self.system, self._chosen, requested=self.method is not None)
            self.setups += 1
            self._chosen = solver.method
            self._kept[a] = solver
            if len(self._kept) > _KEPT:
                self._linear_iterations += self._kept.popitem(last=False)[1].iterations
        self._kept.move_to_end(a)
        return _Shifted(solver, operator if tracked else solver.given, a, self, tracked)

    def explicit_force(self, y: Tensor, t: float) -> Tensor:
        """N(y, t), counted."""
        self.evaluations += 1
        return self.system.explicit_force(y, t)

    def with_algebraic(self, right: Tensor, y: Tensor, t: float, a: float) -> Tensor:
        """A right side for a state at t that meets algebraic equations there: in their rows a N(y, t), which depends on
        t alone."""
        if self.mass.algebraic is None:
            return right
        return torch.where(self.mass.algebraic, a * self.explicit_force(y, t), right)

    def without_mass(self, force: Tensor) -> Tensor:
        """M^-1 of a force; 0 in algebraic rows."""
        if self.mass.identity:
            return force
        if self._lumped is None:
            with torch.no_grad():
                operator = _MassOperator(self.mass, self.system.shifted_linear(0.0).detach())
                rtol = 1e-13 if operator.dtype == torch.float64 else 1e-6
                self._lumped = ConjugateGradient(preconditioner=Jacobi(), rtol=rtol).prepare(operator)
        solution = self._lumped.solve(force)
        self._linear_iterations += int(solution.statistics["iterations"].max())
        return solution.value


@final
class _Shifted:
    """M - a L in one step."""

    def __init__(
        self, solver: ShiftedSolver, operator: LinearOperator, a: float, part: LinearPart, tracked: bool
    ) -> None:
        self.solver = solver
        self.operator = operator
        self.a = a
        self.part = part
        self.tracked = tracked
        self._with_gradients: Callable[[Tensor], Tensor] | None = None

    def linear_force(self, y: Tensor) -> Tensor:
        """L y, 0 in algebraic rows."""
        mass = self.part.mass
        return mass.differential((mass.apply(y) - self.operator.apply(y)) / self.a)

    def solve(self, right: Tensor, start: Tensor) -> Tensor | None:
        """(M - a L)^-1 right, NaN in rows where that is not finite; None if it could not be computed."""
        if self.solver.exact and not self.tracked:
            return self.solver.solve(right, self.part.reduction)
        axes = len(self.part.system.state_space)
        finite = finite_rows(right, axes)
        if bool(finite.all()):
            return self._solve_finite(right, start)
        spread = finite.reshape(*finite.shape, *(1,) * axes)
        value = self._solve_finite(torch.where(spread, right, 0.0), torch.where(spread, start, 0.0))
        return None if value is None else torch.where(spread, value, torch.nan)

    def _solve_finite(self, right: Tensor, start: Tensor) -> Tensor | None:
        if not self.tracked:
            return self.solver.solve(right, self.part.reduction, start)
        if self._with_gradients is None:
            self._with_gradients = self.solver.with_gradients(self.operator)
        return self._with_gradients(right)


@final
class AdditiveStepper(Stepper):
    """One step of a pair of Runge-Kutta methods; its memory is the explicit force at the state.

    What of the explicit force N(y, t) comes of the time alone is taken implicitly too: N(y_n, t) goes with L y, and
    N(y, t) - N(y_n, t) is left. In boundary values that change it is as stiff as L, and would spoil the order.

    Attributes:
        part: the linear part, which counts what it does.
    """

    def __init__(self, tableau: AdditiveTableau, system: EvolvingSystem, part: LinearPart) -> None:
        self.tableau, self.system, self.part = tableau, system, part
        self.order, self.embedded = tableau.order, tableau.embedded
        self.even = system.domain is not None
        self._moving = False

    def begin(self, y: Tensor, t: float) -> Tensor:
        force = self.part.begin(y, t)
        with torch.no_grad():
            self._moving = any(not torch.equal(self.part.explicit_force(y, t + later), force) for later in _LATER)
        return force

    def step(self, y: Tensor, t: float, h: float, memory: Tensor) -> Attempt:
        tableau, part = self.tableau, self.part
        a = tableau.diagonal * h
        shifted = part.at(a, y, memory)
        mass = part.mass
        start = mass.apply(y)
        implicit = [mass.differential(shifted.linear_force(y) + memory)]
        explicit = [torch.zeros_like(memory)]
        state = y
        for i in range(1, tableau.stages):
            time = t + tableau.c[i] * h
            source = part.explicit_force(y, time) if self._moving else memory
            known = combined(combined(start, explicit, tableau.explicit[i], h), implicit, tableau.implicit[i], h)
            found = shifted.solve(torch.add(known, source, alpha=a), state)
            if found is None:
                return unsolved(y, memory, adaptive=True)
            state = found
            implicit.append(mass.differential((mass.apply(state) - known) / a))
            explicit.append(mass.differential(part.explicit_force(state, time) - source))
        # The last stage has all of what is implicit: the weights of the methods differ from it in the rest alone.
        last = (*tableau.explicit[-1], 0.0)
        weights = tuple(b - e for b, e in zip(tableau.b, last, strict=True))
        nothing = explicit[0]
        value = state + part.without_mass(combined(nothing, explicit, weights, h))
        error = combined(combined(nothing, explicit, tableau.error, h), implicit, tableau.error, h)
        if not mass.identity:
            filtered = shifted.solve(error, torch.zeros_like(error))
            if filtered is None:
                return unsolved(y, memory, adaptive=True)
            error = filtered
        memory = part.explicit_force(value, t + h)
        return Attempt(value, memory, error)

    def counts(self) -> dict[str, int]:
        return self.part.counts()


@final
class CnabStepper(Stepper):
    """One step of Crank-Nicolson and Adams-Bashforth; its memory is the latest step size and the explicit force before.

    Attributes:
        part: the linear part, which counts what it does.
    """

    def __init__(self, system: EvolvingSystem, part: LinearPart) -> None:
        self.system = system
        self.part = part
        self.order = 2
        self.embedded = 0
        self.even = True

    def begin(self, y: Tensor, t: float) -> tuple[float, Tensor]:
        return 0.0, self.part.begin(y, t)

    def step(self, y: Tensor, t: float, h: float, memory: tuple[float, Tensor]) -> Attempt:
        part = self.part
        h_before, before = memory
        a = h / 2
        # Right after the beginning the memory is the present force, and no other.
        shifted = part.at(a, y, before)
        force = part.explicit_force(y, t) if h_before else before
        start = torch.add(part.mass.apply(y), shifted.linear_force(y), alpha=a)
        if same_step(h, h_before):
            right = combined(start, [force, before], (1.5, -0.5), h)
            value = shifted.solve(part.with_algebraic(right, y, t + h, a), y)
        else:
            right = part.with_algebraic(torch.add(start, force, alpha=h), y, t + h, a)
            value = shifted.solve(right, y)
            if value is not None:
                after = part.explicit_force(value, t + h)
                right = combined(start, [force, after], (0.5, 0.5), h)
                value = shifted.solve(part.with_algebraic(right, value, t + h, a), value)
        if value is None:
            return Attempt(y, memory, solved=False)
        return Attempt(value, (h, force))

    def counts(self) -> dict[str, int]:
        return self.part.counts()


@final
class _MassOperator(LinearOperator):
    """M, with the identity in algebraic rows and columns."""

    def __init__(self, mass: Mass, linear: LinearOperator) -> None:
        super().__init__(linear.space, linear.batch, linear.dtype, linear.device, symmetric=True)
        self.mass = mass
        self.linear = linear

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        algebraic = self.mass.algebraic
        if algebraic is None:
            result = self.mass.apply(x)
        else:
            result = torch.where(algebraic, x, self.mass.apply(torch.where(algebraic, 0.0, x)))
        return result if out is None else out.copy_(result)

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(b, self.apply(x), out=out)

    def transpose(self) -> LinearOperator:
        return self

    def diagonal(self) -> Tensor:
        diagonal = self.linear.diagonal()
        return diagonal if self.mass.algebraic is None else torch.where(self.mass.algebraic, 1.0, diagonal)

    def to_sparse(self) -> Tensor:
        raise InputError("the mass matrix is known by its action alone")

    def to(self, dtype: torch.dtype) -> LinearOperator:
        if dtype != self.dtype:
            raise InputError(f"the mass matrix is {self.dtype}, and not to be had in {dtype}")
        return self

    def detach(self) -> LinearOperator:
        return self

    def __getitem__(self, row: int) -> LinearOperator:
        return _MassOperator(self.mass, self.linear[row])
