"""Section: a body given by a surface of triangles becomes cells of a grid, and a flow goes around it."""

from __future__ import annotations

import time

import torch
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sciml.solvers.solve import solve

from ..boundary import Dirichlet, Neumann
from ..equations import Equation
from ..errors import InputError
from ..grid import Grid
from ..solution import Solution
from ..surfaces import surface_check
from . import figures
from .chapter import Chapter, Section, system_of
from .scene import draw_scene, stream_lines, surface_tiles
from .shapes import make_rope

Surface = tuple[Tensor, Tensor]
HOLES = ((0.2, -0.9, 0.4), (0.5, -0.3, 0.8), (0.6, -0.6, -0.6))
"""Directions in which the damaged scan has lost its foremost triangles."""


def make_channel(cells: int, solid: Tensor | None = None) -> Grid:
    ends, closed = (Dirichlet(4.0), Dirichlet(0.0)), Neumann(0.0)
    sides = {"x": ends, "y": closed, "z": closed}
    shape = (cells, cells, cells)
    return Grid(shape, lower=-2.0, upper=2.0, boundary=sides, solid=solid)


def solve_flow(surface: Surface, cells: int) -> Solution:
    inside = make_channel(cells).voxelize(surface)
    channel = make_channel(cells, inside)
    return solve(Equation("laplacian(u) = 0"), channel, rtol=1e-12)


def close_by_winding(surface: Surface, cells: int) -> Tensor:
    return make_channel(cells).voxelize(surface, method="winding")


def write(chapter: Chapter, quick: bool) -> None:
    surface = make_rope(160, 20) if quick else make_rope(240, 24)
    cells = 48 if quick else 96
    _write_flow(chapter, surface, cells)
    _write_volumes(chapter, surface, (24, 48, 96) if quick else (32, 64, 128, 256))
    _write_holes(chapter, surface, 64 if quick else 128)
    numbers = chapter.numbers
    chapter.headline = (
        f"{numbers['triangles']:,} triangles, volume of the cells within {abs(numbers['volume_errors'][-1]):.2%}; "
        f"flow in minus flow out {numbers['imbalance']:.0e}"
    )


def _write_flow(chapter: Chapter, surface: Surface, cells: int) -> None:
    check = surface_check(*surface)
    solution = solve_flow(surface, cells)
    system = system_of(solution)
    channel = system.domain
    solid = torch.zeros(channel.shape, dtype=torch.bool) if channel.solid is None else channel.solid
    velocity = -solution.gradient()
    speed = torch.linalg.vector_norm(velocity, dim=0)
    inflow, outflow = float(solution.flux("x_lower")), -float(solution.flux("x_upper"))
    imbalance = abs(inflow - outflow) / inflow
    share = inflow / 4.0**2
    iterations = int(solution.statistics["iterations"])

    chapter.say(
        f"A scan is a surface of triangles. This one, a rope tied into a knot, has {check.triangles:,} of them and was "
        "computed for this page; `voxelize` also takes the path of a file that meshio reads. A cell is inside if its "
        "centre is, found exactly by counting how often a line from there crosses the surface. The cells inside are "
        "then an obstacle in a frictionless flow that would go with speed 1 through the empty channel."
    )
    chapter.equation(system.equation)
    chapter.code(make_channel, solve_flow)
    chapter.pictures(
        f"The surface in the channel, with stream lines of the flow on {cells} x {cells} x {cells} cells, coloured by "
        "speed.",
        (
            draw_scene(
                surface_tiles(*surface),
                *stream_lines(channel, velocity, across=9),
                channel.lower,
                channel.upper,
                height=5.2,
                raster=True,
            ),
            "a knotted rope in a box, and lines that pass around and through it",
        ),
    )
    level = cells // 2
    top = float(speed[~solid].quantile(0.999)) if solid.numel() < 2**24 else float(speed.max())
    chapter.pictures(
        "The speed in two planes through the middle, along the flow and across it; cells inside the knot are grey.",
        (_cut(channel, speed, solid, 2, level, top), "map of the speed in a plane along the flow"),
        (_cut(channel, speed, solid, 0, level, top), "map of the speed in a plane across the flow"),
    )
    chapter.facts(
        {
            "unknowns": f"{int((~solid).sum()):,}",
            "setup": f"{solution.statistics['seconds_setup']:.2f} s",
            "solve": f"{solution.statistics['seconds_solve']:.2f} s",
            "iterations": str(iterations),
            "flow, of the empty channel's": f"{share:.1%}",
            "fastest": f"{float(speed.max()):.2f}",
        }
    )
    chapter.claim(
        f"What flows in flows out: {inflow:.11f} and {outflow:.11f}, a relative difference of {imbalance:.1e}.",
        imbalance <= 1e-10,
    )
    chapter.numbers |= {
        "triangles": check.triangles,
        "unknowns": int((~solid).sum()),
        "iterations": iterations,
        "imbalance": imbalance,
        "share": share,
    }


