"""The Kuramoto-Sivashinsky equation on a ring: a flame front that never comes to rest."""

import math

import torch

import sciml

equation = sciml.Equation("u_t = -u*u_x - u_xx - u_xxxx")
ring = sciml.Grid(256, upper=32 * math.pi, boundary=sciml.Periodic())
times = torch.linspace(0, 150, 301)


def start(x):
    return torch.cos(x / 16) * (1 + torch.sin(x / 16))


solution = sciml.evolve(equation, ring, initial=start, times=times)
print(solution)
mean = solution.value.mean(-1)
print(f"largest slope {solution.value.abs().max():.2f}, the mean changes by {(mean - mean[0]).abs().max():.0e}")
solution.plot("chaos_on_a_ring.png")

# Chaos: the small difference that another step makes grows, until it is as large as the solution.
near = [sciml.evolve(equation, ring, initial=start, times=times, step=step).value for step in (0.1, 0.05)]
apart = (near[0] - near[1]).abs().amax(-1)
for t in (20, 60, 100, 140):
    print(f"runs with steps of 0.1 and 0.05 differ at t = {t} by {apart[2 * t]:.1e}")
