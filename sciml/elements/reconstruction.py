"""What P1 values at the points of a mesh mean in between: values, gradients, integrals, distances from a function."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy
import torch
from torch import Tensor

from ..errors import InputError
from ..exact import Exact, derivative, evaluate
from ..mesh import Mesh
from .geometry import geometry_of

_OUTSIDE = 1e-9  # how far a point may lie outside of a cell, in barycentric coordinates
_PAIRS = 4_000_000  # pairs of points and cells that are tested at a time


def interpolate(value: Tensor, mesh: Mesh, points: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """Values at points; differentiable with respect to `value`, `points` and those of the mesh.

    Args:
        value: `(*batch, n)`.
        mesh: of n points.
        points: `(k, d)`.

    Returns:
        `(*batch, k)`.

    Raises:
        InputError: for points of another shape, not finite, or outside the mesh: how many, and the first.
    """
    places = _read_points(points, mesh)
    cells = locate(mesh, places.detach())
    weights = _barycentric(mesh, places, cells)
    return (value[..., mesh.cells[cells]] * weights).sum(-1)


@torch.no_grad()
def locate(mesh: Mesh, points: Tensor) -> Tensor:
    """`(k,)`, a cell that holds each point `(k, d)`; one of them if it lies between cells.

    Cells are listed by the boxes of a uniform grid, about one a cell, that their bounding boxes meet.

    Raises:
        InputError: for points outside the mesh.
    """
    if not len(points):
        return torch.zeros(0, dtype=torch.int64, device=mesh.device)
    corners = mesh.points[mesh.cells]
    low, high = corners.amin(1), corners.amax(1)
    lower, upper = low.amin(0), high.amax(0)
    extent = upper - lower
    side = float((extent.prod() / len(corners)) ** (1.0 / mesh.dimension))
    counts = (extent / side).ceil().long().clamp(1, 2**20)
    slack = 1e-6 * side

    def box(places: Tensor) -> Tensor:
        return torch.minimum(((places - lower) / extent * counts).floor().long().clamp(min=0), counts - 1)

    first, last = box(low - slack), box(high + slack)
    spans = last - first + 1
    owner, within = _ragged(spans.prod(1))
    steps = torch.ones_like(counts)
    steps[:-1] = counts.flip(0).cumprod(0).flip(0)[1:]
    number = torch.zeros_like(owner)
    for axis in reversed(range(mesh.dimension)):
        number += (first[owner, axis] + within % spans[owner, axis]) * steps[axis]
        within = within // spans[owner, axis]
    order = number.argsort(stable=True)
    listed, starts = owner[order], torch.searchsorted(number[order], torch.arange(int(counts.prod()) + 1).to(number))
    own_box = (box(points) * steps).sum(1)
    lengths = starts[own_box + 1] - starts[own_box]
    best = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    depth = torch.full((len(points),), -torch.inf, dtype=points.dtype, device=points.device)
    size = max(1, _PAIRS // max(1, int(lengths.max())))
    for start in range(0, len(points), size):
        chunk = slice(start, start + size)
        who, which = _ragged(lengths[chunk])
        candidates = listed[starts[own_box[chunk]][who] + which]
        inside = _barycentric(mesh, points[chunk][who], candidates).amin(1)
        depth[chunk] = depth[chunk].scatter_reduce(0, who, inside, "amax")
        deepest = torch.nonzero(inside == depth[chunk][who]).squeeze(-1)
        best[chunk] = best[chunk].scatter_reduce(0, who[deepest], candidates[deepest], "amax")
    tolerance = max(_OUTSIDE, 64 * torch.finfo(points.dtype).eps)
    outside = torch.nonzero(~(depth >= -tolerance)).squeeze(-1)
    if len(outside):
        shown = ", ".join(f"{c:.6g}" for c in points[outside[0]].tolist())
        reach = ", ".join(
            f"{a} from {p:.6g} to {q:.6g}" for a, p, q in zip("xyz", lower.tolist(), upper.tolist(), strict=False)
        )
        raise InputError(
            f"points: {len(outside)} of {len(points)} lie outside the mesh, the first of them ({shown}); the mesh "
            f"reaches over {reach}, and may have holes"
        )
    return best


def gradient(value: Tensor, mesh: Mesh) -> Tensor:
    """The gradient at the points, `(*batch, d, n)`: the mean of that of the cells around each, by volume.

    Of second order where these lie symmetrically, and of first order elsewhere and on the boundary (Zienkiewicz and
    Zhu, Int. J. Numer. Methods Engrg. 24 (1987) 337-357). `cell_gradient` has the gradient itself.
    """
    geometry = geometry_of(mesh)
    weighted = geometry.gradient(value) * geometry.volumes
    total = weighted.new_zeros(*weighted.shape[:-1], len(mesh.points))
    weight = geometry.volumes.new_zeros(len(mesh.points))
    for corner in geometry.cells:
        total = total.index_add(-1, corner, weighted)
        weight = weight.index_add(0, corner, geometry.volumes)
    return total / weight


def cell_gradient(value: Tensor, mesh: Mesh) -> Tensor:
    """The gradient of the P1 function with values `(*batch, n)`, constant in each cell: `(*batch, d, m)`."""
    return geometry_of(mesh).gradient(value)


def integral(value: Tensor, mesh: Mesh, region: object) -> Tensor:
    """The integral of the P1 function with values `(*batch, n)`, over a named region or everything; of shape batch.

    Raises:
        InputError: for a region that the mesh does not have.
    """
    if region is not None and not isinstance(region, str):
        raise InputError(f"region: on a mesh the name of a region or None, got {type(region).__name__}")
    geometry = geometry_of(mesh)
    amount = geometry.on_cells(value) * geometry.volumes
    return (amount if region is None else amount[..., mesh.region(region)]).sum(-1)


def norms(value: Tensor, mesh: Mesh, exact: Exact, name: str) -> Tensor:
    """The L2 and the H1 norm of a P1 function minus an exact solution, `(*batch, 2)`.

    By a product rule of Gauss and Gauss-Jacobi points, exact for polynomials of degree 5 (Stroud, Approximate
    Calculation of Multiple Integrals, 1971, section 2.4).

    Args:
        value: `(*batch, n)`.
        mesh: of n points.
        exact: a function of the coordinates, made of torch operations.
        name: of the unknown, for messages.

    Raises:
        InputError: for a function that does not fit.
    """
    geometry = geometry_of(mesh)
    gradients = geometry.gradient(value)
    plain = torch.zeros((), dtype=value.dtype, device=value.device)
    sloped = plain
    for weight, position in _quadrature(mesh.dimension):
        shares = torch.tensor(position, dtype=value.dtype, device=value.device)
        places = tuple(
            (axis[mesh.cells] * shares).sum(-1).contiguous() for axis in mesh.points.to(value.dtype).unbind(1)
        )
        here = (value[..., mesh.cells] * shares).sum(-1)
        amount = weight * geometry.volumes
        plain = plain + ((here - evaluate(exact, places, name)).square() * amount).sum(-1)
        for axis in range(mesh.dimension):
            difference = gradients[..., axis, :] - derivative(exact, places, axis, name)
            sloped = sloped + (difference.square() * amount).sum(-1)
    return torch.stack((plain.sqrt(), (plain + sloped).sqrt()), -1)


def _quadrature(dimension: int) -> list[tuple[float, list[float]]]:
    """Weights, their sum being 1, and barycentric coordinates."""
    from scipy.special import roots_jacobi

    # The axes of a cube are collapsed one by one: x, (1 - x) y, (1 - x) (1 - y) z with the weights of their Jacobian.
    rules = []
    for power in reversed(range(dimension)):
        nodes, weights = roots_jacobi(3, power, 0)
        rules.append(list(zip((nodes + 1) / 2, weights / weights.sum(), strict=True)))
    result = []
    for combination in product(*rules):
        left, position = 1.0, []
        for node, _ in combination:
            position.append(left * node)
            left *= 1 - node
        result.append((float(numpy.prod([w for _, w in combination])), [left, *map(float, position)]))
    return result


def _barycentric(mesh: Mesh, points: Tensor, cells: Tensor) -> Tensor:
    """`(k, d + 1)` barycentric coordinates of points `(k, d)` in cells `(k,)`."""
    geometry = geometry_of(mesh)
    origin = mesh.points[mesh.cells[cells, 0]]
    away = points - origin
    others = [(away * vertex[:, cells].mT).sum(1) for vertex in geometry.gradients[1:]]
    return torch.stack([1.0 - sum(others[1:], start=others[0]), *others], 1)


def _ragged(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """For lists of these lengths, one after the other: of each entry the number of its list and its place there."""
    lists = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    starts = lengths.cumsum(0) - lengths
    return lists, torch.arange(len(lists), device=lengths.device) - starts[lists]


def _read_points(points: Tensor | Sequence[Sequence[float]], mesh: Mesh) -> Tensor:
    try:
        given = torch.as_tensor(points)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"points: expected a tensor or nested lists of numbers ({error})") from error
    if given.is_complex():
        raise InputError(f"points: coordinates are real numbers, got {given.dtype}")
    places = given.to(device=mesh.device, dtype=mesh.dtype)
    if places.ndim != 2 or places.shape[1] != mesh.dimension:
        raise InputError(
            f"points: expected a tensor (n, {mesh.dimension}), one column an axis, got shape {tuple(places.shape)}"
        )
    bad = int((~torch.isfinite(places.detach()).all(1)).sum())
    if bad:
        raise InputError(f"points: {bad} of {len(places)} have a coordinate that is NaN or infinite")
    return places
