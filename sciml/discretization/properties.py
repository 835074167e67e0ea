"""What is known of an operator before it is built: the sign of its diagonal, symmetry, kernel, cell Peclet number."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor

from .differences import varies
from .inputs import Number
from .problem import Piece, Problem

MAX_KERNEL = 256


@dataclass(frozen=True, eq=False)
class Properties:
    """Of the operator of one unknown.

    Attributes:
        symmetric: the operator equals its transpose by construction.
        definite: symmetric and certainly definite, on the complement of `null_space` if there is one.
        null_space: `(k, *space)`, orthonormal, spanning the kernel of a symmetric operator; None if it is trivial or
            unknown.
    """

    symmetric: bool
    definite: bool
    null_space: Tensor | None


def properties(problem: Problem, row: int, sign: float) -> Properties:
    """Properties of the diagonal block of a row, read off its terms and walls; `sign` is that of `diagonal_sign`."""
    unknown = problem.unknowns[row]
    pieces = problem.pieces(row, unknown)
    if not all(_is_symmetric(piece, pieces, problem) for piece in pieces):
        return Properties(False, False, None)
    definite = True
    coupled = [False] * problem.grid.dimension
    for piece in pieces:
        low, _ = _signed_range(problem, piece, sign)
        if piece.role == "reaction":
            definite &= low >= 0.0
        else:
            definite &= low > 0.0 and _is_pure(piece)
            coupled[piece.axis] |= low > 0.0 and _is_pure(piece)
    for wall in problem.walls(unknown):
        if wall.kind == "robin":
            a = problem.normal(unknown, wall.axis)
            definite &= problem.bounds(wall.coefficient)[0] >= 0.0 and problem.bounds(a)[0] > 0.0
    null_space, complete = _null_space(problem, unknown, pieces, coupled)
    return Properties(True, definite and complete, null_space)


def diagonal_sign(problem: Problem, row: int) -> float:
    """The sign, +1.0 or -1.0, that a row's diffusion gives to its diagonal, else its reaction; +1.0 without either."""
    pieces = problem.pieces(row, problem.unknowns[row])
    for roles in (("diffusion", "other"), ("reaction",)):
        ranges = [_signed_range(problem, piece, 1.0) for piece in pieces if piece.role in roles and _is_pure(piece)]
        total = sum(low + high for low, high in ranges)
        if total:
            return 1.0 if total > 0 else -1.0
    return 1.0


def cell_peclet(problem: Problem, row: int) -> float:
    """The largest |b| h / diffusivity over cells and axes; infinite where there is advection without diffusion."""
    largest = 0.0
    pieces = problem.pieces(row, problem.unknowns[row])
    with torch.no_grad():
        for axis, h in enumerate(problem.grid.spacing):
            along = [piece for piece in pieces if piece.axis == axis]
            speed = sum((p.outer * p.inner for p in along if p.role == "advection"), start=0.0)
            diffusivity = sum((p.outer * p.inner for p in along if p.role == "diffusion"), start=0.0)
            sizes = [torch.as_tensor(value, dtype=torch.float64).abs() for value in (speed, diffusivity)]
            ratio = sizes[0] * h / sizes[1]
            largest = max(largest, float(ratio.nan_to_num(nan=0.0, posinf=inf).max()))
    return largest


def _is_pure(piece: Piece) -> bool:
    """Whether it is a reaction or takes derivatives of even order along one axis."""
    order = sum(piece.total)
    return order == piece.total[piece.axis] and order % 2 == 0


def _signed_range(problem: Problem, piece: Piece, sign: float) -> tuple[float, float]:
    """Bounds of what the piece gives to the diagonal, up to a positive factor, times `sign`."""
    if sum(piece.total) // 2 % 2:
        sign = -sign
    corners = [sign * a * b for a in problem.bounds(piece.outer) for b in problem.bounds(piece.inner)]
    return min(corners), max(corners)


def _is_symmetric(piece: Piece, pieces: list[Piece], problem: Problem) -> bool:
    if piece.role == "reaction":
        return True
    dimension = problem.grid.dimension
    taken = [k for k in range(dimension) if piece.total[k]]
    if sum(piece.total) % 2 or any(varies(piece.outer, k, dimension) for k in taken):
        return False
    if piece.role == "diffusion" and problem.order == 2:
        return True
    if not all(problem.grid.periodic[k] for k in taken):
        return False
    if not any(varies(piece.inner, k, dimension) for k in taken):
        return True
    # d/dx(b du/dy) is the transpose of d/dy(b du/dx), with both in the equation.
    return sum(piece.total) == 2 and any(
        other.total == piece.total
        and other.flux_axis not in (None, piece.flux_axis)
        and other.inner is piece.inner
        and _same(other.outer, piece.outer)
        for other in pieces
    )


