"""Section: voxel obstacles in three dimensions."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.solve import solve

from ..boundary import Dirichlet, Neumann
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, system_of
from .scene import box_tiles, draw_scene, stream_lines

Cells = tuple[tuple[int, int], ...]


def solve_flow(solid: Tensor) -> Solution:
    equation = Equation("laplacian(u) = 0")
    ends, closed = (Dirichlet(1.0), Dirichlet(0.0)), Neumann(0.0)
    sides = {"x": ends, "y": closed, "z": closed}
    shape, upper = tuple(solid.shape), (2, 1, 1)
    channel = Grid(shape, upper=upper, boundary=sides, solid=solid, walls=closed)
    return solve(equation, channel, rtol=1e-12)


def write(chapter: Chapter, quick: bool) -> None:
    shape = (48, 24, 24) if quick else (128, 64, 64)
    boxes = random_boxes(shape, torch.Generator().manual_seed(12))
    solid = torch.zeros(shape, dtype=torch.bool)
    for box in boxes:
        solid[tuple(slice(*side) for side in box)] = True
    solution = solve_flow(solid)
    system = system_of(solution)
    channel = system.domain
    velocity = -solution.gradient()
    speed = torch.linalg.vector_norm(velocity, dim=0)
    # The flux is that of the gradient; the fluid goes the other way.
    inflow, outflow = float(solution.flux("x_lower")), -float(solution.flux("x_upper"))
    through_walls = float(solution.flux("walls"))
    imbalance = abs(inflow - outflow) / abs(inflow)
    iterations = int(solution.statistics["iterations"])
    unknowns = int((~solid).sum())

    chapter.say(
        f"A frictionless flow through a channel with {len(boxes)} boxes in its way: a potential that is 1 at the inlet "
        "and 0 at the outlet, and no flow through the other sides or into the boxes. The boxes are voxels of a bool "
        "tensor; any other shape would do."
    )
    chapter.equation(system.equation)
    chapter.code(solve_flow)
    chapter.pictures(
        f"Stream lines through the {shape[0]} x {shape[1]} x {shape[2]} channel, coloured by speed.",
        (_scene(channel, boxes, velocity), "boxes in a channel and lines that wind around them"),
    )
    level = int(solid.sum((0, 1)).argmax())
    height = float(channel.axis_coordinates[2][level])
    cut = solid[:, :, level]
    top = float(speed[~solid].quantile(0.995))
    chapter.pictures(
        f"The potential and the speed in the plane z = {height:.2f}; boxes are grey. The flow is fastest in the gaps "
        "and around the edges.",
        (
            _plane(channel, solution.value[:, :, level], cut, "potential", "viridis"),
            "map of the potential",
        ),
        (_plane(channel, speed[:, :, level], cut, "speed", "magma", top), "map of the speed"),
    )
    chapter.facts(
        {
            "unknowns": f"{unknowns:,}",
            "setup": f"{solution.statistics['seconds_setup']:.2f} s",
            "solve": f"{solution.statistics['seconds_solve']:.2f} s",
            "iterations": str(iterations),
            "relative residual": f"{float(solution.statistics['relative_residual']):.1e}",
            "of the volume solid": f"{float(solid.double().mean()):.0%}",
        }
    )
    chapter.claim(
        f"What flows in flows out: {inflow:.14f} and {outflow:.14f}, a relative difference of {imbalance:.1e}.",
        imbalance <= 1e-10,
    )
    chapter.claim(f"Nothing flows into the boxes: {through_walls:g}.", abs(through_walls) <= 1e-14)
    low, high = float(solution.value[~solid].min()), float(solution.value[~solid].max())
    chapter.claim(
        f"The potential stays between its values at inlet and outlet: from {low:.6f} to {high:.6f}.", 0 < low < high < 1
    )
    chapter.headline = f"{unknowns:,} unknowns, {iterations} iterations, flow in minus flow out {imbalance:.0e}"
    chapter.numbers = {
        "unknowns": unknowns,
        "iterations": iterations,
        "inflow": inflow,
        "outflow": outflow,
        "imbalance": imbalance,
        "relative_residual": float(solution.statistics["relative_residual"]),
        "seconds_setup": solution.statistics["seconds_setup"],
        "seconds_solve": solution.statistics["seconds_solve"],
    }


def random_boxes(shape: tuple[int, int, int], generator: torch.Generator, count: int = 8) -> list[Cells]:
    """First and last cell along each axis of boxes that do not touch, the same places for every shape."""
    boxes: list[tuple[Tensor, Tensor]] = []
    room = torch.tensor([1.6, 1.0, 1.0])
    while len(boxes) < count:
        size = 0.2 + 0.25 * torch.rand(3, generator=generator)
        low = torch.tensor([0.2, 0.0, 0.0]) + torch.rand(3, generator=generator) * (room - size)
        if all(bool(((low + size + 0.06 < first) | (last + 0.06 < low)).any()) for first, last in boxes):
            boxes.append((low, low + size))
    cells = torch.tensor(shape) / torch.tensor([2.0, 1.0, 1.0])
    corners = [((low * cells).round().int().tolist(), (high * cells).round().int().tolist()) for low, high in boxes]
    return [tuple(zip(low, high, strict=True)) for low, high in corners]


def _scene(channel: Grid, boxes: list[Cells], velocity: Tensor) -> Figure:
    solids = [tuple((a * h, b * h) for (a, b), h in zip(box, channel.spacing, strict=True)) for box in boxes]
    tiles = [tile for solid in solids for tile in box_tiles(solid)]
    return draw_scene(tiles, *stream_lines(channel, velocity), channel.lower, channel.upper)


def _plane(channel: Grid, field: Tensor, solid: Tensor, title: str, colours: str, top: float | None = None) -> Figure:
    grid = Grid(tuple(field.shape), channel.lower[:2], channel.upper[:2], solid=solid)
    limits = None if top is None else (0.0, top)
    return figures.map_figure(grid, field, figures.HALF, title=title, colours=colours, limits=limits)


SECTION = Section("obstacles", "Voxel obstacles in three dimensions", write)
