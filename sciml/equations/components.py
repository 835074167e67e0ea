"""Component form: an equation written out for a number of axes, with sympy.

A field and each of its derivatives is one sympy symbol here (`u`, `u_x`, `u_xy`), which makes products, coefficients
and total derivatives cheap. `publish` turns these symbols into functions and `sympy.Derivative`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import sympy

from ..errors import InputError
from .expression import (
    FUNCTIONS,
    MAX_DERIVATIVES,
    MAX_EXPONENT,
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
    refuse,
    refuse_row,
    walk,
)
from .names import Names, check_names
from .parser import normalise, read_expression

MAX_SIZE = 8_000  # parts of an expression after differentiation
MAX_BITS = 1_000  # length of a number; a float holds 1024

_TOO_LARGE = "this is too large or too small a number"

_FUNCTIONS = {
    "abs": sympy.Abs,
    "cos": sympy.cos,
    "exp": sympy.exp,
    "log": sympy.log,
    "sin": sympy.sin,
    "sqrt": sympy.sqrt,
    "tan": sympy.tan,
    "tanh": sympy.tanh,
}
_SLOPES = {
    sympy.Abs: sympy.sign,
    sympy.cos: lambda argument: -sympy.sin(argument),
    sympy.exp: sympy.exp,
    sympy.log: lambda argument: 1 / argument,
    sympy.sin: sympy.cos,
    sympy.tan: lambda argument: 1 + sympy.tan(argument) ** 2,
    sympy.tanh: lambda argument: 1 - sympy.tanh(argument) ** 2,
}


@dataclass(frozen=True)
class Jet:
    """A field's derivative: how often along each axis, and how often in time."""

    field: str
    order: tuple[int, ...]
    time: int


@dataclass(frozen=True)
class Flux:
    """d(inner)/dx_axis, kept together."""

    axis: int
    inner: sympy.Expr


