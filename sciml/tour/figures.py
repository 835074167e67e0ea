"""Figures of the tour: one style for all, as SVG whose ink follows the light or dark scheme of the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from .. import pictures
from ..grid import Grid

THIRD, HALF, WHOLE = 3.4, 5.0, 7.4
"""Widths in inches of a panel that shares its row with two, one or no others."""

INK, SOFT, RULE, SOLID = "#1d1f22", "#63686f", "#e2e0da", "#c2c1bd"
TONES = ("#b4b3af", "#c9c8c4", "#dddcd8")
"""Shades of the sides of a box across x, y and z."""
_DARK = {
    TONES[0]: "#4a4e54",
    TONES[1]: "#5c6067",
    TONES[2]: "#71757c",
    INK: "#e4e2dc",
    SOFT: "#a0a4aa",
    RULE: "#33373d",
    SOLID: "#54585e",
    "#0072b2": "#4ba3dc",
    "#d55e00": "#f08a3c",
    "#009e73": "#35c79b",
    "#cc79a7": "#dd94bd",
    "#000000": "#e4e2dc",
}
LINES = (*pictures.LINES[:4], "#8a7fc7", *pictures.LINES[4:6])
_STYLE: dict[str, Any] = {
    **pictures.STYLE,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "hatch.color": SOFT,
    "svg.hashsalt": "sciml",
}


@contextmanager
def style() -> Iterator[None]:
    """Everything that is drawn inside has the style of the tour."""
    with matplotlib.rc_context(_STYLE):
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches. To be called within `style()`."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04))
    FigureCanvasAgg(figure)
    return figure


def panel(width: float = THIRD, height: float = 3.0) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; sizes in inches. To be called within `style()`."""
    figure = blank(width, height)
    return figure, figure.subplots()


def svg(figure: Figure, resolution: int = 144) -> bytes:
    """The figure as SVG, its ink in variables that a dark scheme changes; `resolution` of rasters in dots per inch."""
    buffer = io.BytesIO()
    with style():
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)  # it may need two passes until the labels fit
        figure.savefig(buffer, format="svg", dpi=resolution, facecolor="none", metadata={"Date": None, "Creator": None})
    return _themed(buffer.getvalue())


def formula(latex: str, size: float = 15.0) -> bytes:
    """A line of LaTeX, without dollar signs, as SVG; `size` in points."""
    buffer = io.BytesIO()
    with style():
        figure = Figure(figsize=(0.01, 0.01))
        FigureCanvasAgg(figure)
        figure.text(0, 0, f"${pictures.mathtext(latex)}$", fontsize=size, color=INK)
        figure.savefig(
            buffer,
            format="svg",
            facecolor="none",
            bbox_inches="tight",
            pad_inches=0.03,
            metadata={"Date": None, "Creator": None},
        )
    return _themed(buffer.getvalue())


def _themed(drawing: bytes) -> bytes:
    """Colours as variables, set for light and, on a screen that asks for it, for dark."""
    text = drawing.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # A hundredth of a point is as fine as anyone sees; more digits make up half of a large drawing.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    used = [light for light in _DARK if light in text]
    names = {light: f"--c{light[1:]}" for light in used}
    for light in used:
        text = re.sub(rf"(fill|stroke): {light}\b", rf"\1: var({names[light]})", text)
    light_scheme = ";".join(f"{names[light]}:{light}" for light in used)
    dark_scheme = ";".join(f"{names[light]}:{_DARK[light]}" for light in used)
    rules = (
        f"<style>:root{{{light_scheme}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark_scheme}}}}}</style>"
    )
    end = text.index(">") + 1
    return (text[:end] + rules + text[end:]).encode()


