"""Operators as networks of conductances between neighbouring cells, as a learned multigrid holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator
from sciml.stencil import StencilOperator

_ROUNDING, _DIGITS = 1e-12, 16
"""Shares of the diagonal below which a row sum is taken for rounding: this, or so many units of the last digit."""
LEAST = 1e-30
"""Of the mean diagonal, what counts as nothing: float32 has no room for reciprocals and products of less."""


@dataclass(frozen=True)
class Conductances:
    """(A u)_i = sum over neighbours j of c_ij (u_i - u_j) + ground_i u_i + what flows through the walls.

    Every conductance is positive or zero, so that A is symmetric and not negative, and rounding them to fewer digits
    keeps it so: no small sum of large numbers is ever formed.

    Attributes:
        edges: for each axis the conductances through the faces across it, `(*batch, ..., n + 1, ...)` with n + 1 along
            the axis itself. The first and the last face of an axis that does not wrap lead to walls at which u is zero;
            of one that wraps they are the same face.
        ground: `(*batch, *space)`, conductance from a cell to zero.
        periodic: whether each axis wraps.
    """

    edges: tuple[Tensor, ...]
    ground: Tensor
    periodic: tuple[bool, ...]

    @property
    def space(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(self.ground.shape[-len(self.edges) :])

    def incident(self, axes: Sequence[int] | None = None) -> Tensor:
        """Sum of the conductances of each cell across some axes, by default all, `(*batch, *space)`, without ground.

        Across all of them it is zero only in a cell that is cut off.
        """
        total = torch.zeros_like(self.ground)
        for axis in range(len(self.edges)) if axes is None else axes:
            faces = self.edges[axis]
            total = total + self._low(faces, axis) + self._high(faces, axis)
        return total

    def diagonal(self) -> Tensor:
        """The diagonal of A."""
        return self.incident() + self.ground

    def apply(self, x: Tensor) -> Tensor:
        """A x for fields `(*batch, *space)`, by differences."""
        product = self.ground * x
        for axis, faces in enumerate(self.edges):
            place = axis - len(self.edges)
            low, high = outer(x, place, self.periodic[axis])
            product = product + self._low(faces, axis) * (x - low) + self._high(faces, axis) * (x - high)
        return product

    def to(self, dtype: torch.dtype) -> Conductances:
        """In another dtype."""
        return Conductances(tuple(faces.to(dtype) for faces in self.edges), self.ground.to(dtype), self.periodic)

    def strengths(self) -> list[float]:
        """The mean conductance inside each axis; 0 for one of a single cell."""
        means = []
        for axis, faces in enumerate(self.edges):
            inside = faces.detach().narrow(axis - len(self.edges), 1, self.space[axis] - 1)
            means.append(float(inside.mean(dtype=torch.float64)) if inside.numel() else 0.0)
        return means

    def _low(self, faces: Tensor, axis: int) -> Tensor:
        return faces.narrow(axis - len(self.edges), 0, self.space[axis])

    def _high(self, faces: Tensor, axis: int) -> Tensor:
        return faces.narrow(axis - len(self.edges), 1, self.space[axis])


def outer(x: Tensor, place: int, periodic: bool) -> tuple[Tensor, Tensor]:
    """The neighbours' values before and behind each along an axis counted from the end, zero outside."""
    n = x.shape[place]
    if periodic:
        return x.roll(1, place), x.roll(-1, place)
    zero = torch.zeros_like(x.narrow(place, 0, 1))
    return (
        torch.cat([zero, x.narrow(place, 0, n - 1)], place),
        torch.cat([x.narrow(place, 1, n - 1), zero], place),
    )


def mean_diagonal(operator: LinearOperator) -> Tensor:
    """Of every row of a batch the mean of the diagonal, of batch shape."""
    axes = tuple(range(-len(operator.space), 0))
    return operator.diagonal().expand(*operator.batch, *operator.space).mean(axes)


