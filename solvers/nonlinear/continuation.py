"""Continuation: from parameters for which the equation is easy to those that are asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import inf

import torch
from torch import Tensor

from sciml.errors import InputError, SolveError
from sciml.solution import Solution
from sciml.status import Status

from ..linear.base import failure_message
from ..linear.settings import check_count, check_number
from .base import AnySystem, NonlinearSolver
from .newton import Newton

_EASY = 3  # Newton steps


@dataclass(frozen=True)
class Continuation:
    """Solve for a parameter on its way from `start` to its value, each time from the solution before.

    A step after which a row fails is halved, and one that is easy is doubled. Rows move together; where the path ends
    before the value asked for, the rows at fault end as STAGNATED with the last solution on the path.

    Args:
        parameter: name of a parameter of the equation.
        start: value to begin with, in the parameter's unit: a number, or a tensor of the batch's shape.
        steps: number of equal steps to begin with.
        shortest: share of the way below which a step is not halved any more, dimensionless.
        method: solves at each value.

    Raises:
        InputError: for settings out of range.
    """

    parameter: str
    start: float | Tensor = 0.0
    steps: int = 5
    shortest: float = 1e-3
    method: NonlinearSolver = field(default_factory=Newton)

    def __post_init__(self) -> None:
        if not isinstance(self.parameter, str):
            raise InputError(f"Continuation: parameter must be the name of one, got {self.parameter!r}")
        if not isinstance(self.start, Tensor):
            check_number(self.start, "Continuation: start", -inf, inf)
        check_count(self.steps, "Continuation: steps")
        check_number(self.shortest, "Continuation: shortest", 0.0, 1.0, "(]")
        if not isinstance(self.method, NonlinearSolver):
            raise InputError(f"Continuation: method must be Newton(...) or Picard(...), got {self.method!r}")

    def solve(self, system: AnySystem, initial: Tensor | None = None, *, throw: bool = True) -> Solution:
        """Solve F(u) = 0; see `NonlinearSolver.solve`.

        Returns:
            the solution at the value asked for; its statistics count the steps of the whole way, and its history has
            the "parameter" at which it was solved, `(solves, *batch)`.

        Raises:
            InputError: for a name that is no parameter of the equation.
            SolveError: see `throw`.
        """
        begin = time.perf_counter()
        if self.parameter not in system.parameters:
            known = ", ".join(system.parameters) or "none"
            raise InputError(f"Continuation: the equation has no parameter {self.parameter!r}; it has: {known}")
        target = system.parameters[self.parameter]
        if isinstance(target, Tensor):
            target = target.detach().reshape(target.shape[: target.ndim - system.axes])
        path, values, u = self._follow(system, target, initial)
        last = self.method.solve(system, u, throw=False)
        values = [*values, target] if bool(last.converged.all()) else values
        failed = ~last.converged
        if u is not None and bool(failed.any()):
            mask = failed.reshape(*failed.shape, *[1] * len(system.space))
            last = replace(
                last,
                value=torch.where(mask, u, last.value),
                codes=torch.where(failed, int(Status.STAGNATED), last.codes),
            )
        statistics = dict(last.statistics)
        for name in ("iterations", "inner_iterations", "evaluations"):
            statistics[name] = sum((solution.statistics[name] for solution in path), start=last.statistics[name])
        statistics["seconds_setup"] += sum(solution.statistics["seconds_setup"] for solution in path)
        statistics["seconds_solve"] = time.perf_counter() - begin - statistics["seconds_setup"]
        shape, like = last.codes.shape, last.value.detach()
        parameters = [torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(shape) for value in values]
        history = {**last.history, "parameter": torch.stack(parameters)} if parameters else last.history
        way = f"continuation in {self.parameter} over {len(values)} values, "
        solution = replace(last, statistics=statistics, history=history, method=way + last.method)
        if throw and bool(failed.any()):
            raise SolveError(failure_message(solution), solution)
        return solution

    def _follow(
        self, system: AnySystem, target: float | Tensor, u: Tensor | None
    ) -> tuple[list[Solution], list[float | Tensor], Tensor | None]:
        """The solves before the last one, the values that they succeeded at, and the last of their solutions."""
        path: list[Solution] = []
        values: list[float | Tensor] = []
        reached, step = 0.0, 1.0 / self.steps
        while True:
            ahead = min(1.0, reached + step) if values else 0.0
            value = self.start + ahead * (target - self.start)
            with torch.no_grad():
                attempt = self.method.solve(system.with_parameters({self.parameter: value}), u, throw=False)
            if bool(attempt.converged.all()):
                if ahead == 1.0:
                    return path, values, attempt.value.detach()
                easy = bool(values) and int(attempt.statistics["iterations"].max()) <= _EASY
                reached, u, step = ahead, attempt.value, 2.0 * step if easy else step
                values.append(value)
            elif not values or step < 2.0 * self.shortest:
                return path, values, u
            else:
                step *= 0.5
            path.append(attempt)
