"""Three-point formulas of second order: diffusion in flux form, advection central or upwind, any walls.

Notation: lower and upper are the faces of a cell along the axis, h the spacing. The condition on a closed face is
eliminated, du/dn = r - s u (see Wall.flux), and what it leaves on the right side is collected in `right`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..scheme import FiniteVolume
from .builder import StencilBuilder
from .differences import varies
from .inputs import Number
from .means import harmonic_mean
from .problem import Piece, Problem
from .walls import Place, Right, Slab, Wall


def add_diffusion(problem: Problem, builder: StencilBuilder, right: Right, unknown: str, piece: Piece) -> None:
    """Add outer d/dx(inner du/dx), a plain second derivative being one with inner = 1."""
    axis, h = piece.axis, problem.grid.spacing[piece.axis]
    outer, inner = piece.outer, piece.inner
    by_cell = any(varies(outer, k, problem.grid.dimension) for k in range(problem.grid.dimension))
    scale = h**-2 if by_cell else outer * h**-2
    harmonic = isinstance(problem.scheme, FiniteVolume) and problem.scheme.average == "harmonic"
    lower, upper, to_lower, to_upper = _on_faces(problem, inner, axis, scale, harmonic=harmonic)
    diagonal = lower + upper
    diagonal = diagonal.neg_() if isinstance(diagonal, Tensor) else -diagonal
    if by_cell:
        to_lower, to_upper, diagonal = outer * to_lower, outer * to_upper, outer * diagonal
    builder.add(builder.along(axis, -1), to_lower)
    builder.add(builder.along(axis, 1), to_upper)
    for wall in problem.walls(unknown, axis):
        r, s = diffusive_flux(problem, unknown, piece, wall)
        factor = wall.take(outer) * (1.0 / h)
        diagonal = _put(wall.place, diagonal, -(factor * s))
        right.append((wall.place, -(factor * r)))
    builder.add(builder.centre, diagonal)


def diffusive_flux(problem: Problem, unknown: str, piece: Piece, wall: Wall) -> tuple[Number, Number]:
    """(r, s) with inner du/dn = r - s u on a closed face."""
    normal = problem.normal(unknown, piece.axis)
    own = wall.take(piece.inner)
    if piece.inner is normal or (isinstance(normal, float) and normal == piece.inner):
        return wall.flux(own)
    r, s = wall.slope(wall.take(normal))
    return own * r, own * s


def face_value(problem: Problem, unknown: str, wall: Wall) -> tuple[Number, Number]:
    """(r, s) with u = r + s u_cell on a closed face, second order."""
    r, s = wall.slope(wall.take(problem.normal(unknown, wall.axis)))
    return 0.5 * wall.spacing * r, 1.0 - 0.5 * wall.spacing * s


def add_first_derivative(
    problem: Problem, builder: StencilBuilder, right: Right, unknown: str, piece: Piece, upwind: bool, sign: float
) -> None:
    """Add outer du/dx, central or against the wind; `sign` is that of the row's diagonal."""
    h = problem.grid.spacing[piece.axis]
    if not upwind:
        weight = piece.outer * (0.5 / h)
        _add_neighbours(problem, builder, right, unknown, piece.axis, -weight, 0.0, weight)
        return
    forth = _along_wind(piece.outer, sign) * (1.0 / h)
    back = piece.outer * (1.0 / h) - forth
    _add_neighbours(problem, builder, right, unknown, piece.axis, -forth, forth - back, back)


def add_advective_flux(
    problem: Problem, builder: StencilBuilder, right: Right, unknown: str, piece: Piece, upwind: bool, sign: float
) -> None:
    """Add outer d/dx(inner u) from face velocities: arithmetic means inside, extrapolated to the sides of the box."""
    axis = piece.axis
    factor = piece.outer * (1.0 / problem.grid.spacing[axis])
    lower, upper, to_lower, to_upper = _on_faces(problem, piece.inner, axis, 1.0, harmonic=False)
    sign = wind_sign(piece, sign)
    share = (lambda speed: _along_wind(speed, sign)) if upwind else (lambda speed: 0.5 * speed)
    builder.add(builder.along(axis, -1), -(factor * share(to_lower)))
    builder.add(builder.along(axis, 1), factor * (to_upper - share(to_upper)))
    diagonal = factor * (share(upper) - (lower - share(lower)))
    for wall in problem.walls(unknown, axis):
        r, s = advective_flux(problem, unknown, piece, wall, upwind, sign)
        cell = wall.take(factor)
        diagonal = _put(wall.place, diagonal, cell * s)
        right.append((wall.place, -(cell * r)))
    builder.add(builder.centre, diagonal)


def advective_flux(
    problem: Problem, unknown: str, piece: Piece, wall: Wall, upwind: bool, sign: float
) -> tuple[Number, Number]:
    """(r, s) with inner u n = r + s u_cell on a closed face, n = +-1 the outward normal; upwind outflow takes u_cell.

    `sign` is that of `wind_sign`.
    """
    speed = wall.outward * extrapolated_to_face(piece.inner, wall)
    r, s = face_value(problem, unknown, wall)
    out = _along_wind(speed, sign) if upwind else 0.0
    return (speed - out) * r, out + (speed - out) * s


