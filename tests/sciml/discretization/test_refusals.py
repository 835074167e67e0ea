"""What discretize refuses, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin, Unstated
from sciml.discretization import discretize, discretize_nonlinear
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.scheme import FiniteDifference
from sciml.solvers.discretize import discretize as discretize_any

NAN = torch.full((4, 5), float("nan"), dtype=torch.float64)
GOOD = torch.ones(4, 5, dtype=torch.float64)
HOLED = torch.ones(4, 5, dtype=torch.float64)
HOLED[1, 1], HOLED[2, 3] = -0.5, -3.0
SOLID = torch.zeros(4, 5, dtype=torch.bool)
SOLID[1, 1] = True
DARCY = "-div(a*grad(u)) + k*u = f"


FIELDS = {"a": GOOD, "f": 1.0}


def boundary(condition: Any) -> dict[str, Any]:
    return {"fields": FIELDS, "boundary": {"x": (condition, Dirichlet())}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # names
        ({"fields": {"a": 1.0}}, "fields: the equation has the coefficient f, and no value is given"),
        ({}, "fields: the equation has the coefficient a, f, and no value is given"),
        ({"fields": {**FIELDS, "aa": 1.0}}, "fields: the equation has no 'aa'; did you mean 'a'?"),
        ({"fields": {**FIELDS, "nu": 1.0}}, "fields: the equation has no 'nu'; known: a, f"),
        ({"fields": FIELDS, "parameters": {"kk": 1.0}}, "parameters: the equation has no 'kk'; did you mean 'k'?"),
        ({"fields": [1.0]}, "fields: expected a dict by name, got list"),
        # values
        ({"fields": {"a": NAN, "f": 1.0}}, "field 'a': 20 of 20 values are NaN or infinite"),
        ({"fields": {"a": GOOD, "f": float("inf")}}, "field 'f' is inf; it must be finite"),
        ({"fields": {"a": GOOD, "f": lambda x, y: 1 / (x - x[0])}}, "field 'f': 5 of 20 values are NaN or infinite"),
        ({"fields": {"a": GOOD, "f": "x"}}, "field 'f': expected a number, a tensor or a function.*got str"),
        ({"fields": {"a": GOOD, "f": True}}, "field 'f': expected a number.*got bool"),
        ({"fields": {"a": GOOD[:, :4], "f": 1.0}}, r"field 'a' has shape \(4, 4\), expected .*\(\*batch, \*\(4, 5\)\)"),
        ({"fields": {"a": GOOD.T, "f": 1.0}}, r"field 'a' has shape \(5, 4\)"),
        (
            {"fields": {"a": GOOD.float(), "f": 1.0}},
            r"field 'a' has dtype torch.float32, the grid torch.float64; convert",
        ),
        (
            {"fields": {"a": GOOD, "f": lambda x, y: torch.where(x > 0.5, 1.0, 2.0)}},
            "the function must return that of its",
        ),
        ({"fields": {"a": GOOD.to("meta"), "f": 1.0}}, "field 'a' is on meta, the grid on cpu; move one of them"),
        (
            {"fields": {"a": GOOD, "f": lambda x: x}},
            r"field 'f': the function does not take the 2 coordinates \(x, y\)",
        ),
        ({"fields": FIELDS, "parameters": {"k": torch.tensor([1, 2])}}, "parameter 'k' has dtype torch.int64"),
        ({"fields": FIELDS, "parameters": {"k": lambda x, y: x}}, "parameter 'k': expected a number or a tensor, got"),
        ({"fields": FIELDS, "parameters": {"k": float("nan")}}, "parameter 'k' is nan; it must be finite"),
        ({"fields": FIELDS, "parameters": {"k": torch.tensor(torch.nan).double()}}, "parameter 'k': 1 of 1 values are"),
        (
            {"fields": {"a": GOOD.expand(3, 4, 5), "f": 1.0}, "parameters": {"k": torch.ones(2).double()}},
            r"the batch shapes do not broadcast: a \(3,\), k \(2,\)",
        ),
        ({"text": "-laplacian(u) + u/(k - 1) = 1"}, "the coefficient 1/.* is .*; it must be finite"),
        (
            {"text": "-laplacian(u) + u/a = 1", "fields": {"a": 0 * GOOD}},
            "the coefficient 1/a.*: 20 of 20 values are NaN",
        ),
        (
            {"fields": {"a": HOLED, "f": 1.0}},
            "field 'a' changes sign: 2 of 20 values are negative, the smallest -3, and the largest is 1; a diffusion",
        ),
        (
            {"fields": {"a": torch.stack([GOOD, -HOLED]), "f": 1.0}},
            "field 'a' changes sign: 18 of 20 values are negative, the smallest -1, and the largest is 3",
        ),
        (
            {"text": "-div((a - 2)*grad(u)) = 1", "fields": {"a": 2.0 + HOLED}},
            "the coefficient a.* - 2 changes sign: 2 of 20 values are negative, the smallest -3",
        ),
        # boundary values
        (boundary(Dirichlet(lambda x, y: y / 0.0)), "boundary x_lower, Dirichlet value: 5 of 5 values are NaN"),
        (
            boundary(Neumann(GOOD[:, 1:])),
            r"boundary x_lower, Neumann flux has shape \(4, 4\), expected .*\(\*batch, \*\(5,\)\)",
        ),
        (boundary(Robin(lambda x, y: None)), "boundary x_lower, Robin coefficient: expected a number"),
        (boundary(Robin(1.0, lambda x, y, t: x)), "boundary x_lower, Robin value: the function does not take the 2"),
        (boundary(Dirichlet(GOOD[0].float())), "boundary x_lower, Dirichlet value has dtype torch.float32"),
        (
            {**boundary(Robin(-10.0)), "fields": {"a": 1.0, "f": 1.0}, "grid": {"upper": (0.8, 1.0)}},
            "x_lower: Robin.* -2 a/h",
        ),
        ({"fields": FIELDS, "boundary": {"v": Dirichlet()}}, "boundary: 'v' is neither an axis nor an unknown"),
        ({"fields": FIELDS, "boundary": {"z": Dirichlet()}}, "'z' is not an axis of this 2-dimensional grid"),
        ({"fields": FIELDS, "boundary": Periodic()}, "axis 'x' is not periodic, and only the grid can make it so"),
        (
            {"fields": FIELDS, "grid": {"boundary": {"v": Dirichlet()}}},
            "boundary: 'v' is neither an axis nor an unknown",
        ),
        (
            {"fields": FIELDS, "grid": {"solid": SOLID, "walls": {"v": Dirichlet()}}},
            "walls: 'v' is not an unknown; known: u",
        ),
        # equations and schemes
        ({"text": "u_t = laplacian(u)"}, "has time derivatives, and is not solved as a steady one"),
        (
            {"text": "-laplacian(u) + u**2 = 1"},
            "is not linear in its unknowns, and has no operator.*discretize_nonlinear",
        ),
        ({"text": "-u_xx - u_zz = 1"}, r"the equation needs 3 axes, the grid has 2 \(x, y\)"),
        ({"text": "u_xy = 1"}, "mixed derivatives are taken along axis x and y, which is not periodic"),
        ({"text": "u_xxx = 1"}, "derivatives of order 3 are taken along axis x, which is not periodic"),
        (
            {"text": "-div([u_x + u_y, u_y]) = 1", "grid": {"solid": SOLID}},
            "mixed derivatives are taken along axis x and y.*without solid cells",
        ),
        (
            {"text": "u_xxxx = 1", "grid": {"boundary": Periodic(), "solid": SOLID}},
            "derivatives of order 4 are taken along a grid with solid cells",
        ),
        ({"text": "u_xxxx = 1", "grid": {"boundary": Periodic()}}, "along x need at least 5 cells, the grid has 4"),
        (
            {"text": "-laplacian(u) = 1", "grid": {"boundary": Periodic()}, "scheme": FiniteDifference(4)},
            "along x need at least 5 cells, the grid has 4",
        ),
        ({"fields": FIELDS, "scheme": FiniteDifference(4), "grid": {"solid": SOLID}}, "does not go with solid cells"),
        (
            {"fields": FIELDS, "scheme": "upwind"},
            r"scheme: expected FiniteDifference\(...\), FiniteVolume\(...\) or None",
        ),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    arguments = {"text": DARCY, "grid": {}, **arguments}
    text, grid = arguments.pop("text"), Grid((4, 5), **arguments.pop("grid"))
    equation = Equation(text, unknowns=["u"], parameters={"k": 1.0} if "k" in text else {})
    with pytest.raises(InputError, match=message):
        discretize(equation, grid, **arguments)


def test_signs_that_may_differ() -> None:
    """From row to row of a batch, from axis to axis, inside solid cells, and where no flux carries the coefficient."""
    signs = torch.stack([GOOD, -GOOD])
    discretize(Equation("-div(a*grad(u)) = 1"), Grid((4, 5)), {"a": signs})
    discretize(Equation("-div([a*u_x, b*u_y]) = 1"), Grid((4, 5)), {"a": GOOD, "b": -GOOD})
    discretize(Equation("-div(a*grad(u)) = 1"), Grid((4, 5), solid=HOLED < 0.0), {"a": HOLED})
    discretize(Equation("a*u_xx + u_yy = 1"), Grid((4, 5)), {"a": HOLED})


def test_few_cells_for_the_fourth_order() -> None:
    with pytest.raises(InputError, match="along x need at least 4 cells, the grid has 3"):
        discretize(Equation("-u_xx = 1"), Grid(3), scheme=FiniteDifference(4))


def test_the_domain_must_be_a_grid() -> None:
    with pytest.raises(InputError, match="domain: expected a Grid or a Mesh, got tuple"):
        discretize(Equation("-u_xx = 1"), (3, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "equation"),
    [
        (discretize, "-laplacian(u) = 1"),
        (discretize_nonlinear, "-laplacian(u) + u**3 = 1"),
        (discretize_any, "u_t = laplacian(u)"),
    ],
)
def test_a_side_of_which_nothing_is_stated(make: Any, equation: str) -> None:
    grid = Grid((4, 4), boundary={"x": Periodic(), "y": (Dirichlet(1.0), Unstated())})
    with pytest.raises(InputError, match="does not state what holds for 'u' at y_upper; give it by boundary="):
        make(Equation(equation), grid)
    told = make(Equation(equation), grid, boundary={"y": (Dirichlet(1.0), Neumann(0.0))})
    assert told.boundary["u"]["y"] == (Dirichlet(1.0), Neumann(0.0))
