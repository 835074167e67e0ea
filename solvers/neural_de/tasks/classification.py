"""Images that are told apart by the end of a trajectory that begins at them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from sciml.solution import Solution
from sciml.training import TensorSamples

from ..layers import TimeDependent
from ..ode import NeuralODE
from ..regularizers import Regularizer
from .data import Images
from .digits import digits
from .mnist import read_mnist
from .problem import DTYPES, Data, Dtype, OrdinaryProblem, Outcome, check_counts, of_rows


@final
class OrdinaryClassifier(nn.Module):
    """Pixels, the end of their trajectory in [0, 1], and a linear layer.

    Args:
        ode: on the pixels.
        pixels, classes: their numbers.
    """

    def __init__(self, ode: NeuralODE, pixels: int, classes: int) -> None:
        super().__init__()
        self.ode = ode
        self.classifier = nn.Linear(pixels, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Solution]:
        """Logarithms of probabilities up to a constant, `(n, classes)`, of images `(n, pixels)`, and the solution."""
        end, solution = self.ode(image)
        return self.classifier(end), solution


@dataclass(frozen=True, kw_only=True)
class OrdinaryClassification(OrdinaryProblem):
    """Images classified by a neural ODE whose right-hand side has two layers, both given the time, with tanh.

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, section 4.1.1: the model there is for MNIST, with
    tolerance 1.4e-8.

    Args:
        hidden: channels between the two layers.
        last: whether tanh stands behind the second layer, as in that paper's program, or not, as in that of "Locally
            Regularized Neural Differential Equations", ICML 2023.
    """

    hidden: int = 100
    last: bool = True
    tolerance: float = 1.4e-8
    headline: ClassVar[str] = "accuracy"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "error": {"weight": 3.0, "last_weight": 0.03, "reduction": "mean", "rows": "together"},
        "error-squared": {"weight": 3.0, "last_weight": 0.03, "reduction": "mean", "rows": "together"},
        "stiffness": {"weight": 0.0285, "reduction": "max", "step_factor": False},
        "error+stiffness": {
            "weight": 3.0,
            "last_weight": 0.03,
            "reduction": "mean",
            "rows": "together",
            "stiffness": 0.01,
            "stiffness_reduction": "max",
            "stiffness_step_factor": False,
        },
        "local-error": {"weight": 1.0, "last_weight": 0.1},
        "local-stiffness": {"weight": 0.0285},
        "steer": {"width": 0.5},
        "steer+error": {"weight": 3.0, "last_weight": 0.03, "reduction": "mean", "rows": "together", "width": 0.5},
        "taylor": {"weight": 3.02e-3, "order": 3},
        "kinetic": {"weight": 0.01},
        "jacobian": {"weight": 0.01},
        "kinetic+jacobian": {"weight": 0.01},
    }

    def __post_init__(self) -> None:
        check_counts(hidden=self.hidden)
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

    def classifier(self, pixels: int, classes: int, regularizer: Regularizer | None) -> OrdinaryClassifier:
        """The model."""
        rate = TimeDependent((pixels, self.hidden, pixels), last=self.last)
        ode = NeuralODE(rate, interval=(0.0, 1.0), regularizer=regularizer, **self.solver())
        return OrdinaryClassifier(ode, pixels, classes).to(DTYPES[self.dtype])


@final
@dataclass(frozen=True, kw_only=True)
class DigitsODE(OrdinaryClassification):
    """Scikit-learn's digits; see `OrdinaryClassification`."""

    name: ClassVar[str] = "digits-ode"

    def images(self) -> Images:
        return digits(DTYPES[self.dtype])

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        return self.classifier(64, 10, regularizer)


@final
@dataclass(frozen=True, kw_only=True)
class MnistODE(OrdinaryClassification):
    """MNIST, or a data set in its format with images of 28 x 28 pixels in ten classes; see `OrdinaryClassification`.

    Args:
        folder: of its files, see `read_mnist`.
    """

    folder: str
    dtype: Dtype = "float32"
    name: ClassVar[str] = "mnist-ode"

    def images(self) -> Images:
        return read_mnist(self.folder, DTYPES[self.dtype], pixels=784, classes=10)

    def model(self, regularizer: Regularizer | None) -> nn.Module:
        return self.classifier(784, 10, regularizer)


def data_of(images: Images) -> Data:
    """Images as samples."""
    return Data(
        TensorSamples(image=images.image, label=images.label),
        TensorSamples(image=images.test_image, label=images.test_label),
    )


def classified(scores: Tensor, label: Tensor, penalty: Tensor, evaluations: Tensor) -> Outcome:
    """The cross entropy, in nats, and whether the largest score is that of the label."""
    loss = nn.functional.cross_entropy(scores, label, reduction="none")
    right = (scores.detach().argmax(1) == label).to(torch.float64)
    return Outcome(loss, penalty, evaluations, {"accuracy": right})
