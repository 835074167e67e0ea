"""What every policy shares: it chooses one of several arms, is told what that cost, and keeps what it learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from sciml.errors import InputError

from ..linear.settings import check_count


@dataclass(frozen=True)
class Choice:
    """One decision of a policy.

    Attributes:
        arm: its number, from 0.
        probability: with which it was chosen, in (0, 1].
    """

    arm: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Base of the policies: frozen settings; what is learned stands in a state of its own, which `update` changes.

    A state is a dataclass of numbers, numpy arrays and lists of such dataclasses. A policy draws its random numbers
    from the generator that it is given.

    Args:
        arms: values that a range of a parameter is divided into, at least 2.
    """

    arms: int = 20

    contextual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count(self.arms, f"{type(self).__name__}: arms")
        if self.arms < 2:
            raise InputError(f"{type(self).__name__}: arms must be at least 2, got {self.arms}")
        self.validate()

    @abstractmethod
    def validate(self) -> None:
        """Raise InputError for settings out of range."""

    @abstractmethod
    def describe(self) -> str:
        """Name in a few words."""

    @abstractmethod
    def begin(self, arms: int | None = None) -> Any:
        """The state before the first round.

        Args:
            arms: how many there are; None for as many as the settings say.
        """

    @abstractmethod
    def choose(self, state: Any, context: float | None, generator: np.random.Generator) -> Choice:
        """Choose an arm.

        Args:
            state: is not changed but for what is only remembered, such as the start of an iteration.
            context: a finite number; None if the policy needs none.
            generator: of the random numbers.
        """

    @abstractmethod
    def expected(self, state: Any, context: float | None) -> np.ndarray | None:
        """Losses that it expects of the arms, `(arms,)`, of no meaning for arms not yet tried; None if it has no idea.

        Args:
            state: what it knows.
            context: of the next choice.
        """

    @abstractmethod
    def update(
        self, state: Any, choice: Choice, loss: float, context: float | None = None, estimate: float | None = None
    ) -> None:
        """Learn from what a choice cost.

        Args:
            state: is changed in place.
            choice: as `choose` returned it.
            loss: finite and not negative; the less the better.
            context: that of the choice.
            estimate: what the arm itself would have cost if it had not been cut off; None if it was not.
        """


def draw(probabilities: np.ndarray, generator: np.random.Generator) -> Choice:
    """An arm drawn by `(arms,)` probabilities, which need not add up to one but for rounding."""
    total = np.cumsum(probabilities)
    arm = min(int(np.searchsorted(total, generator.random() * total[-1], side="right")), len(total) - 1)
    return Choice(arm, float(probabilities[arm] / total[-1]))


def check_discount(discount: object, name: str) -> None:
    """Raise InputError for a discount that is not in (0, 1]."""
    if isinstance(discount, Real) and not isinstance(discount, bool) and 0.0 < float(discount) <= 1.0:
        return
    raise InputError(f"{name}: discount must be a number in (0, 1], 1 to forget nothing, got {discount!r}")


def check_interval(interval: Any, name: str) -> None:
    """Raise InputError for an interval that is not two finite numbers, the lower first."""
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: interval must be two numbers, the least and largest context: {interval!r}"
        ) from error
    if not (isfinite(low) and isfinite(high) and low < high):
        raise InputError(f"{name}: interval must be two finite numbers, the lower first, got ({low:g}, {high:g})")
