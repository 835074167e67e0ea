"""Pictures of solutions and of convergence histories, drawn with matplotlib and without its global state."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from .errors import InputError
from .files import target, write_whole
from .grid import Grid

if TYPE_CHECKING:
    from .solution import Solution

FORMATS = (".png", ".pdf", ".svg")
MOST_ROWS = 3
SOLID = "#b8b8b8"
# Okabe and Ito's colours, which colour-blind readers can tell apart.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "cm",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
}


def draw(solution: Solution, *, history: bool = False) -> Figure:
    """A figure of every unknown of a solution on a grid; all axes are dimensionless.

    One dimension: lines. Two: coloured cells in their true aspect. Three: the three planes through the middle. Of a
    batch, the first three rows. Solid cells are grey. A field that changes sign gets a diverging colour map centred on
    zero.

    Args:
        solution: what to draw.
        history: add a panel with the residual against the iteration, where the solution has one.

    Raises:
        InputError: the solution has no grid (that of a bare matrix), or holds no finite value to draw.
    """
    grid = solution.domain
    if grid is None:
        raise InputError(
            "this solution belongs to a bare operator, without a grid: there are no coordinates to draw it over"
        )
    if not isinstance(grid, Grid):
        raise InputError("this draws solutions on grids, and the solution is one on a mesh")
    fields = {name: first_rows(field, grid.dimension) for name, field in solution.fields.items()}
    curve = solution.history.get("residual_norm") if history else None
    method = _draw_lines if grid.dimension == 1 else _draw_maps
    with matplotlib.rc_context(STYLE):
        return method(solution, grid, fields, curve)


def draw_fields(grid: Grid, fields: Mapping[str, torch.Tensor], titles: Sequence[str]) -> Figure:
    """A figure of fields on a grid, one column a field and one row a sample; of one dimension a line a sample.

    Every field has a scale of its own; of three dimensions the plane through the middle of the last axis is drawn.

    Args:
        grid: where the values stand.
        fields: by name, `(samples, *space)`.
        titles: of the samples.

    Raises:
        InputError: there is nothing to draw, or no finite value in a field.
    """
    if not fields or not titles:
        raise InputError("there is nothing to draw: give at least one field and one sample")
    rows = {name: values.detach().to("cpu", torch.float64) for name, values in fields.items()}
    with matplotlib.rc_context(STYLE):
        if grid.dimension > 1:
            scales = {name: colour_scale(values, name) for name, values in rows.items()}
            table = [
                [
                    _panels(grid, values[number], name, f"{name}, {title}", scales[name])[0]
                    for name, values in rows.items()
                ]
                for number, title in enumerate(titles)
            ]
            return _draw_table(None, grid, table, None)
        figure = make_figure(1.2 + 4.2 * len(rows), 3.4)
        for axes, (name, values) in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
            for number, title in enumerate(titles):
                coordinate = grid.axis_coordinates[0].cpu()
                axes.plot(coordinate, values[number], color=LINES[number % len(LINES)], label=title)
            axes.set_xlabel(grid.axes[0])
            axes.set_ylabel(name)
            tidy(axes)
        axes.legend(loc="best")
        return figure


def draw_history(
    histories: Mapping[str, torch.Tensor], *, label: str = "residual norm |b - A x|", logarithmic_steps: bool = False
) -> Figure:
    """A figure of convergence histories, one line a method, over the iteration on a logarithmic ordinate.

    Args:
        histories: the name of each method with its norms, `(steps, *batch)`; of a batch the worst row is drawn.
        label: what the ordinate shows.
        logarithmic_steps: count iterations on a logarithmic abscissa, for methods that differ by orders of magnitude.
    """
    if not histories:
        raise InputError("there is no history to draw: give at least one method with its norms")
    with matplotlib.rc_context(STYLE):
        figure = make_figure(5.6, 3.4)
        axes = figure.subplots()
        for index, (name, norms) in enumerate(histories.items()):
            _draw_norms(axes, norms, LINES[index % len(LINES)], name)
        axes.set_ylabel(label)
        if logarithmic_steps:
            axes.set_xscale("symlog", linthresh=1.0)
            axes.xaxis.set_major_formatter(ScalarFormatter())
        if len(histories) > 1:
            axes.legend(loc="best")
        return figure


def encode(figure: Figure, kind: str = "png", resolution: int = 160) -> bytes:
    """The bytes of a picture file: kind "png", "pdf" or "svg", `resolution` in dots per inch."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=resolution, facecolor="white")
    return buffer.getvalue()


