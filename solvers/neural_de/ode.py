"""A neural ordinary differential equation as a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite, prod
from numbers import Real
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.evolving import Time
from sciml.function_system import FunctionSystem
from sciml.solution import Solution

from ..evolve import evolve
from ..time.explicit import ExplicitRungeKutta
from .integrals import Augmented, IntegralRegularizer
from .local import LocalRegularizer, Sampler, repeated
from .regularizers import Regularizer, StepRegularizer, terms_of
from .steer import Steer

Adjoint = Literal["recorded", "checkpointed", "continuous"]
Backend = Literal["sciml", "torchdiffeq"]


@final
class NeuralODE(nn.Module):
    """The solution of du/dt = rate(u, t) as a function of its initial value, by adaptive steps.

    Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018.

    Args:
        rate: (u, t) -> du/dt, a torch.nn.Module to be trained, or any function; u is `(*batch, *space)`, and t is a
            float, for some regularizers and adjoints a tensor without axes; `torch.as_tensor(t, dtype=u.dtype)` takes
            both.
        interval: (t0, t1) in the unit of time; None: from the first to the last of the `times` of a call, (0, 1) if it
            has none.
        axes: how many trailing axes are the space of a row; all before them are batch.
        method: an adaptive method; None: `ExplicitRungeKutta.tsit5()`, of torchdiffeq `dormand_prince()`. All rows have
            the same steps; `Controller(rows="mean")` in it decides on these as torchdiffeq and the papers do.
        rtol: error allowed of a step relative to the state; None: 1e-6 in float64, 1e-4 in float32.
        atol: error allowed besides, in the unit of the state; None: the same number as rtol.
        adjoint: what a backward pass goes through: "recorded", the steps; "checkpointed", the steps, of which it keeps
            few states and computes the others once more; "continuous", the adjoint equation backwards in time, in
            memory that does not depend on the number of steps, up to the tolerance.
        backend: "torchdiffeq" integrates by that library.
        regularizer: in training mode `statistics["penalty"]` of the solution is its value for each row.
        throw: raise SolveError if a row fails; otherwise its status says so, and its values are NaN.

    Raises:
        InputError: for settings that do not go together, with what would.
    """

    def __init__(
        self,
        rate: Callable[[Tensor, Time], Tensor],
        *,
        interval: tuple[float, float] | None = None,
        axes: int = 1,
        method: ExplicitRungeKutta | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        adjoint: Adjoint = "recorded",
        backend: Backend = "sciml",
        regularizer: Regularizer | None = None,
        throw: bool = True,
    ) -> None:
        super().__init__()
        for name, word, words in (("adjoint", adjoint, get_args(Adjoint)), ("backend", backend, get_args(Backend))):
            if word not in words:
                raise InputError(f"{name} is one of {', '.join(map(repr, words))}, got {word!r}")
        if not isinstance(axes, int) or axes < 0:
            raise InputError(f"axes is the number of trailing axes of a row, at least 0, got {axes!r}")
        if method is not None and not isinstance(method, ExplicitRungeKutta):
            raise InputError(f"method is an ExplicitRungeKutta, such as ExplicitRungeKutta.tsit5(), got {method!r}")
        if backend == "torchdiffeq" and adjoint == "checkpointed":
            raise InputError(
                "torchdiffeq has no checkpoints: take adjoint='recorded' or 'continuous', or the other backend"
            )
        self.rate = rate
        self.interval = None if interval is None else checked_interval(interval)
        self.axes = axes
        own = backend == "sciml"
        self.method = method or (ExplicitRungeKutta.tsit5() if own else ExplicitRungeKutta.dormand_prince())
        if not self.method.tableau.embedded:
            raise InputError(
                f"{self.method.describe()} has no error estimate, and the steps adapt: take ExplicitRungeKutta.tsit5()"
            )
        self.rtol, self.atol, self.adjoint, self.backend = rtol, atol, adjoint, backend
        self.regularizer, self.throw = regularizer, throw
        check_regularizer(regularizer, adjoint, backend)

    def extra_repr(self) -> str:
        return f"{self.method.describe()}, adjoint={self.adjoint!r}, backend={self.backend!r}"

    def forward(self, initial: Tensor, times: Sequence[float] | Tensor | None = None) -> tuple[Tensor, Solution]:
        """Solve.

        Args:
            initial: `(*batch, *space)` at the start of the interval.
            times: increasing, within the interval; None asks for the end of it only.

        Returns:
            the value `(*batch, *space)` at the end, or `(*batch, time, *space)` at the times; and the solution over
            the whole interval: status row by row, `statistics` with counts of evaluations and steps, "penalty"
            `(*batch)` of the regularizer (0 in evaluation mode), and of the continuous adjoint, once it was solved,
            "backward_evaluations".

        Raises:
            InputError: for times outside the interval, a state that is no tensor of real numbers, or a rate that
                returns another shape.
            SolveError: where a row failed.
        """
        if not isinstance(initial, Tensor) or not initial.is_floating_point() or initial.ndim < self.axes:
            what = f"{initial.dtype} and shape {tuple(initial.shape)}" if isinstance(initial, Tensor) else repr(initial)
            raise InputError(f"initial is a real tensor with at least {self.axes} axes, got {what}")
        terms = terms_of(self.regularizer) if self.training and self.regularizer is not None else ()
        span, wanted = spread_times(self.interval, times)
        for _, term in terms:
            if isinstance(term, Steer):
                span, wanted = steered(term, span, wanted)
        known = all_times(span, wanted)
        rtol = self.rtol if self.rtol is not None else (1e-6 if initial.dtype == torch.float64 else 1e-4)
        atol = rtol if self.atol is None else self.atol
        space = tuple(initial.shape[initial.ndim - self.axes :])
        integrals = tuple(term for _, term in terms if isinstance(term, IntegralRegularizer))
        samplers = {term.sampling: Sampler(term.sampling) for _, term in terms if isinstance(term, LocalRegularizer)}

        def watch(t: float, h: float, state: Tensor) -> None:
            state = state[..., : prod(space)].reshape(initial.shape) if integrals else state
            for sampler in samplers.values():
                sampler(t, h, state)

        solution = self._solved(
            initial,
            known,
            space,
            integrals,
            rtol,
            atol,
            record=any(isinstance(term, StepRegularizer) for _, term in terms),
            watch=watch if samplers else None,
        )
        totals: Tensor | None = None
        if integrals:
            n = prod(space)
            totals = solution.value[..., -1, n:]
            value = solution.value[..., :n].reshape(*solution.value.shape[:-1], *space)
            solution = replace(solution, value=value, system=self._system(initial))
        system = self._system(initial)
        attempts = {
            sampling: repeated(self.method, system, sampler.sample, rtol, atol)
            for sampling, sampler in samplers.items()
            if sampler.sample is not None
        }
        penalty = initial.new_zeros(initial.shape[: initial.ndim - self.axes])
        for weight, term in terms:
            if isinstance(term, StepRegularizer):
                penalty = penalty + weight * term(solution)
            elif isinstance(term, IntegralRegularizer) and totals is not None:
                penalty = penalty + weight * totals[..., integrals.index(term)]
            elif isinstance(term, LocalRegularizer) and term.sampling in attempts:
                penalty = penalty + weight * term.of_step(*attempts[term.sampling])
        solution.statistics["penalty"] = penalty
        values = solution.value.movedim(initial.ndim - self.axes, 0)
        if wanted is None:
            return values[-1], solution
        first = known.index(wanted[0])
        return values[first : first + len(wanted)].movedim(0, initial.ndim - self.axes), solution

    def _system(self, initial: Tensor) -> FunctionSystem:
        space = initial.shape[initial.ndim - self.axes :]
        return FunctionSystem(self.rate, space, dtype=initial.dtype, device=initial.device)

    def _solved(
        self,
        initial: Tensor,
        times: tuple[float, ...],
        space: tuple[int, ...],
        integrals: tuple[IntegralRegularizer, ...],
        rtol: float,
        atol: float,
        *,
        record: bool,
        watch: Callable[[float, float, Tensor], None] | None,
    ) -> Solution:
        """The solution; with integrals that of the flat state `(*batch, n + integrals)`."""
        rate, axes, counted = self.rate, self.axes, None
        if integrals:
            batch, counted = initial.shape[: initial.ndim - axes], prod(space)
            rate, axes = Augmented(rate, space, integrals, torch.randn_like(initial)), 1
            initial = torch.cat((initial.reshape(*batch, counted), initial.new_zeros(*batch, len(integrals))), -1)
        options: dict[str, Any] = {"rtol": rtol, "atol": atol, "step_observer": watch}
        if self.backend == "torchdiffeq":
            from .torchdiffeq_backend import solve_with_torchdiffeq

            return solve_with_torchdiffeq(
                rate, initial, times, axes=axes, method=self.method, adjoint=self.adjoint, throw=self.throw, **options
            )
        if self.adjoint == "continuous":
            from .continuous import evolve_with_continuous_adjoint

            return evolve_with_continuous_adjoint(
                rate, initial, times, axes=axes, counted=counted, method=self.method, throw=self.throw, **options
            )
        system = FunctionSystem(
            rate,
            initial.shape[initial.ndim - axes :],
            counted=counted,
            dtype=initial.dtype,
            device=initial.device,
        )
        method = replace(self.method, record=True) if record else self.method
        return evolve(
            system, initial=initial, times=times, method=method, gradient=self.adjoint, throw=self.throw, **options
        )


def checked_interval(interval: tuple[float, float]) -> tuple[float, float]:
    """An interval of time.

    Raises:
        InputError: if it is none.
    """
    if not (
        isinstance(interval, tuple | list)
        and len(interval) == 2
        and all(isinstance(end, Real) and isfinite(end) for end in interval)
        and interval[0] < interval[1]
    ):
        raise InputError(f"interval is a pair (t0, t1) of times, t0 before t1, got {interval!r}")
    return float(interval[0]), float(interval[1])


def check_regularizer(regularizer: Regularizer | None, adjoint: str, backend: str) -> None:
    """Refuse what does not go together.

    Raises:
        InputError: for a regularizer that is none, or one of all steps where these are not at hand.
    """
    if regularizer is None:
        return
    if not isinstance(regularizer, Regularizer):
        raise InputError(f"regularizer is one of sciml.solvers.neural_de, such as ErrorEstimate(), got {regularizer!r}")
    terms = [term for _, term in terms_of(regularizer)]
    for term in terms:
        if not isinstance(term, StepRegularizer):
            continue
        name = type(term).__name__
        if backend != "sciml":
            raise InputError(
                f"{name} needs the stages of every step, and {backend} does not give them: take LocalError() or "
                "LocalStiffness(), which work with any solver, or backend='sciml'"
            )
        if adjoint == "continuous":
            raise InputError(
                f"{name} is a function of the steps, whose gradient the continuous adjoint does not see: take "
                "LocalError() or LocalStiffness(), which work with any adjoint, or adjoint='recorded'"
            )
        if adjoint == "checkpointed":
            raise InputError(
                f"{name} keeps something of every step: take adjoint='recorded', or LocalError() or LocalStiffness(), "
                "which work with any adjoint"
            )
    if sum(isinstance(term, Steer) for term in terms) > 1:
        raise InputError("regularizer: Steer stands in it twice")


def spread_times(
    interval: tuple[float, float] | None, times: Sequence[float] | Tensor | None
) -> tuple[tuple[float, float], tuple[float, ...] | None]:
    """The interval that is integrated over, and the times that are asked for, those close to its ends put onto them.

    Raises:
        InputError: for times that do not increase, or lie outside of the interval.
    """
    if times is None:
        return interval or (0.0, 1.0), None
    if isinstance(times, Tensor):
        if times.ndim != 1:
            raise InputError(f"times is a list of numbers, got a tensor of shape {tuple(times.shape)}")
        times = times.detach().to("cpu", torch.float64).tolist()
    try:
        found = [float(time) for time in times]
    except (TypeError, ValueError) as error:
        raise InputError(f"times is a list of numbers, increasing, got {times!r}") from error
    if not found or (interval is None and len(found) < 2):
        raise InputError(
            f"times: at least one is needed, and two where they are to say the interval, got {len(found)}; "
            "or give NeuralODE(interval=(t0, t1))"
        )
    for place, time in enumerate(found):
        if not isfinite(time) or (place and time <= found[place - 1]):
            raise InputError(f"times must increase: times[{place}] is {time}, after {found[max(place - 1, 0)]}")
    start, end = interval or (found[0], found[-1])
    close = 1e-6 * (end - start)  # for times in float32
    for place, time in enumerate(found):
        if not start - close <= time <= end + close:
            raise InputError(f"times[{place}] = {time} lies outside the interval of integration, from {start} to {end}")
    wanted = tuple(start if abs(t - start) <= close else end if abs(t - end) <= close else t for t in found)
    return (start, end), wanted


def steered(
    steer: Steer, span: tuple[float, float], wanted: tuple[float, ...] | None
) -> tuple[tuple[float, float], tuple[float, ...] | None]:
    """Interval and times as `Steer` moves them."""
    start, end = span
    if wanted is None:
        return (start, steer.end(start, end)), None
    moved = steer.moved((start, *wanted) if wanted[0] > start else wanted)
    if wanted[0] > start:
        moved = moved[1:]
    return (start, max(end, moved[-1])), moved


def all_times(span: tuple[float, float], wanted: tuple[float, ...] | None) -> tuple[float, ...]:
    """The times of a solution: both ends of the interval, and those that are asked for."""
    start, end = span
    if wanted is None:
        return span
    return (*((start,) if wanted[0] > start else ()), *wanted, *((end,) if wanted[-1] < end else ()))
