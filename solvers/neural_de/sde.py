"""A neural stochastic differential equation as a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.evolving import Time
from sciml.modes import in_plain_mode
from sciml.solution import Solution
from sciml.stochastic_system import Calculus, StochasticSystem

from ..evolve import evolve
from ..time.brownian import BrownianPath
from ..time.stochastic import EulerMaruyama, Milstein, StochasticRungeKutta
from .integrals import IntegralRegularizer
from .interval import all_times, at_times, check_reach, checked_interval, spread_times, steered
from .local import LocalRegularizer, repeated, samplers_of
from .penalty import check_regularizer, penalty
from .regularizers import Regularizer, StepRegularizer, terms_of

Method = EulerMaruyama | Milstein | StochasticRungeKutta
Adjoint = Literal["recorded", "checkpointed"]
Backend = Literal["sciml", "torchsde"]

_TOLERANCE = 1e-2


@final
class NeuralSDE(nn.Module):
    """The solution of du = drift(u, t) dt + diffusion(u, t) dW as a function of its initial value and of the noise,
    which is diagonal: every entry of u has a Brownian motion of its own.

    Args:
        drift, diffusion: (u, t) -> what multiplies dt and dW, torch.nn.Modules to be trained, or any functions; u and
            both results are `(*batch, *space)`, new tensors in every call, and t is a float, for backend="torchsde" a
            tensor without axes. Runge-Kutta methods have strong order 1.5, and Milstein's 1, where entry i of the
            diffusion depends on entry i of u alone; with networks that mix entries all have 1/2.
        interval: (t0, t1) in the unit of time; None: from the first to the last of the `times` of a call, (0, 1) if it
            has none.
        axes: how many trailing axes are the space of a row; all before them are batch.
        method: of `sciml.solvers.time`; None: `StochasticRungeKutta.sosri2()`, in Stratonovich's calculus `Milstein()`.
            All rows have the same steps.
        step: the size of the steps; None adapts them, which Runge-Kutta methods can.
        rtol, atol: of adaptive steps, the error allowed relative to the state and besides in its unit; None: 1e-2.
            Regularizers measure the errors of fixed steps by them, too.
        calculus: "ito" or "stratonovich".
        adjoint: what a backward pass goes through: "recorded", the steps; "checkpointed", the steps, of which it keeps
            few states and computes the others once more.
        backend: "torchsde" integrates by that library: Runge-Kutta methods by its "srk", which is SRID2 of Rößler
            whatever the tableau of `method`, and in Stratonovich's calculus by its "heun"; with adaptive steps by its
            own comparison of one step with two, and values between the ends of steps interpolated linearly, which
            lowers their variance.
        regularizer: in training mode `statistics["penalty"]` of the solution is its value for each row.
        throw: raise SolveError if a row fails; otherwise its status says so, and its values are NaN.

    Raises:
        InputError: for settings that do not go together, with what would.
    """

    def __init__(
        self,
        drift: Callable[[Tensor, Time], Tensor],
        diffusion: Callable[[Tensor, Time], Tensor],
        *,
        interval: tuple[float, float] | None = None,
        axes: int = 1,
        method: Method | None = None,
        step: float | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        calculus: Calculus = "ito",
        adjoint: Adjoint = "recorded",
        backend: Backend = "sciml",
        regularizer: Regularizer | None = None,
        throw: bool = True,
    ) -> None:
        super().__init__()
        for name, word, words in (
            ("calculus", calculus, get_args(Calculus)),
            ("adjoint", adjoint, get_args(Adjoint)),
            ("backend", backend, get_args(Backend)),
        ):
            if word not in words:
                raise InputError(f"{name} is one of {', '.join(map(repr, words))}, got {word!r}")
        if backend == "torchsde" and adjoint == "checkpointed":
            raise InputError("torchsde has no checkpoints: take adjoint='recorded', or the other backend")
        if not isinstance(axes, int) or axes < 0:
            raise InputError(f"axes is the number of trailing axes of a row, at least 0, got {axes!r}")
        if method is None:
            method = StochasticRungeKutta.sosri2() if calculus == "ito" else Milstein()
        if not isinstance(method, Method):
            raise InputError(
                "method is a stochastic one, StochasticRungeKutta.sosri2(), Milstein() or EulerMaruyama(), got "
                f"{method!r}"
            )
        if step is None and not isinstance(method, StochasticRungeKutta):
            raise InputError(
                f"{method.describe()} has no error estimate: give step=, the size of its steps"
                + (", or take StochasticRungeKutta.sosri2()" if calculus == "ito" else "")
            )
        measured = any(isinstance(term, StepRegularizer | LocalRegularizer) for _, term in _terms(regularizer))
        if step is not None and (rtol is not None or atol is not None) and not measured:
            raise InputError(
                "give either step, for steps of fixed size, or rtol and atol, for steps that adapt, or for a "
                "regularizer of the errors; not both"
            )
        if calculus == "stratonovich" and not isinstance(method, Milstein):
            raise InputError(
                f"{method.describe()} is for Ito's calculus: take Milstein(), or add to entry i of the drift half of "
                "g_i dg_i/du_i, g being the diffusion, and calculus='ito'"
            )
        self.drift, self.diffusion = drift, diffusion
        self.interval = None if interval is None else checked_interval(interval)
        self.axes, self.method, self.step = axes, method, step
        self.rtol = _TOLERANCE if rtol is None else rtol
        self.atol = _TOLERANCE if atol is None else atol
        self.calculus: Calculus = calculus
        self.adjoint, self.backend, self.regularizer, self.throw = adjoint, backend, regularizer, throw
        self._check(regularizer)

    def _check(self, regularizer: Regularizer | None) -> None:
        check_regularizer(regularizer, self.method, self.adjoint, self.backend)
        for _, term in _terms(regularizer):
            self._check_term(term)

    def _check_term(self, term: Regularizer) -> None:
        name = type(term).__name__
        if isinstance(term, IntegralRegularizer):
            raise InputError(f"{name} is an integral along ordinary differential equations: take ErrorEstimate()")
        if isinstance(term, StepRegularizer | LocalRegularizer) and not isinstance(self.method, StochasticRungeKutta):
            raise InputError(
                f"{name} needs estimates of steps, and {self.method.describe()} has none: take "
                "StochasticRungeKutta.sosri2()"
            )
        if isinstance(term, StepRegularizer) and self.adjoint == "checkpointed" and self.step is not None:
            raise InputError(
                f"{name} keeps the estimates of all steps, which adjoint='checkpointed' does for adaptive ones only: "
                "take rtol and atol in place of step, or adjoint='recorded'"
            )
        if isinstance(term, LocalRegularizer) and self.backend == "torchsde" and self.step is None:
            raise InputError(
                f"{name}: torchsde does not tell the sizes of its adaptive steps: give step=, or backend='sciml'"
            )

    def extra_repr(self) -> str:
        return f"{self.method.describe()}, calculus={self.calculus!r}, backend={self.backend!r}"

    @in_plain_mode
    def forward(
        self,
        initial: Tensor,
        times: Sequence[float] | Tensor | None = None,
        *,
        path: Any = None,
        seed: int | None = None,
    ) -> tuple[Tensor, Solution]:
        """Solve, with noise that is drawn anew in every call unless it is given.

        Args:
            initial: `(*batch, *space)` at the start of the interval.
            times: increasing, within the interval; None asks for the end of it only. Steps end on them, but those of
                torchsde.
            path: the noise: a `sciml.solvers.time.BrownianPath`, or a Brownian motion of torchsde.
            seed: of a new path, which depends on the times and the shape of `initial`, too: the same noise at other
                times is that of the same `path`. None draws one from torch's default generator.

        Returns:
            the value `(*batch, *space)` at the end, or `(*batch, time, *space)` at the times; and the solution over
            the whole interval: status row by row, `statistics` with counts of evaluations and steps, and "penalty"
            `(*batch)` of the regularizer (0 in evaluation mode).

        Raises:
            InputError: for times outside the interval, a state that is no tensor of real numbers, a path of another
                shape or interval, or functions that return another shape.
            SolveError: where a row failed.
        """
        if not isinstance(initial, Tensor) or not initial.is_floating_point() or initial.ndim < self.axes:
            what = f"{initial.dtype} and shape {tuple(initial.shape)}" if isinstance(initial, Tensor) else repr(initial)
            raise InputError(f"initial is a real tensor with at least {self.axes} axes, got {what}")
        if path is not None and seed is not None:
            raise InputError("give either path or seed: a path has a seed of its own")
        self._check(self.regularizer)  # it may have been replaced
        terms = _terms(self.regularizer) if self.training else ()
        span, wanted = spread_times(self.interval, times)
        if path is not None:
            check_reach(terms, span, wanted, path)
        span, wanted = steered(terms, span, wanted)
        known = all_times(span, wanted)
        if path is None:
            seed = int(torch.randint(2**62, ())) if seed is None else seed
            place: dict[str, Any] = {"dtype": initial.dtype, "device": initial.device}
            path = BrownianPath(known, initial.shape, seed=seed, step=self.step, **place)
        system = StochasticSystem(
            self.drift, self.diffusion, initial.shape[initial.ndim - self.axes :], path=path, calculus=self.calculus
        )
        samplers = samplers_of(terms, self.adjoint == "checkpointed")

        def watch(t: float, h: float, state: Tensor) -> None:
            for sampler in samplers.values():
                sampler(t, h, state)

        record = any(isinstance(term, StepRegularizer) for _, term in terms)
        solution = self._solved(system, initial, known, record, watch if samplers else None)
        attempts = {}
        if isinstance(self.method, StochasticRungeKutta):
            recording = replace(self.method, record=True)
            attempts = {
                sampling: repeated(recording, system, sampler.sample, self.rtol, self.atol)
                for sampling, sampler in samplers.items()
                if sampler.sample is not None
            }
        solution.statistics["penalty"] = penalty(terms, solution, {}, attempts)
        return at_times(solution, known, wanted), solution

    def _solved(
        self,
        system: StochasticSystem,
        initial: Tensor,
        times: tuple[float, ...],
        record: bool,
        watch: Callable[[float, float, Tensor], None] | None,
    ) -> Solution:
        judged = self.step is None or record
        tolerances = {"rtol": self.rtol if judged else None, "atol": self.atol if judged else None}
        options: dict[str, Any] = {"step": self.step, **tolerances, "throw": self.throw}
        if self.backend == "torchsde":
            from .torchsde_backend import solve_with_torchsde

            return solve_with_torchsde(system, initial, times, method=self.method, step_observer=watch, **options)
        method: Method = self.method
        if record and isinstance(method, StochasticRungeKutta):
            method = replace(method, record=True)
        return evolve(
            system,
            initial=initial,
            times=times,
            method=method,
            gradient=self.adjoint,
            step_observer=watch,
            **options,
        )


def _terms(regularizer: Regularizer | None) -> tuple[tuple[float, Regularizer], ...]:
    return () if regularizer is None else terms_of(regularizer)
