"""Nonlinear equations taken apart so that each part can be discretized, and differentiated, by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy

from ..errors import InputError
from .components import Jet, chain_rule, reduced
from .forms import ComponentSystem, Term, expand, split_linear

_ZERO = sympy.Integer(0)
_ONE = sympy.Integer(1)


@dataclass(frozen=True)
class NonlinearFlux:
    """A divergence, kept together: `symbol` stands for d(inner)/dx_axis in a `ResidualForm`.

    Args:
        symbol: its name, such as "div#0", is no name that a text can hold.
        axis: of the derivative.
        inner: an expression in plain symbols, of first order in what is solved for.
    """

    symbol: sympy.Symbol
    axis: int
    inner: sympy.Expr


@dataclass(frozen=True)
class ResidualForm:
    """One equation, everything on the left side: 0 = sum(terms) + rest, or -(rate of an unknown) = sum(terms) + rest.

    Args:
        terms: what is linear in the unknowns, and the sources.
        fluxes: nonlinear fluxes whose symbols stand in `rest`.
        rest: an expression in plain symbols named as `evaluation.names` has it; 0 if there is none.
        jets: of every symbol of an unknown or of its derivative in the fluxes and the rest.
        weight: what multiplies the rate, 1 unless it was to be kept.
    """

    terms: tuple[Term, ...]
    fluxes: tuple[NonlinearFlux, ...]
    rest: sympy.Expr
    jets: dict[sympy.Symbol, Jet]
    weight: sympy.Expr = _ONE


def residual_forms(
    system: ComponentSystem, conservative: bool, varying: frozenset[str] = frozenset(), divided: bool = True
) -> tuple[ResidualForm, ...]:
    """The forms of a system, see `Equation.residual_forms`.

    Raises:
        InputError: where abs(...) would be differentiated twice.
    """
    found: list[ResidualForm] = []
    for row in system.rows:
        expression, weight = row.rest, _ONE
        if row.unknown is not None:
            weight = _ONE if divided else _weight(system, row.factor, varying)
            expression = row.rest / (row.factor / weight)
            rates = [row.unknown + ("_" + "t" * n if n else "") for n in range(system.time_orders[row.unknown])]
            for rate in rates[1:]:
                term = Term(-_ONE, rate, (0,) * system.components.dimension)
                found.append(ResidualForm((term,), (), _ZERO, {}))
        found.append(replace(_residual_form(system, expression, conservative, varying), weight=weight))
    found += [_residual_form(system, row.rest, conservative, varying) for row in system.constraints]
    return tuple(found)


def _weight(system: ComponentSystem, factor: sympy.Expr, varying: frozenset[str]) -> sympy.Expr:
    """The factor before a rate, but for its sign, where it varies in space alone; else 1."""
    jets = {
        symbol: system.components.jets[symbol].field for symbol in factor.free_symbols & system.components.jets.keys()
    }
    named = {jets.get(symbol, symbol.name) for symbol in factor.free_symbols}
    changing = named & (varying | set(system.names.solved))
    if changing or named <= set(system.names.parameters):
        return _ONE
    return -factor if factor.could_extract_minus_sign() else factor


def _residual_form(
    system: ComponentSystem, expression: sympy.Expr, conservative: bool, varying: frozenset[str]
) -> ResidualForm:
    components = system.components

    def varies(*parts: sympy.Expr) -> bool:
        symbols = sympy.Add(*parts).free_symbols
        return any((components.jets[s].field if s in components.jets else s.name) in varying for s in symbols)

    terms: list[Term] = []
    sources: list[sympy.Expr] = []
    rests: list[sympy.Expr] = []
    linear, source, rest = split_linear(expression, _solved(system) | components.fluxes.keys())
    for symbol, coefficient in linear.items():
        if symbol not in components.fluxes:
            rests.append(coefficient * symbol)
            continue
        flux = components.fluxes[symbol]
        inside, inner_source, inner_rest = split_linear(flux.inner, _solved(system))
        if inner_rest == 0 and not varies(coefficient, flux.inner):
            terms += [system.term(jet, coefficient, flux.axis, factor) for jet, factor in inside.items()]
            sources.append(coefficient * components.derive(inner_source, flux.axis))
        else:
            rests.append(coefficient * symbol)
    rest = sympy.Add(rest, *rests)
    kept: dict[sympy.Symbol, NonlinearFlux] = {}
    for symbol in sorted(rest.free_symbols & components.fluxes.keys(), key=lambda symbol: int(symbol.name[4:])):
        flux = components.fluxes[symbol]
        inner, high = _without_high_derivatives(flux.inner, system)
        carried_out = components.derive(high, flux.axis)
        if conservative and _order(inner, system) < 2:
            kept[symbol] = NonlinearFlux(sympy.Symbol(f"div#{len(kept)}", real=True), flux.axis, inner)
            carried_out += symbol
        else:
            carried_out = components.derive(flux.inner, flux.axis)
        rest = rest.xreplace({symbol: carried_out})
    linear, more, rest = split_linear(rest, _solved(system) | kept.keys())
    if rest != 0 and not kept and expand(rest) == 0:  # what was kept together may cancel
        rest = _ZERO
    for symbol, coefficient in linear.items():
        if symbol in kept or varies(coefficient):
            rest += coefficient * symbol
        else:
            terms.append(system.term(symbol, coefficient))
    rest = rest.xreplace({symbol: flux.symbol for symbol, flux in kept.items()})
    steady = []
    for part in sympy.Add.make_args(sympy.Add(source, more, *sources)):
        if varies(part):
            rest += part
        elif part != 0:
            steady.append(part)
    if steady:
        terms.append(Term(system.publish(sympy.Add(*steady)), None, (0,) * components.dimension))
    fluxes = tuple(kept.values())
    used = rest.free_symbols.union(*(flux.inner.free_symbols for flux in fluxes))
    plain = {symbol: _plain(symbol, system) for symbol in sorted(_solved(system) & used, key=str)}
    names = {symbol: name for symbol, (name, _) in plain.items()}
    fluxes = tuple(NonlinearFlux(flux.symbol, flux.axis, flux.inner.xreplace(names)) for flux in fluxes)
    return ResidualForm(tuple(terms), fluxes, rest.xreplace(names), dict(plain.values()))


def _plain(symbol: sympy.Symbol, system: ComponentSystem) -> tuple[sympy.Symbol, Jet]:
    """The symbol of a field or derivative in which the rate u_t of an unknown of second order is a field."""
    jet = system.components.jets[symbol]
    name, _ = reduced(jet, system.time_orders)
    letters = "".join(x * count for x, count in zip(system.components.letters, jet.order, strict=True))
    return sympy.Symbol(f"{name}_{letters}" if letters else name, real=True), Jet(name, jet.order, 0)


def _solved(system: ComponentSystem) -> set[sympy.Symbol]:
    """The symbols, known so far, of what is solved for and of its derivatives."""
    return {symbol for symbol, jet in system.components.jets.items() if jet.field in system.names.solved}


def _without_high_derivatives(inner: sympy.Expr, system: ComponentSystem) -> tuple[sympy.Expr, sympy.Expr]:
    """A flux without, and only, its linear terms of second and higher order, as in div(grad(u**3 - u - u_xx))."""
    linear, _, _ = split_linear(inner, _solved(system))
    jets = system.components.jets
    high = sympy.Add(*(factor * symbol for symbol, factor in linear.items() if sum(jets[symbol].order) > 1))
    return (inner, _ZERO) if high == 0 else (sympy.expand(inner - high), high)


def _order(inner: sympy.Expr, system: ComponentSystem) -> int:
    jets = system.components.jets
    return max((sum(jets[symbol].order) for symbol in inner.free_symbols & _solved(system)), default=0)


def partial(expression: sympy.Expr, symbol: sympy.Symbol) -> sympy.Expr:
    """The partial derivative with respect to a symbol.

    Raises:
        InputError: where abs(...) would be differentiated twice.
    """
    known: dict[sympy.Expr, sympy.Expr] = {}

    def slope(part: sympy.Expr) -> sympy.Expr:
        if part == symbol:
            return _ONE
        if symbol not in part.free_symbols:
            return _ZERO
        if part not in known:
            found = chain_rule(part, slope)
            if found is None:
                raise InputError("abs(...) is differentiated twice here, which has no value at its kink")
            known[part] = found
        return known[part]

    return slope(expression)
