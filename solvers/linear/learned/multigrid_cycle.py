"""A multigrid cycle on networks of conductances, in torch: what is trained, and what runs where nothing is compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from .multigrid_coarsening import CoarseningNetwork, PairTransfer, coarsen
from .multigrid_conductances import LEAST, Conductances, coarsened_axes

WIDEST = 2.0
"""No eigenvalue of D^-1 A is larger, since no off-diagonal entry is positive and no row sum negative."""

_SINGULAR = 1e-12
"""An eigenvalue of the coarsest matrix, of diagonal 1, below this is rounding of zero."""
_DIGITS = 0.1
"""Share of the digits of the cycle's dtype that entries of the coarsest inverse may differ by in size."""


@dataclass(frozen=True)
class ConductanceLevel:
    """One grid of the hierarchy.

    Attributes:
        network: its conductances.
        inverse_diagonal: `(*batch, *space)`.
        transfers: to the next coarser one, axis after axis.
        weights: of the smoothing steps, 0-dimensional tensors.
    """

    network: Conductances
    inverse_diagonal: Tensor
    transfers: tuple[PairTransfer, ...]
    weights: tuple[Tensor, ...]


@dataclass(frozen=True)
class ConductanceCycle:
    """A symmetric V-cycle B from a zero start, positive definite whatever the coarsening network says.

    On every grid B = S + (I - M A) P B' P^T (I - A M), where I - M A is a Chebyshev polynomial q of D^-1 A and
    S = (I - q^2) A^-1. Since the spectrum of D^-1 A lies in (0, 2], where |q| < 1, S is positive definite; B is so with
    B' of the coarser grid, however P and the coarser conductances were chosen, as long as the latter are positive.

    Attributes:
        levels: finest first.
        inverse: of the coarsest operator, `(*batch, size, size)`.
        coarse_space: shape of the coarsest grid.
        correction: factor on corrections from the coarser grid.
    """

    levels: tuple[ConductanceLevel, ...]
    inverse: Tensor
    coarse_space: tuple[int, ...]
    correction: Tensor

    @staticmethod
    def of(finest: Conductances, diagonal: Tensor, learned: CoarseningNetwork, coarsest: int) -> ConductanceCycle:
        """The hierarchy of a network of conductances.

        Args:
            finest: the operator.
            diagonal: its own, also of cells that are cut off from all others.
            learned: what the coarsening does.
            coarsest: number of unknowns that are solved for directly.
        """
        levels: list[ConductanceLevel] = []
        network = finest
        while prod(network.space) > coarsest:
            axes = coarsened_axes(network)
            if not axes:
                break
            coarser, transfers = network, []
            for axis in axes:
                coarser, transfer = coarsen(coarser, axis, learned)
                transfers.append(transfer)
            weights = smoothing_weights(learned, len(levels))
            levels.append(ConductanceLevel(network, reciprocal(diagonal), tuple(transfers), weights))
            network, diagonal = coarser, coarser.diagonal()
        return ConductanceCycle(
            tuple(levels),
            direct_inverse(network),
            network.space,
            torch.exp(learned.correction),
        )

    def apply(self, r: Tensor) -> Tensor:
        """B r for fields `(*batch, *space)`."""
        return self._visit(r, 0)

    def _visit(self, r: Tensor, depth: int) -> Tensor:
        if depth == len(self.levels):
            flat = r.reshape(*r.shape[: r.ndim - len(self.coarse_space)], prod(self.coarse_space), 1)
            return (self.inverse @ flat).reshape(r.shape)
        level = self.levels[depth]
        x = level.weights[0] * level.inverse_diagonal * r
        for weight in level.weights[1:]:
            x = x + weight * level.inverse_diagonal * (r - level.network.apply(x))
        coarse = r - level.network.apply(x)
        for transfer in level.transfers:
            coarse = transfer.restrict(coarse)
        correction = self.correction * self._visit(coarse, depth + 1)
        for transfer in reversed(level.transfers):
            correction = transfer.prolong(correction)
        x = x + correction
        for weight in reversed(level.weights):
            x = x + weight * level.inverse_diagonal * (r - level.network.apply(x))
        return x


def smoothing_weights(learned: CoarseningNetwork, depth: int) -> tuple[Tensor, ...]:
    """Reciprocals of the Chebyshev roots on the interval that is smoothed; Saad (2003), section 12.3.2."""
    sweeps = learned.sweeps + depth
    low = WIDEST * (torch.exp(learned.smoothing) / sweeps**2).clamp(min=1e-4, max=0.9)
    centre, radius = 0.5 * (WIDEST + low), 0.5 * (WIDEST - low)
    roots = [math.cos(math.pi * (2 * k + 1) / (2 * sweeps)) for k in range(sweeps)]
    return tuple(1 / (centre + radius * root) for root in roots)


def reciprocal(diagonal: Tensor) -> Tensor:
    """1 / diagonal; 0 where that is nothing, in pairs of cells that are cut off."""
    alive = diagonal > LEAST
    return torch.where(alive, 1 / torch.where(alive, diagonal, 1.0), 0.0)


def direct_inverse(network: Conductances) -> Tensor:
    """The inverse `(*batch, size, size)` of a network's matrix, computed in float64.

    In directions in which the matrix is singular or nearly so, as where little or nothing leads to zero, it is bounded:
    its entries are rounded to the dtype of the cycle, and beside too large ones the smallest of its eigenvalues would
    lose their sign.
    """
    space, ground = network.space, network.ground
    size, batch = prod(space), ground.shape[: ground.ndim - len(space)]
    wide = network.to(torch.float64)
    columns = torch.eye(size, dtype=torch.float64, device=ground.device).reshape(size, *(1,) * len(batch), *space)
    matrix = wide.apply(columns.expand(size, *batch, *space)).reshape(size, *batch, size).movedim(0, -1)
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    alive = diagonal > LEAST
    scale = torch.where(alive, diagonal, 1.0).rsqrt()
    matrix = scale.unsqueeze(-1) * matrix * scale.unsqueeze(-2)
    matrix = matrix + torch.diag_embed(torch.where(alive, 0.0, 1.0).to(matrix))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    largest = _DIGITS / torch.finfo(ground.dtype).eps
    if not bool((factor.detach().diagonal(dim1=-2, dim2=-1).amin(-1) > _SINGULAR).all()) or bool((failed > 0).any()):
        inverse = _bounded_inverse(matrix, largest)
    else:
        inverse = torch.cholesky_inverse(factor)
        if not bool((inverse.detach().norm(dim=(-2, -1)) < largest).all()):
            inverse = _bounded_inverse(matrix, largest)
    return (scale.unsqueeze(-1) * inverse * scale.unsqueeze(-2)).to(ground.dtype)


def _bounded_inverse(matrix: Tensor, largest: float) -> Tensor:
    """The inverse with eigenvalues of at most `largest`, 1 where the matrix has 0; NaN if it is not finite."""
    if not bool(torch.isfinite(matrix).all()):
        return torch.full_like(matrix, torch.nan)
    values, vectors = torch.linalg.eigh(matrix.detach())
    bounded = torch.where(values < _SINGULAR, 1.0, values.clamp(min=1 / largest))
    raised = vectors * torch.where(values < 1 / largest, bounded - values, 0.0).unsqueeze(-2)
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix + raised @ vectors.mT))
