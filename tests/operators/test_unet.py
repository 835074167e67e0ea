"""The U-Net's boundaries and grid sizes."""

from __future__ import annotations

from math import pi

import pytest
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.operators import UNet
from sciml.operators.resampling import resample


def random_network(padding: object, **settings: object) -> UNet:
    torch.manual_seed(0)
    network = UNet(in_channels=1, out_channels=1, width=4, levels=3, padding=padding, **settings).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return network


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_translations_by_the_coarsest_spacing_commute_with_a_periodic_network() -> None:
    network = random_network("circular")
    u = normal(1, 1, 16, 24)
    moved = network(u.roll((4, -8), (2, 3)))
    torch.testing.assert_close(moved, network(u).roll((4, -8), (2, 3)), rtol=1e-10, atol=1e-12)


def test_reflecting_walls_are_those_of_the_mirrored_field() -> None:
    """With kernels that are symmetric along x: the even field on twice the circle."""
    even, circular = random_network(("even", "circular")), random_network("circular")
    with torch.no_grad():
        for parameter in even.parameters():
            if parameter.dim() == 4:
                parameter.copy_((parameter + parameter.flip(2)) / 2)
    circular.load_state_dict(even.state_dict())
    u = normal(1, 1, 16, 12)
    mirrored = circular(torch.cat((u, u.flip(2)), 2))
    torch.testing.assert_close(mirrored[:, :, :16], even(u), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["circular", "even", "zeros"])
def test_values_change_little_from_one_size_to_the_next(padding: str) -> None:
    """Of one smooth field: from 64 to 65, which cannot be halved, less than from 64 to 66."""
    network = random_network(padding)

    def answer(n: int) -> Tensor:
        x, y = torch.meshgrid(
            *[(torch.arange(size, dtype=torch.float64) + 0.5) / size for size in (n, 24)], indexing="ij"
        )
        u = torch.cos(2 * pi * x) * (1 + torch.sin(2 * pi * (x - y)))
        return resample(network(u[None, None]), (16, 24), (False, False), held=True).detach()

    for n in (64, 100, 210):
        base = answer(n)
        to_next, to_second = (float((answer(n + k) - base).norm() / (base - base.mean()).norm()) for k in (1, 2))
        assert to_next < to_second < 0.6 / n


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (5, 3), (13, 64)])
def test_a_constant_stays_constant_on_every_grid(shape: tuple[int, int]) -> None:
    """No size leaves a seam, and a wall that reflects none either."""
    network = random_network(("even", "circular"))
    out = network(torch.ones(1, 1, *shape, dtype=torch.float64))
    torch.testing.assert_close(out, network(torch.ones(1, 1, 8, 8, dtype=torch.float64))[..., :1, :1].expand_as(out))


def test_refusals() -> None:
    with pytest.raises(InputError, match="dimension speaks of 4 axes"):
        UNet(in_channels=1, out_channels=1, dimension=4)
    with pytest.raises(InputError, match="levels is 0"):
        UNet(in_channels=1, out_channels=1, levels=0)
