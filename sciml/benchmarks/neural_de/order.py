"""The strong order of methods for stochastic equations, against an exact solution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.evolve import evolve
from sciml.solvers.time import BrownianPath, EulerMaruyama, Milstein, StochasticRungeKutta

from ...stochastic_system import StochasticSystem
from ..bench import Bench
from ..row import Row

METHODS: dict[str, tuple[Any, float]] = {
    "Euler-Maruyama": (EulerMaruyama(), 0.5),
    "Milstein": (Milstein(), 1.0),
    "SRIW1": (StochasticRungeKutta.sriw1(), 1.5),
    "SOSRI": (StochasticRungeKutta.sosri(), 1.5),
    "SOSRI2": (StochasticRungeKutta.sosri2(), 1.5),
}
"""With their orders."""

_DRIFT, _DIFFUSION = 0.5, 0.8


@dataclass(frozen=True)
class Geometric:
    """du = 0.5 u dt + 0.8 u dW from 1 in [0, 1], whose solution is exp(0.18 t + 0.8 W).

    Args:
        paths: of one entry each.
        counts: of steps.
        seed: of the paths.
    """

    paths: int = 2000
    counts: Sequence[int] = (16, 32, 64, 128, 256)
    seed: int = 1

    @property
    def name(self) -> str:
        """Of the case."""
        return f"strong order, geometric Brownian motion, {self.paths} paths"


def slope(counts: Sequence[int], errors: Sequence[float]) -> float:
    """The order that fits errors of so many steps best."""
    x = [-math.log(count) for count in counts]
    y = [math.log(error) for error in errors]
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def measure_order(geometric: Geometric, bench: Bench) -> list[Row]:
    """One row a method; the error is the root mean square over the paths, with the largest number of steps."""
    finest = max(geometric.counts)
    path = BrownianPath([k / finest for k in range(finest + 1)], (geometric.paths, 1), seed=geometric.seed)
    growth = path.increments(0.0, 1.0)[0]
    exact = torch.exp((_DRIFT - _DIFFUSION**2 / 2) + _DIFFUSION * growth)
    rows = []
    for name, (method, order) in METHODS.items():
        bench.say(f"{geometric.name}: {name}")
        errors = [float((_end(path, method, count) - exact).square().mean().sqrt()) for count in geometric.counts]
        found = slope(geometric.counts, errors)
        extra = {
            "order": found,
            "of_method": order,
            "errors": errors,
            "note": f"order {found:.2f}, {order:g} in theory",
        }
        row = bench.row(
            geometric.name,
            name,
            device="cpu",
            unknowns=geometric.paths,
            iterations=finest,
            error=errors[-1],
            extra=extra,
        )
        rows.append(row)
    return rows


def _end(path: BrownianPath, method: Any, count: int) -> Tensor:
    system = StochasticSystem(lambda u, t: _DRIFT * u, lambda u, t: _DIFFUSION * u, (1,), path=path)
    initial = torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        return evolve(system, initial=initial, times=(0.0, 1.0), method=method, step=1 / count).value[:, -1]
