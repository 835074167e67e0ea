"""Geometric multigrid for stencils on grids of any size, with any boundary, obstacles and coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.kernels import build, dense, layout
from sciml.kernels.cycle import CompiledCycle
from sciml.kernels.stencil import writable
from sciml.linear_operator import Kind, LinearOperator
from sciml.stencil import StencilOperator, narrow, shifted_slices

from .base import Iteration
from .coarse_stencils import flat_shift
from .coarsening import General, Separable, coarsenable
from .descent import run_descent
from .inverse import ApproximateInverse
from .rows import Rows
from .settings import check_count, check_cycle, check_number, check_precision
from .stationary import StationaryMethod
from .transfer import Coarsening, Transfer

_CONTRAST = 1e3


@dataclass(frozen=True)
class Multigrid(StationaryMethod):
    """Geometric multigrid cycles with Chebyshev-weighted Jacobi smoothing.

    Every second point is kept along the axes whose coupling is strong, interpolation follows the operator, and coarse
    operators are Galerkin products (see `sciml.solvers.linear.coarsening`). The cycle is symmetric positive definite
    for a symmetric positive definite operator. Works on `StencilOperator` of any size, boundary kind, obstacles and
    coefficients; stencils wider than 3 points an axis are smoothed as they are and coarsened through a compact one.

    Source: Briggs, Henson, McCormick, A Multigrid Tutorial (2000); smoothing weights from the roots of the Chebyshev
    polynomial, Saad (2003), section 12.3.2.

    Args:
        sweeps: smoothing steps before and after each coarse correction.
        cycle: 1 for a V-cycle, 2 for a W-cycle, which branches on the first d levels in d dimensions only, so that the
            many small grids cost little; None chooses V for separable operators (constant coefficients, no obstacles)
            and W for all others.
        precision: dtype of the cycle; None chooses torch.float32, also inside float64 methods, and the operator's where
            its diagonal varies by more than a factor of 1000: float32 loses the couplings that tie regions of high
            coefficient to the rest, and the cycle is no longer positive.
        smoothing_interval: lower end of the part of the spectrum of D^-1 A that is smoothed, as a fraction of its upper
            end, dimensionless.
        coarsest: largest number of unknowns that is solved directly, by a dense inverse; less for a batch.
        rtol, atol, max_iterations: see LinearSolver; used where multigrid is the solver itself.

    Raises:
        InputError: for settings out of range; from `prepare` for an operator that is not a stencil.
    """

    sweeps: int = 2
    cycle: int | None = None
    precision: torch.dtype | None = None
    smoothing_interval: float = 0.25
    coarsest: int = 600

    def validate(self) -> None:
        check_count(self.sweeps, "Multigrid: sweeps")
        check_count(self.coarsest, "Multigrid: coarsest")
        if self.cycle is not None:
            check_cycle(self.cycle, "Multigrid: cycle")
        check_precision(self.precision, "Multigrid: precision")
        check_number(self.smoothing_interval, "Multigrid: smoothing_interval", 0.0, 1.0)

    def describe(self) -> str:
        letter = {None: "", 1: " V", 2: " W"}[self.cycle]
        return f"geometric multigrid{letter}({self.sweeps},{self.sweeps})"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        return build_cycle(self, operator, coarsenable(operator))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Level:
    """One grid of the hierarchy: its operator, its smoother, and the way down.

    `inverse_diagonal` None: taken from the operator's coefficients on the fly. `flat`: the coefficients are laid out as
    stencil.hpp has it.
    """

    operator: StencilOperator
    inverse_diagonal: Tensor | None
    omegas: tuple[float, ...]
    transfer: Transfer
    flat: bool = False

    def transpose(self) -> Level:
        """That of the transposed operator."""
        return Level(self.operator.transpose(), self.inverse_diagonal, self.omegas, self.transfer.transpose())


class MultigridCycle(ApproximateInverse):
    """One cycle from a zero start, as an operator."""

    def __init__(
        self,
        operator: StencilOperator,
        levels: Sequence[Level],
        coarsest: Tensor,
        coarse_space: tuple[int, ...],
        cycle: int,
        precision: torch.dtype,
    ) -> None:
        super().__init__(operator, Kind.SYMMETRIC_POSITIVE if operator.symmetric else Kind.LINEAR)
        self.operator = operator
        self.levels = tuple(levels)
        self.coarsest = coarsest
        self.coarse_space = coarse_space
        self.cycle = cycle
        self.precision = precision
        self._scratch: dict[tuple[int, ...], list[tuple[Tensor, ...]]] = {}
        self._compiled: dict[tuple[int, int], CompiledCycle] = {}

    def __getstate__(self) -> dict[str, object]:
        """Without what was laid out for this process."""
        return {**self.__dict__, "_scratch": {}, "_compiled": {}}

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        batch = torch.broadcast_shapes(self.batch, x.shape[: x.ndim - len(self.space)])
        x = x.expand(*batch, *self.space)
        value = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
        self.apply_and_dot(x, value)
        return value

    def apply_and_dot(self, x: Tensor, out: Tensor) -> Tensor:
        """The cycle's result into `out`, of the shape of x; returns its inner product with x in float64, row by row."""
        batch = tuple(x.shape[: x.ndim - len(self.space)])
        x = x.contiguous()
        if self._compilable(x, out):
            dots = torch.empty(batch, dtype=torch.float64)
            with self._laid_out(prod(batch)) as compiled:
                compiled(x, out, dots)
            return dots
        rows = Rows(batch, self.space)
        scratch = self._scratch.pop(batch, None) or self._allocate(batch)
        # A norm of 1 keeps float32 clear of overflow and underflow whatever the scale of the residual.
        norm = rows.norm(x)
        norm = torch.where(norm > 0, norm, 1.0)
        rows.rescale(x, norm.reciprocal(), out=scratch[0][0])
        rows.rescale(self._cycle(0, scratch), norm, out=out)
        self._scratch[batch] = scratch
        return rows.dot(x, out)

    def transpose(self) -> LinearOperator:
        if self.symmetric:
            return self
        levels = [level.transpose() for level in self.levels]
        operator = self.operator.transpose()
        return MultigridCycle(operator, levels, self.coarsest.mT, self.coarse_space, self.cycle, self.precision)

    def _compilable(self, x: Tensor, out: Tensor) -> bool:
        own = len(self.batch)
        return (
            build.library() is not None
            and x.shape[: x.ndim - len(self.space)][-own or x.ndim :] == self.batch
            and writable(out, x, x.shape)
            and x.dtype in layout.NAMES
            and self.coarsest.device.type == "cpu"
            and all(level.operator.compiled is not None for level in self.levels)
        )

    def descend(self, task: Iteration) -> bool:
        """Run preconditioned conjugate gradients on a task, compiled, if that is possible and no slower."""
        stencil = task.operator.compiled if isinstance(task.operator, StencilOperator) else None
        spare = torch.empty_like(task.r)
        if stencil is None or not self._compilable(task.r, spare) or task.x.dtype != stencil.dtype:
            return False
        with self._laid_out(task.rows.count) as compiled:
            if not compiled.splits_rows:
                return False
            run_descent(task, stencil, compiled, spare)
        return True

    @contextmanager
    def _laid_out(self, rows: int) -> Iterator[CompiledCycle]:
        """The cycle for a number of rows, taken out while in use: two threads never work on the same fields."""
        key = rows, torch.get_num_threads()
        compiled = self._compiled.pop(key, None) or self._lay_out(rows)
        try:
            yield compiled
        finally:
            self._compiled[key] = compiled

    def _lay_out(self, rows: int) -> CompiledCycle:
        levels, held, padding = [], [], []
        for level in self.levels:
            stencil, transfer = level.operator.compiled, level.transfer.compiled
            if stencil is None:
                raise InputError("a level of the cycle does not suit the compiled kernels")
            inverse = None if level.inverse_diagonal is None else stencil.whole(level.inverse_diagonal)
            held.append((stencil, transfer, inverse))
            levels.append((stencil.table(inverse, flat=level.flat), transfer.table, level.omegas))
            shifts = [flat_shift(offset, level.operator.space) for offset in level.operator.offsets]
            padding.append(max(map(abs, shifts)) if level.flat else 0)
        spaces = [*(level.operator.space for level in self.levels), self.coarse_space]
        return CompiledCycle(levels, spaces, self.coarsest, self.cycle, len(self.space), padding, rows, held)

    def _allocate(self, batch: tuple[int, ...]) -> list[tuple[Tensor, ...]]:
        """Right side, iterate and spare field of every level."""
        spaces = [level.operator.space for level in self.levels] + [self.coarse_space]
        return [
            tuple(torch.empty(*batch, *space, dtype=self.precision, device=self.device) for _ in range(3))
            for space in spaces
        ]

    def _cycle(self, depth: int, scratch: list[tuple[Tensor, ...]]) -> Tensor:
        b, x, spare = scratch[depth]
        if depth == len(self.levels):
            flat = b.reshape(*b.shape[: b.ndim - len(self.coarse_space)], prod(self.coarse_space))
            return torch.matmul(self.coarsest, flat.unsqueeze(-1)).reshape(b.shape)
        level = self.levels[depth]
        x, spare = self._smooth(level, b, x, spare, start=True)
        for _ in range(self.cycle if depth < min(len(self.space), len(self.levels) - 1) else 1):
            level.operator.residual(b, x, out=spare)
            level.transfer.restrict(spare, scratch[depth + 1][0])
            level.transfer.prolong_add(self._cycle(depth + 1, scratch), x)
            x, spare = self._smooth(level, b, x, spare, start=False)
        return x

    def _smooth(self, level: Level, b: Tensor, x: Tensor, spare: Tensor, start: bool) -> tuple[Tensor, Tensor]:
        """The Chebyshev sweeps; the first from zero is a scaling."""
        omegas = level.omegas
        if start:
            level.operator.scale(b, omegas[0], level.inverse_diagonal, out=x)
            omegas = omegas[1:]
        for omega in omegas:
            level.operator.relax(x, b, omega, level.inverse_diagonal, out=spare)
            x, spare = spare, x
        return x, spare


