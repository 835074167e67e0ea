"""Section: the derivative of a trajectory, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.evolve import evolve
from sciml.solvers.time.trajectory import Gradient

from ..boundary import Periodic
from ..equations import Equation
from ..grid import Grid
from .chapter import Chapter, Section
from .evolution_figures import curves_figure, snapshots_figure
from .turbulence import CONSTRAINT, TEXT, random_vorticity

PLACE = (math.pi, math.pi)


def flow(w: Tensor, nu: Tensor, end: float, keep: Gradient = "recorded") -> Tensor:
    """The vorticity at the end, by 80 steps."""
    text = "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)"
    constraints, given = ["laplacian(psi) = -w"], {"nu": 1e-3}
    equation = Equation(text, constraints=constraints, parameters=given)
    square = Grid(tuple(w.shape), upper=2 * math.pi, boundary=Periodic())
    run: dict[str, Any] = {"initial": w, "times": [0.0, end]}
    run |= {"parameters": {"nu": nu}, "step": end / 80, "gradient": keep}
    return evolve(equation, square, **run).value[-1]


def forward(w: Tensor, nu: Tensor, end: float) -> tuple[Tensor, Tensor]:
    """The vorticity and its derivative with respect to the viscosity."""
    one = torch.ones_like(nu)
    value, *tangent = torch.func.jvp(lambda nu: flow(w, nu, end), (nu,), (one,))
    return value, tangent[0]


def backward(w: Tensor, nu: Tensor, end: float, spot: Tensor) -> tuple[Tensor, ...]:
    """Of a weighted mean at the end to the whole first field, and to nu."""
    w, nu = w.clone().requires_grad_(), nu.clone().requires_grad_()
    outcome = (spot * flow(w, nu, end)).mean()
    return torch.autograd.grad(outcome, (w, nu))


def write(chapter: Chapter, quick: bool) -> None:
    cells, end = (64, 1.0) if quick else (128, 1.6)
    nu = torch.tensor(8e-3 if quick else 5e-3, dtype=torch.float64)
    w = random_vorticity(cells, (2, 5), seed=11)
    square = Grid((cells, cells), upper=2 * math.pi, boundary=Periodic())
    x, y = square.coordinates
    final, tangent = forward(w, nu, end)
    quotient = _quotient(w, nu, end, 1e-3)
    forward_error = float((tangent - quotient).abs().max() / tangent.abs().max())
    weight = torch.exp(-((x - PLACE[0]) ** 2 + (y - PLACE[1]) ** 2) / 0.15)
    to_start, to_nu = backward(w, nu, end, weight)
    along = float((weight * tangent).mean())
    adjoint_error = abs(float(to_nu) / along - 1)
    checkpointed = _checkpointed(w, nu, end, weight)
    memory_error = float((checkpointed - to_start).abs().max() / to_start.abs().max())
    burgers = _cole_hopf()

    chapter.say(
        "How does a flow answer to its viscosity, or to what it was at first? A run of `evolve` can be differentiated "
        "in both directions. Forward, one run carries the derivative with respect to a parameter along with the whole "
        "field. The maps show it beside a difference quotient of four runs: where viscosity "
        "thins a filament or moves it aside, the derivative has stripes of opposite sign."
    )
    chapter.equation(Equation(TEXT, constraints=[CONSTRAINT], parameters={"nu": float(nu)}))
    chapter.code(flow, forward)
    most = float(tangent.abs().flatten().quantile(0.999))
    third = 4.1
    chapter.pictures(
        f"The vorticity w at t = {end:g}; dw/dnu in forward mode; and the same by differences of fourth order.",
        (
            snapshots_figure(square, [final], ["w"], width=third, colours="twilight_shifted"),
            "map of vortices",
        ),
        (
            snapshots_figure(
                square, [tangent], ["dw/dnu, forward mode"], width=third, colours="PuOr", limits=(-most, most)
            ),
            "map of the derivative, stripes of two signs along filaments",
        ),
        (
            snapshots_figure(
                square, [quotient], ["dw/dnu, difference quotient"], width=third, colours="PuOr", limits=(-most, most)
            ),
            "the same map by differences",
        ),
    )
    chapter.say(
        f"Backward, one run gives the derivative of one number with respect to everything that went in, here of the "
        f"mean vorticity in a small disc at the end to the {w.numel():,} values at the beginning: it shows where the "
        'fluid in the disc came from. `gradient="checkpointed"` keeps few states and takes the steps again.'
    )
    chapter.code(backward)
    stretched = float(to_start.abs().flatten().quantile(0.998))
    chapter.pictures(
        "The weight of the disc at the end; what the result owes to the vorticity at each place at the beginning; and "
        "the vorticity there.",
        (
            snapshots_figure(square, [weight], ["weight at the end"], width=third, colours="magma", limits=(0.0, 1.0)),
            "a small bright disc in the middle",
        ),
        (
            snapshots_figure(
                square,
                [to_start * w.numel()],
                ["derivative to w at t = 0"],
                width=third,
                colours="PuOr",
                limits=(-stretched * w.numel(), stretched * w.numel()),
            ),
            "a drawn-out band, wound around",
        ),
        (snapshots_figure(square, [w], ["w at t = 0"], width=third, colours="twilight_shifted"), "map of vortices"),
    )
    chapter.say(
        "Against an exact solution: for the wave that Cole and Hopf found for the equation of Burgers, u = -2 nu "
        "theta_x/theta with theta = 1 + exp(-nu t) cos(x)/2, the derivative with respect to nu is known."
    )
    coordinate, found, exact = burgers
    exact_error = float((found - exact).abs().max())
    chapter.pictures(
        "The derivative of the wave with respect to nu at t = 4.",
        (
            curves_figure(
                {"forward mode": (coordinate, found), "exact": (coordinate, exact)},
                labels=("x", "du/dnu"),
                dashed=("exact",),
                height=2.5,
            ),
            "one curve upon the other",
        ),
    )
    chapter.claim(
        f"Forward mode and the difference quotient agree to {forward_error:.1e} of the largest value.",
        forward_error <= 1e-6,
    )
    chapter.claim(
        f"The derivative of the result to nu is {along:.9g} forward and {float(to_nu):.9g} backward: relative "
        f"difference {adjoint_error:.1e}.",
        adjoint_error <= 1e-9,
    )
    chapter.claim(
        f"Checkpointed, the gradient is the same to {memory_error:.1e} of its largest value.", memory_error <= 1e-12
    )
    chapter.claim(f"For Cole and Hopf's wave the largest error of du/dnu is {exact_error:.1e}.", exact_error <= 1e-7)
    chapter.headline = (
        f"the derivative of {w.numel():,} values to within {forward_error:.0e}, forward and backward to "
        f"{adjoint_error:.0e}"
    )
    chapter.numbers = {
        "forward_error": forward_error,
        "adjoint_error": adjoint_error,
        "checkpointed_error": memory_error,
        "exact_error": exact_error,
        "to_nu": float(to_nu),
    }


def _quotient(w: Tensor, nu: Tensor, end: float, share: float) -> Tensor:
    """Central differences of fourth order over steps of `share` of nu."""
    h = share * nu
    near, far = (flow(w, nu + k * h, end) - flow(w, nu - k * h, end) for k in (1, 2))
    return (8 * near - far) / (12 * h)


def _checkpointed(w: Tensor, nu: Tensor, end: float, weight: Tensor) -> Tensor:
    w = w.clone().requires_grad_()
    return torch.autograd.grad((weight * flow(w, nu, end, "checkpointed")).mean(), w)[0]


def _cole_hopf() -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates, the derivative of the wave at t = 4 to nu in forward mode, and the exact one."""
    equation = Equation("u_t = -u*u_x + nu*u_xx", parameters={"nu": 0.1})
    ring = Grid(128, upper=2 * math.pi, boundary=Periodic())
    (x,) = ring.coordinates
    nu = torch.tensor(0.1, dtype=torch.float64)
    one = torch.ones_like(nu)

    def wave(nu: Tensor, t: float) -> Tensor:
        decayed = torch.exp(-nu * t) / 2
        return 2 * nu * decayed * torch.sin(x) / (1 + decayed * torch.cos(x))

    def run(nu: Tensor) -> Tensor:
        times = [0.0, 4.0]
        return evolve(equation, ring, initial=wave(nu, 0.0), times=times, parameters={"nu": nu}, step=0.02).value[-1]

    return x, torch.func.jvp(run, (nu,), (one,))[1], torch.func.jvp(lambda nu: wave(nu, 4.0), (nu,), (one,))[1]


SECTION = Section("sensitivity", "The derivative of a trajectory", write)
