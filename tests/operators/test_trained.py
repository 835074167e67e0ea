"""Operators on the disk, and in use: what they answer, and what they refuse."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sciml import Dirichlet, Equation, Grid, InputError, Neumann
from sciml.operators import FNO, MgNO, Normalized, TrainedOperator, load, save
from sciml.operators.trained import Channel, Place

SETTINGS = {"channels": 4, "layers": 2, "levels": [[1, 0], [1, 0], [1, 0]]}
GRID = Grid((16, 16))


def make(network: torch.nn.Module | None = None, **changes: object) -> TrainedOperator:
    torch.manual_seed(0)
    network = network or MgNO(in_channels=2, **SETTINGS)  # type: ignore[arg-type]
    given = {
        "network": Normalized(network, [1.0, 0.0], [2.0, 1.0], [0.5], [0.1]).eval(),
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
    save(operator, tmp_path)
    torch.set_default_dtype(default)
    try:
        again = load(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in again.network.state_dict().values()} == {dtype}
    assert torch.equal(again({"a": field(16, 16), "nu": 0.1})["u"], operator({"a": field(16, 16), "nu": 0.1})["u"])


def test_every_part_comes_back(tmp_path: Path):
    operator = make()
    save(operator, tmp_path / "o")
    again = load(tmp_path / "o")
    for name in ("inputs", "outputs", "place", "parameters", "interval", "origin"):
        assert getattr(again, name) == getattr(operator, name)
    assert str(again.equation) == str(operator.equation)
    a = field(16, 16)
    with torch.no_grad():
        assert torch.equal(again({"a": a, "nu": 0.5})["u"], operator({"a": a, "nu": 0.5})["u"])
    unbounded = make(inputs=(Channel("a"), Channel("nu", "parameter")))
    save(unbounded, tmp_path / "o")
    assert len(list((tmp_path / "o").iterdir())) == 2
    assert load(tmp_path / "o").inputs[0].highest == math.inf


@pytest.mark.parametrize("file", ["operator.json", "weights"])
def test_flipped_bits_are_found(file: str, tmp_path: Path):
    save(make(), tmp_path)
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
    save(make(), tmp_path)
    path = tmp_path / "operator.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(InputError, match="version 2, and this sciml reads up to 1"):
        load(tmp_path)
    with pytest.raises(InputError, match="only DeepONet, FNO, MgNO, UNet can be stored, not Conv2d"):
        save(make(torch.nn.Conv2d(2, 1, 1)), tmp_path)


@pytest.mark.parametrize(
    ("fields", "grid", "message"),
    [
        ({"a": 1.0}, None, "'nu' is missing; it takes a, nu"),
        ({"a": 1.0, "nv": 1.0}, None, "takes no 'nv'; known: a, nu"),
        ({"a": field(16, 15), "nu": 0.0}, GRID, r"shape \(16, 15\); \(\*batch, 16, 16\)"),
        ({"a": torch.full((16, 16), math.nan), "nu": 0.0}, None, "'a' holds NaN"),
        ({"a": field(2, 16, 16), "nu": torch.zeros(3)}, None, r"do not broadcast: a \(2,\), nu \(3,\)"),
        ({"a": 1.0, "nu": 0.0}, Grid((16, 16), upper=2.0), "scale the problem to that box"),
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
    with pytest.warns(UserWarning, match="'a' has values from 5 to 5; the operator was trained with 0 to 4"):
        make()({"a": 5.0, "nu": 0.0})
