"""Other people's networks: MgNO as one would write it in PyTorch from its description, and neuraloperator's FNO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.operators import MgNO

Levels = Sequence[tuple[int, int]]


class PlainLevel(nn.Module):
    """The convolutions of one grid: A and S of its smoothing steps, and the transfers to the next coarser grid."""

    def __init__(self, f: int, u: int, steps: int, finest: bool, coarsest: bool) -> None:
        super().__init__()
        from_zero = 1 if finest else 0  # a step from u = 0 has no A
        self.a = nn.ModuleList(nn.Conv2d(u, f, 3, padding=1, bias=False) for _ in range(steps - from_zero))
        self.s = nn.ModuleList(nn.Conv2d(f, u, 3, padding=1, bias=False) for _ in range(steps))
        self.down_f: nn.Conv2d | None = None
        self.down_u: nn.Conv2d | None = None
        self.up: nn.ConvTranspose2d | None = None
        if not coarsest:
            self.down_f = nn.Conv2d(f, f, 3, stride=2, padding=1, bias=False)
            self.down_u = nn.Conv2d(u, u, 3, stride=2, padding=1, bias=False)
            self.up = nn.ConvTranspose2d(u, u, 4, stride=2, padding=1, bias=False)

    def smooth(self, u: Tensor | None, f: Tensor) -> Tensor:
        """All smoothing steps of this grid."""
        steps = list(self.s)
        if u is None:
            u = steps.pop(0)(f)
        for a, s in zip(self.a, steps, strict=True):
            u = u + s(f - a(u))
        return cast(Tensor, u)


class PlainMgNO(nn.Module):
    """MgNO with its published settings for Darcy flow, without any care for speed.

    Zero padding, smoothing before the coarser grids only, right side and u restricted, on 2^k points an axis.

    He, Liu and Xu, MgNO: Efficient Parameterization of Linear Operators via Multigrid, ICLR 2024.

    Args:
        channels: of every layer and grid.
        layers: their number.
        steps: smoothing steps on each grid, finest first.
    """

    def __init__(self, channels: int = 24, layers: int = 4, steps: Sequence[int] = (1, 1, 1, 1, 1, 2)) -> None:
        super().__init__()
        inward = [1, *[channels] * (layers - 1)]
        last = len(steps) - 1
        self.cycles = nn.ModuleList(
            nn.ModuleList(PlainLevel(f, channels, n, i == 0, i == last) for i, n in enumerate(steps)) for f in inward
        )
        self.mix = nn.ModuleList(nn.Conv2d(f, channels, 1) for f in inward)
        self.head = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Fields `(batch, 1, n, n)` to the same."""
        for levels, mix in zip(self.cycles, self.mix, strict=True):
            x = functional.gelu(_cycle(list(cast(nn.ModuleList, levels)), x) + mix(x))
        return cast(Tensor, self.head(x))


def _cycle(levels: Sequence[Any], f: Tensor) -> Tensor:
    sides, answers, u = [f], [], None
    for level in levels:
        u = level.smooth(u, sides[-1])
        answers.append(u)
        if level.up is not None:
            sides.append(level.down_f(sides[-1]))
            u = level.down_u(u)
    for level, fine in zip(reversed(levels[:-1]), reversed(answers[:-1]), strict=True):
        u = fine + level.up(u)
    return cast(Tensor, u)


@torch.no_grad()
def take_weights(plain: PlainMgNO, ours: MgNO) -> None:
    """Give the plain network the weights of ours, which must have the same settings."""
    cycles: Any = plain.cycles
    theirs: Any = ours.cycles
    for levels, layer in zip(cycles, theirs, strict=True):
        for level, other in zip(levels, layer.levels, strict=True):
            residuals = [item for item in other.residual_before if not isinstance(item, nn.Identity)]
            pairs = [*zip(level.a, residuals, strict=True), *zip(level.s, other.smooth_before, strict=True)]
            if level.up is not None:
                pairs += [
                    (level.down_f, other.restrict),
                    (level.down_u, other.restrict_start),
                    (level.up, other.prolong),
                ]
            for convolution, part in pairs:
                convolution.weight.copy_(part.kernel.weight)
    mixing: Any = ours.mixing
    for convolution, linear in zip(plain.mix, mixing, strict=True):
        cast(nn.Conv2d, convolution).weight.copy_(linear.weight[..., None, None])
        cast(Tensor, cast(nn.Conv2d, convolution).bias).copy_(linear.bias)
    plain.head.weight.copy_(ours.project.weight[..., None, None])


class NeuraloperatorFNO(nn.Module):
    """neuraloperator's FNO, with what is not named here as that library has it by default.

    Args:
        in_channels, out_channels: of the input and of the result.
        modes: wave numbers kept along each axis.
        width: hidden channels.

    Raises:
        ModuleNotFoundError: neuraloperator is not installed.
    """

    any_resolution = True
    """Whether fields on a finer grid than that of the training are answered as well as there."""

    def __init__(self, *, in_channels: int, out_channels: int, modes: Sequence[int], width: int) -> None:
        super().__init__()
        from neuralop.models import FNO

        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "modes": list(modes),
            "width": width,
        }
        self.model = FNO(
            n_modes=tuple(modes), in_channels=in_channels, out_channels=out_channels, hidden_channels=width
        )
        # It puts its settings among the tensors of the state, which then is none that could be loaded.
        self.register_state_dict_post_hook(_without_settings)

    def forward(self, x: Tensor) -> Tensor:
        """Fields `(batch, in_channels, *space)` to `(batch, out_channels, *space)`."""
        return cast(Tensor, self.model(x))


def _without_settings(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    state.pop("_metadata", None)


def real_numbers(network: nn.Module) -> int:
    """How many real numbers are trained; a complex one counts as two."""
    return sum(item.numel() * (2 if item.is_complex() else 1) for item in network.parameters())
