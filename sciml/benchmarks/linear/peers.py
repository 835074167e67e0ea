"""Methods of this package and of others as contenders, all under one stopping rule: |b - A x| <= tolerance |b|."""

from __future__ import annotations

import warnings
from typing import Any

import numpy
import torch

from sciml.solvers.linear.base import LinearSolver

from ...status import Status
from ..bench import version_of
from ..timing import Contender, Outcome
from .problems import LinearProblem

MULTIGRID_CG = "CG + Multigrid"
SCIPY_CG = "cg"
SCIPY_DIRECT = "spsolve"
RUGE_STUBEN = "Ruge-Stuben + CG"
SMOOTHED_AGGREGATION = "smoothed aggregation + CG"
TORCH_SLA_CG = "cg + Jacobi"
TORCH_SLA_AMG = "cg + AMG"

_AMG = {RUGE_STUBEN: "ruge_stuben_solver", SMOOTHED_AGGREGATION: "smoothed_aggregation_solver"}
_MANY = 20_000


def own(problem: LinearProblem, method: str, solver: LinearSolver) -> Contender:
    """A solver of this package."""

    def finish(solution: Any) -> Outcome:
        worst = Status(int(solution.codes.max()))
        note = None if worst is Status.CONVERGED else worst.name
        return Outcome(solution.value, int(solution.statistics["iterations"].max()), note)

    return Contender(
        method,
        "sciml",
        version_of("sciml"),
        prepare=lambda: solver.prepare(problem.operator),
        solve=lambda prepared: prepared.solve(problem.b, throw=False),
        finish=finish,
        device=problem.operator.device.type,
    )


def scipy_cg(problem: LinearProblem, tolerance: float, max_iterations: int = _MANY) -> Contender:
    """scipy's conjugate gradients with a CSR matrix."""
    from scipy.sparse.linalg import cg

    matrix, b = problem.matrix, problem.right_side

    def solve(_: Any) -> Outcome:
        iterations = 0

        def count(_: Any) -> None:
            nonlocal iterations
            iterations += 1

        x, _ = cg(matrix, b, rtol=tolerance, atol=0.0, maxiter=max_iterations, callback=count)
        return Outcome(x, iterations)

    return Contender(SCIPY_CG, "scipy", version_of("scipy"), solve, lambda outcome: outcome)


def scipy_direct(problem: LinearProblem) -> Contender:
    """scipy's sparse direct solver, SuperLU, which tells no factorization from the solve."""
    from scipy.sparse.linalg import spsolve

    matrix, b = problem.matrix.tocsc(), problem.right_side
    return Contender(SCIPY_DIRECT, "scipy", version_of("scipy"), lambda _: spsolve(matrix, b), lambda x: Outcome(x))


def pyamg_cg(problem: LinearProblem, method: str, tolerance: float) -> Contender:
    """Conjugate gradients preconditioned by pyamg; `method` is RUGE_STUBEN or SMOOTHED_AGGREGATION."""

    def prepare() -> Any:
        import pyamg

        return getattr(pyamg, _AMG[method])(matrix)

    def solve(hierarchy: Any) -> Outcome:
        residuals: list[float] = []
        x = hierarchy.solve(b, tol=tolerance, maxiter=500, accel="cg", residuals=residuals)
        return Outcome(x, len(residuals) - 1)

    matrix, b = problem.matrix, problem.right_side
    return Contender(method, "pyamg", version_of("pyamg"), solve, lambda outcome: outcome, prepare=prepare)


def torch_sla(problem: LinearProblem, method: str, tolerance: float) -> Contender:
    """torch-sla's conjugate gradients on the problem's device, which tell no set-up from the solve and count nothing.

    Its relative tolerance is fixed at 1e-10, below those used here, so that the absolute one decides.
    """
    device = problem.operator.device
    matrix = problem.matrix.tocoo()
    values = torch.from_numpy(matrix.data).to(device)
    rows, columns = (torch.from_numpy(index.astype(numpy.int64)).to(device) for index in (matrix.row, matrix.col))
    b = torch.from_numpy(problem.right_side).to(device)
    preconditioner = {TORCH_SLA_CG: "jacobi", TORCH_SLA_AMG: "pyamg"}[method]
    limit = tolerance * float(b.norm())

    @torch.no_grad()
    def solve(_: Any) -> Any:
        from torch_sla import spsolve

        settings = {"backend": "pytorch", "method": "cg", "preconditioner": preconditioner}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return spsolve(values, rows, columns, matrix.shape, b, atol=limit, maxiter=_MANY, **settings)

    def finish(x: Any) -> Outcome:
        return Outcome(x.cpu().numpy())

    return Contender(method, "torch-sla", version_of("torch-sla"), solve, finish, device=device.type)