def write(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to `path`, whole or not at all; the ending chooses the format (.png, .pdf, .svg)."""
    final = target(path, FORMATS)
    write_whole(final, encode(figure, final.suffix[1:].lower()))


def make_figure(width: float, height: float) -> Figure:
    """An empty figure that leaves matplotlib's global state alone; width and height in inches."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.03))
    FigureCanvasAgg(figure)
    return figure


def first_rows(field: torch.Tensor, dimension: int) -> torch.Tensor:
    """The first rows of a batch, shape (rows, *space), on the CPU in float64."""
    space = field.shape[field.dim() - dimension :]
    return field.detach().reshape(-1, *space)[:MOST_ROWS].to("cpu", torch.float64)


def _draw_lines(
    solution: Solution, grid: Grid, fields: Mapping[str, torch.Tensor], curve: torch.Tensor | None
) -> Figure:
    panels = len(fields) + (curve is not None)
    figure = make_figure(1.2 + 4.2 * panels, 3.4)
    all_axes = figure.subplots(1, panels, squeeze=False)[0]
    coordinate = grid.axis_coordinates[0].cpu()
    solid = _solid(grid)
    for axes, (name, rows) in zip(all_axes, fields.items(), strict=False):
        for index, row in enumerate(rows):
            values = row if solid is None else row.masked_fill(solid, math.nan)
            marker = "." if row.numel() <= 40 else ""
            axes.plot(
                coordinate, values, color=LINES[index % len(LINES)], marker=marker, label=row_title(solution, index)
            )
        if solid is not None:
            for first, last in _runs(solid):
                half = grid.spacing[0] / 2
                axes.axvspan(float(coordinate[first]) - half, float(coordinate[last]) + half, color=SOLID, linewidth=0)
        axes.set_xlim(grid.lower[0], grid.upper[0])
        axes.margins(y=0.08)
        axes.set_xlabel(grid.axes[0])
        axes.set_ylabel(name)
        tidy(axes)
        if len(rows) > 1:
            axes.legend(loc="best")
    if curve is not None:
        draw_curve(all_axes[-1], curve, is_nonlinear(solution))
    draw_head(figure, solution, _size(grid))
    return figure


def _draw_maps(
    solution: Solution, grid: Grid, fields: Mapping[str, torch.Tensor], curve: torch.Tensor | None
) -> Figure:
    solid = _solid(grid)
    batched = solution.codes.numel() > 1
    table: list[list[_Panel]] = []
    for name, rows in fields.items():
        values = rows if solid is None else rows.masked_fill(solid, math.nan)
        colours = colour_scale(values, name)
        for index, row in enumerate(values):
            title = row_title(solution, index)
            if len(fields) > 1:
                title = f"{name}{', ' if batched else ' ' if title else ''}{title}"
            table.append(_panels(grid, row, name, title, colours))
    if grid.dimension == 2:
        rows_drawn = len(table) // len(fields)
        if len(fields) == 1:
            table = [[strip[0] for strip in table]]
        else:  # the unknowns across, the rows of the batch downwards
            table = [[strip[0] for strip in table[index::rows_drawn]] for index in range(rows_drawn)]
    return _draw_table(solution, grid, table, curve)


@dataclass(frozen=True)
class _Panel:
    """One coloured map: `image` has its first axis along the abscissa, NaN where nothing is to be shown."""

    group: str
    title: str
    image: torch.Tensor
    abscissa: int
    ordinate: int
    colours: tuple[Normalize, str]


def _panels(grid: Grid, row: torch.Tensor, group: str, title: str, colours: tuple[Normalize, str]) -> list[_Panel]:
    """The map of a two-dimensional field, or the three middle planes of a three-dimensional one."""
    if grid.dimension == 2:
        return [_Panel(group, title, row, 0, 1, colours)]
    panels = []
    for axis in (2, 1, 0):
        middle = grid.shape[axis] // 2
        plane = f"{grid.axes[axis]} = {float(grid.axis_coordinates[axis][middle]):.3g}"
        abscissa, ordinate = (other for other in range(3) if other != axis)
        image = row.select(axis, middle)
        panels.append(_Panel(group, f"{title}, {plane}" if title else plane, image, abscissa, ordinate, colours))
    return panels


def _draw_table(solution: Solution | None, grid: Grid, table: list[list[_Panel]], curve: torch.Tensor | None) -> Figure:
    """Maps in rows and columns, one scale of length for all of them, a colour bar at the end of each group of a row."""
    extent = [upper - lower for lower, upper in zip(grid.lower, grid.upper, strict=True)]
    across, upwards = ([extent[getattr(panel, side)] for panel in table[0]] for side in ("abscissa", "ordinate"))
    true = all(1 / 6 <= up / right <= 6 for right, up in zip(across, upwards, strict=True))
    if not true:
        across, upwards = [1.0] * len(across), [0.6] * len(upwards)
    widest, highest = (3.2 * len(across), 4.2) if len(across) > 1 else (4.2, 5.2)  # inches
    unit = min(widest / sum(across), highest / max(upwards))
    bars = sum(_ends_group(table[0], column) for column in range(len(across)))
    width = unit * sum(across) + 0.65 * len(across) + 0.8 * bars
    height = (unit * max(upwards) + 0.75) * len(table) + 0.35
    figure = make_figure(width, height)
    maps: Figure | SubFigure = figure
    if solution is not None and curve is not None:
        figure.set_size_inches(width + 3.9, max(height, 3.0))
        maps, side = figure.subfigures(1, 2, width_ratios=(width, 3.9))
        draw_curve(side.subplots(), curve, is_nonlinear(solution))
    all_axes = maps.subplots(len(table), len(across), squeeze=False, width_ratios=across)
    for axes_row, panel_row in zip(all_axes, table, strict=True):
        for column, (axes, panel) in enumerate(zip(axes_row, panel_row, strict=True)):
            image = _draw_map(axes, grid, panel, true)
            if _ends_group(panel_row, column):
                draw_bar(axes, image, panel.group, 0.14 / (unit * across[column]))
    if solution is not None:
        draw_head(figure, solution, _size(grid))
    return figure


def _size(grid: Grid) -> str:
    return r" \times ".join(str(count) for count in grid.shape)


def _ends_group(panels: list[_Panel], column: int) -> bool:
    return column + 1 == len(panels) or panels[column + 1].group != panels[column].group


def draw_bar(axes: Axes, image: ScalarMappable, label: str, width: float) -> None:
    """A colour bar exactly as high as its map; `width` as a fraction of the map's."""
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.0 + 0.8 * width, 0.0, width, 1.0)), ticks=MaxNLocator(6))
    if len(label) <= 3:
        bar.set_label(label, rotation=0, labelpad=8)
    else:  # a longer one would lie across the numbers
        bar.set_label(label)
    bar.outline.set_linewidth(0.5)
    bar.formatter.set_powerlimits((-2, 3))
    bar.update_ticks()


