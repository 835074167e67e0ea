"""What every linear solver shares: set-up, the true residual, status row by row, and the gradient of a solve.

A solver is a frozen dataclass of its settings. `prepare(A)` returns a `Prepared`, which holds what depends on A alone
and solves for any number of right sides.
"""

from __future__ import annotations

import time
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.copies import deep_copy
from sciml.differentiation import detached, in_transform, outside_transforms, refuse_transforms_but_jvp
from sciml.errors import InputError, SolveError
from sciml.linear_operator import Kind, LinearOperator, MatrixFreeOperator
from sciml.solution import Solution
from sciml.sparse import as_operator
from sciml.status import Status

from .adjoint import attach_gradient
from .finiteness import check_finite, is_matrix
from .inverse import ApproximateInverse
from .rows import Rows, power_of_two
from .settings import check_count, check_number

_RESTARTS = 4


@runtime_checkable
class Preconditioner(Protocol):
    """Anything whose `prepare(A)` returns an operator that approximates the inverse of A and knows its kind."""

    def prepare(self, operator: LinearOperator, /) -> LinearOperator: ...


@dataclass
class Iteration:
    """The task handed to a method, and the state that it advances in place.

    Attributes:
        operator: A, without gradients.
        rows: operations row by row.
        b: right side, `(*batch, *space)`.
        x: the iterate, changed in place.
        r: b - A x at the start; scratch afterwards.
        tolerance: absolute tolerance on |b - A x|, of batch shape, float64.
        max_iterations: what is left of the limit.
        iterations: int64 of batch shape, counted up by the method for every row that it advances.
        codes: int64 of batch shape, values of Status; `RUNNING` while undecided.
        history: residual norms, one tensor of batch shape an iteration.
        deadline: of `time.perf_counter()`, in seconds, after which no further step is begun.
        statistics: what the method adds to those of the solution.
        solved_by: the operator, which may carry gradients -> what solves in derivatives, if not the method itself.
        seconds_setup: time that went into further set-up on the way.
    """

    operator: LinearOperator
    rows: Rows
    b: Tensor
    x: Tensor
    r: Tensor
    tolerance: Tensor
    max_iterations: int
    iterations: Tensor
    codes: Tensor
    history: list[Tensor] = field(default_factory=list)
    deadline: float = inf
    statistics: dict[str, Any] = field(default_factory=dict)
    solved_by: Callable[[LinearOperator], Prepared] | None = None
    seconds_setup: float = 0.0

    RUNNING = -1

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline < inf and time.perf_counter() >= self.deadline

    def active(self) -> Tensor:
        """bool of batch shape: rows still to be advanced."""
        if self._active_of is not self.codes:
            self._active_of = self.codes
            self._active = self.codes == self.RUNNING
            self._any_active = None
        return self._active

    def record(self, norms: Tensor) -> None:
        """Note the residual norms after an iteration, and mark the rows that converged or went non-finite."""
        self.history.append(norms)
        if self._nowhere(~((norms > self.tolerance) & (norms < torch.inf))):
            return
        running = self.active()
        self.codes = torch.where(running & (norms <= self.tolerance), Status.CONVERGED, self.codes)
        self.codes = torch.where(running & ~torch.isfinite(norms), Status.NON_FINITE, self.codes)

    def fail(self, where: Tensor, status: Status) -> None:
        """Mark the running rows of a mask as ended with a status."""
        if not self._nowhere(where):
            self.codes = torch.where(where & self.active(), int(status), self.codes)

    def finished(self, step: int) -> bool:
        """Whether no row is left to advance, or no time. On the GPU it asks only where the answer may be yes."""
        if self.expired:
            return True
        if self.b.device.type != "cpu" and step < self._next_check:
            return False
        active = self.active()
        if self._any_active is None:
            self._any_active = bool(active.any())
        if not self._any_active:
            return True
        if self.b.device.type != "cpu":
            self._next_check = step + self._expected_steps()
        return False

    def _nowhere(self, mask: Tensor) -> bool:
        """Whether a mask is known to be False everywhere; asking costs less than updating, but for the GPU's wait."""
        return mask.device.type == "cpu" and not bool(mask if mask.ndim == 0 else mask.any())

    _active_of: Tensor | None = None
    _active: Tensor = field(init=False)
    _any_active: bool | None = None
    _next_check: int = 1

    def _expected_steps(self) -> int:
        """Steps until the slowest row should converge, from the geometric mean of the rates so far."""
        if len(self.history) < 2:
            return 1
        first, last = self.history[0], self.history[-1]
        rate = (last / first).log() / (len(self.history) - 1)
        steps = ((self.tolerance / last).log() / rate.clamp(max=-1e-3)).nan_to_num(1.0)
        return max(1, min(50, int(torch.where(self.active(), steps, 1.0).max().floor())))