def _same(first: Number, second: Number) -> bool:
    return first is second or (not isinstance(first, Tensor) and not isinstance(second, Tensor) and first == second)


def _null_space(problem: Problem, unknown: str, pieces: list[Piece], coupled: list[bool]) -> tuple[Tensor | None, bool]:
    """The constants on every component of fluid cells that nothing holds, and whether that is the whole kernel."""
    grid = problem.grid
    walls = [wall for wall in problem.walls(unknown) if wall.kind != "neumann" and coupled[wall.axis]]
    reactions = [problem.bounds(piece.outer) for piece in pieces if piece.role == "reaction"]
    if any(low * high > 0.0 for low, high in reactions):
        return None, True
    certain = [wall for wall in walls if wall.kind == "dirichlet" or problem.bounds(wall.coefficient)[0] > 0.0]
    if grid.solid is None and all(coupled) and not reactions:
        if walls:
            return None, bool(certain)
        constant = torch.full((1,), prod(grid.shape) ** -0.5, dtype=grid.dtype, device=grid.device)
        return constant.expand(1, *grid.shape), True
    held, perhaps = (torch.zeros(grid.shape, dtype=torch.bool, device=grid.device) for _ in range(2))
    for wall in walls:
        perhaps = wall.place.mark(perhaps)
    for wall in certain:
        held = wall.place.mark(held)
    for piece in pieces:
        if piece.role == "reaction":
            nonzero = torch.as_tensor(piece.outer, device=grid.device).detach() != 0
            rows = nonzero.expand(*problem.batch, *grid.shape).reshape(-1, *grid.shape)
            perhaps, held = perhaps | rows.any(0), held | rows.all(0)
    labels, count = components(problem.geometry.fluid, grid.periodic, coupled)
    touched, sure = _labels_in(labels, perhaps, count), _labels_in(labels, held, count)
    floating = [label for label in range(1, count + 1) if label not in touched]
    complete = sure == touched
    if not floating or len(floating) > MAX_KERNEL:
        return None, complete and not floating
    vectors = torch.stack([labels == label for label in floating]).to(grid.dtype)
    return vectors / vectors.flatten(1).sum(1).sqrt().reshape(-1, *[1] * grid.dimension), complete


def _labels_in(labels: Tensor, mask: Tensor, count: int) -> set[int]:
    if count == 1:
        return {1} if bool((labels.bool() & mask).any()) else set()
    return set(labels[mask].unique().tolist()) - {0}


def components(fluid: Tensor, periodic: tuple[bool, ...], coupled: list[bool]) -> tuple[Tensor, int]:
    """Number the connected components of a bool field from 1, neighbours being those along the coupled axes; 0 outside.

    Returns:
        the numbers, int32 of the field's shape, and how many there are.
    """
    import numpy
    from scipy import ndimage, sparse

    dimension = fluid.ndim
    near = numpy.zeros((3,) * dimension, dtype=bool)
    for axis in range(dimension):
        for place in (0, 1, 2) if coupled[axis] else (1,):
            near[tuple(place if k == axis else 1 for k in range(dimension))] = True
    labels, count = ndimage.label(fluid.cpu().numpy(), structure=near)
    pairs = []
    for axis in range(dimension):
        if coupled[axis] and periodic[axis]:
            first, last = labels.take(0, axis).ravel(), labels.take(-1, axis).ravel()
            pairs.append(numpy.stack([first, last])[:, (first > 0) & (last > 0)])
    if pairs and count > 1:
        ends = numpy.concatenate(pairs, axis=1) - 1
        graph = sparse.coo_array((numpy.ones(ends.shape[1]), (ends[0], ends[1])), shape=(count, count))
        count, merged = sparse.csgraph.connected_components(graph, directed=False)
        labels = numpy.concatenate([[0], merged + 1]).astype(numpy.int32)[labels]
    return torch.from_numpy(labels).to(fluid.device), int(count)
