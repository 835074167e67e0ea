"""Pictures of what the evaluation of an operator found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from torch import Tensor

from sciml.errors import InputError
from sciml.grid import Grid
from sciml.pictures import LINES, SOLID, STYLE, colour_scale, draw_bar, make_figure, tidy

from .report import Case, Report, Rollout, percent
from .spectrum import Spectrum

_MOST_INPUTS = 3
_DECADES = 12  # of energy below the largest that are worth showing
_LOWEST = 0.85  # inches that the words beside a row take


def draw_cases(report: Report) -> Figure:
    """The worst samples and the median one, in a row each: inputs, truth, prediction on the scale of the truth, error
    on a scale of its own. Of one dimension lines, of three the plane through the middle of the last axis.

    Raises:
        InputError: no answer was finite.
    """
    if not report.cases:
        raise InputError("there is nothing to draw: no answer of the operator is finite")
    with matplotlib.rc_context(STYLE):
        return (_draw_lines if report.grid.dimension == 1 else _draw_maps)(report.grid, report.cases)


def draw_spectra(report: Report) -> Figure:
    """Energy of truth and error over the wavenumber, a panel for every output.

    Raises:
        InputError: no answer was finite, or there is one wavenumber only.
    """
    spectra = {name: item for name, item in report.spectra.items() if len(item.wavenumbers) > 1}
    if not spectra:
        raise InputError("there is nothing to draw: there are no energies of more than one wavenumber")
    with matplotlib.rc_context(STYLE):
        figure = make_figure(1.0 + 4.4 * len(spectra), 3.6)
        for axes, (name, spectrum) in zip(
            figure.subplots(1, len(spectra), squeeze=False)[0], spectra.items(), strict=True
        ):
            _draw_spectrum(axes, name, spectrum)
        return figure


def draw_rollout(report: Report) -> Figure:
    """Error against time of an operator that goes on from its own answers, a panel for every output: median, the
    middle nine tenths of the samples, and the error of the first state standing still.

    Raises:
        InputError: there is no rollout.
    """
    rollout = report.rollout
    if rollout is None:
        raise InputError("there is nothing to draw: the operator does not go on from its own answers")
    with matplotlib.rc_context(STYLE):
        figure = make_figure(1.0 + 4.4 * len(rollout.errors), 3.4)
        for axes, name in zip(figure.subplots(1, len(rollout.errors), squeeze=False)[0], rollout.errors, strict=True):
            _draw_rollout(axes, name, rollout)
        return figure


def _draw_lines(grid: Grid, cases: Sequence[Case]) -> Figure:
    inputs = _shown_inputs(cases[0], grid)
    outputs = _components(cases[0].truth, grid)
    panels = len(inputs) + 2 * len(outputs)
    figure = make_figure(0.8 + 3.3 * panels, 2.75 * len(cases) + 0.2)
    places = grid.axis_coordinates[0].cpu()
    for axes_row, case in zip(figure.subplots(len(cases), panels, squeeze=False), cases, strict=True):
        remaining = iter(axes_row)
        given, truth, answer = (_components(part, grid) for part in (case.inputs, case.truth, case.prediction))
        for name in inputs:
            axes = next(remaining)
            axes.plot(places, given[name], color=LINES[6])
            axes.set_title(f"input {name}", loc="left")
        for name in outputs:
            axes = next(remaining)
            axes.plot(places, truth[name], color=LINES[0], label="truth")
            axes.plot(places, answer[name], color=LINES[1], linestyle=(0, (4, 2)), label="prediction")
            axes.set_title(f"{name}{_when(case)}", loc="left")
            axes.legend(loc="best")
            axes = next(remaining)
            axes.axhline(0.0, color=SOLID, linewidth=0.8)
            axes.plot(places, answer[name] - truth[name], color=LINES[1])
            axes.set_title("error", loc="left")
        for axes in axes_row:
            axes.set_xlim(grid.lower[0], grid.upper[0])
            axes.set_xlabel(grid.axes[0])
            axes.yaxis.set_major_locator(MaxNLocator(5))
            tidy(axes)
        axes_row[0].set_ylabel(_title(case), labelpad=8)
    return figure


def _draw_maps(grid: Grid, cases: Sequence[Case]) -> Figure:
    extent = [high - low for low, high in zip(grid.lower[:2], grid.upper[:2], strict=True)]
    true = 1 / 6 <= extent[1] / extent[0] <= 6
    upwards = (extent[1] / extent[0] if true else 0.6) * (
        across := min(2.3, 2.3 * extent[0] / extent[1]) if true else 2.3
    )
    rows = [(case, name, index == 0) for case in cases for index, name in enumerate(_components(case.truth, grid))]
    inputs = _shown_inputs(cases[0], grid)
    columns = len(inputs) + 3
    figure = make_figure((across + 1.0) * columns, (max(upwards, _LOWEST) + 0.55) * len(rows) + 0.2)
    width = 0.11 / across
    for axes_row, (case, name, first) in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        given, truth, answer = (_components(part, grid) for part in (case.inputs, case.truth, case.prediction))
        panels = [(f"input {title}", given[title], colour_scale(given[title], title)) for title in inputs]
        scale = colour_scale(truth[name], name)
        error = answer[name] - truth[name]
        panels += [
            (f"truth {name}{_when(case)}", truth[name], scale),
            ("prediction", answer[name], scale),
            ("error", error, _error_scale(error)),
        ]
        for number, (axes, (title, values, colours)) in enumerate(zip(axes_row, panels, strict=True)):
            if number < len(inputs) and not first:
                axes.set_axis_off()
                continue
            image = axes.imshow(
                values.T.numpy(),
                origin="lower",
                extent=(grid.lower[0], grid.upper[0], grid.lower[1], grid.upper[1]),
                aspect="equal" if true else "auto",
                norm=colours[0],
                cmap=colours[1],
                interpolation="nearest",
            )
            axes.spines[["top", "right"]].set_visible(True)
            axes.set_facecolor(SOLID)
            axes.set_title(title, loc="left")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(3))
            axes.set_xlabel(grid.axes[0])
            draw_bar(axes, image, "", width)
        axes_row[0 if first else len(inputs)].set_ylabel(f"{_title(case) if first else name}\n\n{grid.axes[1]}")
    return figure


def _draw_spectrum(axes: Axes, name: str, spectrum: Spectrum) -> None:
    inside = (spectrum.wavenumbers <= spectrum.resolved) & (spectrum.wavenumbers > 0)
    places = spectrum.wavenumbers[inside]
    for values, colour, label in (
        (spectrum.truth, LINES[0], f"{name}, truth"),
        (spectrum.error, LINES[1], "error of the prediction"),
    ):
        shown = values[inside]
        marker = "o" if len(shown) <= 12 else ""
        axes.loglog(places, shown.where(shown > 0, math.nan), color=colour, marker=marker, markersize=3, label=label)
    largest = max(float(spectrum.truth[inside].max()), float(spectrum.error[inside].max()))
    least = float(torch.minimum(spectrum.truth, spectrum.error)[inside].min())
    if largest > 0:
        axes.set_ylim(max(least / 3, largest * 10.0**-_DECADES), 3 * largest)
    if spectrum.lost is not None:
        axes.axvline(spectrum.lost, color=SOLID, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
        # Both curves fall to the right, so that there is room beside the upper end of the line.
        right = spectrum.lost < 0.5 * spectrum.resolved
        axes.annotate(
            "error as large as the field",
            (spectrum.lost, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4 if right else -4, -3),
            textcoords="offset points",
            rotation=0 if right else 90,
            ha="left" if right else "right",
            va="top",
            fontsize=7.5,
            color="#707070",
        )
    axes.set_xlabel("wavenumber |k|, radians per unit of length")
    axes.set_ylabel("mean square")
    axes.set_title(spectrum.basis, loc="left")
    tidy(axes)
    axes.legend(loc="lower left")


def _draw_rollout(axes: Axes, name: str, rollout: Rollout) -> None:
    errors = rollout.errors[name]
    finite = torch.isfinite(errors)
    shown = errors.where(finite, math.nan)
    times = rollout.times
    low, middle, high = (torch.nanquantile(shown, q, 0) for q in (0.05, 0.5, 0.95))
    marker = "o" if len(times) <= 25 else ""
    axes.fill_between(times, low, high, color=LINES[1], alpha=0.2, linewidth=0, label="nine tenths of the samples")
    axes.plot(times, middle, color=LINES[1], marker=marker, markersize=3, label="median")
    axes.plot(
        times,
        rollout.standing[name].median(0).values,
        color=LINES[6],
        linestyle=(0, (4, 2)),
        linewidth=1.0,
        label="the first state, unchanged",
    )
    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    if highest < 10 * lowest:
        axes.yaxis.set_major_formatter("{x:.2g}")
        axes.yaxis.set_minor_formatter("{x:.2g}")
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time")
    axes.set_ylabel(f"relative L2 error of {name}")
    lost = int((~finite).any(1).sum())
    axes.set_title(
        "from its own answers" + (f"; {lost} of {len(errors)} samples not finite to the end" if lost else ""),
        loc="left",
    )
    tidy(axes)
    axes.legend(loc="best")


def _components(values: Mapping[str, Tensor], grid: Grid) -> dict[str, Tensor]:
    """Scalar fields by name, of three dimensions the plane in the middle of the last axis; numbers are left out."""
    found: dict[str, Tensor] = {}
    for name, value in values.items():
        if value.dim() < grid.dimension:
            continue
        space = value.reshape(-1, *grid.shape).double()
        planes = space if grid.dimension < 3 else space.select(-1, grid.shape[2] // 2)
        axes = grid.axes if len(planes) == grid.dimension else [str(i + 1) for i in range(len(planes))]
        ends = [""] if len(planes) == 1 else [f"_{axis}" for axis in axes]
        found.update({f"{name}{end}": plane for end, plane in zip(ends, planes, strict=True)})
    return found


def _shown_inputs(case: Case, grid: Grid) -> list[str]:
    return list(_components(case.inputs, grid))[:_MOST_INPUTS]


def _error_scale(error: Tensor) -> tuple[Normalize, str]:
    largest = float(error.abs().max()) or 1.0
    return Normalize(-largest, largest), "RdBu_r"


def _title(case: Case) -> str:
    return f"{case.title}, sample {case.sample}\nL2 {percent(case.error)} %"


def _when(case: Case) -> str:
    return "" if case.time is None else f" at time {case.time:g}"
