"""What systems that are given as functions of the state and the time have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from .dense_operator import DenseOperator
from .errors import InputError
from .evolving import EvolvingSystem, Time, Tolerance, root_mean_square_ratio
from .linear_operator import LinearOperator

Function = Callable[[Tensor, Time], Tensor]
Ratio = Callable[[Tensor, Tensor, Tensor, float, Tolerance], Tensor]


class RowSystem(EvolvingSystem):
    """du/dt = rate(u, t) where `rate` comes from functions, rows of the batch independent of each other.

    Args:
        text: the equation, for people to read.
        functions: all of them by name, each (u, t) -> a tensor of the shape and dtype of u.
        space: the trailing shape of a row, `()` for a number; all axes before it are batch.
        batch: the shape that the functions' own tensors broadcast to.
        dtype, device: of the states, and so of the functions' own tensors.
        counted, ratio: what decides the size of a step, see `sciml.FunctionSystem`.

    Raises:
        InputError: for a function of other arguments, a space that is no shape, or a count that it does not have.
    """

    def __init__(
        self,
        text: str,
        functions: Mapping[str, Function],
        space: Sequence[int],
        *,
        batch: tuple[int, ...] = (),
        dtype: torch.dtype,
        device: torch.device | str,
        counted: int | None = None,
        ratio: Ratio | None = None,
    ) -> None:
        for name, function in functions.items():
            _check_arguments(name, function)
        if not isinstance(space, Sequence) or not all(isinstance(n, int) and n > 0 for n in space):
            raise InputError(f"space: expected the shape of one row of u, such as (3,), got {space!r}")
        if counted is not None and not (space and isinstance(counted, int) and 0 < counted <= space[-1]):
            raise InputError(
                "counted: expected a number of leading entries of the last axis of a row, whose shape is "
                f"{tuple(space)}, got {counted!r}"
            )
        if counted is not None and ratio is not None:
            raise InputError("give either counted or ratio: both say what decides the size of a step")
        self.text = text
        self.equation = None  # type: ignore[assignment]
        self.domain = None
        self.unknowns = ("u",)
        self.fields = dict(functions)  # where `has_derivatives` looks
        self.parameters = {}
        self.boundary = self.scheme = None
        self.notes = ()
        self.batch = batch
        self.space = self.state_space = tuple(space)
        self.axes = len(self.space)
        self.linear_part = None
        self.dtype, self.device = dtype, torch.device(device)
        self.counted, self.ratio = counted, ratio
        self.plain_ratio = counted is None and ratio is None

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
        return self.rate(y, t)

    def counting(self, y: Tensor) -> Tensor:
        """Those entries of a state that decide the size of a step."""
        return y if self.counted is None else y[..., : self.counted].contiguous()

    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        if self.ratio is not None:
            return self.ratio(error, before, after, rtol, atol)
        error, before, after = self.counting(error), self.counting(before), self.counting(after)
        return root_mean_square_ratio(error, before, after, rtol, atol, len(self.space))

    def apply_mass(self, y: Tensor) -> Tensor:
        return y

    def force(self, y: Tensor, t: Time) -> Tensor:
        return self.rate(y, t)

    def explicit_force(self, y: Tensor, t: Time) -> Tensor:
        return self.rate(y, t)

    def shifted(self, y: Tensor, t: Time, step: float) -> LinearOperator:
        """By one derivative in the direction of each unknown; for small rows."""
        n = prod(self.space)
        unit = torch.eye(n, dtype=y.dtype, device=y.device)
        batch = y.shape[: y.ndim - len(self.space)]
        columns = [
            jvp(lambda u: self.rate(u, t), (y,), (unit[k].reshape(self.space).expand_as(y).contiguous(),))[1]
            for k in range(n)
        ]
        jacobian = torch.stack([column.reshape(*batch, n) for column in columns], -1)
        return DenseOperator(unit - step * jacobian, self.space)

    def shifted_linear(self, step: float) -> LinearOperator:
        return DenseOperator(torch.eye(prod(self.space), dtype=self.dtype, device=self.device), self.space)


def checked(found: Any, u: Tensor, what: str) -> Tensor:
    """What a function returned, if it goes with the state.

    Raises:
        InputError: for another shape or dtype.
    """
    if isinstance(found, Tensor) and found.shape == u.shape and found.dtype == u.dtype:
        return found
    got = _described(found) if isinstance(found, Tensor) else type(found).__name__
    raise InputError(f"{what} returned {got} for a state that is {_described(u)}")


def _check_arguments(name: str, function: Any) -> None:
    if not callable(function):
        value = "du/dt" if name == "function" else "a tensor of u's shape"
        raise InputError(f"{name}: expected (u, t) -> {value}, got {type(function).__name__}")
    try:
        inspect.signature(getattr(function, "forward", function)).bind(0.0, 0.0)
    except TypeError as error:
        raise InputError(
            f"{name}: it is called with the state u and the time t, and does not take these two arguments; of the "
            f"state alone: lambda u, t: {name}(u)"
        ) from error
    except ValueError:
        pass  # a builtin without a signature


def _described(tensor: Tensor) -> str:
    return f"a tensor of {tensor.dtype} and shape {tuple(tensor.shape)}"
