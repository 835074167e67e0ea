"""Heat in a fibre composite: it conducts a hundred times better along the fibres, which lie at 30 degrees."""

import math

import torch

import sciml

angle, ratio = math.radians(30), 100.0
c, s = math.cos(angle), math.sin(angle)
equation = sciml.Equation(
    "-div([p*u_x + q*u_y, q*u_x + r*u_y]) = f",
    parameters={"p": ratio * c * c + s * s, "q": (ratio - 1) * c * s, "r": ratio * s * s + c * c},
)
plate = sciml.Grid((256, 256), boundary=sciml.Dirichlet(0.0))
x, y = plate.coordinates
spot = torch.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.05**2)

solution = sciml.solve(equation, plate, fields={"f": spot})
print(solution)

half = solution.value >= 0.5 * solution.value.max()
along, across = c * (x - 0.5) + s * (y - 0.5), c * (y - 0.5) - s * (x - 0.5)
lengths = [float(part[half].max() - part[half].min()) for part in (along, across)]
print(f"above half of the peak: {lengths[0]:.2f} along the fibres, {lengths[1]:.2f} across")
out = sum(float(solution.flux(side)) for side in plate.boundaries)
print(f"heat in {float(spot.sum()) * plate.cell_volume:.6f}, out {-out:.6f}")
solution.plot("anisotropic_composite.png")
