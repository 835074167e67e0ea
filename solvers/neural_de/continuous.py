"""Gradients of solutions by the continuous adjoint: the adjoint equation integrated backwards in time.

Of du/dt = f(u, t, theta) and a loss that depends on u at output times, the adjoint a = dL/du obeys da/dt = -a df/du
between these and jumps by dL/du(t_i) at them, and dL/dtheta is the integral of a df/dtheta (Chen, Rubanova, Bettencourt
and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018, appendix B). Backwards u is integrated once more
beside a, from its stored value at one output time to the one before, so that memory does not depend on the number of
steps. No step depends on the gradient of the parameters, a quadrature that rides along; so it has no say in their sizes
(Kidger, Chen and Lyons, "Hey, that's not an ODE": Faster ODE Adjoints via Seminorms, ICML 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sciml.differentiation import in_transform
from sciml.errors import InputError, SolveError
from sciml.evolving import Time, Tolerance, root_mean_square_ratio
from sciml.function_system import FunctionSystem
from sciml.solution import AdjointRecord, Solution
from sciml.status import Status

from ..evolve import RTOL, absolute_tolerance, check_times, evolve
from ..time.explicit import ExplicitRungeKutta
from ..time.march import integrate
from ..time.trajectory import StepObserver, Task, Trajectory

Rate = Callable[[Tensor, Time], Tensor]

_COUNTS = ("evaluations", "steps", "rejected")


def evolve_with_continuous_adjoint(
    rate: Rate,
    initial: Tensor,
    times: Sequence[float] | Tensor,
    *,
    axes: int,
    method: ExplicitRungeKutta,
    rtol: float | None = None,
    atol: float | None = None,
    step: float | None = None,
    counted: int | None = None,
    parameters: Sequence[Tensor] | None = None,
    throw: bool = True,
    step_observer: StepObserver | None = None,
) -> Solution:
    """`sciml.evolve`, with a gradient that is up to the tolerance that of the exact solution.

    The backward pass meets `rtol` for the state and, relative to the largest entry of a row at each output time, for
    the adjoint; where the state cannot be integrated backwards stably, take recorded steps instead.

    Args:
        rate: (u, t) -> du/dt, a torch.nn.Module unless `parameters` are given.
        initial: `(*batch, *space)` at times[0].
        times: increasing, at least two, in the unit of time.
        axes: trailing axes of a row.
        method: explicit; also of the backward pass.
        rtol, atol, step: as for `sciml.evolve`.
        counted: how many leading entries of the last axis decide the steps, see `sciml.FunctionSystem`; of the adjoint
            it is the same ones.
        parameters: the tensors that `rate` depends on, each of any shape; None: the parameters of the module.
        throw: raise SolveError if a row fails, also in the backward pass. Otherwise such a row contributes no gradient,
            and `solution.adjoint_status` says so.
        step_observer: told of every accepted step forwards.

    Returns:
        Solution whose value `(*batch, time, *space)` is differentiable, once, with respect to `initial` and the
        parameters. Of `statistics` "backward_evaluations", "backward_steps" and "backward_rejected", of batch shape,
        are filled in by the latest backward pass; an evaluation there is one of the rate and of its derivatives.

    Raises:
        InputError: as `sciml.evolve`, and for a rate whose parameters are not known; in the backward pass for a rate
            that depends on others.
        SolveError: see `throw`.
    """
    if not isinstance(method, ExplicitRungeKutta):
        raise InputError(f"the continuous adjoint is for explicit Runge-Kutta methods, got {method!r}")
    if in_transform():
        raise InputError("the continuous adjoint does not go through torch.func: take adjoint='recorded'")
    leaves = tuple(tensor for tensor in known_parameters(rate, parameters) if tensor.requires_grad)
    if not isinstance(initial, Tensor) or initial.ndim < axes:
        what = f"one of shape {tuple(initial.shape)}" if isinstance(initial, Tensor) else repr(initial)
        raise InputError(f"initial is a tensor with at least {axes} axes, those of a row, got {what}")
    moments, space = check_times(times), tuple(initial.shape[initial.ndim - axes :])
    system = FunctionSystem(rate, space, counted=counted, dtype=initial.dtype, device=initial.device)
    with torch.no_grad():
        solution = evolve(
            system,
            initial=initial.detach(),
            times=moments,
            method=method,
            step=step,
            rtol=rtol,
            atol=atol,
            throw=throw,
            step_observer=step_observer,
        )
    counts = {name: torch.zeros_like(solution.codes) for name in _COUNTS}
    solution.statistics.update({f"backward_{name}": count for name, count in counts.items()})
    if not torch.is_grad_enabled():
        return solution
    if not (initial.requires_grad or leaves):
        check_dependence(system, initial, moments[0], leaves)
        return solution
    allowed = rtol if rtol is not None else RTOL if initial.dtype == torch.float64 else 1e-4
    backward = _Backward(
        system,
        replace(method, record=False, compile=False),
        moments,
        step,
        float(allowed),
        absolute_tolerance(allowed, initial, system, moments) if atol is None else float(atol),
        leaves,
        solution.codes,
        counts,
        AdjointRecord(),
        throw,
        rate if parameters is None and isinstance(rate, nn.Module) else None,
    )
    value = _Attached.apply(initial, solution.value, backward, *leaves)
    return replace(solution, value=value, adjoint=backward.record)


def known_parameters(rate: Rate, parameters: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    """The tensors that a right-hand side depends on.

    Raises:
        InputError: where they are not known.
    """
    if parameters is not None:
        found = tuple(parameters)
        for place, tensor in enumerate(found):
            if not isinstance(tensor, Tensor):
                raise InputError(f"parameters are tensors, got {tensor!r} at place {place}")
        return found
    if not isinstance(rate, nn.Module):
        raise InputError(
            "the continuous adjoint has to know which tensors the rate depends on: make it a torch.nn.Module, whose "
            "parameters they are, or take adjoint='recorded', got "
            f"{type(rate).__name__}"
        )
    return tuple(rate.parameters())


def check_still_there(module: nn.Module | None, parameters: Sequence[Tensor]) -> None:
    """Raise InputError in a backward pass for a module that has other parameters than forwards."""
    if module is None:
        return
    now = {id(tensor) for tensor in module.parameters()}
    if any(id(tensor) not in now for tensor in parameters):
        raise InputError(
            "the rate has other parameters in the backward pass than it had forwards, as after "
            "torch.func.functional_call, so that the continuous adjoint would be that of another rate: make them "
            "parameters of the module, or take adjoint='recorded'"
        )


def check_dependence(system: FunctionSystem, u: Tensor, t: float, parameters: Sequence[Tensor]) -> None:
    """Raise InputError if the rate depends on tensors that ask for a gradient and are none of the parameters."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        rate = system.rate(u, t)
    if rate.requires_grad:
        _check_dependence(rate, u, tuple(parameters))


