"""What a discretization needs of an equation: linear terms with their derivatives, sources, and the nonlinear rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb, prod

import sympy

from ..errors import InputError
from .components import Components, Jet, reduced
from .expression import Row, listed, refuse_row
from .names import Names

MAX_TERMS = 5_000  # terms of a product that is multiplied out

_ZERO = sympy.Integer(0)


@dataclass(frozen=True)
class Term:
    """One linear term, or a source.

    Without `flux_axis` it is coefficient * D^derivative unknown, and a source is the coefficient alone. With
    `flux_axis` k it is coefficient * d/dx_k(flux_coefficient * D^derivative unknown), the form that conserves.

    Args:
        coefficient: component form, free of unknowns; signs are in here.
        unknown: name of a field that is solved for, None for a source.
        derivative: how often the unknown is differentiated along each axis.
        flux_axis: axis of the derivative that stands outside, or None.
        flux_coefficient: component form, free of unknowns; None without `flux_axis`.
    """

    coefficient: sympy.Expr
    unknown: str | None
    derivative: tuple[int, ...]
    flux_axis: int | None = None
    flux_coefficient: sympy.Expr | None = None


@dataclass(frozen=True)
class Form:
    """One equation in component form: 0 = sum(terms) + remainder, or unknown_t = sum(terms) + remainder.

    Args:
        unknown_t: the unknown whose rate in time this is; None for a steady equation or a constraint, in which
            everything stands on the left side.
        terms: the linear terms and sources.
        remainder: the nonlinear rest, 0 if there is none.
    """

    unknown_t: str | None
    terms: tuple[Term, ...]
    remainder: sympy.Expr


@dataclass(frozen=True)
class SolvedRow:
    """An equation taken apart: factor * (highest time derivative of unknown) + rest = 0; steady: rest = 0."""

    source: Row
    unknown: str | None
    factor: sympy.Expr
    rest: sympy.Expr


class ComponentSystem:
    """All equations of a system, written out for one number of axes.

    Args:
        names: what the names stand for.
        rows: the equations.
        constraints: the constraints.
        dimension: number of axes.
        flux: whether divergences are kept together.
        pad: as in `Components`.

    Raises:
        InputError: for time derivatives in places where this version has no use for them.
    """

    def __init__(
        self,
        names: Names,
        rows: Sequence[Row],
        constraints: Sequence[Row],
        dimension: int,
        *,
        flux: bool = True,
        pad: bool = False,
    ) -> None:
        self.names = names
        self.components = Components(names, dimension, pad=pad)
        differences = [self.components.difference(row, flux=flux) for row in (*rows, *constraints)]
        self.time_orders = dict.fromkeys(names.unknowns, 0)
        for difference in differences[: len(rows)]:
            for _, jet in self.components.jets_in(difference):
                if jet.field in self.time_orders:
                    self.time_orders[jet.field] = max(self.time_orders[jet.field], jet.time)
        self.evolving = any(self.time_orders.values())
        self.constraints = [
            self._steady(row, item) for row, item in zip(constraints, differences[len(rows) :], strict=True)
        ]
        if self.evolving:
            self.rows = self._in_order([self._solve(*pair) for pair in zip(rows, differences, strict=False)])
        else:
            self.rows = [self._steady(*pair) for pair in zip(rows, differences, strict=False)]
            for row in (*self.rows, *self.constraints):
                self._check_no_time(row)

    @property
    def order(self) -> int:
        """Highest order of a space derivative of what is solved for."""
        expressions = [self.components.expand_fluxes(row.rest) for row in (*self.rows, *self.constraints)]
        jets = [jet for item in expressions for _, jet in self.components.jets_in(item)]
        return max((sum(jet.order) for jet in jets if jet.field in self.names.solved), default=0)

    def forms(self) -> tuple[Form, ...]:
        """One form per unknown (steady: per equation), then one per constraint."""
        found: list[Form] = []
        for row in self.rows:
            if row.unknown is None:
                found.append(self._form(None, row.rest, sympy.Integer(1)))
                continue
            order = self.time_orders[row.unknown]
            rates = [row.unknown, *(f"{row.unknown}_{'t' * count}" for count in range(1, order))]
            for name, rate in pairwise(rates):
                term = Term(sympy.Integer(1), rate, (0,) * self.components.dimension)
                found.append(Form(name, (term,), _ZERO))
            found.append(self._form(rates[-1], row.rest, -1 / row.factor))
        found.extend(self._form(None, row.rest, sympy.Integer(1)) for row in self.constraints)
        return tuple(found)

    def _rates(self, difference: sympy.Expr) -> list[tuple[sympy.Symbol, Jet]]:
        """Time derivatives that the state does not hold: of an unknown of first order u_t, of one of second u_tt."""
        orders = self.time_orders
        return [
            (symbol, jet)
            for symbol, jet in self.components.jets_in(difference)
            if jet.time and jet.field in self.names.solved and jet.time >= orders.get(jet.field, 0)
        ]

    def _steady(self, row: Row, difference: sympy.Expr) -> SolvedRow:
        rates = self._rates(difference)
        if rates:
            found = listed(symbol.name for symbol, _ in rates)
            raise refuse_row(row.text, f"a constraint holds at every time and cannot hold {found}")
        return SolvedRow(row, None, sympy.Integer(1), difference)

    def _check_no_time(self, row: SolvedRow) -> None:
        found = [symbol.name for symbol, jet in self.components.jets_in(row.rest) if jet.time]
        if sympy.Symbol("t", real=True) in self.components.symbols_in(row.rest):
            found.append("t")
        if found:
            message = f"{listed(found)} in an equation without a time derivative of an unknown"
            raise refuse_row(row.source.text, message)

    def _solve(self, row: Row, difference: sympy.Expr) -> SolvedRow:
        """Solves for the highest time derivative in the row."""
        rates = self._rates(difference)
        if not rates:
            raise refuse_row(
                row.text,
                "an equation without time derivative in an evolving system is a constraint: "
                "give it in constraints=[...]",
            )
        for other, jet in rates:
            if any(jet.order):
                message = f"'{other.name}', a time derivative below a space derivative, is not handled in this version"
                raise refuse_row(row.text, message)
        if len(rates) > 1 or rates[0][1].field not in self.names.unknowns:
            found = listed(other.name for other, _ in rates)
            raise refuse_row(row.text, f"each equation holds the time derivative of one unknown, here stand {found}")
        symbol, jet = rates[0]
        factor = sympy.diff(difference, symbol)
        inside = self.components.jets_in(factor)
        rest = difference.xreplace({symbol: _ZERO})
        plain = not any(item.time or any(item.order) for _, item in inside) and not self.components.has_flux(factor)
        if not plain or symbol in self.components.symbols_in(rest):
            raise refuse_row(row.text, f"'{symbol.name}' must stand in a sum, with a factor that holds no derivatives")
        return SolvedRow(row, jet.field, factor, rest)

    def _in_order(self, rows: list[SolvedRow]) -> list[SolvedRow]:
        found: dict[str | None, SolvedRow] = {}
        for row in rows:
            if row.unknown in found:
                raise refuse_row(row.source.text, f"two equations hold the time derivative of '{row.unknown}'")
            found[row.unknown] = row
        return [found[unknown] for unknown in self.names.unknowns]

    def _form(self, unknown: str | None, rest: sympy.Expr, scale: sympy.Expr) -> Form:
        components = self.components
        solved = {symbol for symbol, jet in components.jets.items() if jet.field in self.names.solved}
        if not solved.isdisjoint(scale.free_symbols):
            return Form(unknown, (), self.publish(components.expand_fluxes(rest) * scale))
        linear, source, remainder = split_linear(rest, solved | set(components.fluxes))
        remainder = components.expand_fluxes(remainder)
        terms: list[Term] = []
        for symbol, coefficient in linear.items():
            if symbol not in components.fluxes:
                terms.append(self.term(symbol, coefficient * scale))
                continue
            flux = components.fluxes[symbol]
            inside, inner_source, inner_remainder = split_linear(flux.inner, solved)
            terms += [self.term(jet, coefficient * scale, flux.axis, factor) for jet, factor in inside.items()]
            source += coefficient * components.derive(inner_source, flux.axis)
            remainder += coefficient * components.derive(inner_remainder, flux.axis)
        if remainder != 0 and expand(remainder) == 0:  # what was kept together may cancel
            remainder = _ZERO
        if source != 0:
            terms.append(Term(self.publish(source * scale), None, (0,) * components.dimension))
        return Form(unknown, tuple(terms), self.publish(remainder * scale))

    def term(
        self, symbol: sympy.Symbol, coefficient: sympy.Expr, axis: int | None = None, factor: sympy.Expr | None = None
    ) -> Term:
        """The linear term of a symbol of a field that is solved for; with `axis` below the derivative along it."""
        jet = self.components.jets[symbol]
        name, _ = reduced(jet, self.time_orders)
        inner = None if factor is None else self.publish(factor)
        return Term(self.publish(coefficient), name, jet.order, axis, inner)

    def publish(self, expression: sympy.Expr) -> sympy.Expr:
        """See `Components.publish`."""
        return self.components.publish(expression, self.time_orders)


def split_linear(
    expression: sympy.Expr, variables: Iterable[sympy.Symbol]
) -> tuple[dict[sympy.Symbol, sympy.Expr], sympy.Expr, sympy.Expr]:
    """Writes an expression as sum of coefficient*variable + source + remainder.

    Products are multiplied out, but what is free of variables and what stands in functions stays as it was written:
    there is no rounding error from it.

    Args:
        expression: component form.
        variables: the symbols in which terms are linear or not.

    Returns:
        Coefficients by variable, the source, free of variables, and the remainder, nonlinear in them.

    Raises:
        InputError: if the product has too many terms.
    """
    variables = set(variables)
    frozen: dict[sympy.Expr, sympy.Dummy] = {}
    varying: set[sympy.Symbol] = set(variables)

    def freeze(part: sympy.Expr) -> sympy.Expr:
        if part.is_Symbol or part.is_Number:
            return part
        free = variables.isdisjoint(part.free_symbols)
        if not free and (part.is_Add or part.is_Mul):
            return part.func(*(freeze(argument) for argument in part.args))
        if not free and part.is_Pow and part.exp.is_Integer and part.exp > 0:
            return freeze(part.base) ** part.exp
        if part not in frozen:
            frozen[part] = sympy.Dummy(f"part{len(frozen)}", real=True)
            if not free:
                varying.add(frozen[part])
        return frozen[part]

    compact = freeze(expression)
    _check_terms(compact)
    coefficients: dict[sympy.Symbol, list[sympy.Expr]] = {}
    source: list[sympy.Expr] = []
    remainder: list[sympy.Expr] = []
    for term in sympy.Add.make_args(sympy.expand_multinomial(sympy.expand_mul(compact))):
        inside = varying & term.free_symbols
        factors = list(sympy.Mul.make_args(term))
        if not inside:
            source.append(term)
        elif len(inside) == 1 and (variable := inside.pop()) in variables and variable in factors:
            factors.remove(variable)
            coefficients.setdefault(variable, []).append(sympy.Mul(*factors))
        else:
            remainder.append(term)
    thaw = {dummy: part for part, dummy in frozen.items()}
    ordered = sorted(coefficients, key=lambda symbol: (symbol.is_Dummy, symbol.sort_key()))
    linear = {symbol: sympy.Add(*coefficients[symbol]).xreplace(thaw) for symbol in ordered}
    return linear, sympy.Add(*source).xreplace(thaw), sympy.Add(*remainder).xreplace(thaw)


def expand(expression: sympy.Expr) -> sympy.Expr:
    """The expression multiplied out, inside functions too.

    Raises:
        InputError: if that has too many terms.
    """
    for part in sympy.preorder_traversal(expression):
        if not part.is_Atom:
            _check_terms(part)
    return sympy.expand(expression)


def _check_terms(expression: sympy.Expr) -> None:
    if _count_terms(expression) > MAX_TERMS:
        raise InputError(f"multiplied out, '{str(expression)[:80]}' has more than {MAX_TERMS} terms")


def _count_terms(expression: sympy.Expr) -> int:
    """An upper bound of the number of terms of an expression when it is multiplied out."""
    if expression.is_Add:
        return sum(_count_terms(term) for term in expression.args)
    if expression.is_Mul:
        return prod(_count_terms(factor) for factor in expression.args)
    if expression.is_Pow:
        number, _ = expression.exp.as_coeff_Add()
        power = int(abs(number)) if number.is_Rational else 0
        inner = _count_terms(expression.base)
        return comb(inner + power - 1, power) if inner > 1 else 1
    return 1
