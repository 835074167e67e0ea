"""Mesh files: groups of several formats, round trips, surfaces, and files that are refused."""

from __future__ import annotations

import re
import struct
import warnings
from pathlib import Path
from typing import Any

import meshio
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciml.errors import InputError
from sciml.mesh import Mesh
from sciml.mesh_files import WRITTEN, read_surface, write_fields

# The unit square of two triangles with a point that nothing uses, as Gmsh writes it; group 7 has no name.
GMSH_2 = """$MeshFormat
2.2 0 8
$EndMeshFormat
$PhysicalNames
2
1 3 "inlet wall"
2 5 "steel"
$EndPhysicalNames
$Nodes
5
1 0 0 0
2 1 0 0
3 9 9 0
4 1 1 0
5 0 1 0
$EndNodes
$Elements
7
1 15 2 9 1 1
2 1 2 3 1 5 1
3 1 2 7 2 1 2
4 1 2 7 2 2 4
5 2 2 5 1 1 2 4
6 2 2 6 1 1 2 4
7 2 2 5 1 1 4 5
$EndElements
"""
GMSH_4 = """$MeshFormat
4.1 0 8
$EndMeshFormat
$PhysicalNames
3
1 3 "inlet"
1 4 "wall"
2 5 "steel"
$EndPhysicalNames
$Entities
0 2 1 0
1 0 0 0 0 1 0 2 3 4 0
2 0 0 0 1 0 0 1 4 0
1 0 0 0 1 1 0 1 5 0
$EndEntities
$Nodes
1 4 1 4
2 1 0 4
1
2
3
4
0 0 0
1 0 0
1 1 0
0 1 0
$EndNodes
$Elements
3 4 1 4
1 1 1 1
1 4 1
1 2 1 1
2 1 2
2 1 2 2
3 1 2 3
4 1 3 4
$EndElements
"""
MEDIT = """MeshVersionFormatted 2
Dimension 3
Vertices
5
0 0 0 0
1 0 0 0
0 1 0 0
0 0 1 0
1 1 1 0
Triangles
2
1 3 2 4
2 3 5 8
Tetrahedra
2
1 2 3 4 1
2 3 4 5 2
End
"""


def named() -> dict[str, Mesh]:
    """Meshes whose names overlap, and leave some cells and facets without one."""
    flat = Mesh.box((4, 3), (-1.0, 0.25), (1.0, 2.0))
    flat = flat.with_boundaries({"half": lambda x, y: x < 0.6}).with_regions(
        {"left": lambda x, y: x < 0.0, "low": lambda x, y: y < 1.0}
    )
    solid = Mesh.box((2, 3, 2)).with_regions(
        {"core": lambda x, y, z: (x - y).abs() < 0.4, "up": lambda x, y, z: z > 0.5}
    )
    return {"flat": flat, "solid": solid}


def same(one: Mesh, other: Mesh) -> bool:
    return (
        torch.equal(one.points, other.points)
        and torch.equal(one.cells, other.cells)
        and one.boundaries.keys() == other.boundaries.keys()
        and one.regions.keys() == other.regions.keys()
        and all(torch.equal(part, other.boundary(name)) for name, part in one.boundaries.items())
        and all(torch.equal(part, other.region(name)) for name, part in one.regions.items())
    )


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def facet_places(mesh: Mesh, name: str) -> list[list[float]]:
    return sorted(mesh.facet_centres[mesh.boundary(name)].tolist())


# Round trips


@pytest.mark.parametrize("ending", WRITTEN)
@pytest.mark.parametrize("kind", ["flat", "solid"])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, ending: str, kind: str) -> None:
    mesh = named()[kind]
    mesh.write(tmp_path / f"mesh{ending}")
    assert same(Mesh.read(tmp_path / f"mesh{ending}"), mesh)
    assert [path.name for path in tmp_path.iterdir()] == [f"mesh{ending}"], "one file, and no draft left"


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(
            st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=12
        ).filter(lambda name: name != "exterior" and name == name.strip()),
        st.sets(st.integers(0, 13), min_size=1),
        max_size=4,
    ),
    st.sampled_from([".msh", ".vtu", ".xdmf"]),
)
def test_names_come_back_or_are_refused(tmp_path_factory: Any, groups: dict[str, set[int]], ending: str) -> None:
    path = tmp_path_factory.mktemp("names") / f"mesh{ending}"
    mesh = Mesh.box((4, 3))
    mesh = Mesh(mesh.points, mesh.cells, {name: sorted(part) for name, part in groups.items()})
    try:
        mesh.write(path)
    except InputError as error:
        assert "cannot be kept" in str(error)
        assert any(set(name) & set("\"'<>&\\") or not name.isprintable() for name in groups)
    else:
        assert same(Mesh.read(path), mesh)


