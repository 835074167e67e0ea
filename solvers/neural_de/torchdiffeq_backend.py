"""torchdiffeq as a closed box: its solvers and adjoints, our arguments, statistics and status.

What it tells of its steps are their starts and sizes; estimates of errors and stages stay inside. Chen, "torchdiffeq",
2018, version 0.2.5, whose sources say what is relied on here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from sciml.differentiation import in_transform
from sciml.errors import InputError, SolveError
from sciml.function_system import FunctionSystem
from sciml.solution import Solution
from sciml.status import Status

from ..evolve import RTOL, absolute_tolerance, check_times, check_tolerances
from ..time import tableau as tableaus
from ..time.explicit import ExplicitRungeKutta
from ..time.stepper import by_row
from ..time.trajectory import StepObserver
from .continuous import Rate, check_dependence, check_still_there, known_parameters
from .local import within

_ADAPTIVE = {
    tableaus.DORMAND_PRINCE: "dopri5",  # with Shampine's embedded weights, whose estimate is 2/3 of the original one
    tableaus.BOGACKI_SHAMPINE: "bosh3",
    tableaus.HEUN: "adaptive_heun",
    tableaus.PRINCE_DORMAND: "dopri8",
}
_FIXED = {tableaus.EULER: "euler", tableaus.RK4: "rk4"}  # the latter is Kutta's 3/8 rule
_MOST_STEPS = 2**31 - 1  # it keeps the number in 32 bits


def solve_with_torchdiffeq(
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
    adjoint: str = "recorded",
    parameters: Sequence[Tensor] | None = None,
    throw: bool = True,
    step_observer: StepObserver | None = None,
) -> Solution:
    """Solve du/dt = rate(u, t) by torchdiffeq.

    Of the method's controller safety, bounds of the ratio of two steps, first and largest step, max_steps (between two
    output times) and rows are taken over; its steps follow from the latest error alone, and `rows="mean"` is how it
    decides if not told otherwise. Its values between the ends of steps are of low order but with Dormand-Prince: with
    `dense=False` in the method, steps end on the output times.

    Args:
        rate, initial, times, axes, method, rtol, atol: as for `sciml.evolve` and a `sciml.FunctionSystem`; methods that
            it has are Dormand-Prince (dopri5), Bogacki-Shampine (bosh3), Heun (adaptive_heun), Prince-Dormand
            (dopri8), and of fixed steps Euler (euler) and Runge-Kutta of order 4 (rk4, Kutta's 3/8 rule).
        step: of the latter two, the largest step; output times are ends of steps.
        counted: how many leading entries of the last axis decide the steps, also of its adjoint.
        adjoint: "recorded", its odeint, through whose steps gradients go as through constants; or "continuous", its
            odeint_adjoint, whose steps backwards do not depend on the gradient of the parameters.
        parameters: of the continuous adjoint, the tensors that `rate` depends on; None: those of the module it is.
        throw: raise SolveError if a row fails. Otherwise its values are NaN but for the first, and the others are
            solved for once more, since torchdiffeq gives nothing of a solve that failed; counts are of both.
        step_observer: told of every accepted step, where it is solved once more of those of both solves; the size of
            one that goes beyond the last time is a `PartialStep`.

    Returns:
        Solution as of `sciml.evolve`, whose `history` has "time", "step" and "accepted" of the steps that were tried.
        Of the continuous adjoint `statistics` has "backward_evaluations", "backward_steps" and "backward_rejected",
        filled in by the latest backward pass; one that fails raises torchdiffeq's AssertionError.

    Raises:
        InputError: for a method that it does not have, with those it has, for a rate that depends on tensors which the
            continuous adjoint would miss, inside torch.func, and for other input that makes no sense.
        SolveError: see `throw`.
    """
    begun = perf_counter()
    name = _name(method, step)
    if adjoint not in ("recorded", "continuous"):
        raise InputError(f"adjoint is 'recorded' or 'continuous' with torchdiffeq, got {adjoint!r}")
    if not isinstance(initial, Tensor) or initial.ndim < axes:
        what = f"one of shape {tuple(initial.shape)}" if isinstance(initial, Tensor) else repr(initial)
        raise InputError(f"initial is a tensor with at least {axes} axes, those of a row, got {what}")
    if in_transform():
        raise InputError("torchdiffeq does not go through torch.func: take backend='sciml' and adjoint='recorded'")
    moments = check_times(times)
    check_tolerances(step, rtol, atol)
    leaves: tuple[Tensor, ...] = ()
    if adjoint == "continuous":
        leaves = tuple(tensor for tensor in known_parameters(rate, parameters) if tensor.requires_grad)
    space = tuple(initial.shape[initial.ndim - axes :])
    system = FunctionSystem(rate, space, counted=counted, dtype=initial.dtype, device=initial.device)
    if adjoint == "continuous" and torch.is_grad_enabled():
        check_dependence(system, initial, moments[0], leaves)
    if rtol is None:
        rtol = RTOL if initial.dtype == torch.float64 else 1e-4
    allowed = absolute_tolerance(rtol, initial, system, moments) if atol is None else float(atol)
    module = rate if parameters is None and isinstance(rate, nn.Module) else None
    box = _Box(system, method, name, moments, float(rtol), allowed, step, adjoint, leaves, step_observer, module)
    ready = perf_counter()
    solution = box.solve(initial, throw)
    solution.statistics.update(seconds_setup=ready - begun, seconds_solve=perf_counter() - ready)
    return solution


def _name(method: ExplicitRungeKutta, step: float | None) -> str:
    """What torchdiffeq calls a method.

    Raises:
        InputError: if it does not have it.
    """
    tableau = method.tableau if isinstance(method, ExplicitRungeKutta) else None
    table, others = (_ADAPTIVE, _FIXED) if step is None else (_FIXED, _ADAPTIVE)
    if tableau in table:
        return table[tableau]
    if tableau in others and step is None:
        raise InputError(f"{method.describe()} has no error estimate: give step=, the size of its steps")
    if tableau in others:
        raise InputError(
            f"torchdiffeq's {others[tableau]} adapts its steps: give rtol and atol instead of step, or take "
            "ExplicitRungeKutta.euler() or .rk4()"
        )
    raise InputError(
        f"torchdiffeq does not have {method.describe() if tableau else repr(method)}; it has "
        "ExplicitRungeKutta.dormand_prince(), .bogacki_shampine(), .heun() and .prince_dormand(), and of fixed steps "
        ".euler() and .rk4()"
    )


class _Log:
    """What comes to light of one run.

    Attributes:
        evaluations: of the right-hand side, until `over`.
        entries: start, size and acceptance of the steps tried.
        end: the last time, which the last of adaptive steps goes beyond.
        first: slopes at the start.
        ratios: of the rows, of the latest error that was looked at.
        over: whether the run is, so that what follows belongs to a backward pass, whose counts these are.
    """

    def __init__(self, observer: StepObserver | None, end: float, backward: Sequence[Tensor]) -> None:
        self.observer, self.end = observer, end
        self.evaluations = 0
        self.entries: list[tuple[float, float, bool]] = []
        self.first: Tensor | None = None
        self.ratios: Tensor | None = None
        self.over = False
        self.backward_evaluations, self.backward_steps, self.backward_rejected = backward

    def evaluated(self, slopes: Tensor) -> None:
        if self.over:
            self.backward_evaluations += 1
            return
        self.evaluations += 1
        if self.first is None:
            self.first = slopes.detach()

    def accepted(self, t: Tensor, y: Tensor, h: Tensor) -> None:
        self.entries.append((float(t), float(h), True))
        if self.observer is not None:
            self.observer(float(t), within(float(t), float(h), self.end), y.detach())

    def rejected(self, t: Tensor, y: Tensor, h: Tensor) -> None:
        self.entries.append((float(t), float(h), False))

    def accepted_backward(self, t: Tensor, y: Any, h: Tensor) -> None:
        self.backward_steps += 1

    def rejected_backward(self, t: Tensor, y: Any, h: Tensor) -> None:
        self.backward_rejected += 1

    def begin_backward(self, gradient: Tensor) -> None:
        for count in (self.backward_evaluations, self.backward_steps, self.backward_rejected):
            count.zero_()


class _Turned(nn.Module):
    """The right-hand side with torchdiffeq's order of arguments, and where it looks for whom to tell of its steps."""

    def __init__(self, system: FunctionSystem, log: _Log, adaptive: bool) -> None:
        super().__init__()
        self.function = system.function  # its parameters are then found here
        self.rate, self.log = system.rate, log
        if adaptive:
            self.callback_accept_step, self.callback_accept_step_adjoint = log.accepted, log.accepted_backward
            self.callback_reject_step, self.callback_reject_step_adjoint = log.rejected, log.rejected_backward
        else:
            self.callback_step, self.callback_step_adjoint = log.accepted, log.accepted_backward

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        slopes = self.rate(u, float(t.detach()))
        self.log.evaluated(slopes)
        return slopes


class _Box:
    """One problem, solved as often as needed; its arguments are those of `solve_with_torchdiffeq`."""

    def __init__(
        self,
        system: FunctionSystem,
        method: ExplicitRungeKutta,
        name: str,
        times: tuple[float, ...],
        rtol: float,
        atol: float | Tensor,
        step: float | None,
        adjoint: str,
        leaves: tuple[Tensor, ...],
        observer: StepObserver | None,
        module: nn.Module | None,
    ) -> None:
        import torchdiffeq

        self.system, self.method, self.times, self.rtol, self.atol = system, method, times, rtol, atol
        self.name, self.step, self.adjoint, self.leaves, self.observer = name, step, adjoint, leaves, observer
        self.module = module  # whose parameters the leaves are
        self.title = f"torchdiffeq {torchdiffeq.__version__} {name}"

    def solve(self, initial: Tensor, throw: bool) -> Solution:
        batch = initial.shape[: initial.ndim - len(self.system.space)]
        spread = (*batch, *(1,) * len(self.system.space))
        place: dict[str, Any] = {"device": initial.device}
        codes = torch.zeros(batch, dtype=torch.int64, **place)
        since = torch.full(batch, torch.nan, dtype=torch.float64, **place)
        counts = torch.zeros(3, *batch, dtype=torch.int64, **place)
        backward = torch.zeros(3, *batch, dtype=torch.int64, **place).unbind()
        lost = torch.where(self._finite(initial.detach()[None])[0], 0, int(Status.NON_FINITE))
        now: float | Tensor = self.times[0]
        start, states, log = initial, None, _Log(None, self.times[-1], backward)
        while True:
            codes, since = codes + lost, torch.where(lost != 0, now, since)
            over = codes != 0
            if bool(over.all()) or (throw and bool(over.any())):
                states = None
                break
            if bool(over.any()):
                # Its rows have their steps in common: those that failed go through them as copies of another.
                living = (~over).reshape(-1).nonzero()[0, 0]
                flat = initial.flatten(0, len(batch) - 1)
                start = torch.where(over.reshape(spread), flat[living].detach(), initial)
            log = _Log(self.observer, self.times[-1], backward)
            states, status = self._run(start, log)
            taken = sum(accepted for _, _, accepted in log.entries)
            spent = torch.tensor((log.evaluations, taken, len(log.entries) - taken), **place)
            counts += torch.where(over, 0, spent.reshape(3, *(1,) * len(batch)))
            lost, now = self._lost(states, status, log, over)
            if not bool((lost != 0).any()):
                break
        if states is None:
            states = torch.cat(
                (initial[None], torch.full_like(initial, torch.nan).expand(len(self.times) - 1, *initial.shape))
            )
        elif bool((codes != 0).any()):
            rest = torch.where((codes != 0).reshape(spread), torch.nan, states[1:])
            states = torch.cat((initial[None], rest))
        sizes = [h for _, h, accepted in log.entries if accepted] or [torch.nan]
        names = ("evaluations", "steps", "rejected")
        statistics: dict[str, Any] = dict(zip(names, counts.unbind(), strict=True))
        for name, size in (("smallest_step", min(sizes)), ("largest_step", max(sizes))):
            statistics[name] = torch.full(batch, size, dtype=torch.float64, **place)
        statistics["failed_at"] = since
        if self.adjoint == "continuous":
            statistics.update({f"backward_{name}": count for name, count in zip(names, backward, strict=True)})
            if states.requires_grad:
                states.register_hook(log.begin_backward)
                if self.module is not None:
                    states.register_hook(lambda _: check_still_there(self.module, self.leaves))
        log.over = True
        solution = Solution(
            states.movedim(0, len(batch)),
            codes,
            statistics,
            self._history(log, batch, place),
            method=f"{self.title} ({self.method.describe()})",
            system=self.system,
            times=torch.tensor(self.times, dtype=torch.float64),
        )
        if throw and bool((codes != 0).any()):
            raise SolveError(self._failure(solution), solution)
        return solution

    def _run(self, initial: Tensor, log: _Log) -> tuple[Tensor | None, Status | None]:
        """The states `(time, *batch, *space)`, or how it failed."""
        from torchdiffeq import odeint, odeint_adjoint

        adaptive = self.step is None
        turned = _Turned(self.system, log, adaptive)
        times = torch.tensor(self.times, dtype=torch.float64, device=initial.device)
        options: dict[str, Any] = self._control() if adaptive else {"grid_constructor": self._grid}
        if adaptive and not self.method.dense:
            options["step_t"] = times[1:]
        axes = len(self.system.space)
        how: dict[str, Any] = {
            "method": self.name,
            "rtol": self.rtol,
            "atol": by_row(self.atol, initial.detach()) if axes else self.atol,
            "options": {**options, "norm": lambda error: self._norm(error, log)},
        }
        try:
            if self.adjoint == "recorded":
                return odeint(turned, initial, times, **how), None
            how["adjoint_atol"] = float(torch.as_tensor(self.atol).min())
            how["adjoint_options"] = {**options, "norm": "seminorm"} if adaptive else options
            return odeint_adjoint(turned, initial, times, adjoint_params=self.leaves, **how), None
        except AssertionError as error:
            for beginning, status in _ASSERTIONS.items():
                if str(error).startswith(beginning):
                    return None, status
            raise

    def _control(self) -> dict[str, Any]:
        controller = self.method.controller
        return {
            "safety": controller.safety,
            "dfactor": controller.smallest,
            "ifactor": controller.largest_growth,
            "first_step": controller.first_step,
            "max_step": controller.largest_step,
            "max_num_steps": min(controller.max_steps, _MOST_STEPS),
        }

    def _grid(self, function: Any, initial: Tensor, times: Tensor) -> Tensor:
        """Equal steps between two output times, as few as the largest allows; forwards and backwards."""
        found, steps = times.tolist(), []
        for first, second in pairwise(found):
            count = max(1, ceil(abs(second - first) / (self.step or 1.0) * (1 - 1e-9)))
            steps += [first + (second - first) * place / count for place in range(count)]
        return times.new_tensor([*steps, found[-1]])

    def _norm(self, error: Tensor, log: _Log) -> Tensor:
        """Of an error relative to the tolerance, without gradients: else the size of the first step would have one."""
        error = self.system.counting(error.detach())
        axes = len(self.system.space)
        squares = error.abs().square()
        rows = squares.flatten(-axes).mean(-1).sqrt() if axes else squares.sqrt()
        log.ratios = rows
        return rows.amax() if self.method.controller.rows == "largest" else squares.mean().sqrt()

    def _finite(self, states: Tensor) -> Tensor:
        """`(time, *batch)`."""
        axes = tuple(range(-len(self.system.space), 0))
        return torch.isfinite(states).all(axes) if axes else torch.isfinite(states)

    def _lost(
        self, states: Tensor | None, status: Status | None, log: _Log, over: Tensor
    ) -> tuple[Tensor, float | Tensor]:
        """Codes of the rows that a run lost, 0 of the others, and the times by which they were."""
        if states is not None:
            finite = self._finite(states.detach())
            first = torch.tensor(self.times, device=over.device, dtype=torch.float64)[(~finite).int().argmax(0)]
            return torch.where(finite.all(0) | over, 0, int(Status.NON_FINITE)), first
        now = log.entries[-1][0] if log.entries else self.times[0]
        lost = torch.where(over, 0, int(status or 0))
        if status is Status.MAX_STEPS or log.ratios is None or log.first is None:
            return lost, now
        if log.entries:
            blamed = torch.where(torch.isfinite(log.ratios), int(Status.STEP_UNDERFLOW), int(Status.NON_FINITE))
            blamed = torch.where(over | (log.ratios <= 1.0), 0, blamed)
        else:
            blamed = torch.where(over | self._finite(log.first[None])[0], 0, int(Status.NON_FINITE))
        return blamed if bool((blamed != 0).any()) else lost, now

    def _history(self, log: _Log, batch: torch.Size, place: dict[str, Any]) -> dict[str, Tensor]:
        if not log.entries:
            return {}
        columns = zip(("time", "step", "accepted"), zip(*log.entries, strict=True), strict=True)
        found = {}
        for name, column in columns:
            numbers = torch.tensor(column, dtype=torch.bool if name == "accepted" else torch.float64, **place)
            found[name] = numbers.reshape(-1, *(1,) * len(batch)).expand(-1, *batch)
        return found

    def _failure(self, solution: Solution) -> str:
        codes = solution.codes.reshape(-1)
        bad = (codes != 0).nonzero().reshape(-1)
        status = Status(int(codes[bad[0]]))
        where = "" if len(codes) == 1 else f"row {int(bad[0])} ({len(bad)} of {len(codes)} rows failed) "
        when = float(solution.statistics["failed_at"].reshape(-1)[bad[0]])
        return f"{self.title}: {where}ended with {status.name} by time {when:.6g}. {status.advice_in_time}"


_ASSERTIONS = {
    "underflow in dt": Status.STEP_UNDERFLOW,
    "non-finite values in state": Status.NON_FINITE,
    "max_num_steps exceeded": Status.MAX_STEPS,
}
