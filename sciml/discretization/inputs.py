"""Fields, parameters and boundary values as the caller gave them -> numbers and tensors that broadcast, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..boundary import check_tensor, suggestion
from ..errors import InputError
from ..grid import Grid

Number = float | Tensor
"""A float, or a tensor of at least as many axes as the grid, which broadcasts to `(*batch, *space)`."""


def resolve_field(value: Any, grid: Grid, name: str) -> Number:
    """A coefficient field as a float or a tensor that broadcasts to `(*batch, *space)`.

    Raises:
        InputError: for a wrong type, shape, dtype or device, or values that are not finite.
    """
    return _resolve(value, grid.shape, lambda: grid.coordinates, grid, name)


def resolve_on_side(value: Any, grid: Grid, axis: int, side: int, name: str) -> Number:
    """A boundary value on one side (0 lower, 1 upper): a float or a tensor with an axis of length 1 in place of `axis`.

    Raises:
        InputError: as `resolve_field`.
    """

    def centres() -> tuple[Tensor, ...]:
        return tuple(c.select(axis, -1 if side else 0) for c in grid.face_coordinates(axis))

    resolved = _resolve(value, grid.shape[:axis] + grid.shape[axis + 1 :], centres, grid, name)
    return resolved.unsqueeze(axis - grid.dimension) if isinstance(resolved, Tensor) else resolved


def resolve_on_walls(value: Any, grid: Grid, axis: int, side: int, name: str) -> Number:
    """A value on the faces at one side of every cell, as a field: a tensor is given by cell, a function by face centre.

    Raises:
        InputError: as `resolve_field`.
    """

    def centres() -> tuple[Tensor, ...]:
        return tuple(c.narrow(axis, side, grid.shape[axis]) for c in grid.face_coordinates(axis))

    return _resolve(value, grid.shape, centres, grid, name)


def resolve_fields(given: Mapping[str, Any], wanted: Iterable[str], grid: Grid) -> dict[str, Number]:
    """Every coefficient field by name.

    Raises:
        InputError: for a name too many or missing, or a bad value.
    """
    wanted = tuple(wanted)
    _refuse_strangers(given, wanted, "fields")
    missing = [name for name in wanted if name not in given]
    if missing:
        raise InputError(f"fields: the equation has the coefficient {', '.join(missing)}, and no value is given for it")
    return {name: resolve_field(given[name], grid, f"field {name!r}") for name in wanted}


def resolve_parameters(given: Mapping[str, Any], declared: Mapping[str, float], grid: Grid) -> dict[str, Number]:
    """Every parameter by name: a float, or a tensor of shape `(*batch, 1, ..., 1)`.

    Raises:
        InputError: for a name that the equation does not have, or a bad value.
    """
    _refuse_strangers(given, declared, "parameters")
    resolved: dict[str, Number] = {}
    for name, value in {**declared, **given}.items():
        number = _resolve(value, None, None, grid, f"parameter {name!r}")
        if isinstance(number, Tensor):
            number = number.reshape(*number.shape, *[1] * grid.dimension)
        resolved[name] = number
    return resolved


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


def _refuse_strangers(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    if not isinstance(given, Mapping):
        raise InputError(f"{what}: expected a dict by name, got {type(given).__name__}")
    known = tuple(known)
    for name in given:
        if name not in known:
            raise InputError(f"{what}: the equation has no {name!r}{suggestion(str(name), known)}")


def _resolve(
    value: Any,
    shape: tuple[int, ...] | None,
    coordinates: Callable[[], tuple[Tensor, ...]] | None,
    grid: Grid,
    name: str,
) -> Number:
    from_function = coordinates is not None and callable(value) and not isinstance(value, Tensor)
    if coordinates is not None and from_function:
        value = _call(value, coordinates(), name)
    if isinstance(value, Real) and not isinstance(value, bool):
        if not isfinite(value):
            raise InputError(f"{name} is {value}; it must be finite")
        return float(value)
    if not isinstance(value, Tensor):
        wanted = "a number or a tensor" if shape is None else "a number, a tensor or a function of the coordinates"
        raise InputError(f"{name}: expected {wanted}, got {type(value).__name__}")
    if value.dtype != grid.dtype:
        hint = f"convert with .to({grid.dtype})"
        if from_function:
            hint = "the function must return that of its coordinates (torch.where of two numbers takes torch's default)"
        raise InputError(f"{name} has dtype {value.dtype}, the grid {grid.dtype}; {hint}")
    if value.device.type != grid.device.type or (grid.device.index not in (None, value.device.index)):
        raise InputError(f"{name} is on {value.device}, the grid on {grid.device}; move one of them")
    check_tensor(value, name)
    return value if shape is None else _fit(value, shape, name)


def _call(function: Callable[..., Any], coordinates: tuple[Tensor, ...], name: str) -> Any:
    try:
        inspect.signature(function).bind(*coordinates)
    except TypeError as error:
        given = ", ".join("xyz"[: len(coordinates)])
        raise InputError(
            f"{name}: the function does not take the {len(coordinates)} coordinates ({given}) that it is called with"
        ) from error
    except ValueError:
        pass  # a builtin without a signature
    return function(*coordinates)


def _fit(value: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """The tensor with at least `len(shape)` axes, the last of them checked against `shape`."""
    if value.ndim < len(shape):
        value = value.reshape(*[1] * (len(shape) - value.ndim), *value.shape)
    lengths = value.shape[value.ndim - len(shape) :]
    if any(length not in (1, n) for length, n in zip(lengths, shape, strict=True)):
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected one that broadcasts to (*batch, *{shape})")
    return value
