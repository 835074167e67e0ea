"""Section: patterns of two chemicals, Gray and Scott's reaction."""

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
from .chapter import Chapter, Section, evolving_system_of, grid_of
from .evolution_figures import curves_figure, snapshots_figure

KINDS = (
    ("spots that divide", 0.030, 0.062),
    ("a labyrinth", 0.037, 0.060),
    ("worms", 0.046, 0.063),
    ("spots and worms", 0.034, 0.0618),
    ("restless waves", 0.018, 0.051),
    ("holes", 0.039, 0.058),
)
"""Name, feed F and removal k."""
SPREAD = (2e-5, 1e-5)
UNIFORM = (0.06, 0.062)
"""Feed and removal for which the state without patterns is unstable to waves, and to nothing else."""


def evolve_chemicals(
    cells: int,
    length: float,
    start: dict[str, Tensor],
    F: Tensor,
    k: Tensor,
    times: Tensor,
    rtol: float,
) -> Solution:
    """Feed F and removal k may be batches: every row is another reaction."""
    text = ["u_t = Du*laplacian(u) - u*v**2 + F*(1 - u)"]
    text += ["v_t = Dv*laplacian(v) + u*v**2 - (F + k)*v"]
    given = {"Du": 2e-5, "Dv": 1e-5, "F": 0.04, "k": 0.06}
    equation = Equation(text, parameters=given)
    square = Grid((cells, cells), upper=length, boundary=Periodic())
    rates = {"F": F, "k": k}
    settings: dict[str, Any] = {"parameters": rates, "times": times, "rtol": rtol}
    return evolve(equation, square, initial=start, **settings)


def write(chapter: Chapter, quick: bool) -> None:
    cells, end, kinds = (64, 600.0, KINDS[1:3]) if quick else (112, 2400.0, KINDS)
    length = cells / 64
    F, k = (torch.tensor([kind[place] for kind in kinds], dtype=torch.float64) for place in (1, 2))
    times = torch.tensor([0.0, end / 12, end / 4, end], dtype=torch.float64)
    solution = evolve_chemicals(cells, length, _seeds(cells, length), F, k, times, 1e-3)
    u, v = solution.fields["u"], solution.fields["v"]
    waves, measured, exact = _growth()
    off = float((measured / exact - 1).abs().max())
    budget = _budget(solution, F, k)

    chapter.say(
        "Two chemicals on a square. U is fed, V is removed, and where they meet V makes more of itself at the expense "
        "of U; both diffuse, V half as fast. From the same drops of V, six pairs of feed and removal make spots "
        "that divide like cells, worms, labyrinths, holes, or waves that never come to rest. "
        "The six are one batch: the parameters have an axis, and so "
        "has the solution."
    )
    chapter.equation(evolving_system_of(solution).equation)
    chapter.code(evolve_chemicals)
    chapter.pictures(
        f"The concentration of V after {end:,.0f} units of time, on {cells} x {cells} points each. "
        f"{solution.method[0].upper()}{solution.method[1:]}.",
        (
            snapshots_figure(
                grid_of(solution),
                list(v[:, -1]),
                [f"{name}, F = {feed:g}, k = {removal:g}" for name, feed, removal in kinds],
                columns=min(3, len(kinds)),
                colours="magma",
                limits=(0.0, 0.4),
            ),
            "maps of bright patterns: spots, labyrinths, worms, holes",
        ),
    )
    chapter.pictures(
        "How the labyrinth came about." if not quick else "How the first came about.",
        (
            snapshots_figure(
                grid_of(solution),
                list(v[0 if quick else 1]),
                [f"t = {float(t):,.0f}" for t in times],
                colours="magma",
                limits=(0.0, 0.4),
            ),
            "drops that become rings, which break up and fill the square",
        ),
    )
    curve = torch.linspace(30, float(waves[-1]), 200, dtype=torch.float64)
    chapter.say(
        "What can be known exactly: near a state without patterns small waves grow or fade at rates that are the "
        "eigenvalues of a matrix of two rows, one matrix for each wavelength. With F = 0.06 and k = 0.062 "
        "uniform changes fade, and waves of middle length grow: the instability that Turing found."
    )
    chapter.pictures(
        "The rate at which small waves grow about the uniform state, measured in one batch, and the larger eigenvalue.",
        (
            curves_figure(
                {"measured": (waves, measured), "eigenvalue": (curve, _slowest(curve)[0])},
                labels=("wavenumber", "rate of growth"),
                dashed=("eigenvalue",),
                dotted=("measured",),
            ),
            "points on a curve with a hump",
        ),
    )
    steps = int(solution.statistics["steps"].max())
    chapter.facts(
        {
            "unknowns": f"{solution.value[:, 0].numel():,}",
            "steps": f"{steps}, {int(solution.statistics['rejected'].max())} rejected",
            "range of V": f"{float(v.min()):.3f} to {float(v.max()):.3f}",
            "time": f"{solution.statistics['seconds_solve']:.1f} s",
        }
    )
    chapter.claim(
        f"Small waves grow at the rates of the eigenvalues: largest relative difference {off:.1e}.", off <= 1e-4
    )
    chapter.claim(
        f"At all times the mean of U + V changes by what is fed and what is removed, to {budget:.1e} of it.",
        budget <= 1e-10,
    )
    chapter.headline = (
        f"{len(kinds)} reactions as one batch, {steps} steps in {solution.statistics['seconds_solve']:.1f} s; "
        f"rates of growth to {off:.0e}"
    )
    chapter.numbers = {
        "steps": steps,
        "growth": {"wavenumber": waves, "measured": measured, "exact": exact},
        "growth_error": off,
        "budget": budget,
        "least": float(u.min()),
        "covered": (v[:, -1] > 0.1).double().mean((-2, -1)),
    }


