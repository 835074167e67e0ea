"""A density that a flow learns from points of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.training import TensorSamples

from ..flow import ContinuousNormalizingFlow, Divergence
from ..layers import TimeDependent
from ..regularizers import Regularizer
from .gaussians import gaussians, log_density
from .problem import DTYPES, Data, OrdinaryProblem, Outcome, check_counts, of_rows


@final
@dataclass(frozen=True, kw_only=True)
class Gaussians(OrdinaryProblem):
    """Normal distributions around a circle, learned by a continuous normalizing flow; see `gaussians`.

    The loss is the mean of -log p in nats; "excess" is how far that lies above the best possible one.

    Args:
        modes, radius, deviation: of the distributions.
        samples: points to train with; as many others are for the test.
        hidden: channels of the layers in between.
        layers: of them.
        divergence: see `ContinuousNormalizingFlow`.
    """

    modes: int = 6
    radius: float = 4.0
    deviation: float = 0.5
    samples: int = 2048
    hidden: int = 16
    layers: int = 2
    divergence: Divergence = "exact"
    name: ClassVar[str] = "gaussians"
    headline: ClassVar[str] = "excess"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "error": {"weight": 2.0, "last_weight": 0.2},
        "error-squared": {"weight": 0.1},
        "stiffness": {"weight": 0.01},
        "error+stiffness": {"weight": 1.0, "stiffness": 0.01},
        "local-error": {"weight": 1.0},
        "local-stiffness": {"weight": 0.01},
        "steer": {"width": 0.5},
        "steer+error": {"weight": 1.0, "width": 0.5},
        "taylor": {"weight": 0.01, "order": 2},
        "kinetic": {"weight": 0.01},
        "jacobian": {"weight": 0.01},
        "kinetic+jacobian": {"weight": 0.01},
    }

    def __post_init__(self) -> None:
        check_counts(modes=self.modes, samples=self.samples, hidden=self.hidden, layers=self.layers)
        for name in ("radius", "deviation"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)!r}")
        self.check(None)

    def data(self) -> Data:
        law: dict[str, Any] = {"modes": self.modes, "radius": self.radius, "deviation": self.deviation}

        def drawn(seed: int) -> TensorSamples:
            points = gaussians(self.samples, dtype=torch.float64, seed=seed, **law)
            known = log_density(points, **law)
            dtype = DTYPES[self.dtype]
            return TensorSamples(point=points.to(dtype), log_density=known.to(dtype))

        return Data(drawn(0), drawn(1))

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        rate = TimeDependent((2, *[self.hidden] * self.layers, 2), last=False)
        solver = self.solver()
        flow = ContinuousNormalizingFlow(rate, 2, divergence=self.divergence, regularizer=regularizer, **solver)
        return flow.to(DTYPES[self.dtype])

    def outcome(self, model: Any, batch: Mapping[str, Tensor], step: int) -> Outcome:
        found, solution = model(batch["point"])
        penalty, evaluations = of_rows(solution, len(found))
        return Outcome(-found, penalty, evaluations, {"excess": batch["log_density"] - found.detach()})
