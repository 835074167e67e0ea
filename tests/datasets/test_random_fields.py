"""Gaussian fields: covariances in closed form, boundary conditions, the same field on every grid."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import gamma, kv

from sciml.boundary import Dirichlet, Neumann, Periodic
from sciml.datasets import GaussianField, InversePower, Matern, SquaredExponential, random_fields
from sciml.datasets.recipe import load_recipe
from sciml.errors import InputError
from sciml.grid import Grid

HELD, CLOSED = Dirichlet(), Neumann()
SIDES = {
    "periodic": Periodic(),
    "cosine": (CLOSED, CLOSED),
    "sine": (HELD, HELD),
    "sine_quarter": (HELD, CLOSED),
    "cosine_quarter": (CLOSED, HELD),
}


def line(n: int, sides: Any, upper: float = 1.0) -> Grid:
    return Grid(n, 0.0, upper, {"x": sides})


# Of the operator's inverse: its Green's function on (0, 1), at x <= y.
GREEN = {
    "sine": (InversePower(1.0, 0.0, 1.0), lambda x, y: x * (1 - y)),  # the Brownian bridge
    "sine_quarter": (InversePower(1.0, 0.0, 1.0), lambda x, y: x),  # Brownian motion
    "cosine_quarter": (InversePower(1.0, 0.0, 1.0), lambda x, y: 1 - y),
    "cosine": (
        InversePower(1.0, 2.0, 1.0),
        lambda x, y: torch.cosh(2 * x) * torch.cosh(2 * (1 - y)) / (2 * math.sinh(2)),
    ),
    "periodic": (InversePower(1.0, 2.0, 1.0), lambda x, y: torch.cosh(2 * (0.5 - (y - x))) / (4 * math.sinh(1))),
}


def green(kind: str, x: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.meshgrid(x, x, indexing="ij")
    value: torch.Tensor = GREEN[kind][1](torch.minimum(rows, columns), torch.maximum(rows, columns)) + 0 * rows
    return value


@pytest.mark.parametrize("kind", GREEN)
def test_the_stated_variance_converges_to_greens_function(kind: str) -> None:
    """The tail of the series is sum over k > n of about 1/(pi k)**2: the error halves with the spacing."""
    errors = []
    for n in (64, 128, 256):
        grid = line(n, SIDES[kind])
        field = GaussianField(GREEN[kind][0], zero_mean=False)
        errors.append(float((field.variance(grid) - green(kind, grid.coordinates[0]).diagonal()).abs().max()))
    assert errors[-1] < 2e-3
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert 1.8 < errors[1] / errors[2] < 2.2


@pytest.mark.parametrize("kind", GREEN)
def test_the_covariance_of_draws_is_greens_function(kind: str) -> None:
    grid, count = line(32, SIDES[kind]), 4000
    field = GaussianField(GREEN[kind][0], zero_mean=False)
    draws = field.sample(grid, range(count))
    exact = green(kind, grid.coordinates[0])
    bias = 1 / (math.pi**2 * 32)  # of the modes that the grid does not hold
    deviation = ((exact.diagonal()[:, None] * exact.diagonal() + exact**2) / count).sqrt()
    assert bool(((draws.T @ draws / count - exact).abs() <= 5 * deviation + 1.1 * bias).all())
    assert bool((draws.mean(0).abs() <= 5 * (exact.diagonal() / count).sqrt()).all())


@pytest.mark.parametrize("pair", list(itertools.product(("periodic", "sine_quarter"), ("cosine", "sine"))))
def test_the_variance_of_draws_in_two_dimensions_is_the_stated_one(pair: tuple[str, str]) -> None:
    grid = Grid((10, 12), (0.0, 0.0), (1.0, 1.5), dict(zip("xy", (SIDES[kind] for kind in pair), strict=True)))
    field, count = GaussianField(InversePower(2.5, 3.0), mean=0.7), 3000
    draws, exact = field.sample(grid, range(count)), field.variance(grid)
    # A sample variance has the relative standard deviation sqrt(2/count).
    assert bool(((draws - 0.7).square().mean(0) / exact - 1).abs().max() <= 5 * math.sqrt(2 / count))


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_modes_are_the_eigenfunctions(kind: str, n: int) -> None:
    length, offset = 2.5, 0.0 if kind == "periodic" else 0.5
    modes = random_fields.Modes(kind, n, length, offset)  # type: ignore[arg-type]
    x = (np.arange(n) + offset) * length / n
    for place, (wave, values) in enumerate(zip(modes.eigenvalues().sqrt().numpy(), modes.functions(), strict=True)):
        odd = kind in ("sine", "sine_quarter") or (kind == "periodic" and place in (2, 4, 6))
        scale = math.sqrt((1 if wave == 0 else 2) / length)
        if kind == "periodic" and n % 2 == 0 and place == n - 1:
            scale = 0.0  # the grid cannot tell its phase
        np.testing.assert_allclose(values.numpy(), scale * (np.sin if odd else np.cos)(wave * x), atol=1e-13)


@pytest.mark.parametrize("kind", SIDES)
def test_transforms_and_products_with_matrices_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid((9, 14), (0.0, 0.0), (1.0, 2.0), {"x": SIDES[kind], "y": SIDES[kind]})
    field = GaussianField(InversePower(2.0, 3.0))
    by_matrices = field.sample(grid, [1, 2])
    monkeypatch.setattr(random_fields, "_MATRIX", 0)
    torch.testing.assert_close(field.sample(grid, [1, 2]), by_matrices, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", SIDES)
def test_a_seed_gives_the_same_field_on_every_grid(kind: str) -> None:
    """Places of a grid are places of one that is three times as fine."""
    coarse, fine = (
        Grid((n, n), boundary={"x": SIDES[kind], "y": (CLOSED, CLOSED)}, upper=(1.0, 2.0), lower=0.0) for n in (20, 60)
    )
    shared = (slice(None), slice(0 if kind == "periodic" else 1, None, 3), slice(1, None, 3))
    field = GaussianField(InversePower(2.0, 3.0), modes=19)
    torch.testing.assert_close(field.sample(coarse, [5, 6]), field.sample(fine, [5, 6])[shared], rtol=1e-12, atol=1e-13)
    # With all modes they differ by those of the finer grid: in the mean square by the difference of the variances.
    field, seeds = GaussianField(InversePower(2.0, 3.0)), range(200)
    difference = field.sample(coarse, seeds) - field.sample(fine, seeds)[shared]
    expected = float((field.variance(fine)[shared[1:]] - field.variance(coarse)).mean())
    assert float(difference.square().mean()) == pytest.approx(expected, rel=0.1)


def test_a_row_depends_on_its_own_seed_alone() -> None:
    grid, field = Grid((8, 9, 10)), GaussianField(InversePower(2.0, 3.0))
    torch.testing.assert_close(field.sample(grid, [3, 4])[1:], field.sample(grid, [4]), rtol=1e-13, atol=1e-14)


def test_held_sides_are_zero_and_closed_sides_flat() -> None:
    """A field that is odd there, extrapolated linearly to the face, errs by the third power of h, as it has no second
    derivative; a difference between the cells next to a face where it is even is of the order of h."""
    field = GaussianField(SquaredExponential(0.2), zero_mean=False, modes=20)
    at_held, at_closed = [], []
    for n in (100, 200):
        u = field.sample(line(n, SIDES["sine_quarter"]), range(20))
        at_held.append(float((1.5 * u[:, 0] - 0.5 * u[:, 1]).abs().max()))
        at_closed.append(float((u[:, -1] - u[:, -2]).abs().max()) * n)
    assert at_held[1] < 1e-3 < 0.5 < float(u.std())
    assert at_held[0] / at_held[1] == pytest.approx(8, rel=0.05)
    assert at_closed[0] / at_closed[1] == pytest.approx(2, rel=0.05)


def test_the_convention_of_the_darcy_data() -> None:
    """tau**(2 alpha - 2) (pi**2 (k**2 + l**2) + tau**2)**(-alpha) on a closed unit square, without the mean."""
    n = 16
    grid = Grid((n, n), boundary=Neumann())
    k = np.arange(n)
    spectrum = 3.0**2 * (np.pi**2 * (k[:, None] ** 2 + k**2) + 9.0) ** -2.0
    spectrum[0, 0] = 0.0
    cosines = np.cos(np.pi * k[:, None] * (np.arange(n) + 0.5) / n) * np.where(k, np.sqrt(2), 1)[:, None]
    expected = np.einsum("kl,ki,lj->ij", spectrum, cosines**2, cosines**2)
    field = GaussianField(InversePower(2.0, 3.0))
    np.testing.assert_allclose(field.variance(grid).numpy(), expected, rtol=1e-12)
    assert float(field.sample(grid, [1]).mean().abs()) < 1e-15


def test_the_convention_of_the_navier_stokes_data() -> None:
    """Amplitudes sqrt(2) 7**1.5 (4 pi**2 (k**2 + l**2) + 49)**-1.25 of waves of mean square one, without the mean."""
    k = np.arange(-200, 201)
    spectrum = 2 * 7.0**3 * (4 * np.pi**2 * (k[:, None] ** 2 + k**2) + 49.0) ** -2.5
    spectrum[200, 200] = 0.0
    recipe = load_recipe("navier-stokes")
    variance = recipe.initial["w"].variance(recipe.grid)  # type: ignore[attr-defined]
    assert float(variance.mean()) == pytest.approx(spectrum.sum(), rel=1e-3)


def middle_covariance(field: GaussianField, dimension: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances from the middle of a periodic box of side 1 along x, and the exact covariance there."""
    grid = Grid((64,) * dimension, boundary=Periodic())
    modes = random_fields.modes_of(grid, None)
    result = random_fields.variances(modes, field.covariance, False, None)
    for place, axis in enumerate(modes):
        functions = axis.functions()
        values = functions * functions[:, 32:33] if place == 0 else functions[:, 32:33] ** 2
        result = torch.tensordot(result, values, dims=([0], [0]))
    return (grid.axis_coordinates[0] - 0.5).abs(), result.reshape(-1)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_squared_exponential_covariance(dimension: int) -> None:
    distance, found = middle_covariance(GaussianField(SquaredExponential(0.08, 1.5)), dimension)
    torch.testing.assert_close(found, 2.25 * torch.exp(-0.5 * (distance / 0.08) ** 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("smoothness", [2.0, 3.5])
def test_materns_covariance(dimension: int, smoothness: float) -> None:
    """deviation**2 2**(1 - nu)/Gamma(nu) (kappa r)**nu K_nu(kappa r)."""
    distance, found = middle_covariance(GaussianField(Matern(0.06, smoothness, 1.5)), dimension)
    r = math.sqrt(2 * smoothness) / 0.06 * distance.numpy() + 1e-9
    expected = 2.25 * 2 ** (1 - smoothness) / gamma(smoothness) * r**smoothness * kv(smoothness, r)
    np.testing.assert_allclose(found.numpy(), expected, atol=6e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianField(InversePower(1.0, 3.0)).check(Grid((4, 4))), r"alpha = 1 .* 2 dimensions.*alpha > 1"),
        (lambda: GaussianField(InversePower(1.0, 3.0)).sample(Grid((4, 4)), [0]), "no finite sum"),
        (lambda: GaussianField(InversePower(1.5, 3.0)).check(Grid((4, 4, 4))), "alpha > 1.5"),
        (lambda: InversePower(2.0, -3.0), "tau is an inverse length, zero or positive, got -3"),
        (lambda: InversePower(2.0, 0.0), "give sigma"),
        (
            lambda: GaussianField(InversePower(2.0, 0.0, 1.0), zero_mean=False).check(Grid(4, boundary=Neumann())),
            "constant mode infinite variance",
        ),
        (lambda: SquaredExponential(0.0), "length must be a positive number"),
        (lambda: Matern(0.1, math.nan), "smoothness must be a positive number"),
        (lambda: GaussianField(2.0), "covariance is InversePower"),  # type: ignore[arg-type]
        (lambda: GaussianField(InversePower(2.0, 3.0), {"z": HELD}).check(Grid((4, 4))), "unknown axis 'z'"),
    ],
)
def test_what_is_no_covariance_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_threads_draw_the_same_numbers() -> None:
    one, threads = random_fields.normal_numbers((5, 7), range(9)), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(random_fields.normal_numbers((5, 7), range(9)), one)
    finally:
        torch.set_num_threads(threads)
    assert len(torch.unique(one)) == one.numel()