def conductances_of(operator: LinearOperator) -> tuple[Conductances, Tensor]:
    """The conductances of an operator and its diagonal, `(*batch, *space)`, in units of its `mean_diagonal`.

    The diagonal is given as 1 in a cell whose row is zero, and nowhere less than the conductances that meet there.

    Row sums in cells at a wall are taken for the conductances through that wall, up to twice that to the neighbour
    inside; what is more, and the row sums of all other cells, leads to the ground. A negative row sum counts as none.

    Raises:
        InputError: for an operator that is no such network: not on a grid, not symmetric, with couplings that lead
            farther than the next cell or across corners, or of the wrong sign.
    """
    terms = coupling_terms(operator)
    space, periodic = operator.space, stencil_of(operator).periodic
    diagonal, mean = operator.diagonal().expand(*operator.batch, *space), mean_diagonal(operator)
    check_least(1.0, float(diagonal.min()), float(mean.min()))
    unit = mean.reshape(*operator.batch, *[1] * len(space))
    upward = [torch.zeros((1,) * len(space), dtype=operator.dtype, device=operator.device) for _ in space]
    for axis, coefficient in terms:
        if axis >= 0 and not (periodic[axis] and space[axis] == 1):  # which leads back to the same cell
            upward[axis] = upward[axis] + coefficient
    edges = []
    for axis, coupling in enumerate(upward):
        place = axis - len(space)
        faces = (-coupling / unit).expand(*operator.batch, *space)
        last = faces.narrow(place, space[axis] - 1, 1)
        if not periodic[axis]:
            faces = torch.cat([torch.zeros_like(last), faces.narrow(place, 0, space[axis] - 1), 0 * last], place)
        else:
            faces = torch.cat([last, faces], place)
        check_least(float(faces.min()), 1.0)
        edges.append(torch.where(faces < LEAST, 0.0, faces))
    diagonal = without_zeros(diagonal / unit)
    loose = Conductances(tuple(edges), torch.zeros_like(diagonal), tuple(periodic))
    incident = loose.incident()
    surplus = torch.where(incident > 0, diagonal - incident, 0.0)
    rounding = max(_ROUNDING, _DIGITS * torch.finfo(operator.dtype).eps)
    surplus = torch.where(surplus > rounding * diagonal, surplus, 0.0)
    return _with_walls(loose, surplus, rounding), torch.maximum(diagonal, incident)


def without_zeros(diagonal: Tensor) -> Tensor:
    """With 1 where it is nothing, as in a cell that walls or obstacles enclose: there any number will do."""
    return torch.where(diagonal < LEAST, 1.0, diagonal)


def stencil_of(operator: LinearOperator) -> StencilOperator:
    """An operator of a grid as what it is.

    Raises:
        InputError: for any other operator.
    """
    if not isinstance(operator, StencilOperator):
        raise InputError("LearnedMultigrid works on operators of grids: use AlgebraicMultigrid for matrices and meshes")
    return operator


def coupling_terms(operator: LinearOperator) -> list[tuple[int, Tensor]]:
    """The terms of an operator on the diagonal, axis -1, and those that lead to the next cell along an axis.

    Raises:
        InputError: for an operator that is no symmetric stencil of couplings between next neighbours.
    """
    stencil = stencil_of(operator)
    if not operator.symmetric:
        raise InputError("LearnedMultigrid needs a symmetric operator, and this one is not known to be: use ILU0")
    terms = []
    for offset, coefficient in zip(stencil.offsets, stencil.coefficients, strict=True):
        away = [axis for axis, step in enumerate(offset) if step]
        if len(away) > 1 or any(abs(step) > 1 for step in offset):
            if bool((coefficient == 0).all()):
                continue
            what = "across corners" if len(away) > 1 else "farther than the next cell"
            raise InputError(
                f"LearnedMultigrid knows couplings between next neighbours along the axes, and this operator has one "
                f"{what} (offset {offset}): use Multigrid"
            )
        if not away:
            terms.append((-1, coefficient))
        elif offset[away[0]] == 1:
            terms.append((away[0], coefficient))
    return terms


def check_least(conductance: float, diagonal: float, mean: float = 1.0) -> None:
    """Refuse an operator by its least conductance, and the least and the mean entry of its diagonal."""
    if not (diagonal >= 0 and mean > 0):
        raise InputError(
            "LearnedMultigrid needs a positive diagonal: where it is negative, change the sign of the equation"
        )
    if not conductance >= 0:
        raise InputError(
            "LearnedMultigrid needs couplings of the sign of diffusion, and some have the other: use Multigrid"
        )


def _with_walls(network: Conductances, surplus: Tensor, rounding: float) -> Conductances:
    """The network with the row sums given to the walls and the ground."""
    axes = len(network.edges)
    rooms: list[tuple[int, int, Tensor]] = []
    total = torch.zeros_like(surplus)
    for axis, faces in enumerate(network.edges):
        if network.periodic[axis]:
            continue
        place, n = axis - axes, network.space[axis]
        for cell, inside in ((0, 1), (n - 1, n - 1)):
            room = 2 * faces.narrow(place, inside, 1)
            rooms.append((axis, cell, room))
            total.narrow(place, cell, 1).add_(room)
    share = torch.where(total > 0, surplus / torch.where(total > 0, total, 1.0), 0.0).clamp_(max=1.0)
    edges, ground = [faces.clone() for faces in network.edges], surplus.clone()
    for axis, cell, room in rooms:
        place = axis - axes
        through = room * share.narrow(place, cell, 1)
        edges[axis].narrow(place, 0 if cell == 0 else cell + 1, 1).add_(through)
        ground.narrow(place, cell, 1).sub_(through)
    ground = torch.where(ground > (rounding * (total + surplus)).clamp(min=LEAST), ground, 0.0)
    return Conductances(tuple(edges), ground, network.periodic)


def coarsened_axes(network: Conductances, reach: float = 3.0) -> Sequence[int]:
    """The axes to coarsen: more than three cells, and a conductance within a factor of the strongest of these."""
    strengths = network.strengths()
    candidates = {axis: strengths[axis] for axis, n in enumerate(network.space) if n > 3}
    return [axis for axis, strength in candidates.items() if reach * strength >= max(candidates.values())]
