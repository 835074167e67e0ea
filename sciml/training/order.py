"""In which order samples are seen, and which part of a batch a rank works through."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor


def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """The order of `count` samples in an epoch, int64, from the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(mixed(seed, epoch))
    return torch.randperm(count, generator=generator)


def mixed(*numbers: int) -> int:
    """One seed from several numbers, so that neighbouring numbers, and more or fewer, give unrelated seeds."""
    # Their count goes first, for SeedSequence takes no notice of zeros at the end.
    return int(numpy.random.SeedSequence([len(numbers), *numbers]).generate_state(1)[0])


def batches(count: int, batch_size: int, drop_last: bool) -> int:
    """The number of batches in an epoch; a single one that is too small is never left out."""
    return max(count // batch_size, 1) if drop_last else -(-count // batch_size)


def pieces(indices: Tensor, rank: int, ranks: int, accumulate: int) -> list[tuple[Tensor, bool]]:
    """The pieces of a batch that a rank works through one after another, each with whether it counts.

    All ranks have the same number of pieces, since they exchange something in each. A rank for which no sample is left
    gets the first one of the batch, to be left out of every sum.
    """
    if ranks * accumulate == 1:
        return [(indices, True)]
    parts = torch.tensor_split(indices, ranks * accumulate)
    used = [parts[first : first + ranks] for first in range(0, ranks * accumulate, ranks)]
    own = [row[rank] for row in used if any(len(part) for part in row)]
    return [(part, True) if len(part) else (indices[:1], False) for part in own]
