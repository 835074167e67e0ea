"""The settings of a solver named by path, and the arms that their values make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from math import isfinite, prod
from numbers import Real
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.errors import InputError

from ..linear.base import LinearSolver
from ..linear.settings import check_count

Values = tuple[float, float] | tuple[float, float, int] | Sequence[Any]

_MOST_ARMS = 1000
_STOPPING = ("rtol", "atol", "max_iterations")


@dataclass(frozen=True, eq=False)
class Arm:
    """One choice of the tuner.

    Attributes:
        solver: with the settings of this arm.
        values: of the parameters, by path; a number as it is, anything else by its description.
        settings: the same, but of anything else all settings, which tell it from others.
    """

    solver: LinearSolver
    values: dict[str, float | str]
    settings: dict[str, float | str]


def make_arms(solver: LinearSolver, parameters: Mapping[str, Values], count: int) -> tuple[Arm, ...]:
    """The arms of several parameters: all combinations of their values, those of the last one changing fastest.

    Args:
        solver: its other settings stay.
        parameters: path -> (low, high) for `count` equal steps, whole numbers where the setting is one; (low, high, n)
            for n of them; or a list of values.
        count: of the values of a range.

    Raises:
        InputError: an unknown path, an empty list, a range that is not one, values that the solver refuses, or fewer
            than 2 or more than 1000 arms in all.
    """
    if not isinstance(parameters, Mapping) or not parameters:
        raise InputError(
            "parameters must say what to tune, by path, for example {'relaxation': (1.0, 1.95)} or "
            f"{{'preconditioner': [Jacobi(), SSOR()]}}; got {parameters!r}"
        )
    for path in parameters:
        inside = [other for other in parameters if other != path and f"{other}.".startswith(f"{path}.")]
        if inside:
            raise InputError(f"parameters: {path!r} and {inside[0]!r} set the same thing")
    values = [_values(solver, path, given, count) for path, given in parameters.items()]
    number = prod(map(len, values))
    if number < 2:
        raise InputError(f"parameters: there is nothing to choose from, {number} arm in all; give at least 2 values")
    if number > _MOST_ARMS:
        raise InputError(
            f"parameters: the combinations are {number} arms, more than {_MOST_ARMS}: give ranges as (low, high, n) "
            "with fewer steps"
        )
    arms = []
    for chosen in product(*values):
        made = solver
        for path, value in zip(parameters, chosen, strict=True):
            made = _replaced(made, path, value)
        by_path = dict(zip(parameters, chosen, strict=True))
        labels = {path: _label(value) for path, value in by_path.items()}
        settings = {path: labels[path] if isinstance(v, Real) else identity(v) for path, v in by_path.items()}
        arms.append(Arm(made, labels, settings))
    return tuple(arms)


def _values(solver: LinearSolver, path: str, given: Values, count: int) -> list[Any]:
    """The values of one parameter, each accepted by the solver on its own."""
    present = _present(solver, path)
    if isinstance(given, tuple):
        values = _range(given, path, isinstance(present, int) and not isinstance(present, bool), count)
    elif isinstance(given, Sequence | np.ndarray) and not isinstance(given, str):
        values = list(given)
        if not values:
            raise InputError(f"parameters: the list of {path!r} is empty")
    else:
        raise InputError(f"parameters: {path!r} needs a range (low, high) or a list of values, got {given!r}")
    for value in (values[0], values[-1], *values[1:-1]):
        try:
            _replaced(solver, path, value)
        except (InputError, TypeError) as error:
            raise InputError(f"parameters: {path!r} cannot be {_label(value)}: {error}") from error
    return values


def _range(given: tuple[Any, ...], path: str, whole: bool, count: int) -> list[float]:
    numbers = all(isinstance(end, Real) and not isinstance(end, bool) for end in given)
    if len(given) not in (2, 3) or not numbers:
        raise InputError(
            f"parameters: the range of {path!r} must be (low, high) or (low, high, n), got {given!r}; values to choose "
            "from go into a list"
        )
    low, high = float(given[0]), float(given[1])
    if not (isfinite(low) and isfinite(high)):
        raise InputError(f"parameters: the range of {path!r} must be finite, got ({low:g}, {high:g})")
    if low >= high:
        raise InputError(f"parameters: the range of {path!r} is empty: its lower end, {low:g}, is not below {high:g}")
    if len(given) == 3:
        check_count(given[2], f"parameters: the number of values of {path!r}")
        count = given[2]
    values = np.linspace(low, high, count).tolist()
    return sorted({round(value) for value in values}) if whole else values


def _parts(solver: LinearSolver, path: str) -> list[Any]:
    """The solver, and what stands at every step of a path into it."""
    if not isinstance(path, str) or not path:
        raise InputError(f"parameters: a path is a text such as 'preconditioner.relaxation', got {path!r}")
    if path in _STOPPING:
        raise InputError(f"parameters: {path!r} is what all arms have in common; give it to the tuner itself")
    found: list[Any] = [solver]
    for place, name in enumerate(path.split(".")):
        owner = found[-1]
        above = ".".join(path.split(".")[:place])
        if owner is None:
            raise InputError(f"parameters: {path!r}: the solver has no {above}; give it one")
        if not is_dataclass(owner):
            raise InputError(f"parameters: {path!r}: {above} has no settings, it is {owner!r}")
        known = [part.name for part in fields(owner) if part.init]
        if name not in known:
            where = f"{above} ({type(owner).__name__})" if above else type(owner).__name__
            raise InputError(f"parameters: {path!r}: {where} has no setting {name!r}{suggestion(name, known)}")
        found.append(getattr(owner, name))
    return found


def _present(solver: LinearSolver, path: str) -> Any:
    return _parts(solver, path)[-1]


def _replaced(solver: LinearSolver, path: str, value: Any) -> LinearSolver:
    """The solver with another value at a path."""
    made = value
    names = path.split(".")
    for owner, name in zip(reversed(_parts(solver, path)[:-1]), reversed(names), strict=True):
        made = replace(owner, **{name: made})
    return made


def _label(value: Any) -> float | str:
    if isinstance(value, Real):
        return value if isinstance(value, bool | int) else float(value)
    return value.describe() if hasattr(value, "describe") and not isinstance(value, type) else str(value)


def identity(value: Any) -> str:
    """A text that tells settings apart in any process: solvers by all of theirs, networks by their weights."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return repr(float(value))
    if isinstance(value, torch.nn.Module):
        parts = [f"{name}: {identity(part)}" for name, part in value.state_dict().items()]
        return f"{type(value).__name__}({crc32(', '.join(parts).encode()):08x})"
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype} {tuple(value.shape)} {crc32(data.tobytes()):08x}"
    if isinstance(value, tuple | list | np.ndarray):
        return f"({', '.join(map(identity, value))})"
    if is_dataclass(value) and not isinstance(value, type):
        settings = [f"{part.name}={identity(getattr(value, part.name))}" for part in fields(value) if part.init]
        return f"{type(value).__name__}({', '.join(settings)})"
    if value is None or isinstance(value, bool | str | torch.dtype):
        return repr(value)
    described = value.describe() if hasattr(value, "describe") else getattr(value, "__qualname__", "")
    return f"{type(value).__name__} {described}".rstrip()
