"""This package's methods as contenders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.evolve import evolve
from sciml.solvers.time import ExplicitRungeKutta
from sciml.solvers.time.march import integrate
from sciml.solvers.time.stepper import Integrator
from sciml.solvers.time.trajectory import Task, Trajectory

from ...boundary import Periodic
from ...equations import Equation
from ...function_system import FunctionSystem
from ...grid import Grid
from ...solution import Solution
from ...status import Status
from ..bench import version_of
from ..timing import Contender, Outcome
from .problems import FieldProblem
from .systems import LORENZ, LORENZ_PARAMETERS, MU, VAN_DER_POL, SystemProblem, gradient_of

_PARAMETERS = {LORENZ: LORENZ_PARAMETERS, VAN_DER_POL: {"mu": MU}}


def stepped(
    problem: FieldProblem, name: str, method: Integrator, device: str, dtype: torch.dtype = torch.float64
) -> Contender:
    """A field from its start to its end by steps of fixed size."""
    parameters = dict(problem.parameters)
    equation = Equation(problem.equation, constraints=problem.constraints, parameters=parameters)
    zero, length = (0.0,) * problem.axes, (problem.length,) * problem.axes
    grid = Grid(problem.grid, zero, length, boundary=Periodic(), device=device, dtype=dtype)
    initial = torch.from_numpy(problem.initial).to(device, dtype)
    times = [0.0, problem.end]

    @torch.no_grad()
    def solve(_: Any) -> Solution:
        return evolve(equation, grid, initial=initial, times=times, method=method, step=problem.step)

    def value(solution: Solution) -> Tensor:
        return solution.value.select(-len(initial.shape[1:]) - 1, -1)

    return _contender(name, solve, value, device)


def written(
    problem: SystemProblem, name: str, method: Integrator, *, rows_alone: bool, keep_all: bool = True
) -> Contender:
    """A system of ordinary differential equations through its text; the outcome is `(batch, times, unknowns)`.

    Args:
        problem: with a text.
        name: of the row.
        method: the integrator.
        rows_alone: whether every row has steps of its own.
        keep_all: whether the outcome has all the times, or only the last.
    """
    equation = Equation(problem.text, coordinates=(), parameters=_PARAMETERS[tuple(problem.text)])

    @torch.no_grad()
    def solve(_: Any) -> Solution:
        return evolve(
            equation,
            None,
            initial=problem.initial,
            times=problem.times,
            method=method,
            rtol=problem.tolerance,
            atol=problem.tolerance,
            control="row" if rows_alone else "joint",
        )

    keep: Callable[[Solution], Tensor] = lambda solution: solution.value if keep_all else solution.value[:, -1:]  # noqa: E731
    return _contender(name, solve, keep, problem.initial.device.type)


def forward(problem: SystemProblem, name: str, method: ExplicitRungeKutta) -> Contender:
    """A system given as a function, one step size for the batch, without gradients."""

    @torch.no_grad()
    def solve(_: Any) -> Trajectory:
        return _through_function(problem, method, problem.initial)

    def finish(trajectory: Trajectory) -> Outcome:
        return replace(_told(trajectory), value=trajectory.states.cpu().numpy())

    return Contender(name, "sciml", version_of("sciml"), solve, finish, device=problem.initial.device.type)


def gradient(problem: SystemProblem, name: str, method: ExplicitRungeKutta) -> Contender:
    """Forward, and backward through the recorded steps; the outcome is the gradient."""
    kept: list[Trajectory] = []

    def solve(_: Any) -> Tensor:
        def integrated(y: Tensor) -> Tensor:
            kept[:] = [_through_function(problem, method, y)]
            return kept[0].states[:, -1]

        return gradient_of(problem, integrated)

    def finish(found: Tensor) -> Outcome:
        return replace(_told(kept[0]), value=found.cpu().numpy())

    return Contender(name, "sciml", version_of("sciml"), solve, finish, device=problem.initial.device.type)


def _through_function(problem: SystemProblem, method: ExplicitRungeKutta, initial: Tensor) -> Trajectory:
    """`evolve` is for equations; this is the loop that it runs."""
    system = FunctionSystem(lambda u, t: problem.rate(t, u), initial.shape[1:], device=initial.device)
    return integrate(method, system, initial, Task(problem.times, None, problem.tolerance, problem.tolerance))


def _contender(
    name: str, solve: Callable[[Any], Solution], value: Callable[[Solution], Tensor], device: str
) -> Contender:
    def finish(solution: Solution) -> Outcome:
        return replace(_told(solution), value=value(solution).cpu().numpy())

    return Contender(
        name,
        "sciml",
        version_of("sciml"),
        solve,
        finish,
        device=device,
        setup_within=lambda solution: float(solution.statistics["seconds_setup"]),
    )


def _told(found: Solution | Trajectory) -> Outcome:
    statistics = found.statistics
    worst = Status(int(found.codes.max()))
    tried = int((statistics["steps"] + statistics["rejected"]).max())
    note = None if worst is Status.CONVERGED else worst.name
    return Outcome(None, tried, note, {"evaluations": int(statistics["evaluations"].max())})
