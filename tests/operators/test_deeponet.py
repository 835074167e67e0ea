"""DeepONet on grids that it was not made for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.operators import DeepONet


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(periodic: bool | tuple[bool, bool] = False) -> DeepONet:
    torch.manual_seed(0)
    settings = {"in_channels": 2, "out_channels": 3, "basis": 16, "width": 4}
    return DeepONet(grid=(8, 12), periodic=periodic, **settings).double()  # type: ignore[arg-type]


def test_the_answer_is_a_function_of_the_place() -> None:
    """On a grid three times as fine every third cell centre is one of the coarse grid; on periodic axes every node."""
    x = normal(2, 2, 8, 12)
    coarse, fine = network()(x), network()(x, (24, 36))
    torch.testing.assert_close(fine[..., 1::3, 1::3], coarse, rtol=1e-10, atol=1e-12)
    coarse, fine = network((True, False))(x), network((True, False))(x, (16, 36))
    torch.testing.assert_close(fine[..., ::2, 1::3], coarse, rtol=1e-10, atol=1e-12)


def test_the_branch_sees_cell_averages() -> None:
    """An input on a finer grid counts by its averages over the cells of the stated grid."""
    deeponet, x = network(), normal(2, 2, 8, 12)
    detail = normal(2, 2, 8, 1, 12, 1) * torch.tensor([[1.0, -1.0, 0.0], [-2.0, 1.0, 1.0]])[:, None]
    fine = (x[:, :, :, None, :, None] + detail).reshape(2, 2, 16, 36)
    torch.testing.assert_close(deeponet(fine, (8, 12)), deeponet(x), rtol=1e-10, atol=1e-12)
    assert deeponet(fine).shape == (2, 3, 16, 36)


def test_the_answer_is_in_the_span_of_the_trunk() -> None:
    """30 inputs give answers of rank at most 16 (and their constants) in each channel."""
    y = network()(normal(30, 2, 8, 12))[:, 0].flatten(1).detach()
    assert int(torch.linalg.matrix_rank(y - y.mean(0), rtol=1e-10)) == 16


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"takes fields of shape \(batch, 2 channels, x, y\), got \(2, 1, 8, 12\)"):
        network()(normal(2, 1, 8, 12))
    with pytest.raises(InputError, match="give a bool, or one for each axis"):
        DeepONet(in_channels=1, out_channels=1, grid=(8,), periodic=(True, False))
    with pytest.raises(InputError, match=r"grid is \(8, -1\)"):
        DeepONet(in_channels=1, out_channels=1, grid=(8, -1))
