"""Functions of coordinates and time: which ones they are, and their derivatives in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.errors import InputError
from sciml.time_functions import depends_on_time, time_derivative

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


def test_a_change_that_torch_does_not_know_of_is_refused() -> None:
    hidden = time_derivative(lambda x, t: x * float(t.detach()) ** 2, "the value")
    with pytest.raises(InputError, match=r"the value changes in time.*torch.sin\(t\), not math.sin\(t\)"):
        hidden(X, torch.tensor(0.5, dtype=torch.float64))
