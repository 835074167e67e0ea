"""Normalization: its statistics, and what the network and the caller see."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.operators import FNO, Normalized
from sciml.operators.coordinates import coordinate_channels, coordinate_count


class Recorder(nn.Module):
    """Keeps what it was given, and answers its first channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x[:, : self.channels]


def data(seed: int, count: int, *, size: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs of two channels with a mean far beyond the deviation, outputs of one."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((count, 2, size, 4), generator=generator, dtype=torch.float64)
    x = x * torch.tensor([0.01, 3.0])[:, None, None] + torch.tensor([1e5, -2.0])[:, None, None]
    return x, torch.rand((count, 1, size, 4), generator=generator, dtype=torch.float64) * 1e-6


def test_statistics_of_batches_are_those_of_all_points_together() -> None:
    batches = [data(0, 3), data(1, 8), data(2, 1), data(3, 2, size=9)]
    fitted = Normalized.fit(Recorder(1).double(), batches)
    for place, name in enumerate(("input", "output")):
        points = torch.cat([batch[place].movedim(1, 0).flatten(1) for batch in batches], 1)
        std, mean = torch.std_mean(points, 1, correction=0)
        torch.testing.assert_close(getattr(fitted, f"{name}_mean").double(), mean, rtol=1e-6, atol=0.0)
        torch.testing.assert_close(getattr(fitted, f"{name}_std").double(), std, rtol=1e-6, atol=0.0)


def test_the_network_sees_numbers_of_size_one_and_the_caller_physical_units() -> None:
    x, y = data(4, 10)
    network = Recorder(1)
    network.register_parameter("like", nn.Parameter(torch.zeros((), dtype=torch.float64)))
    fitted = Normalized.fit(network, [(x, y)])
    answer = fitted(x)
    (seen,) = network.seen
    std, mean = torch.std_mean(seen, (0, 2, 3), correction=0)
    torch.testing.assert_close(std, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), rtol=0.0, atol=1e-6)
    std, mean = torch.std_mean(answer, correction=0)
    assert mean.item() == pytest.approx(y.mean().item(), rel=1e-6)
    assert std.item() == pytest.approx(y.std(correction=0).item(), rel=1e-6)


def test_the_logarithm_of_positive_inputs() -> None:
    x = torch.tensor([[[1.0, 10.0], [5.0, 6.0]], [[100.0, 1000.0], [7.0, 8.0]]])
    network = Recorder(2)
    fitted = Normalized.fit(network, [(x, x)], logarithm=(True, False))
    fitted(x)
    line = torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5  # 0, 1, 2, 3 with mean 0 and deviation 1
    expected = torch.stack((line.reshape(2, 2), line.reshape(2, 2)), 1)
    torch.testing.assert_close(network.seen[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="logarithm of input channel 1, which has the value -5"):
        Normalized.fit(network, [(x - torch.tensor([[0.0], [10.0]]), x)], logarithm=True)


def test_a_constant_channel_is_moved_to_zero() -> None:
    x = torch.full((4, 1, 5), 0.1)
    network = Recorder(1)
    fitted = Normalized.fit(network, [(x, x)] * 3)
    torch.testing.assert_close(fitted(x), x)
    assert fitted.input_std.tolist() == [1.0]
    assert network.seen[0].abs().max() < 1e-7


def test_coordinates_are_given_as_further_channels() -> None:
    network = Recorder(1)
    fitted = Normalized(network, [0.0], [1.0], [0.0], [1.0], coordinates=(True, False))
    fitted(torch.zeros(2, 1, 4, 5))
    (seen,) = network.seen
    assert seen.shape == (2, 4, 4, 5)
    assert seen[1, 1, :, 3].tolist() == pytest.approx([0, 1, 0, -1], abs=1e-7)
    assert seen[1, 2, :, 3].tolist() == pytest.approx([1, 0, -1, 0], abs=1e-7)
    assert seen[0, 3, 2].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


@pytest.mark.parametrize("periodic", [(False,), (True,), (True, False, False)])
@pytest.mark.parametrize("harmonics", [0, 1, 3])
def test_number_of_coordinate_channels(periodic: tuple[bool, ...], harmonics: int) -> None:
    shape = (5, 4, 3)[: len(periodic)]
    channels = coordinate_channels(shape, periodic, harmonics=harmonics)
    assert channels.shape == (coordinate_count(periodic, harmonics), *shape)


def test_settings_make_it_again() -> None:
    torch.manual_seed(0)
    network = FNO(in_channels=4, out_channels=1, modes=(4, 4), width=4, positions=None)
    x = torch.rand(3, 2, 8, 8) + 1.0
    fitted = Normalized.fit(network, [(x, x[:, :1])], logarithm=(True, False), coordinates=(False, False))
    again = Normalized(network, **json.loads(json.dumps(fitted.settings)))
    assert torch.equal(again(x), fitted(x))


def test_refusals() -> None:
    network = FNO(in_channels=2, out_channels=1, modes=(4, 4), width=4)
    one, two = [1.0], [1.0, 1.0]
    with pytest.raises(InputError, match=r"in_channels of FNO is 2, but there are 3 \(1 and 2 of coordinates\)"):
        Normalized(network, one, one, one, one, coordinates=(False, False))
    with pytest.raises(InputError, match="out_channels of FNO is 1, but there are 2"):
        Normalized(network, two, two, two, two)
    with pytest.raises(InputError, match=r"input_std is \[1.0, 0.0\]; it must be positive"):
        Normalized(network, two, [1.0, 0.0], one, one)
    with pytest.raises(InputError, match="output_mean is one finite number a channel"):
        Normalized(network, two, two, [float("nan")], one)
    with pytest.raises(InputError, match="no samples were given"):
        Normalized.fit(network, [])
    x = torch.zeros(2, 2, 4, 4)
    y = x[:, :1].clone()
    y[0, 0, 0, 0] = torch.inf
    with pytest.raises(InputError, match=r"the outputs hold NaN or infinite values in channels \[0\]"):
        Normalized.fit(network, [(x, y)])
    with pytest.raises(InputError, match=r"\(batch, 2 channels, \*space\), got \(2, 1, 4, 4\)"):
        Normalized(network, two, two, one, one)(y)


def test_a_channel_that_is_constant_but_for_rounding() -> None:
    """Of float32 numbers near 1: their last bits are no information."""
    x = 1 + 1e-7 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made = Normalized.fit(torch.nn.Identity(), [(x, x)])
    assert made.input_std.tolist() == [1.0]


def test_digits_beyond_those_of_the_network_count() -> None:
    """300 +- 0.001: in float32 there are some 30 numbers in that range."""
    noise = torch.randn(4, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = 300 + 1e-3 * noise
    network = Normalized(nn.Identity(), [300.0], [1e-3], [1e5], [1.0])
    answer = network(x)
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer - 1e5, (x - 300) / float(network.input_std), rtol=1e-6, atol=1e-6)
    assert network(x.float()).dtype == torch.float32
