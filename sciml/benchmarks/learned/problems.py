"""Geometries and coefficients that no training has seen: those of training are random in other ways, and smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy
import scipy.ndimage
import torch
from torch import Tensor

from ...boundary import Dirichlet, Neumann
from ...discretization import discretize
from ...equations import Equation
from ...grid import Grid
from ...stencil import StencilOperator
from ..geometry.scans import TRIANGLES, bumpy_sphere
from ..linear.problems import (
    Problem,
    around,
    darcy_coefficient,
    gaussian_field,
    poisson,
    random_right_side,
    voxels,
)

Shape = tuple[int, ...]

BOX = "box"
PLUME = "plume"
SPHERES = "around spheres"
SCAN = "around a scan"
BOXES = "around boxes"
DARCY = "two-valued Darcy"
INCLUSIONS = "inclusions, contrast 1e4"
ROUGH = "rough two-valued field, contrast 1e4"
ALONG = "two-valued, 100:1 along x"
REGIONS = "100:1 along an axis that changes by region"

GEOMETRIES = (PLUME, SPHERES, SCAN, BOXES)
"""Where the coefficient is 1."""
COEFFICIENTS = (DARCY, INCLUSIONS, ROUGH, ALONG, REGIONS)
"""Where the domain is a box with zero on all sides and the right side is random."""

CONTRAST, RATIO = 1e4, 100.0
_DIFFUSION = Equation("-div(a*grad(u)) = f")


def make(name: str, shape: Shape, device: str) -> Problem:
    """One of the problems by its name; geometries but `BOX` and `PLUME` on cubes."""
    return _PROBLEMS[name](shape, device)


def plume(shape: Shape, device: str) -> Problem:
    """The pressure that makes a rising plume's velocity solenoidal: zero at the upper side of z, walls elsewhere."""
    sides = {"x": Neumann(0.0), "y": Neumann(0.0), "z": (Neumann(0.0), Dirichlet(0.0))}
    grid = Grid(shape, boundary=sides, device=device)
    return Problem(_stencil(Equation("-laplacian(p) = f"), grid, {"f": 0.0}), -plume_divergence(shape).to(device))


def plume_divergence(shape: Shape) -> Tensor:
    """Divergence of `plume_velocity` from its values on the faces of the cells of the unit cube, none through walls."""
    centres = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape]
    total = torch.zeros(shape, dtype=torch.float64)
    for axis, n in enumerate(shape):
        faces = torch.arange(n + 1, dtype=torch.float64) / n
        places = [faces if other == axis else centre for other, centre in enumerate(centres)]
        component = plume_velocity(*torch.meshgrid(*places, indexing="ij"))[axis].clone()
        component.select(axis, 0).fill_(0.0)
        if axis < 2:
            component.select(axis, n).fill_(0.0)
        total += component.diff(dim=axis) * n
    return total