def _draw_map(axes: Axes, grid: Grid, panel: _Panel, true_aspect: bool) -> AxesImage:
    norm, colour_map = panel.colours
    edges: list[float] = []
    for axis in (panel.abscissa, panel.ordinate):
        first = float(grid.axis_coordinates[axis][0]) - grid.spacing[axis] / 2
        edges += [first, first + grid.shape[axis] * grid.spacing[axis]]
    axes.set_facecolor(SOLID)
    image = axes.imshow(
        panel.image.T.numpy(),
        origin="lower",
        extent=(edges[0], edges[1], edges[2], edges[3]),
        aspect="equal" if true_aspect else "auto",
        norm=norm,
        cmap=colour_map,
    )
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xlabel(grid.axes[panel.abscissa])
    axes.set_ylabel(grid.axes[panel.ordinate])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if panel.title:
        axes.set_title(panel.title, loc="left")
    return image


def colour_scale(values: torch.Tensor, name: str) -> tuple[Normalize, str]:
    """The colour scale of one unknown, the same for every row and plane."""
    finite = values[torch.isfinite(values)]
    if not finite.numel():
        raise InputError(f"there is nothing to draw: {name!r} has no finite value")
    low, high = float(finite.min()), float(finite.max())
    if low < 0.0 < high and min(-low, high) > 0.05 * max(-low, high):
        largest = max(-low, high)
        return Normalize(-largest, largest), "RdBu_r"
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        margin = 0.5 * max(abs(low), abs(high)) or 1.0
        return Normalize(low - margin, high + margin), "viridis"
    return Normalize(low, high), "viridis"


