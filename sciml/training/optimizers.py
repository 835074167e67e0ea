"""Optimizers: settings from which torch's are built when the network is where it will be trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from ..errors import InputError


class Optimizer(ABC):
    """The settings of an optimizer. Derive from it to train with any optimizer of torch's interface.

    A checkpoint holds the tensors and numbers of its `state_dict`, and a run is resumed with them.
    """

    @abstractmethod
    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the network's parameters, which lie on their device; its rates are those of the peak."""


@final
@dataclass(frozen=True)
class Adam(Optimizer):
    """Kingma and Ba (2015), algorithm 1; `weight_decay` times the weights is added to the gradient (coupled).

    Args:
        rate: learning rate at the schedule's factor 1, dimensionless.
        betas: decay of the means of the gradient and of its square, dimensionless, each in [0, 1).
        epsilon: added to the root of the second mean, dimensionless.
        weight_decay: dimensionless.
    """

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", _check(self.rate, self.betas, self.epsilon, self.weight_decay))

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        trained = parameters(network)
        return torch.optim.Adam(
            trained, self.rate, self.betas, self.epsilon, self.weight_decay, fused=_can_be_fused(trained)
        )


@final
@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay: Loshchilov and Hutter (2019), algorithm 2.

    Args:
        rate: learning rate at the schedule's factor 1, dimensionless.
        betas: decay of the means of the gradient and of its square, dimensionless, each in [0, 1).
        epsilon: added to the root of the second mean, dimensionless.
        weight_decay: what is taken off the weights in a step, in units of the rate, dimensionless.
    """

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", _check(self.rate, self.betas, self.epsilon, self.weight_decay))

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        trained = parameters(network)
        return torch.optim.AdamW(
            trained, self.rate, self.betas, self.epsilon, self.weight_decay, fused=_can_be_fused(trained)
        )


@final
@dataclass(frozen=True)
class Adamax(Optimizer):
    """Kingma and Ba (2015), algorithm 2: Adam with the decayed maximum of the gradient in place of its mean square.

    Args:
        rate: learning rate at the schedule's factor 1, dimensionless.
        betas: decay of the mean of the gradient and of its maximum, dimensionless, each in [0, 1).
        epsilon: added to the gradient's size before the maximum, dimensionless.
        weight_decay: times the weights is added to the gradient, dimensionless.
    """

    rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", _check(self.rate, self.betas, self.epsilon, self.weight_decay))

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adamax(parameters(network), self.rate, self.betas, self.epsilon, self.weight_decay)


@final
@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with Polyak's or Nesterov's momentum: Sutskever et al. (2013), section 2.

    The velocity is the momentum times itself plus the gradient; a step is the rate times it.

    Args:
        rate: learning rate at the schedule's factor 1, dimensionless.
        momentum: dimensionless, in [0, 1).
        nesterov: look ahead along the velocity.
        weight_decay: times the weights is added to the gradient, dimensionless.
    """

    rate: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.rate, (0.0, 0.0), 0.0, self.weight_decay)
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be at least 0 and below 1, got {self.momentum}")
        if self.nesterov and self.momentum == 0:
            raise InputError("nesterov looks ahead along a momentum, and it is 0")

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        trained = parameters(network)
        return torch.optim.SGD(
            trained,
            self.rate,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=_can_be_fused(trained),
        )


def parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained.

    Raises:
        InputError: there are none.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError(f"{type(network).__name__} has no parameter with requires_grad=True: nothing can be trained")
    return trained


def _can_be_fused(trained: list[nn.Parameter]) -> bool:
    return all(parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in trained)


def _check(rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float) -> tuple[float, float]:
    if not 0 < rate < math.inf:
        raise InputError(f"rate must be positive and finite, got {rate}")
    if len(betas) != 2 or any(not 0 <= beta < 1 for beta in betas):
        raise InputError(f"betas are two numbers, at least 0 and below 1, got {betas}")
    if not 0 <= epsilon < math.inf:
        raise InputError(f"epsilon must be at least 0 and finite, got {epsilon}")
    if not 0 <= weight_decay < math.inf:
        raise InputError(f"weight_decay must be at least 0 and finite, got {weight_decay}")
    return (betas[0], betas[1])
