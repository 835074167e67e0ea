"""A potential flow around a scanned body: `python flow_around_a_scan.py [surface.stl]`, in any format of meshio."""

import sys
from math import pi

import torch

import sciml
from sciml.mesh_files import read_surface


def ring_with_ridges(around: int = 180, across: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """A body for those who have no scan at hand: a ring that stands across the flow."""
    u = 2 * pi * torch.arange(around, dtype=torch.float64)[:, None] / around
    v = 2 * pi * torch.arange(across, dtype=torch.float64) / across
    radius = 0.22 * (1 + 0.25 * torch.cos(7 * u + 2 * v))
    distance = 1 + radius * v.cos()
    points = torch.stack([radius * v.sin(), distance * u.cos(), distance * u.sin()], -1).reshape(-1, 3)
    corner = torch.arange(around * across).reshape(around, across)
    right, above = corner.roll(-1, 0), corner.roll(-1, 1)
    opposite = right.roll(-1, 1)
    triangles = torch.cat([torch.stack(t, -1) for t in ((corner, right, opposite), (corner, opposite, above))])
    return points, triangles.reshape(-1, 3)


points, triangles = read_surface(sys.argv[1]) if len(sys.argv) > 1 else ring_with_ridges()
check = sciml.surface_check(points, triangles)
print(f"{check.triangles} triangles, {check.open_edges} open edges, volume {check.volume:.5g}")

# A channel around the body, twice as long as the body is large, and 1.5 times as wide and high. phi is 1 at the inlet
# and 0 at the outlet; nothing flows through the other sides or into the body.
low, high = points.amin(0), points.amax(0)
half = (high - low).max() * torch.tensor([1.0, 0.75, 0.75])
lower, upper = ((low + high) / 2 - half).tolist(), ((low + high) / 2 + half).tolist()
sides = {"x": (sciml.Dirichlet(1.0), sciml.Dirichlet(0.0)), "y": sciml.Neumann(0.0), "z": sciml.Neumann(0.0)}
channel = sciml.Grid((96, 72, 72), lower=lower, upper=upper, boundary=sides)
solid = channel.voxelize((points, triangles), method=None if check.closed else "winding")
print(f"{int(solid.sum())} voxels inside, volume {float(solid.sum()) * channel.cell_volume:.5g}")

channel = sciml.Grid(channel.shape, lower=lower, upper=upper, boundary=sides, solid=solid)
solution = sciml.solve(sciml.Equation("-laplacian(phi) = 0"), channel, rtol=1e-12)
inflow, outflow = float(solution.flux("x_lower")), -float(solution.flux("x_upper"))
length, width, height = (stop - start for start, stop in zip(lower, upper, strict=True))
print(solution)
print(f"inflow {inflow:.10g}, outflow {outflow:.10g}; {inflow / (width * height / length):.4f} of the empty channel's")
solution.plot("flow_around_a_scan.png")
