"""What of a field a spectral discretization keeps, and says where it does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import sciml
from sciml.equations import Equation
from sciml.grid import Grid
from sciml.scheme import Spectral
from sciml.spectral import discretize_spectral

Rings = Callable[..., Grid]


def largest(difference: Tensor) -> float:
    return float(difference.abs().max())


@pytest.mark.parametrize("scheme", [None, Spectral("2/3"), Spectral("3/2")])
def test_nothing_is_cut_where_nothing_is_multiplied(ring: Rings, scheme: Spectral | None) -> None:
    """Heat from every wave that 64 points can hold, with a forcing of high wavenumber."""
    grid = ring(64)
    (x,) = grid.coordinates
    equation = Equation("u_t = nu*u_xx + f", parameters={"nu": 0.01})
    initial = torch.cos(25 * x) + torch.cos(32 * x) + torch.sin(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = sciml.evolve(
            equation,
            grid,
            initial=initial,
            times=[0.0, 0.2],
            fields={"f": lambda x, t: torch.cos(30 * x)},
            scheme=scheme,
            rtol=1e-9,
        )
    decays = {k: float(torch.exp(torch.tensor(-0.01 * 0.2 * k**2, dtype=torch.float64))) for k in (1, 25, 30, 32)}
    exact = decays[25] * torch.cos(25 * x) + decays[32] * torch.cos(32 * x) + decays[1] * torch.sin(x)
    exact = exact + (1 - decays[30]) / 9 * torch.cos(30 * x)
    assert largest(solution.value[0] - initial) < 1e-14
    assert largest(solution.value[-1] - exact) < 1e-8
    assert "nothing is multiplied" in solution.notes[0]


def test_two_points(ring: Rings) -> None:
    u = torch.tensor([1.0, 2.0], dtype=torch.float64)
    system = discretize_spectral(Equation("u_t = u_xx"), ring(2), {}, {})
    assert largest(system.decode(system.encode(u)) - u) == 0
    assert largest(system.rate(u, 0.0) - torch.tensor([0.5, -0.5], dtype=torch.float64)) < 1e-15


def test_an_odd_constraint_keeps_its_solution(ring: Rings) -> None:
    """psi_x = w is singular at the highest cosine, which is cut off as where products are formed."""
    grid = ring(16)
    (x,) = grid.coordinates
    equation = Equation("w_t = psi", constraints=["psi_x = w"], unknowns=("w",))
    system = discretize_spectral(equation, grid, {}, {})
    assert largest(system.rate(torch.cos(3 * x), 0.0) - torch.sin(3 * x) / 3) < 1e-14


@pytest.mark.parametrize(
    ("dealias", "advice"), [("2/3", r"dealias='3/2'\) keeps those below n/2"), ("3/2", "n/2 of n")]
)
def test_what_is_cut_is_said(ring: Rings, dealias: str, advice: str) -> None:
    """One part in five of the square of the field in one row; nothing is said of rounding, or where all is kept."""
    grid = ring(64)
    (x,) = grid.coordinates
    equation = Equation("u_t = -u*u_x + u_xx")
    high = 25 if dealias == "2/3" else 32
    smooth = torch.sin(x) + torch.cos(20 * x)
    rough = torch.sin(x) + (0.5 if high == 25 else 0.5**1.5) * torch.cos(high * x)
    system = discretize_spectral(equation, grid, {}, {}, Spectral(dealias))
    with pytest.warns(UserWarning, match=rf"^0.2 of the square of the given field is dropped.*{advice}"):
        y = system.encode(torch.stack([smooth, rough]))
    assert largest(system.decode(y)[0] - smooth) < 1e-14
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        system.encode(smooth + 1e-9 * torch.cos(high * x))
        system.encode(0 * x)
        discretize_spectral(equation, grid, {}, {}, Spectral("none")).encode(rough)
