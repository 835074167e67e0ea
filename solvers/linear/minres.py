"""The minimal residual method for symmetric operators."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sciml.errors import InputError
from sciml.linear_operator import Identity, Kind, LinearOperator
from sciml.status import Status

from .base import Iteration, LinearSolver, Preconditioner
from .preconditioning import check_preconditioner, describe_preconditioner, prepare_preconditioner


@dataclass(frozen=True)
class MINRES(LinearSolver):
    """MINRES for symmetric operators, indefinite or singular ones too.

    Source: Paige and Saunders, SIAM J. Numer. Anal. 12 (1975) 617-629; preconditioned: Elman, Silvester and Wathen,
    Finite Elements and Fast Iterative Solvers (2014), algorithm 4.1.

    Args:
        preconditioner: symmetric positive definite approximation of the inverse of an operator like A, or None.
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: from `prepare`, for an operator known not to be symmetric or a preconditioner that is not symmetric
            positive definite.
    """

    preconditioner: Preconditioner | None = None

    def validate(self) -> None:
        check_preconditioner(self.preconditioner)

    def describe(self) -> str:
        return f"MINRES{describe_preconditioner(self.preconditioner)}"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        if not operator.symmetric:
            raise InputError(
                "MINRES needs a symmetric operator, and this one is not known to be: use GMRES or BiCGStab"
            )
        inverse = prepare_preconditioner(self.preconditioner, operator)
        if inverse.kind is not Kind.SYMMETRIC_POSITIVE:
            raise InputError(
                f"MINRES needs a symmetric positive definite preconditioner, this one is {inverse.kind.value}: "
                "use GMRES"
            )
        return inverse

    def iterate(self, task: Iteration, state: LinearOperator) -> None:
        """In the notation of Elman et al.: Lanczos vectors v, z = B v, coefficients delta, gamma; directions w.

        Vectors are left as they come, v of norm gamma and w of norm `length`, and their factors go with the scalars.
        """
        operator, rows, x, r = task.operator, task.rows, task.x, task.r
        plain = isinstance(state, Identity)
        v, old_v = r.clone(), torch.zeros_like(r)
        z = v if plain else state.apply(v)
        w, old_w, q = torch.zeros_like(r), torch.zeros_like(r), torch.empty_like(r)
        square = rows.dot(z, v)
        task.fail(square < 0, Status.INDEFINITE)
        gamma = square.clamp_min(0).sqrt_()
        one, zero = torch.ones_like(gamma), torch.zeros_like(gamma)
        eta, old_gamma, cosine, old_cosine, sine, old_sine = gamma, one, one, one, zero, zero
        length, old_length = one, one
        for step in range(1, task.max_iterations + 1):
            inverse = torch.where(gamma > 0, gamma, torch.inf).reciprocal()
            operator.apply(z, out=q)
            delta = rows.dot(q, z) * inverse**2
            old_v.mul_(rows.spread(-gamma / old_gamma, v)).addcmul_(rows.spread(inverse, v), q)
            old_v.addcmul_(rows.spread(delta * inverse, v), v, value=-1)
            two_back = old_sine * gamma
            one_back = sine * delta + old_cosine * cosine * gamma
            old_w.mul_(rows.spread(-two_back / old_length, w)).addcmul_(rows.spread(inverse, w), z)
            old_w.addcmul_(rows.spread(one_back / length, w), w, value=-1)
            v, old_v, w, old_w = old_v, v, old_w, w
            z = v if plain else state.apply(v, out=z)
            square = rows.dot(z, v)
            task.fail(square < 0, Status.INDEFINITE)
            new_gamma = square.clamp_min(0).sqrt_()
            here = cosine * delta - old_cosine * sine * gamma
            new_length = torch.hypot(here, new_gamma)
            task.fail(new_length <= 10 * torch.finfo(r.dtype).eps * (delta.abs() + gamma), Status.BREAKDOWN)
            old_length, length = length, torch.where(new_length > 0, new_length, one)
            old_cosine, cosine = cosine, here / length
            old_sine, sine = sine, new_gamma / length
            active = task.active()
            step_length = torch.where(active, cosine * eta / length, zero)
            eta = torch.where(active, -sine * eta, eta)
            task.iterations += active
            if plain:
                x.addcmul_(rows.spread(step_length, x), w)
                task.record(eta.abs())
            else:
                # The residual itself, for its norm: eta is that of B^(1/2) r.
                r.mul_(rows.spread(torch.where(active, sine**2, one), r))
                task.record(rows.descend(x, r, w, v, step_length).sqrt_())
            if task.finished(step):
                break
            old_gamma, gamma = torch.where(gamma > 0, gamma, one), new_gamma
