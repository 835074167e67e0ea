"""Pictures of what happens in time: space-time pictures, profiles, snapshots, curves and phase pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .errors import InputError
from .grid import Grid
from .mesh import Mesh
from .pictures import LINES, MOST_ROWS, SOLID, STYLE, colour_scale, draw_bar, draw_head, make_figure, row_title, tidy
from .pictures_of_meshes import draw_facets, draw_plane

if TYPE_CHECKING:
    from .solution import Solution

MOST_PROFILES = 9
MOST_SNAPSHOTS = 6
_MOST_COLUMNS = 1600  # of a space-time picture; more would fall between the dots

Rows = dict[str, Tensor]
"""By unknown the first rows of a batch, `(rows, time, *space)` in float64 on the CPU."""


def draw(solution: Solution) -> Figure:
    """A figure of an evolution, the first three rows of a batch.

    In one dimension profiles at up to nine times, of more times a space-time picture with time to the right. In two
    dimensions, and on meshes, snapshots at six times or fewer; in three the plane through the middle, or the surface
    of the mesh. Ordinary differential equations as curves, of two or three unknowns with their phase picture. All times
    of an unknown have the same scale of colours, one that diverges from zero if the unknown changes its sign.

    Raises:
        InputError: the solution does not evolve, or holds no finite value to draw.
    """
    rows, times = first_rows_in_time(solution)
    with matplotlib.rc_context(STYLE):
        domain = solution.domain
        if domain is None:
            return _draw_curves(solution, rows, times)
        if isinstance(domain, Grid) and domain.dimension == 1:
            method = _draw_profiles if len(times) <= MOST_PROFILES else _draw_space_time
            return method(solution, domain, rows, times)
        return _draw_snapshots(solution, domain, rows, times)


def first_rows_in_time(solution: Solution) -> tuple[Rows, list[float]]:
    """The first rows of every unknown, and the times.

    Raises:
        InputError: the solution does not evolve, or holds no finite value.
    """
    if solution.times is None:
        raise InputError("this draws evolutions, and the solution is steady")
    rows = {}
    for name in solution.unknowns:
        field = solution.fields[name].detach()
        rows[name] = field.reshape(-1, *field.shape[solution.codes.ndim :])[:MOST_ROWS].to("cpu", torch.float64)
        if not bool(torch.isfinite(rows[name]).any()):
            raise InputError(f"there is nothing to draw: {name!r} has no finite value")
    return rows, solution.times.tolist()


def chosen_times(times: Sequence[float], most: int) -> list[int]:
    """Places of at most that many times, the first and the last among them, spread evenly in time, or, where the times
    are too uneven for that, in number."""
    if len(times) <= most:
        return list(range(len(times)))
    known = torch.tensor(times, dtype=torch.float64)
    wanted = torch.linspace(times[0], times[-1], most, dtype=torch.float64)
    found = sorted({int((known - moment).abs().argmin()) for moment in wanted})
    if len(found) == most:
        return found
    return [round(k * (len(times) - 1) / (most - 1)) for k in range(most)]


def label(t: float) -> str:
    """A time for people to read."""
    return f"$t = {t:.4g}$"


def title_of(solution: Solution, name: str, row: int) -> str:
    """Which unknown and which row of the batch a panel shows, as far as there are several."""
    words = [name if len(solution.unknowns) > 1 else "", row_title(solution, row)]
    return ", ".join(word for word in words if word)


# One dimension


def _draw_space_time(solution: Solution, grid: Grid, rows: Rows, times: list[float]) -> Figure:
    panels = [(name, row) for name, values in rows.items() for row in range(len(values))]
    figure = make_figure(7.6, 2.3 * len(panels) + 0.7)
    all_axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    places = chosen_times(times, _MOST_COLUMNS)
    edges = _edges([times[place] for place in places])
    first = float(grid.axis_coordinates[0][0]) - grid.spacing[0] / 2
    across = [first + k * grid.spacing[0] for k in range(grid.shape[0] + 1)]
    for axes, (name, row) in zip(all_axes, panels, strict=True):
        values = _hidden(rows[name], grid)
        norm, colours = colour_scale(values, name)
        axes.set_facecolor(SOLID)
        image = axes.pcolormesh(edges, across, values[row][places].T.numpy(), norm=norm, cmap=colours, rasterized=True)
        axes.set_ylabel(grid.axes[0], rotation=0, labelpad=8)
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_title(title_of(solution, name, row), loc="left")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        draw_bar(axes, image, name, 0.02)
    all_axes[-1].set_xlabel("t")
    draw_head(figure, solution, _size(solution))
    return figure


def _draw_profiles(solution: Solution, grid: Grid, rows: Rows, times: list[float]) -> Figure:
    across = max(len(values) for values in rows.values())
    figure = make_figure(4.6 * across + 1.2, 2.7 * len(rows) + 0.7)
    table = figure.subplots(len(rows), across, squeeze=False, sharex=True)
    colours = matplotlib.colormaps["viridis"].resampled(256)
    # The lightest yellows are hard to see on white.
    norm = Normalize(times[0], times[0] + (times[-1] - times[0]) / 0.9)
    coordinate = grid.axis_coordinates[0].cpu()
    for (name, values), line in zip(rows.items(), table, strict=True):
        for row, axes in enumerate(line):
            for t, profile in zip(times, _hidden(values, grid)[row], strict=True):
                axes.plot(coordinate, profile, color=colours(norm(t)), label=label(t))
            axes.set_xlim(grid.lower[0], grid.upper[0])
            axes.margins(y=0.08)
            axes.set_ylabel(name, rotation=0, labelpad=8)
            axes.set_title(row_title(solution, row), loc="left")
            tidy(axes)
    for axes in table[-1]:
        axes.set_xlabel(grid.axes[0])
    figure.legend(*table[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=9.0)
    draw_head(figure, solution, _size(solution))
    return figure


def _edges(centres: list[float]) -> list[float]:
    """The ends of intervals around increasing numbers."""
    middles = [(a + b) / 2 for a, b in pairwise(centres)]
    if not middles:
        return [centres[0] - 0.5, centres[0] + 0.5]
    return [centres[0], *middles, centres[-1]]


# Two and three dimensions


def _draw_snapshots(solution: Solution, domain: Grid | Mesh, rows: Rows, times: list[float]) -> Figure:
    places = chosen_times(times, MOST_SNAPSHOTS)
    panels = [(name, row) for name, values in rows.items() for row in range(len(values))]
    width, height = shape_of(domain)
    unit = min(11.5 / (len(places) * width), 2.6 / height, 2.6 / width)
    deep = isinstance(domain, Mesh) and domain.dimension == 3
    room = 0.0 if deep else 0.28
    figure = make_figure(
        (unit * width + 0.12) * len(places) + 1.3, (unit * height + room + 0.25) * len(panels) + 0.75 + 0.2 * room
    )
    projection = {"projection": "3d", "computed_zorder": True} if deep else {}
    table = figure.subplots(
        len(panels), len(places), squeeze=False, sharex=not deep, sharey=not deep, subplot_kw=projection
    )
    for line, (name, row) in zip(table, panels, strict=True):
        values = _hidden(rows[name], domain) if isinstance(domain, Grid) else rows[name]
        norm, colours = colour_scale(values[:, places], name)
        for axes, place in zip(line, places, strict=True):
            draw_moment(axes, domain, values[row, place], norm, colours)
            if not deep:
                axes.label_outer()
        words = title_of(solution, name, row)
        for axes, place in zip(line, places, strict=True):
            head = words if axes is line[0] and len(panels) > 1 else ""
            axes.set_title(f"{head}   {label(times[place])}".strip(), loc="left", fontsize=8.5)
        shown = ScalarMappable(norm, colours)
        if not deep:
            draw_bar(line[-1], shown, name, 0.14 / (unit * width))
            continue
        bar = figure.colorbar(shown, ax=list(line), ticks=MaxNLocator(5), shrink=0.8, aspect=18, pad=0.012)
        bar.set_label(name, rotation=0, labelpad=8)
        bar.outline.set_linewidth(0.5)
    draw_head(figure, solution, _size(solution))
    return figure


def shape_of(domain: Grid | Mesh) -> tuple[float, float]:
    """Width and height of a panel, in any unit."""
    if isinstance(domain, Mesh):
        extent = (domain.points.detach().amax(0) - domain.points.detach().amin(0)).tolist()
        return (1.25, 1.0) if domain.dimension == 3 else (extent[0], extent[1])
    sizes = [high - low for low, high in zip(domain.lower, domain.upper, strict=True)][:2]
    return (1.0, 0.6) if not 1 / 6 <= sizes[1] / sizes[0] <= 6 else (sizes[0], sizes[1])


def draw_moment(axes: Axes, domain: Grid | Mesh, values: Tensor, norm: Normalize, colours: str) -> None:
    """One field at one time; see `draw`."""
    if isinstance(domain, Mesh):
        if domain.dimension == 3:
            draw_facets(axes, domain, values, norm, colours)
        else:
            draw_plane(axes, domain, values, norm, colours)
        return
    image = values if domain.dimension == 2 else values[..., domain.shape[2] // 2]
    edges: list[float] = []
    for axis in (0, 1):
        first = float(domain.axis_coordinates[axis][0]) - domain.spacing[axis] / 2
        edges += [first, first + domain.shape[axis] * domain.spacing[axis]]
    axes.set_facecolor(SOLID)
    true = shape_of(domain) != (1.0, 0.6)
    axes.imshow(
        image.T.numpy(),
        origin="lower",
        extent=(edges[0], edges[1], edges[2], edges[3]),
        aspect="equal" if true else "auto",
        norm=norm,
        cmap=colours,
    )
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xlabel(domain.axes[0])
    axes.set_ylabel(domain.axes[1], rotation=0, labelpad=8)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))


# Without space


def _draw_curves(solution: Solution, rows: Rows, times: list[float]) -> Figure:
    phase = len(rows) in (2, 3)
    height = max(1.35 * len(rows) + 0.9, 3.6 if phase else 2.6)
    figure = make_figure(10.0 if phase else 7.0, height)
    left = right = figure
    if phase:
        left, right = figure.subfigures(1, 2, width_ratios=(1.5, 1.0))
    together = len(rows) > 8
    all_axes = left.subplots(1 if together else len(rows), 1, squeeze=False, sharex=True)[:, 0]
    batched = solution.codes.numel() > 1
    for number, (name, values) in enumerate(rows.items()):
        axes = all_axes[0 if together else number]
        for row, curve in enumerate(values):
            colour = LINES[(number if together else row) % len(LINES)]
            axes.plot(times, curve, color=colour, linewidth=1.1, label=name if together else row_title(solution, row))
        if not together:
            axes.set_ylabel(name, rotation=0, labelpad=10)
        axes.set_xlim(times[0], times[-1])
        tidy(axes)
    all_axes[-1].set_xlabel("t")
    if batched or together:
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    if phase:
        _draw_phase(right, rows)
    draw_head(figure, solution, _size(solution))
    return figure


def _draw_phase(figure: Figure, rows: Rows) -> None:
    names, values = list(rows), list(rows.values())
    deep = len(names) == 3
    axes = figure.add_subplot(projection="3d") if deep else figure.add_subplot()
    for row in range(len(values[0])):
        points = [field[row] for field in values]
        colour = LINES[row % len(LINES)]
        axes.plot(*points, color=colour, linewidth=0.7)
        axes.plot(*(point[:1] for point in points), color=colour, marker="o", markersize=3.5)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    if deep:
        axes.set_zlabel(names[2])
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
            axis.set_major_locator(MaxNLocator(4))
        axes.set_box_aspect(None, zoom=0.85)
    else:
        tidy(axes)


def _hidden(values: Tensor, grid: Grid) -> Tensor:
    """NaN in solid cells."""
    return values if grid.solid is None else values.masked_fill(grid.solid.cpu(), torch.nan)


def _size(solution: Solution) -> str:
    """How many unknowns and times there are, as LaTeX."""
    domain = solution.domain
    times = rf"{0 if solution.times is None else len(solution.times)}\ \mathrm{{times}}"
    if isinstance(domain, Grid):
        shape = r" \times ".join(str(n) for n in domain.shape)
        return rf"{shape},\ {times}"
    return times if domain is None else rf"{len(domain.points)}\ \mathrm{{points}},\ {times}"
