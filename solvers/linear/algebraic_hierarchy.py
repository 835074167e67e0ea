"""Hierarchies of ever smaller matrices for algebraic multigrid, put together from what pyamg offers, on the CPU."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy
import scipy.sparse
import torch
from torch import Tensor

from sciml.csr import csr_from_starts
from sciml.errors import InputError
from sciml.sparse import SparseOperator

from .chebyshev import largest_eigenvalue

Coarsening = Literal["ruge-stuben", "smoothed aggregation"]

_STALLED = 0.9  # of the unknowns: coarsening that leaves more of them has come to its end
_POSITIVE_SHARE = 0.02  # of the couplings' sum of magnitudes that may be positive for Ruge-Stuben coarsening
_CANDIDATE_SWEEPS = 2  # symmetric Gauss-Seidel sweeps that fit the near null space to the boundary


@dataclass(frozen=True)
class Step:
    """One matrix of a hierarchy and the way to the next, all scipy CSR matrices in float64.

    Attributes:
        matrix: `(size, size)`.
        prolongation: `(size, coarse size)`.
        restriction: `(coarse size, size)`.
        bound: on the largest eigenvalue of D^-1 A, dimensionless.
    """

    matrix: Any
    prolongation: Any
    restriction: Any
    bound: float


def hierarchy(
    matrix: Any, symmetric: bool, kind: Coarsening | None, strength: float | None, candidates: Any, coarsest: int
) -> tuple[list[Step], Any]:
    """The steps, finest first, and the coarsest matrix; see AlgebraicMultigrid for the settings.

    Args:
        matrix: scipy CSR matrix in float64, sorted.
        symmetric: whether it equals its transpose.
        candidates: `(size, k)`, the near null space as columns, or None for the constant.

    Raises:
        InputError: where pyamg is not installed.
    """
    if kind is None:
        kind = "ruge-stuben" if candidates is None and _couplings_are_negative(matrix) else "smoothed aggregation"
    if kind == "ruge-stuben":
        return _split(matrix, symmetric, 0.25 if strength is None else strength, coarsest)
    if candidates is None:
        candidates = numpy.ones((matrix.shape[0], 1))
    return _aggregate(matrix, symmetric, 0.02 if strength is None else strength, candidates, coarsest)


def smoothing_only(matrix: Any, symmetric: bool) -> Step:
    """A matrix with no way down."""
    nothing = scipy.sparse.csr_array((matrix.shape[0], 0))
    return Step(matrix, nothing, nothing.T.tocsr(), _bound(matrix, symmetric))


def _split(matrix: Any, symmetric: bool, strength: float, coarsest: int) -> tuple[list[Step], Any]:
    """By Ruge and Stuben: some unknowns are kept, the others interpolated from them."""
    levels = (
        _pyamg()
        .ruge_stuben_solver(
            matrix,
            strength=("classical", {"theta": strength}),
            presmoother=None,
            postsmoother=None,
            max_coarse=coarsest,
        )
        .levels
    )
    steps = [Step(one.A, one.P.tocsr(), one.R.tocsr(), _bound(one.A, symmetric)) for one in levels[:-1]]
    return steps, levels[-1].A


def _aggregate(matrix: Any, symmetric: bool, strength: float, candidates: Any, coarsest: int) -> tuple[list[Step], Any]:
    """By Vanek, Mandel and Brezina (1996): unknowns are joined in small groups and the interpolation is smoothed.

    Composed here and not by pyamg's `smoothed_aggregation_solver`, half of whose time goes into eigenvalues that the
    smoother needs as well.
    """
    _pyamg()
    strong_couplings = importlib.import_module("pyamg.strength").symmetric_strength_of_connection
    group = importlib.import_module("pyamg.aggregation").standard_aggregation
    fit = importlib.import_module("pyamg.aggregation").fit_candidates
    left = candidates
    steps: list[Step] = []
    while matrix.shape[0] > coarsest:
        groups, _ = group(strong_couplings(matrix, strength))
        if not 0 < groups.shape[1] * candidates.shape[1] <= _STALLED * matrix.shape[0]:
            break
        bound = _bound(matrix, symmetric)
        if not steps:
            candidates = _relaxed(matrix, candidates)
            left = candidates if symmetric else _relaxed(matrix.T.tocsr(), left)
        tentative, candidates = fit(groups, candidates)
        prolongation = _smoothed(matrix, tentative.tocsr(), bound)
        if symmetric:
            restriction = prolongation.T.tocsr()
        else:
            tentative, left = fit(groups, left)
            restriction = _smoothed(matrix.T.tocsr(), tentative.tocsr(), bound).T.tocsr()
        steps.append(Step(matrix, prolongation, restriction, bound))
        matrix = (restriction @ (matrix @ prolongation)).tocsr()
    return steps, matrix


def _relaxed(matrix: Any, candidates: Any) -> Any:
    """Candidates after some sweeps on A x = 0, which takes them down to zero at Dirichlet boundaries."""
    gauss_seidel = importlib.import_module("pyamg.relaxation.relaxation").gauss_seidel
    columns = []
    for column in candidates.T:
        field = column.copy()
        gauss_seidel(matrix, field, numpy.zeros_like(field), iterations=_CANDIDATE_SWEEPS, sweep="symmetric")
        columns.append(field)
    return numpy.stack(columns, axis=1)


def _smoothed(matrix: Any, tentative: Any, bound: float) -> Any:
    """(1 - 4/3 / bound D^-1 A) T, D being the diagonal."""
    product = matrix @ tentative
    diagonal = matrix.diagonal()
    weight = numpy.divide(4 / 3 / bound, diagonal, out=numpy.zeros_like(diagonal), where=diagonal > 0)
    product.data *= numpy.repeat(weight, numpy.diff(product.indptr))
    return (tentative - product).tocsr()


def _couplings_are_negative(matrix: Any) -> bool:
    """Whether next to nothing off the diagonal is positive."""
    diagonal = matrix.diagonal()
    magnitudes = abs(matrix.data).sum() - abs(diagonal).sum()
    positive = matrix.data[matrix.data > 0].sum() - diagonal.clip(min=0).sum()
    return bool(positive <= _POSITIVE_SHARE * magnitudes)


def _bound(matrix: Any, symmetric: bool) -> float:
    tensor = csr_of(matrix, torch.float32, torch.device("cpu"))
    return float(largest_eigenvalue(SparseOperator(tensor, symmetric=symmetric)))


def csr_of(matrix: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A CSR tensor from a scipy CSR matrix."""
    starts, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    return csr_from_starts(starts.to(device), columns.to(device), values.to(device, dtype), matrix.shape)


def scipy_of(matrix: Tensor) -> Any:
    """A scipy CSR matrix from a CSR tensor, with 32-bit indices; shares memory where it can."""
    matrix = matrix.detach().cpu()
    starts, columns = (part.int().numpy() for part in (matrix.crow_indices(), matrix.col_indices()))
    return scipy.sparse.csr_array((matrix.values().numpy(), columns, starts), shape=tuple(matrix.shape))


def _pyamg() -> Any:
    try:
        return importlib.import_module("pyamg")
    except ImportError:
        raise InputError("AlgebraicMultigrid needs pyamg for its set-up: pip install pyamg") from None
