"""A trajectory that is fitted by that of a neural differential equation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.solution import Solution
from sciml.training import TensorSamples

from ..layers import Autonomous
from ..ode import NeuralODE
from ..regularizers import Regularizer
from .problem import DTYPES, Data, OrdinaryProblem, Outcome, check_counts, of_rows
from .spirals import spiral


@final
class Trajectory(nn.Module):
    """Trajectories at fixed times.

    Args:
        ode: of the states.
        times: `(times,)`, float64, increasing.
    """

    def __init__(self, ode: NeuralODE, times: Tensor) -> None:
        super().__init__()
        self.ode = ode
        self.times = tuple(times.tolist())

    def forward(self, initial: Tensor) -> tuple[Tensor, Solution]:
        """Values `(n, times, channels)` from initial ones `(n, channels)`, and the solution."""
        value: Tensor
        value, solution = self.ode(initial, self.times)
        return value, solution


@final
@dataclass(frozen=True, kw_only=True)
class SpiralODE(OrdinaryProblem):
    """A spiral fitted by a neural ODE whose right-hand side cubes the state before its two layers; see `spiral`.

    Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018, and the
    demonstration in Pal, Ma, Shah and Rackauckas, ICML 2021. It is tested at the points that it is trained at.

    Args:
        hidden: channels between the two layers.
        points: of the trajectory.
        end: the last time.
    """

    hidden: int = 50
    points: int = 30
    end: float = 1.5
    tolerance: float = 1.4e-8
    name: ClassVar[str] = "spiral-ode"
    headline: ClassVar[str] = "loss"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "error": {"weight": 0.1, "last_weight": 0.01},
        "error-squared": {"weight": 1e-3},
        "stiffness": {"weight": 1e-3},
        "error+stiffness": {"weight": 0.1, "last_weight": 0.01, "stiffness": 0.01},
        "local-error": {"weight": 0.1, "last_weight": 0.01},
        "local-stiffness": {"weight": 1e-3},
        "steer": {"width": 0.01},
        "steer+error": {"weight": 0.1, "last_weight": 0.01, "width": 0.01},
        "taylor": {"weight": 1e-6, "order": 3},
        "kinetic": {"weight": 1e-4},
        "jacobian": {"weight": 1e-4},
        "kinetic+jacobian": {"weight": 1e-4},
    }

    def __post_init__(self) -> None:
        check_counts(hidden=self.hidden)
        if self.points < 2 or not self.end > 0:
            raise InputError(f"points are at least 2 and end is positive, got {self.points} and {self.end!r}")
        self.check(None)

    def data(self) -> Data:
        _, value = spiral(self.points, self.end, DTYPES[self.dtype])
        samples = TensorSamples(initial=value[:1], value=value[None])
        return Data(samples, samples)

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        times = torch.linspace(0.0, self.end, self.points, dtype=torch.float64)
        rate = Autonomous((2, self.hidden, 2), cubed=True)
        ode = NeuralODE(rate, interval=(0.0, self.end), regularizer=regularizer, **self.solver())
        return Trajectory(ode, times).to(DTYPES[self.dtype])

    def outcome(self, model: Any, batch: Mapping[str, Tensor], step: int) -> Outcome:
        value, solution = model(batch["initial"])
        penalty, evaluations = of_rows(solution, len(value))
        return Outcome((value - batch["value"]).square().mean((1, 2)), penalty, evaluations, {})
