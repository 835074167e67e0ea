"""Operators on the disk and in use: what they answer, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Dirichlet, Equation, Grid, InputError, Neumann, Periodic, Robin
from sciml.boundary import Unstated
from sciml.operators import FNO, MgNO, Normalized, TrainedOperator, load
from sciml.operators.place import Place, Points
from sciml.operators.trained import Channel

SETTINGS = {"channels": 4, "layers": 2, "levels": [[1, 0], [1, 0], [1, 0]]}
GRID = Grid((16, 16))
BLOCK = torch.zeros(16, 16, dtype=torch.bool)
BLOCK[4:8, 4:8] = True


def make(network: torch.nn.Module | None = None, **changes: object) -> TrainedOperator:
    torch.manual_seed(0)
    network = network or MgNO(in_channels=2, **SETTINGS)  # type: ignore[arg-type]
    given = {
        "network": network
        if isinstance(network, Normalized)
        else Normalized(network, [1.0, 0.0], [2.0, 1.0], [0.5], [0.1]).eval(),
        "inputs": (Channel("a", lowest=0.0, highest=4.0), Channel("nu", "parameter", lowest=-1.0, highest=1.0)),
        "outputs": (Channel("u"),),
        "place": Place.of(GRID),
        "equation": Equation("-div(a*grad(u)) = f"),
        "parameters": {"f": 1.0},
        "interval": 0.5,
        "origin": {"dataset": "made up"},
        **changes,
    }
    return TrainedOperator(**given)  # type: ignore[arg-type]


def field(*shape: int) -> Tensor:
    return 4 * torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def test_a_call_is_the_network_on_the_channels_in_order():
    operator, a, nu = make(), field(3, 16, 16), torch.tensor([0.1, -0.2, 0.3])
    u = operator({"nu": nu, "a": a}, GRID)["u"]
    x = torch.stack((a.float(), nu[:, None, None].expand(3, 16, 16)), 1)
    assert u.dtype == operator({"a": a, "nu": nu})["u"].dtype == torch.float64
    torch.testing.assert_close(u.float(), operator.network(x)[:, 0])
    assert operator({"a": a.float(), "nu": 0.1})["u"].dtype == torch.float32
    one = operator({"a": a[1], "nu": -0.2})["u"]
    assert one.dtype == torch.float64
    torch.testing.assert_close(one, u[1])


@torch.no_grad()
def test_batches_broadcast():
    operator, a, nu = make(), field(2, 1, 16, 16), torch.tensor([0.1, -0.2, 0.3])
    u = operator({"a": a, "nu": nu})["u"]
    assert u.shape == (2, 3, 16, 16)
    torch.testing.assert_close(u[1, 2], operator({"a": a[1, 0], "nu": 0.3})["u"])


@torch.no_grad()
def test_another_grid():
    """A field that is constant in the cells of the training's grid: the answer there, interpolated."""
    operator, a = make(), field(16, 16)
    u = operator({"a": a, "nu": 0.0})["u"]
    fine = operator({"a": a.repeat_interleave(2, 0).repeat_interleave(2, 1), "nu": 0.0}, Grid((32, 32)))["u"]
    torch.testing.assert_close(fine.reshape(16, 2, 16, 2)[1:-1, :, 1:-1].mean((1, 3)), smooth(u), rtol=1e-5, atol=1e-6)
    coarse = operator({"a": 1.5, "nu": 0.0}, Grid((8, 8)))["u"]
    torch.testing.assert_close(coarse, operator({"a": 1.5, "nu": 0.0}, GRID)["u"].reshape(8, 2, 8, 2).mean((1, 3)))


def smooth(u: Tensor) -> Tensor:
    """Means over four points whose values are interpolated with weights 3/4 and 1/4 along each axis."""
    u = (u[:-2] + 6 * u[1:-1] + u[2:]) / 8
    return (u[:, :-2] + 6 * u[:, 1:-1] + u[:, 2:]) / 8


@torch.no_grad()
def test_networks_for_any_grid_are_not_taken_to_another():
    network = FNO(in_channels=2, out_channels=1, modes=(4, 4), width=4, layers=2)
    operator = make(network)
    a = field(24, 20)
    x = torch.stack((a.float(), torch.zeros(24, 20)))[None]
    torch.testing.assert_close(operator({"a": a, "nu": 0.0})["u"].float(), operator.network(x)[0, 0])


