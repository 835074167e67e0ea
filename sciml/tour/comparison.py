"""Section: the solvers against each other and against those of scipy and pyamg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
import torch
from matplotlib.figure import Figure
from scipy.sparse.linalg import cg
from torch import Tensor

from sciml.solvers.linear import Chebyshev, ConjugateGradient, Direct, Multigrid
from sciml.solvers.linear.base import LinearSolver

from ..benchmarks.bench import Bench
from ..benchmarks.linear.peers import (
    MULTIGRID_CG,
    RUGE_STUBEN,
    SCIPY_CG,
    SMOOTHED_AGGREGATION,
    own,
    pyamg_cg,
    scipy_cg,
    scipy_direct,
)
from ..benchmarks.linear.problems import Problem, poisson
from ..benchmarks.report import seconds
from ..benchmarks.row import Row
from ..benchmarks.timing import Contender
from . import figures
from .chapter import Chapter, Section
from .timing import make_bench

TOLERANCE = 1e-8
IN_WORDS = "1e-8"
SOLVERS: dict[str, LinearSolver] = {
    MULTIGRID_CG: ConjugateGradient(preconditioner=Multigrid()),
    "CG + Chebyshev": ConjugateGradient(preconditioner=Chebyshev()),
    "CG": ConjugateGradient(),
    "Direct": Direct(),
}


def write(chapter: Chapter, quick: bool) -> None:
    bench = make_bench(quick)
    large, small = poisson((95, 95) if quick else (191, 191), "cpu"), poisson((31, 31), "cpu")
    chapter.say(
        "Poisson's equation with a random right side, by methods of this package and of others. They run in turn, one "
        f"after the other and then again, all to `|b - A x| <= {IN_WORDS} |b|`, and the residual in the tables is "
        "computed afresh by numpy for each of them. Setup and solve are timed apart where a library tells them apart. "
        f"Methods of `sciml` may use {_threads()} and work without a matrix, except Direct; scipy and pyamg, whose "
        "sparse kernels know no more than one, use one thread, and are given the matrix for nothing."
    )
    rows = _compare(bench, large)
    histories = _histories(large)
    chapter.pictures(
        "Residual against iterations, and against seconds from the start of the setup, as if all iterations of a "
        "method took the same time; other people's methods are dashed. Factorizations are crosses: there is nothing "
        "to see before their end.",
        (_by_iterations(histories), "residuals of iterative methods against iterations"),
        (_by_seconds(histories, rows), "residuals of all methods against seconds"),
    )
    _show(chapter, rows, large)
    few = _compare(bench, small)
    chapter.say(
        f"The same on a problem of {small.unknowns:,} unknowns, where factorizing costs next to nothing and calls from "
        "Python cost most."
    )
    _show(chapter, few, small)
    missed = [f"{row.method} ({row.library})" for row in (*rows, *few) if row.missed or "failure" in row.extra]
    chapter.claim(
        f"Every method reached the tolerance of {IN_WORDS}{': not ' + ', '.join(missed) if missed else ''}.",
        not missed,
    )
    chapter.headline = f"{_verdict(rows)}, {_verdict(few, brief=True)}"
    chapter.numbers = {"rows": [row.to_json() for row in (*rows, *few)]}


def _compare(bench: Bench, problem: Problem) -> list[Row]:
    contenders: list[Contender] = [
        own(problem, name, replace(solver, rtol=TOLERANCE)) for name, solver in SOLVERS.items()
    ]
    contenders += [scipy_cg(problem, TOLERANCE), scipy_direct(problem)]
    contenders += [pyamg_cg(problem, method, TOLERANCE) for method in (RUGE_STUBEN, SMOOTHED_AGGREGATION)]
    n = problem.operator.space[0]
    return bench.compare(
        f"Poisson {n}x{n}",
        contenders,
        unknowns=problem.unknowns,
        residual=problem.relative_residual,
        tolerance=TOLERANCE,
    )


def _show(chapter: Chapter, rows: Sequence[Row], problem: Problem) -> None:
    """The table of a problem, the quickest method first."""
    ordered = sorted(rows, key=lambda row: row.total_seconds or float("inf"))
    own_row = next(row for row in rows if row.method == MULTIGRID_CG)
    table = []
    for row in ordered:
        total, reference = row.total_seconds, own_row.total_seconds
        table.append(
            [
                row.method,
                f"{row.library} {row.version}",
                seconds(row.setup_seconds),
                seconds(row.solve_seconds),
                seconds(total),
                seconds(row.extra.get("total_median")),
                "" if total is None or reference is None else f"{total / reference:.2f}",
                "" if row.iterations is None else str(row.iterations),
                "" if row.relative_residual is None else f"{row.relative_residual:.1e}",
                row.extra.get("failure") or ("noisy" if _noisy(row, rows) else ""),
            ]
        )
    heads = [
        "method",
        "library",
        "setup",
        "solve",
        "both",
        "median",
        "ratio",
        "iterations",
        "residual",
        "remark",
    ]
    used = [column for column in range(len(heads)) if any(line[column] for line in table)]
    repeats = min(row.extra.get("repeats", 0) for row in rows)
    chapter.table(
        [heads[column] for column in used],
        [[line[column] for column in used] for line in table],
        f"{problem.unknowns:,} unknowns; the least of {_count(repeats)} of each method, quickest first; median: of "
        f"setup and solve; ratio: both over those of {MULTIGRID_CG}. Methods of `sciml` are bold. "
        + ("Noisy: the machine was busy with something else too. " if any(_noisy(row, rows) for row in rows) else "")
        + _sentence(_verdict(rows)),
        strong=[index for index, row in enumerate(ordered) if row.library == "sciml"],
    )


def _threads() -> str:
    return "one thread" if torch.get_num_threads() == 1 else f"{torch.get_num_threads()} threads"


def _count(runs: int) -> str:
    return "one run" if runs == 1 else f"{runs} runs"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _noisy(row: Row, rows: Sequence[Row]) -> bool:
    """Whether the copies around a method's runs were much slower than the quickest around any."""
    copies = [each.extra["copy_seconds"] for each in rows if "copy_seconds" in each.extra]
    return row.extra.get("copy_seconds", 0.0) > 1.5 * min(copies)


