"""Ordinary differential equations with events: a ball that bounces, one run from each bounce to the next."""

import math

import torch
from matplotlib.figure import Figure

import sciml
from sciml.solvers.time import Event

equation = sciml.Equation("h_tt = -g", parameters={"g": 9.81}, coordinates=())
ground = Event(lambda u, t: u[..., 0], direction=-1)  # u is (height, velocity)

t, state = 0.0, torch.tensor([1.0, 0.0], dtype=torch.float64)  # metres, metres per second
times, heights = [], []
for bounce in range(1, 6):
    span = torch.linspace(t, t + 2, 101, dtype=torch.float64)
    fall = sciml.evolve(equation, initial=state, times=span, events=ground)
    hit = fall.events[0]["time"].item()
    before = fall.times < hit
    times.append(fall.times[before])
    heights.append(fall.value[before, 0])
    exact = math.sqrt(2 / 9.81) * (1 + 2 * sum(0.9**k for k in range(1, bounce)))
    print(f"bounce {bounce}: t = {hit:.9f}, exactly {exact:.9f}")
    speed = -fall.events[0]["value"][1].item()
    t, state = hit, torch.tensor([0.0, 0.9 * speed], dtype=torch.float64)  # a tenth of the speed is lost

figure = Figure(figsize=(7, 3), layout="constrained")
axes = figure.subplots()
axes.plot(torch.cat(times), torch.cat(heights))
axes.set(xlabel="t, s", ylabel="height, m")
figure.savefig("bouncing_ball.png", dpi=150)
