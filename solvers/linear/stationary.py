"""Stationary iterations x <- x + B (b - A x), written once for every approximate inverse B."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from sciml.linear_operator import LinearOperator

from .base import Iteration, LinearSolver
from .relaxation import RelaxationInverse


@dataclass(frozen=True, kw_only=True)
class StationaryMethod(LinearSolver):
    """Base of the methods that are both a solver and a preconditioner: `setup` gives B, `Prepared.apply` applies it."""

    stationary: ClassVar[bool] = True

    @abstractmethod
    def setup(self, operator: LinearOperator) -> LinearOperator:
        """The approximate inverse B."""

    def iterate(self, task: Iteration, state: LinearOperator) -> None:
        if isinstance(state, RelaxationInverse) and state.advance(task, descend=False):
            return
        for step in range(1, task.max_iterations + 1):
            active = task.active()
            correction = state.apply(task.r)
            task.x.add_(torch.where(task.rows.spread(active, task.x).bool(), correction, 0.0))
            task.r = task.operator.residual(task.b, task.x, out=task.r)
            task.iterations += active
            task.record(task.rows.norm(task.r))
            if task.finished(step):
                break