def _seeds(cells: int, length: float) -> dict[str, Tensor]:
    """Drops of V at random places; U is less where they are."""
    random = torch.Generator().manual_seed(3)
    x, y = Grid((cells, cells), upper=length, boundary=Periodic()).coordinates
    drops = torch.zeros_like(x)
    for a, b in (length * torch.rand(round(12 * length**2), 2, generator=random, dtype=torch.float64)).tolist():
        apart = [torch.remainder(q - c + length / 2, length) - length / 2 for q, c in ((x, a), (y, b))]
        drops += torch.exp(-(apart[0] ** 2 + apart[1] ** 2) / 0.004)
    return {"u": 1 - 0.4 * drops, "v": 0.25 * drops}


def _uniform(F: float, k: float) -> tuple[float, float]:
    """The state without patterns in which U and V persist: v solves v^2 - F/(F + k) v + F = 0, u = (F + k)/v."""
    share = F / (F + k)
    v = 0.5 * (share + math.sqrt(share**2 - 4 * F))
    return (F + k) / v, v


def _slowest(waves: Tensor) -> tuple[Tensor, Tensor]:
    """The larger eigenvalue of small waves about the uniform state, its real part, and its eigenvector."""
    u, v = _uniform(*UNIFORM)
    square = waves**2
    matrices = torch.stack(
        [
            torch.stack([-(v**2) - UNIFORM[0] - SPREAD[0] * square, torch.full_like(square, -2 * u * v)], -1),
            torch.stack([torch.full_like(square, v**2), 2 * u * v - sum(UNIFORM) - SPREAD[1] * square], -1),
        ],
        -2,
    )
    values, vectors = torch.linalg.eig(matrices)
    place = values.real.argmax(-1, keepdim=True)
    slowest = torch.take_along_dim(vectors, place[:, None], -1)[..., 0]
    return torch.take_along_dim(values.real, place, -1)[:, 0], slowest.real


def _growth() -> tuple[Tensor, Tensor, Tensor]:
    """Wavenumbers whose eigenvalues are real, the rates at which such waves grow, and the eigenvalues."""
    cells, length, duration, size = 48, 2 * math.pi / 5, 20.0, 1e-4
    waves = torch.arange(40.0, 75.0, 5.0, dtype=torch.float64)
    exact, vectors = _slowest(waves)
    x = Grid((cells, cells), upper=length, boundary=Periodic()).coordinates[0]
    shapes = torch.cos(waves[:, None, None] * x)
    start = {
        name: state + size * vectors[:, place, None, None] * shapes
        for place, (name, state) in enumerate(zip("uv", _uniform(*UNIFORM), strict=True))
    }
    F, k = (torch.tensor(value, dtype=torch.float64) for value in UNIFORM)
    solution = evolve_chemicals(cells, length, start, F, k, torch.tensor([0.0, duration]), 1e-9)
    after = 2 * (solution.fields["u"][:, -1] * shapes).mean((-2, -1)) / (size * vectors[:, 0])
    return waves, after.log() / duration, exact


def _budget(solution: Solution, F: Tensor, k: Tensor) -> float:
    """d/dt mean(u + v) against F (1 - mean u) - (F + k) mean v."""
    if solution.times is None:
        raise RuntimeError("this solution does not evolve")
    worst = 0.0
    for place, t in enumerate(solution.times.tolist()):
        now = solution.value[:, place]
        rate = evolving_system_of(solution).rate(now, t).mean((-2, -1)).sum(-1)
        u, v = now.mean((-2, -1)).unbind(-1)
        worst = max(worst, float(((rate - F * (1 - u) + (F + k) * v) / (F * (1 - u))).abs().max()))
    return worst


SECTION = Section("patterns", "Patterns of two chemicals", write)
