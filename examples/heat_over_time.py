"""Heat through a part over time: a bracket whose bore is heated for five minutes, and cools again."""

import torch

import sciml


def bracket():
    """A plate of 40 by 20 mm with a bore, in triangles."""
    x, y = torch.meshgrid(torch.linspace(0, 0.04, 81).double(), torch.linspace(0, 0.02, 41).double(), indexing="ij")
    points = torch.stack([x, y], -1).reshape(-1, 2)
    turn = torch.arange(64, dtype=torch.float64) * (2 * torch.pi / 64)
    rim = torch.stack([0.011 + 0.006 * turn.cos(), 0.01 + 0.006 * turn.sin()], -1)

    def bore(x, y):
        return (x - 0.011).hypot(y - 0.01) < 0.006 + 1e-9

    points = torch.cat([points[(points[:, 0] - 0.011).hypot(points[:, 1] - 0.01) > 0.0063], rim])
    return sciml.Mesh.delaunay(points, inside=lambda x, y: ~bore(x, y)).with_boundaries({"bore": bore})


def heating(x, y, t):
    """Watts per square metre: on for five minutes, with half a minute to come and go."""
    t = torch.as_tensor(t, dtype=x.dtype)
    return 5e3 * torch.sigmoid((t - 30) / 6) * torch.sigmoid((330 - t) / 6) * torch.ones_like(x)


part = bracket()
equation = sciml.Equation("c*T_t = div(k*grad(T))", unknowns=["T"], parameters={"c": 3.9e6, "k": 15.0})
sides = {"bore": sciml.Neumann(heating), "rest": sciml.Robin(25.0, 25.0 * 20.0)}  # air of 20 degrees outside
times = torch.linspace(0, 900, 61, dtype=torch.float64)
solution = sciml.evolve(equation, part, initial=20.0, times=times, boundary=sides)

print(part)
print(solution)
heat = solution.flux("exterior")  # into the part, the bore included, W per m
stored = 3.9e6 * (solution.integral() - 20.0 * part.volume)
for t in (60, 330, 600, 900):
    now = int(t / 15)
    print(f"t = {t:3d} s: {solution.value[now].min():.1f} to {solution.value[now].max():.1f} degrees")
came = torch.trapezoid(heat, times)
print(f"joules per metre of thickness: came and stayed {came:.0f}, stored {stored[-1]:.0f}")
solution.plot("heat_over_time.png")
