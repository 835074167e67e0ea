"""The nonlinear part of an equation, sorted by how it enters the weak form, with its derivatives as expressions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import sympy

from ..equations.residuals import ResidualForm, partial
from ..errors import InputError
from ..mesh import Mesh
from .terms import Row, Terms, check_row, refuse_what_does_not_fit, sort_terms

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
        diffusive: what vanishes with the gradient of the row's own unknown, and what conditions on the flux speak of.
        carried: what holds no derivatives of unknowns.
        source: the rest.
        factors: of the row's own diffusive flux: (k, j) -> what multiplies du/dx_j in component k, with derivatives
            of unknowns in it or not.
        outers: the factors that stood before the divergences of diffusive fluxes; numbers and parameters.
    """

    own: str
    symbols: dict[str, Symbols]
    diffusive: Components
    carried: Components
    source: sympy.Expr
    factors: Entries
    outers: tuple[sympy.Expr, ...]

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
    refuse_what_does_not_fit(equation, mesh)
    unknowns = (*equation.unknowns, *equation.constrained)
    constants = set(equation.parameters)
    rows = []
    for own, form in zip(unknowns, equation.residual_forms(mesh.dimension), strict=True):
        terms, sources = sort_terms(form.terms)
        nonlinear = _read(form, own, constants) if form.rest != 0 else None
        if own in (jet.field for jet in form.jets.values()):
            terms.setdefault(own, Terms())
        row = Row(dict(terms), sources, () if nonlinear is None else nonlinear.outers)
        check_row(row, own, unknowns)
        rows.append((row, nonlinear))
    return tuple(rows)


def _read(form: ResidualForm, own: str, constants: set[str]) -> NonlinearTerms:
    symbols = _sort_symbols(form, own)
    own_slopes = set(symbols[own].slopes.values()) if own in symbols else set[sympy.Symbol]()
    slopes = {slope for one in symbols.values() for slope in one.slopes.values()}
    diffusive: Components = {}
    carried: Components = {}
    factors: Entries = {}
    outers: dict[sympy.Expr, None] = {}
    for flux in form.fluxes:
        outer = partial(form.rest, flux.symbol)
        if not {symbol.name for symbol in outer.free_symbols} <= constants:
            raise InputError(
                f"the equation of {own} has the factor {outer} before a divergence of a nonlinear flux, which varies: "
                "on meshes this version takes numbers and parameters there; bring the factor under div(...)"
            )
        for part in _parts(flux.inner, slopes, own_slopes):
            if slopes.isdisjoint(part.free_symbols):
                _add(carried, flux.axis, outer * part)
                continue
            if own_slopes.isdisjoint(part.free_symbols):
                raise InputError(
                    f"the equation of {own} holds {part} in a divergence, derivatives of another unknown: on meshes "
                    "this version has no boundary conditions for that"
                )
            _add(diffusive, flux.axis, outer * part)
            outers[outer] = None
            for j in sorted(symbols[own].slopes, key=lambda j: j != flux.axis):
                if _has_factor(part, symbols[own].slopes[j]):
                    _add(factors, (flux.axis, j), outer * part / symbols[own].slopes[j])
                    break
    source = form.rest.xreplace({flux.symbol: _ZERO for flux in form.fluxes})
    symbols.setdefault(own, Symbols(sympy.Symbol(own, real=True), {}))
    return NonlinearTerms(own, symbols, diffusive, carried, source, factors, tuple(outers))


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
