"""Right-hand sides of small neural differential equations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn


@final
class TimeLinear(nn.Module):
    """A linear layer whose bias changes linearly in time: what a layer is to which the time is given as one input more.

    Its weights begin as those of torch.nn.Linear(inputs + 1, outputs).

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        whole = nn.Linear(inputs + 1, outputs)
        self.weight = nn.Parameter(whole.weight.detach()[:, :inputs].clone())
        self.speed = nn.Parameter(whole.weight.detach()[:, inputs].clone())
        self.bias = nn.Parameter(whole.bias.detach().clone())

    def forward(self, u: Tensor, t: Any) -> Tensor:
        return nn.functional.linear(u, self.weight, self.bias + t * self.speed)


@final
class TimeDependent(nn.Module):
    """Layers that are given the time, with tanh after each of them, or after all but the last.

    Args:
        sizes: channels from the input to the output.
        last: whether tanh stands behind the last layer, too.
    """

    def __init__(self, sizes: Sequence[int], *, last: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TimeLinear(one, other) for one, other in pairwise(sizes))
        self.last = last

    def forward(self, u: Tensor, t: Any) -> Tensor:
        for number, layer in enumerate(self.layers, 1):
            u = layer(u, t)
            if self.last or number < len(self.layers):
                u = torch.tanh(u)
        return u


@final
class Autonomous(nn.Module):
    """Linear layers with tanh after all but the last, for a right-hand side that does not depend on the time.

    Args:
        sizes: channels from the input to the output.
        cubed: whether the input is cubed first, element by element.
        last: whether tanh stands behind the last layer, too.
        scale: factor of the last layer's weights and biases before training; of torch.nn.Linear's.
    """

    def __init__(self, sizes: Sequence[int], *, cubed: bool = False, last: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(sizes))
        self.cubed, self.last = cubed, last
        if scale != 1.0:
            with torch.no_grad():
                for parameter in self.layers[-1].parameters():
                    parameter.mul_(scale)

    def forward(self, u: Tensor, t: Any) -> Tensor:
        if self.cubed:
            u = u * u * u
        for number, layer in enumerate(self.layers, 1):
            u = layer(u)
            if self.last or number < len(self.layers):
                u = torch.tanh(u)
        return u


@final
class Perceptron(nn.Module):
    """Linear layers with tanh between them, or sines for functions that oscillate.

    With sines: Sitzmann, Martel, Bergman, Lindell and Wetzstein, "Implicit Neural Representations with Periodic
    Activation Functions", NeurIPS 2020, who have the frequency in every layer and smaller weights in all but the first.

    Gated, each sine of the first layer has an amplitude, which is a linear function of the input. Two layers are then
    a spiral a cos(c) - b sin(c) of inputs a, b and c that are linear in time.

    Args:
        sizes: channels from the input to the output.
        frequency: factor of the first layer's output before the sine, in radians; None: tanh.
        gated: whether what the first layer gives, after its sine or tanh, is multiplied by a linear function of the
            input.
    """

    def __init__(self, sizes: Sequence[int], *, frequency: float | None = None, gated: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(sizes))
        self.gate = nn.Linear(sizes[0], sizes[1]) if gated else None
        self.frequency = frequency

    def forward(self, u: Tensor) -> Tensor:
        *inner, last = self.layers
        gate = None if self.gate is None else self.gate(u)
        for place, layer in enumerate(inner):
            u = layer(u)
            if self.frequency is None:
                u = torch.tanh(u)
            else:
                u = torch.sin(self.frequency * u if place == 0 else u)
            if gate is not None and place == 0:
                u = gate * u
        value: Tensor = last(u)
        return value
