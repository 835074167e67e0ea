"""Equation as an object: text, LaTeX, comparison, sums, storage, residual."""

from __future__ import annotations

import copy
import json
import pickle
import re
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.equations import Equation, Term, catalogue
from sciml.errors import InputError

ENTRIES = [catalogue.get(name) for name in catalogue.names()]


def rebuilt(equation: Equation) -> Equation:
    return Equation(
        str(equation), unknowns=equation.unknowns, parameters=equation.parameters, coordinates=equation.coordinates
    )


# Text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("u_t=-u*u_x+nu*u_xx", "u_t = -u*u_x + nu*u_xx"),
        ("u_t = (nu)*(u_xx) - -a", "u_t = nu*u_xx + a"),
        ("u_t = a - (b - c)", "u_t = a - (b - c)"),
        ("u_t = a/(b*c) + a/b*c - (-a)*b", "u_t = a/(b*c) + a/b*c + a*b"),
        ("u_t = (-u)**2 - u**2 + 2**-u + (a**b)**c", "u_t = (-u)**2 - u**2 + 2**-u + (a**b)**c"),
        ("u_t = diff(u, x, 1) + diff(a*u, y, 2)", "u_t = diff(u, x) + diff(a*u, y, 2)"),
        ("u_t = div([u, 1e-3*u])", "u_t = div([u, 0.001*u])"),
        ("u_t = 1e-30*u + 123456789.123456789*a", "u_t = 1e-30*u + 123456789.123456789*a"),
        (["u_t = v", "v_t = -u"], "u_t = v; v_t = -u"),
    ],
)
def test_text(text: Any, printed: str) -> None:
    assert str(Equation(text)) == printed


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_text_is_read_back(entry: Any) -> None:
    equation = entry.equation
    again = rebuilt(equation)
    assert again == equation
    assert str(again) == str(equation)
    assert eval(repr(equation), {"Equation": Equation}) == equation


TERMS = st.sampled_from(["u", "u_x", "u_xx", "a", "b", "sin(x)", "2", "0.5", "div(a*grad(u))", "laplacian(u)", "t"])
SUMS = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda parts: "({} {} {})".format(*parts)),
        inner.map(lambda part: f"(-{part})"),
        inner.map(lambda part: f"({part})**2"),
        inner.map(lambda part: f"tanh({part})"),
        inner.map(lambda part: f"{part}/(1 + a**2)"),
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(SUMS)
def test_any_equation_is_read_back(source: str) -> None:
    equation = Equation(f"u_t = {source} + u")
    again = Equation(str(equation))
    assert again == equation
    assert hash(again) == hash(equation)
    assert str(again) == str(equation)
    assert Equation.from_json(equation.to_json()) == equation


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("u_t = -u*u_x + nu*u_xx", r"\partial_t u = -u \partial_x u + \nu \partial_x^2 u"),
        ("-div(a*grad(u)) = f", r"-\nabla\cdot\left(a \nabla u\right) = f"),
        ("u_tt = c**2*laplacian(u)", r"\partial_t^2 u = c^{2} \nabla^2 u"),
        ("u_t = u_xxy/2", r"\partial_t u = \frac{\partial_x^2 \partial_y u}{2}"),
        ("u_t = u_x*v", r"\partial_t u = \partial_x u \cdot v"),
        ("u_t = u_x**2", r"\partial_t u = \left(\partial_x u\right)^{2}"),
        ("u_t = dot([a1, a2], grad(u))", r"\partial_t u = \left(a_{1},\; a_{2}\right) \cdot \nabla u"),
        ("u_t = c*dot(grad(a), grad(u))", r"\partial_t u = c \left(\nabla a \cdot \nabla u\right)"),
        ("u_t = diff(a*u, x)", r"\partial_t u = \partial_x \left(a u\right)"),
        ("u_t = abs(u)*sqrt(k_max) - exp(2*3*u)", None),
        ("psi1_t = lambda_*rho_s*T_inf", r"\partial_t \psi_{1} = \lambda \rho_{s} T_{inf}"),
        ("u_t = 1e-7*u*(1 - u)", r"\partial_t u = 1 \cdot 10^{-7} u \left(1 - u\right)"),
        ("u_t = -(u + sin(pi*x))", r"\partial_t u = -\left(u + \sin\left(\pi x\right)\right)"),
    ],
)
def test_latex(text: str, latex: str | None) -> None:
    found = Equation(text, unknowns=("psi1",) if "psi1" in text else ("u",)).latex()
    expected = (
        r"\partial_t u = \left|u\right| \sqrt{k_{max}} - \exp\left(2 \cdot 3 u\right)" if latex is None else latex
    )
    assert found == expected


