"""Turns sympy expressions back into the tree of the grammar, so that they can be added to an equation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from fractions import Fraction

import sympy
from sympy.core.function import AppliedUndef

from ..errors import InputError
from .expression import Call, Diff, Name, Node, Number, Power, Quotient, add, multiply, negative, scale
from .forms import Term

_FUNCTIONS = {
    sympy.Abs: "abs",
    sympy.cos: "cos",
    sympy.exp: "exp",
    sympy.log: "log",
    sympy.sin: "sin",
    sympy.tan: "tan",
    sympy.tanh: "tanh",
}


def from_sympy(expression: sympy.Expr, rates: Collection[str] = ()) -> Node:
    """The tree of a sympy expression.

    Args:
        expression: numbers, symbols, functions of the coordinates, their derivatives, and functions of the grammar.
        rates: names such as `u_t` that are functions in component form and derivatives in the grammar.

    Raises:
        InputError: for a part that the grammar has no words for.
    """
    match expression:
        case sympy.Rational():
            return _rational(Fraction(int(expression.p), int(expression.q)))
        case sympy.Float():
            if not math.isfinite(float(expression)):
                raise InputError(f"{expression} is no finite number")
            return _rational(Fraction(repr(float(expression))))
        case sympy.Symbol():
            return Name(str(expression.name))
        case AppliedUndef():
            return Name(str(expression.func.__name__))
        case sympy.Derivative():
            return _derivative(expression, rates)
        case sympy.Add():
            return _sum([from_sympy(term, rates) for term in expression.as_ordered_terms()])
        case sympy.Mul():
            return _product(expression, rates)
        case sympy.Pow() if expression.exp == sympy.Rational(1, 2):
            return Call("sqrt", (from_sympy(expression.base, rates),))
        case sympy.Pow():
            return Power(from_sympy(expression.base, rates), from_sympy(expression.exp, rates))
    if expression is sympy.pi:
        return Name("pi")
    if expression is sympy.E:
        return Call("exp", (Number(Fraction(1)),))
    if expression.func in _FUNCTIONS:
        return Call(_FUNCTIONS[expression.func], (from_sympy(expression.args[0], rates),))
    raise InputError(f"'{str(expression)[:80]}' cannot be written in an equation: {expression.func.__name__}")


def _rational(value: Fraction) -> Node:
    size = abs(value)
    rest = size.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    top = Number(Fraction(size.numerator))
    node = Number(size) if rest == 1 else Quotient(top, Number(Fraction(size.denominator)))
    return negative(node) if value < 0 else node


def _sum(terms: list[Node]) -> Node:
    node = terms[0]
    for term in terms[1:]:
        node = add(node, term)
    return node


def _product(expression: sympy.Expr, rates: Collection[str]) -> Node:
    number, rest = expression.as_coeff_Mul()
    below = [factor for factor in rest.as_ordered_factors() if factor.is_Pow and factor.exp.could_extract_minus_sign()]
    above = [factor for factor in rest.as_ordered_factors() if factor not in below]
    top = [from_sympy(abs(number), rates)] if abs(number) != 1 or not above else []
    top += [from_sympy(factor, rates) for factor in above]
    node = top[0]
    for factor in top[1:]:
        node = multiply(node, factor)
    for factor in below:
        node = Quotient(node, from_sympy(1 / factor, rates))
    return negative(node) if number < 0 else node


def _derivative(expression: sympy.Derivative, rates: Collection[str]) -> Node:
    letters = [(str(variable), int(count)) for variable, count in expression.variable_count]
    if isinstance(expression.expr, AppliedUndef):
        name = str(expression.expr.func.__name__)
        suffix = "".join(letter * count for letter, count in letters)
        return Name(f"{name}{suffix}" if name in rates else f"{name}_{suffix}")
    node = from_sympy(expression.expr, rates)
    for letter, count in letters:
        node = Diff(node, letter, count)
    return node


def from_term(term: Term, letters: Sequence[str], rates: Collection[str]) -> Node:
    """The tree of one linear term or source; arguments as in `from_sympy`, with the letters of the coordinates."""
    coefficient = from_sympy(term.coefficient, rates)
    if term.unknown is None:
        return coefficient
    suffix = "".join(letter * count for letter, count in zip(letters, term.derivative, strict=False))
    join = "" if not suffix or term.unknown in rates else "_"
    node: Node = Name(f"{term.unknown}{join}{suffix}")
    if term.flux_axis is not None:
        node = Diff(scale(from_sympy(term.flux_coefficient, rates), node), letters[term.flux_axis], 1)
    return scale(coefficient, node)
