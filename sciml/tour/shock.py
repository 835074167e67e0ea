"""Section: shocks by limited finite volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.evolve import evolve

from ..boundary import Periodic
from ..equations import Equation
from ..grid import Grid
from ..scheme import FiniteVolume
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, grid_of
from .convergence import slope
from .evolution_figures import DASHES, space_time_figure

Exact = Callable[[Tensor, float], Tensor]


def evolve_wave(cells: int, scheme: Any, u: Any, times: Tensor) -> Solution:
    """What the flux u^2/2 carries along a ring of length 1."""
    equation = Equation("u_t = -div([u**2/2])")
    ring = Grid(cells, upper=1.0, boundary=Periodic())
    return evolve(equation, ring, initial=u, times=times, scheme=scheme)


def block(x: Tensor, t: float) -> Tensor:
    """1 between 0.1 and 0.4 at t = 0: a fan behind, a shock in front."""
    fan = ((x - 0.1) / max(t, 1e-12)).clamp(0, 1)
    if t <= 0.6:  # until the fan has caught up with the shock
        front = 0.4 + t / 2
    else:
        front = 0.1 + math.sqrt(0.6 * t)
    return torch.where(x < front, fan, 0.0)


def sine(x: Tensor, t: float) -> Tensor:
    """u = 0.5 + sin(2 pi (x - u t)), by bisection; a shock from t = 1/(2 pi) on."""
    place = torch.remainder(x - 0.5 * t, 1.0)  # in the frame of the shock, at 1/2
    mirrored = torch.minimum(place, 1 - place)
    low, high = torch.zeros_like(x), torch.ones_like(x)
    for _ in range(60):
        v = (low + high) / 2
        start = (mirrored - v * t).clamp(0.0)
        later = v < torch.sin(2 * math.pi * start)
        low, high = torch.where(later, v, low), torch.where(later, high, v)
    return 0.5 + torch.where(place < 0.5, low, -low)


def write(chapter: Chapter, quick: bool) -> None:
    cells = 100 if quick else 200
    times = torch.linspace(0, 0.9, 91, dtype=torch.float64)
    solution = evolve_wave(cells, None, lambda x: block(x, 0.0), times)
    ring = grid_of(solution)
    exact = torch.stack([block(ring.coordinates[0], t) for t in times.tolist()])
    shares = torch.linspace(0, 0.6, 7, dtype=torch.float64)
    minmod = evolve_wave(cells, FiniteVolume(limiter="minmod"), lambda x: block(x, 0.0), shares)
    ringing = evolve_wave(cells, FiniteVolume(limiter="none"), lambda x: block(x, 0.0), shares)
    variation = solution.value.diff(dim=-1, append=solution.value[:, :1]).abs().sum(-1)
    growth = float(variation.diff().max())
    mass = float((solution.value.mean(-1) - solution.value[0].mean()).abs().max())
    front = _front(solution.value[-1], ring)
    where = 0.1 + math.sqrt(0.6 * 0.9)
    sizes = (50, 100, 200) if quick else (50, 100, 200, 400)
    errors = {
        "smooth, t = 0.1": _errors(sizes, sine, 0.1),
        "a shock, t = 0.4": _errors(sizes, sine, 0.4),
        "a block, t = 0.5": _errors(sizes, block, 0.5),
    }
    orders = {name: slope(sizes, found) for name, found in errors.items()}

    chapter.say(
        "What travels at its own speed steepens until it breaks. The equation is a conservation law, and says so: its "
        "right side is minus a divergence. `sciml` takes finite volumes for it, with slopes in the cells that a "
        "limiter keeps from overshooting, so that a shock is a few cells wide and does not ring."
    )
    chapter.equation(Equation("u_t = -div([u**2/2])"))
    chapter.code(evolve_wave, block)
    chapter.pictures(
        f"A block of 1 on a ring of {cells} cells: a fan opens behind it, its front is a shock that moves at the speed "
        "1/2 until the fan catches up, at t = 0.6, and slows down from then on. The dashed lines are exact.",
        (_space_time(ring, times, solution.value), "a bright wedge, bounded by a straight line that bends"),
    )
    profiles = {
        "van Leer": solution.value[50],
        "minmod": minmod.value[5],
        "no limiter": ringing.value[5],
    }
    chapter.pictures(
        "Left: the block at t = 0.5 by two limiters and by none, which rings without end. Right: a sine wave on its "
        "way to a shock, with the exact solution dashed.",
        (_profiles(ring, profiles, block(ring.coordinates[0], 0.5)), "ramps with a sharp front; one oscillates"),
        (_breaking(cells), "a sine wave that leans over and breaks"),
    )
    rows = [[name, *(f"{error:.1e}" for error in found), f"{orders[name]:.2f}"] for name, found in errors.items()]
    chapter.table(
        ["error in L1", *(f"{n} cells" for n in sizes), "order"],
        rows,
        "Against the exact solution, at the centres of the cells; the order between the two finest. At a shock no "
        "method that keeps to one cell can do better than 1.",
    )
    chapter.claim(
        f"The total variation never grows: by {max(growth, 0.0):.0e} at most from one time to the next.",
        growth <= 1e-6,
    )
    chapter.claim(f"The mean of u stays what it was to {mass:.0e}.", mass <= 1e-13)
    chapter.claim(
        f"At t = 0.9 the shock stands at {front:.4f}, exactly at {where:.4f}: {abs(front - where) * cells:.2f} cells "
        "away.",
        abs(front - where) * cells <= 1,
    )
    chapter.claim(
        f"The order is {orders['smooth, t = 0.1']:.2f} where the solution is smooth, and "
        f"{orders['a shock, t = 0.4']:.2f} with a shock.",
        orders["smooth, t = 0.1"] >= 1.7 and orders["a shock, t = 0.4"] >= 0.8,
    )
    chapter.headline = (
        f"a shock {abs(front - where) * cells:.1f} cells from its place; orders "
        f"{orders['smooth, t = 0.1']:.1f} and {orders['a shock, t = 0.4']:.1f}"
    )
    chapter.numbers = {
        "front": front,
        "exact_front": where,
        "cells": cells,
        "growth": growth,
        "mass": mass,
        "overshoot": float(solution.value.max()) - 1,
        "overshoot_without_limiter": float(ringing.value.max()) - 1,
        "error": float((solution.value - exact).abs().mean()),
        "errors": errors,
        "orders": orders,
    }


def _errors(sizes: tuple[int, ...], exact: Exact, t: float) -> list[float]:
    """The mean of |u - exact| on rings of several sizes."""
    found = []
    for cells in sizes:
        solution = evolve_wave(cells, None, lambda x: exact(x, 0.0), torch.tensor([0.0, t], dtype=torch.float64))
        found.append(float((solution.value[-1] - exact(grid_of(solution).coordinates[0], t)).abs().mean()))
    return found


def _front(u: Tensor, ring: Grid) -> float:
    """Where u falls through half of its largest value, linear between the cells."""
    half, x = u.max() / 2, ring.coordinates[0]
    place = int((u > half).nonzero().max())
    share = (u[place] - half) / (u[place] - u[place + 1])
    return float(x[place] + share * ring.spacing[0])


def _space_time(ring: Grid, times: Tensor, values: Tensor) -> Figure:
    figure = space_time_figure(
        ring, times, values, colours="magma", limits=(0.0, 1.0), width=figures.WHOLE, height=2.7, title="u"
    )
    axes = figure.axes[0]
    early, late = times[times <= 0.6], times[times >= 0.6]
    for t, x in (
        (early, 0.4 + early / 2),
        (late, 0.1 + torch.sqrt(0.6 * late)),
        (early, 0.1 + early),
    ):
        axes.plot(t, x, color="#3fb8e8", linewidth=1.1, linestyle=DASHES)
    axes.set(xlim=(0, float(times[-1])), ylim=(0, 1))
    return figure


def _profiles(ring: Grid, profiles: Mapping[str, Tensor], exact: Tensor) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.0)
        x = ring.coordinates[0]
        for (name, u), colour, width in zip(
            profiles.items(), (figures.LINES[0], figures.LINES[2], figures.LINES[1]), (1.6, 1.3, 0.7), strict=True
        ):
            axes.plot(x, u, color=colour, linewidth=width, label=name, zorder=3 - width)
        axes.plot(x, exact, color=figures.INK, linewidth=0.9, linestyle=DASHES, label="exact", zorder=4)
        axes.set(xlabel="x", ylabel="u", ylim=(-0.75, 1.75))
        axes.legend(loc="lower left", ncols=2)
        figures.tidy(axes)
        return figure


def _breaking(cells: int) -> Figure:
    times = torch.tensor([0.0, 0.08, 0.16, 0.4], dtype=torch.float64)
    solution = evolve_wave(cells, None, lambda x: sine(x, 0.0), times)
    x = grid_of(solution).coordinates[0]
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.0)
        for colour, t, u in zip(figures.LINES, times.tolist(), solution.value, strict=False):
            axes.plot(x, u, color=colour, label=f"t = {t:g}")
            axes.plot(x, sine(x, t), color=figures.INK, linewidth=0.9, linestyle=DASHES)
        axes.set(xlabel="x", ylabel="u")
        axes.legend(loc="lower left")
        figures.tidy(axes)
        return figure


SECTION = Section("shock", "A shock", write)
