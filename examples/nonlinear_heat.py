"""A plate whose conductivity grows with its temperature: a nonlinear equation, solved by Newton's method."""

import torch

import sciml

equation = sciml.Equation("-div((1 + beta*u**2)*grad(u)) = f", parameters={"beta": 0.0})
# Held at 0 on the left and at 2 on the right, insulated below and above; a burner heats a disc.
sides = {"x": (sciml.Dirichlet(0.0), sciml.Dirichlet(2.0)), "y": sciml.Neumann(0.0)}
plate = sciml.Grid((192, 128), upper=(1.5, 1.0), boundary=sides)
x, y = plate.coordinates
burner = 200.0 * ((x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.03).double()

beta = torch.tensor([0.0, 1.0, 10.0], dtype=torch.float64, requires_grad=True)
solutions = sciml.solve(equation, plate, fields={"f": burner}, parameters={"beta": beta}, rtol=1e-10)
print(solutions)
for row, hottest in enumerate(solutions.value.amax((-2, -1))):
    steps = int(solutions.statistics["iterations"][row])
    print(f"beta {beta[row].item():4.1f}: hottest {hottest.item():.4f}, {steps} Newton steps")

balance = solutions.flux("x_lower") + solutions.flux("x_upper") + burner.sum() * plate.cell_volume
print(f"heat in minus heat out, at most {balance.abs().max().item():.1e}")
(slopes,) = torch.autograd.grad(solutions.integral().sum(), beta)
print(f"the mean temperature changes with beta by {', '.join(f'{slope.item() / 1.5:.4f}' for slope in slopes)}")
sciml.solve(equation, plate, fields={"f": burner}, parameters={"beta": 10.0}).plot("nonlinear_heat.png", history=True)

# The same by finite elements, on triangles.
triangles = sciml.Mesh.box((192, 128), (0.0, 0.0), (1.5, 1.0))
x, y = triangles.coordinates
burner = 200.0 * ((x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.03).double()
sides = {"x_lower": sciml.Dirichlet(0.0), "x_upper": sciml.Dirichlet(2.0), "rest": sciml.Neumann(0.0)}
solution = sciml.solve(equation, triangles, fields={"f": burner}, parameters={"beta": 1.0}, boundary=sides)
steps = int(solution.statistics["iterations"])
print(f"on triangles, beta 1.0: hottest {solution.value.max().item():.4f}, {steps} Newton steps")
