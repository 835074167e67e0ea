"""Boxes in a channel and lines that wind around them, as a drawing in perspective whose parts hide one another."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from torch import Tensor

from . import figures

Box = tuple[tuple[float, float], ...]
Corners = np.ndarray[Any, np.dtype[Any]]
_TILES = 5


def draw_scene(boxes: list[Box], lines: list[Tensor], speeds: list[Tensor], size: tuple[float, float, float]) -> Figure:
    """The figure.

    matplotlib sorts by depth only inside a collection of polygons, so that the sides of the boxes are cut into tiles
    and the lines into flat triangles, and all of them are one collection.

    Args:
        boxes: lower and upper end along each axis, in the unit of length of the channel.
        lines: points `(n, 3)`.
        speeds: `(n,)`, what colours the lines.
        size: of the channel, whose lower corner is the origin.
    """
    slow, fast = torch.cat(speeds).quantile(torch.tensor([0.03, 0.97], dtype=torch.float64)).tolist()
    scale, colours = Normalize(slow, fast), colormaps["viridis"]
    parts: list[Corners] = []
    fills: list[str] = []
    edges: list[str] = []
    for box in boxes:
        for tile, tone in _tiles(box):
            parts.append(tile)
            fills.append(tone)
            edges.append(tone)
    for line, speed in zip(lines, speeds, strict=True):
        shades = [to_hex(colours(scale(v))) for v in (0.5 * (speed[:-1] + speed[1:])).tolist()]
        for start, stop, shade in zip(line[:-1].numpy(), line[1:].numpy(), shades, strict=True):
            parts.append(np.stack([start, stop, start]))
            fills.append("none")
            edges.append(shade)
    with figures.style():
        figure = Figure(figsize=(figures.WHOLE, 4.3))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((-0.10, -0.19, 1.20, 1.36), projection="3d", computed_zorder=False)
        axes.set_axis_off()
        axes.set_box_aspect(size)
        axes.view_init(elev=22, azim=-62)
        axes.set(xlim=(0, size[0]), ylim=(0, size[1]), zlim=(0, size[2]))
        corners = list(product(*((0.0, length) for length in size)))
        frame = [
            (one, other)
            for index, one in enumerate(corners)
            for other in corners[index + 1 :]
            if sum(p != q for p, q in zip(one, other, strict=True)) == 1
        ]
        axes.add_collection3d(Line3DCollection(frame, colors=figures.SOFT, linewidths=0.5, zorder=0))
        axes.add_collection3d(Poly3DCollection(parts, facecolors=fills, edgecolors=edges, linewidths=0.9, zorder=1))
        return figure


def _tiles(box: Box) -> list[tuple[Corners, str]]:
    """The sides of a box cut into squares, each with its shade: light from above."""
    tiles: list[tuple[Corners, str]] = []
    for axis, tone in enumerate(figures.TONES):
        one, two = (other for other in range(3) if other != axis)
        cuts = [np.linspace(*box[other], _TILES + 1) for other in (one, two)]
        for place, i, j in product(box[axis], range(_TILES), range(_TILES)):
            tile = np.full((4, 3), place)
            tile[:, one] = cuts[0][[i, i + 1, i + 1, i]]
            tile[:, two] = cuts[1][[j, j, j + 1, j + 1]]
            tiles.append((tile, tone))
    return tiles
