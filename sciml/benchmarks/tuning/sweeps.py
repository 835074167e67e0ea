"""Sweeps of SSOR against scipy's triangular solves and torch's, and a batch of systems at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy
import scipy.sparse
import torch
from scipy.sparse.linalg import spsolve_triangular
from torch import Tensor

from sciml.solvers.linear import SOR, SSOR
from sciml.solvers.linear.successive_over_relaxation import Ordering

from ..bench import Bench, version_of
from ..linear.problems import poisson
from ..row import Row
from ..timing import Contender, Outcome
from .relaxation import HIGH, shifted

NATURAL, COLOURED = "SSOR, natural order", "SSOR, colour after colour"
ROWS, COLOURED_ROWS = "SSOR, natural order, CSR matrix", "SSOR, colour after colour, CSR matrix"
SCIPY, TORCH = "two triangular solves by scipy", "two triangular solves by torch"
ABREAST, IN_TURN = "SOR, all systems at once", "SOR, one system after the other"

_OMEGA = 1.5


def sweeps_case(n: int) -> str:
    """Name of the case."""
    return f"SSOR applied, {n}x{n}"


def measure_sweeps(n: int, bench: Bench) -> list[Row]:
    """One application, a sweep forward and one backward; the error is the distance to scipy's."""
    problem = poisson((n, n), bench.device)
    on_cpu = bench.device == "cpu"
    contenders = []
    kinds: tuple[tuple[Ordering, str, str], ...] = (
        ("natural", NATURAL, ROWS),
        ("multicolour", COLOURED, COLOURED_ROWS),
    )
    for ordering, stencil, rows in kinds:
        if ordering == "natural" and not on_cpu:
            continue
        for method, operator in ((stencil, problem.operator), (rows, problem.operator.to_sparse())):
            prepare = partial(SSOR(_OMEGA, ordering).prepare, operator)
            finish = Outcome if ordering == "natural" else _without_value
            apply = _application(problem.b.reshape(operator.shape[-1:] if method == rows else problem.operator.space))
            contenders.append(
                Contender(method, "sciml", version_of("sciml"), apply, finish, prepare, bench.device, loops=None)
            )
    if on_cpu:
        reference = _scipy_triangles(problem.matrix)
        right = problem.right_side
        solve = partial(_solve_by_scipy, right)
        contenders.append(Contender(SCIPY, "scipy", version_of("scipy"), solve, Outcome, lambda: reference, loops=None))
        contenders.append(_torch_triangles(problem.matrix, problem.b.reshape(-1, 1)))
        expected = _solve_by_scipy(right, reference)
    else:
        expected = numpy.zeros(0)

    def error(value: Any) -> float:
        found = value.numpy() if isinstance(value, Tensor) else value
        return float(numpy.linalg.norm(found.reshape(-1) - expected) / numpy.linalg.norm(expected))

    return bench.compare(sweeps_case(n), contenders, unknowns=problem.unknowns, error=error)


def batch_case(count: int) -> str:
    """Name of the case."""
    return f"SOR, {count} systems of n=100"


def measure_batch(count: int, bench: Bench) -> list[Row]:
    """Systems with matrices of their own."""
    shifts, right = replace(HIGH, rounds=count).systems(0)
    shifts, right = shifts.to(bench.device), right.to(bench.device)
    solver = SOR(_OMEGA, "natural" if bench.device == "cpu" else "multicolour", rtol=1e-8)

    @torch.no_grad()
    def at_once(_: Any) -> Tensor:
        return solver.solve(shifted(shifts), right).statistics["iterations"]

    @torch.no_grad()
    def in_turn(_: Any) -> Tensor:
        found = [solver.solve(shifted(shift), b) for shift, b in zip(shifts, right, strict=True)]
        return torch.stack([solution.statistics["iterations"] for solution in found])

    def finish(iterations: Tensor) -> Outcome:
        return Outcome(iterations=int(iterations.max()), extra={"total_iterations": int(iterations.sum())})

    contenders = [
        Contender(method, "sciml", version_of("sciml"), run, finish, device=bench.device)
        for method, run in ((ABREAST, at_once), (IN_TURN, in_turn))
    ]
    return bench.compare(batch_case(count), contenders, unknowns=count * HIGH.unknowns)


def _application(b: Tensor) -> Callable[[Any], Tensor]:
    out = torch.empty_like(b)

    @torch.no_grad()
    def apply(prepared: Any) -> Tensor:
        return prepared.apply(b, out=out)

    return apply


def _without_value(_: Any) -> Outcome:
    return Outcome()


Triangles = tuple[scipy.sparse.csr_array, numpy.ndarray, scipy.sparse.csr_array]


def _scipy_triangles(matrix: scipy.sparse.csr_array) -> Triangles:
    """D / omega + L, (2 - omega) / omega D and D / omega + U."""
    diagonal = matrix.diagonal()
    relaxed = scipy.sparse.dia_array((diagonal / _OMEGA, 0), shape=matrix.shape)
    lower = scipy.sparse.csr_array(scipy.sparse.tril(matrix, -1) + relaxed)
    upper = scipy.sparse.csr_array(scipy.sparse.triu(matrix, 1) + relaxed)
    return lower, (2 - _OMEGA) / _OMEGA * diagonal, upper


def _solve_by_scipy(right: numpy.ndarray, triangles: Triangles) -> numpy.ndarray:
    lower, middle, upper = triangles
    half = spsolve_triangular(lower, right.reshape(-1), lower=True)
    found: numpy.ndarray = spsolve_triangular(upper, middle * half, lower=False)
    return found


def _torch_triangles(matrix: scipy.sparse.csr_array, right: Tensor) -> Contender:
    def prepare() -> tuple[Tensor, Tensor, Tensor]:
        lower, middle, upper = _scipy_triangles(matrix)
        parts = [
            torch.sparse_csr_tensor(
                torch.from_numpy(m.indptr.astype("int32")),
                torch.from_numpy(m.indices.astype("int32")),
                torch.from_numpy(m.data),
                m.shape,
                check_invariants=False,
            )
            for m in (lower, upper)
        ]
        return parts[0], torch.from_numpy(middle).unsqueeze(-1), parts[1]

    @torch.no_grad()
    def solve(triangles: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        lower, middle, upper = triangles
        half = torch.triangular_solve(right, lower, upper=False).solution
        return torch.triangular_solve(half.mul_(middle), upper, upper=True).solution

    return Contender(TORCH, "torch", version_of("torch"), solve, Outcome, prepare, loops=None)
