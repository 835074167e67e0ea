"""Exact solutions given as functions of the coordinates: their values and derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import InputError

Exact = Callable[..., Any]


def by_unknown(exact: Exact | Mapping[str, Exact], unknowns: tuple[str, ...]) -> dict[str, Exact]:
    """One function for each unknown.

    Raises:
        InputError: for other names, or one function for several unknowns.
    """
    functions = dict(exact) if isinstance(exact, Mapping) else dict.fromkeys(unknowns, exact)
    if set(functions) != set(unknowns) or (len(unknowns) > 1 and not isinstance(exact, Mapping)):
        raise InputError(f"exact: give a dict with one function for each of {', '.join(unknowns)}")
    return functions


def evaluate(exact: Exact, coordinates: tuple[Tensor, ...], name: str) -> Tensor:
    """The values at places, one tensor of coordinates an axis.

    Raises:
        InputError: for a function that does not take the coordinates.
    """
    try:
        value = exact(*coordinates)
        return value if isinstance(value, Tensor) else torch.as_tensor(value).to(coordinates[0])
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"exact solution of {name!r}: it must be a function of the {len(coordinates)} coordinates made of torch "
            f"operations; it failed with {type(error).__name__}: {error}"
        ) from error


def derivative(exact: Exact, coordinates: tuple[Tensor, ...], axis: int, name: str) -> Tensor:
    """d exact/dx_axis at each place, by forward differentiation."""
    tangents = tuple(torch.ones_like(c) if k == axis else torch.zeros_like(c) for k, c in enumerate(coordinates))
    points = tuple(c.contiguous() for c in coordinates)
    result: Tensor = torch.func.jvp(lambda *p: evaluate(exact, p, name), points, tangents)[1]
    return result
