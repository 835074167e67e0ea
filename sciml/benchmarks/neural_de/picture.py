"""How models become easy to solve while they stay good, as a picture."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from itertools import pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...pictures import LINES, STYLE
from ..row import Row
from .methods import SETTINGS

_STYLES = (("-", "o"), ("--", "s"))
_PARTS = 10  # of a training, whose means are drawn: single validations jump
_BELOW = 6.0  # points of accuracy that are shown below the worst end


def draw(rows: Sequence[Row]) -> Figure | None:
    """A panel a task: how good the model of each method is over the evaluations that a prediction takes, in the course
    of the training of the first seed, in means over its tenths; a dot is its end, of every seed. None without such
    rows.

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
        figure = Figure(figsize=(1.6 + 3.9 * columns, 0.5 + 3.3 * lines), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(cases) :]:
            axes.remove()
        for axes, case in zip(panels, cases, strict=False):
            _draw_task(axes, case, [row for row in shown if row.case == case])
        known = {label: dots for axes in panels for dots, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(known.values(), known.keys(), loc="outside right upper")
    return figure


def _draw_task(axes: Axes, case: str, rows: Sequence[Row]) -> None:
    headline = rows[0].extra["headline"]
    accuracy = headline == "accuracy"
    factor = 100.0 if accuracy else 1.0
    order = list(SETTINGS)
    every = []
    for row in rows:
        place = order.index(row.method)
        colour, (dash, marker) = LINES[place % len(LINES)], _STYLES[place // len(LINES)]
        course = row.extra["seeds"][0]["validations"]
        good = [factor * value for value in _parts(course[headline])]
        axes.plot(_parts(course["evaluations"]), good, dash, color=colour, linewidth=1.0, alpha=0.6)
        ends = [(seed["evaluations"], factor * seed["metrics"][headline]) for seed in row.extra["seeds"]]
        axes.plot(*zip(*ends, strict=True), marker, color=colour, markersize=5, label=row.method)
        every += [value for _, value in ends]
    if accuracy:
        axes.set_ylim(min(every) - _BELOW, min(max(every) + 1.0, 100.0))
    elif min(every) > 0:
        axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_title(case.removeprefix("training, "), loc="left")
    axes.set_xlabel("evaluations for a prediction")
    axes.set_ylabel(f"{headline} over the test" + (" (%)" if accuracy else ""))
    axes.grid(True, alpha=0.25, linewidth=0.5)


def _parts(values: Sequence[float]) -> list[float]:
    """Means over the tenths of a training."""
    count = min(len(values), _PARTS)
    ends = [round(len(values) * part / count) for part in range(count + 1)]
    return [statistics.fmean(values[start:end]) for start, end in pairwise(ends)]


def picture(rows: Sequence[Row]) -> bytes | None:
    """The same as the content of a PNG file."""
    with matplotlib.rc_context(STYLE):
        figure = draw(rows)
        if figure is None:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
