"""Functions of the coordinates and the time, as fields and boundary values may be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import InputError

_STEPS = tuple(10.0**-k for k in range(4, 13))  # relative to the time, or 1, over which derivatives are tried


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """What a function is called with; of a module that is what its `forward` takes.

    Raises:
        ValueError: for a builtin without a signature.
    """
    return inspect.signature(function.forward if isinstance(function, torch.nn.Module) else function)


def clock(t: float | Tensor, axes: int, device: torch.device) -> Tensor:
    """The time as functions get it: a number in float64, or one a row, `(*batch, 1, ..., 1)` with so many axes more.

    It is not in the dtype of the domain, for float32 does not resolve the steps of late times.
    """
    if isinstance(t, Tensor) and t.ndim:
        return t.to(device, torch.float64).reshape(*t.shape, *[1] * axes)
    if isinstance(t, Tensor):
        return t.to(device, torch.float64)
    return torch.full((), t, dtype=torch.float64, device=device)


def value_at(function: Callable[..., Any], coordinates: Sequence[Tensor], t: Tensor) -> Any:
    """What a function gives at a time of `clock`, in the dtype of the coordinates where it came out in that of t."""
    try:
        value = function(*coordinates, t)
    except RuntimeError as error:
        if coordinates and coordinates[0].dtype != t.dtype:
            error.add_note(f"t is given in {t.dtype}; where it must be as the coordinates are, write t.to(x.dtype)")
        raise
    if isinstance(value, Tensor) and coordinates and value.dtype == t.dtype:
        return value.to(coordinates[0].dtype)
    return value


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
        signature = signature_of(value)
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
        InputError: from the result, where the value changes in time in a way that torch knows nothing of, as that of
            math.sin(t) does.
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
            slope, found = None, None
            if value.requires_grad:
                weights = torch.zeros_like(value).requires_grad_()
                (slope,) = torch.autograd.grad(value, moment, weights, create_graph=True, allow_unused=True)
            if slope is not None and slope.requires_grad:
                (found,) = torch.autograd.grad(slope.sum(), weights, create_graph=keep, allow_unused=True)
        result = torch.zeros_like(value.detach()) if found is None else found
        with torch.no_grad():
            _refuse_hidden_change(function, coordinates, t.detach(), value.detach(), result.detach(), name)
        return result

    derivative.__signature__ = signature_of(function)  # type: ignore[attr-defined]
    return derivative


def _tensor(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _refuse_hidden_change(
    function: Callable[..., Any], coordinates: list[Tensor], t: Tensor, value: Tensor, slope: Tensor, name: str
) -> None:
    """Refuse a derivative that a small step neither ahead nor back bears out to a twentieth, down to rounding, nor
    more and more the smaller it is, as where the derivative is 0."""
    rounding = 8 * torch.finfo(value.dtype).eps * value.abs().max()
    for direction in (1.0, -1.0):
        before = None
        for relative in _STEPS:
            nearby = t + direction * relative * t.abs().clamp(min=1.0)
            try:
                change = _tensor(function(*coordinates, nearby), t) - value
            except InputError:
                return  # read from a file, and known at some times only
            expected = (nearby - t) * slope
            size = torch.maximum(change.abs().max(), expected.abs().max())
            error = (change - expected).abs().max()
            agrees = not bool(error > 0.05 * size + rounding)
            if agrees and (relative == _STEPS[0] or bool(size > 20 * rounding)):
                return  # where change is rounding it agrees with anything
            if before is not None and bool((before > 200 * rounding) & (error <= 0.05 * before)):
                return  # the error of a derivative goes with the square of the step, a tenth of the one before
            before = error
    raise InputError(
        f"{name} changes in time, and its derivative is needed: compute all of it with torch (torch.sin(t), not "
        "math.sin(t)), so that it can be differentiated"
    )
