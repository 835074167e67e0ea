"""Paths of Brownian motion as stochastic systems see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import Any, final

import torch
from torch import Tensor

from .errors import InputError


class Noise(ABC):
    """One path of Brownian motion W for every entry of a state, independent of each other.

    Attributes:
        shape: of W, `(*batch, *space)`.
        dtype, device: of what `increments` returns.
        start, end: between which it is known, in the unit of time.
        has_integrals: whether `increments` knows the integral.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    start: float
    end: float
    has_integrals: bool

    @abstractmethod
    def increments(self, t0: float, t1: float) -> tuple[Tensor, Tensor | None]:
        """W(t1) - W(t0), and the integral of W(s) - W(t0) over s from t0 to t1; both of `shape`, the unit of W being
        the root of the unit of time. The same whenever and in whichever order it is asked for.

        Args:
            t0, t1: t0 <= t1, between `start` and `end`.

        Returns:
            both; None in place of the integral if it is not known.

        Raises:
            InputError: for times that are not known.
        """

    @abstractmethod
    def fitted(self, t: float, h: float) -> float:
        """A step from t that is cheap, at most h and not much less."""


@final
class TorchsdeNoise(Noise):
    """A Brownian motion of torchsde.

    Args:
        brownian: a `torchsde.BrownianInterval`, `BrownianTree` or `BrownianPath`; the integral is known if its
            levy_area_approximation is "space-time" or better. What it says may depend on the order of questions (but
            with halfway_tree=True), and is then not the same in a second run with a new object.

    Raises:
        InputError: for anything else.
    """

    def __init__(self, brownian: Any) -> None:
        names = ("shape", "dtype", "device", "levy_area_approximation")
        if isinstance(brownian, type) or not callable(brownian) or not all(hasattr(brownian, name) for name in names):
            raise InputError(
                "path: expected a sciml.solvers.time.BrownianPath, or a Brownian motion of torchsde such as "
                "torchsde.BrownianInterval(t0, t1, size=(*batch, *space), levy_area_approximation='space-time'), got "
                f"{'the class ' + brownian.__name__ if isinstance(brownian, type) else type(brownian).__name__}"
            )
        self.brownian = brownian
        self.shape = tuple(brownian.shape)
        self.dtype, self.device = brownian.dtype, torch.device(brownian.device)
        # Its ends are known to the interval within alone.
        interval = getattr(brownian, "_interval", brownian)
        self.start, self.end = getattr(interval, "_start", -inf), getattr(interval, "_end", inf)
        forward = getattr(brownian, "base_brownian", None)
        self._reversed = forward is not None  # torchsde.ReverseBrownian
        if forward is not None:
            known = TorchsdeNoise(forward)
            self.start, self.end = -known.end, -known.start
        self.has_integrals = brownian.levy_area_approximation != "none"

    def increments(self, t0: float, t1: float) -> tuple[Tensor, Tensor | None]:
        t0, t1 = max(t0, self.start), min(t1, self.end)  # rounding may lead beyond
        if not self.has_integrals:
            return self.brownian(t0, t1), None
        increment, integral = self.brownian(t0, t1, return_U=True)
        # It says that of the path that goes forward.
        return increment, (t1 - t0) * increment - integral if self._reversed else integral

    def fitted(self, t: float, h: float) -> float:
        return h
