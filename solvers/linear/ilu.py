"""Incomplete LU factorization."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy
import torch
from torch import Tensor

from sciml.csr import csr_from_starts
from sciml.errors import InputError
from sciml.kernels import factorization
from sciml.linear_operator import Kind, LinearOperator
from sciml.sparse import as_operator

from .incomplete_factorization import IncompleteFactorization, matrix_of, missing_diagonal
from .inverse import Entries, MatrixInverse
from .triangular import Triangle, compiled_triangle, triangle


@dataclass(frozen=True)
class ILU0:
    """A ~ L U with L and U in the pattern of A, a preconditioner for general operators.

    Set up on the CPU, row by row in a compiled kernel or in as many steps as the longest chain of dependencies (see
    IncompleteFactorization); applied on the operator's device.

    Source: Meijerink and van der Vorst, Math. Comp. 31 (1977) 148-162; Saad, Iterative Methods for Sparse Linear
    Systems (2003), algorithm 10.4.

    Raises:
        InputError: from `prepare`, where a diagonal entry is missing or a pivot comes out as zero.
    """

    def describe(self) -> str:
        return "ILU(0)"

    @torch.no_grad()
    def prepare(self, operator: LinearOperator | Tensor | object) -> LinearOperator:
        """The inverse of L U, linear."""
        operator = as_operator(operator).detach()
        matrix = matrix_of(operator)
        lower, upper = _by_levels(matrix, operator) if isinstance(matrix, Entries) else _by_rows(matrix, operator)
        return MatrixInverse(
            operator,
            Kind.LINEAR,
            lambda b: upper.solve(lower.solve(b)),
            lambda b: lower.solve_transposed(upper.solve_transposed(b)),
            self.prepare,
        )


def _by_rows(matrix: Tensor, operator: LinearOperator) -> tuple[Triangle, Triangle]:
    """L and U, compiled."""
    diagonal = factorization.diagonal_places(matrix)
    missing = torch.nonzero(diagonal < 0).squeeze(-1)
    if len(missing):
        raise missing_diagonal(missing.numpy())
    factors, bad = factorization.incomplete_lu(matrix, diagonal, max(1, prod(operator.batch)))
    if len(bad := bad[bad >= 0]):
        raise _zero_pivot(int(bad[0]), operator)
    parts = factorization.split_factors(matrix, diagonal, factors)
    lower, upper = (csr_from_starts(*part, matrix.shape) for part in parts)
    return compiled_triangle(lower, upper=False), compiled_triangle(upper, upper=True)


def _by_levels(entries: Entries, operator: LinearOperator) -> tuple[Triangle, Triangle]:
    """L and U, level after level."""
    pattern = IncompleteFactorization(entries)
    values = entries.values.cpu().double().numpy()
    factors = pattern.factorize(values)
    largest = numpy.zeros(entries.size)
    numpy.maximum.at(largest, pattern.rows, numpy.abs(values))
    pivots = numpy.abs(factors[pattern.pivots])
    bad = numpy.flatnonzero(~((pivots > numpy.finfo(numpy.float64).eps * largest) & numpy.isfinite(pivots)))
    if len(bad):
        raise _zero_pivot(int(bad[0]), operator)
    filled = entries.with_values(torch.from_numpy(factors).to(entries.values))
    upper = triangle(filled.select(filled.columns >= filled.rows), upper=True)
    below = filled.select(filled.columns <= filled.rows)
    unit = torch.where(below.rows == below.columns, torch.ones_like(below.values), below.values)
    return triangle(below.with_values(unit)), upper


def _zero_pivot(row: int, operator: LinearOperator) -> InputError:
    system, place = divmod(row, operator.size)
    where = f"row {place} of system {system}" if operator.batch else f"row {place}"
    return InputError(
        f"ILU(0) meets a zero pivot in {where}: it does not exist for this matrix in this order of its unknowns; use "
        "Chebyshev or SOR as preconditioner, or Direct"
    )
