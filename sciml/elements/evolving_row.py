"""One equation of an evolving system on a mesh, or one of its constraints: its weak form at a state and a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..differentiation import may_carry_derivatives
from ..equations.evaluation import names
from ..errors import InputError
from ..given import Number
from ..linear_operator import LinearOperator
from ..scheme import FiniteElement
from .assembly import MatrixSum, load_on_facets
from .mass import Mass, make_mass
from .moving import Flux, MovingConditions
from .nonlinear_form import NonlinearForm, State
from .nonlinear_system import derivative
from .nonlinear_terms import EvolvingTerms
from .operator import matrix_operator
from .pattern import Pattern, pattern_of
from .system import eliminated, held_diagonal, linear_row
from .values import Values, extremes
from .weak_form import WeakForm


@dataclass(frozen=True, eq=False)
class Moment:
    """What belongs to a time.

    Attributes:
        t: the time for functions, a tensor without axes or `(*batch, 1)`.
        values: of expressions.
        lifts: by unknown, the values at held points, 0 elsewhere.
    """

    t: Tensor
    values: Values
    lifts: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class EvolvingRow:
    """F(u, t), the weak form of one row with everything on the left side: weight * rate = -F, or 0 = F.

    Attributes:
        terms: as expressions.
        forms: the weak forms of the linear terms that do not change in time: that of the row's unknown and all others,
            then those of the unknowns in `terms.behind`.
        nonlinear: that of the others, None without any.
        conditions: on the unknown of each of `forms`.
        mass: None of a constraint.
        entries: unknown's place -> `(*batch, entries)`, the matrix of the linear terms with Robin conditions.
        operators: the same as operators.
        right_side: `(*batch, n)`, the sources that do not change in time; None if they are 0.
        scale: `(*batch, n)`, what stands in the equation of a held point before its value.
        free: unknown's place -> bool `(entries,)`, where neither row nor column is that of a held point; None
            everywhere.
        fixed: `(*batch, entries)`, the matrix that is `scale` at held points; None without any.
    """

    terms: EvolvingTerms
    forms: tuple[WeakForm, ...]
    nonlinear: NonlinearForm | None
    conditions: tuple[MovingConditions, ...]
    mass: Mass | None
    entries: dict[int, Tensor] = field(repr=False)
    operators: dict[int, LinearOperator] = field(repr=False)
    right_side: Tensor | None = field(repr=False)
    scale: Tensor = field(repr=False)
    free: dict[int, Tensor | None] = field(repr=False)
    fixed: Tensor | None = field(repr=False)

    @property
    def own(self) -> str:
        """The unknown that the row belongs to."""
        return self.terms.own

    @property
    def form(self) -> WeakForm:
        """The first of them."""
        return self.forms[0]

    @property
    def held(self) -> Tensor:
        """bool `(n,)`, the points where a Dirichlet condition gives the value."""
        return self.conditions[0].still.held

    @property
    def holds(self) -> bool:
        """Whether there are any."""
        return self.fixed is not None

    @property
    def symmetric(self) -> bool:
        """Whether the derivative by the row's own unknown is symmetric by construction."""
        return self.form.symmetric and (self.nonlinear is None or self.nonlinear.terms.symmetric)

    def lifted(self, u: Tensor, moment: Moment) -> Tensor:
        """A field of the row's unknown with the values at held points."""
        return torch.where(self.held, moment.lifts[self.own], u) if self.holds else u

    def left_side(self, state: State, moment: Moment, fields: Mapping[int, Tensor]) -> Tensor:
        """F, meaningless at held points: the sum of `left_parts`."""
        parts = self.left_parts(state, moment, fields)
        return sum(parts[1:], start=parts[0]) if parts else torch.zeros_like(state.fields[self.own])

    def left_parts(self, state: State, moment: Moment, fields: Mapping[int, Tensor]) -> list[Tensor]:
        """What F is the sum of.

        Args:
            state: where.
            moment: when.
            fields: unknown's place -> what its linear terms act on; an absent one is 0.
        """
        parts = [] if self.right_side is None else [-self.right_side]
        parts += [operator.apply(fields[place]) for place, operator in self.operators.items() if place in fields]
        if self.nonlinear is not None:
            parts.append(self.nonlinear.at_time(moment.values).residual(state))
        return parts + self._through(state, moment)

    def jacobian_entries(self, state: State, moment: Moment, unknown: str, place: int) -> Tensor | None:
        """`(*batch, entries)`, dF by an unknown, conditions on the value left out; None where it is 0."""
        own = unknown == self.own
        form = None if self.nonlinear is None else self.nonlinear.at_time(moment.values)
        linear = self.entries.get(place)
        found = derivative(linear, form, state, unknown, lagged=False, symmetric=own and self.symmetric)
        surface = self._through_derivative(moment, unknown)
        if found is None or surface is None:
            return surface if found is None else found
        return found + surface

    def kept(self, entries: Tensor, place: int) -> Tensor:
        """Entries without the rows and columns of held points."""
        free = self.free[place]
        return entries if free is None else torch.where(free, entries, 0.0)

    def with_fixed(self, entries: Tensor, place: int) -> Tensor:
        """The same, of the row's own unknown, with `scale` at held points."""
        return entries if self.fixed is None else torch.where(self.free[place], entries, self.fixed)  # type: ignore[arg-type]

    def _through(self, state: State, moment: Moment) -> list[Tensor]:
        """What conditions on the flux add that are evaluated at every time."""
        geometry, size = self.form.geometry, self.form.pattern.size
        found = []
        for name, flux, outer in self._fluxes(moment):
            facets, value = flux.part.facets, flux.value_at(moment.t)
            if flux.part.kind == "robin":
                corners = state.fields[name][..., geometry.facets[:, facets]]
                value = value - _by_vertex(flux.coefficient_at(moment.t)) * corners
            found.append(load_on_facets(geometry, facets, _by_vertex(outer) * value, size))
        return found

    def _through_derivative(self, moment: Moment, unknown: str) -> Tensor | None:
        robin = [(f, outer) for name, f, outer in self._fluxes(moment) if name == unknown and f.part.kind == "robin"]
        if not robin:
            return None
        surface = MatrixSum(self.form.pattern, self.form.geometry)
        for flux, outer in robin:
            surface.add_on_facets(flux.part.facets, -outer * flux.coefficient_at(moment.t))
        return surface.entries(symmetric=True)

    def _fluxes(self, moment: Moment) -> Iterator[tuple[str, Flux, Number]]:
        """The conditions that are evaluated at every time, each with its unknown and the factor before the divergence
        on its facets."""
        for form, conditions in zip(self.forms, self.conditions, strict=True):
            expression = form.outer() if conditions.fluxes else None
            if expression is None:
                continue
            outer = moment.values.at(expression, "facets")
            for flux in conditions.fluxes:
                varies = isinstance(outer, Tensor) and outer.shape[-1] > 1
                yield form.own, flux, outer[..., flux.part.facets] if varies else outer  # type: ignore[index]


