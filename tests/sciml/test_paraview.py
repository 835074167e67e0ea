"""Files for ParaView hold every value in its place; read back with an XML parser and base64."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import meshio
import numpy as np
import pytest
import torch

from sciml import Dirichlet, Equation, Grid, InputError, Mesh, Periodic, Solution, discretize, paraview

DARCY = Equation("-div(a*grad(u)) = f")
TYPES = {"Float64": np.float64, "Float32": np.float32, "UInt8": np.uint8}


def make(grid: Grid, batch: tuple[int, ...] = (), **fields: Any) -> Solution:
    system = discretize(DARCY, grid, {"a": 2.0, "f": 1.0, **fields})
    value = torch.rand(*batch, *grid.shape, dtype=grid.dtype, generator=torch.Generator().manual_seed(0))
    return Solution(value, torch.zeros(batch, dtype=torch.int64), {}, {}, system=system)


def read(path: Path) -> tuple[dict[str, str], str, dict[str, Any]]:
    """The attributes of the image, where its data stand, and the arrays with x as their first axis."""
    root = ElementTree.parse(path).getroot()
    assert root.attrib["type"] == "ImageData"
    assert root.attrib["header_type"] == "UInt64"
    image, appended = root.find("ImageData"), root.find("AppendedData")
    assert image is not None
    assert appended is not None
    assert appended.text is not None
    text = appended.text.strip()
    assert text.startswith("_")
    piece = image.find("Piece")
    assert piece is not None
    assert piece.attrib["Extent"] == image.attrib["WholeExtent"]
    (section,) = piece
    counts = [int(n) for n in piece.attrib["Extent"].split()[1::2]]
    shape = [n + 1 for n in counts] if section.tag == "PointData" else [max(n, 1) for n in counts]
    arrays = {}
    for array in section:
        start = 1 + int(array.attrib["offset"])
        size = int.from_bytes(base64.b64decode(text[start : start + 12])[:8], "little")
        length = 4 * -(-(8 + size) // 3)
        data = base64.b64decode(text[start : start + length])[8:]
        assert len(data) == size
        values = np.frombuffer(data, TYPES[array.attrib["type"]])
        arrays[array.attrib["Name"]] = values.reshape(shape[::-1]).T
    return image.attrib, section.tag, arrays


def test_cells(tmp_path: Path) -> None:
    solid = torch.zeros(4, 3, 2, dtype=torch.bool)
    solid[1, 2, 0] = True
    boundary = {"x": Periodic(), "y": Dirichlet(0), "z": Dirichlet(0)}
    grid = Grid((4, 3, 2), (0, 1, -1), (2, 4, 1), boundary, solid)
    field = torch.rand(3, 1, dtype=torch.float64)
    solution = make(grid, a=field)
    assert paraview.write(solution, tmp_path / "a.vti") == [tmp_path / "a.vti"]
    image, section, arrays = read(tmp_path / "a.vti")
    assert section == "CellData"
    assert image["WholeExtent"] == "0 4 0 3 0 2"
    assert [float(n) for n in image["Spacing"].split()] == [0.5, 1, 1]
    assert [float(n) for n in image["Origin"].split()] == [-0.25, 1, -1]
    np.testing.assert_array_equal(arrays["u"], solution.value)
    np.testing.assert_array_equal(arrays["a"], field.expand(4, 3, 2))
    np.testing.assert_array_equal(arrays["vtkGhostType"], 32 * solid)
    assert set(arrays) == {"u", "a", "vtkGhostType"}


def test_points_of_a_periodic_box_are_closed(tmp_path: Path) -> None:
    grid = Grid((4, 3), (0, 1), (2, 4), Periodic(), dtype=torch.float32)
    solution = make(grid)
    paraview.write(solution, tmp_path / "a.vti")
    image, section, arrays = read(tmp_path / "a.vti")
    assert section == "PointData"
    assert image["WholeExtent"] == "0 4 0 3 0 0"
    assert [float(n) for n in image["Origin"].split()] == [0, 1, 0]
    assert arrays["u"].dtype == np.float32
    np.testing.assert_array_equal(arrays["u"][:4, :3, 0], solution.value)
    np.testing.assert_array_equal(arrays["u"][4, :3, 0], solution.value[0])
    np.testing.assert_array_equal(arrays["u"][:4, 3, 0], solution.value[:, 0])


def test_a_batch_becomes_a_file_a_row(tmp_path: Path) -> None:
    solution = make(Grid((5,)), (2, 2))
    paths = paraview.write(solution, tmp_path / "a.vti")
    assert [path.name for path in paths] == ["a_0.vti", "a_1.vti", "a_2.vti", "a_3.vti"]
    for path, row in zip(paths, solution.value.reshape(4, 5), strict=True):
        np.testing.assert_array_equal(read(path)[2]["u"][:, 0, 0], row)


def make_on_mesh(mesh: Mesh, batch: tuple[int, ...] = (), **fields: Any) -> Solution:
    system = discretize(DARCY, mesh, {"a": 2.0, "f": 1.0, **fields}, boundary=Dirichlet(0.0))
    value = torch.rand(*batch, len(mesh.points), dtype=mesh.dtype, generator=torch.Generator().manual_seed(0))
    return Solution(value, torch.zeros(batch, dtype=torch.int64), {}, {}, system=system)


@pytest.mark.parametrize("suffix", [".vtu", ".vtk", ".xdmf"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 1, 2)])
def test_a_mesh_is_read_by_meshio(shape: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    mesh = Mesh.box(shape).with_regions({"left": lambda x, *_: x < 0.5})
    solution = make_on_mesh(mesh, a={"left": 3.0, "rest": 1.0}, f=lambda x, y, *_: x * y)
    path = tmp_path / f"a{suffix}"
    assert paraview.write(solution, path) == [path]
    content = meshio.read(path)
    np.testing.assert_array_equal(content.points[:, : mesh.dimension], mesh.points)
    (block,) = content.cells
    assert block.type == ("triangle" if mesh.dimension == 2 else "tetra")
    np.testing.assert_array_equal(block.data, mesh.cells)
    np.testing.assert_array_equal(content.point_data["u"], solution.value)
    np.testing.assert_allclose(content.point_data["f"], mesh.points[:, 0] * mesh.points[:, 1], atol=0)
    np.testing.assert_array_equal(content.cell_data["a"][0], torch.where(mesh.cell_centres[:, 0] < 0.5, 3.0, 1.0))
    again = Mesh.read(path)
    for name, part in mesh.boundaries.items():
        assert torch.equal(again.boundary(name), part)
    assert torch.equal(again.region("left"), mesh.region("left"))


def test_a_batch_on_a_mesh_becomes_a_file_a_row(tmp_path: Path) -> None:
    solution = make_on_mesh(Mesh.box((3, 2)), (2, 2), a=torch.tensor([[1.0], [2.0]], dtype=torch.float64))
    paths = paraview.write(solution, tmp_path / "a.vtu")
    assert [path.name for path in paths] == ["a_0.vtu", "a_1.vtu", "a_2.vtu", "a_3.vtu"]
    for path, row in zip(paths, solution.value.reshape(4, -1), strict=True):
        content = meshio.read(path)
        np.testing.assert_array_equal(content.point_data["u"], row)
        assert list(content.point_data) == ["u"]


def test_a_coefficient_in_cells_is_not_taken_for_one_at_points(tmp_path: Path) -> None:
    mesh = Mesh.box((2, 3)).with_regions({"left": lambda x, y: x < 0.5})
    assert len(mesh.points) == len(mesh.cells)
    paraview.write(make_on_mesh(mesh, a={"left": 3.0, "rest": 1.0}), tmp_path / "a.vtu")
    assert list(meshio.read(tmp_path / "a.vtu").point_data) == ["u"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ending in \.vti"):
        paraview.write(make(Grid((5,))), tmp_path / "a.vtk")
    with pytest.raises(InputError, match=r"ending in \.vtu or \.vtk or \.xdmf"):
        paraview.write(make_on_mesh(Mesh.box((2, 2))), tmp_path / "a.vti")
    with pytest.raises(InputError, match="the name 'a<b' cannot be kept"):
        paraview.write(make_on_mesh(Mesh.box((2, 2)).with_regions({"a<b": [0]})), tmp_path / "a.vtu")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="bare operator"):
        paraview.write(Solution(torch.ones(3), torch.tensor(0), {}, {}), tmp_path / "a.vti")
