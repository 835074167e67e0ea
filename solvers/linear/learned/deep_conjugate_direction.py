"""Deep conjugate directions: descent along what a network proposes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator
from sciml.status import Status

from ..base import Iteration, LinearSolver
from ..settings import check_count
from .direction_inverse import Directions, check_network, solved_alone
from .direction_network import DirectionNetwork


@dataclass(frozen=True, eq=False)
class DeepConjugateDirection(LinearSolver):
    """The deep conjugate direction method for symmetric positive definite operators.

    In every iteration the direction is network(r/|r|), made A-orthogonal to the last directions, the step along it
    is the best one, and the residual r = b - A x is computed afresh. Where a step along the network's direction would
    lower the energy of the error less than one along r, r is the direction: a bad network costs time, the error falls
    at least as fast as in steepest descent, and with a network that returns what it is given the method is that of
    conjugate gradients. Unknowns that are coupled to no other are solved for at the start.
    The statistics have `replaced`, the number of iterations whose direction was r.

    The network is trained for one kind of problem at one size: see `train_direction_network`. Of the operator it sees
    nothing but residuals; where obstacles or coefficients are others than in training, expect more iterations. One
    application costs some 120,000 floating-point operations an unknown, as much as thousands of iterations of conjugate
    gradients: what falls is the number of iterations, and on a CPU not the time.

    Source: Kaneda, Akar, Chen, Kala, Hyde and Teran, A Deep Conjugate Direction Method for Iteratively Solving Linear
    Systems (ICML 2023), algorithm 1, with `directions` = 2. The comparison with r is ours.

    Args:
        network: from residuals `(rows, *space)` of norm 1 to directions of any length, in the dtype of its weights.
        directions: how many earlier directions the next one is made A-orthogonal to, at least 0.
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: from `prepare`, for an operator that is not symmetric, of another dimension than the network or on
            another device. An indefinite operator ends with Status.INDEFINITE.
    """

    network: nn.Module
    directions: int = 2

    @classmethod
    def pretrained(
        cls,
        name: str,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> DeepConjugateDirection:
        """With weights that come with the package.

        Args:
            name, device, dtype: of the network, see DirectionNetwork.pretrained.
            settings: further arguments of DeepConjugateDirection.

        Raises:
            InputError: there are no weights of that name; those there are, are named.
        """
        return cls(DirectionNetwork.pretrained(name, device=device, dtype=dtype), **settings)

    def validate(self) -> None:
        check_network(self.network)
        if self.directions != 0 or isinstance(self.directions, bool):
            try:
                check_count(self.directions, "directions")
            except InputError:
                raise InputError(f"directions must be a whole number of at least 0, got {self.directions!r}") from None

    def describe(self) -> str:
        return f"deep conjugate directions ({self.directions})"

    def setup(self, operator: LinearOperator) -> Directions:
        return Directions(self.network, operator)

    def iterate(self, task: Iteration, state: Directions) -> None:
        """In the notation of the source: residual r, direction d; images q of both; earlier pairs p, A p."""
        operator, rows, x, r = task.operator, task.rows, task.x, task.r
        norms = _solve_alone(task, state)
        earlier: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=self.directions)
        image, plain_image = torch.empty_like(r), torch.empty_like(r)
        replaced = task.statistics.setdefault("replaced", torch.zeros_like(task.iterations))
        for step in range(1, task.max_iterations + 1):
            if task.finished(step - 1):
                break
            unit = r * rows.spread(torch.where(norms > 0, norms, 1.0).reciprocal(), r)
            direction = _proposed(state, unit, task)
            curvature = rows.apply_and_dot(operator, direction, out=image)
            slope = rows.dot(direction, r)
            # Steepest descent is compared with at every step: two products of A against a network's cost.
            plain_curvature = rows.apply_and_dot(operator, unit, out=plain_image)
            rounding = torch.finfo(r.dtype).eps * rows.norm(direction) * rows.norm(image)
            task.fail((plain_curvature <= 0) | (curvature < -rounding), Status.INDEFINITE)
            gain = torch.where(curvature > rounding, slope**2 / curvature, 0.0)
            plain = ~(gain >= norms**2 / plain_curvature)
            if task.b.device.type != "cpu" or bool(plain.any()):
                chosen = rows.spread(plain, r).bool()
                direction = torch.where(chosen, unit, direction)
                image = torch.where(chosen, plain_image, image)
                slope = torch.where(plain, norms, slope)
            rounding = torch.finfo(r.dtype).eps * rows.norm(direction) * rows.norm(image)
            for previous, previous_image, previous_curvature in earlier:
                overlap = rows.spread(rows.dot(direction, previous_image) / previous_curvature, r)
                direction = direction - overlap * previous
                image = image - overlap * previous_image
            curvature = rows.dot(direction, image)
            slope = rows.dot(direction, r)
            task.fail(curvature < -rounding, Status.INDEFINITE)
            task.fail(~(curvature > 0), Status.BREAKDOWN)
            active = task.active()
            length = torch.where(active, slope / curvature, 0.0)
            x.addcmul_(rows.spread(length, x), torch.where(rows.spread(active, x).bool(), direction, 0.0))
            r = operator.residual(task.b, x, out=r)
            norms = rows.norm(r)
            task.iterations += active
            replaced += plain & active
            task.record(norms)
            earlier.append((direction, image.clone(), torch.where(curvature > 0, curvature, 1.0)))


def _proposed(state: Directions, unit: Tensor, task: Iteration) -> Tensor:
    """The network's directions, 0 in place of those that are not finite."""
    rows = task.rows
    proposed = state(unit, rows, task.active())
    finite = torch.isfinite(rows.dot(proposed, proposed))
    return torch.where(rows.spread(finite, proposed).bool(), proposed, 0.0).contiguous()


def _solve_alone(task: Iteration, state: Directions) -> Tensor:
    """Solve for the unknowns that are coupled to no other, whose residuals then stay 0; the norms of the residuals."""
    if state.alone is not None:
        task.x += torch.where(state.alone, solved_alone(task.operator, task.r), 0.0)
        task.operator.residual(task.b, task.x, out=task.r)
    norms = task.rows.norm(task.r)
    task.codes = torch.where(task.active() & (norms <= task.tolerance), int(Status.CONVERGED), task.codes)
    return norms
