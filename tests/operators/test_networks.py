"""What holds for every network: a new one joins by a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.operators import FNO, DeepONet, LegacyH1, MgNO, Normalized, RelativeH1, RelativeL2, UNet

# Name -> (how to make it, a grid that it takes); two channels in, one out.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "FNO 1": (lambda: FNO(in_channels=2, out_channels=1, modes=(6,), width=6, layers=2), (16,)),
    "FNO 2": (lambda: FNO(in_channels=2, out_channels=1, modes=(4, 5), width=6, layers=2, padding=0.1), (10, 9)),
    "FNO 3": (
        lambda: FNO(in_channels=2, out_channels=1, modes=(3, 4, 4), width=4, layers=2, positions=None),
        (5, 6, 4),
    ),
    "DeepONet 1": (lambda: DeepONet(in_channels=2, out_channels=1, grid=(12,), basis=8, width=4, periodic=True), (12,)),
    "DeepONet 2": (lambda: DeepONet(in_channels=2, out_channels=1, grid=(8, 8), basis=8, width=4), (10, 7)),
    "DeepONet 3": (lambda: DeepONet(in_channels=2, out_channels=1, grid=(6, 6, 6), basis=8, width=4), (6, 6, 6)),
    "MgNO 1": (
        lambda: MgNO(
            in_channels=2,
            out_channels=1,
            channels=4,
            layers=2,
            levels=((1, 0), (1, 1)),
            dimension=1,
            padding="odd",
            restriction="residual",
            bias=True,
            residual_output=True,
        ),
        (13,),
    ),
    "MgNO 2": (
        lambda: MgNO(
            in_channels=2,
            out_channels=1,
            channels=(4, 6),
            layers=2,
            levels=((1, 0), (2, 0)),
            cycle="W",
            padding=("circular", ("even", "odd")),
            normalized=(12, 9),
        ),
        (10, 7),
    ),
    "MgNO 3": (
        lambda: MgNO(
            in_channels=2,
            out_channels=1,
            channels=3,
            layers=2,
            levels=((1, 0), (1, 0)),
            dimension=3,
            coarse_start="zero",
            prolongation=3,
            pointwise=False,
        ),
        (6, 5, 4),
    ),
    "UNet 1": (lambda: UNet(in_channels=2, out_channels=1, dimension=1, width=4, levels=3, padding="even"), (13,)),
    "UNet 2": (lambda: UNet(in_channels=2, out_channels=1, width=4, levels=3, padding=("circular", "odd")), (12, 9)),
    "UNet 3": (lambda: UNet(in_channels=2, out_channels=1, dimension=3, width=4, levels=2), (6, 5, 4)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """The network with weights from a seed, and a batch of three samples."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = make()
    return network, torch.randn(3, 2, *shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Along one direction of all parameters and the input."""
    network, x = made(name)
    network, x = network.double(), x.double()
    parameters = {key: value.detach() for key, value in network.named_parameters()}
    generator = torch.Generator().manual_seed(1)

    def direction(value: Tensor) -> Tensor:
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)

    steps = {key: direction(value) for key, value in parameters.items()}
    step, weight = direction(x), direction(network(x))

    def value(t: float | Tensor) -> Tensor:
        moved = {key: parameters[key] + t * steps[key] for key in parameters}
        return (torch.func.functional_call(network, moved, (x + t * step,)) * weight).sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(t), t)
    size = 1e-4
    # Of fourth order in the size of the step.
    points = [float(value(k * size).detach()) for k in (-2, -1, 1, 2)]
    difference = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * size)
    assert gradient.item() == pytest.approx(difference, rel=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_settings_and_weights_make_it_again(name: str, tmp_path: Path) -> None:
    network, x = made(name)
    settings: dict[str, Any] = json.loads(json.dumps(network.settings))
    again = type(network)(**settings)
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}  # convolutions order them freely
    save_file(weights, tmp_path / "weights.safetensors")
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert again.settings == network.settings
    assert torch.equal(again(x), network(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_of_a_batch_do_not_see_each_other(name: str) -> None:
    network, x = made(name)
    network, x = network.double(), x.double()
    alone = torch.cat([network(sample[None]) for sample in x])
    torch.testing.assert_close(network(x), alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_single_precision_is_double_precision_to_its_rounding(name: str) -> None:
    network, x = made(name)
    single = network(x).detach().double()
    double = network.double()(x.double()).detach()
    assert float((single - double).norm() / double.norm()) < 1e-5


@pytest.mark.parametrize("name", ["FNO 2", "DeepONet 2", "MgNO 1", "MgNO 2", "UNet 2"])
def test_half_precision_is_near(name: str) -> None:
    network, x = made(name)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x).detach().double()
    exact = network(x).detach().double()
    assert float((half - exact).norm() / exact.norm()) < 0.03


@pytest.mark.parametrize(
    "network",
    [
        FNO(in_channels=2, out_channels=1, modes=(4, 5), width=6, layers=2, padding=0.1),
        DeepONet(in_channels=2, out_channels=1, grid=(8, 8), basis=8, width=4, layers=1),
        MgNO(
            in_channels=2, channels=4, layers=2, levels=((1, 0), (1, 0)), padding=("circular", "odd"), normalized=(8, 8)
        ),
        UNet(in_channels=2, out_channels=1, width=4, levels=2, padding=("circular", "odd")),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_training_step_is_one_graph_for_the_compiler(network: nn.Module) -> None:
    """Network, normalization and all losses together, on a grid that is not even."""
    torch.manual_seed(0)
    grid = (10, 9)
    x = torch.randn(3, 2, *grid)
    normalized = Normalized(network, [0.5, 0.0], [1.0, 2.0], [0.1], [3.0], logarithm=(True, False))
    x, truth = x.abs() + 0.1, torch.randn(3, 1, *grid)
    losses = RelativeL2(), RelativeH1(tuple(1 / n for n in grid), (True, False), "zero"), LegacyH1()

    def step(x: Tensor, truth: Tensor) -> Tensor:
        prediction = normalized(x)
        return sum((loss(prediction, truth).mean() for loss in losses), torch.zeros(()))

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    values = step(x, truth), compiled(x, truth)
    parameters = list(network.parameters())
    eager, traced = (torch.autograd.grad(value, parameters) for value in values)
    torch.testing.assert_close(values[1], values[0])
    for ours, expected in zip(traced, eager, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.cuda
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gpu_gives_what_the_cpu_gives(name: str) -> None:
    network, x = made(name)
    network, x = network.double(), x.double()
    expected = network(x)
    found = network.to("cuda")(x.to("cuda"))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_refused_fields(name: str) -> None:
    network, x = made(name)
    kind = type(network).__name__
    with pytest.raises(InputError, match=rf"{kind}: takes fields of shape \(batch, 2 channels, x"):
        network(x[:, :1])
    with pytest.raises(InputError, match=rf"{kind}: takes fields of shape"):
        network(x[0])
    with pytest.raises(InputError, match=rf"{kind}: has weights in torch.float32, got fields in torch.float64"):
        network(x.double())
