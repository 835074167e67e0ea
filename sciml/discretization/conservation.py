"""Evolving equations taken apart for finite volumes: fluxes to be limited, and linear parts of those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy
from sympy.core.function import AppliedUndef

from ..equations.components import Jet
from ..equations.evaluation import names
from ..equations.forms import Term, split_linear
from ..equations.residuals import NonlinearFlux, ResidualForm, partial
from ..errors import InputError

_ZERO = sympy.Integer(0)
_ONE = sympy.Integer(1)

Fluxes = dict[str, tuple[sympy.Expr, ...]]
"""By unknown, one expression an axis: what stands in the divergence on the left side of its equation."""


def share_fluxes(
    forms: Sequence[ResidualForm],
    unknowns: Sequence[str],
    parameters: frozenset[str],
    dimension: int,
    *,
    limiter: str,
) -> tuple[Sequence[ResidualForm], Fluxes, Fluxes]:
    """The forms without the fluxes that a limiter is to act on, these, and those that stay in the forms.

    Args:
        forms, unknowns, parameters, dimension: see `take_advective_fluxes`.
        limiter: one of `LIMITERS`.

    Raises:
        InputError: for a limiter asked for by name that finds no flux.
    """
    rest, every = take_advective_fluxes(forms, unknowns, parameters, dimension, with_diffusion=True)
    if limiter == "none":
        return forms, {}, every
    if limiter == "auto":
        rest, found = take_advective_fluxes(forms, unknowns, parameters, dimension, with_diffusion=False)
        return rest, found, {name: fluxes for name, fluxes in every.items() if name not in found}
    if not every:
        raise InputError(
            f"scheme: FiniteVolume(limiter={limiter!r}) has nothing to limit: it acts on fluxes without derivatives in "
            "div(...). Write -div([u**2/2]) in place of -u*u_x, and -div([c*u]) in place of -c*u_x, or take 'auto'"
        )
    return rest, every, {}


def take_advective_fluxes(
    forms: Sequence[ResidualForm],
    unknowns: Sequence[str],
    parameters: frozenset[str],
    dimension: int,
    *,
    with_diffusion: bool,
) -> tuple[tuple[ResidualForm, ...], Fluxes]:
    """The forms without fluxes that hold no derivative of an evolving unknown, and these fluxes.

    Args:
        forms: one for each of `unknowns`, then the constraints.
        unknowns: the evolving ones.
        parameters: names of what is constant in space.
        dimension: number of axes.
        with_diffusion: also from equations with second or higher derivatives.
    """
    kept = list(forms)
    found: Fluxes = {}
    for number, (unknown, form) in enumerate(zip(unknowns, forms, strict=False)):
        if not with_diffusion and _diffuses(form, unknowns):
            continue
        taken = [_ZERO] * dimension
        terms = []
        for term in form.terms:
            if _is_advective(term, unknowns, parameters):
                symbol = sympy.Symbol(str(term.unknown), real=True)
                taken[int(term.flux_axis or 0)] += plain(term.coefficient) * plain(term.flux_coefficient) * symbol
            else:
                terms.append(term)
        fluxes, rest = [], form.rest
        for flux in form.fluxes:
            outer = partial(form.rest, flux.symbol)
            advective, other = _split(flux.inner, form.jets, unknowns)
            if advective == 0 or not _is_constant(outer, parameters):
                fluxes.append(flux)
                continue
            taken[flux.axis] += outer * advective
            if other == 0:
                rest = rest.xreplace({flux.symbol: _ZERO})
            else:
                fluxes.append(replace(flux, inner=other))
        if any(flux != 0 for flux in taken):
            found[unknown] = tuple(taken)
            kept[number] = replace(form, terms=tuple(terms), fluxes=tuple(fluxes), rest=rest)
    return tuple(kept), found


def with_linear_parts_apart(form: ResidualForm, varying: frozenset[str], parameters: frozenset[str]) -> ResidualForm:
    """The form with what is linear in its nonlinear fluxes as terms: nu*u_x in div([nu*u_x - u**2/2])."""
    terms, fluxes, left = list(form.terms), [], form.rest
    for flux in form.fluxes:
        outer = partial(form.rest, flux.symbol)
        linear, source, rest = split_linear(flux.inner, form.jets)
        steady = {
            symbol: factor
            for symbol, factor in linear.items()
            if _bases(factor).isdisjoint(varying) and _is_constant(outer, parameters)
        }
        moved = sympy.Add(*(factor * symbol for symbol, factor in linear.items() if symbol not in steady))
        rest += moved + source
        # A diffusion coefficient is not taken to pieces: on faces and walls its sum is meant.
        held = {symbol for symbol, jet in form.jets.items() if any(jet.order)}
        if not steady or not held.isdisjoint(rest.free_symbols):
            fluxes.append(flux)
            continue
        for symbol, factor in steady.items():
            jet = form.jets[symbol]
            terms.append(Term(outer, jet.field, jet.order, flux.axis, factor))
        if rest == 0:
            left = left.xreplace({flux.symbol: _ZERO})
        else:
            fluxes.append(NonlinearFlux(flux.symbol, flux.axis, rest))
    return replace(form, terms=tuple(terms), fluxes=tuple(fluxes), rest=left)


def plain(expression: sympy.Expr | None) -> sympy.Expr:
    """An expression with symbols named as `evaluation.names` has it in the place of fields and their derivatives."""
    if expression is None:
        return _ONE
    found = {
        part: sympy.Symbol(next(iter(names(part))), real=True)
        for part in sympy.preorder_traversal(expression)
        if isinstance(part, AppliedUndef | sympy.Derivative)
    }
    return expression.xreplace(found)


def _is_advective(term: Term, unknowns: Sequence[str], parameters: frozenset[str]) -> bool:
    return (
        term.unknown in unknowns
        and term.flux_axis is not None
        and not any(term.derivative)
        and _is_constant(plain(term.coefficient), parameters)
    )


def _diffuses(form: ResidualForm, unknowns: Sequence[str]) -> bool:
    """Whether there are second or higher derivatives of an evolving unknown."""
    linear = any(t.unknown in unknowns and sum(t.derivative) + (t.flux_axis is not None) > 1 for t in form.terms)
    inside = {symbol for flux in form.fluxes for symbol in flux.inner.free_symbols}
    rest = form.rest.free_symbols
    return linear or any(
        jet.field in unknowns and sum(jet.order) + (symbol in inside) > 1
        for symbol, jet in form.jets.items()
        if symbol in inside or symbol in rest
    )


def _split(
    inner: sympy.Expr, jets: Mapping[sympy.Symbol, Jet], unknowns: Sequence[str]
) -> tuple[sympy.Expr, sympy.Expr]:
    """A flux as what holds no derivative of an evolving unknown, and the rest."""
    derivatives = {symbol for symbol, jet in jets.items() if jet.field in unknowns and any(jet.order)}
    if derivatives.isdisjoint(inner.free_symbols):
        return inner, _ZERO
    parts = sympy.Add.make_args(sympy.expand_mul(inner))
    free = [part for part in parts if derivatives.isdisjoint(part.free_symbols)]
    held = [part for part in parts if not derivatives.isdisjoint(part.free_symbols)]
    return sympy.Add(*free), sympy.Add(*held)


def _is_constant(expression: sympy.Expr, parameters: frozenset[str]) -> bool:
    return all(symbol.name in parameters for symbol in expression.free_symbols)


def _bases(expression: sympy.Expr) -> set[str]:
    """The names in an expression, and those without a suffix such as `_x`."""
    found = {symbol.name for symbol in expression.free_symbols}
    return found | {name.rpartition("_")[0] for name in found}
