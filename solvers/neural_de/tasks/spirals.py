"""Spirals: a trajectory to be fitted, the moments of a stochastic one, and families observed here and there."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi, sqrt
from typing import final

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.function_system import FunctionSystem

from ...evolve import evolve
from ...time import ExplicitRungeKutta
from .data import Series

_MATRIX = ((-0.1, 2.0), (-2.0, -0.1))
_START = (2.0, 0.0)


def spiral(points: int = 30, end: float = 1.5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A trajectory of du/dt = u^3 A, element by element cubed, from (2, 0).

    Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018, whose example it
    is, with A = ((-0.1, 2), (-2, -0.1)).

    Args:
        points: equally spaced times from 0 to `end`, both included.
        end: the last time, dimensionless.
        dtype: of the values.

    Returns:
        The times `(points,)`, float64, and the values `(points, 2)`, exact to 1e-12.

    Raises:
        InputError: fewer than two points, or an end that is not positive.
    """
    times = _times(points, end)
    matrix = torch.tensor(_MATRIX, dtype=torch.float64)
    system = FunctionSystem(lambda u, t: u**3 @ matrix, (2,))
    start = torch.tensor(_START, dtype=torch.float64)
    method = ExplicitRungeKutta.prince_dormand()
    value = evolve(system, initial=start, times=times, method=method, rtol=1e-12, atol=1e-13).value
    return times, value.to(dtype)


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Means and variances of a stochastic process.

    Args:
        times: `(times,)`, float64.
        mean, variance: `(times, channels)`.
    """

    times: Tensor
    mean: Tensor
    variance: Tensor


def stochastic_spiral(
    points: int = 30,
    end: float = 1.0,
    *,
    alpha: float = 0.1,
    beta: float = 2.0,
    gamma: float = 0.2,
    trajectories: int = 10_000,
    step: float = 2.5e-3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Moments:
    """The moments of du = (-alpha u1^3 + beta u2^3) dt + gamma u1 dW1, dv = (-beta u1^3 - alpha u2^3) dt + gamma u2 dW2
    in Ito's sense, from (2, 0).

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, section 4.2.1, with these numbers. The noise alone
    is solved exactly, the drift alone by the classical Runge-Kutta method, half a step before and half behind it: of
    weak order 2 (Strang splitting), so that the error of the moments is that of the trajectories' number.

    Args:
        points: equally spaced times from 0 to `end`, both included.
        end: the last time, dimensionless.
        alpha, beta, gamma: dimensionless.
        trajectories: that the moments are taken over.
        step: the largest, dimensionless.
        dtype: of the moments.
        seed: of the noise.

    Raises:
        InputError: fewer than two points or trajectories, or an end or step that is not positive.
    """
    times = _times(points, end)
    if trajectories < 2:
        raise InputError(f"moments need at least two trajectories, got {trajectories}")
    if not step > 0:
        raise InputError(f"step is a positive time, got {step!r}")
    generator = torch.Generator().manual_seed(seed)
    drift = torch.tensor(((-alpha, -beta), (beta, -alpha)), dtype=torch.float64)
    u = torch.tensor(_START, dtype=torch.float64).expand(trajectories, 2)
    between = float(times[1] - times[0])
    count = max(ceil(between / step - 1e-9), 1)
    h = between / count

    def rate(u: Tensor) -> Tensor:
        return u * u * u @ drift

    def drifted(u: Tensor) -> Tensor:
        first = rate(u)
        second = rate(u + 0.25 * h * first)
        third = rate(u + 0.25 * h * second)
        return u + h / 12 * (first + 2 * (second + third) + rate(u + 0.5 * h * third))

    values = [u]
    for _ in range(points - 1):
        for _ in range(count):
            noise = torch.randn(trajectories, 2, dtype=torch.float64, generator=generator)
            u = drifted(drifted(u) * torch.exp(gamma * sqrt(h) * noise - 0.5 * gamma**2 * h))
        values.append(u)
    value = torch.stack(values)
    return Moments(times, value.mean(1).to(dtype), value.var(1).to(dtype))


def irregular_spirals(
    count: int = 1000,
    points: int = 500,
    observed: int = 100,
    *,
    noise: float = 0.1,
    end: float = 10.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Series:
    """Archimedean spirals of which a random part is observed, with noise.

    A family as in Chen, Rubanova, Bettencourt and Duvenaud, NeurIPS 2018, section 5.1: the radius grows or falls with
    the angle, half of them turn each way, and each begins at an angle of its own.

    Args:
        count: spirals.
        points: common times, equally spaced from 0 to `end`.
        observed: of them, drawn for each spiral.
        noise: standard deviation of what is added to each coordinate; the largest radius is 1 before it.
        end: the last time, by which a spiral has turned between one and a half and two and a half times.
        dtype: of the values.
        seed: of everything random.

    Raises:
        InputError: no spiral, fewer than two points, or more observed than there are.
    """
    if count < 1:
        raise InputError(f"count: at least one spiral is needed, got {count}")
    if not 1 <= observed <= points:
        raise InputError(f"observed: between 1 and all {points} points, got {observed}")
    times = _times(points, end)
    share = times / end
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, dtype=torch.float64, generator=generator)

    turned = 2 * pi * uniform(1.5, 2.5) * share
    outwards = torch.rand(count, 1, generator=generator) < 0.5
    radius = torch.where(outwards, 0.2 + 0.8 * share, 1.0 - 0.8 * share)
    direction = torch.where(torch.rand(count, 1, generator=generator) < 0.5, 1.0, -1.0)
    angle = uniform(0.0, 2 * pi) + direction * turned
    exact = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    value = exact + noise * torch.randn(exact.shape, dtype=torch.float64, generator=generator)
    chosen = torch.rand(count, points, dtype=torch.float64, generator=generator).argsort(1)[:, :observed]
    mask = torch.zeros(count, points, dtype=torch.bool).scatter_(1, chosen, True)[..., None].expand_as(value)
    return Series(times, torch.where(mask, value, 0.0).to(dtype), mask.contiguous())


def _times(points: int, end: float) -> Tensor:
    if points < 2:
        raise InputError(f"points: at least two times are needed, got {points}")
    if not end > 0:
        raise InputError(f"end is a positive time, got {end!r}")
    return torch.linspace(0.0, end, points, dtype=torch.float64)
