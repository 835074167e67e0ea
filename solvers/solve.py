"""solve(equation, domain): discretize, choose a method, solve, and say what was done and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sciml.boundary import Boundary
from sciml.discretization import NonlinearSystem, System, discretize, discretize_nonlinear
from sciml.discretization.inputs import require_problem
from sciml.discretization.null_space import names_in, refuse_isolated_cells
from sciml.elements import MeshSystem, NonlinearMeshSystem
from sciml.errors import InputError, SolveError
from sciml.grid import Grid
from sciml.linear_operator import LinearOperator
from sciml.mesh import Mesh
from sciml.modes import in_plain_mode
from sciml.scheme import FiniteElement, Scheme
from sciml.solution import Solution
from sciml.status import Status
from sciml.stencil import StencilOperator

from .choice import choose_linear, direct_is_possible, slower_but_surer
from .linear import Direct
from .linear.base import LinearSolver, failure_message
from .linear.direct import SingularError
from .mesh_methods import choose_on_mesh, factorization_is_possible, surer_on_mesh
from .nonlinear import Continuation, Newton, Picard
from .nonlinear.base import NonlinearSolver
from .singular import why_singular
from .start import guess, resolve_start

if TYPE_CHECKING:
    from sciml.equations import Equation

_NEARER, _NEARER_STEPS = 1e-2, 10  # tolerance and steps of the iteration that makes a better start

_TRIAL = 60  # iterations of multigrid, about as long as another method takes from the start
_COUNTS = ("iterations", "inner_iterations", "evaluations", "seconds_setup", "seconds_solve")

Method = LinearSolver | NonlinearSolver | Continuation


@in_plain_mode
def solve(
    equation: Equation,
    domain: Grid | Mesh,
    *,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Scheme | FiniteElement | None = None,
    method: Method | None = None,
    initial: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    throw: bool = True,
) -> Solution:
    """Solve a steady equation, linear or not, on a grid or a mesh.

    Args:
        equation, domain, fields, parameters, boundary, scheme: see `sciml.discretize`.
        method: a linear solver, for example `ConjugateGradient(preconditioner=Multigrid())`; None chooses one, and
            `solution.method` says which and why. For a nonlinear equation Newton(), Picard() or Continuation(...) of
            `sciml.solvers.nonlinear`, or a linear solver for the steps of Newton's method; None is Newton().
        initial: start of the iteration, a tensor shaped like the solution, a dict of fields by unknown, such as a
            trained operator answers, or an earlier solution, of an evolution its last state; zero if None. Of a
            nonlinear equation also a number or a function of the coordinates.
        rtol, atol: stop at |b - A u| <= max(rtol |b|, atol), row by row, b and A being the right side and the operator
            of the discrete system; of a nonlinear equation F(u) = 0 at |F(u)| <= max(rtol |F(0)|, atol). None is that
            of `method`, for which rtol, dimensionless, is 1e-8 in float64 and 1e-5 in float32, and atol, in the unit
            of the right side, 0.
        throw: raise SolveError if a row does not converge; otherwise its status says so.

    Returns:
        Solution, differentiable with respect to every tensor in fields, parameters and boundary.

    Raises:
        InputError: for input that makes no sense, with what would; among it a pure Neumann or periodic problem whose
            source and boundary fluxes do not balance.
        SolveError: see `throw`; it carries the solution as far as it got.
    """
    if method is not None and not isinstance(method, Method):
        raise InputError(
            "method must be a linear solver, for example ConjugateGradient(preconditioner=Multigrid()), or Newton(), "
            f"Picard() or Continuation(...) for a nonlinear equation, got {method!r}"
        )
    require_problem(equation, domain)
    if not equation.evolving and (not equation.linear or isinstance(method, NonlinearSolver | Continuation)):
        nonlinear = discretize_nonlinear(equation, domain, fields, parameters, boundary, scheme)
        return _solve_nonlinear(nonlinear, method, initial, rtol, atol, throw)
    if isinstance(method, NonlinearSolver | Continuation):
        raise InputError(f"method {type(method).__name__} is for steady equations, and this one has time derivatives")
    system = discretize(equation, domain, fields, parameters, boundary, scheme)
    if isinstance(system, System):
        for row, block in enumerate(system.assembly.diagonal_blocks):
            refuse_isolated_cells(system.assembly.problem, row, block.diagonal())
    operator, right_side = _positive_diagonal(system)
    right_side, notes = _balanced(operator, right_side, system)
    chosen, why = (method, "as requested") if method is not None else choose(system)
    if rtol is not None:
        chosen = replace(chosen, rtol=rtol)
    if atol is not None:
        chosen = replace(chosen, atol=atol)
    start = _begin(initial, system)
    relief = None
    if method is None:
        relief = (surer_on_mesh if isinstance(system, MeshSystem) else slower_but_surer)(chosen, operator)
    if relief is None:
        try:
            solution = _attempt(chosen, operator, right_side, start, throw)
        except SingularError as error:
            raise InputError(f"{why_singular(system)} ({str(error).partition(':')[0]})") from error
    else:
        solution = _attempt(replace(chosen, max_iterations=_TRIAL), operator, right_side, start, throw)
        if bool((solution.codes == Status.MAX_ITERATIONS).any()):
            why = f"{chosen.describe()} had not converged in {_TRIAL} iterations"
            chosen = relief
            second = _attempt(chosen, operator, right_side, solution.value.detach(), throw)
            solution = _continued(solution, second)
    failed = method is None and not bool(solution.converged.all())
    if failed and not isinstance(chosen, Direct) and _direct_is_possible(system) and operator.null_space is None:
        first = next(status for status in solution.status if status is not Status.CONVERGED)
        reason = f"a direct solve, since {chosen.describe()} ended with {first.name}"
        direct = replace(Direct(), rtol=chosen.rtol, atol=chosen.atol)
        try:
            solution = _attempt(direct, operator, right_side, None, throw)
            chosen, why = direct, reason
        except SingularError:
            why = f"{why}; a direct solve is impossible: {why_singular(system)}"
    solution = replace(solution, system=system, method=f"{chosen.describe()} ({why})", notes=(*system.notes, *notes))
    if throw and bool((solution.codes != Status.CONVERGED).any()):
        raise SolveError(failure_message(solution), solution)
    return solution


class _Place(NamedTuple):
    """Where the fields of a start stand."""

    unknowns: tuple[str, ...]
    domain: Grid | Mesh
    axes: int
    space: tuple[int, ...]


def _begin(initial: Any, system: System | MeshSystem) -> Any:
    """The start of a linear solve; what a dict does not name is zero."""
    if not isinstance(initial, Mapping):
        return guess(initial, system.unknowns)
    domain = system.domain
    axes = domain.dimension if isinstance(domain, Grid) else 1
    return resolve_start(initial, _Place(system.unknowns, domain, axes, system.operator.space), complete=False)


def _continued(first: Solution, second: Solution) -> Solution:
    """The second solution, started at the end of the first, with the work and the history of both."""
    history = {name: torch.cat([first.history[name], values[1:]]) for name, values in second.history.items()}
    return replace(_with_work_of(second, first), history=history)


def _with_work_of(solution: Solution, *earlier: Solution) -> Solution:
    """The solution with what earlier attempts took added to its counts."""
    counts = {
        name: sum((other.statistics.get(name, 0) for other in earlier), start=solution.statistics[name])
        for name in _COUNTS
        if name in solution.statistics
    }
    return replace(solution, statistics={**solution.statistics, **counts})


def _solve_nonlinear(
    system: NonlinearSystem | NonlinearMeshSystem,
    method: Method | None,
    initial: Any,
    rtol: float | None,
    atol: float | None,
    throw: bool,
) -> Solution:
    chosen = method if method is not None else Newton()
    if isinstance(chosen, LinearSolver):
        chosen = Newton(linear=chosen)
    inner = chosen.method if isinstance(chosen, Continuation) else chosen
    if rtol is not None:
        inner = replace(inner, rtol=rtol)
    if atol is not None:
        inner = replace(inner, atol=atol)
    chosen = replace(chosen, method=inner) if isinstance(chosen, Continuation) else inner
    if method is not None or initial is not None:
        given = guess(initial, system.unknowns)
        start = None if given is None else resolve_start(given, system, complete=False)
        return chosen.solve(system, start, throw=throw)
    try:
        solution = chosen.solve(system, throw=throw)
        failure = None
    except SolveError as error:
        solution, failure = error.solution, error
    if bool((solution.codes == Status.STAGNATED).any()):
        # From zero a jump at the boundary can be too steep for Newton's method, which lagged coefficients smooth out.
        nearer = Picard(rtol=_NEARER, max_iterations=_NEARER_STEPS).solve(system, throw=False)
        if bool(torch.isfinite(nearer.value).all()):
            second = chosen.solve(system, nearer.value.detach(), throw=False)
            if int(second.converged.sum()) > int(solution.converged.sum()):
                second = replace(second, method=f"{second.method}, from a start by Picard's iteration")
                solution, failure = _with_work_of(second, solution, nearer), None
    if throw and bool((solution.codes != Status.CONVERGED).any()):
        raise failure or SolveError(failure_message(solution), solution)
    return solution


def choose(system: System | MeshSystem) -> tuple[LinearSolver, str]:
    """The method for a system, and the reason in a few words."""
    if isinstance(system, MeshSystem):
        return choose_on_mesh(system.operator, system.domain.dimension, definite=system.definite)
    return choose_linear(system.operator, system.domain.dimension, definite=system.definite)


def _direct_is_possible(system: System | MeshSystem) -> bool:
    possible = factorization_is_possible if isinstance(system, MeshSystem) else direct_is_possible
    return possible(system.operator, system.domain.dimension)


def _positive_diagonal(system: System | MeshSystem) -> tuple[LinearOperator, Tensor]:
    """The system, multiplied by -1 where that makes the diagonal positive, as definite solvers want it."""
    if isinstance(system, MeshSystem):
        return system.with_positive_diagonal()
    operator, right_side = system.operator, system.right_side
    if not isinstance(operator, StencilOperator):
        return operator, right_side
    if not operator.symmetric and operator.null_space is None:
        operator = _with_constant_kernel(operator)
    return (operator, right_side) if system.sign > 0 else (operator.negated(), -right_side)


def _with_constant_kernel(operator: StencilOperator) -> StencilOperator:
    """The operator, its null space stated if constants are annihilated by it and by its transpose (advection and
    diffusion between periodic or closed sides)."""
    plain = operator.detach()
    ones = torch.ones(plain.space, dtype=plain.dtype, device=plain.device)
    scale = 1e3 * torch.finfo(plain.dtype).eps * float(plain.diagonal().abs().max())
    if float(plain.apply(ones).abs().max()) > scale or float(plain.transpose().apply(ones).abs().max()) > scale:
        return operator
    return operator.with_null_space((ones / ones.numel() ** 0.5).unsqueeze(0))


def _balanced(
    operator: LinearOperator, right_side: Tensor, system: System | MeshSystem
) -> tuple[Tensor, tuple[str, ...]]:
    """The right side without its part in the null space, if that is no more than an error of the discretization."""
    if operator.null_space is None:
        return right_side, ()
    axes = tuple(range(-len(operator.space), 0))
    scale = torch.linalg.vector_norm(right_side.detach(), dim=axes)
    worst, names = 0.0, ""
    for vector in operator.null_space:
        component = (right_side * vector).sum(dim=axes, keepdim=True)
        right_side = right_side - component * vector
        share = component.detach().reshape(scale.shape).abs() / torch.where(scale > 0, scale, 1.0)
        if float(share.max()) > worst:
            worst, names = float(share.max()), names_in(vector, system.unknowns) + _where(vector, system)
    if isinstance(system, MeshSystem):
        cells = len(system.domain.cells) ** (1 / system.domain.dimension)
    else:
        cells = min(system.domain.shape)
    allowed = min(0.01, 10 / cells**2)
    if worst > allowed:
        raise InputError(
            f"no side fixes the value of {names}, so that the source and the boundary fluxes must balance, and they do "
            f"not (relative imbalance {worst:.2e}): there is no solution. Subtract the mean from the source there, "
            "change a flux, or give a Dirichlet or Robin condition on one side of it"
        )
    if worst < 1e-12:
        return right_side, ("the value is fixed by a zero mean",)
    return right_side, (
        f"the value is fixed by a zero mean; the source was balanced by subtracting its mean (relative {worst:.1e}, "
        "an error of the discretization)",
    )


def _where(vector: Tensor, system: System | MeshSystem) -> str:
    """The part of a grid that a null vector is about; nothing if it is all that is not solid."""
    domain = system.domain
    if not isinstance(domain, Grid) or domain.solid is None:
        return ""
    cells = (vector != 0).reshape(-1, *domain.shape).any(0).nonzero()
    if len(cells) == int((~domain.solid).sum()):
        return ""
    return f" in the {len(cells)} cells around {tuple(cells[len(cells) // 2].tolist())} that obstacles cut off"


def _attempt(
    method: LinearSolver, operator: LinearOperator, right_side: Tensor, start: Tensor | None, throw: bool
) -> Solution:
    """Solve; a failure is returned, while failing adjoint solves follow `throw`."""
    try:
        return method.prepare(operator).solve(right_side, start, throw=throw)
    except SolveError as error:
        return error.solution
