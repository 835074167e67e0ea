"""Which integrator suits a system, and what limits its step."""

from __future__ import annotations

from math import inf, isfinite, prod

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.evolving import EvolvingSystem, Tolerance
from sciml.spectral import SpectralSystem
from sciml.stochastic_system import StochasticSystem

from .control import Controller, initial_step
from .explicit import ExplicitRungeKutta
from .exponential import ExponentialRungeKutta
from .implicit import ImplicitRungeKutta
from .implicit_explicit import ImplicitExplicit
from .implicit_linear import healthy
from .spectrum import Projection, damped, eigenvalues, mean_eigenvalues, settled
from .stability import additive_limit, always_grows, growth_of, limit
from .stepper import Integrator
from .stochastic import Milstein, StochasticRungeKutta
from .trajectory import Control

# Stable steps of an explicit method over the whole time, beyond which an implicit one was quicker for the heat equation
# on grids of one to three axes.
STIFF = 100
NONLINEAR = 10  # by how much more an implicit step costs that has to iterate

# Of ordinary differential equations: steps left at the size that an explicit method has reached, up to which it goes
# on; steps after which it is settled what limits that size; and the share of a stable step that says that this does.
_LONG = 1000
_TRIED = 40
_FEW = 4
_LIMITED = 0.3
_FACTORED = 500  # unknowns of a row up to which its matrix is factored

_THOROUGH = 30  # directions in which to look for what makes a step unstable
_EXPONENTIAL = 2.8  # of classical Runge-Kutta on both axes, which ETDRK4 is where there is no linear part


def choose(
    system: EvolvingSystem,
    u: Tensor,
    times: tuple[float, ...],
    step: float | None,
    control: Control,
    rtol: float,
    atol: Tolerance,
) -> tuple[Integrator, str]:
    """The method, and the reason in a few words.

    Args:
        system: what is to evolve.
        u: `(*batch, *space)`, the initial state; rows that are not finite have no say.
        times: output times.
        step: size of fixed steps, or None.
        control: "row" leaves explicit methods only.
        rtol, atol: the tolerances of steps that adapt.
    """
    if isinstance(system, StochasticSystem):
        if system.calculus == "ito" and system.noise.has_integrals:
            return StochasticRungeKutta.sosri2(), "a stochastic system in Ito's calculus"
        reason = "Stratonovich's calculus" if system.calculus != "ito" else "a path without integrals of the noise"
        return Milstein(), f"a stochastic system, {reason}"
    if control == "row":
        return ExplicitRungeKutta.tsit5(), "rows with steps of their own"
    explicit = ExplicitRungeKutta.tsit5() if step is None else ExplicitRungeKutta.rk4()
    if isinstance(system, SpectralSystem) and system.linear_part is not None:
        method = ExponentialRungeKutta.pair() if step is None else ExponentialRungeKutta.etd4()
        return method, "a spectral discretization, whose linear part is taken exactly"
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        sound = healthy(u.detach(), len(system.space))
        if sound is None:
            return explicit, "nothing is finite"
        y, start, span = system.encode(sound), times[0], times[-1] - times[0]
        if system.domain is None:
            if prod(system.state_space) > _FACTORED:
                return explicit, "ordinary differential equations, many in a row"
            if step is None:
                allowed = _limiting(system, y, start, times[-1], rtol, atol)
            else:
                allowed = _allowed(explicit, damped(eigenvalues(system, y, start)))
                allowed = allowed if allowed < step else None
            if allowed is None:
                return explicit, "ordinary differential equations, not stiff"
        else:
            equation = system.equation
            many = STIFF if equation.linear else STIFF * NONLINEAR

            def suffices(allowed: float) -> bool:
                return span <= many * allowed if step is None else step <= allowed

            def whole() -> Tensor:
                return settled(eigenvalues(system, y, start))

            if equation.order > equation.time_order:
                allowed = _allowed(explicit, whole())
                if suffices(allowed):
                    return explicit, f"not stiff: stable steps are up to about {allowed:.2g}"
            else:
                # What is damped may be stiff, and sources, which a mean shows; how quickly waves pass a cell is not.
                waves = whole() if equation.time_order > 1 else None
                found = settled(mean_eigenvalues(system, sound, start)) if waves is None else waves
                allowed = _allowed(explicit, damped(found))
                if suffices(allowed) or _allowed(explicit, whole() if waves is None else waves) < allowed / 2:
                    return explicit, "waves and transport, for which stable steps are accurate ones"
        if isinstance(system, SpectralSystem):
            # Of powers of u, the derivative that a product rule gives may be 0/0 where u is 0, and the slope is not.
            moved = system.shifted(y, start, 1.0).apply(y)
            if not bool(torch.isfinite(moved).all()):
                return explicit, "stiff, but the Jacobian, which an implicit method needs, is not finite"
    reason = f"stiff: stable steps of explicit methods are up to about {allowed:.2g}"
    return (ImplicitRungeKutta.kvaerno5() if step is None else ImplicitRungeKutta.sdirk2()), reason