@dataclass(frozen=True, kw_only=True)
class LinearSolver(ABC):
    """Base of the solvers: `prepare` once, `solve` for any number of right sides.

    Args:
        rtol, atol: stop at |b - A x| <= max(rtol |b|, atol), row by row, both dimensionless multiples of what b is
            measured in; rtol None is 1e-8 in float64 and 1e-5 in float32.
        max_iterations: limit on the iterations of a solve; None is ten times the number of unknowns, at least 100 and
            at most 20,000.
    """

    rtol: float | None = None
    atol: float = 0.0
    max_iterations: int | None = None

    stationary: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.rtol is not None:
            check_number(self.rtol, "rtol", 0.0, 1.0, "[)")
        check_number(self.atol, "atol", 0.0, inf, "[)")
        if self.max_iterations is not None:
            check_count(self.max_iterations, "max_iterations")
        self.validate()

    def prepare(self, operator: LinearOperator | Tensor | object) -> Prepared:
        """Do all work that depends on the matrix alone.

        Args:
            operator: LinearOperator, torch matrix of any layout, or scipy sparse matrix.

        Raises:
            InputError: if the method does not fit the operator, or the operator holds NaN or infinity.
        """
        return Prepared(self, as_operator(operator))

    def solve(
        self,
        operator: LinearOperator | Tensor | object,
        b: Tensor,
        x0: Tensor | None = None,
        *,
        throw: bool = True,
    ) -> Solution:
        """`prepare(operator).solve(b, x0)`; see Prepared.solve."""
        return self.prepare(operator).solve(b, x0, throw=throw)

    def relative_tolerance(self, dtype: torch.dtype) -> float:
        """rtol with its default filled in."""
        if self.rtol is not None:
            return self.rtol
        return 1e-8 if dtype == torch.float64 else 1e-5

    def iteration_limit(self, size: int) -> int:
        """max_iterations with its default filled in."""
        return self.max_iterations if self.max_iterations is not None else min(20_000, max(100, 10 * size))

    @abstractmethod
    def validate(self) -> None:
        """Raise InputError for settings out of range."""

    @abstractmethod
    def describe(self) -> str:
        """Name and preconditioner in a few words."""

    @abstractmethod
    def setup(self, operator: LinearOperator) -> Any:
        """What depends on the matrix alone; the operator carries no gradients."""

    @abstractmethod
    def iterate(self, task: Iteration, state: Any) -> None:
        """Advance `task.x` until no row is active or the limit is reached."""


