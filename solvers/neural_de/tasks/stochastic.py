"""Neural stochastic differential equations: images that are told apart, and a process that is followed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.solution import Solution
from sciml.training import TensorSamples

from ...time import StochasticRungeKutta
from ...time.control import Controller, Rows
from ..layers import Autonomous
from ..regularizers import Regularizer
from ..sde import Adjoint, Backend, NeuralSDE
from .classification import classified, data_of
from .data import Images
from .digits import digits
from .mnist import read_mnist
from .problem import DTYPES, Data, Dtype, Outcome, Problem, check_counts, check_solver, of_rows
from .spirals import stochastic_spiral

_SEED = 0  # of the noise of predictions


@dataclass(frozen=True, kw_only=True)
class StochasticProblem(Problem):
    """A problem whose model is a stochastic differential equation in Ito's sense, solved with SOSRI2.

    Args:
        tolerance: of the error of a step, relative to the state and besides.
        step: the size of fixed steps, in place of the tolerance; torchsde with local regularizers needs it.
        adjoint, backend: see `NeuralSDE`.
        rows: what decides on a step, see `Controller`; "mean" is the convention of the papers.
        dtype: of model and data.
    """

    tolerance: float = 0.1
    step: float | None = None
    adjoint: Adjoint = "recorded"
    backend: Backend = "sciml"
    rows: Rows = "mean"
    dtype: Dtype = "float64"

    def solver(self) -> dict[str, Any]:
        """The settings that models hand on to NeuralSDE."""
        method = replace(StochasticRungeKutta.sosri2(), controller=Controller(rows=self.rows))
        adaptive = {"rtol": self.tolerance, "atol": self.tolerance}
        return {
            "method": method,
            **(adaptive if self.step is None else {"step": self.step}),
            "adjoint": self.adjoint,
            "backend": self.backend,
            "throw": False,  # the training says at which samples its loss is not finite, and keeps what it has
        }

    def check(self, regularizer: Regularizer | None) -> None:
        check_solver(self.tolerance, self.dtype)
        if self.step is not None and not self.step > 0:
            raise InputError(f"step must be positive, got {self.step!r}")
        NeuralSDE(lambda u, t: u, lambda u, t: u, regularizer=regularizer, **self.solver())


@final
class StochasticClassifier(nn.Module):
    """Pixels, a linear layer, the end of a trajectory in [0, 1], and another linear layer. In evaluation mode the
    scores are the mean over several trajectories, whose noise is the same in every call.

    Args:
        sde: of the channels.
        pixels, channels, classes: their numbers.
        trajectories: of a prediction.
    """

    def __init__(self, sde: NeuralSDE, pixels: int, channels: int, classes: int, trajectories: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(pixels, channels)
        self.sde = sde
        self.classifier = nn.Linear(channels, classes)
        self.trajectories = trajectories

    def forward(self, image: Tensor) -> tuple[Tensor, Solution]:
        """Logarithms of probabilities up to a constant, `(n, classes)`, of images `(n, pixels)`, and the solution, of
        batch `(n,)`, or `(trajectories, n)` in evaluation mode."""
        initial = self.encoder(image)
        if self.training:
            end, solution = self.sde(initial)
            return self.classifier(end), solution
        end, solution = self.sde(initial.expand(self.trajectories, *initial.shape), seed=_SEED)
        return self.classifier(end).mean(0), solution


@dataclass(frozen=True, kw_only=True)
class StochasticClassification(StochasticProblem):
    """Images classified by a neural SDE: a drift of two layers with tanh, and a linear diffusion.

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, section 4.2.2: the model there is for MNIST.

    Args:
        channels: of the state.
        hidden: channels between the two layers of the drift.
        trajectories: of a prediction.
    """

    channels: int = 32
    hidden: int = 64
    trajectories: int = 10
    tolerance: float = 0.14
    headline: ClassVar[str] = "accuracy"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "error": {"weight": 12.0, "reduction": "mean", "rows": "together"},
        "error-squared": {"weight": 10.0, "reduction": "mean", "rows": "together"},
        "stiffness": {"weight": 1.0, "reduction": "mean", "step_factor": False},
        "error+stiffness": {
            "weight": 10.0,
            "reduction": "mean",
            "rows": "together",
            "stiffness": 0.01,
            "stiffness_reduction": "mean",
            "stiffness_step_factor": False,
        },
        "local-error": {"weight": 10.0},
        "local-stiffness": {"weight": 1.0},
        "steer": {"width": 0.5},
        "steer+error": {"weight": 12.0, "reduction": "mean", "rows": "together", "width": 0.5},
    }

    def __post_init__(self) -> None:
        check_counts(channels=self.channels, hidden=self.hidden, trajectories=self.trajectories)
        self.check(None)

    @abstractmethod
    def images(self) -> Images:
        """What is classified."""

    def data(self) -> Data:
        return data_of(self.images())

    def outcome(self, model: Any, batch: Mapping[str, Tensor], step: int) -> Outcome:
        scores, solution = model(batch["image"])
        penalty, evaluations = of_rows(solution, len(scores))
        return classified(scores, batch["label"], penalty, evaluations)

    def classifier(self, pixels: int, classes: int, regularizer: Regularizer | None) -> StochasticClassifier:
        """The model."""
        drift = Autonomous((self.channels, self.hidden, self.channels), last=True)
        diffusion = Autonomous((self.channels, self.channels))
        sde = NeuralSDE(drift, diffusion, interval=(0.0, 1.0), regularizer=regularizer, **self.solver())
        return StochasticClassifier(sde, pixels, self.channels, classes, self.trajectories).to(DTYPES[self.dtype])


@final
@dataclass(frozen=True, kw_only=True)
class DigitsSDE(StochasticClassification):
    """Scikit-learn's digits; see `StochasticClassification`."""

    name: ClassVar[str] = "digits-sde"

    def images(self) -> Images:
        return digits(DTYPES[self.dtype])

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        return self.classifier(64, 10, regularizer)


