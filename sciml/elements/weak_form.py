"""The weak form of one row of an equation: its matrices, its load, and what is known of them beforehand.

A row that reads sum_kl outer d_k(inner_kl d_l u) + b . grad u + c u = f becomes, tested with v,

    int D grad v . grad u + (b - grad(outer) inner) . grad u v + c u v + int_boundary outer v q = int f v,

with D_kl = -outer inner_kl and q = sum_kl n_k inner_kl d_l u, the outward flux of the boundary conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..equations.evaluation import names, shown
from ..errors import InputError
from ..given import Number
from ..scheme import FiniteElement
from .assembly import MatrixSum, load
from .boundary import Conditions
from .pattern import Pattern
from .terms import Row, Terms
from .values import Values, extremes

if TYPE_CHECKING:
    import sympy

PECLET_LIMIT = 1.0

# Where coth(P) - 1 / P is P / 3 or 1 - 1 / P to rounding, or nearly so, and its formula is not.
_SMALL, _LARGE = 1e-3, 20.0


@dataclass(frozen=True)
class Diffusion:
    """D of the weak form at the cells.

    Attributes:
        isotropic: the factor of the identity, None for another tensor.
        tensor: (k, l) -> entry; absent ones are 0.
        symmetric: whether the entries say that it equals its transpose.
        sign: +1 or -1 where it is certainly positive or negative definite, 0 where it is neither.
    """

    isotropic: Number | None
    tensor: Mapping[tuple[int, int], Number]
    symmetric: bool
    sign: int


class WeakForm:
    """One row of the equation.

    Args:
        row: its terms.
        own: the unknown that it is paired with.
        conditions: on that unknown.
        values, pattern: of the mesh.
        scheme: settings.
    """

    def __init__(
        self,
        row: Row,
        own: str,
        conditions: Conditions,
        values: Values,
        pattern: Pattern,
        scheme: FiniteElement,
    ) -> None:
        self.row = row
        self.own = own
        self.conditions = conditions
        self.values = values
        self.geometry = values.geometry
        self.pattern = pattern
        self.scheme = scheme

    @property
    def terms(self) -> Terms:
        """Those of the row's own unknown."""
        return self.row.terms[self.own]

    @cached_property
    def diffusion(self) -> Diffusion | None:
        """D of the row's own unknown; None without second derivatives."""
        groups = self.terms.diffusion
        if not groups:
            return None
        tensor: dict[tuple[int, int], Number] = {}
        for outer, entries in groups.items():
            for place, inner in entries.items():
                value = -self.values.at(outer, "cells") * self.values.at(inner, "cells")
                tensor[place] = tensor[place] + value if place in tensor else value
        axes = range(self.geometry.dimension)
        alike = all(
            set(entries) == {(k, k) for k in axes} and len(set(entries.values())) == 1 for entries in groups.values()
        )
        symmetric = all(entries[k, j] == entries.get((j, k)) for entries in groups.values() for k, j in entries)
        if not alike:
            return Diffusion(None, tensor, symmetric, _definite_sign(tensor, self.geometry.dimension))
        low, high = extremes(tensor[0, 0])
        if low < 0.0 < high:
            self._refuse_changing_sign(tensor[0, 0], next(iter(groups.values()))[0, 0])
        return Diffusion(tensor[0, 0], tensor, True, 1 if low > 0.0 else -1 if high < 0.0 else 0)

    @cached_property
    def sign(self) -> int:
        """The sign that diffusion, else reaction, gives to the diagonal."""
        candidates = [] if self.diffusion is None else list(self.diffusion.tensor.items())
        total = sum(sum(extremes(value)) for (k, j), value in candidates if k == j)
        if not total and self.terms.reaction is not None:
            total = sum(extremes(self.reaction))
        return -1 if total < 0 else 1

    @cached_property
    def reaction(self) -> Number:
        """The coefficient of the row's own unknown, at the cells."""
        return 0.0 if self.terms.reaction is None else self.values.at(self.terms.reaction, "cells")

    def outer(self) -> sympy.Expr | None:
        """What stands before the divergence, so that outer times the boundary's flux is in the row; None without one.

        Raises:
            InputError: if the second derivatives have different factors.
        """
        factors = list(dict.fromkeys((*self.terms.diffusion, *self.row.outers)))
        if len(factors) > 1:
            listed = ", ".join(map(str, factors))
            raise InputError(
                f"the second derivatives of {self.own} have the factors {listed}, so that the flux through the "
                "boundary has no one meaning: write them as -div([...]), with the factors inside"
            )
        return factors[0] if factors else None

    @property
    def has_flux(self) -> bool:
        """Whether conditions on a flux have a meaning."""
        return bool(self.terms.diffusion or self.row.outers)

    def is_constant(self, expression: sympy.Expr) -> bool:
        """Whether an expression does not vary in space: made of numbers and parameters."""
        return names(expression) <= set(self.values.parameters)

    @cached_property
    def symmetric(self) -> bool:
        """Whether the matrix of the row's own unknown equals its transpose by construction."""
        if not self.terms.is_symmetric:
            return False
        return all(self.is_constant(outer) for outer in self.terms.diffusion)

    # Stabilization

    @cached_property
    def velocity(self) -> dict[int, Number]:
        """b of b . grad u at the cells, that of div(b u) included."""
        total: dict[int, Number] = {
            axis: self.values.at(speed, "cells") for axis, speed in self.terms.advection.items()
        }
        for outer, flows in self.terms.carried.items():
            for axis, inner in flows.items():
                speed = self.values.at(outer, "cells") * self.values.at(inner, "cells")
                total[axis] = total[axis] + speed if axis in total else speed
        return total

    @cached_property
    def _rate(self) -> Tensor:
        """sum_a |b . g_a| in each cell, `(*batch, m)`."""
        form = MatrixSum(self.pattern, self.geometry)
        slopes = [form.along(self.velocity, vertex).abs() for vertex in range(len(self.geometry.cells))]
        return sum(slopes[1:], start=slopes[0])

    @cached_property
    def _peclet(self) -> Tensor:
        """P = |b| h / (2 D) in each cell, D being the diffusivity along b, and h = 2 |b| / sum_a |b . g_a| (Tezduyar
        and Park, Comput. Methods Appl. Mech. Engrg. 59 (1986) 307-325); infinite without diffusion."""
        rate, velocity = self._rate, self.velocity
        zero = torch.zeros_like(rate)
        square = sum((speed**2 for speed in velocity.values()), start=zero)
        tensor = {} if self.diffusion is None else self.diffusion.tensor
        parts = [v * velocity[k] * velocity[j] for (k, j), v in tensor.items() if k in velocity and j in velocity]
        along = (zero + sum(parts)).abs()
        moving = rate > 0
        diffusing = moving & (along > 0)
        peclet = square**2 / (torch.where(moving, rate, 1.0) * torch.where(diffusing, along, 1.0))
        return torch.where(diffusing, peclet, torch.where(moving, inf, 0.0))

    @cached_property
    def peclet(self) -> float:
        """The largest element Peclet number."""
        return float(self._peclet.detach().max())

    @cached_property
    def upwind_time(self) -> Tensor | None:
        """tau of the stabilization in each cell, `(*batch, m)`, in the unit of the reciprocal of a reaction; None where
        there is none to be added.

        tau = h / (2 |b|) (coth(P) - 1 / P) (Brooks and Hughes, Comput. Methods Appl. Mech. Engrg. 32 (1982) 199-259).
        """
        wanted = self.scheme.stabilization
        if not self.velocity or wanted == "none" or (wanted == "auto" and self.peclet <= PECLET_LIMIT):
            return None
        peclet, moving = self._peclet, self._rate > 0
        middle = peclet.clamp(_SMALL, _LARGE)
        share = 1.0 / torch.tanh(middle) - 1.0 / middle
        share = torch.where(peclet < _SMALL, peclet.clamp(max=1.0) / 3.0, share)
        share = torch.where(peclet > _LARGE, 1.0 - 1.0 / peclet.clamp(min=1.0), share)
        return torch.where(moving, share / torch.where(moving, self._rate, 1.0), 0.0)

    def notes(self, several: bool) -> list[str]:
        """What was decided, in words."""
        return [*self._notes_on_tensor(), *self._notes_on_advection(several)]

    def _notes_on_tensor(self) -> list[str]:
        diffusion = self.diffusion
        if diffusion is None or diffusion.isotropic is not None or diffusion.sign:
            return []
        bad = _count_indefinite(diffusion.tensor, *self.geometry.gradients.shape[1:])
        if not bad:
            return []
        return [
            f"the diffusion tensor of {self.own} is indefinite in {bad} of {len(self.geometry.volumes)} cells: the "
            "equation is not elliptic there, and small changes of the input can change the solution at will"
        ]

    def _notes_on_advection(self, several: bool) -> list[str]:
        if not self.velocity:
            return []
        where = f"first derivatives of {self.own} in its equation" if several else "first derivatives"
        stabilized = self.upwind_time is not None
        way = "streamline-upwind Petrov-Galerkin" if stabilized else "Galerkin, not stabilized"
        if self.scheme.stabilization != "auto":
            return [f"{where}: {way} (as asked; largest element Peclet number {self.peclet:.3g})"]
        relation = ">" if stabilized else "<="
        return [f"{where}: {way} (largest element Peclet number {self.peclet:.3g} {relation} {PECLET_LIMIT:g})"]

    # Matrices and load

    def own_entries(self) -> tuple[Tensor, Tensor]:
        """The entries of the matrix of the row's own unknown: without, and with the Robin conditions."""
        form = MatrixSum(self.pattern, self.geometry)
        diffusion = self.diffusion
        if diffusion is not None:
            if diffusion.isotropic is not None:
                form.add_isotropic(diffusion.isotropic)
            elif diffusion.symmetric:
                form.add_symmetric(diffusion.tensor)
            else:
                form.add_tensor(diffusion.tensor)
            self._add_slopes_of_outer(form)
        self._add_lower_terms(form, self.terms)
        if self.upwind_time is not None:
            form.add_upwinding(self.velocity, self.sign * self.upwind_time, self.reaction + self._divergence())
        volume = form.entries(symmetric=self.symmetric)
        robin = [part for part in self.conditions.parts if part.kind == "robin"]
        if not robin or not self.has_flux:
            return volume, volume
        surface = MatrixSum(self.pattern, self.geometry)
        for part in robin:
            factor = self.outer_on(part.facets)
            surface.add_on_facets(part.facets, -factor * part.coefficient)
        return volume, volume + surface.entries(symmetric=True)

    def coupling_entries(self, unknown: str) -> Tensor:
        """The entries of the matrix of another unknown in this row."""
        form = MatrixSum(self.pattern, self.geometry)
        self._add_lower_terms(form, self.row.terms[unknown])
        return form.entries(symmetric=self.row.terms[unknown].is_symmetric)

    def load(self) -> Tensor:
        """`(*batch, n)`, the integral of the sources times the test functions."""
        total = torch.zeros(self.pattern.size, dtype=self.values.mesh.dtype, device=self.values.mesh.device)
        for source in self.row.sources:
            nodal = self.values.find(source, "points")
            value = self.values.at(source, "cells") if nodal is None else nodal
            total = total + load(self.pattern, self.geometry, value, by_point=nodal is not None)
            if self.upwind_time is not None:
                total = total + self._upwinded(self.upwind_time, self.values.at(source, "cells"))
        return total

    def outer_on(self, facets: Tensor) -> Number:
        """The factor of the boundary's flux, a float or `(*batch, k)`."""
        outer = self.outer()
        if outer is None:
            return 0.0
        value = self.values.at(outer, "facets")
        return value[..., facets] if isinstance(value, Tensor) and value.shape[-1] > 1 else value

    def carried_through(self, facets: Tensor) -> Number:
        """outer b . n of the terms outer div(b u) on facets, a float or `(*batch, k)`."""
        return self._carried_through(self.terms, facets)

    def _carried_through(self, terms: Terms, facets: Tensor) -> Number:
        total: Number = 0.0
        for outer, flows in terms.carried.items():
            factor = self.values.at(outer, "facets")
            for axis, inner in flows.items():
                speed = factor * self.values.at(inner, "facets")
                speed = speed * self.geometry.normals[axis]
                total = total + speed[..., facets]
        return total

    def _add_lower_terms(self, form: MatrixSum, terms: Terms) -> None:
        if terms.reaction is not None:
            form.add_reaction(self.values.at(terms.reaction, "cells"), lumped=self.scheme.lumped)
        if terms.advection:
            form.add_advection({axis: self.values.at(speed, "cells") for axis, speed in terms.advection.items()})
        for outer, flows in terms.carried.items():
            factor = self.values.at(outer, "cells")
            speeds = {axis: self.values.at(inner, "cells") for axis, inner in flows.items()}
            form.add_carried({axis: factor * speed for axis, speed in speeds.items()})
            if not self.is_constant(outer):
                slopes = [self.values.slope(outer, axis) * speed for axis, speed in speeds.items()]
                form.add_reaction(-sum(slopes[1:], start=slopes[0]))
        if terms.carried:
            facets = torch.arange(len(self.values.mesh.facets), device=self.values.mesh.device)
            form.add_on_facets(facets, self._carried_through(terms, facets))

    def _add_slopes_of_outer(self, form: MatrixSum) -> None:
        velocity: dict[int, Number] = {}
        for outer, entries in self.terms.diffusion.items():
            if self.is_constant(outer):
                continue
            for (k, j), inner in entries.items():
                speed = -self.values.slope(outer, k) * self.values.at(inner, "cells")
                velocity[j] = velocity[j] + speed if j in velocity else speed
        if velocity:
            form.add_advection(velocity)

    def _divergence(self) -> Number:
        """div b of the terms div(b u) at the cells, 0 where b is given by cell."""
        total: Number = 0.0
        for outer, flows in self.terms.carried.items():
            for axis, inner in flows.items():
                if self.values.find(inner, "points") is not None:
                    total = total + self.values.at(outer, "cells") * self.values.slope(inner, axis)
        return total

    def _upwinded(self, time: Tensor, source: Number) -> Tensor:
        form = MatrixSum(self.pattern, self.geometry)
        weight = self.sign * time * self.geometry.volumes * source
        vertices = range(len(self.geometry.cells))
        parts = torch.stack([weight * form.along(self.velocity, a) for a in vertices], -2)
        return self.pattern.point_sum(parts.flatten(-2))

    def _refuse_changing_sign(self, value: Number, inner: sympy.Expr) -> None:
        if not isinstance(value, Tensor):
            return
        for row in value.detach().reshape(-1, value.shape[-1]):
            below = row[row < 0.0]
            if len(below) and bool((row > 0.0).any()):
                raise InputError(
                    f"the diffusion coefficient {shown(inner)} changes sign: in {len(below)} of {len(row)} cells it "
                    "has another one than in the rest; it has one sign everywhere"
                )


