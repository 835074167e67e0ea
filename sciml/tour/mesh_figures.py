"""Figures of the tour that show triangles: a mesh with its names, and a field on it."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..mesh import Mesh
from . import figures
from .scene import coloured_tiles, draw_scene


def mesh_figure(mesh: Mesh, regions: Mapping[str, str], width: float) -> Figure:
    """The triangles of a mesh in the plane, its boundaries as coloured lines, regions filled.

    Args:
        regions: name -> colour of the regions to be filled.
        width: inches.
    """
    with figures.style():
        figure, axes = figures.panel(width, _height(mesh, width - 0.75, 0.4))
        for name, colour in regions.items():
            cells = mesh.points[mesh.cells[mesh.region(name)]].numpy()
            axes.add_collection(PolyCollection(list(cells), facecolors=colour, edgecolors="none"))
        x, y = mesh.points.T.numpy()
        axes.triplot(x, y, mesh.cells.numpy(), color=figures.SOFT, linewidth=0.35)
        names = [name for name in mesh.boundaries if name != "exterior"]
        handles: list[Line2D | Patch] = []
        for colour, name in zip(figures.LINES, names, strict=False):
            axes.add_collection(_lines(mesh, name, colour, 2.2))
            handles.append(Line2D([], [], color=colour, linewidth=2.2, label=name))
        handles += [Patch(facecolor=colour, label=name) for name, colour in regions.items()]
        figure.legend(handles=handles, loc="outside right upper", handlelength=1.2, borderaxespad=0.0)
        _frame(axes, mesh)
        return figure


def field_figure(
    mesh: Mesh, values: Tensor, width: float, *, title: str = "", colours: str = "viridis", contours: int = 0
) -> Figure:
    """A field `(n,)` that is linear between the points of a mesh in the plane, with lines of equal value."""
    with figures.style():
        figure, axes = figures.panel(width, _height(mesh, width - 0.75, 0.62 if title else 0.4))
        x, y = mesh.points.T.numpy()
        cells, data = mesh.cells.numpy(), values.detach().numpy()
        # As a raster: one gradient a triangle makes a drawing that no browser likes.
        image = axes.tripcolor(x, y, data, triangles=cells, shading="gouraud", cmap=colours, rasterized=True)
        if contours:
            axes.tricontour(x, y, cells, data, levels=contours, colors="white", linewidths=0.5, alpha=0.55)
        draw_outline(axes, mesh)
        _frame(axes, mesh)
        if title:
            axes.set_title(title, loc="left")
        scale = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.03, 1.0)), ticks=MaxNLocator(5))
        scale.outline.set_linewidth(0.4)
        return figure


def surface_figure(mesh: Mesh, values: Tensor, width: float, *, title: str = "", colours: str = "viridis") -> Figure:
    """A field `(n,)` on the surface of a mesh in space, one shaded colour a facet, its mean there."""
    norm = Normalize(float(values.min()), float(values.max()))
    shown = ScalarMappable(norm, colours)
    paint = shown.to_rgba(values[mesh.facets].mean(1).numpy())[:, :3]
    tiles = coloured_tiles(mesh.points, mesh.facets, paint)
    lower, upper = mesh.points.amin(0).tolist(), mesh.points.amax(0).tolist()
    height = 0.42 * width
    figure = draw_scene(
        tiles, [], [], lower, upper, width=width, height=height, share=0.9, elevation=42.0, frame=False, raster=True
    )
    with figures.style():
        scale = figure.colorbar(shown, cax=figure.add_axes((0.925, 0.06, 0.018, 0.82)), ticks=MaxNLocator(5))
        scale.outline.set_linewidth(0.4)
        if title:
            figure.text(0.925, 0.92, title, fontsize=9.5)
        return figure


def draw_outline(axes: Axes, mesh: Mesh) -> None:
    """The whole boundary of a mesh in the plane, as a thin line."""
    axes.add_collection(_lines(mesh, "exterior", figures.SOFT, 0.7))


def _height(mesh: Mesh, width: float, more: float) -> float:
    across, upwards = (mesh.points.amax(0) - mesh.points.amin(0)).tolist()
    return (width - 0.7) * float(upwards) / float(across) + more


def _lines(mesh: Mesh, name: str, colour: str, width: float) -> LineCollection:
    edges = mesh.points[mesh.facets[mesh.boundary(name)]].numpy()
    return LineCollection(list(edges), colors=colour, linewidths=width, capstyle="round")


def _frame(axes: Axes, mesh: Mesh) -> None:
    lower, upper = mesh.points.amin(0), mesh.points.amax(0)
    room = 0.02 * float((upper - lower).max())
    axes.set(xlim=(float(lower[0]) - room, float(upper[0]) + room))
    axes.set(ylim=(float(lower[1]) - room, float(upper[1]) + room))
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(4))
