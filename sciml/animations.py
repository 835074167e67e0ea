"""Evolutions as animations (.gif, or .mp4 where ffmpeg is found), by matplotlib's own writers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import torch
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .errors import InputError
from .files import target, write_whole
from .grid import Grid
from .mesh import Mesh
from .pictures import LINES, STYLE, colour_scale, draw_head, make_figure, row_title, tidy
from .pictures_of_evolutions import chosen_times, draw_moment, first_rows_in_time, label, shape_of
from .pictures_of_meshes import draw_facets, paint_facets

if TYPE_CHECKING:
    from .solution import Solution

FORMATS = (".gif", ".mp4")
MOST_FRAMES = 100
_SECONDS = 8.0
_RESOLUTION = 90  # dots per inch

_Update = Callable[[int], None]
"""Shows the values of a time, by its place."""


def is_meant(path: str | os.PathLike[str]) -> bool:
    """Whether a path ends like an animation."""
    return os.fspath(path).lower().endswith(FORMATS)


def write(solution: Solution, path: str | os.PathLike[str]) -> None:
    """Write an animation of an evolution, whole or not at all; it lasts about eight seconds.

    In one dimension the curves of up to three rows of a batch; in more dimensions, and on meshes, the first row; of
    ordinary differential equations curves that grow. At most 100 of the times, spread evenly, become pictures.

    Raises:
        InputError: the solution does not evolve, holds no finite value, or the path cannot become a file; for .mp4
            where there is no ffmpeg.
        OSError: the disk is full or not writable; what stood at `path` is unharmed.
    """
    final = target(path, FORMATS)
    kind = final.suffix.lower()
    if kind == ".mp4" and not FFMpegWriter.isAvailable():
        raise InputError(f"{path}: an .mp4 file needs the program ffmpeg, which is not found here; write a .gif")
    rows, times = first_rows_in_time(solution)
    places = chosen_times(times, MOST_FRAMES)
    rate = min(25.0, max(2.0, len(places) / _SECONDS))
    writer: AbstractMovieWriter = PillowWriter(fps=rate) if kind == ".gif" else FFMpegWriter(fps=rate)
    with matplotlib.rc_context(STYLE), tempfile.TemporaryDirectory() as folder:
        figure, update = _scene(solution, rows, times)
        update(places[0])
        figure.canvas.draw()
        figure.set_layout_engine("none")  # laid out once, so that nothing trembles
        draft = Path(folder) / f"animation{kind}"
        with writer.saving(figure, str(draft), dpi=_RESOLUTION):
            for place in places:
                update(place)
                writer.grab_frame()
        write_whole(final, draft.read_bytes())


def _scene(solution: Solution, rows: dict[str, Tensor], times: list[float]) -> tuple[Figure, _Update]:
    domain = solution.domain
    if domain is None:
        figure, update = _curves(solution, rows, times)
    elif isinstance(domain, Grid) and domain.dimension == 1:
        figure, update = _profiles(solution, domain, rows)
    else:
        figure, update = _maps(domain, rows)
    draw_head(figure, solution)
    clock = figure.text(0.99, 0.99, label(times[0]), ha="right", va="top", fontsize=10)
    return figure, _with_clock(update, clock, times)


def _with_clock(update: _Update, clock: Text, times: list[float]) -> _Update:
    digits = max(0, min(6, 3 - len(str(int(abs(times[-1]))))))

    def both(place: int) -> None:
        clock.set_text(f"$t = {times[place]:.{digits + 1}f}$")
        update(place)

    return both


def _profiles(solution: Solution, grid: Grid, rows: dict[str, Tensor]) -> tuple[Figure, _Update]:
    figure = make_figure(6.0, 2.6 * len(rows) + 0.6)
    all_axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    coordinate = grid.axis_coordinates[0].cpu()
    lines = []
    for axes, (name, values) in zip(all_axes, rows.items(), strict=True):
        hidden = values if grid.solid is None else values.masked_fill(grid.solid.cpu(), torch.nan)
        for row, movie in enumerate(hidden):
            (line,) = axes.plot(coordinate, movie[0], color=LINES[row % len(LINES)], label=row_title(solution, row))
            lines.append((line, movie))
        axes.set_xlim(grid.lower[0], grid.upper[0])
        _set_range(axes, hidden)
        axes.set_ylabel(name, rotation=0, labelpad=8)
        tidy(axes)
        if len(values) > 1:
            axes.legend(loc="upper right", ncols=len(values))
    all_axes[-1].set_xlabel(grid.axes[0])

    def update(place: int) -> None:
        for line, movie in lines:
            line.set_ydata(movie[place])

    return figure, update


def _curves(solution: Solution, rows: dict[str, Tensor], times: list[float]) -> tuple[Figure, _Update]:
    figure = make_figure(6.4, 1.5 * len(rows) + 1.0)
    all_axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    lines = []
    for axes, (name, values) in zip(all_axes, rows.items(), strict=True):
        for row, curve in enumerate(values):
            (line,) = axes.plot(times, curve, color=LINES[row % len(LINES)], label=row_title(solution, row))
            lines.append((line, curve))
        axes.set_xlim(times[0], times[-1])
        _set_range(axes, values)
        axes.set_ylabel(name, rotation=0, labelpad=10)
        tidy(axes)
    all_axes[-1].set_xlabel("t")

    def update(place: int) -> None:
        for line, curve in lines:
            line.set_data(times[: place + 1], curve[: place + 1])

    return figure, update


def _maps(domain: Grid | Mesh, rows: dict[str, Tensor]) -> tuple[Figure, _Update]:
    width, height = shape_of(domain)
    unit = min(4.4 / width, 4.0 / height)
    deep = isinstance(domain, Mesh) and domain.dimension == 3
    figure = make_figure((unit * width + 1.4) * len(rows), unit * height + 1.0)
    words = {"projection": "3d", "computed_zorder": True} if deep else {}
    all_axes = figure.subplots(1, len(rows), squeeze=False, subplot_kw=words)[0]
    updates = [_map(axes, domain, name, values[0]) for axes, (name, values) in zip(all_axes, rows.items(), strict=True)]

    def update(place: int) -> None:
        for one in updates:
            one(place)

    return figure, update


def _map(axes: Axes, domain: Grid | Mesh, name: str, movie: Tensor) -> _Update:
    if isinstance(domain, Grid) and domain.solid is not None:
        movie = movie.masked_fill(domain.solid.cpu(), torch.nan)
    norm, colours = colour_scale(movie, name)
    shown = ScalarMappable(norm, colours)
    bar = axes.figure.colorbar(shown, ax=axes, ticks=MaxNLocator(5), shrink=0.85, aspect=24, pad=0.03)
    bar.set_label(name, rotation=0, labelpad=8)
    bar.outline.set_linewidth(0.5)
    bar.formatter.set_powerlimits((-2, 3))
    bar.update_ticks()
    if isinstance(domain, Mesh) and domain.dimension == 3:
        return _on_surface(axes, domain, movie, norm, colours)
    draw_moment(axes, domain, movie[0], norm, colours)
    picture = axes.images[0] if axes.images else axes.collections[0]

    def update(place: int) -> None:
        values = movie[place]
        if isinstance(domain, Grid):
            values = (values if domain.dimension == 2 else values[..., domain.shape[2] // 2]).T
        picture.set_array(values.numpy())

    return update


def _on_surface(axes: Axes, mesh: Mesh, movie: Tensor, norm: Normalize, colours: str) -> _Update:
    surface = draw_facets(axes, mesh, movie[0], norm, colours)
    return lambda place: paint_facets(surface, mesh, movie[place], norm, colours)


def _set_range(axes: Axes, values: Tensor) -> None:
    finite = values[torch.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    margin = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
