"""Constraints that leave a mean open, of right sides that have one: refused at first, NaN in the row later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sciml
from sciml.equations import Equation, catalogue
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.spectral import discretize_spectral
from sciml.status import Status

Rings = Callable[..., Grid]


def largest(difference: Tensor) -> float:
    return float(difference.abs().max())


def test_a_row_whose_forcing_has_a_mean_fails(ring: Rings, tmp_path: Path) -> None:
    """The other decays as it would alone, and the run can be saved."""
    grid = ring(16, 16)
    x, y = grid.coordinates
    equation = catalogue.get("navier_stokes", nu=0.05).equation
    w = torch.cos(x) * torch.cos(y)
    mean = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1)
    solution = sciml.evolve(equation, grid, initial=w, times=[0.0, 1.0], fields={"f": mean}, throw=False)
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    assert float(solution.statistics["failed_at"][1]) < 1e-3
    assert "moves means" in solution.notes[1]
    decay = float(torch.exp(torch.tensor(-0.1, dtype=torch.float64)))
    assert largest(solution.value[0, -1] - decay * w) < 1e-6
    psi = solution.fields["psi"]
    assert largest(psi[0, -1] - 0.5 * decay * w) < 1e-6 and bool(torch.isnan(psi[1, -1]).all())
    solution.save(tmp_path / "run.h5")
    loaded = sciml.Solution.load(tmp_path / "run.h5")
    assert torch.equal(loaded.value[0], solution.value[0])


def test_decaying_flow_in_float32(ring: Rings) -> None:
    """Down to 1e-9 of its beginning, from a state whose mean is 1e-8 by rounding, which does not decay."""
    grid = ring(16, 16, dtype=torch.float32)
    x, y = grid.coordinates
    w = (torch.cos(x) * torch.cos(y)).float() + 3e-8
    solution = sciml.evolve(
        catalogue.get("navier_stokes", nu=1.0).equation, grid, initial=w, times=[0.0, 10.0], fields={"f": 0.0}
    )
    assert largest(solution.value[-1] / torch.exp(torch.tensor(-20.0)) - (w - 3e-8)) < 1e-3


@pytest.mark.parametrize("tracked", [False, True])
def test_products_in_a_constraint(ring: Rings, tracked: bool) -> None:
    """laplacian(p) = u**2 - v0, at v0 equal to the mean square of u and beside it, by kernels and by torch."""
    grid = ring(12, 12)
    x, y = grid.coordinates
    u = torch.stack([torch.sin(x), torch.sin(x) + torch.cos(y), 2 * torch.sin(x + y)])
    fits = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64).reshape(3, 1, 1)
    equation = Equation("u_t = -p_x", constraints=["laplacian(p) = u**2 - v0"], unknowns=("u",))
    system = discretize_spectral(equation, grid, {"v0": fits}, {})
    system.hold(u, 0.0)
    assert largest(system.constrained(u, 0.0)["p"][0] - torch.cos(2 * x) / 8) < 1e-14
    off = discretize_spectral(equation, grid, {"v0": fits + torch.tensor([0.0, 0.1, 0.0]).reshape(3, 1, 1)}, {})
    with pytest.raises(InputError, match=r"constraint on p: .*mean of the right side must be zero"):
        off.hold(u, 0.0)
    with torch.set_grad_enabled(tracked):
        for one, good in ((system, [True, True, True]), (off, [True, False, True])):
            y0 = one.encode(u)
            slope = one.slope(y0.requires_grad_() if tracked else y0, 0.0)
            assert torch.isfinite(slope).flatten(1).all(1).tolist() == good
            assert largest(slope[0].detach() - system.encode(torch.sin(2 * x) / 4)) < 1e-14


def test_a_pressure_that_begins_to_fail(ring: Rings) -> None:
    """From rest the square of u has no mean, until the forcing has moved it; the kernels serve such products."""
    grid = ring(16, 16)
    equation = Equation("u_t = laplacian(u) - p_x + f", constraints=["laplacian(p) = u**2"], unknowns=("u",))
    fields = {"f": lambda x, y: torch.sin(x + 2 * y)}
    assert discretize_spectral(equation, grid, fields, {}).fast
    solution = sciml.evolve(equation, grid, initial=0.0, times=[0.0, 1.0], fields=fields, throw=False)
    assert solution.status == (Status.NON_FINITE,)


def test_layers_watch_nothing_that_cannot_change(ring: Rings) -> None:
    """Means of two layers that balance each other stay so whatever the couplings, and cost nothing to watch."""
    for first, second in ((1.0, 1.0), (1.2345, 0.777)):
        equation = catalogue.get("quasi_geostrophic", F1=first, F2=second).equation
        system = discretize_spectral(equation, ring(12, 12), {}, {})
        assert system.rates.watched is None
        x, y = system.domain.coordinates
        q = torch.stack([torch.sin(x + y) + first, torch.cos(x) - second])
        rate = system.rate(system.hold(q, 0.0), 0.0)
        assert bool(torch.isfinite(rate).all())
        means = rate.mean((-1, -2))
        assert abs(float(second * means[0] + first * means[1])) < 1e-15
    forced = catalogue.get("navier_stokes").equation
    assert (
        discretize_spectral(forced, ring(8, 8), {"f": lambda x, y: torch.sin(3 * x) + y.cos()}, {}).rates.watched
        is None
    )
    assert discretize_spectral(forced, ring(8, 8), {"f": 1.0}, {}).rates.watched is not None
