"""What a training comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class Best:
    """The weights of the best validation: `network.load_state_dict(best.weights)`.

    Args:
        value: of the plan's `monitor`.
        step: optimizer steps taken until then.
        epoch: epochs completed until then.
        weights: the network's state, whole tensors on the CPU, on every rank.
    """

    value: float
    step: int
    epoch: int
    weights: Mapping[str, Tensor] = field(repr=False)


@final
@dataclass(frozen=True)
class Training:
    """How a training went. The network itself holds the last weights; the best are in `best.weights`.

    Args:
        history: of the logged steps, each a float64 tensor of shape (lines,): "step" and "epoch", counted from 1 and 0;
            "loss", the mean over the batch before the step; "rate"; "gradient", the 2-norm before clipping; "seconds".
        validations: of the validations, each of shape (validations,): "step", "epoch", "loss" and the metrics, each the
            mean over the validation samples.
        best: None if nothing was validated.
        steps: optimizer steps taken.
        epochs: epochs completed.
        seconds: of training, validation and checkpoints not counted, over all parts of a run that was resumed.
        why: why it ended, in words.
        notes: what a user should know besides: checkpoints that were refused, disks that were full, skipped steps.
        folder: where its files are.
        first: whether this process is the first of those that trained together, the one that stores and prints.
    """

    history: Mapping[str, Tensor]
    validations: Mapping[str, Tensor]
    best: Best | None
    steps: int
    epochs: int
    seconds: float
    why: str
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    first: bool = True


class TrainingError(RuntimeError):
    """A training failed; `training` holds what was reached, and the folder its last good checkpoint."""

    def __init__(self, message: str, training: Training) -> None:
        super().__init__(message)
        self.training = training
