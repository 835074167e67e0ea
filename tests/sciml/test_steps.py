"""The compiled error ratio of a step against its definition."""

from __future__ import annotations

import pytest
import torch

from sciml.evolving import root_mean_square_ratio
from sciml.kernels import build, steps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("shape", "axes"), [((), 0), ((5,), 0), ((7,), 1), ((4, 9), 1), ((2, 3, 40, 50), 2), ((3, 100_000), 1)]
)
@pytest.mark.parametrize("columns", [False, True])
def test_it_is_the_root_mean_square(shape, axes, dtype, columns):
    generator = torch.Generator().manual_seed(len(shape))
    error, before, after = (torch.randn(shape, dtype=dtype, generator=generator) for _ in range(3))
    if columns and len(shape) == 2:
        error, before, after = (x.t().contiguous().t() for x in (error, before, after))
    ratio = error / (0.01 + 0.1 * torch.maximum(before.abs(), after.abs()))
    expected = ratio.abs() if axes == 0 else ratio.flatten(-axes).double().square().mean(-1).sqrt().to(dtype)
    torch.testing.assert_close(root_mean_square_ratio(error, before, after, 0.1, 0.01, axes), expected)
    if build.library() is not None:
        compiled = steps.error_ratio(error, before, after, 0.1, 0.01, axes)
        torch.testing.assert_close(compiled, expected)
    tracked = root_mean_square_ratio(error.requires_grad_(), before, after, 0.1, 0.01, axes)
    torch.testing.assert_close(tracked.detach(), expected)
    assert tracked.requires_grad


def test_a_row_with_nan_is_nan_and_the_others_are_not():
    error, state = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    error[1, 0] = torch.nan
    ratio = root_mean_square_ratio(error, state, state, 1.0, 0.0, 1)
    assert ratio.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(ratio[[0, 2]], torch.ones(2, dtype=torch.float64))