def build_cycle(settings: Multigrid, operator: StencilOperator, problem: Separable | General) -> MultigridCycle:
    """The hierarchy of an operator; its finest level is the operator itself, wide stencils included."""
    precision = settings.precision or (torch.float32 if problem.contrast() <= _CONTRAST else operator.dtype)
    periodic, symmetric = operator.periodic, operator.symmetric
    coarsest = settings.coarsest / max(1, prod(operator.batch)) ** 0.5
    space, current = operator.space, problem
    compiled = operator.device.type == "cpu" and build.library() is not None
    levels: list[Level] = []
    while prod(space) > coarsest:
        axes = _axes_to_coarsen(space, current.strengths().tolist())
        if not any(axes):
            break
        coarsening = Coarsening.of(space, axes, periodic)
        coarser, transfer = current.coarsen(coarsening)
        bound = current.spectral_bound()
        omegas = chebyshev_weights(settings.smoothing_interval * bound, bound, settings.sweeps)
        own = operator if not levels else None
        fine, flat = _level_operator(current, own, periodic, symmetric, precision, compiled)
        inverse = None if isinstance(current, Separable) and compiled else _inverse_diagonal(fine, operator.dtype)
        levels.append(Level(fine, inverse, omegas, transfer.to(precision), flat))
        current, space = coarser, coarsening.coarse
    inverse = _dense_inverse(current.operator(periodic, symmetric, operator.dtype), current.weight(), operator).to(
        precision
    )
    cycle = settings.cycle or (1 if isinstance(problem, Separable) else 2)
    return MultigridCycle(operator, levels, inverse, space, cycle, precision)