def _write_volumes(chapter: Chapter, surface: Surface, sizes: tuple[int, ...]) -> None:
    exact = surface_check(*surface).volume
    rows, errors = [], []
    for cells in sizes:
        channel = make_channel(cells)
        start = time.perf_counter()
        inside = int(channel.voxelize(surface).sum())
        seconds = time.perf_counter() - start
        errors.append(inside * channel.cell_volume / exact - 1)
        rows.append(
            [
                f"{cells} x {cells} x {cells}",
                f"{inside:,}",
                f"{inside * channel.cell_volume:.5f}",
                f"{errors[-1]:+.3%}",
                f"{1e3 * seconds:.0f} ms",
            ]
        )
    chapter.say(
        f"The volume that the surface encloses is known from its triangles by the divergence theorem: {exact:.5f}. The "
        "cells inside approach it, not steadily, for whether a centre is inside is a matter of chance at the surface."
    )
    chapter.table(
        ["cells", "inside", "their volume", "off by", "one run took"],
        rows,
        "The cells inside the knot on finer and finer grids.",
    )
    chapter.claim(
        f"On the finest grid the volume of the cells is within 1% of that of the surface: {errors[-1]:+.3%}.",
        abs(errors[-1]) <= 0.01,
    )
    chapter.numbers |= {"volume": exact, "sizes": list(sizes), "volume_errors": errors}


def _write_holes(chapter: Chapter, surface: Surface, cells: int) -> None:
    whole = make_channel(cells).voxelize(surface)
    damaged, turned = _with_holes(surface), _with_turned_triangles(surface)
    refusals = [_refusal(each, cells) for each in (damaged, turned)]
    found = close_by_winding(damaged, cells)
    wrong = int((found != whole).sum()) / int(whole.sum())
    level = int((found != whole).sum((1, 2)).argmax())
    place = float(make_channel(cells).axis_coordinates[0][level])
    check = surface_check(*damaged)
    bounds = (surface[0].amin(0).tolist(), surface[0].amax(0).tolist())
    lost = len(surface[1]) - check.triangles

    chapter.say(
        f"Scans have holes. With {lost} of the triangles gone nothing is inside in the strict sense, and `voxelize` "
        f"says so rather than guess: “{refusals[0]}”. Where some triangles are turned the wrong way around it "
        f"says: “{refusals[1]}”."
    )
    chapter.say(
        "Asked for winding numbers, it copes: a centre is inside if more than half of the directions around it meet "
        "the surface from within, which needs no surface to be closed."
    )
    chapter.code(close_by_winding)
    chapter.pictures(
        "The damaged surface, dark where one looks at its inside through a hole; and the cells inside by winding "
        f"numbers in the plane x = {place:.2f}, where most cells differ from those of the whole surface.",
        (
            draw_scene(surface_tiles(*damaged), [], [], *bounds, width=4.3, height=4.0, raster=True),
            "the knot with three holes",
        ),
        (_compare(make_channel(cells), found, whole, level), "cells inside, and the few that differ"),
    )
    chapter.claim(
        f"The surface with {check.open_edges} open edges and the one with turned triangles were refused, each with the "
        "number of edges at fault.",
        str(check.open_edges) in refusals[0] and str(surface_check(*turned).flipped_edges) in refusals[1],
    )
    chapter.claim(
        f"By winding numbers the cells inside are those of the whole surface, but for {wrong:.2%} of them.",
        wrong <= 0.01,
    )
    chapter.numbers |= {
        "open_edges": check.open_edges,
        "triangles_lost": lost,
        "refusals": refusals,
        "wrong_by_winding": wrong,
    }


