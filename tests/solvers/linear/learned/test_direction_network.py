"""The published networks: their parameters, what they do to fields, and their files."""

from __future__ import annotations

import itertools

import pytest
import torch

from sciml.errors import InputError
from sciml.solvers.linear.learned import DirectionNetwork, save_weights
from sciml.solvers.linear.learned.direction_network import _doubled, _halved


@pytest.mark.parametrize(("size", "parameters"), [(64, 97_457), (128, 152_881)])
def test_the_published_networks_have_the_published_parameters(size, parameters):
    network = DirectionNetwork.published(size)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_network_is_what_it_says(dimension):
    """Against the same composition with a dense matrix for each convolution of one axis's neighbours."""
    network = DirectionNetwork(dimension, 3, (1, 2, 1), mean_square=False, seed=3)
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[dimension - 1]
    pool = (torch.nn.functional.avg_pool1d, torch.nn.functional.avg_pool2d, torch.nn.functional.avg_pool3d)
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("bias"):
            value.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(len(name)))

    def layer(x, name):
        return convolve(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def pair(x, name):
        return layer(layer(x, f"{name}.first").relu(), f"{name}.second").relu() + x

    x = torch.randn(2, *[6] * dimension, generator=torch.Generator().manual_seed(0))
    fine = layer(layer(x.unsqueeze(1), "first"), "enter").relu()
    fine = layer(pair(fine, "fine.0"), "leave").relu()
    coarse = pair(pair(pool[dimension - 1](fine, 2), "coarse.0"), "coarse.1")
    for axis in range(2, 2 + dimension):
        coarse = coarse.repeat_interleave(2, axis)
    whole = pair(coarse + fine, "end.0")
    expected = torch.einsum("nc...,c->n...", whole, state["last.weight"][0]) + state["last.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_an_odd_axis_has_a_last_cell_of_one_point():
    """Means over the cells that there are: of a sum of functions of one axis each, against those of numpy."""
    lengths = (5, 4, 7)
    x = sum(
        torch.arange(float(n)).square().reshape([-1 if i == a else 1 for i in range(3)]) for a, n in enumerate(lengths)
    )
    coarse = _halved(x.expand(2, 3, *lengths))
    assert coarse.shape == (2, 3, 3, 2, 4)
    for cell in itertools.product(range(3), range(2), range(4)):
        part = x[tuple(slice(2 * i, 2 * i + 2) for i in cell)]
        assert float(coarse[(1, 2, *cell)]) == pytest.approx(float(part.mean()))
    fine = _doubled(coarse, lengths)
    assert fine.shape == (2, 3, *lengths)
    assert torch.equal(fine[..., 4, 3, 6], coarse[..., 2, 1, 3]) and torch.equal(
        fine[..., 1, 2, 3], coarse[..., 0, 1, 1]
    )


@pytest.mark.parametrize("length", [1, 2, 5, 7, 8])
def test_a_single_field_gives_what_it_gives_among_others(length):
    network = DirectionNetwork(3, 4, (1, 1, 1), seed=1)
    x = torch.randn(2, length, 6, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = network(x)
        torch.testing.assert_close(network(x[1:]), together[1:], rtol=1e-4, atol=1e-5)
    alone = torch.autograd.grad(network(x[1:]).square().sum(), network.parameters())
    others = torch.autograd.grad(network(x)[1:].square().sum(), network.parameters())
    for one, other in zip(alone, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_with_a_mean_square_of_one_the_size_of_the_grid_does_not_matter():
    """Far from the boundary a field gives the same direction on grids of 16 and of 32 points, once it is normalized."""
    network = DirectionNetwork(1, 4, (1, 1, 1), seed=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05)
        wave = torch.arange(64.0).mul(torch.pi / 4).sin()
        one, two = (network((wave[:n] / wave[:n].norm())[None])[0] for n in (32, 64))
    torch.testing.assert_close(one[14:18], two[30:34], rtol=1e-4, atol=1e-5)


def test_files_are_read_back_to_the_bit(tmp_path):
    network = DirectionNetwork(2, 5, (1, 1, 2), mean_square=False, seed=4)
    network.save(tmp_path / "a.safetensors", {"seconds": 1.5})
    other = DirectionNetwork.load(tmp_path / "a.safetensors")
    assert other.settings == network.settings
    x = torch.randn(1, 8, 8)
    with torch.no_grad():
        assert torch.equal(other(x), network(x))


def test_files_of_other_networks_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    network = DirectionNetwork(2, 5)
    save_weights(path, "direction-network", {**network.settings, "channels": 6}, network)
    with pytest.raises(
        InputError, match=r"another architecture than DirectionNetwork: 'coarse.0.first.bias' has shape"
    ):
        DirectionNetwork.load(path)
    save_weights(path, "direction-network", {**network.settings, "layers": 6}, network)
    with pytest.raises(InputError, match=r"have settings of no such network: .*'layers'"):
        DirectionNetwork.load(path)
    save_weights(path, "multigrid", network.settings, network)
    with pytest.raises(InputError, match="holds weights of kind 'multigrid', and 'direction-network' is needed"):
        DirectionNetwork.load(path)


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="dimension must be 1, 2 or 3, got 4"):
        DirectionNetwork(4)
    with pytest.raises(InputError, match="channels must be a whole number"):
        DirectionNetwork(3, 0)
    for blocks in ((1, 2), 5):
        with pytest.raises(InputError, match="blocks are three counts"):
            DirectionNetwork(3, 16, blocks)
    with pytest.raises(InputError, match="those for 64 and 128 points an axis, got 256"):
        DirectionNetwork.published(256)
    with pytest.raises(InputError, match=r"of dimension 3: residuals have shape \(rows, \*space\), got \(1, 8, 8\)"):
        DirectionNetwork(3)(torch.zeros(1, 8, 8))