def test_latex_of_a_system_is_aligned() -> None:
    equation = Equation("w_t = psi_x*w_y", constraints=["laplacian(psi) = -w"])
    assert len(equation.latex_lines()) == 2
    assert equation.latex().startswith("\\begin{aligned}\n\\partial_t w &= ")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_matplotlib_reads_the_latex(entry: Any) -> None:
    mathtext = pytest.importorskip("matplotlib.mathtext")
    parser = mathtext.MathTextParser("path")
    for line in entry.equation.latex_lines():
        parser.parse(f"${line}$")


# Comparison


EQUAL = [
    ("u_t = u*u_x", "u_t = u_x*u"),
    ("u_t = -u*u_x + nu*u_xx", "u_t + u*u_x = u_xx*nu"),
    ("u_t = u_xy", "u_t = u_yx"),
    ("u_t = diff(u, x, 2)", "u_t = u_xx"),
    ("u_t = diff(u**2/2, x)", "u_t = u*u_x"),
    ("u_t = (u + a)**2", "u_t = u**2 + 2*a*u + a*a"),
    ("u_t = u*u**(m - 1)", "u_t = u**m"),
    ("u_t = 0.5*u", "u_t = u/2"),
    ("rho*u_t = u_xx", "u_t = u_xx/rho"),
    ("u_t = sqrt(u**2)", "u_t = abs(u)"),
    ("-div(a*grad(u)) = f", "-a*laplacian(u) - dot(grad(a), grad(u)) = f"),
    ("div(grad(u)) = f", "laplacian(u) = f"),
    ("-laplacian(u) = f", "laplacian(u) = -f"),
    ("-laplacian(u) = f", "3*laplacian(u) + 3*f = 0"),
    ("-laplacian(u) = f", "-sqrt(2)*laplacian(u) = sqrt(2)*f"),
    ("-laplacian(u) = f", "0 = f + laplacian(u)"),
    ("-div([a*u_x, b*u_y]) = f", "-diff(a*u_x, x) - diff(b*u_y, y) = f"),
    ("div([a*u_x + b, a*u_y + c]) = 0", "div([a*u_x, a*u_y]) + div([b, c]) = 0"),
    ("u_tt = u_xx", "u_xx = u_tt"),
]
DIFFERENT = [
    ("u_t = u*u_x", "u_t = -u*u_x"),
    ("u_t = u_xx", "u_t = 2*u_xx"),
    ("u_t = u_xx", "2*u_t = u_xx"),
    ("u_t = u_xx", "u_t = laplacian(u)"),  # the same on one axis only
    ("u_t = u_xx + u_yy", "u_t = laplacian(u)"),  # the same on two axes only
    ("-laplacian(u) = f", "-laplacian(u) = -f"),
    ("-laplacian(u) = f", "-laplacian(u) = 2*f"),
    ("-laplacian(u) = f", "-a*laplacian(u) = a*f"),
    ("-laplacian(u) = f", "-laplacian(u) = g"),
    ("u_t = u_xx", "u_tt = u_xx"),
    ("u_t = u_xx", "v_t = v_xx"),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_equal_by_meaning(first: str, second: str) -> None:
    assert Equation(first, unknowns=("u",)) == Equation(second, unknowns=("u",))
    assert hash(Equation(first, unknowns=("u",))) == hash(Equation(second, unknowns=("u",)))


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_different_by_meaning(first: str, second: str) -> None:
    assert Equation(first) != Equation(second)


def test_what_else_makes_equations_different() -> None:
    text = "u_t = nu*u_xx"
    assert Equation(text, parameters={"nu": 1}) == Equation(text, parameters={"nu": 1.0})
    assert Equation(text, parameters={"nu": 1}) != Equation(text, parameters={"nu": 2})
    assert Equation(text, parameters={"nu": 1}) != Equation(text)
    assert Equation(["u_t = v", "v_t = u"]) != Equation(["v_t = u", "u_t = v"])  # the channels change places
    assert Equation(["u_t = v", "v_t = u"]) == Equation(["v_t = u", "u_t = v"], unknowns=("u", "v"))
    first = Equation("w_t = psi_x", constraints=["laplacian(psi) = w"])
    assert first == Equation("w_t = psi_x where -2*laplacian(psi) + 2*w = 0")
    assert first != Equation("w_t = psi_x where laplacian(psi) = -w")
    assert first != "w_t = psi_x"


# Sums


def test_adding_to_the_right_side() -> None:
    equation = Equation("u_t = -u*u_x - u_xx - nu*u_xxxx", parameters={"nu": 1.0})
    u = sympy.Function("u")(*sympy.symbols("x t"))
    expected = Equation("u_t = -u*u_x - u_xx - nu*u_xxxx + 0.5*u_xxx", parameters={"nu": 1.0})
    assert equation + "0.5*u_xxx" == expected
    assert str(equation + "0.5*u_xxx") == "u_t = -u*u_x - u_xx - nu*u_xxxx + 0.5*u_xxx"
    assert equation + 0.5 * u.diff(sympy.Symbol("x"), 3) == expected
    assert equation + {"u": "0.5*u_xxx"} == expected
    assert equation + Term(sympy.Rational(1, 2), "u", (3,)) == expected
    assert equation + "0.5*u_xxx" + "-0.5*u_xxx" == equation
    assert equation == Equation("u_t = -u*u_x - u_xx - nu*u_xxxx", parameters={"nu": 1.0})
    assert str(equation + 2) == "u_t = -u*u_x - u_xx - nu*u_xxxx + 2"
    assert equation + sympy.Derivative(u**2, sympy.Symbol("x")) / 3 == equation + "2/3*u*u_x"


def test_adding_where_the_time_derivative_has_a_factor() -> None:
    assert Equation("rho*u_t = u_xx") + "q" == Equation("u_t = u_xx/rho + q")
    assert Equation("u_xx = 2*u_t") + "q" == Equation("u_t = u_xx/2 + q")
    assert Equation("u_t + u*u_x = 0") + "u_xx" == Equation("u_t = -u*u_x + u_xx")


def test_adding_to_steady_equations_and_systems() -> None:
    assert Equation("-laplacian(u) = 0") + "f" == Equation("-laplacian(u) = f")
    steady = Equation(["-u_xx = v", "-v_xx = u"]) + {"v": "f"}
    assert steady.texts == ("-u_xx = v", "-v_xx = u + f")
    system = Equation(["v_t = u", "u_t = v"], unknowns=("u", "v"))
    assert (system + {"v": "-v", "u": "u_xx"}).texts == ("v_t = u - v", "u_t = v + u_xx")
    flow = Equation("w_t = psi_x*w_y - psi_y*w_x where laplacian(psi) = -w") + "nu*laplacian(w)"
    assert (flow.constrained, flow.coefficients) == (("psi",), ("nu",))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("u_t", "laplacian(u) + f"),
        ("u_t", "div(a*grad(u)) - div([b1*u, b2*u]) + f*sin(x)/2"),
        ("rho*u_t", "div(a*grad(u)) + c*u - sqrt(abs(a))*u_xy/(1 + b)"),
        ("u_tt", "c**2*laplacian(u) - d*u_t + diff(a*u_tx, x) + u_tyy"),
    ],
)
def test_terms_of_the_component_form_go_back_into_the_text(left: str, right: str) -> None:
    equation = Equation(f"{left} = {right}", unknowns=("u",), coordinates=("x", "y"))
    doubled = equation
    for term in equation.forms(2)[-1].terms:
        doubled = doubled + term
    assert doubled == Equation(f"{left} = 2*({right})", unknowns=("u",), coordinates=("x", "y"))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("u_xx = 2", "without '='"),
        ("q(u)", "unknown function 'q'"),
        ("grad(u)", "one number"),
        (float("nan"), "cannot be written"),
        ({"w": "u"}, "'w' is no unknown here"),
        ({"u": [1]}, "not list"),
        ({"u": True}, "not bool"),
        (sympy.Symbol("__import__('os')"), "no strings"),
        (sympy.gamma(sympy.Symbol("u")), "cannot be written"),
        ("v", "'v_x' would no longer be a coefficient"),
    ],
)
def test_terms_that_are_refused(term: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Equation("u_t = v_x*u_x") + term


def test_systems_want_a_dict() -> None:
    with pytest.raises(InputError, match="add a dict by unknown"):
        Equation(["u_t = v", "v_t = u"]) + "u"
    with pytest.raises(TypeError):
        Equation("u_t = u_x") + None  # type: ignore[operator]


def test_complete_coefficients_stay_complete() -> None:
    equation = Equation("u_t = a*u_xx", coefficients=("a",))
    assert equation + "a*u" == Equation("u_t = a*u_xx + a*u")
    with pytest.raises(InputError, match="unknown name 'b'"):
        equation + "b*u"


def test_with_parameters() -> None:
    equation = Equation("u_t = nu*u_xx + c*u", parameters={"nu": 1})
    assert equation.with_parameters(nu=2) == Equation("u_t = nu*u_xx + c*u", parameters={"nu": 2})
    assert equation.with_parameters(c=3).parameters == {"nu": 1, "c": 3}
    assert equation.parameters == {"nu": 1}
    with pytest.raises(InputError, match=r"'nv' is no parameter of .*: did you mean 'nu'"):
        equation.with_parameters(nv=2)
    with pytest.raises(InputError, match="holds 'a_x', a derivative of what would be a number"):
        Equation("u_t = a*u_xx + a_x*u_x + d_y*d").with_parameters(a=2)


def test_properties_are_copies() -> None:
    equation = Equation("u_t = nu*u_xx", parameters={"nu": 1})
    equation.parameters["nu"] = 5.0
    assert equation.parameters == {"nu": 1}


# Storage


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_json_pickle_and_copies(entry: Any) -> None:
    equation = entry.equation
    for again in (
        Equation.from_json(equation.to_json()),
        pickle.loads(pickle.dumps(equation)),
        copy.deepcopy(equation),
    ):
        assert again == equation
        assert str(again) == str(equation)
        assert again.unknowns == equation.unknowns


def test_json_keeps_what_was_declared() -> None:
    equation = Equation("u_t = a_x*u_xx", coefficients=("a_x",))
    again = Equation.from_json(equation.to_json())
    assert again.coefficients == ("a_x",)
    with pytest.raises(InputError):
        again + "b"


def altered(**changes: Any) -> str:
    content = json.loads(Equation("u_t = nu*u_xx", parameters={"nu": 1}).to_json())
    content.update(changes)
    return json.dumps({key: value for key, value in content.items() if value != "removed"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("3", "holds no equation"),
        ("{}", "holds no equation"),
        (b"\xff\xfe\x00", "no JSON"),
        (7, "is a text"),
        (altered(format="other"), "holds no equation"),
        (altered(version=2), "written in version 2 of its format; this program reads 1"),
        (altered(version="1"), "whole number"),
        (altered(version=0), "whole number"),
        (altered(unknowns="removed"), "unknowns is missing"),
        (altered(colour="red"), "colour is unknown"),
        (altered(equations="u_t = u"), "list of texts"),
        (altered(equations=[1]), "list of texts"),
        (altered(equations=["u_t = __import__('os')"]), "no strings"),
        (altered(parameters={"nu": float("nan")}), "finite"),
        (altered(parameters={"nu": "1"}), "is a number"),
        (altered(parameters=None), "dict of numbers"),
        (altered(coefficients=3), "sequence of names"),
        (altered(coordinates=["q", "q"]), "different coordinates"),
    ],
)
def test_json_that_is_refused(text: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Equation.from_json(text)


@settings(max_examples=150)
@given(st.data())
def test_damaged_json_raises_nothing_but_input_errors(data: st.DataObject) -> None:
    text = Equation("u_t = nu*u_xx", parameters={"nu": 1}).to_json()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    damaged = text[:start] + data.draw(st.text(max_size=4)) + text[end:]
    try:
        Equation.from_json(damaged)
    except InputError:
        pass


# Residual


def test_residual_against_a_formula(values_of: Any) -> None:
    equation = Equation("u_t = -u*u_x + nu*u_xx + f", parameters={"nu": 0.3})
    assert equation.required(1) == {"u", "u_t", "u_x", "u_xx", "f"}
    values = values_of(
        {"u": lambda x, t: torch.sin(3 * x) * torch.exp(-t) + x**2, "f": lambda x: x**3}, equation.required(1)
    )
    x, t = values_of({}, "xt").values()
    u = torch.sin(3 * x) * torch.exp(-t) + x**2
    u_x = 3 * torch.cos(3 * x) * torch.exp(-t) + 2 * x
    u_xx = -9 * torch.sin(3 * x) * torch.exp(-t) + 2
    u_t = -torch.sin(3 * x) * torch.exp(-t)
    torch.testing.assert_close(equation.residual(values, 1), u_t + u * u_x - 0.3 * u_xx - x**3)


def test_residual_of_a_varying_coefficient_in_three_dimensions(values_of: Any) -> None:
    equation = Equation("-div(a*grad(u)) = f*sin(z)")
    fields = {
        "u": lambda x, y, z: torch.exp(x) * y**2 * torch.cos(z),
        "a": lambda x, y, z: 1 + x * y + z**2,
        "f": lambda x: 1 / x,
    }
    values = values_of(fields, equation.required(3))
    x, y, z = values_of({}, "xyz").values()
    a = 1 + x * y + z**2
    u, u_y, u_z = (torch.exp(x) * part for part in (y**2 * z.cos(), 2 * y * z.cos(), -(y**2) * z.sin()))
    divergence = y * u + x * u_y + 2 * z * u_z + a * (u + 2 * torch.exp(x) * z.cos() - u)
    torch.testing.assert_close(equation.residual(values, 3), -divergence - torch.sin(z) / x)


def test_residual_of_a_system_in_the_order_of_the_text() -> None:
    equation = Equation(["v_t = u", "u_t = v + p"], unknowns=("u", "v"), constraints=["p = u - v"])
    values = {"u": 2.0, "v": 3.0, "u_t": 5.0, "v_t": 7.0, "p": 11.0}
    assert equation.residual(values, 1) == (5.0, -9.0, 12.0)


def test_residual_broadcasts_and_takes_parameters_with_gradients() -> None:
    equation = Equation("u_t = nu*u_xx", parameters={"nu": 1.0})
    nu = torch.tensor([[1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    values = {"u_t": torch.ones(4, dtype=torch.float64), "u_xx": torch.arange(4.0, dtype=torch.float64)}
    residual = equation.residual({**values, "nu": nu}, 1)
    assert residual.shape == (2, 4)
    residual.sum().backward()
    assert nu.grad is not None
    torch.testing.assert_close(nu.grad, torch.full((2, 1), -6.0, dtype=torch.float64))


def test_residual_gradients_with_respect_to_all_values() -> None:
    equation = Equation("u_t = div(u**2*grad(u)) + tanh(u)*v_x", coefficients=("v",))
    needed = sorted(equation.required(2))
    generator = torch.Generator().manual_seed(0)
    values = tuple(torch.rand(3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in needed)
    assert torch.autograd.gradcheck(lambda *items: equation.residual(dict(zip(needed, items, strict=True)), 2), values)


def test_residual_of_second_order_in_time_takes_u_tt() -> None:
    equation = Equation("u_tt = c**2*laplacian(u) - u_t", parameters={"c": 2})
    assert equation.required(2) == {"u_tt", "u_t", "u_xx", "u_yy"}
    assert equation.residual({"u_tt": 1.0, "u_t": 2.0, "u_xx": 3.0, "u_yy": 4.0}, 2) == 1 - 4 * 7 + 2


def test_residual_names_what_is_missing() -> None:
    with pytest.raises(InputError, match="no value for 'u_t', 'u_xx'"):
        Equation("u_t = u_xx").residual({}, 1)
