"""Turned and mirrored samples: solutions of the same problem."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml import Dirichlet, Equation, Grid, InputError, Neumann, Periodic, solve
from sciml.operators.symmetry import SymmetricSamples
from sciml.training import TensorSamples


def samples(shape: tuple[int, ...]) -> TensorSamples:
    a = 1 + torch.rand(3, 1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return TensorSamples(input=a, output=a.square())


def images(made: SymmetricSamples) -> list[dict[str, Tensor]]:
    """Of the second sample."""
    return [dict(made.batch(torch.tensor([1 + 3 * number]))) for number in range(len(made) // 3)]


def test_the_eight_images_of_a_square_solve_the_same_problem():
    grid = Grid((6, 6))
    a = samples(grid.shape).tensors["input"]
    equation = Equation("-div(a*grad(u)) = f")
    u = solve(equation, grid, fields={"a": a[:, 0], "f": 1.0}, rtol=1e-12).value[:, None]
    made = SymmetricSamples(TensorSamples(input=a, output=u), grid, ("x", "y"), ("x", "y"))
    found = images(made)
    assert len(found) == len({tuple(image["input"].flatten().tolist()) for image in found}) == 8
    for image in found:
        again = solve(equation, grid, fields={"a": image["input"][:, 0], "f": 1.0}, rtol=1e-12).value
        torch.testing.assert_close(image["output"][:, 0], again, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("shape", "mirrored", "exchanged", "number"),
    [((4, 5), ("y",), (), 2), ((4, 4), (), ("x", "y"), 2), ((3, 3, 3), ("x", "y", "z"), ("x", "y", "z"), 48)],
)
def test_images_differ(shape, mirrored, exchanged, number):
    made = SymmetricSamples(samples(shape), Grid(shape), mirrored, exchanged)
    found = images(made)
    assert len(found) == len({tuple(image["input"].flatten().tolist()) for image in found}) == number
    for image in found:
        assert torch.equal(image["output"], image["input"].square())
        torch.testing.assert_close(image["input"].sum(), found[0]["input"].sum())


def test_a_batch_is_its_parts():
    """However it is divided: in pieces, or among processes."""
    made = SymmetricSamples(samples((4, 4)), Grid((4, 4)), ("x",), ("x", "y"))
    chosen = torch.tensor([7, 0, 11, 4, 4, 2])
    whole = made.batch(chosen)["input"]
    assert torch.equal(whole, torch.cat([made.batch(part)["input"] for part in chosen.split(2)]))
    assert torch.equal(made.batch(torch.arange(3))["input"], made.samples.batch(torch.arange(3))["input"])


@pytest.mark.parametrize(
    ("grid", "mirrored", "exchanged", "message"),
    [
        (Grid((4, 4)), ("z",), (), "none called 'z'"),
        (Grid((4, 4), boundary={"x": Periodic(), "y": Dirichlet(0.0)}), ("x",), (), "x is periodic"),
        (Grid(4, boundary={"x": (Dirichlet(0.0), Neumann(0.0))}), ("x",), (), "along x have different conditions"),
        (Grid((4, 5)), (), ("x", "y"), "same points, lengths and conditions"),
        (Grid((4, 4), upper=(1.0, 2.0)), (), ("x", "y"), "same points, lengths and conditions"),
        (Grid((4, 4), boundary=Dirichlet(lambda x, y: x)), ("x",), (), "a number for a value"),
        (Grid((2, 2), solid=torch.tensor([[True, False], [False, False]])), ("x",), (), "solid cells"),
        (Grid((4, 4)), ("x", "x"), (), "named twice: x, x"),
        (Grid((4, 4)), (), ("x",), "x alone cannot be exchanged"),
    ],
)
def test_a_grid_without_the_symmetry_is_refused(grid, mirrored, exchanged, message):
    with pytest.raises(InputError, match=message):
        SymmetricSamples(samples(grid.shape), grid, mirrored, exchanged)


def test_a_fixed_field_must_be_its_own_image():
    made = SymmetricSamples(samples((4, 6)), Grid((4, 6)), ("x",))
    x = torch.linspace(0.1, 0.9, 4)[:, None].expand(4, 6)
    made.check("f", torch.sin(torch.pi * x))
    made.check("f", torch.rand(6).expand(4, 6))
    with pytest.raises(InputError, match="the field 'f', the same in all samples, is another one in an image"):
        made.check("f", x)
