"""The systems that tuners are tried on."""

from __future__ import annotations

import pytest
import torch

import sciml
from sciml.linear_operator import LinearOperator


@pytest.fixture
def laplacian():
    """c -> -laplacian + c / h^2 on n x n points of the unit square."""

    def make(shift: float = 0.0, n: int = 10) -> LinearOperator:
        grid = sciml.Grid((n, n), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
        equation = sciml.Equation("-laplacian(u) + c*u = f", parameters={"c": shift * n * n})
        return sciml.discretize(equation, grid, {"f": 0.0}).operator

    return make


@pytest.fixture
def right_side():
    """Random right sides `(*batch, n, n)`."""

    def make(seed: int = 0, n: int = 10, batch: tuple[int, ...] = ()) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((*batch, n, n), generator=generator, dtype=torch.float64)

    return make
