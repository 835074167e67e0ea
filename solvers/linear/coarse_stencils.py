"""Interpolation taken from an operator, and the Galerkin product of a compact stencil."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from sciml.kernels import build, layout
from sciml.stencil import Offset, StencilOperator, narrow, on, shifted_slices

from .survey import Survey
from .transfer import Coarsening, Neighbour, axes_table, field_table

Weights = dict[Neighbour, Tensor]


@dataclass(frozen=True)
class Stencil:
    """A stencil of neighbours at distance 0 and 1 along each axis, all coefficients in one tensor.

    Attributes:
        offsets: one a term, each once, the centre among them.
        coefficients: `(terms, *batch, *space)`, zero where the neighbour does not exist.
    """

    offsets: tuple[Offset, ...]
    coefficients: Tensor

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.offsets[0])

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch shape."""
        return tuple(self.coefficients.shape[1 : -self.dimension])

    @property
    def space(self) -> tuple[int, ...]:
        """The shape of the grid."""
        return tuple(self.coefficients.shape[-self.dimension :])

    @cached_property
    def index(self) -> dict[Offset, int]:
        """Term by offset."""
        return {offset: term for term, offset in enumerate(self.offsets)}

    def __getitem__(self, offset: Offset) -> Tensor:
        return self.coefficients[self.index[offset]]

    @property
    def centre(self) -> Tensor:
        """The diagonal."""
        return self[(0,) * self.dimension]

    @cached_property
    def survey(self) -> Survey:
        """What the set-up asks about it."""
        return Survey.of(self.coefficients, self.index[(0,) * self.dimension], self.dimension)

    @cached_property
    def coupled(self) -> Tensor:
        """Whether a point is coupled to others, `(*batch, *space)`; those in obstacles are not."""
        return (self.coefficients.sum(0) - self.centre).abs() > 1e-10 * self.centre.abs()

    def operator(self, periodic: Sequence[bool], symmetric: bool) -> StencilOperator:
        """The stencil as an operator."""
        return StencilOperator(self.space, self.offsets, list(self.coefficients), periodic, symmetric=symmetric)

    def flat_operator(self, symmetric: bool, dtype: torch.dtype) -> StencilOperator:
        """The stencil as an operator of the flat form of stencil.hpp, for axes that do not wrap.

        Of a symmetric one the term of -o is that of o, shifted in memory: a(i, i - o) = a(i - o, i).
        """
        shifts = [flat_shift(offset, self.space) for offset in self.offsets]
        rows, size, reach = prod(self.batch), prod(self.space), layout.padding(max(shifts))
        mirrored = [
            symmetric and shift < 0 and tuple(-o for o in offset) in self.index
            for offset, shift in zip(self.offsets, shifts, strict=True)
        ]
        kept = [term for term, copy in enumerate(mirrored) if not copy]
        width = reach + layout.padding(size)
        whole = torch.zeros(rows, len(kept), width, dtype=dtype, device=self.coefficients.device)
        lines = dict(zip(kept, whole.unbind(1), strict=True))
        for term, line in lines.items():
            line[:, reach : reach + size].copy_(self.coefficients[term].reshape(rows, size))
        views = []
        for term, (offset, shift) in enumerate(zip(self.offsets, shifts, strict=True)):
            source = self.index[tuple(-o for o in offset)] if mirrored[term] else term
            start = reach + (shift if mirrored[term] else 0)
            views.append(lines[source][:, start : start + size].view(*self.batch, *self.space))
        return StencilOperator(self.space, self.offsets, views, (False,) * self.dimension, symmetric=symmetric)

    def transpose(self, periodic: Sequence[bool]) -> Stencil:
        """That of the transposed matrix."""
        offsets = tuple(tuple(-o for o in offset) for offset in self.offsets)
        coefficients = torch.zeros_like(self.coefficients)
        for row, coefficient, offset in zip(coefficients, self.coefficients, offsets, strict=True):
            for here, there in shifted_slices(self.space, offset, periodic):
                row[on(here)] = coefficient[on(there)]
        return Stencil(offsets, coefficients)

    def collapse(self, kept: Sequence[int]) -> Stencil:
        """The stencil summed over the axes that are not kept."""
        keys = [tuple(o if keep else 0 for o, keep in zip(offset, kept, strict=True)) for offset in self.offsets]
        offsets = tuple(dict.fromkeys(keys))
        if len(offsets) == len(keys):
            return self
        target = torch.tensor([offsets.index(key) for key in keys], device=self.coefficients.device)
        summed = self.coefficients.new_zeros(len(offsets), *self.coefficients.shape[1:])
        return Stencil(offsets, summed.index_add_(0, target, self.coefficients))