class Components:
    """Writes expressions out for `dimension` axes.

    Args:
        names: what the names stand for.
        dimension: number of axes.
        pad: whether a vector of fewer components than axes is filled up with zeros, rather than refused.
    """

    def __init__(self, names: Names, dimension: int, *, pad: bool = False) -> None:
        self.names = names
        self.dimension = dimension
        self.letters = names.coordinates[:dimension]
        self.pad = pad
        self.jets: dict[sympy.Symbol, Jet] = {}
        self.fluxes: dict[sympy.Symbol, Flux] = {}
        self._coordinates = [sympy.Symbol(letter, real=True) for letter in (*self.letters, "t")]
        self._derivatives: dict[tuple[sympy.Expr, int], sympy.Expr] = {}
        self._text = ""

    def difference(self, row: Row, *, flux: bool = False) -> sympy.Expr:
        """Left side minus right side. With `flux`, a divergence that stands in the sum or is multiplied by a factor
        appears as symbols, one an axis, that `fluxes` explains."""
        self._text = row.text
        return self.number(row.left, flux) - self.number(row.right, flux)

    def expression(self, node: Node, text: str) -> sympy.Expr:
        """One expression."""
        self._text = text
        return self.number(node, False)

    def expand_fluxes(self, expression: sympy.Expr) -> sympy.Expr:
        """The expression with the derivatives of all its fluxes carried out."""
        found = {symbol: self.fluxes[symbol] for symbol in expression.free_symbols if symbol in self.fluxes}
        return expression.xreplace({key: self.derive(flux.inner, flux.axis) for key, flux in found.items()})

    def symbols_in(self, expression: sympy.Expr) -> set[sympy.Symbol]:
        """The symbols of an expression and of its fluxes."""
        symbols = set(expression.free_symbols)
        for symbol in expression.free_symbols & self.fluxes.keys():
            symbols |= self.fluxes[symbol].inner.free_symbols
        return symbols

    def jets_in(self, expression: sympy.Expr) -> list[tuple[sympy.Symbol, Jet]]:
        """The fields and derivatives in an expression and in its fluxes, by name."""
        found = self.symbols_in(expression) & self.jets.keys()
        return [(symbol, self.jets[symbol]) for symbol in sorted(found, key=str)]

    def has_flux(self, expression: sympy.Expr) -> bool:
        return not expression.free_symbols.isdisjoint(self.fluxes)

    def publish(self, expression: sympy.Expr, time_orders: dict[str, int]) -> sympy.Expr:
        """The expression with functions of the coordinates and t, and sympy derivatives, in place of the symbols.

        Args:
            expression: an expression in the symbols of this object.
            time_orders: order in time of every unknown: of an unknown of second order, the rate `u_t` is a function.
        """
        arguments = tuple(sympy.Symbol(letter) for letter in (*self.letters, "t"))
        replacements: dict[sympy.Symbol, sympy.Expr] = {}
        for symbol in expression.free_symbols:
            jet = self.jets.get(symbol)
            if jet is None:
                replacements[symbol] = sympy.Symbol(symbol.name)
                continue
            name, time = reduced(jet, time_orders)
            counts = [(argument, n) for argument, n in zip(arguments, (*jet.order, time), strict=True) if n]
            function = sympy.Function(name)(*arguments)
            replacements[symbol] = sympy.Derivative(function, *counts) if counts else function
        return expression.xreplace(replacements)

    def number(self, node: Node, flux: bool) -> sympy.Expr:
        match node:
            case Number(value):
                return sympy.Rational(value.numerator, value.denominator)
            case Name(name):
                return self._name(name)
            case Negative(operand):
                return -self.number(operand, flux)
            case Sum(terms):
                return sympy.Add(*(self.number(term, flux) for term in terms))
            case Product(factors):
                return self._bounded(sympy.Mul(*(self.number(factor, flux) for factor in factors)), node)
            case Quotient(numerator, denominator):
                below = self.number(denominator, False)
                if below == 0:
                    raise refuse(self._text, denominator.position, "division by zero")
                return self._real(self.number(numerator, flux) / below, node)
            case Power(base, exponent):
                return self._power(node, self.number(base, False), self.number(exponent, False))
            case Call("dot", (first, second)):
                return sympy.Add(*(p * q for p, q in zip(self.vector(first), self.vector(second), strict=True)))
            case Call("div", (vector,)):
                return sympy.Add(*(self._flux(inner, axis, flux) for axis, inner in enumerate(self.vector(vector))))
            case Call("laplacian", (argument,)):
                inner = self.number(argument, False)
                return sympy.Add(*(self._repeated(inner, axis, 2) for axis in range(self.dimension)))
            case Call(function, (argument,)):
                return self._real(_FUNCTIONS[function](self.number(argument, False)), node)
            case Diff(argument, variable, count):
                axis = (*self.letters, "t").index(variable)
                inner = self._repeated(self.number(argument, False), axis, count - 1)
                return self._flux(inner, axis, flux and variable != "t" and inner not in self.jets)
        raise InputError("one number was expected here, not a vector")

    def vector(self, node: Node) -> list[sympy.Expr]:
        match node:
            case Call("grad", (argument,)):
                inner = self.number(argument, False)
                return [self._repeated(inner, axis, 1) for axis in range(self.dimension)]
            case Vector(components):
                if len(components) != self.dimension and not (self.pad and len(components) < self.dimension):
                    message = f"a vector of {len(components)} components in {self.dimension} dimensions"
                    raise refuse(self._text, node.position, message)
                missing = self.dimension - len(components)
                return [self.number(item, False) for item in components] + [sympy.Integer(0)] * missing
            case Negative(operand):
                return [-item for item in self.vector(operand)]
            case Sum(terms):
                return [sympy.Add(*items) for items in zip(*(self.vector(term) for term in terms), strict=True)]
            case Product(factors):
                vector = next(factor for factor in factors if _is_vector(factor))
                scale = sympy.Mul(*(self.number(factor, False) for factor in factors if factor is not vector))
                return [scale * item for item in self.vector(vector)]
            case Quotient(numerator, denominator):
                below = self.number(denominator, False)
                if below == 0:
                    raise refuse(self._text, denominator.position, "division by zero")
                return [item / below for item in self.vector(numerator)]
        raise InputError("a vector was expected here")

    def derive(self, expression: sympy.Expr, axis: int) -> sympy.Expr:
        """Total derivative along an axis (`dimension` is time): the fields depend on it."""
        if expression.is_Symbol:
            return self._derive_symbol(expression, axis)
        if expression.is_number:
            return sympy.Integer(0)
        key = (expression, axis)
        if key not in self._derivatives:
            self._derivatives[key] = self._derive_compound(expression, axis)
        return self._derivatives[key]

    def _derive_symbol(self, symbol: sympy.Symbol, axis: int) -> sympy.Expr:
        jet = self.jets.get(symbol)
        if jet is None:
            return sympy.Integer(int(symbol == self._coordinates[axis]))
        order = list(jet.order)
        if axis == self.dimension:
            return self.jet(jet.field, jet.order, jet.time + 1)
        order[axis] += 1
        return self.jet(jet.field, tuple(order), jet.time)

    def _derive_compound(self, expression: sympy.Expr, axis: int) -> sympy.Expr:
        slope = chain_rule(expression, lambda part: self.derive(part, axis))
        if slope is None:
            raise refuse_row(self._text, "abs(...) is differentiated twice here, which has no value at its kink")
        return slope

    def jet(self, field: str, order: tuple[int, ...], time: int) -> sympy.Symbol:
        """The symbol of a field's derivative."""
        if sum(order) + time > MAX_DERIVATIVES:
            raise refuse_row(self._text, f"a derivative of '{field}' has an order above {MAX_DERIVATIVES}")
        name = spell(field, self.letters, order, time)
        if any((*order, time)) and (self.names.is_field(name) or name in self.names.parameters):
            raise InputError(
                f"'{name}' is a declared name, and the equation also holds the derivative of '{field}' that is "
                "written so; rename one of them"
            )
        symbol = sympy.Symbol(name, real=True)
        self.jets[symbol] = Jet(field, order, time)
        return symbol

    def _name(self, name: str) -> sympy.Expr:
        if name == "pi":
            return sympy.pi
        split = self.names.derivative(name)
        if split is None and not self.names.is_field(name):
            return sympy.Symbol(name, real=True)
        field, letters = split or (name, "")
        return self.jet(field, tuple(letters.count(letter) for letter in self.letters), letters.count("t"))

    def _repeated(self, expression: sympy.Expr, axis: int, count: int) -> sympy.Expr:
        for _ in range(count):
            expression = self.derive(expression, axis)
            self._check_size(expression)
        return expression

    def _flux(self, inner: sympy.Expr, axis: int, keep: bool) -> sympy.Expr:
        if not keep or all(jet.field not in self.names.solved for _, jet in self.jets_in(inner)):
            return self._repeated(inner, axis, 1)
        symbol = sympy.Dummy(f"flux{len(self.fluxes)}", real=True)
        self.fluxes[symbol] = Flux(axis, inner)
        return symbol

    def _power(self, node: Power, base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
        if exponent.is_Rational:
            if abs(exponent) > MAX_EXPONENT:
                raise refuse(self._text, node.position, f"an exponent has at most the size {MAX_EXPONENT}")
            if base == 0 and exponent < 0:
                raise refuse(self._text, node.position, "division by zero")
            if base.is_Rational and abs(exponent) * max(base.p.bit_length(), base.q.bit_length()) > MAX_BITS:
                raise refuse(self._text, node.position, _TOO_LARGE)
        return self._real(base**exponent, node)

    def _real(self, expression: sympy.Expr, node: Node) -> sympy.Expr:
        if expression.has(sympy.zoo, sympy.nan, sympy.oo, sympy.I) or (
            expression.is_number and expression.is_real is False
        ):
            raise refuse(self._text, node.position, "this has no real value")
        return self._bounded(expression, node)

    def _bounded(self, expression: sympy.Expr, node: Node) -> sympy.Expr:
        number, _ = expression.as_coeff_Mul()
        if number.is_Rational and max(number.p.bit_length(), number.q.bit_length()) > MAX_BITS:
            raise refuse(self._text, node.position, _TOO_LARGE)
        return expression

    def _check_size(self, expression: sympy.Expr) -> None:
        if sum(1 for _ in islice(sympy.preorder_traversal(expression), MAX_SIZE + 1)) > MAX_SIZE:
            raise refuse_row(self._text, f"written out, the equation has more than {MAX_SIZE} parts")


def chain_rule(expression: sympy.Expr, slope: Callable[[sympy.Expr], sympy.Expr]) -> sympy.Expr | None:
    """The derivative of a sum, product, power or function, given that of its parts; None of a function without one.

    Written here because sympy's `diff` turns u**m into m*u**m/u, which is 0/0 where u vanishes.
    """
    if expression.is_Add:
        return sympy.Add(*(slope(term) for term in expression.args))
    if expression.is_Mul:
        factors = expression.args
        slopes = [slope(factor) for factor in factors]
        return sympy.Add(
            *(
                sympy.Mul(*factors[:place], part, *factors[place + 1 :])
                for place, part in enumerate(slopes)
                if part != 0
            )
        )
    if expression.is_Pow:
        base, exponent = expression.args
        total = exponent * base ** (exponent - 1) * slope(base)
        growth = slope(exponent)
        return total + (expression * sympy.log(base) * growth if growth != 0 else 0)
    if expression.func not in _SLOPES:
        return None
    argument = expression.args[0]
    return _SLOPES[expression.func](argument) * slope(argument)


def spell(field: str, letters: tuple[str, ...], order: tuple[int, ...], time: int) -> str:
    """("u", ("x", "y"), (2, 1), 0) -> "u_xxy"."""
    suffix = "".join(letter * count for letter, count in zip(letters, order, strict=True)) + "t" * time
    return f"{field}_{suffix}" if suffix else field


def reduced(jet: Jet, time_orders: dict[str, int]) -> tuple[str, int]:
    """The function that a time derivative belongs to in a system of first order, and the derivatives left over."""
    if jet.time and jet.field in time_orders:
        return f"{jet.field}_{'t' * jet.time}", 0
    return jet.field, jet.time


def _is_vector(node: Node) -> bool:
    match node:
        case Call("grad") | Vector():
            return True
        case Negative(part) | Quotient(part):
            return _is_vector(part)
        case Sum(parts) | Product(parts):
            return any(_is_vector(part) for part in parts)
    return False


def parse_expression(text: str, names: Iterable[str] = ("x", "y", "z", "t")) -> sympy.Expr:
    """A function of the coordinates, such as an initial field or a boundary value, from its text.

    Args:
        text: numbers, the given names, pi, + - * / ** and the functions of the grammar.
        names: the names that may stand in it.

    Returns:
        A sympy expression in plain symbols, for `evaluation.evaluate`.

    Raises:
        InputError: for anything else, with its place in the text.
    """
    node = read_expression(text, ("x",))
    text = normalise(text)
    for part in walk(node):
        if isinstance(part, Diff | Vector) or (isinstance(part, Call) and part.function not in FUNCTIONS):
            raise refuse(text, part.position, "derivatives and vectors do not stand in an expression of coordinates")
    check_names(node, text, names)
    components = Components(Names((), (), (), tuple(names), ()), 0)
    return components.publish(components.expression(node, text), {})
