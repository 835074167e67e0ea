"""Explicit multistep methods of fixed step: one evaluation of the right-hand side a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciml.evolving import EvolvingSystem, Tolerance

from ..linear.settings import check_number
from .stepper import Attempt, Integrator, Stepper


@final
@dataclass(frozen=True)
class AdamsBashforth3(Integrator):
    """The Adams-Bashforth method of order 3:

        y_(n+1) = y_n + h (23 f_n - 16 f_(n-1) + 5 f_(n-2)) / 12,

    after two steps of a Runge-Kutta method of order 3. Of fixed step; where the step changes it begins anew. Stable on
    the negative real axis as far as h |lambda| = 6/11, on the imaginary axis 0.72.

    Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, 2nd ed., Springer 1993, equation III.1.5;
    Durran, Mon. Wea. Rev. 119 (1991) 702-720.
    """

    def describe(self) -> str:
        return "Adams-Bashforth 3, explicit"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        return _AdamsBashforth(system)


@final
class _AdamsBashforth(Stepper):
    """Its memory is the latest step size and the slopes before the present one, the latest first."""

    def __init__(self, system: EvolvingSystem) -> None:
        self.system = system
        self.order = 3
        self.embedded = 0
        self.even = True
        self._evaluations = 0

    def begin(self, y: Tensor, t: float) -> _Slopes:
        return _NONE

    def step(self, y: Tensor, t: float, h: float, memory: _Slopes) -> Attempt:
        slope = self.system.slope(y, t)
        h_before, first, second = memory
        if not same_step(h, h_before):
            first = second = None
        if first is None or second is None:
            self._evaluations += 3
            return Attempt(self._start(y, t, h, slope), (h, slope, first))
        self._evaluations += 1
        value = torch.add(y, slope, alpha=h * (23 / 12))
        value.add_(first, alpha=h * (-16 / 12)).add_(second, alpha=h * (5 / 12))
        return Attempt(value, (h, slope, first))

    def counts(self) -> dict[str, int]:
        return {"evaluations": self._evaluations}

    def _start(self, y: Tensor, t: float, h: float, slope: Tensor) -> Tensor:
        """Ralston's method of order 3, Math. Comp. 16 (1962) 431-437."""
        second = self.system.slope(torch.add(y, slope, alpha=h / 2), t + h / 2)
        third = self.system.slope(torch.add(y, second, alpha=0.75 * h), t + 0.75 * h)
        return torch.add(y, slope, alpha=h * (2 / 9)).add_(second, alpha=h / 3).add_(third, alpha=h * (4 / 9))


_Slopes = tuple[float, Tensor | None, Tensor | None]
_NONE: _Slopes = (0.0, None, None)


@final
@dataclass(frozen=True)
class Leapfrog(Integrator):
    """The leapfrog method with the Robert-Asselin filter:

        y_(n+1) = z_(n-1) + 2 h f(y_n),    z_n = y_n + filter (z_(n-1) - 2 y_n + y_(n+1)),

    after one step of Heun's method. Of fixed step; where the step changes it begins anew. Stable for oscillations up to
    h |lambda| = 1, a little less with the filter, and for nothing that is damped: diffusion makes it explode.

    Of order 2 without the filter. The filter damps the mode that changes its sign at every step, and takes part in the
    solution: the method is then of order 1, with an error in proportion to the filter.

    Asselin, Mon. Wea. Rev. 100 (1972) 487-490; Durran, Mon. Wea. Rev. 119 (1991) 702-720.

    Args:
        filter: in [0, 1), dimensionless; 0.05 by default.

    Raises:
        InputError: for a filter out of range.
    """

    filter: float = 0.05

    def __post_init__(self) -> None:
        check_number(self.filter, "Leapfrog: filter", 0.0, 1.0, "[)")

    def describe(self) -> str:
        return f"leapfrog, Robert-Asselin filter {self.filter:g}, explicit"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        return _Leapfrog(self.filter, system)


@final
class _Leapfrog(Stepper):
    """Its memory is the latest step size and the filtered state before the present one."""

    def __init__(self, filter_: float, system: EvolvingSystem) -> None:
        self.filter = filter_
        self.system = system
        self.order = 1 if filter_ else 2
        self.embedded = 0
        self.even = True
        self._evaluations = 0

    def begin(self, y: Tensor, t: float) -> tuple[float, Tensor]:
        return 0.0, y

    def step(self, y: Tensor, t: float, h: float, memory: tuple[float, Tensor]) -> Attempt:
        h_before, before = memory
        slope = self.system.slope(y, t)
        if not same_step(h, h_before):
            moved = self.system.slope(torch.add(y, slope, alpha=h), t + h)
            value = torch.add(y, slope, alpha=h / 2).add_(moved, alpha=h / 2)
            self._evaluations += 2
            return Attempt(value, (h, y))
        self._evaluations += 1
        value = torch.add(before, slope, alpha=2 * h)
        if not self.filter:
            return Attempt(value, (h, y))
        filtered = torch.lerp(y, torch.lerp(before, value, 0.5), 2 * self.filter)
        return Attempt(value, (h, filtered))

    def counts(self) -> dict[str, int]:
        return {"evaluations": self._evaluations}


def same_step(h: float, before: float) -> bool:
    """Whether two step sizes differ by rounding only."""
    return abs(h - before) <= 1e-9 * abs(h)
