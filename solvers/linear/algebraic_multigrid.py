"""Algebraic multigrid for sparse matrices of any origin: hierarchies of pyamg under a cycle of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, get_args

import numpy
import scipy.sparse
import torch
from torch import Tensor

from sciml.csr import csr_from_starts
from sciml.errors import InputError
from sciml.kernels import layout, sparse
from sciml.kernels.stencil import writable
from sciml.linear_operator import BlockOperator, Kind, LinearOperator, refuse_batch

from .algebraic_hierarchy import Coarsening, csr_of, hierarchy, scipy_of, smoothing_only
from .inverse import ApproximateInverse
from .multigrid import chebyshev_weights
from .rows import Rows
from .settings import check_count, check_cycle, check_number, check_precision, check_word
from .stationary import StationaryMethod

_TOO_LARGE = 10  # times `coarsest`: a coarsest matrix of more unknowns is smoothed, not inverted


@dataclass(frozen=True)
class AlgebraicMultigrid(StationaryMethod):
    """Algebraic multigrid cycles with Chebyshev-weighted Jacobi smoothing.

    Coarse matrices come from the entries of the matrix alone, by pyamg (`pip install pyamg`), on the CPU; cycles run on
    the operator's device, compiled on the CPU. Serves every operator that has a matrix with a positive diagonal: finite
    elements on any mesh, scipy and torch matrices; on grids Multigrid is faster. The cycle is symmetric positive
    definite for a symmetric positive definite operator.

    Source: Ruge and Stuben, Algebraic Multigrid, in Multigrid Methods, ed. McCormick (1987); smoothed aggregation:
    Vanek, Mandel and Brezina, Computing 56 (1996) 179-196; pyamg: Bell, Olson, Schroder and Southworth, J. Open Source
    Softw. 8 (2023) 5495; smoothing weights from the roots of the Chebyshev polynomial, Saad (2003), section 12.3.2.

    Args:
        kind: "ruge-stuben" keeps some of the unknowns, "smoothed aggregation" joins them in small groups; None takes
            the first for matrices whose couplings are negative, as in diffusion on grids and in the plane, and the
            second for all others, as finite elements on tetrahedra, systems, and where `near_null_space` is given.
        strength: couplings that are weaker are ignored when coarsening, in [0, 1), dimensionless: for Ruge-Stuben as a
            fraction of the strongest of the row (None is 0.25), for smoothed aggregation of the root of the product of
            both diagonal entries (None is 0.02; larger values give fewer iterations with more work in each).
        near_null_space: `(k, *space)`, fields that the operator nearly annihilates, which smoothed aggregation keeps:
            rigid motions for elasticity. None is the constant, for systems one a unknown.
        sweeps: smoothing steps before and after each coarse correction.
        cycle: 1 for a V-cycle, 2 for a W-cycle.
        precision: dtype of the cycle, torch.float32 by default also inside float64 methods; None for the operator's.
        smoothing_interval: lower end of the part of the spectrum of D^-1 A that is smoothed, as a fraction of its upper
            end, dimensionless.
        coarsest: largest number of unknowns that is solved directly, by a dense inverse.
        rtol, atol, max_iterations: see LinearSolver; used where multigrid is the solver itself.

    Raises:
        InputError: for settings out of range; from `prepare`, for a batch of operators, for a diagonal that is not
            positive, and where pyamg is not installed.
    """

    kind: Coarsening | None = None
    strength: float | None = None
    near_null_space: Tensor | None = field(default=None, compare=False, repr=False)
    sweeps: int = 2
    cycle: int = 1
    precision: torch.dtype | None = torch.float32
    smoothing_interval: float = 0.2
    coarsest: int = 300

    def validate(self) -> None:
        if self.kind is not None:
            check_word(self.kind, "AlgebraicMultigrid: kind", get_args(Coarsening))
        if self.strength is not None:
            check_number(self.strength, "AlgebraicMultigrid: strength", 0.0, 1.0, "[)")
        if self.near_null_space is not None and not isinstance(self.near_null_space, Tensor):
            raise InputError(f"near_null_space must be a tensor or None, got {type(self.near_null_space).__name__}")
        if self.near_null_space is not None and self.kind == "ruge-stuben":
            raise InputError("near_null_space is for smoothed aggregation, Ruge-Stuben coarsening has no use for it")
        check_count(self.sweeps, "AlgebraicMultigrid: sweeps")
        check_count(self.coarsest, "AlgebraicMultigrid: coarsest")
        check_cycle(self.cycle, "AlgebraicMultigrid: cycle")
        check_precision(self.precision, "AlgebraicMultigrid: precision")
        check_number(self.smoothing_interval, "AlgebraicMultigrid: smoothing_interval", 0.0, 1.0)

    def describe(self) -> str:
        kind = "" if self.kind is None else f" by {'Ruge-Stuben' if self.kind == 'ruge-stuben' else self.kind}"
        return f"algebraic multigrid{kind} {'VW'[self.cycle - 1]}({self.sweeps},{self.sweeps})"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        return build_cycle(self, operator)


@dataclass(frozen=True)
class Level:
    """One matrix of the hierarchy with its smoother and the way down, CSR tensors in the precision of the cycle."""

    matrix: Tensor
    prolongation: Tensor
    restriction: Tensor
    inverse_diagonal: Tensor
    omegas: tuple[float, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by the parts of the matrices: torch does not copy CSR tensors."""
        matrices = (self.matrix, self.prolongation, self.restriction)
        parts = [(m.crow_indices(), m.col_indices(), m.values(), tuple(m.shape)) for m in matrices]
        return _level_of_parts, (parts, self.inverse_diagonal, self.omegas)

    def transpose(self) -> Level:
        """The same level of the transposed hierarchy."""
        matrix, up, down = (_transposed(m) for m in (self.matrix, self.restriction, self.prolongation))
        return Level(matrix, up, down, self.inverse_diagonal, self.omegas)


