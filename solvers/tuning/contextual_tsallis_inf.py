"""Tsallis-INF with contexts in bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciml.errors import InputError

from ..linear.settings import check_count
from .policy import Choice, Policy, check_interval
from .tsallis_inf import TsallisINF, TsallisState


@dataclass
class BinnedState:
    """What ContextualTsallisINF knows.

    Attributes:
        bins: one state each.
    """

    bins: list[TsallisState]


@dataclass(frozen=True, kw_only=True)
class ContextualTsallisINF(Policy):
    """One Tsallis-INF for each of several equal bins of an interval of contexts: follows the best fixed arm of each.

    Source: Khodak, Chow, Balcan and Talwalkar, Learning to Relax, ICLR 2024, section 4.

    Args:
        arms: see Policy.
        interval: least and greatest context; what lies outside goes to the bins at its ends.
        bins: their number.
        bandit: settings of the bandits; their `arms` do not matter.
    """

    interval: tuple[float, float]
    bins: int = 5
    bandit: TsallisINF = TsallisINF()  # noqa: RUF009 -- frozen

    contextual = True

    def validate(self) -> None:
        check_interval(self.interval, "ContextualTsallisINF")
        check_count(self.bins, "ContextualTsallisINF: bins")
        if not isinstance(self.bandit, TsallisINF):
            raise InputError(f"ContextualTsallisINF: bandit must be a TsallisINF, got {self.bandit!r}")

    def describe(self) -> str:
        return f"Tsallis-INF in {self.bins} bins"

    def begin(self, arms: int | None = None) -> BinnedState:
        count = self.arms if arms is None else arms
        return BinnedState([self.bandit.begin(count) for _ in range(self.bins)])

    def choose(self, state: BinnedState, context: float | None, generator: np.random.Generator) -> Choice:
        return self.bandit.choose(state.bins[self._bin(context)], None, generator)

    def expected(self, state: BinnedState, context: float | None) -> np.ndarray | None:
        return None

    def update(
        self,
        state: BinnedState,
        choice: Choice,
        loss: float,
        context: float | None = None,
        estimate: float | None = None,
    ) -> None:
        self.bandit.update(state.bins[self._bin(context)], choice, loss)

    def _bin(self, context: float | None) -> int:
        low, high = self.interval
        share = ((low if context is None else context) - low) / (high - low)
        return int(min(max(share, 0.0) * self.bins, self.bins - 1))
