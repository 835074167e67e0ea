"""STEER: integrating to a random end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from numbers import Real
from typing import final

import torch

from sciml.errors import InputError

from .regularizers import Regularizer


@final
@dataclass(frozen=True)
class Steer(Regularizer):
    """In training, the end t1 of the interval is drawn uniformly from (t1 - width, t1 + width); of a model whose values
    are asked for at several times, each of these after the first moves by up to half of the interval before it.

    Ghosh, Behl, Dupont, Torr and Namboodiri, "STEER: Simple Temporal Regularization For Neural ODE", NeurIPS 2020. It
    adds nothing to the loss: its penalty is 0, and its weight is of no effect. A `path` that a `NeuralSDE` is given
    has to reach the latest end, t1 + width; with several times, that to which the last may move.

    Args:
        width: b in the paper, in the unit of time; smaller than the interval.

    Raises:
        InputError: for a width that is no positive number.
    """

    width: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.width, Real) or not (isfinite(self.width) and self.width > 0):
            raise InputError(f"Steer: width is a positive time, got {self.width!r}")

    def end(self, start: float, end: float, generator: torch.Generator | None = None) -> float:
        """A random end of an interval.

        Raises:
            InputError: for an interval that is not longer than the width.
        """
        self.latest_end(start, end)
        return end + self.width * (2 * _uniform(1, generator)[0] - 1)

    def latest_end(self, start: float, end: float) -> float:
        """The latest end of an interval that may be drawn.

        Raises:
            InputError: for an interval that is not longer than the width.
        """
        if not end - start > self.width:
            raise InputError(
                f"Steer: width {self.width:g} does not fit an interval from {start:g} to {end:g}: take a smaller one"
            )
        return end + self.width

    def moved(self, times: Sequence[float], generator: torch.Generator | None = None) -> tuple[float, ...]:
        """Times of which all but the first are moved, in increasing order."""
        shares = _uniform(len(times) - 1, generator)
        moved = [b + (share - 0.5) * (b - a) for a, b, share in zip(times, times[1:], shares, strict=False)]
        return (times[0], *sorted(moved))

    def latest_moved(self, times: Sequence[float]) -> float:
        """The latest time to which `moved` may move one."""
        return max((b + 0.5 * (b - a) for a, b in pairwise(times)), default=times[0])


def _uniform(count: int, generator: torch.Generator | None) -> list[float]:
    return [float(share) for share in torch.rand(count, dtype=torch.float64, generator=generator)]
