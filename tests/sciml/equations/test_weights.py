"""Factors before rates, kept or divided by."""

from __future__ import annotations

import pytest
import sympy

from sciml.equations import Equation


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("c*u_t = laplacian(u)", "c"),
        ("-c*u_t = laplacian(u)", "c"),
        ("laplacian(u) = p*c*u_t", "c*p"),
        ("x*u_t = laplacian(u)", "x"),
        ("p*u_t = laplacian(u)", "1"),
        ("2*u_t = laplacian(u)", "1"),
        ("a*u_t = laplacian(u)", "1"),
        ("(1 + t)*u_t = laplacian(u)", "1"),
        ("(1 + u**2)*u_t = laplacian(u)", "1"),
    ],
)
def test_weights_vary_in_space_alone(text: str, weight: str) -> None:
    """With the field a depending on the time."""
    parameters = {"p": 3.0} if "p*" in text else {}
    equation = Equation(text, unknowns=["u"], parameters=parameters)
    kept = equation.residual_forms(2, varying=("t", "a"), divided=False)[0]
    divided = equation.residual_forms(2, varying=("t", "a"))[0]
    assert str(kept.weight) == weight
    assert divided.weight == 1
    # Both say the same of the rate.
    names = {str(symbol): sympy.Symbol(str(symbol)) for symbol in kept.weight.free_symbols}
    for one, other in zip(kept.terms, divided.terms, strict=True):
        ratio = sympy.simplify(one.coefficient / other.coefficient)
        plain = ratio.replace(lambda part: part.is_Function, lambda part: names[part.func.__name__])
        assert str(plain) == weight
