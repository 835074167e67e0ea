"""Relative errors of fields, one number a sample: losses to train with, and figures to report.

Each takes a prediction and the truth, `(n, channel, *space)` in the same physical unit, and gives `(n,)`, without a
dimension; squares are summed over the channels, which therefore must be of one unit (`MeanOverFields` is for fields of
several). Fields in half precision are measured in float32. A truth that is zero everywhere has no relative error: the
answer is infinite, with gradient 0, or 0 where the prediction is zero too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from sciml.boundary import Condition, Dirichlet, Neumann
from sciml.errors import InputError
from sciml.grid import Grid

Wall = Literal["open", "zero", "no flux"]

OperatorLoss = Callable[[Tensor, Tensor], Tensor]
"""Of a prediction and the truth, `(n, channel, *space)` in physical units: one loss a sample, `(n,)`."""


@dataclass(frozen=True)
class RelativeL2:
    """|prediction - truth| / |truth| in the L2 norm of each sample."""

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Errors `(n,)` of fields `(n, channel, *space)`.

        Raises:
            InputError: for fields whose shapes differ.
        """
        error, truth = _scaled(prediction, truth, "RelativeL2")
        return _ratio(_squares(error), _squares(truth))


@dataclass(frozen=True)
class RelativeH1:
    """|prediction - truth| / |truth| in the full H1 norm, |u|^2 = integral of u^2 + |grad u|^2.

    Derivatives are differences across the faces between cells: |u|^2 = (u, u) + (u, A u), with A the negative Laplacian
    by finite volumes. It differs from the integral by a term of second order in the spacing.

    Args:
        spacing: distance of neighbouring points, one number an axis, in the unit of length in which derivatives count.
        periodic: whether the axes are periodic, one bool for all or one an axis; default False.
        walls: what is known of the fields on the faces at the ends of the axes that are not periodic: "zero", they are
            zero there; "no flux", their normal derivative is; "open", nothing (the half cell beside the wall then takes
            the derivative of the nearest face). One word for all, one an axis, or a pair (lower, upper) an axis;
            default "open".

    Raises:
        InputError: for a spacing that is not positive, another word, or not one entry an axis.
    """

    spacing: tuple[float, ...]
    periodic: bool | Sequence[bool] = False
    walls: Wall | Sequence[Wall | Sequence[Wall]] = "open"

    def __post_init__(self) -> None:
        spacing = tuple(float(h) for h in self.spacing)
        if not spacing or not all(h > 0 and isfinite(h) for h in spacing):
            raise InputError(f"RelativeH1: spacing is {self.spacing}; give a positive number for each axis")
        axes = len(spacing)
        wraps = (self.periodic,) * axes if isinstance(self.periodic, bool) else tuple(self.periodic)
        walls = (self.walls,) * axes if isinstance(self.walls, str) else tuple(self.walls)
        pairs = tuple((wall, wall) if isinstance(wall, str) else tuple(wall) for wall in walls)
        if len(wraps) != axes or len(pairs) != axes or any(len(pair) != 2 for pair in pairs):
            raise InputError(
                f"RelativeH1: spacing has {axes} axes, periodic is {self.periodic} and walls are {self.walls}; give "
                "one entry for all axes, or one for each"
            )
        for word in (word for pair in pairs for word in pair):
            if word not in get_args(Wall):
                raise InputError(f"RelativeH1: a wall is one of {', '.join(map(repr, get_args(Wall)))}, not {word!r}")
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "periodic", wraps)
        object.__setattr__(self, "walls", pairs)

    @classmethod
    def on(cls, grid: Grid, *unknowns: str) -> RelativeH1:
        """The loss with the spacing, the periodic axes and the homogeneous conditions of a grid.

        Args:
            grid: where the fields stand.
            unknowns: their names, where the grid's conditions differ between unknowns; fields that share no condition
                have "open" walls.
        """
        if next(iter(grid.boundary)) in grid.axes:
            given = [grid.sides()]
        else:
            given = [grid.boundary[name] for name in unknowns or grid.boundary if name in grid.boundary]
        walls = {tuple(tuple(map(_wall, sides[axis])) for axis in grid.axes) for sides in given}
        shared = len(walls) == 1 and len(given) in (1, len(unknowns or grid.boundary))
        return cls(grid.spacing, grid.periodic, walls.pop() if shared else "open")

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Errors `(n,)` of fields `(n, channel, *space)`.

        Raises:
            InputError: for fields whose shapes differ, or with another number of axes than `spacing`.
        """
        error, truth = _scaled(prediction, truth, "RelativeH1")
        if truth.dim() != len(self.spacing) + 2:
            raise InputError(
                f"RelativeH1: spacing has {len(self.spacing)} axes, so that fields are (n, channel, "
                f"{', '.join('xyz'[: len(self.spacing)])}); got {tuple(truth.shape)}"
            )
        return _ratio(self._square_norm(error), self._square_norm(truth))

    def _square_norm(self, u: Tensor) -> Tensor:
        """|u|^2 over the volume of a cell, for each sample."""
        total = _squares(u)
        periodic, walls = cast(tuple[bool, ...], self.periodic), cast(tuple[tuple[Wall, Wall], ...], self.walls)
        for axis, (h, wraps, pair) in enumerate(zip(self.spacing, periodic, walls, strict=True), 2):
            first, last = u.narrow(axis, 0, 1), u.narrow(axis, -1, 1)
            if wraps:
                total = total + (_squares(u.diff(dim=axis)) + _squares(first - last)) / h**2
                continue
            steps = u.diff(dim=axis)
            square = _squares(steps)
            for wall, end, place in zip(pair, (first, last), (0, -1), strict=True):
                if wall == "zero":
                    # The difference over half a cell, counted for half a cell: (u / (h/2))^2 / 2.
                    square = square + 2 * _squares(end)
                elif wall == "open" and steps.shape[axis]:
                    square = square + 0.5 * _squares(steps.narrow(axis, place, 1))
            total = total + square / h**2
        return total


@dataclass(frozen=True)
class LegacyH1:
    """The error that is published as "H1" for MgNO and networks beside it; for comparison with those tables only.

    |u|^2 is the sum over the discrete Fourier coefficients of (1 + k.k) |u_k|^2, in which a component of k that is 20
    or more counts as 0, and which has k in place of the wave number 2 pi k / length: errors in the finest detail weigh
    no more than in L2. It takes any field for a periodic one. From `HsLoss` in the program of He, Liu and Xu (MgNO,
    ICLR 2024); `RelativeH1` is what the name says.
    """

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Errors `(n,)` of fields `(n, channel, *space)`.

        Raises:
            InputError: for fields whose shapes differ.
        """
        error, truth = _scaled(prediction, truth, "LegacyH1")
        return _ratio(self._square_norm(error), self._square_norm(truth))

    def _square_norm(self, u: Tensor) -> Tensor:
        axes = tuple(range(2, u.dim()))
        parts = torch.view_as_real(torch.fft.fftn(u, dim=axes, norm="ortho"))
        weight = u.new_ones(())
        for n in u.shape[2:]:
            index = torch.arange(n, device=u.device)
            wave = torch.minimum(index, n - index)
            wave = torch.where(wave < 20, wave, 0).to(u.dtype)
            weight = weight[..., None] + wave.square()
        return (parts.square().sum(-1) * weight).flatten(1).sum(1)


