"""A local regularizer around code for torchdiffeq, whose adjoint stays closed: a flow that pulls two rings apart."""

import torch
from matplotlib.figure import Figure
from torchdiffeq import odeint_adjoint

from sciml.solvers.neural_de import LocalError

TOLERANCES, STEPS = {"rtol": 1e-6, "atol": 1e-6}, 80
generator = torch.Generator().manual_seed(2)
outside = torch.arange(120) % 2
radius = 0.5 + outside + 0.1 * torch.randn(120, generator=generator, dtype=torch.float64)
angle = 2 * torch.pi * torch.rand(120, generator=generator, dtype=torch.float64)
points = radius[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
times = torch.linspace(0, 1, 41, dtype=torch.float64)


class Flow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2)).double()

    def forward(self, t, y):
        self.evaluations += 1
        return self.layers(y)


def learn(weight):
    torch.manual_seed(2)
    flow, classify, evaluations = Flow(), torch.nn.Linear(2, 1).double(), []
    optimizer = torch.optim.Adam([*flow.parameters(), *classify.parameters()], lr=0.03)
    for _ in range(STEPS):
        watched, flow.evaluations = LocalError().watch(flow, **TOLERANCES), 0
        end = odeint_adjoint(watched, points, times[[0, -1]], **TOLERANCES)[-1]
        evaluations.append(flow.evaluations)
        scores = classify(end)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, outside.double())
        optimizer.zero_grad()
        (loss + weight * watched.penalty().mean()).backward()
        optimizer.step()
    return flow, evaluations, float(((scores > 0) == (outside == 1)).double().mean())


figure = Figure(figsize=(9.6, 3.2), layout="constrained")
costs, *panels = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
for axes, (name, weight) in zip(panels, (("plain torchdiffeq", 0.0), ("regularized", 0.015)), strict=True):
    flow, evaluations, right = learn(weight)
    print(f"{name}: {sum(evaluations)} evaluations in the training, {evaluations[-1]} at its end, {right:.1%} right")
    costs.plot(evaluations, label=name)
    with torch.no_grad():
        paths = odeint_adjoint(flow, points, times, **TOLERANCES)
    for ring, colour in ((0, "C3"), (1, "C2")):
        axes.plot(*paths[:, outside == ring].unbind(-1), colour, linewidth=0.6, alpha=0.6)
        axes.plot(*paths[-1, outside == ring].T, ".", color=colour)
    axes.set(title=name, xticks=[], yticks=[])
costs.legend()
costs.set(xlabel="step of the training", title="evaluations", ylim=(0, None))
figure.savefig("regularized_torchdiffeq.png", dpi=100)
