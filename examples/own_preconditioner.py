"""A preconditioner of one's own: a frozen dataclass whose `prepare` returns an approximate inverse.

This one is a truncated Neumann series, A^-1 = sum of (1 - D^-1 A)^k D^-1 over k, with D the diagonal of A.
"""

from dataclasses import dataclass

import sciml
from sciml.linear_operator import Kind
from sciml.solvers.linear import ConjugateGradient
from sciml.solvers.linear.inverse import ApproximateInverse


@dataclass(frozen=True)
class NeumannSeries:
    """`terms` of the series; an even number keeps it positive definite for a Laplacian."""

    terms: int = 6

    def prepare(self, operator):
        return TruncatedSeries(operator, self.terms)


class TruncatedSeries(ApproximateInverse):
    def __init__(self, operator, terms):
        # The kind says what may be assumed: conjugate gradients take only symmetric positive definite ones.
        super().__init__(operator, Kind.SYMMETRIC_POSITIVE)
        self.operator, self.terms, self.inverse_diagonal = operator, terms, 1 / operator.diagonal()

    def apply(self, x, out=None):
        z = self.inverse_diagonal * x
        for _ in range(self.terms - 1):
            z = z + self.inverse_diagonal * self.operator.residual(x, z)
        return z if out is None else out.copy_(z)

    def transpose(self):
        return self


equation = sciml.Equation("-laplacian(u) = f")
square = sciml.Grid((127, 127), boundary=sciml.Dirichlet(0.0))
for preconditioner in (None, NeumannSeries(), NeumannSeries(terms=12)):
    method = ConjugateGradient(preconditioner=preconditioner)
    solution = sciml.solve(equation, square, fields={"f": 1.0}, method=method)
    print(f"{preconditioner}: {solution.statistics['iterations']} iterations, {solution.status[0].name}")
solution.plot("own_preconditioner.png", history=True)
