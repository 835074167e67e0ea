"""Files as other programs write them, whole and damaged, in the formats that meshio reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import meshio
import numpy
import pytest
import torch

from sciml import surface_check
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.mesh import Mesh
from sciml.mesh_files import read_surface

SOLID = Mesh.box((2, 2, 2))
PLATE = Mesh.box((3, 2), 0.0, (3.0, 2.0))

# Name of the file, and what meshio is asked for.
FORMATS: dict[str, dict[str, Any]] = {
    "binary22.msh": {"file_format": "gmsh22", "binary": True},
    "text22.msh": {"file_format": "gmsh22", "binary": False},
    "binary41.msh": {"file_format": "gmsh", "binary": True},
    "text41.msh": {"file_format": "gmsh", "binary": False},
    "binary.vtk": {"binary": True},
    "text.vtk": {"binary": False},
    "binary.vtu": {},
    "text.vtu": {"binary": False},
    "xml.xdmf": {"data_format": "XML"},
    "hdf.xdmf": {"data_format": "HDF"},
    "a.inp": {},
    "a.med": {},
    "a.mesh": {},
    "a.meshb": {},
    "a.dat": {"file_format": "tecplot"},
    "a.vol": {},
    "a.mdpa": {},
}
SURFACES: dict[str, dict[str, Any]] = {
    "binary.stl": {"binary": True},
    "text.stl": {"binary": False},
    "binary.ply": {"binary": True},
    "text.ply": {"binary": False},
    "a.obj": {},
    "a.off": {},
}
TETGEN = {
    "a.node": "# points\n4 3 0 0\n1 0 0 0\n2 1 0 0\n3 0 1 0\n4 0 0 1\n",
    "a.ele": "# cells\n1 4 0\n1 1 2 3 4\n",
}


def saved(path: Path, options: dict[str, Any], points: torch.Tensor, kind: str, rows: torch.Tensor) -> Path:
    """The mesh in a file of its own folder, for some formats need more than one."""
    places = torch.cat((points, points.new_zeros(len(points), 3 - points.shape[1])), 1)
    path.parent.mkdir(exist_ok=True)
    meshio.Mesh(places.numpy(), [(kind, rows.numpy())]).write(path, **options)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_meshes_of_other_programs(tmp_path: Path, name: str) -> None:
    for mesh, kind in ((SOLID, "tetra"), (PLATE, "triangle")):
        read = Mesh.read(saved(tmp_path / kind / name, FORMATS[name], mesh.points, kind, mesh.cells))
        assert torch.equal(read.points, mesh.points)
        assert torch.equal(read.cells, mesh.cells)


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_of_other_programs_enclose_their_volume_without_a_warning(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, SURFACES[name], SOLID.points, "triangle", SOLID.facets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points, triangles = read_surface(path)
    a, b, c = points[triangles].unbind(1)
    assert float((a * torch.linalg.cross(b, c)).sum() / 6) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", ["binary.stl", "text.stl", "binary.ply", "a.off"])
def test_surfaces_cut_short_are_refused_and_never_waited_for(tmp_path: Path, name: str) -> None:
    """Of text in .off and .ply only the last digits can be lost without a trace, of .obj also whole lines."""
    path = saved(tmp_path / name, SURFACES[name], SOLID.points, "triangle", SOLID.facets)
    data = path.read_bytes()
    whole = read_surface(path)
    for length in (*range(1, len(data) - 12, 7), *range(len(data) - 12, len(data))):
        path.write_bytes(data[:length])
        try:
            points, triangles = read_surface(path)
        except InputError:
            continue
        assert length > len(data) - 4, f"cut at {length} of {len(data)}"
        assert torch.equal(triangles[:-1], whole[1][:-1])
        assert torch.equal(points, whole[0])


@pytest.mark.parametrize("name", ["text.ply", "a.obj", "a.off", "a.dat", "a.mdpa", "a.vol", "a.node", "a.ele"])
def test_text_that_ends_anywhere_ends_the_reading(tmp_path: Path, name: str) -> None:
    for file, text in TETGEN.items():
        (tmp_path / file).write_text(text)
    options = FORMATS.get(name, SURFACES.get(name, {}))
    if name not in TETGEN:
        saved(tmp_path / name, options, PLATE.points, "triangle", PLATE.cells)
    assert len(Mesh.read(tmp_path / name).cells) > 0
    data = (tmp_path / name).read_bytes()
    for length in range(1, len(data), 5):
        (tmp_path / name).write_bytes(data[:length])
        try:
            Mesh.read(tmp_path / name)
        except InputError as error:
            assert name in str(error)


def test_formats_of_two_files_need_both(tmp_path: Path) -> None:
    (tmp_path / "a.node").write_text(TETGEN["a.node"])
    with pytest.raises(InputError, match=r"there is no file .*a.ele, and the format has two"):
        Mesh.read(tmp_path / "a.node")
    (tmp_path / "a.ele").write_text("# nothing\n\n")
    with pytest.raises(InputError, match=r"a.ele has no line that says anything"):
        Mesh.read(tmp_path / "a.node")
    (tmp_path / "a.ele").write_text(TETGEN["a.ele"])
    assert float(Mesh.read(tmp_path / "a.node").volume) == pytest.approx(1 / 6)


TETRAHEDRON = "v 0 0 0{tail}\nv 1 0 0{tail}\nv 0 1 0{tail}\nv 0 0 1{tail}\n"
OBJ = {
    "normals and textures": (
        "# exported\nmtllib a.mtl\no Solid\n" + TETRAHEDRON + "vn 0 0 1\nvt 0 0\nvt 1 0\ng one\nusemtl x\ns off\n"
        "f 1/1/1 3/2/1 2/1/1\nf 1//1 2//1 4//1\ng two\nf 1/1 4/1 3/2\nf 2 3 4\n"
    ),
    "numbers from the end": TETRAHEDRON + "f -4 -2 -3\nf -4 -3 -1\nf -4 -1 -2\nf -3 -2 -1\n",
}


@pytest.mark.parametrize("tail", ["", " 1.0", " 0.5 0.5 0.5"], ids=["plain", "weights", "colours"])
@pytest.mark.parametrize("text", OBJ.values(), ids=OBJ)
def test_obj_files_as_programs_write_them(tmp_path: Path, text: str, tail: str) -> None:
    (tmp_path / "a.obj").write_text(text.format(tail=tail))
    points, triangles = read_surface(tmp_path / "a.obj")
    check = surface_check(points, triangles)
    assert (check.triangles, check.closed) == (4, True)
    assert check.volume == pytest.approx(1 / 6, rel=1e-14)


def test_polygons_that_are_not_convex_are_exact(tmp_path: Path) -> None:
    """A prism over an L of six corners, with the fan from a corner that does not see all the others."""
    outline = [(2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 0)]
    lines = [f"v {x} {y} {z}" for z in (0, 1) for x, y in outline]
    lines += [
        "f 6 5 4 3 2 1",
        "f 7 8 9 10 11 12",
        *(f"f {k + 1} {(k + 1) % 6 + 1} {(k + 1) % 6 + 7} {k + 7}" for k in range(6)),
    ]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    points, triangles = read_surface(tmp_path / "a.obj")
    check = surface_check(points, triangles)
    assert check.closed and check.volume == pytest.approx(3.0, rel=1e-14)
    grid = Grid((20, 20, 10), (0.0, 0.0, 0.0), (2.0, 2.0, 1.0))
    x, y, _ = grid.coordinates
    for method in (None, "parity", "winding"):
        assert torch.equal(grid.voxelize((points, triangles), method=method), (x < 1) | (y < 1))


def test_polyhedra_are_refused(tmp_path: Path) -> None:
    points = numpy.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    faces = [[[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]]
    meshio.Mesh(points, [("polyhedron4", faces)]).write(tmp_path / "a.vtu")
    for read in (Mesh.read, read_surface):
        with pytest.raises(InputError, match=r"holds polyhedron4( as well|; only triangles)"):
            read(tmp_path / "a.vtu")


def test_paths_that_are_none_are_refused(tmp_path: Path) -> None:
    for path in (None, 3, b"part.msh"):
        with pytest.raises(InputError, match="the path of a mesh file is a text or a path, got"):
            Mesh.read(path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is a folder; give the name of a file in it"):
        Mesh.read(tmp_path)
    for path in (None, 3, b"part.msh"):
        with pytest.raises(InputError, match="the path of a file is a text or a path, got"):
            PLATE.write(path)  # type: ignore[arg-type]


def test_a_surface_is_not_part_of_what_a_file_holds(tmp_path: Path) -> None:
    """A body of wedges and tetrahedra has another surface than its tetrahedra."""
    points = numpy.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1], [0, 0, 2.0]])
    mixed = [("tetra", [[3, 4, 5, 6]]), ("wedge", [[0, 1, 2, 3, 4, 5]])]
    meshio.Mesh(points, mixed).write(tmp_path / "a.vtu")
    with pytest.raises(InputError, match=r"a.vtu: a surface is made of triangles .* this file holds wedge as well"):
        read_surface(tmp_path / "a.vtu")


def test_surfaces_without_triangles_or_points_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.stl").write_text("solid nothing\nendsolid nothing\n")
    (tmp_path / "a.off").write_text("OFF\n\n3 0 0\n\n0 0 0\n1 0 0\n0 1 0\n")
    for name in ("a.stl", "a.off"):
        with pytest.raises(InputError, match=rf"{name}: a surface is made of triangles; this file holds no cells"):
            read_surface(tmp_path / name)
    meshio.Mesh(numpy.eye(3), [("tetra", [[0, 1, 2, 7]])]).write(tmp_path / "a.vtu")
    with pytest.raises(InputError, match=r"a.vtu: its cells name points that do not exist; there are 3"):
        read_surface(tmp_path / "a.vtu")


def test_cells_side_by_side_without_points_in_common_are_told(tmp_path: Path) -> None:
    """Two halves of a square, each with points of its own on the diagonal: a crack, and perhaps an accident."""
    halves = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1]], dtype=torch.float64)
    rows = torch.tensor([[0, 1, 2], [3, 4, 5]])
    with pytest.warns(UserWarning, match=r"cracked.vtu: 1 pair of facets lies upon each other.* merge the points"):
        cracked = Mesh.read(saved(tmp_path / "cracked.vtu", {}, halves, "triangle", rows))
    assert len(cracked.facets) == 6
    places, numbers = cracked.points.unique(dim=0, return_inverse=True)
    whole = Mesh(places, numbers[cracked.cells])  # as the warning says
    assert (len(whole.points), len(whole.facets)) == (4, 4)
    # Bodies that touch at a point have none of their facets in common.
    apart = torch.cat((halves[:3], halves[:3] + 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Mesh.read(saved(tmp_path / "apart.vtu", {}, apart, "triangle", rows))
