"""Values and derivatives of a grid field between its unknowns and up to the walls, to second order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from .errors import InputError
from .exact import Exact, derivative, evaluate
from .grid import Grid

Faces = Mapping[tuple[int, int], Tensor]
"""(axis, side) -> values on faces, side being 0 (lower) or 1 (upper): on the sides of the box `(*batch, *space)` with
length 1 along the axis, periodic axes left out; on the faces of solid cells `(*batch, *space)`, by the fluid cell."""


def extend(value: Tensor, grid: Grid, sides: Faces) -> tuple[Tensor, Tensor | None]:
    """A field with one more layer at both ends of every axis, `(*batch, *(n + 2))`; the mask of solid cells likewise.

    Periodic axes wrap. Elsewhere the new value is u + 2 (face - u), so that linear interpolation meets the value on the
    face. Edges and corners are filled as if the increments of the axes added up.
    """
    inner, solid = value, grid.solid
    for axis, periodic in enumerate(grid.periodic):
        position = axis - grid.dimension
        if periodic:
            value = _pad(value, grid, axis)
        else:
            layers = []
            for side in (0, 1):
                step = 2.0 * (sides[axis, side] - _ends(inner, position)[side])
                for earlier in range(axis):
                    step = _pad(step, grid, earlier)
                layers.append(_ends(value, position)[side] + step)
            shape = torch.broadcast_shapes(layers[0].shape, layers[1].shape)
            value = value.expand(*shape[: len(shape) - grid.dimension], *value.shape[value.dim() - grid.dimension :])
            value = torch.cat((layers[0].expand(shape), value, layers[1].expand(shape)), position)
        solid = None if solid is None else _pad(solid, grid, axis)
    return value, solid


Points = Tensor | Sequence[Sequence[float]]


def interpolate(value: Tensor, grid: Grid, points: Points, sides: Faces, walls: Faces) -> Tensor:
    """The field at points of the domain, `(n, dimension)` -> `(*batch, n)`, to second order up to the walls.

    Multilinear between the unknowns and the layers of `extend`. Where a solid cell takes part, which has no value, the
    linear part alone: u + sum over the axes of distance times slope, the slope towards a solid neighbour from `walls`.
    Differentiable with respect to `value` and `points`.

    Args:
        sides: values on the sides of the box.
        walls: values on the faces of solid cells; not looked at where the grid has none.

    Raises:
        InputError: points of another shape, not finite, outside the box, or inside a solid cell.
    """
    points = read_points(points, grid)
    places = _places(points, grid)
    cells = _cells(places, grid, points)
    offsets = places - cells
    steps = torch.where(offsets.detach() < 0, -1, 1)
    weights = (offsets * steps).to(value.dtype)
    cells = torch.stack([c % n for c, n in zip(cells.unbind(-1), grid.shape, strict=True)], -1)
    outer, solid = extend(value, grid, sides)
    table = outer.flatten(-grid.dimension)

    def index(moves: Sequence[int]) -> Tensor:
        flat = torch.zeros_like(cells[:, 0])
        for axis, move in enumerate(moves):
            flat = flat * (grid.shape[axis] + 2) + cells[:, axis] + 1 + move * steps[:, axis]
        return flat

    result = torch.zeros((), dtype=value.dtype, device=value.device)
    for moves in product((0, 1), repeat=grid.dimension):
        weight = torch.ones_like(weights[:, 0])
        for axis, move in enumerate(moves):
            weight = weight * (weights[:, axis] if move else 1.0 - weights[:, axis])
        result = result + weight * table.index_select(-1, index(moves))
    if solid is None:
        return result

    occupied = solid.flatten()
    beside = torch.stack([occupied[index(moves)] for moves in product((0, 1), repeat=grid.dimension)]).any(0)
    if not bool(beside.any()):
        return result
    own = table.index_select(-1, index((0,) * grid.dimension))
    linear = own
    inner = _ravel(cells, grid.shape)
    for axis in range(grid.dimension):
        forward = [int(other == axis) for other in range(grid.dimension)]
        neighbour = table.index_select(-1, index(forward))
        below, above = (walls[axis, side].flatten(-grid.dimension).index_select(-1, inner) for side in (0, 1))
        beyond = 2.0 * torch.where(steps[:, axis] < 0, below, above) - own
        linear = linear + weights[:, axis] * (torch.where(occupied[index(forward)], beyond, neighbour) - own)
    return torch.where(beside, linear, result)


def read_points(points: Points, grid: Grid) -> Tensor:
    """Points as a tensor `(n, dimension)`.

    Raises:
        InputError: for points of another shape, on another device, or not finite.
    """
    if not isinstance(points, Tensor):
        try:
            points = torch.as_tensor(points, dtype=torch.float64, device=grid.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"points: expected a tensor or nested lists of numbers ({error})") from error
    if points.device.type != grid.device.type:
        raise InputError(f"points are on {points.device}, the grid is on {grid.device}; move one of them")
    if points.dim() != 2 or points.shape[1] != grid.dimension:
        raise InputError(f"points: expected shape (n, {grid.dimension}), one row a point, got {tuple(points.shape)}")
    finite = torch.isfinite(points.detach()).all(-1)
    if not bool(finite.all()):
        raise InputError(f"points: {int((~finite).sum())} of {len(points)} are NaN or infinite")
    return points


def norms(value: Tensor, grid: Grid, exact: Exact, name: str) -> Tensor:
    """The L2 and the H1 norm of a field minus an exact solution, `(*batch, 2)`; see `Solution.error`.

    Raises:
        InputError: for a function that does not fit.
    """
    difference = value - evaluate(exact, grid.coordinates, name)
    if grid.solid is not None:
        difference = torch.where(grid.solid, 0.0, difference)
    plain = sum_of_squares(difference, grid)
    slopes = torch.zeros_like(plain)
    for axis in range(grid.dimension):
        quotient, fluid, centres = differences(value, grid, axis)
        difference = quotient - derivative(exact, centres, axis, name)
        slopes = slopes + sum_of_squares(difference if fluid is None else fluid * difference, grid)
    return torch.stack((plain.sqrt(), (plain + slopes).sqrt()), -1)


def sum_of_squares(field: Tensor, grid: Grid) -> Tensor:
    """The integral of the square by the midpoint rule, of shape batch."""
    return field.square().flatten(-grid.dimension).sum(-1) * grid.cell_volume


def gradient(value: Tensor, grid: Grid, sides: Faces, walls: Faces) -> Tensor:
    """The gradient at the unknowns, `(*batch, *space)` -> `(*batch, dimension, *space)`; zero in solid cells.

    Central differences; beside a wall the one-sided ones of second order, (-3 u_0 + 4 u_1 - u_2)/(2h). They are taken
    rather than the boundary value, because the error of a discrete solution is smooth over the unknowns but jumps to
    zero on a Dirichlet face: a difference across that jump is of first order only. In the cells at a corner between two
    Dirichlet sides that error is not smooth, and the order falls to one. Where three unknowns in a row do not fit
    between two walls, the values on the walls take part, to first order.
    """
    slopes = [_derivative(value, grid, axis, sides, walls) for axis in range(grid.dimension)]
    return torch.stack(slopes, -1 - grid.dimension)


def differences(value: Tensor, grid: Grid, axis: int) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    """Difference quotients on the faces between two unknowns along an axis, and where these faces are.

    Returns:
        the quotients `(*batch, *faces)`; a mask of the faces between two fluid cells, or None for all; the coordinates
        of their centres, one tensor an axis.
    """
    position = axis - grid.dimension
    n, periodic = grid.shape[axis], grid.periodic[axis]
    first = 0 if periodic else 1
    upper = value.narrow(position, first, n - first)
    lower = value.roll(1, position).narrow(position, first, n - first)
    centres = tuple(c.narrow(axis, first, n - first) for c in grid.face_coordinates(axis))
    fluid = None
    if grid.solid is not None:
        solid = grid.solid | grid.solid.roll(1, axis)
        fluid = ~solid.narrow(axis, first, n - first)
    return (upper - lower) / grid.spacing[axis], fluid, centres


def _derivative(value: Tensor, grid: Grid, axis: int, sides: Faces, walls: Faces) -> Tensor:
    position, h = axis - grid.dimension, grid.spacing[axis]

    def neighbour(distance: int) -> Tensor:
        return value.roll(-distance, position)

    central = (neighbour(1) - neighbour(-1)) / (2.0 * h)
    if grid.periodic[axis] and grid.solid is None:
        return central
    free = {distance: _free(grid, axis, distance) for distance in (-2, -1, 1, 2)}
    after = (-3.0 * value + 4.0 * neighbour(1) - neighbour(2)) / (2.0 * h)
    before = (3.0 * value - 4.0 * neighbour(-1) + neighbour(-2)) / (2.0 * h)
    result = torch.where(free[1] & free[-1], central, torch.where(free[1] & free[2], after, before))
    known = (free[1] & free[-1]) | (free[1] & free[2]) | (free[-1] & free[-2])
    if not bool(known.all()):
        result = torch.where(known, result, _crossing(value, grid, axis, free, sides, walls))
    return result if grid.solid is None else torch.where(grid.solid, 0.0, result)


def _crossing(value: Tensor, grid: Grid, axis: int, free: dict[int, Tensor], sides: Faces, walls: Faces) -> Tensor:
    """Central difference, with 2 face - u for neighbours that are not there."""
    position, n = axis - grid.dimension, grid.shape[axis]
    place = _along(torch.arange(n, device=value.device), grid, axis)
    ends = []
    for side, distance in ((0, -1), (1, 1)):
        neighbour = value.roll(-distance, position)
        if grid.solid is not None:
            neighbour = torch.where(free[distance], neighbour, 2.0 * walls[axis, side] - value)
        if not grid.periodic[axis]:
            beyond = 2.0 * sides[axis, side] - value
            neighbour = torch.where(place == (n - 1 if side else 0), beyond, neighbour)
        ends.append(neighbour)
    return (ends[1] - ends[0]) / (2.0 * grid.spacing[axis])


def _free(grid: Grid, axis: int, distance: int) -> Tensor:
    """Where the cell at `distance` along an axis is in the box and fluid; broadcasts to the grid's shape."""
    n = grid.shape[axis]
    place = torch.arange(n, device=grid.device) + distance
    inside = _along(((place >= 0) & (place < n)) | grid.periodic[axis], grid, axis)
    if grid.solid is None:
        return inside
    return inside & ~grid.solid.roll(-distance, axis)


