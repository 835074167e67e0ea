"""Figures of the tour that show what evolves: fields over space and time, and at several times side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..grid import Grid
from ..mesh import Mesh
from . import figures
from .mesh_figures import draw_outline

DASHES = (0, (4, 3))


def space_time_figure(
    grid: Grid,
    times: Tensor,
    values: Tensor,
    *,
    width: float = figures.WHOLE,
    height: float = 2.9,
    title: str = "",
    colours: str = "RdBu_r",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A field on an interval, `(time, n)`, as colours over time (to the right) and space (upwards)."""
    with figures.style():
        figure, axes = figures.panel(width, height)
        low, high = limits or _limits(values)
        image = axes.imshow(
            values.detach().T.numpy(),
            origin="lower",
            aspect="auto",
            extent=(float(times[0]), float(times[-1]), grid.lower[0], grid.upper[0]),
            cmap=colours,
            norm=Normalize(low, high),
            interpolation="bilinear",
            interpolation_stage="data",
        )
        axes.set(xlabel="t", ylabel="x")
        _bar(figure, axes, image, title)
        return figure


def snapshots_figure(
    grid: Grid,
    values: Sequence[Tensor],
    titles: Sequence[str],
    *,
    width: float = 1.25 * figures.WHOLE,
    columns: int | None = None,
    colours: str = "RdBu_r",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Maps of fields `(nx, ny)` side by side, without axes, on one colour scale."""
    with figures.style():
        columns = columns or len(values)
        rows = -(-len(values) // columns)
        side = (width - 0.55) / columns
        figure = figures.blank(width, rows * (side + 0.22))
        low, high = limits or _limits(*values)
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes, field, title in zip(panels.flat, values, titles, strict=True):
            image = axes.imshow(
                field.detach().T.numpy(),
                origin="lower",
                cmap=colours,
                norm=Normalize(low, high),
                extent=(grid.lower[0], grid.upper[0], grid.lower[1], grid.upper[1]),
                interpolation="bilinear",
                interpolation_stage="data",
            )
            axes.set_axis_off()
            axes.set_title(title, loc="left")
        scale = figure.colorbar(image, ax=panels, pad=0.01, aspect=14 * rows, fraction=0.03, ticks=MaxNLocator(5))
        scale.outline.set_linewidth(0.4)
        return figure


def mesh_snapshots_figure(
    mesh: Mesh,
    values: Sequence[Tensor],
    titles: Sequence[str],
    *,
    columns: int,
    label: str,
    width: float = 1.25 * figures.WHOLE,
    colours: str = "inferno",
) -> Figure:
    """Fields `(n,)`, linear between the points of a mesh in the plane, side by side on one colour scale."""
    with figures.style():
        rows = -(-len(values) // columns)
        across, upwards = (mesh.points.amax(0) - mesh.points.amin(0)).tolist()
        side = (width - 0.9) / columns
        figure = figures.blank(width, rows * (side * upwards / across + 0.3))
        panels = figure.subplots(rows, columns, squeeze=False)
        x, y = mesh.points.T.numpy()
        norm = Normalize(min(float(v.min()) for v in values), max(float(v.max()) for v in values))
        for axes, field, title in zip(panels.flat, values, titles, strict=True):
            axes.tripcolor(
                x,
                y,
                field.numpy(),
                triangles=mesh.cells.numpy(),
                shading="gouraud",
                cmap=colours,
                norm=norm,
                rasterized=True,
            )
            draw_outline(axes, mesh)
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_title(title, loc="left")
        scale = figure.colorbar(
            ScalarMappable(norm, colours), ax=panels, pad=0.01, aspect=12 * rows, fraction=0.03, ticks=MaxNLocator(6)
        )
        scale.outline.set_linewidth(0.4)
        scale.set_label(label)
        return figure


def curves_figure(
    curves: Mapping[str, tuple[Tensor, Tensor]],
    *,
    labels: tuple[str, str],
    width: float = figures.HALF,
    height: float = 2.8,
    dashed: Sequence[str] = (),
    dotted: Sequence[str] = (),
    logarithmic: bool = False,
    title: str = "",
) -> Figure:
    """Lines `(abscissas, ordinates)` by name.

    Args:
        dashed: names of lines to be dashed and grey, such as what is exact.
        dotted: names of lines to be drawn as points alone.
        logarithmic: the ordinate is.
    """
    with figures.style():
        figure, axes = figures.panel(width, height)
        coloured = [name for name in curves if name not in dashed]
        for name, (x, y) in curves.items():
            if name in dashed:
                axes.plot(x, y, color=figures.SOFT, linewidth=1.0, linestyle=DASHES, label=name, zorder=3)
                continue
            colour = figures.LINES[coloured.index(name) % len(figures.LINES)]
            if name in dotted:
                axes.plot(x, y, "o", color=colour, markersize=3.6, label=name)
            else:
                axes.plot(x, y, color=colour, label=name)
        if logarithmic:
            axes.set_yscale("log")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if title:
            axes.set_title(title, loc="left")
        if len(curves) > 1:
            axes.legend(loc="best", handlelength=1.6)
        figures.tidy(axes)
        return figure


def _limits(*values: Tensor) -> tuple[float, float]:
    """Of a scale that is symmetric about zero."""
    most = max(float(field.abs().max()) for field in values)
    return -most, most


def _bar(figure: Figure, axes: Axes, image: ScalarMappable, title: str) -> None:
    scale = figure.colorbar(image, ax=axes, pad=0.015, aspect=24, ticks=MaxNLocator(5))
    scale.outline.set_linewidth(0.4)
    if title:
        axes.set_title(title, loc="left")