def _level_operator(
    problem: Separable | General,
    own: StencilOperator | None,
    periodic: Sequence[bool],
    symmetric: bool,
    precision: torch.dtype,
    compiled: bool,
) -> tuple[StencilOperator, bool]:
    """The operator of a level in the precision of the cycle, and whether it has the flat form of stencil.hpp.

    `own` is the operator itself on the finest level, which may be wider than its problem.
    """
    if compiled and isinstance(problem, General) and not any(periodic) and (own is None or not is_wide(own)):
        return problem.stencil.flat_operator(symmetric, precision), True
    if own is not None:
        return own.to(precision), False
    return problem.operator(periodic, symmetric, precision), False


def _inverse_diagonal(operator: StencilOperator, computed: torch.dtype) -> Tensor:
    """1 / a_ii; 0 for points that are coupled to none and where a_ii is a rounding error of what it was computed in:
    coarse ones that stand for all of a few cells between walls."""
    diagonal = operator.diagonal()
    axes = tuple(range(-len(operator.space), 0))
    alone = diagonal.abs() <= 8 * torch.finfo(computed).eps * diagonal.abs().amax(axes, keepdim=True)
    if bool(alone.any()):
        for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
            if any(offset):
                alone = alone & (coefficient == 0)
    return torch.where(alone, 0.0, diagonal.reciprocal())