def test_coefficients_of_a_coarser_grid_stay_in_their_range():
    """Linear interpolants that went on to the walls would make a permeability negative."""
    seen = []
    operator = make()
    operator.network.register_forward_hook(lambda module, given, answer: seen.append(given[0]))
    a = torch.ones(8, 8)
    a[0], a[:, 0] = 0.1, 4.0
    operator({"a": a, "nu": 0.0})
    assert seen[0].shape == (1, 2, 16, 16)
    torch.testing.assert_close(seen[0][:, 0].aminmax().min, torch.tensor(0.1))
    torch.testing.assert_close(seen[0][:, 0].aminmax().max, torch.tensor(4.0))


def test_gradients_go_to_fields_and_not_to_weights():
    operator, a = make(), field(16, 16).requires_grad_()
    assert not operator({"a": a.detach(), "nu": 0.0})["u"].requires_grad
    (gradient,) = torch.autograd.grad(operator({"a": a, "nu": 0.0})["u"].sum(), a)
    direction, step = field(16, 16), 1e-3
    high, low = (float(operator({"a": a.detach() + s * direction, "nu": 0.0})["u"].sum()) for s in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx((high - low) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_operator_keeps_its_precision(dtype: torch.dtype, default: torch.dtype, tmp_path: Path):
    network = MgNO(in_channels=2, **SETTINGS).to(dtype)  # type: ignore[arg-type]
    operator = make(network)
    operator.save(tmp_path)
    torch.set_default_dtype(default)
    try:
        again = load(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in again.network.state_dict().values()} == {dtype}
    assert torch.equal(again({"a": field(16, 16), "nu": 0.1})["u"], operator({"a": field(16, 16), "nu": 0.1})["u"])


def test_every_part_comes_back(tmp_path: Path):
    operator = make(fixed={"f": field(16, 16)})
    operator.save(tmp_path / "o")
    again = load(tmp_path / "o")
    assert torch.equal(again.fixed["f"], operator.fixed["f"])
    for name in ("inputs", "outputs", "place", "parameters", "interval", "origin"):
        assert getattr(again, name) == getattr(operator, name)
    assert str(again.equation) == str(operator.equation)
    a = field(16, 16)
    with torch.no_grad():
        assert torch.equal(again({"a": a, "nu": 0.5})["u"], operator({"a": a, "nu": 0.5})["u"])
    unbounded = make(inputs=(Channel("a"), Channel("nu", "parameter")))
    unbounded.save(tmp_path / "o")
    assert len(list((tmp_path / "o").iterdir())) == 2
    assert load(tmp_path / "o").inputs[0].highest == (math.inf,)


@pytest.mark.parametrize("file", ["operator.json", "weights"])
def test_flipped_bits_are_found(file: str, tmp_path: Path):
    make().save(tmp_path)
    path = next(p for p in tmp_path.iterdir() if p.name.startswith(file))
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(whole), (40,), generator=generator).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError):
            load(tmp_path)
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path)
    path.write_bytes(whole)
    load(tmp_path)


def test_what_is_no_operator(tmp_path: Path):
    with pytest.raises(InputError, match="holds no operator"):
        load(tmp_path)
    make().save(tmp_path)
    path = tmp_path / "operator.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 3}))
    with pytest.raises(InputError, match="version 3, and this sciml reads version 2"):
        load(tmp_path)
    with pytest.raises(InputError, match="only DeepONet, FNO, MgNO, UNet can be stored, not Conv2d"):
        make(torch.nn.Conv2d(2, 1, 1)).save(tmp_path)


