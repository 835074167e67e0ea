"""What is added to a loss so that a differential equation becomes easy to solve: from the estimates of each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Literal, final, get_args

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.solution import Solution

Reduction = Literal["sum", "mean", "max"]
Rows = Literal["each", "together"]


class Regularizer(ABC):  # noqa: B024
    """A term of a loss; sums of them with weights are one, too: `0.5 * ErrorEstimate() + 0.1 * StiffnessEstimate()`.

    Given to a model such as `NeuralODE`, it acts in training mode only, and `solution.statistics["penalty"]` has its
    value row by row.
    """

    def __add__(self, other: Regularizer) -> WeightedSum:
        if not isinstance(other, Regularizer):
            return NotImplemented
        return WeightedSum((*terms_of(self), *terms_of(other)))

    def __radd__(self, other: int) -> Regularizer:
        """For `sum`, which begins with 0."""
        return self if other == 0 else NotImplemented

    def __truediv__(self, divisor: float) -> WeightedSum:
        return self * (1.0 / divisor) if isinstance(divisor, Real) else NotImplemented

    def __mul__(self, weight: float) -> WeightedSum:
        if not isinstance(weight, Real):
            return NotImplemented
        return WeightedSum(tuple((float(weight) * own, term) for own, term in terms_of(self)))

    def __rmul__(self, weight: float) -> WeightedSum:
        return self * weight


@final
@dataclass(frozen=True)
class WeightedSum(Regularizer):
    """A sum of regularizers.

    Args:
        terms: pairs of weight and regularizer.

    Raises:
        InputError: for a weight that is not finite.
    """

    terms: tuple[tuple[float, Regularizer], ...]

    def __post_init__(self) -> None:
        for weight, term in self.terms:
            if not isfinite(weight):
                raise InputError(f"the weight of {term} must be finite, got {weight}")


def terms_of(regularizer: Regularizer) -> tuple[tuple[float, Regularizer], ...]:
    """Pairs of weight and regularizer, none of them a sum."""
    return regularizer.terms if isinstance(regularizer, WeightedSum) else ((1.0, regularizer),)


class StepRegularizer(Regularizer):
    """A regularizer made of an estimate of every accepted step.

    The stages of a step are no functions of the exact trajectory, so that its gradient goes through the steps
    themselves: adjoint="recorded" or "checkpointed" of a model, not "continuous".
    """

    @abstractmethod
    def __call__(self, solution: Solution) -> Tensor:
        """`(*batch)`, differentiable, dimensionless but for a factor of time where `step_factor` is set.

        Args:
            solution: of `NeuralODE` or `NeuralSDE`, or of `sciml.evolve` by an adaptive method with record=True.

        Raises:
            InputError: for a solution whose history does not have the estimate.
        """


@final
@dataclass(frozen=True)
class ErrorEstimate(StepRegularizer):
    """The sum of E_j |h_j| over the accepted steps, E_j being the estimated error relative to the tolerance.

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, equation 9. Their program takes the mean, as
    `reduction="mean"` does, and one error ratio for the whole batch, as `rows="together"` does.

    Args:
        reduction: over the accepted steps.
        step_factor: whether each is multiplied by the size of its step.
        rows: "each": the error of a row counts for the row; "together": the root mean square over the rows
            that did not fail counts for all.
    """

    reduction: Reduction = "sum"
    step_factor: bool = True
    rows: Rows = "each"

    def __post_init__(self) -> None:
        _check(self.reduction, self.rows)

    def __call__(self, solution: Solution) -> Tensor:
        ratios = _over_rows(_recorded(solution, "error"), self.rows, solution)
        return _reduced(ratios, solution, self.reduction, self.step_factor)


@final
@dataclass(frozen=True)
class ErrorEstimateSquared(StepRegularizer):
    """The sum of E_j^2 over the accepted steps; see `ErrorEstimate`.

    Pal, "On Efficient Training and Inference of Neural Differential Equations", thesis, MIT 2023, chapter 3.
    """

    reduction: Reduction = "sum"
    step_factor: bool = False
    rows: Rows = "each"

    def __post_init__(self) -> None:
        _check(self.reduction, self.rows)

    def __call__(self, solution: Solution) -> Tensor:
        ratios = _over_rows(_recorded(solution, "error"), self.rows, solution)
        return _reduced(ratios.square(), solution, self.reduction, self.step_factor)


@final
@dataclass(frozen=True)
class StiffnessEstimate(StepRegularizer):
    """The sum of S_j |h_j| over the accepted steps, S_j being the estimate of the largest |eigenvalue| of the Jacobian
    from two stages at the same time: Tsitouras 5(4), Dormand-Prince 5(4) and 8(7), and SOSRI2 have it.

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, equation 11. Their program has no factor h_j, takes
    the maximum for ordinary and the mean for stochastic equations, and divides by the size of the method's region of
    stability: 3.5068 for Tsitouras 5(4), which belongs into the weight here.

    Args:
        reduction: over the accepted steps.
        step_factor: whether each is multiplied by the size of its step.
    """

    reduction: Reduction = "sum"
    step_factor: bool = True

    def __post_init__(self) -> None:
        _check(self.reduction)

    def __call__(self, solution: Solution) -> Tensor:
        return _reduced(_recorded(solution, "stiffness"), solution, self.reduction, self.step_factor)


def _check(reduction: str, rows: str = "each") -> None:
    for name, word, words in (("reduction", reduction, get_args(Reduction)), ("rows", rows, get_args(Rows))):
        if word not in words:
            raise InputError(f"{name} is one of {', '.join(map(repr, words))}, got {word!r}")


def _recorded(solution: Solution, name: str) -> Tensor:
    """`(accepted steps, *batch)`."""
    history = solution.history
    if name not in history or "accepted" not in history or "step" not in history:
        what = {"error": "error ratios", "stiffness": "stiffness estimates"}[name]
        raise InputError(
            f"the history of the solution has no {what}: give the regularizer to a NeuralODE or NeuralSDE in training "
            "mode, or solve with record=True by a method that estimates them "
            f"({'adaptive ones do' if name == 'error' else 'ExplicitRungeKutta.tsit5() does'})"
        )
    found = history[name]
    if torch.is_grad_enabled() and not found.requires_grad and name == "error" and solution.value.requires_grad:
        raise InputError(
            "the error ratios in the history of the solution carry no gradient: solve with record=True, "
            "for example dataclasses.replace(ExplicitRungeKutta.tsit5(), record=True)"
        )
    return _accepted(found, solution)


def _accepted(values: Tensor, solution: Solution) -> Tensor:
    """Those of the steps that some row accepted; the others may have overflowed."""
    accepted = solution.history["accepted"]
    kept = accepted.reshape(len(accepted), -1).any(1)
    return values if bool(kept.all()) else values[kept]


def _over_rows(ratios: Tensor, rows: Rows, solution: Solution) -> Tensor:
    if rows == "each" or ratios.ndim == 1:
        return ratios
    axes, living = tuple(range(1, ratios.ndim)), solution.converged
    norm = torch.linalg.vector_norm(torch.where(living, ratios, 0.0), dim=axes, keepdim=True)
    return (norm / float(living.sum().clamp(min=1)) ** 0.5).expand_as(ratios)


def _reduced(values: Tensor, solution: Solution, reduction: Reduction, step_factor: bool) -> Tensor:
    accepted = _accepted(solution.history["accepted"], solution)
    if step_factor:
        values = values * _accepted(solution.history["step"], solution).to(values.dtype)
    values = torch.where(accepted, values, 0.0)
    if reduction == "max":
        return values.amax(0) if len(values) else values.sum(0)
    total = values.sum(0)
    return total if reduction == "sum" else total / accepted.sum(0).clamp(min=1)