def plume_velocity(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A jet of hot air that widens and winds on its way up and has come to two thirds of the height."""
    width = 0.05 + 0.12 * z
    along_x, along_y = 0.5 + 0.08 * torch.sin(9 * z), 0.5 + 0.06 * torch.sin(7 * z + 1)
    distance = ((x - along_x) ** 2 + (y - along_y) ** 2).sqrt() / width
    up = 0.05 / width * torch.exp(-0.5 * distance**2) * torch.sigmoid((0.65 - z) / 0.03)
    return 0.72 * torch.cos(9 * z) * up, 0.42 * torch.cos(7 * z + 1) * up, up


def spheres(n: int, device: str, seed: int = 0, count: int = 14) -> Problem:
    """`around` solid balls in the unit cube with radii from 0.06 to 0.18, which may overlap."""
    generator = torch.Generator().manual_seed(seed)
    x, y, z = Grid((n, n, n)).coordinates
    solid = torch.zeros(n, n, n, dtype=torch.bool)
    for _ in range(count):
        a, b, c, size = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        solid |= (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < (0.06 + 0.12 * size) ** 2
    return around(without_pockets(solid).to(device), seed)


def scan(n: int, device: str) -> Problem:
    """`around` a closed surface of triangles, a body with bulges that nearly fills the cube, in cells."""
    grid = Grid((n, n, n), lower=-0.5, upper=0.5)
    return around(without_pockets(grid.voxelize(bumpy_sphere(TRIANGLES))).to(device))


def without_pockets(solid: Tensor) -> Tensor:
    """Obstacles together with the cells from which no way leads to the lower side of x, where nothing is determined."""
    parts, _ = scipy.ndimage.label(~solid.numpy())
    return torch.from_numpy(~numpy.isin(parts, numpy.setdiff1d(parts[0], [0])))


def darcy(shape: Shape, device: str, seed: int = 0) -> Problem:
    """a is 12 or 3, see `darcy_coefficient`."""
    return _diffusion(darcy_coefficient(shape, seed), device, seed)


def inclusions(shape: Shape, device: str, seed: int = 0, boxes: int = 30) -> Problem:
    """a is 1 but in boxes of 2 to n/4 cells along each axis, where it is 10 to a power that is uniform in [0, 4]."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.ones(shape, dtype=torch.float64)
    for _ in range(boxes):
        box = []
        for n in shape:
            length = int(torch.randint(2, n // 4 + 1, (), generator=generator))
            start = int(torch.randint(0, n - length + 1, (), generator=generator))
            box.append(slice(start, start + length))
        a[tuple(box)] = CONTRAST ** float(torch.rand((), generator=generator, dtype=torch.float64))
    return _diffusion(a, device, seed)


def rough(shape: Shape, device: str, seed: int = 0) -> Problem:
    """a is 1e4 where a Gaussian random field is positive and 1 elsewhere: grains of all sizes down to single cells.

    The covariance is (-laplacian + 225)^-2 in two dimensions and ^-2.5 in three.
    """
    field = gaussian_field(shape, seed, shift=225.0, power=1.0 + len(shape) / 2)
    return _diffusion(torch.ones_like(field).masked_fill(field > 0, CONTRAST), device, seed)


def along(shape: Shape, device: str, seed: int = 0) -> Problem:
    """The coefficient of `darcy`, a hundred times as large along x as along the other axes."""
    a = darcy_coefficient(shape, seed)
    return _directed([RATIO * a, *[a] * (len(shape) - 1)], device, seed)


def regions(shape: Shape, device: str, seed: int = 0) -> Problem:
    """1, but 100 along one axis: as many regions as axes, of as many cells, by the values of a smooth random field."""
    field = gaussian_field(shape, seed, shift=36.0, power=1.0 + len(shape) / 2).numpy()
    levels = numpy.quantile(field, numpy.linspace(0, 1, len(shape) + 1)[1:-1])
    region = torch.from_numpy(numpy.digitize(field, levels))
    ones = torch.ones(shape, dtype=torch.float64)
    return _directed([ones.masked_fill(region == axis, RATIO) for axis in range(len(shape))], device, seed)


def _diffusion(a: Tensor, device: str, seed: int) -> Problem:
    grid = Grid(tuple(a.shape), boundary=Dirichlet(0.0), device=device)
    operator = _stencil(_DIFFUSION, grid, {"a": a.to(device), "f": 0.0})
    return Problem(operator, random_right_side(a.shape, device, seed))


def _directed(coefficients: Sequence[Tensor], device: str, seed: int) -> Problem:
    """-div(a_x u_x, a_y u_y, ...) = f."""
    shape = tuple(coefficients[0].shape)
    names = "xyz"[: len(shape)]
    equation = Equation(f"-div([{', '.join(f'a{name}*u_{name}' for name in names)}]) = f")
    grid = Grid(shape, boundary=Dirichlet(0.0), device=device)
    fields = {f"a{name}": a.to(device) for name, a in zip(names, coefficients, strict=True)}
    return Problem(_stencil(equation, grid, {**fields, "f": 0.0}), random_right_side(shape, device, seed))


def _stencil(equation: Equation, grid: Grid, fields: Mapping[str, Tensor | float]) -> StencilOperator:
    operator = discretize(equation, grid, fields).operator
    if not isinstance(operator, StencilOperator):
        raise TypeError(f"{equation} on {grid} became {operator}")
    return operator


_PROBLEMS: Mapping[str, Callable[[Shape, str], Problem]] = {
    BOX: poisson,
    PLUME: plume,
    SPHERES: lambda shape, device: spheres(shape[0], device),
    SCAN: lambda shape, device: scan(shape[0], device),
    BOXES: lambda shape, device: voxels(shape[0], device),
    DARCY: darcy,
    INCLUSIONS: inclusions,
    ROUGH: rough,
    ALONG: along,
    REGIONS: regions,
}