@final
@dataclass(frozen=True, kw_only=True)
class MnistSDE(StochasticClassification):
    """MNIST, or a data set in its format with images of 28 x 28 pixels in ten classes; see `StochasticClassification`.

    Args:
        folder: of its files, see `read_mnist`.
    """

    folder: str
    dtype: Dtype = "float32"
    name: ClassVar[str] = "mnist-sde"

    def images(self) -> Images:
        return read_mnist(self.folder, DTYPES[self.dtype], pixels=784, classes=10)

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        return self.classifier(784, 10, regularizer)


@final
class StochasticTrajectories(nn.Module):
    """Moments of trajectories at fixed times, over noise that is drawn anew in training, and the same in every call in
    evaluation mode.

    Args:
        sde: of the states.
        times: `(times,)`, float64, increasing.
        trajectories: that the moments are taken over in training.
        predicted: in evaluation mode.
    """

    def __init__(self, sde: NeuralSDE, times: Tensor, trajectories: int, predicted: int) -> None:
        super().__init__()
        self.sde = sde
        self.times = tuple(times.tolist())
        self.trajectories, self.predicted = trajectories, predicted

    def forward(self, initial: Tensor) -> tuple[Tensor, Tensor, Solution]:
        """Means and variances `(n, times, channels)` from initial values `(n, channels)`, and the solution, of batch
        `(trajectories, n)`."""
        count = self.trajectories if self.training else self.predicted
        starts = initial.expand(count, *initial.shape)
        value, solution = self.sde(starts, self.times, seed=None if self.training else _SEED)
        return value.mean(0), value.var(0), solution


@final
@dataclass(frozen=True, kw_only=True)
class SpiralSDE(StochasticProblem):
    """A stochastic spiral whose means and variances a neural SDE is to have: a drift that cubes the state before its
    two layers, and a linear diffusion. See `stochastic_spiral`.

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, section 4.2.1. The loss is the mean over times and
    channels of the squared differences of the means plus those of the variances.

    Args:
        hidden: channels between the two layers of the drift.
        trajectories: that the model's moments are taken over in training.
        predicted: in evaluation mode.
        points: times from 0 to 1.
        observed: trajectories that the moments of the data are taken over.
    """

    hidden: int = 50
    trajectories: int = 100
    predicted: int = 1000
    points: int = 30
    observed: int = 10_000
    tolerance: float = 0.3
    name: ClassVar[str] = "spiral-sde"
    headline: ClassVar[str] = "loss"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "error": {"weight": 0.2, "rows": "together"},
        "error-squared": {"weight": 0.02, "rows": "together"},
        "stiffness": {"weight": 0.01, "reduction": "mean"},
        "error+stiffness": {"weight": 0.2, "rows": "together", "stiffness": 0.05, "stiffness_reduction": "mean"},
        "local-error": {"weight": 0.2},
        "local-stiffness": {"weight": 0.01},
        "steer": {"width": 0.1},
        "steer+error": {"weight": 0.2, "rows": "together", "width": 0.1},
    }

    def __post_init__(self) -> None:
        check_counts(hidden=self.hidden)
        for name in ("trajectories", "predicted", "points", "observed"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} must be at least 2, got {getattr(self, name)}")
        self.check(None)

    def data(self) -> Data:
        dtype = DTYPES[self.dtype]

        def moments(seed: int) -> TensorSamples:
            found = stochastic_spiral(self.points, trajectories=self.observed, dtype=dtype, seed=seed)
            return TensorSamples(initial=found.mean[:1], mean=found.mean[None], variance=found.variance[None])

        return Data(moments(0), moments(1))

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        times = torch.linspace(0.0, 1.0, self.points, dtype=torch.float64)
        drift, diffusion = Autonomous((2, self.hidden, 2), cubed=True), Autonomous((2, 2))
        sde = NeuralSDE(drift, diffusion, interval=(0.0, 1.0), regularizer=regularizer, **self.solver())
        return StochasticTrajectories(sde, times, self.trajectories, self.predicted).to(DTYPES[self.dtype])

    def outcome(self, model: Any, batch: Mapping[str, Tensor], step: int) -> Outcome:
        mean, variance, solution = model(batch["initial"])
        error = (mean - batch["mean"]).square() + (variance - batch["variance"]).square()
        penalty, evaluations = of_rows(solution, len(mean))
        return Outcome(error.mean((1, 2)), penalty, evaluations, {})
