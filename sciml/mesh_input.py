"""What callers give for the parts of a mesh, checked: points, cells, groups by name, predicates, devices."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy
import torch
from torch import Tensor

from .boundary import AXES
from .errors import InputError
from .given import call
from .mesh_simplices import CELL_NAMES


def read_points(points: Any, where: str) -> Tensor:
    """Coordinates `(n, 2)` or `(n, 3)`; whole numbers become float64.

    Raises:
        InputError: for something else; `where` begins the message.
    """
    found = tensor_of(points, f"{where}: points")
    if found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"{where}: points are real numbers, got {found.dtype}")
    if not found.is_floating_point():
        found = found.to(torch.float64)
    if found.ndim != 2 or found.shape[1] not in (2, 3):
        raise InputError(f"{where}: points has shape {tuple(found.shape)}, expected (n, 2) or (n, 3)")
    check_dtype(found.dtype, where)
    return found


def read_cells(cells: Any, points: Tensor) -> Tensor:
    """Indices `(m, d + 1)` of points `(n, d)`, on their device; whether these exist is checked later.

    Raises:
        InputError: for something else.
    """
    found = tensor_of(cells, "Mesh: cells").to(points.device)
    width = points.shape[1] + 1
    if (found.ndim == 2 and not len(found)) or not found.numel():
        raise InputError("Mesh: there are no cells")
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"Mesh: cells are indices of points, integers, got {found.dtype}")
    if found.ndim != 2 or found.shape[1] != width:
        kind = CELL_NAMES[width - 1]
        raise InputError(
            f"Mesh: cells has shape {tuple(found.shape)}, expected (m, {width}): {kind}, since points have {width - 1} "
            "coordinates"
        )
    return found.to(torch.int64)


def read_groups(groups: Any, count: int, what: str, device: torch.device) -> dict[str, Tensor]:
    """Named index tensors, sorted, each index once.

    Args:
        groups: name -> indices below `count`, or a bool tensor `(count,)`.
        count: number of facets or of cells.
        what: "boundaries" or "regions".

    Raises:
        InputError: for something else.
    """
    if not isinstance(groups, Mapping):
        raise InputError(f"Mesh: {what} is a dict, name -> indices, got {type(groups).__name__}")
    kind = "facets" if what == "boundaries" else "cells"
    result = {}
    for name, item in groups.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"Mesh: a name in {what} is a text, got {name!r}")
        indices = tensor_of(item, f"Mesh: {what}[{name!r}]").to(device)
        if indices.dtype == torch.bool and indices.shape == (count,):
            indices = indices.nonzero().flatten()
        whole = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
        if indices.ndim != 1 or (len(indices) and not whole):
            raise InputError(
                f"Mesh: {what}[{name!r}] is a list of indices of {kind}, or a bool tensor of shape ({count},); "
                f"got {indices.dtype} of shape {tuple(indices.shape)}"
            )
        indices = indices.to(torch.int64).unique()
        if len(indices) and (int(indices[0]) < 0 or int(indices[-1]) >= count):
            raise InputError(f"Mesh: {what}[{name!r}] names {kind} that do not exist; there are {count}, from 0 on")
        result[name] = indices
    return result


def select(groups: Any, places: Tensor, what: str) -> dict[str, Any]:
    """The groups with the predicates among them asked: all k places of a facet or cell must fulfil one.

    Args:
        groups: name -> predicate on one tensor of coordinates an axis, or what `read_groups` takes.
        places: `(count, k, d)`.
        what: "boundaries" or "regions".

    Raises:
        InputError: for a predicate that takes or returns something else, or is true nowhere.
    """
    if not isinstance(groups, Mapping):
        raise InputError(f"Mesh: {what} is a dict, name -> indices or a predicate, got {type(groups).__name__}")
    result = {}
    for name, selection in groups.items():
        result[name] = selection
        if callable(selection) and not isinstance(selection, Tensor):
            result[name] = _ask(selection, places, name, what)
    return result


def ask_cells(inside: Any, centres: Tensor, where: str) -> Tensor:
    """A predicate on the centres `(m, d)` of cells, answered: bool `(m,)`.

    Raises:
        InputError: for one that takes or returns something else; `where` begins the message.
    """
    if not callable(inside):
        raise InputError(f"{where} is a function of the centres of cells, got {inside!r}")
    answer = call(inside, centres.unbind(1), where)
    if not isinstance(answer, Tensor) or answer.dtype != torch.bool or answer.shape != centres.shape[:1]:
        raise InputError(
            f"{where} must return a bool tensor of shape ({len(centres)},), as in lambda x, y: x**2 + y**2 > 0.25; it "
            f"returned {_described(answer)}"
        )
    return answer


def check_share(value: Any, name: str) -> None:
    """Raises InputError for what is not a number from 0 to 1."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0.0 <= float(value) <= 1.0:
        raise InputError(f"{name} must be a number in [0, 1], got {value!r}")


def check_dtype(dtype: Any, where: str) -> None:
    """Raises InputError for what is not a floating dtype of 32 or 64 bits."""
    if dtype is not torch.float32 and dtype is not torch.float64:
        raise InputError(f"{where}: points are torch.float64 or torch.float32, got {dtype!r}")


def read_device(device: Any) -> torch.device:
    """A device by its name.

    Raises:
        InputError: for what is none.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"Mesh: {device!r} is not a device") from error


def tensor_of(value: Any, what: str) -> Tensor:
    """A dense tensor of numbers."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise InputError(f"{what} is a tensor of layout {value.layout}, expected a dense one")
        return value
    try:
        array = numpy.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "biufc":
        raise InputError(f"{what} is not an array of numbers but of {array.dtype}")
    return torch.as_tensor(array)


def _ask(predicate: Any, places: Tensor, name: str, what: str) -> Tensor:
    answer = call(predicate, places.unbind(-1), f"Mesh: {what}[{name!r}]")
    if not isinstance(answer, Tensor) or answer.dtype != torch.bool:
        raise InputError(
            f"Mesh: {what}[{name!r}] must return a bool tensor, as in lambda x, y: (x < 1e-6) & (y > 0); "
            f"it returned {_described(answer)}"
        )
    if answer.shape != places.shape[:-1]:
        raise InputError(
            f"Mesh: {what}[{name!r}] must return a bool for each of the places, of shape {tuple(places.shape[:-1])}; "
            f"it returned one of shape {tuple(answer.shape)}"
        )
    chosen = answer.all(1)
    if not bool(chosen.any()):
        lower, upper = places.amin((0, 1)).tolist(), places.amax((0, 1)).tolist()
        extent = ", ".join(
            f"{a} from {low:.6g} to {high:.6g}" for a, low, high in zip(AXES, lower, upper, strict=False)
        )
        kind = "exterior facet at all its vertices" if what == "boundaries" else "cell at its centre"
        raise InputError(f"Mesh: {what}[{name!r}] is true for no {kind}; they reach over {extent}")
    return chosen


def _described(value: Any) -> str:
    return f"a tensor of {value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
