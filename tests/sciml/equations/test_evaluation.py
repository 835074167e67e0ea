"""Expressions evaluated with tensors."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from sympy import Derivative, Function, Rational, Symbol
from torch.overrides import TorchFunctionMode

from sciml.equations import evaluate, parse_expression
from sciml.equations.evaluation import evaluate_all, names
from sciml.errors import InputError

X, Y, T = sympy.symbols("x y t")
U = Function("u")(X, Y, T)
A = Function("a")(X, Y, T)


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.5


def test_names_of_derivatives() -> None:
    expression = Derivative(U, Y, X, X) * Derivative(A, T, X) + U * Symbol("nu") + X + sympy.pi
    assert names(expression) == {"u_xxy", "a_xt", "u", "nu", "x"}
    assert names(Derivative(Function("u_t")(X, T), X)) == {"u_t_x"}


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("-x + y - 2*z", lambda x, y, z: -x + y - 2 * z),
        ("x/(y*z) - 1/y**2", lambda x, y, z: x / (y * z) - 1 / y**2),
        ("(x - y)**3*z**-2", lambda x, y, z: (x - y) ** 3 / z**2),
        ("x**0.5*y**1.5/z**2.5", lambda x, y, z: torch.sqrt(x) * y**1.5 / z**2.5),
        ("x**y + 2**z + x**(y/2 - 1)", lambda x, y, z: x**y + 2**z + x ** (y / 2 - 1)),
        ("abs(x - y)*sin(pi*x)*cos(y)/tan(z)", lambda x, y, z: (x - y).abs() * (math.pi * x).sin() * y.cos() / z.tan()),
        ("exp(-x)*log(y)*sqrt(z)*tanh(x*y)", lambda x, y, z: (-x).exp() * y.log() * z.sqrt() * (x * y).tanh()),
        ("sqrt(2)*x + exp(1)*y + cos(pi/5)*z", lambda x, y, z: 2**0.5 * x + math.e * y + math.cos(math.pi / 5) * z),
        ("0.1*x", lambda x, y, z: 0.1 * x),
    ],
)
def test_functions_and_powers(text: str, function: object) -> None:
    values = {"x": tensor(50), "y": tensor(50, seed=1), "z": tensor(50, seed=2)}
    found = evaluate(parse_expression(text), values)
    torch.testing.assert_close(found, function(**values), rtol=1e-13, atol=1e-14)


def test_batch_shapes_broadcast() -> None:
    values = {"x": tensor(5, 1, 1), "y": tensor(7, 1), "z": tensor(3), "t": 2.0}
    found = evaluate(parse_expression("t*x*y*z + x"), values)
    torch.testing.assert_close(found, 2 * values["x"] * values["y"] * values["z"] + values["x"])


def test_numbers_alone_give_a_number() -> None:
    found = evaluate(parse_expression("sin(x)/y + sqrt(z)"), {"x": 1.0, "y": 4, "z": 2.0})
    assert isinstance(found, float)
    assert found == pytest.approx(math.sin(1) / 4 + math.sqrt(2), rel=1e-15)
    assert evaluate(parse_expression("1/x"), {"x": 0.0}) == math.inf
    assert math.isnan(evaluate(parse_expression("sqrt(x)"), {"x": -1.0}))


def test_dtype_stays() -> None:
    found = evaluate(parse_expression("pi*x/3 + 0.1*exp(x) - x**0.5"), {"x": torch.ones(3, dtype=torch.float32)})
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32


def test_integer_powers_of_negative_numbers_and_zero() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    m = Symbol("m")
    torch.testing.assert_close(evaluate(X**3, {"x": x}), x * x * x)
    torch.testing.assert_close(evaluate(X**m, {"x": x, "m": 2.0}), x * x)
    torch.testing.assert_close(evaluate(X ** (m - 2), {"x": x, "m": 2.0}), torch.ones_like(x))


class Calls(TorchFunctionMode):
    """Counts the calls of torch functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[getattr(function, "__name__", "")] += 1
        return function(*args, **(kwargs or {}))


def test_common_parts_are_computed_once() -> None:
    common = sympy.sin(X * Y) + 2
    expressions = (common**2 + common * X, sympy.exp(common) * sympy.sqrt(common))
    values = {"x": tensor(4), "y": tensor(4)}
    with Calls() as calls:
        first, second = evaluate_all(expressions, values)
    assert calls.counts["sin"] == 1
    torch.testing.assert_close(first, evaluate(expressions[0], values))
    torch.testing.assert_close(second, evaluate(expressions[1], values))


def test_gradients_pass_through() -> None:
    x, y = tensor(4).requires_grad_(), tensor(4, seed=1).requires_grad_()
    expression = parse_expression("x**y*sin(x)/sqrt(y) + abs(x - y)**3 + tanh(x)**2")
    function = lambda x, y: evaluate(expression, {"x": x, "y": y})  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, y))
    assert torch.autograd.gradgradcheck(function, (x, y))


@given(st.integers(-4, 4), st.integers(-7, 7))
def test_rational_powers(whole: int, halves: int) -> None:
    value = tensor(6)
    torch.testing.assert_close(
        evaluate(X**whole * Y ** Rational(halves, 2) + X, {"x": value, "y": value}) - value,
        value**whole * value ** (halves / 2),
        rtol=1e-12,
        atol=1e-14,
    )


def test_missing_values_are_named() -> None:
    with pytest.raises(InputError, match=r"no value for 'nu' \(given: 'nv'\), 'u_x'"):
        evaluate(Symbol("nu") * Derivative(U, X), {"nv": 1.0})


@pytest.mark.parametrize(
    "expression", [sympy.gamma(X), sympy.I * X, sympy.zoo, Derivative(U**2, X), sympy.Heaviside(X)]
)
def test_what_cannot_be_evaluated_is_refused(expression: sympy.Expr) -> None:
    with pytest.raises(InputError):
        evaluate(expression, {"x": 1.0, "u": 1.0})
