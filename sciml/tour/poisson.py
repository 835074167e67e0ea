"""Section: an equation in text becomes a solution."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.solve import solve

from ..boundary import Dirichlet
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, system_of


def source(x: Tensor, y: Tensor) -> Tensor:
    sharp = torch.exp(-((x - 0.55) ** 2 + (y - 0.35) ** 2) / 0.002)
    broad = torch.exp(-((x - 1.4) ** 2 + (y - 0.6) ** 2) / 0.05)
    return 20 * sharp + broad


def solve_poisson(shape: tuple[int, int]) -> Solution:
    equation = Equation("-laplacian(u) = f")
    plate = Grid(shape, lower=(0, 0), upper=(2, 1), boundary=Dirichlet(0.0))
    return solve(equation, plate, fields={"f": source})


def write(chapter: Chapter, quick: bool) -> None:
    shape = (256, 128) if quick else (1024, 512)
    solution = solve_poisson(shape)
    system = system_of(solution)
    plate = system.domain
    iterations = int(solution.statistics["iterations"])
    setup, seconds = solution.statistics["seconds_setup"], solution.statistics["seconds_solve"]
    residual = float(solution.statistics["relative_residual"])
    produced = float(source(*plate.coordinates).sum()) * plate.cell_volume
    outflow = -sum(float(solution.flux(name)) for name in plate.boundaries)
    imbalance = abs(outflow - produced) / produced
    unknowns = plate.shape[0] * plate.shape[1]

    chapter.say(
        "A membrane over a rectangle, held at its rim, is pressed in two places: sharply in one, broadly in the other. "
        "The equation is a text. `sciml` parses it into a symbolic object, and everything else is made from that."
    )
    chapter.equation(system.equation)
    chapter.code(source, solve_poisson)
    chapter.say(
        f"No method is named, so one was chosen: {solution.method}. "
        f"The scheme: {'; '.join(solution.notes)}. The residual `b - A u` is computed afresh at the end."
    )
    chapter.facts(
        {
            "unknowns": f"{unknowns:,}",
            "setup": f"{setup:.3f} s",
            "solve": f"{seconds:.3f} s",
            "iterations": str(iterations),
            "relative residual": f"{residual:.1e}",
            "largest value": f"{float(solution.value.max()):.5f}",
        }
    )
    chapter.pictures(
        f"The solution on {plate.shape[0]} x {plate.shape[1]} cells, with lines of equal height.",
        (
            figures.map_figure(plate, solution.value, figures.WHOLE, contours=12),
            "map of the solution over the rectangle, with a sharp and a broad hill",
        ),
    )
    chapter.pictures(
        "Left: the solution along three lines, read off at 400 points each with `solution.at(points)`. "
        "Right: the residual norm after each iteration.",
        (_cuts(solution), "three curves of the solution along x"),
        (
            figures.history_figure(
                {"u": solution.history["residual_norm"] / solution.history["residual_norm"][0]}, figures.HALF
            ),
            "the residual falls by an almost constant factor in every iteration",
        ),
    )
    chapter.claim(
        f"The true residual meets the tolerance of 1e-8: it is {residual:.1e} of the right side.", residual <= 1e-8
    )
    chapter.claim(
        f"What the source produces, {produced:.6f}, flows out through the four sides, {outflow:.6f}: "
        f"relative difference {imbalance:.1e}, no more than the tolerance of the solve allows.",
        imbalance <= 1e-7,
    )
    chapter.headline = f"{unknowns:,} unknowns in {setup + seconds:.2f} s, {iterations} iterations"
    chapter.numbers = {
        "unknowns": unknowns,
        "iterations": iterations,
        "relative_residual": residual,
        "seconds_setup": setup,
        "seconds_solve": seconds,
        "imbalance": imbalance,
        "maximum": float(solution.value.max()),
    }


def _cuts(solution: Solution) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 2.8)
        x = torch.linspace(0, 2, 400, dtype=torch.float64)
        for colour, y in zip(figures.LINES, (0.35, 0.6, 0.9), strict=False):
            values = solution.at(torch.stack([x, torch.full_like(x, y)], -1))
            axes.plot(x, values, color=colour, label=f"y = {y}")
        axes.set_xlim(0, 2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("x")
        axes.set_ylabel("u")
        axes.legend(loc="best")
        figures.tidy(axes)
        return figure


SECTION = Section("poisson", "An equation in text becomes a solution", write)
