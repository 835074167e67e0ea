"""Voxels inside surfaces, against solids with formulas, against the solid angle summed up, and on ties."""

from __future__ import annotations

from itertools import permutations
from math import pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml import surface_check, surface_volume
from sciml.boundary import Dirichlet, Periodic
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.kernels import build, voxels
from sciml.mesh import Mesh

Surface = tuple[Tensor, Tensor]

BOX = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Surface:
    """Twelve triangles."""
    points = torch.cartesian_prod(*(torch.tensor(ends, dtype=torch.float64) for ends in zip(low, high, strict=True)))
    return points, torch.tensor([(q[0], q[k], q[k + 1]) for q in BOX for k in (1, 2)])


def sphere(radius: float = 1.0, splits: int = 3, centre: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Surface:
    """An octahedron whose triangles are split in four, `splits` times, onto the sphere."""
    points = torch.eye(3, dtype=torch.float64)
    points = torch.cat([points, -points])
    faces = [
        (x, y, z) if (x // 3 + y // 3 + z // 3) % 2 == 0 else (x, z, y) for x in (0, 3) for y in (1, 4) for z in (2, 5)
    ]
    corners = points[torch.tensor(faces)]
    for _ in range(splits):
        a, b, c = corners.unbind(1)
        ab, bc, ca = (torch.nn.functional.normalize(p + q, dim=-1) for p, q in ((a, b), (b, c), (c, a)))
        parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        corners = torch.cat([torch.stack(part, 1) for part in parts])
    places = radius * corners.reshape(-1, 3) + torch.tensor(centre, dtype=torch.float64)
    return places, torch.arange(len(places)).reshape(-1, 3)


def torus(major: float, minor: float, around: int, across: int) -> Surface:
    u = 2 * pi * torch.arange(around, dtype=torch.float64)[:, None] / around
    v = 2 * pi * torch.arange(across, dtype=torch.float64) / across
    ring = major + minor * v.cos()
    points = torch.stack([ring * u.cos(), ring * u.sin(), (minor * v.sin()).expand(around, -1)], -1)
    i, j = torch.meshgrid(torch.arange(around), torch.arange(across), indexing="ij")
    k, m = (i + 1) % around, (j + 1) % across
    p, q, r, s = (a * across + b for a, b in ((i, j), (k, j), (k, m), (i, m)))
    triangles = torch.cat([torch.stack([p, q, r], -1), torch.stack([p, r, s], -1)])
    return points.reshape(-1, 3), triangles.reshape(-1, 3)


def rotation() -> Tensor:
    """Some rotation, with no axis in any plane of the grid."""
    turned, _ = torch.linalg.qr(
        torch.tensor([[1.0, 0.3, -0.2], [0.5, 1.1, 0.7], [-0.9, 0.4, 1.3]], dtype=torch.float64)
    )
    return turned * torch.linalg.det(turned)


def joined(*surfaces: Surface) -> Surface:
    starts = [0, *torch.tensor([len(points) for points, _ in surfaces]).cumsum(0).tolist()]
    triangles = [corners + start for (_, corners), start in zip(surfaces, starts, strict=False)]
    return torch.cat([points for points, _ in surfaces]), torch.cat(triangles)


def turned(surface: Surface) -> Surface:
    return surface[0], surface[1].flip(1)


def places(grid: Grid) -> Tensor:
    return torch.stack(grid.coordinates, -1).to(torch.float64)


def winding_number(grid: Grid, surface: Surface) -> Tensor:
    """The solid angles of the triangles summed up (Van Oosterom and Strackee 1983, equation 8), over 4 pi."""
    a, b, c = (surface[0][surface[1]] - places(grid)[..., None, None, :]).unbind(-2)
    x, y, z = (v.norm(dim=-1) for v in (a, b, c))
    dot = torch.linalg.vecdot
    below = x * y * z + dot(a, b) * z + dot(b, c) * x + dot(c, a) * y
    return torch.atan2(dot(a, torch.linalg.cross(b, c)), below).sum(-1) / (2 * pi)


CUBE = Grid((24, 20, 22), lower=-1.2, upper=1.2)


@pytest.mark.parametrize("method", [None, "parity", "winding"])
def test_every_voxel_of_a_polyhedron(method: Any) -> None:
    """Inside a convex polyhedron is below the planes of all its faces."""
    points, triangles = sphere(splits=2)
    points = points @ rotation()
    a, b, c = points[triangles].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    expected = ((places(CUBE)[..., None, :] - a) * normal).sum(-1).amax(-1) < 0
    assert torch.equal(CUBE.voxelize((points, triangles), method=method), expected)


def test_the_volume_of_a_rotated_torus_converges() -> None:
    points, triangles = torus(0.7, 0.3, 96, 64)
    surface = points @ rotation(), triangles
    volume = float(surface_volume(*surface))
    assert volume == pytest.approx(2 * pi**2 * 0.7 * 0.3**2, rel=4e-3)  # inscribed
    for n, bound in ((16, 3e-2), (64, 1e-3)):
        grid = Grid((n, n, n), lower=-1.2, upper=1.2)
        assert float(grid.voxelize(surface).sum()) * grid.cell_volume == pytest.approx(volume, rel=bound)
    x, y, z = (places(grid) @ rotation().T).unbind(-1)
    distance = (((x**2 + y**2).sqrt() - 0.7) ** 2 + z**2).sqrt() - 0.3
    off = distance.abs() > 2e-3  # the facets' depth
    assert torch.equal(grid.voxelize(surface)[off], distance[off] < 0)


def test_shells_inside_shells_are_hollow() -> None:
    radii = (1.1, 0.8, 0.5)
    shells = [sphere(radius, 3) for radius in radii]
    outer, middle, inner = (CUBE.voxelize(shell) for shell in shells)
    expected = (outer & ~middle) | inner
    oriented = joined(shells[0], turned(shells[1]), shells[2])
    for method in (None, "parity", "winding"):
        assert torch.equal(CUBE.voxelize(oriented, method=method), expected)
    assert torch.equal(CUBE.voxelize(joined(*shells)), expected)
    assert torch.equal(CUBE.voxelize(joined(*shells), method="winding"), outer)


def test_the_winding_number_unites_bodies_that_overlap() -> None:
    bodies = [sphere(0.6, 3, (-0.3, 0.1, 0.0)), sphere(0.6, 3, (0.35, 0.0, 0.1))]
    one, other = (CUBE.voxelize(body) for body in bodies)
    assert bool((one & other).any())
    assert torch.equal(CUBE.voxelize(joined(*bodies), method="winding"), one | other)
    assert torch.equal(CUBE.voxelize(joined(*bodies)), one ^ other)


# Ties


def test_a_box_with_faces_through_unknowns_holds_its_lower_faces() -> None:
    """Spacings of 0.1, which is not a binary fraction."""
    grid = Grid((10, 10, 10))
    x = grid.axis_coordinates[0].tolist()
    mask = grid.voxelize(box((x[2], x[3], x[4]), (x[6], x[9], x[5])))
    expected = torch.zeros_like(mask)
    expected[2:6, 3:9, 4:5] = True
    assert torch.equal(mask, expected)


def test_boxes_side_by_side_share_out_their_unknowns() -> None:
    """Spacings of 0.1, which is not a binary fraction; unknowns lie on their faces, edges and corners."""
    grid = Grid((10, 10, 10))
    x = grid.axis_coordinates[0].tolist()
    total = torch.zeros(grid.shape, dtype=torch.int64)
    for i, j, k in torch.cartesian_prod(*[torch.tensor([1, 4])] * 3).tolist():
        total += grid.voxelize(box((x[i], x[j], x[k]), (x[i + 3], x[j + 3], x[k + 3])))
    expected = torch.zeros_like(total)
    expected[1:7, 1:7, 1:7] = 1
    assert torch.equal(total, expected)


def test_tetrahedra_side_by_side_share_out_their_unknowns() -> None:
    """Six in each of 2 x 2 x 2 cubes; unknowns lie on their faces, edges and corners."""
    grid = Grid((11, 11, 11), lower=-0.5, upper=10.5)
    total = torch.zeros(grid.shape, dtype=torch.int64)
    for corner in torch.cartesian_prod(*[torch.tensor([1.0, 5.0])] * 3):
        for order in permutations(range(3)):
            points = corner + 4.0 * torch.tensor([[float(axis in order[:k]) for axis in range(3)] for k in range(4)])
            surface = points, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
            total += grid.voxelize(surface, method="parity")
    expected = torch.zeros_like(total)
    expected[1:9, 1:9, 1:9] = 1
    assert torch.equal(total, expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [0.25, 0.2])
def test_lines_through_corners_and_edges_leave_no_stripes(spacing: float, seed: int) -> None:
    """A ragged closed surface whose corners stand on the lines of the grid; the reference stands beside the lines.

    In binary fractions ties break to one side; in others to any, which only matters to unknowns on the surface.
    """
    generator = torch.Generator().manual_seed(seed)
    grid = Grid((12, 12, 12), lower=-6 * spacing, upper=6 * spacing)
    points, triangles = sphere(4.5 * spacing, 2)
    points, inverse = torch.unique(points, dim=0, return_inverse=True)
    points *= 0.8 + 0.4 * torch.rand(len(points), 1, generator=generator, dtype=torch.float64)
    lines = grid.axis_coordinates[0]
    nearest = [(points[:, k, None] - lines).abs().argmin(-1) for k in range(2)]
    points[:, :2] = torch.stack([lines[k] for k in nearest], -1)
    triangles = inverse[triangles]
    mask = grid.voxelize((points, triangles), method="parity")
    ways = torch.tensor([[1e-9, 1e-7, 0.0], [-1e-7, 1e-9, 0.0], [-1e-9, -1e-7, 0.0], [1e-7, -1e-9, 0.0]])
    beside = torch.stack([winding_number(grid, (points - way, triangles)).round() % 2 == 1 for way in ways])
    if spacing == 0.25:
        assert torch.equal(mask, beside[0])
    clear = (beside == beside[0]).all(0)
    assert int(clear.sum()) > 0.97 * clear.numel()
    assert torch.equal(mask[clear], beside[0][clear])


# Holes


def test_a_surface_with_a_triangle_missing() -> None:
    points, triangles = sphere(1.0, 2)
    opened = points, triangles[1:]
    with pytest.raises(InputError, match=r"of 192 edges 3 are open .* 0 are flipped .* 0 are non-m.*method='winding'"):
        CUBE.voxelize(opened)
    with pytest.raises(InputError, match="3 are open"):
        CUBE.voxelize(opened, method="parity")
    mask = CUBE.voxelize(opened, method="winding")
    assert torch.equal(mask, winding_number(CUBE, opened).abs() > 0.5)
    far = (places(CUBE) - points[triangles[0]].mean(0)).norm(dim=-1) > 0.2
    assert torch.equal(mask[far], CUBE.voxelize((points, triangles))[far])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("compiled", [True, False])
def test_the_winding_number_of_whatever_there_is(compiled: bool, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sphere without a fifth of its triangles, some turned, some doubled, and loose ones through unknowns besides."""
    if not compiled:
        monkeypatch.setattr(build, "library", lambda: None)
    generator = torch.Generator().manual_seed(seed)
    grid = Grid((13, 9, 11), lower=-1.1, upper=1.1)
    points, triangles = sphere(1.0, 2)
    triangles = triangles[torch.rand(len(triangles), generator=generator) < 0.8]
    triangles[:5] = triangles[:5].flip(1)
    loose = torch.stack(
        [axis[torch.randint(len(axis), (30,), generator=generator)] for axis in grid.axis_coordinates], -1
    )
    surface = joined((points, torch.cat([triangles, triangles[:9]])), (loose, torch.arange(30).reshape(10, 3)))
    way = torch.tensor([3e-6, 2e-6, 1e-6])
    number, other = (winding_number(grid, (surface[0] + side * way, surface[1])) for side in (-1, 1))
    clear = ((number - other).abs() < 1e-3) & ((number.abs() - 0.5).abs() > 1e-3)  # on a triangle the number jumps
    mask = grid.voxelize(surface, method="winding")
    assert int(clear.sum()) > 0.95 * clear.numel()
    expected = number.abs() > 0.5
    for axis, coordinate in enumerate(grid.coordinates):  # outside the surface's box there is no inside
        expected &= (coordinate >= surface[0][:, axis].min()) & (coordinate < surface[0][:, axis].max())
    assert torch.equal(mask[clear], expected[clear])


def test_compiled_angles_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many edges about every column, all turning the same way, so that the sum goes round many times."""
    if build.library() is None:
        pytest.skip("no compiler")
    generator = torch.Generator().manual_seed(0)
    a = torch.randn((7, 301, 2), generator=generator, dtype=torch.float64) * 1e4
    turn = 3.1 * torch.rand((7, 301), generator=generator, dtype=torch.float64)
    b = torch.view_as_real(torch.view_as_complex(a) * torch.polar(torch.ones_like(turn), turn))
    across, along = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1)
    heights = torch.randn((2, 301), generator=generator, dtype=torch.float64) * 1e4
    z = torch.linspace(-2e4, 2e4, 45, dtype=torch.float64)
    arguments = across, along, torch.stack([a, b]).square().sum(-1), heights, z
    compiled = voxels.strip_turns(*arguments)
    monkeypatch.setattr(build, "library", lambda: None)
    expected = voxels.strip_turns(*arguments)
    assert expected.min() > 3 and expected.max() > 50
    torch.testing.assert_close(compiled, expected, rtol=1e-13, atol=0)


def test_a_turned_triangle() -> None:
    points, triangles = sphere(1.0, 2)
    wrong = triangles.clone()
    wrong[7] = wrong[7].flip(0)
    with pytest.raises(InputError, match=r"0 are open .* 3 are flipped .*turn the triangles, or use method='parity'"):
        CUBE.voxelize((points, wrong))
    assert torch.equal(CUBE.voxelize((points, wrong), method="parity"), CUBE.voxelize((points, triangles)))


# The grid


def test_what_reaches_out_of_the_grid() -> None:
    surface = sphere(1.0, 3)
    part = Grid((12, 20, 11), lower=(-1.2, -1.2, 0.0), upper=(0.0, 1.2, 1.2))
    assert torch.equal(part.voxelize(surface), CUBE.voxelize(surface)[:12, :, 11:])
    assert bool(Grid((4, 4, 4), lower=-0.1, upper=0.1).voxelize(surface).all())


def test_unknowns_of_periodic_axes_stand_elsewhere() -> None:
    grid = Grid((8, 8, 8), boundary={"x": Periodic(), "y": Dirichlet(), "z": Periodic()})
    mask = grid.voxelize(box((0.2, 0.25, 0.2), (0.3, 0.35, 0.3)))
    assert mask.nonzero().tolist() == [[2, 2, 2]]
    assert Grid((8, 8, 8)).voxelize(box((0.3, 0.3, 0.3), (0.4, 0.4, 0.4))).nonzero().tolist() == [[2, 2, 2]]


def test_a_section() -> None:
    grid = Grid((30, 30, 1), lower=(-1.2, -1.2, 0.35), upper=(1.2, 1.2, 0.45))
    x, y, _ = grid.coordinates
    mask = grid.voxelize(sphere(1.0, 5))
    assert torch.equal(mask, x**2 + y**2 < 1 - 0.4**2)


def test_single_precision() -> None:
    surface = sphere(1.0, 3)
    single = CUBE.to(dtype=torch.float32).voxelize(
        tuple(part.float() if k == 0 else part.int() for k, part in enumerate(surface))
    )
    assert torch.equal(single, CUBE.voxelize(surface))


def test_surfaces_are_read_from_files(tmp_path: Path) -> None:
    import meshio

    points, triangles = sphere(1.0, 2)
    for name in ("ball.obj", "ball.stl", "ball.ply"):
        meshio.Mesh(points.numpy(), [("triangle", triangles.numpy())]).write(tmp_path / name)
        assert torch.equal(CUBE.voxelize(tmp_path / name), CUBE.voxelize((points, triangles)))
        assert torch.equal(CUBE.voxelize(str(tmp_path / name)), CUBE.voxelize((points, triangles)))


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["parity", "winding"])
def test_on_a_gpu(method: Any) -> None:
    points, triangles = sphere(1.0, 3)
    surface = points, triangles[1:] if method == "winding" else triangles
    mask = CUBE.to("cuda").voxelize(surface, method=method)
    assert mask.device.type == "cuda"
    assert torch.equal(mask.cpu(), CUBE.voxelize(surface, method=method))


# The surface


def test_check_of_a_closed_surface() -> None:
    points, triangles = box((1e6, 0.0, -2.0), (1e6 + 2.0, 3.0, 2.0))
    check = surface_check(points, triangles)
    assert (check.triangles, check.edges, check.closed, check.even) == (12, 18, True, True)
    assert check.volume == 24.0
    assert surface_check(points, triangles.flip(1)).volume == -24.0


def test_points_at_one_place_are_one_and_degenerate_triangles_bound_nothing() -> None:
    points, triangles = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    loose = points[triangles].reshape(-1, 3)
    loose[::2] = torch.where(loose[::2] == 0, -0.0, loose[::2])
    extra = torch.tensor([[0, 0, 1], [2, 2, 2], [0, 1, 0]])
    check = surface_check(loose, torch.cat([torch.arange(36).reshape(-1, 3), extra]))
    assert (check.triangles, check.degenerate, check.edges, check.closed, check.volume) == (12, 3, 18, True, 1.0)


def test_edges_that_are_not_manifold() -> None:
    two = joined(box((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)), box((0.5, 0.5, 0.0), (1.0, 1.0, 0.5)))
    check = surface_check(*two)
    assert (check.non_manifold_edges, check.open_edges, check.closed, check.volume) == (1, 0, True, 0.25)
    grid = Grid((4, 4, 4))
    mask = grid.voxelize(two)
    assert mask[..., :2].float().sum(-1).tolist() == [[2, 2, 0, 0], [2, 2, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]]
    points, triangles = two
    doubled = points, torch.cat([triangles, triangles[:1]])
    with pytest.raises(InputError, match=r"0 are open .* 0 are flipped .* [34] are non-manifold"):
        grid.voxelize(doubled)


def test_the_gradient_of_the_volume() -> None:
    points, triangles = sphere(0.8, 1, (3.0, -1.0, 2.0))
    points.requires_grad_()
    volume = surface_volume(points, triangles)
    (gradient,) = torch.autograd.grad(volume, points)
    centred = points.detach() - torch.tensor([3.0, -1.0, 2.0])
    assert float((gradient * centred).sum()) == pytest.approx(
        3 * float(volume.detach()), rel=1e-12
    )  # Euler: homogeneous
    assert gradient.sum(0).abs().max() < 1e-13
    assert torch.autograd.gradcheck(lambda p: surface_volume(p, triangles), points)


# Refusals

BALL = sphere(1.0, 1)
LATTICE = Grid((8, 8, 8))


@pytest.mark.parametrize(
    ("surface", "message"),
    [
        (sphere(0.1, 1, (2.0, 0.0, 0.0)), "outside the grid: it fills x 1.9 to 2.1, .* and the grid x 0 to 1, .* 1$"),
        (sphere(300.0, 1, (900.0, 0.0, 0.0)), "outside the grid.* 6e[+]02 times as large.*same unit of length"),
        (sphere(1e-3, 1, (0.5, 0.5, 0.5)), "no unknown .* fills x 0.499 .*spacings 0.125, .* 0.002 times as large"),
        (box((0.1, 0.1, 0.13), (0.9, 0.9, 0.17)), "no unknown .* z 0.13 to 0.17; the grid fills x 0 to 1.*0.125$"),
        ((BALL[0], BALL[1] * 0), "all 32 triangles of the surface are degenerate"),
        ((BALL[0], BALL[1][:0]), "has no triangles"),
        ((BALL[0], BALL[1] + 1), "a triangle names point 96; there are 96, counted from 0"),
        ((BALL[0], BALL[1] - 1), "a triangle names point -1"),
        ((BALL[0], BALL[1].double()), "integers, got torch.float64"),
        ((BALL[0], BALL[1].reshape(-1, 2)), r"integers of shape \(m, 3\), got shape \(48, 2\)"),
        ((BALL[0][:, :2], BALL[1]), r"numbers of shape \(n, 3\), got torch.float64 \(96, 2\)"),
        ((BALL[0] / 0, BALL[1]), "the coordinates of 96 points are NaN or infinite"),
        (([["a"]], BALL[1]), "points and triangles are arrays of numbers"),
        (BALL[0], r"a pair \(points, triangles\), got Tensor"),
        (None, r"a pair \(points, triangles\), got NoneType"),
    ],
)
def test_refused(surface: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LATTICE.voxelize(surface)


def test_triangles_that_are_there_twice_are_refused_where_they_cancel() -> None:
    """A ball with all its triangles twice is closed, and every line meets it an even number of times."""
    points, triangles = sphere(0.4, 1, (0.5, 0.5, 0.5))
    alone = LATTICE.voxelize((points, triangles))
    turned = triangles.roll(1, dims=1)  # the same direction from another corner
    twice = (points, torch.cat((triangles, turned)))
    assert surface_check(*twice).closed
    assert surface_check(*twice).repeated == len(triangles)
    for method in (None, "parity"):
        with pytest.raises(InputError, match=f"{len(triangles)} triangles of the surface are there twice.*'winding'"):
            LATTICE.voxelize(twice, method=method)
    assert torch.equal(LATTICE.voxelize(twice, method="winding"), alone)
    # A wall without thickness, the same triangles from both sides, bounds nothing and is no such accident.
    wall = triangles[:1]
    both = (points, torch.cat((triangles, wall, wall.flip(1))))
    assert surface_check(*both).repeated == 1  # it lies on a triangle of the ball
    apart, fin = sphere(0.1, 0, (0.5, 0.5, 0.95))
    walled = (torch.cat((points, apart)), torch.cat((triangles, fin[:1] + len(points), fin[:1].flip(1) + len(points))))
    assert surface_check(*walled).repeated == 0
    assert torch.equal(LATTICE.voxelize(walled), alone)


def test_the_surface_of_a_mesh() -> None:
    mesh = Mesh.box((2, 2, 2), 0.2, 0.8)
    assert torch.equal(LATTICE.voxelize(mesh), LATTICE.voxelize((mesh.points, mesh.facets)))
    assert int(LATTICE.voxelize(mesh).sum()) == 64
    with pytest.raises(InputError, match="a mesh of triangles in the plane has no surface in space"):
        LATTICE.voxelize(Mesh.box((2, 2)))


def test_refused_grids_and_methods() -> None:
    for shape in ((8,), (8, 8)):
        with pytest.raises(InputError, match=rf"needs a grid of three axes, this one has {len(shape)}; .* mask of a"):
            Grid(shape).voxelize(BALL)
    with pytest.raises(InputError, match=r"for a section at z = c use a grid of shape \(nx, ny, 1\)"):
        Grid((8, 8)).voxelize(BALL)
    with pytest.raises(InputError, match="method is None, 'parity' or 'winding', got 'ray'"):
        LATTICE.voxelize(BALL, method="ray")  # type: ignore[arg-type]
