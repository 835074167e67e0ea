"""Conditions on the coordinates mean what they say, and nothing else is read as one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sciml import InputError
from sciml.equations import parse_predicate

X, Y = (c.flatten() for c in torch.meshgrid(*[torch.linspace(-1.0, 2.0, 13, dtype=torch.float64)] * 2, indexing="ij"))

Pair = tuple[str, Callable[[Tensor, Tensor], Any]]
SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

SIDES: st.SearchStrategy[Pair] = st.sampled_from(
    [
        ("x", lambda x, y: x),
        ("y", lambda x, y: y),
        ("0.5", lambda x, y: 0.5),
        ("-1e-1", lambda x, y: -0.1),
        ("(x + 1)*y", lambda x, y: (x + 1) * y),
        ("abs(x - y)", lambda x, y: (x - y).abs()),
        ("x**2 + y**2", lambda x, y: x**2 + y**2),
    ]
)


@st.composite
def comparisons(draw: st.DrawFn) -> Pair:
    text, value = draw(SIDES)
    parts: list[Callable[[Tensor, Tensor], Any]] = []
    for _ in range(draw(st.integers(1, 2))):
        sign, (other_text, other) = draw(st.sampled_from(sorted(SIGNS))), draw(SIDES)
        text = f"{text} {sign} {other_text}"
        parts.append(
            lambda x, y, sign=sign, left=value, right=other: SIGNS[sign](torch.as_tensor(left(x, y)), right(x, y))
        )
        value = other
    return text, lambda x, y: torch.stack([part(x, y).expand(x.shape) for part in parts]).all(0)


def joined(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def both(pair: tuple[Pair, Pair]) -> Pair:
        (a, f), (b, g) = pair
        return f"({a}) and ({b})", lambda x, y: f(x, y) & g(x, y)

    def either(pair: tuple[Pair, Pair]) -> Pair:
        (a, f), (b, g) = pair
        return f"({a}) or ({b})", lambda x, y: f(x, y) | g(x, y)

    def negated(pair: Pair) -> Pair:
        return f"not ({pair[0]})", lambda x, y: ~pair[1](x, y)

    pairs = st.tuples(inner, inner)
    return pairs.map(both) | pairs.map(either) | inner.map(negated)


@given(pair=st.recursive(comparisons(), joined, max_leaves=6))
def test_a_condition_means_what_it_says(pair: Pair) -> None:
    text, wanted = pair
    assert torch.equal(parse_predicate(text, ("x", "y"))(X, Y), wanted(X, Y)), text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x < 0 or y < 0 and x > 1", (X < 0) | ((Y < 0) & (X > 1))),  # `and` binds closer
        ("not x < 0 and y < 0", ~(X < 0) & (Y < 0)),
        ("0 < x\n <= 1", (X > 0) & (X <= 1)),
        ("1 < 2", torch.ones_like(X, dtype=torch.bool)),
    ],
)
def test_precedence_is_that_of_python(text: str, wanted: Tensor) -> None:
    assert torch.equal(parse_predicate(text, ("x", "y"))(X, Y), wanted)


def test_the_shape_is_that_of_the_coordinates() -> None:
    places = torch.rand(5, 3, 2)
    answer = parse_predicate("x < 0.5 and 1 < 2", ("x", "y"))(*places.unbind(-1))
    assert torch.equal(answer, places[..., 0] < 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a condition is missing"),
        ("x", "a comparison is needed here, as in 'x < 1e-6'.*column 1"),
        ("x < 1 and y", "a comparison is needed here.*column 11"),
        ("x < 1 if x else y", "a comparison is needed here"),
        ("lambda: x < 1", "a comparison is needed here"),
        ("x < ", "this cannot be read"),
        ("(x < 1", "this cannot be read"),
        ("x = 1", r"numbers are rounded, .* write abs\(x - 1\) < 1e-9"),
        ("x == 1", "numbers are rounded"),
        ("x != 1", "write 'not'"),
        ("x in y", "numbers are compared by < <= > >= only"),
        ("x < 1 & y < 1", "write 'and'"),
        ("x < 1 | y < 1", "write 'or'"),
        ("x < z", "unknown name 'z'"),
        ("x < u_x", "unknown name 'u_x'"),
        ("(x < 1) < 2", "comparisons are no part of the grammar"),
        ("x < (y := 1)", "numbers are rounded|no part"),
        ("x.real < 1", "there are no attributes"),
        ("open('secret') < 1", "is no part of a condition"),
        ("open(x) < 1", "unknown function 'open'"),
        ("x < 1 # for ever", "'#' is no part"),
        ("x < 10**999", "an exponent has at most"),
        ("not " * 100 + "x < 1", "too deep or too long"),
        ("x < 1 or " * 2000 + "x < 1", "at most 10000 are read"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_predicate(text, ("x", "y"))


def test_what_is_not_finite_is_neither_true_nor_false() -> None:
    predicate = parse_predicate("log(x) < 1", ("x", "y"))
    with pytest.raises(InputError, match=r"'log\(x\)' is not finite everywhere"):
        predicate(X, Y)


WORDS = [
    "x",
    "y",
    "1",
    "<",
    ">",
    "=",
    " and ",
    " or ",
    " not ",
    "(",
    ")",
    "+",
    "**",
    "[",
    "]",
    ",",
    "lambda ",
    ":",
    "\0",
]


@given(text=st.text(max_size=30) | st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        answer = parse_predicate(text, ("x", "y"))(X, Y)
    except InputError:
        return
    assert answer.dtype == torch.bool
    assert answer.shape == X.shape
