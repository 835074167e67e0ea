"""The stiffness estimate along Van der Pol's oscillator against the largest eigenvalue of the Jacobian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.evolve import evolve
from sciml.solvers.time import ExplicitRungeKutta

from ...function_system import FunctionSystem
from ..bench import Bench
from ..row import Row

METHODS: Mapping[str, tuple[ExplicitRungeKutta, float]] = {
    "Tsitouras": (ExplicitRungeKutta.tsit5(), 3.5068),
    "Dormand-Prince": (ExplicitRungeKutta.dormand_prince(), 3.3066),
}
"""With the size |h lambda| on the negative real axis up to which steps are stable."""
LIMITED = 0.7
"""Of that size: a step of more is limited by stability, not by accuracy."""


@dataclass(frozen=True)
class Oscillator:
    """d2x/dt2 = mu (1 - x^2) dx/dt - x, from the slow manifold.

    Args:
        mu: dimensionless.
        start: x at time 0.
        end: the last time.
        tolerance: of a step.
    """

    mu: float
    start: float
    end: float
    tolerance: float = 1e-6

    @property
    def name(self) -> str:
        """Of the case."""
        return f"stiffness along Van der Pol's oscillator, mu {self.mu:g}"

    def rate(self, u: Tensor, t: Any) -> Tensor:
        """The right-hand side, of u = (x, dx/dt)."""
        x, v = u.unbind(-1)
        return torch.stack((v, self.mu * (1 - x * x) * v - x), -1)

    def initial(self) -> Tensor:
        """On the slow manifold."""
        return torch.tensor([self.start, self.start / (self.mu * (1 - self.start**2))], dtype=torch.float64)

    def largest_eigenvalue(self, u: Tensor) -> Tensor:
        """Of the Jacobian, by magnitude."""
        x, v = u.unbind(-1)
        upper = torch.stack((torch.zeros_like(x), torch.ones_like(x)), -1)
        lower = torch.stack((-2 * self.mu * x * v - 1, self.mu * (1 - x * x)), -1)
        return torch.linalg.eigvals(torch.stack((upper, lower), -2)).abs().amax(-1)


# Of slow motion and a fast passage at least.
OSCILLATORS = (
    Oscillator(1.0, 2.0, 20.0),
    Oscillator(10.0, 2.0, 20.0),
    Oscillator(100.0, 1.05, 10.0),
    Oscillator(1000.0, 1.05, 4.0),
)


def measure_stiffness(oscillator: Oscillator, bench: Bench) -> list[Row]:
    """One row a method; "factor" is the largest by which an estimate and the eigenvalue at the end of its step differ,
    over all steps that are limited by stability, None if there are none."""
    bench.say(oscillator.name)
    return [_row(oscillator, name, method, size, bench) for name, (method, size) in METHODS.items()]


def _row(oscillator: Oscillator, name: str, method: ExplicitRungeKutta, size: float, bench: Bench) -> Row:
    starts: list[Tensor] = []
    with torch.no_grad():
        solution = evolve(
            FunctionSystem(oscillator.rate, (2,)),
            initial=oscillator.initial(),
            times=(0.0, oscillator.end),
            method=replace(method, record=True),
            rtol=oscillator.tolerance,
            atol=oscillator.tolerance,
            step_observer=lambda t, h, y: starts.append(y.clone()),
        )
    accepted = solution.history["accepted"]
    steps, estimates = solution.history["step"][accepted], solution.history["stiffness"][accepted]
    exact = oscillator.largest_eigenvalue(torch.stack([*starts[1:], solution.value[-1]]))
    limited = steps * exact > LIMITED * size
    share = float(limited.double().mean())
    ratio = (estimates / exact)[limited]
    factor = float(torch.maximum(ratio, 1 / ratio).max()) if len(ratio) else None
    note = f"{100 * share:.0f} % of the steps limited by stability"
    if factor is not None:
        note += f", there within a factor of {factor:.3f}, median of the ratios {float(ratio.median()):.3f}"
    extra = {"factor": factor, "share": share, "note": note}
    return bench.row(oscillator.name, name, unknowns=2, device="cpu", iterations=int(accepted.sum()), extra=extra)
