"""Thompson sampling for a few expensive arms whose costs drift and jump."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log

import numpy as np

from ..linear.settings import check_number
from .policy import Choice, Policy

_SAMPLES = 32  # of which one decides, and all tell its probability
_UNKNOWN = 2.0  # standard deviation of the logarithm of a cost of which nothing is known
_LEAST_NOISE = 0.02
_FORGETTING = 0.03  # share of the latest round in the noise
_VAGUE = 0.25  # standard deviation that extrapolation adds to the logarithm of a cost
_CHEAP = 2.5  # times the best arm, what a try may cost without being put off for that
_TINY = 1e-300
_FLOOR = 1e-9  # of the largest cost so far, below which costs are all the same


@dataclass
class ThompsonState:
    """What ThompsonSampling believes of the logarithms of the costs.

    Attributes:
        mean: `(arms,)`, expected.
        covariance: `(arms, arms)`.
        pulls: `(arms,)`.
        age: `(arms,)`, rounds since an arm was last tried.
        price: `(arms,)`, what the latest try cost, the others' help where it was cut off included.
        doubt: `(arms,)`, sign of the latest surprise, 0 where the latest cost was none.
        noise: variance from one round to the next of an arm that stays the same.
        largest: cost so far.
    """

    mean: np.ndarray
    covariance: np.ndarray
    pulls: np.ndarray
    age: np.ndarray
    price: np.ndarray
    doubt: np.ndarray
    noise: float
    largest: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ThompsonSampling(Policy):
    """Thompson sampling with a Kalman filter: for arms that cost 1 to 10, say whole preconditioners, timed in seconds.

    The logarithms of the costs are a random walk, with one part that all arms have in common, as systems get harder,
    and one of each. Every arm is tried once; then the policy draws costs from what it believes, and takes the cheapest.
    So an arm is tried the more rarely the worse it is and the more a try costs, and again after a time that grows with
    the gap. Costs far off what was expected, twice in a row, are a jump: then everything is uncertain anew, by as much
    as the jump; once is an outlier. Within `BanditTuner(..., fallback="best", patience=1.5)` trying a bad arm costs 1.5
    rounds at most, or its set-up where that takes longer, and its cost is extrapolated from how far it came.

    Source: Thompson sampling as in Russo et al., Foundations and Trends in Machine Learning 11 (2018) 1, section 4; for
    costs that change: Kalman, J. Basic Eng. 82 (1960) 35-45.

    Args:
        arms: see Policy.
        drift: standard deviation a round of an arm's own part, dimensionless as all here; at least 0.
        common_drift: of the common part.
        jumps: chance a round that an arm which is not tried jumps, in [0, 1).
        jump: standard deviation of such a jump.
        noise: standard deviation of costs at first, until it is known.
        surprise: standard deviations from which on a cost is one.
    """

    drift: float = 0.01
    common_drift: float = 0.1
    jumps: float = 0.0005
    jump: float = 1.2
    noise: float = 0.1
    surprise: float = 3.0

    def validate(self) -> None:
        for name in ("drift", "common_drift"):
            check_number(getattr(self, name), f"ThompsonSampling: {name}", 0.0, inf, "[)")
        check_number(self.jumps, "ThompsonSampling: jumps", 0.0, 1.0, "[)")
        for name in ("jump", "noise", "surprise"):
            check_number(getattr(self, name), f"ThompsonSampling: {name}", 0.0, inf)

    def describe(self) -> str:
        return "Thompson sampling"

    def begin(self, arms: int | None = None) -> ThompsonState:
        count = self.arms if arms is None else arms
        return ThompsonState(
            np.zeros(count),
            _UNKNOWN**2 * (np.eye(count) + 1.0),
            np.zeros(count, dtype=np.int64),
            np.zeros(count),
            np.zeros(count),
            np.zeros(count),
            float(self.noise) ** 2,
        )

    def choose(self, state: ThompsonState, context: float | None, generator: np.random.Generator) -> Choice:
        untried = np.flatnonzero(state.pulls == 0)
        if len(untried):
            return Choice(int(generator.choice(untried)), 1.0 / len(untried))
        arms = len(state.mean)
        root = np.linalg.cholesky(state.covariance + 1e-9 * float(state.covariance.diagonal().sum()) * np.eye(arms))
        expected = generator.standard_normal((_SAMPLES, arms)) @ root.T
        wide = self.jump * generator.standard_normal((_SAMPLES, arms))
        affordable = np.minimum(_CHEAP * np.exp(state.mean.min()) / np.maximum(state.price, _TINY), 1.0)
        jumped = generator.random((_SAMPLES, arms)) < (1.0 - (1.0 - self.jumps) ** state.age) * affordable
        cheapest = (state.mean + np.where(jumped, wide, expected)).argmin(1)
        return Choice(int(cheapest[0]), float((cheapest == cheapest[0]).mean()))

    def expected(self, state: ThompsonState, context: float | None) -> np.ndarray | None:
        return np.exp(state.mean)

    def update(
        self,
        state: ThompsonState,
        choice: Choice,
        loss: float,
        context: float | None = None,
        estimate: float | None = None,
    ) -> None:
        cost, arm, arms = loss if estimate is None else estimate, choice.arm, len(state.mean)
        state.largest = max(state.largest, cost)
        if state.largest == 0.0:
            return
        seen = log(max(cost, _FLOOR * state.largest))
        state.covariance += self.common_drift**2 + self.drift**2 * np.eye(arms)
        state.age += 1.0
        state.age[arm] = 0.0
        state.price[arm] = loss
        if not state.pulls.any():
            state.mean[:] = seen
        everything = bool((state.pulls > 0).all())
        state.pulls[arm] += 1
        error = seen - float(state.mean[arm])
        own = float(state.covariance[arm, arm])
        noise = state.noise + (0.0 if estimate is None else _VAGUE**2)
        surprise = error / (own + noise) ** 0.5
        if everything and abs(surprise) > self.surprise:
            if state.doubt[arm] * surprise > 0.0:
                state.covariance += min(error * error, self.jump**2) * (1.0 + np.eye(arms))
                state.doubt[:] = 0.0
            else:
                state.doubt[arm] = np.sign(surprise)
                noise *= surprise * surprise
        else:
            state.doubt[arm] = 0.0
            if everything and estimate is None:
                latest = max(error * error - own, 0.0)
                state.noise = max(state.noise + _FORGETTING * (latest - state.noise), _LEAST_NOISE**2)
        gain = state.covariance[:, arm] / (float(state.covariance[arm, arm]) + noise)
        state.mean += gain * error
        state.covariance -= np.outer(gain, state.covariance[arm])
        state.covariance = 0.5 * (state.covariance + state.covariance.T)
