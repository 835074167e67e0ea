"""The two forms in which geometric multigrid coarsens an operator, both by Galerkin products.

* `Separable`, a sum of one tridiagonal matrix an axis and a constant, is coarsened axis by axis in one dimension, where
  interpolation from the operator makes the Galerkin product the Schur complement; the mass between point form and
  symmetric form is lumped. Coarse operators keep 2 d + 1 points and one-dimensional coefficients.
* `General`, any stencil of neighbours at distance 1, has black-box interpolation and 3^d coefficient fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator
from sciml.stencil import StencilOperator

from .coarse_stencils import Stencil, compact, galerkin, gather, interpolation
from .transfer import Coarsening, FieldTransfer, ProductTransfer, Transfer

_LINE = ((-1,), (0,), (1,))


@dataclass(frozen=True)
class Separable:
    """A = sum over axes of T_a + c, in point form; mass_a T_a is symmetric if the operator is.

    Attributes:
        axes: T_a, a one-dimensional stencil with offsets -1, 0, 1 each.
        mass: positive weights along each axis.
        shift: c.
    """

    axes: tuple[Stencil, ...]
    mass: tuple[Tensor, ...]
    shift: Tensor

    @staticmethod
    def of(operator: StencilOperator) -> Separable | None:
        """The parts of an operator, or None if it is not separable (or has a batch)."""
        dimension = len(operator.space)
        if operator.batch:
            return None
        lines: list[tuple[list[tuple[int]], list[Tensor]]] = [([], []) for _ in range(dimension)]
        shift = torch.zeros((), dtype=operator.dtype, device=operator.device)
        for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
            coefficient = coefficient.reshape(coefficient.shape[-dimension:])
            along = {a for a in range(dimension) if offset[a] or coefficient.shape[a] > 1}
            if len(along) > 1 or max(map(abs, offset)) > 1:
                return None
            if not along:
                shift = shift + coefficient.reshape(())
                continue
            axis = along.pop()
            lines[axis][0].append((offset[axis],))
            lines[axis][1].append(coefficient.reshape(-1))
        axes = []
        for n, ring, (offsets, coefficients) in zip(operator.space, operator.periodic, lines, strict=True):
            zero = torch.zeros(1, dtype=operator.dtype, device=operator.device)
            line = StencilOperator((n,), [*offsets, *_LINE], [*coefficients, zero, zero, zero], (ring,))
            full = _ordered(compact(line))
            # What a constant field sees belongs to the axis only as far as it varies along it (walls).
            row_sum = full.coefficients.sum(0)
            rest = row_sum.min()
            shift = shift + rest
            full.coefficients[1] -= rest
            axes.append(full)
        mass = tuple(torch.ones(n, dtype=operator.dtype, device=operator.device) for n in operator.space)
        return Separable(tuple(axes), mass, shift)

    def strengths(self) -> Tensor:
        """Mean coupling along each axis."""
        return torch.stack([(axis.coefficients[0].abs() + axis.coefficients[2].abs()).mean() for axis in self.axes])

    def spectral_bound(self) -> float:
        """Upper bound of the spectrum of D^-1 A, as rows are weakly diagonally dominant."""
        return 2.0

    def contrast(self) -> float:
        """The largest over the smallest diagonal entry, up to a factor near 1."""
        low, high = (sum(getattr(axis.centre, name)() for axis in self.axes) + self.shift for name in ("min", "max"))
        return float(high / low) if low > 0 else 1.0

    def operator(self, periodic: Sequence[bool], symmetric: bool, dtype: torch.dtype) -> StencilOperator:
        """The sum as one stencil operator with one-dimensional coefficients."""
        dimension = len(self.axes)
        offsets, coefficients = [(0,) * dimension], [self.shift.to(dtype).reshape((1,) * dimension)]
        for a, axis in enumerate(self.axes):
            lines = axis.coefficients.to(dtype).reshape(3, *(-1 if b == a else 1 for b in range(dimension)))
            offsets += [tuple(o if b == a else 0 for b in range(dimension)) for (o,) in axis.offsets]
            coefficients += list(lines)
        space = [len(mass) for mass in self.mass]
        return StencilOperator(space, offsets, coefficients, periodic, symmetric=symmetric)

    def weight(self) -> Tensor:
        """The mass at every point, which makes the operator symmetric when it multiplies the rows."""
        total = self.mass[0]
        for mass in self.mass[1:]:
            total = total.unsqueeze(-1) * mass
        return total

    def coarsen(self, coarsening: Coarsening) -> tuple[Separable, Transfer]:
        """One level down."""
        axes, masses, up, down = [], [], [], []
        for a, (axis, mass) in enumerate(zip(self.axes, self.mass, strict=True)):
            if coarsening.step[a] == 1:
                unit = torch.zeros(3, len(mass), dtype=mass.dtype, device=mass.device)
                unit[1] = 1
                axes.append(axis)
                masses.append(mass)
                up.append(unit)
                down.append(unit)
                continue
            line = coarsening.along(a)
            integrated = Stencil(axis.offsets, axis.coefficients * mass)
            weights = interpolation(integrated, line)
            stiffness = _ordered(galerkin(integrated, line, weights, weights, symmetric=False))
            prolongation = torch.stack([weights[k] for k in _LINE])
            lumped = prolongation * torch.stack([gather(mass, line, k) for k in _LINE])
            coarse_mass = lumped.sum(0)
            axes.append(Stencil(stiffness.offsets, stiffness.coefficients / coarse_mass))
            masses.append(coarse_mass)
            up.append(prolongation)
            down.append(lumped / coarse_mass)
        return Separable(tuple(axes), tuple(masses), self.shift), ProductTransfer(coarsening, up, down)


def _ordered(line: Stencil) -> Stencil:
    """A one-dimensional stencil with its terms at -1, 0, 1."""
    if line.offsets == _LINE:
        return line
    rows = [line[k] if k in line.index else torch.zeros_like(line.centre) for k in _LINE]
    return Stencil(_LINE, torch.stack(rows))


@dataclass(frozen=True)
class General:
    """A compact stencil whose coefficients may vary in every way."""

    stencil: Stencil
    symmetric: bool

    def strengths(self) -> Tensor:
        """Mean coupling along each axis."""
        sizes = self.stencil.survey.sizes
        along = [
            [float(sum(map(abs, offset)) == 1 and offset[a] != 0) for offset in self.stencil.offsets]
            for a in range(self.stencil.dimension)
        ]
        return torch.tensor(along, dtype=sizes.dtype, device=sizes.device) @ sizes

    def spectral_bound(self) -> float:
        """Gershgorin's bound of the spectrum of D^-1 A: 2 for weakly dominant rows without positive couplings."""
        survey = self.stencil.survey
        return survey.widest_row if survey.has_positive_couplings else 2.0

    def contrast(self) -> float:
        """The largest over the smallest diagonal entry of points that are coupled to others, the worst of a batch."""
        return self.stencil.survey.contrast

    def operator(self, periodic: Sequence[bool], symmetric: bool, dtype: torch.dtype) -> StencilOperator:
        """The stencil as an operator."""
        return Stencil(self.stencil.offsets, self.stencil.coefficients.to(dtype)).operator(periodic, symmetric)

    def weight(self) -> Tensor:
        """Ones: the operator is symmetric as it stands."""
        return torch.ones_like(self.stencil.centre)

    def coarsen(self, coarsening: Coarsening) -> tuple[General, Transfer]:
        """One level down."""
        prolongation = interpolation(self.stencil, coarsening)
        restriction = prolongation
        if not self.symmetric:
            restriction = interpolation(self.stencil.transpose(coarsening.periodic), coarsening)
        coarse = galerkin(self.stencil, coarsening, prolongation, restriction, self.symmetric)
        return General(coarse, self.symmetric), FieldTransfer(coarsening, prolongation, restriction)


def coarsenable(operator: LinearOperator) -> Separable | General:
    """The operator in the form that its coarsening uses.

    Raises:
        InputError: if it is not a stencil on a grid.
    """
    if not isinstance(operator, StencilOperator):
        raise InputError(
            f"geometric multigrid needs a stencil on a grid, got {type(operator).__name__}: for a matrix use "
            "IncompleteCholesky, ILU0 or Direct"
        )
    return Separable.of(operator) or General(compact(operator), operator.symmetric)