def _level_of_parts(parts: Sequence[tuple[Any, ...]], inverse_diagonal: Tensor, omegas: tuple[float, ...]) -> Level:
    matrix, prolongation, restriction = (csr_from_starts(*part) for part in parts)
    return Level(matrix, prolongation, restriction, inverse_diagonal, omegas)


class AlgebraicCycle(ApproximateInverse):
    """One cycle from a zero start, as an operator.

    Args:
        operator: what it approximately inverts.
        levels: finest first.
        coarsest: `(size, size)`, the inverse of the coarsest matrix.
        cycle: 1 for a V-cycle, 2 for a W-cycle.
    """

    def __init__(self, operator: LinearOperator, levels: Sequence[Level], coarsest: Tensor, cycle: int) -> None:
        super().__init__(operator, Kind.SYMMETRIC_POSITIVE if operator.symmetric else Kind.LINEAR)
        self.operator = operator
        self.levels = tuple(levels)
        self.coarsest = coarsest
        self.cycle = cycle
        self._compiled: list[sparse.CompiledSparseCycle] = []

    def __getstate__(self) -> dict[str, object]:
        """Without what was laid out for this process."""
        return {**self.__dict__, "_compiled": []}

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        value = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
        self.apply_and_dot(x, value)
        return value

    def apply_and_dot(self, x: Tensor, out: Tensor) -> Tensor:
        """The cycle's result into `out`, of the shape of x; returns its inner product with x in float64, row by row."""
        batch = tuple(x.shape[: x.ndim - len(self.space)])
        x = x.contiguous()
        if self._compilable(x, out):
            # Taken out while in use, so that two threads never work on the same fields.
            compiled = self._compiled.pop() if self._compiled else self._lay_out()
            dots = torch.empty(batch, dtype=torch.float64)
            compiled(x, out, dots)
            self._compiled.append(compiled)
            return dots
        rows = Rows(batch, self.space)
        # A norm of 1 keeps float32 clear of overflow and underflow whatever the scale of the residual.
        norm = rows.norm(x)
        norm = torch.where(norm > 0, norm, 1.0)
        unit = rows.rescale(x, norm.reciprocal(), out=torch.empty_like(x, dtype=self.coarsest.dtype))
        # Fields as columns, which is how torch multiplies by sparse matrices.
        result = self._cycle(0, unit.reshape(prod(batch), self.size).mT.contiguous())
        rows.rescale(result.mT.reshape(x.shape), norm, out=out)
        return rows.dot(x, out)

    def transpose(self) -> LinearOperator:
        if self.symmetric:
            return self
        levels = [level.transpose() for level in self.levels]
        return AlgebraicCycle(self.operator.transpose(), levels, self.coarsest.mT, self.cycle)

    def _compilable(self, x: Tensor, out: Tensor) -> bool:
        matrices = (m for level in self.levels for m in (level.matrix, level.prolongation, level.restriction))
        return (
            x.device.type == "cpu"
            and x.dtype in layout.NAMES
            and writable(out, x, x.shape)
            and sparse.compilable(*matrices)
        )

    def _lay_out(self) -> sparse.CompiledSparseCycle:
        levels = [(s.matrix, s.prolongation, s.restriction, s.inverse_diagonal, s.omegas) for s in self.levels]
        return sparse.CompiledSparseCycle(levels, self.coarsest, self.cycle)

    def _cycle(self, depth: int, b: Tensor) -> Tensor:
        """The cycle on the columns of b."""
        if depth == len(self.levels):
            return self.coarsest @ b
        level = self.levels[depth]
        scale = level.inverse_diagonal.unsqueeze(-1)
        x = b * (scale * level.omegas[0])
        for omega in level.omegas[1:]:
            x.addcmul_(scale, b - level.matrix @ x, value=omega)
        for _ in range(self.cycle if depth + 1 < len(self.levels) else 1):
            x += level.prolongation @ self._cycle(depth + 1, level.restriction @ (b - level.matrix @ x))
            for omega in level.omegas:
                x.addcmul_(scale, b - level.matrix @ x, value=omega)
        return x


