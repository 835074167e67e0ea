"""Bodies in a channel and lines that wind around them, as a drawing in perspective whose parts hide one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import proj3d
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from torch import Tensor

from ..grid import Grid
from . import figures

Box = tuple[tuple[float, float], ...]
Corners = np.ndarray[Any, np.dtype[Any]]
Tile = tuple[Corners, str]
"""A polygon `(n, 3)` and its colour."""

ELEVATION, AZIMUTH = 22.0, -62.0  # of the viewer, degrees
_TILES = 5


def draw_scene(
    tiles: Sequence[Tile],
    lines: Sequence[Tensor],
    speeds: Sequence[Tensor],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    width: float = figures.WHOLE,
    height: float = 4.3,
    share: float = 1.0,
    elevation: float = ELEVATION,
    frame: bool = True,
    raster: bool = False,
) -> Figure:
    """The figure.

    matplotlib sorts by depth only inside a collection of polygons, so that the surfaces are cut into tiles and the
    lines into flat triangles, and all of them are one collection.

    Args:
        tiles: what the bodies are made of, in the unit of length of the channel; see `box_tiles`, `surface_tiles`.
        lines: points `(n, 3)`.
        speeds: `(n,)`, what colours the lines.
        lower, upper: corners of the channel.
        width, height: inches; the drawing is made as large as it can be.
        share: of the width that the drawing may take, from the left.
        elevation: of the viewer, degrees.
        frame: draw the edges of the channel.
        raster: draw bodies and lines as an image, which is smaller where there are thousands of them.
    """
    paces = torch.cat([*speeds, torch.zeros(0, dtype=torch.float64)])
    slow, fast = paces.quantile(torch.tensor([0.03, 0.97], dtype=torch.float64)).tolist() if lines else (0.0, 1.0)
    scale, colours = Normalize(slow, fast), colormaps["viridis"]
    parts: list[Corners] = []
    fills: list[str] = []
    edges: list[str] = []
    for tile, tone in tiles:
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
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), projection="3d", computed_zorder=False)
        axes.set_axis_off()
        axes.set_box_aspect([high - low for low, high in zip(lower, upper, strict=True)])
        axes.view_init(elev=elevation, azim=AZIMUTH)
        x, y, z = zip(lower, upper, strict=True)
        axes.set(xlim=x, ylim=y, zlim=z)
        corners = list(product(x, y, z))
        edges_of_channel = [
            (one, other)
            for index, one in enumerate(corners)
            for other in corners[index + 1 :]
            if sum(p != q for p, q in zip(one, other, strict=True)) == 1
        ]
        if frame:
            axes.add_collection3d(Line3DCollection(edges_of_channel, colors=figures.SOFT, linewidths=0.5, zorder=0))
        body = Poly3DCollection(parts, facecolors=fills, edgecolors=edges, linewidths=0.9, zorder=1)
        body.set_rasterized(raster)
        axes.add_collection3d(body)
        _fill(axes, np.array(corners) if frame else np.concatenate(parts), share)
        return figure


def _fill(axes: Any, points: Corners, share: float) -> None:
    """Place axes that span the whole figure anew, so that what is seen of `points` fills the left of it."""
    axes.apply_aspect()
    x, y, _ = proj3d.proj_transform(*points.T, axes.get_proj())
    seen = axes.figure.transFigure.inverted().transform(axes.transData.transform(np.stack([x, y], -1)))
    low, high = seen.min(0), seen.max(0)
    zoom = 0.98 * float((np.array([share, 1.0]) / (high - low)).min())
    left, below = np.array([share / 2, 0.5]) - zoom * (low + high) / 2
    axes.set_position((left, below, zoom, zoom))


def stream_lines(channel: Grid, velocity: Tensor, across: int = 8) -> tuple[list[Tensor], list[Tensor]]:
    """Lines along a velocity `(3, *space)` from starts at the inlet, x = lower, with the speed at each point.

    `across` starts along y and as many along z; by Heun's method.
    """
    lower, upper = (torch.tensor(side, dtype=torch.float64) for side in (channel.lower, channel.upper))
    images = velocity.permute(0, 3, 2, 1).unsqueeze(0)  # (1, 3, z, y, x)

    def at(points: Tensor) -> Tensor:
        places = 2 * (points - lower) / (upper - lower) - 1
        sampled = torch.nn.functional.grid_sample(
            images, places.view(1, -1, 1, 1, 3), align_corners=False, padding_mode="border"
        )
        return sampled.view(3, -1).T

    ticks = (torch.arange(across, dtype=torch.float64) + 0.5) / across
    starts = torch.cartesian_prod(torch.tensor([0.002], dtype=torch.float64), ticks, ticks)
    length = float(upper[0] - lower[0])
    points = lower + starts * (upper - lower)
    step = 0.5 * min(channel.spacing)
    path, speeds = [points], [torch.linalg.vector_norm(at(points), dim=-1)]
    for _ in range(math.ceil(2 * length / step)):
        first = torch.nn.functional.normalize(at(points), dim=-1)
        second = torch.nn.functional.normalize(at(points + step * first), dim=-1)
        moved = points + 0.5 * step * (first + second)
        points = torch.where((moved[:, :1] < upper[0]) & (points[:, :1] < upper[0]), moved, points)
        path.append(points)
        speeds.append(torch.linalg.vector_norm(at(points), dim=-1))
    lines, paces = torch.stack(path, 1), torch.stack(speeds, 1)
    kept = [(torch.diff(line, dim=0).abs().sum(-1) > 1e-9).sum() + 1 for line in lines]
    every = max(1, round(0.015 * length / step))
    return (
        [line[: int(n)][::every] for line, n in zip(lines, kept, strict=True)],
        [pace[: int(n)][::every] for pace, n in zip(paces, kept, strict=True)],
    )


def surface_tiles(points: Tensor, triangles: Tensor) -> list[Tile]:
    """The triangles of a surface, each with its shade: light from above and from the left of the viewer.

    Triangles of which the inside is seen, through a hole, are dark.
    """
    corners = points[triangles]
    grey, inside = _light(corners)
    grey = torch.where(inside, 0.3, 0.42 + 0.46 * grey)
    return [
        (tile.numpy(), to_hex((tone, tone, 0.99 * tone))) for tile, tone in zip(corners, grey.tolist(), strict=True)
    ]


def coloured_tiles(points: Tensor, triangles: Tensor, colours: Corners) -> list[Tile]:
    """The triangles of a surface in colours of their own, `(m, 3)` in 0 to 1, shaded by the same light."""
    corners = points[triangles]
    shaded = colours * (0.62 + 0.38 * _light(corners)[0].numpy())[:, None]
    return [(tile.numpy(), to_hex(colour)) for tile, colour in zip(corners, shaded.tolist(), strict=True)]


def _light(corners: Tensor) -> tuple[Tensor, Tensor]:
    """How bright triangles `(m, 3, 3)` are, from 0 to 1, and whether the viewer sees their inner side."""
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.nn.functional.normalize(normals, dim=-1)
    light = torch.nn.functional.normalize(torch.tensor([-0.25, -0.5, 0.85], dtype=torch.float64), dim=0)
    towards = torch.tensor(
        [
            math.cos(math.radians(ELEVATION)) * math.cos(math.radians(AZIMUTH)),
            math.cos(math.radians(ELEVATION)) * math.sin(math.radians(AZIMUTH)),
            math.sin(math.radians(ELEVATION)),
        ],
        dtype=torch.float64,
    )
    return 0.5 + 0.5 * normals @ light, normals @ towards < 0


def box_tiles(box: Box) -> list[Tile]:
    """The sides of a box cut into squares, each with its shade: light from above."""
    tiles: list[Tile] = []
    for axis, tone in enumerate(figures.TONES):
        one, two = (other for other in range(3) if other != axis)
        cuts = [np.linspace(*box[other], _TILES + 1) for other in (one, two)]
        for place, i, j in product(box[axis], range(_TILES), range(_TILES)):
            tile = np.full((4, 3), place)
            tile[:, one] = cuts[0][[i, i + 1, i + 1, i]]
            tile[:, two] = cuts[1][[j, j, j + 1, j + 1]]
            tiles.append((tile, tone))
    return tiles
