"""A neural ordinary differential equation as a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.evolving import Time
from sciml.function_system import FunctionSystem
from sciml.modes import in_plain_mode
from sciml.solution import Solution

from ..evolve import evolve
from ..time.explicit import ExplicitRungeKutta
from .integrals import Augmented, IntegralRegularizer, check_time, needs_time
from .interval import all_times, at_times, checked_interval, spread_times, steered
from .local import repeated, samplers_of
from .penalty import check_regularizer, penalty
from .regularizers import Regularizer, StepRegularizer, terms_of

Adjoint = Literal["recorded", "checkpointed", "continuous"]
Backend = Literal["sciml", "torchdiffeq"]


@final
class NeuralODE(nn.Module):
    """The solution of du/dt = rate(u, t) as a function of its initial value, by adaptive steps.

    Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018.

    Args:
        rate: (u, t) -> du/dt, a torch.nn.Module to be trained, or any function; u is `(*batch, *space)`, du/dt a new
            tensor of this shape in every call, and t is a float, for some regularizers and adjoints a tensor without
            axes; `torch.as_tensor(t, dtype=u.dtype)` takes both. The weights of a network inside a function, as in
            `lambda u, t: net(u)`, are none of this module's parameters: `Autonomous` and `TimeDependent` are networks
            of two arguments.
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
        check_regularizer(regularizer, self.method, adjoint, backend)

    def extra_repr(self) -> str:
        return f"{self.method.describe()}, adjoint={self.adjoint!r}, backend={self.backend!r}"

    @in_plain_mode
    def forward(self, initial: Tensor, times: Sequence[float] | Tensor | None = None) -> tuple[Tensor, Solution]:
        """Solve.

        Args:
            initial: `(*batch, *space)` at the start of the interval.
            times: increasing, within the interval; None asks for the end of it only.

        Returns:
            the value `(*batch, *space)` at the end, or `(*batch, time, *space)` at the times; and the solution over
            the whole interval: status row by row, `statistics` with counts of evaluations and steps, those
            of a local regularizer's step not among them, "penalty" `(*batch)` of the regularizer (0 in evaluation mode,
            and of rows that failed), and of the continuous adjoint, once it was solved,
            "backward_evaluations".

        Raises:
            InputError: for times outside the interval, a state that is no tensor of real numbers, or a rate that
                returns another shape.
            SolveError: where a row failed.
        """
        if not isinstance(initial, Tensor) or not initial.is_floating_point() or initial.ndim < self.axes:
            what = f"{initial.dtype} and shape {tuple(initial.shape)}" if isinstance(initial, Tensor) else repr(initial)
            raise InputError(f"initial is a real tensor with at least {self.axes} axes, got {what}")
        check_regularizer(self.regularizer, self.method, self.adjoint, self.backend)  # it may have been replaced
        terms = terms_of(self.regularizer) if self.training and self.regularizer is not None else ()
        span, wanted = spread_times(self.interval, times)
        span, wanted = steered(terms, span, wanted)
        known = all_times(span, wanted)
        rtol = self.rtol if self.rtol is not None else (1e-6 if initial.dtype == torch.float64 else 1e-4)
        atol = rtol if self.atol is None else self.atol
        space = tuple(initial.shape[initial.ndim - self.axes :])
        integrals = tuple(term for _, term in terms if isinstance(term, IntegralRegularizer))
        samplers = samplers_of(terms, self.adjoint == "checkpointed")

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
        totals: dict[Regularizer, Tensor] = {}
        if integrals:
            n = prod(space)
            totals = dict(zip(integrals, solution.value[..., -1, n:].unbind(-1), strict=True))
            value = solution.value[..., :n].reshape(*solution.value.shape[:-1], *space)
            solution = replace(solution, value=value, system=self._system(initial))
        attempts = {
            sampling: repeated(replace(self.method, record=True), self._system(initial), sampler.sample, rtol, atol)
            for sampling, sampler in samplers.items()
            if sampler.sample is not None
        }
        solution.statistics["penalty"] = penalty(terms, solution, totals, attempts)
        return at_times(solution, known, wanted), solution

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
        if any(needs_time(term) for term in integrals):
            check_time(rate, initial.detach(), times[0], times[-1])
        if integrals:
            batch, counted = initial.shape[: initial.ndim - axes], prod(space)
            rate, axes = Augmented(rate, space, integrals, torch.randn_like(initial)), 1
            initial = torch.cat((initial.reshape(*batch, counted), initial.new_zeros(*batch, len(integrals))), -1)
        options: dict[str, Any] = {"rtol": rtol, "atol": atol, "step_observer": watch}
        if self.backend == "torchdiffeq":
            from .torchdiffeq_backend import solve_with_torchdiffeq

            return solve_with_torchdiffeq(
                rate,
                initial,
                times,
                axes=axes,
                counted=counted,
                method=self.method,
                adjoint=self.adjoint,
                throw=self.throw,
                **options,
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
