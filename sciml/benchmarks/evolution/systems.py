"""Systems of ordinary differential equations that the suite integrates, with their references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from .problems import Array


@dataclass(frozen=True, eq=False)
class SystemProblem:
    """dy/dt = f(t, y), rows of a batch.

    Args:
        rate: f of a time and a state `(batch, unknowns)`, of torch; a module where it has parameters.
        initial: `(batch, unknowns)`.
        times: the first is that of `initial`; dimensionless.
        tolerance: relative and absolute.
        text: the equations, none where the rate cannot be written so.
    """

    rate: Callable[[Any, Tensor], Tensor]
    initial: Tensor
    times: tuple[float, ...]
    tolerance: float
    text: Sequence[str] = ()

    @property
    def network(self) -> nn.Module:
        """The rate, where it is a module.

        Raises:
            TypeError: where it is not.
        """
        if not isinstance(self.rate, nn.Module):
            raise TypeError("this rate is not a network")
        return self.rate


class Network(nn.Module):
    """A perceptron 4-32-4 with tanh, whose weights are large enough for the trajectories to turn."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(4, 32), nn.Linear(32, 4)
        with torch.no_grad():
            for parameter, scale in zip(self.parameters(), (1.0, 0.5, 0.3, 0.1), strict=True):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        self.double()

    def forward(self, t: Any, y: Tensor) -> Tensor:
        del t
        found: Tensor = self.second(torch.tanh(self.first(y)))
        return found


def network(batch: int, end: float, device: str) -> SystemProblem:
    """The ODE of a small network, to 1e-6."""
    generator = torch.Generator().manual_seed(1)
    initial = torch.randn(batch, 4, generator=generator, dtype=torch.float64).to(device)
    return SystemProblem(Network().to(device), initial, (0.0, end), 1e-6)


def gradient_of(problem: SystemProblem, integrate: Callable[[Tensor], Tensor]) -> Tensor:
    """The derivative of the mean square of the final state with respect to the network's parameters, in one vector."""
    parameters = list(problem.network.parameters())
    final = integrate(problem.initial)
    return torch.cat([part.reshape(-1) for part in torch.autograd.grad(final.square().mean(), parameters)])


def classical(problem: SystemProblem, steps: int) -> Callable[[Tensor], Tensor]:
    """To the last of the times by the classical Runge-Kutta method with so many steps: a reference."""
    h = (problem.times[-1] - problem.times[0]) / steps

    def integrate(y: Tensor) -> Tensor:
        for i in range(steps):
            t = problem.times[0] + i * h
            a = problem.rate(t, y)
            b = problem.rate(t + h / 2, y + h / 2 * a)
            c = problem.rate(t + h / 2, y + h / 2 * b)
            d = problem.rate(t + h, y + h * c)
            y = y + h / 6 * (a + 2 * b + 2 * c + d)
        return y

    return integrate


VAN_DER_POL = ("x_t = y", "y_t = mu*(1 - x**2)*y - x")
MU = 2.0


def _van_der_pol_rate(t: Any, y: Tensor) -> Tensor:
    del t
    position, speed = y[..., 0], y[..., 1]
    return torch.stack([speed, MU * (1 - position**2) * speed - position], -1)


def van_der_pol(batch: int, outputs: int, end: float, device: str) -> SystemProblem:
    """Van der Pol's oscillator from random states, so that rows want different steps, to 1e-6.

    Args:
        batch: rows.
        outputs: times at which the solution is wanted, beside the first; 1 for the end alone.
        end: last of them, dimensionless.
        device: where.
    """
    generator = torch.Generator().manual_seed(2)
    initial = 2 * torch.randn(batch, 2, generator=generator, dtype=torch.float64).to(device)
    times = tuple(numpy.linspace(0.0, end, outputs + 1).tolist())
    return SystemProblem(_van_der_pol_rate, initial, times, 1e-6, VAN_DER_POL)


LORENZ = ("x_t = sigma*(y - x)", "y_t = x*(rho - z) - y", "z_t = x*y - beta*z")
LORENZ_PARAMETERS = {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}


def _lorenz_rate(t: Any, y: Tensor) -> Tensor:
    del t
    first, second, third = y[..., 0], y[..., 1], y[..., 2]
    sigma, rho, beta = LORENZ_PARAMETERS.values()
    rates = [sigma * (second - first), first * (rho - third) - second, first * second - beta * third]
    return torch.stack(rates, -1)


def lorenz(batch: int, end: float, device: str) -> SystemProblem:
    """Lorenz' attractor from states in [-2, 2]^3, at 192 times, to 1e-6: a data set of trajectories."""
    generator = torch.Generator().manual_seed(3)
    initial = 4 * torch.rand(batch, 3, generator=generator, dtype=torch.float64).to(device) - 2
    return SystemProblem(_lorenz_rate, initial, tuple(numpy.linspace(0.0, end, 192).tolist()), 1e-6, LORENZ)


def by_scipy(problem: SystemProblem, rows: int, tolerance: float = 1e-12) -> Array:
    """The first rows at all times, one after the other by scipy's order 8: a reference, `(rows, times, unknowns)`."""
    from scipy.integrate import solve_ivp

    def rate(t: float, y: Array) -> Array:
        found: Array = problem.rate(t, torch.from_numpy(y.reshape(rows, -1))).numpy().reshape(-1)
        return found

    start = problem.initial[:rows].cpu().numpy()
    span = problem.times[0], problem.times[-1]
    solved = solve_ivp(
        rate, span, start.reshape(-1), method="DOP853", rtol=tolerance, atol=tolerance, t_eval=problem.times
    )
    found: Array = numpy.moveaxis(solved.y.reshape(rows, -1, len(problem.times)), -1, 1)
    return found
