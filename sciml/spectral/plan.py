"""How an evolving equation is evaluated with Fourier transforms: what is linear, which products are formed of what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import sympy
from sympy.core.function import AppliedUndef

from ..equations import Equation
from ..equations.components import spell
from ..equations.evaluation import names, shown
from ..equations.forms import expand
from ..equations.residuals import ResidualForm
from ..errors import InputError
from .polynomials import (
    MAX_DEGREE,
    MAX_TERMS,
    Factor,
    Monomial,
    Order,
    Polynomial,
    Products,
    added,
    differentiated,
    factors,
    rewritings,
    substituted,
)


@dataclass(frozen=True)
class LinearTerm:
    """coefficient * D^order field, the coefficient made of parameters and numbers."""

    row: int
    field: str
    order: Order
    coefficient: sympy.Expr


@dataclass(frozen=True)
class Output:
    """coefficient * D^order of a product, a part of a row."""

    row: int
    product: int
    order: Order
    coefficient: sympy.Expr


@dataclass(frozen=True)
class Plan:
    """An equation taken apart for Fourier transforms.

    Rows are the rates of the unknowns, then the constraints, whose sum is 0.

    Attributes:
        unknowns, constrained: names of the fields, in the order of the rows.
        letters: of the axes.
        linear: the linear terms with constant coefficients.
        sources: (row, expression) of what depends neither on the state nor on time.
        inputs: fields and derivatives that are needed in physical space; `names` are their symbols' names.
        products: expressions in plain symbols that are evaluated in physical space.
        polynomials: of each product, as a polynomial in the inputs, or None if it is none.
        outputs: what the transforms of the products contribute.
    """

    unknowns: tuple[str, ...]
    constrained: tuple[str, ...]
    letters: tuple[str, ...]
    linear: tuple[LinearTerm, ...]
    sources: tuple[tuple[int, sympy.Expr], ...]
    inputs: tuple[Factor, ...]
    products: tuple[sympy.Expr, ...]
    polynomials: tuple[tuple[tuple[Monomial, sympy.Expr], ...] | None, ...]
    outputs: tuple[Output, ...]

    @property
    def given(self) -> set[str]:
        """The names in products and sources that are no inputs: of given fields and their derivatives, and others."""
        expressions = (*self.products, *(expression for _, expression in self.sources))
        return set().union(*(names(e) for e in expressions)) - {self.name(factor) for factor in self.inputs}

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is to be cut off: no product holds the state, and no constraint has an odd derivative, which
        would be singular at the highest cosine of an even number of points."""
        first = len(self.unknowns)
        constraints = [t for t in self.linear if t.row >= first and t.field in self.constrained]
        return not self.inputs and not any(n % 2 for term in constraints for n in term.order)

    def name(self, factor: Factor) -> str:
        """("u", (2, 0)) -> "u_xx"."""
        return spell(factor[0], self.letters, factor[1], 0)


@lru_cache(maxsize=64)
def make_plan(equation: Equation, dimension: int, varying: frozenset[str]) -> Plan:
    """The plan with the fewest transforms that is found.

    Args:
        equation: an evolving one.
        dimension: number of axes.
        varying: names of the given fields that depend on time.

    Raises:
        InputError: for a constraint that is not linear, with constant coefficients, in the fields it determines.
    """
    return _Planner(equation, dimension, varying).plan()


