"""What the regularizer of a model comes to in one solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.solution import Solution

from ..time.explicit import ExplicitRungeKutta
from ..time.stepper import Attempt
from ..time.stochastic import EulerMaruyama, Milstein, StochasticRungeKutta
from .integrals import IntegralRegularizer, JacobianNorm
from .local import LocalRegularizer, LocalStiffness
from .regularizers import Regularizer, StepRegularizer, StiffnessEstimate, terms_of
from .steer import Steer

Stochastic = EulerMaruyama | Milstein | StochasticRungeKutta


def penalty(
    terms: Sequence[tuple[float, Regularizer]],
    solution: Solution,
    totals: Mapping[Regularizer, Tensor],
    attempts: Mapping[str, tuple[Attempt, float]],
) -> Tensor:
    """`(*batch)`, the weighted sum of the terms; 0 without a gradient for rows that have failed.

    Args:
        terms: pairs of weight and regularizer.
        solution: of the solve.
        totals: the integrals that were solved for beside the state, by the regularizers that wanted them.
        attempts: the steps that were repeated, with their sizes, by how they were drawn.
    """
    total = solution.value.new_zeros(solution.codes.shape)
    for weight, term in terms:
        if isinstance(term, StepRegularizer):
            total = total + weight * term(solution)
        elif isinstance(term, LocalRegularizer) and term.sampling in attempts:
            total = total + weight * term.of_step(*attempts[term.sampling])
        elif term in totals:
            total = total + weight * totals[term]
    return torch.where(solution.converged, total, 0.0)


def check_regularizer(
    regularizer: Regularizer | None, method: ExplicitRungeKutta | Stochastic, adjoint: str, backend: str
) -> None:
    """Refuse what does not go together.

    Raises:
        InputError: for a regularizer that is none, one of all steps where these are not at hand, or of an estimate that
            the method does not have.
    """
    if regularizer is None:
        return
    if not isinstance(regularizer, Regularizer):
        raise InputError(f"regularizer is one of sciml.solvers.neural_de, such as ErrorEstimate(), got {regularizer!r}")
    terms = [term for _, term in terms_of(regularizer)]
    for term in terms:
        if not isinstance(term, StepRegularizer | LocalRegularizer | IntegralRegularizer | Steer):
            raise InputError(
                f"regularizer: nothing is known of what {term!r} is a function of; further ones are made of "
                "solution.history, or of the value, and added to the loss"
            )
    if adjoint == "checkpointed" and any(isinstance(term, JacobianNorm) for term in terms):
        raise InputError(
            "JacobianNorm has a backward pass of its own, which torch's checkpoints do not allow: take "
            "adjoint='recorded' or 'continuous'"
        )
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
    for term in terms:
        if isinstance(term, StiffnessEstimate | LocalStiffness) and _has_no_stiffness(method):
            raise InputError(
                f"{type(term).__name__}: {method.describe()} has no stiffness estimate; ExplicitRungeKutta.tsit5() and "
                "dormand_prince() have, and StochasticRungeKutta.sosri2()"
            )
    if sum(isinstance(term, Steer) for term in terms) > 1:
        raise InputError("regularizer: Steer stands in it twice")


def _has_no_stiffness(method: ExplicitRungeKutta | Stochastic) -> bool:
    return isinstance(method, ExplicitRungeKutta | StochasticRungeKutta) and method.tableau.equal is None
