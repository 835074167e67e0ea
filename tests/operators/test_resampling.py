"""Fields at the unknowns of other grids: what stays, and at which order the rest is right."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciml import Grid, Neumann, Periodic
from sciml.operators.resampling import resample


@pytest.mark.parametrize(("old", "new"), [(12, 4), (12, 5), (7, 6), (9, 1)])
def test_coarser_cells_hold_the_means(old: int, new: int) -> None:
    x = torch.randn(2, 3, old, 5, dtype=torch.float64)
    coarse = resample(x, (new, 5), (False, False))
    torch.testing.assert_close(coarse.mean(2), x.mean(2))
    if old % new == 0:
        torch.testing.assert_close(coarse, x.reshape(2, 3, new, old // new, 5).mean(3))


@pytest.mark.parametrize("new", [8, 9, 16, 23])
def test_lines_are_exact_up_to_the_walls(new: int) -> None:
    def line(n: int) -> Tensor:
        x, y = Grid((n, 6), upper=(2.0, 1.0)).coordinates
        return 1 + 3 * x - 2 * y

    torch.testing.assert_close(resample(line(8), (new, 6), (False, False)), line(new))


@pytest.mark.parametrize("factor", [2.0, 1.5, 0.5])
@pytest.mark.parametrize("boundary", [Neumann(0.0), Periodic()], ids=["walls", "periodic"])
def test_second_order(boundary: Neumann | Periodic, factor: float) -> None:
    def field(grid: Grid) -> Tensor:
        x, y = grid.coordinates
        return torch.sin(2 * math.pi * x + 0.3) * torch.cos(2 * math.pi * y)

    errors = []
    for n in (24, 48, 96):
        old, new = (Grid((k, k), boundary=boundary) for k in (n, int(n * factor)))
        difference = resample(field(old), new.shape, new.periodic) - field(new)
        errors.append(float(difference.square().mean().sqrt()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2.0, abs=0.1)


def test_a_single_cell_and_the_dtype() -> None:
    assert resample(torch.ones(1, 1), (3, 2), (False, True)).tolist() == [[1.0, 1.0]] * 3
    assert resample(torch.ones(4, 3), (8, 6), (False, True)).dtype == torch.float32
