"""Data that are generated: their laws, and the same ones from the same seed."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from scipy.integrate import solve_ivp

from sciml import InputError
from sciml.solvers.neural_de.tasks.digits import digits
from sciml.solvers.neural_de.tasks.gaussians import gaussians, log_density
from sciml.solvers.neural_de.tasks.spirals import irregular_spirals, spiral, stochastic_spiral


def test_digits_are_those_of_scikit_learn_divided_once(monkeypatch):
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    found = digits()
    assert (len(found.image), len(found.test_image), found.classes) == (1437, 360, 10)
    assert found.image.dtype == torch.float64 and digits(torch.float32).image.dtype == torch.float32
    together = torch.cat([found.image, found.test_image]) * 16
    labelled = torch.cat([together, torch.cat([found.label, found.test_label])[:, None].double()], 1)
    expected = torch.cat([torch.from_numpy(bunch.data), torch.from_numpy(bunch.target)[:, None].double()], 1)
    assert sorted(map(tuple, labelled.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.equal(digits().image, found.image) and not torch.equal(digits(seed=1).image, found.image)
    assert found.label.bincount().min() > 100 and found.test_label.bincount().min() > 20
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"scikit-learn: pip install 'sciml-torch\[demo\]'"):
        digits()


def test_the_spiral_is_that_of_scipy():
    times, value = spiral()
    assert (len(times), float(times[-1])) == (30, 1.5)
    a = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64).numpy()
    peer = solve_ivp(lambda t, u: (u**3) @ a, (0, 1.5), [2.0, 0.0], "DOP853", times.numpy(), rtol=1e-12, atol=1e-13)
    assert (value.T - torch.from_numpy(peer.y)).abs().max() < 1e-9
    assert spiral(dtype=torch.float32)[1].dtype == torch.float32


def test_moments_of_the_stochastic_spiral_have_the_slope_of_ito():
    """d/dt E u = E f(u), and d/dt E u^2 = E(2 u f + gamma^2 u^2): at the start, where u is known."""
    found = stochastic_spiral(41, 0.02, trajectories=20_000, step=1e-4)
    h = float(found.times[1])
    second = found.variance + found.mean.square()
    mean_slope, second_slope = ((values[1] - values[0]) / h for values in (found.mean, second))
    noise = 5 * 0.2 * 2 * math.sqrt(h / 20_000) / h  # five standard deviations of the mean
    assert mean_slope[0] == pytest.approx(-0.1 * 8, abs=noise)
    assert mean_slope[1] == pytest.approx(-2.0 * 8, abs=0.1)
    assert second_slope[0] == pytest.approx(2 * 2 * -0.1 * 8 + 0.04 * 4, abs=4 * noise)
    growth = float(found.variance[-1, 0])
    assert growth == pytest.approx(0.04 * 4 * 0.02, rel=0.1)


def test_without_noise_the_stochastic_spiral_is_the_other_one_reflected():
    _, value = spiral(31)
    found = stochastic_spiral(16, 0.75, gamma=0.0, trajectories=2)
    assert (found.mean * found.mean.new_tensor([1.0, -1.0]) - value[:16]).abs().max() < 1e-6
    assert found.variance.max() < 1e-20


def test_without_drift_the_stochastic_spiral_is_a_geometric_brownian_motion():
    found = stochastic_spiral(3, 1.0, alpha=0.0, beta=0.0, gamma=0.5, trajectories=40_000, step=0.5)
    variance = 4 * (math.exp(0.25) - 1)
    assert float(found.mean[-1, 0]) == pytest.approx(2.0, abs=5 * math.sqrt(variance / 40_000))
    assert float(found.variance[-1, 0]) == pytest.approx(variance, rel=0.05)


def test_shorter_steps_do_not_change_the_moments():
    """By more than the error of the trajectories' number."""
    coarse, fine = (stochastic_spiral(9, trajectories=4000, step=step, seed=1) for step in (2.5e-3, 6.25e-4))
    deviation = (fine.variance / 4000).sqrt()
    assert ((coarse.mean - fine.mean).abs() <= 5 * math.sqrt(2) * deviation + 1e-12).all()


