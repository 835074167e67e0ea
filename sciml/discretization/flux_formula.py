"""A nonlinear flux written for faces: which quantities are averaged, which are differenced, what walls make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sympy

from ..equations.components import Jet
from ..equations.residuals import NonlinearFlux, partial
from ..errors import InputError

_ZERO = sympy.Integer(0)


@dataclass(frozen=True)
class Mean:
    """A quantity of the cells that a face takes as the mean of its two neighbours.

    Args:
        symbol: stands for the mean.
        expression: of fields, parameters and unknowns, free of derivatives of unknowns.
        harmonic: whether it is the harmonic mean, else the arithmetic one.
    """

    symbol: sympy.Symbol
    expression: sympy.Expr
    harmonic: bool


@dataclass(frozen=True)
class FluxFormula:
    """A flux across one axis as sum(diffusive[w] * dw/dn) + rest, and the same on a face between two cells.

    Args:
        axis: across which it flows.
        diffusive: by unknown, what multiplies its derivative along the axis; may hold derivatives itself.
        rest: what else flows.
        normals: by unknown, the symbol of its derivative along the axis.
        tangents: the symbols of derivatives along other axes.
        unknowns: by unknown, its symbol.
        means: the means that stand in `on_face`.
        on_face: the flux in means, normals, tangents and parameters.
        frozen: by unknown, `diffusive` in the same symbols.
    """

    axis: int
    diffusive: dict[str, sympy.Expr]
    rest: sympy.Expr
    normals: dict[str, sympy.Symbol]
    tangents: tuple[sympy.Symbol, ...]
    unknowns: dict[str, sympy.Symbol]
    means: tuple[Mean, ...]
    on_face: sympy.Expr
    frozen: dict[str, sympy.Expr]


def flux_formula(
    flux: NonlinearFlux, jets: Mapping[sympy.Symbol, Jet], parameters: frozenset[str], harmonic: bool
) -> FluxFormula:
    """Write a flux for faces.

    In `k*u_x` the factors of k that hold a field but no unknown, or both at once, may jump where the field does, and
    get the mean of the scheme; factors of unknowns alone are continuous and get the arithmetic mean, which lets a
    front enter cells where they vanish. Derivatives of unknowns are taken on the face, and whatever else stands beside
    them is averaged arithmetically.

    Args:
        flux: of first order in the unknowns.
        jets: of the symbols of unknowns.
        parameters: names of what is constant in space.
        harmonic: the scheme's mean of coefficients.
    """
    used = {symbol: jet for symbol, jet in jets.items() if symbol in flux.inner.free_symbols}
    normals = {jet.field: symbol for symbol, jet in used.items() if jet.order[flux.axis]}
    tangents = tuple(symbol for symbol, jet in used.items() if any(jet.order) and not jet.order[flux.axis])
    plain = {jet.field: symbol for symbol, jet in used.items() if not any(jet.order)}
    diffusive, rest = _split(flux.inner, normals)
    writer = _FaceWriter(
        derivatives={*normals.values(), *tangents},
        unknowns=set(plain.values()),
        parameters=parameters,
        harmonic=harmonic,
    )
    frozen = {unknown: writer.coefficient(factor) for unknown, factor in diffusive.items()}
    on_face = sympy.Add(*(frozen[name] * normals[name] for name in frozen), writer.freeze(rest))
    return FluxFormula(
        flux.axis, diffusive, rest, normals, tangents, plain, tuple(writer.means.values()), on_face, frozen
    )


def _split(inner: sympy.Expr, normals: Mapping[str, sympy.Symbol]) -> tuple[dict[str, sympy.Expr], sympy.Expr]:
    """inner = sum(factor * normal) + rest, factors as they were written where that is possible."""
    factors: dict[str, list[sympy.Expr]] = {}
    rest: list[sympy.Expr] = []
    for whole in sympy.Add.make_args(inner):
        parts = [whole] if _factor_of(whole, normals) else sympy.Add.make_args(sympy.expand_mul(whole))
        for part in parts:
            unknown = _factor_of(part, normals)
            if unknown is None:
                rest.append(part)
            else:
                factors.setdefault(unknown, []).append(part / normals[unknown])
    return {unknown: sympy.Add(*parts) for unknown, parts in factors.items()}, sympy.Add(*rest)


def _factor_of(term: sympy.Expr, normals: Mapping[str, sympy.Symbol]) -> str | None:
    for unknown, symbol in normals.items():
        for factor in sympy.Mul.make_args(term):
            base, exponent = factor.as_base_exp()
            if base == symbol and exponent.is_Integer and exponent > 0:
                return unknown
    return None


@dataclass
class _FaceWriter:
    """Puts means in the place of what is free of derivatives of unknowns."""

    derivatives: set[sympy.Symbol]
    unknowns: set[sympy.Symbol]
    parameters: frozenset[str]
    harmonic: bool
    means: dict[tuple[sympy.Expr, bool], Mean] = field(default_factory=dict)

    def coefficient(self, expression: sympy.Expr) -> sympy.Expr:
        """The factor of a normal derivative: each factor of a product has a mean of its own."""
        fields: list[sympy.Expr] = []
        unknowns: list[sympy.Expr] = []
        others: list[sympy.Expr] = []
        for factor in sympy.Mul.make_args(expression):
            if not self.derivatives.isdisjoint(factor.free_symbols) or self._is_constant(factor):
                others.append(self.freeze(factor))
            elif self._holds_field(factor):
                fields.append(factor)
            else:
                unknowns.append(factor)
        # What holds a field and an unknown at once may jump as the field does.
        averaged = [self._mean(sympy.Mul(*fields), self.harmonic)] if fields else []
        averaged += [self._mean(sympy.Mul(*unknowns), False)] if unknowns else []
        return sympy.Mul(*others, *averaged)

    def freeze(self, expression: sympy.Expr) -> sympy.Expr:
        if self._is_constant(expression) or expression in self.derivatives:
            return expression
        if self.derivatives.isdisjoint(expression.free_symbols):
            return self._mean(expression, False)
        if not (expression.is_Add or expression.is_Mul):
            return expression.func(*(self.freeze(argument) for argument in expression.args))
        still = [part for part in expression.args if self.derivatives.isdisjoint(part.free_symbols)]
        moving = [self.freeze(part) for part in expression.args if not self.derivatives.isdisjoint(part.free_symbols)]
        return expression.func(self.freeze(expression.func(*still)), *moving)

    def _is_constant(self, expression: sympy.Expr) -> bool:
        return all(symbol.name in self.parameters for symbol in expression.free_symbols)

    def _holds_field(self, expression: sympy.Expr) -> bool:
        others = expression.free_symbols - self.unknowns - self.derivatives
        return any(symbol.name not in self.parameters for symbol in others)

    def _mean(self, expression: sympy.Expr, harmonic: bool) -> sympy.Expr:
        key = (expression, harmonic)
        if key not in self.means:
            self.means[key] = Mean(sympy.Symbol(f"mean#{len(self.means)}", real=True), expression, harmonic)
        return self.means[key].symbol


# Walls

ON_FACE = "#face"
SPACING = sympy.Symbol("spacing#", positive=True)


@dataclass(frozen=True)
class Condition:
    """What is known of one unknown at a wall: Wall.kind, whether its value is the number 0, and the expression that
    multiplies du/dn in it, in cell quantities."""

    kind: str
    zero: bool
    normal: sympy.Expr


def value_symbol(unknown: str) -> sympy.Symbol:
    """Stands for the value, or flux, of the condition on an unknown."""
    return sympy.Symbol(f"value#{unknown}", real=True)


def coefficient_symbol(unknown: str) -> sympy.Symbol:
    """Stands for the coefficient of Robin's condition on an unknown."""
    return sympy.Symbol(f"coefficient#{unknown}", real=True)