def _with_holes(surface: Surface, radius: float = 0.22) -> Surface:
    points, triangles = surface
    centres = points[triangles].mean(1)
    foremost = centres[(centres @ torch.tensor(HOLES, dtype=torch.float64).T).argmax(0)]
    return points, triangles[torch.cdist(centres, foremost).amin(1) > radius]


def _with_turned_triangles(surface: Surface) -> Surface:
    points, triangles = surface
    turned = triangles.clone()
    turned[:12] = triangles[:12].flip(1)
    return points, turned


def _refusal(surface: Surface, cells: int) -> str:
    try:
        make_channel(cells).voxelize(surface)
    except InputError as error:
        return str(error)
    return ""


def _cut(channel: Grid, field: Tensor, solid: Tensor, axis: int, level: int, top: float) -> Figure:
    one, other = (each for each in range(3) if each != axis)
    grid = Grid(
        (channel.shape[one], channel.shape[other]),
        (channel.lower[one], channel.lower[other]),
        (channel.upper[one], channel.upper[other]),
        solid=solid.select(axis, level),
    )
    title = f"speed at {channel.axes[axis]} = {float(channel.axis_coordinates[axis][level]):.2f}"
    return figures.map_figure(grid, field.select(axis, level), 4.3, title=title, colours="magma", limits=(0.0, top))


def _compare(channel: Grid, found: Tensor, whole: Tensor, level: int) -> Figure:
    with figures.style():
        figure, axes = figures.panel(4.3, 4.0)
        one, other = found[level], whole[level]
        kinds = {"inside": one & other, "missed": ~one & other, "too many": one & ~other}
        colours = dict(zip(kinds, (figures.SOLID, figures.LINES[1], figures.LINES[0]), strict=True))
        handles = []
        for name, cells in kinds.items():
            if bool(cells.any()):
                colour = colours[name]
                runs = PolyCollection(_runs(channel, cells), facecolors=colour, edgecolors=colour, linewidths=0.6)
                axes.add_collection(runs)
                handles.append(Patch(color=colour, label=name))
        axes.set_aspect("equal")
        axes.set(xlim=(channel.lower[1], channel.upper[1]), ylim=(channel.lower[2], channel.upper[2]))
        axes.set(xlabel="y", ylabel="z")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.0)
        return figure


def _runs(channel: Grid, cells: Tensor) -> list[list[tuple[float, float]]]:
    """Rectangles of cells that follow one another along y, of a plane `(ny, nz)` across x."""
    padded = torch.nn.functional.pad(cells.to(torch.int8), (0, 0, 1, 1)).diff(dim=0)
    h, k = channel.spacing[1:]
    left, below = channel.lower[1:]
    rectangles = []
    for row in range(cells.shape[1]):
        z = below + row * k
        ends = zip(
            (padded[:, row] == 1).nonzero()[:, 0].tolist(), (padded[:, row] == -1).nonzero()[:, 0].tolist(), strict=True
        )
        for y, far in ((left + first * h, left + last * h) for first, last in ends):
            rectangles.append([(y, z), (far, z), (far, z + k), (y, z + k)])
    return rectangles


SECTION = Section("scan", "A scanned body becomes an obstacle", write)
