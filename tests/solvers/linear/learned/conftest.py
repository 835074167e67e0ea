"""Boxes on which networks are trained and tried."""

from __future__ import annotations

import pytest
import torch

import sciml


class Boxes:
    """-laplacian(u) = f on a box of n cells an axis."""

    @staticmethod
    def operator(n, dimension=3, boundary=None, solid=None):
        grid = sciml.Grid((n,) * dimension, boundary=boundary or sciml.Dirichlet(0.0), solid=solid)
        return sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, fields={"f": 0.0}).operator

    @staticmethod
    def field(*shape, seed=1):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="session")
def boxes():
    return Boxes()
