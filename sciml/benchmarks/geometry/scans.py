"""Grids from scans: how long it takes to find the unknowns inside a surface, and how well they fill it."""

from __future__ import annotations

from math import pi
from typing import Any

import torch
from torch import Tensor

from ...grid import Grid
from ...surfaces import surface_volume
from ..bench import Bench, version_of
from ..linear.peers import RUGE_STUBEN, SMOOTHED_AGGREGATION
from ..linear.problems import around
from ..linear.solves import against_pyamg
from ..row import Row
from ..timing import Contender, Outcome

VOXELIZE = "voxelize"
TRIANGLES = 7_500


def bumpy_sphere(triangles: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """A closed star-shaped surface with about as many triangles, as in a scan that was cleaned: `(n, 3)`, `(m, 3)`.

    Circles of latitude and two poles; the radius waves between 0.32 and 0.48.
    """
    rings = max(3, round((triangles / 4) ** 0.5))
    around = 2 * rings
    latitude = torch.arange(1, rings + 1, dtype=torch.float64) * (pi / (rings + 1))
    longitude = torch.arange(around, dtype=torch.float64) * (2 * pi / around)
    theta, phi = torch.meshgrid(latitude, longitude, indexing="ij")
    radius = 0.4 + 0.08 * torch.sin(3 * phi) * torch.sin(theta) ** 3 * torch.cos(2 * theta)
    ring = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1) * radius.unsqueeze(-1)
    poles = torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, -0.4]], dtype=torch.float64)
    points = torch.cat([ring.reshape(-1, 3), poles])
    index = torch.arange(rings * around).reshape(rings, around)
    right = index.roll(-1, 1)
    upper, lower, upper_right, lower_right = index[:-1], index[1:], right[:-1], right[1:]
    north, south = (torch.full_like(index[0], rings * around + pole) for pole in (0, 1))
    parts = [
        torch.stack([upper, lower, lower_right], -1),
        torch.stack([upper, lower_right, upper_right], -1),
        torch.stack([north, index[0], right[0]], -1),
        torch.stack([south, right[-1], index[-1]], -1),
    ]
    return points.to(device), torch.cat([part.reshape(-1, 3) for part in parts]).to(device)


def voxels_case(n: int) -> str:
    """Name of the case."""
    return f"voxelizing a surface of {TRIANGLES:,} triangles at {n}x{n}x{n}"


def measure_voxels(n: int, bench: Bench) -> list[Row]:
    """Seconds, and the volume of the cells inside against the surface's own, relative."""
    points, triangles = bumpy_sphere(TRIANGLES, bench.device)
    grid = Grid((n, n, n), lower=-0.5, upper=0.5, device=bench.device)
    exact = float(surface_volume(points, triangles))

    def error(mask: Any) -> float:
        return abs(int(mask.sum()) * grid.cell_volume - exact) / exact

    contender = Contender(
        VOXELIZE,
        "sciml",
        version_of("sciml"),
        lambda _: grid.voxelize((points, triangles)),
        Outcome,
        device=bench.device,
    )
    return bench.compare(voxels_case(n), [contender], unknowns=n**3, error=error)


def outside_case(n: int) -> str:
    """Name of the case."""
    return f"Poisson outside a surface at {n}x{n}x{n} to 1e-6"


def measure_outside(n: int, bench: Bench) -> list[Row]:
    """Set-up and solve to 1e-6 on the cells outside, no flux through the surface."""
    grid = Grid((n, n, n), lower=-0.5, upper=0.5, device=bench.device)
    problem = around(grid.voxelize(bumpy_sphere(TRIANGLES, bench.device)))
    return against_pyamg(outside_case(n), problem, [SMOOTHED_AGGREGATION, RUGE_STUBEN], 1e-6, bench)
