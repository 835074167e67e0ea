"""Distributions that are not Gaussian fields: their laws, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from sciml.boundary import Neumann
from sciml.datasets import (
    Constant,
    Formula,
    GaussianField,
    InversePower,
    LogUniform,
    Threshold,
    TrigonometricMultiscale,
    Uniform,
)
from sciml.datasets.distributions import seed_of
from sciml.errors import InputError
from sciml.grid import Grid

SQUARE = Grid((12, 16), boundary=Neumann())
FIELD = GaussianField(InversePower(2.0, 3.0))


def test_seeds_tell_everything_apart() -> None:
    given = [(s, split, i, name) for s in (0, 1) for split in ("train", "test") for i in (1, 11) for name in ("a", "1")]
    assert len({seed_of(*names) for names in given}) == len(given)
    assert seed_of("a", 1) != seed_of("a1")


def test_two_values_where_another_field_is_above_a_level() -> None:
    values, field = Threshold(FIELD, 12.0, 3.0, level=0.1).sample(SQUARE, range(50)), FIELD.sample(SQUARE, range(50))
    assert torch.equal(values, torch.where(field > 0.1, 12.0, 3.0).to(values))
    share = float((values == 12).double().mean())
    # By symmetry half of a field without mean is positive; above 0.1 it is a little less.
    assert 0.2 < share < 0.5


@pytest.mark.parametrize(
    ("distribution", "law"),
    [(Uniform(-1.0, 3.0), stats.uniform(-1, 4)), (LogUniform(1e-3, 1e2), stats.loguniform(1e-3, 1e2))],
)
def test_numbers_follow_their_law(distribution: Uniform | LogUniform, law: Any) -> None:
    numbers = distribution.draw(range(2000))
    assert stats.kstest(numbers.numpy(), law.cdf).pvalue > 1e-3
    fields = distribution.sample(SQUARE, range(3))
    assert torch.equal(fields, numbers[:3, None, None].expand(3, 12, 16))


def test_an_exponential_is_lognormal() -> None:
    """Its mean is exp(variance/2)."""
    draws = Formula("exp(g)", {"g": FIELD}).sample(SQUARE, range(4000))
    variance = FIELD.variance(SQUARE)
    mean, deviation = torch.exp(variance / 2), torch.exp(variance / 2) * torch.sqrt(torch.exp(variance) - 1)
    assert bool(((draws.mean(0) - mean).abs() <= 5 * deviation / math.sqrt(4000)).all())


def test_a_formula_draws_its_parts_independently() -> None:
    one, other = FIELD, Uniform(1.0, 2.0)
    drawn = Formula("x*k + g*h", {"g": one, "h": one, "k": other}).sample(SQUARE, [7, 8])
    seeds = {name: [seed_of(seed, name) for seed in (7, 8)] for name in "ghk"}
    g, h = one.sample(SQUARE, seeds["g"]), one.sample(SQUARE, seeds["h"])
    k = other.draw(seeds["k"])[:, None, None]
    torch.testing.assert_close(drawn, SQUARE.coordinates[0] * k + g * h)
    assert abs(float((g * h).mean() / (g.std() * h.std()))) < 0.9
    assert Formula("1 + x").random is False
    assert torch.equal(Formula("1").sample(SQUARE, [0]), torch.ones(1, 12, 16, dtype=torch.float64))


def test_the_multiscale_coefficient_is_the_product() -> None:
    found = TrigonometricMultiscale(3).sample(SQUARE, [5])[0].numpy()
    c = np.pi * 2.0 ** np.arange(3) * (1 + 0.5 * np.random.default_rng(5).random(3))
    x, y = (axis.numpy() for axis in SQUARE.coordinates)
    expected = np.prod([(1 + np.cos(k * (x + y)) / 2) * (1 + np.sin(k * (y - 3 * x)) / 2) for k in c], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.min() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(math.inf), "finite number"),
        (lambda: Uniform(2.0, 1.0), "lower must be less than upper"),
        (lambda: LogUniform(0.0, 1.0), "lower must be positive"),
        (lambda: Threshold(FIELD, math.nan, 1.0), "above must be finite"),
        (lambda: Formula("1 + g", {"h": FIELD}), "unknown name 'g'|'h' does not occur"),
        (lambda: Formula("x", {"x": FIELD}), "is a coordinate"),
        (lambda: Formula("z").sample(SQUARE, [0]), "names z, and the grid has the axes x, y"),
        (lambda: Formula("log(x - 2)").sample(SQUARE, [0]), "not finite everywhere"),
        (lambda: Formula("__import__('os')"), "__import__"),
        (lambda: TrigonometricMultiscale(0), "between 1 and 30"),
        (lambda: TrigonometricMultiscale().check(Grid(8)), "on two axes, and the grid has 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
