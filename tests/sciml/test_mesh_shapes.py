"""Meshes that are made: boxes and Delaunay; refined, with names; and how well shaped they are."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.mesh import Mesh
from sciml.mesh_refinement import _DIAGONALS, refine
from sciml.mesh_simplices import edges_of, signed_volumes


def random_points(count: int, d: int, seed: int = 0) -> Tensor:
    return torch.rand(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def total(values: Tensor, part: Tensor) -> float:
    return float(values[part].sum())


# Boxes


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (1, 1, 1), (3, 1, 2)])
def test_a_box_has_its_volume_its_sides_and_conforming_cells(shape: tuple[int, ...]) -> None:
    d = len(shape)
    lower, upper = (-1.0, 0.0, 2.0)[:d], (1.0, 0.5, 5.0)[:d]
    lengths = [b - a for a, b in zip(lower, upper, strict=True)]
    mesh = Mesh.box(shape, lower, upper)
    assert len(mesh.cells) == math.factorial(d) * math.prod(shape)
    assert float(mesh.volume) == pytest.approx(math.prod(lengths), rel=1e-14)
    for axis, name in enumerate("xyz"[:d]):
        area = math.prod(lengths) / lengths[axis]
        for sign, side, place in ((-1.0, "lower", lower[axis]), (1.0, "upper", upper[axis])):
            part = mesh.boundary(f"{name}_{side}")
            assert total(mesh.facet_areas, part) == pytest.approx(area, rel=1e-14)
            normal = torch.zeros(d, dtype=torch.float64)
            normal[axis] = sign
            torch.testing.assert_close(mesh.facet_normals[part], normal.expand(len(part), d))
            assert bool((mesh.points[mesh.boundary_points(f"{name}_{side}")][:, axis] == place).all())
    assert sum(len(part) for name, part in mesh.boundaries.items() if name != "exterior") == len(mesh.facets)


def test_points_of_a_box_are_in_the_order_of_meshgrid() -> None:
    mesh = Mesh.box((3, 2, 4), 0.0, (3.0, 2.0, 4.0), dtype=torch.float32)
    grids = torch.meshgrid(*(torch.arange(n + 1.0) for n in (3, 2, 4)), indexing="ij")
    for coordinate, grid in zip(mesh.coordinates, grids, strict=True):
        assert torch.equal(coordinate.reshape(4, 3, 5), grid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3,),), "shape is two or three positive integers"),
        (((3, 0),), "shape is two or three positive integers"),
        (((3, 2.0),), "shape is two or three positive integers"),
        (((3, 2), (0, 0, 0)), "lower is one number for each of the 2 axes"),
        (((3, 2), 0, (1, math.inf)), "upper is one finite number an axis"),
        (((3, 2), (0, 1), 1), "upper must be greater than lower; along y they are 1.0 and 1.0"),
    ],
)
def test_boxes_that_are_none_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mesh.box(*arguments)


# Delaunay


@pytest.mark.parametrize("d", [2, 3])
def test_a_delaunay_mesh_fills_the_convex_hull(d: int) -> None:
    from scipy.spatial import ConvexHull

    points = random_points(60, d)
    mesh = Mesh.delaunay(points, smallest_radius_ratio=0.0)
    hull = ConvexHull(points.numpy())
    assert float(mesh.volume) == pytest.approx(hull.volume, rel=1e-12)
    assert float(mesh.facet_areas.sum()) == pytest.approx(hull.area, rel=1e-12)
    assert torch.equal(mesh.points, points)


def test_slivers_along_straight_sides_are_taken_off() -> None:
    side = torch.linspace(0, 1, 21, dtype=torch.float64)
    noise = 1e-12 * random_points(21, 1)[:, 0]
    zero = torch.zeros(21, dtype=torch.float64)
    sides = [torch.stack(pair, 1) for pair in ((side, noise), (side, 1 - noise))]
    inner = 0.1 + 0.8 * random_points(100, 2, seed=1)
    corners = torch.stack((zero[:2], side[[0, -1]]), 1)
    points = torch.cat((*sides, corners + torch.tensor([0.0, 0.0]), inner)).unique(dim=0)
    assert Mesh.delaunay(points, smallest_radius_ratio=0.0).quality().smallest_radius_ratio < 1e-9
    mesh = Mesh.delaunay(points)
    assert mesh.quality().smallest_radius_ratio > 1e-3
    assert float(mesh.volume) == pytest.approx(1.0, abs=1e-10)


def test_holes_by_a_predicate() -> None:
    angle = torch.arange(64, dtype=torch.float64) * (2 * math.pi / 64)
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    mesh = Mesh.delaunay(torch.cat((circle, 0.75 * circle, 0.5 * circle)), inside=lambda x, y: x**2 + y**2 > 0.3)
    polygon = 32 * math.sin(2 * math.pi / 64)
    assert float(mesh.volume) == pytest.approx(polygon * (1 - 0.25), rel=1e-12)
    named = mesh.with_boundaries({"hole": lambda x, y: x**2 + y**2 < 0.3})
    assert total(named.facet_areas, named.boundary("hole")) == pytest.approx(64 * math.sin(math.pi / 64), rel=1e-12)


def test_points_given_twice_are_dropped() -> None:
    points = random_points(10, 2)
    mesh = Mesh.delaunay(torch.cat((points, points[:3])))
    assert len(mesh.points) == 10


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], "these 4 points span no mesh; 3 or more are needed"),
        ([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], "these 2 points span no mesh; 4 or more are needed, not all on one plane"),
        ([[0.0, 0.0], [1.0, 0.0], [0.0, math.nan]], "a coordinate is NaN or infinite"),
        ([[0.0], [1.0]], r"points has shape \(2, 1\)"),
    ],
)
def test_points_that_span_no_mesh_are_refused(points: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mesh.delaunay(points)


def test_settings_of_delaunay_are_checked() -> None:
    points = torch.rand(30, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for inside, message in [
        (lambda x: x < 1, r"inside: the function does not take the 2 coordinates \(x, y\)"),
        (lambda x, y: x, r"inside must return a bool tensor of shape .*torch.float64"),
        (lambda x, y: (x < 1).all(), r"inside must return a bool tensor of shape \(\d+,\)"),
        (3, "inside is a function of the centres of cells, got 3"),
    ]:
        with pytest.raises(InputError, match=message):
            Mesh.delaunay(points, inside=inside)  # type: ignore[arg-type]
    for ratio in ("a", True, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"smallest_radius_ratio must be a number in \[0, 1\], got"):
            Mesh.delaunay(points, smallest_radius_ratio=ratio)  # type: ignore[arg-type]


def test_a_predicate_that_takes_every_cell_out_is_refused() -> None:
    with pytest.raises(InputError, match="`inside` is false at the centres of all"):
        Mesh.delaunay(random_points(5, 2), inside=lambda x, y: x > 2)


# Refinement


@pytest.mark.parametrize("d", [2, 3])
def test_refinement_keeps_volumes_names_and_numbers(d: int) -> None:
    mesh = Mesh.delaunay(random_points(20, d)).with_regions({"left": lambda x, *_: x < 0.5})
    part = (mesh.facet_centres[:, 0] < 0.5).nonzero().flatten()
    mesh = mesh.with_boundaries({"left": part})
    finer = mesh.refine(2)
    children = 4**d
    assert len(finer.cells) == children * len(mesh.cells)
    assert torch.equal(finer.points[: len(mesh.points)], mesh.points)
    torch.testing.assert_close(finer.volumes, mesh.volumes.repeat_interleave(children) / children)
    assert torch.equal(finer.region("left") // children, mesh.region("left").repeat_interleave(children))
    assert len(finer.boundary("left")) == len(part) * 4 ** (d - 1)
    assert total(finer.facet_areas, finer.boundary("left")) == pytest.approx(total(mesh.facet_areas, part), rel=1e-13)
    assert float(finer.facet_areas.sum()) == pytest.approx(float(mesh.facet_areas.sum()), rel=1e-13)


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 2)])
def test_a_refined_ball_has_the_euler_characteristic_of_a_ball(shape: tuple[int, ...]) -> None:
    mesh = Mesh.box(shape).refine()
    edges, _ = edges_of(mesh.cells, len(mesh.points))
    if mesh.dimension == 2:
        assert len(mesh.points) - len(edges) + len(mesh.cells) == 1
    else:
        triangles = (4 * len(mesh.cells) + len(mesh.facets)) // 2
        assert len(mesh.points) - len(edges) + triangles - len(mesh.cells) == 1


def test_a_refined_box_is_the_finer_box() -> None:
    """Bey's choice of the diagonal makes of the Kuhn subdivision the next one."""
    for shape in ((3, 2), (2, 1, 3)):
        refined, finer = Mesh.box(shape).refine(), Mesh.box([2 * n for n in shape])
        scale = torch.tensor([2.0 * n for n in shape], dtype=torch.float64)

        def corners(mesh: Mesh, scale: Tensor = scale) -> set[Any]:
            places = (mesh.points * scale).round().long()
            return {tuple(sorted(map(tuple, cell))) for cell in places[mesh.cells].tolist()}

        assert corners(refined) == corners(finer)


