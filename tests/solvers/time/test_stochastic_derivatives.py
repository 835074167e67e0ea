"""What derivatives of stochastic runs are of, and that none are kept where none are asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import sciml
from sciml import StochasticSystem
from sciml.solvers.time import BrownianPath, EulerMaruyama, Milstein, StochasticRungeKutta
from sciml.solvers.time.stochastic import StochasticIntegrator

METHODS = [StochasticRungeKutta.sosri2(), Milstein(), EulerMaruyama()]
PATH = BrownianPath((0.0, 1.0), (4, 2), seed=6)


def end(initial: Tensor, method: StochasticIntegrator, size: Tensor | float = 0.5, **options: str) -> Tensor:
    system = StochasticSystem(lambda u, t: -torch.sin(u), lambda u, t: size * torch.cos(u), (2,), path=PATH)
    return sciml.evolve(system, initial=initial, times=(0.0, 1.0), method=method, step=0.1, **options).value[:, -1]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.describe())
def test_values_that_depend_on_nothing_have_no_derivatives(method: StochasticIntegrator) -> None:
    assert not end(torch.ones(2).double(), method).requires_grad


@pytest.mark.parametrize("gradient", ["recorded", "checkpointed"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.describe())
def test_a_parameter_of_the_diffusion_alone(method: StochasticIntegrator, gradient: str) -> None:
    start, root = torch.ones(2).double(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    value = end(start, method, root**2, gradient=gradient)
    (found,) = torch.autograd.grad(value.sum(), root)
    width = 1e-5
    with torch.no_grad():
        above, below = (end(start, method, (root + change) ** 2).sum() for change in (width, -width))
    torch.testing.assert_close(found, (above - below) / (2 * width), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.describe())
def test_dual_numbers(method: StochasticIntegrator) -> None:
    start, direction = torch.tensor([1.0, -0.5]).double(), torch.tensor([0.3, 0.7]).double()
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(end(forward_ad.make_dual(start, direction), method)).tangent
    width = 1e-5
    with torch.no_grad():
        change = (end(start + width * direction, method) - end(start - width * direction, method)) / (2 * width)
    torch.testing.assert_close(found, change, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("tracked", [False, True])
def test_one_number_is_a_state(tracked: bool) -> None:
    path = BrownianPath((0.0, 1.0), (), seed=6)
    system = StochasticSystem(lambda u, t: 0.5 * u, lambda u, t: 0.8 * u, (), path=path)
    with torch.set_grad_enabled(tracked):
        value = sciml.evolve(system, initial=torch.tensor(1.0).double(), times=(0.0, 1.0), step=1 / 512).value
    exact = torch.exp(0.18 + 0.8 * path.increments(0.0, 1.0)[0])
    torch.testing.assert_close(value[-1], exact, rtol=1e-3, atol=0.0)