def _count_indefinite(tensor: Mapping[tuple[int, int], Number], dimension: int, cells: int) -> int:
    """In how many cells, at most of a batch, the symmetric part of a tensor has eigenvalues of both signs."""
    zero = torch.zeros(cells, dtype=torch.float64)
    entries = {place: zero + torch.as_tensor(value).detach().cpu() for place, value in tensor.items()}
    rows = [[entries.get((k, j), zero) for j in range(dimension)] for k in range(dimension)]
    places = torch.broadcast_tensors(*(entry for row in rows for entry in row))
    matrices = torch.stack(places, -1).unflatten(-1, (dimension, dimension))
    values = torch.linalg.eigvalsh((matrices + matrices.mT) / 2)
    rounding = 1e-12 * values.abs().amax(-1)
    both = (values[..., 0] < -rounding) & (values[..., -1] > rounding)
    return int(both.sum(-1).max())


def _definite_sign(tensor: Mapping[tuple[int, int], Number], dimension: int) -> int:
    """+1 or -1 for a tensor whose symmetric part is positive or negative definite everywhere, by its leading minors."""
    entries = {place: torch.as_tensor(value).detach().double() for place, value in tensor.items()}
    zero = torch.zeros((), dtype=torch.float64, device=next(iter(entries.values())).device)

    def entry(k: int, j: int) -> Tensor:
        return (entries.get((k, j), zero) + entries.get((j, k), zero)) / 2

    minors = [entry(0, 0), entry(0, 0) * entry(1, 1) - entry(0, 1) ** 2]
    if dimension == 3:
        minors.append(
            entry(2, 2) * minors[1]
            - entry(0, 2) * (entry(0, 2) * entry(1, 1) - entry(0, 1) * entry(1, 2))
            + entry(1, 2) * (entry(0, 1) * entry(0, 2) - entry(0, 0) * entry(1, 2))
        )
    if not bool((minors[1] > 0).all()):
        return 0
    for sign in (1, -1):
        if bool((sign * minors[0] > 0).all()) and (dimension == 2 or bool((sign * minors[2] > 0).all())):
            return sign
    return 0
