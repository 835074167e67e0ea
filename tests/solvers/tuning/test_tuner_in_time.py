"""The tuner inside implicit steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sciml
from sciml.solvers.linear import GMRES, SSOR, ConjugateGradient
from sciml.solvers.time import ImplicitExplicit, ImplicitRungeKutta
from sciml.solvers.tuning import BanditTuner, ChebCB, TsallisINF, dominance
from sciml.solvers.tuning.records import as_data

GRID = sciml.Grid((16, 16), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
HEAT = sciml.Equation("u_t = nu*laplacian(u)", parameters={"nu": 0.5})
FAMILY = ConjugateGradient(preconditioner=SSOR())
METHODS = {
    "Crank-Nicolson": (ImplicitRungeKutta.crank_nicolson(), 2),  # Newton's second step is to rounding
    "Crank-Nicolson Adams-Bashforth": (ImplicitExplicit.cnab2(), 1),
}


def tuner():
    return BanditTuner(
        FAMILY,
        {"preconditioner.relaxation": (1.0, 1.9)},
        policy=ChebCB(arms=6),
        context=dominance,
        fallback=FAMILY,
    )


def heat(method, times=(0.0, 0.02, 0.05), **given):
    x, y = GRID.coordinates
    initial = torch.sin(torch.pi * x) * torch.sin(torch.pi * y) + torch.sin(3 * torch.pi * x) * y * (1 - y)
    return sciml.evolve(HEAT, GRID, initial=initial, times=times, step=0.0025, method=method, **given)


@pytest.mark.parametrize("method, solves", METHODS.values(), ids=METHODS)
def test_the_same_solution_and_a_round_for_each_system(method, solves):
    tuned = tuner()
    found = heat(replace(method, linear=tuned))
    fixed = heat(replace(method, linear=FAMILY))
    assert torch.allclose(found.value, fixed.value, rtol=1e-9, atol=1e-12)
    learned = tuned.state.learned
    steps = int(found.statistics["steps"])
    assert steps == 20
    assert abs(learned.rounds - solves * steps) <= 2
    assert learned.cost == int(found.statistics["linear_iterations"])
    before = learned.rounds
    heat(replace(method, linear=tuned))
    assert learned.rounds == 2 * before


def test_a_coefficient_that_changes_changes_the_context():
    """Stiffness falls by 100 in the run: the context says so, and the solution is that of the fixed solver."""
    seen = []

    def context(operator, b):
        seen.append(dominance(operator, b))
        return seen[-1]

    equation = sciml.Equation("u_t = (0.005 + exp(-100*t))*laplacian(u)")
    x, y = GRID.coordinates
    initial = torch.sin(torch.pi * x) * torch.sin(torch.pi * y)
    family = GMRES(preconditioner=SSOR())
    tuned = BanditTuner(family, {"preconditioner.relaxation": (1.0, 1.9)}, policy=ChebCB(arms=4), context=context)
    values = [
        sciml.evolve(
            equation,
            GRID,
            initial=initial,
            times=[0.0, 0.1],
            step=0.0025,
            method=replace(ImplicitRungeKutta.crank_nicolson(), linear=linear),
        ).value
        for linear in (tuned, family)
    ]
    assert torch.allclose(*values, rtol=1e-9, atol=1e-12)
    assert max(seen) > 1.5 * min(seen)
    assert tuned.state.learned.policy.interval[0] <= min(seen) and max(seen) <= tuned.state.learned.policy.interval[1]


@pytest.mark.parametrize("gradient", ["recorded", "checkpointed"])
@pytest.mark.parametrize("method, solves", METHODS.values(), ids=METHODS)
def test_derivatives_of_an_evolution_teach_nothing(method, solves, gradient):
    gradients = []
    for linear in (FAMILY, BanditTuner(FAMILY, {"preconditioner.relaxation": (1.0, 1.9)}, policy=TsallisINF(arms=4))):
        nu = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        solution = heat(replace(method, linear=linear), (0.0, 0.01), parameters={"nu": nu}, gradient=gradient)
        if isinstance(linear, BanditTuner):
            rounds = linear.state.learned.rounds
            assert rounds >= 4 * solves
            learned = as_data(linear.state.learned)
        gradients.append(torch.autograd.grad(solution.value[-1].square().sum(), nu)[0])
    assert as_data(linear.state.learned) == learned
    assert torch.allclose(*gradients, rtol=1e-8)
