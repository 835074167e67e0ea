"""Functions of the coordinates and the time, as fields and boundary values may be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .errors import InputError


def depends_on_time(value: Any, axes: int, name: str) -> bool:
    """Whether a value is a function of the coordinates and, after them, the time.

    One that can be called with the coordinates alone is none, unless what follows them is called t.

    Args:
        value: what was given.
        axes: number of coordinates.
        name: of the value, for messages.

    Raises:
        InputError: for a function of t that takes fewer coordinates than there are.
    """
    if not callable(value) or isinstance(value, Tensor):
        return False
    try:
        signature = inspect.signature(value)
    except ValueError:
        return False  # a builtin without a signature
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in positional]
    if names[axes : axes + 1] == ["t"]:
        return True
    if names and names[-1] == "t":
        given = ", ".join("xyz"[:axes])
        raise InputError(f"{name}: a function of the time takes all {axes} coordinates, and t after them ({given}, t)")
    return _can_bind(signature, axes + 1) and not _can_bind(signature, axes)


def _can_bind(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def time_derivative(function: Callable[..., Any], name: str) -> Callable[..., Tensor]:
    """The derivative in time of a function of coordinates and time, by automatic differentiation.

    Args:
        function: it must compute with torch, row by row of a batch of times.
        name: of the function, for messages.

    Returns:
        A function of the same arguments, the time being a tensor that broadcasts with the coordinates. It can be
        differentiated in everything the function was made of, in the time again, and forward.

    Raises:
        InputError: from the result, where the value changes in time and torch knows nothing of it, as of math.sin(t).
    """

    def derivative(*arguments: Tensor) -> Tensor:
        *coordinates, t = arguments
        if torch._C._functorch.maybe_current_level() is not None:
            return torch.func.jvp(lambda s: _tensor(function(*coordinates, s), s), (t,), (torch.ones_like(t),))[1]
        # Only where the data carry gradients may the result: what is differentiated here is nobody else's business.
        keep = torch.is_grad_enabled() and (t.requires_grad or _tensor(function(*coordinates, t), t).requires_grad)
        # Backward twice, since forward derivatives do not nest: the derivative along the weights of a product with them
        # is the derivative of each entry.
        with torch.inference_mode(False), torch.enable_grad():
            moment = t if t.requires_grad else t.detach().clone().requires_grad_()
            value = _tensor(function(*coordinates, moment), moment)
            slope = None
            if value.requires_grad:
                weights = torch.zeros_like(value).requires_grad_()
                (slope,) = torch.autograd.grad(value, moment, weights, create_graph=True, allow_unused=True)
            if slope is None:
                _refuse_hidden_change(function, coordinates, t, value, name)
                return torch.zeros_like(value.detach())
            if not slope.requires_grad:
                return torch.zeros_like(value.detach())
            (result,) = torch.autograd.grad(slope.sum(), weights, create_graph=keep, allow_unused=True)
        return torch.zeros_like(value.detach()) if result is None else result

    derivative.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return derivative


def _tensor(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _refuse_hidden_change(
    function: Callable[..., Any], coordinates: list[Tensor], t: Tensor, value: Tensor, name: str
) -> None:
    with torch.no_grad():
        nearby = t.detach() + 1e-4 * t.detach().abs().clamp(min=1.0)
        other = _tensor(function(*coordinates, nearby), t)
        if not torch.equal(other, value.detach()):
            raise InputError(
                f"{name} changes in time, and its derivative is needed: compute it with torch (torch.sin(t), not "
                "math.sin(t)), so that it can be differentiated"
            )