def test_the_inner_diagonal_gives_the_worst_child_its_best_mean_ratio() -> None:
    points = random_points(200 * 4, 3)
    cells = torch.arange(800).reshape(-1, 4)
    fine, children, _ = refine(points, cells, {})
    _, cell_edges = edges_of(cells, 800)
    local = torch.cat((cells, 800 + cell_edges), 1)

    def worst(candidates: Tensor) -> Tensor:
        """The largest sum of squared edges over volume^(2/3) among the cells of each row, `(m, k, 4)`."""
        corners = fine[candidates]
        squares = sum((corners[..., i, :] - corners[..., j, :]).square().sum(-1) for i, j in combinations(range(4), 2))
        volumes = signed_volumes(fine, candidates.reshape(-1, 4)).abs().reshape(candidates.shape[:-1])
        return (squares / volumes ** (2 / 3)).amax(1)

    choices = []
    for (p, q), ring in _DIAGONALS:
        pieces = [local[:, [p, q, ring[k], ring[(k + 1) % 4]]] for k in range(4)]
        choices.append(worst(torch.stack(pieces, 1)))
    best = torch.stack(choices, 1).amin(1)
    torch.testing.assert_close(worst(children.reshape(200, 8, 4)[:, 4:]), best)
    signs = signed_volumes(fine, children).sign().reshape(200, 8)
    assert torch.equal(signs, signed_volumes(points, cells).sign()[:, None].expand(200, 8)), "children turn as parents"


