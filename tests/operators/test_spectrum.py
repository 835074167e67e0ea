"""Energies by wavenumber: fields that are known functions, Parseval's identity, and scipy's transforms."""

from __future__ import annotations

import math

import pytest
import scipy.fft
import torch

from sciml import Dirichlet, Grid, Neumann, Periodic, Robin
from sciml.operators.spectrum import RadialEnergy, Spectrum

SIDES = {
    "sines": (Dirichlet(0.0), Dirichlet(0.0)),
    "cosines": (Neumann(0.0), Robin(1.0, 0.0)),
    "quarter waves": (Dirichlet(0.0), Neumann(0.0)),
    "mirrored quarter waves": (Dirichlet(1.0), Dirichlet(0.0)),
    "waves": Periodic(),
}


@pytest.mark.parametrize("one", SIDES)
@pytest.mark.parametrize("other", SIDES)
def test_energies_add_up_to_the_mean_square(one: str, other: str):
    grid = Grid((12, 9), lower=(0.0, -1.0), upper=(2.0, 3.0), boundary={"x": SIDES[one], "y": SIDES[other]})
    u = torch.randn(3, 2, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    energy = RadialEnergy(grid)
    assert energy.basis == f"{one.removeprefix('mirrored ')} along x, {other.removeprefix('mirrored ')} along y"
    torch.testing.assert_close(energy(u).sum(1), u.square().mean((2, 3)).sum(1))


@pytest.mark.parametrize(
    ("sides", "mode"),
    [
        (SIDES["sines"], lambda x: torch.sin(6 * math.pi * x / 2)),
        (SIDES["cosines"], lambda x: torch.cos(6 * math.pi * x / 2)),
        (SIDES["waves"], lambda x: torch.sin(6 * math.pi * x / 2 + 0.3)),
    ],
)
def test_a_wave_has_all_energy_at_its_wavenumber(sides, mode):
    grid = Grid(32, upper=2.0, boundary={"x": sides})
    energy = RadialEnergy(grid)
    found = energy(mode(grid.coordinates[0])[None, None])[0]
    place = int(found.argmax())
    assert float(energy.wavenumbers[place]) == pytest.approx(3 * math.pi)
    assert float(found[place]) == pytest.approx(0.5)
    assert float(found.sum() - found[place]) < 1e-25


def test_rings_of_a_box_that_is_longer_one_way():
    """cos(pi x / 3) cos(2 pi y): |k| = pi sqrt(1/9 + 4), in rings of width pi, which is the nearest to 2 pi."""
    grid = Grid((30, 10), upper=(3.0, 1.0), boundary=Neumann(0.0))
    x, y = grid.coordinates
    energy = RadialEnergy(grid)
    found = energy((torch.cos(math.pi * x / 3) * torch.cos(2 * math.pi * y))[None, None])[0]
    torch.testing.assert_close(energy.wavenumbers, math.pi * torch.arange(len(found), dtype=torch.float64))
    assert float(found[2]) == pytest.approx(0.25)
    assert energy.resolved == pytest.approx(10 * math.pi)


@pytest.mark.parametrize(
    ("sides", "transform", "kind"),
    [
        (SIDES["sines"], scipy.fft.dst, 2),
        (SIDES["cosines"], scipy.fft.dct, 2),
        (SIDES["quarter waves"], scipy.fft.dst, 4),
        (SIDES["mirrored quarter waves"], scipy.fft.dct, 4),
    ],
)
def test_the_transforms_are_those_of_scipy(sides, transform, kind):
    grid = Grid(11, boundary={"x": sides})
    u = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    squares = torch.from_numpy(transform(u.numpy(), type=kind, norm="ortho")) ** 2 / 11
    found = RadialEnergy(grid)(u[None, None])[0]
    torch.testing.assert_close(found[found > 0], squares)


def test_where_the_error_is_as_large_as_the_field():
    waves = torch.arange(6, dtype=torch.float64)
    truth = torch.tensor([0.0, 8.0, 4.0, 2.0, 1.0, 1.0], dtype=torch.float64)

    def lost(error: list[float]) -> float | None:
        return Spectrum(waves, truth, torch.tensor(error, dtype=torch.float64), 4.0, "").lost

    assert lost([1.0, 1.0, 1.0, 1.0, 0.5, 9.0]) is None  # what is not resolved does not count
    assert lost([0.0, 9.0, 1.0, 3.0, 1.0, 0.0]) == 3.0
    assert lost([0.0, 9.0, 9.0, 9.0, 9.0, 0.0]) == 1.0


@pytest.mark.parametrize("kind", ["sines", "cosines", "quarter waves"])
def test_energies_of_values_at_nodes(kind: str) -> None:
    """One function in its ring; energies of any field that obeys the conditions add up to the mean by the trapezoidal
    rule."""
    grid = Grid((12, 6), upper=(2.0, 1.0), boundary={"x": SIDES[kind], "y": Periodic()})
    measure = RadialEnergy(grid, nodes=True)
    assert measure.basis == f"{kind} along x, waves along y"
    x = torch.linspace(0, 2, 13, dtype=torch.float64)[:, None].expand(13, 6)
    k = math.pi / 2 * {"sines": 4, "cosines": 4, "quarter waves": 4.5}[kind]
    u = 3 * (torch.cos(k * x) if kind == "cosines" else torch.sin(k * x))
    energies = measure(u[None, None])[0]
    assert float(energies.sum()) == pytest.approx(4.5)
    assert float(measure.wavenumbers[energies.argmax()]) == pytest.approx(2 * math.pi, rel=0.2)
    assert float(energies.max()) == pytest.approx(4.5)
    v = torch.randn(13, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if kind != "cosines":
        v[0] = 0
    if kind == "sines":
        v[-1] = 0
    mean = (v[1:].square().mean() + v[:-1].square().mean()) / 2
    assert float(measure(v[None, None]).sum()) == pytest.approx(float(mean))
