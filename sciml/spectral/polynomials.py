"""Polynomials in fields and their derivatives, and ways to write them with few Fourier transforms.

A pseudo-spectral method pays one inverse transform for every different factor and one forward transform for every
different product. Written as u*u_x that is three, as (u**2/2)_x two. Which total derivatives of which products add up
to a given polynomial is a small linear problem with rational coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, product
from typing import TypeAlias

import sympy

Order: TypeAlias = tuple[int, ...]
Factor: TypeAlias = tuple[str, Order]
"""A field and how often it is differentiated along each axis."""
Monomial: TypeAlias = tuple[Factor, ...]
"""A product of factors, sorted."""
Polynomial: TypeAlias = dict[Monomial, sympy.Expr]
"""Monomials and their coefficients, which hold parameters and numbers only."""
Products: TypeAlias = dict[tuple[int, Order], Polynomial]
"""(row, order) -> a polynomial whose derivative of that order is a part of the row."""

_ONE = sympy.Integer(1)

MAX_TERMS = 80
MAX_DEGREE = 4
MAX_FIELDS = 4  # up to here every field is tried at every order by itself


def differentiated(polynomial: Mapping[Monomial, sympy.Expr], order: Order) -> Polynomial:
    """The total derivative."""
    found = dict(polynomial)
    for axis, count in enumerate(order):
        for _ in range(count):
            found = _derivative(found, axis)
    return found


def _derivative(polynomial: Mapping[Monomial, sympy.Expr], axis: int) -> Polynomial:
    found: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        for place, (field, order) in enumerate(monomial):
            raised = (field, (*order[:axis], order[axis] + 1, *order[axis + 1 :]))
            key = tuple(sorted((*monomial[:place], raised, *monomial[place + 1 :])))
            found[key] = found.get(key, sympy.Integer(0)) + coefficient
    return found


def added(first: Polynomial, second: Mapping[Monomial, sympy.Expr], scale: sympy.Expr = _ONE) -> Polynomial:
    """first + scale * second, without the terms that cancel."""
    found = dict(first)
    for monomial, coefficient in second.items():
        total = sympy.expand(found.get(monomial, sympy.Integer(0)) + scale * coefficient)
        if total == 0:
            found.pop(monomial, None)
        else:
            found[monomial] = total
    return found


def substituted(polynomial: Polynomial, replacements: Mapping[str, Polynomial]) -> Polynomial:
    """The polynomial with fields replaced by polynomials that are linear in others."""
    found: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        parts: list[Polynomial] = []
        for field, order in monomial:
            if field in replacements:
                parts.append(differentiated(replacements[field], order))
            else:
                parts.append({((field, order),): sympy.Integer(1)})
        for choice in product(*(part.items() for part in parts)):
            key = tuple(sorted(factor for monomials, _ in choice for factor in monomials))
            found = added(found, {key: coefficient * sympy.Mul(*(c for _, c in choice))})
    return found


def factors(products: Products) -> set[Factor]:
    """The factors of all products."""
    return {factor for polynomial in products.values() for monomial in polynomial for factor in monomial}


def rewritings(rows: Sequence[Polynomial], dimension: int) -> Iterator[Products]:
    """Other ways to write the rows, each with few kinds of factors.

    Args:
        rows: one polynomial a row.
        dimension: number of axes.
    """
    if sum(map(len, rows)) > MAX_TERMS or any(len(monomial) > MAX_DEGREE for row in rows for monomial in row):
        return
    occurring: dict[str, set[Order]] = {}
    for row in rows:
        for monomial in row:
            for field, order in monomial:
                occurring.setdefault(field, set()).add(order)
    choices: list[list[frozenset[Factor]]] = []
    for field, orders in sorted(occurring.items()):
        highest = max(map(sum, orders))
        sets = [
            frozenset((field, order) for order in _orders(dimension, count)) for count in range(min(highest, 2) + 1)
        ]
        choices.append([*sets, frozenset((field, order) for order in orders)])
    if len(choices) <= MAX_FIELDS:
        selections: Iterable[tuple[frozenset[Factor], ...]] = product(*choices)
    else:
        selections = zip(*([*sets, *sets[-1:] * (4 - len(sets))] for sets in choices), strict=True)
    for selection in selections:
        found = _written_with(rows, frozenset().union(*selection), dimension)
        if found is not None:
            yield found


def _orders(dimension: int, total: int) -> list[Order]:
    axes = combinations_with_replacement(range(dimension), total)
    return [tuple(choice.count(axis) for axis in range(dimension)) for choice in axes]


def _written_with(rows: Sequence[Polynomial], kinds: frozenset[Factor], dimension: int) -> Products | None:
    """The rows as derivatives of products of the given factors; None if that cannot be."""
    found: Products = {}
    for place, row in enumerate(rows):
        for (fields, total), part in _graded(row, dimension).items():
            columns = _columns(fields, total, kinds)
            solved = _combination(part, [differentiated({m: sympy.Integer(1)}, order) for m, order in columns])
            if solved is None:
                return None
            for (monomial, order), coefficient in zip(columns, solved, strict=True):
                if coefficient != 0:
                    key = (place, order)
                    found[key] = added(found.get(key, {}), {monomial: coefficient})
    return found


def _graded(row: Polynomial, dimension: int) -> dict[tuple[tuple[str, ...], Order], Polynomial]:
    """The row by fields and by total order along each axis, which derivatives of products do not mix."""
    found: dict[tuple[tuple[str, ...], Order], Polynomial] = {}
    for monomial, coefficient in row.items():
        fields = tuple(field for field, _ in monomial)
        total = tuple(sum(order[axis] for _, order in monomial) for axis in range(dimension))
        found.setdefault((fields, total), {})[monomial] = coefficient
    return found


@cache
def _columns(fields: tuple[str, ...], total: Order, kinds: frozenset[Factor]) -> list[tuple[Monomial, Order]]:
    """Products of these fields with the order of the derivative still missing, the largest first."""
    by_field = []
    for field in sorted(set(fields)):
        usable = sorted(kind for kind in kinds if kind[0] == field)
        by_field.append(list(combinations_with_replacement(usable, fields.count(field))))
    found = []
    for choice in product(*by_field):
        monomial = tuple(sorted(factor for part in choice for factor in part))
        missing = tuple(t - sum(order[axis] for _, order in monomial) for axis, t in enumerate(total))
        if min(missing) >= 0:
            found.append((monomial, missing))
    return sorted(found, key=lambda item: -sum(item[1]))


def _combination(target: Polynomial, columns: Sequence[Polynomial]) -> list[sympy.Expr] | None:
    """Coefficients with which the columns add up to the target; None if there are none.

    The columns are rational. The target's coefficients are sums of independent expressions in the parameters, for each
    of which the system is solved by itself.
    """
    constants: dict[sympy.Expr, dict[Monomial, Fraction]] = {}
    for monomial, coefficient in target.items():
        for part in sympy.Add.make_args(sympy.expand(coefficient)):
            number, constant = part.as_coeff_Mul(rational=True)
            if not number.is_Rational:
                number, constant = sympy.Integer(1), part
            places = constants.setdefault(constant, {})
            places[monomial] = places.get(monomial, Fraction(0)) + Fraction(int(number.p), int(number.q))
    keys = sorted({monomial for column in (*columns, target) for monomial in column})
    matrix = [
        [
            *(Fraction(int(column[key])) if key in column else Fraction(0) for column in columns),
            *(right.get(key, Fraction(0)) for right in constants.values()),
        ]
        for key in keys
    ]
    solutions = _solve(matrix, len(columns))
    if solutions is None:
        return None
    found = []
    for row in solutions:
        terms = (sympy.Rational(x.numerator, x.denominator) * c for x, c in zip(row, constants, strict=True))
        found.append(sympy.Add(*terms))
    return found


def _solve(matrix: list[list[Fraction]], columns: int) -> list[list[Fraction]] | None:
    """Solves the augmented system by elimination, unknowns that stay free being 0; one row an unknown."""
    pivots: list[int] = []
    for column in range(columns):
        row = len(pivots)
        best = next((k for k in range(row, len(matrix)) if matrix[k][column] != 0), None)
        if best is None:
            continue
        matrix[row], matrix[best] = matrix[best], matrix[row]
        scale = matrix[row][column]
        matrix[row] = [entry / scale for entry in matrix[row]]
        for other in range(len(matrix)):
            factor = matrix[other][column]
            if other != row and factor != 0:
                matrix[other] = [a - factor * b for a, b in zip(matrix[other], matrix[row], strict=True)]
        pivots.append(column)
    if any(entry != 0 for row in matrix[len(pivots) :] for entry in row[columns:]):
        return None
    sides = len(matrix[0]) - columns if matrix else 0
    found = [[Fraction(0)] * sides for _ in range(columns)]
    for row, column in enumerate(pivots):
        found[column] = matrix[row][columns:]
    return found