def draw_map(
    axes: Axes,
    grid: Grid,
    field: torch.Tensor,
    *,
    title: str = "",
    colours: str = "viridis",
    limits: tuple[float, float] | None = None,
    logarithmic: bool = False,
    bar: bool = True,
    ticks: Sequence[float] | None = None,
    centred: bool = False,
) -> AxesImage:
    """Coloured cells of a two-dimensional field in their true aspect; solid cells are grey.

    Args:
        field: `(nx, ny)`.
        limits: of the colour scale; the field's own if None.
        logarithmic: the colour scale is logarithmic.
        bar: draw the colour bar.
        ticks: of the colour bar.
        centred: the colour scale is symmetric about zero.
    """
    values = field.detach().to("cpu", torch.float64)
    if grid.solid is not None and grid.solid.shape == values.shape:
        values = values.masked_fill(grid.solid.cpu(), math.nan)
    finite = values[torch.isfinite(values)]
    low, high = limits or (float(finite.min()), float(finite.max()))
    if centred:
        low, high = -max(-low, high), max(-low, high)
    axes.set_facecolor(SOLID)
    image = axes.imshow(
        values.T.numpy(),
        origin="lower",
        extent=(grid.lower[0], grid.upper[0], grid.lower[1], grid.upper[1]),
        cmap=colours,
        norm=LogNorm(low, high) if logarithmic else Normalize(low, high),
    )
    axes.spines[["top", "right"]].set_visible(True)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if title:
        axes.set_title(title, loc="left")
    if bar:
        place = axes.inset_axes((1.03, 0.0, 0.045, 1.0))
        scale = axes.figure.colorbar(image, cax=place, ticks=ticks if ticks is not None else MaxNLocator(5))
        scale.outline.set_linewidth(0.4)
        if logarithmic:
            plain = 0.01 <= low and high <= 1000 * low
            scale.ax.yaxis.set_major_formatter(ScalarFormatter() if plain else LogFormatterSciNotation())
            scale.ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            scale.formatter.set_powerlimits((-2, 3))
            scale.update_ticks()
    return image


def draw_contours(axes: Axes, grid: Grid, field: torch.Tensor, levels: int = 10) -> None:
    """Thin level lines over a map."""
    x, y = (line.cpu() for line in grid.axis_coordinates)
    values = field.detach().cpu().T.numpy()
    axes.contour(x, y, values, levels=levels, colors="white", linewidths=0.5, alpha=0.55)


def map_figure(grid: Grid, field: torch.Tensor, width: float = THIRD, **options: Any) -> Figure:
    """A panel with one map (see `draw_map`), as high as the map needs; panels of one width have maps of one size."""
    with style():
        across, upwards = (high - low for low, high in zip(grid.lower, grid.upper, strict=True))
        left, right, below, above = 0.46, 0.44, 0.27, 0.28  # room for the numbers, inches
        wide = (width - left - right) / 1.075  # the bar is inside the axes' own units
        high = wide * upwards / across
        height = below + high + above
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((left / width, below / height, wide / width, high / height))
        contours = options.pop("contours", 0)
        draw_map(axes, grid, field, **options)
        if contours:
            draw_contours(axes, grid, field, contours)
        return figure


def history_figure(
    histories: Mapping[str, torch.Tensor],
    width: float = THIRD,
    height: float = 2.8,
    abscissas: Mapping[str, torch.Tensor] | None = None,
    label: str = "iteration",
    logarithmic: bool = False,
    title: str = "",
    ordinate: str = "residual |b - A x| / |b|",
) -> Figure:
    """A panel with residual norms against iterations, or against what `abscissas` says; every line is named at its end.

    Args:
        histories: norms `(steps,)` by name.
        abscissas: `(steps,)` by name; 0, 1, 2, ... if None.
        label: of the abscissa.
        logarithmic: the abscissa too is logarithmic.
    """
    with style():
        figure, axes = panel(width, height)
        for index, (name, norms) in enumerate(histories.items()):
            values = norms.detach().cpu().to(torch.float64)
            steps = torch.arange(len(values)) if abscissas is None else abscissas[name]
            marker = "o" if len(values) <= 30 else ""
            axes.semilogy(steps, values, color=LINES[index % len(LINES)], marker=marker, markersize=3, label=name)
        if logarithmic:
            axes.set_xscale("log")
        name_places(axes)
        tidy(axes)
        axes.set_xlabel(label)
        axes.set_ylabel(ordinate)
        if title:
            axes.set_title(title, loc="left")
        if len(histories) > 1:
            axes.legend(loc="best", handlelength=1.4)
        return figure


def name_places(axes: Axes) -> None:
    """Numbers along a logarithmic ordinate between the powers of ten, where few of these are in sight."""
    low, high = axes.get_ylim()
    if high < 1e3 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())


def tidy(axes: Axes) -> None:
    """Faint lines behind a diagram."""
    axes.grid(True, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