def draw_curve(axes: Axes, norms: torch.Tensor, nonlinear: bool = False) -> None:
    """The history of a solve, relative to its beginning."""
    _draw_norms(axes, norms / norms[0].where(norms[0] > 0, torch.ones_like(norms[0])), LINES[0], "")
    axes.set_ylabel(f"residual {'|F(u)|' if nonlinear else '|b - A x|'}, relative to the first")
    if nonlinear:
        axes.set_xlabel("step")
    axes.set_title("convergence", loc="left")


def _draw_norms(axes: Axes, norms: torch.Tensor, colour: str, label: str) -> None:
    worst = norms.detach().to("cpu", torch.float64).reshape(norms.shape[0], -1).amax(-1)
    worst = worst.masked_fill(~(worst > 0), math.nan)  # zero has no logarithm
    marker = "o" if len(worst) <= 40 else ""
    axes.semilogy(torch.arange(len(worst)), worst, color=colour, marker=marker, markersize=3.5, label=label)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    tidy(axes)


def tidy(axes: Axes) -> None:
    """A light net of lines behind curves."""
    axes.grid(True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_head(figure: Figure, solution: Solution, size: str = "") -> None:
    """The equation over a figure, with the size of the problem, as LaTeX without dollar signs."""
    if solution.equation is not None:
        lines = [f"${mathtext(line)}$" for line in solution.equation.latex_lines()]
        try:
            for line in lines:
                MathTextParser("path").parse(line)
        except ValueError:  # matplotlib knows a part of LaTeX only
            lines = str(solution.equation).splitlines()
        if size:
            lines[-1] += f"      $({size})$"
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11.5)


def is_nonlinear(solution: Solution) -> bool:
    """Whether the history counts steps of a nonlinear iteration."""
    return solution.equation is not None and not solution.equation.linear


def mathtext(latex: str) -> str:
    """A line of LaTeX as matplotlib sets it well: it shrinks `\\left(` around low letters, where `(` is better."""
    parts = re.split(r"(\\left\(|\\right\))", latex)
    opened: list[int] = []
    for place, part in enumerate(parts):
        if part == r"\left(":
            opened.append(place)
        elif part == r"\right)" and opened:
            first = opened.pop()
            if not re.search(r"\^|\\frac|\\left", "".join(parts[first + 1 : place])):
                parts[first], parts[place] = "(", ")"
    return "".join(parts)


def row_title(solution: Solution, index: int) -> str:
    title = f"row {index}" if solution.codes.numel() > 1 else ""
    status = solution.status[index]
    return title if not status else f"{title} ({status.name})".strip()


def _solid(grid: Grid) -> torch.Tensor | None:
    return None if grid.solid is None else grid.solid.cpu()


def _runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """First and last index of every run of True in a mask of one dimension."""
    padded = torch.nn.functional.pad(mask.to(torch.int8), (1, 1)).diff()
    starts, ends = (padded == 1).nonzero().flatten(), (padded == -1).nonzero().flatten()
    return [(int(start), int(end) - 1) for start, end in zip(starts, ends, strict=True)]
