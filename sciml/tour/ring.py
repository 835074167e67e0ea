"""Section: chaos on a ring, the Kuramoto-Sivashinsky equation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.evolve import evolve

from ..boundary import Periodic
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from .chapter import Chapter, Section
from .evolution_figures import curves_figure, space_time_figure

PUBLISHED = (0.043, 0.048)
"""The leading Lyapunov exponent on a ring of length 22: 0.048 by Cvitanović, Davidchack and Siminos, SIAM J. Appl.
Dyn. Syst. 9 (2010) 1-33; 0.043 by Edson, Bunder, Mattner and Roberts, ANZIAM J. 61 (2019) 270-285."""


def evolve_front(ring: Grid, u: Any, times: Tensor, step: float | None) -> Solution:
    """The slope u of a flame front on a ring."""
    equation = Equation("u_t = -u*u_x - u_xx - u_xxxx")
    return evolve(equation, ring, initial=u, times=times, step=step)


def measure_chaos(rows: int, rounds: int) -> Tensor:
    """The mean rate at which neighbours part, by pairs of fronts."""
    ring = Grid(48, upper=22.0, boundary=Periodic())
    random = torch.Generator().manual_seed(7)
    numbers = torch.arange(1, 9, dtype=torch.float64)[:, None]
    waves = 2 * math.pi / 22 * numbers * ring.coordinates[0]

    def noise() -> Tensor:
        """Of the eight longest waves."""
        weights = torch.randn(2, rows, 8, generator=random, dtype=torch.float64)
        return 0.25 * (weights[0] @ waves.cos() + weights[1] @ waves.sin())

    long, short = torch.tensor([0.0, 150.0]), torch.tensor([0.0, 4.0])
    u = evolve_front(ring, noise(), long, 0.25).value[:, -1]
    difference = 1e-6 * noise()
    growth = []
    for _ in range(rounds):
        pair = torch.stack([u, u + difference])
        u, other = evolve_front(ring, pair, short, 0.25).value[:, :, -1]
        apart = (other - u).square().mean(-1, keepdim=True).sqrt()
        growth.append((apart / 1e-6).log().mean() / 4.0)
        difference = (other - u) * (1e-6 / apart)
    return torch.stack(growth[10:]).mean()


def write(chapter: Chapter, quick: bool) -> None:
    cells, length, end = (256, 32 * math.pi, 100.0) if quick else (512, 64 * math.pi, 200.0)
    ring = Grid(cells, upper=length, boundary=Periodic())
    times = torch.linspace(0, end, 401)

    def bump(x: Tensor) -> Tensor:
        return torch.cos(32 * math.pi / length * (x / 16)) * (1 + torch.sin(x / 16))

    solution = evolve_front(ring, bump, times, None)
    mean = float((solution.value.mean(-1) - solution.value[0].mean()).abs().max())
    waves, measured, exact = _growth()
    off = float((measured - exact).abs().max())
    exponent = float(measure_chaos(64, 110))

    chapter.say(
        "A flame front on a ring. Long waves grow, short ones are damped by the fourth derivative, and the nonlinear "
        "term hands on from the ones to the others: the result is chaos, in space and in time. An explicit method "
        "would have to take steps as small as the fourth power of the spacing. On a periodic grid `evolve` takes "
        "Fourier series, in which the linear part is a number for each wave, and an exponential method that has it "
        "exactly; the steps adapt to the tolerance."
    )
    chapter.equation(Equation("u_t = -u*u_x - u_xx - u_xxxx"))
    chapter.code(evolve_front)
    chapter.pictures(
        f"The slope u of the front on a ring of length {length:.0f} over time, which runs to the right. Cells split, "
        f"drift and merge, and never repeat. {solution.method[0].upper()}{solution.method[1:]}.",
        (
            space_time_figure(ring, times, solution.value, title="u", limits=(-3.2, 3.2), width=9.0),
            "red and blue bands over time, which braid irregularly",
        ),
    )
    steps = int(solution.statistics["steps"])
    chapter.facts(
        {
            "points": f"{ring.shape[0]}",
            "steps": f"{steps:,}, {int(solution.statistics['rejected'])} rejected",
            "mean step": f"{end / steps:.3f}",
            "time": f"{solution.statistics['seconds_solve']:.1f} s",
        }
    )
    chapter.say(
        "Three things are known of these fronts. A weak wave of wavenumber k grows at the rate k² - k⁴. The mean of u "
        "never changes. And on a ring of length 22 two neighbouring fronts part like exp(0.043 t) to exp(0.048 t), as "
        "others have found. Here the last is measured by many pairs, which are one batch."
    )
    chapter.code(measure_chaos)
    curve = torch.linspace(0, float(waves[-1]), 200, dtype=torch.float64)
    chapter.pictures(
        "The rates at which weak waves grow, measured over 2 units of time, all in one batch.",
        (
            curves_figure(
                {"measured": (waves, measured), "k² - k⁴": (curve, curve**2 - curve**4)},
                labels=("wavenumber k", "rate of growth"),
                dashed=("k² - k⁴",),
                dotted=("measured",),
            ),
            "points on a curve that rises, and falls below zero at k = 1",
        ),
    )
    chapter.claim(f"Weak waves grow at the rate k² - k⁴: largest difference {off:.1e}.", off <= 1e-7)
    chapter.claim(f"The mean slope stays what it was to {mean:.0e}.", mean <= 1e-13)
    chapter.claim(
        f"Neighbours on a ring of length 22 part at the rate {exponent:.4f}; the literature has {PUBLISHED[0]} to "
        f"{PUBLISHED[1]}, and 64 fronts over 400 units of time leave an uncertainty of some percent.",
        0.9 * PUBLISHED[0] <= exponent <= 1.1 * PUBLISHED[1],
    )
    chapter.headline = (
        f"{steps:,} steps in {solution.statistics['seconds_solve']:.1f} s; neighbours part at {exponent:.3f}"
    )
    chapter.numbers = {
        "steps": steps,
        "mean": mean,
        "growth": {"wavenumber": waves, "measured": measured, "exact": exact},
        "growth_error": off,
        "exponent": exponent,
    }


def _growth() -> tuple[Tensor, Tensor, Tensor]:
    """Wavenumbers of weak waves, the rates at which they grow, and those of the linear equation."""
    ring, seconds = Grid(256, upper=32 * math.pi, boundary=Periodic()), 2.0
    waves = torch.arange(1, 22, dtype=torch.float64) / 16
    shapes = torch.cos(waves[:, None] * ring.coordinates[0])
    after = evolve_front(ring, 1e-9 * shapes, torch.tensor([0.0, seconds]), 0.1).value[:, -1]
    measured = (2e9 * (after * shapes).mean(-1)).log() / seconds
    return waves, measured, waves**2 - waves**4


SECTION = Section("ring", "Chaos on a ring", write)
