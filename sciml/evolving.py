"""What every discretized evolving equation offers to the integrators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .differentiation import in_transform
from .grid import Grid
from .kernels import steps
from .linear_operator import LinearOperator
from .mesh import Mesh

if TYPE_CHECKING:
    from .equations import Equation

Time = float | Tensor
"""A time: a float for the whole batch, or a tensor of the batch's shape where every row has its own."""

Tolerance = float | Tensor
"""An absolute tolerance: of the whole batch, or a tensor of the batch's shape with one for every row."""

Prepare = Callable[[LinearOperator], Callable[[Tensor], Tensor]]
"""Prepares the solution of linear systems: operator -> (right side -> solution), differentiable in the right side."""


class EvolvingSystem(ABC):
    """A discretized evolving equation, M du/dt = G(u, t), where M is the identity but on meshes.

    Integrators work on states y, in which linear combinations are cheap and meaningful: the field itself, or of a
    spectral discretization its Fourier coefficients as pairs of real numbers. `encode` and `decode` go between both.

    Attributes:
        equation, domain: what was discretized; domain None for ordinary differential equations.
        unknowns: the evolving ones, in the order of the channels.
        fields, parameters, boundary, scheme: as they were used.
        notes: what was chosen, for people to read.
        batch: the shape that fields, parameters and boundary values broadcast to.
        space: the trailing shape of a field u: `(*grid)` or `(n,)`, of several unknowns `(channel, *grid)` or
            `(channel, n)`; of ordinary differential equations `()` or `(channel,)`.
        axes: the trailing axes of one unknown's field.
        state_space: the trailing shape of a state y, which is real.
        plain_ratio: whether `error_ratio` is `root_mean_square_ratio` over the axes of a state.
        linear_part: the part of the rate that is linear in u with coefficients that do not depend on time, on fields
            `(*batch, *space)`; None if there is none.
    """

    equation: Equation
    domain: Grid | Mesh | None
    unknowns: tuple[str, ...]
    fields: dict[str, Any]
    parameters: dict[str, Any]
    boundary: Any
    scheme: Any
    notes: tuple[str, ...]
    batch: tuple[int, ...]
    space: tuple[int, ...]
    axes: int
    state_space: tuple[int, ...]
    plain_ratio: bool = False
    linear_part: LinearOperator | None
    dtype: torch.dtype
    device: torch.device

    @property
    def has_derivatives(self) -> bool:
        """Whether what it was made of may ask for derivatives: a tensor that does, or a function that may bring one
        along at any time; inside torch.func, where nothing shows it."""
        points = self.domain.points if isinstance(self.domain, Mesh) else None
        return in_transform() or _asks_for_derivatives((self.fields, self.parameters, self.boundary, points))

    @abstractmethod
    def rate(self, u: Tensor, t: Time) -> Tensor:
        """du/dt.

        Args:
            u: `(*batch, *space)`.
            t: the time, dimensionless or in the unit of the problem.

        Returns:
            the shape of u and of the data, broadcast; differentiable with respect to u and to all data.
        """

    @abstractmethod
    def nonlinear_part(self, u: Tensor, t: Time) -> Tensor:
        """What `linear_part` leaves of the rate: rate(u, t) - linear_part.apply(u)."""

    @abstractmethod
    def constrained(self, u: Tensor, t: Time) -> dict[str, Tensor]:
        """The fields that the constraints determine, by name, each `(*batch, *grid)`."""

    @abstractmethod
    def hold(self, u: Tensor, t: Time) -> Tensor:
        """The field with the values that boundary conditions hold at time t, where unknowns stand on the boundary; with
        it an evolution begins.

        Raises:
            InputError: if a constraint has no solution for it.
        """

    # States

    @abstractmethod
    def encode(self, u: Tensor) -> Tensor:
        """The state `(*batch, *state_space)` of a field; what the discretization does not keep is dropped here."""

    @abstractmethod
    def decode(self, y: Tensor) -> Tensor:
        """The field of a state."""

    @abstractmethod
    def slope(self, y: Tensor, t: Time) -> Tensor:
        """dy/dt, what explicit methods evaluate, as a new tensor."""

    @abstractmethod
    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        """The size of an error relative to the tolerance, one number a row: at most 1 where a step is good enough.

        Args:
            error: of a state, `(*batch, *state_space)`.
            before, after: the states at both ends of the step.
            rtol, atol: the tolerances, atol in the unit of u.
        """

    # Implicit methods: all of it on states

    @abstractmethod
    def apply_mass(self, y: Tensor) -> Tensor:
        """M y."""

    @abstractmethod
    def force(self, y: Tensor, t: Time) -> Tensor:
        """G(y, t) = M dy/dt; at points where a value is held, minus the distance from it, so that M there is 0."""

    @abstractmethod
    def explicit_force(self, y: Tensor, t: Time) -> Tensor:
        """What the linear part leaves of `force`."""

    @abstractmethod
    def shifted(self, y: Tensor, t: Time, step: float) -> LinearOperator:
        """M - step * dG/dy at (y, t), on states."""

    @abstractmethod
    def shifted_linear(self, step: float) -> LinearOperator:
        """M - step * (linear part of G), on states."""


def _asks_for_derivatives(data: Any) -> bool:
    if isinstance(data, Tensor):
        return data.requires_grad
    if isinstance(data, Mapping):
        return any(map(_asks_for_derivatives, data.values()))
    if isinstance(data, tuple | list):
        return any(map(_asks_for_derivatives, data))
    if is_dataclass(data) and not isinstance(data, type):
        return any(_asks_for_derivatives(getattr(data, field.name)) for field in fields(data))
    return callable(data)


def root_mean_square_ratio(
    error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance, axes: int
) -> Tensor:
    """The root mean square over the last `axes` axes of error / (atol + rtol max(|before|, |after|)).

    Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, 2nd ed., Springer 1993, equation II.4.11.
    """
    found = steps.error_ratio(error, before, after, rtol, atol, axes)
    if found is not None:
        return found
    absolute = by_row(atol, error, axes)
    ratio = error / torch.maximum(before.abs(), after.abs()).mul_(rtol).add_(absolute)
    if axes == 0:
        return ratio.abs()
    if axes == 1 and ratio.stride(-1) != 1:  # norms along strided axes are slow, sums are not
        return ((ratio * ratio).mean(-1) + torch.finfo(ratio.dtype).tiny).sqrt()
    ratio = ratio.flatten(-axes)
    return torch.linalg.vector_norm(ratio, dim=-1) / ratio.shape[-1] ** 0.5


def by_row(atol: Tolerance, like: Tensor, axes: int) -> Tolerance:
    """An absolute tolerance that broadcasts to `(*batch, *axes)`, never 0, so that an error of 0 has the ratio 0."""
    tiny = torch.finfo(like.dtype).tiny
    if not isinstance(atol, Tensor):
        return max(atol, tiny)
    return atol.to(like.dtype).clamp(min=tiny).reshape((*atol.shape, *(1,) * axes))
