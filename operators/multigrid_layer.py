"""The linear operator of MgNO between fields of several channels: one multigrid cycle whose every part is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from sciml.errors import InputError
from sciml.kernels import convolution

from .padding import Sides, pad_by_one

Cycle = Literal["V", "W"]
Restriction = Literal["right_side", "residual"]
CoarseStart = Literal["restricted", "zero"]

Steps = convolution.Tape | convolution.Plain

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_RESIZING = ("linear", "bilinear", "trilinear")


class MultigridLayer(nn.Module):
    """u = W f: one cycle of multigrid from u = 0, with learned convolutions in place of its operators.

    On each level l, from the finest (0), stand smoothing steps u <- u + S (f - A u); then restrictions f' = R f, or
    R (f - A u), and u' = Pi u, or 0; the coarser level; u <- u + P u'; and smoothing steps again. A and S are
    convolutions of 3 points an axis, R and Pi the same with stride 2, P is transposed with stride 2. A level has
    ceil(n/2) points of the finer one's n, so that every grid has as many levels as are asked for. Without bias W is
    linear.

    He, Liu and Xu, MgNO: Efficient Parameterization of Linear Operators via Multigrid, ICLR 2024, sections 3.2-3.3.
    The paper restricts the residual and starts at zero; the authors' programs restrict the right side, and u too.

    Args:
        in_channels: of the right side f.
        channels: of u, one number for all levels or one a level; where they grow, those of f grow with them.
        levels: smoothing steps before and after the coarser levels, one pair a level; (1, 0) on every level is a
            backslash cycle.
        dimension: number of axes of space, 1 to 3.
        sides: how fields go on beyond the walls, on all levels and in all transfers.
        cycle: "V" visits a coarser level once, "W" twice.
        restriction: what R takes: the "right_side" f or the "residual" f - A u.
        coarse_start: u on the coarser level: "restricted" from the finer one, or "zero".
        bias: whether A and S add a constant to each channel.
        prolongation: points an axis of P's kernel, 3 or 4, one for all levels or one a level from the finest.
        normalized: shape of a grid on which to hold the weights and biases of a layer normalization of the corrected u
            on all levels but the coarsest (they are interpolated to other grids), or None for no normalization.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int | Sequence[int],
        levels: Sequence[tuple[int, int]],
        dimension: int,
        sides: Sides,
        *,
        cycle: Cycle = "V",
        restriction: Restriction = "right_side",
        coarse_start: CoarseStart = "restricted",
        bias: bool = False,
        prolongation: int | Sequence[int] = 4,
        normalized: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _check(levels, channels, cycle, restriction, coarse_start)
        transfers = len(levels) - 1
        kernels = [prolongation] * transfers if isinstance(prolongation, int) else list(prolongation)
        if len(kernels) != transfers or any(kernel not in (3, 4) for kernel in kernels):
            raise InputError(
                f"prolongation: 3 or 4, or one of them for each of {transfers} transfers, got {prolongation}"
            )
        self.visits = 1 if cycle == "V" else 2
        self.zeros_outside = all(pair == ("zeros", "zeros") for pair in sides)
        self.normalized = normalized is not None

        of_u = [channels] * len(levels) if isinstance(channels, int) else list(channels)
        of_f = [max(1, in_channels * number // of_u[0]) for number in of_u]
        self.levels = nn.ModuleList()
        for number, (before, after) in enumerate(levels):
            u, f = of_u[number], of_f[number]
            level = Level(f, u, dimension, sides, bias, before, after)
            if number == 0 or (coarse_start == "zero" and cycle == "V"):
                level.residual_before[0] = nn.Identity()  # a step from u = 0 needs no A
            if number < transfers:
                if restriction == "residual":
                    level.residual = Convolution(u, f, dimension, sides, bias=bias)
                level.restrict = Convolution(f, of_f[number + 1], dimension, sides, stride=2)
                if coarse_start == "restricted":
                    level.restrict_start = Convolution(u, of_u[number + 1], dimension, sides, stride=2)
                level.prolong = Prolongation(of_u[number + 1], u, dimension, sides, kernels[number])
                if normalized is not None:
                    level.normalize = LayerNormalization(u, [-(-n // 2**number) for n in normalized])
            self.levels.append(level)

    def forward(self, f: Tensor, mixing: nn.Linear | None = None) -> Tensor:
        """Right side `(batch, in_channels, *space)` to u `(batch, channels, *space)`.

        Where a `mixing` is given, from in_channels to channels, u + mixing f at each point.
        """
        if not self.has_kernels(f) or (mixing is not None and not convolution.applies(f, mixing.weight)):
            u = self._cycle(0, None, f, None)
            return u if mixing is None else at_points(mixing, f, u)
        if mixing is None:
            return self._run(lambda steps, f: self._cycle(0, None, f, steps), f)
        kernel, bias = mixing.weight[:, :, None, None], mixing.bias
        return self._run(
            lambda steps, f: steps.gather(f, kernel, 1, self._cycle(0, None, f, steps), bias=bias), f, kernel, bias
        )

    def _run(self, function: Callable[[Steps, Tensor], Tensor], f: Tensor, *weights: Tensor) -> Tensor:
        if self.normalized or any(map(parametrize.is_parametrized, self.modules())):
            return function(convolution.PLAIN, f)  # steps between tensors that are not only parameters
        return convolution.recorded(function, f, [*self.parameters(), *weights])

    def has_kernels(self, f: Tensor) -> bool:
        """Whether it runs by the compiled kernels, where its convolutions are not called, and have no hooks."""
        inner = (module for module in self.modules() if module is not self)
        hooked = any(module._forward_pre_hooks or module._forward_hooks for module in inner)
        return self.zeros_outside and not hooked and convolution.applies(f, next(self.parameters()))

    def _cycle(self, number: int, u: Tensor | None, f: Tensor, steps: Steps | None) -> Tensor:
        level = cast(Level, self.levels[number])
        for residual, smooth in zip(level.residual_before, level.smooth_before, strict=True):
            u = smooth(f, steps=steps) if u is None else smooth(residual(u, f, -1, steps), u, 1, steps)
        if level.restrict is not None and level.prolong is not None:
            coarse_f = f if level.residual is None else level.residual(u, f, -1, steps)
            coarse_f = level.restrict(coarse_f, steps=steps)
            coarse_u = None if level.restrict_start is None else level.restrict_start(u, steps=steps)
            for _ in range(self.visits):
                coarse_u = self._cycle(number + 1, coarse_u, coarse_f, steps)
            u = level.prolong(coarse_u, u, steps)
            if level.normalize is not None:
                u = level.normalize(u)
        for residual, smooth in zip(level.residual_after, level.smooth_after, strict=True):
            u = smooth(residual(u, f, -1, steps), u, 1, steps)
        return cast(Tensor, u)


class Level(nn.Module):
    """The parts of one level: A and S of every smoothing step, and the transfers, which the coarsest level lacks."""

    def __init__(self, f: int, u: int, dimension: int, sides: Sides, bias: bool, before: int, after: int) -> None:
        super().__init__()

        def several(number: int, inward: int, outward: int) -> nn.ModuleList:
            return nn.ModuleList(Convolution(inward, outward, dimension, sides, bias=bias) for _ in range(number))

        self.residual_before = several(before, u, f)
        self.smooth_before = several(before, f, u)
        self.residual_after = several(after, u, f)
        self.smooth_after = several(after, f, u)
        self.residual: Convolution | None = None
        self.restrict: Convolution | None = None
        self.restrict_start: Convolution | None = None
        self.prolong: Prolongation | None = None
        self.normalize: LayerNormalization | None = None


class Convolution(nn.Module):
    """A convolution of 3 points an axis; with stride 2 it leaves ceil(n/2) of n points."""

    def __init__(
        self, in_channels: int, channels: int, dimension: int, sides: Sides, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.sides = sides
        self.within = all(pair == ("zeros", "zeros") for pair in sides)
        kind = _CONVOLUTIONS[dimension - 1]
        self.kernel = kind(in_channels, channels, 3, stride=stride, padding=1 if self.within else 0, bias=bias)

    def forward(self, x: Tensor, add: Tensor | None = None, sign: int = 1, steps: Steps | None = None) -> Tensor:
        """`add + sign K x`, from `(batch, in_channels, *space)` to `(batch, channels, *space)`.

        add is 0 where it is None. steps are given where there are compiled kernels for fields like these.
        """
        if steps is not None:
            return steps.gather(x, self.kernel.weight, self.kernel.stride[0], add, sign, self.kernel.bias)
        y: Tensor = self.kernel(x if self.within else pad_by_one(x, self.sides))
        return y if add is None else torch.add(add, y, alpha=sign)


class Prolongation(nn.Module):
    """A transposed convolution with stride 2, from m points along an axis to 2 m or 2 m - 1."""

    def __init__(self, in_channels: int, channels: int, dimension: int, sides: Sides, points: int) -> None:
        super().__init__()
        self.sides = sides
        self.within = all(pair == ("zeros", "zeros") for pair in sides)
        self.kernel = _TRANSPOSED[dimension - 1](
            in_channels, channels, points, stride=2, padding=1 if self.within else 3, bias=False
        )

    def forward(self, x: Tensor, add: Tensor, steps: Steps | None = None) -> Tensor:
        """`add + P x`, from `(batch, in_channels, *coarse)` to `(batch, channels, *space)`, the shape of `add`."""
        space = add.shape[2:]
        if steps is not None:
            return steps.spread(x, self.kernel.weight, 2, space, add)
        if not self.within:
            x = pad_by_one(x, self.sides)
        fine: Tensor = self.kernel(x, [n + n % 2 for n in space] if self.kernel.kernel_size[0] == 4 else list(space))
        for axis, n in enumerate(space, 2):
            if fine.shape[axis] != n:
                fine = fine.narrow(axis, 0, n)
        return add + fine


class LayerNormalization(nn.Module):
    """Layer normalization over channels and space, with a weight and a bias for each channel and point.

    Weight and bias are held on one grid and interpolated multilinearly to others.
    """

    def __init__(self, channels: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, *shape))
        self.bias = nn.Parameter(torch.zeros(channels, *shape))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channel, *space)` to the same."""
        weight, bias = self.weight, self.bias
        if x.shape[1:] != weight.shape:
            mode = _RESIZING[x.dim() - 3]
            both = torch.stack((weight, bias))
            weight, bias = functional.interpolate(both, size=x.shape[2:], mode=mode, align_corners=False)
        return functional.layer_norm(x, x.shape[1:], weight, bias)


def at_points(linear: nn.Linear, u: Tensor, add: Tensor | None = None) -> Tensor:
    """A linear map of the channels of each point, `(batch, channel, *space)` to the same, added to what is given."""
    weight = linear.weight[:, :, None, None]
    if convolution.applies(u, weight):
        return convolution.gather(u, weight, 1, add, bias=linear.bias)
    mixed: Tensor = linear(u.movedim(1, -1)).movedim(-1, 1)
    return mixed if add is None else add + mixed


def _check(
    levels: Sequence[tuple[int, int]], channels: int | Sequence[int], cycle: str, restriction: str, coarse_start: str
) -> None:
    for name, value, allowed in (
        ("cycle", cycle, get_args(Cycle)),
        ("restriction", restriction, get_args(Restriction)),
        ("coarse_start", coarse_start, get_args(CoarseStart)),
    ):
        if value not in allowed:
            raise InputError(f"{name}: {value!r} is none of {', '.join(map(repr, allowed))}")
    if not levels or any(len(level) != 2 or min(level) < 0 for level in levels):
        raise InputError(f"levels: a pair (steps before, steps after) for each level is needed, got {levels!r}")
    if not isinstance(channels, int) and len(channels) != len(levels):
        raise InputError(
            f"channels: {len(channels)} numbers for {len(levels)} levels; give one for each, or one for all"
        )
    first = levels if coarse_start == "zero" else levels[:1]
    if any(before == 0 for before, _ in first):
        where = "every level" if coarse_start == "zero" else "the finest level"
        raise InputError(f"levels: u begins at zero on {where}, which needs a smoothing step before the coarser levels")
