"""What the pictures of meshes show is the mesh, its names and the field, in their places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, TriMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

import sciml
from sciml import InputError, Mesh, pictures
from sciml.pictures_of_meshes import draw_field, draw_mesh, draw_solution


def only(figure: Figure, kind: type) -> Any:
    (item,) = [child for axes in figure.axes for child in axes.get_children() if type(child) is kind]
    return item


def outlines(figure: Figure) -> dict[str, np.ndarray[Any, Any]]:
    """Segments by colour."""
    found = [child for axes in figure.axes for child in axes.get_children() if type(child) is LineCollection]
    return {to_hex(item.get_color()[0]): np.array(item.get_segments()) for item in found if len(item.get_color())}


def labels(figure: Figure) -> list[str]:
    """Of the ordinates and the colour bars."""
    return [axes.get_ylabel() for parent in figure.axes for axes in (parent, *parent.child_axes)]


def test_a_plane_mesh_shows_its_names_in_the_colours_of_the_legend() -> None:
    mesh = Mesh.box((3, 2), (0, 0), (3, 1))
    figure = draw_mesh(mesh)
    (legend,) = figure.legends
    colours = {
        text.get_text(): to_hex(patch.get_facecolor())
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert list(colours) == ["x_lower", "x_upper", "y_lower", "y_upper"]
    segments = outlines(figure)
    for name, colour in colours.items():
        np.testing.assert_array_equal(segments[colour], mesh.points[mesh.facets[mesh.boundary(name)]])
    assert len(segments["#000000"]) == len(mesh.facets)
    assert figure.get_suptitle() == "12 points, 12 triangles"
    assert figure.axes[0].get_aspect() == 1


def test_a_field_at_points_is_drawn_at_them_on_a_scale_by_its_sign() -> None:
    mesh = Mesh.box((3, 2)).refine()
    values = mesh.coordinates[0] - 0.5
    figure = draw_field(mesh, values, "speed")
    drawn = only(figure, TriMesh)
    np.testing.assert_array_equal(drawn.get_array(), values)
    np.testing.assert_array_equal(drawn._triangulation.triangles, mesh.cells)
    assert (drawn.get_cmap().name, drawn.norm.vmin, drawn.norm.vmax) == ("RdBu_r", -0.5, 0.5)
    assert "speed" in labels(figure)


def test_a_field_in_cells_is_constant_in_them() -> None:
    mesh = Mesh.box((3, 2))
    values = torch.arange(12.0) + 1
    figure = draw_field(mesh, values)
    (drawn,) = [c for c in figure.axes[0].collections if c.get_array() is not None]
    np.testing.assert_array_equal(drawn.get_array(), values)
    assert (drawn.norm.vmin, drawn.norm.vmax) == (1.0, 12.0)


def test_the_surface_of_a_solid_is_coloured_by_name_and_by_value() -> None:
    mesh = Mesh.box((2, 2, 2))
    mesh = Mesh(mesh.points, mesh.cells, {"top": mesh.boundary("z_upper")})
    drawn = only(draw_mesh(mesh), Poly3DCollection)
    paint = drawn._facecolor3d[:, :3]
    top = np.zeros(len(mesh.facets), dtype=bool)
    top[mesh.boundary("top")] = True
    blue = np.array(to_rgb(pictures.LINES[0]))
    hue = paint / paint.max(1, keepdims=True)
    np.testing.assert_allclose(hue[top], np.broadcast_to(blue / blue.max(), (8, 3)))
    np.testing.assert_allclose(hue[~top], 1.0)

    values = mesh.cell_centres[:, 2]
    by_cell = only(draw_field(mesh, values), Poly3DCollection)._facecolor3d[:, :3]
    below = mesh.facet_normals[:, 2] == -1
    lowest = values[mesh.facet_cells][below] == values.min()
    assert len(np.unique(by_cell[below][lowest], axis=0)) == 1


def test_shading_darkens_what_turns_away_from_the_light() -> None:
    mesh = Mesh.box((1, 1, 1))
    paint = only(draw_mesh(Mesh(mesh.points, mesh.cells)), Poly3DCollection)._facecolor3d[:, 0]
    assert paint[mesh.boundary("z_upper")].min() > paint[mesh.boundary("y_lower")].max()
    assert paint[mesh.boundary("y_lower")].min() > paint[mesh.boundary("z_lower")].max()


@pytest.mark.parametrize("shape", [(2, 2), (1, 1, 1)])
def test_pictures_become_files(tmp_path: Any, shape: tuple[int, ...]) -> None:
    mesh = Mesh.box(shape)
    pictures.write(draw_mesh(mesh), tmp_path / "mesh.png")
    pictures.write(draw_field(mesh, mesh.coordinates[0].float()), tmp_path / "field.svg")
    assert (tmp_path / "mesh.png").read_bytes().startswith(b"\x89PNG")
    assert b"</svg>" in (tmp_path / "field.svg").read_bytes()


def test_a_field_in_a_vector_file_is_one_raster(tmp_path: Any) -> None:
    mesh = Mesh.box((12, 12))
    pictures.write(draw_field(mesh, mesh.coordinates[0]), tmp_path / "field.svg")
    drawing = (tmp_path / "field.svg").read_text()
    assert "<image" in drawing
    assert drawing.count("<path") < len(mesh.cells)


def test_fields_that_do_not_fit_are_refused() -> None:
    mesh = Mesh.box((2, 2))
    with pytest.raises(InputError, match=r"9 values at the points or 8 in the cells; 'u' has shape \(7,\)"):
        draw_field(mesh, torch.zeros(7))
    with pytest.raises(InputError, match="'u' has no finite value"):
        draw_field(mesh, torch.full((9,), torch.nan))


def test_a_solution_is_drawn_with_a_panel_for_each_unknown_and_row(tmp_path):
    mesh = sciml.Mesh.box((4, 3))
    equation = sciml.Equation(["-laplacian(u) + v = f", "-laplacian(v) + u = 1"], unknowns=("u", "v"))
    sides = {name: sciml.Dirichlet(0.0) for name in ("u", "v")}
    f = torch.tensor([[1.0], [2.0]], dtype=torch.float64).expand(2, len(mesh.points))
    solution = sciml.solve(equation, mesh, fields={"f": f}, boundary=sides)
    figure = draw_solution(solution, history=True)
    assert labels(figure).count("u") == labels(figure).count("v") == 2
    assert [axes.get_title("left") for axes in figure.axes] == ["row 0", "row 1", "row 0", "row 1", "convergence"]
    assert r"(20\ \mathrm{points})" in figure.get_suptitle()
    solution.plot(tmp_path / "solution.png")
    assert (tmp_path / "solution.png").read_bytes().startswith(b"\x89PNG")
