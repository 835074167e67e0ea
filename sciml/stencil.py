"""Matrix-free stencils on grids of one to three axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod
from types import EllipsisType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .csr import csr_tensor, sorted_entries
from .differentiation import detached, may_carry_derivatives
from .errors import InputError
from .kernels import build, layout
from .kernels.stencil import CompiledStencil, broadcast, writable
from .linear_operator import Kind, LinearOperator, refuse_batch

Offset = tuple[int, ...]
Slices = tuple[slice, ...]

MAX_TERMS = 64
_BLOCK_BYTES = 1 << 22


class StencilOperator(LinearOperator):
    """(A u)(i) = sum over terms k of coefficient_k(i) u(i + offset_k).

    Neighbours outside a non-periodic axis count as zero; periodic axes wrap. An offset may occur in several terms.

    Args:
        space: shape of the grid, one to three axes.
        offsets: one tuple of integers a term.
        coefficients: one tensor a term, broadcastable to `(*batch, *space)` and with at least `len(space)` axes; an
            axis along which it does not vary should have length 1. They may carry gradients.
        periodic: one bool an axis.
        symmetric: promise that the operator equals its transpose.
        null_space, kind: see LinearOperator.

    Raises:
        InputError: for shapes that do not fit together.
    """

    def __init__(
        self,
        space: Sequence[int],
        offsets: Sequence[Offset],
        coefficients: Sequence[Tensor],
        periodic: Sequence[bool],
        *,
        symmetric: bool = False,
        null_space: Tensor | None = None,
        kind: Kind = Kind.LINEAR,
    ) -> None:
        dimension = len(space)
        if not 1 <= dimension <= 3 or len(periodic) != dimension or any(len(o) != dimension for o in offsets):
            raise InputError(f"space {tuple(space)}, periodic {tuple(periodic)} and offsets differ in their axes")
        if any(n < 1 for n in space):
            raise InputError(f"space {tuple(space)}: every axis needs at least one point")
        if not coefficients or len(coefficients) != len(offsets):
            raise InputError(f"{len(offsets)} offsets and {len(coefficients)} coefficients: give one of each a term")
        for coefficient in coefficients:
            if coefficient.ndim < dimension or any(
                length not in (1, n) for length, n in zip(coefficient.shape[-dimension:], space, strict=True)
            ):
                raise InputError(
                    f"a coefficient of shape {tuple(coefficient.shape)} does not broadcast to (*batch, *{tuple(space)})"
                )
            if coefficient.dtype != coefficients[0].dtype or coefficient.device != coefficients[0].device:
                raise InputError(
                    f"coefficients of {coefficient.dtype} on {coefficient.device} and {coefficients[0].dtype} on "
                    f"{coefficients[0].device}: give all the same dtype and device"
                )
        batches = [c.shape[: c.ndim - dimension] for c in coefficients]
        batch = torch.broadcast_shapes(*batches) if any(batches) else ()
        super().__init__(
            space,
            batch,
            coefficients[0].dtype,
            coefficients[0].device,
            symmetric=symmetric,
            null_space=null_space,
            kind=kind,
        )
        self.offsets = tuple(tuple(offset) for offset in offsets)
        self.coefficients = tuple(coefficients)
        self.periodic = tuple(periodic)

    def __getstate__(self) -> dict[str, object]:
        """Without what was laid out for this process."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_compiled", "_eager_pieces")}

    # Actions on fields

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._run("apply", x, None, None, 0.0, out)

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._run("residual", x, b, None, 0.0, out)

    def apply_and_dot(self, x: Tensor, out: Tensor) -> Tensor:
        """A x into `out`; returns x . A x in float64, of the field's batch shape, computed in the same pass."""
        self._check(x)
        batch = x.shape[: x.ndim - len(self.space)]
        if self._compilable(x, None) and writable(out, x, x.shape):
            lines = torch.empty(*batch, self.size // self.space[-1], dtype=torch.float64)
            self._compiled("apply", x, None, None, 0.0, out, lines)
            return lines.sum(-1)
        self._run("apply", x, None, None, 0.0, out)
        return torch.linalg.vecdot(x.reshape(*batch, -1), out.reshape(*batch, -1)).double()

    def relax(
        self, x: Tensor, b: Tensor, omega: float, inverse_diagonal: Tensor | None, out: Tensor | None = None
    ) -> Tensor:
        """x + omega D^-1 (b - A x), one damped Jacobi sweep; `inverse_diagonal` None takes D from the coefficients."""
        return self._run("relax", x, b, inverse_diagonal, omega, out)

    def scale(self, b: Tensor, omega: float, inverse_diagonal: Tensor | None, out: Tensor | None = None) -> Tensor:
        """omega D^-1 b, a damped Jacobi sweep from zero."""
        return self._run("scale", b, b, inverse_diagonal, omega, out)

    def _run(
        self, mode: str, x: Tensor, b: Tensor | None, inverse_diagonal: Tensor | None, omega: float, out: Tensor | None
    ) -> Tensor:
        self._check(x)
        compilable = self._compilable(x, b)
        if (
            mode in ("relax", "scale")
            and inverse_diagonal is None
            and not (compilable and self._compiled.knows_diagonal)
        ):
            inverse_diagonal = self.diagonal().reciprocal()
        if compilable:
            return self._compiled(mode, x, b, inverse_diagonal, omega, out)
        if mode == "scale" and inverse_diagonal is not None:
            return torch.mul(x, inverse_diagonal, out=out).mul_(omega)
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            product = self._sum_of_slices(x)
        else:
            product = self._sum_of_slices_in_blocks(x, x.new_empty(self._result_shape(x)) if mode != "apply" else out)
        if mode == "apply" or b is None:
            return product if out is None or out is product else out.copy_(product)
        if mode == "residual" or inverse_diagonal is None:
            return torch.sub(b, product, out=out)
        return torch.addcmul(x, inverse_diagonal, torch.sub(b, product), value=omega, out=out)

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[max(0, x.ndim - len(self.space)) :]) != self.space:
            raise InputError(f"a field of shape {tuple(x.shape)}, expected (*batch, *{self.space})")
        if x.dtype != self.dtype or x.device != self.device:
            raise InputError(f"a field of {x.dtype} on {x.device}, the operator {self.dtype} on {self.device}")

    @cached_property
    def _compiled(self) -> CompiledStencil:
        return CompiledStencil(self)

    @property
    def compiled(self) -> CompiledStencil | None:
        """The operator laid out for the compiled kernels, None where they cannot take it."""
        suits = self.device.type == "cpu" and self.dtype in layout.NAMES and len(self.offsets) <= MAX_TERMS
        return self._compiled if suits and build.library() is not None else None

    def _result_shape(self, x: Tensor) -> tuple[int, ...]:
        return (*broadcast(self.batch, x.shape[: x.ndim - len(self.space)]), *self.space)

    def _compilable(self, x: Tensor, b: Tensor | None) -> bool:
        if self.device.type != "cpu" or self.dtype not in layout.NAMES or x.is_neg():
            return False
        if b is not None and (b.dtype != self.dtype or b.device != self.device or b.is_neg()):
            return False
        if torch.is_grad_enabled() and (
            x.requires_grad or (b is not None and b.requires_grad) or any(c.requires_grad for c in self.coefficients)
        ):
            return False
        if torch.compiler.is_compiling() or forward_ad._current_level >= 0 or _in_functional_transform():
            return False
        if self.batch and self.batch != _leading(x, b, len(self.space), len(self.batch)):
            return False
        return len(self.offsets) <= MAX_TERMS and build.library() is not None

    def _sum_of_slices(self, x: Tensor) -> Tensor:
        """The definition, in torch operations that autograd can follow."""
        result = torch.zeros(self._result_shape(x), dtype=x.dtype, device=x.device)
        if forward_ad._current_level >= 0:
            result = result + 0.0 * x.sum()
        for offset, coefficient in zip(self.offsets, self.coefficients, strict=True):
            for here, there in shifted_slices(self.space, offset, self.periodic):
                result[on(here)] += narrow(coefficient, here) * x[on(there)]
        return result

    def _sum_of_slices_in_blocks(self, x: Tensor, out: Tensor | None) -> Tensor:
        """The same into `out`, over blocks of the first axis that stay in the cache."""
        x = x.expand(self._result_shape(x))
        if out is None or out.shape != x.shape or out.data_ptr() == x.data_ptr():
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
        rows = self.space[0]
        row_bytes = max(1, prod(out.shape) // max(rows, 1) * out.element_size())
        block = rows if x.device.type != "cpu" else max(8, _BLOCK_BYTES // row_bytes)
        central, pieces = self._eager_pieces
        for start in range(0, rows, block):
            stop = min(start + block, rows)
            if isinstance(central, Tensor):
                whole = (slice(start, stop), *(slice(0, n) for n in self.space[1:]))
                torch.mul(x[on(whole)], narrow(central, whole), out=out[on(whole)])
            else:
                torch.mul(x[self._rows(start, stop)], central, out=out[self._rows(start, stop)])
            for here, there, weight in pieces:
                first, last = max(start, here[0].start), min(stop, here[0].stop)
                if first >= last:
                    continue
                move = there[0].start - here[0].start
                target = out[on((slice(first, last), *here[1:]))]
                source = x[on((slice(first + move, last + move), *there[1:]))]
                if isinstance(weight, Tensor):
                    target.addcmul_(narrow(weight, (slice(first, last), *here[1:])), source)
                else:
                    target.add_(source, alpha=weight)
        return out

    @cached_property
    def _eager_pieces(self) -> tuple[float | Tensor, list[tuple[Slices, Slices, float | Tensor]]]:
        """One coefficient at offset zero on the whole grid, and what else is to be added where: as few passes over the
        grid as the coefficients allow.

        Constants are numbers, those at offset zero are summed, and a diagonal that is constant along its axis but at
        the ends (at walls) becomes a constant and corrections on slices.
        """
        constant, fields = 0.0, []
        pieces: list[tuple[Slices, Slices, float | Tensor]] = []
        for offset, coefficient in zip(self.offsets, self.coefficients, strict=True):
            regions = list(shifted_slices(self.space, offset, self.periodic))
            if any(offset):
                weight = float(coefficient) if coefficient.numel() == 1 else coefficient
                pieces += [(here, there, weight) for here, there in regions]
                continue
            middle, corrections = self._constant_and_corrections(coefficient)
            if corrections is None:
                fields.append(coefficient)
            else:
                constant += middle
                pieces += corrections
        if not fields:
            return constant, pieces
        ((whole, _),) = shifted_slices(self.space, (0,) * len(self.space), (False,) * len(self.space))
        pieces += [(whole, whole, field) for field in fields[1:]]
        return (fields[0] + constant if constant else fields[0]), pieces

    def _constant_and_corrections(
        self, coefficient: Tensor
    ) -> tuple[float, list[tuple[Slices, Slices, float | Tensor]] | None]:
        """A diagonal coefficient as its value amid one axis and a few differences from it; None if they are not few."""
        lengths = coefficient.shape[coefficient.ndim - len(self.space) :]
        if coefficient.numel() != max(lengths):
            return 0.0, None
        values = coefficient.reshape(-1).tolist()
        middle = values[len(values) // 2]
        different = [index for index, value in enumerate(values) if value != middle]
        if len(different) > 4:
            return 0.0, None
        axis = lengths.index(max(lengths))
        corrections: list[tuple[Slices, Slices, float | Tensor]] = []
        for index in different:
            parts = [slice(0, n) for n in self.space]
            parts[axis] = slice(index, index + 1)
            corrections.append((tuple(parts), tuple(parts), values[index] - middle))
        return middle, corrections

    def _rows(self, start: int, stop: int) -> tuple[EllipsisType | slice, ...]:
        return (..., slice(start, stop), *([slice(None)] * (len(self.space) - 1)))

    # The matrix

    def transpose(self) -> StencilOperator:
        if self.symmetric:
            return self
        coefficients = []
        for offset, coefficient in zip(self.offsets, self.coefficients, strict=True):
            coefficients.append(shifted(coefficient, self.space, tuple(-o for o in offset), self.periodic))
        offsets = [tuple(-o for o in offset) for offset in self.offsets]
        return StencilOperator(self.space, offsets, coefficients, self.periodic, null_space=self.null_space)

    def diagonal(self) -> Tensor:
        total: Tensor | None = None
        for offset, coefficient in zip(self.offsets, self.coefficients, strict=True):
            if all(o == 0 or (p and o % n == 0) for o, p, n in zip(offset, self.periodic, self.space, strict=True)):
                total = coefficient if total is None else total + coefficient
        return torch.zeros((1,) * len(self.space), dtype=self.dtype, device=self.device) if total is None else total

    def to_sparse(self) -> Tensor:
        refuse_batch(self)
        index = torch.arange(self.size, device=self.device).reshape(self.space)
        rows, columns, values = [], [], []
        for offset, coefficient in zip(self.offsets, self.coefficients, strict=True):
            for here, there in shifted_slices(self.space, offset, self.periodic):
                block = index[here]
                rows.append(block.reshape(-1))
                columns.append(index[there].reshape(-1))
                weight = narrow(coefficient.reshape(coefficient.shape[-len(self.space) :]), here)
                values.append(weight.expand(block.shape).reshape(-1))
        entries = sorted_entries(torch.cat(rows), torch.cat(columns), torch.cat(values), self.size)
        return csr_tensor(*entries, (self.size, self.size))

    def to(self, dtype: torch.dtype) -> StencilOperator:
        null_space = None if self.null_space is None else self.null_space.to(dtype)
        return self._with(_converted(self.coefficients, dtype), null_space)

    def detach(self) -> StencilOperator:
        """The operator without gradients: itself, with what was laid out for it, if it has none."""
        if not any(map(may_carry_derivatives, self.coefficients)):
            return self
        null_space = None if self.null_space is None else detached(self.null_space)
        return self._with([detached(c) for c in self.coefficients], null_space)

    def negated(self) -> StencilOperator:
        """-A, as a stencil."""
        return self._with([-c for c in self.coefficients], self.null_space, Kind.LINEAR)

    def with_null_space(self, null_space: Tensor | None) -> StencilOperator:
        """The same operator with its null space stated."""
        return self._with(self.coefficients, null_space)

    def _with(
        self, coefficients: Sequence[Tensor], null_space: Tensor | None, kind: Kind | None = None
    ) -> StencilOperator:
        return StencilOperator(
            self.space,
            self.offsets,
            coefficients,
            self.periodic,
            symmetric=self.symmetric,
            null_space=null_space,
            kind=self.kind if kind is None else kind,
        )

    def __getitem__(self, row: int) -> StencilOperator:
        if not self.batch:
            raise InputError("the operator has no batch axis to pick a row of")
        if not -self.batch[0] <= row < self.batch[0]:
            raise InputError(f"row {row} of a batch of {self.batch[0]} operators")
        batched = len(self.batch) + len(self.space)
        picked = []
        for coefficient in self.coefficients:
            if coefficient.ndim < batched:
                picked.append(coefficient)
            else:
                picked.append(coefficient[row if coefficient.shape[0] > 1 else 0])
        return self._with(picked, self.null_space)


def shifted_slices(space: Sequence[int], offset: Offset, periodic: Sequence[bool]) -> Iterator[tuple[Slices, Slices]]:
    """Pairs (here, there) of slices with index there = here + offset, wrapped parts of periodic axes apart."""
    axes = []
    for n, o, wraps in zip(space, offset, periodic, strict=True):
        if wraps:
            o %= n
            pairs = [(slice(0, n - o), slice(o, n))]
            if o:
                pairs.append((slice(n - o, n), slice(0, o)))
        elif abs(o) >= n:
            pairs = []
        else:
            pairs = [(slice(max(0, -o), n - max(0, o)), slice(max(0, o), n - max(0, -o)))]
        axes.append(pairs)
    for combination in itertools.product(*axes):
        yield tuple(here for here, _ in combination), tuple(there for _, there in combination)


def on(region: Sequence[slice]) -> tuple[EllipsisType | slice, ...]:
    """The index of a region in the trailing axes of a field."""
    return (..., *region)


def narrow(coefficient: Tensor, region: Slices) -> Tensor:
    """The part of a coefficient that belongs to a region of the grid; axes of length 1 stay."""
    lengths = coefficient.shape[coefficient.ndim - len(region) :]
    return coefficient[on(_kept(lengths, region))]


def shifted(coefficient: Tensor, space: Sequence[int], offset: Offset, periodic: Sequence[bool]) -> Tensor:
    """result(i) = coefficient(i + offset), zero where that leaves a non-periodic axis; axes of length 1 stay."""
    lengths = coefficient.shape[coefficient.ndim - len(space) :]
    moves = tuple(0 if length == 1 else o for length, o in zip(lengths, offset, strict=True))
    if not any(moves):
        return coefficient
    result = torch.zeros_like(coefficient)
    for here, there in shifted_slices(space, moves, periodic):
        result[on(_kept(lengths, here))] = coefficient[on(_kept(lengths, there))]
    return result


def _converted(coefficients: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The coefficients in another dtype; without gradients those that are views of one tensor stay so.

    The two neighbours along an axis share their faces, and one copy of these is what the memory should carry.
    """
    if torch.is_grad_enabled() and any(c.requires_grad for c in coefficients):
        return [c.to(dtype) for c in coefficients]
    if _in_functional_transform():
        return [c.to(dtype) for c in coefficients]
    bases: dict[int, Tensor] = {}
    views = []
    for coefficient in coefficients:
        storage = coefficient.untyped_storage()
        count = storage.nbytes() // coefficient.element_size()
        if count > 2 * coefficient.numel() + 1024:
            views.append(coefficient.to(dtype))
            continue
        if storage.data_ptr() not in bases:
            whole = torch.empty(0, dtype=coefficient.dtype, device=coefficient.device).set_(storage)
            bases[storage.data_ptr()] = whole.to(dtype)
        base = bases[storage.data_ptr()]
        views.append(base.as_strided(coefficient.shape, coefficient.stride(), coefficient.storage_offset()))
    return views


def _kept(lengths: Sequence[int], region: Slices) -> Slices:
    return tuple(slice(None) if n == 1 else part for n, part in zip(lengths, region, strict=True))


def _leading(x: Tensor, b: Tensor | None, space: int, count: int) -> tuple[int, ...] | None:
    """The last `count` batch axes of a field and its right side, None if these differ."""
    first = tuple(x.shape[: x.ndim - space][-count:])
    return first if b is None or tuple(b.shape[: b.ndim - space][-count:]) == first else None


def _in_functional_transform() -> bool:
    return torch._C._functorch.maybe_current_level() is not None
