"""The problems of the suite `geometry`, and one run of all of it at its smallest."""

from __future__ import annotations

import pytest
import torch

from sciml.benchmarks.bench import Bench
from sciml.benchmarks.geometry import coefficients, meshes, nonlinear, plan, scans
from sciml.surfaces import surface_check


def test_the_surface_is_closed_and_waves():
    points, triangles = scans.bumpy_sphere(2_000)
    check = surface_check(points, triangles)
    assert check.closed
    assert abs(len(triangles) - 2_000) < 100
    radii = points.norm(dim=1)
    assert 0.3 < float(radii.min()) < 0.36 < 0.44 < float(radii.max()) < 0.5


def test_blocks_are_constant_and_span_six_orders():
    problem = coefficients.blocks(64, "cpu")
    diagonal = problem.operator.diagonal()
    inside = diagonal[1:7, 1:7] / 64**2  # within the first block all four faces have its value
    torch.testing.assert_close(inside, inside[0, 0].expand(6, 6))
    assert float(diagonal.max() / diagonal.min()) > 1e4


@pytest.mark.parametrize("swapped", [False, True])
def test_stretched_couplings_differ_by_the_square_of_the_ratio(swapped):
    operator = coefficients.stretched(8, "cpu", 64, swapped).operator
    entries = {
        offset: float(c.reshape(-1)[0]) for offset, c in zip(operator.offsets, operator.coefficients, strict=True)
    }
    along_x, along_y = entries[1, 0], entries[0, 1]
    assert (along_y / along_x if swapped else along_x / along_y) == pytest.approx(64)


def test_every_figure_follows_from_the_rows_of_some_case():
    """The names of cases and methods in the figures are those that the cases write."""
    cases = {case.name for size in plan.EXTENTS for case in plan.plan(size, "cpu").cases}
    for case in (
        coefficients.thresholded_case(421),
        coefficients.blocks_case(421),
        coefficients.stretched_case(256),
        *(coefficients.anisotropic_case(256, angle) for angle in plan.ANGLES),
        scans.voxels_case(128),
        scans.voxels_case(256),
        meshes.assembly_case((224, 224)),
        meshes.tetrahedra_case(58),
        nonlinear.newton_case(512),
    ):
        assert case in cases


def test_every_case_runs_and_is_solved():
    bench = Bench("geometry", "tiny", "cpu", lambda line: None)
    for case in plan.plan("tiny", "cpu").cases:
        rows = case.measure(bench)
        assert rows, case.name
        for row in rows:
            if "is not installed" in row.extra.get("failure", ""):
                continue
            assert "failure" not in row.extra, row.extra
            assert not row.extra.get("missed"), row
