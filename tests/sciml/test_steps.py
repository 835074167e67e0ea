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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("shape", "axes"), [((5,), 0), ((4, 9), 1), ((2, 3, 40, 50), 2)])
@pytest.mark.parametrize("columns", [False, True])
def test_every_row_may_have_a_tolerance_of_its_own(shape, axes, dtype, columns):
    generator = torch.Generator().manual_seed(1)
    error, before, after = (torch.randn(shape, dtype=dtype, generator=generator) for _ in range(3))
    if columns and len(shape) == 2:
        error, before, after = (x.t().contiguous().t() for x in (error, before, after))
    atol = torch.logspace(-3, 3, torch.Size(shape[: len(shape) - axes]).numel(), dtype=dtype)
    atol = atol.reshape(error.shape[: error.ndim - axes])
    together = root_mean_square_ratio(error, before, after, 0.1, atol, axes)
    tracked = root_mean_square_ratio(error.clone().requires_grad_(), before, after, 0.1, atol, axes)
    torch.testing.assert_close(tracked.detach(), together)
    for row in range(len(atol)):
        alone = root_mean_square_ratio(
            error[row].contiguous(), before[row].contiguous(), after[row].contiguous(), 0.1, atol[row], axes
        )
        torch.testing.assert_close(together[row], alone)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_an_error_of_nothing_is_nothing_and_has_a_derivative(shape, tracked):
    zero = torch.zeros(shape, dtype=torch.float64, requires_grad=tracked)
    state = torch.zeros(shape, dtype=torch.float64)
    axes = max(0, len(shape) - 1)
    ratio = root_mean_square_ratio(zero, state, state, 1e-6, 0.0, axes)
    assert float(ratio.detach().abs().max()) < 1e-100
    if tracked:
        (slope,) = torch.autograd.grad(root_mean_square_ratio(zero, state, state, 1e-6, 1.0, axes).sum(), zero)
        assert bool(torch.isfinite(slope).all())
