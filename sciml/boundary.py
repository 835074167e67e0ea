"""Boundary conditions: what they are, and how a dict of them is read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .differentiation import is_vmapped
from .errors import InputError

Value = float | Tensor | Callable[..., Any]
"""A number, a tensor that broadcasts to `(*batch, *face)` (`face`: the grid's shape without the axis of the side), or a
function of the coordinates of the face centres that returns either; for evolving equations with t as its last argument
where it changes in time."""


@dataclass(frozen=True)
class Dirichlet:
    """u = value.

    Args:
        value: a number, a tensor that broadcasts to `(*batch, *face)`, or a function of the coordinates; in the unit of
            the unknown.

    Raises:
        InputError: for a value of another type, or one that is not finite.
    """

    value: Value = 0.0

    def __post_init__(self) -> None:
        _check_value(self.value, "Dirichlet(value)")


@dataclass(frozen=True)
class Neumann:
    """Outward normal flux: a du/dn = flux where the equation has div(a*grad(u)), du/dn = flux for a plain Laplacian,
    n.(A grad u) = flux for a tensor A.

    Args:
        flux: a number, a tensor that broadcasts to `(*batch, *face)`, or a function of the coordinates.

    Raises:
        InputError: for a flux of another type, or one that is not finite.
    """

    flux: Value = 0.0

    def __post_init__(self) -> None:
        _check_value(self.flux, "Neumann(flux)")


@dataclass(frozen=True)
class Robin:
    """a du/dn + coefficient u = value, with a du/dn the outward normal flux as in `Neumann`.

    Args:
        coefficient: as `value`; not negative in a well-posed diffusion problem.
        value: a number, a tensor that broadcasts to `(*batch, *face)`, or a function of the coordinates.

    Raises:
        InputError: for arguments of another type, or not finite.
    """

    coefficient: Value
    value: Value = 0.0

    def __post_init__(self) -> None:
        _check_value(self.coefficient, "Robin(coefficient)")
        _check_value(self.value, "Robin(value)")


@dataclass(frozen=True)
class Periodic:
    """Both sides of the axis are one: u(x + upper - lower) = u(x)."""


@dataclass(frozen=True)
class Unstated:
    """Nothing is known of what holds on the side: its grid says where values stand, and equations are solved on it only
    where the call says what holds."""


SideCondition = Dirichlet | Neumann | Robin
Stated = SideCondition | Periodic
Condition = Stated | Unstated
Sides = tuple[Condition, Condition]
SidesByAxis = dict[str, Sides]
StatedByAxis = dict[str, tuple[Stated, Stated]]
Boundary = Condition | Mapping[str, Any]
"""One condition for all sides, a dict by axis of one condition or a pair (lower, upper), or a dict by unknown of
these."""

AXES = ("x", "y", "z")


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'nu'?` where one of the known names is near, else which ones there are."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; there are none"


def split_by_unknown(boundary: Boundary, axes: tuple[str, ...]) -> dict[str, Boundary] | None:
    """The dict by unknown if `boundary` is one, None if it is a condition or a dict by axis.

    Raises:
        InputError: if the dict mixes axes with other names, or names an axis that the grid does not have.
    """
    if not isinstance(boundary, Mapping):
        return None
    strangers = [name for name in boundary if name not in axes]
    if not strangers:
        return None
    for name in strangers:
        if not isinstance(name, str) or name in AXES or len(strangers) < len(boundary):
            raise InputError(
                f"boundary: {name!r} is not an axis of this {len(axes)}-dimensional grid, whose axes are "
                f"{', '.join(axes)} (a dict is either by axis or by unknown)"
            )
    return dict(boundary)


def read_sides(boundary: Boundary, axes: tuple[str, ...], where: str = "boundary") -> SidesByAxis:
    """Axis -> (lower, upper) for every axis that `boundary` speaks of: all of them if it is one condition.

    Raises:
        InputError: for something that is not a condition, an unknown axis, or Periodic() on one side only.
    """
    if isinstance(boundary, Condition):
        return dict.fromkeys(axes, (boundary, boundary))
    if not isinstance(boundary, Mapping):
        raise _not_a_condition(boundary, where)
    sides: SidesByAxis = {}
    for axis, value in boundary.items():
        if axis not in axes:
            raise InputError(f"{where}: unknown axis {axis!r}{suggestion(str(axis), axes)}")
        pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
        if len(pair) != 2:
            raise InputError(f"{where}[{axis!r}]: give one condition or a pair (lower, upper), got {len(pair)} of them")
        for condition in pair:
            if not isinstance(condition, Condition):
                raise _not_a_condition(condition, f"{where}[{axis!r}]")
        if isinstance(pair[0], Periodic) != isinstance(pair[1], Periodic):
            raise InputError(f"{where}[{axis!r}]: Periodic() on one side only; an axis is periodic as a whole")
        sides[axis] = (pair[0], pair[1])
    return sides


def override(base: SidesByAxis, boundary: Boundary, where: str = "boundary") -> SidesByAxis:
    """`base` with what `boundary` says put in its place; periodic axes stay.

    Raises:
        InputError: if a dict gives a condition for a periodic axis, or Periodic() for an axis that is not: where the
            unknowns stand depends on that, so that it belongs to the grid.
    """
    axes = tuple(base)
    result = dict(base)
    for axis, pair in read_sides(boundary, axes, where).items():
        was_periodic, is_periodic = isinstance(base[axis][0], Periodic), isinstance(pair[0], Periodic)
        if is_periodic and not was_periodic:
            raise InputError(f"{where}: axis {axis!r} is not periodic, and only the grid can make it so")
        if was_periodic and not is_periodic:
            if isinstance(boundary, Mapping):
                raise InputError(f"{where}: axis {axis!r} is periodic on this grid, and a call cannot change that")
            continue
        result[axis] = pair
    return result


def check_tensor(value: Tensor, name: str) -> None:
    """Raises InputError unless the tensor is of a real floating dtype, finite, and not inside torch.func.vmap."""
    if not value.is_floating_point():
        raise InputError(f"{name}: expected a tensor of a floating dtype, got {value.dtype}; convert it with .to(...)")
    if is_vmapped(value):
        raise InputError(
            f"{name} is inside torch.func.vmap (also a part of jacfwd and jacrev), which this library does not take: "
            "give all rows at once, the leading axes of fields, parameters and initial states being a batch"
        )
    if not value.numel():
        raise InputError(f"{name}: a tensor of shape {tuple(value.shape)} holds no values")
    # One cheap pass in the good case: a sum is finite only if every entry is, up to overflow.
    if not bool(torch.isfinite(value.detach().sum())):
        bad = int((~torch.isfinite(value.detach())).sum())
        if bad:
            raise InputError(f"{name}: {bad} of {value.numel()} values are NaN or infinite")


def _check_value(value: object, name: str) -> None:
    if isinstance(value, Tensor):
        check_tensor(value, name)
    elif isinstance(value, Real) and not isinstance(value, bool):
        if not isfinite(value):
            raise InputError(f"{name} is {value}; it must be finite")
    elif not callable(value):
        raise InputError(
            f"{name}: expected a number, a tensor or a function of the coordinates, got {type(value).__name__}"
        )


def _not_a_condition(value: object, where: str) -> InputError:
    hint = "; call it: Periodic()" if value is Periodic else ""
    return InputError(
        f"{where}: expected Dirichlet, Neumann, Robin, Periodic, or a dict of them by axis, got {value!r}{hint}"
    )
