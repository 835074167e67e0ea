"""Under torch.autocast: what is solved keeps its digits, and stands between layers that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sciml
from sciml import FunctionSystem
from sciml.solvers.neural_de import ErrorEstimate, NeuralODE, NeuralSDE
from sciml.solvers.neural_de.layers import Autonomous

TIMES = (0.0, 0.1, 0.2, 0.3, 0.4, 1.0)


def ordinary(net: nn.Module, x: Tensor) -> Tensor:
    return NeuralODE(net, interval=(0.0, 1.0), rtol=1e-5, atol=1e-5)(x, TIMES)[0]


def by_torchdiffeq(net: nn.Module, x: Tensor) -> Tensor:
    pytest.importorskip("torchdiffeq")
    return NeuralODE(net, interval=(0.0, 1.0), rtol=1e-5, atol=1e-5, backend="torchdiffeq")(x, TIMES)[0]


def stochastic(net: nn.Module, x: Tensor) -> Tensor:
    return NeuralSDE(net, lambda u, t: 0.2 * u, interval=(0.0, 1.0), step=0.05)(x, seed=0)[0]


def evolved(net: nn.Module, x: Tensor) -> Tensor:
    system = FunctionSystem(net, (3,), dtype=x.dtype)
    return sciml.evolve(system, initial=x, times=TIMES, rtol=1e-5, atol=1e-5).value


@pytest.mark.parametrize("solve", [ordinary, by_torchdiffeq, stochastic, evolved])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_solve_is_the_same(solve: Callable[[Any, Tensor], Tensor], gradients: bool) -> None:
    torch.manual_seed(0)
    net, x = Autonomous((3, 8, 3)), torch.randn(5, 3)
    with torch.set_grad_enabled(gradients):
        plain = solve(net, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = solve(net, x)
            assert torch.is_autocast_enabled("cpu")
            assert (x @ x.mT).dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)


def test_it_trains_between_layers_of_half_precision() -> None:
    torch.manual_seed(0)
    encoder, head = nn.Linear(4, 3), nn.Linear(3, 2)
    ode = NeuralODE(Autonomous((3, 8, 3)), interval=(0.0, 1.0), regularizer=ErrorEstimate(), rtol=1e-4, atol=1e-4)
    modules = nn.ModuleList([encoder, ode, head])
    x = torch.randn(6, 4)

    def gradients() -> list[Tensor]:
        modules.zero_grad()
        code = encoder(x)
        end, solution = ode(code)
        assert end.dtype == torch.float32
        assert torch.isfinite(solution.statistics["penalty"]).all()
        head(end).float().square().mean().backward()
        return [parameter.grad.clone() for parameter in modules.parameters() if parameter.grad is not None]

    plain = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = gradients()
    assert len(low) == len(plain) == len(list(modules.parameters()))
    for one, other in zip(low, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05 * float(other.abs().max()))
