"""Outputs of rows with steps of their own, told to an observer when the last row has come to them."""

from __future__ import annotations

import torch
from torch import Tensor

from .trajectory import Observer


class Teller:
    """What the rows have reached so far.

    Args:
        observer: None if nobody listens; then nothing is kept.
        initial: `(*batch, *state_space)`.
        times: `(time,)`, of the outputs.
        batch: number of axes of the batch.
    """

    def __init__(self, observer: Observer | None, initial: Tensor, times: Tensor, batch: int) -> None:
        self.observer, self.shape, self.times = observer, initial.shape, times
        self.told = 0
        if observer is not None:
            flat = initial.detach().reshape(initial.shape[:batch].numel(), -1)
            self.table = torch.full((len(times), *flat.shape), torch.nan, dtype=initial.dtype, device=initial.device)
            self.table[0] = flat

    def put(self, row: Tensor, time: Tensor, states: Tensor) -> None:
        """Keep states `(pairs, size)` of rows at indices of times."""
        if self.observer is not None:
            self.table[time, row] = states.detach().reshape(len(row), -1)

    def tell(self, reached: Tensor) -> None:
        """Tell of all that lies before the times that the rows have reached, `(*batch,)`, infinite of those ended."""
        if self.observer is None:
            return
        complete = int(torch.searchsorted(self.times, reached.min().to(self.times.dtype), right=True))
        for place in range(self.told, complete):
            self.observer(place, float(self.times[place]), self.table[place].reshape(self.shape))
        self.told = max(self.told, complete)
