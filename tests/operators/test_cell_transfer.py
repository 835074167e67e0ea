"""Cell averages and interpolation against other ways to compute them."""

from __future__ import annotations

from math import lcm

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sciml.operators.cell_transfer import average, interpolate

SIZES = [(8, 4), (9, 3), (7, 4), (4, 7), (65, 33), (5, 1), (1, 3), (6, 6)]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_averages_are_those_of_a_grid_that_has_both_as_parts(old: int, new: int) -> None:
    u = normal(2, old, 3)
    common = lcm(old, new)
    expected = u.repeat_interleave(common // old, 1).unflatten(1, (new, common // new)).mean(2)
    torch.testing.assert_close(average(u, (new, 3)), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_averages_around_the_nodes_of_a_circle(old: int, new: int) -> None:
    """The same with both grids turned by half of their cells."""
    u = normal(2, old, 3)
    common = 2 * lcm(old, new)
    fine = u.repeat_interleave(common // old, 1).roll(-common // old // 2, 1)
    expected = fine.roll(common // new // 2, 1).unflatten(1, (new, common // new)).mean(2)
    found = average(u, (new, 3), (True, False))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("old", "new"), [*SIZES, (4, 8), (33, 65), (33, 66)])
def test_interpolation_is_linear_between_cell_centres(old: int, new: int) -> None:
    u = normal(2, 3, old)
    expected = functional.interpolate(u, new, mode="linear", align_corners=False)
    torch.testing.assert_close(interpolate(u, (3, new), (False, False)), expected, rtol=1e-12, atol=1e-13)
    three = functional.interpolate(u.repeat(1, 1, 3), 3 * new, mode="linear", align_corners=False)
    wrapped = interpolate(u, (3, new), (False, True))
    torch.testing.assert_close(wrapped, three[..., new : 2 * new], rtol=1e-12, atol=1e-13)


def test_all_axes_are_resampled() -> None:
    """A product of functions stays a product of their resampled parts."""
    a, b, c = normal(5), normal(6), normal(7)
    u = torch.einsum("x,y,z->xyz", a, b, c)
    parts = average(a, (3,)), average(b, (12,)), average(c, (4,))
    torch.testing.assert_close(average(u, (3, 12, 4)), torch.einsum("x,y,z->xyz", *parts))
    flags = (True, False, True)
    lines = [interpolate(v, (n,), (wraps,)) for v, n, wraps in zip((a, b, c), (10, 4, 14), flags, strict=True)]
    torch.testing.assert_close(interpolate(u, (10, 4, 14), flags), torch.einsum("x,y,z->xyz", *lines))
