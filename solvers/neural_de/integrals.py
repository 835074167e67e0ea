"""Regularizers that are integrals along the trajectory: rivals of those that read the solver's own estimates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp

from sciml.differentiation import in_transform
from sciml.errors import InputError
from sciml.evolving import Time
from sciml.row_system import checked

from .regularizers import Regularizer

Rate = Callable[[Tensor, Time], Tensor]


class IntegralRegularizer(Regularizer):
    """An integral over time that is solved for beside the state; it does not influence the steps."""

    @property
    @abstractmethod
    def needs_graph(self) -> bool:
        """Whether `integrand` needs a graph of the slope."""

    @abstractmethod
    def integrand(self, rate: Rate, u: Tensor, t: Time, slope: Tensor, noise: Tensor) -> Tensor:
        """What is integrated, `(*batch, *space)`, to be summed over the space.

        Args:
            rate: du/dt as a function of u and t.
            u: the state, `(*batch, *space)`.
            t: the time.
            slope: rate(u, t), with a graph from u if `needs_graph`, but for what is inside torch.func.
            noise: standard normal numbers of the shape of u, the same ones along a trajectory.
        """


@final
@dataclass(frozen=True)
class KineticEnergy(IntegralRegularizer):
    """The integral of |f|^2. Finlay, Jacobsen, Nurbekyan and Oberman, "How to Train Your Neural ODE: the World of
    Jacobian and Kinetic Regularization" (RNODE), ICML 2020, section 4.1."""

    @property
    def needs_graph(self) -> bool:
        return False

    def integrand(self, rate: Rate, u: Tensor, t: Time, slope: Tensor, noise: Tensor) -> Tensor:
        return slope.square()


@final
@dataclass(frozen=True)
class JacobianNorm(IntegralRegularizer):
    """The integral of |e^T df/du|^2 with standard normal e, an estimate of the squared Frobenius norm of the Jacobian.

    Finlay, Jacobsen, Nurbekyan and Oberman (RNODE), ICML 2020, section 4.2.
    """

    @property
    def needs_graph(self) -> bool:
        return True

    def integrand(self, rate: Rate, u: Tensor, t: Time, slope: Tensor, noise: Tensor) -> Tensor:
        if in_transform():
            return vjp(lambda u: rate(u, t), u)[1](noise)[0].square()
        if not slope.requires_grad:
            return torch.zeros_like(u)
        (product,) = torch.autograd.grad(slope, u, noise, create_graph=True, materialize_grads=True)
        return product.square()


@final
@dataclass(frozen=True)
class TaylorDerivative(IntegralRegularizer):
    """The integral of |d^K u/dt^K|^2, total derivatives along the trajectory, found by nested forward-mode derivatives.

    Kelly, Bettencourt, Johnson and Duvenaud, "Learning Differential Equations that are Easy to Solve" (TayNODE),
    NeurIPS 2020, equation 1.

    Args:
        order: K, at least 1; K = 1 is the kinetic energy.

    Raises:
        InputError: for an order that is no positive integer.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or self.order < 1:
            raise InputError(f"TaylorDerivative: order is an integer, at least 1, got {self.order!r}")

    @property
    def needs_graph(self) -> bool:
        return False

    def integrand(self, rate: Rate, u: Tensor, t: Time, slope: Tensor, noise: Tensor) -> Tensor:
        if self.order == 1:
            return slope.square()
        moment = torch.as_tensor(t, dtype=u.dtype, device=u.device)
        return _total_derivative(rate, self.order - 1)(u, moment).square()


def _total_derivative(rate: Rate, order: int) -> Rate:
    """d^order f/dt^order along the trajectory; t is a tensor."""
    if order == 0:
        return rate
    below = _total_derivative(rate, order - 1)

    def derivative(u: Tensor, t: Time) -> Tensor:
        tangents = (rate(u, t), torch.ones_like(t) if isinstance(t, Tensor) else 1.0)
        return jvp(below, (u, t), tangents)[1]

    return derivative


def needs_time(term: Regularizer) -> bool:
    """Whether a regularizer takes derivatives of the rate with respect to the time."""
    return isinstance(term, TaylorDerivative) and term.order > 1


def check_time(rate: Rate, u: Tensor, start: float, end: float) -> None:
    """Refuse a rate that makes a number of the time, by which it changes without a derivative.

    Raises:
        InputError: for such a rate.
    """
    middle = torch.tensor(start + 0.4 * (end - start), dtype=u.dtype, device=u.device)
    apart = 1e-3 * (end - start)
    with torch.no_grad():
        earlier, again, later = (rate(u, middle + shift) for shift in (-apart, -apart, apart))
        if not torch.equal(earlier, again) or torch.equal(earlier, later):  # random as dropout is, or autonomous
            return
        slope = jvp(lambda t: rate(u, t), (middle,), (torch.ones_like(middle),))[1]
    if not slope.any():
        raise InputError(
            "TaylorDerivative: the rate depends on the time, and its derivative by the time is 0, as where the time "
            "becomes a number (float(t), torch.full_like(u, t)): take torch.as_tensor(t, dtype=u.dtype) in its place"
        )


@final
class Augmented(nn.Module):
    """The rate of a state with integrals behind it: `(*batch, n + integrals)`.

    Args:
        rate: of the state `(*batch, *space)`.
        space: of a row.
        integrals: what is integrated.
        noise: `(*batch, *space)`.
    """

    def __init__(self, rate: Rate, space: Sequence[int], integrals: Sequence[IntegralRegularizer], noise: Tensor):
        super().__init__()
        self.rate, self.space, self.integrals = rate, tuple(space), tuple(integrals)
        self.register_buffer("noise", noise, persistent=False)
        self.noise: Tensor

    def forward(self, y: Tensor, t: Any) -> Tensor:
        tracked, n = torch.is_grad_enabled(), prod(self.space)
        u = y[..., :n].reshape((*y.shape[:-1], *self.space))
        graph = not in_transform() and any(integral.needs_graph for integral in self.integrals)
        with torch.set_grad_enabled(tracked or graph):
            if graph and not u.requires_grad:
                u = u.detach().requires_grad_()
            slope = checked(self.rate(u, t), u, "the right-hand side")
            rates = [slope.reshape(*y.shape[:-1], n)]
            for integral in self.integrals:
                found = integral.integrand(self.rate, u, t, slope, self.noise)
                rates.append(found.reshape(*y.shape[:-1], n).sum(-1, keepdim=True))
            rate = torch.cat(rates, -1)
        return rate if tracked else rate.detach()
