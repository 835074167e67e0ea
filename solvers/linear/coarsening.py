"""Coarse operators of geometric multigrid.

Two constructions, both exact Galerkin products with interpolation taken from the operator itself:

* a separable operator, A = sum of one tridiagonal matrix an axis + c, is coarsened axis by axis in one dimension, where
  interpolation from the operator makes the Galerkin product the Schur complement; the mass that stands between point
  form and symmetric form is lumped. Coarse operators keep 2 d + 1 points and one-dimensional coefficients.
* any other compact operator (3^d points) gets the black-box interpolation of Dendy (J. Comput. Phys. 48 (1982) 366-386),
  in the recursive form given at `interpolation`, and full Galerkin coefficients.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.kernels import build, layout
from sciml.stencil import Offset, StencilOperator, narrow, shifted_slices

from .transfer import Coarsening, FieldTransfer, Neighbour, ProductTransfer, Transfer, field_table, layout_of

Stencil = dict[Offset, Tensor]


# Stencils as dictionaries


def compact(operator: StencilOperator) -> Stencil:
    """Coefficients by offset, duplicates summed, zero where they reach outside, reduced to |offset| <= 1.

    A coefficient at distance 2 along an axis is moved to distance 1 and the centre with weights 4 and -3, which keeps
    the row sum and the second moment: a fourth-order second derivative becomes the second-order one.
    """
    stencil: Stencil = {}

    def add(offset: Offset, coefficient: Tensor) -> None:
        stencil[offset] = stencil[offset] + coefficient if offset in stencil else coefficient

    centre = (0,) * len(operator.space)
    for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
        coefficient = _zero_outside(coefficient, operator.space, offset, operator.periodic)
        reach = max(map(abs, offset))
        if reach <= 1:
            add(offset, coefficient)
        elif reach == 2 and sum(o != 0 for o in offset) == 1:
            near = tuple(o // 2 for o in offset)
            inner = _zero_outside(coefficient, operator.space, near, operator.periodic)
            add(near, 4 * inner)
            add(centre, -3 * inner)
        else:
            # far or oblique coefficients (one-sided rows at walls) are lumped on the diagonal
            add(centre, coefficient)
    return stencil


def _zero_outside(coefficient: Tensor, space: Sequence[int], offset: Offset, periodic: Sequence[bool]) -> Tensor:
    """The coefficient, zero where the neighbour does not exist; axes of length 1 are expanded only if that needs it."""
    result = coefficient
    dimension = len(space)
    for axis, (n, o, wraps) in enumerate(zip(space, offset, periodic, strict=True)):
        if wraps or o == 0:
            continue
        dim = result.ndim - dimension + axis
        shape = list(result.shape)
        shape[dim] = n
        result = result.expand(shape).clone()
        reach = min(abs(o), n)
        result.narrow(dim, 0 if o < 0 else n - reach, reach).zero_()
    return result


def as_operator(stencil: Stencil, space: Sequence[int], periodic: Sequence[bool], symmetric: bool) -> StencilOperator:
    """The stencil as an operator."""
    return StencilOperator(space, list(stencil), list(stencil.values()), periodic, symmetric=symmetric)


# Interpolation and the Galerkin product


def interpolation(stencil: Stencil, coarsening: Coarsening) -> dict[Neighbour, Tensor]:
    """Operator-dependent weights W_k(c).

    The fine point f = step c + start + k lies between coarse points along the axes S where k is not zero. Its equation,
    summed over the other axes so that it becomes a stencil a_S on the axes of S, is solved for it, and neighbours that are
    themselves interpolated are replaced by what they are interpolated from, which gives, with a_S at f,

        W_k(c) = - sum over non-empty T in S of a_S[-k on T, 0 else] W_(k without T)(c) / a_S[0],   W_0 = 1.

    Positive couplings are first added to the diagonal, so that weights lie in [0, 1]. A fluid point all of whose coarse
    points lie in obstacles is given one of these: a coarse unknown in an obstacle is free to stand for it.
    """
    stencil = _without_positive_couplings(stencil)
    centre_offset = (0,) * len(coarsening.fine)
    batch = torch.broadcast_shapes(*(c.shape[: c.ndim - len(coarsening.fine)] for c in stencil.values()))
    diagonal = stencil[centre_offset]
    coupling = sum((c for o, c in stencil.items() if any(o)), torch.zeros_like(diagonal)).abs()
    coupled = coupling > 1e-10 * diagonal.abs()
    obstacles = not bool(coupled.all())
    weights: dict[Neighbour, Tensor] = {}
    collapsed: dict[tuple[bool, ...], Stencil] = {}
    for k in coarsening.neighbours():
        between = tuple(entry != 0 for entry in k)
        if not any(between):
            weights[k] = torch.ones(*batch, *coarsening.coarse, dtype=diagonal.dtype, device=diagonal.device)
            continue
        if between not in collapsed:
            collapsed[between] = _collapse(stencil, between)
        plane = collapsed[between]
        centre = _gather(plane[centre_offset], coarsening, k, batch)
        total = torch.zeros_like(centre)
        for kept in itertools.product(*((0, 1) if inside else (0,) for inside in between)):
            offset = tuple(-entry * chosen for entry, chosen in zip(k, kept, strict=True))
            if any(offset) and offset in plane:
                rest = tuple(entry * (1 - chosen) for entry, chosen in zip(k, kept, strict=True))
                total.addcmul_(_gather(plane[offset], coarsening, k, batch), weights[rest])
        usable = centre > 1e-10 * _gather(diagonal, coarsening, k, batch)
        weights[k] = torch.where(usable, -total / torch.where(usable, centre, 1.0), 0.0)
        if obstacles and all(
            tuple(map(abs, other)) != tuple(map(abs, k)) or other in weights for other in coarsening.neighbours()
        ):
            _adopt_orphans(weights, coarsening, coupled, tuple(map(abs, k)))
    return weights


def _without_positive_couplings(stencil: Stencil) -> Stencil:
    """The stencil with positive off-diagonal coefficients moved to the diagonal."""
    centre = (0,) * len(next(iter(stencil)))
    result, diagonal = {}, stencil[centre]
    for offset, coefficient in stencil.items():
        if any(offset) and bool((coefficient > 0).any()):
            diagonal = diagonal + coefficient.clamp_min(0)
            coefficient = coefficient.clamp_max(0)
        result[offset] = coefficient
    result[centre] = diagonal
    return result


def _adopt_orphans(weights: dict[Neighbour, Tensor], coarsening: Coarsening, coupled: Tensor, kind: Neighbour) -> None:
    """Give every coupled fine point of a kind (which axes it lies between) without weights to a coarse point in an obstacle."""
    shape = (*weights[(0,) * len(kind)].shape[: -len(kind)], *coarsening.fine)
    reached = torch.zeros(shape, dtype=torch.bool, device=coupled.device)
    kinds = [k for k in coarsening.neighbours() if tuple(map(abs, k)) == kind]
    for k in kinds:
        for coarse, fine in coarsening.slices(k):
            reached[(..., *fine)] |= weights[k][(..., *coarse)] > 0
    orphan = coupled & ~reached
    free = ~_gather(coupled.to(weights[kinds[0]].dtype), coarsening, (0,) * len(kind), shape[: -len(kind)]).bool()
    for k in kinds:
        for coarse, fine in coarsening.slices(k):
            adopted = orphan[(..., *fine)] & free[(..., *coarse)]
            weights[k][(..., *coarse)] = torch.where(adopted, 1.0, weights[k][(..., *coarse)])
            weights[(0,) * len(kind)][(..., *coarse)] *= ~adopted
            orphan[(..., *fine)] &= ~adopted


def _collapse(stencil: Stencil, kept: Sequence[bool]) -> Stencil:
    """The stencil summed over the axes that are not kept."""
    result: Stencil = {}
    for offset, coefficient in stencil.items():
        key = tuple(o if keep else 0 for o, keep in zip(offset, kept, strict=True))
        result[key] = result[key] + coefficient if key in result else coefficient
    return result


def _gather(coefficient: Tensor, coarsening: Coarsening, k: Neighbour, batch: Sequence[int]) -> Tensor:
    """The fine coefficient at step c + start + k for all coarse c, zero where that is no fine point."""
    result = coefficient.new_zeros(*batch, *coarsening.coarse)
    for coarse, fine in coarsening.slices(k):
        result[(..., *coarse)] = narrow(coefficient, fine)
    return result


def galerkin(
    stencil: Stencil,
    coarsening: Coarsening,
    prolongation: dict[Neighbour, Tensor],
    restriction: dict[Neighbour, Tensor],
) -> Stencil:
    """The coarse stencil R A P.

    A fine term from f = step c + start + k by offset o ends at q = k + o from the coarse point; along a coarsened axis
    that is the coarse neighbour m through its own l with q = 2 m + l.
    """
    batch = next(iter(prolongation.values())).shape[: -len(coarsening.fine)]
    like = next(iter(stencil.values()))
    terms = _split_seams(stencil, coarsening)
    neighbours = itertools.product(*((-1, 0, 1) if n > 1 or ring else (0,) for n, ring in zip(coarsening.coarse, coarsening.periodic, strict=True)))
    result = {m: like.new_zeros(*batch, *coarsening.coarse) for m in neighbours}
    if like.device.type == "cpu" and build.library() is not None:
        _compiled_galerkin(terms, coarsening, prolongation, restriction, result)
        return result
    for k, weight in restriction.items():
        for offset, coefficient in terms:
            product = _gather(coefficient, coarsening, k, batch).mul_(weight)
            targets = [
                _targets(entry + o, step) for entry, o, step in zip(k, offset, coarsening.step, strict=True)
            ]
            for target in itertools.product(*targets):
                m, landing = tuple(t[0] for t in target), tuple(t[1] for t in target)
                if m not in result:
                    continue
                for here, there in shifted_slices(coarsening.coarse, m, coarsening.periodic):
                    result[m][(..., *here)].addcmul_(product[(..., *here)], prolongation[landing][(..., *there)])
    return result


def _compiled_galerkin(
    terms: Sequence[tuple[Offset, Tensor]],
    coarsening: Coarsening,
    prolongation: dict[Neighbour, Tensor],
    restriction: dict[Neighbour, Tensor],
    result: Stencil,
) -> None:
    """The same product by the compiled kernel, added to `result`."""
    space = coarsening.coarse
    batch = next(iter(result.values())).shape[: -len(space)]
    up, down, out = (field_table(fields, space, prod(batch)) for fields in (prolongation, restriction, result))
    table = layout.TermTable([coefficient for _, coefficient in terms], coarsening.fine, batch)
    getattr(build.library(), f"galerkin_{layout.NAMES[table.held[0].dtype]}")(
        ctypes.c_int64(prod(batch)),
        *layout_of(coarsening),
        layout.flags(*layout.padded(coarsening.periodic, 0)),
        ctypes.c_int(table.count),
        layout.integers(*(o for offset, _ in terms for o in layout.padded(offset, 0))),
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
    terms = list(stencil.items())
    for axis, (n, step, periodic) in enumerate(zip(coarsening.fine, coarsening.step, coarsening.periodic, strict=True)):
        if not (periodic and step == 2 and n % 2 == 1):
            continue
        split: list[tuple[Offset, Tensor]] = []
        for offset, coefficient in terms:
            if offset[axis] == 0:
                split.append((offset, coefficient))
                continue
            dim = coefficient.ndim - len(offset) + axis
            shape = list(coefficient.shape)
            shape[dim] = n
            inside = coefficient.expand(shape).clone()
            across = torch.zeros_like(inside)
            seam = 0 if offset[axis] < 0 else n - 1
            across.select(dim, seam).copy_(inside.select(dim, seam))
            inside.select(dim, seam).zero_()
            longer = tuple(2 * o if a == axis else o for a, o in enumerate(offset))
            split += [(offset, inside), (longer, across)]
        terms = split
    return terms


# Levels


@dataclass(frozen=True)
class Separable:
    """A = sum over axes of T_a + c, in point form; mass_a T_a is symmetric if the operator is.

    Attributes:
        axes: stencil of T_a in one dimension, an axis each.
        mass: positive weights along each axis.
        shift: c.
    """

    axes: tuple[Stencil, ...]
    mass: tuple[Tensor, ...]
    shift: Tensor

    @staticmethod
    def of(operator: StencilOperator) -> Separable | None:
        """The parts of an operator, or None if it is not separable (or has a batch)."""
        dimension = len(operator.space)
        if operator.batch:
            return None
        parts: list[Stencil] = [{} for _ in range(dimension)]
        shift = torch.zeros((), dtype=operator.dtype, device=operator.device)
        for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
            coefficient = coefficient.reshape(coefficient.shape[-dimension:])
            along = {a for a in range(dimension) if offset[a] or coefficient.shape[a] > 1}
            if len(along) > 1 or max(map(abs, offset)) > 1:
                return None
            if not along:
                shift = shift + coefficient.reshape(())
                continue
            axis = along.pop()
            line = coefficient.reshape(-1).expand(operator.space[axis])
            line = _zero_outside(
                line, operator.space[axis : axis + 1], offset[axis : axis + 1], operator.periodic[axis : axis + 1]
            )
            key = (offset[axis],)
            parts[axis][key] = parts[axis][key] + line if key in parts[axis] else line
        axes = []
        for n, part in zip(operator.space, parts, strict=True):
            # What a constant field sees belongs to the axis only as far as it varies along it (walls).
            zero = torch.zeros(n, dtype=operator.dtype, device=operator.device)
            sides = part.get((-1,), zero) + part.get((1,), zero)
            row_sum = part.get((0,), zero) + sides
            rest = row_sum.min() if n > 1 else row_sum[0]
            shift = shift + rest
            axes.append({(-1,): part.get((-1,), zero), (0,): row_sum - rest - sides, (1,): part.get((1,), zero)})
        mass = tuple(torch.ones(n, dtype=operator.dtype, device=operator.device) for n in operator.space)
        return Separable(tuple(axes), mass, shift)

    def strengths(self) -> list[Tensor]:
        """Mean coupling along each axis."""
        return [(axis[(-1,)].abs() + axis[(1,)].abs()).mean() for axis in self.axes]

    def operator(self, space: Sequence[int], periodic: Sequence[bool], symmetric: bool) -> StencilOperator:
        """The sum as one stencil operator with one-dimensional coefficients."""
        dimension = len(space)
        offsets, coefficients = [], []
        for a, axis in enumerate(self.axes):
            shape = [space[a] if b == a else 1 for b in range(dimension)]
            for (o,), line in axis.items():
                offsets.append(tuple(o if b == a else 0 for b in range(dimension)))
                coefficients.append(line.reshape(shape))
        offsets.append((0,) * dimension)
        coefficients.append(self.shift.reshape((1,) * dimension))
        return StencilOperator(space, offsets, coefficients, periodic, symmetric=symmetric)

    def coarsen(self, coarsening: Coarsening) -> tuple[Separable, Transfer]:
        """One level down."""
        axes, masses, up, down = [], [], [], []
        for a, (axis, mass) in enumerate(zip(self.axes, self.mass, strict=True)):
            if coarsening.step[a] == 1:
                weights = torch.zeros(3, len(mass), dtype=mass.dtype, device=mass.device)
                weights[1] = 1
                axes.append(axis), masses.append(mass), up.append(weights), down.append(weights)
                continue
            line = Coarsening(*((part[a],) for part in _fields(coarsening)))
            symmetric_form = {offset: mass * coefficient for offset, coefficient in axis.items()}
            weight = interpolation(symmetric_form, line)
            stiffness = galerkin(symmetric_form, line, weight, weight)
            fine_mass = {k: _gather(mass, line, k, ()) for k in weight}
            coarse_mass = sum((weight[k] * fine_mass[k] for k in weight), torch.zeros_like(weight[(0,)]))
            axes.append({offset: coefficient / coarse_mass for offset, coefficient in stiffness.items()})
            masses.append(coarse_mass)
            up.append(torch.stack([weight[(k,)] for k in (-1, 0, 1)]))
            down.append(torch.stack([weight[(k,)] * fine_mass[(k,)] / coarse_mass for k in (-1, 0, 1)]))
        return Separable(tuple(axes), tuple(masses), self.shift), ProductTransfer(coarsening, up, down)


def _fields(coarsening: Coarsening) -> tuple[tuple[int, ...], ...]:
    return (coarsening.fine, coarsening.coarse, coarsening.step, coarsening.start, coarsening.periodic)


@dataclass(frozen=True)
class General:
    """A compact stencil with coefficients that may vary in every way."""

    stencil: Stencil
    symmetric: bool

    def strengths(self) -> list[Tensor]:
        """Mean coupling along each axis."""
        dimension = len(next(iter(self.stencil)))
        totals = [torch.zeros(()) for _ in range(dimension)]
        for offset, coefficient in self.stencil.items():
            if sum(map(abs, offset)) == 1:
                axis = next(a for a, o in enumerate(offset) if o)
                totals[axis] = totals[axis] + coefficient.abs().mean().cpu()
        return totals

    def operator(self, space: Sequence[int], periodic: Sequence[bool], symmetric: bool) -> StencilOperator:
        """The stencil as an operator."""
        return as_operator(self.stencil, space, periodic, symmetric)

    def coarsen(self, coarsening: Coarsening) -> tuple[General, Transfer]:
        """One level down."""
        prolongation = interpolation(self.stencil, coarsening)
        restriction = prolongation
        if not self.symmetric:
            fine = as_operator(self.stencil, coarsening.fine, coarsening.periodic, False)
            restriction = interpolation(compact(fine.transpose()), coarsening)
        coarse = galerkin(self.stencil, coarsening, prolongation, restriction)
        return General(coarse, self.symmetric), FieldTransfer(coarsening, prolongation, restriction)


def problem_of(operator: StencilOperator) -> Separable | General:
    """The operator in the form that its coarsening uses."""
    if not isinstance(operator, StencilOperator):
        raise InputError(
            f"geometric multigrid needs a stencil on a grid, got {type(operator).__name__}: for a matrix use "
            "IncompleteCholesky, ILU0 or Direct"
        )
    return Separable.of(operator) or General(compact(operator), operator.symmetric)
