"""Points and cells of meshes that are made and not read: boxes, and Delaunay meshes of given points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import isfinite, prod
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from .boundary import AXES
from .errors import InputError
from .mesh_input import ask_cells, read_points
from .mesh_quality import radius_ratios
from .mesh_simplices import alone, facets_of, pair_facets


def box(
    shape: Sequence[int], lower: float | Sequence[float], upper: float | Sequence[float], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Points and cells of a box cut along the Kuhn subdivision; the cells are not oriented.

    Each small box is cut into d! simplices, one an order of the axes: from its lower corner along the edges to the
    upper one. All of them have the same diagonal, so that neighbours fit (Kuhn, "Some combinatorial lemmas in
    topology", 1960).
    """
    counts = _read_counts(shape)
    d = len(counts)
    low, high = _read_corner(lower, d, "lower"), _read_corner(upper, d, "upper")
    for axis, start, stop in zip(AXES, low, high, strict=False):
        if not stop > start:
            raise InputError(f"Mesh.box: upper must be greater than lower; along {axis} they are {stop} and {start}")
    ticks = [
        torch.linspace(start, stop, n + 1, dtype=torch.float64).to(dtype)
        for n, start, stop in zip(counts, low, high, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*ticks, indexing="ij"), -1).reshape(-1, d)
    numbers = torch.arange(prod(n + 1 for n in counts)).reshape([n + 1 for n in counts])
    strides = torch.tensor(numbers.stride())
    paths = torch.tensor(list(permutations(range(d))))
    steps = torch.cat((torch.zeros(len(paths), 1, dtype=torch.int64), strides[paths].cumsum(1)), 1)
    corners = numbers[tuple(slice(0, -1) for _ in counts)].reshape(-1, 1, 1)
    return points, (corners + steps).reshape(-1, d + 1)


def sides(shape: Sequence[int], facets: Tensor) -> dict[str, Tensor]:
    """Which exterior facets of a box lie on each of its sides: bool tensors `(f,)`."""
    parts, stride = {}, 1
    for axis, n in reversed(list(enumerate(shape))):
        place = (facets // stride) % (n + 1)
        parts[f"{AXES[axis]}_lower"] = (place == 0).all(1)
        parts[f"{AXES[axis]}_upper"] = (place == n).all(1)
        stride *= n + 1
    return dict(sorted(parts.items()))


def delaunay(points: Any, inside: Callable[..., Tensor] | None, flatness: float) -> tuple[Tensor, Tensor]:
    """Points and cells of the Delaunay mesh of points (Qhull, by way of scipy).

    Points that lie on one line or in one plane up to rounding leave slivers along the hull. Cells with a facet on the
    hull and a radius ratio below `flatness` are taken off until there are none.
    """
    from scipy.spatial import Delaunay, QhullError

    place = read_points(points, "Mesh.delaunay")
    if not bool(place.isfinite().all()):
        raise InputError("Mesh.delaunay: a coordinate is NaN or infinite")
    try:
        simplices = Delaunay(place.detach().cpu().double().numpy()).simplices
    except (QhullError, ValueError) as error:  # ValueError: of no points at all
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"Mesh.delaunay: these {len(place)} points span no mesh; {place.shape[1] + 1} or more are needed, not all "
            f"on one {'line' if place.shape[1] == 2 else 'plane'} (Qhull: {reason})"
        ) from error
    cells = torch.from_numpy(simplices).to(device=place.device, dtype=torch.int64)
    if inside is not None:
        cells = cells[ask_cells(inside, place.detach()[cells].mean(1), "Mesh.delaunay: inside")]
    cells = _without_slivers(place.detach(), cells, flatness)
    if not len(cells):
        raise InputError("Mesh.delaunay: no cell is left; `inside` is false at the centres of all, or all are flat")
    used, numbers = cells.unique(return_inverse=True)
    return place[used], numbers


def _without_slivers(points: Tensor, cells: Tensor, flatness: float) -> Tensor:
    flat = radius_ratios(points, cells) < flatness
    while bool(flat.any()):
        at_hull = torch.zeros_like(flat)
        at_hull[alone(*pair_facets(facets_of(cells), len(points))) // cells.shape[1]] = True
        keep = ~(flat & at_hull)
        if bool(keep.all()):
            break
        cells, flat = cells[keep], flat[keep]
    return cells


def _read_counts(shape: Any) -> tuple[int, ...]:
    if (
        not isinstance(shape, Sequence)
        or len(shape) not in (2, 3)
        or any(not isinstance(n, Integral) or isinstance(n, bool) or n < 1 for n in shape)
    ):
        raise InputError(f"Mesh.box: shape is two or three positive integers, the boxes along each axis, got {shape!r}")
    return tuple(int(n) for n in shape)


def _read_corner(corner: Any, d: int, name: str) -> tuple[float, ...]:
    numbers = (corner,) * d if isinstance(corner, Real) else corner
    if not isinstance(numbers, Sequence) or len(numbers) != d:
        raise InputError(f"Mesh.box: {name} is one number for each of the {d} axes, got {corner!r}")
    if any(not isinstance(number, Real) or isinstance(number, bool) or not isfinite(number) for number in numbers):
        raise InputError(f"Mesh.box: {name} is one finite number an axis, got {corner!r}")
    return tuple(float(number) for number in numbers)
