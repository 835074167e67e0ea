"""A solver that tunes itself in a simulation: heat in a melt that is stirred now and then, and its preconditioner."""

from dataclasses import replace
from math import log10, pi, sin

import torch
from matplotlib.figure import Figure

import sciml
from sciml.solvers.linear import SSOR, ConjugateGradient
from sciml.solvers.time import ImplicitExplicit
from sciml.solvers.tuning import BanditTuner, ChebCB, TunerState, dominance

equation = sciml.Equation("T_t = kappa*laplacian(T) + f", unknowns=["T"], parameters={"kappa": 1.0})
pan = sciml.Grid((48, 48), boundary=sciml.Dirichlet(0.0))
family = ConjugateGradient(preconditioner=SSOR())


def burner(x, y, t):
    turn = 6 * pi * torch.as_tensor(t, dtype=x.dtype)
    return 32 * torch.exp(-((x - 0.5 - 0.25 * turn.cos()) ** 2 + (y - 0.5 - 0.25 * turn.sin()) ** 2) / 0.006)


def simulate(linear):
    """Stirring, most at t = 0.5, 1.5 and 2.5, conducts heat four hundred times as well as standing does."""
    given = {"fields": {"f": burner}, "method": replace(ImplicitExplicit.cnab2(), linear=linear), "step": 0.005}
    states, iterations = [torch.zeros(pan.shape, dtype=torch.float64)], 0
    for begin in (0.05 * phase for phase in range(50)):
        kappa, times = {"kappa": 0.01 + 4 * sin(pi * (begin + 0.025)) ** 8}, (begin, begin + 0.05)
        run = sciml.evolve(equation, pan, initial=states[-1], times=times, parameters=kappa, **given)
        iterations += int(run.statistics["linear_iterations"])
        states.append(run.value[-1])
    return iterations, states


for omega in (1.3, 1.6, 1.9):
    iterations, fixed = simulate(replace(family, preconditioner=SSOR(omega)))
    print(f"relaxation {omega}: {iterations} iterations")
# The context is what the tuner sees of a system: how far its diagonal is from dominating the rest, in powers of ten.
settings = {"policy": ChebCB(), "context": lambda operator, b: -log10(dominance(operator, b))}
tuner = BanditTuner(family, {"preconditioner.relaxation": (1.0, 1.9, 10)}, **settings)
iterations, states = simulate(tuner)
print(f"tuned: {iterations} iterations, temperatures within {(states[-1] / fixed[-1] - 1).abs().max():.0e}")
tuner.state.save("tuner_in_a_heat_simulation.json")
tuner = replace(tuner, state=TunerState.load("tuner_in_a_heat_simulation.json"))
print(f"with what was learned: {simulate(tuner)[0]} iterations")

figure = Figure(figsize=(9.4, 3.1), layout="constrained")
panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.6))
for axes, phase, name in zip(panels, (40, 50), ("standing, t = 2", "stirred, t = 2.5"), strict=False):
    axes.imshow(states[phase].T, origin="lower", cmap="inferno", interpolation="bilinear")
    axes.set(title=f"{name}: up to {states[phase].max():.2g}", xticks=[], yticks=[])
contexts = [0.1 * place for place in range(1, 13)]
arms = [tuner.policy.probabilities(tuner.state.learned.policy, context).argmax() for context in contexts]
chosen = [tuner.arms[arm].values["preconditioner.relaxation"] for arm in arms]
print(f"learned: relaxation {chosen[0]:.1f} where the melt stands, {chosen[-1]:.1f} where it is stirred most")
panels[2].plot(contexts, chosen, "o-")
panels[2].set(title="relaxation, as learned", xlabel="stiffness, -log10(dominance)")
figure.savefig("tuner_in_a_heat_simulation.png", dpi=100)
