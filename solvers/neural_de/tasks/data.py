"""What data sets are to a task: tensors to train with, and tensors to test with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Images:
    """Images and what is on them.

    Args:
        image, test_image: `(samples, pixels)`, each in [0, 1].
        label, test_label: `(samples,)`, int64, from 0 to classes - 1.
        classes: their number.
    """

    image: Tensor
    label: Tensor
    test_image: Tensor
    test_label: Tensor
    classes: int


@final
@dataclass(frozen=True, eq=False)
class Series:
    """Series of values at common times, of which some are observed.

    Args:
        times: `(times,)`, increasing, float64.
        value: `(samples, times, channels)`; 0 where nothing is observed.
        mask: of the same shape, bool: what is observed.
    """

    times: Tensor
    value: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def part(self, indices: Tensor) -> Series:
        """Some of the samples, in this order."""
        return Series(self.times, self.value[indices], self.mask[indices])

    def scaled(self) -> Series:
        """Every channel scaled to [0, 1] by its least and largest observed value."""
        low = torch.where(self.mask, self.value, torch.inf).amin((0, 1))
        high = torch.where(self.mask, self.value, -torch.inf).amax((0, 1))
        width = torch.where(high > low, high - low, 1.0)
        return Series(self.times, torch.where(self.mask, (self.value - low) / width, 0.0), self.mask)

    def halves(self, share: float, seed: int) -> tuple[Series, Series]:
        """A random division into two, the first having `share` of the samples.

        Args:
            share: dimensionless, between 0 and 1.
            seed: of the division.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        first = round(share * len(self))
        return self.part(order[:first]), self.part(order[first:])
