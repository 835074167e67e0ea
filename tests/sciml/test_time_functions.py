"""Functions of coordinates and time: which ones they are, and their derivatives in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.errors import InputError
from sciml.given import call
from sciml.time_functions import clock, depends_on_time, time_derivative, value_at

X = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, False),
        (X, False),
        (lambda x, y: x, False),
        (lambda *c: c[0], False),
        (lambda x, y, t: x, True),
        (lambda x, y, t=0.0: x, True),
        (lambda x, y, s: x, True),
        (lambda x, y, scale=1.0: x, False),
    ],
)
def test_which_values_depend_on_time(value: Any, expected: bool) -> None:
    assert depends_on_time(value, 2, "value") is expected


class Net(torch.nn.Module):
    """A module whose forward takes one coordinate and the time."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cos(x) * torch.cos(t)


class Steady(torch.nn.Module):
    """One whose forward takes a coordinate alone."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x)


def test_modules_are_known_by_what_they_take() -> None:
    assert depends_on_time(Net(), 1, "field")
    assert not depends_on_time(Steady(), 1, "field")
    with pytest.raises(InputError, match="takes all 2 coordinates"):
        depends_on_time(Net(), 2, "field")
    x = torch.ones(3, dtype=torch.float64)
    with pytest.raises(InputError, match="does not take the 2 coordinates"):
        call(Steady(), (x, x), "field 'f'")
    t = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(time_derivative(Net(), "f")(x, t), -torch.cos(x) * torch.sin(t))


def test_late_times_reach_functions_of_float32_coordinates() -> None:
    """A time that float32 would round by 4, of all rows together and of rows by themselves."""
    x, late = torch.ones(3), 1e8
    for t in (late + 1.0, torch.tensor([late + 1.0, late + 2.0], dtype=torch.float64)):
        found = value_at(lambda x, t: x * torch.cos(t - late), (x,), clock(t, 1, x.device))
        expected = torch.cos(torch.as_tensor(t, dtype=torch.float64) - late)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, (x * expected.reshape(-1, 1)).float().reshape(found.shape))
    with pytest.raises(RuntimeError) as failed:
        value_at(lambda x, t: torch.dot(x, t.expand_as(x)), (x,), clock(late, 1, x.device))
    assert "write t.to(x.dtype)" in failed.value.__notes__[0]


def test_a_function_of_time_takes_all_coordinates() -> None:
    with pytest.raises(InputError, match=r"field 'f': a function of the time takes all 2 coordinates.*\(x, y, t\)"):
        depends_on_time(lambda x, t: x, 2, "field 'f'")


def wave(amplitude: Tensor) -> Callable[..., Tensor]:
    return lambda x, t: amplitude * torch.sin(t * x) + t**2


def first(amplitude: Any, t: Any) -> Any:
    return amplitude * X * torch.cos(t * X) + 2 * t


def second(amplitude: Any, t: Any) -> Any:
    return -amplitude * X**2 * torch.sin(t * X) + 2.0


@pytest.mark.parametrize("t", [torch.tensor(0.3), torch.tensor([[0.3], [0.8]])])
def test_derivatives_in_time(t: Tensor) -> None:
    t = t.double()
    amplitude = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    once = time_derivative(wave(amplitude), "f")
    twice = time_derivative(once, "f")
    torch.testing.assert_close(once(X, t), first(amplitude, t))
    torch.testing.assert_close(twice(X, t), second(amplitude, t))
    (found,) = torch.autograd.grad(twice(X, t).sum(), amplitude)
    torch.testing.assert_close(found, second(1.0, t).sub(2.0).sum())
    with torch.no_grad():
        assert not twice(X, t).requires_grad
    assert not time_derivative(wave(amplitude.detach()), "f")(X, t).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(once(X, t.clone()), first(amplitude, t))


@pytest.mark.parametrize("recording", [False, True])
def test_derivatives_in_time_within_forward_derivatives(recording: bool) -> None:
    t, one = torch.tensor(0.3, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)

    def twice(amplitude: Tensor) -> Tensor:
        return time_derivative(time_derivative(wave(amplitude), "f"), "f")(X, t)

    expected = second(1.0, t) - 2.0
    with torch.set_grad_enabled(recording), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(twice(forward_ad.make_dual(2 * one, one))).tangent
        torch.testing.assert_close(tangent, expected)
    torch.testing.assert_close(torch.func.jvp(twice, (2 * one,), (one,))[1], expected)


def test_values_that_rest_for_a_while() -> None:
    ramp = time_derivative(lambda x, t: x * min(t, 1.0), "f")
    torch.testing.assert_close(ramp(X, torch.tensor(0.5, dtype=torch.float64)), X)
    assert not bool(ramp(X, torch.tensor(2.0, dtype=torch.float64)).any())
    steady = time_derivative(lambda x, t: X * torch.ones((), dtype=torch.float64, requires_grad=True), "f")
    assert not bool(steady(X, torch.tensor(2.0, dtype=torch.float64)).any())


@pytest.mark.parametrize("function", [torch.cos, torch.square, lambda t: t**3, lambda t: 1e-9 * t**4 + 5.0])
def test_derivatives_where_a_function_turns(function: Any) -> None:
    """The derivative is 0 there, and every difference quotient is not."""
    for start in (0.0, 3.0):
        moving = time_derivative(lambda x, t, s=start: x * function(t - s), "the value")
        assert float(moving(X, torch.tensor(start, dtype=torch.float64)).abs().max()) < 1e-15


def test_a_change_that_torch_does_not_know_of_is_refused() -> None:
    hidden = time_derivative(lambda x, t: x * float(t.detach()) ** 2, "the value")
    with pytest.raises(InputError, match=r"the value changes in time.*torch.sin\(t\), not math.sin\(t\)"):
        hidden(X, torch.tensor(0.5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_change_that_torch_knows_a_part_of_is_refused(dtype: torch.dtype) -> None:
    x, t = X.to(dtype), torch.tensor(0.5, dtype=torch.float64)
    partly = time_derivative(lambda x, t: x * (torch.sin(t) + math.sin(3 * float(t.detach()))), "the value")
    scaled = time_derivative(lambda x, t: x * torch.exp(-t) * math.sin(3 * float(t.detach())), "the value")
    for function in (partly, scaled):
        with pytest.raises(InputError, match="the value changes in time"):
            function(x, t)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("frequency", "time"), [(1e-4, 0.0), (1.0, 1e8), (1e6, 0.0), (1e6, 0.3)])
def test_changes_slow_and_fast_early_and_late_are_known(dtype: torch.dtype, frequency: float, time: float) -> None:
    """And a corner, where the derivative is that to one side."""
    t = torch.tensor(time, dtype=torch.float64)
    found = time_derivative(lambda x, t: x * torch.sin(frequency * t), "the value")(X.to(dtype), t)
    torch.testing.assert_close(found, X.to(dtype) * frequency * math.cos(frequency * time))
    corner = time_derivative(lambda x, t: x * torch.clamp(t, max=time), "the value")(X.to(dtype), t)
    torch.testing.assert_close(corner, X.to(dtype))
