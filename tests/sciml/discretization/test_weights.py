"""Difference weights and the polynomial closures at walls."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from sciml.boundary import Dirichlet, Periodic
from sciml.discretization.differences import differentiate
from sciml.discretization.weights import central_weights, derivative_weights
from sciml.errors import InputError
from sciml.grid import Grid


@pytest.mark.parametrize(
    ("order", "accuracy", "expected"),
    [
        (0, 2, {0: 1.0}),
        (1, 2, {-1: -0.5, 1: 0.5}),
        (2, 2, {-1: 1.0, 0: -2.0, 1: 1.0}),
        (1, 4, {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}),
        (2, 4, {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12}),
        (3, 2, {-2: -0.5, -1: 1.0, 1: -1.0, 2: 0.5}),
        (4, 2, {-2: 1.0, -1: -4.0, 0: 6.0, 1: -4.0, 2: 1.0}),
        (3, 4, {-3: 1 / 8, -2: -1.0, -1: 13 / 8, 1: -13 / 8, 2: 1.0, 3: -1 / 8}),
    ],
)
def test_central_weights(order: int, accuracy: int, expected: dict[int, float]) -> None:
    assert dict(central_weights(order, accuracy)) == expected


@pytest.mark.parametrize("order", range(4))
def test_weights_are_exact_for_polynomials(order: int) -> None:
    nodes = tuple(Fraction(2 * k + 1, 2) for k in range(5))
    at = Fraction(-3, 2)
    weights = derivative_weights(nodes, order, at)
    for power in range(5):
        exact = float(at) ** (power - order) if power >= order else 0.0
        for factor in range(order):
            exact *= power - factor
        found = sum(w * float(node) ** power for w, node in zip(weights, nodes, strict=True))
        assert found == pytest.approx(exact, abs=1e-11)


@pytest.mark.parametrize("boundary", [Dirichlet(), Periodic()])
@pytest.mark.parametrize("accuracy", [2, 4])
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_of_coefficients_converge(boundary: Dirichlet | Periodic, accuracy: int, order: int) -> None:
    def error(n: int) -> float:
        grid = Grid((3, n), upper=(1.0, 6.283185307179586), boundary={"x": Dirichlet(), "y": boundary})
        y = grid.coordinates[1]
        found = differentiate(torch.sin(y + 0.3), grid, 1, order, accuracy, "a")
        exact = torch.cos(y + 0.3) if order == 1 else -torch.sin(y + 0.3)
        return float((found - exact).abs().max())

    assert error(80) < 1.1 * 2.0**-accuracy * error(40)


def test_derivatives_need_cells() -> None:
    with pytest.raises(InputError, match="field 'a': its derivative needs at least 5 cells along x, there are 4"):
        differentiate(torch.ones(4, dtype=torch.float64), Grid(4), 0, 1, 4, "field 'a'")
