"""What a case works with: the machine's clock, the methods' turns, and the rows that come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import torch

from ..kernels import build
from ..machine import processor
from .row import Row
from .suite import Size
from .timing import ONE_RUN, PATIENCE, Calibration, Clock, Contender, Patience, Series, take_turns

_SLACK = 1.01  # a stopping rule evaluated by recurrence and b - A x computed afresh differ by rounding

_LIBRARIES = (
    *("sciml", "torch", "numpy", "scipy", "pyamg", "torch-sla"),
    *("torchdiffeq", "torchsde", "torchode", "jax", "exponax", "pyqg-jax", "neuraloperator"),
)
DISTRIBUTIONS = {"sciml": "sciml-torch"}


def version_of(library: str) -> str | None:
    """The installed version of a library, None if it is not installed."""
    try:
        return metadata.version(DISTRIBUTIONS.get(library, library))
    except metadata.PackageNotFoundError:
        return None


class Bench:
    """Handed to every case.

    Args:
        suite: name of the suite.
        size, device: as asked for.
        say: told what is being done.
        best_copy: seconds of the quickest calibration copy known from before.
        patience: how many runs to make; None for one at the size tiny, and else as many as a comparison needs.
    """

    def __init__(
        self,
        suite: str,
        size: str,
        device: str,
        say: Callable[[str], None],
        best_copy: float = math.inf,
        patience: Patience | None = None,
    ) -> None:
        self.patience = patience or (ONE_RUN if size == Size.TINY else PATIENCE)
        self.suite, self.size, self.device = suite, size, device
        self.say = say
        self.clock = Clock(device)
        self.calibration = Calibration.on(device, self.clock, best_copy)
        self.calibration.settle(self.patience.settle)

    def row(self, case: str, method: str, library: str = "sciml", **entries: Any) -> Row:
        """A row of this suite."""
        entries = {"device": self.device, "version": version_of(library), **entries}
        return Row(self.suite, case, method, library, threads=torch.get_num_threads(), **entries)

    def compare(
        self,
        case: str,
        contenders: Sequence[Contender],
        *,
        unknowns: int,
        residual: Callable[[Any], float] | None = None,
        error: Callable[[Any], float] | None = None,
        tolerance: float | None = None,
    ) -> list[Row]:
        """Time methods in turn on one problem, one row each.

        Args:
            case: name of the case.
            contenders: in the order of their turns.
            unknowns: number of unknowns of the problem.
            residual: |b - A x| / |b| of an outcome's value, computed afresh; None where that has no meaning.
            error: distance of an outcome's value to a reference; likewise.
            tolerance: what the residual should be at most.
        """
        rows = []
        all_series = take_turns(
            contenders, self.clock, self.calibration, lambda text: self.say(f"{case}: {text}"), self.patience
        )
        for series in all_series:
            contender = series.contender
            row = self.row(
                case,
                contender.method,
                contender.library,
                version=contender.version,
                unknowns=unknowns,
                device=contender.device,
                **self._measured(series, residual, error, tolerance),
            )
            rows.append(row)
        return rows

    def _measured(
        self,
        series: Series,
        residual: Callable[[Any], float] | None,
        error: Callable[[Any], float] | None,
        tolerance: float | None,
    ) -> dict[str, Any]:
        extra: dict[str, Any] = {} if tolerance is None else {"tolerance": tolerance}
        if series.failure is not None or series.outcome is None:
            return {"extra": {**extra, "failure": series.failure or "no run was completed"}}
        limit, outcome = self.calibration.limit, series.outcome
        kept = series.kept(limit)
        extra |= series.summary(limit) | outcome.extra
        if outcome.note:
            extra["note"] = outcome.note
        found = None if residual is None or outcome.value is None else residual(outcome.value)
        if found is not None and tolerance is not None:
            extra["missed"] = not found <= _SLACK * tolerance
        return {
            "setup_seconds": min(sample.setup for sample in kept) if series.contender.has_setup else None,
            "solve_seconds": min(sample.solve for sample in kept),
            "iterations": outcome.iterations,
            "relative_residual": found,
            "error": None if error is None or outcome.value is None else error(outcome.value),
            "extra": extra,
        }

    def machine(self) -> dict[str, Any]:
        """What the rows were measured on."""
        return {
            "processor": processor(),
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "compiled_kernels": build.library() is not None,
            "versions": {name: version_of(name) for name in _LIBRARIES},
        }
