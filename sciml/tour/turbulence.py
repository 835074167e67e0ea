"""Section: turbulence in two dimensions."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.evolve import evolve

from ..boundary import Periodic
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, evolving_system_of, grid_of
from .evolution_figures import curves_figure, snapshots_figure

TEXT = "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)"
CONSTRAINT = "laplacian(psi) = -w"


def evolve_flow(w: Tensor, nu: float, times: Tensor, rtol: float) -> Solution:
    """Vorticity w on a periodic square; psi is the stream function."""
    text = "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)"
    constraints, given = ["laplacian(psi) = -w"], {"nu": nu}
    equation = Equation(text, constraints=constraints, parameters=given)
    square = Grid(tuple(w.shape), upper=2 * math.pi, boundary=Periodic())
    return evolve(equation, square, initial=w, times=times, rtol=rtol)


def random_vorticity(cells: int, waves: tuple[int, int], seed: int) -> Tensor:
    """Noise of wavenumbers between two numbers, with largest value 10."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(64, 64, generator=random, dtype=torch.float64)
    k = torch.fft.fftfreq(64, 1 / 64, dtype=torch.float64)
    size = torch.hypot(*torch.meshgrid(k, k, indexing="ij"))
    spectrum = torch.fft.fft2(noise) * ((size >= waves[0]) & (size <= waves[1]))
    fine = torch.zeros(cells, cells, dtype=spectrum.dtype)
    place = torch.remainder(k.long(), cells)
    fine.index_put_((place[:, None], place), spectrum, accumulate=True)  # of waves that fall together one is not zero
    w = torch.fft.ifft2(fine).real
    return 10 * w / w.abs().max()


def write(chapter: Chapter, quick: bool) -> None:
    cells, nu, end = (96, 2e-3, 4.0) if quick else (256, 3e-4, 10.0)
    times = torch.linspace(0, end, 41, dtype=torch.float64)
    solution = evolve_flow(random_vorticity(cells, (3, 9), seed=3), nu, times, 1e-5)
    square, system = grid_of(solution), evolving_system_of(solution)
    w, psi = solution.value, solution.fields["psi"]
    energy, enstrophy = 0.5 * (psi * w).mean((-2, -1)), 0.5 * w.square().mean((-2, -1))
    rates = torch.stack([system.rate(u, float(t)) for u, t in zip(w, times, strict=True)])
    lost = (psi * rates).mean((-2, -1))  # d/dt of the energy
    budget = float((lost / (-2 * nu * enstrophy) - 1).abs().max())
    spent = float(_simpson(2 * nu * enstrophy, times) / (energy[0] - energy[-1]) - 1)
    decay = _taylor_green(32 if quick else 64)
    kept = _inviscid(32 if quick else 64)

    chapter.say(
        "A flow in the plane that nobody stirs, from random vorticity. Vortices of one sign merge, filaments are drawn "
        "out between them and dissolve: the energy moves to large scales and hardly decays, the enstrophy moves to "
        "small ones, where viscosity takes it. The vorticity is the unknown; the stream function is a constraint, "
        "solved for each wavenumber in every stage, and products are freed of aliasing."
    )
    chapter.equation(Equation(TEXT, constraints=[CONSTRAINT], parameters={"nu": nu}))
    chapter.code(evolve_flow)
    places = [0, 8, 20, 40]
    chapter.pictures(
        f"The vorticity on {cells} x {cells} points at four times; red turns left, blue turns right. "
        f"{solution.method[0].upper()}{solution.method[1:]}.",
        (
            snapshots_figure(
                square,
                [w[place] for place in places],
                [f"t = {float(times[place]):g}" for place in places],
                columns=2,
                colours="twilight_shifted",
                limits=(-8.0, 8.0),
                width=1.15 * figures.WHOLE,
            ),
            "four maps: random spots, then filaments, then round vortices with spiral arms",
        ),
    )
    before, after = _spectrum(w[0]), _spectrum(w[-1])
    waves = torch.arange(len(before), dtype=torch.float64)
    top = cells // 3
    chapter.pictures(
        "Left: energy and enstrophy over their first values. Right: the enstrophy by wavenumber, at the beginning and "
        "at the end.",
        (
            curves_figure(
                {"energy": (times, energy / energy[0]), "enstrophy": (times, enstrophy / enstrophy[0])},
                labels=("t", "share of the first value"),
            ),
            "the enstrophy falls, the energy hardly does",
        ),
        (_spectrum_figure(waves[1:top], {"t = 0": before[1:top], f"t = {end:g}": after[1:top]}), "two spectra"),
    )
    steps = int(solution.statistics["steps"])
    chapter.facts(
        {
            "unknowns": f"{w[0].numel():,}",
            "steps": f"{steps}, {int(solution.statistics['rejected'])} rejected",
            "energy kept": f"{float(energy[-1] / energy[0]):.0%}",
            "enstrophy kept": f"{float(enstrophy[-1] / enstrophy[0]):.0%}",
            "time": f"{solution.statistics['seconds_solve']:.1f} s",
        }
    )
    chapter.claim(
        f"At all {len(times)} times the energy falls at the rate 2 nu times the enstrophy: relative difference "
        f"{budget:.1e}. Over the whole run what was lost agrees to {abs(spent):.1e}.",
        budget <= 1e-9 and abs(spent) <= 1e-4,
    )
    chapter.claim(
        f"The vortices of Taylor and Green, w = 2 cos(x) cos(y), decay like exp(-2 nu t): largest error {decay:.1e}.",
        decay <= 1e-12,
    )
    chapter.claim(
        f"Without viscosity energy and enstrophy are kept, to {kept[0]:.1e} and {kept[1]:.1e} in one unit of time at "
        "a tolerance of 1e-8.",
        max(kept) <= 1e-6,
    )
    chapter.headline = (
        f"{w[0].numel():,} unknowns, {steps} steps in {solution.statistics['seconds_solve']:.1f} s; "
        f"energy budget to {budget:.0e}"
    )
    chapter.numbers = {
        "energy": energy,
        "enstrophy": enstrophy,
        "steps": steps,
        "budget": budget,
        "spent": spent,
        "taylor_green": decay,
        "inviscid": kept,
    }