class Prepared(MatrixFreeOperator):
    """A solver together with a matrix and all that was computed from it; as an operator, an approximate inverse.

    Applied to a field, a stationary method (Jacobi, SOR, SSOR, Chebyshev, Multigrid) makes one sweep or cycle from
    zero, any other solves to its own tolerance.

    Attributes:
        solver: the settings.
        operator: the matrix as given, which may carry gradients.
        state: what the solver's set-up gave.
        seconds_setup: time that the set-up took.
    """

    def __init__(self, solver: LinearSolver, operator: LinearOperator, state: Any = None) -> None:
        start = time.perf_counter()
        self.solver = solver
        self.operator = operator
        # An operator that is known by its action alone may hold tensors that torch.func has wrapped: it stays inside.
        self._outside = in_transform() and is_matrix(operator)
        with torch.inference_mode(False), torch.no_grad(), self._place():
            self._plain = operator.detach()
            if state is None:
                check_finite(self._plain)
                state = solver.setup(self._plain)
            self.state = state
        super().__init__(
            operator.space,
            operator.batch,
            operator.dtype,
            operator.device,
            symmetric=operator.symmetric and solver.stationary and self.state.symmetric,
            kind=self.state.kind if solver.stationary else Kind.NONLINEAR,
        )
        self._transposed: Prepared | None = None
        self._original: weakref.ref[Prepared] | None = None
        self.seconds_setup = time.perf_counter() - start

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by what it was made from: factors of other libraries and addresses in memory stay in this process."""
        return Prepared, (self.solver, self.operator)

    def __deepcopy__(self, memo: dict[int, Any]) -> Prepared:
        return Prepared(*deep_copy((self.solver, self.operator), memo, "the operator of a prepared solver"))

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if self.solver.stationary:
            return self.state.apply(x, out)
        # Inside another method a row that went non-finite is that method's to report: it must not end the other rows.
        value = self.solve(torch.nan_to_num(x, 0.0, 0.0, 0.0), throw=False).value
        return value if out is None else out.copy_(value)

    def transpose(self) -> Prepared:
        """The same solver prepared for the transposed matrix."""
        if self.operator.symmetric:
            return self
        if self._original is not None and (original := self._original()) is not None:
            return original
        if self._transposed is None:
            # Factors serve the transposed matrix too; whatever cannot be transposed is set up again.
            reusable = isinstance(self.state, ApproximateInverse | Prepared)
            state = self.state.transpose() if reusable else None
            self._transposed = Prepared(self.solver, self.operator.transpose(), state)
            # A strong reference back would be a cycle, and keep whole hierarchies alive until it is collected.
            self._transposed._original = weakref.ref(self)
        return self._transposed

    def to(self, dtype: torch.dtype) -> Prepared:
        return Prepared(self.solver, self.operator.to(dtype))

    def detach(self) -> Prepared:
        return Prepared(self.solver, self._plain)

    def __getitem__(self, row: int) -> Prepared:
        return Prepared(self.solver, self.operator[row])

    def with_gradients(self, operator: LinearOperator, solver: LinearSolver | None = None) -> Prepared:
        """The same set-up for an operator of the same values, which may carry gradients, or with another tolerance."""
        return Prepared(solver or self.solver, operator, self.state)

    def solve(self, b: Tensor, x0: Tensor | None = None, *, throw: bool = True) -> Solution:
        """Solve A x = b, each row with its own stopping.

        Args:
            b: right side, `(*batch, *space)`; its batch and the operator's broadcast.
            x0: start, broadcastable to the solution; zero if None.
            throw: raise SolveError if a row does not converge, instead of returning its status.

        Returns:
            Solution whose `value` is x, differentiable with respect to b and to the operator's coefficients.

        Raises:
            InputError: for a right side of wrong shape, type or device, with NaN, or incompatible with a singular
                matrix.
            SolveError: see `throw`.
        """
        start = time.perf_counter()
        plain = self._plain
        self._check(b, "the right side")
        refuse_transforms_but_jvp("a solve")
        batch = self._common_batch(b, x0)
        rows = Rows(batch, plain.space)
        with torch.no_grad(), self._place():
            right = self._values(b).expand(*batch, *plain.space).contiguous()
            axes = tuple(range(-len(plain.space), 0))
            peak = torch.linalg.vector_norm(right, ord=torch.inf, dim=axes)
            if not bool(torch.isfinite(peak).all()):
                bad = int((~torch.isfinite(right)).sum())
                raise InputError(f"the right side holds {bad} NaN or infinite values")
            unit = power_of_two(peak)
            if unit is not None:
                right = right / rows.spread(unit, right)
            scale = rows.norm(right)
            right = self._compatible(right, rows, scale)
            if x0 is None:
                x = torch.zeros_like(right)
                residual = right.clone()
                norms = scale
            else:
                self._check(x0, "the start x0")
                x = self._values(x0).expand_as(right).clone(memory_format=torch.contiguous_format)
                if unit is not None:
                    x /= rows.spread(unit, x)
                if plain.null_space is not None:
                    rows.project_out(x, plain.null_space)
                residual = plain.residual(right, x)
                norms = rows.norm(residual)
                if not bool(torch.isfinite(norms).all()):
                    raise InputError("the start x0 has a residual that is not finite: it or the operator holds NaN")
            floor = self.solver.atol if unit is None else self.solver.atol / unit
            relative = self.solver.relative_tolerance(plain.dtype) * scale
            tolerance = torch.maximum(relative, torch.as_tensor(floor).to(scale))
            task = Iteration(
                plain,
                rows,
                right,
                x,
                residual,
                tolerance,
                self.solver.iteration_limit(plain.size),
                torch.zeros(batch, dtype=torch.int64, device=right.device),
                torch.full(batch, Iteration.RUNNING, dtype=torch.int64, device=right.device),
            )
            task.record(norms)
            norms = self.advance(task, norms)
            relative = norms / torch.where(scale > 0, scale, 1.0)
            history = torch.stack(task.history)
            if unit is not None:
                task.x *= rows.spread(unit, task.x)
                norms, history = norms * unit, history * unit
        solution = Solution(
            value=task.x,
            codes=task.codes,
            statistics={
                "iterations": task.iterations,
                "residual_norm": norms,
                "relative_residual": relative,
                "seconds_setup": self.seconds_setup + task.seconds_setup,
                **task.statistics,
            },
            history={"residual_norm": history},
            method=self.solver.describe(),
        )
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            solution = attach_gradient(self, b, solution, throw, task.solved_by)
        solution.statistics["seconds_solve"] = time.perf_counter() - start - task.seconds_setup
        if throw and bool((task.codes != Status.CONVERGED).any()):
            raise SolveError(failure_message(solution), solution)
        return solution

    def _place(self) -> AbstractContextManager[None]:
        """Where it computes: outside transforms of torch.func, if it can."""
        return outside_transforms() if self._outside else nullcontext()

    def _values(self, tensor: Tensor) -> Tensor:
        return detached(tensor) if self._outside else tensor.detach()

    def advance(self, task: Iteration, norms: Tensor) -> Tensor:
        """Iterate, then trust only b - A x computed afresh; rows that fall short are continued from where they are."""
        plain, rows = task.operator, task.rows
        limit = task.max_iterations
        for _ in range(_RESTARTS):
            if task.max_iterations <= 0 or not bool(task.active().any()):
                break
            self.solver.iterate(task, self.state)
            if plain.null_space is not None:
                rows.project_out(task.x, plain.null_space)
            task.r = plain.residual(task.b, task.x, out=task.r)
            previous, norms = norms, rows.norm(task.r)
            met = norms <= task.tolerance
            short = ((task.codes == Status.CONVERGED) | (task.codes == Status.BREAKDOWN)) & ~met
            task.fail(~short, Status.MAX_ITERATIONS)
            stuck = torch.where(task.codes == Status.CONVERGED, int(Status.STAGNATED), task.codes)
            task.codes = torch.where(short, torch.where(norms <= 0.5 * previous, Iteration.RUNNING, stuck), task.codes)
            task.codes = torch.where(met, int(Status.CONVERGED), task.codes)
            task.max_iterations = limit - int(task.iterations.max())
        task.fail(torch.ones_like(norms, dtype=torch.bool), Status.STAGNATED)
        self._accept_rounding(task, norms)
        return norms

    def _accept_rounding(self, task: Iteration, norms: Tensor) -> None:
        """Count rows as converged where no x of this dtype has a smaller residual, and warn of it.

        Rounding x alone changes b - A x by about eps |A| |x|, where the larger of the diagonal's entry and what
        becomes of random signs stands for a row of |A|. With a residual as large as that of x = 0 nothing is solved.
        """
        failed = task.codes != Status.CONVERGED
        if not bool(failed.any()):
            return
        rows = task.rows
        signs = torch.rand(task.operator.space, generator=torch.Generator().manual_seed(0)).sub_(0.5).sign_()
        image = task.operator.apply(signs.to(task.x).expand_as(task.x).contiguous())
        size = torch.maximum(image.abs(), task.operator.diagonal().abs()).mul_(task.x)
        limit = 8 * torch.finfo(task.x.dtype).eps * rows.norm(size)
        at_limit = failed & (norms <= limit) & (norms < rows.norm(task.b))
        if bool(at_limit.any()):
            advice = "a larger rtol" if task.x.dtype == torch.float64 else "float64 or a larger rtol"
            task.codes = torch.where(at_limit, int(Status.CONVERGED), task.codes)
            warnings.warn(
                f"the tolerance of {float(task.tolerance[at_limit].min()):.1e} cannot be met in {task.x.dtype}: the "
                f"residual, {float(norms[at_limit].max()):.1e}, is at the level of rounding. Use {advice}",
                stacklevel=4,
            )

    def _common_batch(self, b: Tensor, x0: Tensor | None) -> torch.Size:
        """The batch shape of a solve."""
        axes = len(self._plain.space)
        shapes = [torch.Size(self._plain.batch), b.shape[: b.ndim - axes]]
        if x0 is not None:
            self._check(x0, "the start x0")
            shapes.append(x0.shape[: x0.ndim - axes])
        try:
            return torch.broadcast_shapes(*shapes)
        except RuntimeError:
            names = ("the operator", "the right side", "the start x0")
            listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(names, shapes, strict=False))
            raise InputError(f"batch shapes that do not broadcast: {listed}") from None

    def _check(self, field: Tensor, name: str) -> None:
        plain = self._plain
        if not isinstance(field, Tensor):
            raise InputError(f"{name} must be a tensor, got {type(field).__name__}")
        if tuple(field.shape[max(0, field.ndim - len(plain.space)) :]) != plain.space:
            raise InputError(f"{name} has shape {tuple(field.shape)}, expected (*batch, *{plain.space})")
        if field.dtype != plain.dtype or field.device != plain.device:
            raise InputError(
                f"{name} is {field.dtype} on {field.device}, the operator {plain.dtype} on {plain.device}: convert one"
            )

    def _compatible(self, b: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        """b without its part in the null space of a singular symmetric operator, which must be rounding only."""
        null_space = self._plain.null_space
        if null_space is None:
            return b
        projected = b.clone()
        part = rows.project_out(projected, null_space)
        share = part / torch.where(scale > 0, scale, 1.0)
        if bool((share > torch.finfo(b.dtype).eps ** 0.5).any()):
            raise InputError(
                "the operator is singular and the right side is not orthogonal to its null space (relative part "
                f"{float(share.max()):.2e}): there is no solution. For a pure Neumann or periodic problem the source "
                "and the boundary fluxes must balance; subtract the mean of the source, or fix the value somewhere"
            )
        return projected


def failure_message(solution: Solution) -> str:
    """One sentence on which rows failed, how far they got, and what to do."""
    codes = solution.codes.reshape(-1)
    residuals = torch.as_tensor(solution.statistics["relative_residual"]).reshape(-1)
    iterations = torch.as_tensor(solution.statistics["iterations"]).reshape(-1)
    bad = torch.nonzero(codes != Status.CONVERGED).reshape(-1)
    worst = int(bad[0])
    status = Status(int(codes[worst]))
    where = "" if len(codes) == 1 else f"row {worst} ({len(bad)} of {len(codes)} rows failed) "
    return (
        f"{solution.method}: {where}ended with {status.name} after {int(iterations[worst])} iterations at a relative "
        f"residual of {float(residuals[worst]):.2e}. {status.advice}"
    )
