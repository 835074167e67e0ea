"""Functions of the state whose zeros are looked for while time goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from sciml.errors import InputError


@dataclass(frozen=True)
class Event:
    """A function of the field and the time that is looked at for a change of sign after every step.

    Two zeros within one step are not seen. `solution.events` has for each event a dict of "time" `(*batch,)`, in
    float64, NaN where it did not happen, and "value" `(*batch, *space)`, the field there; the first of several
    occurrences. Both are differentiable, once, with respect to all that the run is and to tensors that the function
    itself uses: the time moves as the zero does, and the value with it.

    Args:
        function: (u, t) -> tensor of batch shape, of which each entry depends on its own row alone; u is
            `(*batch, *space)`, t is a float64 tensor of batch shape, since every row is looked at at times of its own.
        stop: whether a row ends there: at later output times its value is that at the event, and nothing that would
            happen to it afterwards is reported.
        direction: 0 for any change of sign, 1 from negative to positive, -1 from positive to negative.
        tolerance: width of the interval of time to which an event is located, relative to the step.

    Raises:
        InputError: for another direction, or a tolerance that is not positive.
    """

    function: Callable[[Tensor, Tensor], Tensor]
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

    def value(self, u: Tensor, t: Tensor) -> Tensor:
        """The function, checked.

        Raises:
            InputError: for a result of another shape than the batch, which is that of t, or without a sign, and for a
                function that does not take the times of all rows at once.
        """
        try:
            found = self.function(u, t)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"Event: the function failed for a field of shape {tuple(u.shape)} and a tensor of the times of its "
                f"rows, of shape {tuple(t.shape)} (torch.sin(t), not math.sin(t)): {error}"
            ) from error
        if not isinstance(found, Tensor) or found.shape != t.shape or not found.is_floating_point():
            what = f"{found.dtype}, {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"Event: the function returned {what}, expected real numbers in a tensor of the batch's shape "
                f"{tuple(t.shape)}, whose sign changes at the event"
            )
        return found


def locate(
    function: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor, rows: Tensor, tolerance: float
) -> Tensor:
    """For each of some rows a zero in [0, 1] of a function with values `left` and `right` of opposite sign at the ends:
    the end of the last bracket that has the sign of `right`, by inverse quadratic interpolation and, where that is not
    to be trusted, bisection.

    Chandrupatla, Advances in Engineering Software 28 (1997) 145-149.

    Args:
        function: (places, rows that are asked for) -> values, all of the shape of the batch.
        left, right: values at 0 and 1.
        rows: which rows to look at; of the others the result is 1.
        tolerance: width of the last bracket.
    """
    # The zero lies between a and b, a is the latest place, and c the one before, on the other side of a or of b.
    fa, fb = right.to(torch.float64), left.to(torch.float64)
    a, b = torch.ones_like(fa), torch.zeros_like(fb)
    place, positive = torch.full_like(a, 0.5), fa > 0
    rows = rows & (fa != 0)
    for _ in range(200):
        if not bool(rows.any()):
            break
        x = torch.where(rows, a + place * (b - a), a)
        f = torch.where(rows, function(x, rows).to(torch.float64), fa)
        same = (f > 0) == (fa > 0)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, f
        width = (b - a).abs()
        rows = rows & (width > tolerance) & (fa != 0)
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        quadratic = (phi * phi < xi) & ((1 - phi) ** 2 < 1 - xi)
        inverse = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        place = torch.where(quadratic, inverse, 0.5)
        least = (0.5 * tolerance / width).clamp(max=0.5)
        place = torch.where(place.isfinite(), place, 0.5).clamp(min=least, max=1 - least)
    return torch.where((fa == 0) | ((fa > 0) == positive), a, b)
