"""Linear terms, fluxes, sources and the nonlinear rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import sympy
import torch
from sympy import Derivative, Function, Symbol, symbols

from sciml.equations import Equation, Form, Term, catalogue
from sciml.equations.evaluation import evaluate, names
from sciml.errors import InputError

ENTRIES = [catalogue.get(name) for name in catalogue.names()]
X, Y, T = symbols("x y t")


def field(name: str, dimension: int = 2) -> Any:
    return Function(name)(*symbols("x y z")[:dimension], T)


def only(equation: Equation, dimension: int) -> Form:
    (form,) = equation.forms(dimension)
    return form


def test_laplacian_is_plain_and_divergence_keeps_its_fluxes() -> None:
    plain = only(Equation("-laplacian(u) = f"), 2)
    assert plain == Form(
        None,
        (Term(-1, "u", (2, 0)), Term(-1, "u", (0, 2)), Term(-field("f"), None, (0, 0))),
        sympy.Integer(0),
    )
    flux = only(Equation("-div(a*grad(u)) = f"), 2)
    a = field("a")
    assert flux.terms[:2] == (Term(-1, "u", (1, 0), 0, a), Term(-1, "u", (0, 1), 1, a))
    assert only(Equation("div(grad(u)) = f"), 3).terms[2] == Term(1, "u", (0, 0, 1), 2, 1)


def test_conservative_advection() -> None:
    form = only(Equation("u_t = -div([b1*u, b2*u])"), 2)
    assert form.terms == (Term(-1, "u", (0, 0), 0, field("b1")), Term(-1, "u", (0, 0), 1, field("b2")))
    assert form.unknown_t == "u"


def test_diff_of_a_product_is_a_flux_and_of_a_field_is_not() -> None:
    form = only(Equation("-diff(a*diff(u, x), x) + diff(u, x, 2) = 0"), 1)
    assert form.terms == (Term(1, "u", (2,)), Term(-1, "u", (1,), 0, field("a", 1)))


def test_a_flux_with_sources_and_nonlinear_parts_is_split() -> None:
    form = only(Equation("u_t = c*div([a*u_x + g + u**2, 3*u_y])"), 2)
    c, a, u = field("c"), field("a"), field("u")
    assert form.terms == (
        Term(c, "u", (1, 0), 0, a),
        Term(c, "u", (0, 1), 1, sympy.Integer(3)),
        Term(c * Derivative(field("g"), X), None, (0, 0)),
    )
    assert sympy.expand(form.remainder - 2 * c * u * Derivative(u, X)) == 0


def test_a_divergence_in_a_nonlinear_term_is_written_out() -> None:
    form = only(Equation("u_t = u*div(a*grad(u)) + u_xx"), 1)
    u, a = field("u", 1), field("a", 1)
    assert form.terms == (Term(1, "u", (2,)),)
    expected = u * a * Derivative(u, (X, 2)) + u * Derivative(a, X) * Derivative(u, X)
    assert sympy.expand(form.remainder - expected) == 0


def test_a_factor_of_the_time_derivative_is_divided_by() -> None:
    form = only(Equation("rho*c*u_t = div(k*grad(u)) + q"), 1)
    scale = 1 / (field("rho", 1) * field("c", 1))
    assert form.terms == (
        Term(scale, "u", (1,), 0, field("k", 1)),
        Term(field("q", 1) * scale, None, (0,)),
    )
    assert only(Equation("-2*u_t + u_xx = f"), 1).terms[0] == Term(sympy.Rational(1, 2), "u", (2,))
    nonlinear = only(Equation("(1 + u)*u_t = u_xx"), 1)
    assert nonlinear.terms == ()
    u = field("u", 1)
    assert sympy.simplify(nonlinear.remainder - Derivative(u, (X, 2)) / (1 + u)) == 0


def test_second_order_in_time_becomes_a_system() -> None:
    equation = Equation("u_tt = c**2*u_xx + d*u_txx - g*u_t", parameters={"c": 2, "d": 1, "g": 3})
    first, second = equation.forms(1)
    one = sympy.Integer(1)
    assert first == Form("u", (Term(one, "u_t", (0,)),), sympy.Integer(0))
    assert second.unknown_t == "u_t"
    assert set(second.terms) == {
        Term(Symbol("c") ** 2, "u", (2,)),
        Term(Symbol("d"), "u_t", (2,)),
        Term(-Symbol("g"), "u_t", (0,)),
    }


def test_forms_follow_the_unknowns_then_come_the_constraints() -> None:
    equation = Equation(["v_t = u", "u_t = v + p"], unknowns=("u", "v"), constraints=["laplacian(p) = u"])
    assert [form.unknown_t for form in equation.forms(2)] == ["u", "v", None]


def test_coefficients_stay_as_they_were_written() -> None:
    form = only(Equation("u_t = a*(1 + b*sin(x))*u_xx - (c + d)**2*u + exp(-(x - 1)**2/s)", parameters={"s": 0.1}), 1)
    a, b, c, d = (field(name, 1) for name in "abcd")
    found = {term.derivative if term.unknown else None: term.coefficient for term in form.terms}
    assert found == {
        (2,): a * (1 + b * sympy.sin(X)),
        (0,): -((c + d) ** 2),
        None: sympy.exp(-((X - 1) ** 2) / Symbol("s")),
    }


@pytest.mark.parametrize(
    ("text", "linear"),
    [
        ("u_t = a*u_xx + sin(x)*u + exp(t)", True),
        ("u_t = (u + 1)**2 - u**2", True),
        ("u_t = (a + b)*u**2 - a*u**2 - b*u**2 + u_xx", True),
        ("-div(a*grad(u)) + laplacian(laplacian(u)) = f", True),
        ("u_t = u*div(grad(a)) + diff(a*b, x)*u_x + b*div([a, a])", True),
        ("u_t = div([u**2, 0]) - 2*u*u_x + u_yy", True),
        ("u_t = u*u_x", False),
        ("u_t = sin(u)", False),
        ("u_t = abs(u)", False),
        ("u_t = a**u", False),
        ("u_t = 1/u", False),
        ("u_t = div(u*grad(u))", False),
        ("u_t = sqrt(dot(grad(u), grad(u)))", False),
        ("(1 + u)*u_t = u_xx", False),
    ],
)
def test_linearity(text: str, linear: bool) -> None:
    assert Equation(text).linear is linear


def test_linearity_is_joint() -> None:
    assert not Equation("w_t = psi_x*w_y", constraints=["laplacian(psi) = -w"]).linear
    assert Equation("w_t = psi_x", constraints=["laplacian(psi) = -w"]).linear
    assert not Equation(["u_t = a*v", "v_t = u*v"]).linear


@pytest.mark.parametrize(
    ("text", "order", "time_order", "dimension"),
    [
        ("u_t = -u*u_x + nu*u_xx", 2, 1, 1),
        ("u_t = laplacian(u - laplacian(u))", 4, 1, 1),
        ("u_tt = u_xxy", 3, 2, 2),
        ("-div(a*grad(u)) + diff(a*b, x, 3)*u = f", 2, 0, 1),
        ("-u_xx = sin(z)", 2, 0, 3),
        ("-div([u_x, u_y]) = f", 2, 0, 2),
        ("u_t = u", 0, 1, 0),
        ("u_t = diff(u*u_z, z)", 2, 1, 3),
        ("u_t = u_xxx - u_xxx + u_x", 1, 1, 1),
    ],
)
def test_order_and_dimension(text: str, order: int, time_order: int, dimension: int) -> None:
    equation = Equation(text)
    assert (equation.order, equation.time_order, equation.dimension) == (order, time_order, dimension)
    assert equation.evolving is (time_order > 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u_t = u_xxt", "'u_xt'|'u_xxt'"),
        ("u_t - u_xxt = u_x", "below a space derivative"),
        ("u_t**2 = u", "must stand in a sum"),
        ("u_t*u_x = u", "holds no derivatives"),
        ("u_t = div([u_t, 0])", "must stand in a sum"),
        ("-u_xx = sin(t)", "'t' in an equation without a time derivative"),
        ("-div([t*u_x, u_y]) = f", "'t' in an equation without a time derivative"),
        (["u_t + v_t = u", "v_t = u"], "'u_t' and 'v_t'"),
        (["u_t = u", "u_t + v = v_t - v_t"], "two equations hold the time derivative of 'u'"),
        ("u_t = laplacian(abs(u))", "differentiated twice"),
        ("u_t = laplacian(laplacian(laplacian(laplacian(laplacian(u)))))", "order above 8"),
    ],
)
def test_refusals(text: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Equation(text, unknowns=("u", "v") if isinstance(text, list) else ("u",))


def test_time_derivatives_in_constraints() -> None:
    with pytest.raises(InputError, match="a constraint holds at every time"):
        Equation("u_t = p", constraints=["laplacian(p) = u_t"])
    equation = Equation("u_tt = p", constraints=["laplacian(p) = u_t"])
    assert equation.forms(1)[2].terms == (Term(1, "p", (2,)), Term(-1, "u_t", (0,)))


@pytest.mark.parametrize("dimension", [0, 1, 4, -1, 2.0, True, None])
def test_dimensions_that_do_not_fit(dimension: Any) -> None:
    with pytest.raises(InputError):
        Equation("u_t = u_yy").forms(dimension)


def test_a_vector_has_a_component_for_every_axis() -> None:
    equation = Equation("-div([a*u_x, b*u_y]) = f")
    with pytest.raises(InputError, match="a vector of 2 components in 3 dimensions"):
        equation.forms(3)
    with pytest.raises(InputError, match=re.escape("can be written for 2 to 3 axes, not for 1")):
        equation.residual({}, 1)


def written_out(form: Form, dimension: int) -> sympy.Expr:
    """The sum that a form stands for, the fluxes differentiated by sympy itself."""
    arguments = symbols("x y z")[:dimension]
    total = form.remainder
    for term in form.terms:
        value = sympy.Integer(1)
        if term.unknown is not None:
            counts = [pair for pair in zip(arguments, term.derivative, strict=True) if pair[1]]
            value = Function(term.unknown)(*arguments, T)
            value = Derivative(value, *counts) if counts else value
        if term.flux_axis is not None:
            value = Derivative(term.flux_coefficient * value, arguments[term.flux_axis]).doit()
        total += term.coefficient * value
    return total


TEXTS = [
    "-div(a*grad(u)) + dot(grad(b), grad(u)) + c*u = f",
    "u_t = laplacian(u**3 - u - laplacian(u)) + div(u**2*grad(a*u + b))",
    "u_t = dot([a, b], grad(u*v)) + div([a*u_y + b*u + f, sin(x)*u_x]) + tanh(u)*abs(v)",
    "2*rho*u_t - div(a*grad(u))*c = x*y*u + exp(-t)",
    "u_t = -diff(u**2/2, x) + diff(a*diff(b*u, y), y) + dot(grad(u)*a - [u, b]/c, grad(v))",
]


def cases() -> Iterator[tuple[Equation, int]]:
    for equation in [Equation(text, unknowns=("u",)) for text in TEXTS] + [entry.equation for entry in ENTRIES]:
        for dimension in range(equation.dimension, len(equation.coordinates) + 1):
            if "[" not in str(equation) or dimension == equation.dimension:
                yield equation, dimension


@pytest.mark.parametrize(("equation", "dimension"), list(cases()), ids=lambda item: str(item)[:30])
def test_forms_agree_with_the_residual(equation: Equation, dimension: int) -> None:
    """At random values of all fields and derivatives, which need not belong to any function."""
    forms = equation.forms(dimension)
    generator = torch.Generator().manual_seed(3)
    expressions = [written_out(form, dimension) for form in forms]
    needed = set().union(*(names(expression) for expression in expressions), equation.required(dimension))
    values = {name: torch.rand(5, generator=generator, dtype=torch.float64) + 0.5 for name in sorted(needed)}
    # The rate u_t of a system of second order goes by the same name as the derivative u_t.
    for name in needed:
        if match := re.fullmatch(r"(\w+_t)_(\w+)", name):
            base, letters = match.groups()
            values[name] = values[f"{base[:-2]}_{letters}t"]
    residual = equation.residual(values, dimension)
    found = list(residual) if isinstance(residual, tuple) else [residual]
    expected = []
    for form, expression in zip(forms, expressions, strict=True):
        value = evaluate(expression, values)
        if form.unknown_t is None:
            expected.append(value)
            continue
        rate = f"{form.unknown_t}t" if form.unknown_t.endswith("_t") else f"{form.unknown_t}_t"
        if rate not in equation.unknowns:
            factor = 2 * values["rho"] if "rho" in values and "a" in values else 1.0
            expected.append(factor * (values[rate] - value))
    for first, second in zip(found, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-11, atol=1e-11)
