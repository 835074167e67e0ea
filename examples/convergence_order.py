"""Measured orders of convergence: the source is made so that the solution is known."""

import math

import torch
from matplotlib.figure import Figure

import sciml


def exact(x, y):
    return torch.exp(x) * torch.sin(3 * y)


equation = sciml.Equation("-laplacian(u) = f")
fields = {"f": lambda x, y: 8 * exact(x, y)}
sides = {
    "x": (sciml.Dirichlet(exact), sciml.Neumann(exact)),  # du/dx = u
    "y": (sciml.Robin(2.0, lambda x, y: -3 * torch.exp(x)), sciml.Dirichlet(exact)),  # -du/dy + 2 u at y = 0
}
figure = Figure(figsize=(5, 3.6), layout="constrained")
axes = figure.subplots()
for order in (2, 4):
    errors = {}
    for n in (16, 32, 64):
        square = sciml.Grid((n, n), boundary=sides)
        scheme = sciml.FiniteDifference(order=order)
        solution = sciml.solve(equation, square, fields=fields, scheme=scheme, rtol=1e-12)
        errors[n] = solution.error(exact)["L2"].item()
        rate = math.log2(errors[n // 2] / errors[n]) if n // 2 in errors else math.nan
        print(f"order {order}, {n} x {n} cells: error {errors[n]:.2e}, measured order {rate:.2f}")
    axes.loglog(errors.keys(), errors.values(), "o-", label=f"order {order}")
axes.set(xlabel="cells along an axis", ylabel="error in L2")
axes.legend()
figure.savefig("convergence_order.png", dpi=150)