def _along(line: Tensor, grid: Grid, axis: int) -> Tensor:
    """A vector along one axis, shaped to broadcast against the grid."""
    return line.reshape([-1 if other == axis else 1 for other in range(grid.dimension)])


def _ends(field: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    return field.narrow(axis, 0, 1), field.narrow(axis, field.shape[axis] - 1, 1)


def _pad(field: Tensor, grid: Grid, axis: int) -> Tensor:
    """One more entry at both ends of an axis: the one from the other end if it is periodic, else the last one again."""
    first, last = _ends(field, axis - grid.dimension)
    return torch.cat((last, field, first) if grid.periodic[axis] else (first, field, last), axis - grid.dimension)


def _places(points: Tensor, grid: Grid) -> Tensor:
    """Points in units of the spacing, unknown i at i, in float64; on periodic axes brought into the box."""
    exact = points.detach().to(torch.float64)
    precision = torch.finfo(points.dtype if points.is_floating_point() else torch.float64).eps
    columns = []
    for axis, (low, high, n) in enumerate(zip(grid.lower, grid.upper, grid.shape, strict=True)):
        column = points[:, axis].to(torch.float64)
        if grid.periodic[axis]:
            columns.append(torch.remainder(column - low, high - low) / grid.spacing[axis])
            continue
        rounding = 8.0 * precision * max(abs(low), abs(high), high - low)
        outside = (exact[:, axis] < low - rounding) | (exact[:, axis] > high + rounding)
        if bool(outside.any()):
            first = tuple(exact[outside][0].tolist())
            raise InputError(
                f"points: {int(outside.sum())} of {len(points)} lie outside {grid.axes[axis]} in [{low:g}, {high:g}], "
                f"the first at {first}"
            )
        columns.append((column - low) / (high - low) * n - 0.5)
    return torch.stack(columns, -1)


def _cells(places: Tensor, grid: Grid, points: Tensor) -> Tensor:
    """The unknown in whose cell each place lies; n, not 0, at the upper end of a periodic axis."""
    limits = torch.tensor(
        [n if p else n - 1 for n, p in zip(grid.shape, grid.periodic, strict=True)], device=places.device
    )
    cells = places.detach().round().long().clamp(min=torch.zeros_like(limits), max=limits)
    if grid.solid is None:
        return cells
    # A point on a face between solid and fluid, up to rounding, belongs to the fluid.
    shape = torch.tensor(grid.shape, device=places.device)
    lost = grid.solid.flatten()[_ravel(cells % shape, grid.shape)]
    for moves in sorted(product((-1, 0, 1), repeat=grid.dimension), key=lambda moves: sum(map(abs, moves))):
        if not bool(lost.any()):
            return cells
        other = cells + torch.tensor(moves, device=cells.device)
        near = ((places.detach() - other).abs() <= 0.5 + 1e-6).all(-1) & ((other >= 0) & (other <= limits)).all(-1)
        better = lost & near & ~grid.solid.flatten()[_ravel(other % shape, grid.shape)]
        cells, lost = torch.where(better[:, None], other, cells), lost & ~better
    if bool(lost.any()):
        where = tuple(points.detach()[lost][0].tolist())
        raise InputError(
            f"points: {int(lost.sum())} of {len(places)} lie inside solid cells, the first at {where}; the solution "
            "has values in the fluid only"
        )
    return cells


def _ravel(cells: Tensor, shape: Sequence[int]) -> Tensor:
    flat = torch.zeros_like(cells[..., 0])
    for axis, n in enumerate(shape):
        flat = flat * n + cells[..., axis]
    return flat
