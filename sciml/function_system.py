"""A right-hand side given as a function, such as a neural network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import final

import torch
from torch import Tensor
from torch.func import jvp

from .dense_operator import DenseOperator
from .errors import InputError
from .evolving import EvolvingSystem, Time, Tolerance, root_mean_square_ratio
from .linear_operator import LinearOperator


@final
class FunctionSystem(EvolvingSystem):
    """du/dt = function(u, t), rows of the batch independent of each other.

    Args:
        function: (u, t) -> du/dt, both `(*batch, *space)`; t is a float, or a tensor of the batch's shape.
        space: the trailing shape of a row.
        dtype, device: of the states.

    Raises:
        InputError: from `rate` and the like, for a function that returns another shape.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Time], Tensor],
        space: Sequence[int] = (),
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not callable(function):
            raise InputError(f"function: expected (u, t) -> du/dt, got {type(function).__name__}")
        self.function = function
        self.domain = None
        self.unknowns = ("u",)
        self.fields, self.parameters = {}, {}
        self.boundary = self.scheme = None
        self.notes = ()
        self.batch = ()
        self.space = self.state_space = tuple(space)
        self.axes = len(self.space)
        self.linear_part = None
        self.dtype, self.device = dtype, torch.device(device)

    def rate(self, u: Tensor, t: Time) -> Tensor:
        found = self.function(u, t)
        if not isinstance(found, Tensor) or found.shape != u.shape:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"the right-hand side returned {what} for a state of shape {tuple(u.shape)}")
        return found

    def nonlinear_part(self, u: Tensor, t: Time) -> Tensor:
        return self.rate(u, t)

    def constrained(self, u: Tensor, t: Time) -> dict[str, Tensor]:
        return {}

    def hold(self, u: Tensor, t: Time) -> Tensor:
        return u

    def encode(self, u: Tensor) -> Tensor:
        return u

    def decode(self, y: Tensor) -> Tensor:
        return y

    def slope(self, y: Tensor, t: Time) -> Tensor:
        return self.function(y, t)

    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        return root_mean_square_ratio(error, before, after, rtol, atol, len(self.space))

    def apply_mass(self, y: Tensor) -> Tensor:
        return y

    def force(self, y: Tensor, t: Time) -> Tensor:
        return self.function(y, t)

    def explicit_force(self, y: Tensor, t: Time) -> Tensor:
        return self.function(y, t)

    def shifted(self, y: Tensor, t: Time, step: float) -> LinearOperator:
        """By one derivative in the direction of each unknown; for small rows."""
        n = prod(self.space)
        unit = torch.eye(n, dtype=y.dtype, device=y.device)
        batch = y.shape[: y.ndim - len(self.space)]
        columns = [
            jvp(lambda u: self.function(u, t), (y,), (unit[k].reshape(self.space).expand_as(y).contiguous(),))[1]
            for k in range(n)
        ]
        jacobian = torch.stack([column.reshape(*batch, n) for column in columns], -1)
        return DenseOperator(unit - step * jacobian, self.space)

    def shifted_linear(self, step: float) -> LinearOperator:
        return DenseOperator(torch.eye(prod(self.space), dtype=self.dtype, device=self.device), self.space)