def test_repeated_refinement_does_not_spoil_the_shapes() -> None:
    mesh = Mesh.delaunay(random_points(12, 3))
    first = mesh.refine().quality().smallest_radius_ratio
    assert mesh.refine(4).quality().smallest_radius_ratio > 0.7 * first


def test_gradients_pass_through_refinement() -> None:
    points = Mesh.box((1, 1, 1)).points.clone().requires_grad_()
    cells = Mesh.box((1, 1, 1)).cells
    (coarse,) = torch.autograd.grad(Mesh(points, cells).volumes.square().sum(), points)
    (fine,) = torch.autograd.grad(Mesh(points, cells).refine().volumes.square().sum() * 8, points)
    torch.testing.assert_close(fine, coarse)


def test_refinement_by_no_number_is_refused() -> None:
    mesh = Mesh.box((1, 1))
    assert mesh.refine(0) is mesh
    for times in (-1, 1.5, True):
        with pytest.raises(InputError, match="times is a whole number from 0 on"):
            mesh.refine(times)  # type: ignore[arg-type]


# Quality


@pytest.mark.parametrize(
    ("points", "angles", "ratio", "edges"),
    [
        ([[0, 0], [1, 0], [0.5, math.sqrt(0.75)]], (60, 60), 1.0, (1, 1)),
        ([[0, 0], [4, 0], [0, 3]], (math.degrees(math.atan(3 / 4)), 90), 0.8, (3, 5)),
        ([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], (70.528779366, 70.528779366), 1.0, (8**0.5, 8**0.5)),
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], (54.735610317, 90), math.sqrt(3) - 1, (1, 2**0.5)),
    ],
)
def test_quality_of_known_cells(points: Any, angles: Any, ratio: float, edges: Any) -> None:
    mesh = Mesh(points, [list(range(len(points)))])
    quality = mesh.quality()
    assert (quality.smallest_angle, quality.largest_angle) == pytest.approx(angles, abs=1e-6)
    assert quality.smallest_radius_ratio == pytest.approx(ratio, rel=1e-12)
    assert quality.mean_radius_ratio == pytest.approx(ratio, rel=1e-12)
    assert (quality.shortest_edge, quality.longest_edge) == pytest.approx(edges)
    assert quality.largest_volume == quality.smallest_volume == float(mesh.volume)


def test_quality_of_many_cells_names_the_worst() -> None:
    mesh = Mesh.box((200, 200))  # more than one chunk
    points = mesh.points.clone()
    points[101 * 201 + 101] += torch.tensor([0.004, 0.0], dtype=torch.float64)
    quality = Mesh(points, mesh.cells).quality()
    assert 101 * 201 + 101 in mesh.cells[quality.worst_cell].tolist()
    assert quality.cells == 80000
    assert quality.smallest_angle == pytest.approx(45 - math.degrees(math.atan(0.8)), rel=1e-10)
    text = str(quality)
    assert f"(cell {quality.worst_cell})" in text
    assert text.startswith("80000 triangles\nangles from ")
