"""Writes expressions as text, which the parser reads back, and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

from .expression import (
    Call,
    Diff,
    Name,
    Negative,
    Node,
    Number,
    Power,
    Product,
    Quotient,
    Row,
    Sum,
    Vector,
)
from .names import Names

_SUM, _SIGN, _PRODUCT, _POWER, _ATOM = range(5)  # how tightly a node holds together

_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split()
)


def _strength(node: Node) -> int:
    match node:
        case Sum():
            return _SUM
        case Negative():
            return _SIGN
        case Product() | Quotient():
            return _PRODUCT
        case Power():
            return _POWER
    return _ATOM


def row_text(row: Row) -> str:
    """`L = R`."""
    return f"{text(row.left)} = {text(row.right)}"


def text(node: Node) -> str:
    """An expression in the grammar of equations."""
    match node:
        case Number(value):
            return number_text(value)
        case Name(name):
            return name
        case Negative(operand):
            return f"-{_text_within(operand, _PRODUCT)}"
        case Sum(terms):
            return _sum(terms, text)
        case Product(factors):
            return "*".join(_text_within(factor, _PRODUCT) for factor in factors)
        case Quotient(numerator, denominator):
            return f"{_text_within(numerator, _PRODUCT)}/{_text_within(denominator, _POWER)}"
        case Power(base, exponent):
            plain = isinstance(exponent, Negative) and _strength(exponent.operand) == _ATOM
            below = text(exponent) if plain else _text_within(exponent, _ATOM)
            return f"{_text_within(base, _ATOM)}**{below}"
        case Call(function, arguments):
            return f"{function}({', '.join(text(argument) for argument in arguments)})"
        case Diff(argument, variable, count):
            order = f", {count}" if count > 1 else ""
            return f"diff({text(argument)}, {variable}{order})"
        case Vector(components):
            return f"[{', '.join(text(component) for component in components)}]"


def _text_within(node: Node, strength: int) -> str:
    return text(node) if _strength(node) >= strength else f"({text(node)})"


def _sum(terms: tuple[Node, ...], write: Callable[[Node], str]) -> str:
    parts: list[str] = []
    for term in terms:
        minus = isinstance(term, Negative)
        body = term.operand if isinstance(term, Negative) else term
        written = write(body) if _strength(body) > _SIGN else _bracketed(body, write)
        if not parts:
            parts.append(f"-{written}" if minus else written)
        else:
            parts.append(f" {'-' if minus else '+'} {written}")
    return "".join(parts)


def _bracketed(node: Node, write: Callable[[Node], str]) -> str:
    return f"({write(node)})" if write is text else rf"\left({write(node)}\right)"


def number_text(value: Fraction) -> str:
    """A decimal number, exactly; the value of a number in an equation always is one."""
    if value.denominator == 1 and value < 10**15:
        return str(value.numerator)
    short = repr(float(value))
    if Fraction(short) == value:
        return short
    digits = 0
    while value.denominator != 1:
        value, digits = value * 10, digits + 1
    if digits > 30:
        return f"{value.numerator}e-{digits}"
    written = str(value.numerator).rjust(digits + 1, "0")
    return f"{written[:-digits]}.{written[-digits:]}" if digits else written


def row_latex(row: Row, names: Names) -> str:
    r"""`L = R` in LaTeX, without dollar signs."""
    writer = _Latex(names)
    return f"{writer.write(row.left)} = {writer.write(row.right)}"


class _Latex:
    """Writes LaTeX that matplotlib's mathtext understands too."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def write(self, node: Node) -> str:
        match node:
            case Number(value):
                mantissa, _, exponent = number_text(value).partition("e")
                return mantissa + (rf" \cdot 10^{{{int(exponent)}}}" if exponent else "")
            case Name(name):
                return self._name(name)
            case Negative(operand):
                return f"-{self._within(operand, _PRODUCT)}"
            case Sum(terms):
                return _sum(terms, self.write)
            case Product(factors):
                return self._product(factors)
            case Quotient(numerator, denominator):
                return rf"\frac{{{self.write(numerator)}}}{{{self.write(denominator)}}}"
            case Power(base, exponent):
                atom = isinstance(base, Number) or (isinstance(base, Name) and not self.names.derivative(base.name))
                below = self.write(base) if atom else rf"\left({self.write(base)}\right)"
                return f"{below}^{{{self.write(exponent)}}}"
            case Vector(components):
                inner = r",\; ".join(self.write(component) for component in components)
                return rf"\left({inner}\right)"
            case Diff(argument, variable, count):
                letters = "t" * count if variable == "t" else variable * count
                return f"{_partial(letters)} {self._operand(argument)}"
            case Call(function, arguments):
                return self._call(function, arguments)

    def _within(self, node: Node, strength: int) -> str:
        own = _SIGN if isinstance(node, Call) and node.function == "dot" else _strength(node)
        return self.write(node) if own >= strength else rf"\left({self.write(node)}\right)"

    def _product(self, factors: tuple[Node, ...]) -> str:
        """Factors side by side; a derivative that is not last is kept apart from what follows."""
        written = self._within(factors[0], _PRODUCT)
        for previous, factor in pairwise(factors):
            part = self._within(factor, _PRODUCT)
            if part[0].isdigit():
                written += rf" \cdot {part}"
            elif self._differentiates(previous):
                written += rf" \, {part}" if self._differentiates(factor) else rf" \cdot {part}"
            else:
                written += f" {part}"
        return written

    def _differentiates(self, node: Node) -> bool:
        match node:
            case Name(name):
                return self.names.derivative(name) is not None
            case Call(function):
                return function in ("div", "grad", "laplacian")
        return isinstance(node, Diff)

    def _operand(self, node: Node) -> str:
        """What an operator such as nabla stands in front of."""
        bare = isinstance(node, Name | Diff) or (isinstance(node, Call) and node.function != "dot")
        return self.write(node) if bare else rf"\left({self.write(node)}\right)"

    def _call(self, function: str, arguments: tuple[Node, ...]) -> str:
        match function:
            case "sqrt":
                return rf"\sqrt{{{self.write(arguments[0])}}}"
            case "abs":
                return rf"\left|{self.write(arguments[0])}\right|"
            case "grad":
                return rf"\nabla {self._operand(arguments[0])}"
            case "laplacian":
                return rf"\nabla^2 {self._operand(arguments[0])}"
            case "div":
                inner = self.write(arguments[0])
                bracketed = isinstance(arguments[0], Vector)
                return rf"\nabla\cdot {inner}" if bracketed else rf"\nabla\cdot\left({inner}\right)"
            case "dot":
                first, second = (self._within(argument, _ATOM) for argument in arguments)
                return rf"{first} \cdot {second}"
        return rf"\{function}\left({self.write(arguments[0])}\right)"

    def _name(self, name: str) -> str:
        split = self.names.derivative(name)
        if split is None:
            return _symbol(name)
        return f"{_partial(split[1])} {_symbol(split[0])}"


def _partial(letters: str) -> str:
    parts = []
    for letter in dict.fromkeys(letters):
        count = letters.count(letter)
        parts.append(rf"\partial_{letter}" + (f"^{count}" if count > 1 else ""))
    return " ".join(parts)


def _symbol(name: str) -> str:
    """Greek letters by name, digits and what follows an underscore as index."""
    stem, _, index = name.rstrip("_").partition("_")
    match = re.fullmatch(r"([^\d]+)(\d+)", stem)
    if match:
        stem, index = match[1], match[2] + (f",{index}" if index else "")
    if stem in _GREEK:
        stem = rf"\{stem}"
    elif len(stem) > 1:
        stem = rf"\mathrm{{{stem}}}"
    indices = [rf"\{part}" if part in _GREEK else part for part in re.split("_+", index) if part]
    return f"{stem}_{{{','.join(indices)}}}" if indices else stem
