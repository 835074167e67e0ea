"""Seepage through rock of two kinds: a coefficient that jumps by a factor of 1000 along curved lines."""

import torch

import sciml

equation = sciml.Equation("-div(a*grad(u)) = 0")
# Pressure 1 on the left and 0 on the right, nothing through bottom and top.
sides = {"x": (sciml.Dirichlet(1.0), sciml.Dirichlet(0.0)), "y": sciml.Neumann(0.0)}
rock = sciml.Grid((300, 200), upper=(1.5, 1.0), boundary=sides)

x, y = rock.coordinates
tight = torch.sin(9 * x + 2 * torch.sin(5 * y)) * torch.sin(7 * y) > 0.3
a = torch.ones_like(x).masked_fill(tight, 1e-3)
solution = sciml.solve(equation, rock, fields={"a": a}, rtol=1e-10)

inflow, outflow = solution.flux("x_lower"), -solution.flux("x_upper")
print(solution)
print(f"inflow {inflow:.10f}, outflow {outflow:.10f}")
print(f"permeability of the whole {inflow * 1.5:.4f}, with {tight.double().mean():.0%} of the rock tight")
solution.plot("jumping_coefficient.png", history=True)
