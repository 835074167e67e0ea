"""What callers give for fields, parameters and boundary values, checked: the parts that all kinds of domain share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Tensor

from .boundary import check_tensor, suggestion
from .errors import InputError
from .time_functions import signature_of

Number = float | Tensor
"""A float, or a tensor of at least as many axes as the domain has, which broadcasts to `(*batch, *space)`."""


class Place(Protocol):
    """A domain, as far as its tensors go."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...


def check_value(
    value: Any, place: Place, name: str, *, from_function: bool = False, wanted: str = "", finite: bool = True
) -> Number:
    """A float from a number, or the tensor itself.

    Args:
        value: what was given.
        place: the domain.
        name: of the value, for messages.
        from_function: whether a function of the coordinates returned it.
        wanted: what else would have been accepted.
        finite: whether it must be. In the course of a run that is for the loop to see, and a wait for the GPU.

    Raises:
        InputError: for another type, the wrong dtype or device, or values that are not finite.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        if finite and not isfinite(value):
            raise InputError(f"{name} is {value}; it must be finite")
        return float(value)
    if not isinstance(value, Tensor):
        raise InputError(f"{name}: expected {wanted or 'a number or a tensor'}, got {type(value).__name__}")
    domain = re.sub("(?<=[a-z])(?=[A-Z])", " ", type(place).__name__).lower()  # such as "grid", "stochastic system"
    if value.dtype != place.dtype:
        hint = f"convert with .to({place.dtype})"
        if from_function:
            hint = "the function must return that of its coordinates (torch.where of two numbers takes torch's default)"
        raise InputError(f"{name} has dtype {value.dtype}, the {domain} {place.dtype}; {hint}")
    if value.device.type != place.device.type or (place.device.index not in (None, value.device.index)):
        raise InputError(f"{name} is on {value.device}, the {domain} on {place.device}; move one of them")
    if finite:
        check_tensor(value, name)
    return value


def call(function: Callable[..., Any], coordinates: tuple[Tensor, ...], name: str) -> Any:
    """The function of the coordinates, refused if it does not take that many.

    Raises:
        InputError: for a function of another number of arguments.
    """
    try:
        signature_of(function).bind(*coordinates)
    except TypeError as error:
        given = ", ".join("xyz"[: len(coordinates)])
        raise InputError(
            f"{name}: the function does not take the {len(coordinates)} coordinates ({given}) that it is called with"
        ) from error
    except ValueError:
        pass  # a builtin without a signature
    return function(*coordinates)


def require_names(given: Mapping[str, Any], wanted: Iterable[str]) -> None:
    """Raise InputError unless exactly the coefficient fields wanted are given."""
    wanted = tuple(wanted)
    refuse_strangers(given, wanted, "fields")
    missing = [name for name in wanted if name not in given]
    if missing:
        raise InputError(f"fields: the equation has the coefficient {', '.join(missing)}, and no value is given for it")


def resolve_parameters_on(
    place: Place, axes: int, given: Mapping[str, Any], declared: Mapping[str, float]
) -> dict[str, Number]:
    """Every parameter by name: a float, or a tensor of the batch's shape with `axes` more of length 1.

    Raises:
        InputError: for a name that the equation does not have, or a bad value.
    """
    refuse_strangers(given, declared, "parameters")
    resolved: dict[str, Number] = {}
    for name, value in {**declared, **given}.items():
        number = check_value(value, place, f"parameter {name!r}")
        if isinstance(number, Tensor):
            number = number.reshape(*number.shape, *[1] * axes)
        resolved[name] = number
    return resolved


def refuse_strangers(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Raise InputError for a name that is not known, with the nearest that is."""
    if not isinstance(given, Mapping):
        raise InputError(f"{what}: expected a dict by name, got {type(given).__name__}")
    known = tuple(known)
    for name in given:
        if name not in known:
            raise InputError(f"{what}: the equation has no {name!r}{suggestion(str(name), known)}")


def batch_shape(values: Iterable[tuple[str, Number]], dimension: int) -> tuple[int, ...]:
    """The batch shape that all values, given with their names, broadcast to.

    Raises:
        InputError: if they do not.
    """
    shapes = {
        (name, tuple(v.shape[: v.ndim - dimension]))
        for name, v in values
        if isinstance(v, Tensor) and v.ndim > dimension
    }
    if not shapes:
        return ()
    try:
        return tuple(torch.broadcast_shapes(*(shape for _, shape in shapes)))
    except RuntimeError as error:
        listed = ", ".join(f"{name} {shape}" for name, shape in sorted(shapes))
        raise InputError(f"the batch shapes do not broadcast: {listed}") from error