@pytest.mark.parametrize(
    ("fields", "grid", "message"),
    [
        ({"a": 1.0}, None, "'nu' is missing; it takes a, nu"),
        ({"a": 1.0, "nv": 1.0}, None, "takes no 'nv'; known: a, nu"),
        ({"a": field(16, 15), "nu": 0.0}, GRID, r"shape \(16, 15\); \(\*batch, 16, 16\)"),
        ({"a": torch.full((16, 16), math.nan), "nu": 0.0}, None, "'a' holds NaN"),
        ({"a": field(2, 16, 16), "nu": torch.zeros(3)}, None, r"do not broadcast: a \(2,\), nu \(3,\)"),
        ({"a": field(16, 16), "nu": None}, None, "'nu' is no tensor, array or number"),
        ({"a": field(16, 16) + 1j, "nu": 0.0}, None, "'a' is complex"),
        ([field(16, 16)], None, "fields are given by name, .* got list"),
        ({"a": 1.0, "nu": 0.0}, (16, 16), "grid is a sciml.Grid, got tuple"),
        ({"a": 1.0, "nu": 0.0}, Grid((16, 16), upper=2.0), "scale the problem to that box"),
        ({"a": 1.0, "nu": 0.0}, Grid(16), "scale the problem to that box"),
        ({"a": 1.0, "nu": 0.0}, Grid((16, 16), boundary=Periodic()), "with no periodic axes, .* periodic axes x, y"),
        ({"a": 1.0, "nu": 0.0}, Grid((16, 16), solid=BLOCK), "trained without solid cells"),
        (
            {"a": 1.0, "nu": 0.0},
            Grid((16, 16), boundary=Neumann(0.0)),
            r"Dirichlet\(0\) at x_lower, and .* Neumann\(0\)",
        ),
        ({"a": 1.0, "nu": 0.0}, Grid((16, 16), boundary=Dirichlet(1.0)), r"has Dirichlet\(1\) there"),
    ],
)
def test_what_does_not_fit_is_refused(fields, grid, message):
    with pytest.raises(InputError, match=message):
        make()(fields, grid)


def test_values_outside_the_training_are_warned_of():
    with pytest.warns(UserWarning, match="'a' has values from 5 to 5; the operator was trained with 0 to 4") as caught:
        make()({"a": 5.0, "nu": 0.0})
    assert [item.filename for item in caught] == [__file__]


@pytest.mark.parametrize(("scale", "expected"), [(1.0, ""), (2.0, "component 0, has values from 1.6 to 1.6")])
def test_limits_of_vectors_are_those_of_each_component(scale: float, expected: str):
    channel = Channel("v", components=(2,), lowest=(-1.0, -100.0), highest=(1.0, 100.0))
    values = torch.stack((torch.full((3, 4), 0.8 * scale), torch.full((3, 4), -90.0)), 1)
    assert expected in channel.outside(values)
    assert bool(channel.outside(values)) is bool(expected)
    with pytest.raises(InputError, match="2 components and 3 lowest values"):
        Channel("v", components=(2,), lowest=(0.0, 0.0, 0.0))


# What an answer is


def test_rows_a_few_at_a_time_and_none_at_all():
    operator, a = make(), field(2, 5, 16, 16)
    whole = operator({"a": a, "nu": torch.linspace(0, 1, 5)}, GRID)
    sizes = []
    operator.network.register_forward_hook(lambda module, given, answer: sizes.append(len(given[0])))
    parts = operator({"a": a, "nu": torch.linspace(0, 1, 5)}, GRID, batch_size=4)
    assert sizes == [4, 4, 2]
    torch.testing.assert_close(parts["u"], whole["u"])
    none = operator({"a": a[:, :0], "nu": 0.0})["u"]
    assert none.shape == (2, 0, 16, 16) and none.dtype == torch.float64
    with pytest.raises(InputError, match="batch_size is at least 1"):
        operator({"a": a, "nu": 0.0}, batch_size=0)


def test_arrays_are_taken():
    operator, a = make(), field(3, 16, 16)
    assert torch.equal(operator({"a": a.numpy(), "nu": 0.5})["u"], operator({"a": a, "nu": 0.5})["u"])


def test_digits_of_float64_count():
    """A field that varies by less than float32 resolves at its size."""
    network = Normalized(Keep(), [300.0, 0.0], [2.0**-10, 1.0], [0.0], [1.0])
    operator = make(network=network, inputs=(Channel("a"), Channel("nu", "parameter")))
    a = 300 + 2.0**-10 * field(16, 16)
    torch.testing.assert_close(operator({"a": a, "nu": 0.0})["u"], field(16, 16), rtol=1e-6, atol=1e-6)


