"""Incomplete Cholesky factorization."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import Kind, LinearOperator
from sciml.sparse import as_operator

from .incomplete_factorization import Array, IncompleteFactorization
from .inverse import Entries, MatrixInverse
from .settings import check_number
from .triangular import triangle

_FIRST_SHIFT = 1e-3
_LARGEST_SHIFT = 1e3


@dataclass(frozen=True)
class IncompleteCholesky:
    """A ~ L L^T with L in the pattern of A, a preconditioner for symmetric positive definite operators.

    Where a pivot is not clearly positive, the factorization is made again for A + shift D, D being the diagonal and the
    shift doubled every time, row by row of a batch. Set up on the CPU, in as many steps as the longest chain of
    dependencies (see IncompleteFactorization); applied on the operator's device.

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
        entries = Entries.of(operator)
        bad = int((~(entries.diagonal() > 0)).sum())
        if bad:
            raise InputError(
                f"IncompleteCholesky needs a positive definite operator, and {bad} of its diagonal entries are not "
                "positive: use -A if they are negative, or ILU0"
            )
        lower = triangle(self._factor(entries, operator.size))

        def solve(b: Tensor) -> Tensor:
            return lower.solve_transposed(lower.solve(b))

        return MatrixInverse(operator, Kind.SYMMETRIC_POSITIVE, solve, solve, self.prepare)

    def _factor(self, entries: Entries, row_size: int) -> Entries:
        """L."""
        pattern = IncompleteFactorization(entries)
        values = entries.values.cpu().double().numpy()
        row = numpy.arange(entries.size) // row_size
        shifts = numpy.full(entries.size // row_size, self.shift)
        threshold = torch.finfo(entries.values.dtype).eps ** 0.5 * values[pattern.pivots]
        while True:
            shifted = values.copy()
            shifted[pattern.pivots] *= 1 + shifts[row]
            factors = pattern.factorize(shifted)
            pivots = factors[pattern.pivots]
            failed = numpy.unique(row[~((pivots > threshold) & numpy.isfinite(pivots))])
            if not len(failed):
                return _lower_factor(entries, pattern, factors)
            shifts[failed] = numpy.maximum(2 * shifts[failed], _FIRST_SHIFT)
            if shifts.max() > _LARGEST_SHIFT:
                raise InputError(
                    "IncompleteCholesky meets pivots that are not positive even with a large shift: the operator is "
                    "far from positive definite; use MINRES without it, GMRES with ILU0, or Direct"
                )


def _lower_factor(entries: Entries, pattern: IncompleteFactorization, factors: Array) -> Entries:
    """L of L L^T from L D L^T, which is what elimination makes of a symmetric matrix."""
    root = numpy.sqrt(factors[pattern.pivots])
    factors[pattern.lower] *= root[pattern.columns[pattern.lower]]
    factors[pattern.pivots] = root
    values = torch.from_numpy(factors).to(entries.values)
    return entries.with_values(values).select(entries.columns <= entries.rows)
