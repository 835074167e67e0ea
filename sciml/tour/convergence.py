"""Section: measured orders of convergence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from torch import Tensor

from sciml.solvers.solve import solve

from ..boundary import Dirichlet, Neumann, Robin
from ..equations import Equation
from ..grid import Grid
from ..scheme import FiniteDifference
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section


def exact(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(x) * torch.sin(3 * y)


def solve_manufactured(cells: int, order: int) -> Solution:
    known = Dirichlet(exact)
    slope = Neumann(lambda x, y: exact(x, y))  # du/dx = u
    mixed = Robin(2.0, lambda x, y: -3 * torch.exp(x))  # -du/dy + 2 u at y = 0
    sides = {"x": (known, slope), "y": (mixed, known)}
    square = Grid((cells, cells), boundary=sides)
    return solve(
        Equation("-laplacian(u) = f"),
        square,
        fields={"f": lambda x, y: 8 * exact(x, y)},
        scheme=FiniteDifference(order=order),
        rtol=1e-13,
    )


def write(chapter: Chapter, quick: bool) -> None:
    sizes = (16, 32, 64) if quick else (16, 32, 64, 128)
    errors: dict[int, list[float]] = {2: [], 4: []}
    methods = {}
    for order, found in errors.items():
        for cells in sizes:
            solution = solve_manufactured(cells, order)
            found.append(float(solution.error(exact)["L2"]))
            methods[order] = solution.method
    measured = {order: slope(sizes, found) for order, found in errors.items()}

    chapter.say(
        "How fast does the error fall when the grid is refined? The source and the boundary values are made so that "
        "the solution is known, u = exp(x) sin(3y), with a Dirichlet, a Neumann and a Robin side among the four."
    )
    chapter.code(exact, solve_manufactured)
    chapter.pictures(
        "Error in L2 against the number of cells along an axis; the dashed lines fall with powers 2 and 4 exactly. The "
        f"systems were solved to a residual of 1e-13: order 2 by {methods[2]}, order 4 by {methods[4]}.",
        (_diagram(sizes, errors, measured), "two straight lines of errors, one twice as steep as the other"),
    )
    rows: list[list[str]] = []
    for index, cells in enumerate(sizes):
        row = [f"{cells} x {cells}"]
        for found in errors.values():
            rate = "" if index == 0 else f"{math.log2(found[index - 1] / found[index]):.2f}"
            row += [f"{found[index]:.2e}", rate]
        rows.append(row)
    chapter.table(
        ["cells", "error, order 2", "rate", "error, order 4", "rate"],
        rows,
        "The rate is the base-2 logarithm of the ratio of an error to the one above it.",
    )
    for order, reached in measured.items():
        chapter.claim(
            f"`FiniteDifference(order={order})` converges with order {reached:.2f} (between the two finest grids).",
            abs(reached - order) <= 0.1,
        )
    chapter.headline = f"measured orders {measured[2]:.2f} and {measured[4]:.2f}"
    chapter.numbers = {
        "sizes": list(sizes),
        "errors": {str(order): found for order, found in errors.items()},
        "orders": {str(order): rate for order, rate in measured.items()},
    }


def slope(sizes: Sequence[int], errors: Sequence[float]) -> float:
    """The order between the two finest grids."""
    return math.log(errors[-2] / errors[-1]) / math.log(sizes[-1] / sizes[-2])


def _diagram(sizes: Sequence[int], errors: dict[int, list[float]], measured: dict[int, float]) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.3)
        for colour, (order, found) in zip(figures.LINES, errors.items(), strict=False):
            beside = [0.4 * found[0] * (sizes[0] / cells) ** order for cells in sizes]
            axes.loglog(sizes, beside, color=figures.SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
            label = f"order {order}, measured {measured[order]:.2f}"
            axes.loglog(sizes, found, color=colour, marker="o", markersize=4, label=label)
        axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("cells along an axis")
        axes.set_ylabel("error in L2")
        axes.legend(loc="lower left")
        figures.tidy(axes)
        return figure


SECTION = Section("convergence", "Measured orders of convergence", write)