def make_row(
    terms: EvolvingTerms, conditions: Mapping[str, MovingConditions], values: Values, scheme: FiniteElement
) -> EvolvingRow:
    """The row with its matrices.

    Args:
        terms: as expressions.
        conditions: on every unknown, in the order of their places.
        values: of what does not change in time.
        scheme: settings.

    Raises:
        InputError: for a factor before the rate that is not positive everywhere.
    """
    pattern, geometry, own = pattern_of(values.mesh), values.geometry, terms.own
    unknowns = tuple(conditions)
    place, held = unknowns.index(own), conditions[own].still.held
    parts = {own: terms.row, **terms.behind}
    forms = tuple(WeakForm(row, name, conditions[name].still, values, pattern, scheme) for name, row in parts.items())
    entries: dict[int, Tensor] = {}
    right = torch.zeros(pattern.size, dtype=values.mesh.dtype, device=values.mesh.device)
    for form in forms:
        linear, own_place = linear_row(form, unknowns), unknowns.index(form.own)
        empty = form.terms.is_empty and linear.full[own_place] is linear.volume[own_place]
        entries |= {other: full for other, full in linear.full.items() if not (empty and other == own_place)}
        right = right + linear.right_side
    mass = None
    if terms.weight is not None:
        mass = make_mass(pattern, geometry, _weight(terms, values), held, lumped=scheme.lumped)
    scale = _scale(entries.get(place), mass, pattern, held, 1 if mass is not None else forms[0].sign, right.dtype)
    free: dict[int, Tensor | None] = {}
    ones = torch.ones(len(pattern.places), device=held.device)
    for k, name in enumerate(unknowns):
        columns = conditions[name].still.held
        some = bool(held.any()) or bool(columns.any())
        free[k] = eliminated(pattern, ones, held, columns, None).bool() if some else None
    fixed = eliminated(pattern, torch.zeros(len(pattern.places)).to(right), held, held, scale)
    return EvolvingRow(
        terms,
        forms,
        None if terms.nonlinear is None else NonlinearForm(terms.nonlinear, values, pattern, scheme.lumped),
        tuple(conditions[name] for name in parts),
        mass,
        entries,
        {k: matrix_operator(pattern, full, symmetric=False) for k, full in entries.items()},
        right if may_carry_derivatives(right) or bool(right.any()) else None,
        scale,
        free,
        fixed if bool(held.any()) else None,
    )


def _scale(
    entries: Tensor | None, mass: Mass | None, pattern: Pattern, held: Tensor, sign: int, dtype: torch.dtype
) -> Tensor:
    """What stands before the values in the equations of held points: the size of the diagonal."""
    if entries is not None and bool(entries.detach()[..., pattern.diagonal].any()):
        return held_diagonal(entries.detach()[..., pattern.diagonal], held, sign)
    return held.new_ones(len(held), dtype=dtype) if mass is None else mass.diagonal.detach()


def _weight(terms: EvolvingTerms, values: Values) -> Number:
    """What multiplies the rate, at the cells."""
    expression = terms.weight
    if expression is None or not names(expression):
        return 1.0
    weight = values.at(expression, "cells")
    low, high = extremes(weight)
    if low <= 0.0:
        raise InputError(
            f"the factor {expression} before the time derivative of {terms.own} ranges from {low:.4g} to {high:.4g}: "
            "it must be positive everywhere"
        )
    return weight


def _by_vertex(value: Number) -> Number:
    """A value by facet that multiplies `(d, k)`."""
    return value.unsqueeze(-2) if isinstance(value, Tensor) else value
