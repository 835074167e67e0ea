"""Meshes whose inner points are moved at random, and problems with known solutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sciml import Mesh


def unstructured(n: int, dimension: int, seed: int = 0) -> Mesh:
    """The unit square or cube, n intervals an axis, with the inner points moved by up to a fifth of a spacing."""
    box = Mesh.box((n,) * dimension, (0.0,) * dimension, (1.0,) * dimension)
    generator = torch.Generator().manual_seed(seed)
    inner = torch.ones(len(box.points), dtype=torch.bool)
    inner[box.facets.reshape(-1)] = False
    moves = (torch.rand(box.points.shape, generator=generator, dtype=torch.float64) - 0.5) * 0.4 / n
    return Mesh(torch.where(inner[:, None], box.points + moves, box.points), box.cells, box.boundaries)


@pytest.fixture(name="unstructured")
def unstructured_fixture() -> Callable[..., Mesh]:
    return unstructured
