"""What coefficients, forcing, initial states and parameters are drawn from."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.boundary import AXES, Boundary, suggestion
from sciml.equations import evaluate, parse_expression
from sciml.errors import InputError
from sciml.grid import Grid

from .random_fields import Covariance, evaluate_series, modes_of, normal_numbers, variances


def seed_of(*names: int | str) -> int:
    """A seed of 128 bits that depends on all of these, and on nothing else."""
    text = json.dumps(names, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


class Distribution(ABC):
    """A random field. Frozen settings; all randomness comes from the seeds."""

    @abstractmethod
    def sample(self, grid: Grid, seeds: Sequence[int]) -> Tensor:
        """Draw fields.

        Args:
            grid: where; the fields are of its dtype, on its device.
            seeds: one a field, integers of any size that are not negative.

        Returns:
            `(len(seeds), *grid.shape)`. A row depends on its own seed alone.

        Raises:
            InputError: where the distribution does not exist on this grid; see `check`.
        """

    @abstractmethod
    def check(self, grid: Grid) -> None:
        """Refuse what cannot be drawn on a grid, before any work.

        Raises:
            InputError: with the reason.
        """

    @property
    @abstractmethod
    def random(self) -> bool:
        """Whether two fields of it differ."""


class Number(Distribution):
    """A random number, which as a field is the same everywhere."""

    @abstractmethod
    def draw(self, seeds: Sequence[int]) -> Tensor:
        """Numbers `(len(seeds),)`, float64, on the CPU."""

    def sample(self, grid: Grid, seeds: Sequence[int]) -> Tensor:
        numbers = self.draw(seeds).to(grid.device, grid.dtype)
        return numbers.reshape(-1, *[1] * grid.dimension).expand(-1, *grid.shape).contiguous()

    def check(self, grid: Grid) -> None:
        pass


@dataclass(frozen=True)
class Constant(Number):
    """One number.

    Args:
        value: in the unit of what it stands for.

    Raises:
        InputError: if it is not finite.
    """

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InputError(f"Constant: a finite number is needed, got {self.value}")

    def draw(self, seeds: Sequence[int]) -> Tensor:
        return torch.full((len(seeds),), self.value, dtype=torch.float64)

    @property
    def random(self) -> bool:
        return False


@dataclass(frozen=True)
class Uniform(Number):
    """Numbers between two bounds, all equally likely.

    Args:
        lower, upper: bounds, in the unit of what it stands for.

    Raises:
        InputError: unless lower < upper, both finite.
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        _check_bounds("Uniform", self.lower, self.upper)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        return self.lower + (self.upper - self.lower) * _uniform_numbers(seeds, 1)[:, 0]

    @property
    def random(self) -> bool:
        return True


