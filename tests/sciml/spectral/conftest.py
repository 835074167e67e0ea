"""What the tests of spectral discretizations share."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import pytest
import torch
from torch import Tensor

from sciml.boundary import Periodic
from sciml.grid import Grid


@pytest.fixture
def ring() -> Callable[..., Grid]:
    """A periodic grid of length 2 pi times a factor an axis."""

    def make(*shape: int, length: float | tuple[float, ...] = 2 * pi, dtype: torch.dtype = torch.float64) -> Grid:
        return Grid(shape, 0.0, length, boundary=Periodic(), dtype=dtype)

    return make


@pytest.fixture
def smooth() -> Callable[..., Tensor]:
    """A random field of few wavenumbers, `(*batch, *shape)`, of zero mean."""

    def make(grid: Grid, *batch: int, highest: int = 3, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros(*batch, *grid.shape, dtype=torch.float64)
        for _ in range(6):
            numbers = torch.randint(-highest, highest + 1, (grid.dimension,), generator=generator).tolist()
            if not any(numbers):
                continue
            phase = sum(
                2 * pi * n * x / (high - low)
                for n, x, low, high in zip(numbers, grid.coordinates, grid.lower, grid.upper, strict=True)
            )
            size, shift = torch.randn(2, *batch, *[1] * grid.dimension, generator=generator, dtype=torch.float64)
            total = total + size * torch.cos(phase + shift)
        return total.to(grid.dtype)

    return make
