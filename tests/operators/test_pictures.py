"""Pictures of evaluations: that they show the numbers of the report, each on the scale that is claimed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sciml import Grid, InputError
from sciml.operators.pictures import draw_cases, draw_rollout, draw_spectra
from sciml.operators.report import Case, Report, Rollout
from sciml.operators.spectrum import Spectrum

GRID = Grid((6, 5))
GENERATOR = torch.Generator().manual_seed(0)
TRUTH, ANSWER, GIVEN = (torch.randn(2, 6, 5, dtype=torch.float64, generator=GENERATOR) for _ in range(3))
ERRORS = torch.rand(7, 4, dtype=torch.float64, generator=GENERATOR) + 0.1


def report(grid: Grid = GRID) -> Report:
    cases = tuple(
        Case(title, i, None, 0.1, {"a": GIVEN[i], "nu": torch.tensor(0.1)}, {"u": TRUTH[i]}, {"u": ANSWER[i]})
        for i, title in enumerate(("worst", "median"))
    )
    waves = torch.arange(5, dtype=torch.float64)
    spectrum = Spectrum(waves, 10.0**-waves, 0.1 * 4.0**-waves, 4.0, "sines along x, sines along y")
    rollout = Rollout(torch.arange(1.0, 5.0), {"u": ERRORS}, {"u": 2 * ERRORS})
    return Report({}, {}, grid, {}, (), {"u": spectrum}, rollout, cases, None, ())


def test_cases_show_truth_and_prediction_on_one_scale_and_the_error_on_its_own():
    axes = [item for item in draw_cases(report()).axes if item.images]
    shown = [np.asarray(item.images[0].get_array()).T for item in axes]
    for row in (0, 1):
        expected = (GIVEN[row], TRUTH[row], ANSWER[row], ANSWER[row] - TRUTH[row])
        for image, values in zip(shown[4 * row : 4 * row + 4], expected, strict=True):
            np.testing.assert_allclose(image, values)
        limits = [item.images[0].get_clim() for item in axes[4 * row : 4 * row + 4]]
        assert limits[1] == limits[2]
        largest = float((ANSWER[row] - TRUTH[row]).abs().max())
        assert limits[3] == pytest.approx((-largest, largest))
    assert axes[0].get_ylabel().startswith("worst, sample 0")
    assert axes[4].get_ylabel().startswith("median, sample 1")


def test_cases_of_one_dimension_are_lines():
    made = report(Grid(6))
    cut = tuple(
        replace(case, inputs={"a": GIVEN[i, :, 0]}, truth={"u": TRUTH[i, :, 0]}, prediction={"u": ANSWER[i, :, 0]})
        for i, case in enumerate(made.cases)
    )
    axes = draw_cases(replace(made, cases=cut)).axes
    np.testing.assert_allclose(axes[4].lines[0].get_ydata(), TRUTH[1, :, 0])
    np.testing.assert_allclose(axes[4].lines[1].get_ydata(), ANSWER[1, :, 0])
    np.testing.assert_allclose(axes[5].lines[-1].get_ydata(), ANSWER[1, :, 0] - TRUTH[1, :, 0])


def test_spectra_are_drawn_without_the_mean_and_up_to_what_is_resolved():
    spectrum = report().spectra["u"]
    axes = draw_spectra(report()).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), spectrum.truth[1:])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), spectrum.error[1:])
    assert spectrum.lost == 3.0  # 0.1 * 4**-k >= 10**-k from k = ln 10 / ln 2.5 = 2.51 on
    assert list(axes.lines[2].get_xdata()) == [3.0, 3.0]


def test_rollouts_show_the_median_of_what_is_finite():
    made = report()
    assert made.rollout is not None
    errors = ERRORS.clone()
    errors[2, 2:] = math.inf
    axes = draw_rollout(replace(made, rollout=replace(made.rollout, errors={"u": errors}))).axes[0]
    np.testing.assert_allclose(
        axes.lines[0].get_ydata(), np.nanquantile(errors.where(errors < math.inf, math.nan), 0.5, 0)
    )
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 2 * ERRORS.median(0).values)
    assert "1 of 7 samples not finite to the end" in axes.get_title(loc="left")


def test_nothing_to_draw():
    empty = replace(report(), cases=(), spectra={}, rollout=None)
    for draw in (draw_cases, draw_spectra, draw_rollout):
        with pytest.raises(InputError, match="there is nothing to draw"):
            draw(empty)
