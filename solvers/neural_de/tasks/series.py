"""Series with gaps that are reconstructed from trajectories in a latent space."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.solution import Solution
from sciml.training import TensorSamples

from ..evidence import DivergenceAnnealing, evidence_lower_bound
from ..latent import LatentODE, RecognitionGRU
from ..layers import Autonomous, Perceptron
from ..regularizers import Regularizer
from .data import Series
from .physionet import MEASURED, read_physionet
from .problem import DTYPES, Data, OrdinaryProblem, Outcome, check_counts, of_rows
from .spirals import irregular_spirals

_USUAL: Mapping[str, Mapping[str, Any]] = {
    "error": {"weight": 0.3, "last_weight": 0.03, "reduction": "mean", "rows": "together"},
    "error-squared": {"weight": 0.3, "reduction": "mean", "rows": "together"},
    "stiffness": {"weight": 3.0, "reduction": "mean"},
    "error+stiffness": {
        "weight": 0.3,
        "last_weight": 0.03,
        "reduction": "mean",
        "rows": "together",
        "stiffness": 0.3,
        "stiffness_reduction": "mean",
    },
    "local-error": {"weight": 0.3, "last_weight": 0.03},
    "local-stiffness": {"weight": 0.1},
    "steer": {"width": 0.25},
    "steer+error": {"weight": 0.3, "last_weight": 0.03, "reduction": "mean", "rows": "together", "width": 0.25},
    "taylor": {"weight": 0.1, "order": 2},
    "kinetic": {"weight": 0.1},
    "jacobian": {"weight": 0.1},
    "kinetic+jacobian": {"weight": 0.1},
}


@final
class Reconstruction(nn.Module):
    """A LatentODE at fixed times.

    Args:
        latent: the model.
        times: increasing.
    """

    def __init__(self, latent: LatentODE, times: Tensor) -> None:
        super().__init__()
        self.latent = latent
        self.times = tuple(times.tolist())

    def forward(self, value: Tensor, mask: Tensor) -> tuple[Tensor, Solution]:
        """Predictions `(n, times, channels)` from series of this shape and what is observed of them, 0 at times at
        which a series has nothing, and the solution in the latent space; from a random latent state in training, from
        the mean one in evaluation."""
        prediction: Tensor
        prediction, solution = self.latent(
            value, mask, self.times, where=mask.any(-1), samples=None if self.training else 0
        )
        return prediction, solution


@dataclass(frozen=True, kw_only=True)
class SeriesProblem(OrdinaryProblem):
    """Series reconstructed by a latent ODE whose right-hand side is a network with tanh.

    Rubanova, Chen and Duvenaud, "Latent ODEs for Irregularly-Sampled Time Series", NeurIPS 2019; the sizes for
    PhysioNet are those of Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, section 4.1.2. The loss is
    the negative evidence lower bound of a series, divided by the number of its observations; "error" is the mean square
    of the errors at these.

    Args:
        latent: channels of the latent state.
        hidden: of the recurrent state of the encoder.
        units: of the layers of the right-hand side and of the encoder.
        blocks: pairs of layers of the right-hand side, to that many units and back, with tanh between all of them.
        first_rate: factor of the right-hand side before training, 1 for that of torch.nn.Linear's weights; with a small
            one trajectories begin as straight lines.
        decoder: channels between the layers of the decoder; empty: `units`.
        frequency: of the first of sines between these, in radians; None: they are tanh.
        gated: whether the first sines or tanh are multiplied by linear functions of the latent state; see `Perceptron`.
        at_once, first_deviation: of `RecognitionGRU`.
        deviation: standard deviation of the observations in the likelihood.
        annealed: base of the weight of the divergence, which grows from 0 to 1, batch by batch.
        share: of the samples to train with.
    """

    latent: int
    hidden: int
    units: int
    blocks: int = 1
    first_rate: float = 1.0
    decoder: tuple[int, ...] = ()
    frequency: float | None = None
    gated: bool = False
    at_once: int = 1
    first_deviation: float | None = None
    deviation: float = 0.1
    annealed: float = 0.99
    share: float = 0.8
    tolerance: float = 1.4e-8
    headline: ClassVar[str] = "error"

    def __post_init__(self) -> None:
        check_counts(**{name: getattr(self, name) for name in ("latent", "hidden", "units", "blocks", "at_once")})
        check_counts(**{f"decoder[{place}]": width for place, width in enumerate(self.decoder)})
        for name in ("first_rate", "frequency", "first_deviation"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise InputError(f"{name} must be positive and finite, got {value!r}")
        if not (isfinite(self.deviation) and self.deviation > 0):
            raise InputError(f"deviation must be positive and finite, got {self.deviation!r}")
        if not 0 < self.share < 1:
            raise InputError(f"share of the samples lies between 0 and 1, got {self.share!r}")
        DivergenceAnnealing(self.annealed)
        self.check(None)

    @abstractmethod
    def series(self) -> Series:
        """All samples."""

    def data(self) -> Data:
        first, second = self.series().halves(self.share, 0)
        return Data(*(TensorSamples(value=part.value, mask=part.mask) for part in (first, second)))

    def reconstruction(self, channels: int, times: Tensor, regularizer: Regularizer | None) -> Reconstruction:
        """The model."""
        dtype = DTYPES[self.dtype]
        between = float(times[-1] - times[0]) / max(len(times) - 1, 1)
        encoder = RecognitionGRU(
            channels,
            self.latent,
            hidden=self.hidden,
            units=self.units,
            time_unit=between,
            at_once=self.at_once,
            deviation=self.first_deviation,
        )
        rate = Autonomous((self.latent, *(self.units, self.latent) * self.blocks), scale=self.first_rate)
        sizes = (self.latent, *(self.decoder or (self.units,)), channels)
        decoder = Perceptron(sizes, frequency=self.frequency, gated=self.gated)
        ends = (float(times[0]), float(times[-1]))
        model = LatentODE(encoder, rate, decoder, interval=ends, regularizer=regularizer, **self.solver())
        return Reconstruction(model.to(dtype), times)

    def outcome(self, model: Any, batch: Mapping[str, Tensor], step: int) -> Outcome:
        value, mask = batch["value"], batch["mask"]
        prediction, solution = model(value, mask)
        penalty, evaluations = of_rows(solution, len(value))
        bound = evidence_lower_bound(
            prediction,
            value,
            mask,
            solution.statistics["latent"],
            deviation=self.deviation,
            divergence_weight=DivergenceAnnealing(self.annealed).weight(step),
        )
        observed = mask.sum((1, 2)).clamp(min=1)
        squares = ((prediction.detach() - value) * mask).square().sum((1, 2)) / observed
        return Outcome(-bound / observed, penalty, evaluations, {"error": squares})


@final
@dataclass(frozen=True, kw_only=True)
class LatentSpirals(SeriesProblem):
    """Spirals observed here and there, with noise; see `irregular_spirals` and `SeriesProblem`.

    Args:
        count, points, observed, noise, end: of the spirals.
    """

    count: int = 1000
    points: int = 500
    observed: int = 100
    noise: float = 0.1
    end: float = 10.0
    latent: int = 6
    hidden: int = 64
    units: int = 50
    name: ClassVar[str] = "latent-spirals"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = _USUAL

    def series(self) -> Series:
        return irregular_spirals(
            self.count, self.points, self.observed, noise=self.noise, end=self.end, dtype=DTYPES[self.dtype], seed=0
        )

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        times = torch.linspace(0.0, self.end, self.points, dtype=torch.float64)
        return self.reconstruction(2, times, regularizer)


@final
@dataclass(frozen=True, kw_only=True)
class PhysioNet2012(SeriesProblem):
    """Measurements of patients in intensive care, each parameter scaled to [0, 1]; see `read_physionet` and
    `SeriesProblem`. The unit of time is that of the whole stay.

    Args:
        folder: or archive of the records.
        rounded: hours to whose multiples times are rounded.
        hours: of a stay; later measurements are left out.
    """

    folder: str
    rounded: float = 1.0
    hours: float = 48.0
    latent: int = 20
    hidden: int = 40
    units: int = 50
    blocks: int = 4
    name: ClassVar[str] = "physionet"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = _USUAL

    def series(self) -> Series:
        found = read_physionet(self.folder, rounded=self.rounded, dtype=DTYPES[self.dtype]).series
        place = (found.times / self.rounded).round().long()
        grid = self._grid()
        kept = place < len(grid)
        value = found.value.new_zeros(len(found), len(grid), found.value.shape[-1])
        mask = torch.zeros(value.shape, dtype=torch.bool)
        value[:, place[kept]], mask[:, place[kept]] = found.value[:, kept], found.mask[:, kept]
        return Series(grid, value, mask).scaled()

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        return self.reconstruction(len(MEASURED), self._grid(), regularizer)

    def _grid(self) -> Tensor:
        count = round(self.hours / self.rounded)
        if count < 1:
            raise InputError(f"rounded: {self.rounded:g} hours leave no times within {self.hours:g}")
        return torch.arange(count + 1, dtype=torch.float64) / count
