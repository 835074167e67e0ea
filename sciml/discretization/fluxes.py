"""Fluxes through boundaries and values on them, by the formulas of the operator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..grid import Grid
from .assembly import Assembly
from .differences import extrapolated, nearest_cells
from .inputs import Number
from .mixed import mixed_flux, mixed_slope
from .problem import Piece
from .second_order import advective_flux, diffusive_flux, face_value, wind_sign
from .walls import Scattered, Wall

_FLUXES = ("diffusion", "advection")


def boundary_flux(assembly: Assembly, value: Tensor, name: str) -> Tensor:
    """The integral over a named boundary of what stands inside the divergence, see System.flux."""
    rows = [row_flux(assembly, value, name, row) for row in range(len(assembly.problem.unknowns))]
    if len(rows) == 1:
        return rows[0]
    return torch.stack(torch.broadcast_tensors(*rows), dim=-1)


def row_flux(assembly: Assembly, value: Tensor, name: str, row: int) -> Tensor:
    """The same of one equation."""
    problem = assembly.problem
    channels = _channels(assembly, value)
    total: Number = 0.0
    for unknown, piece, ratio_to in _conservative(assembly, row):
        u = channels[unknown]
        for wall in problem.walls(unknown, piece.flux_axis if piece.mixed else piece.axis):
            if wall.name == name:
                density = _flux_density(assembly, row, unknown, piece, wall, u)
                if piece.outer is not ratio_to.outer:
                    density = density * (wall.take(piece.outer) / wall.take(ratio_to.outer))
                total = total + integral(problem.grid, wall, density, u)
    return torch.as_tensor(total, dtype=value.dtype, device=value.device)


def has_flux(assembly: Assembly, row: int) -> bool:
    """Whether a row has divergences, or second derivatives of its own unknown."""
    problem = assembly.problem
    terms = [(u, p) for u in problem.unknowns for p in problem.pieces(row, u) if p.role in _FLUXES or p.mixed]
    return any(p.flux_axis is not None or (u == problem.unknowns[row] and p.role == "diffusion") for u, p in terms)


def reference(assembly: Assembly, row: int) -> Number:
    """The factor before a divergence that the fluxes of a row are relative to."""
    (_, _, piece), *_ = _conservative(assembly, row)
    return piece.outer


def boundary_value(assembly: Assembly, value: Tensor, axis: int, side: int) -> Tensor:
    """The field on a side of the box, see System.boundary_value."""
    dimension = assembly.problem.grid.dimension
    faces = [face_of(assembly, unknown, u, axis, side) for unknown, u in _channels(assembly, value).items()]
    return faces[0] if len(faces) == 1 else torch.stack(torch.broadcast_tensors(*faces), dim=-dimension)


def face_of(assembly: Assembly, unknown: str, u: Tensor, axis: int, side: int) -> Tensor:
    """One unknown on a side of the box."""
    problem = assembly.problem
    wall = next(w for w in problem.walls(unknown, axis) if w.side == side and w.name != "walls")
    cell = torch.as_tensor(wall.take(u))
    if problem.order == 4:
        face = _on_polynomial(assembly, *assembly.polynomial(wall, unknown).face_value(), wall, u)
    else:
        r, s = face_value(problem, unknown, wall)
        face = r + s * cell
        if wall.kind == "neumann":
            face = face - 0.5 * wall.spacing * mixed_slope(problem, unknown, wall, u)
    return _spread(face, cell).squeeze(axis - problem.grid.dimension)


def _channels(assembly: Assembly, value: Tensor) -> dict[str, Tensor]:
    problem = assembly.problem
    if len(problem.unknowns) == 1:
        return {problem.unknowns[0]: value}
    return dict(zip(problem.unknowns, value.unbind(-problem.grid.dimension - 1), strict=True))


def _conservative(assembly: Assembly, row: int) -> list[tuple[str, Piece, Piece]]:
    """Unknown, term, and the term that it counts relative to: the divergences of a row, else its second derivatives."""
    problem = assembly.problem
    own = problem.unknowns[row]
    terms = [(u, p) for u in problem.unknowns for p in problem.pieces(row, u) if p.role in _FLUXES or p.mixed]
    fluxes = [(unknown, piece) for unknown, piece in terms if piece.flux_axis is not None]
    if fluxes:
        leading = [piece for unknown, piece in fluxes if unknown == own and piece.role == "diffusion"]
        reference = leading[0] if leading else fluxes[0][1]
        return [(unknown, piece, reference) for unknown, piece in fluxes]
    plain = [(unknown, piece, piece) for unknown, piece in terms if unknown == own and piece.role == "diffusion"]
    if not plain:
        raise InputError(f"the equation of {own!r} has no term with a flux: neither div(...) nor second derivatives")
    return plain


def _flux_density(assembly: Assembly, row: int, unknown: str, piece: Piece, wall: Wall, u: Tensor) -> Number:
    problem = assembly.problem
    if piece.mixed:
        return mixed_flux(problem, unknown, piece, wall, u)
    upwind = assembly.is_upwind(row, unknown, piece)
    if problem.order == 4 and not upwind:
        polynomial = assembly.polynomial(wall, unknown)
        inner = extrapolated(piece.inner, wall, problem.grid)
        if piece.role == "diffusion":
            return inner * _on_polynomial(assembly, *polynomial.normal_derivative(), wall, u)
        return inner * wall.outward * _on_polynomial(assembly, *polynomial.face_value(), wall, u)
    cell = wall.take(u)
    if piece.role == "diffusion":
        r, s = diffusive_flux(problem, unknown, piece, wall)
        return r - s * cell
    r, s = advective_flux(problem, unknown, piece, wall, upwind, wind_sign(piece, assembly.signs[row]))
    return r + s * cell


def _on_polynomial(assembly: Assembly, weights: list[Number], datum: Number, wall: Wall, u: Tensor) -> Number:
    cells = nearest_cells(wall, assembly.problem.grid)
    return sum((place.take(u) * w for place, w in zip(cells, weights, strict=True)), start=datum)


def integral(grid: Grid, wall: Wall, density: Number, u: Tensor) -> Tensor:
    """The integral over a wall of a density by cell; u, a field, gives the shape."""
    dense = _spread(density, torch.as_tensor(wall.take(u)))
    if isinstance(wall.place, Scattered):
        dense = torch.where(wall.place.mask, dense, 0.0)
    elif grid.solid is not None:
        dense = torch.where(torch.as_tensor(wall.place.take(grid.solid)), 0.0, dense)
    area = grid.cell_volume / grid.spacing[wall.axis]
    return dense.flatten(-grid.dimension).sum(-1) * area


def _spread(density: Number, cell: Tensor) -> Tensor:
    """The density in every cell of the wall."""
    dense = torch.as_tensor(density, dtype=cell.dtype, device=cell.device)
    return dense.expand(torch.broadcast_shapes(dense.shape, cell.shape))
