"""The nonlinear part of an equation, sorted by how it enters the weak form, with its derivatives as expressions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import sympy

from ..equations.residuals import ResidualForm, partial
from ..errors import InputError
from ..mesh import Mesh
from .terms import Row, Terms, check_row, refuse_evolving, refuse_more_axes, sort_terms

if TYPE_CHECKING:
    from ..equations import Equation

_ZERO = sympy.Integer(0)

Key = TypeVar("Key")

Components = dict[int, sympy.Expr]
"""Axis -> expression, absent ones being 0."""

Entries = dict[tuple[int, int], sympy.Expr]
"""(k, j) -> expression, absent ones being 0."""


@dataclass(frozen=True)
class Symbols:
    """The symbols of one unknown u: u itself, and axis -> du/dx_axis."""

    value: sympy.Symbol
    slopes: dict[int, sympy.Symbol]


@dataclass(frozen=True)
class NonlinearTerms:
    """What one row holds beside its linear terms: sum_k d/dx_k(diffusive_k + carried_k) + source, on the left side.

    Attributes:
        own: the unknown of the row.
        symbols: of each unknown.
        diffusive: what vanishes with the gradient of the row's own unknown, and what conditions on the flux speak of;
            in the equation of the rate u_t also what vanishes with that of u.
        carried: what holds no derivatives of unknowns.
        source: the rest.
        factors: of the row's own diffusive flux: (k, j) -> what multiplies du/dx_j in component k, with derivatives
            of unknowns in it or not.
        outers: unknown -> the factors that stood before divergences of diffusive fluxes of it; numbers, parameters, t.
    """

    own: str
    symbols: dict[str, Symbols]
    diffusive: Components
    carried: Components
    source: sympy.Expr
    factors: Entries
    outers: dict[str, tuple[sympy.Expr, ...]]

    @cached_property
    def flux(self) -> Components:
        """Both fluxes together."""
        axes = sorted(self.diffusive.keys() | self.carried.keys())
        return {k: self.diffusive.get(k, _ZERO) + self.carried.get(k, _ZERO) for k in axes}

    @cached_property
    def flux_by_value(self) -> dict[str, Components]:
        """Unknown w -> k -> d flux_k / dw."""
        return {name: _by_value(self.flux, one) for name, one in self.symbols.items()}

    @cached_property
    def flux_by_slope(self) -> dict[str, Entries]:
        """Unknown w -> (k, j) -> d flux_k / d(dw/dx_j)."""
        return {name: _by_slope(self.flux, one) for name, one in self.symbols.items()}

    @cached_property
    def carried_by_value(self) -> dict[str, Components]:
        """Unknown w -> k -> d carried_k / dw."""
        return {name: _by_value(self.carried, one) for name, one in self.symbols.items()}

    @cached_property
    def source_by_value(self) -> dict[str, sympy.Expr]:
        """Unknown w -> d source / dw, 0 included."""
        return {name: partial(self.source, one.value) for name, one in self.symbols.items()}

    @cached_property
    def source_by_slope(self) -> dict[str, Components]:
        """Unknown w -> j -> d source / d(dw/dx_j)."""
        return {
            name: _nonzero({j: partial(self.source, s) for j, s in one.slopes.items()})
            for name, one in self.symbols.items()
        }

    @cached_property
    def symmetric(self) -> bool:
        """Whether the derivative by the row's own unknown equals its transpose, as far as the expressions tell."""
        return self._diffusion_is_symmetric(self.flux_by_slope[self.own]) and not self.flux_by_value[self.own]

    @cached_property
    def lagged_symmetric(self) -> bool:
        """The same with the factors of derivatives kept, and all else left out."""
        return self._diffusion_is_symmetric(self.factors)

    def _diffusion_is_symmetric(self, entries: Entries) -> bool:
        pairs = [(entry, entries.get((j, k), _ZERO)) for (k, j), entry in entries.items()]
        alike = all(entry == other or sympy.expand(entry - other) == 0 for entry, other in pairs)
        return alike and not self.source_by_slope[self.own]


def read_nonlinear_rows(equation: Equation, mesh: Mesh) -> tuple[tuple[Row, NonlinearTerms | None], ...]:
    """For each equation its linear terms, and the others where there are any.

    Raises:
        InputError: for an evolving equation, more axes than the mesh has, and what this version does not integrate by
            parts: second derivatives outside of div(...) with factors that depend on the solution, divergences with
            factors that vary, fluxes of another unknown's derivatives alone, derivatives of the third order or above.
    """
    refuse_evolving(equation)
    refuse_more_axes(equation, mesh)
    unknowns = (*equation.unknowns, *equation.constrained)
    forms = equation.residual_forms(mesh.dimension)
    return tuple(
        _read_row(form, (own,), unknowns, equation, set(equation.parameters), with_rate=False)
        for own, form in zip(unknowns, forms, strict=True)
    )


