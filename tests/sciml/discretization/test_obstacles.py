"""Voxel obstacles against a matrix assembled by hand, cell by cell and face by face."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy
import pytest
import torch

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.discretization import discretize
from sciml.equations import Equation
from sciml.grid import Grid
from sciml.scheme import FiniteVolume

SHAPE = (5, 4, 3)
WALLS = [Neumann(0.3), Dirichlet(1.5), Robin(2.0, 0.7), Dirichlet(lambda x, y, z: x + 2 * y - z)]


def by_hand(grid: Grid, a: Any, b: Any, c: Any, f: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
    """-div(a grad u) + b u_x + c u = f: harmonic faces, central first derivative, ghosts u + h du/dn."""
    cells = list(product(*map(range, grid.shape)))
    number = {cell: k for k, cell in enumerate(cells)}
    matrix, right = numpy.zeros((len(cells), len(cells))), numpy.zeros(len(cells))
    for cell in cells:
        row = number[cell]
        if grid.solid is not None and grid.solid[cell]:
            matrix[row, row] = 1.0
            continue
        matrix[row, row] += c
        right[row] += f
        for axis, side in product(range(3), range(2)):
            h, n = grid.spacing[axis], grid.shape[axis]
            other = list(cell)
            other[axis] += 1 if side else -1
            condition: Any = None
            if grid.periodic[axis]:
                other[axis] %= n
            elif not 0 <= other[axis] < n:
                condition = grid.boundary["xyz"[axis]][side]
            if condition is None and grid.solid is not None and grid.solid[tuple(other)]:
                condition = grid.walls
            drift = (0.5 if side else -0.5) * b / h if axis == 0 else 0.0
            if condition is None:
                column = number[tuple(other)]
                face = 2 * a[cell] * a[tuple(other)] / (a[cell] + a[tuple(other)])
                matrix[row, row] += face / h**2
                matrix[row, column] += drift - face / h**2
                continue
            place = [float(coordinate[cell]) for coordinate in grid.coordinates]
            place[axis] += h / 2 if side else -h / 2
            # du/dn = r - s u
            if isinstance(condition, Dirichlet):
                value = condition.value(*place) if callable(condition.value) else condition.value
                r, s = 2 * value / h, 2 / h
            elif isinstance(condition, Neumann):
                r, s = condition.flux / a[cell], 0.0
            else:
                share = a[cell] + condition.coefficient * h / 2
                r, s = condition.value / share, condition.coefficient / share
            matrix[row, row] += a[cell] * s / h + drift * (1 - h * s)
            right[row] += a[cell] * r / h - drift * h * r
    return matrix, right


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("walls", WALLS)
def test_the_matrix_is_the_one_made_by_hand(walls: Any, seed: int, matrix_of: Callable) -> None:
    generator = torch.Generator().manual_seed(seed)
    solid = torch.rand(SHAPE, generator=generator) < 0.3
    a = 0.1 + torch.rand(SHAPE, dtype=torch.float64, generator=generator)
    boundary = {"x": (Dirichlet(1.0), Neumann(-0.4)), "y": Periodic(), "z": (Robin(1.0, 2.0), Dirichlet(0.5))}
    grid = Grid(SHAPE, upper=(1.0, 1.2, 0.7), boundary=boundary, solid=solid, walls=walls)
    equation = Equation("-div(a*grad(u)) + 3*u_x + 2*u = 5")
    system = discretize(equation, grid, {"a": a}, scheme=FiniteVolume(advection="central"))
    matrix, right = by_hand(grid, a.numpy(), 3.0, 2.0, 5.0)
    numpy.testing.assert_allclose(matrix_of(system).toarray(), matrix, rtol=1e-13, atol=1e-12)
    numpy.testing.assert_allclose(system.right_side.flatten().numpy(), right, rtol=1e-13, atol=1e-12)


def test_constant_diffusion_is_the_same_as_a_constant_field(matrix_of: Callable) -> None:
    solid = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.3
    grid = Grid(SHAPE, boundary=Robin(1.0, 2.0), solid=solid, walls=Dirichlet(1.0))
    ones = torch.full(SHAPE, 3.0, dtype=torch.float64)
    number = discretize(Equation("-div(a*grad(u)) = 1"), grid, {"a": 3.0})
    field = discretize(Equation("-div(a*grad(u)) = 1"), grid, {"a": ones})
    numpy.testing.assert_allclose(matrix_of(number).toarray(), matrix_of(field).toarray(), rtol=1e-13)
    torch.testing.assert_close(number.right_side, field.right_side)


def test_an_obstacle_cuts_the_flow(solve: Callable) -> None:
    """A solid layer through the box leaves each part with the value that holds it."""
    solid = torch.zeros(9, 4, dtype=torch.bool)
    solid[4] = True
    boundary = {"x": (Dirichlet(1.0), Dirichlet(2.0)), "y": Neumann()}
    u = solve(discretize(Equation("-laplacian(u) = 0"), Grid((9, 4), boundary=boundary, solid=solid)))
    torch.testing.assert_close(u[:4], torch.ones(4, 4, dtype=torch.float64))
    torch.testing.assert_close(u[5:], torch.full((4, 4), 2.0, dtype=torch.float64))
    assert (u[4] == 0.0).all()


def test_walls_by_unknown() -> None:
    solid = torch.zeros(4, 4, dtype=torch.bool)
    solid[1, 1] = True
    equation = Equation(["-laplacian(u) = 0", "-laplacian(v) = 0"], unknowns=["u", "v"])
    grid = Grid((4, 4), solid=solid, walls={"u": Dirichlet(1.0), "v": Neumann(1.0)})
    system = discretize(equation, grid)
    assert float(system.right_side[0, 1, 0]) == pytest.approx(2 * 16)
    assert float(system.right_side[1, 1, 0]) == pytest.approx(4)