@pytest.mark.cuda
def test_fields_and_numbers_come_from_any_device():
    """A network on a GPU answers where the field is; what stands elsewhere is brought to it."""
    operator, a = make(), field(3, 16, 16)
    expected = operator({"a": a, "nu": 0.5})["u"]
    operator.to("cuda")
    torch.testing.assert_close(operator({"a": a, "nu": 0.5})["u"], expected, rtol=1e-4, atol=1e-5)
    for nu in (0.5, torch.tensor(0.5), torch.tensor(0.5, device="cuda")):
        answer = operator({"a": a.cuda(), "nu": nu}, Grid((16, 16), device="cuda"))["u"]
        assert answer.is_cuda
        torch.testing.assert_close(answer.cpu(), expected, rtol=1e-4, atol=1e-5)


class Keep(torch.nn.Module):
    """Answers its first channel."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x[:, :1]


def keeper(place: Place, factor: float = 1.0, **changes: object) -> TrainedOperator:
    """An operator whose answer is its input times a factor."""
    network = Normalized(Keep(factor), [0.0], [1.0], [0.0], [1.0])
    given = {"network": network, "inputs": (Channel("u"),), "outputs": (Channel("u"),), "place": place, "interval": 0.5}
    return make(**{**given, **changes})


# Where it stands


def nodal(n: int) -> Grid:
    """As a dataset has it: the outermost points on the walls of the unit square, where it states nothing."""
    rim = 0.5 / (n - 1)
    return Grid((n, n), -rim, 1 + rim, Unstated())


def ramp(grid: Grid) -> Tensor:
    x, y = grid.coordinates
    return 1 + 2 * x - 3 * y


@pytest.mark.parametrize("trained", ["nodes", "cells"])
@pytest.mark.parametrize("asked", [nodal(33), nodal(65), nodal(100), Grid((32, 32)), Grid((64, 64)), Grid((50, 50))])
def test_nodes_and_cells_are_brought_to_each_other(trained: Points, asked: Grid):
    """A linear field comes back as it was, wherever its points stand, but beside walls where inputs are held."""
    operator = keeper(Place.of(Grid((32, 32)), trained))
    answer = operator({"u": ramp(asked)}, asked)["u"]
    inside = slice(4, -4)
    torch.testing.assert_close(answer[inside, inside], ramp(asked)[inside, inside])


def test_without_a_grid_fields_stand_as_in_training():
    operator = keeper(Place.of(Grid((32, 32)), "nodes"))
    torch.testing.assert_close(operator({"u": ramp(nodal(65))})["u"], ramp(nodal(65)))
    with pytest.raises(InputError, match=r"trained on the box \(0.0, 0.0\) to \(1.0, 1.0\)"):
        operator({"u": ramp(nodal(33))}, Grid((33, 33), -0.1, 1.1))


def test_networks_for_any_resolution_take_cells_of_any_number():
    """Nodes come to the cells between them; trained on nodes such a network stays at those of the training."""
    network = FNO(in_channels=1, out_channels=1, modes=(4, 4), width=4, layers=1)
    for place, asked, seen in (
        (Place.of(Grid((16, 16))), Grid((24, 24)), (24, 24)),
        (Place.of(Grid((16, 16))), nodal(25), (24, 24)),
        (Place.of(Grid((16, 16)), "nodes"), nodal(33), (17, 17)),
    ):
        shapes = []
        operator = keeper(place, network=Normalized(network, [0.0], [1.0], [0.0], [1.0]))
        hook = network.register_forward_hook(lambda module, given, answer: shapes.append(tuple(given[0].shape[2:])))  # noqa: B023
        assert operator({"u": ramp(asked)}, asked)["u"].shape == asked.shape
        hook.remove()
        assert shapes == [seen]


def sine(scale: float, n: int) -> Tensor:
    return scale * torch.sin(3 * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def along(x: Tensor, y: Tensor) -> Tensor:
    """The same on the unit square's sides at every place."""
    return torch.sin(3 * torch.where((x == 0) | (x == 1), y, x))