@dataclass(frozen=True)
class EvolvingTerms:
    """One equation of a system, or one of its constraints.

    Attributes:
        own: the unknown whose rate the row gives, or that the constraint determines.
        row: the linear terms whose coefficients do not vary in time; 0 = row + nonlinear + weight * rate.
        nonlinear: the others, None without any.
        weight: what multiplies the rate; None of a constraint.
        speed: the unknown that is the rate, as u_t is that of u in an equation of second order; else None.
        behind: unknown u -> its terms, in the equation of its rate u_t, that hold second derivatives or whose flux
            conditions on u speak of; they are not in `row`.
    """

    own: str
    row: Row
    nonlinear: NonlinearTerms | None
    weight: sympy.Expr | None
    speed: str | None
    behind: dict[str, Row]


def read_evolving_rows(equation: Equation, mesh: Mesh, varying: frozenset[str]) -> tuple[EvolvingTerms, ...]:
    """As `read_nonlinear_rows`, of an evolving equation: one for each unknown, then one for each constraint.

    Args:
        equation: with time derivatives.
        mesh: what it is to be discretized on.
        varying: names of the fields that depend on the time, and t.

    Raises:
        InputError: as there, and for constraints that are not linear in what they determine, with coefficients that do
            not vary in time.
    """
    refuse_more_axes(equation, mesh)
    unknowns = (*equation.unknowns, *equation.constrained)
    constants = {*equation.parameters, "t"}
    forms = equation.residual_forms(mesh.dimension, varying=varying, divided=False)
    rows: list[EvolvingTerms] = []
    for own, form in zip(unknowns, forms, strict=True):
        evolves = own in equation.unknowns
        held = sorted({jet.field for jet in form.jets.values()} & set(equation.constrained))
        if not evolves and held:
            raise InputError(
                f"the constraint that determines {own} is not linear in {', '.join(held)}, or has a coefficient there "
                "that varies in time: in this version constraints are linear in what they determine"
            )
        family = [own]
        for before in reversed(rows):
            if before.speed == family[-1]:
                family.append(before.own)
        row, nonlinear = _read_row(form, tuple(family), unknowns, equation, constants, with_rate=evolves)
        behind = {}
        for name in family[1:]:
            outers = () if nonlinear is None else nonlinear.outers.get(name, ())
            if outers or (name in row.terms and row.terms[name].diffusion):
                behind[name] = Row({name: row.terms.get(name, Terms())}, (), outers)
        row = replace(row, terms={name: one for name, one in row.terms.items() if name not in behind})
        speed = _speed(form, own, equation.unknowns) if evolves else None
        rows.append(EvolvingTerms(own, row, nonlinear, form.weight if evolves else None, speed, behind))
    return tuple(rows)


def _read_row(
    form: ResidualForm,
    family: tuple[str, ...],
    unknowns: tuple[str, ...],
    equation: Equation,
    constants: set[str],
    *,
    with_rate: bool,
) -> tuple[Row, NonlinearTerms | None]:
    """The row of the first of a family, u_t and u, which conditions on the flux may speak of."""
    own = family[0]
    terms, sources = sort_terms(form.terms)
    nonlinear = _read(form, family, constants, equation.coordinates) if form.rest != 0 else None
    if with_rate or own in (jet.field for jet in form.jets.values()):
        terms.setdefault(own, Terms())
    row = Row(dict(terms), sources, () if nonlinear is None else nonlinear.outers.get(own, ()))
    check_row(row, family, unknowns, with_rate=with_rate)
    return row, nonlinear


def _speed(form: ResidualForm, own: str, unknowns: tuple[str, ...]) -> str | None:
    """The unknown that an equation of higher order in time has for the rate of another."""
    if form.rest != 0 or len(form.terms) != 1:
        return None
    term = form.terms[0]
    names = {own + "_t", own + "t"} & set(unknowns)
    return term.unknown if term.unknown in names and term.coefficient == -1 and not any(term.derivative) else None


