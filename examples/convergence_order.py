"""Measured orders of convergence: the source is made so that the solution is known."""

import math

import torch

import sciml


def exact(x, y):
    return torch.exp(x) * torch.sin(3 * y)


equation = sciml.Equation("-laplacian(u) = f")
sides = {
    "x": (sciml.Dirichlet(exact), sciml.Neumann(exact)),  # du/dx = u
    "y": (sciml.Robin(2.0, lambda x, y: -3 * torch.exp(x)), sciml.Dirichlet(exact)),  # -du/dy + 2 u at y = 0
}
for order in (2, 4):
    previous = None
    for n in (16, 32, 64):
        square = sciml.Grid((n, n), boundary=sides)
        scheme = sciml.FiniteDifference(order=order)
        fields = {"f": lambda x, y: 8 * exact(x, y)}
        solution = sciml.solve(equation, square, fields=fields, scheme=scheme, rtol=1e-12)
        error = solution.error(exact)["L2"].item()
        rate = "" if previous is None else f"   measured order {math.log2(previous / error):.2f}"
        print(f"order {order}   {n:3} x {n:<3}   error {error:.2e}{rate}")
        previous = error
solution.plot("convergence_order.png")
