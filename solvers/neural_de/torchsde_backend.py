"""torchsde as a closed box: its solvers, our arguments, noise, statistics and status.

Li, Wong, Chen and Duvenaud, "Scalable Gradients for Stochastic Differential Equations", AISTATS 2020; version 0.2.6,
whose sources say what is relied on here.
"""

from __future__ import annotations

from math import ceil
from time import perf_counter
from typing import Any, final

import torch
from torch import Tensor

from sciml.errors import InputError, SolveError
from sciml.solution import Solution
from sciml.status import Status
from sciml.stochastic_system import StochasticSystem

from ..time.stochastic import EulerMaruyama, Milstein, StochasticRungeKutta
from ..time.trajectory import StepObserver

_NAMES = {EulerMaruyama: "euler", Milstein: "milstein", StochasticRungeKutta: "srk"}
_OF_STRATONOVICH = "heun"  # its "milstein" has another limit where entries of the diffusion depend on each other


def solve_with_torchsde(
    system: StochasticSystem,
    initial: Tensor,
    times: tuple[float, ...],
    *,
    method: EulerMaruyama | Milstein | StochasticRungeKutta,
    step: float | None,
    rtol: float | None,
    atol: float | None,
    throw: bool = True,
    step_observer: StepObserver | None = None,
) -> Solution:
    """Solve du = f dt + g dW by torchsde.

    Args:
        system: with the noise.
        initial: `(*batch, *space)` at times[0].
        times: increasing.
        method: which of its methods: "euler", "milstein", for all Runge-Kutta methods "srk"; in Stratonovich's calculus
            "heun" for Milstein's, which in torchsde sums over columns of the derivative of the diffusion where only the
            diagonal belongs, and so converges to another process unless all else in it is 0.
        step: of fixed size, counted from times[0] through; values at times between their ends are interpolated
            linearly. None: steps that adapt to rtol and atol by comparing one with two of half the size, from a
            hundredth of the interval.
        throw: raise SolveError if a row fails; otherwise its values after the first are NaN. Where steps adapt all rows
            fail together, since torchsde does not say which did.
        step_observer: told of every step of fixed size once all is over.

    Returns:
        Solution as of `sciml.evolve`; `statistics` has "evaluations" of the drift, "diffusion_evaluations", of fixed
        steps "steps", and "failed_at", the first of the times at which a row was not finite.

    Raises:
        InputError: for a system in Stratonovich's calculus and a method of Ito's.
        SolveError: see `throw`.
    """
    import torchsde

    begun = perf_counter()
    axes = len(system.space)
    batch = tuple(initial.shape[: initial.ndim - axes])
    try:
        fits = torch.broadcast_shapes(system.noise.shape, initial.shape) == initial.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise InputError(
            f"path has the shape {system.noise.shape}, and the states {tuple(initial.shape)}: make it in theirs"
        )
    place: dict[str, Any] = {"dtype": torch.float64, "device": initial.device}
    noise = _Brownian(system, initial)
    box = _Equation(system, tuple(initial.shape), method)
    grid = times
    if step is not None and step_observer is not None:
        grid = _with_steps(times, step)
    name = _NAMES[type(method)] if system.calculus == "ito" else _OF_STRATONOVICH
    ready = perf_counter()

    def solved(start: Tensor) -> Tensor:
        found: Tensor = torchsde.sdeint(
            box,
            start.reshape(1, -1),
            torch.tensor(grid, dtype=torch.float64, device=start.device),
            bm=noise,
            method=name,
            dt=(times[-1] - times[0]) / 100 if step is None else step,
            adaptive=step is None,
            rtol=1e-5 if rtol is None else rtol,
            atol=1e-4 if atol is None else atol,
            dt_min=1e-9 * (times[-1] - times[0]),
        )
        return found.reshape(len(grid), *start.shape)

    try:
        states = solved(initial)
    except AssertionError:  # of its estimate of the error, which is not finite; of which row it does not say
        states = torch.full_like(initial, torch.nan).expand(len(grid), *initial.shape).clone()
        states[0] = initial.detach()
    finite = torch.isfinite(states.detach().reshape(len(grid), *batch, -1)).all(-1)
    lost = ~finite[-1]
    if not throw and bool(lost.any()) and not bool(lost.all()):
        # What is not finite in some rows makes the gradients of all NaN: these go through once more, as a living one.
        spread = lost.reshape(*batch, *(1,) * axes)
        living = initial.reshape(-1, *system.space)[int((~lost).reshape(-1).int().argmax())].detach()
        box.drifts = box.diffusions = 0
        states = solved(torch.where(spread, living, initial))
    if step is not None and step_observer is not None and not bool(lost.all()):
        for k in range(_count(times, step)):
            start = min(times[0] + k * step, times[-1])
            nearest = min(range(len(grid)), key=lambda i, t=start: abs(grid[i] - t))  # type: ignore[misc]
            step_observer(start, min(step, times[-1] - start), states[nearest].detach())
    if bool(lost.any()):
        later = torch.where(lost.reshape(*batch, *(1,) * axes), torch.nan, states[1:])
        states = torch.cat((initial[None], later if not bool(lost.all()) else later.detach()))
    states = states[[grid.index(time) for time in times]]
    codes = torch.where(lost, int(Status.NON_FINITE), int(Status.CONVERGED))
    moments = torch.tensor(times, dtype=torch.float64, device=initial.device)
    failed = torch.where(lost, torch.tensor(grid, **place)[(~finite).int().argmax(0)], torch.nan)

    def everywhere(count: int) -> Tensor:
        return torch.full(batch, count, dtype=torch.int64, device=initial.device)

    statistics: dict[str, Any] = {
        "evaluations": everywhere(box.drifts - 1),  # one of each checks the shapes
        "diffusion_evaluations": everywhere(box.diffusions - 1),
        "failed_at": failed,
        "seconds_setup": ready - begun,
        "seconds_solve": perf_counter() - ready,
    }
    if step is not None:
        statistics["steps"] = everywhere(_count(times, step))
    solution = Solution(
        states.movedim(0, len(batch)),
        codes,
        statistics,
        {},
        method=f"torchsde's {name} (as requested)",
        notes=system.notes,
        system=system,
        times=moments.cpu(),
    )
    if throw and not bool(solution.converged.all()):
        bad = torch.nonzero(codes.reshape(-1) != Status.CONVERGED).reshape(-1)
        worst = int(bad[0])
        raise SolveError(
            f"{solution.method}: row {worst} ({len(bad)} of {codes.numel()} rows failed) ended with "
            f"{Status.NON_FINITE.name} by time {float(failed.reshape(-1)[worst]):.6g}. "
            f"{Status.NON_FINITE.advice_in_time}",
            solution,
        )
    return solution


