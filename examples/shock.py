"""A shock: Burgers' equation without viscosity as a conservation law, against the exact solution."""

import torch
from matplotlib.figure import Figure

import sciml

equation = sciml.Equation("u_t = -div([u**2/2])")


def exact(x, t):
    """A block between 0.1 and 0.4: a fan behind it, and a shock in front that moves at the speed 1/2 until t = 0.6."""
    return torch.where(x < 0.4 + t / 2, ((x - 0.1) / max(t, 1e-12)).clamp(0, 1), 0.0)


def run(cells, scheme=None):
    line = sciml.Grid(cells, boundary={"x": (sciml.Dirichlet(0.0), sciml.Neumann(0.0))})
    times = [0.0, 0.25, 0.5]
    return sciml.evolve(equation, line, initial=lambda x: exact(x, 0.0), times=times, scheme=scheme)


for cells in (100, 200, 400):
    solution = run(cells)
    (x,) = solution.domain.coordinates
    error = (solution.value[-1] - exact(x, 0.5)).abs().mean()
    print(f"{cells} cells: mean error {error:.5f}, from {solution.value.min():.4f} to {solution.value.max():.4f}")
print(solution)
print("; ".join(solution.notes))
print(f"mass {solution.value[-1].mean():.12f}, at first {solution.value[0].mean():.12f}")

figure = Figure(figsize=(7, 3.2), layout="constrained")
axes = figure.subplots()
for limiter in ("minmod", "van_leer", "superbee"):
    solution = run(100, sciml.FiniteVolume(limiter=limiter))
    axes.plot(solution.domain.coordinates[0], solution.value[-1], "o-", markersize=2.5, linewidth=0.8, label=limiter)
axes.plot(x, exact(x, 0.5), "k--", linewidth=0.8, label="exact")
axes.set(xlabel="x", ylabel="u", title="t = 0.5, 100 cells")
axes.legend()
figure.savefig("shock.png", dpi=150)