@pytest.mark.parametrize(
    ("trained", "same", "other"),
    [
        (Dirichlet(lambda x, y: x), Dirichlet(lambda x, y: x + 0 * y), Dirichlet(lambda x, y: -100 * x)),
        (Dirichlet(torch.tensor(2.0)), Dirichlet(2.0), Dirichlet(torch.tensor(7.0))),
        (Dirichlet(0.0), {"u": Dirichlet(0.0)}, {"u": Dirichlet(1.0)}),
        ({"u": Dirichlet(0.0), "v": Neumann(0.0)}, {"v": Neumann(0.0), "u": Dirichlet(0.0)}, Dirichlet(0.0)),
        (Dirichlet(0.0), {"u": Dirichlet(0.0), "v": Dirichlet(0.0)}, {"u": Dirichlet(0.0), "v": Neumann(0.0)}),
        (Dirichlet(sine(1.0, 16)), Dirichlet(along), Dirichlet(sine(2.0, 32))),
        (Robin(1.0, 2.0), Robin(1.0, torch.tensor([2.0])), Robin(2.0, 2.0)),
    ],
    ids=["functions", "numbers", "by unknown", "of two unknowns", "for both", "values", "robin"],
)
def test_conditions_are_compared_by_their_values(trained: object, same: object, other: object):
    place = Place.of(Grid((16, 16), boundary=trained))
    assert json.loads(json.dumps(dataclasses.asdict(place)))["conditions"] == place.conditions
    assert place.nodes_of(Grid((32, 32), boundary=same)) == (False, False)
    with pytest.raises(InputError, match="the conditions are part of what was learned"):
        place.nodes_of(Grid((32, 32), boundary=other))


def test_values_along_a_side_are_those_of_any_grid_of_it():
    place = Place.of(Grid((101, 101), boundary=Dirichlet(sine(1.0, 101))))
    for n in (24, 202):
        place.nodes_of(Grid((n, n), boundary=Dirichlet(sine(1.0, n))))
    moving = Place.of(Grid(16, boundary=Dirichlet(lambda x, t: t)))
    assert moving.conditions[""]["x_lower"] == {"kind": "Dirichlet", "value": None}
    moving.nodes_of(Grid(32, boundary=Dirichlet(lambda x, t: 2 * t)))
    with pytest.raises(InputError, match=r"Dirichlet\(values in time or by sample\) there"):
        Place.of(Grid(16)).nodes_of(Grid(16, boundary=Dirichlet(lambda x, t: t)))


def test_solid_cells_are_those_of_the_training():
    place = Place.of(Grid((16, 16), solid=BLOCK))
    place.nodes_of(Grid((16, 16), solid=BLOCK.clone()))
    for grid in (
        Grid((16, 16)),
        Grid((16, 16), solid=BLOCK.roll(1, 0)),
        Grid((32, 32), solid=BLOCK.repeat_interleave(2, 0).repeat_interleave(2, 1)),
    ):
        with pytest.raises(InputError, match="certain solid cells on a grid of 16 x 16"):
            place.nodes_of(grid)
    with pytest.raises(InputError, match=r"Neumann\(0\) at walls, and the grid has Dirichlet\(0\)"):
        place.nodes_of(Grid((16, 16), solid=BLOCK, walls=Dirichlet(0.0)))


# Going on, and the solver


def test_going_on_from_its_own_answers():
    operator, u = keeper(Place.of(GRID), 1.5), field(3, 2, 16, 16)
    found = operator.rollout({"u": u}, 4, GRID, batch_size=5)["u"]
    powers = 1.5 ** torch.arange(1, 5, dtype=torch.float64)
    torch.testing.assert_close(found, u[:, :, None] * powers[:, None, None], rtol=1e-5, atol=0)
    single = operator.rollout({"u": u[0, 0]}, 2)["u"]
    torch.testing.assert_close(single, found[0, 0, :2])


def test_going_on_loses_nothing_on_another_grid():
    """The state stays at the points of the network: what comes and goes every step would be smeared."""
    x, y = Grid((64, 64)).coordinates
    u = torch.sin(math.pi * x) * torch.sin(3 * math.pi * y)
    operator = keeper(Place.of(GRID))
    many = operator.rollout({"u": u}, 20, Grid((64, 64)))["u"]
    torch.testing.assert_close(many[-1], operator({"u": u}, Grid((64, 64)))["u"])


