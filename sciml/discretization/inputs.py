"""Fields, parameters and boundary values as the caller gave them -> numbers and tensors that broadcast, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from ..equations import Equation
from ..errors import InputError
from ..given import Number as Number
from ..given import batch_shape as batch_shape
from ..given import call, check_value, require_names, resolve_parameters_on
from ..grid import Grid
from ..mesh import Mesh


def require_problem(equation: Any, domain: Any) -> None:
    """Raise InputError unless these are an equation and a grid or mesh."""
    if not isinstance(equation, Equation):
        hint = f"; write sciml.Equation({equation!r})" if isinstance(equation, str) else ""
        raise InputError(f"equation: expected an Equation, got {type(equation).__name__}{hint}")
    if not isinstance(domain, Grid | Mesh):
        raise InputError(f"domain: expected a Grid or a Mesh, got {type(domain).__name__}")


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
    require_names(given, wanted)
    return {name: resolve_field(given[name], grid, f"field {name!r}") for name in wanted}


def resolve_parameters(given: Mapping[str, Any], declared: Mapping[str, float], grid: Grid) -> dict[str, Number]:
    """Every parameter by name: a float, or a tensor of shape `(*batch, 1, ..., 1)`.

    Raises:
        InputError: for a name that the equation does not have, or a bad value.
    """
    return resolve_parameters_on(grid, grid.dimension, given, declared)


def _resolve(
    value: Any,
    shape: tuple[int, ...],
    coordinates: Callable[[], tuple[Tensor, ...]],
    grid: Grid,
    name: str,
) -> Number:
    from_function = callable(value) and not isinstance(value, Tensor)
    if from_function:
        value = call(value, coordinates(), name)
    wanted = "a number, a tensor or a function of the coordinates"
    value = check_value(value, grid, name, from_function=from_function, wanted=wanted)
    return _fit(value, shape, name) if isinstance(value, Tensor) else value


def _fit(value: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """The tensor with at least `len(shape)` axes, the last of them checked against `shape`."""
    if value.ndim < len(shape):
        value = value.reshape(*[1] * (len(shape) - value.ndim), *value.shape)
    lengths = value.shape[value.ndim - len(shape) :]
    if any(length not in (1, n) for length, n in zip(lengths, shape, strict=True)):
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected one that broadcasts to (*batch, *{shape})")
    return value
