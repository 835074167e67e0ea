"""Reading boundary conditions: one for all, by axis, by unknown; overriding; refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin, override, read_sides, split_by_unknown
from sciml.errors import InputError

AXES = ("x", "y")


def test_one_condition_is_for_every_side() -> None:
    assert read_sides(Neumann(2.0), AXES) == {"x": (Neumann(2.0), Neumann(2.0)), "y": (Neumann(2.0), Neumann(2.0))}


def test_a_dict_gives_one_condition_or_a_pair_an_axis() -> None:
    sides = read_sides({"x": (Dirichlet(1.0), Robin(2.0, 3.0)), "y": Periodic()}, AXES)
    assert sides == {"x": (Dirichlet(1.0), Robin(2.0, 3.0)), "y": (Periodic(), Periodic())}


def test_a_dict_by_unknown_is_told_from_one_by_axis() -> None:
    assert split_by_unknown({"x": Dirichlet()}, AXES) is None
    assert split_by_unknown(Dirichlet(), AXES) is None
    assert split_by_unknown({"u": Dirichlet(), "v": {"x": Neumann()}}, AXES) == {
        "u": Dirichlet(),
        "v": {"x": Neumann()},
    }


def test_an_override_leaves_periodic_axes_and_axes_it_does_not_name() -> None:
    base = read_sides({"x": Periodic(), "y": (Dirichlet(1.0), Neumann(2.0))}, AXES)
    assert override(base, Robin(1.0)) == {"x": base["x"], "y": (Robin(1.0), Robin(1.0))}
    base = read_sides({"x": Neumann(), "y": (Dirichlet(1.0), Neumann(2.0))}, AXES)
    assert override(base, {"x": Dirichlet(5.0)}) == {"x": (Dirichlet(5.0), Dirichlet(5.0)), "y": base["y"]}


@pytest.mark.parametrize(
    ("boundary", "message"),
    [
        ("dirichlet", "expected Dirichlet, Neumann, Robin, Periodic.*got 'dirichlet'"),
        (Periodic, r"call it: Periodic\(\)"),
        ({"x": Periodic, "y": Periodic()}, r"boundary\['x'\].*call it"),
        ({"x": (Periodic(), Dirichlet())}, "on one side only"),
        ({"x": (Dirichlet(),) * 3}, r"a pair \(lower, upper\), got 3"),
        ({"x": 1.0}, r"boundary\['x'\]: expected Dirichlet"),
        ({"X": Dirichlet()}, "unknown axis 'X'.*x, y"),
    ],
)
def test_refused_sides(boundary: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sides(boundary, AXES)


@pytest.mark.parametrize("boundary", [{"x": Dirichlet(), "u": Dirichlet()}, {"z": Dirichlet()}, {1: Dirichlet()}])
def test_a_dict_is_by_axis_or_by_unknown(boundary: Any) -> None:
    with pytest.raises(InputError, match="is not an axis of this 2-dimensional grid, whose axes are x, y"):
        split_by_unknown(boundary, AXES)


def test_what_is_periodic_belongs_to_the_grid() -> None:
    base = read_sides({"x": Periodic(), "y": Dirichlet()}, AXES)
    with pytest.raises(InputError, match="axis 'y' is not periodic, and only the grid can make it so"):
        override(base, Periodic())
    with pytest.raises(InputError, match="axis 'x' is periodic on this grid, and a call cannot change that"):
        override(base, {"x": Dirichlet()})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dirichlet(float("nan")), r"Dirichlet\(value\) is nan; it must be finite"),
        (lambda: Neumann(torch.tensor([1.0, float("inf")])), r"Neumann\(flux\): 1 of 2 values are NaN or infinite"),
        (lambda: Robin("1"), r"Robin\(coefficient\): expected a number, a tensor or a function.*got str"),
        (lambda: Robin(1.0, None), r"Robin\(value\): expected"),
        (lambda: Dirichlet(True), r"Dirichlet\(value\): expected"),
        (lambda: Dirichlet(torch.tensor([1, 2])), "expected a tensor of a floating dtype, got torch.int64"),
    ],
)
def test_refused_values(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
