"""Fluxes of conservation laws that no limiter acts on, and the cell Peclet number up to which that is sound."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import inf
from typing import final

import sympy
import torch
from torch import Tensor

from ..equations.evaluation import evaluate_all
from .assembly import PECLET_LIMIT
from .inputs import Number
from .limited_flux import Law, laws_of
from .limiters import spectral_radius
from .problem import Problem


@final
class CentralFluxes:
    """Nonlinear fluxes without derivatives, taken as means of those of two cells.

    Next to diffusion that is of second order and does not ring as long as speed times spacing over diffusivity, the
    cell Peclet number, stays below 2.

    Args:
        fluxes: by unknown, one expression an axis; linear ones are left out.
        problem: on the grid.
        asked: whether the scheme says that there is to be no limiter.
    """

    def __init__(self, fluxes: Mapping[str, Sequence[sympy.Expr]], problem: Problem, *, asked: bool) -> None:
        self.problem = problem
        self.asked = asked
        self.laws = [law for law in laws_of(fluxes) if any(law.curved)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, for people to read."""
        names = ", ".join(name for law in self.laws for name in law.names)
        if not names:
            return ()
        reason = (
            "as asked" if self.asked else f"there is diffusion; sound up to a cell Peclet number of {PECLET_LIMIT:g}"
        )
        return (f"fluxes of {names} without derivatives: central, no limiter ({reason})",)

    def warn(self, cells: Mapping[str, Number]) -> None:
        """Warn where a state, with all else that stands in the fluxes, has a cell Peclet number beyond the limit."""
        for law in () if self.asked else self.laws:
            peclet = self._peclet(law, cells)
            if peclet > PECLET_LIMIT:
                names = ", ".join(law.names)
                warnings.warn(
                    f"the cell Peclet number of {names}, |speed| h / diffusivity, is {peclet:.3g} at the start: beyond "
                    f"{PECLET_LIMIT:g} central fluxes ring at steep fronts. Take a finer grid, or "
                    "scheme=FiniteVolume(limiter='van_leer'); limiter='none' leaves it so without a warning",
                    stacklevel=4,
                )

    def _peclet(self, law: Law, cells: Mapping[str, Number]) -> float:
        """The largest over cells and axes; 0 where the diffusivity is not known beforehand."""
        largest, count = 0.0, len(law.names)
        with torch.no_grad():
            for axis, slopes in enumerate(law.slopes):
                expressions = tuple(slope for row in slopes for slope in row)
                diffusivity = self._diffusivity(law, axis)
                if diffusivity is None or not any(expressions):
                    continue
                entries = list(evaluate_all(expressions, cells))
                if not any(isinstance(entry, Tensor) for entry in entries):
                    entries[0] = torch.as_tensor(entries[0], dtype=self.problem.grid.dtype)
                speed = spectral_radius([entries[count * i : count * (i + 1)] for i in range(count)])
                ratio = speed * (self.problem.grid.spacing[axis] / diffusivity)
                largest = max(largest, float(ratio.nan_to_num(nan=0.0, posinf=inf).max()))
        return largest

    def _diffusivity(self, law: Law, axis: int) -> Tensor | None:
        """The least of all unknowns along an axis; None where it is not linear diffusion alone that smooths."""
        found = []
        for name in law.names:
            row = self.problem.unknowns.index(name)
            pieces = [piece for piece in self.problem.pieces(row, name) if sum(piece.total) > 1]
            if any(piece.role != "diffusion" for piece in pieces):
                return None
            along = [piece.outer * piece.inner for piece in pieces if piece.axis == axis]
            if not along:
                return None
            found.append(torch.as_tensor(sum(along[1:], start=along[0])).abs())
        least = found[0]
        for other in found[1:]:
            least = torch.minimum(least, other)
        return least