def test_fields_are_written_beside_the_mesh(tmp_path: Path) -> None:
    mesh = named()["solid"]
    u, flow, material = mesh.points.sum(1), mesh.points.clone(), torch.arange(len(mesh.cells))
    write_fields(tmp_path / "a.vtu", mesh, {"u": u, "flow": flow, "material": material})
    content = meshio.read(tmp_path / "a.vtu")
    assert numpy.array_equal(content.point_data["u"], u.numpy())
    assert numpy.array_equal(content.point_data["flow"], flow.numpy())
    assert numpy.array_equal(content.cell_data["material"][0], material.numpy())
    assert same(Mesh.read(tmp_path / "a.vtu"), mesh)


@pytest.mark.parametrize("ending", WRITTEN)
def test_masks_and_plane_vectors_are_written(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = named()["flat"]
    mask, flow = mesh.points[:, 0] > 0.5, mesh.points.clone()
    write_fields(tmp_path / f"a{ending}", mesh, {"mask": mask, "flow": flow})
    content = meshio.read(tmp_path / f"a{ending}")
    assert numpy.array_equal(content.point_data["mask"].reshape(-1), mask.numpy())
    assert numpy.array_equal(content.point_data["flow"][:, :2], flow.numpy())
    assert not content.point_data["flow"][:, 2:].any()
    assert "Warning" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("ending", [".vtk", ".vtu", ".xdmf"])
def test_names_of_nothing_are_kept(tmp_path: Path, ending: str) -> None:
    mesh = Mesh.box((2, 1)).with_boundaries({"slit": []}).with_regions({"void": []})
    mesh.write(tmp_path / f"a{ending}")
    assert repr(Mesh.read(tmp_path / f"a{ending}")).replace("exterior (6), ", "") == repr(mesh).replace(
        "exterior (6), ", ""
    )


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    mesh = named()["flat"]
    with pytest.raises(InputError, match=r"ending in .msh or .vtk or .vtu or .xdmf is needed"):
        mesh.write(tmp_path / "mesh.stl")
    with pytest.raises(InputError, match="does not exist; make it first"):
        mesh.write(tmp_path / "none" / "mesh.vtu")
    with pytest.raises(InputError, match=r"names in .vtk files have no spaces, 'skfem:b:my wall' has; write .vtu"):
        mesh.with_boundaries({"my wall": [0]}).write(tmp_path / "mesh.vtk")
    with pytest.raises(InputError, match=r"the field 'u' has shape \(7,\); expected \(20,\) at the points or \(24,\)"):
        write_fields(tmp_path / "mesh.vtu", mesh, {"u": torch.zeros(7)})
    for values in ("one", None, torch.zeros(20, dtype=torch.complex64), [[1.0], [2.0, 3.0]]):
        with pytest.raises(InputError, match=r"the field 'u' is (not an array of numbers|of torch.complex64)"):
            write_fields(tmp_path / "mesh.vtu", mesh, {"u": values})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"fields is a dict, name -> values, got list"):
        write_fields(tmp_path / "mesh.vtu", mesh, [torch.zeros(20)])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the field 'u' has 4 components; .msh files hold 1, 3 or 9"):
        write_fields(tmp_path / "mesh.msh", mesh, {"u": torch.zeros(20, 4)})
    with pytest.raises(InputError, match=r"get no fields in cells \(k\)"):
        write_fields(tmp_path / "mesh.msh", mesh, {"k": torch.zeros(24)})
    with pytest.raises(InputError, match=r"'left' of both a region and a boundary cannot be kept in a .msh file"):
        mesh.with_boundaries({"left": [0]}).write(tmp_path / "mesh.msh")
    assert not list(tmp_path.iterdir())


