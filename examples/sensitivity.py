"""How a wave depends on a parameter: the derivative of a whole trajectory, forward and backward."""

import math

import torch
from matplotlib.figure import Figure

import sciml

equation = sciml.Equation("u_t = -u*u_x + nu*u_xx", parameters={"nu": 0.1})
ring = sciml.Grid(128, upper=2 * math.pi, boundary=sciml.Periodic())
(x,) = ring.coordinates
times = torch.linspace(0, 5, 41, dtype=torch.float64)


def exact(nu, t):
    """Cole and Hopf's: u = -2 nu theta_x/theta with theta = 1 + 0.9 exp(-nu t) cos(x)."""
    decayed = 0.9 * torch.exp(-nu * t)
    return 2 * nu * decayed * torch.sin(x) / (1 + decayed * torch.cos(x))


def run(nu):
    settings = {"times": times, "parameters": {"nu": nu}, "step": 0.025}
    return sciml.evolve(equation, ring, initial=exact(nu, times[0]), **settings).value


nu, one = torch.tensor(0.1, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
u, forward = torch.func.jvp(run, (nu,), (one,))
quotient = (run(nu + 1e-5) - run(nu - 1e-5)) / 2e-5
_, known = torch.func.jvp(lambda nu: exact(nu, times[:, None]), (nu,), (one,))
largest = known.abs().max()
print(f"forward mode against a difference quotient: {(forward - quotient).abs().max() / largest:.1e}")
print(f"forward mode against the exact derivative: {(forward - known).abs().max() / largest:.1e}")

variable = nu.clone().requires_grad_()
run(variable)[-1].square().mean().backward()
ahead = 2 * (u[-1] * forward[-1]).mean()
print(f"of the mean of u^2 at the end: backward {variable.grad:.12f}, forward {ahead:.12f}")

figure = Figure(figsize=(9, 3.2), layout="constrained")
for axes, (title, field) in zip(figure.subplots(1, 2), [("u", u), ("du/dnu", forward)], strict=True):
    most = field.abs().max()
    extent = (0, 5, 0, 2 * math.pi)
    image = axes.imshow(field.T, origin="lower", aspect="auto", extent=extent, cmap="RdBu_r", vmin=-most, vmax=most)
    axes.set(title=title, xlabel="t", ylabel="x")
    figure.colorbar(image, ax=axes)
figure.savefig("sensitivity.png", dpi=150)
