"""Pictures of meshes with their names, and of fields on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FormatStrFormatter, MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D
from torch import Tensor

from .errors import InputError
from .grid import Grid
from .pictures import (
    LINES,
    SOLID,
    STYLE,
    colour_scale,
    draw_bar,
    draw_curve,
    draw_head,
    first_rows,
    is_nonlinear,
    make_figure,
    row_title,
)

if TYPE_CHECKING:
    from .mesh import Mesh
    from .solution import Solution

_MOST_EDGES = 20_000  # cells; more of them would only blacken the picture
_THIN = 0.2  # of the longest axis
_ELEVATION, _AZIMUTH = 24.0, -55.0  # of the viewer, degrees
_LIGHT = torch.tensor([0.35, -0.55, 0.76], dtype=torch.float64)  # from over the viewer's left shoulder


def draw_mesh(mesh: Mesh) -> Figure:
    """A figure of a mesh, its named boundaries in colours; all axes in the unit of length of the problem.

    In the plane all cells are drawn, in space the surface, shaded. Where parts overlap, the last name wins.
    """
    names = [name for name in mesh.boundaries if name != "exterior"]
    colours = {name: LINES[index % len(LINES)] for index, name in enumerate(names)}
    with matplotlib.rc_context(STYLE):
        figure = make_figure(*_size(mesh))
        if mesh.dimension == 3:
            paint = torch.tensor(to_rgb(SOLID), dtype=torch.float64).repeat(len(mesh.facets), 1)
            for name, colour in colours.items():
                paint[mesh.boundary(name).cpu()] = torch.tensor(to_rgb(colour), dtype=torch.float64)
            axes = _draw_surface(figure, (1, 1, 1), mesh, _shaded(mesh, paint), len(mesh.facets) <= _MOST_EDGES)
        else:
            axes = figure.subplots()
            x, y = mesh.points.detach().cpu().T.numpy()
            width = 0.5 if len(mesh.cells) <= 3000 else 0.2
            axes.triplot(x, y, mesh.cells.cpu().numpy(), color="#8c8c8c", linewidth=width)
            axes.add_collection(_outline(mesh, "exterior", "#000000", 0.8))
            for name, colour in colours.items():
                axes.add_collection(_outline(mesh, name, colour, 2.4))
            _tidy_plane(axes)
        if names:
            handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
            figure.legend(handles=handles, loc="outside right upper")
        kind = "triangles" if mesh.dimension == 2 else "tetrahedra"
        figure.suptitle(f"{len(mesh.points)} points, {len(mesh.cells)} {kind}", x=0.01, ha="left", fontsize=9.5)
        return figure


def draw_field(mesh: Mesh, values: Tensor, name: str = "u") -> Figure:
    """A figure of a field on a mesh: linear between its values at the points, or constant in cells.

    In the plane the field is drawn as it is; in space on the surface, one shaded colour a facet, its mean there. A
    field that changes sign gets a diverging colour map centred on zero.

    Args:
        mesh: where the field lives.
        values: `(n,)` at the points or `(m,)` in the cells.
        name: of the field, for the colour bar.

    Raises:
        InputError: `values` has another shape, or no finite value.
    """
    data = values.detach().to("cpu", torch.float64)
    if tuple(data.shape) not in ((len(mesh.points),), (len(mesh.cells),)):
        raise InputError(
            f"a field on this mesh has {len(mesh.points)} values at the points or {len(mesh.cells)} in the cells; "
            f"{name!r} has shape {tuple(data.shape)}"
        )
    with matplotlib.rc_context(STYLE):
        figure = make_figure(*_size(mesh))
        _draw_panel(figure, (1, 1, 1), mesh, data, name)
        return figure


def draw_solution(solution: Solution, *, history: bool = False) -> Figure:
    """A figure of every unknown of a solution on a mesh, of a batch the first three rows; see `draw_field`.

    Args:
        solution: what to draw.
        history: add a panel with the residual against the iteration, where the solution has one.

    Raises:
        InputError: the solution is not one on a mesh, or holds no finite value to draw.
    """
    mesh = solution.domain
    if mesh is None or isinstance(mesh, Grid):
        raise InputError("this draws solutions on meshes, and the solution is not one")
    fields = {name: first_rows(field, 1) for name, field in solution.fields.items()}
    curve = solution.history.get("residual_norm") if history else None
    down = max(len(rows) for rows in fields.values())
    across = len(fields) + (curve is not None)
    width, height = _size(mesh)
    with matplotlib.rc_context(STYLE):
        figure = make_figure(across * width, down * height + 0.3)
        for column, (name, rows) in enumerate(fields.items(), 1):
            for row, data in enumerate(rows):
                axes = _draw_panel(figure, (down, across, row * across + column), mesh, data, name)
                axes.set_title(row_title(solution, row), loc="left")
        if curve is not None:
            draw_curve(figure.add_subplot(down, across, across), curve, is_nonlinear(solution))
        draw_head(figure, solution, rf"{len(mesh.points)}\ \mathrm{{points}}")
        return figure


def _draw_panel(figure: Figure, place: tuple[int, int, int], mesh: Mesh, data: Tensor, name: str) -> Axes:
    """One field with its colour bar, in the place (rows, columns, number) of a figure."""
    norm, colours = colour_scale(data, name)
    shown = ScalarMappable(norm, colours)
    if mesh.dimension == 3:
        solid = _draw_surface(figure, place, mesh, _painted(mesh, data, shown), False)
        bar = figure.colorbar(shown, ax=solid, ticks=MaxNLocator(6), shrink=0.7, aspect=22, pad=0.08)
        bar.set_label(name, rotation=0, labelpad=8)
        bar.outline.set_linewidth(0.5)
        return solid
    axes = figure.add_subplot(*place)
    draw_plane(axes, mesh, data, norm, colours)
    draw_bar(axes, shown, name, 0.14 / (_size(mesh)[0] - 1.9))
    return axes


def _size(mesh: Mesh) -> tuple[float, float]:
    """Width and height of a figure for the shape of the mesh, with room for a legend or colour bar; inches."""
    if mesh.dimension == 3:
        return 5.6, 4.4
    across, upwards = (mesh.points.detach().amax(0) - mesh.points.detach().amin(0)).tolist()
    unit = min(4.6 / across, 4.2 / upwards)
    return unit * across + 1.9, max(unit * upwards + 0.9, 2.4)


def draw_plane(axes: Axes, mesh: Mesh, data: Tensor, norm: Normalize, colours: str) -> None:
    """A field `(n,)` at the points or `(m,)` in the cells of a mesh in the plane."""
    at_points = len(data) == len(mesh.points)
    x, y = mesh.points.detach().cpu().T.numpy()
    shading = "gouraud" if at_points else "flat"
    words = {} if at_points else {"facecolors": data.numpy()}
    positional = (data.numpy(),) if at_points else ()
    axes.tripcolor(
        x,
        y,
        *positional,
        triangles=mesh.cells.cpu().numpy(),
        norm=norm,
        cmap=colours,
        shading=shading,
        rasterized=True,  # in an SVG or PDF every triangle would be a drawing of its own
        **words,
    )
    axes.add_collection(_outline(mesh, "exterior", "#000000", 0.6))
    _tidy_plane(axes)


def _outline(mesh: Mesh, name: str, colour: str, width: float) -> LineCollection:
    edges = mesh.points.detach().cpu()[mesh.facets[mesh.boundary(name)].cpu()]
    return LineCollection(edges.numpy(), colors=colour, linewidths=width, capstyle="round")


def _tidy_plane(axes: Axes) -> None:
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _shaded(mesh: Mesh, paint: Tensor) -> Tensor:
    """Colours `(f, 3)` of facets, darker where they turn away from the light."""
    facing = (mesh.facet_normals.detach().to("cpu", torch.float64) @ (_LIGHT / _LIGHT.norm())).clamp(min=0.0)
    return paint * (0.6 + 0.4 * facing[:, None])


def draw_facets(axes: Axes3D, mesh: Mesh, data: Tensor, norm: Normalize, colours: str) -> Poly3DCollection:
    """A field on the surface of a mesh in space, without axes; `paint_facets` changes it."""
    surface = _fill_surface(axes, mesh, _painted(mesh, data, ScalarMappable(norm, colours)), False)
    axes.set_axis_off()
    axes.set_box_aspect(_extents(mesh), zoom=1.25)
    return surface


def paint_facets(surface: Poly3DCollection, mesh: Mesh, data: Tensor, norm: Normalize, colours: str) -> None:
    """Another field on the surface that `draw_facets` drew."""
    paint = _painted(mesh, data, ScalarMappable(norm, colours)).numpy()
    surface.set_facecolors(paint)
    surface.set_edgecolors(paint)


def _painted(mesh: Mesh, data: Tensor, shown: ScalarMappable) -> Tensor:
    """Shaded colours `(f, 3)` of the facets: of the mean of the field there, or its value in the cell behind."""
    on_facets = data[mesh.facets.cpu()].mean(1) if len(data) == len(mesh.points) else data[mesh.facet_cells.cpu()]
    return _shaded(mesh, torch.from_numpy(shown.to_rgba(on_facets.numpy())[:, :3].copy()))


def _extents(mesh: Mesh) -> list[float]:
    extents: list[float] = (mesh.points.detach().amax(0) - mesh.points.detach().amin(0)).tolist()
    return extents


def _draw_surface(figure: Figure, place: tuple[int, int, int], mesh: Mesh, paint: Tensor, edges: bool) -> Axes3D:
    axes = figure.add_subplot(*place, projection="3d", computed_zorder=True)
    _fill_surface(axes, mesh, paint, edges)
    return axes


def _fill_surface(axes: Axes3D, mesh: Mesh, paint: Tensor, edges: bool) -> Poly3DCollection:
    corners = mesh.points.detach().cpu()[mesh.facets.cpu()].numpy()
    lines = {"edgecolors": (0.0, 0.0, 0.0, 0.35), "linewidths": 0.25} if edges else {"edgecolors": paint.numpy()}
    surface = Poly3DCollection(corners, facecolors=paint.numpy(), **lines)
    surface.set_rasterized(len(mesh.facets) > _MOST_EDGES)
    axes.add_collection3d(surface)
    lower, upper = mesh.points.detach().cpu().amin(0), mesh.points.detach().cpu().amax(0)
    for set_limits, low, high in zip(
        (axes.set_xlim, axes.set_ylim, axes.set_zlim), lower.tolist(), upper.tolist(), strict=True
    ):
        set_limits(low, high)
    extents = _extents(mesh)
    axes.set_box_aspect(extents)
    axes.view_init(_ELEVATION, _AZIMUTH)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.set_zlabel("z")
    for axis, high, extent in zip((axes.xaxis, axes.yaxis, axes.zaxis), upper.tolist(), extents, strict=True):
        thin = extent < _THIN * max(extents)  # there labels would lie on each other
        axis.set_major_locator(FixedLocator([high]) if thin else MaxNLocator(4))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.labelpad = 7.5
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
    return surface