def build_cycle(settings: AlgebraicMultigrid, operator: LinearOperator) -> AlgebraicCycle:
    """The cycle of an operator; its hierarchy is set up in float64."""
    refuse_batch(operator)
    matrix = scipy_of(operator.to_sparse().double())
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # it may share the memory of the user's
        matrix.sum_duplicates()
    matrix = _with_parts_held(matrix, operator.null_space)
    bad = int((~(matrix.diagonal() > 0)).sum())
    if bad:
        raise InputError(
            f"algebraic multigrid smooths by the diagonal, and {bad} of its {operator.size} entries are not positive: "
            "use -A if they are negative, GMRES with ILU0, or Direct"
        )
    candidates = _candidates(settings, operator)
    steps, last = hierarchy(matrix, operator.symmetric, settings.kind, settings.strength, candidates, settings.coarsest)
    if last.shape[0] > _TOO_LARGE * settings.coarsest:
        # Coarsening ended early since little is coupled, and there smoothing does what the inverse would.
        steps.append(smoothing_only(last, operator.symmetric))
        last = last[:0, :0]
    precision, device = settings.precision or operator.dtype, operator.device
    levels = []
    for step in steps:
        here, up, down = (
            csr_of(part, precision, device) for part in (step.matrix, step.prolongation, step.restriction)
        )
        diagonal = torch.from_numpy(step.matrix.diagonal())
        inverse_diagonal = torch.where(diagonal > 0, diagonal.reciprocal(), 0.0).to(device, precision)
        omegas = chebyshev_weights(settings.smoothing_interval * step.bound, step.bound, settings.sweeps)
        levels.append(Level(here, up, down, inverse_diagonal, omegas))
    inverse = _dense_inverse(torch.from_numpy(last.toarray()), operator.symmetric)
    return AlgebraicCycle(operator, levels, inverse.to(device, precision), settings.cycle)


def _candidates(settings: AlgebraicMultigrid, operator: LinearOperator) -> Any:
    """`(size, k)`, the near null space as columns; None for the constant."""
    given = settings.near_null_space
    if given is not None:
        if given.ndim != len(operator.space) + 1 or tuple(given.shape[1:]) != operator.space:
            raise InputError(f"near_null_space has shape {tuple(given.shape)}, expected (k, *{operator.space})")
        return given.detach().cpu().double().reshape(len(given), -1).numpy().T.copy()
    if isinstance(operator, BlockOperator):
        return numpy.kron(numpy.eye(operator.space[0]), numpy.ones((prod(operator.space[1:]), 1)))
    return None


def _transposed(matrix: Tensor) -> Tensor:
    """The transposed CSR tensor."""
    return csr_of(scipy_of(matrix).T.tocsr(), matrix.dtype, matrix.device)


def _with_parts_held(matrix: Any, null_space: Tensor | None) -> Any:
    """The matrix with one diagonal entry doubled in every small part of the domain that nothing fixes: coarsened, it
    would end in rows that are rounding errors. A change of rank one costs at most an iteration."""
    if null_space is None:
        return matrix
    vectors = null_space.detach().cpu().double().flatten(1)
    held = vectors.abs().argmax(1)[2 * (vectors != 0).sum(1) < matrix.shape[0]].numpy()
    if not len(held):
        return matrix
    diagonal = matrix.diagonal()
    more = numpy.zeros_like(diagonal)
    more[held] = numpy.where(diagonal[held] > 0, diagonal[held], 1.0)
    return (matrix + scipy.sparse.diags_array(more)).tocsr()


def _dense_inverse(matrix: Tensor, symmetric: bool) -> Tensor:
    """The inverse, or where it is singular a pseudo-inverse, after scaling rows and columns to a diagonal of ones: a
    jumping coefficient must not look like a null space."""
    root = matrix.diagonal().abs()
    root = torch.where(root > 0, root.rsqrt(), 1.0)
    scale = root.unsqueeze(-1) * root
    return scale * torch.linalg.pinv(scale * matrix, rtol=1e-12, hermitian=symmetric)
