"""Learning rates along a training, as factors of the optimizer's own rate, one for every optimizer step.

A schedule knows where the training is and how long it will be, so that the same one serves a training of epochs, of
steps, or of seconds (of which 10,000 equal parts take the place of the steps).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from ..errors import InputError


class Schedule(ABC):
    """The learning rate along a training."""

    @abstractmethod
    def factor(self, step: float, steps: float) -> float:
        """What the optimizer's rate is multiplied with at `step`, counted from 0, of a training of `steps`."""


@final
@dataclass(frozen=True)
class Constant(Schedule):
    """The optimizer's rate, after a linear warm-up from `start` times it.

    Args:
        warmup: the part of the training it takes, dimensionless, in [0, 1).
        start: the first factor of a warm-up, dimensionless, in (0, 1].
    """

    warmup: float = 0.0
    start: float = 0.01

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.start)

    def factor(self, step: float, steps: float) -> float:
        return _warmed(step, self.warmup * steps, self.start)


@final
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up along half a cosine to the optimizer's rate, and down along another half to nearly nothing.

    Smith and Topin, "Super-convergence" (2018); the formula is that of torch.optim.lr_scheduler.OneCycleLR, whose
    max_lr is the optimizer's rate here.

    Args:
        peak: where the optimizer's rate is reached, as a part of the training, dimensionless, in (0, 1).
        initial_division: the first rate is the peak's divided by this.
        final_division: the last rate is the first one divided by this.
    """

    peak: float = 0.3
    initial_division: float = 25.0
    final_division: float = 1e4

    def __post_init__(self) -> None:
        if not 0 < self.peak < 1:
            raise InputError(f"peak is a part of the training between 0 and 1, got {self.peak}")
        for name in ("initial_division", "final_division"):
            if not 1 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")

    def factor(self, step: float, steps: float) -> float:
        first = 1.0 / self.initial_division
        top = self.peak * steps - 1.0
        if step <= top:
            return _half_cosine(first, 1.0, step / top if top > 0 else 1.0)
        top = max(top, 0.0)
        return _half_cosine(1.0, first / self.final_division, min((step - top) / max(steps - 1.0 - top, 1e-12), 1.0))


@final
@dataclass(frozen=True)
class Cosine(Schedule):
    """A linear warm-up, then half a cosine down to `final` times the optimizer's rate.

    Loshchilov and Hutter, "SGDR" (2017), eq. 5 without restarts: torch's LinearLR followed by CosineAnnealingLR.

    Args:
        warmup: the part of the training that it takes, dimensionless, in [0, 1).
        start: the first factor of the warm-up, dimensionless, in (0, 1].
        final: the factor that the end approaches, dimensionless, in [0, 1].
    """

    warmup: float = 0.0
    start: float = 0.01
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_fall(self.warmup, self.start, self.final)

    def factor(self, step: float, steps: float) -> float:
        warm = self.warmup * steps
        if step < warm:
            return _warmed(step, warm, self.start)
        return _half_cosine(1.0, self.final, min((step - warm) / (steps - warm), 1.0))


@final
@dataclass(frozen=True)
class Linear(Schedule):
    """A linear warm-up, then a straight line down to `final` times the optimizer's rate.

    Torch's LinearLR twice, the one after the other.

    Args:
        warmup: the part of the training that it takes, dimensionless, in [0, 1).
        start: the first factor of the warm-up, dimensionless, in (0, 1].
        final: the factor that the end approaches, dimensionless, in [0, 1].
    """

    warmup: float = 0.0
    start: float = 0.01
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_fall(self.warmup, self.start, self.final)

    def factor(self, step: float, steps: float) -> float:
        warm = self.warmup * steps
        if step < warm:
            return _warmed(step, warm, self.start)
        return 1.0 + (self.final - 1.0) * min((step - warm) / (steps - warm), 1.0)


@final
@dataclass(frozen=True)
class Exponential(Schedule):
    """Falling by the same ratio every step, to `final` times the optimizer's rate after the last one.

    torch's ExponentialLR with gamma = final**(1/steps).

    Args:
        final: dimensionless, in (0, 1].
    """

    final: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.final <= 1:
            raise InputError(f"final is a factor between 0 (excluded) and 1, got {self.final}")

    def factor(self, step: float, steps: float) -> float:
        return self.final ** (step / steps)


@final
@dataclass(frozen=True)
class InverseDecay(Schedule):
    """Falling as 1 / (1 + decay * step), however long the training is: Robbins and Monro (1951).

    Args:
        decay: of a step, dimensionless, at least 0.
    """

    decay: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.decay < math.inf:
            raise InputError(f"decay must be at least 0 and finite, got {self.decay}")

    def factor(self, step: float, steps: float) -> float:
        return 1.0 / (1.0 + self.decay * step)


@final
@dataclass(frozen=True)
class Steps(Schedule):
    """Multiplied with `ratio` at each of a few moments: torch's MultiStepLR.

    Args:
        at: the moments as parts of the training, dimensionless, growing, each in (0, 1).
        ratio: dimensionless, in (0, 1].
    """

    at: tuple[float, ...] = (0.5, 0.75)
    ratio: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", tuple(self.at))
        if any(not 0 < moment < 1 for moment in self.at) or list(self.at) != sorted(self.at):
            raise InputError(f"at holds growing parts of the training between 0 and 1, got {self.at}")
        if not 0 < self.ratio <= 1:
            raise InputError(f"ratio must be between 0 (excluded) and 1, got {self.ratio}")

    def factor(self, step: float, steps: float) -> float:
        return self.ratio ** sum(step >= moment * steps for moment in self.at)


def _half_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def _warmed(step: float, warm: float, start: float) -> float:
    return start + (1.0 - start) * step / warm if step < warm else 1.0


def _check_warmup(warmup: float, start: float) -> None:
    if not 0 <= warmup < 1:
        raise InputError(f"warmup is a part of the training, at least 0 and below 1, got {warmup}")
    if not 0 < start <= 1:
        raise InputError(f"start is a factor between 0 (excluded) and 1, got {start}")


def _check_fall(warmup: float, start: float, final: float) -> None:
    _check_warmup(warmup, start)
    if not 0 <= final <= 1:
        raise InputError(f"final is a factor between 0 and 1, got {final}")