def _allowed(method: ExplicitRungeKutta, values: Tensor) -> float:
    growth = growth_of(method)
    return inf if growth is None else limit(growth, values)


def _limiting(system: EvolvingSystem, y: Tensor, t: float, end: float, rtol: float, atol: Tolerance) -> float | None:
    """The largest stable step of the explicit method where it is this that limits its steps, many of which are left
    then; None where they are few, or have to be small for accuracy. Found by taking some of them."""
    if isinstance(atol, Tensor):
        atol = torch.where(torch.isfinite(atol), atol, atol.nan_to_num().max()) if atol.numel() else atol
    method, controller = ExplicitRungeKutta.tsit5(), Controller()
    stepper = method.stepper(system, rtol, atol)
    order = stepper.embedded + 1
    memory = stepper.begin(y, t)
    h = float(initial_step(system, y, t, memory, stepper.embedded, rtol, atol, end - t).min()) if y.numel() else end - t
    accepted = 0
    for _ in range(_TRIED):
        left = (end - t) / h if h > 0.0 else inf
        if not isfinite(left) or left <= (_LONG if accepted >= _FEW else _LONG / 10):
            return None
        attempt = stepper.step(y, t, h, memory)
        error = y if attempt.error is None else attempt.error
        ratio = float(system.error_ratio(error, y, attempt.value, rtol, atol).max())
        if ratio <= 1.0:
            y, t, memory = attempt.value, t + h, attempt.memory
            h, accepted = h * controller.after_accepted((ratio, 1.0, 1.0), order), accepted + 1
        else:
            h *= controller.after_rejected(ratio, order)
    allowed = _allowed(method, damped(eigenvalues(system, y, t)))
    return allowed if h >= _LIMITED * allowed and end - t > _LONG * allowed else None


def stability_limit(method: Integrator, system: EvolvingSystem, y: Tensor, t: float) -> float | None:
    """About the largest stable step at a state, 0 where every step is unstable: of explicit methods, and of those that
    take a part explicitly. None of other methods, and where there is no limit."""
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        y = y.detach()
        found, growth = inf, growth_of(method)
        if growth is not None:
            found = limit(growth, settled(eigenvalues(system, y, t, _THOROUGH)))
        elif isinstance(method, ExponentialRungeKutta):
            values = settled(Projection(system, y, t, system.explicit_force, _THOROUGH).eigenvalues)
            found = _EXPONENTIAL / float(values.abs().max()) if len(values) else inf
        elif isinstance(method, ImplicitExplicit):
            projection = Projection(system, y, t, system.slope, _THOROUGH)
            explicit = projection.of(system.explicit_force)
            found = additive_limit(method.tableau, projection.matrix - explicit, explicit)
    return found if isfinite(found) else None


def unstable_step(method: Integrator, system: EvolvingSystem, y: Tensor, t: float, step: float) -> str | None:
    """What is wrong with a step of fixed size that made numbers that are not finite, and what would do, in sentences;
    None if it is not the step, as far as one can say.

    Args:
        method: by which it was taken.
        system: what evolves.
        y: the initial state.
        t: the time there.
        step: its size.
    """
    found = stability_limit(method, system, y, t)
    if found is None or found > 1.05 * step:
        return None
    if found > 0.0:
        partly = isinstance(method, ExponentialRungeKutta | ImplicitExplicit)
        other = "an implicit method" if partly else "an implicit or exponential method"
        return (
            f"The step {step:g} is unstable: at the initial state the limit of this method is about {found:.2g}. "
            f"Take a smaller step, rtol and atol in place of step, or {other}."
        )
    growth = growth_of(method)
    waves = growth is not None and always_grows(growth, torch.tensor([1j], dtype=torch.complex128))
    grows = "oscillations that nothing damps, such as waves," if waves else "what is damped, as by diffusion,"
    limited = stability_limit(ExplicitRungeKutta.rk4(), system, y, t)
    reach = f", stable up to a step of about {limited:.2g} here," if limited else ""
    return (
        f"Every step is unstable, however small: this method makes {grows} grow. Take ExplicitRungeKutta.rk4(){reach} "
        "or an implicit method."
    )