# Groups in files of others


def test_groups_of_gmsh_2(tmp_path: Path) -> None:
    """A name with a space, a group without a name, a cell in two groups, an unused point, a corner that is a group."""
    mesh = Mesh.read(written(tmp_path, "a.msh", GMSH_2))
    assert mesh.points.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert mesh.cells.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert set(mesh.boundaries) == {"exterior", "inlet wall", "7"}
    assert facet_places(mesh, "inlet wall") == [[0.0, 0.5]]
    assert facet_places(mesh, "7") == [[0.5, 0.0], [1.0, 0.5]]
    assert {name: part.tolist() for name, part in mesh.regions.items()} == {"steel": [0, 1], "6": [0]}


def test_groups_of_gmsh_4_where_an_edge_has_two(tmp_path: Path) -> None:
    mesh = Mesh.read(written(tmp_path, "a.msh", GMSH_4))
    assert facet_places(mesh, "inlet") == [[0.0, 0.5]]
    assert facet_places(mesh, "wall") == [[0.0, 0.5], [0.5, 0.0]]
    assert mesh.region("steel").tolist() == [0, 1]
    assert mesh.volume == 1.0


def test_groups_of_medit_and_a_warning_of_facets_inside(tmp_path: Path) -> None:
    path = written(tmp_path, "a.mesh", MEDIT)
    with pytest.warns(UserWarning, match="1 of the 1 facets of the group '8' are not on the surface"):
        path = written(tmp_path, "b.mesh", MEDIT.replace("2 3 5 8", "2 3 4 8"))
        assert set(Mesh.read(path).boundaries) == {"exterior", "4"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mesh = Mesh.read(tmp_path / "a.mesh")
    assert len(mesh.facets) == 6
    torch.testing.assert_close(mesh.facet_centres[mesh.boundary("4")], torch.tensor([[1.0, 1.0, 0.0]]).double() / 3)
    torch.testing.assert_close(mesh.facet_centres[mesh.boundary("8")], torch.tensor([[2.0, 2.0, 1.0]]).double() / 3)
    assert {name: part.tolist() for name, part in mesh.regions.items()} == {"1": [0], "2": [1]}


def test_sets_of_cells(tmp_path: Path) -> None:
    mesh = named()["flat"]
    left = mesh.boundary("x_lower")
    content = meshio.Mesh(
        numpy.column_stack([mesh.points.numpy(), numpy.zeros(len(mesh.points))]),
        [("line", mesh.facets[left].flip(1).numpy()), ("triangle", mesh.cells.numpy())],
        cell_sets={"inlet": [numpy.arange(len(left)), []], "part": [[], mesh.region("low").numpy()]},
    )
    content.write(tmp_path / "a.inp")
    read = Mesh.read(tmp_path / "a.inp")
    assert {name.lower() for name in read.regions} == {"part"}
    (name,) = set(read.boundaries) - {"exterior"}
    assert torch.equal(read.boundary(name), left)
    assert torch.equal(next(iter(read.regions.values())), mesh.region("low"))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_mesh_in_space_loses_its_constant_coordinate(tmp_path: Path, axis: int) -> None:
    mesh = named()["flat"]
    points = numpy.insert(mesh.points.numpy(), axis, 0.3, axis=1)
    meshio.Mesh(points, [("triangle", mesh.cells.numpy())]).write(tmp_path / "a.vtu")
    read = Mesh.read(tmp_path / "a.vtu")
    assert torch.equal(read.points, mesh.points)
    assert torch.equal(read.facets, mesh.facets)


# Surfaces


def stl(points: Tensor, triangles: Tensor) -> bytes:
    """Binary STL: every triangle with corners of its own."""
    rows = points[triangles].float().numpy()
    records = b"".join(struct.pack("<12fH", 0, 0, 0, *row.reshape(-1).tolist(), 0) for row in rows)
    return b"made here".ljust(80) + struct.pack("<I", len(rows)) + records


def enclosed(points: Tensor, triangles: Tensor) -> float:
    a, b, c = points[triangles].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def test_a_surface_in_stl_gets_its_points_back(tmp_path: Path) -> None:
    mesh = Mesh.box((2, 3, 2), -1.0, 1.0)
    points, triangles = read_surface(written(tmp_path, "a.stl", stl(mesh.points, mesh.facets)))
    assert triangles.shape == mesh.facets.shape
    assert len(points) == len(mesh.boundary_points())
    assert (points.dtype, triangles.dtype) == (torch.float64, torch.int64)
    assert enclosed(points, triangles) == pytest.approx(8.0, rel=1e-6)  # STL holds float32
    edges = torch.cat([triangles[:, pair].sort(1).values for pair in ([0, 1], [1, 2], [0, 2])])
    assert bool((edges.unique(dim=0, return_counts=True)[1] == 2).all()), "closed"


def test_surfaces_of_obj_with_quadrilaterals_of_vtu_with_tetrahedra_and_minus_zero(tmp_path: Path) -> None:
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    quads = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + [f"f {a} {b} {c} {d}" for a, b, c, d in quads]
    points, triangles = read_surface(written(tmp_path, "cube.obj", "\n".join(lines) + "\n"))
    assert (len(points), len(triangles)) == (8, 12)
    assert enclosed(points, triangles) == 1.0

    mesh = Mesh.box((2, 2, 2))
    mesh.write(tmp_path / "cube.vtu")
    points, triangles = read_surface(tmp_path / "cube.vtu")
    assert (len(points), len(triangles)) == (26, 48)
    assert enclosed(points, triangles) == pytest.approx(1.0, rel=1e-14)

    soup = mesh.points[mesh.facets].reshape(-1, 3)
    signed = torch.where((soup == 0) & (torch.arange(len(soup)) % 2 == 0)[:, None], -0.0, soup)
    rows = torch.arange(len(soup)).reshape(-1, 3)
    meshio.Mesh(signed.numpy(), [("triangle", rows.numpy())]).write(tmp_path / "soup.vtu")
    assert len(read_surface(tmp_path / "soup.vtu")[0]) == 26


def test_triangles_with_a_corner_twice_are_dropped(tmp_path: Path) -> None:
    points = numpy.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1.0]])
    meshio.Mesh(points, [("triangle", [[0, 1, 2], [0, 3, 4]])]).write(tmp_path / "a.ply")
    assert len(read_surface(tmp_path / "a.ply")[1]) == 1


