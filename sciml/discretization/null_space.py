"""What an operator leaves undetermined: the constants on parts of the domain that nothing holds."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ..differentiation import detached, outside_transforms
from ..errors import InputError
from .differences import varies
from .problem import Piece, Problem

MAX_KERNEL = 256
_MAX_COUPLED = 16


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


def coupled_groups(problem: Problem) -> list[list[int]]:
    """The numbers of the unknowns, those together of which one occurs in the row of the other."""
    groups: list[list[int]] = []
    for i, name in enumerate(problem.unknowns):
        near = {j for j, other in enumerate(problem.unknowns) if problem.pieces(i, other) or problem.pieces(j, name)}
        joined = [group for group in groups if near.intersection(group)]
        groups = [group for group in groups if group not in joined]
        groups.append(sorted({i, *(member for group in joined for member in group)}))
    return groups


def names_in(vector: Tensor, unknowns: tuple[str, ...]) -> str:
    """The unknowns that a null vector has a part of."""
    if len(unknowns) == 1:
        return unknowns[0]
    largest = vector.abs().flatten(1).amax(1)
    return " and ".join(name for name, part in zip(unknowns, largest, strict=True) if part > 1e-6 * largest.max())


def system_null_space(problem: Problem, kernels: list[Tensor | None]) -> Tensor | None:
    """Orthonormal combinations of constants, `(k, channel, *space)`, that a system and its transpose annihilate.

    Args:
        problem: of several unknowns.
        kernels: the null space of each diagonal block, which is the system's where no other unknown is coupled to it.
    """
    found: list[Tensor] = []
    excluded = _without_constants(problem)
    for group in coupled_groups(problem):
        known = kernels[group[0]]
        if len(group) == 1 and known is not None:
            found.append(_in_channel(problem, group[0], known))
            continue
        parts = {row: _constants(problem, row) for row in group if row not in excluded}
        candidates = [(row, vector) for row, vectors in parts.items() if vectors is not None for vector in vectors]
        if 0 < len(candidates) <= _MAX_COUPLED:
            weights = _annihilated(problem, candidates).to(problem.grid.dtype)
            stacked = torch.cat([_in_channel(problem, row, vector.unsqueeze(0)) for row, vector in candidates])
            found.append(torch.tensordot(weights, stacked, dims=1))
    total = sum(map(len, found))
    return torch.cat(found) if 0 < total <= MAX_KERNEL else None


def _in_channel(problem: Problem, row: int, vectors: Tensor) -> Tensor:
    """Vectors of one unknown, `(k, *space)`, as `(k, channel, *space)`."""
    result = vectors.new_zeros(len(vectors), len(problem.unknowns), *problem.grid.shape)
    result[:, row] = vectors
    return result


def _constants(problem: Problem, row: int) -> Tensor | None:
    """The constants of an unknown on the parts of the domain where no wall holds it."""
    unknown = problem.unknowns[row]
    pieces = [piece for i in range(len(problem.rows)) for piece in problem.pieces(i, unknown)]
    derivatives = [piece for piece in pieces if piece.role != "reaction"]
    return null_space(problem, unknown, derivatives, linked_axes(problem, derivatives))[0]


def _without_constants(problem: Problem) -> set[int]:
    """The rows with derivatives that do not annihilate constants, or whose transposes do not."""
    excluded = set()
    for i in range(len(problem.rows)):
        for j, unknown in enumerate(problem.unknowns):
            pieces = [piece for piece in problem.pieces(i, unknown) if piece.role != "reaction"]
            if not all(_keeps_constants(problem, piece, own=i == j) for piece in pieces):
                excluded |= {i, j}
    return excluded


def _keeps_constants(problem: Problem, piece: Piece, *, own: bool) -> bool:
    grid = problem.grid
    taken = [k for k, order in enumerate(piece.total) if order]
    if any(varies(piece.outer, k, grid.dimension) for k in taken):
        return False
    if own and piece.role == "diffusion" and problem.order == 2:
        return True
    if grid.solid is not None or not all(grid.periodic[k] for k in taken):
        return False
    return any(piece.derivative) or not any(varies(piece.inner, k, grid.dimension) for k in taken)


def _annihilated(problem: Problem, candidates: list[tuple[int, Tensor]]) -> Tensor:
    """Orthonormal weights `(k, candidates)` of the combinations that the reaction terms and their transpose annihilate.

    They are the small singular values of the reactions' images, whose triangular factor is gathered row by row.
    """
    grid, rows = problem.grid, range(len(problem.rows))
    reactions = [
        [
            sum((torch.as_tensor(p.outer).detach() for p in problem.pieces(i, unknown) if p.role == "reaction"), zero)
            for unknown in problem.unknowns
        ]
        for zero in [torch.zeros((), dtype=torch.float64, device=grid.device)]
        for i in rows
    ]
    largest = max(float(reaction.abs().max()) for row in reactions for reaction in row)
    factor = torch.zeros(0, len(candidates), dtype=torch.float64, device=grid.device)
    for i in rows:
        for table in (reactions, list(zip(*reactions, strict=True))):
            images = [
                (table[i][j] * vector).double().expand(*problem.batch, *grid.shape).reshape(-1)
                for j, vector in candidates
            ]
            factor = torch.linalg.qr(torch.cat([factor, torch.stack(images, dim=1)]), mode="r").R
    _, values, right = torch.linalg.svd(factor)
    rounding = 16 * torch.finfo(grid.dtype).eps * largest * prod(problem.batch) ** 0.5
    small = torch.ones(len(candidates), dtype=torch.bool, device=grid.device)
    small[: len(values)] = values <= rounding
    return right[small]


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


@outside_transforms()
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
    labels, count = ndimage.label(detached(fluid).cpu().numpy(), structure=near)
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
