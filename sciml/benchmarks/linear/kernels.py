"""Speed of the parts against the memory's: one 5-point stencil, one iteration of conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy
import torch
from torch import Tensor

from sciml.solvers.linear import ConjugateGradient

from ...kernels import build
from ..bench import Bench, version_of
from ..row import Row
from ..timing import Contender, Outcome
from .peers import own, scipy_cg
from .problems import Problem, poisson, stencil_product

COPY = "copy"
COMPILED = "apply, compiled kernel"
SLICES = "apply, sums of slices"
CSR = "apply, CSR matrix"
PLAIN_CG = "CG"

WITHOUT_KERNELS = {"SCIML_KERNELS": "0"}
_CSR_CELLS = 2_000_000  # matrices of more unknowns are not made: they take gigabytes

# Bytes of float64 that must move for every unknown, each field read or written once in each pass that needs it.
COPY_BYTES = 16
# The product with its inner product 16; x, r, p, q read, x and r written 48; r, p read, p written 24.
CG_BYTES = 88


def apply(n: int, compiled: bool, bench: Bench) -> list[Row]:
    """One application against copying the field; with `compiled`, against products with CSR matrices too.

    All without recording gradients, as within a solver.
    """
    problem = poisson((n, n), bench.device)
    operator, x = problem.operator, problem.b
    out, copied = torch.empty_like(x), torch.empty_like(x)
    expected = stencil_product(operator, x.cpu().numpy())

    def error(value: Any) -> float:
        found = value.cpu().numpy() if isinstance(value, Tensor) else value
        return float(numpy.linalg.norm(found.reshape(expected.shape) - expected) / numpy.linalg.norm(expected))

    def contender(method: str, library: str, act: Callable[[], Any], finish: Callable[[Any], Outcome]) -> Contender:
        @torch.no_grad()
        def solve(_: Any) -> Any:
            return act()

        return Contender(method, library, version_of(library), solve, finish, device=bench.device, loops=None)

    method = COMPILED if bench.device == "cpu" and build.library() is not None else SLICES
    contenders = [
        contender(COPY, "torch", lambda: copied.copy_(x), lambda _: Outcome()),
        contender(method, "sciml", lambda: operator.apply(x, out=out), Outcome),
    ]
    if compiled and n * n <= _CSR_CELLS:
        csr, flat = operator.to_sparse(), x.reshape(-1)
        matrix, array = problem.matrix, problem.right_side
        contenders.append(contender(CSR, "torch", lambda: torch.mv(csr, flat), Outcome))
        contenders.append(replace(contender(CSR, "scipy", lambda: matrix @ array, Outcome), device="cpu"))
    rows = bench.compare(apply_case(n, compiled), contenders, unknowns=problem.unknowns, error=error)
    return [_with_bandwidth(row, COPY_BYTES * n * n, bench) for row in rows]


def apply_case(n: int, compiled: bool) -> str:
    """Name of the case."""
    return f"5-point apply {n}x{n}" + ("" if compiled else ", no compiled kernels")


def iterations(n: int, count: int, bench: Bench) -> list[Row]:
    """A fixed number of iterations of conjugate gradients, which is not enough for any tolerance."""
    problem = poisson((n, n), bench.device)
    contenders = [
        own(problem, PLAIN_CG, ConjugateGradient(rtol=0.0, max_iterations=count)),
        scipy_cg(problem, 0.0, count),
    ]
    rows = bench.compare(
        iterations_case(n, count), contenders, unknowns=problem.unknowns, residual=problem.relative_residual
    )
    return [_per_iteration(row, CG_BYTES * n * n, bench) for row in rows]


def iterations_case(n: int, count: int) -> str:
    """Name of the case."""
    return f"CG {n}x{n}, {count} iterations"


def _per_iteration(row: Row, least_bytes: int, bench: Bench) -> Row:
    if row.solve_seconds is None or not row.iterations:
        return row
    seconds = row.solve_seconds / row.iterations
    extra = {key: value for key, value in row.extra.items() if key != "note"}
    extra["seconds_per_iteration"] = seconds
    return _with_bandwidth(replace(row, extra=extra), least_bytes, bench, seconds)


def _with_bandwidth(row: Row, least_bytes: int, bench: Bench, seconds: float | None = None) -> Row:
    """The row with the bytes that must move over the time it took, and what copying reaches."""
    seconds = seconds or row.solve_seconds
    if seconds is None or row.device != bench.device:
        return row
    return replace(row, extra={**row.extra, "bytes_per_second": least_bytes / seconds})


def multigrid_bytes(dimension: int, sweeps: int = 2) -> float:
    """Bytes an unknown that an iteration of CG with a float32 V-cycle of constant coefficients must move.

    On every level, per unknown: the first sweep 8, each other 12, the residual 12, restriction 4, prolongation 8, and a
    share of the coarser field for both; all levels together 1/(1 - 2^-d) of the finest. Converting the residual to
    float32 and the correction back takes 24, the iteration itself CG_BYTES and 16 for the second inner product.
    """
    coarser = 0.5**dimension
    level = 8 + 12 * (2 * sweeps - 1) + 12 + 4 + 8 + 8 * coarser
    return level / (1 - coarser) + 24 + CG_BYTES + 16


def solve_bandwidth(row: Row, problem: Problem, bench: Bench) -> Row:
    """A multigrid-CG row with the bytes a second of its solve."""
    if not row.iterations or row.solve_seconds is None:
        return row
    space = problem.operator.space
    least = multigrid_bytes(len(space)) * prod(space)
    return _with_bandwidth(row, int(least), bench, row.solve_seconds / row.iterations)