def test_files_without_a_surface_are_refused(tmp_path: Path) -> None:
    meshio.Mesh(numpy.eye(3), [("line", [[0, 1]])]).write(tmp_path / "a.vtu")
    with pytest.raises(InputError, match=r"a.vtu: a surface is made of triangles; this file holds line"):
        read_surface(tmp_path / "a.vtu")


# What is refused


def save(path: Path, kind: str, rows: Any, points: Any = None) -> Path:
    width = int(numpy.max(rows)) + 1
    angle = numpy.arange(width)
    spiral = numpy.stack((numpy.cos(angle), numpy.sin(angle), 0.1 * angle), 1)
    meshio.Mesh(spiral if points is None else points, [(kind, numpy.asarray(rows))]).write(path)
    return path


@pytest.mark.parametrize(
    ("kind", "width", "message"),
    [
        ("triangle6", 6, r"cells of higher order \(triangle6\).*Mesh.ElementOrder = 1"),
        ("tetra10", 10, r"cells of higher order \(tetra10\)"),
        ("quad", 4, "holds quad; only triangles and tetrahedra are supported"),
        ("hexahedron", 8, "holds hexahedron; only triangles and tetrahedra"),
        ("line", 2, "holds line, and neither triangles nor tetrahedra"),
        ("vertex", 1, "holds vertex, and neither"),
    ],
)
def test_other_cells_are_refused(tmp_path: Path, kind: str, width: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mesh.read(save(tmp_path / "a.vtu", kind, [list(range(width))]))


def test_mixed_cells_are_refused(tmp_path: Path) -> None:
    points = numpy.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0.5, 0]])
    meshio.Mesh(points, [("quad", [[0, 1, 2, 3]]), ("triangle", [[1, 4, 2]])]).write(tmp_path / "a.vtu")
    with pytest.raises(InputError, match="holds quad; only triangles"):
        Mesh.read(tmp_path / "a.vtu")


