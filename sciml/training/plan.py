"""What decides the outcome of a training, apart from the network, the loss and the samples."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, final

from ..errors import InputError
from .optimizers import Adam, Optimizer
from .schedules import Constant, Schedule

Precision = Literal["float32", "bf16", "float16"]

EXTENSIBLE = ("epochs", "steps", "seconds", "patience")
"""What may change when a training is resumed."""


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is trained. Exactly one of `epochs`, `steps` and `seconds` says how long.

    Args:
        epochs: how often every sample is seen.
        steps: how many steps the optimizer takes.
        seconds: how long training may take, validation and checkpoints not counted. It can be interrupted and resumed,
            though never to the last bit: the clock decides what is computed.
        clock: what `seconds` are: of the clock on the "wall", or of this process's "cpu" (the largest of the ranks).
        batch_size: samples of one optimizer step, over all ranks and all accumulated pieces.
        optimizer: with the rate at the schedule's factor 1; default Adam(1e-3).
        schedule: of the rate; default constant.
        clip: the largest 2-norm of the whole gradient; a longer one is scaled down to it. None for no limit.
        accumulate: number of pieces in which each rank works through its part of a batch, to save memory; the gradient
            is that of the whole batch.
        precision: "float32" computes in the dtype of the network (so also a network in float64); "bf16" and "float16"
            run it under torch.autocast, float16 with a scaled loss.
        compile: run the network through torch.compile.
        drop_last: leave out the last batch of an epoch if it is smaller than the others.
        validate_every: epochs between two validations; the end of the training is one too.
        monitor: the validation value that makes the best weights, the lower the better: "loss" or one of the metrics.
        patience: stop after so many validations in a row without a new best; None for never.
        seed: of the order of the samples, and of the random numbers drawn in the training.

    Raises:
        InputError: none or several of epochs, steps and seconds, or a value out of its range.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    clock: Literal["wall", "cpu"] = "wall"
    batch_size: int = 32
    optimizer: Optimizer = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=Constant)
    clip: float | None = None
    accumulate: int = 1
    precision: Precision = "float32"
    compile: bool = False
    drop_last: bool = False
    validate_every: int = 1
    monitor: str = "loss"
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("epochs", "steps", "seconds") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) if given else "none"
            raise InputError(f"a plan needs exactly one of epochs, steps and seconds, got {said}")
        for name in ("epochs", "steps", "batch_size", "accumulate", "validate_every", "patience"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number, at least 1, got {value!r}")
        for name in ("seconds", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be positive and finite, got {value!r}")
        for name, allowed in (("clock", ("wall", "cpu")), ("precision", ("float32", "bf16", "float16"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not isinstance(self.optimizer, Optimizer):
            raise InputError(f"optimizer must be one of sciml.training's, such as Adam(1e-3), got {self.optimizer!r}")
        if not isinstance(self.schedule, Schedule):
            raise InputError(f"schedule must be one of sciml.training's, such as Cosine(), got {self.schedule!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed must be a whole number, at least 0, got {self.seed!r}")

    def described(self) -> dict[str, Any]:
        """The plan in JSON's values, as checkpoints and logs have it."""
        described = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**described, "optimizer": _described(self.optimizer), "schedule": _described(self.schedule)}


def _described(choice: object) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if dataclasses.is_dataclass(choice) and not isinstance(choice, type):
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(choice).items()
            if isinstance(value, bool | int | float | str | tuple | None)
        }
    return {"name": type(choice).__name__, **settings}
