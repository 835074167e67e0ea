"""A neural SDE that carries particles from one point to two heaps, which paying for errors of steps makes cheaper."""

from dataclasses import replace

import torch
from matplotlib.figure import Figure

from sciml.solvers.neural_de import ErrorEstimate, ExponentialAnnealing, NeuralSDE, TimeDependent
from sciml.solvers.time import Controller, StochasticRungeKutta

STEPS, POINT = 80, torch.zeros(1, 1, dtype=torch.float64)
sosri2 = replace(StochasticRungeKutta.sosri2(), controller=Controller(rows="mean", largest=1.5))


def quantiles(n):  # of two normal distributions, around -1 and 1
    level = 2 * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return 2 * level.floor() - 1 + 0.3 * torch.special.ndtri(level % 1)


def distance(values):  # squared, of Wasserstein
    return (values[:, 0].sort().values - quantiles(len(values))).square().mean()


def learn(regularizer):
    torch.manual_seed(0)
    drift, diffusion = (TimeDependent((1, 32, 32, 1), last=False).double() for _ in range(2))
    sde = NeuralSDE(drift, diffusion, method=sosri2, rtol=1e-2, atol=1e-2, regularizer=regularizer)
    optimizer = torch.optim.Adam(sde.parameters(), lr=0.01)
    weights, evaluations = ExponentialAnnealing(0.1, 0.02, STEPS), []
    for step in range(STEPS):
        end, solution = sde(POINT.expand(128, 1))
        optimizer.zero_grad()
        (distance(end) + weights.weight(step) * solution.statistics["penalty"].mean()).backward()
        optimizer.step()
        evaluations.append(int(solution.statistics["evaluations"].max()))
    return sde.eval(), evaluations


figure = Figure(figsize=(9.6, 3.0), layout="constrained")
costs, heaps, paths = figure.subplots(1, 3, width_ratios=(1.5, 1, 2))
paths.sharey(heaps)
times = torch.linspace(0, 1, 101)
for name, regularizer, colour in (("vanilla", None, "C0"), ("regularized", ErrorEstimate(), "C1")):
    sde, evaluations = learn(regularizer)
    with torch.no_grad():
        (end, solution), (some, _) = sde(POINT.expand(4000, 1), seed=1), sde(POINT.expand(60, 1), times, seed=1)
    count = int(solution.statistics["evaluations"].max())
    print(f"{name}: {count} evaluations, squared distance from the data {distance(end):.3f}")
    costs.plot(evaluations, colour, label=name)
    heaps.hist(end[:, 0], 60, density=True, histtype="step", orientation="horizontal", color=colour)
heaps.hist(quantiles(4000), 60, density=True, orientation="horizontal", color="0.85")
paths.plot(times, some[:, :, 0].T, linewidth=0.6)
costs.legend()
costs.set(xlabel="step of the training", title="evaluations", ylim=(0, None))
heaps.set(xlabel="density at t = 1", title="data grey", xticks=[])
paths.set(xlabel="t", title="particles, regularized")
figure.savefig("neural_sde.png", dpi=100)
