"""Grid transfers of geometric multigrid.

A coarse grid keeps every second point of an axis: coarse point c is fine point step c + start, and it contributes to
the fine points step c + start + k, k in {-1, 0, 1} along every coarsened axis. The prolongation is therefore given by
weights W_k(c), one a neighbour k and coarse point c. Two forms: a product of one set of weights an axis, or one field a
neighbour. The restriction has weights of its own, those of the prolongation if the operator is symmetric in point form.
"""

from __future__ import annotations

import ctypes
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from sciml.kernels import build, layout
from sciml.stencil import on

Neighbour = tuple[int, ...]


@dataclass(frozen=True)
class Coarsening:
    """Which points a coarse grid keeps.

    Attributes:
        fine, coarse: shapes.
        step: 2 along a coarsened axis, 1 along one that stays.
        start: fine index of the first coarse point, an axis each.
        periodic: whether the axis wraps.
    """

    fine: tuple[int, ...]
    coarse: tuple[int, ...]
    step: tuple[int, ...]
    start: tuple[int, ...]
    periodic: tuple[bool, ...]

    @staticmethod
    def of(space: Sequence[int], axes: Sequence[bool], periodic: Sequence[bool]) -> Coarsening:
        """Keep every second point of the chosen axes: the odd ones, on a periodic axis of odd length the even ones."""
        coarse, step, start = [], [], []
        for n, chosen, wraps in zip(space, axes, periodic, strict=True):
            odd_ring = wraps and n % 2 == 1
            coarse.append(n if not chosen else (n + 1) // 2 if odd_ring else n // 2)
            step.append(2 if chosen else 1)
            start.append(1 if chosen and not odd_ring else 0)
        return Coarsening(tuple(space), tuple(coarse), tuple(step), tuple(start), tuple(periodic))

    def along(self, axis: int) -> Coarsening:
        """The coarsening of one axis."""
        one = slice(axis, axis + 1)
        return Coarsening(self.fine[one], self.coarse[one], self.step[one], self.start[one], self.periodic[one])

    @cached_property
    def wraps(self) -> tuple[bool, ...]:
        """Whether interpolation wraps around an axis; on a ring of odd length no point lies across the seam."""
        return tuple(
            p and not (n % 2 == 1 and s == 2) for p, n, s in zip(self.periodic, self.fine, self.step, strict=True)
        )

    def neighbours(self) -> list[Neighbour]:
        """All k, the fewest non-zero entries first, those that differ in signs together."""
        ranges = [(-1, 0, 1) if step == 2 else (0,) for step in self.step]
        return sorted(itertools.product(*ranges), key=lambda k: (sum(map(abs, k)), tuple(map(abs, k))))

    def axis_slices(self, axis: int, k: int) -> list[tuple[slice, slice]]:
        """Pairs (coarse, fine) of slices along an axis with fine = step coarse + start + k."""
        n, m, step = self.fine[axis], self.coarse[axis], self.step[axis]
        shift = self.start[axis] + k
        first = max(0, -(shift // step))
        last = min(m, (n - 1 - shift) // step + 1)
        pairs = [(slice(first, last), slice(step * first + shift, step * (last - 1) + shift + 1, step))]
        if self.wraps[axis]:
            for c in (*range(first), *range(last, m)):
                f = (step * c + shift) % n
                pairs.append((slice(c, c + 1), slice(f, f + 1)))
        return pairs

    def slices(self, k: Neighbour) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Pairs (coarse, fine) of slices over all axes."""
        axes = [self.axis_slices(axis, shift) for axis, shift in enumerate(k)]
        return [(tuple(c for c, _ in pairs), tuple(f for _, f in pairs)) for pairs in itertools.product(*axes)]


class Transfer(ABC):
    """Restriction and prolongation between two grids."""

    coarsening: Coarsening

    @abstractmethod
    def restrict(self, fine: Tensor, out: Tensor) -> Tensor:
        """`(*batch, *fine)` to `out`, `(*batch, *coarse)`."""

    @abstractmethod
    def prolong_add(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Add the interpolated coarse field to `fine` in place."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Transfer:
        """The transfer with weights in another dtype."""

    @abstractmethod
    def transpose(self) -> Transfer:
        """The transfer whose prolongation is the transposed restriction of this one, and the other way round."""

    @abstractmethod
    def weight_tables(self) -> tuple[int, list[Tensor | None], list[Tensor | None]]:
        """Rows of weights (0 for a product over the axes), prolongation and restriction as `Transfer` of transfer.hpp
        wants them."""

    @cached_property
    def compiled(self) -> CompiledTransfer:
        """The transfer laid out for the compiled kernels."""
        return CompiledTransfer(self)

    def __getstate__(self) -> dict[str, object]:
        """Without what was laid out for this process."""
        return {name: value for name, value in self.__dict__.items() if name != "compiled"}

    def _run_compiled(self, name: str, source: Tensor, target: Tensor) -> bool:
        """Run a compiled transfer if the fields allow it."""
        if source.device.type != "cpu" or source.dtype not in layout.NAMES or not source.is_contiguous():
            return False
        library = build.library() if target.is_contiguous() else None
        if library is None:
            return False
        getattr(library, f"{name}_{layout.NAMES[source.dtype]}")(
            ctypes.byref(self.compiled.table),
            layout.pointer(source),
            layout.pointer(target),
            ctypes.c_int64(prod(source.shape[: source.ndim - len(self.coarsening.fine)])),
            layout.threads(),
        )
        return True


class ProductTransfer(Transfer):
    """Weights that are products over the axes, each of shape `(3, coarse length)` with row k + 1."""

    def __init__(self, coarsening: Coarsening, prolongation: Sequence[Tensor], restriction: Sequence[Tensor]) -> None:
        self.coarsening = coarsening
        self.prolongation = [weight.contiguous() for weight in prolongation]
        self.restriction = [weight.contiguous() for weight in restriction]

    def weight_tables(self) -> tuple[int, list[Tensor | None], list[Tensor | None]]:
        # An axis that a lower dimension lacks has one point, reached by k = 0 alone.
        unit = torch.tensor([0.0, 1.0, 0.0]).to(self.prolongation[0])
        missing = [unit] * (3 - len(self.prolongation))
        return 0, [*missing, *self.prolongation], [*missing, *self.restriction]

    def restrict(self, fine: Tensor, out: Tensor) -> Tensor:
        if self._run_compiled("restrict", fine, out):
            return out
        result = fine
        for axis in range(len(self.coarsening.fine)):
            if self.coarsening.step[axis] == 2:
                result = self._restrict_axis(result, axis)
        return out.copy_(result)

    def prolong_add(self, coarse: Tensor, fine: Tensor) -> Tensor:
        if self._run_compiled("prolong", coarse, fine):
            return fine
        result = coarse
        for axis in range(len(self.coarsening.fine)):
            if self.coarsening.step[axis] == 2:
                result = self._prolong_axis(result, axis)
        return fine.add_(result)

    def to(self, dtype: torch.dtype) -> ProductTransfer:
        up, down = ([weight.to(dtype) for weight in weights] for weights in (self.prolongation, self.restriction))
        return ProductTransfer(self.coarsening, up, down)

    def transpose(self) -> ProductTransfer:
        return ProductTransfer(self.coarsening, self.restriction, self.prolongation)

    def _restrict_axis(self, fine: Tensor, axis: int) -> Tensor:
        dim = axis - len(self.coarsening.fine)
        shape = list(fine.shape)
        shape[dim] = self.coarsening.coarse[axis]
        result = fine.new_zeros(shape)
        for k, coarse, part in self._axis_terms(axis):
            weight = _along(self.restriction[axis][k + 1, coarse], dim)
            result.narrow(dim, coarse.start, coarse.stop - coarse.start).addcmul_(weight, _take(fine, dim, part))
        return result

    def _prolong_axis(self, coarse: Tensor, axis: int) -> Tensor:
        dim = axis - len(self.coarsening.fine)
        shape = list(coarse.shape)
        shape[dim] = self.coarsening.fine[axis]
        result = coarse.new_zeros(shape)
        for k, chosen, part in self._axis_terms(axis):
            weight = _along(self.prolongation[axis][k + 1, chosen], dim)
            _take(result, dim, part).addcmul_(weight, _take(coarse, dim, chosen))
        return result

    def _axis_terms(self, axis: int) -> list[tuple[int, slice, slice]]:
        return [(k, c, f) for k in (-1, 0, 1) for c, f in self.coarsening.axis_slices(axis, k) if c.stop > c.start]


class FieldTransfer(Transfer):
    """One weight field `(*batch, *coarse)` a neighbour k."""

    def __init__(
        self, coarsening: Coarsening, prolongation: dict[Neighbour, Tensor], restriction: dict[Neighbour, Tensor]
    ) -> None:
        self.coarsening = coarsening
        self.prolongation = prolongation
        self.restriction = restriction

    def weight_tables(self) -> tuple[int, list[Tensor | None], list[Tensor | None]]:
        space = self.coarsening.coarse
        rows = prod(next(iter(self.prolongation.values())).shape[: -len(space)])
        up = field_table(self.prolongation, space, rows)
        same = self.restriction is self.prolongation
        return rows, up, up if same else field_table(self.restriction, space, rows)

    def restrict(self, fine: Tensor, out: Tensor) -> Tensor:
        if self._run_compiled("restrict", fine, out):
            return out
        out.zero_()
        for k, weight in self.restriction.items():
            for coarse, part in self.coarsening.slices(k):
                out[on(coarse)].addcmul_(weight[on(coarse)], fine[on(part)])
        return out

    def prolong_add(self, coarse: Tensor, fine: Tensor) -> Tensor:
        if self._run_compiled("prolong", coarse, fine):
            return fine
        for k, weight in self.prolongation.items():
            for chosen, part in self.coarsening.slices(k):
                fine[on(part)].addcmul_(weight[on(chosen)], coarse[on(chosen)])
        return fine

    def to(self, dtype: torch.dtype) -> FieldTransfer:
        up = _side_by_side(self.prolongation, dtype)
        same = self.restriction is self.prolongation
        return FieldTransfer(self.coarsening, up, up if same else _side_by_side(self.restriction, dtype))

    def transpose(self) -> FieldTransfer:
        return FieldTransfer(self.coarsening, self.restriction, self.prolongation)


class CompiledTransfer:
    """The table of a transfer for the compiled kernels, and the tensors that it points to."""

    def __init__(self, transfer: Transfer) -> None:
        rows, up, down = transfer.weight_tables()
        self.held = (up, down, layout.addresses(up), layout.addresses(down))
        axes = axes_table(transfer.coarsening)
        stride = next(weight.stride(0) for weight in up if weight is not None)
        self.table = layout.TransferTable(
            axes, rows, 0, stride, layout.address(self.held[2]), layout.address(self.held[3])
        )


def axes_table(coarsening: Coarsening) -> layout.AxesTable:
    """Shapes, steps and starts, and which axes wrap, for the compiled kernels."""
    pairs = (
        (coarsening.fine, 1),
        (coarsening.coarse, 1),
        (coarsening.step, 1),
        (coarsening.start, 0),
        (coarsening.wraps, 0),
    )
    return layout.AxesTable(*(layout.three(values, fill) for values, fill in pairs))


def field_table(weights: dict[Neighbour, Tensor], space: Sequence[int], rows: int) -> list[Tensor | None]:
    """Weight fields `(rows, *space)` by kernel index of their neighbour (27 entries)."""
    table: list[Tensor | None] = [None] * 27
    for k, weight in weights.items():
        first, second, third = layout.padded(k, 0)
        table[(first + 1) * 9 + (second + 1) * 3 + third + 1] = weight.reshape(-1, *space).expand(rows, *space)
    return table


def _side_by_side(weights: dict[Neighbour, Tensor], dtype: torch.dtype) -> dict[Neighbour, Tensor]:
    """The weights in another dtype, those of one row together in memory, with the padding of transfer.hpp."""
    like = next(iter(weights.values()))
    space = like.shape[-len(next(iter(weights))) :]
    rows, size = like.numel() // prod(space), prod(space)
    margin = layout.PADDING
    whole = torch.zeros(rows, len(weights), layout.padding(size) + 2 * margin, dtype=dtype, device=like.device)
    fields = [field[:, margin : margin + size].view(like.shape) for field in whole.unbind(1)]
    return {k: field.copy_(weight) for (k, weight), field in zip(weights.items(), fields, strict=True)}


def _along(weight: Tensor, dim: int) -> Tensor:
    return weight.reshape(-1, *([1] * (-dim - 1)))


def _take(field: Tensor, dim: int, part: slice) -> Tensor:
    return field[on((part, *([slice(None)] * (-dim - 1))))]
