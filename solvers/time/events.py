"""Functions of the state whose zeros are looked for while time goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from torch import Tensor

from sciml.errors import InputError


@dataclass(frozen=True)
class Event:
    """A function of the field and the time that is looked at for a change of sign after every step.

    Two zeros within one step are not seen. `solution.events` has for each event a dict of "time" `(*batch,)`, NaN where
    it did not happen, and "value" `(*batch, *space)`, the field there; the first of several occurrences. Both are
    differentiable: to first order the time moves as the function's zero does.

    Args:
        function: (u, t) -> tensor of batch shape; u is `(*batch, *space)`.
        stop: whether a row ends there: at later output times its value is that at the event.
        direction: 0 for any change of sign, 1 from negative to positive, -1 from positive to negative.
        tolerance: width of the interval of time to which an event is located, relative to the step.

    Raises:
        InputError: for another direction, or a tolerance that is not positive.
    """

    function: Callable[[Tensor, float], Tensor]
    stop: bool = True
    direction: int = 0
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"Event: function is called with the field and the time, got {self.function!r}")
        if self.direction not in (-1, 0, 1):
            raise InputError(f"Event: direction is -1, 0 or 1, got {self.direction!r}")
        if not isinstance(self.tolerance, Real) or not self.tolerance > 0:
            raise InputError(f"Event: tolerance is a positive number, got {self.tolerance!r}")

    def crossed(self, before: Tensor, after: Tensor) -> Tensor:
        """Which rows changed sign within a step; a zero at its start counts as one at the end of the step before."""
        up = (before < 0) & (after >= 0)
        down = (before > 0) & (after <= 0)
        return up if self.direction > 0 else down if self.direction < 0 else up | down

    def value(self, u: Tensor, t: float, batch: tuple[int, ...]) -> Tensor:
        """The function, checked.

        Raises:
            InputError: for a result of another shape than the batch.
        """
        found = self.function(u, t)
        if not isinstance(found, Tensor) or tuple(found.shape) != batch:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"Event: the function returned {what}, expected a tensor of the batch's shape {batch}")
        return found


def locate(function: Callable[[float], float], left: float, right: float, tolerance: float) -> float:
    """A zero in [0, 1] of a function with values `left` and `right` of opposite sign at the ends: the end of the last
    bracket that has the sign of `right`, by the Illinois variant of regula falsi.

    Dowell and Jarratt, BIT 11 (1971) 168-174.
    """
    if right == 0.0:
        return 1.0
    low, high, at_low, at_high, moved = 0.0, 1.0, left, right, ""
    for _ in range(100):
        if high - low <= tolerance:
            break
        middle = high - at_high * (high - low) / (at_high - at_low)
        if not low < middle < high:
            middle = 0.5 * (low + high)
        value = function(middle)
        if value == 0.0:
            return middle
        # An end that stays twice has its value halved, or the other would crawl towards the zero.
        if (value > 0) == (at_high > 0):
            at_low *= 0.5 if moved == "high" else 1.0
            high, at_high, moved = middle, value, "high"
        else:
            at_high *= 0.5 if moved == "low" else 1.0
            low, at_low, moved = middle, value, "low"
    return high