@pytest.mark.parametrize("name", ["a.stl", "a.obj", "a.vtu"])
def test_a_surface_in_space_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    mesh = Mesh.box((1, 1, 1))
    with pytest.raises(InputError, match=r"a surface of triangles in space.*grid.voxelize\(path\)"):
        Mesh.read(save(tmp_path / name, "triangle", mesh.facets.numpy(), mesh.points.numpy()))


def test_errors_of_the_mesh_name_the_file(tmp_path: Path) -> None:
    points = numpy.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0.0]])
    double = save(tmp_path / "double.vtu", "triangle", [[0, 1, 2], [2, 1, 0], [0, 2, 3]], points)
    with pytest.raises(InputError, match=rf"^{re.escape(str(double))}: Mesh: 1 cell \(1\) repeats another one"):
        Mesh.read(double)
    flat = save(tmp_path / "flat.vtu", "triangle", [[0, 1, 2], [0, 1, 4]], points)
    with pytest.raises(InputError, match=r"1 cell \(1\) is degenerate"):
        Mesh.read(flat)
    with pytest.raises(InputError, match=r"cells name points that do not exist; there are 5"):
        Mesh.read(save(tmp_path / "outside.vtu", "triangle", [[0, 2, 5]], points))
    points[1, 0] = numpy.nan
    with pytest.raises(InputError, match=r"nan.vtu: 1 of 5 points have coordinates that are NaN or infinite"):
        Mesh.read(save(tmp_path / "nan.vtu", "triangle", [[0, 1, 2]], points))


@pytest.mark.parametrize("read", [Mesh.read, read_surface])
def test_files_that_are_none_are_refused(tmp_path: Path, read: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"none.msh: there is no such file"):
        read(tmp_path / "none.msh")
    with pytest.raises(InputError, match="is a folder; give the name of a file in it"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"a.msh: the file is empty"):
        read(written(tmp_path, "a.msh", ""))
    with pytest.raises(InputError, match=r"a.txt: .txt is no format of meshes; known are .*\.msh.*\.vtu"):
        read(written(tmp_path, "a.txt", "hello"))
    with pytest.raises(InputError, match=r"mesh: no ending is no format of meshes"):
        read(written(tmp_path, "mesh", "hello"))
    for ending in (".msh", ".vtk", ".vtu", ".stl", ".obj", ".xdmf", ".mesh", ".inp", ".ply", ".off", ".med"):
        with pytest.raises(InputError, match=rf"b\{ending}: "):
            read(written(tmp_path, f"b{ending}", "this is a letter\nto a friend\n"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ending", WRITTEN)
def test_a_file_cut_short_anywhere_is_refused_or_whole(tmp_path: Path, ending: str) -> None:
    """Whole if only the last line end is gone, and the like; never another mesh."""
    mesh = named()["solid"]
    mesh.write(tmp_path / f"whole{ending}")
    data = (tmp_path / f"whole{ending}").read_bytes()
    refused = 0
    for length in range(1, len(data), max(1, len(data) // 60)):
        path = written(tmp_path, f"cut{ending}", data[:length])
        try:
            read = Mesh.read(path)
        except InputError:
            refused += 1
        else:
            assert torch.equal(read.points, mesh.points) and torch.equal(read.cells, mesh.cells), f"cut at {length}"
            assert length > 0.5 * len(data)
    assert refused > 40


@pytest.mark.parametrize("text", [GMSH_2, GMSH_4])
def test_gmsh_text_cut_short_is_refused_or_whole(tmp_path: Path, text: str) -> None:
    for length in range(1, len(text) - 1, 7):
        try:
            mesh = Mesh.read(written(tmp_path, "cut.msh", text[:length]))
        except InputError:
            continue
        assert mesh.volume == 1.0
        assert "$EndElements" in text[:length]


def test_gmsh_4_files_with_some_elements_in_no_group_say_what_to_do(tmp_path: Path) -> None:
    text = GMSH_4.replace("1 0 0 0 1 1 0 1 5 0\n", "1 0 0 0 1 1 0 0 0\n")
    with pytest.raises(InputError, match=r"let Gmsh save version 2 \(-format msh22\)"):
        Mesh.read(written(tmp_path, "a.msh", text))