def test_a_row_that_ends_does_not_end_the_others():
    class Limited(Keep):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return torch.where(y.abs().amax((1, 2, 3), keepdim=True) > 5, math.inf, y)

    operator = keeper(Place.of(GRID), network=Normalized(Limited(2.0), [0.0], [1.0], [0.0], [1.0]))
    u = torch.stack((torch.full((16, 16), 1.0), torch.full((16, 16), 0.25)))
    found = operator.rollout({"u": u}, 4)["u"][:, :, 0, 0]
    torch.testing.assert_close(found[1], torch.tensor([0.5, 1.0, 2.0, 4.0]))
    torch.testing.assert_close(found[0], torch.tensor([2.0, 4.0, math.nan, math.nan]), equal_nan=True)


def test_inputs_that_change_on_the_way():
    class Sum(Keep):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1, keepdim=True)

    inputs = (Channel("u", lowest=-1.0, highest=3.0), Channel("f", "parameter"))
    network = Normalized(Sum(), [0.0, 0.0], [1.0, 1.0], [0.0], [1.0])
    operator = keeper(Place.of(GRID), network=network, inputs=inputs)
    with pytest.warns(UserWarning, match="step 5 of 5: the input 'u' has values from 4 to 6") as caught:
        found = operator.rollout({"u": torch.zeros(16, 16), "f": lambda step: torch.tensor([step, 1.0])}, 5)["u"]
    assert len(caught) == 1 and caught[0].filename == __file__
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.0, 1.0, 3.0, 6.0, 10.0]))
    torch.testing.assert_close(found[1, :, 0, 0], torch.arange(1.0, 6.0))
    with pytest.raises(InputError, match="none of its outputs, u, is an input"):
        make().rollout({"a": 1.0, "nu": 0.0}, 2)
    with pytest.raises(InputError, match="steps is a whole number"):
        operator.rollout({"u": torch.zeros(16, 16), "f": 0.0}, 0)


def test_the_solver_is_handed_the_same_problem():
    """What was fixed in training is put in: a field at other points, a number, a parameter."""
    x, _ = GRID.coordinates
    equation = Equation("-div(a*grad(u)) + k*u = f + g", parameters={"k": 2.0})
    inputs = (Channel("a"), Channel("k", "parameter"))
    operator = make(equation=equation, inputs=inputs, fixed={"g": 1 + x}, parameters={"f": 1.0}, interval=None)
    fine, a = Grid((32, 32)), 1 + field(2, 32, 32)
    k = torch.tensor([1.0, 3.0], dtype=torch.float64)
    found = sciml.solve(equation, fine, **operator.problem({"a": a, "k": k}, fine)).value
    held = 1 + fine.coordinates[0].clamp(1 / 32, 1 - 1 / 32)
    expected = sciml.solve(equation, fine, fields={"a": a, "f": 1.0, "g": held}, parameters={"k": k}).value
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    for number in (2.0, torch.tensor([2.0, 2.0])):  # a number for each row stands for a coefficient as well
        constant = replace(operator, inputs=(Channel("a", "parameter"), Channel("k", "parameter")))
        found = sciml.solve(equation, fine, **constant.problem({"a": number, "k": 1.0}, fine)).value
        expected = sciml.solve(equation, fine, fields={"a": 2.0, "f": 1.0, "g": held}, parameters={"k": 1.0}).value
        torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-7, atol=0)
    with pytest.raises(InputError, match="does not know its equation"):
        make(equation=None).problem({"a": a, "nu": 0.0}, fine)
    with pytest.raises(InputError, match="solvers have unknowns at the centres of cells"):
        operator.problem({"a": 1.0, "k": 1.0}, nodal(33))


def test_an_evolving_problem_has_a_start_and_an_end():
    equation = Equation("u_t = nu*u_xx", parameters={"nu": 0.02})
    ring = Grid(32, boundary=Periodic())
    operator = keeper(Place.of(ring), equation=equation, parameters={"nu": 0.05})
    u = torch.sin(2 * math.pi * ring.coordinates[0])
    solution = sciml.evolve(equation, ring, scheme=sciml.Spectral(), **operator.problem({"u": u}, ring))
    torch.testing.assert_close(solution.value[-1], math.exp(-0.05 * 0.5 * 4 * math.pi**2) * u, rtol=1e-4, atol=1e-6)
