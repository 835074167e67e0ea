"""Where unknowns and faces of a grid stand, its names, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.errors import InputError
from sciml.grid import Grid


def test_unknowns_stand_at_cell_centres_and_on_periodic_axes_at_multiples_of_the_spacing() -> None:
    grid = Grid((4, 5), lower=(1.0, -1.0), upper=(3.0, 1.5), boundary={"x": Dirichlet(), "y": Periodic()})
    assert grid.spacing == (0.5, 0.5)
    assert grid.cell_volume == 0.25
    x, y = grid.axis_coordinates
    assert torch.equal(x, torch.tensor([1.25, 1.75, 2.25, 2.75], dtype=torch.float64))
    assert torch.equal(y, torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64))
    for axis, coordinate in enumerate(grid.coordinates):
        assert coordinate.shape == (4, 5)
        assert torch.equal(coordinate.select(1 - axis, 0), (x, y)[axis])


def test_faces_lie_half_a_spacing_beside_the_unknowns() -> None:
    grid = Grid((4, 3), lower=1.0, upper=2.0, boundary={"x": Neumann(), "y": Periodic()})
    for axis, (n, shape) in enumerate([(4, (5, 3)), (3, (4, 4))]):
        faces = grid.face_coordinates(axis)
        assert all(face.shape == shape for face in faces)
        below, above = faces[axis].narrow(axis, 0, n), faces[axis].narrow(axis, 1, n)
        half = grid.spacing[axis] / 2
        torch.testing.assert_close(below, grid.coordinates[axis] - half)
        torch.testing.assert_close(above, grid.coordinates[axis] + half)
    assert grid.face_coordinates(0)[0][0, 0] == 1.0
    assert grid.face_coordinates(0)[0][-1, 0] == 2.0


def test_defaults_and_short_forms() -> None:
    grid = Grid(7)
    assert (grid.shape, grid.lower, grid.upper, grid.dimension, grid.axes) == ((7,), (0.0,), (1.0,), 1, ("x",))
    assert grid.boundary == {"x": (Dirichlet(0.0), Dirichlet(0.0))}
    assert grid.walls == Neumann(0.0)
    assert (grid.device, grid.dtype, grid.solid) == (torch.device("cpu"), torch.float64, None)
    assert Grid([2, 3, 4], lower=-1, upper=2).upper == (2.0, 2.0, 2.0)


def test_names_of_boundaries() -> None:
    solid = torch.zeros(4, 4, dtype=torch.bool)
    grid = Grid((4, 4), boundary={"x": (Dirichlet(), Robin(1.0)), "y": Periodic()}, solid=solid)
    assert grid.boundaries == ("x_lower", "x_upper", "walls")
    assert grid.periodic == (False, True)
    assert Grid((4, 4, 4), boundary=Periodic()).boundaries == ()


def test_conditions_by_unknown() -> None:
    grid = Grid((4, 4), boundary={"u": Dirichlet(1.0), "v": {"x": Neumann(2.0), "y": (Robin(1.0), Dirichlet())}})
    assert grid.sides("u")["y"] == (Dirichlet(1.0), Dirichlet(1.0))
    assert grid.sides("v")["y"] == (Robin(1.0), Dirichlet())
    with pytest.raises(InputError, match="given for u, v, and not for the unknown 'w'"):
        grid.sides("w")


def test_to_takes_the_tensors_along() -> None:
    walls = Dirichlet(torch.ones((), dtype=torch.float64))
    sides = {"x": (Dirichlet(torch.ones(3, dtype=torch.float64)), Neumann(2.0)), "y": Periodic()}
    grid = Grid((4, 3), boundary=sides, solid=torch.zeros(4, 3, dtype=torch.bool), walls=walls)
    single = grid.to(dtype=torch.float32)
    assert single.dtype == single.coordinates[0].dtype == torch.float32
    assert single.boundary["x"][0].value.dtype == torch.float32
    assert single.walls.value.dtype == torch.float32
    assert single.boundary["x"][1] == Neumann(2.0)
    assert single.shape == grid.shape and single.periodic == grid.periodic and single.solid is not None
    assert grid.boundary["x"][0].value.dtype == torch.float64


def test_grids_can_be_copied_and_sent_to_other_processes() -> None:
    grid = Grid((4, 3), boundary={"x": Robin(1.0, 2.0), "y": Periodic()})
    assert "solid" not in repr(grid)
    for twin in (copy.deepcopy(grid), pickle.loads(pickle.dumps(grid))):
        assert twin.shape == grid.shape and twin.boundary == grid.boundary


SOLID = torch.zeros(4, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": ()}, "one to three positive integers"),
        ({"shape": (2, 2, 2, 2)}, "one to three positive integers"),
        ({"shape": (4, 0)}, "positive integers, got"),
        ({"shape": (4, 2.0)}, "positive integers, got"),
        ({"shape": "4"}, "positive integers"),
        ({"shape": True}, "positive integers"),
        ({"shape": 4, "lower": 1.0, "upper": 0.0}, "the spacing along x would not be positive: lower 1.0, upper 0.0"),
        ({"shape": (4, 4), "lower": (0.0, 1.0), "upper": (1.0, 1.0)}, "the spacing along y would not be positive"),
        ({"shape": (4, 4), "lower": (0.0,)}, "lower is one number for each of the 2 axes"),
        ({"shape": 4, "upper": float("inf")}, "upper is one finite number an axis"),
        ({"shape": 4, "upper": "1"}, "upper is one finite number an axis"),
        ({"shape": 4, "dtype": torch.int64}, "dtype is torch.float64 or torch.float32, got torch.int64"),
        ({"shape": 4, "device": "gpu"}, "'gpu' is not a device"),
        ({"shape": (4, 4), "boundary": {"x": Dirichlet()}}, "nothing is said about axis y"),
        ({"shape": (4, 4), "boundary": {}}, "nothing is said about axis x, y"),
        ({"shape": (4, 4), "boundary": {"u": Periodic(), "v": Dirichlet()}}, "periodic for one unknown and not for"),
        ({"shape": (4, 4), "boundary": {"u": {"z": Dirichlet()}}}, r"boundary\['u'\]: unknown axis 'z'"),
        ({"shape": 4, "boundary": None}, "expected Dirichlet"),
        ({"shape": (4, 4), "solid": SOLID.double()}, "solid is a bool tensor.*got a tensor of torch.float64"),
        ({"shape": (4, 4), "solid": [[True]]}, "solid is a bool tensor.*got list"),
        ({"shape": (4, 5), "solid": SOLID}, r"solid has shape \(4, 4\), expected the grid's \(4, 5\)"),
        ({"shape": (4, 4), "solid": ~SOLID}, "every cell is solid"),
        ({"shape": (4, 4), "solid": SOLID, "device": "meta"}, "solid is on cpu and the grid on meta"),
        ({"shape": 4, "walls": Periodic()}, "walls is Dirichlet, Neumann or Robin"),
        ({"shape": 4, "walls": {"u": 1.0}}, "walls is Dirichlet, Neumann or Robin"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grid(**arguments)
