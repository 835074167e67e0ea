"""Checks of the settings of solvers."""

from __future__ import annotations

from numbers import Integral

from sciml.errors import InputError


def check_count(value: object, name: str) -> None:
    """Raise InputError for a setting that is not a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