def normal_symbol(unknown: str) -> sympy.Symbol:
    """Stands for the linear part of what multiplies du/dn in the condition on an unknown."""
    return sympy.Symbol(f"normal#{unknown}", real=True)


def face_symbol(symbol: sympy.Symbol) -> sympy.Symbol:
    """Stands for a field, extrapolated to the wall."""
    return sympy.Symbol(f"{symbol.name}{ON_FACE}", real=True)


def wall_flux(
    formula: FluxFormula, conditions: Mapping[str, Condition], outward: int, where: str, parameters: frozenset[str]
) -> tuple[sympy.Expr, dict[sympy.Symbol, sympy.Expr]]:
    """The outward flux through a closed face, in quantities of the cell inside and of the conditions, and the
    coefficients in it that have symbols of their own.

    The derivative of an unknown along the outward normal is 2 (g - u) / h of u = g, g / a of a du/dn = g, and
    2 (g - c u) / (2 a + h c) of a du/dn + c u = g: the value on the face, u + h/2 du/dn, is eliminated, as `Wall` does.
    Coefficients of these derivatives are those of the cell. Where u = g is given, that of its derivative is the mean of
    its values with u and with g, as between two cells: one that vanishes with g does not shut the face. Other
    coefficients are taken with g.

    Raises:
        InputError: where the condition leaves the normal derivative implicit.
    """
    involved = {name: sympy.Symbol(name, real=True) for name in (*formula.unknowns, *formula.normals)}
    known = {cell: value_symbol(name) for name, cell in involved.items() if conditions[name].kind == "dirichlet"}
    slopes = {name: _slope(conditions[name], name, cell, known) for name, cell in involved.items()}
    on_face = {cell: known.get(cell, cell + SPACING * slopes[name] / 2) for name, cell in involved.items()}
    unknowns = {*formula.unknowns.values(), *formula.normals.values(), *formula.tangents}
    for symbol in formula.rest.free_symbols - unknowns:
        if symbol.name not in parameters:
            on_face[symbol] = face_symbol(symbol)
    factors, means = dict(formula.diffusive), {}
    for name, factor in formula.diffusive.items():
        factors[name] = there = factor.xreplace(known)
        if conditions[name].kind == "dirichlet" and not there.is_number:
            factors[name] = sympy.Symbol(f"mean#{name}", real=True)
            means[factors[name]] = (factor + there) / 2
    diffusive = sympy.Add(*(factor * slopes[name] for name, factor in factors.items()))
    total = diffusive + outward * formula.rest.xreplace(on_face)
    across = {symbol: outward * slopes[name] for name, symbol in formula.normals.items()}
    total = total.xreplace(across)
    if not total.free_symbols.isdisjoint(formula.normals.values()):
        raise InputError(
            f"boundary {where}: a condition on the flux, whose coefficient depends on the normal derivative itself, "
            "leaves that derivative implicit; this version has no formula for it: give a Dirichlet condition or "
            "Neumann(0.0)"
        )
    return total, {symbol: mean.xreplace(across) for symbol, mean in means.items()}


def _slope(
    condition: Condition, unknown: str, cell: sympy.Symbol, known: Mapping[sympy.Symbol, sympy.Expr]
) -> sympy.Expr:
    value = _ZERO if condition.zero else value_symbol(unknown)
    if condition.kind == "dirichlet":
        return 2 * (value_symbol(unknown) - cell) / SPACING
    normal = condition.normal.xreplace(known)
    if condition.kind == "neumann":
        return _ZERO if condition.zero else value / normal
    robin = coefficient_symbol(unknown)
    return 2 * (value - robin * cell) / (2 * normal + SPACING * robin)


def slopes_of(expression: sympy.Expr, symbols: tuple[sympy.Symbol, ...]) -> dict[sympy.Symbol, sympy.Expr]:
    """The partial derivatives that are not zero."""
    found = {symbol: partial(expression, symbol) for symbol in symbols if symbol in expression.free_symbols}
    return {symbol: slope for symbol, slope in found.items() if slope != 0}
