"""Section: a batch of systems as one."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.solve import solve

from ..benchmarks.bench import version_of
from ..benchmarks.linear.problems import gaussian_field
from ..benchmarks.report import seconds
from ..benchmarks.row import Row
from ..benchmarks.timing import Contender, Outcome
from ..boundary import Dirichlet
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, system_of
from .timing import make_bench

ROWS = 16
BATCH, LOOP = f"one batch of {ROWS}", f"a loop over {ROWS}"


def solve_batch(a: Tensor) -> Solution:
    """One operator with a batch axis: a is (rows, nx, ny)."""
    equation = Equation("-div(a*grad(u)) = f")
    square = Grid(tuple(a.shape[1:]), boundary=Dirichlet(0.0))
    return solve(equation, square, fields={"a": a, "f": 1.0})


def solve_loop(a: Tensor) -> list[Tensor]:
    return [solve_batch(row.unsqueeze(0)).value[0] for row in a]


def write(chapter: Chapter, quick: bool) -> None:
    cells = 63
    draws = [gaussian_field((cells, cells), seed) for seed in range(ROWS)]
    a = torch.stack([torch.exp((0.2 + 0.06 * row) * draw / draw.std()) for row, draw in enumerate(draws)])
    solution = solve_batch(a)
    system = system_of(solution)
    square = system.domain
    alone = torch.stack(solve_loop(a))
    difference = float((alone - solution.value).abs().max() / solution.value.abs().max())
    rows = _time(a, quick)
    best = {row.method: row.total_seconds or float("nan") for row in rows}
    ratio = best[LOOP] / best[BATCH]
    iterations = solution.statistics["iterations"].tolist()
    contrast = (a.amax((1, 2)) / a.amin((1, 2))).tolist()

    chapter.say(
        f"{ROWS} media, from nearly homogeneous to one with a contrast of {max(contrast):,.0f}, are solved in one "
        "call: the coefficient has a leading axis, and so has the solution. Each row stops by its own residual, has "
        "its own count of iterations and its own status; one that failed would not take the others down."
    )
    chapter.equation(system.equation)
    chapter.code(solve_batch)
    chapter.pictures(
        f"The {ROWS} solutions, each in its own colours, with the contrast of its coefficient and its number of "
        "iterations.",
        (_gallery(square, solution, contrast), "sixteen small maps of solutions, increasingly irregular"),
    )
    repeats = min(row.extra["repeats"] for row in rows)
    times = [(row.method, best[row.method], row.extra["total_median"]) for row in rows]
    verdict = (
        f"The batch took 1/{ratio:.1f} of the time of the loop."
        if ratio > 1
        else f"Here the loop was quicker than the batch, by a factor of {1 / ratio:.2f}."
    )
    chapter.table(
        ["way", "least", "median", "per system"],
        [[way, seconds(least), seconds(middle), seconds(least / ROWS)] for way, least, middle in times],
        f"{ROWS} systems of {cells} x {cells} unknowns, discretization and setup included, in turn, {repeats} "
        f"{'run' if repeats == 1 else 'runs'} each. {verdict}",
    )
    chapter.claim(
        f"All {ROWS} rows converged, and agree with the systems solved one by one: largest difference "
        f"{difference:.1e}.",
        bool(solution.converged.all()) and difference <= 1e-6,
    )
    chapter.headline = f"{ROWS} systems in {seconds(best[BATCH])}, one by one in {seconds(best[LOOP])}"
    chapter.numbers = {
        "rows": ROWS,
        "iterations": iterations,
        "contrast": contrast,
        "difference": difference,
        "timings": [row.to_json() for row in rows],
        "ratio": ratio,
    }


def _time(a: Tensor, quick: bool) -> list[Row]:
    contenders = [
        Contender(BATCH, "sciml", version_of("sciml"), lambda _: solve_batch(a), lambda _: Outcome()),
        Contender(LOOP, "sciml", version_of("sciml"), lambda _: solve_loop(a), lambda _: Outcome()),
    ]
    return make_bench(quick).compare("batch", contenders, unknowns=a.numel())


def _gallery(square: Grid, solution: Solution, contrast: list[float]) -> Figure:
    with figures.style():
        figure = figures.blank(1.25 * figures.WHOLE, 2.9)
        counts = solution.statistics["iterations"].tolist()
        panels = figure.subplots(2, ROWS // 2).flatten()
        for row, axes in enumerate(panels):
            figures.draw_map(axes, square, solution.value[row], bar=False)
            axes.set_xticks([]), axes.set_yticks([])
            shown = f"{contrast[row]:.1f}" if contrast[row] < 10 else f"{contrast[row]:,.0f}"
            axes.set_title(f"1 to {shown}\n{counts[row]} iterations", fontsize=8, loc="left")
        return figure


SECTION = Section("batch", "A batch of systems at once", write)
