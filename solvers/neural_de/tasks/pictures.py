"""How a model became easy to solve, and what that cost, as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sciml.files import target, write_whole
from sciml.pictures import FORMATS, LINES, STYLE

if TYPE_CHECKING:
    from .task import Result


def draw(result: Result) -> Figure:
    """A figure of the evaluations of the right-hand side that a prediction takes, and of how good it is, over the steps
    of the training."""
    problem, found = result.task.problem, result.training.validations
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True)
        marker = "o" if len(found["step"]) <= 40 else ""
        upper.plot(found["step"], found["evaluations"], color=LINES[0], marker=marker, markersize=3)
        upper.set_ylim(bottom=0)
        upper.set_ylabel("evaluations for a prediction")
        upper.set_title(f"{result.task.name}: {result.task.regularization}", loc="left", wrap=True)
        share = problem.headline == "accuracy"
        values = 100 * found[problem.headline] if share else found[problem.headline]
        lower.plot(found["step"], values, color=LINES[1], marker=marker, markersize=3)
        if not share and bool((values > 0).all()):
            lower.set_yscale("log")
        lower.set_ylabel(f"{problem.headline}{' (%)' if share else ''} over the test")
        lower.set_xlabel("optimizer step")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (upper, lower):
            axes.grid(True, which="major", alpha=0.25, linewidth=0.5)
    return figure


def save(result: Result, path: Path) -> None:
    """Draw it into a file.

    Raises:
        InputError: the ending is none of .png, .pdf and .svg, or the folder does not exist.
    """
    final = target(path, FORMATS)
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        draw(result).savefig(buffer, format=final.suffix[1:].lower())
    write_whole(final, buffer.getvalue())