def flat_shift(offset: Offset, space: Sequence[int]) -> int:
    """How far a neighbour is in a field written as one line."""
    shift = 0
    for o, n in zip(offset, space, strict=True):
        shift = shift * n + o
    return shift


def compact(operator: StencilOperator) -> Stencil:
    """The coefficients of an operator, reduced to neighbours at distance 1 along each axis.

    A coefficient at distance 2 along an axis is moved to distance 1 and the centre with weights 4 and -3, which keeps
    the row sum and the second moment: a fourth-order second derivative becomes the second-order one. Any other far
    coefficient (in one-sided rows at walls) is added to the diagonal.
    """
    centre = (0,) * len(operator.space)
    parts: list[tuple[Offset, float, Offset, Tensor]] = []
    for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
        reach = max(map(abs, offset))
        if reach <= 1:
            parts.append((offset, 1.0, offset, coefficient))
        elif reach == 2 and sum(o != 0 for o in offset) == 1:
            parts.append((tuple(o // 2 for o in offset), 4.0, offset, coefficient))
            parts.append((centre, -3.0, offset, coefficient))
        else:
            parts.append((centre, 1.0, offset, coefficient))
    offsets = tuple(dict.fromkeys([centre, *(part[0] for part in parts)]))
    like = operator.coefficients[0]
    coefficients = like.new_zeros(len(offsets), *operator.batch, *operator.space)
    for target, scale, offset, coefficient in parts:
        row = coefficients[offsets.index(target)]
        for here, _ in shifted_slices(operator.space, offset, operator.periodic):
            row[on(here)].add_(narrow(coefficient, here), alpha=scale)
    return Stencil(offsets, coefficients)


def interpolation(stencil: Stencil, coarsening: Coarsening) -> Weights:
    """Operator-dependent weights W_k(c), in the recursive form of Dendy's (J. Comput. Phys. 48 (1982) 366-386).

    The fine point f = step c + start + k lies between coarse points along the axes S where k is not zero. Its equation,
    summed over the other axes so that it becomes a stencil a_S on the axes of S, is solved for it, and neighbours that
    are themselves interpolated are replaced by what they are interpolated from, which gives, with a_S at f,

        W_k(c) = - sum over non-empty T in S of a_S[-k on T, 0 else] W_(k without T)(c) / a_S[0],   W_0 = 1.

    Positive couplings are first added to the diagonal, so that weights lie in [0, 1]. A fluid point all of whose coarse
    points lie in obstacles is given one of these: a coarse unknown in an obstacle is free to stand for it.
    """
    diagonal, obstacles = stencil.centre, stencil.survey.has_obstacles
    shape = (*stencil.batch, *coarsening.coarse)
    compiled = diagonal.device.type == "cpu" and diagonal.dtype in layout.NAMES and build.library() is not None
    if obstacles or not compiled:
        stencil = _without_positive_couplings(stencil)
    coupled = stencil.coupled if obstacles else None
    weights: Weights = {}
    for kind, group in itertools.groupby(coarsening.neighbours(), key=lambda k: tuple(map(abs, k))):
        members = list(group)
        if not any(kind):
            weights[members[0]] = torch.ones(shape, dtype=diagonal.dtype, device=diagonal.device)
            continue
        weights |= {k: torch.empty_like(weights[(0,) * len(kind)]) for k in members}
        (_compiled_weights if compiled else _weights)(stencil, coarsening, kind, members, weights)
        if coupled is not None:
            fluid, free = _between(coupled, coarsening, kind), ~_between(coupled, coarsening, (0,) * len(kind))
            _adopt_orphans(weights, members, coarsening, fluid, free)
    return weights


def _weights(
    stencil: Stencil, coarsening: Coarsening, kind: Neighbour, members: Sequence[Neighbour], weights: Weights
) -> None:
    """The weights of the fine points between coarse ones along the axes of one kind, given those of fewer axes."""
    here = Stencil(stencil.offsets, _between(stencil.coefficients, coarsening, kind))
    plane = here.collapse(kind)
    usable = plane.centre > 1e-10 * here.centre
    inverse = torch.where(usable, plane.centre, -1.0).reciprocal_().mul_(usable).neg_()
    for k in members:
        total = weights[k].zero_()
        for chosen in itertools.product(*((0, entry) if entry else (0,) for entry in k)):
            offset = tuple(-entry for entry in chosen)
            if any(chosen) and offset in plane.index:
                rest = tuple(entry - taken for entry, taken in zip(k, chosen, strict=True))
                total.addcmul_(_side(plane[offset], coarsening, k), weights[rest])
        total.mul_(_side(inverse, coarsening, k))


def _compiled_weights(
    stencil: Stencil, coarsening: Coarsening, kind: Neighbour, members: Sequence[Neighbour], weights: Weights
) -> None:
    """The same by the compiled kernel."""
    coefficients = stencil.coefficients.contiguous()
    rows = prod(stencil.batch)
    getattr(build.library(), f"interpolate_{layout.NAMES[coefficients.dtype]}")(
        ctypes.c_int64(rows),
        ctypes.byref(axes_table(coarsening)),
        layout.three(kind, 0),
        ctypes.c_int(len(stencil.offsets)),
        layout.integers(*(o for offset in stencil.offsets for o in layout.padded(offset, 0))),
        layout.pointer(coefficients),
        layout.addresses(field_table(weights, coarsening.coarse, rows)),
        layout.threads(),
    )


def _without_positive_couplings(stencil: Stencil) -> Stencil:
    """The stencil with positive off-diagonal coefficients moved to the diagonal."""
    if not stencil.survey.has_positive_couplings:
        return stencil
    positive = stencil.coefficients.clamp_min(0)
    centre = stencil.index[(0,) * stencil.dimension]
    positive[centre] = 0
    coefficients = stencil.coefficients - positive
    coefficients[centre] += positive.sum(0)
    return Stencil(stencil.offsets, coefficients)


def _adopt_orphans(
    weights: Weights, members: Sequence[Neighbour], coarsening: Coarsening, fluid: Tensor, free: Tensor
) -> None:
    """Give every fluid point of one kind that no coarse point reaches to a coarse point in an obstacle."""
    reached = torch.zeros_like(fluid)
    for k in members:
        _side(reached, coarsening, k).logical_or_(weights[k] > 0)
    orphans = fluid & ~reached
    if not bool(orphans.any()):
        return
    centre = weights[(0,) * len(coarsening.fine)]
    for k in members:
        adopted = _side(orphans, coarsening, k) & free
        weights[k].masked_fill_(adopted, 1.0)
        centre.masked_fill_(adopted, 0.0)
        _side(orphans, coarsening, k).logical_and_(~adopted)


def _between(field: Tensor, coarsening: Coarsening, kind: Neighbour) -> Tensor:
    """A fine field at the points between coarse ones along the axes where `kind` is 1, and on coarse ones elsewhere.

    Along an axis between there is one point more than coarse ones, from the one before the first to the one after the
    last; those that do not exist hold zero.
    """
    axes = []
    for axis, between in enumerate(kind):
        pairs = coarsening.axis_slices(axis, -between)
        if between:
            pairs = pairs + _after_last(coarsening, axis)
        axes.append(pairs)
    shape = [m + between for m, between in zip(coarsening.coarse, kind, strict=True)]
    result = field.new_zeros(*field.shape[: field.ndim - len(kind)], *shape)
    for combination in itertools.product(*axes):
        target, source = tuple(c for c, _ in combination), tuple(f for _, f in combination)
        result[on(target)] = field[on(source)]
    return result


def _after_last(coarsening: Coarsening, axis: int) -> list[tuple[slice, slice]]:
    """The fine point after the last coarse one of an axis, if there is one, as the last of the points between."""
    count = coarsening.coarse[axis]
    for coarse, fine in coarsening.axis_slices(axis, 1):
        if coarse.start < count == coarse.stop:
            point = fine.start + coarsening.step[axis] * (count - 1 - coarse.start)
            return [(slice(count, count + 1), slice(point, point + 1))]
    return []


def _side(field: Tensor, coarsening: Coarsening, k: Neighbour) -> Tensor:
    """Of a field on points between coarse ones, the view that holds for each coarse point its neighbour k."""
    for axis, entry in enumerate(k):
        if entry:
            field = field.narrow(axis - len(k), int(entry > 0), coarsening.coarse[axis])
    return field


def gather(field: Tensor, coarsening: Coarsening, k: Neighbour) -> Tensor:
    """The fine field at step c + start + k for all coarse c, zero where that is no fine point."""
    result = field.new_zeros(*field.shape[: field.ndim - len(k)], *coarsening.coarse)
    for coarse, fine in coarsening.slices(k):
        result[on(coarse)] = field[on(fine)]
    return result


def galerkin(
    stencil: Stencil, coarsening: Coarsening, prolongation: Weights, restriction: Weights, symmetric: bool
) -> Stencil:
    """The coarse stencil R A P; of a symmetric one half is computed and the other half copied.

    A fine term from f = step c + start + k by offset o ends at q = k + o from the coarse point; along a coarsened axis
    that is the coarse neighbour m through its own l with q = 2 m + l.
    """
    ranges = [
        (-1, 0, 1) if n > 1 or ring else (0,) for n, ring in zip(coarsening.coarse, coarsening.periodic, strict=True)
    ]
    offsets = tuple(itertools.product(*ranges))
    coefficients = stencil.coefficients.new_zeros(len(offsets), *stencil.batch, *coarsening.coarse)
    # The product of the ranges lists the mirror image of term t at the end, so the first half and the centre suffice.
    computed = len(offsets) // 2 + 1 if symmetric else len(offsets)
    result = dict(zip(offsets[:computed], coefficients, strict=False))
    terms = _split_seams(stencil, coarsening)
    if coefficients.device.type == "cpu" and build.library() is not None:
        _compiled_products(terms, coarsening, prolongation, restriction, result)
    else:
        _add_products(terms, coarsening, prolongation, restriction, result)
    for term in range(computed, len(offsets)):
        image = coefficients[len(offsets) - 1 - term]
        for here, there in shifted_slices(coarsening.coarse, offsets[term], coarsening.periodic):
            coefficients[term][on(here)] = image[on(there)]
    return Stencil(offsets, coefficients)


def _add_products(
    terms: Sequence[tuple[Offset, Tensor]],
    coarsening: Coarsening,
    prolongation: Weights,
    restriction: Weights,
    result: Weights,
) -> None:
    """Add the product to `result`, term by term."""
    for k, weight in restriction.items():
        for offset, coefficient in terms:
            product = gather(coefficient, coarsening, k).mul_(weight)
            targets = [_targets(entry + o, step) for entry, o, step in zip(k, offset, coarsening.step, strict=True)]
            for target in itertools.product(*targets):
                m, landing = tuple(t[0] for t in target), tuple(t[1] for t in target)
                if m not in result:
                    continue
                for here, there in shifted_slices(coarsening.coarse, m, coarsening.periodic):
                    result[m][on(here)].addcmul_(product[on(here)], prolongation[landing][on(there)])


def _compiled_products(
    terms: Sequence[tuple[Offset, Tensor]],
    coarsening: Coarsening,
    prolongation: Weights,
    restriction: Weights,
    result: Weights,
) -> None:
    """The same by the compiled kernel."""
    space = coarsening.coarse
    batch = next(iter(result.values())).shape[: -len(space)]
    up, down, out = (field_table(fields, space, prod(batch)) for fields in (prolongation, restriction, result))
    offsets, coefficients = [offset for offset, _ in terms], [coefficient for _, coefficient in terms]
    table = layout.TermTable(offsets, coefficients, coarsening.fine, batch)
    getattr(build.library(), f"galerkin_{layout.NAMES[table.held[0].dtype]}")(
        ctypes.c_int64(prod(batch)),
        ctypes.byref(axes_table(coarsening)),
        layout.three(coarsening.periodic, 0),
        ctypes.c_int(table.count),
        table.offsets,
        table.addresses,
        table.strides,
        *(layout.addresses(fields) for fields in (down, up, out)),
        layout.threads(),
    )


def _targets(q: int, step: int) -> list[tuple[int, int]]:
    """Pairs (m, l) with q = step m + l, l in {-1, 0, 1}, or l = 0 along an axis that is not coarsened."""
    if step == 1:
        return [(q, 0)]
    return [(m, q - 2 * m) for m in (-1, 0, 1) if abs(q - 2 * m) <= 1]


def _split_seams(stencil: Stencil, coarsening: Coarsening) -> list[tuple[Offset, Tensor]]:
    """The terms of a stencil; those across the seam of a coarsened ring of odd length count as a step of 2.

    There the first and the last point are both coarse and adjacent, so that the offset of 1 leads to the next coarse
    point.
    """
    terms = list(zip(stencil.offsets, stencil.coefficients, strict=True))
    for axis, (n, step, ring) in enumerate(zip(coarsening.fine, coarsening.step, coarsening.periodic, strict=True)):
        if not (ring and step == 2 and n % 2 == 1):
            continue
        split: list[tuple[Offset, Tensor]] = []
        for offset, coefficient in terms:
            if offset[axis] == 0:
                split.append((offset, coefficient))
                continue
            dim, seam = axis - stencil.dimension, 0 if offset[axis] < 0 else n - 1
            inside, across = coefficient.clone(), torch.zeros_like(coefficient)
            across.select(dim, seam).copy_(inside.select(dim, seam))
            inside.select(dim, seam).zero_()
            longer = tuple(2 * o if a == axis else o for a, o in enumerate(offset))
            split += [(offset, inside), (longer, across)]
        terms = split
    return terms
