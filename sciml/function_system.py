"""A right-hand side given as a function, such as a neural network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, final

import torch
from torch import Tensor
from torch.func import jvp

from .dense_operator import DenseOperator
from .errors import InputError
from .evolving import EvolvingSystem, Time, Tolerance, root_mean_square_ratio
from .linear_operator import LinearOperator

Ratio = Callable[[Tensor, Tensor, Tensor, float, Tolerance], Tensor]


@final
class FunctionSystem(EvolvingSystem):
    """du/dt = function(u, t), rows of the batch independent of each other; `sciml.evolve` takes it for an equation.

    There is no equation as text: its solutions cannot be stored, and their one unknown is called u.

    Args:
        function: (u, t) -> du/dt, for example a torch.nn.Module; u and du/dt are `(*batch, *space)`, and t is a float,
            or, where rows have steps of their own (control="row"), a float64 tensor of the batch's shape:
            `torch.as_tensor(t, dtype=u.dtype)[..., None]` goes with rows of one axis either way. Not every library has
            this order: `lambda u, t: f(t, u)` turns it around.
        space: the trailing shape of a row, `()` for a number; all axes before it are batch.
        dtype, device: of the states, and so of the function's own tensors.
        counted: how many leading entries of the last axis the error ratio of a step counts, and so decide its size; the
            others ride along, such as integrals over the solution that nothing depends on. None counts all.
        ratio: what to take in place of the root mean square over a row: (error, state before, state after, rtol, atol)
            -> the error relative to the tolerance, one number a row, at most 1 where a step is good enough.

    Raises:
        InputError: for a function of other arguments, a space that is no shape, or a count that it does not have; from
            `rate` and the like, for a function that returns another shape or dtype.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Time], Tensor],
        space: Sequence[int] = (),
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        counted: int | None = None,
        ratio: Ratio | None = None,
    ) -> None:
        _check_arguments(function)
        if not isinstance(space, Sequence) or not all(isinstance(n, int) and n > 0 for n in space):
            raise InputError(f"space: expected the shape of one row of u, such as (3,), got {space!r}")
        if counted is not None and not (space and isinstance(counted, int) and 0 < counted <= space[-1]):
            raise InputError(
                "counted: expected a number of leading entries of the last axis of a row, whose shape is "
                f"{tuple(space)}, got {counted!r}"
            )
        if counted is not None and ratio is not None:
            raise InputError("give either counted or ratio: both say what decides the size of a step")
        self.function = function
        self.equation = None  # type: ignore[assignment]
        self.domain = None
        self.unknowns = ("u",)
        self.fields = {"function": function}  # where `has_derivatives` looks
        self.parameters = {}
        self.boundary = self.scheme = None
        self.notes = ()
        self.batch = ()
        self.space = self.state_space = tuple(space)
        self.axes = len(self.space)
        self.linear_part = None
        self.dtype, self.device = dtype, torch.device(device)
        self.counted, self.ratio = counted, ratio

    def rate(self, u: Tensor, t: Time) -> Tensor:
        found = self.function(u, t)
        if isinstance(found, Tensor) and found.shape == u.shape and found.dtype == u.dtype:
            return found
        what = _described(found) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"the right-hand side returned {what} for a state that is {_described(u)}")

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
            jvp(lambda u: self.function(u, t), (y,), (unit[k].reshape(self.space).expand_as(y).contiguous(),))[1]
            for k in range(n)
        ]
        jacobian = torch.stack([column.reshape(*batch, n) for column in columns], -1)
        return DenseOperator(unit - step * jacobian, self.space)

    def shifted_linear(self, step: float) -> LinearOperator:
        return DenseOperator(torch.eye(prod(self.space), dtype=self.dtype, device=self.device), self.space)


def _check_arguments(function: Any) -> None:
    if not callable(function):
        raise InputError(f"function: expected (u, t) -> du/dt, got {type(function).__name__}")
    try:
        inspect.signature(getattr(function, "forward", function)).bind(0.0, 0.0)
    except TypeError as error:
        raise InputError(
            "function: it is called with the state u and the time t, and does not take these two arguments; of the "
            "state alone: lambda u, t: function(u)"
        ) from error
    except ValueError:
        pass  # a builtin without a signature


def _described(tensor: Tensor) -> str:
    return f"a tensor of {tensor.dtype} and shape {tuple(tensor.shape)}"
