"""ChebCB: a contextual bandit with Chebyshev regression."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import sqrt

import numpy as np

from ..linear.settings import check_count, check_number
from .chebyshev_regression import bounded_least_squares, change_of_interval, chebyshev_features, place
from .policy import Choice, Policy, check_discount, check_interval, draw

_MARGIN = 0.1  # of its width, by which an interval grows beyond a context that it does not hold
_TINY = 1e-300


@dataclass
class ChebState:
    """What ChebCB knows.

    Attributes:
        gram: `(arms, features, features)`, sums of f f^T over the rounds of each arm, f the features of the context.
        moment: `(arms, features)`, sums of loss times f.
        squares: `(arms,)`, sums of squared losses.
        theta: `(arms, features)`, the regression of the loss; 0 of an arm that was not tried, so that it looks cheap.
        misfit: `(arms,)`, sums of squared residuals of the regression.
        interval: `(2,)`, the contexts that go to -1 and 1; both 0 before there is any.
        rounds: of the past, discounted.
        errors: sum of squared errors of prediction, discounted.
        least, most: loss so far.
    """

    gram: np.ndarray
    moment: np.ndarray
    squares: np.ndarray
    theta: np.ndarray
    misfit: np.ndarray
    interval: np.ndarray
    rounds: float = 0.0
    errors: float = 0.0
    least: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ChebCB(Policy):
    """Regresses the loss of each arm on the context and draws by inverse gap weighting: follows the best arm for each.

    Arm i costs about theta_i . f(c), with f the Chebyshev polynomials on the interval of contexts. The coefficients
    minimise the squared error over |theta_i0| <= K, |theta_ij| <= 2 (K - k) / j, where K and k are the largest and the
    smallest loss so far, what a Lipschitz function allows. Arm i other than the cheapest has the probability
    1 / (arms + gamma (theta_i - theta_best) . f(c)), the cheapest what is left.

    Source: Khodak, Chow, Balcan and Talwalkar, Learning to Relax, ICLR 2024, algorithm 3, with gamma = 2 t
    sqrt(arms t / R) of its authors' code, R being the sum of squared errors of prediction less that of the regression.

    Args:
        arms: see Policy.
        degree: of the polynomials, at least 1.
        interval: least and greatest context; None takes what comes. A context outside of it widens it.
        misfit: error of the best regression, relative to the loss; raises R by 2 misfit^2 t times the mean square.
        discount: see TsallisINF.
    """

    degree: int = 5
    interval: tuple[float, float] | None = None
    misfit: float = 0.0
    discount: float = 1.0

    contextual = True

    def validate(self) -> None:
        check_count(self.degree, "ChebCB: degree")
        if self.interval is not None:
            check_interval(self.interval, "ChebCB")
        check_number(self.misfit, "ChebCB: misfit", 0.0, 1.0, "[)")
        check_discount(self.discount, "ChebCB")

    def describe(self) -> str:
        return f"ChebCB of degree {self.degree}"

    def begin(self, arms: int | None = None) -> ChebState:
        count, features = self.arms if arms is None else arms, self.degree + 1
        return ChebState(
            np.zeros((count, features, features)),
            np.zeros((count, features)),
            np.zeros(count),
            np.zeros((count, features)),
            np.zeros(count),
            np.zeros(2) if self.interval is None else np.array(self.interval, dtype=np.float64),
        )

    def choose(self, state: ChebState, context: float | None, generator: np.random.Generator) -> Choice:
        return draw(self.probabilities(state, 0.0 if context is None else context), generator)

    def probabilities(self, state: ChebState, context: float) -> np.ndarray:
        """Of the next choice, `(arms,)`."""
        state = self._holding(state, context)
        expected = state.theta @ self._features(state, context)
        arms = len(expected)
        rounds = state.rounds + 1.0
        regret = max(state.errors - float(state.misfit.sum()), 0.0)
        regret += 2.0 * self.misfit**2 * float(state.squares.sum())
        gamma = 2.0 * rounds * sqrt(arms * rounds / max(regret, _TINY))
        best = int(expected.argmin())
        found = 1.0 / (arms + gamma * (expected - expected[best]))
        found[best] += 1.0 - float(found.sum())
        return found

    def expected(self, state: ChebState, context: float | None) -> np.ndarray:
        context = 0.0 if context is None else context
        state = self._holding(state, context)
        return np.maximum(state.theta @ self._features(state, context), state.least)

    def update(
        self,
        state: ChebState,
        choice: Choice,
        loss: float,
        context: float | None = None,
        estimate: float | None = None,
    ) -> None:
        context = 0.0 if context is None else context
        self._widen(state, context)
        arm, features = choice.arm, self._features(state, context)
        if self.discount < 1.0:
            for kept in (state.gram, state.moment, state.squares, state.misfit):
                kept *= self.discount
            state.errors *= self.discount
            state.rounds *= self.discount
        state.errors += (loss - float(state.theta[arm] @ features)) ** 2
        state.gram[arm] += np.outer(features, features)
        state.moment[arm] += loss * features
        state.squares[arm] += loss * loss
        first = state.most == state.least == 0.0
        if first or not state.least <= loss <= state.most:
            state.least = loss if first else min(loss, state.least)
            state.most = max(loss, state.most)
            self._fit(state, slice(None))
        else:
            self._fit(state, slice(arm, arm + 1))
        state.rounds += 1.0

    def _fit(self, state: ChebState, arms: slice) -> None:
        """The regressions of some arms anew."""
        bounds = np.full(self.degree + 1, max(state.most, _TINY))
        bounds[1:] = 2.0 * max(state.most - state.least, 1e-9 * state.most, _TINY) / np.arange(1, self.degree + 1)
        gram, moment = state.gram[arms], state.moment[arms]
        theta = bounded_least_squares(gram, moment, bounds, state.theta[arms])
        state.theta[arms] = theta
        image = (gram @ theta[..., None])[..., 0]
        state.misfit[arms] = np.maximum(state.squares[arms] + (theta * (image - 2.0 * moment)).sum(-1), 0.0)

    def _features(self, state: ChebState, context: float) -> np.ndarray:
        low, high = state.interval.tolist()
        return np.array(chebyshev_features(place(context, (low, high)), self.degree))

    def _holding(self, state: ChebState, context: float) -> ChebState:
        """The state as it would be if its interval held a context."""
        low, high = state.interval.tolist()
        if low <= context <= high and low < high:
            return state
        state = deepcopy(state)
        self._widen(state, context)
        return state

    def _widen(self, state: ChebState, context: float) -> None:
        """Make the interval hold a context, by a change of the basis."""
        low, high = state.interval.tolist()
        if low == high:
            half = max(1e-3 * abs(context), 1e-9)
            state.interval[:] = context - half, context + half
            return
        if low <= context <= high:
            return
        margin = _MARGIN * max(high - context, context - low)
        new = (context - margin, high) if context < low else (low, context + margin)
        matrix = change_of_interval(self.degree, (low, high), new)
        state.interval[:] = new
        state.gram[:] = matrix @ state.gram @ matrix.T
        state.moment[:] = state.moment @ matrix.T
        self._fit(state, slice(None))
