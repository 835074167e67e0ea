"""The gradient of a solve at work: a coefficient field recovered from noisy values of the solution."""

import torch
from matplotlib.figure import Figure

import sciml

torch.manual_seed(0)
equation = sciml.Equation("-div(a*grad(u)) = f")
square = sciml.Grid((64, 64), boundary=sciml.Dirichlet(0.0))
x, y = square.coordinates
truth = 1 + 2 * torch.exp(-((x - 0.35) ** 2 + (y - 0.6) ** 2) / 0.02) - 0.6 * torch.exp(-((x - 0.7) ** 2) / 0.03)

# Four experiments, one source each, are a batch; the values are taken at the same 300 points.
centres = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
f = torch.stack([100 * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.02) for cx, cy in centres])
points = 0.02 + 0.96 * torch.rand(300, 2, dtype=torch.float64)


def predict(a):
    return sciml.solve(equation, square, fields={"a": a, "f": f}, rtol=1e-10).at(points)


exact = predict(truth)
noise = 0.005 * exact.max()
measured = exact + noise * torch.randn_like(exact)

log_a = torch.zeros_like(truth).requires_grad_()
search = torch.optim.LBFGS([log_a], max_iter=25, line_search_fn="strong_wolfe")


def objective():
    search.zero_grad()
    misfit = ((predict(log_a.exp()) - measured) / noise).square().mean()
    roughness = log_a.diff(dim=0).square().sum() + log_a.diff(dim=1).square().sum()
    total = misfit + 0.01 * roughness
    total.backward()
    return total


before = search.step(objective).item()
found = log_a.detach().exp()
error = [(a - truth).norm() / truth.norm() for a in (torch.ones_like(truth), found)]
print(f"objective {before:.1f} -> {objective().item():.2f}")
print(f"error of the coefficient {error[0]:.1%} -> {error[1]:.1%}")

figure = Figure(figsize=(8, 3.6), layout="constrained")
for axes, (title, a) in zip(figure.subplots(1, 2), [("true", truth), ("recovered", found)], strict=True):
    image = axes.imshow(a.T, origin="lower", extent=(0, 1, 0, 1), vmin=truth.min(), vmax=truth.max())
    axes.plot(*points.T, "w.", markersize=1)
    axes.set_title(f"a, {title}")
figure.colorbar(image, ax=figure.axes)
figure.savefig("recover_coefficient.png", dpi=150)
