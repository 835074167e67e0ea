"""Decaying turbulence in two dimensions: the vorticity, with the stream function as a constraint."""

import math

import torch

import sciml

equation = sciml.Equation(
    "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)", constraints=["laplacian(psi) = -w"], parameters={"nu": 1e-3}
)
square = sciml.Grid((128, 128), upper=2 * math.pi, boundary=sciml.Periodic())
x, y = square.coordinates
random = torch.Generator().manual_seed(3)
w = torch.zeros_like(x)
for _ in range(60):  # waves of wavenumbers up to 6 in each direction
    along, across, phase = torch.rand(3, generator=random, dtype=torch.float64).tolist()
    w += torch.cos((int(13 * along) - 6) * x + (int(13 * across) - 6) * y + 2 * math.pi * phase)
w = 8 * (w - w.mean()) / w.abs().max()

times = torch.linspace(0, 6, 25, dtype=torch.float64)
solution = sciml.evolve(equation, square, initial=w, times=times, rtol=1e-5)
print(solution)
w, psi = solution.value, solution.fields["psi"]
energy, enstrophy = (psi * w).mean((-2, -1)) / 2, w.square().mean((-2, -1)) / 2
for place in range(0, 25, 6):
    print(f"t = {times[place]:.1f}: energy {energy[place]:.6f}, enstrophy {enstrophy[place]:.5f}")

# Viscosity takes energy at the rate 2 nu times the enstrophy.
spent = 2 * 1e-3 * torch.trapezoid(enstrophy, times)
print(f"energy lost {energy[0] - energy[-1]:.6f}, taken by viscosity {spent:.6f}")
solution.plot("turbulence.png")
