"""Fields at the points of other grids: what stays, and at which order the rest is right."""

from __future__ import annotations

import math
from math import lcm

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sciml import Grid, Neumann, Periodic
from sciml.operators.resampling import resample


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def places(n: int, periodic: bool, nodes: bool) -> Tensor:
    if nodes:
        return torch.linspace(0, 1, n + periodic, dtype=torch.float64)[:n]
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


KINDS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize(("old", "new"), [(8, 4), (9, 3), (12, 4), (9, 1)])
def test_cells_made_of_whole_cells_have_their_means(old: int, new: int) -> None:
    u = normal(2, 3, old, 5)
    torch.testing.assert_close(resample(u, (new, 5), (False, False)), u.unflatten(2, (new, old // new)).mean(3))


@pytest.mark.parametrize(("old", "new"), [(8, 4), (9, 3), (24, 4)])
def test_points_of_a_circle_have_the_means_over_the_cells_around_them(old: int, new: int) -> None:
    """Those of the field that is constant in the cells around the points of the finer grid."""
    u, common = normal(2, old, 3), 2 * lcm(old, new)
    fine = u.repeat_interleave(common // old, 1).roll(-common // old // 2, 1)
    expected = fine.roll(common // new // 2, 1).unflatten(1, (new, common // new)).mean(2)
    torch.testing.assert_close(resample(u, (new, 3), (True, False)), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("old", "new"), [(4, 8), (33, 65), (33, 66), (5, 7), (1, 3)])
def test_interpolation_of_cells_agrees_with_that_of_torch(old: int, new: int) -> None:
    u, cells = normal(2, 3, old), {"nodes": (False, False), "held": True}
    expected = functional.interpolate(u, new, mode="linear", align_corners=False)
    torch.testing.assert_close(resample(u, (3, new), (False, False), **cells), expected, rtol=1e-12, atol=1e-13)
    three = functional.interpolate(u.repeat(1, 1, 3), 3 * new, mode="linear", align_corners=False)
    wrapped = resample(u, (3, new), (False, True), **cells)
    torch.testing.assert_close(wrapped, three[..., new : 2 * new], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("old", "new"), [(4, 8), (33, 65), (17, 23), (2, 3)])
def test_interpolation_of_nodes_agrees_with_that_of_torch(old: int, new: int) -> None:
    u = normal(2, 3, old)
    expected = functional.interpolate(u, new, mode="linear", align_corners=True)
    torch.testing.assert_close(resample(u, (3, new), (False,) * 2, nodes=(True,) * 2), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("nodes", "to"), [(a, b) for a in (False, True) for b in (False, True)])
@pytest.mark.parametrize("new", [4, 6, 8, 9, 16, 23])
def test_lines_are_exact_up_to_the_walls(new: int, nodes: bool, to: bool) -> None:
    u = torch.stack([3 * places(8, False, nodes) - 1] * 2, 1)
    found = resample(u, (new, 2), (False, True), nodes=(nodes, True), to=(to, True))
    torch.testing.assert_close(found[:, 0], 3 * places(new, False, to) - 1)


@pytest.mark.parametrize("factor", [2.0, 1.5, 2 / 3, 0.5, 1 / 3])
@pytest.mark.parametrize(("before", "after"), [(a, b) for a in KINDS for b in KINDS if a[0] == b[0]])
def test_second_order(before: tuple[bool, bool], after: tuple[bool, bool], factor: float) -> None:
    def field(n: int, kind: tuple[bool, bool]) -> Tensor:
        return torch.sin(2 * math.pi * places(n, *kind) + 0.3)

    errors = []
    for n in (24, 48, 96):
        new = round(n * factor)
        found = resample(field(n, before), (new,), before[:1], nodes=before[1:], to=after[1:])
        errors.append(float((found - field(new, after)).square().mean().sqrt()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2.0, abs=0.12)


def test_a_grid_has_nodes_along_its_periodic_axes() -> None:
    def field(n: int) -> Tensor:
        x, y = Grid((n, n), boundary={"x": Periodic(), "y": Neumann(0.0)}).coordinates
        return torch.sin(2 * math.pi * x) * (1 + 2 * y)

    found = resample(field(96), (192, 48), (True, False))
    assert float((found[::2] - field(96).unflatten(1, (48, 2)).mean(2)).abs().max()) < 1e-12


@pytest.mark.parametrize(("nodes", "to"), [(a, b) for a in (False, True) for b in (False, True)])
@pytest.mark.parametrize("new", [3, 7, 16, 40])
def test_what_is_held_stays_in_its_range(new: int, nodes: bool, to: bool) -> None:
    u = normal(16)
    found = resample(u, (new,), (False,), nodes=(nodes,), to=(to,), held=True)
    assert float(u.min()) - 1e-12 <= float(found.min()) and float(found.max()) <= float(u.max()) + 1e-12
    if nodes and to:
        torch.testing.assert_close(found[[0, -1]], u[[0, -1]])


def test_all_axes_are_resampled() -> None:
    """A product of functions stays a product of their resampled parts."""
    parts = normal(5), normal(6), normal(7)
    flags, shape = (True, False, True), (10, 4, 14)
    lines = [resample(v, (n,), (wraps,)) for v, n, wraps in zip(parts, shape, flags, strict=True)]
    found = resample(torch.einsum("x,y,z->xyz", *parts), shape, flags)
    torch.testing.assert_close(found, torch.einsum("x,y,z->xyz", *lines))


def test_a_single_cell_and_the_dtype() -> None:
    assert resample(torch.ones(1, 1), (3, 2), (False, True)).tolist() == [[1.0, 1.0]] * 3
    assert resample(torch.ones(1), (3,), (False,), nodes=(True,), to=(False,)).tolist() == [1.0] * 3
    assert resample(torch.ones(4, 3), (8, 6), (False, True)).dtype == torch.float32
