"""How models become easy to solve while they stay good, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...pictures import LINES, STYLE
from ..row import Row

_DASHES = ("-", "--")


def draw(rows: Sequence[Row]) -> Figure | None:
    """A panel a task: how good the model of each method is over the evaluations that a prediction takes, in the course
    of the training of the first seed; a dot is its end, of every seed. None without such rows.

    Args:
        rows: of the suite.
    """
    shown = [row for row in rows if row.extra.get("headline") and row.extra.get("seeds")]
    cases = list(dict.fromkeys(row.case for row in shown))
    if not cases:
        return None
    with matplotlib.rc_context(STYLE):
        columns = min(len(cases), 3)
        lines = -(-len(cases) // columns)
        figure = Figure(figsize=(1.0 + 4.2 * columns, 0.5 + 3.5 * lines), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(cases) :]:
            axes.remove()
        for axes, case in zip(panels, cases, strict=False):
            _draw_task(axes, case, [row for row in shown if row.case == case])
        panels[0].legend(loc="best")
    return figure


def _draw_task(axes: Axes, case: str, rows: Sequence[Row]) -> None:
    headline = rows[0].extra["headline"]
    factor = 100.0 if headline == "accuracy" else 1.0
    lowest = []
    for number, row in enumerate(rows):
        colour, dash = LINES[number % len(LINES)], _DASHES[number // len(LINES) % 2]
        course = row.extra["seeds"][0]["validations"]
        good = [factor * value for value in course[headline]]
        lowest.append(good[len(good) // 3])
        axes.plot(course["evaluations"], good, dash, color=colour, linewidth=1.0, alpha=0.7)
        ends = [(seed["evaluations"], factor * seed["metrics"][headline]) for seed in row.extra["seeds"]]
        axes.plot(*zip(*ends, strict=True), "o", color=colour, markersize=5, label=row.method)
    if headline == "accuracy":
        axes.set_ylim(bottom=min(lowest) - 2.0)  # what is learned first is learned by all
    elif min(min(line.get_ydata()) for line in axes.lines) > 0:
        axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_title(case.removeprefix("training, "), loc="left")
    axes.set_xlabel("evaluations for a prediction")
    axes.set_ylabel(f"{headline} over the test" + (" (%)" if headline == "accuracy" else ""))
    axes.grid(True, alpha=0.25, linewidth=0.5)


def picture(rows: Sequence[Row]) -> bytes | None:
    """The same as the content of a PNG file."""
    with matplotlib.rc_context(STYLE):
        figure = draw(rows)
        if figure is None:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
