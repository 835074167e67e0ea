"""The weak form of the nonlinear terms of one row, and its exact derivative.

Tested with v, sum_k d/dx_k flux_k + source becomes - int flux . grad v + int source v + int_boundary v n . flux, of
which conditions on the flux replace the diffusive part on the boundary. Coefficients are taken at the centres of cells
and facets, as in linear terms; the solution in a flux at the centre of the cell, where its gradient is constant; in
sources, and in the carried flux on facets, at the points of a rule of degree 2. That keeps the orders of P1 elements
(Ciarlet, The Finite Element Method for Elliptic Problems, 1978, theorem 4.1.6), and terms that are linear after all
get the matrices of `assembly`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import TypeGuard

import sympy
import torch
from torch import Tensor

from ..equations.evaluation import evaluate_all, names
from ..given import Number
from .assembly import MatrixSum
from .geometry import Geometry
from .nonlinear_terms import Components, NonlinearTerms
from .pattern import Pattern
from .quadrature import PointRule
from .values import At, Values


class State:
    """P1 functions where the quadrature wants them; each is computed once.

    Args:
        geometry: of the mesh.
        fields: `(*batch, n)` by unknown.
    """

    def __init__(self, geometry: Geometry, fields: Mapping[str, Tensor]) -> None:
        self.geometry = geometry
        self.fields = fields
        self._corners: dict[str, Tensor] = {}
        self._means: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}

    def corners(self, name: str) -> Tensor:
        """`(*batch, d + 1, m)`."""
        if name not in self._corners:
            self._corners[name] = _gathered(self.fields[name], self.geometry.cells)
        return self._corners[name]

    def mean(self, name: str) -> Tensor:
        """`(*batch, m)`."""
        if name not in self._means:
            self._means[name] = self.corners(name).mean(-2)
        return self._means[name]

    def slope(self, name: str, axis: int) -> Tensor:
        """`(*batch, m)`, a component of the gradient."""
        if name not in self._gradients:
            self._gradients[name] = self._gradient(name)
        return self._gradients[name][..., axis, :]

    def on_facets(self, name: str) -> Tensor:
        """`(*batch, d, f)`, at the vertices of the exterior facets."""
        return _gathered(self.fields[name], self.geometry.facets)

    def _gradient(self, name: str) -> Tensor:
        first, *others = self.corners(name).unbind(-2)
        total = (others[0] - first).unsqueeze(-2) * self.geometry.gradients[1]
        for corner, gradient in zip(others[1:], self.geometry.gradients[2:], strict=True):
            total = torch.addcmul(total, (corner - first).unsqueeze(-2), gradient)
        return total


class NonlinearForm:
    """The nonlinear terms of one row.

    Args:
        terms: as expressions.
        values, pattern: of the mesh.
        lumped: whether the points of sources are the vertices.
    """

    def __init__(self, terms: NonlinearTerms, values: Values, pattern: Pattern, lumped: bool) -> None:
        self.terms = terms
        self.geometry = values.geometry
        self.pattern = pattern
        d = self.geometry.dimension
        self.rule = PointRule(d + 1, lumped)
        self.facet_rule = PointRule(d)
        self._shares: Tensor | None = None
        self._unknowns: dict[str, tuple[str, int | None]] = {}
        for name, symbols in terms.symbols.items():
            self._unknowns[symbols.value.name] = (name, None)
            self._unknowns |= {symbol.name: (name, axis) for axis, symbol in symbols.slopes.items()}
        self._at_cells, self._late_at_cells = self._known((*terms.flux.values(), terms.source), values, "cells")
        self._at_facets, self._late_at_facets = self._known(terms.carried.values(), values, "facets")

    def at_time(self, values: Values) -> NonlinearForm:
        """The same with the values, at some time, of what depends on it; only the result can be evaluated."""
        if not self._late_at_cells and not self._late_at_facets:
            return self
        form = copy(self)
        form._at_cells = {**self._at_cells, **_values_of(self._late_at_cells, values, "cells")}
        form._at_facets = {**self._at_facets, **_values_of(self._late_at_facets, values, "facets")}
        return form

    def residual(self, state: State) -> Tensor:
        """`(*batch, n)`, the weak form for each basis function, but for the diffusive flux through the boundary."""
        volumes = self.geometry.volumes
        parts: list[Tensor] = []
        if self.terms.flux:
            flux = dict(zip(self.terms.flux, self._on_cells(tuple(self.terms.flux.values()), state), strict=True))
            weighted = {axis: -volumes * component for axis, component in flux.items()}
            others = [_dot(weighted, gradient) for gradient in self.geometry.gradients[1:]]
            parts.append(torch.stack([-sum(others[1:], start=others[0]), *others], -2))
        nodal = self._is_nodal(self.terms.source)
        if self.terms.source != 0 and not nodal:
            (source,) = self._on_points((self.terms.source,), state)
            parts.append(self.rule.tested(source * volumes))
        total = self.pattern.point_sum(sum(parts[1:], start=parts[0]).flatten(-2)) if parts else None
        if self.terms.source != 0 and nodal:
            lumped = self._lumped(self.terms.source, state)
            total = lumped if total is None else total + lumped
        if total is None:
            total = volumes.new_zeros(self.pattern.size)
        if not self.terms.carried:
            return total
        through = self.facet_rule.tested(
            self._through(self.terms.carried, state, self._at_facets) * self.geometry.areas
        )
        through = through.expand(*total.shape[:-1], *through.shape[-2:])
        return total.index_add(-1, self.geometry.facets.reshape(-1), through.flatten(-2))

    def derivative(self, state: State, unknown: str, *, lagged: bool, symmetric: bool) -> Tensor | None:
        """The entries of the derivative of `residual` by an unknown, `(*batch, entries)`; None where it is 0.

        Args:
            state: where.
            unknown: by which.
            lagged: only the derivatives of unknowns count, and what multiplies them is kept.
            symmetric: promise that it is.
        """
        terms = self.terms
        if unknown not in terms.symbols:
            return None
        form = MatrixSum(self.pattern, self.geometry)
        entries = terms.flux_by_slope[unknown]
        speeds = terms.flux_by_value[unknown]
        rate = terms.source_by_value[unknown]
        if lagged:
            entries, speeds, rate = terms.factors if unknown == terms.own else {}, {}, sympy.Integer(0)
        slopes = terms.source_by_slope[unknown]
        if not (entries or speeds or slopes or rate != 0):
            return None
        found = self._on_cells((*entries.values(), *speeds.values()), state)
        if entries:
            tensor = {place: -value for place, value in zip(entries, found, strict=False)}
            self._add_diffusion(form, entries, tensor, symmetric)
        if speeds:
            form.add_carried(dict(zip(speeds, found[len(entries) :], strict=True)))
        if rate != 0 and self._is_nodal(rate):
            form.add_on_diagonal(self._lumped(rate, state))
        elif rate != 0:
            form.add_reaction_at_points(self._on_points((rate,), state)[0], self.rule)
        if slopes:
            speeds_at_points = self._on_points(tuple(slopes.values()), state)
            form.add_advection_at_points(dict(zip(slopes, speeds_at_points, strict=True)), self.rule)
        through = terms.carried_by_value[unknown]
        if through and not lagged:
            form.add_at_points_of_facets(self._through(through, state, self._at_facets), self.facet_rule)
        return form.entries(symmetric=symmetric)

    def diffusive_through(self, state: State) -> Tensor:
        """The mean over each exterior facet of n . diffusive flux times each basis function, `(*batch, d, f)`, with the
        gradient and the coefficients of the cell behind it."""
        behind = self.geometry.facet_cells
        known = {n: v[..., behind] if _varies(v) else v for n, v in self._at_cells.items()}
        total = self._through(self.terms.diffusive, state, known)
        return self.facet_rule.tested(total)

    def carried_through(self, state: State) -> Tensor:
        """The mean of n . carried flux on each exterior facet, `(*batch, f)`."""
        if not self.terms.carried:
            return torch.zeros_like(self.geometry.areas)
        return self._through(self.terms.carried, state, self._at_facets).mean(-2)

    def _through(self, components: Components, state: State, known: Mapping[str, Number]) -> Tensor:
        """n . components at the points of the facets, `(*batch, d, f)`; `known` are the values on the facets."""
        found = self._on_facets(tuple(components.values()), state, known)
        total = torch.zeros_like(self.geometry.areas).expand(self.geometry.dimension, -1)
        for axis, component in zip(components, found, strict=True):
            total = total + self.geometry.normals[axis] * component
        return total

    def _add_diffusion(
        self,
        form: MatrixSum,
        entries: Mapping[tuple[int, int], sympy.Expr],
        tensor: Mapping[tuple[int, int], Number],
        symmetric: bool,
    ) -> None:
        isotropic = set(entries) == {(k, k) for k in range(self.geometry.dimension)} and len(set(entries.values())) == 1
        if isotropic:
            form.add_isotropic(tensor[0, 0])
        elif symmetric:
            form.add_symmetric(tensor)
        else:
            form.add_tensor(tensor)

    # Values

    def _known(
        self, expressions: Iterable[sympy.Expr], values: Values, place: At
    ) -> tuple[dict[str, Number], tuple[str, ...]]:
        """What is no unknown and does not depend on the time, by name, and the names of what does."""
        wanted = sorted(set().union(*(names(expression) for expression in expressions)) - self._unknowns.keys())
        late = tuple(name for name in wanted if values.varies(name))
        return _values_of([name for name in wanted if name not in late], values, place), late

    def _on_cells(self, expressions: tuple[sympy.Expr, ...], state: State) -> tuple[Number, ...]:
        """At the centres of the cells."""
        found = dict(self._at_cells)
        for name in self._wanted(expressions):
            unknown, axis = self._unknowns[name]
            found[name] = state.mean(unknown) if axis is None else state.slope(unknown, axis)
        return evaluate_all(expressions, found)

    def _on_points(self, expressions: tuple[sympy.Expr, ...], state: State) -> tuple[Tensor, ...]:
        """At the points of the rule in the cells, `(*batch, d + 1 or 1, m)`."""
        found = {name: _by_point(value) for name, value in self._at_cells.items()}
        for name in self._wanted(expressions):
            unknown, axis = self._unknowns[name]
            if axis is None:
                found[name] = self.rule.at_points(state.corners(unknown), state.mean(unknown))
            else:
                found[name] = state.slope(unknown, axis).unsqueeze(-2)
        new = self.geometry.volumes.new_full
        return tuple(v if isinstance(v, Tensor) else new((1, 1), v) for v in evaluate_all(expressions, found))

    def _is_nodal(self, expression: sympy.Expr) -> bool:
        """Whether with the vertices for points an expression is wanted at the points of the mesh alone, whatever the
        cell."""
        wanted = names(expression)
        slopes = {name for name, (_, axis) in self._unknowns.items() if axis is not None}
        varying = {name for name, value in self._at_cells.items() if _varies(value)}
        return self.rule.lumped and wanted.isdisjoint(slopes) and wanted.isdisjoint(varying)

    def _lumped(self, expression: sympy.Expr, state: State) -> Tensor:
        """`(*batch, n)`, the integral of such an expression times each basis function."""
        unknowns = {name: state.fields[u] for name, (u, axis) in self._unknowns.items() if axis is None}
        (value,) = evaluate_all((expression,), {**self._at_cells, **unknowns})
        if self._shares is None:
            volumes = self.geometry.volumes / self.rule.vertices
            self._shares = self.pattern.point_sum(volumes.repeat(self.rule.vertices))
        return self._shares * value

    def _on_facets(
        self, expressions: tuple[sympy.Expr, ...], state: State, known: Mapping[str, Number]
    ) -> tuple[Number, ...]:
        """At the points of the rule on the exterior facets, `(*batch, d or 1, f)`."""
        found = {name: _by_point(value) for name, value in known.items()}
        for name in self._wanted(expressions):
            unknown, axis = self._unknowns[name]
            if axis is None:
                corners = state.on_facets(unknown)
                found[name] = self.facet_rule.at_points(corners, corners.mean(-2))
            else:
                found[name] = state.slope(unknown, axis)[..., None, self.geometry.facet_cells]
        return evaluate_all(expressions, found)

    def _wanted(self, expressions: tuple[sympy.Expr, ...]) -> set[str]:
        return set().union(*(names(expression) for expression in expressions)) & self._unknowns.keys()


def _values_of(wanted: Iterable[str], values: Values, place: At) -> dict[str, Number]:
    return {name: values.at(sympy.Symbol(name, real=True), place) for name in wanted}


def _gathered(nodal: Tensor, corners: Tensor) -> Tensor:
    """Values at points -> at the corners `(k, m)` of simplices."""
    return nodal.index_select(-1, corners.reshape(-1)).unflatten(-1, corners.shape)


def _dot(components: Mapping[int, Tensor], gradient: Tensor) -> Tensor:
    parts = [value * gradient[axis] for axis, value in components.items()]
    return sum(parts[1:], start=parts[0])


def _varies(value: Number) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.shape[-1] > 1


def _by_point(value: Number) -> Number:
    return value.unsqueeze(-2) if isinstance(value, Tensor) else value
