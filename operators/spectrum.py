"""Energy of fields on a grid by wavenumber.

Along a periodic axis fields are taken apart into waves, exp(2 pi i m x / L); between two walls where they are zero into
sines, sin(pi m x / L); between other walls into cosines, cos(pi m x / L); and between a wall of the first kind and one
of the second into quarter waves. All of these are orthogonal on the cell centres, and with half weights of those on the
walls on nodes, so that the energies of all wavenumbers add up to the mean square of the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciml.boundary import Condition, Dirichlet
from sciml.grid import Grid


@final
@dataclass(frozen=True, eq=False)
class Spectrum:
    """Energies of the truth and of the error of a prediction, means over samples.

    Args:
        wavenumbers: `(bins,)` centres of rings of equal width in |k|, in radians over the unit of length.
        truth, error: `(bins,)` mean squares, in the square of the unit of the field; they add up to that of the field.
        resolved: largest |k| that the grid resolves along every axis; beyond it only corners are left.
        basis: what the fields were taken apart into, in words, an axis after the other.
    """

    wavenumbers: Tensor
    truth: Tensor
    error: Tensor
    resolved: float
    basis: str

    @property
    def lost(self) -> float | None:
        """The first wavenumber from which on the error has more energy than the truth, up to `resolved`; None: none."""
        inside = (self.wavenumbers <= self.resolved) & (self.truth > 0)
        wrong = (self.error >= self.truth)[inside]
        if not len(wrong) or not bool(wrong[-1]):
            return None
        right = (~wrong).nonzero().flatten()
        return float(self.wavenumbers[inside][int(right[-1]) + 1 if len(right) else 0])


@final
class RadialEnergy:
    """Sums energies of fields by the length of their wave vector.

    Args:
        grid: the domain, with the conditions that choose the functions.
        unknown: whose conditions, where the grid tells unknowns apart.
        nodes: whether fields stand at the nodes between the cells of the grid, the outermost on the walls.
    """

    def __init__(self, grid: Grid, unknown: str | None = None, nodes: bool = False) -> None:
        self._axes = [
            _Axis.make(n, h, wraps, sides, nodes, grid.device)
            for n, h, wraps, sides in zip(
                grid.shape, grid.spacing, grid.periodic, grid.sides(unknown).values(), strict=True
            )
        ]
        self.basis = ", ".join(f"{axis.kind} along {name}" for axis, name in zip(self._axes, grid.axes, strict=True))
        self.resolved = min(math.pi / h for h in grid.spacing)
        width = max(axis.fundamental for axis in self._axes)
        square = torch.zeros((), dtype=torch.float64, device=grid.device)
        for axis in self._axes:
            square = square[..., None] + axis.wavenumbers.square()
        # Quarter waves lie between two rings, where rounding must not decide.
        self._ring = (square.sqrt() / width + 0.5 + 1e-9).floor().long().flatten()
        self.wavenumbers = width * torch.arange(int(self._ring.max()) + 1, dtype=torch.float64)

    def __call__(self, u: Tensor) -> Tensor:
        """Mean squares by wavenumber, `(n, bins)` on the CPU, of fields `(n, channel, *space)`; channels are added."""
        values = u.to(torch.float64)
        first = values.dim() - len(self._axes)
        for number, axis in enumerate(self._axes, first):
            if axis.matrix is not None:
                values = torch.matmul(values.movedim(number, -1), axis.matrix.T).movedim(-1, number)
        waves = [number for number, axis in enumerate(self._axes, first) if axis.matrix is None]
        if waves:
            values = torch.view_as_real(torch.fft.fftn(values, dim=waves, norm="ortho")).square().sum(-1)
        else:
            values = values.square()
        energy = values.sum(1).flatten(1) / math.prod(axis.cells for axis in self._axes)
        rings = energy.new_zeros(len(energy), len(self.wavenumbers))
        return rings.index_add_(1, self._ring, energy).cpu()


@dataclass(frozen=True, eq=False)
class _Axis:
    """Functions that are orthonormal on the points of one axis, `(function, point)`, or None of waves; `cells` is the
    number of spacings along it."""

    kind: str
    wavenumbers: Tensor
    fundamental: float
    matrix: Tensor | None
    cells: int

    @classmethod
    def make(
        cls, n: int, h: float, wraps: bool, sides: tuple[Condition, Condition], nodes: bool, device: torch.device
    ) -> _Axis:
        index = torch.arange(n, dtype=torch.float64, device=device)
        if wraps:
            unit = 2 * math.pi / (n * h)
            return cls("waves", unit * torch.minimum(index, n - index), unit, None, n)
        places, weights = index + 0.5, torch.ones_like(index)
        zero = (_is_zero(sides[0]), _is_zero(sides[1]))
        number = index
        if nodes:
            places = torch.arange(n + 1, dtype=torch.float64, device=device)
            weights = torch.ones_like(places)
            weights[0] = weights[-1] = 0.5
            # As many as there are points at which they are not all zero.
            number = places[: n + 1 - sum(zero)]
        unit = math.pi / (n * h)
        shift = {(True, True): 1.0, (False, False): 0.0}.get(zero, 0.5)
        kind = {(True, True): "sines", (False, False): "cosines"}.get(zero, "quarter waves")
        phase = math.pi * (number + shift)[:, None] * places / n
        matrix = torch.sin(phase) if zero[0] else torch.cos(phase)
        # The sine of the shortest wave and the constant have values of one size; all others have half the square.
        matrix = matrix * weights / (weights * matrix.square()).sum(1, keepdim=True).sqrt()
        return cls(kind, unit * (number + shift), unit, matrix, n)


def _is_zero(side: Condition) -> bool:
    return isinstance(side, Dirichlet) and isinstance(side.value, int | float) and side.value == 0
