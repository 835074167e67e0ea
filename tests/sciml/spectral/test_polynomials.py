"""Ways to write polynomials with few transforms: how many there are, and that they say the same."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import sympy
import torch
from torch import Tensor

from sciml.equations import Equation, catalogue
from sciml.grid import Grid
from sciml.scheme import Spectral
from sciml.spectral import discretize_spectral
from sciml.spectral.plan import make_plan
from sciml.spectral.polynomials import Polynomial, added, differentiated, rewritings, substituted

u, ux, uxx = ("u", (0,)), ("u", (1,)), ("u", (2,))
ONE = sympy.Integer(1)


def test_total_derivatives() -> None:
    """(u**2)_xx = 2 u_x**2 + 2 u u_xx."""
    assert differentiated({(u, u): ONE}, (2,)) == {(ux, ux): 2, (u, uxx): 2}


def test_substitution() -> None:
    """u = v_x + 2 v in u_x*u: a product of sums is multiplied out."""
    v, vx, vxx = ("v", (0,)), ("v", (1,)), ("v", (2,))
    found = substituted({(u, ux): ONE}, {"u": {(vx,): ONE, (v,): 2 * ONE}})
    assert found == {(vx, vxx): 1, (vx, vx): 2, (v, vxx): 2, (v, vx): 4}


def test_every_rewriting_says_the_same() -> None:
    """Random polynomials that are sums of derivatives of products, in two fields on two axes."""
    generator = torch.Generator().manual_seed(0)
    factors = [(name, order) for name in "ab" for order in product((0, 1), repeat=2)]
    seen = 0
    for _ in range(12):
        row: Polynomial = {}
        for _ in range(2):
            picks = torch.randint(len(factors), (2,), generator=generator).tolist()
            monomial = tuple(sorted(factors[k] for k in picks))
            order = tuple(torch.randint(2, (2,), generator=generator).tolist())
            row = added(row, differentiated({monomial: sympy.Symbol("c") + 2}, order))
        for found in rewritings([row], 2):
            seen += 1
            back: Polynomial = {}
            for (_, order), polynomial in found.items():
                back = added(back, differentiated(polynomial, order))
            assert added(back, row, sympy.Integer(-1)) == {}
    assert seen >= 24


@pytest.mark.parametrize(
    ("name", "inverse", "forward"),
    [
        ("kuramoto_sivashinsky", 1, 1),
        ("kdv", 1, 1),
        ("burgers", 1, 1),
        ("cahn_hilliard", 1, 1),
        ("gray_scott", 2, 1),
        ("navier_stokes", 2, 2),
        ("quasi_geostrophic", 4, 5),
        ("heat", 0, 0),
    ],
)
def test_numbers_of_transforms(name: str, inverse: int, forward: int) -> None:
    equation = catalogue.get(name).equation
    plan = make_plan(equation, max(1, equation.dimension, 2 * ("laplacian" in str(equation))), frozenset())
    assert (len(plan.inputs), len(plan.products)) == (inverse, forward)


@pytest.mark.parametrize(
    "equation",
    [
        Equation("u_t = -u*u_x - 3*u*u_y + c*u**2*u_xy + 2*c*u*u_x*u_y", parameters={"c": 0.7}),
        Equation(["a_t = -a*a_x - b*a_y", "b_t = -a*b_x - b*b_y"]),
        Equation("w_t = psi_x*w_y - psi_y*w_x", constraints=["laplacian(psi) - 2*psi = -w"], unknowns=("w",)),
        Equation(
            ["w_t = psi_x*w_y - psi_y*w_x + b_x", "b_t = psi_x*b_y - psi_y*b_x - psi_x"],
            constraints=["laplacian(psi) = -w"],
        ),
    ],
    ids=str,
)
def test_rewritten_equals_written(equation: Equation, ring: Callable[..., Grid], smooth: Callable[..., Tensor]) -> None:
    """A coefficient field of value 1 before the right side keeps products as they are written."""
    grid = ring(27, 21)
    masked = [f"{text.split('=')[0]}= f1*({text.split('=')[1]})" for text in equation.texts]
    written = Equation(
        masked, constraints=equation.constraints, unknowns=equation.unknowns, parameters=equation.parameters
    )
    state = torch.stack([smooth(grid, seed=k) for k in range(len(equation.unknowns))])
    state = state[0] if len(equation.unknowns) == 1 else state
    found = discretize_spectral(equation, grid, {}, {}, Spectral("none"))
    expected = discretize_spectral(
        written, grid, {"f1": torch.ones(grid.shape, dtype=torch.float64)}, {}, Spectral("none")
    )
    assert len(found.plan.inputs) + len(found.plan.products) <= len(expected.plan.inputs) + len(expected.plan.products)
    rate = expected.rate(state, 0.0)
    assert float((found.rate(state, 0.0) - rate).abs().max()) < 1e-12 * float(rate.abs().max())
