"""Weights of regularizers in the course of a training."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import final

from sciml.errors import InputError


@final
@dataclass(frozen=True)
class ExponentialAnnealing:
    """A weight that goes from `first` to `last` by the same factor in every step: first (last/first)^(step/steps).

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, who anneal by epochs; what a step is, the caller
    says.

    Args:
        first, last: the weight at step 0 and from step `steps` on, dimensionless, positive.
        steps: of the annealing, at least 1.

    Raises:
        InputError: for numbers out of range.
    """

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"ExponentialAnnealing: {name} is a positive weight, got {getattr(self, name)!r}")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(f"ExponentialAnnealing: steps is a number of steps, at least 1, got {self.steps!r}")

    def weight(self, step: int) -> float:
        """The weight at a step, counted from 0."""
        share = min(max(step, 0) / self.steps, 1.0)
        return float(self.first * (self.last / self.first) ** share)
