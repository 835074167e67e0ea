"""Local regularizers: one further step from a random point of the trajectory, whichever way that was integrated."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, NamedTuple, final, get_args

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Tolerance
from sciml.function_system import FunctionSystem

from ..time.explicit import ExplicitRungeKutta
from ..time.stepper import Attempt, Integrator
from .regularizers import Regularizer

Sampling = Literal["unbiased", "biased"]


class Sample(NamedTuple):
    """An accepted step: its start, its size, and the state at its start, without gradients."""

    time: float
    step: float
    state: Tensor


@final
class PartialStep(float):
    """The size of a step that goes beyond the end of a run.

    Attributes:
        inside: length of the part before the end, at least 0, in which times are drawn.
    """

    inside: float

    def __new__(cls, size: float, inside: float) -> PartialStep:
        step = super().__new__(cls, size)
        step.inside = inside
        return step


def within(start: float, step: float, end: float) -> float:
    """The size of a step, negative back in time, as a `PartialStep` if it goes beyond the end of a run."""
    inside = max(end - start if step > 0 else start - end, 0.0)
    return step if abs(step) <= inside else PartialStep(step, inside)


class LocalRegularizer(Regularizer):
    """An estimate of one step of the trajectory, repeated with gradients from the state at its start, which is taken
    as given together with the size of the step.

    Pal, Edelman and Rackauckas, "Locally Regularized Neural Differential Equations: Some Black Boxes Were Meant to
    Remain Closed!", ICML 2023, section 3. Two things differ from their program. The step repeats one that the solver
    accepted: a fresh first step is far below the tolerance in float64 and has no effect. And the gradient goes through
    the first slope, too: the weights of an error estimate add up to 0, so that without it the gradient would be that of
    the slope itself and not of the error, larger by orders.

    Attributes:
        sampling: "unbiased": the step in which a uniformly drawn time of the interval lies, which is also the last one
            where that goes beyond the end, as torchdiffeq's does; "biased": each with the same probability.
    """

    sampling: Sampling

    @abstractmethod
    def of_step(self, attempt: Attempt, step: float) -> Tensor:
        """`(*batch)`, differentiable.

        Args:
            attempt: the step, with error ratio and stiffness.
            step: its size.

        Raises:
            InputError: for a method that does not estimate it.
        """

    def watch(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        *,
        rtol: float,
        atol: float,
        method: ExplicitRungeKutta | None = None,
        end: float | None = None,
    ) -> Watched:
        """A right-hand side for torchdiffeq that notes a step while it is integrated and knows its penalty afterwards.

            watched = LocalError().watch(function, rtol=1e-6, atol=1e-6)
            y = torchdiffeq.odeint_adjoint(watched, y0, t, rtol=1e-6, atol=1e-6)
            loss = criterion(y[-1]) + weight * watched.penalty()

        A step that does not begin where the one before it ended is the first of another solve, and what was before is
        forgotten. Of two solves, the second of which begins where the last step of the first ended, as on [0, 1] and
        [1, 2] with options={"step_t": ...} that holds 1, this cannot tell: they count as one, of all whose steps
        `penalty()` is drawn, unless it was called in between. Without such options the last step goes beyond the end.

        Args:
            function: (t, y) -> dy/dt, y a tensor `(*batch, n)`; for odeint_adjoint a torch.nn.Module.
            rtol, atol: of the solve, which the error is measured by, dimensionless and in the unit of y; two positive
                numbers.
            method: of the step; None is Dormand and Prince's, torchdiffeq's default.
            end: the last time of every solve, in the unit of time, beyond which torchdiffeq's last step goes: with
                "unbiased" sampling that step then counts by its share within. None: it counts whole, and is drawn too
                often.

        Raises:
            InputError: for numbers out of range.
        """
        kind = WatchedModule if isinstance(function, nn.Module) else Watched
        return kind(function, self, rtol, atol, method or ExplicitRungeKutta.dormand_prince(), end)


@final
@dataclass(frozen=True)
class LocalError(LocalRegularizer):
    """E |h| of one step, E being its estimated error relative to the tolerance; see `LocalRegularizer`.

    With "unbiased" sampling and without the factor its expected value times the length of the interval is
    `ErrorEstimate()`, with "biased" sampling and the factor `ErrorEstimate(reduction="mean")`; the gradients are not:
    how the trajectory changes does not enter.

    Args:
        sampling: which step, see `LocalRegularizer`.
        step_factor: whether it is multiplied by the size of the step.
    """

    sampling: Sampling = "unbiased"
    step_factor: bool = True

    def __post_init__(self) -> None:
        _check_sampling(self.sampling)

    def of_step(self, attempt: Attempt, step: float) -> Tensor:
        if attempt.ratio is None:
            raise InputError("LocalError: the method has no error estimate; take an adaptive one")
        return attempt.ratio * abs(step) if self.step_factor else attempt.ratio


@final
@dataclass(frozen=True)
class LocalStiffness(LocalRegularizer):
    """S |h| of one step, S being its estimate of the largest |eigenvalue| of the Jacobian; see `LocalRegularizer`.

    Args:
        sampling: which step, see `LocalRegularizer`.
        step_factor: whether it is multiplied by the size of the step.
    """

    sampling: Sampling = "unbiased"
    step_factor: bool = True

    def __post_init__(self) -> None:
        _check_sampling(self.sampling)

    def of_step(self, attempt: Attempt, step: float) -> Tensor:
        if attempt.stiffness is None:
            raise InputError(
                "LocalStiffness: the method has no stiffness estimate; ExplicitRungeKutta.tsit5() and dormand_prince() "
                "have, and StochasticRungeKutta.sosri2()"
            )
        return attempt.stiffness * abs(step) if self.step_factor else attempt.stiffness


def _check_sampling(sampling: str) -> None:
    if sampling not in get_args(Sampling):
        raise InputError(f"sampling is 'unbiased' or 'biased', got {sampling!r}")


class Sampler:
    """Draws one of the accepted steps of a run that tells of each as it goes, holding one state: a step takes the place
    of the one that is held with the probability of its share in all the time, or in the number, so far. Where time does
    not go on, another run has begun, and what was before is forgotten.

    Args:
        sampling: see `LocalRegularizer`.
        generator: of the draws; None is torch's own.
    """

    def __init__(self, sampling: Sampling, generator: torch.Generator | None = None) -> None:
        self.sampling, self.generator = sampling, generator
        self.total, self.latest = 0.0, math.nan
        self.sample: Sample | None = None

    def __call__(self, t: float, h: float, state: Tensor) -> None:
        if (t - self.latest) * h <= 0:
            self.total, self.sample = 0.0, None
        self.latest = t
        weight = 1.0
        if self.sampling == "unbiased":
            weight = h.inside if isinstance(h, PartialStep) else abs(h)
        self.total += weight
        if float(torch.rand((), dtype=torch.float64, generator=self.generator)) * self.total < weight:
            self.sample = Sample(t, float(h), state.detach())


def samplers_of(terms: Sequence[tuple[float, Regularizer]], checkpointed: bool) -> dict[str, Sampler]:
    """One for each way of drawing that local regularizers among the terms ask for.

    Args:
        terms: pairs of weight and regularizer.
        checkpointed: whether steps are repeated without telling of them: then what a rate draws in them, such as
            dropout, is the same if the samplers draw from elsewhere.
    """
    ways: dict[Sampling, None] = {term.sampling: None for _, term in terms if isinstance(term, LocalRegularizer)}
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ()))) if ways and checkpointed else None
    return {sampling: Sampler(sampling, generator) for sampling in ways}


def repeated(
    method: Integrator, system: EvolvingSystem, sample: Sample, rtol: float, atol: Tolerance
) -> tuple[Attempt, float]:
    """A step of the trajectory once more, by a method that records, with error ratio and stiffness; and its size."""
    stepper = method.stepper(system, rtol, atol)
    time, step, state = sample
    attempt = stepper.step(state, time, step, stepper.begin(state, time))
    if attempt.ratio is None and attempt.error is not None:
        attempt = attempt._replace(ratio=system.error_ratio(attempt.error, state, attempt.value, rtol, atol))
    return attempt, step


class Watched:
    """A right-hand side of torchdiffeq, see `LocalRegularizer.watch`."""

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        regularizer: LocalRegularizer,
        rtol: float,
        atol: float,
        method: ExplicitRungeKutta,
        end: float | None,
    ) -> None:
        super().__init__()
        for name, value in (("rtol", rtol), ("atol", atol)):
            if not isinstance(value, Real) or not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is a positive number, got {value!r}")
        if end is not None and not (isinstance(end, Real) and math.isfinite(end)):
            raise InputError(f"end is a time, the last one of every solve, or None, got {end!r}")
        self.function, self.regularizer = function, regularizer
        self.rtol, self.atol, self.method, self.end = rtol, atol, method, end
        self._sampler = Sampler(regularizer.sampling)
        self._latest: Tensor | None = None  # time of the latest evaluation
        self._back = False  # whether the latest step went back in time
        self._ended, self._rounding = math.nan, 0.0  # where it ended, and how exactly that is known

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        self._latest = t.detach()
        return self.function(t, y)

    def callback_accept_step(self, t: Tensor, y: Tensor, h: Tensor) -> None:
        """What torchdiffeq tells of an accepted step."""
        if not isinstance(y, Tensor):
            raise InputError(
                "watch(): the state is a tuple, of whose parts no error is known: put them into one tensor"
            )
        start, step = float(t.detach()), float(h.detach())
        if self._turns_back(start):
            step = -step
        if not abs(start - self._ended) <= self._rounding:
            self._sampler = Sampler(self.regularizer.sampling)
        self._ended, self._rounding = start + step, 4 * torch.finfo(t.dtype).eps * max(abs(start), abs(step))
        self._sampler(start, step if self.end is None else within(start, step, self.end), y)

    def _turns_back(self, start: float) -> bool:
        """Whether an accepted step goes back in time. torchdiffeq tells of it as if it went forward, but its stages, of
        which the latest evaluation is one, lie before its start; where it is too short to say so, as the latest did."""
        if self._latest is not None:
            precision = torch.finfo(self._latest.dtype)  # that of the state, to which times are rounded
            ahead = float(self._latest) - start
            if abs(ahead) > 4 * precision.eps * abs(start) + precision.tiny:
                self._back = ahead < 0
        return self._back

    def penalty(self) -> Tensor:
        """`(*batch)`, differentiable: that of the latest solve.

        Raises:
            InputError: if nothing was solved since the latest call, or beyond `end` alone.
        """
        sampler, self._sampler = self._sampler, Sampler(self.regularizer.sampling)
        sample = sampler.sample
        if sample is None and not math.isnan(sampler.latest):
            raise InputError(
                f"penalty(): all steps lie beyond end={self.end}, the latest at {sampler.latest:g}: give watch() the "
                "last time of the solve"
            )
        if sample is None:
            raise InputError(
                "penalty(): no step was noted since the latest call: integrate the watched function first, by an "
                "adaptive method of torchdiffeq"
            )
        y = sample.state
        system = FunctionSystem(
            lambda u, t: self.function(torch.as_tensor(t, dtype=y.dtype, device=y.device), u),
            y.shape[-1:],
            dtype=y.dtype,
            device=y.device,
        )
        return self.regularizer.of_step(
            *repeated(replace(self.method, record=True), system, sample, self.rtol, self.atol)
        )


@final
class WatchedModule(Watched, nn.Module):
    """One that has parameters, which torchdiffeq's odeint_adjoint looks for; where it is given no module it says so."""
