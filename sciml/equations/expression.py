"""The tree that an equation's text is read into, and the messages that point into the text.

The tree keeps the order in which its author wrote the terms. It knows nothing of unknowns, coefficients or the number
of axes: a name is a name, and `u_x` one of them, until `names` has found out what each stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from fractions import Fraction

from ..errors import InputError

# Functions of one number.
FUNCTIONS = ("abs", "cos", "exp", "log", "sin", "sqrt", "tan", "tanh")
# Operators on fields and vectors.
OPERATORS = ("diff", "div", "dot", "grad", "laplacian")
RESERVED = frozenset((*FUNCTIONS, *OPERATORS, "t", "pi", "where"))

MAX_TEXT = 10_000  # characters of one text
MAX_ROWS = 1_000  # equations of one system
MAX_NODES = 3_000  # parts of one expression
MAX_DEPTH = 60  # levels of brackets, powers and signs in each other
MAX_NAME = 64  # characters of one name
MAX_DIGITS = 60  # digits of one number
MAX_EXPONENT = 100  # size of a number as exponent
MAX_DERIVATIVES = 8  # order of a derivative along all axes together


@dataclass(frozen=True, slots=True)
class _At:
    """Where a node begins in its text; plays no part in comparisons."""

    position: int = field(default=0, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Number(_At):
    """A number, not negative, exactly as it was written."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Name(_At):
    """A field, a derivative of one by suffix, a parameter, a coordinate, t or pi."""

    name: str


@dataclass(frozen=True, slots=True)
class Negative(_At):
    operand: Node


@dataclass(frozen=True, slots=True)
class Sum(_At):
    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Product(_At):
    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Quotient(_At):
    numerator: Node
    denominator: Node


@dataclass(frozen=True, slots=True)
class Power(_At):
    base: Node
    exponent: Node


@dataclass(frozen=True, slots=True)
class Call(_At):
    """One of FUNCTIONS or OPERATORS, `diff` excepted."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Diff(_At):
    """diff(argument, variable, count)."""

    argument: Node
    variable: str
    count: int


@dataclass(frozen=True, slots=True)
class Vector(_At):
    components: tuple[Node, ...]


Node = Number | Name | Negative | Sum | Product | Quotient | Power | Call | Diff | Vector


@dataclass(frozen=True, slots=True)
class Row:
    """One equation: its text and its two sides."""

    text: str
    left: Node
    right: Node


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below one."""
    match node:
        case Number() | Name():
            return ()
        case Negative(operand):
            return (operand,)
        case Sum(parts) | Product(parts) | Vector(parts):
            return parts
        case Quotient(first, second) | Power(first, second):
            return (first, second)
        case Call(_, arguments):
            return arguments
        case Diff(argument):
            return (argument,)


def walk(node: Node) -> Iterator[Node]:
    """A node and all nodes below it, in the order of the text."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(children(current)))


def negative(node: Node) -> Node:
    """-node, without a double sign."""
    return node.operand if isinstance(node, Negative) else Negative(node, position=node.position)


def add(left: Node, right: Node) -> Node:
    """left + right as one sum; a zero on the left disappears."""
    if left == Number(Fraction(0)):
        return right
    terms = left.terms if isinstance(left, Sum) else (left,)
    return Sum((*terms, *(right.terms if isinstance(right, Sum) else (right,))), position=left.position)


def multiply(left: Node, right: Node) -> Node:
    """left*right as one product, with a sign of the left factor in front of the whole."""
    if isinstance(left, Negative):
        return Negative(multiply(left.operand, right), position=left.position)
    factors = left.factors if isinstance(left, Product) else (left,)
    return Product((*factors, *(right.factors if isinstance(right, Product) else (right,))), position=left.position)


def scale(factor: Node, node: Node) -> Node:
    """factor*node, where a factor of 1 or -1 is not written."""
    one = Number(Fraction(1))
    if factor == one:
        return node
    return negative(node) if factor == Negative(one) else multiply(factor, node)


def divide(left: Node, right: Node) -> Node:
    """left/right, with a sign of the numerator in front of the whole."""
    if isinstance(left, Negative):
        return Negative(divide(left.operand, right), position=left.position)
    return Quotient(left, right, position=left.position)


def refuse(text: str, position: int, message: str) -> InputError:
    """An error that shows the text around a position with a mark below it."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    start = max(0, position - 60)
    end = min(len(text), position + 60)
    window = ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
    mark = " " * (position - start + (3 if start else 0)) + "^"
    return InputError(f"{message} (column {position + 1})\n  {window}\n  {mark}")


def refuse_row(text: str, message: str) -> InputError:
    """An error about an equation as a whole."""
    return InputError(f"in '{text if len(text) <= 200 else text[:197] + '...'}': {message}")


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is most like a name, or None if none is at all."""
    ranked = max(
        ((SequenceMatcher(None, name.lower(), other.lower()).ratio(), other) for other in sorted(candidates)),
        default=(0.0, ""),
        key=lambda pair: pair[0],
    )
    return ranked[1] if ranked[0] >= 0.5 else None


def listed(names: Iterable[str]) -> str:
    """'a', 'b' and 'c'."""
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
