"""Tsallis-INF, and the safe solution of the equation for its probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from ..linear.settings import check_number
from .policy import Choice, Policy, check_discount, draw

_STEPS = 50


@dataclass
class TsallisState:
    """What Tsallis-INF knows.

    Attributes:
        losses: `(arms,)`, cumulative, each divided by the probability with which it was incurred.
        rounds: of the past, discounted.
        total: of the losses as incurred, discounted.
        probabilities: `(arms,)`, of the latest choice.
        distance: of the multiplier from the least cumulative loss in the latest round.
    """

    losses: np.ndarray
    probabilities: np.ndarray
    rounds: float = 0.0
    total: float = 0.0
    distance: float = 2.0


@dataclass(frozen=True, kw_only=True)
class TsallisINF(Policy):
    """Tsallis-INF with the exponent 1/2: follows the best fixed arm, of costs that are random or chosen to harm.

    The probability of arm i in round t is 4 (eta (K_i / scale - x))^-2 with eta = 2 / sqrt(t), where K_i is its
    cumulative loss by importance weighting, x makes the sum one, and the scale is the mean loss so far.

    Source: Zimmert and Seldin, JMLR 22 (2021) 28, algorithm 1; as applied to solvers: Khodak, Chow, Balcan and
    Talwalkar, Learning to Relax, ICLR 2024, algorithm 1.

    Args:
        arms: see Policy.
        rate: the factor 2 of eta, dimensionless.
        reduced_variance: whether only the difference of a loss from the mean loss is weighted by importance, wherever
            p_i >= eta^2 (Zimmert and Seldin, equation 5, with the mean in place of 1/2): finds the best arm a little
            sooner. False is the published form.
        discount: factor of everything learned, from round to round, in (0, 1]; less than 1 forgets within about
            1 / (1 - discount) rounds, so that costs that change are followed.
    """

    rate: float = 2.0
    reduced_variance: bool = False
    discount: float = 1.0

    def validate(self) -> None:
        check_number(self.rate, "TsallisINF: rate", 0.0, inf)
        check_discount(self.discount, "TsallisINF")

    def describe(self) -> str:
        return "Tsallis-INF"

    def begin(self, arms: int | None = None) -> TsallisState:
        count = self.arms if arms is None else arms
        return TsallisState(np.zeros(count), np.full(count, 1.0 / count))

    def choose(self, state: TsallisState, context: float | None, generator: np.random.Generator) -> Choice:
        state.probabilities, state.distance = self._solved(state)
        return draw(state.probabilities, generator)

    def probabilities(self, state: TsallisState) -> np.ndarray:
        """Of the next choice, `(arms,)`."""
        return self._solved(state)[0]

    def _solved(self, state: TsallisState) -> tuple[np.ndarray, float]:
        """The probabilities, and the distance of the multiplier."""
        scale = state.total / state.rounds if state.total > 0.0 else 1.0
        return tsallis_probabilities(state.losses / scale, self._eta(state), state.distance)

    def expected(self, state: TsallisState, context: float | None) -> np.ndarray | None:
        return None

    def update(
        self,
        state: TsallisState,
        choice: Choice,
        loss: float,
        context: float | None = None,
        estimate: float | None = None,
    ) -> None:
        if self.discount < 1.0:
            state.losses *= self.discount
            state.rounds *= self.discount
            state.total *= self.discount
        if self.reduced_variance and state.total > 0.0:
            baseline = np.where(state.probabilities >= self._eta(state) ** 2, state.total / state.rounds, 0.0)
            state.losses += baseline
            state.losses[choice.arm] -= baseline[choice.arm] / choice.probability
        state.losses[choice.arm] += loss / choice.probability
        state.rounds += 1.0
        state.total += loss

    def _eta(self, state: TsallisState) -> float:
        return self.rate / sqrt(state.rounds + 1.0)


def tsallis_probabilities(losses: np.ndarray, eta: float, distance: float = 2.0) -> tuple[np.ndarray, float]:
    """p_i = 4 (eta (losses_i - x))^-2 with the x < min(losses) that makes their sum one.

    With z = eta (min(losses) - x) the sum falls and is convex in z, and the root lies between 2, where the best arm
    alone has probability one, and 2 sqrt(arms), where all arms are equal. From a point left of the root Newton's method
    climbs to it without passing it; from one on the right its first step leads to the left.

    Args:
        losses: `(arms,)`, finite.
        eta: positive.
        distance: z to begin with, as an earlier call returned it.

    Returns:
        The probabilities `(arms,)`, and z.
    """
    gaps = eta * (losses - losses.min())
    z = min(max(distance, 2.0), 2.0 * sqrt(len(losses)))
    for _ in range(_STEPS):
        inverse = 2.0 / (gaps + z)
        found = inverse * inverse
        excess = float(found.sum()) - 1.0
        step = excess / float(found @ inverse)
        following = max(z + step, 2.0)
        if abs(following - z) <= 4e-16 * z:
            break
        z = following
    return found / found.sum(), z