@dataclass(frozen=True)
class LogUniform(Number):
    """Numbers between two positive bounds whose logarithms are equally likely.

    Args:
        lower, upper: bounds, in the unit of what it stands for.

    Raises:
        InputError: unless 0 < lower < upper, both finite.
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        _check_bounds("LogUniform", self.lower, self.upper)
        if self.lower <= 0:
            raise InputError(f"LogUniform: lower must be positive, got {self.lower}; logarithms are drawn")

    def draw(self, seeds: Sequence[int]) -> Tensor:
        low, high = math.log(self.lower), math.log(self.upper)
        return torch.exp(low + (high - low) * _uniform_numbers(seeds, 1)[:, 0])

    @property
    def random(self) -> bool:
        return True


@dataclass(frozen=True)
class GaussianField(Distribution):
    """A Gaussian random field, exact in distribution but for the modes that the grid cannot hold.

    Args:
        covariance: `InversePower`, `Matern` or `SquaredExponential`.
        boundary: kinds of the sides whose eigenfunctions it is a series of, the values in them being without meaning; a
            dict by axis or one for all. None is that of the grid.
        mean: added, in the unit of the field.
        zero_mean: leave out the constant mode, so that the mean over the box is `mean` in every draw, where no side is
            held.
        modes: largest number of modes along an axis; None is all that the grid holds.

    Raises:
        InputError: for arguments that make no field.
    """

    covariance: Covariance
    boundary: Boundary | None = field(default=None, hash=False)
    mean: float = 0.0
    zero_mean: bool = True
    modes: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.covariance, Covariance):
            raise InputError(
                "GaussianField: covariance is InversePower(...), Matern(...) or SquaredExponential(...), got "
                f"{self.covariance!r}"
            )
        if not math.isfinite(self.mean):
            raise InputError(f"GaussianField: mean must be finite, got {self.mean}")
        if self.modes is not None and (not isinstance(self.modes, int) or self.modes < 1):
            raise InputError(f"GaussianField: modes is a positive number, or None for all, got {self.modes!r}")

    def sample(self, grid: Grid, seeds: Sequence[int]) -> Tensor:
        modes = modes_of(grid, self.boundary)
        deviations = variances(modes, self.covariance, self.zero_mean, self.modes).sqrt()
        coefficients = normal_numbers(grid.shape, seeds).mul_(deviations)
        return (self.mean + evaluate_series(coefficients.to(grid.device), modes)).to(grid.dtype)

    def variance(self, grid: Grid) -> Tensor:
        """The exact variance at every unknown, `grid.shape`, of the series that the grid holds."""
        modes = modes_of(grid, self.boundary)
        result = variances(modes, self.covariance, self.zero_mean, self.modes)
        for axis in modes:
            result = torch.tensordot(result, axis.functions() ** 2, dims=([0], [0]))
        return result.to(grid.device, grid.dtype)

    def check(self, grid: Grid) -> None:
        has_constant = all(axis.kind in ("periodic", "cosine") for axis in modes_of(grid, self.boundary))
        self.covariance.check(grid.dimension, has_constant and not self.zero_mean)

    @property
    def random(self) -> bool:
        return True


@dataclass(frozen=True)
class Threshold(Distribution):
    """A field of two values: one where another field is above a level, one elsewhere.

    Args:
        field: the other field.
        above: value where it exceeds `level`.
        below: value elsewhere.
        level: in the unit of `field`.
    """

    field: Distribution
    above: float
    below: float
    level: float = 0.0

    def __post_init__(self) -> None:
        for name in ("above", "below", "level"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"Threshold: {name} must be finite, got {getattr(self, name)}")

    def sample(self, grid: Grid, seeds: Sequence[int]) -> Tensor:
        level = self.field.sample(grid, seeds)
        above, below = level.new_tensor(self.above), level.new_tensor(self.below)
        return torch.where(level > self.level, above, below)

    def check(self, grid: Grid) -> None:
        self.field.check(grid)

    @property
    def random(self) -> bool:
        return self.field.random


@dataclass(frozen=True)
class Formula(Distribution):
    """An expression of the coordinates and of other distributions: `exp(g)` of a Gaussian field is lognormal, and
    `height*sin(2*pi*(x - place))` a wave.

    Args:
        text: in the grammar of equations, without derivatives.
        of: the distributions that it names, drawn independently of each other.

    Raises:
        InputError: for a text that cannot be read, or names that it does not know.
    """

    text: str
    of: Mapping[str, Distribution] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        used = {symbol.name for symbol in self._expression.free_symbols}
        for name in self.of:
            if name in AXES:
                raise InputError(f"{name!r} is a coordinate and cannot name a distribution")
            if name not in used:
                raise InputError(f"{name!r} does not occur in {self.text!r}{suggestion(name, used)}")

    @cached_property
    def _expression(self) -> Any:
        return parse_expression(self.text, (*AXES, *self.of))

    def sample(self, grid: Grid, seeds: Sequence[int]) -> Tensor:
        self.check(grid)
        values: dict[str, Any] = dict(zip(grid.axes, grid.coordinates, strict=True))
        for name, part in self.of.items():
            values[name] = part.sample(grid, [seed_of(seed, name) for seed in seeds])
        value = torch.as_tensor(evaluate(self._expression, values), dtype=grid.dtype, device=grid.device)
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{self.text!r} is not finite everywhere on the grid")
        return value.expand(len(seeds), *grid.shape).contiguous()

    def check(self, grid: Grid) -> None:
        for symbol in self._expression.free_symbols:
            if symbol.name in AXES[grid.dimension :] and symbol.name not in self.of:
                raise InputError(f"{self.text!r} names {symbol.name}, and the grid has the axes {', '.join(grid.axes)}")
        for part in self.of.values():
            part.check(grid)

    @property
    def random(self) -> bool:
        return any(part.random for part in self.of.values())


@dataclass(frozen=True)
class TrigonometricMultiscale(Distribution):
    """The product over k = 1 ... scales of (1 + cos(c_k pi (x + y))/2) (1 + sin(c_k pi (y - 3 x))/2), with c_k uniform
    between 2**(k - 1) and 1.5 * 2**(k - 1): a coefficient that varies on many lengths at once.

    Args:
        scales: number of factors; 6 in the data of the multigrid neural operators.

    Raises:
        InputError: unless it is positive.

    Source: J. He, X. Liu and J. Xu, MgNO: efficient parameterization of linear operators via multigrid, ICLR 2024,
        Darcy multiscale; after H. Owhadi, SIAM Review 59 (2017) 99-149.
    """

    scales: int = 6

    def __post_init__(self) -> None:
        if not isinstance(self.scales, int) or not 1 <= self.scales <= 30:
            raise InputError(f"TrigonometricMultiscale: scales is a number between 1 and 30, got {self.scales!r}")

    def sample(self, grid: Grid, seeds: Sequence[int]) -> Tensor:
        self.check(grid)
        x, y = grid.coordinates
        least = 2.0 ** torch.arange(self.scales, dtype=torch.float64)
        wavenumbers = (math.pi * least * (1 + 0.5 * _uniform_numbers(seeds, self.scales))).to(grid.device, grid.dtype)
        result = torch.ones(len(seeds), *grid.shape, dtype=grid.dtype, device=grid.device)
        for k in range(self.scales):
            c = wavenumbers[:, k, None, None]
            result.mul_(1 + 0.5 * torch.cos(c * (x + y))).mul_(1 + 0.5 * torch.sin(c * (y - 3 * x)))
        return result

    def check(self, grid: Grid) -> None:
        if grid.dimension != 2:
            raise InputError(f"TrigonometricMultiscale is a field on two axes, and the grid has {grid.dimension}")

    @property
    def random(self) -> bool:
        return True


def _uniform_numbers(seeds: Sequence[int], count: int) -> Tensor:
    """Numbers in [0, 1), `(len(seeds), count)`, float64."""
    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(count) for seed in seeds]))


def _check_bounds(kind: str, lower: float, upper: float) -> None:
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise InputError(f"{kind}: lower must be less than upper, both finite, got {lower} and {upper}")
