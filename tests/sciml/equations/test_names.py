"""What every name of an equation stands for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sciml.equations import Equation
from sciml.errors import InputError


@pytest.mark.parametrize(
    ("text", "options", "unknowns", "coefficients"),
    [
        ("u_t = -u*u_x + nu*u_xx", {"parameters": {"nu": 0.01}}, ("u",), ()),
        ("u_t = -u*u_x + nu*u_xx", {}, ("u",), ("nu",)),
        ("-div(a*grad(u)) = f", {}, ("u",), ("a", "f")),
        ("-diff(a*diff(u, x), x) = f", {}, ("u",), ("a", "f")),
        ("-laplacian(u) + u**3 = f", {}, ("u",), ("f",)),
        ("diff(u, t) = u_xx", {}, ("u",), ()),
        ("u_tt = c**2*u_xx", {}, ("u", "u_t"), ("c",)),
        ("u_ttt = u_x + u_tt", {}, ("u", "u_t", "u_tt"), ()),
        (["v_t = u_xx", "u_t = v_xx"], {}, ("v", "u"), ()),
        (["v_t = u_xx", "u_t = v_xx"], {"unknowns": ("u", "v")}, ("u", "v"), ()),
        (["-u_xx + v = f", "-v_xx - u = g"], {}, ("u", "v"), ("f", "g")),
        (["u_tt = v", "v_t = u_t"], {}, ("u", "u_t", "v"), ()),
        # A derivative only if the name in front of the suffix is a field and the whole name is not declared.
        ("u_t = a*u_xx + a_x*u_x", {}, ("u",), ("a",)),
        ("u_t = v_x*u_x + v_y*u_y", {}, ("u",), ("v_x", "v_y")),
        ("u_t = a*u_xx + a_x*u_x", {"coefficients": ("a", "a_x")}, ("u",), ("a", "a_x")),
        ("u_t = D_x*u_xx", {"parameters": {"D_x": 1}}, ("u",), ()),
        ("u_t = D_t*u_xx", {"unknowns": ("u",)}, ("u",), ("D_t",)),
        ("u_t = rho_s_x*u + rho_s", {}, ("u",), ("rho_s",)),
        ("u_t = u_xx + k_T*u", {}, ("u",), ("k_T",)),
        # Free names, among them those that sympy gives a meaning to.
        ("u_t = E*S*N*I*lambda_*beta*gamma*u", {}, ("u",), ("E", "I", "N", "S", "beta", "gamma", "lambda_")),
        (
            ["S_t = -beta*S*I", "I_t = beta*S*I - gamma*I"],
            {"coordinates": (), "parameters": {"beta": 2, "gamma": 1}},
            ("S", "I"),
            (),
        ),
        (["x_t = y - t", "y_t = -x"], {"coordinates": ()}, ("x", "y"), ()),
        ("x_tt = -x", {"coordinates": (), "unknowns": ("x", "x_t")}, ("x", "x_t"), ()),
        ("u_t = u_s + y", {"coordinates": ("s",)}, ("u",), ("y",)),
        ("μ_t = ν*μ_xx", {"parameters": {"ν": 1}}, ("μ",), ()),
        ("u_t = µ*u_xx", {"parameters": {"µ": 1}}, ("u",), ()),  # the micro sign is Greek mu
    ],
)
def test_inference(
    text: Any, options: dict[str, Any], unknowns: tuple[str, ...], coefficients: tuple[str, ...]
) -> None:
    equation = Equation(text, **options)
    assert equation.unknowns == unknowns
    assert equation.coefficients == coefficients


@pytest.mark.parametrize(
    ("constraints", "options", "constrained"),
    [
        (["laplacian(psi) = -w"], {}, ("psi",)),
        ("laplacian(psi) = -w", {}, ("psi",)),
        (["-laplacian(psi) + k*psi = w"], {}, ("psi",)),
        (["div(a*grad(psi)) = w"], {}, ("psi",)),
        (["psi = w**2"], {}, ("psi",)),
        (["laplacian(psi) + F*chi = w", "laplacian(chi) = psi"], {}, ("psi", "chi")),
        (["laplacian(psi) = w", "q = psi_x"], {}, ("psi", "q")),
        (["psi*w + b_x*psi = 1"], {"unknowns": ("w", "psi")}, ("psi",)),
        (["psi*w + b_x*psi = 1"], {"unknowns": ("psi", "w")}, ("psi",)),
    ],
)
def test_fields_of_constraints(constraints: Any, options: dict[str, Any], constrained: tuple[str, ...]) -> None:
    equation = Equation("w_t = psi*w_x", constraints=constraints, **options)
    assert equation.unknowns == ("w",)
    assert equation.constrained == constrained


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("u_t = nv*u_xx", {"parameters": {"nu": 1}}, "'nv': did you mean 'nu'?"),
        ("u_t = visc*u_xx", {"parameters": {"viscosity": 1}}, "'visc': did you mean 'viscosity'?"),
        ("u_t = u_xx", {"parameters": {"nu": 1}}, "'nu' is given in parameters and is not in the text"),
        ("u_t = u_xx", {"coefficients": ("a",)}, "'a' is given in coefficients and is not in the text"),
        ("u_t = u_xx", {"unknowns": ("w",)}, "'w' is given in unknowns and is not in the text"),
        ("temp_t = temp_xx", {"unknowns": ("tmp",)}, "is not in the text"),
        ("u_t = alpa*u_xx + alpha*u", {"coefficients": ("alpha",)}, "unknown name 'alpa': did you mean 'alpha'?"),
        ("u_t = q*u_xx", {"coefficients": ()}, "unknown name 'q'"),
        ("u_t = v_t", {}, "carry _t are 'u' and 'v'"),
        ("-u_xx + v_xx = f", {}, "'u' and 'v'"),
        (["u_t = v", "v = u"], {}, "constraints=[...]"),
        ("u*a = f", {}, "no unknown found"),
        ("t_x = 0", {}, "no unknown found"),
        ("x_t = -x", {}, "ordinary differential equations take coordinates=()"),
        ("u_t = lambda_*u", {"parameters": {"lambda": 1}}, "write 'lambda_'"),
        ("u_t = u_x_y", {}, "write 'u_xy'"),
        ("u_t = a*u_xx", {"parameters": {"a": 1}, "coefficients": ("a",)}, "both"),
        ("u_t = u_xx", {"parameters": {"t": 1}}, "'t' is reserved"),
        ("u_t = u_xx", {"coefficients": ("sin",)}, "'sin' is reserved"),
        ("u_t = u_xx", {"unknowns": ("x",)}, "'x' is reserved"),
        ("u_t = u_xx", {"unknowns": "u"}, "sequence of names"),
        ("u_t = u_xx", {"unknowns": ("u", "u")}, "given twice"),
        ("u_t = u_xx", {"unknowns": (3,)}, "not a name"),
        ("u_t = u_xx", {"unknowns": ("u v",)}, "not a name"),
        ("u_t = u_xx", {"unknowns": ("u", "v", "w")}, "3 unknowns (u, v, w) for 1 equation"),
        ("u_t = u_xx", {"coordinates": "xy"}, "tuple of letters"),
        ("u_t = u_xx", {"coordinates": ("x", "x")}, "different coordinates"),
        ("u_t = u_xx", {"coordinates": ("x", "t")}, "t is the time"),
        ("u_t = u_xx", {"coordinates": ("xy",)}, "single letter"),
        ("u_t = laplacian(u)", {"coordinates": ()}, "needs space coordinates"),
        ("u_t = nu*u_xx", {"parameters": {"nu": float("nan")}}, "must be finite"),
        ("u_t = nu*u_xx", {"parameters": {"nu": True}}, "is a number, not bool"),
        ("u_t = nu*u_xx", {"parameters": {"nu": [1]}}, "tensors are passed to the call"),
        ("u_t = nu*u_xx", {"parameters": ["nu"]}, "dict of numbers"),
        ("u_t = nu*u_xx", {"parameters": {3: 1}}, "not a name"),
        ("u_t = u", {"constraints": "u = 1 where u = 2"}, "'where' stands in the text of the equations"),
        ("u_t = p", {"constraints": ["laplacian(p) + laplacian(q) = u"]}, "'p' and 'q'"),
        ("u_t = p", {"constraints": ["p*u = 1"]}, "1 constraint must determine as many fields"),
        ("u_t = a_x*div(grad(a)) + u", {"coefficients": ("a", "a_x")}, "'a_x' is a declared name"),
    ],
)
def test_refusals(text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Equation(text, **options)


def test_the_suggestion_for_an_unused_parameter_points_at_the_name_in_the_text() -> None:
    with pytest.raises(InputError) as caught:
        Equation("u_t = nv*u_xx", parameters={"nu": 0.1})
    assert str(caught.value).endswith("(column 7)\n  u_t = nv*u_xx\n        ^")
