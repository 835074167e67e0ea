"""What integration in time returns, and what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from sciml.evolving import Tolerance

from .events import Event

Gradient = Literal["recorded", "checkpointed"]
Control = Literal["joint", "row"]
Observer = Callable[[int, float, Tensor], None]
"""Called with the index of an output time, the time, and the state `(*batch, *state_space)` there."""
StepObserver = Callable[[float, float, Tensor], None]
"""Called with the start of an accepted step, its size, and the state `(*batch, *state_space)` at its start."""


@dataclass(frozen=True)
class Task:
    """What to integrate.

    Attributes:
        times: output times, increasing; the first is that of the initial state.
        step: of methods of fixed step: the largest step; None for adaptive ones.
        rtol, atol: tolerances of adaptive methods, atol in the unit of u, of the whole batch or row by row.
        gradient: "recorded" keeps all steps for the backward pass; "checkpointed" keeps about as many states as the
            square root of twice the number of steps, and computes the others again.
        events: what to look for.
        observer: told of every output as soon as it is there.
        step_observer: told of every accepted step of the whole batch.
        failed: codes of rows that have failed before, int64 of batch shape, 0 of the others; their states are not used.
    """

    times: tuple[float, ...]
    step: float | None = None
    rtol: float = 1e-6
    atol: Tolerance = 1e-9
    gradient: Gradient = "recorded"
    events: tuple[Event, ...] = ()
    observer: Observer | None = None
    step_observer: StepObserver | None = None
    failed: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States at the output times, row by row of the batch.

    Attributes:
        states: `(*batch, time, *state_space)`; NaN after a row has failed.
        codes: int64 of batch shape, values of `Status`.
        statistics: counts as int64 tensors of batch shape ("evaluations", "steps", "rejected", and of implicit methods
            "iterations", "linear_iterations" and "setups"), until the row failed or stopped; "failed_at", the time
            by which a row had failed (NaN where it has not), "smallest_step" and "largest_step", of batch shape.
        history: tensors `(steps, *batch)`, one entry a step that was tried: "time" at its start, "step", "accepted",
            and of adaptive methods "error", relative to the tolerance; "stiffness" where the method was asked for it.
        events: one entry an event, see `Event`.
    """

    states: Tensor
    codes: Tensor
    statistics: dict[str, Any]
    history: dict[str, Tensor] = field(default_factory=dict)
    events: tuple[dict[str, Tensor], ...] = ()
