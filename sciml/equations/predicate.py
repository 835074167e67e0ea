"""Reads conditions on the coordinates, such as "x < 1e-6 and y > 0": they name parts of a mesh, and solid cells.

As for equations, Python's `ast` builds the syntax tree and a whitelist takes it apart: `and`, `or`, `not` and
comparisons here, and the expressions on their sides by the parser of equations. Nothing of the text is executed.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Sequence

import sympy
import torch
from torch import Tensor

from ..errors import InputError
from .components import parse_expression
from .evaluation import evaluate
from .expression import MAX_DEPTH, MAX_TEXT, refuse
from .parser import normalise

Predicate = Callable[..., Tensor]

_COMPARISONS: dict[type[ast.cmpop], Callable[..., Tensor]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_HINTS = {"&": "write 'and'", "|": "write 'or'", "~": "write 'not'", "!": "write 'not', or '<' and '>'"}
_EQUAL = "numbers are rounded, so that '=' would hold by chance: write abs(x - 1) < 1e-9"


def parse_predicate(text: str, names: Sequence[str]) -> Predicate:
    """A condition on the coordinates from its text.

    Args:
        text: comparisons (< <= > >=, also 0 < x < 1) of expressions of the coordinates, joined by `and`, `or`, `not`.
        names: of the coordinates, in the order in which the condition is called with them.

    Returns:
        A function of one tensor a coordinate -> a bool tensor of their shape. It raises InputError where an expression
        is not finite.

    Raises:
        InputError: for anything else, with its place in the text.
    """
    if len(text) > MAX_TEXT:
        raise InputError(f"the text has {len(text)} characters; at most {MAX_TEXT} are read")
    clean = re.sub(r"\s", " ", normalise(text)).strip()
    for place, character in enumerate(clean):
        if character in _HINTS or character in "#;\"'":
            raise refuse(clean, place, _HINTS.get(character, f"{character!r} is no part of a condition"))
    if not clean:
        raise InputError("a condition is missing: write for example 'x < 1e-6'")
    equal = re.search(r"(?<![<>=])=", clean)
    if equal:
        raise refuse(clean, equal.start(), _EQUAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(clean, mode="eval").body
        condition = _Reader(clean, tuple(names)).condition(tree, 0)
    except SyntaxError as error:
        place = max(0, min((error.offset or 1) - 1, len(clean) - 1))
        reason = (error.msg or "").split(". ")[0].split(" (<")[0]
        raise refuse(clean, place, f"this cannot be read ({reason})") from None
    except (MemoryError, RecursionError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the condition is too deep or too long: at most {MAX_DEPTH} levels are read") from None

    def predicate(*coordinates: Tensor) -> Tensor:
        return condition(dict(zip(names, coordinates, strict=True))).expand(coordinates[0].shape)

    return predicate


_Condition = Callable[[dict[str, Tensor]], Tensor]


class _Reader:
    """Turns the syntax tree of one text into a function."""

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.text = text
        self.encoded = text.encode()
        self.names = names

    def condition(self, tree: ast.expr, depth: int) -> _Condition:
        if depth > MAX_DEPTH:
            raise RecursionError
        match tree:
            case ast.BoolOp(op=ast.And() | ast.Or() as joint, values=parts):
                inner = [self.condition(part, depth + 1) for part in parts]
                join = torch.logical_and if isinstance(joint, ast.And) else torch.logical_or
                return lambda values: _joined(join, [part(values) for part in inner])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                negated = self.condition(operand, depth + 1)
                return lambda values: torch.logical_not(negated(values))
            case ast.Compare(left=left, ops=signs, comparators=others):
                return self.comparison([left, *others], signs)
        raise refuse(
            self.text, self.position(tree), "a comparison is needed here, as in 'x < 1e-6', or several with 'and', 'or'"
        )

    def comparison(self, trees: list[ast.expr], signs: list[ast.cmpop]) -> _Condition:
        for sign, right in zip(signs, trees[1:], strict=True):
            if type(sign) not in _COMPARISONS:
                raise refuse(self.text, self.position(right), "numbers are compared by < <= > >= only")
        sides = [self.expression(tree) for tree in trees]
        compare = [_COMPARISONS[type(sign)] for sign in signs]

        def condition(values: dict[str, Tensor]) -> Tensor:
            numbers = [_finite(*side, values) for side in sides]
            found = [sign(numbers[k], numbers[k + 1]) for k, sign in enumerate(compare)]
            return _joined(torch.logical_and, found)

        return condition

    def expression(self, tree: ast.expr) -> tuple[str, sympy.Expr]:
        piece = self.encoded[tree.col_offset : tree.end_col_offset].decode()
        return piece, parse_expression(piece, self.names)

    def position(self, tree: ast.expr) -> int:
        return len(self.encoded[: tree.col_offset].decode())


def _joined(join: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = join(total, part)
    return total


def _finite(text: str, expression: sympy.Expr, values: dict[str, Tensor]) -> Tensor:
    like = next(iter(values.values()))
    number = torch.as_tensor(evaluate(expression, values), dtype=like.dtype, device=like.device)
    if not bool(torch.isfinite(number).all()):
        raise InputError(f"{text!r} is not finite everywhere")
    return number