def _read(form: ResidualForm, family: tuple[str, ...], constants: set[str], letters: tuple[str, ...]) -> NonlinearTerms:
    own = family[0]
    form, seconds = _without_second_derivatives(form, family, constants)
    symbols = _sort_symbols(form, own)
    for name, k, j in seconds:
        one = symbols.setdefault(name, Symbols(sympy.Symbol(name, real=True), {}))
        for axis in (k, j):
            one.slopes.setdefault(axis, sympy.Symbol(f"{name}_{letters[axis]}", real=True))
    owners = {slope: name for name in family if name in symbols for slope in symbols[name].slopes.values()}
    slopes = {slope for one in symbols.values() for slope in one.slopes.values()}
    diffusive: Components = {}
    carried: Components = {}
    factors: Entries = {}
    outers: dict[str, dict[sympy.Expr, None]] = {}
    for flux in form.fluxes:
        outer = partial(form.rest, flux.symbol)
        if not {symbol.name for symbol in outer.free_symbols} <= constants:
            raise InputError(
                f"the equation of {own} has the factor {outer} before a divergence of a nonlinear flux, which varies: "
                "on meshes this version takes numbers and parameters there; bring the factor under div(...)"
            )
        for part in _parts(flux.inner, slopes, set(owners)):
            if slopes.isdisjoint(part.free_symbols):
                _add(carried, flux.axis, outer * part)
                continue
            found = {owners[symbol] for symbol in part.free_symbols if symbol in owners}
            if not found:
                raise InputError(
                    f"the equation of {own} holds {part} in a divergence, derivatives of another unknown: on meshes "
                    "this version has no boundary conditions for that"
                )
            _add(diffusive, flux.axis, outer * part)
            outers.setdefault(own if own in found else min(found), {})[outer] = None
            own_slopes = symbols[own].slopes if own in symbols else {}
            for j in sorted(own_slopes, key=lambda j: j != flux.axis):
                if _has_factor(part, own_slopes[j]):
                    _add(factors, (flux.axis, j), outer * part / own_slopes[j])
                    break
    for (name, k, j), outer in seconds.items():
        # Half from each order of the two derivatives, as in linear terms.
        share = outer if k == j else outer / 2
        for axis, other in {(k, j), (j, k)}:
            _add(diffusive, axis, share * symbols[name].slopes[other])
            if name == own:
                _add(factors, (axis, other), share)
        outers.setdefault(name, {})[outer] = None
    source = form.rest.xreplace({flux.symbol: _ZERO for flux in form.fluxes})
    symbols.setdefault(own, Symbols(sympy.Symbol(own, real=True), {}))
    kept = {name: tuple(found) for name, found in outers.items()}
    return NonlinearTerms(own, symbols, diffusive, carried, source, factors, kept)


def _without_second_derivatives(
    form: ResidualForm, family: tuple[str, ...], constants: set[str]
) -> tuple[ResidualForm, dict[tuple[str, int, int], sympy.Expr]]:
    """The form without second derivatives of a family of unknowns with factors that do not vary in space, and these
    factors by unknown and axes k <= j."""
    found: dict[tuple[str, int, int], sympy.Expr] = {}
    rest, jets = form.rest, dict(form.jets)
    for symbol, jet in form.jets.items():
        if jet.field not in family or sum(jet.order) != 2:
            continue
        factor = partial(rest, symbol)
        if factor != 0 and {name.name for name in factor.free_symbols} <= constants:
            first, *others = (axis for axis, order in enumerate(jet.order) for _ in range(order))
            found[jet.field, first, others[0]] = factor
            rest = rest.xreplace({symbol: _ZERO})
            del jets[symbol]
    return (replace(form, rest=rest, jets=jets), found) if found else (form, found)


def _sort_symbols(form: ResidualForm, own: str) -> dict[str, Symbols]:
    symbols: dict[str, Symbols] = {}
    for symbol, jet in form.jets.items():
        if sum(jet.order) > 1:
            raise InputError(
                f"the equation of {own} holds {symbol} in a nonlinear term, and on meshes this version integrates "
                "divergences alone by parts: write second derivatives as that of a flux, for example "
                "-div((1 + u**2)*grad(u)), and higher ones as a system of second-order equations"
            )
        one = symbols.setdefault(jet.field, Symbols(sympy.Symbol(jet.field, real=True), {}))
        if any(jet.order):
            one.slopes[jet.order.index(1)] = symbol
    return symbols


def _parts(inner: sympy.Expr, slopes: set[sympy.Symbol], own: set[sympy.Symbol]) -> Iterable[sympy.Expr]:
    """The terms of a flux, multiplied out unless derivatives of the row's own unknown stand as factors already."""
    for whole in sympy.Add.make_args(inner):
        if slopes.isdisjoint(whole.free_symbols) or any(_has_factor(whole, slope) for slope in own):
            yield whole
        else:
            yield from sympy.Add.make_args(sympy.expand_mul(whole))


def _has_factor(term: sympy.Expr, symbol: sympy.Symbol) -> bool:
    for factor in sympy.Mul.make_args(term):
        base, exponent = factor.as_base_exp()
        if base == symbol and exponent.is_Integer and exponent > 0:
            return True
    return False


def _by_value(flux: Components, symbols: Symbols) -> Components:
    return _nonzero({k: partial(component, symbols.value) for k, component in flux.items()})


def _by_slope(flux: Components, symbols: Symbols) -> Entries:
    return _nonzero({(k, j): partial(c, slope) for k, c in flux.items() for j, slope in symbols.slopes.items()})


def _nonzero(expressions: Mapping[Key, sympy.Expr]) -> dict[Key, sympy.Expr]:
    return {key: expression for key, expression in expressions.items() if expression != 0}


def _add(sums: dict[Key, sympy.Expr], key: Key, value: sympy.Expr) -> None:
    sums[key] = sums[key] + value if key in sums else value