class _Attached(torch.autograd.Function):
    """(initial, states, ..., parameters) -> states, whose derivatives are those of the solution."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, states: Tensor, backward: _Backward, *parameters: Tensor) -> Tensor:
        ctx.solve = backward
        value = states.view_as(states)
        ctx.save_for_backward(value, *parameters)  # so that torch notices if they are changed before the backward pass
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states = ctx.saved_tensors[0]
        initial, parameters = ctx.solve.gradients(states, gradient)
        return initial if ctx.needs_input_grad[0] else None, None, None, *parameters


@dataclass(frozen=True, eq=False)
class _Backward:
    """The backward pass of one solution; its arguments are those of the forward one.

    Attributes:
        times: of the outputs.
        atol: of the state, of the whole batch or row by row.
        codes: how the rows ended forwards.
        counts, record: to be filled in.
        module: whose parameters these are.
    """

    system: FunctionSystem
    method: ExplicitRungeKutta
    times: tuple[float, ...]
    step: float | None
    rtol: float
    atol: Tolerance
    parameters: tuple[Tensor, ...]
    codes: Tensor
    counts: dict[str, Tensor]
    record: AdjointRecord
    throw: bool
    module: nn.Module | None

    def gradients(self, states: Tensor, gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Those of the initial state, and of the parameters.

        Args:
            states, gradient: `(*batch, time, *space)`, the solution and dL/du at the output times.

        Raises:
            InputError: for a module whose parameters are others now.
            SolveError: if `throw`, where a row fails.
        """
        check_still_there(self.module, self.parameters)
        batch, shape = self.codes.shape, (*self.codes.shape, *self.system.space)
        rows, entries = self.codes.numel(), prod(self.system.space)
        y, jumps = (x.movedim(len(batch), 0).reshape(-1, rows, entries) for x in (states, gradient))
        for count in self.counts.values():
            count.zero_()
        codes = self.codes.reshape(rows)
        lost = torch.where((codes == 0) & ~torch.isfinite(jumps).all(-1).all(0), int(Status.NON_FINITE), 0)
        while True:
            if bool((lost != 0).any()):
                codes = torch.where(lost != 0, lost, codes)
                self.record.codes = codes.reshape(batch)
                if self.throw:
                    raise self._failure(codes, jumps[0].reshape(shape))
            adjoint, total, lost = self._back(y, jumps, codes)
            if not bool((lost != 0).any()):
                break
        self.record.codes = codes.reshape(batch)
        sizes = [tensor.numel() for tensor in self.parameters]
        parts = zip(total.split(sizes), self.parameters, strict=True)
        return adjoint.reshape(shape), [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in parts]

    def _back(self, y: Tensor, jumps: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the last to the first time: the adjoint `(rows, entries)` there, the gradient of all parameters in one
        tensor, and codes of the rows that were lost on the way, 0 of the others.

        Args:
            y, jumps: `(time, rows, entries)`.
            codes: of the rows, 0 of those that are to contribute.
        """
        total = y.new_zeros(sum(tensor.numel() for tensor in self.parameters))
        living, none = codes == 0, torch.zeros_like(codes)
        if not bool(living.all()):
            if not bool(living.any()):
                return torch.zeros_like(y[0]), total, none
            # Those that failed have no adjoint and stay where they are, which only must not be NaN.
            jumps = torch.where(living[:, None], jumps, 0.0)
            y = torch.where(torch.isfinite(y).all(-1, keepdim=True), y, y[:, living.nonzero()[0]])
        adjoint, method = jumps[-1], self.method
        for place in range(len(self.times) - 1, 0, -1):
            if bool((adjoint != 0).any()):
                reverse = _Reverse(self, adjoint, living)
                start = torch.cat((y[place].reshape(-1), adjoint.reshape(-1), torch.zeros_like(total)))
                trajectory = self._integrated(method, reverse, start, place)
                if int(trajectory.codes):
                    return adjoint, total, reverse.lost(int(trajectory.codes))
                _, adjoint, gained = reverse.split(trajectory.states[-1])
                if not bool(torch.isfinite(gained).all()):
                    return adjoint, total, torch.where(living, int(Status.NON_FINITE), none)
                total = total + gained
                method = _begun(method, trajectory)
            adjoint = adjoint + jumps[place - 1]
        return adjoint, total, none

    def _integrated(self, method: ExplicitRungeKutta, reverse: _Reverse, start: Tensor, place: int) -> Trajectory:
        """From one output time to the one before."""
        system = FunctionSystem(
            reverse.slope, (len(start),), dtype=start.dtype, device=start.device, ratio=reverse.error_ratio
        )
        times = (-self.times[place], -self.times[place - 1])
        trajectory = integrate(method, system, start, Task(times, self.step, self.rtol))
        for name, count in self.counts.items():
            count += trajectory.statistics[name]
        return trajectory

    def _failure(self, codes: Tensor, like: Tensor) -> SolveError:
        bad = (codes != 0).nonzero().reshape(-1)
        status = Status(int(codes[bad[0]]))
        where = "" if len(codes) == 1 else f"row {int(bad[0])} ({len(bad)} of {len(codes)} rows failed) "
        return SolveError(
            f"{self.method.describe()}, continuous adjoint: {where}ended with {status.name} in the backward pass. "
            "Where the gradient of the loss is finite, the state cannot be integrated backwards to the tolerance: "
            "tighten rtol and atol, ask for the solution at more times, or take adjoint='recorded'.",
            Solution(
                torch.full_like(like, torch.nan),
                codes.reshape(self.codes.shape),
                {name: count.clone() for name, count in self.counts.items()},
                {},
                method=f"{self.method.describe()}, continuous adjoint",
            ),
        )


class _Reverse:
    """du/ds = -f, da/ds = a df/du, dg/ds = a df/dtheta in s = -t, all in one row: states, adjoints and the gradient.

    Args:
        backward: what is to be solved.
        adjoint: `(rows, entries)` at the start; relative to the largest entry of a row its errors are measured.
        living: `(rows,)`, False of those that do not move.
    """

    def __init__(self, backward: _Backward, adjoint: Tensor, living: Tensor) -> None:
        self.of, self.checked = backward, False
        self.living, self.whole = living, bool(living.all())
        self.rows, self.entries = adjoint.shape
        self.shape = (*backward.codes.shape, *backward.system.space)
        atol = backward.atol
        self.atol = atol.reshape(self.rows) if isinstance(atol, Tensor) else atol
        self.adjoint_atol = backward.rtol * self._counting(adjoint).abs().amax(-1)
        self.ratios = torch.zeros_like(self.adjoint_atol)  # of the rows, of the latest step
        self.latest: tuple[Tensor, Tensor] | None = None  # slopes

    def split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """State and adjoint `(rows, entries)`, and the gradient."""
        n = self.rows * self.entries
        y, adjoint = state[: 2 * n].reshape(2, self.rows, self.entries).unbind()
        return y, adjoint, state[2 * n :]

    def slope(self, state: Tensor, s: Time) -> Tensor:
        y, adjoint, _ = self.split(state)
        with torch.enable_grad():
            y = y.reshape(self.shape).detach().requires_grad_()
            rate = self.of.system.rate(y, -s)
        wanted = (y, *self.of.parameters)
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if rate.requires_grad:
            if not self.checked:
                _check_dependence(rate, y, self.of.parameters)
                self.checked = True
            found = torch.autograd.grad(rate, wanted, adjoint.reshape(self.shape), allow_unused=True)
        parts = [torch.zeros_like(x) if part is None else part for part, x in zip(found, wanted, strict=True)]
        slopes = [rate.detach().neg(), *parts]
        if not self.whole:
            moves = self.living.reshape(*self.of.codes.shape, *(1,) * len(self.of.system.space))
            slopes[:2] = (torch.where(moves, slope, 0.0) for slope in slopes[:2])
        self.latest = slopes[0], slopes[1]
        return torch.cat([part.reshape(-1) for part in slopes]).to(state.dtype)

    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        """Of the row, or the mean of the rows, that the controller goes by; neither states nor adjoints must exceed
        their tolerance."""
        parts = [[self._counting(x) for x in self.split(whole)[:2]] for whole in (error, before, after)]
        (of_state, y_before, y_after), (of_adjoint, a_before, a_after) = zip(*parts, strict=True)
        self.ratios = torch.maximum(
            root_mean_square_ratio(of_state, y_before, y_after, rtol, self.atol, 1),
            root_mean_square_ratio(of_adjoint, a_before, a_after, rtol, self.adjoint_atol, 1),
        )
        if self.of.method.controller.rows == "largest":
            return self.ratios.amax()
        return self.ratios.square().mean().sqrt()

    def lost(self, code: int) -> Tensor:
        """Which rows are to blame for a failure, by their codes."""
        living = self.living
        if code == Status.MAX_STEPS:
            blamed = torch.where(living, code, 0)
        elif self.of.step is None:
            blamed = torch.where(torch.isfinite(self.ratios), int(Status.STEP_UNDERFLOW), int(Status.NON_FINITE))
            blamed = torch.where(living & ~(self.ratios <= 1.0), blamed, 0)
        else:
            finite = [torch.isfinite(x.reshape(self.rows, -1)).all(-1) for x in self.latest or ()]
            blamed = torch.where(living & ~torch.stack(finite).all(0), code, 0)
        return blamed if bool((blamed != 0).any()) else torch.where(living, code, 0)

    def _counting(self, x: Tensor) -> Tensor:
        """The entries of rows `(rows, entries)` that decide the steps."""
        system = self.of.system
        if system.counted is None or not system.space:
            return x
        return x.reshape(self.rows, -1, system.space[-1])[..., : system.counted].reshape(self.rows, -1)


def _begun(method: ExplicitRungeKutta, trajectory: Trajectory) -> ExplicitRungeKutta:
    """The method with a first step like the latest two, the last of which may have been cut short."""
    if not trajectory.history:
        return method
    steps = trajectory.history["step"][trajectory.history["accepted"]]
    return replace(method, controller=replace(method.controller, first_step=float(steps[-2:].max())))


def _check_dependence(value: Tensor, y: Tensor, parameters: tuple[Tensor, ...]) -> None:
    """Raise InputError if a value depends on tensors that no gradient is asked of."""
    known = {id(tensor) for tensor in (y, *parameters)}
    ends = {tensor.grad_fn for tensor in parameters if tensor.grad_fn is not None}
    left, seen = [value.grad_fn], set[Any]()
    while left:
        node = left.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            raise InputError(
                f"the rate depends on a tensor of shape {tuple(variable.shape)} that asks for a gradient and is none "
                "of its parameters, so that the continuous adjoint would miss it: make it a parameter of the module, "
                "or take adjoint='recorded'"
            )
        left += [following for following, _ in node.next_functions]
