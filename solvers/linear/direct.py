"""Direct solution by factorization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import Kind, LinearOperator
from sciml.one_thread import one_thread
from sciml.status import Status

from .base import Iteration, LinearSolver
from .inverse import Entries, MatrixInverse

_DENSE = 200
_LARGEST_DENSE = 20_000
_PIVOT_THRESHOLD = 0.1
_SINGULAR = 1e-3


class SingularError(InputError):
    """A matrix is singular to working precision, so that it cannot be factorized."""


@dataclass(frozen=True)
class Direct(LinearSolver):
    """LU factorization: sparse by SuperLU (scipy), dense for small systems and on the GPU.

    The factors are in float64 whatever the operator's dtype. A solve counts as one iteration; where its residual misses
    the tolerance, one step of iterative refinement is part of it. A singular operator that names its null space is
    solved in the complement (one unknown for each null vector is held at zero, then the solution projected); another is
    refused. As a preconditioner it is the exact inverse.

    Source: Demmel, Eisenstat, Gilbert, Li and Liu, SIAM J. Matrix Anal. Appl. 20 (1999) 720-755 (SuperLU), in minimum
    degree order where the pattern is symmetric.

    Args:
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: from `prepare`, for an operator that is singular to working precision, or too large for a GPU.
    """

    stationary: ClassVar[bool] = True

    def validate(self) -> None:
        pass

    def describe(self) -> str:
        return "direct LU factorization"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        factors = _Factors(operator)
        return MatrixInverse(operator, Kind.LINEAR, factors.solve, factors.solve_transposed, self.setup)

    def iterate(self, task: Iteration, state: LinearOperator) -> None:
        active = task.active()
        mask = task.rows.spread(active, task.x).bool()
        norms = task.history[-1]
        for _ in range(2):
            task.x.add_(torch.where(mask, state.apply(task.r), 0.0))
            task.r = task.operator.residual(task.b, task.x, out=task.r)
            norms = task.rows.norm(task.r)
            if bool((norms <= task.tolerance).all()):
                break
        task.iterations += active
        task.record(norms)
        task.fail(torch.ones_like(active), Status.STAGNATED)


class _Factors:
    """The factors of every row of an operator's batch; right sides are `(rows * size, columns)`."""

    def __init__(self, operator: LinearOperator) -> None:
        size, device = operator.size, operator.device
        if device.type != "cpu" and size > _LARGEST_DENSE:
            raise InputError(
                f"Direct solves by dense factors on {device}, and {size} unknowns are too many for that (limit "
                f"{_LARGEST_DENSE}): solve on the CPU, or use Multigrid, or GMRES"
            )
        entries = Entries.of(operator)
        self.size = size
        self.null_space: Tensor | None = None
        self.kept: Tensor | None = None
        if operator.null_space is not None:
            self.null_space = operator.null_space.reshape(-1, size).double()
            self.kept = _complement(self.null_space)
            entries = _hold(entries, self.kept.logical_not().repeat(entries.size // size))
        dense = device.type != "cpu" or size <= _DENSE
        self.factors: _DenseFactors | _SparseFactors = (
            _DenseFactors(entries, size) if dense else _SparseFactors(entries, size)
        )
        self._refuse_singular(entries)

    def solve(self, b: Tensor) -> Tensor:
        return self._solve(b, transposed=False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self._solve(b, transposed=True)

    def _solve(self, b: Tensor, transposed: bool) -> Tensor:
        x = self._project(b.double())
        if self.kept is not None:
            x = x * self.kept.repeat(len(b) // self.size).unsqueeze(-1)
        return self._project(self.factors.solve(x, transposed)).to(b.dtype)

    def _project(self, x: Tensor) -> Tensor:
        """x without its part in the null space."""
        if self.null_space is None:
            return x
        rows = x.reshape(-1, self.size, x.shape[-1])
        return (rows - self.null_space.mT @ (self.null_space @ rows)).reshape(x.shape)

    def _refuse_singular(self, entries: Entries) -> None:
        """Solve for a random right side, scaled row by row as the matrix is: it fails where the matrix is singular."""
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (entries.size,), generator=generator).to(entries.values) * 2.0 - 1.0
        matrix = entries.with_values(entries.values.double()).csr()
        scale = torch.zeros(entries.size, dtype=torch.float64, device=signs.device)
        scale.index_add_(0, entries.rows, entries.values.double().abs())
        right = (scale * signs).unsqueeze(-1)
        residual = (matrix @ self.factors.solve(right, False) - right).squeeze(-1).abs() / scale
        bad = torch.nonzero(~(residual <= _SINGULAR))
        if len(bad):
            raise _singular(int(bad[0]) // self.size, entries.size // self.size)


class _DenseFactors:
    def __init__(self, entries: Entries, size: int) -> None:
        rows = torch.div(entries.rows, size, rounding_mode="floor")
        matrix = torch.zeros(entries.size // size, size, size, dtype=torch.float64, device=entries.values.device)
        matrix[rows, entries.rows % size, entries.columns % size] = entries.values.double()
        with one_thread():
            self.factors, self.pivots, information = torch.linalg.lu_factor_ex(matrix)
        bad = torch.nonzero(information)
        if len(bad):
            raise _singular(int(bad[0]), len(matrix))

    def solve(self, b: Tensor, transposed: bool) -> Tensor:
        right = b.reshape(len(self.factors), -1, b.shape[-1])
        with one_thread():
            return torch.linalg.lu_solve(self.factors, self.pivots, right, adjoint=transposed).reshape(b.shape)


class _SparseFactors:
    def __init__(self, entries: Entries, size: int) -> None:
        place = (entries.rows.numpy(), entries.columns.numpy())
        matrix = scipy.sparse.csr_array((entries.values.double().numpy(), place), shape=(entries.size, entries.size))
        self.size = size
        self.factors = []
        for row, start in enumerate(range(0, entries.size, size)):
            block = matrix[start : start + size, start : start + size].tocsc()
            block.indices, block.indptr = block.indices.astype(numpy.int32), block.indptr.astype(numpy.int32)
            try:
                self.factors.append(_superlu(block))
            except RuntimeError as error:
                raise _singular(row, entries.size // size) from error

    def solve(self, b: Tensor, transposed: bool) -> Tensor:
        right = b.numpy().reshape(len(self.factors), self.size, -1)
        trans = "T" if transposed else "N"
        parts = [factors.solve(part, trans=trans) for factors, part in zip(self.factors, right, strict=True)]
        return torch.from_numpy(numpy.concatenate(parts))


def _superlu(matrix: scipy.sparse.csc_array) -> scipy.sparse.linalg.SuperLU:
    """Factors in minimum degree order with pivots on the diagonal where they may be, if the pattern is symmetric."""
    pattern = matrix.copy()
    pattern.data = numpy.ones_like(pattern.data)
    if (pattern != pattern.T).nnz:
        return scipy.sparse.linalg.splu(matrix)
    return scipy.sparse.linalg.splu(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=_PIVOT_THRESHOLD, options={"SymmetricMode": True}
    )


def _complement(null_space: Tensor) -> Tensor:
    """bool `(size,)`: False at one unknown a null vector, such that no combination of them vanishes at all of these."""
    vectors = null_space.clone()
    kept = torch.ones(vectors.shape[1], dtype=torch.bool, device=vectors.device)
    for row, vector in enumerate(vectors):
        place = int(vector.abs().argmax())
        kept[place] = False
        vectors[row + 1 :] -= torch.outer(vectors[row + 1 :, place] / vector[place], vector)
    return kept


def _hold(entries: Entries, held: Tensor) -> Entries:
    """The matrix with rows and columns of the identity at the held unknowns."""
    free = entries.select(~(held[entries.rows] | held[entries.columns]))
    places = torch.nonzero(held).squeeze(-1)
    return Entries.from_places(
        torch.cat([free.rows, places]),
        torch.cat([free.columns, places]),
        torch.cat([free.values, free.values.new_ones(len(places))]),
        entries.size,
    )


def _singular(row: int, rows: int) -> SingularError:
    where = f"system {row} of the batch" if rows > 1 else "the operator"
    return SingularError(
        f"{where} is singular to working precision: fix the value somewhere, or name its null space (null_space= of a "
        "symmetric operator); MINRES or GMRES solve singular systems that are consistent"
    )
