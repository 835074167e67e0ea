"""Sixteen problems in one call: a leading axis of the coefficient is a batch, and each row has its own outcome."""

import torch

import sciml

equation = sciml.Equation("-div(a*grad(u)) = f")
square = sciml.Grid((63, 63), boundary=sciml.Dirichlet(0.0))
x, y = square.coordinates
waves = torch.arange(1, 17, dtype=torch.float64).reshape(16, 1, 1)
a = torch.exp(2 * torch.sin(waves * x) * torch.cos(waves * y))

solution = sciml.solve(equation, square, fields={"a": a, "f": 1.0})
print(solution)
print("value", tuple(solution.value.shape), "iterations", solution.statistics["iterations"].tolist())

alone = torch.stack([sciml.solve(equation, square, fields={"a": row, "f": 1.0}).value for row in a])
difference = (solution.value - alone).abs().max() / alone.max()
print(f"all converged: {bool(solution.converged.all())}; difference from solving one by one {difference:.1e}")
solution.plot("batch_of_problems.png")
