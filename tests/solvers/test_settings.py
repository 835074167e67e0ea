"""Settings of solvers: numbers of the wrong kind are refused, whichever solver they are of."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import numpy
import pytest

from sciml.errors import InputError
from sciml.solvers import linear
from sciml.solvers.linear import GMRES, AlgebraicMultigrid, DeepConjugateDirection, Multigrid
from sciml.solvers.linear.learned import DirectionNetwork
from sciml.solvers.nonlinear import Backtracking, Continuation, EisenstatWalker, Newton, Picard

SOLVERS: list[type[Any]] = [getattr(linear, name) for name in linear.__all__]
SOLVERS += [Newton, Picard, Continuation, EisenstatWalker, Backtracking]

WRONG: dict[type, list[Any]] = {
    int: [True, 2.5, 2.0, "2", -1, 0, 2j],
    float: [True, False, "0.5", math.nan, math.inf, 0.5j, [0.5], numpy.array([0.5, 0.5])],
}


def numbers() -> list[tuple[type[Any], str, Any]]:
    """Every setting that is a number, with every wrong value for it; also None where None means nothing."""
    found = []
    for solver in SOLVERS:
        hints = typing.get_type_hints(solver)
        for field in dataclasses.fields(solver):
            kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
            for kind, values in WRONG.items():
                if kind in kinds:
                    none = (solver, field.name) == (DeepConjugateDirection, "directions")  # 0 of them is a method too
                    found += [(solver, field.name, value) for value in values if not (none and value == 0)]
                    found += [] if type(None) in kinds else [(solver, field.name, None)]
    return found


def described(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)


@pytest.mark.parametrize(("solver", "name", "value"), numbers(), ids=described)
def test_numbers_of_the_wrong_kind_are_refused(solver: type[Any], name: str, value: Any) -> None:
    needed = {Continuation: {"parameter": "a"}, DeepConjugateDirection: {"network": DirectionNetwork(channels=2)}}
    given: dict[str, Any] = needed.get(solver, {})
    with pytest.raises(InputError, match=rf"{name} must be .*, got ") as refusal:
        solver(**given, **{name: value})
    assert repr(value) in str(refusal.value)


def test_numbers_of_numpy_are_numbers() -> None:
    assert Multigrid(sweeps=numpy.int64(3), smoothing_interval=numpy.float32(0.5)).sweeps == 3
    assert GMRES(restart=numpy.int32(5), rtol=numpy.float64(1e-6)).restart == 5


@pytest.mark.parametrize("solver", [Multigrid, AlgebraicMultigrid])
def test_precisions_are_dtypes_of_solvers(solver: type[Any]) -> None:
    for precision in ("float32", float, 32):
        with pytest.raises(InputError, match=r"precision must be torch.float32, torch.float64 or None, got"):
            solver(precision=precision)


def test_a_continuation_begins_at_a_number_and_follows_a_name() -> None:
    with pytest.raises(InputError, match="parameter must be the name of one, got 3"):
        Continuation(3)  # type: ignore[arg-type]
