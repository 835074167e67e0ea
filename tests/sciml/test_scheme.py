"""The settings of schemes."""

from __future__ import annotations

from typing import Any

import pytest

from sciml.errors import InputError
from sciml.scheme import FiniteDifference, FiniteVolume


def test_equal_settings_are_equal() -> None:
    assert FiniteDifference(order=4) == FiniteDifference(4, advection="auto")
    assert FiniteVolume() == FiniteVolume(average="harmonic", advection="auto")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FiniteDifference(order=3), "order is 2 or 4, got 3"),
        (lambda: FiniteDifference(advection="up"), "advection is one of auto, central, upwind, got 'up'"),
        (lambda: FiniteVolume(advection="up"), "advection is one of auto, central, upwind, got 'up'"),
        (lambda: FiniteVolume(average="geometric"), "average is one of harmonic, arithmetic, got 'geometric'"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