class _Planner:
    def __init__(self, equation: Equation, dimension: int, varying: frozenset[str]) -> None:
        self.equation = equation
        self.dimension = dimension
        self.letters = equation.coordinates[:dimension]
        self.unknowns = equation.unknowns
        self.constants = set(equation.parameters)
        self.jets: dict[sympy.Symbol, Factor] = {}
        self.linear: list[LinearTerm] = []
        self.sources: list[tuple[int, sympy.Expr]] = []
        self.polynomial: list[tuple[int, Order, Polynomial]] = []
        self.other: list[tuple[int, Order, sympy.Expr]] = []
        names = {*varying, "t"}
        forms = equation.residual_forms(dimension, varying=names)
        expanded = equation.residual_forms(dimension, varying=names, conservative=False)
        for row, (form, plain) in enumerate(zip(forms, expanded, strict=True)):
            self._read(row, form, plain)

    # Reading

    def _read(self, row: int, form: ResidualForm, plain: ResidualForm) -> None:
        if not self._separable(form):
            form = plain
        sign = -1 if row < len(self.unknowns) else 1
        for symbol, jet in form.jets.items():
            self.jets[symbol] = (jet.field, jet.order)
        for term in form.terms:
            coefficient = sign * self._named(term.coefficient)
            if term.unknown is None:
                self.sources.append((row, coefficient))
                continue
            outside = self._unit(term.flux_axis)
            inner = sympy.Integer(1) if term.flux_coefficient is None else self._named(term.flux_coefficient)
            if self._constant(coefficient) or not any(outside):
                inner, coefficient = coefficient * inner, sympy.Integer(1)
            if coefficient != 1:
                carried_out = self._carried_out(inner, term.unknown, term.derivative, outside)
                self._add(row, self._unit(None), coefficient * carried_out)
                continue
            constant, varying = self._split(inner)
            if constant != 0:
                order = tuple(a + b for a, b in zip(term.derivative, outside, strict=True))
                self.linear.append(LinearTerm(row, term.unknown, order, constant))
            if varying != 0:
                self._add(row, outside, varying * self._symbol(term.unknown, term.derivative))
        fluxes = {flux.symbol: flux for flux in form.fluxes}
        rest = form.rest
        for symbol, flux in fluxes.items():
            self._add(row, self._unit(flux.axis), sign * sympy.diff(form.rest, symbol) * flux.inner)
            rest = rest.xreplace({symbol: sympy.Integer(0)})
        self._add(row, self._unit(None), sign * rest)

    def _separable(self, form: ResidualForm) -> bool:
        """Whether the fluxes stand in a sum, each with a constant factor."""
        slopes = [sympy.diff(form.rest, flux.symbol) for flux in form.fluxes]
        return all(self._constant(slope) for slope in slopes)

    def _carried_out(self, inner: sympy.Expr, field: str, order: Order, outside: Order) -> sympy.Expr:
        """The derivative `outside`, of first order or none, of inner * D^order field."""
        if not any(outside):
            return inner * self._symbol(field, order)
        axis = outside.index(1)
        raised = tuple(a + b for a, b in zip(order, outside, strict=True))
        total = inner * self._symbol(field, raised)
        coordinate = sympy.Symbol(self.letters[axis], real=True)
        total += sympy.diff(inner, coordinate) * self._symbol(field, order)
        for symbol in sorted(inner.free_symbols, key=str):
            if not self._constant(symbol) and symbol.name not in self.equation.coordinates:
                raised_symbol = sympy.Symbol(_raised(symbol.name, self.letters, axis, self.equation), real=True)
                total += sympy.diff(inner, symbol) * raised_symbol * self._symbol(field, order)
        return total

    def _named(self, expression: sympy.Expr) -> sympy.Expr:
        """A published expression in plain real symbols."""
        replaced: dict[sympy.Expr, sympy.Symbol] = {}
        for part in sympy.preorder_traversal(expression):
            derivative = isinstance(part, sympy.Derivative) and isinstance(part.expr, AppliedUndef)
            if derivative or isinstance(part, AppliedUndef) or part.is_Symbol:
                replaced[part] = sympy.Symbol(shown(part), real=True)
        return expression.xreplace(replaced)

    def _split(self, expression: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
        """The part that is a constant, and the rest."""
        if self._constant(expression):
            return expression, sympy.Integer(0)
        terms = sympy.Add.make_args(sympy.expand(expression))
        constant = sympy.Add(*(term for term in terms if self._constant(term)))
        return constant, expression - constant if constant != 0 else expression

    def _constant(self, expression: sympy.Expr) -> bool:
        return {symbol.name for symbol in expression.free_symbols} <= self.constants

    def _unit(self, axis: int | None) -> Order:
        return tuple(int(other == axis) for other in range(self.dimension))

    def _symbol(self, field: str, order: Order) -> sympy.Symbol:
        symbol = sympy.Symbol(spell(field, self.letters, order, 0), real=True)
        self.jets[symbol] = (field, order)
        return symbol

    def _add(self, row: int, order: Order, expression: sympy.Expr) -> None:
        """Sort an expression into its polynomial part, with constant coefficients, and the other."""
        if expression == 0:
            return
        polynomial: Polynomial = {}
        other: list[sympy.Expr] = []
        try:
            terms = sympy.Add.make_args(expand(expression))
        except InputError:  # too many terms
            terms = (expression,)
        for term in terms:
            monomial: list[Factor] = []
            coefficient = sympy.Integer(1)
            for factor in sympy.Mul.make_args(term):
                base, exponent = factor.as_base_exp()
                if base in self.jets and exponent.is_Integer and exponent > 0:
                    monomial += [self.jets[base]] * int(exponent)
                else:
                    coefficient *= factor
            if monomial and self._constant(coefficient):
                polynomial = added(polynomial, {tuple(sorted(monomial)): coefficient})
            else:
                other.append(term)
        if len(polynomial) > MAX_TERMS or any(len(monomial) > MAX_DEGREE for monomial in polynomial):
            # Multiplied out, a power such as (u - 1)**8 would cancel.
            polynomial, other = {}, [expression]
        if polynomial:
            self.polynomial.append((row, order, polynomial))
        if other:
            self.other.append((row, order, sympy.Add(*other) if polynomial else expression))

    # Choosing

    def plan(self) -> Plan:
        self._check_constraints()
        count = len(self.unknowns) + len(self.equation.constrained)
        written: Products = {}
        rows: list[Polynomial] = [{} for _ in range(count)]
        for row, order, polynomial in self.polynomial:
            written[row, order] = added(written.get((row, order), {}), polynomial)
            rows[row] = added(rows[row], differentiated(polynomial, order))
        candidates = [written]
        if any(rows):
            candidates += rewritings(rows, self.dimension)
            replacements = self._replacements()
            if any(field in replacements for row in rows for monomial in row for field, _ in monomial):
                other_rows = [substituted(row, replacements) for row in rows]
                candidates += rewritings(other_rows, self.dimension)
        fixed = {self.jets[s] for _, _, e in self.other for s in e.free_symbols if s in self.jets}
        best = min(candidates, key=lambda item: len(factors(item) | fixed) + len(self._merged(item)))
        products: list[sympy.Expr] = []
        polynomials: list[tuple[tuple[Monomial, sympy.Expr], ...] | None] = []
        outputs: list[Output] = []
        for (terms, expression), places in self._merged(best).items():
            outputs += [Output(row, len(products), order, factor) for row, order, factor in places]
            products.append(sympy.Add(*(c * self._product(monomial) for monomial, c in terms), expression))
            polynomials.append(terms if expression == 0 else None)
        return Plan(
            unknowns=self.unknowns,
            constrained=self.equation.constrained,
            letters=self.letters,
            linear=tuple(self.linear),
            sources=tuple(self.sources),
            inputs=tuple(sorted(factors(best) | fixed)),
            products=tuple(products),
            polynomials=tuple(polynomials),
            outputs=tuple(outputs),
        )

    def _product(self, monomial: Monomial) -> sympy.Expr:
        return sympy.Mul(*(self._symbol(field, order) for field, order in monomial))

    def _merged(
        self, products: Products
    ) -> dict[tuple[tuple[tuple[Monomial, sympy.Expr], ...], sympy.Expr], list[tuple[int, Order, sympy.Expr]]]:
        """What is transformed, and where it goes with which constant factor; multiples are transformed once."""
        other: dict[tuple[int, Order], sympy.Expr] = {}
        for row, order, expression in self.other:
            other[row, order] = other.get((row, order), sympy.Integer(0)) + expression
        found: dict[
            tuple[tuple[tuple[Monomial, sympy.Expr], ...], sympy.Expr], list[tuple[int, Order, sympy.Expr]]
        ] = {}
        for key in sorted({*products, *other}):
            polynomial, expression = products.get(key, {}), other.get(key, sympy.Integer(0))
            if not polynomial and expression == 0:
                continue
            factor = sympy.Integer(1)
            if expression == 0:
                polynomial, factor = _without_content(polynomial)
            elif not polynomial and expression.could_extract_minus_sign():
                expression, factor = -expression, sympy.Integer(-1)
            terms = tuple(sorted(polynomial.items()))
            found.setdefault((terms, expression), []).append((*key, factor))
        return found

    def _replacements(self) -> dict[str, Polynomial]:
        """Unknowns that a constraint gives as derivatives of constrained fields: laplacian(psi) = -w gives w."""
        found: dict[str, Polynomial] = {}
        for row in range(len(self.unknowns), len(self.unknowns) + len(self.equation.constrained)):
            terms = [term for term in self.linear if term.row == row]
            occurring = [term for term in terms if term.field in self.unknowns]
            busy = any(other == row for other, *_ in (*self.sources, *self.polynomial, *self.other))
            if busy or len(occurring) != 1 or any(occurring[0].order) or not occurring[0].coefficient.is_Rational:
                continue
            polynomial: Polynomial = {}
            for term in terms:
                if term is not occurring[0]:
                    key = ((term.field, term.order),)
                    polynomial = added(polynomial, {key: -term.coefficient / occurring[0].coefficient})
            found[occurring[0].field] = polynomial
        return found

    def _check_constraints(self) -> None:
        texts = self.equation.constraints
        nonlinear = set()
        for row, _, expression in (*self.polynomial, *self.other):
            place = row - len(self.unknowns)
            if place < 0:
                continue
            nonlinear.add(place)
            fields = (
                {field for monomial in expression for field, _ in monomial}
                if isinstance(expression, dict)
                else {self.jets[s][0] for s in expression.free_symbols if s in self.jets}
            )
            wrong = sorted(fields & set(self.equation.constrained))
            if wrong:
                raise InputError(
                    f"constraint '{texts[place]}': a Fourier discretization solves constraints one wavenumber at a "
                    f"time, which needs {', '.join(wrong)} to stand in it linearly with constant coefficients; "
                    "scheme=FiniteDifference() takes coefficients that vary"
                )
        needed = {
            field
            for row, _, expression in (*self.polynomial, *self.other)
            for field in (
                {f for monomial in expression for f, _ in monomial}
                if isinstance(expression, dict)
                else {self.jets[s][0] for s in expression.free_symbols if s in self.jets}
            )
        }
        if nonlinear and needed & set(self.equation.constrained):
            raise InputError(
                f"constraint '{texts[min(nonlinear)]}' is not linear with constant coefficients in the unknowns (or "
                "its source depends on time), and a field that the constraints determine is multiplied with others: a "
                "Fourier discretization handles one of both"
            )


def _without_content(polynomial: Polynomial) -> tuple[Polynomial, sympy.Expr]:
    """The polynomial without a constant factor that all coefficients share, and that factor."""
    first = polynomial[min(polynomial)]
    content = sympy.gcd_list(list(polynomial.values()))
    reduced = {monomial: sympy.cancel(c / content) for monomial, c in polynomial.items()}
    if reduced[min(polynomial)].could_extract_minus_sign():
        reduced, content = {monomial: -c for monomial, c in reduced.items()}, -content
    return (reduced, content) if first != 0 else (polynomial, sympy.Integer(1))


def _raised(name: str, letters: Sequence[str], axis: int, equation: Equation) -> str:
    """The name of the derivative along an axis of a given field or of a derivative of it."""
    field, order, time = given_factor(name, letters, equation)
    raised = (*order[:axis], order[axis] + 1, *order[axis + 1 :])
    return spell(field, tuple(letters), raised, time)


def given_factor(name: str, letters: Sequence[str], equation: Equation) -> tuple[str, Order, int]:
    """Field, order along each axis, and order in time of the name of a given field or of its derivative.

    Raises:
        InputError: for a name that is neither.
    """
    if name in equation.coefficients:
        return name, (0,) * len(letters), 0
    field, _, suffix = name.rpartition("_")
    if field not in equation.coefficients or not set(suffix) <= {*letters, "t"}:
        raise InputError(f"'{name}' is no field that is given, nor a derivative of one")
    return field, tuple(suffix.count(letter) for letter in letters), suffix.count("t")