def _count(times: tuple[float, ...], step: float) -> int:
    return max(1, ceil((times[-1] - times[0]) / step * (1 - 1e-12)))


def _with_steps(times: tuple[float, ...], step: float) -> tuple[float, ...]:
    """The times with the ends of the steps between them."""
    close = 1e-9 * (times[-1] - times[0])
    ends = (times[0] + k * step for k in range(1, _count(times, step)))
    return tuple(sorted((*times, *(t for t in ends if all(abs(t - time) > close for time in times)))))


@final
class _Equation:
    """What torchsde asks of an equation, on states of shape (1, length)."""

    noise_type = "diagonal"

    def __init__(self, system: StochasticSystem, shape: tuple[int, ...], method: object) -> None:
        if system.calculus == "stratonovich" and not isinstance(method, Milstein):
            raise InputError("of torchsde's methods that are used here only Milstein() knows Stratonovich's calculus")
        self.sde_type = system.calculus
        self.system, self.shape = system, shape
        self.drifts = self.diffusions = 0

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        self.drifts += 1
        return self.system.rate(y.reshape(self.shape), t).reshape(y.shape)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        self.diffusions += 1
        return self.system.diffusion(y.reshape(self.shape), t).reshape(y.shape)


@final
class _Brownian:
    """The noise of a system as torchsde asks for it."""

    levy_area_approximation = "space-time"

    def __init__(self, system: StochasticSystem, initial: Tensor) -> None:
        self.noise, self.full = system.noise, tuple(initial.shape)
        self.shape = (1, initial.numel())
        self.dtype, self.device = initial.dtype, initial.device

    def __call__(self, t0: Any, t1: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        growth, integral = self.noise.increments(float(t0), float(t1))
        growth = growth.expand(self.full).reshape(self.shape)
        if not return_U:
            return growth
        if integral is None:
            raise InputError(
                "the path does not know the integral of the noise, which srk needs: make it with "
                "levy_area_approximation='space-time'"
            )
        return growth, integral.expand(self.full).reshape(self.shape)