def is_wide(operator: StencilOperator) -> bool:
    """Whether a term leads farther than the next neighbour along an axis."""
    return any(abs(o) > 1 for offset in operator.offsets for o in offset)


def _axes_to_coarsen(space: Sequence[int], strengths: Sequence[float]) -> list[bool]:
    """Axes with more than three points whose coupling is within a factor of three of the strongest."""
    values = [strength if n > 3 else 0.0 for strength, n in zip(strengths, space, strict=True)]
    return [value > 0 and 3 * value >= max(values) for value in values]


def chebyshev_weights(low: float, high: float, sweeps: int) -> tuple[float, ...]:
    """Reciprocals of the Chebyshev roots on [low, high]: Richardson steps with them damp that interval best."""
    centre, radius = 0.5 * (high + low), 0.5 * (high - low)
    roots = [centre + radius * math.cos(math.pi * (2 * i + 1) / (2 * sweeps)) for i in range(sweeps)]
    return tuple(1 / root for root in roots)


def _dense_inverse(coarsest: StencilOperator, weight: Tensor, operator: StencilOperator) -> Tensor:
    """The inverse `(*batch, size, size)` of the coarsest operator; if it is singular, the pseudo-inverse in the inner
    product given by `weight`, in which it is symmetric if `operator` is."""
    size = coarsest.size
    index = torch.arange(size, device=coarsest.device).reshape(coarsest.space)
    matrix = torch.zeros(*coarsest.batch, size, size, dtype=coarsest.dtype, device=coarsest.device)
    for offset, coefficient in zip(coarsest.offsets, coarsest.coefficients, strict=True):
        for here, there in shifted_slices(coarsest.space, offset, coarsest.periodic):
            rows, columns = index[here].reshape(-1), index[there].reshape(-1)
            entries = narrow(coefficient, here).expand(*coarsest.batch, *index[here].shape)
            matrix[..., rows, columns] += entries.reshape(*coarsest.batch, -1)
    if operator.null_space is None:
        inverse = dense.inverse(matrix)
        if inverse is not None:
            return inverse
    mass = weight.reshape(*weight.shape[: weight.ndim - len(coarsest.space)], size, 1)
    rtol = max(1e-10, 100 * torch.finfo(matrix.dtype).eps)
    return torch.linalg.pinv(mass * matrix, rtol=rtol, hermitian=operator.symmetric) * mass.mT
