"""What the solvers of nonlinear equations share: the iteration, status row by row, and the gradient of a solve."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.discretization import NonlinearSystem
from sciml.elements import NonlinearMeshSystem
from sciml.elements.operator import SparseBatch
from sciml.errors import InputError, SolveError
from sciml.grid import Grid
from sciml.linear_operator import BlockOperator, LinearOperator
from sciml.mesh import Mesh
from sciml.solution import Solution
from sciml.status import Status
from sciml.stencil import StencilOperator

from ..choice import choose_linear, direct_is_possible, negated, positive_diagonal
from ..linear import ConjugateGradient, Direct, Multigrid
from ..linear.adjoint import attach_implicit_gradient
from ..linear.base import LinearSolver, Prepared, failure_message
from ..linear.direct import SingularError
from ..linear.rows import Rows
from ..linear.settings import check_count, check_number
from ..mesh_methods import choose_for_jacobian
from .forcing import EisenstatWalker
from .line_search import Backtracking, Step

AnySystem = NonlinearSystem | NonlinearMeshSystem

RUNNING = -1
_KEEP = 0.1  # the reduction of |F| in a step below which the next one keeps the preconditioner


@dataclass(frozen=True, kw_only=True)
class NonlinearSolver(ABC):
    """Base of the iterations u <- u - s A(u)^-1 F(u), each row of a batch with its own length and end.

    Args:
        rtol, atol: stop at |F(u)| <= max(rtol |F(0)|, atol), row by row; |F(u0)| stands in where F(0) is 0 or not
            finite. Of a linear equation that is |b - A u| <= max(rtol |b|, atol). rtol, dimensionless, None is 1e-8 in
            float64 and 1e-5 in float32; atol is in the unit of F(u).
        max_iterations: limit on the steps.
        linear: solves for the steps; None chooses by the operator at the start.
        line_search: how steps are shortened; None takes them whole.
    """

    rtol: float | None = None
    atol: float = 0.0
    max_iterations: int = 50
    linear: LinearSolver | None = None
    line_search: Backtracking | None = Backtracking()  # noqa: RUF009 (frozen)

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.rtol is not None:
            check_number(self.rtol, "rtol", 0.0, 1.0, "[)")
        check_number(self.atol, "atol", 0.0, inf, "[)")
        check_count(self.max_iterations, "max_iterations")
        if self.linear is not None and not isinstance(self.linear, LinearSolver):
            raise InputError(f"linear must be a linear solver, for example GMRES(...), or None, got {self.linear!r}")
        if self.line_search is not None and not isinstance(self.line_search, Backtracking):
            raise InputError(f"line_search must be Backtracking(...) or None, got {self.line_search!r}")
        self.validate()

    @abstractmethod
    def validate(self) -> None:
        """Raise InputError for settings out of range."""

    @abstractmethod
    def operator(self, system: AnySystem, u: Tensor) -> LinearOperator:
        """What stands for the derivative of F at u."""

    @abstractmethod
    def tolerances(self) -> EisenstatWalker:
        """Of the linear equations."""

    def solve(self, system: AnySystem, initial: Tensor | None = None, *, throw: bool = True) -> Solution:
        """Solve F(u) = 0.

        Args:
            system: see `sciml.discretize_nonlinear`.
            initial: start, broadcastable to `(*batch, *space)`; zero if None. A row of a batch that it has in
                addition to that of the system is a start of its own.
            throw: raise SolveError if a row does not converge, instead of returning its status.

        Returns:
            Solution, differentiable with respect to everything that went into the system. Its statistics count, by
            row, "iterations" (steps), "inner_iterations" (of the linear solver, in all) and "evaluations" (of F).

        Raises:
            InputError: for a start of another shape, dtype or device, or not finite.
            SolveError: see `throw`.
        """
        start = time.perf_counter()
        u = self._start(system, initial)
        # The iteration carries no derivatives, forward ones included: they follow from its end.
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
            run = _Run(self, system, u)
            run.iterate()
            solution = run.solution(start)
        method = f"{self.name}, steps by {run.linear.describe()} ({run.why})" if run.why else self.name
        solution = replace(solution, system=system, method=method, notes=system.notes)
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            sign = run.sign_of_diagonal()
            gradient = _Linearization(system, run.linear if run.why else None, sign)
            solution = attach_implicit_gradient(
                lambda x: -sign * system.residual(x), gradient.at, system.space, solution, throw
            )
        if throw and bool((solution.codes != Status.CONVERGED).any()):
            raise SolveError(failure_message(solution), solution)
        return solution

    def relative_tolerance(self, dtype: torch.dtype) -> float:
        """rtol with its default filled in."""
        if self.rtol is not None:
            return self.rtol
        return 1e-8 if dtype == torch.float64 else 1e-5

    def _start(self, system: AnySystem, initial: Tensor | None) -> Tensor:
        domain, space = system.domain, system.space
        if initial is None:
            return torch.zeros(*system.batch, *space, dtype=domain.dtype, device=domain.device)
        if not isinstance(initial, Tensor):
            raise InputError(f"initial must be a tensor of shape (*batch, *{space}), got {type(initial).__name__}")
        if initial.dtype != domain.dtype or initial.device.type != domain.device.type:
            kind = "grid" if isinstance(domain, Grid) else "mesh"
            raise InputError(
                f"initial is {initial.dtype} on {initial.device}, the {kind} {domain.dtype} on {domain.device}: "
                "convert one"
            )
        if not bool(torch.isfinite(initial).all()):
            raise InputError("initial holds NaN or infinite values")
        try:
            shape = torch.broadcast_shapes(initial.shape, (*system.batch, *space))
            ok = tuple(shape[len(shape) - len(space) :]) == space
        except RuntimeError:
            ok = False
        if not ok:
            raise InputError(
                f"initial has shape {tuple(initial.shape)}, expected one that broadcasts to "
                f"{(*system.batch, *space)}, batch axes first"
            )
        u = initial.detach().expand(shape).clone(memory_format=torch.contiguous_format)
        solid = domain.solid if isinstance(domain, Grid) else None
        return u if solid is None else u.masked_fill_(solid, 0.0)


class _Run:
    """One iteration under way."""

    def __init__(self, method: NonlinearSolver, system: AnySystem, u: Tensor) -> None:
        self.method = method
        self.system = system
        self.rows = Rows(u.shape[: u.ndim - len(system.space)], system.space)
        self.u = u
        self.residual = self._evaluate(u)
        self.norms = self.rows.norm(self.residual)
        at_zero = self.rows.norm(self._evaluate(torch.zeros_like(u))) if bool(u.any()) else self.norms
        self.scale = torch.where(torch.isfinite(at_zero) & (at_zero > 0.0), at_zero, self.norms)
        rtol = method.relative_tolerance(u.dtype)
        self.tolerance = torch.maximum(rtol * self.scale, torch.as_tensor(method.atol).to(self.scale))
        self.history = [self.norms]
        self.codes = torch.full_like(self.norms, RUNNING, dtype=torch.int64)
        self.steps, self.inner = torch.zeros_like(self.codes), torch.zeros_like(self.codes)
        self.evaluations = torch.ones_like(self.codes)
        self.seconds_setup = 0.0
        self.linear: LinearSolver = method.linear or Direct()
        self.why = "as requested" if method.linear is not None else ""
        self.preconditioner: LinearOperator | None = None
        self.sign: float | None = None
        self.reduction = 1.0
        self._record()

    def iterate(self) -> None:
        tolerances = self.method.tolerances()
        eta = tolerances.first(self.rows.batch, self.u.device)
        for _ in range(self.method.max_iterations):
            active = self.codes == RUNNING
            if not bool(active.any()):
                return
            direction = self._direction(active, float(eta[active].min()))
            active = self.codes == RUNNING
            previous = self.norms
            self._advance(direction, active)
            self.steps += active
            self.reduction = float((self.norms / previous)[active].max()) if bool(active.any()) else 1.0
            self.history.append(self.norms)
            self._record()
            eta = tolerances.following(eta, self.norms, previous, self.tolerance)
        self._end(torch.ones_like(self.codes, dtype=torch.bool), Status.MAX_ITERATIONS)

    def solution(self, start: float) -> Solution:
        seconds = time.perf_counter() - start
        return Solution(
            value=self.u,
            codes=self.codes,
            statistics={
                "iterations": self.steps,
                "inner_iterations": self.inner,
                "evaluations": self.evaluations,
                "residual_norm": self.norms,
                "relative_residual": self.norms / torch.where(self.scale > 0, self.scale, 1.0),
                "seconds_setup": self.seconds_setup,
                "seconds_solve": seconds - self.seconds_setup,
            },
            history={"residual_norm": torch.stack(self.history)},
        )

    @torch.no_grad()
    def sign_of_diagonal(self) -> float:
        """+1 or -1, that of the derivative."""
        if self.sign is None:
            self.sign = positive_diagonal(self.system.jacobian(self.u))[1]
        return self.sign

    def _evaluate(self, u: Tensor) -> Tensor:
        return self.system.residual(u).expand(u.shape).contiguous()

    def _record(self) -> None:
        """Mark the rows that converged, or are no numbers any more."""
        running = self.codes == RUNNING
        self.codes = torch.where(running & (self.norms <= self.tolerance), int(Status.CONVERGED), self.codes)
        self.codes = torch.where(running & ~torch.isfinite(self.norms), int(Status.NON_FINITE), self.codes)

    def _end(self, where: Tensor, status: Status) -> None:
        self.codes = torch.where(where & (self.codes == RUNNING), int(status), self.codes)

    def _direction(self, active: Tensor, eta: float) -> Tensor:
        """-A(u)^-1 F(u) for the active rows, zero for the others; rows without one are marked."""
        spread = active.reshape(*self.rows.batch, *[1] * len(self.rows.space))
        right = torch.where(spread, -self.residual, 0.0)
        operator = self.method.operator(self.system, self.u)
        finite = torch.isfinite(self.rows.norm(operator.apply(torch.ones_like(self.u)).expand_as(self.u).contiguous()))
        if not bool(finite.all()):
            self._end(active & ~finite, Status.NON_FINITE)
            active = active & finite
            if not bool(active.any()):
                return torch.zeros_like(right)
            operator = _without_rows(operator, ~finite, self.system.axes)
            right = torch.where(finite.reshape(spread.shape), right, 0.0)
        operator, self.sign = positive_diagonal(operator)
        right = self.sign * right
        if not self.why:
            self.linear, self.why = _choose(operator, self.system)
        solved = self._solve(operator, right, eta)
        while solved is None or bool((active & ~_useful(solved)).any()):
            if not self._fall_back(operator):
                break
            solved = self._solve(operator, right, eta)
        if solved is None:
            self._end(active, Status.SINGULAR)
            return torch.zeros_like(right)
        self.inner += torch.where(active, solved.statistics["iterations"], 0)
        useful = _useful(solved)
        self._end(active & ~useful, Status.SINGULAR)
        return torch.where(useful.reshape(spread.shape), solved.value, 0.0)

    def _solve(self, operator: LinearOperator, right: Tensor, eta: float) -> Solution | None:
        """None of a matrix that cannot be factorized.

        While |F| falls quickly the operator hardly changes, and its preconditioner is kept.
        """
        linear = replace(self.linear, rtol=eta, atol=0.0)
        own = getattr(linear, "preconditioner", None)
        try:
            if own is not None:
                start = time.perf_counter()
                if self.preconditioner is None or self.reduction > _KEEP:
                    self.preconditioner = own.prepare(operator)
                self.seconds_setup += time.perf_counter() - start
                linear = replace(linear, preconditioner=_Kept(self.preconditioner))  # type: ignore[call-arg]
            prepared = linear.prepare(operator)
        except SingularError:
            return None
        except InputError:
            # Who asked for a method that does not suit the equation is told so, at the first step and not by a status.
            if self.method.linear is not None and len(self.history) == 1:
                raise
            return None
        self.seconds_setup += prepared.seconds_setup
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a step may be as inaccurate as its residual says
            return prepared.solve(right, throw=False)

    def _fall_back(self, operator: LinearOperator) -> bool:
        """Take a method that asks for less, if none was asked for; False if there is none left."""
        if self.preconditioner is not None and self.reduction <= _KEEP:
            self.preconditioner, self.reduction = None, 1.0
            return True
        if self.method.linear is not None:
            return False
        self.preconditioner = None
        dimension = self.system.domain.dimension
        if isinstance(self.linear, Direct):
            return False
        if direct_is_possible(operator, dimension):
            self.linear, self.why = Direct(), f"since {self.linear.describe()} failed"
            return True
        chosen, why = choose_linear(operator, dimension, definite=False)
        if type(chosen) is type(self.linear):
            return False
        self.linear, self.why = chosen, why
        return True

    def _advance(self, direction: Tensor, active: Tensor) -> None:
        search = self.method.line_search
        if search is None:
            u = self.u + direction
            residual = self._evaluate(u)
            step = Step(u, residual, self.rows.norm(residual), active.long(), torch.zeros_like(active))
        else:
            step = search.search(self._evaluate, self.rows, self.u, direction, self.norms, active)
        self.evaluations += step.evaluations
        self.u, self.residual, self.norms = step.u, step.residual, step.norms
        self._record()
        if bool(step.stopped.any()):
            self._accept_rounding(step.stopped)
            self._end(step.stopped, Status.STAGNATED)

    def _accept_rounding(self, stopped: Tensor) -> None:
        """Count rows as converged where no u of this dtype has a smaller residual, and warn of it.

        Rounding u alone changes F(u) by about eps |A| |u|, where the largest entry of the diagonal stands for |A|.
        """
        diagonal = self.method.operator(self.system, self.u).diagonal().abs().expand(self.u.shape)
        largest = diagonal.reshape(*self.rows.batch, -1).amax(-1)
        limit = 8 * torch.finfo(self.u.dtype).eps * largest * self.rows.norm(self.u)
        at_limit = stopped & (self.codes == RUNNING) & (self.norms <= limit) & (self.norms < 1e-3 * self.scale)
        if bool(at_limit.any()):
            self._end(at_limit, Status.CONVERGED)
            warnings.warn(
                f"the tolerance of {float(self.tolerance[at_limit].min()):.1e} cannot be met in {self.u.dtype}: the "
                f"residual, {float(self.norms[at_limit].max()):.1e}, is at the level of rounding. Use a larger rtol",
                stacklevel=5,
            )


def _useful(solution: Solution) -> Tensor:
    """Rows whose direction lowers the linear residual, if not as far as asked for."""
    left = solution.statistics["relative_residual"]
    return solution.converged | (torch.isfinite(left) & (left < 0.5))


def _choose(operator: LinearOperator, system: AnySystem) -> tuple[LinearSolver, str]:
    """A linear solver that suits the operator at the start, and the reason in a few words."""
    dimension = system.domain.dimension
    if isinstance(system.domain, Mesh):
        return choose_for_jacobian(operator, dimension)
    if isinstance(operator, StencilOperator) and operator.symmetric and dimension > 1:
        return ConjugateGradient(preconditioner=Multigrid()), "the Jacobian is symmetric"
    return choose_linear(operator, dimension, definite=False)


def _without_rows(operator: LinearOperator, bad: Tensor, axes: int) -> LinearOperator:
    """The operator with the identity in rows of the batch that hold NaN, which would spread in set-ups."""
    if isinstance(operator, BlockOperator):
        blocks: list[list[LinearOperator | None]] = []
        for i, row in enumerate(operator.blocks):
            blocks.append([b and _masked(b, bad, axes, float(i == j)) for j, b in enumerate(row)])
        return BlockOperator(blocks, null_space=operator.null_space)
    return _masked(operator, bad, axes, 1.0)


def _masked(operator: LinearOperator, bad: Tensor, axes: int, diagonal: float) -> LinearOperator:
    mask = bad.reshape(*bad.shape, *[1] * axes)
    if isinstance(operator, SparseBatch):
        identity = torch.zeros_like(operator.values[..., :1]).expand_as(operator.values)
        identity = identity.index_fill(-1, operator.pattern.diagonal, diagonal)
        return SparseBatch(operator.pattern, torch.where(mask, identity, operator.values), symmetric=operator.symmetric)
    if not isinstance(operator, StencilOperator):
        return operator
    coefficients = [
        torch.where(mask, 0.0 if any(offset) else diagonal, coefficient)
        for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True)
    ]
    return StencilOperator(
        operator.space, operator.offsets, coefficients, operator.periodic, symmetric=operator.symmetric
    )


@dataclass(frozen=True, eq=False)
class _Kept:
    """A preconditioner that was prepared before."""

    inverse: LinearOperator

    def prepare(self, operator: LinearOperator, /) -> LinearOperator:
        return self.inverse


class _Linearization:
    """The derivative of a system at its solution, times the sign of its diagonal, prepared once however often it is
    asked for."""

    def __init__(self, system: AnySystem, solver: LinearSolver | None, sign: float) -> None:
        self.system = system
        self.solver = solver
        self.sign = sign
        self._plain: Prepared | None = None

    def at(self, x: Tensor) -> Prepared:
        """Prepared for the Jacobian at x; with its gradients, where these are tracked."""
        if self._plain is None:
            with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
                jacobian = self._jacobian(x.detach())
                solver = self.solver or _choose(jacobian, self.system)[0]
                self._plain = replace(solver, rtol=None, atol=0.0).prepare(jacobian)
        if not torch.is_grad_enabled():
            return self._plain
        return self._plain.with_gradients(self._jacobian(x))

    def _jacobian(self, x: Tensor) -> LinearOperator:
        jacobian = self.system.jacobian(x)
        return jacobian if self.sign > 0 else negated(jacobian)
