"""Meshes: orientation, facets, geometry, names, gradients, and what is refused."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sciml
from sciml.errors import InputError
from sciml.mesh import Mesh
from sciml.mesh_simplices import find_rows, row_keys

SQUARE = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])


def shaken(mesh: Mesh, amount: float, seed: int = 0) -> Mesh:
    """The mesh with its points moved by a smooth map and a little at random."""
    generator = torch.Generator().manual_seed(seed)
    noise = amount * (torch.rand(mesh.points.shape, generator=generator, dtype=torch.float64) - 0.5)
    return Mesh(mesh.points + 0.1 * mesh.points.flip(1).sin() + noise, mesh.cells)


def ring() -> Mesh:
    angle = torch.arange(24, dtype=torch.float64) * (torch.pi / 12)
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    return Mesh.delaunay(torch.cat((0.5 * circle, 0.7 * circle, circle)), inside=lambda x, y: x**2 + y**2 > 0.28)


MESHES = {
    "rectangle": Mesh.box((4, 3), (-1.0, 0.5), (2.0, 1.5)),
    "box": Mesh.box((3, 2, 2), 0.0, (1.0, 2.0, 0.5)),
    "shaken rectangle": shaken(Mesh.box((5, 5)), 0.05),
    "shaken box": shaken(Mesh.box((3, 3, 3)), 0.05),
    "ring": ring(),
}


@pytest.fixture(params=MESHES)
def mesh(request: pytest.FixtureRequest) -> Mesh:
    return MESHES[request.param]


# Geometry


def test_the_surface_is_closed_and_encloses_the_volume(mesh: Mesh) -> None:
    """Gauss: the integral of n over the surface vanishes, and that of x . n / d is the volume."""
    vectors = mesh.facet_normals * mesh.facet_areas[:, None]
    torch.testing.assert_close(vectors.sum(0), torch.zeros(mesh.dimension, dtype=torch.float64), atol=1e-14, rtol=0)
    enclosed = (vectors * mesh.facet_centres).sum() / mesh.dimension
    torch.testing.assert_close(enclosed, mesh.volume, rtol=1e-13, atol=0)
    assert bool((mesh.volumes > 0).all())


def test_normals_are_units_and_point_away_from_their_cell(mesh: Mesh) -> None:
    ones = torch.ones(len(mesh.facets), dtype=torch.float64)
    torch.testing.assert_close(mesh.facet_normals.norm(dim=1), ones)
    outward = mesh.facet_centres - mesh.cell_centres[mesh.facet_cells]
    assert bool(((outward * mesh.facet_normals).sum(1) > 0).all())
    owned = mesh.cells[mesh.facet_cells]
    assert bool((mesh.facets[:, :, None] == owned[:, None, :]).any(2).all())


def test_facets_are_those_that_counting_finds(mesh: Mesh) -> None:
    count: dict[tuple[int, ...], int] = {}
    for cell in mesh.cells.tolist():
        for left_out in cell:
            facet = tuple(sorted(set(cell) - {left_out}))
            count[facet] = count.get(facet, 0) + 1
    expected = sorted(facet for facet, cells in count.items() if cells == 1)
    assert [tuple(sorted(facet)) for facet in mesh.facets.tolist()] == expected


def test_geometry_of_two_triangles() -> None:
    mesh = Mesh(SQUARE, TWO)
    assert mesh.volume == 2.0
    assert mesh.facets.tolist() == [[0, 1], [3, 0], [1, 2], [2, 3]]
    assert mesh.facet_cells.tolist() == [0, 1, 0, 1]
    assert mesh.facet_areas.tolist() == [2.0, 1.0, 1.0, 2.0]
    assert mesh.facet_normals.tolist() == [[0.0, -1.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert (mesh.dimension, mesh.axes, mesh.dtype, mesh.device.type) == (2, ("x", "y"), torch.float64, "cpu")
    assert torch.equal(mesh.coordinates[0], SQUARE[:, 0])


def test_the_volume_of_a_tetrahedron() -> None:
    mesh = Mesh([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], [[0, 1, 2, 3]])
    assert mesh.volume == 1.0
    assert mesh.dtype == torch.float64
    areas = torch.tensor([1.0, 1.5, 3.0, 3.5], dtype=torch.float64)
    torch.testing.assert_close(mesh.facet_areas.sort().values, areas)


@pytest.mark.parametrize("name", ["shaken rectangle", "shaken box"])
def test_order_and_orientation_of_the_input_change_nothing_but_the_order_of_cells(name: str) -> None:
    mesh = MESHES[name]
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(mesh.cells), generator=generator)
    swap = torch.rand(len(mesh.cells), generator=generator) < 0.5
    cells = torch.where(swap[:, None], mesh.cells.flip(1) if mesh.dimension == 2 else mesh.cells.roll(1, 1), mesh.cells)
    other = Mesh(mesh.points, cells[order])
    torch.testing.assert_close(other.volumes, mesh.volumes[order])
    assert torch.equal(other.facets.sort(1).values, mesh.facets.sort(1).values)
    assert torch.equal(order[other.facet_cells], mesh.facet_cells)
    torch.testing.assert_close(other.facet_normals, mesh.facet_normals)


def test_gradients_reach_the_points() -> None:
    points = MESHES["shaken box"].points[:8].clone().requires_grad_()
    cells = Mesh.delaunay(points.detach()).cells

    def geometry(points: Tensor) -> tuple[Tensor, ...]:
        mesh = Mesh(points, cells)
        return mesh.volumes, mesh.facet_areas, mesh.facet_normals, mesh.facet_centres, mesh.cell_centres

    assert torch.autograd.gradcheck(geometry, points)
    mesh = Mesh(points, cells)
    for _ in range(2):  # nothing that holds a graph is kept
        mesh.volume.backward()


def test_float32_keeps_its_dtype_and_agrees() -> None:
    mesh = MESHES["box"].to(dtype=torch.float32)
    assert mesh.dtype == torch.float32
    assert mesh.facet_normals.dtype == torch.float32
    torch.testing.assert_close(mesh.volume, torch.tensor(1.0))
    assert {name: len(part) for name, part in mesh.boundaries.items()} == {
        name: len(part) for name, part in MESHES["box"].boundaries.items()
    }


def test_a_mesh_far_from_the_origin_and_very_thin_is_a_mesh() -> None:
    assert Mesh(SQUARE * torch.tensor([1.0, 1e-9]) + 1.0, TWO).volume > 0
    assert Mesh(SQUARE * 1e-100, TWO).volume > 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_mesh_on_a_gpu_is_the_same() -> None:
    mesh = MESHES["shaken box"]
    other = Mesh(mesh.points.cuda(), mesh.cells.cuda())
    assert torch.equal(other.facets.cpu(), mesh.facets)
    torch.testing.assert_close(other.facet_normals.cpu(), mesh.facet_normals)
    back = mesh.to("cuda").refine().to("cpu")
    assert torch.equal(back.cells, mesh.refine().cells)


# Names


def test_names_by_predicates_and_by_indices() -> None:
    mesh = Mesh.box((4, 4)).with_boundaries(
        {"left": lambda x, y: x < 1e-9, "bottom": lambda x, y: y < 1e-9, "low": lambda x, y: x + y < 0.6}
    )
    assert mesh.facet_areas[mesh.boundary("left")].sum() == 1.0
    assert torch.equal(mesh.boundary("left"), mesh.boundary("x_lower"))
    assert mesh.facet_areas[mesh.boundary("low")].sum() == 1.0, "two sides overlap with `left` and `bottom`"
    mask = torch.zeros(len(mesh.facets), dtype=torch.bool)
    mask[mesh.boundary("left")] = True
    again = mesh.with_boundaries({"mask": mask, "list": mesh.boundary("left").tolist(), "left": [0]})
    assert torch.equal(again.boundary("mask"), mesh.boundary("left"))
    assert torch.equal(again.boundary("list"), mesh.boundary("left"))
    assert again.boundary("left").tolist() == [0]
    assert torch.equal(again.boundary("exterior"), torch.arange(16))


def test_a_facet_between_two_parts_belongs_to_a_predicate_only_if_its_centre_does() -> None:
    """The edge across a notch has both ends on the sides x = 0 or y = 0, and is on neither."""
    mesh = Mesh([[1, 0], [1, 1], [0, 1.0]], [[0, 1, 2]])
    on_axes = mesh.with_boundaries({"outer": lambda x, y: (x == 1) | (y == 1)})
    assert len(on_axes.boundary("outer")) == 2
    assert on_axes.facet_centres[on_axes.boundary("outer")].tolist() == [[1.0, 0.5], [0.5, 1.0]]


def test_regions_by_the_centre_of_cells() -> None:
    mesh = Mesh.box((4, 2, 2)).with_regions({"half": lambda x, y, z: x < 0.5, "all": lambda x, y, z: x < 2})
    torch.testing.assert_close(mesh.volumes[mesh.region("half")].sum(), torch.tensor(0.5, dtype=torch.float64))
    assert torch.equal(mesh.region("all"), torch.arange(len(mesh.cells)))


def test_points_of_a_boundary() -> None:
    mesh = Mesh.box((3, 2))
    numbers = torch.arange(12).reshape(4, 3)
    assert torch.equal(mesh.boundary_points("x_upper"), numbers[3])
    assert torch.equal(mesh.boundary_points("y_lower"), numbers[:, 0])
    assert len(mesh.boundary_points()) == 10


def test_the_original_is_unchanged_by_new_names() -> None:
    mesh = Mesh(SQUARE, TWO)
    mesh.with_boundaries({"left": lambda x, y: x == 0})
    assert set(mesh.boundaries) == {"exterior"}


def test_one_cell_is_singular() -> None:
    assert repr(Mesh(SQUARE[:3], [[0, 1, 2]])).startswith("Mesh(3 points, 1 triangle; ")
    tetrahedron = Mesh(torch.cat((torch.zeros(1, 3), torch.eye(3))), [[0, 1, 2, 3]])
    assert repr(tetrahedron).startswith("Mesh(4 points, 1 tetrahedron; ")
    assert str(tetrahedron.quality()).startswith("1 tetrahedron\n")


def test_what_is_no_device_or_dtype_is_refused() -> None:
    mesh = Mesh.box((1, 1))
    for place in ("gpu", torch.float32):
        with pytest.raises(InputError, match=f"Mesh: {place!r} is not a device"):
            mesh.to(place)  # type: ignore[arg-type]
    for dtype in (torch.int64, torch.float16, "float32"):
        with pytest.raises(InputError, match=r"points are torch.float64 or torch.float32, got"):
            mesh.to(dtype=dtype)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"points are torch.float64 or torch.float32, got"):
            Mesh.box((1, 1), dtype=dtype)  # type: ignore[arg-type]


def test_repr_says_sizes_and_names() -> None:
    mesh = Mesh(SQUARE, TWO, {"left": [1]}, {"low": [0]})
    assert repr(mesh) == "Mesh(4 points, 2 triangles; boundaries left (1), exterior (4); regions low (1))"
    assert sciml.Mesh is Mesh


def test_copies_and_pickles_are_equal() -> None:
    mesh = MESHES["box"].with_regions({"low": lambda x, y, z: x < 0.5})
    for other in (copy.deepcopy(mesh), pickle.loads(pickle.dumps(mesh)), mesh.to("cpu")):
        assert repr(other) == repr(mesh)
        assert torch.equal(other.points, mesh.points)
        assert torch.equal(other.region("low"), mesh.region("low"))


def test_what_is_computed_from_a_mesh_is_kept_with_it_alone() -> None:
    mesh, calls = Mesh.box((2, 2)), []

    def volume(given: Mesh) -> float:
        calls.append(given)
        return float(given.volume)

    assert mesh.remember(volume) == mesh.remember(volume) == 1.0
    assert mesh.with_regions({"all": lambda x, y: x < 2}).remember(volume) == 1.0
    assert len(calls) == 1
    for other in (copy.deepcopy(mesh), pickle.loads(pickle.dumps(mesh)), mesh.to(dtype=torch.float32), mesh.refine()):
        assert other.remember(volume) == 1.0
        assert calls[-1] is other
    larger = Mesh(2 * mesh.points, mesh.cells)
    assert larger.remember(volume) == 4.0
    watched = weakref.ref(mesh)
    del mesh, calls[:]
    gc.collect()
    assert watched() is None, "nothing outside a mesh keeps it"


# What is refused


@pytest.mark.parametrize(
    ("points", "cells", "message"),
    [
        (SQUARE[:, :1], TWO, r"points has shape \(4, 1\), expected \(n, 2\) or \(n, 3\)"),
        (SQUARE.half(), TWO, "points are torch.float64 or torch.float32, got torch.float16"),
        (SQUARE, TWO.double(), "cells are indices of points, integers, got torch.float64"),
        (SQUARE, [[0, 1, 2, 3]], r"cells has shape \(1, 4\), expected \(m, 3\): triangles, since points have 2"),
        (SQUARE, TWO[:0], "there are no cells"),
        (SQUARE, [[0, 1, 2], [0, 2, 4]], r"1 cell \(1\) names points that do not exist.*\[0, 2, 4\]; there are 4"),
        (SQUARE, [[0, 1, 2], [0, -1, 3]], r"1 cell \(1\) names points that do not exist"),
        (SQUARE, [[0, 1, 2]], r"1 point \(3\) belongs to no cell"),
        (SQUARE, [[0, 1, 2], [2, 1, 0], [0, 2, 3]], r"1 cell \(1\) repeats another one"),
        (SQUARE, [[0, 1, 2], [0, 1, 3]], r"cells overlap \(1 pair\), the first two are \[0, 1\]"),
        (SQUARE, [[0, 1, 1], [0, 2, 3]], r"1 cell \(0\) is degenerate \(no area within the rounding of float64\)"),
        (SQUARE + 0j, TWO, "points are real numbers, got torch.complex128"),
        (SQUARE > 0.5, TWO, "points are real numbers, got torch.bool"),
        (SQUARE.to_sparse(), TWO, "points is a tensor of layout torch.sparse_coo, expected a dense one"),
        ([[0, 0], [1], [1, 1]], TWO, "points is not an array of numbers: .*inhomogeneous"),
        ([["a", "b"]], TWO, "points is not an array of numbers but of <U1"),
        (None, TWO, "points is not an array of numbers but of object"),
        (SQUARE, [[0, 1, 2], [0, 2]], "cells is not an array of numbers"),
        (SQUARE, None, "cells is not an array of numbers"),
        (SQUARE / 0.0, TWO, r"4 points \(0, 1, 2, 3\) have coordinates that are NaN or infinite"),
    ],
)
def test_what_is_no_mesh_is_refused(points: Any, cells: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mesh(points, cells)


def test_flat_cells_are_counted_and_the_first_are_named() -> None:
    mesh = Mesh.box((10, 1))
    points = mesh.points.clone()
    points[:, 1] = torch.where(points[:, 0] < 0.55, points[:, 1] * 1e-17, points[:, 1])
    with pytest.raises(InputError, match=r"11 cells \(0, 1, 2, 3, 4, \.\.\.\) are degenerate"):
        Mesh(points, mesh.cells)


def test_cells_that_are_flat_within_float32_only() -> None:
    mesh = Mesh(SQUARE * torch.tensor([1.0, 1e-9]) + 1.0, TWO)
    with pytest.raises(InputError, match=r"2 cells \(0, 1\) are degenerate \(no area within the rounding of float32"):
        mesh.to(dtype=torch.float32)


@pytest.mark.parametrize("name", ["shaken rectangle", "shaken box"])
def test_an_inverted_cell_is_found(name: str) -> None:
    """A point dragged through the opposite facet of a cell turns it over, onto its neighbours."""
    mesh = MESHES[name]
    inner = sorted(set(range(len(mesh.points))) - set(mesh.boundary_points().tolist()))[0]
    points = mesh.points.clone()
    points[inner] += 0.6
    with pytest.raises(InputError, match=r"cells overlap \(\d+ pairs\).*one of them is inverted"):
        Mesh(points, mesh.cells)


def test_three_cells_at_one_facet_are_refused() -> None:
    points = [[0, 0], [1, 0], [0, 1], [1, -1], [1, 1.0]]
    with pytest.raises(InputError, match=r"edges belong to three cells or more.*the points \[0, 1\]"):
        Mesh(points, [[0, 1, 2], [0, 3, 1], [0, 1, 4]])
    solid = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [1, 1, 1.0]]
    with pytest.raises(InputError, match="triangles belong to three cells or more"):
        Mesh(solid, [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5]])


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [
        ({"a": [4]}, r"boundaries\['a'\] names facets that do not exist; there are 4"),
        ({"a": [-1]}, r"boundaries\['a'\] names facets that do not exist"),
        ({"a": [0.5]}, r"boundaries\['a'\] is a list of indices of facets"),
        ({"a": torch.zeros(3, dtype=torch.bool)}, r"or a bool tensor of shape \(4,\)"),
        ({1: [0]}, "a name in boundaries is a text, got 1"),
        ({"exterior": [0]}, "the boundary 'exterior' is all 4 facets"),
        ([0], "boundaries is a dict"),
        ({"a": "left"}, r"boundaries\['a'\] is not an array of numbers but of <U4"),
        ({"a": None}, r"boundaries\['a'\] is not an array of numbers"),
        ({"a": [[0, 1], [2]]}, r"boundaries\['a'\] is not an array of numbers"),
    ],
)
def test_names_that_do_not_fit_are_refused(boundaries: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mesh(SQUARE, TWO, boundaries)


def test_regions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"regions\['a'\] names cells that do not exist; there are 2"):
        Mesh(SQUARE, TWO, {}, {"a": [2]})


def test_a_missing_name_lists_those_there_are() -> None:
    mesh = Mesh.box((2, 2))
    known = "exterior, x_lower, x_upper, y_lower, y_upper"
    with pytest.raises(InputError, match=f"this mesh has no boundary 'inlet', but {known}; Mesh.with_boundaries"):
        mesh.boundary("inlet")
    with pytest.raises(InputError, match=r"this mesh has no region 'steel', but none at all; Mesh.with_regions"):
        mesh.region("steel")
    with pytest.raises(InputError, match="no boundary 'inlet'"):
        mesh.boundary_points("inlet")
    with pytest.raises(InputError, match=r"no boundary \['x_lower'\], but exterior"):
        mesh.boundary(["x_lower"])  # type: ignore[arg-type]


def test_predicates_that_select_nothing_or_are_none_are_refused() -> None:
    mesh = Mesh.box((2, 2), (-1, 0), (1, 3))
    with pytest.raises(
        InputError, match=r"boundaries\['inlet'\] is true for no exterior facet.*x from -1 to 1, y from 0 to 3"
    ):
        mesh.with_boundaries({"inlet": lambda x, y: x < -2})
    with pytest.raises(InputError, match=r"regions\['steel'\] is true for no cell at its centre"):
        mesh.with_regions({"steel": lambda x, y: x < -2})
    with pytest.raises(InputError, match=r"boundaries\['inlet'\] must return a bool tensor.*a tensor of torch.float64"):
        mesh.with_boundaries({"inlet": lambda x, y: x})
    with pytest.raises(
        InputError, match=r"boundaries\['inlet'\]: the function does not take the 2 coordinates \(x, y\)"
    ):
        mesh.with_boundaries({"inlet": lambda x: x < 1})
    with pytest.raises(InputError, match=r"boundaries\['inlet'\] must return a bool for each of the places, of shape"):
        mesh.with_boundaries({"inlet": lambda x, y: (x < 1).all()})
    with pytest.raises(InputError, match=r"of shape \(8, 3\); it returned one of shape \(3,\)"):
        mesh.with_boundaries({"inlet": lambda x, y: torch.ones(3, dtype=torch.bool)})
    for change in (mesh.with_boundaries, mesh.with_regions):
        with pytest.raises(InputError, match="is a dict, name -> indices or a predicate, got list"):
            change([0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'exterior' is always all facets"):
        mesh.with_boundaries({"exterior": lambda x, y: x < 0})


# Keys and matching


@pytest.mark.parametrize("count", [5, 2**20, 2**40])
def test_keys_order_as_rows_do_also_where_they_do_not_fit_64_bits(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, count, (200, 3), generator=generator).sort(1).values
    rows = torch.cat((rows, rows[::7], rows + torch.tensor([0, 0, 1])))
    rows[:, 2].clamp_(max=count - 1)
    keys = row_keys(rows, count)
    order = sorted(range(len(rows)), key=lambda i: rows[i].tolist())
    for a, b in pairwise(order):
        assert (keys[a] == keys[b]) == torch.equal(rows[a], rows[b])
        assert keys[a] <= keys[b]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 6), min_size=3, max_size=3), max_size=12), st.randoms(use_true_random=False))
def test_rows_are_found_in_any_order_of_their_vertices(sets: list[set[int]], random: Any) -> None:
    among = [[0, 1, 2], [4, 2, 1], [6, 5, 0], [3, 6, 4]]
    rows = [random.sample(sorted(item), 3) for item in sets]
    expected = [next((i for i, row in enumerate(among) if set(row) == item), -1) for item in sets]
    found = find_rows(torch.tensor(rows, dtype=torch.int64).reshape(-1, 3), torch.tensor(among), 7)
    assert found.tolist() == expected
