"""One step of training the digits' model: against torchdiffeq, and what the regularizers add to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sciml.solvers.neural_de import NeuralODE, Regularizer
from sciml.solvers.neural_de.tasks import Regularization, digits_ode
from sciml.solvers.time import Controller, ExplicitRungeKutta

from ..bench import Bench, version_of
from ..row import Row
from ..timing import Contender, Outcome
from .methods import SETTINGS, settings

OWN, TORCHDIFFEQ = "Dormand-Prince", "dopri5"
TSITOURAS = "Tsitouras"


@dataclass(frozen=True)
class Digits:
    """The model that is stepped with.

    Args:
        epochs: that it was trained before, without a regularizer.
        batch: images.
        hidden: channels.
        tolerance: relative and absolute, of a step of the solver.
    """

    epochs: int = 10
    batch: int = 256
    hidden: int = 100
    tolerance: float = 1.4e-8

    @property
    def name(self) -> str:
        """Of what is solved."""
        return f"digits, batch {self.batch}, tolerance {self.tolerance:g}"

    @property
    def peers_case(self) -> str:
        """Name of the case with torchdiffeq."""
        return f"forward and backward, {self.name}"

    @property
    def regularizers_case(self) -> str:
        """Name of the case with the regularizers."""
        return f"regularizers, {self.name}"


@dataclass(frozen=True, eq=False)
class Model:
    """What is timed.

    Args:
        rate: (u, t) -> du/dt.
        classifier: of the states at the end.
        image, label: the batch.
        tolerance: of a step.
    """

    rate: Callable[[Tensor, Any], Tensor]
    classifier: nn.Module
    image: Tensor
    label: Tensor
    tolerance: float

    def ode(self, method: ExplicitRungeKutta, regularizer: Regularizer | None = None) -> NeuralODE:
        """The layer, in training mode; one error ratio of the whole batch decides on a step, as torchdiffeq has it."""
        method = replace(method, controller=Controller(rows="mean"))
        return NeuralODE(
            self.rate,
            interval=(0.0, 1.0),
            method=method,
            rtol=self.tolerance,
            atol=self.tolerance,
            regularizer=regularizer,
        )

    def backward(self, end: Tensor, penalty: Tensor | None = None) -> None:
        """The backward pass of the loss."""
        loss = nn.functional.cross_entropy(self.classifier(end), self.label)
        (loss if penalty is None else loss + penalty.mean()).backward()
        self.clear()

    def clear(self) -> None:
        """Forget the gradients."""
        for module in (self.rate, self.classifier):
            if isinstance(module, nn.Module):
                module.zero_grad()


class _Counting:
    """A rate that counts its calls."""

    def __init__(self, rate: Callable[[Tensor, Any], Tensor]) -> None:
        self.rate, self.calls = rate, 0

    def __call__(self, u: Tensor, t: Any) -> Tensor:
        self.calls += 1
        return self.rate(u, t)


def model_of(digits: Digits, device: str) -> Model:
    """A model after a few epochs."""
    options = {"epochs": digits.epochs, "hidden": digits.hidden, "tolerance": digits.tolerance}
    result = digits_ode("none", validate_every=digits.epochs, **options).train(device=device)
    data = result.task.data.training.tensors
    model: Any = result.model.train()
    image, label = (data[name][: digits.batch].to(device) for name in ("image", "label"))
    return Model(model.ode.rate, model.classifier, image, label, digits.tolerance)


def measure_peers(digits: Digits, bench: Bench) -> list[Row]:
    """torchdiffeq and this package with the same method, and this package with its own, in turn."""
    bench.say(f"{digits.peers_case}: training the model")
    model = model_of(digits, bench.device)
    methods = {OWN: ExplicitRungeKutta.dormand_prince(), TSITOURAS: ExplicitRungeKutta.tsit5()}
    contenders = [_own(model, name, method, None, bench.device) for name, method in methods.items()]
    contenders.insert(1, _torchdiffeq(model, bench.device))
    return bench.compare(digits.peers_case, contenders, unknowns=model.image.numel())


def measure_regularizers(digits: Digits, bench: Bench) -> list[Row]:
    """Every regularizer, in turn, on the same steps."""
    bench.say(f"{digits.regularizers_case}: training the model")
    model = model_of(digits, bench.device)
    method = ExplicitRungeKutta.tsit5()
    contenders = []
    for name in SETTINGS:
        regularization = digits_ode(settings("digits-ode", name)).regularization
        contenders.append(_own(model, name, method, regularization, bench.device))
    return bench.compare(digits.regularizers_case, contenders, unknowns=model.image.numel())


def _own(
    model: Model, name: str, method: ExplicitRungeKutta, regularization: Regularization | None, device: str
) -> Contender:
    regularizer = None if regularization is None else regularization.regularizer
    weight = 1.0 if regularization is None else regularization.weight

    def step(model: Model) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            end, solution = model.ode(method, regularizer)(model.image)
        model.backward(end, None if regularizer is None else weight * solution.statistics["penalty"])
        return solution

    def finish(_: Any) -> Outcome:
        counting = _Counting(model.rate)
        steps = int(step(replace(model, rate=counting)).statistics["steps"].max())
        return Outcome(iterations=steps, extra={"evaluations": counting.calls})

    return Contender(name, "sciml", version_of("sciml"), lambda _: step(model), finish, device=device)


def _torchdiffeq(model: Model, device: str) -> Contender:
    from torchdiffeq import odeint

    times = torch.tensor([0.0, 1.0], dtype=model.image.dtype, device=model.image.device)

    def solve(rate: Callable[[Tensor, Any], Tensor]) -> None:
        tolerances = {"rtol": model.tolerance, "atol": model.tolerance}
        value = odeint(lambda t, y: rate(y, t), model.image, times, method="dopri5", **tolerances)
        model.backward(value[-1])

    def finish(_: Any) -> Outcome:
        counting = _Counting(model.rate)
        solve(counting)
        return Outcome(iterations=(counting.calls - 2) // 6, extra={"evaluations": counting.calls})

    return Contender(
        TORCHDIFFEQ, "torchdiffeq", version_of("torchdiffeq"), lambda _: solve(model.rate), finish, device=device
    )
