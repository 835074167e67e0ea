"""What a caller says of a file in words, as on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sciml.boundary import AXES, Boundary, Dirichlet, Neumann, Periodic, suggestion
from sciml.errors import InputError

from ..manifest import FIRST_SPLITS

_CONDITIONS = ("periodic", "dirichlet", "neumann")


def read_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a dict.

    Raises:
        InputError: one has no `=`, or a name stands twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(f"{option} {text!r}: NAME=VALUE is needed")
        if name.strip() in pairs:
            raise InputError(f"{option}: {name.strip()!r} is given twice")
        pairs[name.strip()] = value.strip()
    return pairs


def read_words(text: str | None) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip()) if text else ()


def read_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Numbers with commas between them.

    Raises:
        InputError: one is no number.
    """
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text!r}: numbers with commas between them are needed") from error


def read_boundary(texts: Sequence[str]) -> Boundary | None:
    """Conditions as `periodic`, `dirichlet[:VALUE]`, `neumann[:FLUX]`, for all sides, or `x=...`, `y_upper=...`.

    Raises:
        InputError: a condition or a side is unknown.
    """
    if not texts:
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return _condition(texts[0])
    sides: dict[str, Any] = {}
    for name, text in read_pairs(texts, "--boundary").items():
        axis, _, side = name.partition("_")
        if axis not in AXES or side not in ("", "lower", "upper"):
            raise InputError(f"--boundary {name}=...: a side is x, y or z, or one with _lower or _upper behind it")
        pair = sides.setdefault(axis, [None, None])
        for place in (0, 1) if not side else (("lower", "upper").index(side),):
            pair[place] = _condition(text)
    for axis, pair in sides.items():
        if None in pair:
            raise InputError(f"--boundary: nothing is said about {axis}_{('lower', 'upper')[pair.index(None)]}")
    return {axis: (pair[0], pair[1]) for axis, pair in sides.items()}


def read_split(text: str | None) -> dict[str, int] | None:
    """`1000/100/100` as samples of train, valid and test; of two numbers train and test.

    Raises:
        InputError: something else.
    """
    if text is None:
        return None
    try:
        counts = [int(word) for word in text.split("/")]
    except ValueError:
        counts = []
    if not 1 <= len(counts) <= 3 or counts[0] < 1 or min(counts) < 0:
        raise InputError(f"--split {text!r}: numbers of samples are needed, as in 1000/100/100 (train, valid, test)")
    names = FIRST_SPLITS if len(counts) != 2 else ("train", "test")
    return {name: count for name, count in zip(names, counts, strict=False) if count}


def _condition(text: str) -> Any:
    kind, _, number = text.strip().partition(":")
    if kind not in _CONDITIONS:
        raise InputError(f"--boundary: {kind!r} is no condition{suggestion(kind, _CONDITIONS)}")
    if kind == "periodic":
        return Periodic()
    try:
        value = float(number or 0.0)
    except ValueError as error:
        raise InputError(f"--boundary {text!r}: {number!r} is no number") from error
    return Dirichlet(value) if kind == "dirichlet" else Neumann(value)