@dataclass(frozen=True)
class MeanOverFields:
    """The mean of the errors of several fields, so that a pressure of 1e5 Pa does not hide a velocity of 1 m/s.

    Args:
        errors: what measures each field, in the order of the channels.
        channels: how many channels each field has: 1 of a scalar, one a component of a vector.

    Raises:
        InputError: not one count a field.
    """

    errors: tuple[OperatorLoss, ...]
    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "errors", tuple(self.errors))
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.errors or len(self.errors) != len(self.channels) or any(n < 1 for n in self.channels):
            raise InputError(
                f"MeanOverFields: {len(self.errors)} errors and the counts of channels {self.channels}; give one "
                "positive count for each error"
            )

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Errors `(n,)` of fields `(n, channel, *space)`.

        Raises:
            InputError: for another number of channels.
        """
        if not prediction.shape[1] == truth.shape[1] == sum(self.channels):
            raise InputError(
                f"MeanOverFields: fields of {' + '.join(map(str, self.channels))} channels, got {prediction.shape[1]} "
                f"of the prediction and {truth.shape[1]} of the truth"
            )
        parts = zip(self.errors, prediction.split(self.channels, 1), truth.split(self.channels, 1), strict=True)
        return torch.stack([error(ours, expected) for error, ours, expected in parts]).mean(0)


def over_fields(error: Callable[[str], OperatorLoss], channels: Mapping[str, int]) -> OperatorLoss:
    """What measures fields by their names, `MeanOverFields` if there are several; `channels` counts those of each."""
    each = tuple(error(name) for name in channels)
    return each[0] if len(each) == 1 else MeanOverFields(each, tuple(channels.values()))


def _scaled(prediction: Tensor, truth: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Error and truth over the largest value of the truth, so that their squares neither overflow nor vanish."""
    if prediction.shape != truth.shape or truth.dim() < 3:
        raise InputError(
            f"{name}: prediction and truth are fields (n, channel, *space) of one shape, got {tuple(prediction.shape)} "
            f"and {tuple(truth.shape)}"
        )
    if prediction.dtype in (torch.float16, torch.bfloat16):
        prediction = prediction.float()
    truth = truth.to(prediction.dtype)
    largest = truth.detach().abs().flatten(1).amax(1)
    scale = torch.where(largest == 0, 1.0, largest).reshape(-1, *[1] * (truth.dim() - 1))
    return (prediction - truth) / scale, truth / scale


def _wall(side: Condition) -> Wall:
    if isinstance(side, Dirichlet) and isinstance(side.value, int | float) and side.value == 0:
        return "zero"
    if isinstance(side, Neumann) and isinstance(side.flux, int | float) and side.flux == 0:
        return "no flux"
    return "open"


def _squares(u: Tensor) -> Tensor:
    """Sum of squares of each sample."""
    return u.square().flatten(1).sum(1)


def _ratio(error: Tensor, truth: Tensor) -> Tensor:
    """Root of the quotient of two sums of squares, with gradient 0 where the error is 0; NaN stays NaN."""
    quotient = error / torch.where(truth == 0, 1.0, truth)
    quotient = torch.where((truth == 0) & (error != 0), torch.inf, quotient)
    return torch.where(quotient == 0, 0.0, torch.where(quotient == 0, 1.0, quotient).sqrt())
