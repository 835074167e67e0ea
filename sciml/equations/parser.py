"""Reads the text of equations: Python's `ast` builds the syntax tree, a whitelist turns it into ours.

Nothing of the text is ever executed. Characters, words, sizes and kinds of syntax that the grammar does not know are
refused before and after `ast.parse`, each with its place in the text.
"""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
import warnings
from collections.abc import Sequence
from fractions import Fraction

from ..errors import InputError
from .expression import (
    FUNCTIONS,
    MAX_DEPTH,
    MAX_DERIVATIVES,
    MAX_DIGITS,
    MAX_EXPONENT,
    MAX_NAME,
    MAX_NODES,
    MAX_ROWS,
    MAX_TEXT,
    OPERATORS,
    Call,
    Diff,
    Name,
    Negative,
    Node,
    Number,
    Power,
    Row,
    Vector,
    add,
    divide,
    multiply,
    nearest,
    negative,
    refuse,
)

_WORD = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_PUNCTUATION = frozenset(" +-*/().,[]=")
_HINTS = {
    "^": "'^' is no operator here: a power is written '**'",
    '"': "an equation holds no strings",
    "'": "an equation holds no strings; a derivative is written 'u_x' or diff(u, x)",
    "<": "comparisons are no part of the grammar",
    ">": "comparisons are no part of the grammar",
    "%": "'%' is no operator here: there are + - * / **",
    "@": "'@' is no operator here: the product of vectors is dot(p, q)",
    "{": "'{' is no bracket here: use ( ), and [p, q] for a vector",
    "}": "'}' is no bracket here: use ( ), and [p, q] for a vector",
}
_OTHER_WORDS = {
    "arctan": "",
    "curl": "",
    "d": "diff",
    "delta": "laplacian",
    "derivative": "diff",
    "divergence": "div",
    "fabs": "abs",
    "gradient": "grad",
    "lap": "laplacian",
    "laplace": "laplacian",
    "ln": "log",
    "nabla": "grad",
    "pow": "",
}
# Kinds of a value: one number, a vector with one component an axis, or n for a vector of n components.
_ONE_NUMBER = 0
_ANY_VECTOR = -1


