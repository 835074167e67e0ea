"""Incomplete Cholesky factorization."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan, prod
from typing import Protocol

import numpy
import torch
from torch import Tensor

from sciml.csr import csr_from_starts
from sciml.errors import InputError
from sciml.kernels import factorization
from sciml.linear_operator import Kind, LinearOperator
from sciml.sparse import as_operator

from .incomplete_factorization import IncompleteFactorization, matrix_of
from .inverse import Entries, MatrixInverse
from .settings import check_number
from .triangular import Triangle, compiled_triangle, triangle

_FIRST_SHIFT = 1e-3
_LARGEST_SHIFT = 1e3


@dataclass(frozen=True)
class IncompleteCholesky:
    """A ~ L L^T with L in the pattern of A, a preconditioner for symmetric positive definite operators.

    Where a pivot is not clearly positive, the factorization is made again for A + shift D, D being the diagonal and the
    shift doubled every time, row by row of a batch. Set up on the CPU, row by row in a compiled kernel or in as many
    steps as the longest chain of dependencies (see IncompleteFactorization); applied on the operator's device.

    Source: Meijerink and van der Vorst, Math. Comp. 31 (1977) 148-162; the shift: Manteuffel, Math. Comp. 34 (1980)
    473-497.

    Args:
        shift: first shift to try, dimensionless; if it fails, 0.001 and its doubles follow.

    Raises:
        InputError: for a negative shift; from `prepare`, for an operator that is not known to be symmetric or has a
            diagonal entry that is not positive.
    """

    shift: float = 0.0

    def __post_init__(self) -> None:
        check_number(self.shift, "IncompleteCholesky: shift", 0.0, inf, "[)")

    def describe(self) -> str:
        return "incomplete Cholesky"

    @torch.no_grad()
    def prepare(self, operator: LinearOperator | Tensor | object) -> LinearOperator:
        """The inverse of L L^T, symmetric positive definite."""
        operator = as_operator(operator).detach()
        if not operator.symmetric:
            raise InputError("IncompleteCholesky needs a symmetric operator, and this one is not known to be: use ILU0")
        matrix, systems = matrix_of(operator, lower=True), max(1, prod(operator.batch))
        elimination = _Levels(matrix, systems) if isinstance(matrix, Entries) else _Rows(matrix, systems)
        lower = self._factor(elimination, systems)

        def solve(b: Tensor) -> Tensor:
            return lower.solve_transposed(lower.solve(b))

        return MatrixInverse(operator, Kind.SYMMETRIC_POSITIVE, solve, solve, self.prepare)

    def _factor(self, elimination: _Elimination, systems: int) -> Triangle:
        """L."""
        shifts = torch.full((systems,), self.shift, dtype=torch.float64)
        while bool((failed := elimination.failures(shifts)).any()):
            shifts[failed] = (2 * shifts[failed]).clamp(min=_FIRST_SHIFT)
            if float(shifts.max()) > _LARGEST_SHIFT:
                raise InputError(
                    "IncompleteCholesky meets pivots that are not positive even with a large shift: the operator is "
                    "far from positive definite; use MINRES without it, GMRES with ILU0, or Direct"
                )
        return elimination.lower()


class _Elimination(Protocol):
    """What factorizes the matrices of a batch."""

    def failures(self, shifts: Tensor) -> Tensor:
        """Factorize all A + shift D, shifts being `(systems,)`.

        Returns:
            bool `(systems,)`: which of them have a pivot that is not clearly positive.
        """
        ...

    def lower(self) -> Triangle:
        """L of the last factorizations."""
        ...


class _Rows:
    """Row by row, compiled.

    Args:
        matrix: the lower triangle, see `matrix_of`.
        systems: number of matrices.
    """

    def __init__(self, matrix: Tensor, systems: int) -> None:
        places = factorization.diagonal_places(matrix)
        there = places >= 0
        _check_diagonal(torch.where(there, matrix.values()[places], 0) if len(matrix.values()) else there)
        self.matrix = matrix
        self.factor = torch.empty(len(matrix.values()), dtype=torch.float64)
        self.shifts = torch.full((systems,), nan, dtype=torch.float64)

    def failures(self, shifts: Tensor) -> Tensor:
        changed, self.shifts = shifts != self.shifts, shifts.clone()
        least = torch.finfo(self.matrix.dtype).eps ** 0.5
        return factorization.incomplete_cholesky(self.matrix, self.shifts, least, self.factor, changed)

    def lower(self) -> Triangle:
        pattern = self.matrix.crow_indices(), self.matrix.col_indices()
        factor = csr_from_starts(*pattern, self.factor.to(self.matrix.dtype), self.matrix.shape)
        return compiled_triangle(factor, upper=False)


class _Levels:
    """Level after level.

    Args:
        entries: the matrix.
        systems: number of matrices.
    """

    def __init__(self, entries: Entries, systems: int) -> None:
        _check_diagonal(entries.diagonal())
        self.entries = entries
        self.pattern = IncompleteFactorization(entries)
        self.values = entries.values.cpu().double().numpy()
        self.system = numpy.arange(entries.size) // (entries.size // systems)
        self.factors = self.values

    def failures(self, shifts: Tensor) -> Tensor:
        pivots = self.pattern.pivots
        shifted = self.values.copy()
        shifted[pivots] *= 1 + shifts.numpy()[self.system]
        self.factors = self.pattern.factorize(shifted)
        found = self.factors[pivots]
        threshold = torch.finfo(self.entries.values.dtype).eps ** 0.5 * self.values[pivots]
        failed = torch.zeros(len(shifts), dtype=torch.bool)
        failed[numpy.unique(self.system[~((found > threshold) & numpy.isfinite(found))])] = True
        return failed

    def lower(self) -> Triangle:
        """From L D L^T, which is what elimination makes of a symmetric matrix."""
        pattern, factors = self.pattern, self.factors
        root = numpy.sqrt(factors[pattern.pivots])
        factors[pattern.lower] *= root[pattern.columns[pattern.lower]]
        factors[pattern.pivots] = root
        filled = self.entries.with_values(torch.from_numpy(factors).to(self.entries.values))
        return triangle(filled.select(filled.columns <= filled.rows))


def _check_diagonal(diagonal: Tensor) -> None:
    bad = int((~(diagonal > 0)).sum())
    if bad:
        raise InputError(
            f"IncompleteCholesky needs a positive definite operator, and {bad} of its diagonal entries are not "
            "positive: use -A if they are negative, or ILU0"
        )
