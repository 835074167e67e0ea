"""Step sizes from error estimates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Tolerance

NEGLIGIBLE = 1e-10  # errors relative to the tolerance that are smaller count as this large
FORGOTTEN = 1e-2  # earlier steps whose ratio is smaller count as if they had this one


Rows = Literal["largest", "mean"]


@dataclass(frozen=True)
class Controller:
    """A PID controller of the step size: with r the error relative to the tolerance, k the order of the error in h, and
    s = r / safety^k, the next step is h * s_n^-(I+P+D)/k * s_(n-1)^(P+2D)/k * s_(n-2)^-D/k, cut off at both ends.

    Söderlind, Numerical Algorithms 31 (2002) 281-310, section 3, here with safety in the set point, so that r settles
    at safety^k whatever I, P and D are. After a step that was far too small, as the first may be, the next is
    h * s^(-1/k), and later it is forgotten; after a rejected one h * safety * r^(-1/k). All dimensionless.

    Args:
        integral, proportional, derivative: I, P and D; P = D = 0 is the classical controller.
        safety: factor below 1 that makes the next step likely to be accepted.
        smallest, largest: bounds of the ratio of two steps; None: 10 as the largest, and 9/8 of adaptive stochastic
            methods.
        far_below: the s below which a step was far too small; 0: none is; None: 0.2, and 0 of implicit, exponential
            and implicit-explicit methods, since errors of stiff equations do not fall as h^k.
        max_steps: steps tried before a run is given up.
        first_step: the size of the first step, in the unit of time; None finds one.
        largest_step: that no step exceeds, in the unit of time: at most the duration of what acts for a short while
            only, such as a pulse, which a longer step would pass unseen.
        rows: what decides on a step of the whole batch: the "largest" error ratio of a row, so that every row meets its
            tolerance whichever others there are; or their root "mean" square, the convention of torchdiffeq and of the
            papers on neural ODEs, by which more rows allow longer steps.

    Raises:
        InputError: for numbers out of range.
    """

    integral: float = 0.3
    proportional: float = 0.4
    derivative: float = 0.0
    safety: float = 0.9
    smallest: float = 0.2
    largest: float | None = None
    far_below: float | None = None
    max_steps: int = 1_000_000
    first_step: float | None = None
    largest_step: float = inf
    rows: Rows = "largest"

    def __post_init__(self) -> None:
        if not (0 < self.safety < 1 and 0 < self.smallest < 1 < self.largest_growth and self.integral > 0):
            raise InputError(
                "Controller: safety and smallest lie between 0 and 1, largest is above 1 and integral positive, got "
                f"{self.safety}, {self.smallest}, {self.largest}, {self.integral}"
            )
        if not 0 <= self.forgotten_below <= 1:
            raise InputError(f"Controller: far_below lies between 0 and 1, got {self.far_below!r}")
        if not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise InputError(f"Controller: max_steps is a number of steps, at least 1, got {self.max_steps!r}")
        if self.rows not in get_args(Rows):
            raise InputError(f"Controller: rows is 'largest' or 'mean', got {self.rows!r}")
        for name, size in (("first_step", self.first_step), ("largest_step", self.largest_step)):
            if size is not None and not (isinstance(size, Real) and size > 0):
                raise InputError(f"Controller: {name} is a positive number in the unit of time, got {size!r}")

    @property
    def largest_growth(self) -> float:
        """`largest`, or what it usually is."""
        return 10.0 if self.largest is None else self.largest

    @property
    def forgotten_below(self) -> float:
        """`far_below`, or what it usually is."""
        return 0.2 if self.far_below is None else self.far_below

    def suited(self, usual: Controller) -> Controller:
        """With what a method usually has in place of None."""
        return replace(
            self,
            largest=usual.largest if self.largest is None else self.largest,
            far_below=usual.far_below if self.far_below is None else self.far_below,
        )

    def of_batch(self, ratios: Tensor, over: Tensor | None = None) -> float:
        """The one error ratio that decides.

        Args:
            ratios: of the rows, 0 of those that are over.
            over: which rows are.
        """
        if self.rows == "largest":
            return float(ratios.amax())
        if over is not None:
            ratios = ratios[~over]
        return float(ratios.square().mean().sqrt())

    def after_accepted(self, ratios: tuple[float, float, float], order: float) -> float:
        """The factor of the step after accepted ones of these ratios, the latest first."""
        target = self.safety**order
        low = self.forgotten_below * target
        if ratios[0] < low:
            return min((max(ratios[0], NEGLIGIBLE) / target) ** (-1 / order), self.largest_growth)
        found = 1.0
        floors = (NEGLIGIBLE, FORGOTTEN, FORGOTTEN)
        for ratio, exponent, least in zip(ratios, self.exponents(order), floors, strict=True):
            if exponent and ratio >= low:
                found *= (max(ratio, least) / target) ** exponent
        return min(max(found, self.smallest), self.largest_growth)

    def after_rejected(self, ratio: float, order: float) -> float:
        """The factor of the step after a rejected one; `ratio` may be NaN or infinite."""
        if not isfinite(ratio):
            return self.smallest
        return min(max(self.safety * ratio ** (-1 / order), self.smallest), self.safety)

    def exponents(self, order: float) -> tuple[float, float, float]:
        """Of the ratios of the latest step and the two before."""
        total = self.integral + self.proportional + self.derivative
        return -total / order, (self.proportional + 2 * self.derivative) / order, -self.derivative / order


def initial_step(
    system: EvolvingSystem, y: Tensor, t: float, slope: Tensor, order: float, rtol: float, atol: Tolerance, span: float
) -> Tensor:
    """A first step for each row, at most `span`: `(*batch)`; costs one evaluation.

    Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, 2nd ed., Springer 1993, section II.4.

    Args:
        slope: at (t, y).
        order: of the error of one step, less one.
    """
    size = system.error_ratio(y, y, y, rtol, atol)
    speed = system.error_ratio(slope, y, y, rtol, atol)
    small = (size < 1e-5) | (speed < 1e-5)
    guess = torch.where(small, 1e-6 * span, 0.01 * size / torch.where(small, 1.0, speed)).clamp(max=span)
    trailing = (1,) * len(system.state_space)
    moved = torch.addcmul(y, guess.reshape((*guess.shape, *trailing)), slope)
    change = system.error_ratio(system.slope(moved, t + float(guess.min())) - slope, y, y, rtol, atol) / guess
    largest = torch.maximum(speed, change)
    flat = largest <= 1e-15
    refined = torch.where(flat, torch.clamp(1e-3 * guess, min=1e-6 * span), (0.01 / largest) ** (1 / (order + 1)))
    found = torch.minimum(100 * guess, refined)
    return torch.where(torch.isfinite(found), found, 1e-6 * span).clamp(max=span)