def test_moments_come_from_their_seed():
    first, again, other = (stochastic_spiral(5, trajectories=50, step=0.01, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.mean, again.mean) and not torch.equal(first.mean, other.mean)


def test_irregular_spirals_are_observed_here_and_there():
    found = irregular_spirals(400, 500, 100, noise=0.0, dtype=torch.float64)
    assert found.value.shape == (400, 500, 2) and found.mask.dtype == torch.bool
    assert torch.equal(found.mask[..., 0], found.mask[..., 1])
    assert (found.mask[..., 0].sum(1) == 100).all()
    often = found.mask[..., 0].double().mean(0)
    assert (often - 0.2).abs().max() < 5 * math.sqrt(0.2 * 0.8 / 400)
    assert (found.value[~found.mask] == 0).all()
    radius = found.value.square().sum(-1).sqrt()
    seen = found.mask[..., 0]
    share = found.times / 10
    outwards, inwards = 0.2 + 0.8 * share, 1.0 - 0.8 * share
    for row in range(400):
        own = radius[row][seen[row]]
        errors = [float((own - law[seen[row]]).abs().max()) for law in (outwards, inwards)]
        assert min(errors) < 1e-12 < max(errors)
    noisy = irregular_spirals(400, 500, 100, dtype=torch.float64)
    assert torch.equal(noisy.mask, irregular_spirals(400, 500, 100).mask)
    difference = (
        noisy.value[noisy.mask] - irregular_spirals(400, 500, 100, dtype=torch.float64, noise=0.0).value[noisy.mask]
    )
    assert float(difference.std()) == pytest.approx(0.1, rel=0.02)


def test_series_are_divided_by_their_seed():
    series = irregular_spirals(20, 10, 5)
    first, second = series.halves(0.8, 1)
    assert (len(first), len(second)) == (16, 4)
    rows = torch.cat([first.value, second.value]).flatten(1).tolist()
    assert sorted(rows) == sorted(series.value.flatten(1).tolist())
    assert torch.equal(series.halves(0.8, 1)[0].value, first.value)
    assert not torch.equal(series.halves(0.8, 2)[0].value, first.value)


def test_gaussians_have_the_density_that_is_said():
    points = gaussians(20_000, dtype=torch.float64, radius=2.0)
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    density = log_density(grid, radius=2.0).exp()
    cell = 0.02**2
    assert float(density.sum() * cell) == pytest.approx(1.0, abs=1e-6)
    entropy = -float((density * log_density(grid, radius=2.0)).nan_to_num().sum() * cell)
    assert -float(log_density(points, radius=2.0).mean()) == pytest.approx(entropy, abs=0.03)
    turned = points @ torch.tensor([[0.5, math.sqrt(0.75)], [-math.sqrt(0.75), 0.5]], dtype=torch.float64)
    assert torch.allclose(log_density(turned, radius=2.0), log_density(points, radius=2.0))
    assert torch.equal(gaussians(9, seed=2), gaussians(9, seed=2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spiral(1), "points: at least two times are needed, got 1"),
        (lambda: spiral(end=-1.0), "end is a positive time, got -1.0"),
        (lambda: stochastic_spiral(trajectories=1), "moments need at least two trajectories, got 1"),
        (lambda: stochastic_spiral(step=0.0), "step is a positive time, got 0.0"),
        (lambda: irregular_spirals(3, 10, 11), "observed: between 1 and all 10 points, got 11"),
        (lambda: irregular_spirals(0), "count: at least one spiral is needed, got 0"),
        (lambda: gaussians(0), "count: at least one point is needed, got 0"),
        (lambda: gaussians(5, modes=0), "modes: at least one is needed, got 0"),
        (lambda: gaussians(5, deviation=0.0), "deviation must be positive, got 0.0"),
    ],
)
def test_impossible_data_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
