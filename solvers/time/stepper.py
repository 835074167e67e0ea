"""What the loop over time steps asks of a method, and what it makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sciml.evolving import EvolvingSystem, Time, Tolerance

from .control import Controller


class Attempt(NamedTuple):
    """One step from t to t + h, tried.

    Attributes:
        value: the state at t + h.
        memory: what the next step starts from if this one is accepted.
        error: the estimated error of `value`, a state; None of methods that have none.
        ratio: the error relative to the tolerance, one number a row, where the step has found it already.
        stiffness: an estimate of the largest |eigenvalue| of the Jacobian, one number a row; None of methods that have
            none.
        interpolate: theta in [0, 1], a float or one number a row -> the state at t + theta h; None where only the ends
            are known.
        between: the same at several places at once, where that takes less time: increasing floats in (0, 1) -> states.
        solved: False where equations within the step could not be solved, so that a smaller step must be tried; where
            those of some rows could, one bool a row. The others, whose values are NaN, have failed.
    """

    value: Tensor
    memory: Any
    error: Tensor | None = None
    ratio: Tensor | None = None
    stiffness: Tensor | None = None
    interpolate: Callable[[Time], Tensor] | None = None
    between: Callable[[Sequence[float]], Sequence[Tensor]] | None = None
    solved: bool | Tensor = True


class Stepper(ABC):
    """A method prepared for one system.

    Attributes:
        order: of the solution that is carried on.
        embedded: order in h of the error of the embedded solution in one step, less 1: of deterministic methods its
            order; 0 where there is none, and steps have a fixed size.
        even: whether steps are equal parts of the interval between two output times, their number halved and doubled,
            because what belongs to a step size is costly to compute and kept.
    """

    order: float
    embedded: float
    even: bool

    @abstractmethod
    def begin(self, y: Tensor, t: float) -> Any:
        """The memory that the first step starts from, also after an event or a change of step size that `step` refuses
        to bridge."""

    @abstractmethod
    def step(self, y: Tensor, t: float, h: float, memory: Any) -> Attempt:
        """Try a step; without side effects on y and memory, since it may be rejected and tried again with another h.

        Args:
            y: `(*batch, *state_space)`, the state at t.
            t: the time.
            h: the step.
            memory: of `begin` or of the accepted attempt before.
        """

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """What it has done since it was made, for whomever, rejected and repeated steps and all `begin`s included:
        "evaluations" of the right-hand side, and where equations are solved "iterations" of Newton's method,
        "linear_iterations" (one for a solution by factors) and "setups" of linear solvers."""


def combined(start: Tensor | float, terms: Sequence[Tensor], weights: Sequence[float], h: float) -> Tensor:
    """start + h sum(w k), over as many terms as there are of both; a chain of sums is the cheapest in a backward
    pass."""
    total = start
    for weight, k in zip(weights, terms, strict=False):
        if weight:
            total = torch.add(total, k, alpha=h * weight) if isinstance(total, Tensor) else k * (h * weight)
    return torch.as_tensor(total)


class Integrator(ABC):
    """A method for du/dt = f(u, t): a small frozen dataclass of its settings.

    Attributes:
        usual: what a `Controller` of it has where that says None.
    """

    usual: ClassVar[Controller] = Controller()

    @abstractmethod
    def describe(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        """The method prepared for a system.

        Args:
            system: what is to evolve.
            rtol, atol: the tolerances of a run whose steps adapt, to a fraction of which equations within a step are
                solved; they are solved to rounding for rtol None, as where steps are fixed, or where a step is to give
                the same result whenever it is repeated. atol in the unit of the system's fields, a float or one number
                for each row.

        Raises:
            InputError: if it does not fit the system, with what would.
        """


def by_row(number: Time, like: Tensor) -> Time:
    """One number a row so that it multiplies states like this one; a float as it is."""
    if not isinstance(number, Tensor):
        return number
    return number.to(like.dtype).reshape((*number.shape, *(1,) * (like.ndim - number.ndim)))


def interpolated(y: Tensor, slopes: Sequence[Tensor], table: Tensor, theta: Tensor) -> Tensor:
    """y + sum_i b_i(theta) k_i at one theta a row; the table `(stages, powers)` holds the coefficients of theta,
    theta^2, ... in the weights b_i."""
    exponents = torch.arange(1, table.shape[1] + 1, device=theta.device)
    weights = (theta[..., None] ** exponents).to(table.dtype) @ table.t()
    for weight, k in zip(weights.unbind(-1), slopes, strict=True):
        y = torch.addcmul(y, weight.to(y.dtype).reshape((*weight.shape, *(1,) * (y.ndim - weight.ndim))), k)
    return y
