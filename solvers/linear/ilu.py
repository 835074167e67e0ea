"""Incomplete LU factorization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import Kind, LinearOperator
from sciml.sparse import as_operator

from .incomplete_factorization import IncompleteFactorization
from .inverse import Entries, MatrixInverse
from .triangular import triangle


@dataclass(frozen=True)
class ILU0:
    """A ~ L U with L and U in the pattern of A, a preconditioner for general operators.

    Set up on the CPU, in as many steps as the longest chain of dependencies (see IncompleteFactorization); applied on
    the operator's device.

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
        entries = Entries.of(operator)
        pattern = IncompleteFactorization(entries)
        values = entries.values.cpu().double().numpy()
        factors = pattern.factorize(values)
        largest = numpy.zeros(entries.size)
        numpy.maximum.at(largest, pattern.rows, numpy.abs(values))
        pivots = numpy.abs(factors[pattern.pivots])
        bad = numpy.flatnonzero(~((pivots > numpy.finfo(numpy.float64).eps * largest) & numpy.isfinite(pivots)))
        if len(bad):
            row, place = divmod(int(bad[0]), operator.size)
            where = f"row {place} of system {row}" if operator.batch else f"row {place}"
            raise InputError(
                f"ILU(0) meets a zero pivot in {where}: it does not exist for this matrix in this order of its "
                "unknowns; use Chebyshev or SOR as preconditioner, or Direct"
            )
        filled = entries.with_values(torch.from_numpy(factors).to(entries.values))
        upper = triangle(filled.select(filled.columns >= filled.rows), upper=True)
        below = filled.select(filled.columns <= filled.rows)
        unit = torch.where(below.rows == below.columns, torch.ones_like(below.values), below.values)
        lower = triangle(below.with_values(unit))
        return MatrixInverse(
            operator,
            Kind.LINEAR,
            lambda b: upper.solve(lower.solve(b)),
            lambda b: lower.solve_transposed(upper.solve_transposed(b)),
            self.prepare,
        )