def extrapolated_to_face(value: Number, wall: Wall) -> Number:
    """The coefficient on the face: a first-order value there would make the whole scheme first order."""
    own, place = wall.take(value), wall.place
    if own is value or not isinstance(place, Slab):
        return own
    return 1.5 * own - 0.5 * Slab(place.axis, place.row - int(wall.outward), place.dimension).take(value)


def _add_neighbours(
    problem: Problem,
    builder: StencilBuilder,
    right: Right,
    unknown: str,
    axis: int,
    lower: Number,
    centre: Number,
    upper: Number,
) -> None:
    """Add lower u(i-1) + centre u(i) + upper u(i+1), a neighbour beyond a closed face being u + h du/dn."""
    for side, weight in enumerate((lower, upper)):
        coupling = weight if problem.grid.solid is None else weight * problem.geometry.open(axis, side)
        builder.add(builder.along(axis, 1 if side else -1), coupling)
    builder.add(builder.centre, centre)
    walls = problem.walls(unknown, axis)
    if not walls:
        return
    profile: Number = torch.zeros_like(torch.as_tensor(problem.geometry.open(axis, walls[0].side)))
    for wall in walls:
        r, s = wall.slope(wall.take(problem.normal(unknown, axis)))
        weight = wall.take(upper if wall.side else lower)
        profile = _put(wall.place, profile, weight * (1.0 - wall.spacing * s))
        right.append((wall.place, -(weight * (wall.spacing * r))))
    builder.add(builder.centre, profile)


def _on_faces(
    problem: Problem, value: Number, axis: int, scale: Number, *, harmonic: bool
) -> tuple[Number, Number, Number, Number]:
    """A coefficient on the lower and upper face of every cell, times `scale`.

    The first two are 0 on closed faces. The last two are the same as couplings to the neighbour: of a coefficient
    constant along the axis they stay of length 1, since a stencil ignores neighbours beyond the box.
    """
    grid, geometry = problem.grid, problem.geometry
    dim, n = axis - grid.dimension, grid.shape[axis]
    if not varies(value, axis, grid.dimension) or not isinstance(value, Tensor):
        scaled = value * scale
        if grid.solid is None:
            return scaled * geometry.open(axis, 0), scaled * geometry.open(axis, 1), scaled, scaled
        return _below_and_above(scaled * geometry.open_faces(axis), dim, n)
    low, high = problem.bounds(value)
    factor = 1.0 if isinstance(scale, Tensor) else scale
    add_mean = partial(_add_harmonic_mean, safe=low * high > 0.0) if harmonic else _add_arithmetic_mean
    shape = list(value.shape)
    shape[dim] += 1
    faces = torch.zeros(shape, dtype=grid.dtype, device=grid.device)
    add_mean(faces.narrow(dim, 1, n - 1), value.narrow(dim, 0, n - 1), value.narrow(dim, 1, n - 1), factor)
    if grid.periodic[axis]:
        for seam in (0, n):
            add_mean(faces.narrow(dim, seam, 1), value.narrow(dim, n - 1, 1), value.narrow(dim, 0, 1), factor)
    if isinstance(scale, Tensor):
        faces = faces * scale
    if grid.solid is not None:
        faces = faces * geometry.open_faces(axis)
    return _below_and_above(faces, dim, n)


def _below_and_above(faces: Tensor, dim: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both neighbours' coefficients as views of one array of faces, which halves what an apply has to read."""
    lower, upper = faces.narrow(dim, 0, n), faces.narrow(dim, 1, n)
    return lower, upper, lower, upper


def _add_harmonic_mean(faces: Tensor, first: Tensor, second: Tensor, factor: float, *, safe: bool) -> None:
    """Add factor times `harmonic_mean`; `safe` promises that neither is 0."""
    if safe:
        faces.addcdiv_(first * second, first + second, value=2.0 * factor)
    else:
        faces.add_(torch.as_tensor(harmonic_mean(first, second)), alpha=factor)


def _add_arithmetic_mean(faces: Tensor, first: Tensor, second: Tensor, factor: float) -> None:
    faces.add_(first, alpha=0.5 * factor).add_(second, alpha=0.5 * factor)


def _along_wind(speed: Number, sign: float) -> Number:
    """The part of a velocity that blows forth (of the sign of `sign`), the other part being 0."""
    if isinstance(speed, Tensor):
        return speed.clamp(min=0.0) if sign > 0 else speed.clamp(max=0.0)
    return max(speed, 0.0) if sign > 0 else min(speed, 0.0)


def wind_sign(piece: Piece, sign: float) -> float:
    """Sign of the true velocity relative to `inner`: what makes upwinding add to a diagonal of the given sign."""
    mean = float(piece.outer.detach().mean()) if isinstance(piece.outer, Tensor) else piece.outer
    return -sign if mean < 0 else sign


def _put(place: Place, target: Number, amount: Number) -> Number:
    return place.put(torch.as_tensor(target), amount)
