"""The compiled convolutions against torch's."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sciml.errors import InputError
from sciml.kernels import build, convolution
from sciml.kernels.convolution import PLAIN, correlate, gather, recorded, spread

pytestmark = pytest.mark.skipif(build.library() is None, reason="no C++ compiler")

KINDS = [(1, 1), (1, 3), (2, 3), (2, 4)]  # stride, points
SHAPES = [(1, 1), (2, 3), (5, 7), (16, 33), (9, 81), (4, 150), (64, 64)]
CHANNELS = [(2, 24, 24), (1, 1, 5), (1, 7, 32), (3, 3, 2)]  # batch, fine, coarse


def made(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def torchs(f: Tensor, w: Tensor, stride: int) -> Tensor:
    """The same sum by torch: zeros enough on all sides, then the points that the coarse grid has."""
    n, m = (-(-k // stride) for k in f.shape[2:])
    around = (1, 4, 1, 4) if w.shape[-1] > 1 else (0, 0, 0, 0)
    return functional.conv2d(functional.pad(f, around), w, stride=stride)[:, :, :n, :m]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", SHAPES)
@pytest.mark.parametrize(("stride", "points"), KINDS)
def test_values(stride: int, points: int, space: tuple[int, int], dtype: torch.dtype) -> None:
    """gather, its adjoint and its derivative, with all that may be added, to rounding of the largest value."""
    rounding = 1e-13 if dtype == torch.float64 else 1e-5
    for batch, fine, coarse in CHANNELS:
        f, w = made(batch, fine, *space).requires_grad_(), made(coarse, fine, points, points).requires_grad_()
        expected = torchs(f, w, stride)
        c, bias, more = made(*expected.shape), made(coarse), made(*f.shape) + 1
        of_f, of_w = torch.autograd.grad(expected, (f, w), c)
        given = [t.detach().to(dtype) for t in (f, w, c, bias, more)]

        def close(found: Tensor, expected: Tensor) -> None:
            error = (found.to(torch.float64) - expected).abs().max() / expected.abs().max()
            assert found.dtype == dtype
            assert float(error) < rounding

        f_, w_, c_, bias_, more_ = given
        close(gather(f_, w_, stride), expected.detach())
        close(gather(f_, w_, stride, c_, -0.5, bias_), (c - 0.5 * (bias[:, None, None] + expected)).detach())
        close(spread(c_, w_, stride, space), of_f)
        close(spread(c_, w_, stride, space, more_, 2.0), more + 2 * of_f)
        close(correlate(f_, c_, stride, points), of_w)


@pytest.mark.parametrize(("stride", "points"), KINDS)
def test_derivatives_of_first_and_second_order(stride: int, points: int) -> None:
    f, w, bias = made(2, 2, 5, 6), made(3, 2, points, points), made(3)
    c, more = made(2, 3, *(-(-n // stride) for n in (5, 6))), made(2, 2, 5, 6) + 1
    inputs = [t.requires_grad_() for t in (f, w, c, bias)]
    ups = partial(gather, stride=stride)
    downs = partial(spread, stride=stride, fine=(5, 6))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda f, w, c, bias: ups(f, w, add=c, factor=-2.0, bias=bias), inputs)
        assert check(lambda c, w, more: downs(c, w, add=more, factor=3.0), (c, w, more.requires_grad_()))
        assert check(lambda f, c: correlate(f, c, stride, points), (f, c))


def smoothed(steps: convolution.Tape | convolution.Plain, f: Tensor, weights: list[Tensor]) -> Tensor:
    """A cycle of two levels; weights and fields occur several times."""
    a, s, r, p, bias = weights
    u = steps.gather(f, s, 1)
    u = steps.gather(steps.gather(u, a, 1, f, -1, bias), s, 1, u)
    coarse = steps.gather(steps.gather(u, a, 1, f, -1), r, 2)
    u = steps.spread(coarse, p, 2, f.shape[2:], u)
    return steps.gather(steps.gather(u, a, 1, f, -1, bias), s, 1, u)


def test_recorded_steps() -> None:
    """One node of the graph has the values and the derivatives of first and second order of its steps one by one."""
    weights = [made(2, 3, 3, 3), made(3, 2, 3, 3), made(4, 2, 3, 3), made(4, 3, 4, 4), made(2)]
    f = made(2, 2, 7, 9)
    inputs = [t.requires_grad_() for t in (f, *weights)]

    def whole(f: Tensor, *weights: Tensor) -> Tensor:
        return recorded(lambda steps, f: smoothed(steps, f, list(weights)), f, weights)

    plain, one = smoothed(PLAIN, f, weights), whole(*inputs)
    torch.testing.assert_close(one, plain, rtol=0, atol=0)
    g = made(*one.shape)
    for found, expected in zip(
        torch.autograd.grad(one, inputs, g), torch.autograd.grad(plain, inputs, g, create_graph=True), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slopes = [
        torch.autograd.grad(
            sum((t**2).sum() for t in torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)),
            inputs,
        )
        for function in (whole, lambda f, *weights: smoothed(PLAIN, f, list(weights)))
    ]
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_recorded_steps_of_frozen_weights() -> None:
    """Only what is asked for is computed; nothing is where nothing is asked for."""
    weights = [made(2, 3, 3, 3), made(3, 2, 3, 3), made(4, 2, 3, 3), made(4, 3, 4, 4), made(2)]
    f = made(2, 2, 7, 9)
    weights[2].requires_grad_()
    one = recorded(lambda steps, f: smoothed(steps, f, weights), f, weights)
    (found,) = torch.autograd.grad(one, weights[2], made(*one.shape))
    (expected,) = torch.autograd.grad(smoothed(PLAIN, f, weights), weights[2], made(*one.shape))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    frozen = [w.detach() for w in weights]
    assert recorded(lambda steps, f: smoothed(steps, f, frozen), f, frozen).grad_fn is None


def test_threads() -> None:
    f, w, c = made(3, 5, 33, 20), made(4, 5, 3, 3), made(3, 4, 33, 20)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append([gather(f, w, 1), spread(c, w, 1, (33, 20)), correlate(f, c, 1, 3)])
    torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_fields_of_other_strides() -> None:
    f, w = made(2, 3, 8, 6), made(4, 3, 3, 3)
    shuffled = f.to(memory_format=torch.channels_last)
    flipped = w.movedim(-1, -2).contiguous().movedim(-1, -2)
    torch.testing.assert_close(gather(shuffled, flipped, 1), gather(f, w, 1), rtol=0, atol=0)


def test_where_they_apply() -> None:
    f, w = made(2, 3, 8, 6), made(4, 3, 3, 3)
    assert convolution.applies(f, w)
    assert not convolution.applies(f.float(), w)
    assert not convolution.applies(f[0], w)
    assert not convolution.applies(f[:0], w)
    assert not convolution.applies(f.to(torch.bfloat16), w.to(torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolution.applies(f, w)
    torch.func.vmap(lambda f: torch.zeros(()) if convolution.applies(f[None], w) is False else 1 / 0)(f)


def test_recorded_steps_whose_sums_meet_a_derivative_of_other_strides() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64)

    def twice_added(steps: convolution.Tape | convolution.Plain, x: Tensor) -> Tensor:
        first = steps.gather(x, w, 1)
        return steps.gather(steps.gather(first, w, 1, x), w, 1, x)

    plain = [torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64)]
    plain += [plain[0].contiguous(memory_format=torch.channels_last), plain[0].transpose(2, 3).contiguous().mT]
    for g in plain:
        kept = g.clone()
        (found,) = torch.autograd.grad(convolution.recorded(twice_added, x, [w]), x, g)
        (known,) = torch.autograd.grad(twice_added(convolution.PLAIN, x), x, g)
        torch.testing.assert_close(found, known, rtol=1e-12, atol=1e-12)
        assert (g == kept).all()


def test_what_recorded_steps_return_may_be_changed_in_place() -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    y = convolution.recorded(lambda steps, x: steps.gather(x, w, 1), x, [w])
    y.mul_(2)
    (found,) = torch.autograd.grad(y.sum(), x)
    expected = torch.autograd.grad(2 * torch.nn.functional.conv2d(x, w, padding=1).sum(), x)[0]
    torch.testing.assert_close(found, expected)


def test_shapes_that_do_not_belong_together() -> None:
    f = torch.ones(2, 3, 8, 8)
    with pytest.raises(InputError, match="does not lead from a field"):
        convolution.gather(f, torch.ones(4, 2, 3, 3), 2)
    for coarse in ((2, 4, 5, 4), (1, 4, 4, 4)):
        with pytest.raises(InputError, match="does not lead from a field"):
            convolution.correlate(f, torch.ones(coarse), 2, 3)


def test_dtypes_and_sums_that_do_not_belong_together() -> None:
    x, w = torch.ones(1, 2, 4, 4), torch.ones(2, 2, 3, 3)
    with pytest.raises(InputError, match="cannot be made of fields and weights"):
        convolution.gather(x, w.double(), 1)
    with pytest.raises(InputError, match="cannot be made of fields and weights"):
        convolution.gather(x, w, 1, torch.ones(1, 2, 3, 4))