def read_rows(texts: str | Sequence[str], coordinates: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """The equations of a text or of a list of texts, and the constraints that follow the word `where`.

    Args:
        texts: `L = R`; several are separated by ';' or are items of a list.
        coordinates: letters of the space coordinates.

    Raises:
        InputError: for anything outside the grammar, with its place in the text.
    """
    rows: list[Row] = []
    constraints: list[Row] = []
    for text in [texts] if isinstance(texts, str) else texts:
        clean = _clean(text)
        parts = re.split(r"\bwhere\b", clean)
        if len(parts) > 2:
            raise refuse(clean, clean.rindex("where"), "'where' stands once, between the equations and the constraints")
        if len(parts) == 2 and not parts[1].strip(" ;"):
            raise refuse(clean, clean.index("where"), "no constraint follows the word 'where'")
        for part, target in zip(parts, (rows, constraints), strict=False):
            target.extend(_read_row(piece.strip(), coordinates) for piece in part.split(";") if piece.strip())
    if len(rows) + len(constraints) > MAX_ROWS:
        raise InputError(f"{len(rows) + len(constraints)} equations; at most {MAX_ROWS} are read")
    if not rows:
        raise InputError("there is no equation in the text: write for example 'u_t = u_xx'")
    return rows, constraints


def read_expression(text: str, coordinates: Sequence[str] = ()) -> Node:
    """One expression whose value is a number; a text with '=' is refused.

    Raises:
        InputError: for anything outside the grammar, with its place in the text.
    """
    clean = _clean(text)
    if "=" in clean:
        raise refuse(clean, clean.index("="), "an expression was expected, without '='")
    return _Reader(clean, coordinates).side(0, len(clean))


def normalise(name: str) -> str:
    """A name as Python's parser would read it: the two signs for mu are one letter."""
    return unicodedata.normalize("NFKC", name)


def _clean(text: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"an equation is a text such as 'u_t = u_xx', not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InputError(f"the text has {len(text)} characters; at most {MAX_TEXT} are read")
    return re.sub(r"\s", " ", normalise(text))


def _read_row(text: str, coordinates: Sequence[str]) -> Row:
    signs = [match.start() for match in re.finditer("=", text)]
    if not signs:
        raise refuse(text, 0, "an equation needs one '='; for 'expression = 0' write '= 0'")
    if len(signs) > 1 and signs[1] == signs[0] + 1:
        raise refuse(text, signs[0], "an equation is written with a single '='")
    if len(signs) > 1:
        raise refuse(text, signs[1], "an equation has one '='; several equations are a list of texts")
    reader = _Reader(text, coordinates)
    return Row(text, reader.side(0, signs[0]), reader.side(signs[0] + 1, len(text)))


class _Reader:
    """Reads parts of one text."""

    def __init__(self, text: str, coordinates: Sequence[str]) -> None:
        self.text = text
        self.coordinates = tuple(coordinates)
        self.start = 0
        self.piece = ""
        self.encoded = b""

    def side(self, start: int, end: int) -> Node:
        piece = self.text[start:end]
        self.start = start + len(piece) - len(piece.lstrip())
        self.piece = piece.strip()
        self.encoded = self.piece.encode()
        if not self.piece:
            raise refuse(self.text, max(start - 1, 0), "an expression is missing here")
        self._check_characters()
        self._check_words()
        tree = self._syntax_tree()
        if sum(1 for _ in ast.walk(tree)) > 2 * MAX_NODES:
            raise InputError(f"the expression has more than {MAX_NODES} parts")
        node, kind = self.node(tree, 0)
        if kind != _ONE_NUMBER:
            raise refuse(self.text, self.start, "one number was expected here, not a vector: write div(...) or dot(..)")
        return node

    def error(self, tree: ast.AST, message: str) -> InputError:
        return refuse(self.text, self.position(tree), message)

    def position(self, tree: ast.AST) -> int:
        column = getattr(tree, "col_offset", 0)
        if len(self.encoded) == len(self.piece):
            return self.start + column
        return self.start + len(self.encoded[:column].decode())  # ast counts bytes

    def _check_characters(self) -> None:
        for place, character in enumerate(self.piece):
            if character not in _PUNCTUATION and not f"a{character}".isidentifier():
                message = _HINTS.get(character, f"the character {character!r} is no part of the grammar")
                raise refuse(self.text, self.start + place, message)

    def _check_words(self) -> None:
        for match in _WORD.finditer(self.piece):
            word, place = match.group(), match.start()
            number = place and self.piece[place - 1].isdigit()
            if number and not re.fullmatch(r"[eE]\d*", word):
                raise refuse(self.text, self.start + place, f"a product needs '*': write '*{word}'")
            if keyword.iskeyword(word):
                message = f"'{word}' is a word of Python: a field or parameter may be called '{word}_'"
                raise refuse(self.text, self.start + place, message)
            if word.startswith("_"):
                raise refuse(self.text, self.start + place, f"'{word}': a name begins with a letter")
            if len(word) > MAX_NAME:
                raise refuse(self.text, self.start + place, f"a name has at most {MAX_NAME} characters")

    def _syntax_tree(self) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self.piece, mode="eval").body
        except SyntaxError as error:
            place = self.start + max(0, min((error.offset or 1) - 1, len(self.piece) - 1))
            message = (error.msg or "").split(". ")[0].split(" (<")[0]
            raise refuse(
                self.text, place, f"this cannot be read ({message}); a product needs '*', and brackets must match"
            ) from None
        except (MemoryError, RecursionError, ValueError, OverflowError):
            raise self._too_deep() from None

    def _too_deep(self) -> InputError:
        return InputError(f"the expression is too deep or too long: at most {MAX_DEPTH} levels are read")

    def node(self, tree: ast.expr, depth: int) -> tuple[Node, int]:
        if depth > MAX_DEPTH:
            raise self._too_deep()
        at = self.position(tree)
        match tree:
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
                return self._chain(tree, depth)
            case ast.BinOp(op=ast.Pow()):
                return self._power(tree, depth), _ONE_NUMBER
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner, kind = self.node(operand, depth + 1)
                return (inner.operand if isinstance(inner, Negative) else Negative(inner, position=at)), kind
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.node(operand, depth + 1)
            case ast.Call():
                return self._call(tree, depth)
            case ast.Name(id=name):
                if name in FUNCTIONS or name in OPERATORS:
                    raise self.error(tree, f"'{name}' is a function: write {name}(...)")
                return Name(name, position=at), _ONE_NUMBER
            case ast.Constant():
                return self._number(tree), _ONE_NUMBER
            case ast.List(elts=items):
                if not 1 <= len(items) <= 3:
                    raise self.error(tree, f"a vector has one to three components, not {len(items)}")
                return Vector(tuple(self._scalar(item, depth) for item in items), position=at), len(items)
        raise self.error(tree, _refusal(tree))

    def _scalar(self, tree: ast.expr, depth: int) -> Node:
        node, kind = self.node(tree, depth + 1)
        if kind != _ONE_NUMBER:
            raise self.error(tree, "one number was expected here, not a vector")
        return node

    def _vector(self, tree: ast.expr, depth: int, function: str) -> tuple[Node, int]:
        node, kind = self.node(tree, depth + 1)
        if kind == _ONE_NUMBER:
            raise self.error(tree, f"{function} takes a vector: grad(u), or [p, q] with one component an axis")
        return node, kind

    def _chain(self, tree: ast.expr, depth: int) -> tuple[Node, int]:
        """A chain a + b - c or a*b/c, whose tree leans to the left, without a call per link."""
        links: list[ast.BinOp] = []
        while isinstance(tree, ast.BinOp) and not isinstance(tree.op, ast.Pow | ast.FloorDiv):
            links.append(tree)
            tree = tree.left
        node, kind = self.node(tree, depth + 1)
        for link in reversed(links):
            other, other_kind = self.node(link.right, depth + 1)
            match link.op:
                case ast.Add() | ast.Sub():
                    kind = self._same_kind(link, kind, other_kind)
                    node = add(node, other if isinstance(link.op, ast.Add) else negative(other))
                case ast.Mult():
                    if kind != _ONE_NUMBER and other_kind != _ONE_NUMBER:
                        raise self.error(link.right, "two vectors cannot be multiplied: write dot(p, q)")
                    kind = other_kind if kind == _ONE_NUMBER else kind
                    node = multiply(node, other)
                case _:
                    if other_kind != _ONE_NUMBER:
                        raise self.error(link.right, "nothing can be divided by a vector")
                    if other == Number(Fraction(0)):
                        raise self.error(link.right, "division by zero")
                    node = divide(node, other)
        return node, kind

    def _same_kind(self, link: ast.BinOp, left: int, right: int) -> int:
        if (left == _ONE_NUMBER) != (right == _ONE_NUMBER):
            raise self.error(link.right, "a number and a vector cannot be added")
        return self._same_length(link.right, left, right)

    def _same_length(self, tree: ast.expr, left: int, right: int) -> int:
        if left > 0 and right > 0 and left != right:
            raise self.error(tree, f"vectors of {left} and {right} components do not go together")
        return max(left, right)

    def _power(self, tree: ast.BinOp, depth: int) -> Node:
        base = self._scalar(tree.left, depth)
        exponent = self._scalar(tree.right, depth)
        number = exponent.operand if isinstance(exponent, Negative) else exponent
        if isinstance(number, Number) and number.value > MAX_EXPONENT:
            raise self.error(tree.right, f"an exponent has at most the size {MAX_EXPONENT}")
        return Power(base, exponent, position=self.position(tree))

    def _number(self, tree: ast.Constant) -> Node:
        if not isinstance(tree.value, int | float):
            raise self.error(tree, "a real number was expected here")
        literal = self.encoded[tree.col_offset : tree.end_col_offset].decode()
        if not _NUMBER.fullmatch(literal):
            raise self.error(tree, f"'{literal}' is no decimal number")
        value = float(literal)
        if len(literal) > MAX_DIGITS or value == float("inf") or (value == 0 and re.match("[0.]*[1-9]", literal)):
            raise self.error(tree, "this number is too large, too small or too long")
        return Number(Fraction(literal), position=self.position(tree))

    def _call(self, tree: ast.Call, depth: int) -> tuple[Node, int]:
        if not isinstance(tree.func, ast.Name):
            raise self.error(tree, "only functions can be called; a product needs '*'")
        function, count = tree.func.id, len(tree.args)
        if function not in FUNCTIONS and function not in OPERATORS:
            raise self.error(tree, _unknown_function(function))
        if tree.keywords or any(isinstance(item, ast.Starred) for item in tree.args):
            raise self.error(tree, f"{function} takes plain arguments")
        if function == "diff":
            return self._diff(tree, depth), _ONE_NUMBER
        wanted = 2 if function == "dot" else 1
        if count != wanted:
            raise self.error(tree, f"{function} takes {wanted} argument{'s' * (wanted > 1)}, not {count}")
        if function in OPERATORS and function != "dot" and not self.coordinates:
            raise self.error(tree, f"{function} needs space coordinates, and this equation has coordinates=()")
        at = self.position(tree)
        if function == "dot":
            first, first_kind = self._vector(tree.args[0], depth, function)
            second, second_kind = self._vector(tree.args[1], depth, function)
            self._same_length(tree.args[1], first_kind, second_kind)
            return Call(function, (first, second), position=at), _ONE_NUMBER
        if function == "div":
            return Call(function, (self._vector(tree.args[0], depth, function)[0],), position=at), _ONE_NUMBER
        kind = _ANY_VECTOR if function == "grad" else _ONE_NUMBER
        return Call(function, (self._scalar(tree.args[0], depth),), position=at), kind

    def _diff(self, tree: ast.Call, depth: int) -> Node:
        if len(tree.args) not in (2, 3):
            raise self.error(tree, "diff takes 2 or 3 arguments: diff(u, x) or diff(u, x, 2)")
        variables = (*self.coordinates, "t")
        variable = tree.args[1]
        if not isinstance(variable, ast.Name) or variable.id not in variables:
            raise self.error(variable, f"diff takes the derivative along one of {', '.join(variables)}")
        count = 1
        if len(tree.args) == 3:
            order = tree.args[2]
            if not isinstance(order, ast.Constant) or type(order.value) is not int:
                raise self.error(order, "the order of a derivative is a whole number")
            count = order.value
            if not 1 <= count <= MAX_DERIVATIVES:
                raise self.error(order, f"the order of a derivative is 1 to {MAX_DERIVATIVES}")
        return Diff(self._scalar(tree.args[0], depth), variable.id, count, position=self.position(tree))


def _unknown_function(name: str) -> str:
    known = (*FUNCTIONS, *OPERATORS)
    suggestion = _OTHER_WORDS.get(name.lower(), nearest(name, known))
    if suggestion:
        return f"unknown function '{name}': did you mean '{suggestion}'?"
    return (
        f"unknown function '{name}': there are {', '.join(sorted(known))}; "
        f"a field is written without arguments, and a product needs '*'"
    )


def _refusal(tree: ast.expr) -> str:
    match tree:
        case ast.Attribute(attr=attribute):
            return f"'.{attribute}' is no part of the grammar: there are no attributes"
        case ast.Subscript():
            return "there is no indexing; a product needs '*', a vector is [p, q]"
        case ast.Tuple():
            return "a vector is written with square brackets: [p, q]"
        case ast.BinOp(op=ast.FloorDiv()):
            return "'//' is no operator here: division is '/'"
    return f"{type(tree).__name__} is no part of the grammar"
