"""Which integrator suits a system, and what limits its step."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, prod

import torch
from torch import Tensor

from sciml.discretization import GridEvolution
from sciml.elements.evolving import MeshEvolution
from sciml.evolving import EvolvingSystem
from sciml.spectral import SpectralSystem

from .explicit import ExplicitRungeKutta
from .exponential import ExponentialRungeKutta
from .implicit import ImplicitRungeKutta
from .stepper import Integrator
from .trajectory import Control

# Stable steps of an explicit method over the whole time, beyond which an implicit one was quicker for the heat equation
# on grids of one to three axes.
STIFF = 100
NONLINEAR = 10  # by how much more an implicit step costs that has to iterate
_POWER_STEPS = 12
_EXPONENTIAL = 2.8  # of classical Runge-Kutta on both axes, which ETDRK4 is where there is no linear part


def choose(
    system: EvolvingSystem, u: Tensor, times: tuple[float, ...], step: float | None, control: Control
) -> tuple[Integrator, str]:
    """The method, and the reason in a few words.

    Args:
        u: `(*batch, *space)`, the initial state.
        times: output times.
        step: size of fixed steps, or None.
        control: "row" leaves explicit methods only.
    """
    if control == "row":
        return ExplicitRungeKutta.tsit5(), "rows with steps of their own"
    explicit = ExplicitRungeKutta.tsit5() if step is None else ExplicitRungeKutta.rk4()
    if isinstance(system, SpectralSystem):
        if system.linear_part is None:
            return explicit, "no linear part that an exponential method could take exactly"
        if step is None:
            return ExponentialRungeKutta.pair(), "a spectral discretization, whose linear part is taken exactly"
        return ExponentialRungeKutta.etd4(), "a spectral discretization, whose linear part is taken exactly"
    if not isinstance(system, GridEvolution | MeshEvolution):
        return explicit, "ordinary differential equations"
    if system.equation.order < 2 or system.equation.time_order > 1:
        return explicit, "waves and transport, for which stable steps are accurate ones"
    radius = spectral_radius(system.slope, system.encode(u), times[0])
    allowed = explicit.tableau.stability / radius if radius > 0 and isfinite(radius) else inf
    many = STIFF if system.equation.linear else STIFF * NONLINEAR
    if (times[-1] - times[0] <= many * allowed) if step is None else step <= allowed:
        return explicit, f"not stiff: stable steps are up to about {allowed:.2g}"
    reason = f"stiff: stable steps of explicit methods are up to about {allowed:.2g}"
    return (ImplicitRungeKutta.kvaerno5() if step is None else ImplicitRungeKutta.sdirk2()), reason


def spectral_radius(slope: Callable[[Tensor, float], Tensor], y: Tensor, t: float) -> float:
    """An estimate of the largest |eigenvalue| of the Jacobian of a slope at (y, t) over all rows, by the power method
    with difference quotients."""
    with torch.no_grad():
        base = slope(y, t)
        generator = torch.Generator(device=y.device).manual_seed(0)
        direction = torch.randn(y.shape, dtype=y.dtype, device=y.device, generator=generator)
        size = float(torch.linalg.vector_norm(y)) or 1.0
        small = size * torch.finfo(y.dtype).eps ** 0.5
        growth: list[float] = []
        for _ in range(_POWER_STEPS):
            norm = float(torch.linalg.vector_norm(direction))
            if norm == 0.0 or not isfinite(norm):
                return norm
            moved = slope(y + direction * (small / norm), t)
            direction = (moved - base) / small
            growth.append(float(torch.linalg.vector_norm(direction)))
    # Of a matrix that is far from normal, as that of a wave equation, single steps say little.
    latest = growth[_POWER_STEPS // 2 :]
    return prod(latest) ** (1 / len(latest))


def stability_limit(method: Integrator, system: EvolvingSystem, y: Tensor, t: float) -> float | None:
    """About the largest stable step at a state: of explicit Runge-Kutta methods, and of exponential ones what the part
    that these take explicitly allows; None of other methods."""
    if isinstance(method, ExplicitRungeKutta):
        length, radius = method.tableau.stability, spectral_radius(system.slope, y, t)
    elif isinstance(method, ExponentialRungeKutta):
        length, radius = _EXPONENTIAL, spectral_radius(system.explicit_force, y, t)
    else:
        return None
    return length / radius if radius > 0 and isfinite(radius) else None
