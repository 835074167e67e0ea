"""What a task is about: data, a model, and what the model's predictions are worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.solution import Solution
from sciml.training import TensorSamples

from ...time import ExplicitRungeKutta
from ...time.control import Controller, Rows
from ..ode import Adjoint, Backend, NeuralODE
from ..regularizers import Regularizer
from .regularization import Regularization

Dtype = Literal["float32", "float64"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Data(NamedTuple):
    """What a model is trained with, and what it is tested on."""

    training: TensorSamples
    test: TensorSamples


@final
@dataclass(frozen=True)
class Fold:
    """A part of the samples for training held out in place of the test, which is not looked at: weights of regularizers
    and the like can be chosen by the mean over all parts.

    Args:
        number: of the part, from 0.
        of: how many parts there are, at least 2; they differ by one sample at most.
        seed: of the order in which the samples are dealt out.

    Raises:
        InputError: there is no such part.
    """

    number: int
    of: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, number, least in (("of", self.of, 2), ("number", self.number, 0)):
            if not isinstance(number, int) or number < least:
                raise InputError(f"Fold: {name} is a whole number, at least {least}, got {number!r}")
        if self.number >= self.of:
            raise InputError(f"Fold: of {self.of} parts the last has the number {self.of - 1}, got {self.number}")

    def divided(self, samples: TensorSamples) -> Data:
        """The other parts for training, and this one as the test.

        Raises:
            InputError: there are fewer samples than parts.
        """
        if len(samples) < self.of:
            raise InputError(f"Fold: {len(samples)} samples for training cannot be divided into {self.of} parts")
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(self.seed))
        parts = order.tensor_split(self.of)
        others = torch.cat([part for number, part in enumerate(parts) if number != self.number])
        own, rest = (TensorSamples(**samples.batch(part)) for part in (parts[self.number], others))
        return Data(rest, own)


class Outcome(NamedTuple):
    """What a model makes of a batch of n samples.

    Attributes:
        loss: `(n,)`, without the regularizer.
        penalty: `(n,)`, of the regularizer, not yet weighted; 0 in evaluation mode.
        evaluations: `(n,)`, of the right-hand side in the solve of the sample.
        values: further ones of each sample by name, `(n,)`.
    """

    loss: Tensor
    penalty: Tensor
    evaluations: Tensor
    values: Mapping[str, Tensor]


class Problem(ABC):
    """Data and a model. Derived classes are frozen dataclasses, whose fields are the keys of a recipe's [task].

    Attributes:
        name: in recipes.
        headline: the value of `Outcome` that tells how good a model is: "loss", or one of its further values.
        usual: settings of regularizers by name, where a recipe or a call does not have them.
    """

    name: ClassVar[str]
    headline: ClassVar[str]
    usual: ClassVar[Mapping[str, Mapping[str, Any]]]

    @abstractmethod
    def check(self, regularizer: Regularizer | None) -> None:
        """Refuse what does not go together, before anything is read or made.

        Raises:
            InputError: settings of the solver out of range, or a regularizer that it cannot have.
        """

    @abstractmethod
    def data(self) -> Data:
        """The samples.

        Raises:
            InputError: files are missing or damaged, or a library is not installed.
        """

    @abstractmethod
    def model(self, regularizer: Regularizer | None) -> nn.Module:
        """A model with weights from torch's default generator."""

    @abstractmethod
    def outcome(self, model: Any, batch: Mapping[str, Tensor], step: int) -> Outcome:
        """What the model makes of a batch.

        Args:
            model: as `model` makes it.
            batch: of the samples of `data`.
            step: batches that the model has been trained with, for a loss that changes in the course of the training.
        """


@dataclass(frozen=True, kw_only=True)
class OrdinaryProblem(Problem):
    """A problem whose model is an ordinary differential equation, solved with Tsitouras' pair of orders 5 and 4, or
    with torchdiffeq's Dormand-Prince.

    Args:
        tolerance: of the error of a step, relative to the state and besides.
        adjoint, backend: see `NeuralODE`.
        rows: what decides on a step, see `Controller`; "mean" is the convention of the papers and of torchdiffeq.
        dtype: of model and data.
    """

    tolerance: float = 1e-6
    adjoint: Adjoint = "recorded"
    backend: Backend = "sciml"
    rows: Rows = "mean"
    dtype: Dtype = "float64"

    def solver(self) -> dict[str, Any]:
        """The settings that models hand on to NeuralODE."""
        method = None
        if self.backend == "sciml":
            controller = Controller(rows=self.rows)
            method = ExplicitRungeKutta(ExplicitRungeKutta.tsit5().tableau, controller)
        return {
            "method": method,
            "rtol": self.tolerance,
            "atol": self.tolerance,
            "adjoint": self.adjoint,
            "backend": self.backend,
            "throw": False,  # the training says at which samples its loss is not finite, and keeps what it has
        }

    def check(self, regularizer: Regularizer | None) -> None:
        check_solver(self.tolerance, self.dtype)
        NeuralODE(lambda u, t: u, regularizer=regularizer, **self.solver())


def check_solver(tolerance: float, dtype: str) -> None:
    """Refuse settings out of range.

    Raises:
        InputError: for a tolerance that is not positive, or an unknown dtype.
    """
    if not (isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance must be positive and finite, got {tolerance!r}")
    if dtype not in DTYPES:
        raise InputError(f"dtype is float32 or float64, got {dtype!r}")


def check_counts(**counts: int) -> None:
    """Refuse sizes that are not positive.

    Raises:
        InputError: naming the first of them.
    """
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")


def of_rows(solution: Solution, count: int) -> tuple[Tensor, Tensor]:
    """Penalty and evaluations of each of a number of samples: of a solution of batch `(*trajectories, count)` the means
    over the trajectories.

    Args:
        solution: of a model.
        count: of samples.
    """
    dtype = solution.value.dtype
    penalty, evaluations = (
        solution.statistics[name].to(dtype).reshape(-1, count).mean(0) for name in ("penalty", "evaluations")
    )
    return penalty, evaluations


@final
class Regularized(nn.Module):
    """A model with its loss: what is trained. Called with a batch it returns values of each sample by name: "loss",
    which has the weighted penalty in training mode, "evaluations", and those of the problem.

    Args:
        problem: that the model belongs to.
        model: as the problem makes it.
        regularization: with the weight of the penalty.
        samples: how many the training is of, which the weight is annealed over.

    Attributes:
        seen: samples that the model was trained with so far; part of its state, so that a training that is resumed
            goes on with the same weight.
        calls: batches so far.
    """

    def __init__(self, problem: Problem, model: nn.Module, regularization: Regularization, samples: int) -> None:
        super().__init__()
        self.problem, self.model, self.regularization, self.samples = problem, model, regularization, samples
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.seen: Tensor
        self.calls: Tensor

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = self.problem.outcome(self.model, batch, int(self.calls))
        loss = found.loss
        if self.training:
            if self.regularization.regularizer is not None:
                loss = loss + self.regularization.at(int(self.seen), self.samples) * found.penalty
            self.seen += len(loss)
            self.calls += 1
        return {"loss": loss, "evaluations": found.evaluations, **found.values}


def loss_of(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of a Regularized, for `sciml.training.train`."""
    found: Tensor = network(batch)["loss"]
    return found


def metrics_of(network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """All values of a Regularized, for the validations of `sciml.training.train`."""
    found: Mapping[str, Tensor] = network(batch)
    return found
