"""States as data that JSON can hold to the last bit, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

import numpy as np

from sciml.errors import InputError


def as_data(value: Any) -> Any:
    """Dataclasses as dicts, arrays as lists; numbers, texts and lists stay."""
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if is_dataclass(value):
        return {part.name: as_data(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [as_data(item) for item in value]
    return value


def fill(state: Any, data: Any, where: str) -> None:
    """Set a state to what `as_data` made of another of the same kind and sizes.

    Args:
        state: a dataclass, changed in place.
        data: from a file, so that nothing about it is taken for granted.
        where: what the file is called, for messages.

    Raises:
        InputError: for anything missing, of another kind or size, or not finite.
    """
    names = [part.name for part in fields(state)]
    if not isinstance(data, Mapping) or set(data) != set(names):
        held = ", ".join(map(str, data)) if isinstance(data, Mapping) else repr(data)
        raise InputError(f"{where} should hold {', '.join(names)}, and holds {held}")
    for name in names:
        setattr(state, name, _read(getattr(state, name), data[name], f"{where}, {name}"))


def _read(old: Any, data: Any, where: str) -> Any:
    """Data in the form of an old value."""
    if isinstance(old, np.random.Generator):
        return _generator(data, where)
    if is_dataclass(old):
        fill(old, data, where)
        return old
    if isinstance(old, np.ndarray):
        return _array(old, data, where)
    if isinstance(old, list):
        if not isinstance(data, list) or len(data) != len(old):
            raise InputError(f"{where}: {len(old)} entries are needed")
        return [
            _read(item, entry, f"{where}[{place}]") for place, (item, entry) in enumerate(zip(old, data, strict=True))
        ]
    if isinstance(old, str):
        if not isinstance(data, str):
            raise InputError(f"{where}: a text is needed, got {data!r}")
        return data
    number = isinstance(data, int | float) and not isinstance(data, bool)
    if not number or (isinstance(old, int) and not isinstance(data, int)) or not isfinite(data):
        raise InputError(f"{where}: a finite {'whole ' * isinstance(old, int)}number is needed, got {data!r}")
    return type(old)(data)


def _array(old: np.ndarray, data: Any, where: str) -> np.ndarray:
    try:
        found = np.array(data)
    except ValueError:  # of ragged lists
        found = np.array(None)
    if found.shape != old.shape or found.dtype.kind not in "if" or (old.dtype.kind == "i" and found.dtype.kind != "i"):
        raise InputError(f"{where}: numbers in the shape {old.shape} are needed")
    bad = int((~np.isfinite(found)).sum())
    if bad:
        raise InputError(f"{where}: {bad} of the numbers are NaN or infinite")
    return found.astype(old.dtype)


def _generator(data: Any, where: str) -> np.random.Generator:
    bits = np.random.PCG64()
    try:
        bits.state = data
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{where}: this is no state of the random generator PCG64") from error
    return np.random.Generator(bits)
