"""Which integrator suits a system, and what limits its step."""

from __future__ import annotations

from math import inf, isfinite, prod

import torch
from torch import Tensor

from sciml.discretization import GridEvolution
from sciml.elements.evolving import MeshEvolution
from sciml.evolving import EvolvingSystem
from sciml.spectral import SpectralSystem

from .explicit import ExplicitRungeKutta
from .implicit import ImplicitRungeKutta
from .stepper import Integrator
from .trajectory import Control

# Stable steps of an explicit method over the whole time, beyond which an implicit one was quicker for the heat equation
# on grids of one to three axes.
STIFF = 100
NONLINEAR = 10  # by how much more an implicit step costs that has to iterate
_POWER_STEPS = 12


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
        from .exponential import ExponentialRungeKutta

        if system.linear_part is None:
            return explicit, "no linear part that an exponential method could take exactly"
        if step is None:
            return ExponentialRungeKutta.pair(), "a spectral discretization, whose linear part is taken exactly"
        return ExponentialRungeKutta.etd4(), "a spectral discretization, whose linear part is taken exactly"
    if not isinstance(system, GridEvolution | MeshEvolution):
        return explicit, "ordinary differential equations"
    if system.equation.order < 2 or system.equation.time_order > 1:
        return explicit, "waves and transport, for which stable steps are accurate ones"
    radius = spectral_radius(system, system.encode(u), times[0])
    allowed = explicit.tableau.stability / radius if radius > 0 and isfinite(radius) else inf
    many = STIFF if system.equation.linear else STIFF * NONLINEAR
    if (times[-1] - times[0] <= many * allowed) if step is None else step <= allowed:
        return explicit, f"not stiff: stable steps are up to about {allowed:.2g}"
    reason = f"stiff: stable steps of explicit methods are up to about {allowed:.2g}"
    return (ImplicitRungeKutta.kvaerno5() if step is None else ImplicitRungeKutta.sdirk2()), reason


def spectral_radius(system: EvolvingSystem, y: Tensor, t: float) -> float:
    """An estimate of the largest |eigenvalue| of the Jacobian at (y, t) over all rows, by the power method with
    difference quotients."""
    with torch.no_grad():
        base = system.slope(y, t)
        generator = torch.Generator(device=y.device).manual_seed(0)
        direction = torch.randn(y.shape, dtype=y.dtype, device=y.device, generator=generator)
        size = float(torch.linalg.vector_norm(y)) or 1.0
        small = size * torch.finfo(y.dtype).eps ** 0.5
        growth: list[float] = []
        for _ in range(_POWER_STEPS):
            norm = float(torch.linalg.vector_norm(direction))
            if norm == 0.0 or not isfinite(norm):
                return norm
            moved = system.slope(y + direction * (small / norm), t)
            direction = (moved - base) / small
            growth.append(float(torch.linalg.vector_norm(direction)))
    # Of a matrix that is far from normal, as that of a wave equation, single steps say little.
    latest = growth[_POWER_STEPS // 2 :]
    return prod(latest) ** (1 / len(latest))


def stability_limit(method: Integrator, system: EvolvingSystem, y: Tensor) -> float | None:
    """About the largest stable step of an explicit Runge-Kutta method at a state; None of other methods."""
    if not isinstance(method, ExplicitRungeKutta):
        return None
    radius = spectral_radius(system, y, 0.0)
    return method.tableau.stability / radius if radius > 0 and isfinite(radius) else None