def _verdict(rows: Sequence[Row], brief: bool = False) -> str:
    """In a sentence without its full stop, who was quickest and where multigrid-CG stands, read off the rows."""
    times = {id(row): row.total_seconds for row in rows if row.total_seconds is not None and not row.missed}
    ordered = sorted((row for row in rows if id(row) in times), key=lambda row: times[id(row)])
    own_row = next(row for row in rows if row.method == MULTIGRID_CG)
    size = f"on {own_row.unknowns:,} unknowns"
    if not ordered:
        return f"{size} no method finished"
    first = ordered[0]
    if first is own_row:
        other = next((row for row in ordered if row.library != "sciml"), None)
        if other is None:
            return f"{size} {MULTIGRID_CG} is quickest, no other finished"
        ratio = times[id(other)] / times[id(own_row)]
        return f"{size} {MULTIGRID_CG} is quickest, {ratio:.1f} times as quick as {other.method} of {other.library}"
    words = f"{size} {first.method} of {first.library} is quickest"
    if own_row not in ordered:
        return f"{words}; {MULTIGRID_CG} missed the tolerance"
    ratio = times[id(own_row)] / times[id(first)]
    place = ordered.index(own_row) + 1
    return words if brief else f"{words}; {MULTIGRID_CG} is number {place} and takes {ratio:.1f} times as long"


def _histories(problem: Problem) -> dict[tuple[str, str], Tensor]:
    """Relative residual norms by method and library, iteration by iteration, in runs of their own that nobody times."""
    import pyamg

    matrix, b = problem.matrix, problem.right_side
    found = {}
    for name, solver in SOLVERS.items():
        if not isinstance(solver, Direct):
            history = replace(solver, rtol=TOLERANCE).solve(problem.operator, problem.b).history["residual_norm"]
            found[name, "sciml"] = history / history[0]
    norms = [numpy.linalg.norm(b)]
    cg(matrix, b, rtol=TOLERANCE, atol=0.0, callback=lambda x: norms.append(numpy.linalg.norm(b - matrix @ x)))
    found[SCIPY_CG, "scipy"] = torch.tensor(numpy.array(norms) / norms[0])
    makers = {RUGE_STUBEN: pyamg.ruge_stuben_solver, SMOOTHED_AGGREGATION: pyamg.smoothed_aggregation_solver}
    for name, make in makers.items():
        norms = []
        make(matrix).solve(b, tol=TOLERANCE, maxiter=500, accel="cg", residuals=norms)
        found[name, "pyamg"] = torch.tensor(numpy.array(norms) / norms[0])
    return found


def _by_iterations(histories: Mapping[tuple[str, str], Tensor]) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 4.2)
        for index, ((name, library), norms) in enumerate(histories.items()):
            axes.loglog(range(1, len(norms)), norms[1:], **_line(index, library), label=f"{name} ({library})")
        axes.set_xlabel("iteration")
        axes.set_ylabel("residual |b - A x| / |b|")
        figure.legend(loc="outside lower center", ncols=2, fontsize=7.5)
        figures.tidy(axes)
        return figure


def _by_seconds(histories: Mapping[tuple[str, str], Tensor], rows: Sequence[Row]) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 4.2)
        for row in rows:
            key, total = (row.method, row.library), row.total_seconds
            if total is None:
                continue
            if key in histories:
                norms = histories[key]
                begin = row.setup_seconds or 0.0
                times = begin + (total - begin) * torch.arange(1, len(norms)) / (len(norms) - 1)
                label = f"{row.method} ({row.library})"
                axes.loglog(times, norms[1:], **_line(list(histories).index(key), row.library), label=label)
            elif row.relative_residual:
                label = f"{row.method} ({row.library})"
                mark = "x" if row.library == "sciml" else "+"
                axes.plot(total, row.relative_residual, mark, color=figures.INK, markersize=7, label=label)
        axes.set_xlabel("seconds, setup included")
        axes.set_ylabel("residual |b - A x| / |b|")
        figure.legend(loc="outside lower center", ncols=2, fontsize=7.5)
        figures.tidy(axes)
        return figure


def _line(index: int, library: str) -> dict[str, Any]:
    return {"color": figures.LINES[index], "linestyle": "-" if library == "sciml" else (0, (4, 1.5)), "linewidth": 1.5}


SECTION = Section("comparison", "The solvers compared", write, needs=("pyamg",))
