"""The curves of a training as a picture."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from ..files import target, write_whole
from ..pictures import FORMATS, LINES, STYLE
from .result import Training

_POINTS = 400


def draw(training: Training) -> Figure:
    """A figure of the losses over the steps, and of the learning rate below.

    The axis of the losses is logarithmic unless one of them is 0 or negative.
    The training loss is drawn step by step in pale, and as a running mean; the validation loss as points.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        step, loss = training.history["step"], training.history["loss"]
        kept = torch.isfinite(loss)
        step, loss = step[kept], loss[kept]
        at, value = (training.validations.get(name, torch.empty(0)) for name in ("step", "loss"))
        kept = torch.isfinite(value)
        at, value = at[kept], value[kept]
        if len(step):
            window = max(len(step) // 100, 1)
            if window > 1:
                upper.plot(*_thinned(step, loss), color=LINES[0], alpha=0.25, linewidth=0.7)
            smooth = _running_mean(loss, window)
            label = "training" if window == 1 else f"training, mean of {window} steps"
            upper.plot(*_thinned(step[window - 1 :], smooth), color=LINES[0], label=label)
        if len(value):
            marker = "o" if len(value) <= 40 else ""
            upper.plot(at, value, color=LINES[1], marker=marker, markersize=3, label="validation")
        if (torch.cat([loss, value]) > 0).all():
            _logarithmic(upper)
        upper.set_ylabel("loss")
        upper.grid(True, which="major", alpha=0.25, linewidth=0.5)
        if upper.get_legend_handles_labels()[0]:
            upper.legend(loc="upper right")
        lower.plot(*_thinned(training.history["step"], training.history["rate"]), color=LINES[6], linewidth=1.0)
        lower.set_ylim(bottom=0)
        lower.set_ylabel("learning rate")
        lower.set_xlabel("optimizer step")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        upper.set_title(training.why)
    return figure


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 10 * low:  # less than a decade: its labels would be too few to read
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter("{x:.3g}")
    elif high < 1000 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())


def save(training: Training, path: Path) -> None:
    """Draw the curves into a file.

    Raises:
        InputError: the ending is none of .png, .pdf and .svg, or the folder does not exist.
    """
    final = target(path, FORMATS)
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        draw(training).savefig(buffer, format=final.suffix[1:].lower())
    write_whole(final, buffer.getvalue())


def _running_mean(values: Tensor, window: int) -> Tensor:
    return values.unfold(0, window, 1).mean(1)


def _thinned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """At most twice as many points as can be told apart, the extremes of each stretch kept."""
    if len(x) <= 2 * _POINTS:
        return x, y
    stretch = -(-len(x) // _POINTS)
    places = []
    for start in range(0, len(x), stretch):
        part = y[start : start + stretch]
        places += sorted({start + int(part.argmin()), start + int(part.argmax())})
    chosen = torch.tensor(places)
    return x[chosen], y[chosen]
