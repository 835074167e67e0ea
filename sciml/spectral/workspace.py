"""The nonlinear part of a spectral system in memory that is used again and again: without gradients, on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..equations.evaluation import evaluate, evaluate_all, names
from ..evolving import Time
from ..given import Number
from . import mkl
from .given_fields import GivenFields
from .modes import Modes
from .plan import Plan
from .tables import Symbol

CACHE_BYTES = 2**19  # values of all inputs or products of one block of rows; with the coefficients they fit a cache

Operation = Callable[[], Any]
Formula = Callable[[Mapping[str, Number]], Any]


class Workspaces(threading.local):
    """Workspaces by the shape of the rows; every thread has its own, since they are written to."""

    def __init__(self) -> None:
        self.known: dict[tuple[tuple[int, ...], int], Workspace] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Workspaces:
        return Workspaces()

    def __reduce__(self) -> tuple[type[Workspaces], tuple[()]]:
        return Workspaces, ()


class Workspace:
    """Buffers and transforms for states of one batch shape, on grids of one or two axes.

    Padded buffers keep the zeros of the wavenumbers that are not kept, so that nothing is copied in order to pad.

    Args:
        plan, modes, given: of the system.
        inputs, outputs, sources, offsets: its tables, without gradients.
        rows: batch shape.
    """

    def __init__(
        self,
        plan: Plan,
        modes: Modes,
        given: GivenFields,
        inputs: Sequence[Sequence[Symbol]],
        outputs: Sequence[Sequence[Symbol]],
        sources: Sequence[Symbol],
        offsets: Sequence[Symbol],
        rows: tuple[int, ...],
    ) -> None:
        self.plan, self.modes, self.given, self.rows = plan, modes, given, rows
        self.channels = len(plan.unknowns)
        self._places = self._find_places()
        self._allocate()
        self._inputs = [self._factors(row, self._padded_views(self.padded[i])) for i, row in enumerate(inputs)]
        cut = [self._padded_views(self.cut[r]) for r in range(len(plan.products))]
        self._outputs = [self._factors(row, None) for row in outputs]
        self._spectra = cut
        self._sources = [None if source is None else self._kept_views(self._whole(source)) for source in sources]
        self._offsets = [(i, offset.detach()) for i, offset in enumerate(offsets) if offset is not None]
        self._formulas = [self._formula(r) for r in range(len(plan.products))]
        self._names = set().union(*(names(plan.products[r]) for r, f in enumerate(self._formulas) if f is None))
        self._names -= {plan.name(factor) for factor in plan.inputs}

    def explicit(self, c: Tensor, t: Time, out: Tensor) -> Tensor:
        """Writes the nonlinear part of the rate of coefficients `(*rows, [channel,] *kept)` into `out`."""
        channels = self._channels(c)
        for terms in self._inputs:
            for place, target in enumerate(terms[0]):
                first = True
                for factors, channel in zip(terms[1], channels, strict=True):
                    if factors is not None:
                        _put(target, factors[place], channel[place], first)
                        first = False
        for run in self._back:
            run()
        for i, offset in self._offsets:
            self.values[i].add_(offset)
        self._multiply(t)
        for run in self._ahead:
            run()
        for row, target_views, source in zip(self._outputs, self._channels(out), self._sources, strict=True):
            for place, target in enumerate(target_views):
                first = source is None
                if source is not None:
                    target.copy_(source[place])
                for factors, spectrum in zip(row[1], self._spectra, strict=True):
                    if factors is not None:
                        _put(target, factors[place], spectrum[place], first)
                        first = False
                if first:
                    target.zero_()
        return out

    # Memory

    def _allocate(self) -> None:
        fine, kept, rows, dtype = self.modes.fine, self.modes.kept, self.rows, self.modes.grid.dtype
        spectrum = partial(torch.zeros, dtype=torch.complex128 if dtype == torch.float64 else torch.complex64)
        ins, outs, images = len(self.plan.inputs), len(self.plan.products), prod(rows)
        half, lines = fine[-1] // 2 + 1, prod(fine[:-1])
        transform = partial(mkl.transform, dtype=dtype, threads=torch.get_num_threads())
        self.values = torch.empty(ins, *rows, *fine, dtype=dtype)
        self.results = torch.empty(outs, *rows, *fine, dtype=dtype)
        self.padded = spread = spectrum(ins, *rows, *fine[:-1], half)
        self.cut = gathered = spectrum(outs, *rows, *fine[:-1], half)
        self._back: list[Operation] = []
        self._ahead: list[Operation] = []
        if outs:
            ahead = transform("rfft", fine[-1], outs * images * lines, (1, 1), (fine[-1], half))
            self._ahead.append(partial(ahead.run, self.results.data_ptr(), gathered.data_ptr()))
        if self.modes.dimension == 2:
            columns = kept[-1]
            self.padded, self.cut = spectrum(ins, *rows, lines, columns), spectrum(outs, *rows, lines, columns)
            first = transform("ifft", lines, columns, (columns, half), (1, 1))
            last = transform("fft", lines, columns, (half, columns), (1, 1))
            self._back += _per_image(first, self.padded, spread, lines)
            self._ahead += _per_image(last, gathered, self.cut, lines)
        if ins:
            back = transform("irfft", fine[-1], ins * images * lines, (1, 1), (half, fine[-1]))
            self._back.append(partial(back.run, spread.data_ptr(), self.values.data_ptr()))
        self._held = (spread, gathered)

    def _find_places(self) -> list[tuple[slice, slice]]:
        """Where wavenumbers along the first of two axes stand: (among the kept, in the padded buffer)."""
        if self.modes.dimension == 1:
            return [(slice(None), slice(None))]
        count, length = self.modes.kept[0], self.modes.fine[0]
        low, high = count // 2 + 1, count - count // 2 - 1
        if count == length or high == 0:
            return [(slice(0, count), slice(0, count))]
        return [(slice(0, low), slice(0, low)), (slice(low, count), slice(length - high, length))]

    def _kept_views(self, c: Tensor) -> list[Tensor]:
        if len(self._places) == 1:
            return [c]
        return [c[..., kept, :] for kept, _ in self._places]

    def _padded_views(self, c: Tensor) -> list[Tensor]:
        c = c[..., : self.modes.kept[-1]]
        return [c] if self.modes.dimension == 1 else [c[..., padded, :] for _, padded in self._places]

    def _channels(self, c: Tensor) -> list[list[Tensor]]:
        if self.channels == 1:
            return [self._kept_views(c)]
        return [self._kept_views(part) for part in c.unbind(-1 - self.modes.dimension)]

    def _whole(self, symbol: Tensor) -> Tensor:
        return symbol.detach().expand(torch.broadcast_shapes(symbol.shape, self.modes.kept)).contiguous()

    def _factors(
        self, row: Sequence[Symbol], target: list[Tensor] | None
    ) -> tuple[list[Tensor], list[list[Tensor | None] | None]]:
        """A row of a table in the parts of `_places`; a factor 1 is None."""
        found: list[list[Tensor | None] | None] = []
        for symbol in row:
            if symbol is None:
                found.append(None)
            elif bool((symbol.detach() == 1).all()):
                found.append([None] * len(self._places))
            else:
                found.append([part.contiguous() for part in self._kept_views(self._whole(symbol))])
        return target or [], found

    # Products

    def _multiply(self, t: Time) -> None:
        values: dict[str, Number] = {}
        for r, formula in enumerate(self._formulas):
            if formula is not None:
                for operation in formula:
                    operation()
                continue
            if not values:
                inputs = (self.plan.name(factor) for factor in self.plan.inputs)
                values = {**dict(zip(inputs, self.values, strict=True)), **self.given.values(self._names, t)}
            value = evaluate_all((self.plan.products[r],), values)[0]
            if isinstance(value, Tensor):
                self.results[r].copy_(value)
            else:
                self.results[r].fill_(value)

    def _formula(self, r: int) -> list[Operation] | None:
        """A product as operations in place; None of one that is no polynomial, or has coefficients of rows' own."""
        polynomial = self.plan.polynomials[r]
        if polynomial is None:
            return None
        terms: list[tuple[float, list[Tensor]]] = []
        for monomial, coefficient in polynomial:
            number = evaluate(coefficient, self.given.parameters)
            if isinstance(number, Tensor) or len(monomial) < 2:
                return None
            terms.append((number, [self.values[self.plan.inputs.index(factor)] for factor in monomial]))
        terms.sort(key=lambda term: term[0] != 1)
        result, found = self.results[r], list[Operation]()
        for place, (number, (left, *middle, right)) in enumerate(terms):
            if middle:
                scratch = torch.empty_like(result) if place else result
                found.append(partial(torch.mul, left, middle[0], out=scratch))
                found += [partial(scratch.mul_, factor) for factor in middle[1:]]
                left = scratch
            if place:
                found.append(partial(torch.addcmul, result, left, right, value=number, out=result))
            else:
                found.append(partial(torch.mul, left, right, out=result))
                found += [partial(result.mul_, number)] if number != 1 else []
        return found


def _put(target: Tensor, factor: Tensor | None, part: Tensor, first: bool) -> None:
    """target = factor * part if it is the first, else target += factor * part."""
    if factor is None:
        target.copy_(part) if first else target.add_(part)
    elif first:
        torch.mul(part, factor, out=target)
    else:
        torch.addcmul(target, part, factor, out=target)


def _per_image(transform: mkl.Transform, source: Tensor, target: Tensor, lines: int) -> list[Operation]:
    """One call an image of `lines` lines."""
    sizes = [part.element_size() * lines * part.shape[-1] for part in (source, target)]
    return [
        partial(transform.run, source.data_ptr() + k * sizes[0], target.data_ptr() + k * sizes[1])
        for k in range(source.numel() // max(1, lines * source.shape[-1]))
    ]


def rows_at_once(plan: Plan, modes: Modes) -> int:
    """How many rows a block has so that what is written and read again stays in the cache."""
    fields = max(1, len(plan.inputs), len(plan.products))
    return max(1, CACHE_BYTES // (8 * fields * prod(modes.fine)))
