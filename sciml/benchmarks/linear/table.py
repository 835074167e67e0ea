"""Every method on one problem, this package's and the others'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sciml.solvers.linear import (
    GMRES,
    ILU0,
    MINRES,
    SOR,
    SSOR,
    BiCGStab,
    Chebyshev,
    ConjugateGradient,
    Direct,
    FlexibleConjugateGradient,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
)
from sciml.solvers.linear.base import LinearSolver
from sciml.solvers.linear.successive_over_relaxation import Ordering

from ..bench import Bench
from ..row import Row
from .peers import (
    MULTIGRID_CG,
    RUGE_STUBEN,
    SCIPY_DIRECT,
    SMOOTHED_AGGREGATION,
    TORCH_SLA_AMG,
    TORCH_SLA_CG,
    own,
    pyamg_cg,
    scipy_cg,
    scipy_direct,
    torch_sla,
)
from .problems import poisson
from .solves import size

DIRECT = "Direct"
_FACTORIZING = {DIRECT: "sciml", SCIPY_DIRECT: "scipy"}
_LARGEST_FACTORIZED = {2: 300_000, 3: 10_000}  # unknowns, by dimension


def table_case(shape: Sequence[int]) -> str:
    """Name of the case."""
    return f"all methods, Poisson {size(shape)} to 1e-8"


def methods(shape: Sequence[int], device: str) -> dict[str, LinearSolver]:
    """The methods of this package by name, with the relaxation that is known to be best on this problem."""
    n = max(shape)
    sor = 2 / (1 + math.sin(math.pi / n))  # Young, Iterative Solution of Large Linear Systems (1971)
    ssor = 2 / (1 + 2 * math.sin(math.pi / (2 * n)))  # Young, Adv. Math. 23 (1977) 215-271
    ordering: Ordering = "natural"
    if device != "cpu":
        ordering, ssor = "multicolour", 1.0  # over-relaxation does not help SSOR in coloured order
    found: dict[str, LinearSolver] = {
        MULTIGRID_CG: ConjugateGradient(preconditioner=Multigrid()),
        "Flexible CG + Multigrid": FlexibleConjugateGradient(preconditioner=Multigrid()),
        "Multigrid": Multigrid(),
        "CG": ConjugateGradient(),
        "CG + Jacobi": ConjugateGradient(preconditioner=Jacobi()),
        f"CG + SSOR({ssor:.3g})": ConjugateGradient(preconditioner=SSOR(relaxation=ssor, ordering=ordering)),
        "CG + IC(0)": ConjugateGradient(preconditioner=IncompleteCholesky()),
        "CG + Chebyshev": ConjugateGradient(preconditioner=Chebyshev()),
        "MINRES": MINRES(),
        "BiCGStab": BiCGStab(),
        "GMRES(30) + ILU(0)": GMRES(preconditioner=ILU0()),
        "GMRES(30) + Multigrid": GMRES(preconditioner=Multigrid()),
        f"SOR({sor:.3g})": SOR(relaxation=sor, ordering=ordering),
        DIRECT: Direct(),
    }
    return {name: replace(solver, rtol=1e-8) for name, solver in found.items()}


def compare_all(shape: Sequence[int], bench: Bench) -> list[Row]:
    """Set-up and solve to 1e-8 by every method there is."""
    problem = poisson(shape, bench.device)
    case = table_case(shape)
    factorized = problem.unknowns <= _LARGEST_FACTORIZED[len(shape)] and bench.device == "cpu"
    contenders = [
        own(problem, name, solver)
        for name, solver in methods(shape, bench.device).items()
        if factorized or not isinstance(solver, Direct)
    ]
    if factorized:
        contenders.append(scipy_direct(problem))
    contenders += [
        scipy_cg(problem, 1e-8),
        pyamg_cg(problem, RUGE_STUBEN, 1e-8),
        pyamg_cg(problem, SMOOTHED_AGGREGATION, 1e-8),
        torch_sla(problem, TORCH_SLA_CG, 1e-8),
        torch_sla(problem, TORCH_SLA_AMG, 1e-8),
    ]
    rows = bench.compare(
        case, contenders, unknowns=problem.unknowns, residual=problem.relative_residual, tolerance=1e-8
    )
    if not factorized:
        reason = {"failure": f"a factorization of {problem.unknowns:,} unknowns on {bench.device} is left out"}
        rows += [bench.row(case, method, library, extra=reason) for method, library in _FACTORIZING.items()]
    return rows
