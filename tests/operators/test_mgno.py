"""MgNO against dense matrices, against the published program's counts and form, and on any grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sciml import InputError
from sciml.operators.mgno import MgNO
from sciml.operators.multigrid_layer import Convolution, MultigridLayer, Prolongation
from sciml.operators.padding import SIDES, pad_by_one, read_sides

NAVIER_STOKES = {
    "channels": 32,
    "layers": 5,
    "levels": [[1, 0], [1, 0], [1, 0], [2, 0], [2, 0]],
    "padding": "circular",
    "pointwise": False,
    "residual_output": True,
    "bias": True,
    "normalized": [64, 64],
}
NUMPY_MODES = {"zeros": "constant", "even": "symmetric", "reflect": "reflect", "circular": "wrap"}


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("settings", "published"),
    [
        pytest.param({}, 572_661, id="rough Darcy"),
        pytest.param(NAVIER_STOKES, 2_885_194, id="Navier-Stokes"),
        # Table and program disagree here (0.57 M); the program's own count.
        pytest.param({"layers": 5, "prolongation": [3, 4, 3, 3, 4]}, 678_093, id="smooth Darcy"),
    ],
)
def test_counts_of_the_published_networks(settings, published):
    assert count(MgNO(in_channels=1, **settings)) == published


def published_form(network: MgNO, x: Tensor) -> Tensor:
    """The rough Darcy network as its authors describe it, written out for zero padding."""
    for cycle, mixing in zip(network.cycles, network.mixing, strict=True):
        f, kept = x, []
        for number, level in enumerate(cycle.levels):
            if number == 0:
                u = functional.conv2d(f, level.smooth_before[0].kernel.weight, padding=1)
            else:
                for a, s in zip(level.residual_before, level.smooth_before, strict=True):
                    residual = f - functional.conv2d(u, a.kernel.weight, padding=1)
                    u = u + functional.conv2d(residual, s.kernel.weight, padding=1)
            kept.append(u)
            if level.restrict is not None:
                f = functional.conv2d(f, level.restrict.kernel.weight, stride=2, padding=1)
                u = functional.conv2d(u, level.restrict_start.kernel.weight, stride=2, padding=1)
        for number in range(len(kept) - 2, -1, -1):
            weight = cycle.levels[number].prolong.kernel.weight
            u = kept[number] + functional.conv_transpose2d(u, weight, stride=2, padding=1)
        x = functional.gelu(u + functional.conv2d(x, mixing.weight[:, :, None, None], mixing.bias))
    return functional.conv2d(x, network.project.weight[:, :, None, None])


def test_the_published_form():
    network = MgNO(in_channels=1, channels=5, layers=3)
    x = torch.randn(1, 1, 32, 64)
    torch.testing.assert_close(network(x), published_form(network, x), rtol=1e-12, atol=1e-13)


def matrix(operator, channels: int, *space: int) -> Tensor:
    """A linear map of fields as a matrix."""
    size = channels * int(np.prod(space))
    return operator(torch.eye(size).reshape(size, channels, *space)).reshape(size, -1).T


@pytest.mark.parametrize("side", ["zeros", "odd", "circular"])
@pytest.mark.parametrize("coarse_start", ["restricted", "zero"])
@pytest.mark.parametrize("restriction", ["right_side", "residual"])
@pytest.mark.parametrize("cycle", ["V", "W"])
@torch.no_grad()
def test_a_cycle_is_the_product_of_its_parts(cycle, restriction, coarse_start, side):
    """Against the recursion of multigrid with the parts as dense matrices: three levels, 13 x 6 points."""
    f_channels, channels, space = 2, 3, (13, 6)
    sides = read_sides(side, 2)
    layer = MultigridLayer(
        f_channels,
        channels,
        [(1, 2), (2, 1), (1, 1)],
        2,
        sides,
        cycle=cycle,
        restriction=restriction,
        coarse_start=coarse_start,
    )
    shapes = [space, (7, 3), (4, 2)]

    def solve(number: int, u: Tensor | None, f: Tensor) -> Tensor:
        level, here = layer.levels[number], shapes[number]

        def smooth(u: Tensor | None, a, s) -> Tensor:
            s = matrix(s, f_channels, *here)
            return s @ f if u is None else u + s @ (f - matrix(a, channels, *here) @ u)

        for a, s in zip(level.residual_before, level.smooth_before, strict=True):
            u = smooth(u, a, s)
        if number + 1 < len(shapes):
            rest = f if restriction == "right_side" else f - matrix(level.residual, channels, *here) @ u
            coarse_f = matrix(level.restrict, f_channels, *here) @ rest
            coarse_u = None if coarse_start == "zero" else matrix(level.restrict_start, channels, *here) @ u
            for _ in range(1 if cycle == "V" else 2):
                coarse_u = solve(number + 1, coarse_u, coarse_f)
            u = (
                u
                + matrix(
                    lambda v: level.prolong(v, v.new_zeros(len(v), channels, *here)), channels, *shapes[number + 1]
                )
                @ coarse_u
            )
        for a, s in zip(level.residual_after, level.smooth_after, strict=True):
            u = smooth(u, a, s)
        return u

    f = torch.randn(f_channels * 13 * 6)
    u = layer(f.reshape(1, f_channels, *space)).flatten()
    torch.testing.assert_close(u, solve(0, None, f), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("side", list(NUMPY_MODES))
def test_what_stands_beyond_a_wall(side):
    x = torch.randn(2, 3, 5, 4)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode=NUMPY_MODES[side])
    assert torch.equal(pad_by_one(x, read_sides(side, 2)), torch.from_numpy(expected))


def test_sides_differ():
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert pad_by_one(x, (("odd", "even"),)).tolist() == [[[-1.0, 1.0, 2.0, 3.0, 3.0]]]
    assert pad_by_one(x, (("zeros", "reflect"),)).tolist() == [[[0.0, 1.0, 2.0, 3.0, 2.0]]]
    assert pad_by_one(x[..., :1], (("reflect", "odd"),)).tolist() == [[[1.0, 1.0, -1.0]]]


@pytest.mark.parametrize(("dimension", "space"), [(1, (13,)), (2, (12, 7)), (3, (5, 6, 4))])
@pytest.mark.parametrize("points", [3, 4])
@torch.no_grad()
def test_transfers_feel_the_walls(dimension, space, points):
    """Even sides: a constant goes to what it goes to far from the walls, also at them, in every part of a cycle."""
    sides = read_sides("even", dimension)
    coarse = tuple(-(-n // 2) for n in space)
    for stride in (1, 2):
        part = Convolution(2, 3, dimension, sides, stride)
        field = part(torch.ones(1, 2, *space))
        assert field.shape[2:] == (coarse if stride == 2 else space)
        expected = part.kernel.weight.sum(list(range(1, dimension + 2)))
        torch.testing.assert_close(field, expected.reshape(1, 3, *[1] * dimension).expand_as(field))
    part = Prolongation(2, 3, dimension, sides, points)
    fine = part(torch.ones(1, 2, *coarse), torch.zeros(1, 3, *space))
    assert fine.shape[2:] == space
    # Every second point gets the same part of the kernel.
    middle = [slice(1, 3)] * dimension
    pattern = fine[(..., *middle)]
    for axis, n in enumerate(space, 2):
        index = [1 - i % 2 for i in range(n)]
        pattern = pattern.index_select(axis, torch.tensor(index))
    torch.testing.assert_close(fine, pattern)


@torch.no_grad()
def test_a_periodic_network_knows_no_place():
    network = MgNO(in_channels=1, channels=4, layers=2, padding="circular", levels=[[1, 0], [1, 1], [2, 0]])
    x = torch.randn(1, 1, 16, 24)
    moved = network(x.roll((4, -8), (2, 3)))
    torch.testing.assert_close(moved, network(x).roll((4, -8), (2, 3)))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("space", [(1,), (37,), (5, 8), (3, 9, 4)])
def test_any_grid_and_its_gradient(space, side):
    network = MgNO(in_channels=2, channels=3, layers=1, dimension=len(space), padding=side, out_channels=2)
    x = torch.randn(1, 2, *space, requires_grad=True)
    y = network(x)
    assert y.shape == (1, 2, *space)
    direction = torch.randn_like(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    step = 1e-6
    with torch.no_grad():
        difference = network(x + step * direction).square().sum() - network(x - step * direction).square().sum()
    torch.testing.assert_close((gradient * direction).sum(), difference / (2 * step), rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_a_normalized_network_on_another_grid():
    """Weights that are the same everywhere stay so: layer normalization of the other grid."""
    layer = MultigridLayer(1, 3, [(1, 0), (1, 0)], 2, read_sides("circular", 2), normalized=(8, 8))
    layer.levels[0].normalize.weight.fill_(2.0)
    layer.levels[0].normalize.bias.fill_(0.5)
    u = layer(torch.randn(2, 1, 12, 10))
    torch.testing.assert_close(u.mean((1, 2, 3)), torch.full((2,), 0.5))
    torch.testing.assert_close(u.std((1, 2, 3), correction=0), torch.full((2,), 2.0), rtol=1e-3, atol=0)


def test_normalization_of_an_odd_grid_has_the_points_of_its_levels():
    layer = MultigridLayer(1, 2, [(1, 0)] * 4, 2, read_sides("zeros", 2), normalized=(101, 5))
    shapes = [tuple(level.normalize.weight.shape) for level in list(layer.levels)[:-1]]
    assert shapes == [(2, 101, 5), (2, 51, 3), (2, 26, 2)]


def test_channels_that_grow_with_the_level():
    layer = MultigridLayer(4, [4, 8, 12], [(1, 0), (1, 0), (1, 0)], 2, read_sides("zeros", 2), prolongation=3)
    k = 9
    # S; A, S; A, S; R and Pi to 8 and to 12; P back.
    assert count(layer) == k * (16 + 2 * 64 + 2 * 144 + 2 * (32 + 96) + 32 + 96)
    assert layer(torch.randn(1, 4, 9, 10)).shape == (1, 4, 9, 10)


def test_settings_build_the_network_again():
    network = MgNO(
        in_channels=2, out_channels=3, channels=[4, 6], levels=[[1, 1], [2, 0]], padding=["circular", ["odd", "even"]]
    )
    again = MgNO(**json.loads(json.dumps(network.settings)))
    again.load_state_dict(network.state_dict())
    x = torch.randn(1, 2, 6, 8)
    assert torch.equal(network(x), again(x))


def test_no_graph_breaks():
    network = MgNO(in_channels=1, channels=3, layers=2, levels=[[1, 0], [2, 1]], padding=["zeros", ["odd", "even"]])
    x = torch.randn(1, 1, 9, 8)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), network(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding": "mirror"}, "'mirror' along x is none of zeros, even"),
        ({"padding": ["zeros"]}, "for each of 2 axes"),
        ({"padding": [["circular", "zeros"], "zeros"]}, "along x one side alone is circular"),
        ({"levels": [[0, 1], [1, 0]]}, "needs a smoothing step before"),
        ({"levels": [[1, 0], [0, 1]], "coarse_start": "zero"}, "zero on every level"),
        ({"levels": []}, "a pair"),
        ({"channels": [4, 8]}, "2 numbers for 6 levels"),
        ({"prolongation": [3, 4]}, "each of 5 transfers"),
        ({"cycle": "F"}, "'F' is none of 'V', 'W'"),
        ({"dimension": 4}, "one to three are possible"),
        ({"levels": [[1, 0], [1]]}, r"levels are pairs .* got \[\[1, 0\], \[1\]\]"),
        ({"levels": [1, 2]}, "levels are pairs"),
        ({"residual_output": True, "out_channels": 2}, "1 channels in cannot be added to 2 out"),
        ({"layers": 0}, "layers is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"normalized": [64]}, "for each of 2 axes"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        MgNO(in_channels=1, **settings)


def test_the_residual_form_adds_the_first_channels():
    """Inputs that are not predicted, such as a viscosity or coordinates, come after those that are."""
    torch.manual_seed(0)
    settings = {"in_channels": 3, "out_channels": 2, "channels": 4, "layers": 2, "levels": [[1, 0], [1, 0]]}
    plain = MgNO(**settings)
    residual = MgNO(**settings, residual_output=True)
    residual.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 8, 9)
    torch.testing.assert_close(residual(x) - plain(x), x[:, :2])


def _network():
    torch.manual_seed(0)
    return MgNO(in_channels=2, out_channels=2, channels=2, layers=1, levels=[(1, 1), (1, 0)])


def test_a_network_used_twice_has_the_same_derivative_with_and_without_a_graph():
    network = _network()
    x = torch.randn(1, 2, 8, 8)
    loss, weights = network(network(x)).square().sum(), list(network.parameters())
    plain = torch.autograd.grad(loss, weights, retain_graph=True)
    for found, expected in zip(torch.autograd.grad(loss, weights, create_graph=True), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_derivatives_reach_weights_that_were_put_in_place_of_its_own():
    network = _network()
    x = torch.randn(1, 2, 8, 8)
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    torch.func.functional_call(network, weights, (x,)).square().sum().backward(create_graph=True)
    network(x).square().sum().backward()
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weights[name].grad.detach(), weight.grad, rtol=1e-11, atol=1e-13)


def test_a_parametrized_convolution():
    network = _network()
    x = torch.randn(1, 2, 8, 8)
    before = network(x)
    torch.nn.utils.parametrizations.weight_norm(network.cycles[0].levels[0].restrict.kernel)
    torch.testing.assert_close(network(x), before)


def test_hooks_of_convolutions_are_called():
    network = _network()
    x = torch.randn(1, 2, 8, 8)
    before, seen = network(x), []
    convolution = network.cycles[0].levels[0].restrict.kernel
    handle = convolution.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(network(x), before)
    assert seen == [(1, 2, 4, 4)]
    handle.remove()
    torch.nn.utils.spectral_norm(convolution)  # a hook that computes the weights anew in every call
    normalized = network(x)
    with torch.no_grad():
        convolution.weight_orig[0] += 1
    assert not torch.allclose(network(x), normalized)


def test_mixing_of_another_dtype_is_refused():
    network = MgNO(in_channels=1, channels=4, levels=[(1, 0), (1, 0)])
    network.mixing.float()
    with pytest.raises(RuntimeError, match="dtype"):
        network(torch.randn(1, 1, 8, 8))
