"""The equations of implicit stages, M (Y - r) = a G(Y, t), by simplified Newton iterations, and their derivatives."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from math import inf, isfinite
from typing import final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Tolerance
from sciml.linear_operator import LinearOperator
from sciml.solution import Solution
from sciml.status import Status

from ..linear.adjoint import attach_implicit_gradient
from ..linear.base import LinearSolver, Prepared
from .implicit_linear import DenseLU, Mass, ShiftedSolver, finite_rows, healthy, with_axis

# Limits on the iterations of a stage: to a fraction of the tolerance, where a smaller step helps more than many of
# them, and to rounding.
_ITERATIONS = 10
_ITERATIONS_TIGHT = 25
_KEPT = 4  # step sizes whose set-ups are kept

# The share of the tolerance that the equations of a stage may take.
_SHARE = 0.03

# A correction relative to the state, in units of the dtype's rounding, that counts as none; and the largest at which an
# iteration that falls no further has come down to rounding.
_ROUNDING = 4.0
_NOISE = 1e4

# Convergence slower than this renews the Jacobian for the next step, sooner where it costs little; quicker than the
# last is no change of it at all.
_SLOW = 0.1
_SLOW_DENSE = 0.01
_LINEAR = 1e-3


@dataclass(eq=False)
class _Entry:
    """What is kept for one a.

    Attributes:
        solver: of linear equations with M - a J.
        eta: what is left of a correction after it, as last seen; Hairer and Wanner's, IV.8.10.
        rate: the slowest convergence of the latest step.
        size: the first correction of the latest stage, relative to the tolerance.
        fresh: whether J is of the present step.
    """

    solver: ShiftedSolver
    eta: float = 1.0
    rate: float = 0.0
    size: float = 1.0
    fresh: bool = True

    @property
    def slow(self) -> float:
        """The rate beyond which the Jacobian is worth renewing."""
        return _SLOW_DENSE if isinstance(self.solver.method, DenseLU) else _SLOW


class _Way(Enum):
    """With which Jacobian the equations of a stage are tried, in turn."""

    KEPT = "the one at hand"
    FRESH = "that of the start of the step"
    FULL = "a new one in every iteration"


@final
class StageSolver:
    """Solves the stages of one system, row by row of its batch, with set-ups kept for the latest step sizes.

    The Jacobian is that of the start of a step, kept while the iterations converge quickly: of a linear system for
    ever. Hairer and Wanner, Solving Ordinary Differential Equations II, 2nd ed., Springer 1996, section IV.8.

    Args:
        system: what evolves.
        rtol, atol: a correction is measured by the system's error relative to them; rtol None solves to rounding, as it
            is done wherever derivatives are tracked.
        method: of the linear equations; None chooses by the operator.

    Attributes:
        mass: the mass matrix.
        evaluations, iterations, setups: of the force, of Newton's method and of linear solvers, in all.
    """

    def __init__(
        self,
        system: EvolvingSystem,
        rtol: float | None = None,
        atol: Tolerance = 0.0,
        method: LinearSolver | None = None,
    ) -> None:
        self.system = system
        self.rtol = rtol
        self.atol = atol
        self.method = method
        self.mass = Mass(system)
        self.axes = len(system.state_space)
        self.evaluations = self.iterations = self.setups = 0
        self._entries: OrderedDict[float, _Entry] = OrderedDict()
        self._linear_iterations = 0
        self._chosen = method

    @property
    def linear_iterations(self) -> int:
        """Of the linear solvers, in all; a solution by factors counts as one."""
        return self._linear_iterations + sum(entry.solver.iterations for entry in self._entries.values())

    def counts(self) -> dict[str, int]:
        """As a `Stepper` tells them."""
        return {
            "evaluations": self.evaluations,
            "iterations": self.iterations,
            "linear_iterations": self.linear_iterations,
            "setups": self.setups,
        }

    def force(self, y: Tensor, t: float) -> Tensor:
        """G(y, t), counted; 0 in algebraic rows, where it vanishes at a consistent state."""
        self.evaluations += 1
        return self.mass.differential(self.system.force(y, t))

    def begin_step(self, y: Tensor, t: float, a: float, tracked: bool) -> _Step:
        """What the stages of one step share.

        Args:
            y: its start, `(*batch, *state_space)`.
            t: the time there.
            a: factor of the force.
            tracked: whether derivatives are to be carried through.
        """
        return _Step(self, y, t, a, tracked)

    def entry(self, y: Tensor, t: float, a: float, *, renew: bool) -> _Entry | None:
        """The set-up for a, with the Jacobian at (y, t) if it is new; None if there is none, as of a singular matrix.

        Raises:
            InputError: if the requested method does not suit the very first matrix.
        """
        entry = self._entries.get(a)
        latest = bool(self._entries) and next(reversed(self._entries)) == a
        if entry is not None and not renew and entry.rate <= (entry.slow if latest else _LINEAR):
            self._entries.move_to_end(a)
            entry.fresh, entry.rate = False, 0.0
            return entry
        sound = healthy(y, self.axes)
        if sound is None:
            return None
        try:
            operator = self.system.shifted(sound, t, a)
            solver = ShiftedSolver(operator, self.system, self._chosen, requested=self.method is not None)
        except InputError:
            if self.method is not None and not self.setups:
                raise
            return None
        self.setups += 1
        self._chosen = solver.method
        made = _Entry(solver)
        if entry is not None:
            self._linear_iterations += entry.solver.iterations
            made.size = entry.size
        self._entries[a] = made
        self._entries.move_to_end(a)
        if len(self._entries) > _KEPT:
            self._linear_iterations += self._entries.popitem(last=False)[1].solver.iterations
        return made

    def finite_rows(self, y: Tensor) -> Tensor:
        """bool of batch shape."""
        return finite_rows(y, self.axes)

    def spread(self, rows: Tensor) -> Tensor:
        """Something of batch shape, shaped to go with states."""
        return rows.reshape(*rows.shape, *(1,) * self.axes)

    def sizes(self, correction: Tensor, y: Tensor, tight: bool) -> Tensor:
        """A correction relative to what counts as none at all, `(*batch)`."""
        if not tight and self.rtol is not None:
            return self.system.error_ratio(correction, y, y, self.rtol, self.atol) / _SHARE
        dimensions = tuple(range(-self.axes, 0))
        finfo = torch.finfo(y.dtype)
        # Squares of large numbers may overflow.
        largest = torch.maximum(correction.abs(), y.abs()).clamp(min=finfo.tiny)
        if self.axes:
            largest = largest.amax(dimensions, keepdim=True)
        scaled = (correction / largest, y / largest)
        norms = [torch.linalg.vector_norm(x, dim=dimensions) if self.axes else x.abs() for x in scaled]
        return norms[0] / (norms[1] * (_ROUNDING * finfo.eps) + finfo.tiny**0.5)


@final
class _Step:
    """The stages of one step, all with the same a; rows that fail in one are NaN from there on."""

    def __init__(self, solver: StageSolver, y: Tensor, t: float, a: float, tracked: bool) -> None:
        self.solver = solver
        self.start = y.detach()
        self.t = t
        self.a = a
        self.tracked = tracked
        self.tight = tracked or solver.rtol is None
        self.alive: Tensor | None = None  # the rows that have not failed; None for all
        self.solved: bool | Tensor = True  # False for rows that began with numbers and have failed
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
            finite = solver.finite_rows(self.start)
            if not bool(finite.all()):
                self.alive = finite
            self.entry = solver.entry(self.start, t, a, renew=False)

    def solve(self, right: Tensor, guess: Tensor, t: float) -> Tensor | None:
        """Y with M Y - a G(Y, t) = right, differentiable with respect to the right side and all that G depends on.

        Args:
            right: `(*batch, *state_space)`.
            guess: a start.
            t: the time of the stage.

        Returns:
            None if no row could be solved.
        """
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
            y = self._solve(right.detach(), guess.detach(), t)
        if y is None:
            return None
        if self.tracked and self.entry is not None:
            y = self._attach(self.entry.solver, y, right, t)
        if self.alive is not None:
            y = torch.where(self.solver.spread(self.alive), y, torch.nan)
        return y

    def _solve(self, right: Tensor, guess: Tensor, t: float) -> Tensor | None:
        """Newton's method with one Jacobian after the other; the last only where no smaller step would be tried."""
        solver = self.solver
        if self.alive is not None:
            guess = torch.where(self.solver.spread(self.alive), guess, torch.nan)
            guess = healthy(guess, solver.axes)  # type: ignore[assignment]
            if guess is None:
                return None
        wanted = self.alive
        converged = None
        y = guess
        for way in _Way:
            if way is _Way.FRESH:
                if self.entry is not None and self.entry.fresh:
                    continue
                self.entry = solver.entry(self.start, self.t, self.a, renew=True)
            if way is _Way.FULL and not self.tight:
                break
            if self.entry is None:
                continue
            y, converged = self._newton(self.entry, right, guess, t, way)
            if converged is None:
                return y
        if converged is None or not bool(converged.any()):
            return None
        self.alive = converged if wanted is None else wanted & converged
        failed = ~converged if wanted is None else wanted & ~converged
        if bool(failed.any()):
            self.solved = self.solved & ~failed
        return y

    def _newton(self, entry: _Entry, right: Tensor, y: Tensor, t: float, way: _Way) -> tuple[Tensor, Tensor | None]:
        """The state reached, and the rows that converged, None for all that were to."""
        solver, system, tight = self.solver, self.solver.system, self.tight
        alive, guess = self.alive, y
        before: Tensor | None = None
        worst_before = inf
        limit = _ITERATIONS_TIGHT if tight else _ITERATIONS
        for iteration in range(limit):
            force = system.force(y, t)
            solver.evaluations += 1
            residual = torch.add(right - solver.mass.apply(y), force, alpha=self.a)
            if alive is not None:
                residual = torch.where(solver.spread(alive), residual, 0.0)
            if not entry.solver.exact:
                finite = solver.finite_rows(residual)
                if not bool(finite.all()):
                    alive = finite if alive is None else alive & finite
                    if not bool(alive.any()):
                        return y, alive
                    residual = torch.where(solver.spread(alive), residual, 0.0)
            if way is _Way.FULL and iteration:
                made = solver.entry(y, t, self.a, renew=True)
                if made is None:
                    return y, torch.zeros_like(solver.finite_rows(y))
                entry = self.entry = made
            reduction = 0.0 if entry.solver.exact else self._reduction(entry, iteration, worst_before)
            correction = entry.solver.solve(residual, reduction)
            solver.iterations += 1
            if correction is None:
                return y, torch.zeros_like(solver.finite_rows(y))
            y = y + correction
            sizes = solver.sizes(correction, y, tight)
            worst = _worst(sizes, alive)
            if iteration == 0:
                entry.size = worst if isfinite(worst) else 1.0
            noise = _NOISE if tight else 1.0
            if not isfinite(worst) or (worst > 0.9 * worst_before and worst > noise):
                bad = ~torch.isfinite(sizes)
                if before is not None:
                    bad = bad | ((sizes > 0.9 * before) & (sizes > noise))
                alive = ~bad if alive is None else alive & ~bad
                if not bool(alive.any()):
                    return y, alive
                y = torch.where(solver.spread(alive), y, guess)
                worst = _worst(sizes, alive)
            if iteration == 0:
                eta = max(entry.eta, torch.finfo(y.dtype).eps) ** 0.8
            else:
                rate = worst / worst_before if worst_before > 0.0 else 0.0
                entry.rate = max(entry.rate, rate)
                eta = rate / (1.0 - rate) if rate < 1.0 else inf
                entry.eta = max(eta, torch.finfo(y.dtype).eps)
            if eta * worst <= 1.0 or worst == 0.0 or (tight and eta > 1.0 and worst <= _NOISE):
                entry.eta = max(min(eta, 1.0), torch.finfo(y.dtype).eps)
                return y, alive if alive is not self.alive else None
            if not entry.fresh and iteration and worst * rate ** (limit - 1 - iteration) > 1.0 - rate:
                return y, torch.zeros_like(sizes, dtype=torch.bool)  # a new Jacobian will do better
            before, worst_before = sizes, worst
        done = sizes <= 1.0
        return y, done if alive is None else done & alive

    def _reduction(self, entry: _Entry, iteration: int, before: float) -> float:
        """How much the residual of the linear equations is to be reduced: to what makes the next correction none, but
        no further than the Jacobian is good for."""
        expected = entry.size if iteration == 0 else before * min(entry.eta, 1.0)
        floor = 1e-10 if self.start.dtype == torch.float64 else 1e-5
        return min(max(0.1 / max(expected, 1.0), 0.05 * entry.eta, floor), 1e-2)

    def _attach(self, kept: ShiftedSolver, y: Tensor, right: Tensor, t: float) -> Tensor:
        """The state with its derivatives, by the theorem on implicit functions."""
        solver, system, a = self.solver, self.solver.system, self.a
        scalar = solver.axes == 0
        linearization = _Linearization(system, t, a, kept)

        def residual(x: Tensor) -> Tensor:
            x = x.squeeze(-1) if scalar else x
            left = torch.add(right - solver.mass.apply(x), system.force(x, t), alpha=a)
            return left.unsqueeze(-1) if scalar else left

        batch = y.shape[: y.ndim - solver.axes]
        codes = torch.full(batch, int(Status.CONVERGED), device=y.device)
        if self.alive is not None:
            codes = torch.where(self.alive, codes, int(Status.STAGNATED))
        solution = Solution(y.unsqueeze(-1) if scalar else y, codes, {}, {})
        space = (1,) if scalar else tuple(system.state_space)
        value = attach_implicit_gradient(residual, linearization.at, space, solution, throw=True).value
        return value.squeeze(-1) if scalar else value


class _Linearization:
    """M - a J at the solution of a stage, prepared when it is first asked for."""

    def __init__(self, system: EvolvingSystem, t: float, a: float, solver: ShiftedSolver) -> None:
        self.system = system
        self.t = t
        self.a = a
        self.solver = solver
        self._plain: Prepared | None = None

    def at(self, x: Tensor) -> Prepared:
        """Prepared for the matrix at x; with its gradients, where these are tracked."""
        if self._plain is None:
            with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
                self._plain = self.solver.near(self._matrix(x.detach()))
        if not torch.is_grad_enabled():
            return self._plain
        return self._plain.with_gradients(self._matrix(x))

    def _matrix(self, x: Tensor) -> LinearOperator:
        if self.system.state_space:
            return self.system.shifted(x, self.t, self.a)
        return with_axis(self.system.shifted(x.squeeze(-1), self.t, self.a))


def _worst(sizes: Tensor, alive: Tensor | None) -> float:
    """The largest, NaN if one is, of the rows that are still wanted."""
    if alive is not None:
        sizes = torch.where(alive, sizes, 0.0)
    return float(sizes if sizes.ndim == 0 else sizes.max())