def _simpson(values: Tensor, times: Tensor) -> Tensor:
    h = times[1] - times[0]
    return h / 3 * (values[0] + values[-1] + 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum())


def _taylor_green(cells: int) -> float:
    x, y = Grid((cells, cells), upper=2 * math.pi, boundary=Periodic()).coordinates
    start = 2 * torch.cos(x) * torch.cos(y)
    end = evolve_flow(start, 0.05, torch.tensor([0.0, 2.0]), 1e-6).value[-1]
    return float((end - math.exp(-0.2) * start).abs().max())


def _inviscid(cells: int) -> tuple[float, float]:
    """Relative changes of energy and enstrophy."""
    solution = evolve_flow(random_vorticity(cells, (2, 6), seed=4), 0.0, torch.tensor([0.0, 1.0]), 1e-8)
    w, psi = solution.value, solution.fields["psi"]
    change = [(q[1] / q[0] - 1).abs() for q in ((psi * w).mean((-2, -1)), w.square().mean((-2, -1)))]
    return float(change[0]), float(change[1])


def _spectrum(w: Tensor) -> Tensor:
    """Enstrophy by the nearest whole wavenumber."""
    cells = len(w)
    k = torch.fft.fftfreq(cells, 1 / cells, dtype=torch.float64)
    ring = torch.hypot(*torch.meshgrid(k, k, indexing="ij")).round().long()
    power = 0.5 * (torch.fft.fft2(w) / w.numel()).abs().square()
    return torch.zeros(int(ring.max()) + 1, dtype=torch.float64).index_add(0, ring.flatten(), power.flatten())


def _spectrum_figure(waves: Tensor, curves: dict[str, Tensor]) -> Figure:
    figure = curves_figure(
        {name: (waves, power) for name, power in curves.items()}, labels=("wavenumber", "enstrophy"), logarithmic=True
    )
    axes = figure.axes[0]
    axes.set_xscale("log")
    axes.set_ylim(1e-10, None)
    return figure


SECTION = Section("turbulence", "Turbulence in two dimensions", write)
