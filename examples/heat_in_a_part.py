"""Heat conduction in a part given by a mesh file: a bracket with two holes, hot in one, cooled by air outside.

`python heat_in_a_part.py part.msh` reads another file, whose boundaries must be called "hot" and "cold".
"""

import sys
from pathlib import Path

import torch

import sciml


def bracket(path):
    """Write a plate of 40 by 20 mm with two holes as a mesh file with named boundaries."""
    holes = [(0.010, 0.010, 0.004), (0.030, 0.010, 0.006)]
    x, y = torch.meshgrid(torch.linspace(0, 0.04, 81).double(), torch.linspace(0, 0.02, 41).double(), indexing="ij")
    points = torch.stack([x, y], -1).reshape(-1, 2)
    turn = torch.arange(64, dtype=torch.float64) * (2 * torch.pi / 64)
    for a, b, radius in holes:
        away = (points[:, 0] - a).hypot(points[:, 1] - b)
        points = points[away > radius + 0.0003]
        rim = torch.stack([a + radius * turn.cos(), b + radius * turn.sin()], -1)
        points = torch.cat([points, rim])

    def in_hole(a, b, radius):
        return lambda x, y: (x - a).hypot(y - b) < radius + 1e-9

    mesh = sciml.Mesh.delaunay(points, inside=lambda x, y: ~(in_hole(*holes[0])(x, y) | in_hole(*holes[1])(x, y)))
    mesh.with_boundaries({"hot": in_hole(*holes[0]), "cold": in_hole(*holes[1])}).write(path)


path = Path(sys.argv[1] if len(sys.argv) > 1 else "bracket.msh")
if not path.exists():
    bracket(path)
part = sciml.Mesh.read(path)
print(part)

equation = sciml.Equation("-div(k*grad(T)) = 0", unknowns=("T",), parameters={"k": 45.0})
air = sciml.Robin(25.0, 25.0 * 20.0)
solution = sciml.solve(
    equation, part, boundary={"hot": sciml.Dirichlet(180.0), "cold": sciml.Dirichlet(40.0), "rest": air}
)
print(solution)
print("heat through the boundaries, W per m:", {name: round(float(solution.flux(name)), 1) for name in part.boundaries})
solution.plot("heat_in_a_part.png")
