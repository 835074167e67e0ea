"""A preconditioner of one's own: a frozen dataclass whose `prepare` returns an operator, the approximate inverse.

This one is a truncated Neumann series, A^-1 = sum of (1 - D^-1 A)^k D^-1 over k, with D the diagonal of A.
"""

from dataclasses import dataclass

import sciml
from sciml.linear_operator import Kind, MatrixFreeOperator
from sciml.solvers.linear import ConjugateGradient


@dataclass(frozen=True)
class NeumannSeries:
    """`terms` of the series; an even number keeps it positive definite for a Laplacian."""

    terms: int = 6

    def prepare(self, operator):
        return TruncatedSeries(operator, self.terms)


class TruncatedSeries(MatrixFreeOperator):
    def __init__(self, a, terms):
        # The kind says what may be assumed: conjugate gradients take only symmetric positive definite ones.
        super().__init__(a.space, a.batch, a.dtype, a.device, symmetric=True, kind=Kind.SYMMETRIC_POSITIVE)
        self.a, self.terms, self.inverse_diagonal = a, terms, 1 / a.diagonal()

    def apply(self, x, out=None):
        z = self.inverse_diagonal * x
        for _ in range(self.terms - 1):
            z = z + self.inverse_diagonal * self.a.residual(x, z)
        return z if out is None else out.copy_(z)

    def transpose(self):
        return self

    def to(self, dtype):
        return TruncatedSeries(self.a.to(dtype), self.terms)

    def detach(self):
        return TruncatedSeries(self.a.detach(), self.terms)

    def __getitem__(self, row):
        return TruncatedSeries(self.a[row], self.terms)


equation = sciml.Equation("-laplacian(u) = f")
square = sciml.Grid((127, 127), boundary=sciml.Dirichlet(0.0))
for preconditioner in (None, NeumannSeries(), NeumannSeries(terms=12)):
    method = ConjugateGradient(preconditioner=preconditioner)
    solution = sciml.solve(equation, square, fields={"f": 1.0}, method=method)
    print(f"{preconditioner}: {solution.statistics['iterations']} iterations, {solution.status[0].name}")
solution.plot("own_preconditioner.png", history=True)
