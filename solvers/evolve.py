"""evolve(equation, domain): discretize, choose an integrator, integrate in time, and say what was done and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import isfinite, ulp
from numbers import Real
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from sciml.boundary import Boundary
from sciml.errors import InputError, SolveError
from sciml.evolving import EvolvingSystem, Tolerance
from sciml.grid import Grid
from sciml.mesh import Mesh
from sciml.modes import in_plain_mode
from sciml.row_system import RowSystem
from sciml.scheme import FiniteElement, Scheme, Spectral
from sciml.solution import Solution
from sciml.status import Status
from sciml.stochastic_system import StochasticSystem

from .discretize import evolving_system
from .start import continued, resolve_start
from .time.choice import choose, unstable_step
from .time.events import Event
from .time.explicit import ExplicitRungeKutta
from .time.march import integrate
from .time.rows import integrate_rows
from .time.stepper import Integrator
from .time.trajectory import Control, Gradient, Task, Trajectory

if TYPE_CHECKING:
    from sciml.equations import Equation

RTOL = 1e-6


@in_plain_mode
def evolve(
    equation: Equation | EvolvingSystem,
    domain: Grid | Mesh | None = None,
    *,
    initial: Any,
    times: Sequence[float] | Tensor,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Scheme | Spectral | FiniteElement | None = None,
    method: Integrator | None = None,
    step: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    control: Control = "joint",
    gradient: Gradient = "recorded",
    events: Event | Sequence[Event] = (),
    observer: Callable[[int, float, Tensor], None] | None = None,
    step_observer: Callable[[float, float, Tensor], None] | None = None,
    throw: bool = True,
) -> Solution:
    """Integrate an evolving equation in time, on a grid, on a mesh, or as ordinary differential equations.

    Args:
        equation, domain, fields, parameters, boundary, scheme: see `sciml.discretize`. What that returns may stand in
            place of the equation, without the others, so that many runs discretize once; and so may a
            `sciml.FunctionSystem`, whose right-hand side is a function such as a neural network, or a
            `sciml.StochasticSystem`, which is one of noise, too.
        initial: the state at times[0]: a number, a tensor that broadcasts to `(*batch, *space)`, a function of the
            coordinates; of several unknowns a dict of these by name (of an equation of second order in time also
            "u_t"), or a tensor `(*batch, channel, *space)`; or the solution of an earlier run on the same domain and
            of the same unknowns, which goes on from its last time, or from that at which all rows stopped at an event;
            rows that had failed stay so, and are NaN.
        times: increasing, at least two, in the unit of time of the problem. The first is that of `initial`, and the
            solution has a value at each.
        method: an integrator of `sciml.solvers.time`; None chooses one by how stiff the system is at the start, of
            ordinary differential equations after a few steps, and `solution.method` says which and why.
        step: size of the steps; a little less where the time between two outputs is no multiple of it. None adapts
            the steps to `rtol` and `atol`.
        rtol, atol: of adaptive steps, the error of each step allowed relative to the solution (None: 1e-6 in float64,
            1e-4 in float32, 1e-3 of stochastic systems), and besides in its unit (None: rtol times the largest
            |initial| of each row of the batch; where that is 0, the largest |du/dt| times the time to the first output
            stands in, of stochastic systems with the diffusion times the root of this time). With `step` they go only
            with methods that have record=True, which measure the errors in the history by them.
        control: "joint": one step for the whole batch, so that every row meets its tolerance; "row": steps of its own
            for every row, of explicit methods with dense output; functions of the time are then called with a tensor
            of the times of the rows.
        gradient: "recorded" keeps what a backward pass needs of every step; "checkpointed" about as many states as the
            square root of twice the number of steps, and takes all steps once more.
        events: what to look for in the course of time.
        observer: called with the index of an output time, the time, and the value `(*batch, *space)` there as soon as
            it is known; for progress, and for keeping what was computed if a run is interrupted.
        step_observer: called for each accepted step with its start, its size, and the value `(*batch, *space)` at its
            start; where all rows have the same steps.
        throw: raise SolveError if a row fails; otherwise its status says so, and its later values are NaN.

    Returns:
        Solution whose value is `(*batch, time, *space)`, of several unknowns `(*batch, time, channel, *space)`;
        differentiable with respect to every tensor in initial, fields, parameters and boundary, step sizes taken as
        they came out. Of adaptive steps `history` has one entry a step that was tried. `statistics` has also
        "failed_at", and where events stop rows "stopped_at", the times when that came about, NaN of the other rows.

    Raises:
        InputError: for input that makes no sense, with what would.
        SolveError: see `throw`; it carries the solution as far as it got.
    """
    begun = perf_counter()
    output_times = check_times(times)
    _check_words(control, gradient)
    if method is not None and not isinstance(method, Integrator):
        raise InputError(
            "method must be an integrator of sciml.solvers.time, for example ExplicitRungeKutta.tsit5(), got "
            f"{method!r}"
        )
    system = evolving_system(equation, domain, fields, parameters, boundary, scheme)
    if system.domain is None and isinstance(initial, Tensor | Mapping | Solution):
        system = _of_dtype(system, initial.value if isinstance(initial, Solution) else initial)
    failed = None
    if isinstance(initial, Solution):
        u, failed = continued(initial, system, output_times[0])
    else:
        u = resolve_start(initial, system, complete=True)
    u = _with_batch(u, system)
    batch = u.shape[: u.ndim - len(system.space)]
    if failed is not None:
        failed = failed.expand(batch) if bool((failed != Status.CONVERGED).any()) else None
    check_tolerances(step, rtol, atol, measured=bool(getattr(method, "record", False)))
    rtol = _default_rtol(system) if rtol is None else float(rtol)
    if rtol < 10 * torch.finfo(u.dtype).eps and step is None:
        warnings.warn(f"rtol={rtol:g} is beyond what {u.dtype} can resolve; take float64 or a larger one", stacklevel=3)
    allowed: Tolerance = absolute_tolerance(rtol, u, system, output_times) if atol is None else float(atol)
    chosen, why = method, "as requested"
    if chosen is None:
        chosen, why = choose(system, u, output_times, step, control, rtol, allowed)
    task = Task(
        output_times,
        step,
        rtol,
        allowed,
        gradient=gradient,
        events=(events,) if isinstance(events, Event) else tuple(events),
        observer=None if observer is None else lambda place, t, y: observer(place, t, system.decode(y)),
        step_observer=None if step_observer is None else lambda t, h, y: step_observer(t, h, system.decode(y)),
        failed=failed,
    )
    state = system.encode(system.hold(u, output_times[0]))
    ready = perf_counter()
    if control == "row":
        if not isinstance(chosen, ExplicitRungeKutta):
            raise InputError(f"control='row' is for explicit Runge-Kutta methods, not {chosen.describe()}")
        if step is not None:
            raise InputError("control='row' adapts the steps of every row: give rtol and atol instead of step")
        if step_observer is not None:
            raise InputError("step_observer: with control='row' every row has steps of its own; take control='joint'")
        trajectory = integrate_rows(chosen, system, state, task)
    else:
        trajectory = integrate(chosen, system, state, task)
    if any(event.stop for event in task.events):
        trajectory.statistics["stopped_at"] = _stopped_at(task.events, trajectory.events)
    solution = _solution(trajectory, system, output_times, f"{chosen.describe()} ({why})", ready - begun, ready)
    if throw and bool((solution.codes != Status.CONVERGED).any()):
        raise SolveError(_failure(solution, chosen, system, step, state, output_times[0]), solution)
    return solution


# Input


def check_times(times: Sequence[float] | Tensor) -> tuple[float, ...]:
    """The times of the initial state and of the outputs, as numbers.

    Args:
        times: numbers, or a tensor `(time,)` on any device, in the unit of time of the problem.

    Returns:
        The same in float64; of a tensor detached, since no gradient goes to the times.

    Raises:
        InputError: they are no list of numbers, fewer than two, not finite, not increasing, or two neighbours are less
            than 1000 units in the last place of float64 apart.
    """
    if isinstance(times, Tensor):
        if times.ndim != 1:
            raise InputError(f"times is a list of numbers, got a tensor of shape {tuple(times.shape)}")
        times = times.detach().to("cpu", torch.float64).tolist()
    if isinstance(times, str):
        raise InputError(f"times is a list of numbers, got {times!r}")
    try:
        found = tuple(float(time) for time in times)
    except (TypeError, ValueError) as error:
        raise InputError(f"times is a list of numbers, increasing, got {times!r}") from error
    if len(found) < 2:
        raise InputError(f"times holds the time of the initial state and at least one more, got {len(found)}")
    for place, (first, second) in enumerate(pairwise(found)):
        if not (isfinite(first) and isfinite(second) and first < second):
            raise InputError(
                f"times must increase: times[{place}] is {first} and times[{place + 1}] is {second}"
                + ("; to go back in time, change the sign of the right-hand side" if found[0] > found[-1] else "")
            )
        if second - first < 1e3 * ulp(max(abs(first), abs(second))):
            raise InputError(
                f"times[{place}] = {first!r} and times[{place + 1}] = {second!r} are too close for float64 to tell "
                "steps between them apart: count the time from a later origin"
            )
    return found


def _check_words(control: str, gradient: str) -> None:
    for name, word, words in (("control", control, get_args(Control)), ("gradient", gradient, get_args(Gradient))):
        if word not in words:
            raise InputError(f"{name} is {' or '.join(map(repr, words))}, got {word!r}")


def check_tolerances(step: float | None, rtol: float | None, atol: float | None, *, measured: bool = False) -> None:
    """Refuse a size of steps, or tolerances of adaptive ones, that make no sense; None is what was not given.

    Args:
        step: in the unit of time of the problem.
        rtol: dimensionless.
        atol: in the unit of the solution; 0 is allowed.
        measured: whether errors of steps of fixed size are measured by the tolerances, so that both may be given.

    Raises:
        InputError: one is no finite real number, negative, or, but for atol, 0; or there is a step and a tolerance.
    """
    for name, value, least in (("step", step, 0.0), ("rtol", rtol, 0.0), ("atol", atol, None)):
        if value is None:
            continue
        if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value):
            raise InputError(f"{name} is a positive number, got {value!r}")
        if value < 0 or value == least:
            raise InputError(f"{name} must be positive, got {value!r}")
    if step is not None and (rtol is not None or atol is not None) and not measured:
        raise InputError("give either step, for steps of fixed size, or rtol and atol, for steps that adapt; not both")


def _default_rtol(system: EvolvingSystem) -> float:
    if isinstance(system, StochasticSystem):
        return 1e-3  # at strong order 3/2 a digit costs nearly five times the steps
    return RTOL if system.dtype == torch.float64 else 1e-4


def absolute_tolerance(rtol: float, u: Tensor, system: EvolvingSystem, times: tuple[float, ...]) -> Tolerance:
    """The default absolute tolerance: rtol times the largest |u| of each row of the batch.

    Of a row where that is 0, the largest |du/dt| times the time to the first output stands in, of stochastic systems
    with the largest |diffusion| times the root of this time added; and 1 where these are 0 or not finite, too.

    Args:
        rtol: dimensionless.
        u: the initial state, `(*batch, *space)` of the system.
        system: whose right-hand side is called at times[0], if a row is 0. Of a RowSystem only the entries that decide
            the size of a step count.
        times: as `check_times` returns them.

    Returns:
        In the unit of the solution, without gradient: a number where there is no batch, or else `(*batch,)`.
    """
    axes = tuple(range(-len(system.space), 0))

    def largest(field: Tensor) -> Tensor:
        return field.detach().abs().amax(axes) if axes else field.detach().abs()

    def counting(field: Tensor) -> Tensor:
        return system.counting(field) if isinstance(system, RowSystem) else field

    with torch.no_grad():
        scale = largest(counting(u))
        if bool((scale == 0).any()):
            u, span = u.detach(), times[1] - times[0]
            grown = largest(counting(system.rate(u, times[0]))) * span
            if isinstance(system, StochasticSystem):
                grown = grown + largest(counting(system.diffusion(u, times[0]))) * span**0.5
            scale = torch.where(scale == 0, torch.where(torch.isfinite(grown) & (grown > 0), grown, 1.0), scale)
    return rtol * scale if scale.ndim else rtol * float(scale)


def _of_dtype(system: EvolvingSystem, initial: Any) -> EvolvingSystem:
    """A system of ordinary differential equations in the dtype and on the device of its initial state."""
    from sciml.ordinary import OrdinarySystem

    given = [initial] if isinstance(initial, Tensor) else [x for x in initial.values() if isinstance(x, Tensor)]
    same = not given or (given[0].dtype, given[0].device) == (system.dtype, system.device)
    if same or not isinstance(system, OrdinarySystem):
        return system
    return OrdinarySystem(
        system.equation, system.fields, system.parameters, dtype=given[0].dtype, device=given[0].device
    )


def _with_batch(u: Tensor, system: EvolvingSystem) -> Tensor:
    own = tuple(u.shape[: u.ndim - len(system.space)])
    try:
        batch = torch.broadcast_shapes(own, system.batch)
    except RuntimeError as error:
        raise InputError(
            f"the batch {own} of the initial state and {system.batch} of fields, parameters and boundary do not "
            "broadcast"
        ) from error
    return torch.broadcast_to(u, (*batch, *system.space)).contiguous()


# Output


def _solution(
    trajectory: Trajectory, system: EvolvingSystem, times: tuple[float, ...], method: str, setup: float, ready: float
) -> Solution:
    value = system.decode(trajectory.states)
    if value.device.type == "cuda":
        torch.cuda.synchronize(value.device)
    statistics = {
        **trajectory.statistics,
        "seconds_setup": setup,
        "seconds_solve": perf_counter() - ready,
    }
    return Solution(
        value,
        trajectory.codes,
        statistics,
        trajectory.history,
        method=method,
        notes=system.notes,
        system=system,
        times=torch.tensor(times, dtype=torch.float64),
        events=trajectory.events,
    )


def _stopped_at(events: tuple[Event, ...], found: tuple[dict[str, Tensor], ...]) -> Tensor:
    """When rows stopped, `(*batch,)`, NaN of those that did not."""
    times = torch.stack([one["time"].detach() for event, one in zip(events, found, strict=True) if event.stop])
    first = times.nan_to_num(nan=torch.inf).amin(0)
    return torch.where(first.isfinite(), first, torch.nan)


def _failure(
    solution: Solution, method: Integrator, system: EvolvingSystem, step: float | None, state: Tensor, start: float
) -> str:
    """One sentence on which rows failed, when, and what to do."""
    codes = solution.codes.reshape(-1)
    bad = torch.nonzero(codes != Status.CONVERGED).reshape(-1)
    worst = int(bad[0])
    status = Status(int(codes[worst]))
    where = "" if len(codes) == 1 else f"row {worst} ({len(bad)} of {len(codes)} rows failed) "
    when = float(solution.statistics["failed_at"].reshape(-1)[worst])
    advice = status.advice_in_time
    if step is not None and status is Status.NON_FINITE:
        advice = unstable_step(method, system, state, start, step) or advice
    return f"{method.describe()}: {where}ended with {status.name} by time {when:.6g}. {advice}"
