"""What an operator leaves undetermined: the constants on parts of the domain that nothing holds."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ..errors import InputError
from .problem import Piece, Problem

MAX_KERNEL = 256


def linked_axes(problem: Problem, pieces: list[Piece]) -> list[bool]:
    """For each axis, whether a derivative along it is taken somewhere, so that cells are linked to their neighbours."""
    linked = [False] * problem.grid.dimension
    for piece in pieces:
        if all(any(problem.bounds(factor)) for factor in (piece.outer, piece.inner)):
            linked = [known or order > 0 for known, order in zip(linked, piece.total, strict=True)]
    return linked


def null_space(problem: Problem, unknown: str, pieces: list[Piece], linked: list[bool]) -> tuple[Tensor | None, bool]:
    """The constants on every component of fluid cells that nothing holds, and whether that is the whole kernel."""
    grid = problem.grid
    walls = [wall for wall in problem.walls(unknown) if wall.kind != "neumann" and linked[wall.axis]]
    reactions = [problem.bounds(piece.outer) for piece in pieces if piece.role == "reaction"]
    if any(low * high > 0.0 for low, high in reactions):
        return None, True
    certain = [wall for wall in walls if wall.kind == "dirichlet" or problem.bounds(wall.coefficient)[0] > 0.0]
    if grid.solid is None and all(linked) and not reactions:
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
    labels, count = components(problem.geometry.fluid, grid.periodic, linked)
    touched, sure = _labels_in(labels, perhaps, count), _labels_in(labels, held, count)
    floating = [label for label in range(1, count + 1) if label not in touched]
    complete = sure == touched
    if not floating or len(floating) > MAX_KERNEL:
        return None, complete and not floating
    vectors = torch.stack([labels == label for label in floating]).to(grid.dtype)
    return vectors / vectors.flatten(1).sum(1).sqrt().reshape(-1, *[1] * grid.dimension), complete


def refuse_isolated_cells(problem: Problem, row: int, diagonal: Tensor) -> None:
    """Raise InputError where a diffusion coefficient that is 0 leaves cells without neighbours and without an equation.

    Args:
        problem, row: which equation of which problem.
        diagonal: of the row's own block.
    """
    unknown, grid = problem.unknowns[row], problem.grid
    pieces = problem.pieces(row, unknown)
    zero = [p for p in pieces if p.role == "diffusion" and 0.0 in (*problem.bounds(p.outer), *problem.bounds(p.inner))]
    if not zero or len(problem.rows[row]) > 1 or any(piece.role not in ("reaction", "diffusion") for piece in pieces):
        return
    isolated = (diagonal.detach() == 0.0) & problem.geometry.fluid
    cells = int(isolated.reshape(-1, *grid.shape).flatten(1).sum(1).max())
    if cells:
        factor = zero[0].inner if 0.0 in problem.bounds(zero[0].inner) else zero[0].outer
        raise InputError(
            f"{problem.describe(factor)} is 0 where nothing else determines {unknown}: {cells} of "
            f"{int(problem.geometry.fluid.sum())} cells are cut off from their neighbours. Give it another value "
            "there, add a reaction term, or make the cells solid"
        )


def _labels_in(labels: Tensor, mask: Tensor, count: int) -> set[int]:
    if count == 1:
        return {1} if bool((labels.bool() & mask).any()) else set()
    return set(labels[mask].unique().tolist()) - {0}


def components(fluid: Tensor, periodic: tuple[bool, ...], linked: list[bool]) -> tuple[Tensor, int]:
    """Number the connected components of a bool field from 1, neighbours being those along the linked axes; 0 outside.

    Returns:
        the numbers, int32 of the field's shape, and how many there are.
    """
    import numpy
    from scipy import ndimage, sparse

    dimension = fluid.ndim
    near = numpy.zeros((3,) * dimension, dtype=bool)
    for axis in range(dimension):
        for place in (0, 1, 2) if linked[axis] else (1,):
            near[tuple(place if k == axis else 1 for k in range(dimension))] = True
    labels, count = ndimage.label(fluid.cpu().numpy(), structure=near)
    pairs = []
    for axis in range(dimension):
        if linked[axis] and periodic[axis]:
            first, last = labels.take(0, axis).ravel(), labels.take(-1, axis).ravel()
            pairs.append(numpy.stack([first, last])[:, (first > 0) & (last > 0)])
    if pairs and count > 1:
        ends = numpy.concatenate(pairs, axis=1) - 1
        graph = sparse.coo_array((numpy.ones(ends.shape[1]), (ends[0], ends[1])), shape=(count, count))
        count, merged = sparse.csgraph.connected_components(graph, directed=False)
        labels = numpy.concatenate([[0], merged + 1]).astype(numpy.int32)[labels]
    return torch.from_numpy(labels).to(fluid.device), int(count)
