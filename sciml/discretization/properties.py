"""What is known of an operator before it is built: the sign of its diagonal, symmetry, kernel, cell Peclet number."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from .differences import varies
from .inputs import Number
from .mixed import mixed_inner
from .null_space import linked_axes, null_space
from .problem import Piece, Problem


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
    """Properties of the diagonal block of a row, read off its terms and walls; `sign` is that of `diagonal_sign`.

    Of the linear part of an equation that is none, no more than symmetry is looked for.
    """
    unknown = problem.unknowns[row]
    pieces = problem.pieces(row, unknown)
    if not all(_is_symmetric(piece, pieces, problem) for piece in pieces):
        return Properties(False, False, None)
    if not problem.complete:
        return Properties(True, False, None)
    definite = _is_semidefinite(problem, unknown, pieces, sign) and all(
        piece.role == "reaction" or piece.mixed or _signed_range(problem, piece, sign)[0] > 0.0 for piece in pieces
    )
    kernel, complete = null_space(problem, unknown, pieces, linked_axes(problem, pieces))
    return Properties(True, definite and complete, kernel)


def is_semidefinite(problem: Problem, row: int) -> bool:
    """Whether the diagonal block of a row is certainly symmetric and positive semidefinite."""
    unknown = problem.unknowns[row]
    pieces = problem.pieces(row, unknown)
    return all(_is_symmetric(piece, pieces, problem) for piece in pieces) and _is_semidefinite(
        problem, unknown, pieces, 1.0
    )


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


def _is_semidefinite(problem: Problem, unknown: str, pieces: list[Piece], sign: float) -> bool:
    """The same of pieces that are symmetric, with a sign before them."""
    if not pieces:
        return True
    for piece in pieces:
        if not piece.mixed and (_signed_range(problem, piece, sign)[0] < 0.0 or not _is_pure(piece)):
            return False
    if any(piece.mixed for piece in pieces) and not (problem.order == 2 and _has_definite_tensor(problem, unknown)):
        return False
    for wall in problem.walls(unknown):
        if wall.kind == "robin":
            a = problem.normal(unknown, wall.axis)
            if problem.bounds(wall.coefficient)[0] < 0.0 or problem.bounds(a)[0] <= 0.0:
                return False
    return True


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
    if not all(problem.grid.periodic[k] for k in taken) and not piece.mixed:
        return False
    if all(problem.grid.periodic[k] for k in taken) and not any(varies(piece.inner, k, dimension) for k in taken):
        return True
    # d/dx(b du/dy) is the transpose of d/dy(b du/dx), with both in the equation.
    return sum(piece.total) == 2 and any(
        other.total == piece.total
        and other.flux_axis not in (None, piece.flux_axis)
        and _same(other.inner, piece.inner)
        and _same(other.outer, piece.outer)
        for other in pieces
    )


def _has_definite_tensor(problem: Problem, unknown: str) -> bool:
    """Whether the symmetric tensor inside the divergence is positive, or negative, definite in every cell."""
    axes = range(problem.grid.dimension)
    pieces = [piece for piece in problem.own_pieces(unknown) if piece.role != "reaction"]
    if any(piece.flux_axis is None or not _same(piece.outer, pieces[0].outer) for piece in pieces):
        return False
    rows = [[problem.normal(unknown, k) if k == m else mixed_inner(problem, unknown, k, m) for m in axes] for k in axes]
    entries = torch.broadcast_tensors(
        *(torch.as_tensor(entry, dtype=torch.float64, device=problem.grid.device) for row in rows for entry in row)
    )
    tensor = torch.stack([entry.detach() for entry in entries], dim=-1).unflatten(-1, (len(axes), len(axes)))
    return any(bool((torch.linalg.cholesky_ex(sign * tensor).info == 0).all()) for sign in (1.0, -1.0))


def _same(first: Number, second: Number) -> bool:
    return first is second or (not isinstance(first, Tensor) and not isinstance(second, Tensor) and first == second)
