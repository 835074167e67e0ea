"""A learned preconditioner where a scan is in the way of heat: `python learned_preconditioner.py [surface.stl]`."""

import sys
from math import pi

import torch
from matplotlib.figure import Figure

import sciml
from sciml.mesh_files import read_surface
from sciml.solvers.linear import ConjugateGradient, Multigrid
from sciml.solvers.linear.learned import LearnedMultigrid


def shell(along: int = 600, across: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """A body for those who have no scan at hand: a wall that winds outwards from the middle."""
    t = torch.linspace(0, 1, along, dtype=torch.float64)[:, None]
    v = 2 * pi * torch.arange(across, dtype=torch.float64) / across
    reach = 0.16 + 0.72 * t + 0.045 * (1 + 0.25 * torch.cos(260 * t**1.5)) * v.cos()
    height = (0.36 + 0.08 * t) * torch.tanh(3 * v.sin())
    points = torch.stack([reach * torch.cos(5.6 * pi * t), reach * torch.sin(5.6 * pi * t), height], -1)
    here = torch.arange(along * across).reshape(along, across)
    beside, first, last = here.roll(-1, 1), torch.full((across,), here.numel()), torch.full((across,), here.numel() + 1)
    parts = [(here[:-1], here[1:], beside[1:]), (here[:-1], beside[1:], beside[:-1])]
    parts += [(first, here[0], beside[0]), (last, beside[-1], here[-1])]
    triangles = torch.cat([torch.stack(part, -1).reshape(-1, 3) for part in parts])
    return torch.cat([points.reshape(-1, 3), points[[0, -1]].mean(1)]), triangles


points, triangles = read_surface(sys.argv[1]) if len(sys.argv) > 1 else shell()
middle, size = (points.amin(0) + points.amax(0)) / 2, points.amax(0) - points.amin(0)
lower, upper = (middle - 0.57 * size).tolist(), (middle + 0.57 * size).tolist()
sides = {"x": sciml.Dirichlet(0.0), "y": sciml.Dirichlet(0.0), "z": sciml.Neumann(0.0)}
box = sciml.Grid(tuple((80 * size / size.max()).round().int().tolist()), lower, upper, boundary=sides)
closed = sciml.surface_check(points, triangles).closed
solid = box.voxelize((points, triangles), method=None if closed else "winding")
box = sciml.Grid(box.shape, lower, upper, boundary=sides, solid=solid)
print(f"{len(triangles)} triangles, {int((~solid).sum())} unknowns around {int(solid.sum())} cells of the body")
figure = Figure(figsize=(7.2, 4.0), layout="constrained")
panels = figure.subplot_mosaic([["z", "curves"], ["y", "curves"]], height_ratios=(2, 1), width_ratios=(1, 1.3))
choices = {"alone": None, "multigrid": Multigrid(), "learned multigrid": LearnedMultigrid.pretrained("poisson-3d")}
for (name, preconditioner), style in zip(choices.items(), ("0.6", "C0.-", "C1.-"), strict=True):
    method = ConjugateGradient(preconditioner=preconditioner, rtol=1e-8)
    solution = sciml.solve(sciml.Equation("-laplacian(T) = 1"), box, method=method)
    count, setup, seconds = (float(solution.statistics[k]) for k in ("iterations", "seconds_setup", "seconds_solve"))
    print(f"{name}: {count:.0f} iterations, set-up {setup:.2f} s, solve {seconds:.2f} s")
    residuals = solution.history["residual_norm"] / solution.history["residual_norm"][0]
    label = f"{name}: {count:.0f}, {1e3 * (setup + seconds):.0f} ms"
    panels["curves"].loglog(range(1, len(residuals)), residuals[1:], style, label=label)
panels["curves"].legend(title="iterations, time with set-up", loc="upper right", handlelength=1, frameon=False)
panels["curves"].set(xlabel="iteration", title="residual of conjugate gradients", ylim=(1e-9, 1e6))
for name, axis, other in (("z", 2, 1), ("y", 1, 2)):
    extent = (lower[0], upper[0], lower[other], upper[other])
    cut = solution.value.masked_fill(solid, torch.nan).select(axis, box.shape[axis] // 2).T
    image = panels[name].imshow(cut, origin="lower", extent=extent, cmap="inferno", vmin=0, vmax=solution.value.max())
    panels[name].set(facecolor="0.72", xticks=[], yticks=[], xlabel="x", ylabel="xyz"[other])
figure.colorbar(image, ax=[panels["z"], panels["y"]], shrink=0.6, label="T")
figure.savefig("learned_preconditioner.png", dpi=150)
