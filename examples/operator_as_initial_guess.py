"""A trained operator and the solver: the operator's answer is nearly right, and Newton's method begins from it."""

import torch
from matplotlib.figure import Figure

import sciml
from sciml import datasets, operators
from sciml.training import AdamW, Linear, Plan

recipe = {  # as in a recipe file
    "equation": {"text": "-div((1 + 10*u**2)*grad(u)) = f"},
    "domain": {"shape": [32, 32], "lower": [0.0, 0.0], "upper": [1.0, 1.0]},
    "boundary": {"all": {"kind": "dirichlet", "value": 0.0}},
    "fields": {"f": {"kind": "squared_exponential", "length": 0.25, "deviation": 60.0, "boundary": "neumann"}},
    "samples": {"train": 192, "valid": 0, "test": 32, "shard": 64, "batch": 64},
}
datasets.generate(recipe, "nonlinear", workers=0)
data = datasets.open("nonlinear")
torch.manual_seed(0)
network = operators.MgNO(in_channels=3, channels=16, layers=2, levels=[(1, 0)] * 4)
plan = Plan(epochs=6, batch_size=8, optimizer=AdamW(4e-3), schedule=Linear(warmup=0.1), clip=3.0)
operator, _ = operators.train_operator(network, data, plan, coordinates=True)

test = data.split("test")
f, u = test.read("f").double(), test.read("u")
with torch.no_grad():
    answer = operator({"f": f}, test.grid)
error = ((answer["u"] - u).flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)).mean()
print(f"mean error of the operator {error:.1%}")

figure = Figure(figsize=(6, 3.4), layout="constrained")
axes = figure.subplots()
for name, initial, colour in (("zero", None, "C0"), ("the operator's answer", answer, "C1")):
    solution = sciml.solve(data.equation, test.grid, fields={"f": f}, initial=initial, rtol=1e-8)
    steps = solution.statistics["iterations"].double().mean()
    print(f"from {name}: {steps:.2f} steps of Newton's method, all converged: {bool(solution.converged.all())}")
    axes.semilogy(solution.history["residual_norm"], color=colour, alpha=0.4, linewidth=0.8)
    axes.semilogy([], [], color=colour, label=f"from {name}")
axes.set(xlabel="step of Newton's method", ylabel="norm of the residual", title=f"{len(test)} samples")
axes.legend()
figure.savefig("operator_as_initial_guess.png", dpi=150)
