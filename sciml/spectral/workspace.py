"""The nonlinear part of a spectral system in memory that is used again and again: without gradients, on the CPU."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..equations.evaluation import evaluate, evaluate_all, names
from ..evolving import Time
from ..given import Number
from ..kernels import fourier
from ..kernels.fourier import Place, Sum
from . import mkl
from .given_fields import GivenFields
from .modes import Modes
from .plan import Plan
from .tables import Symbol

BLOCK_BYTES = 2**19  # values of one block of rows, where products are formed by torch
CHUNK_BYTES = 2**16  # values of the lines that are transformed, multiplied and transformed back together


def available() -> bool:
    """Whether the compiled kernels and MKL's transforms are there."""
    return mkl.available() and fourier.available()


class Workspaces(threading.local):
    """Workspaces by the shape of the rows; every thread has its own, since they are written to."""

    def __init__(self) -> None:
        self.known: OrderedDict[tuple[tuple[int, ...], int], Workspace] = OrderedDict()  # the latest used last

    def __deepcopy__(self, memo: dict[int, Any]) -> Workspaces:
        return Workspaces()

    def __reduce__(self) -> tuple[type[Workspaces], tuple[()]]:
        return Workspaces, ()


class Workspace:
    """Buffers and transforms for one system, on a grid of one or two axes.

    Padded buffers keep the zeros of the wavenumbers that are not kept. Of each line of the grid the fields stand one
    after another, so that lines are taken back to coefficients while they are in the cache.

    Args:
        plan, modes, given: of the system.
        inputs, outputs, sources, offsets, linear: its tables.
        rows: batch shape of the states.
        fixed: whether it serves states of this batch shape alone, since data differ by row or products are formed by
            torch.
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
        linear: Sequence[Sequence[Symbol]],
        rows: tuple[int, ...],
    ) -> None:
        self.plan, self.modes, self.given, self.rows = plan, modes, given, rows
        self.planes = modes.dimension == 2
        self.dtype = modes.grid.dtype
        self._offsets = [(i, offset.detach()) for i, offset in enumerate(offsets) if offset is not None]
        polynomials = find_polynomials(plan, given, bool(self._offsets))
        self.by_torch = polynomials is None
        columns = modes.kept[-1]
        self._fine = modes.fine[0] if self.planes else 1
        ins, outs, half = len(plan.inputs), len(plan.products), modes.fine[-1] // 2 + 1
        widest = max(1, ins, outs)
        chunk = max(1, CHUNK_BYTES // (8 * modes.fine[-1] * widest))
        group = 1 if self.planes else chunk
        if self.by_torch:
            group = prod(rows)
            chunk = group * self._fine
        chunk = min(chunk, group * self._fine)
        threads = 1 if self.by_torch else torch.get_num_threads()
        self._buffers = [self._new_buffers(chunk, group) for _ in range(threads)]
        first = self._buffers[0]
        self._values, self._results = first["values"], first["results"]

        # Operands: coefficients, result, padded, cut, then factors and sources.
        lines = prod(modes.kept[:-1])
        self._operands = fourier.Operands(2, (first["padded"], first["cut"]), lines, columns)
        spread = [Sum(self._buffer_place(2, i, ins), self._terms(row, self._state)) for i, row in enumerate(inputs)]
        gather, whole = list[Sum](), list[Sum]()
        for channel, (row, source) in enumerate(zip(outputs, sources, strict=True)):
            terms = self._terms(row, lambda r: self._buffer_place(3, r, outs))
            if source is not None:
                held = self._whole(source)
                own = modes.size if held.numel() > modes.size else 0
                terms.append((None, Place(self._operands.hold(held), 0, own, columns)))
            target = self._state(channel, 1)
            gather.append(Sum(target, terms))
            whole.append(Sum(target, [*terms, *self._terms(linear[channel], self._state)]))
        self._compiled = [self._operands.compile(sums) for sums in (spread, gather, whole)]
        monomials = _monomials(polynomials or [])
        self._table = self._operands.table()
        transform = partial(mkl.transform, dtype=self.dtype)
        length = modes.fine[-1]
        plans = {
            "lines_back": transform("irfft", length, chunk * ins, (1, 1), (half, length)) if ins else None,
            "lines_ahead": transform("rfft", length, chunk * outs, (1, 1), (length, half)) if outs else None,
            "line_back": transform("irfft", length, ins, (1, 1), (half, length)) if ins else None,
            "line_ahead": transform("rfft", length, outs, (1, 1), (length, half)) if outs else None,
        }
        if self.planes:
            plans["columns_back"] = transform("ifft", self._fine, columns, (columns, columns), (1, 1))
            plans["columns_ahead"] = transform("fft", self._fine, columns, (columns, columns), (1, 1))
        self._held = (monomials, plans)
        shared = {
            "planes": int(self.planes),
            "lines": lines,
            "low": lines // 2 + 1,
            "kept": columns,
            "fine": self._fine,
            "length": length,
            "inputs": ins,
            "outputs": outs,
            "sums": len(plan.unknowns),
            "count": len(monomials),
            "group": group,
            "chunk": chunk,
            "spread": ctypes.addressof(self._compiled[0][0]),
            "spread_terms": ctypes.addressof(self._compiled[0][1]),
            "monomials": ctypes.addressof(monomials),
            "ahead": mkl.address("DftiComputeForward"),
            "back": mkl.address("DftiComputeBackward"),
            **{name: None if plan is None else plan.handle for name, plan in plans.items()},
        }
        self._evaluations = []
        for sums, terms in self._compiled[1:]:
            shared.update(gather=ctypes.addressof(sums), gather_terms=ctypes.addressof(terms))
            each = (
                fourier.Evaluation(**shared, **{name: buffer.data_ptr() for name, buffer in buffers.items()})
                for buffers in self._buffers
            )
            self._evaluations.append((fourier.Evaluation * threads)(*each))
        self._run = fourier.function("evaluate", self.dtype)
        self._counts = ctypes.c_int64(len(self._table)), ctypes.c_int(threads)

    def rate(self, c: Tensor, t: Time, out: Tensor, rows: int, *, linear: bool) -> None:
        """Write the rate of coefficients `(rows, [channel,] *kept)`, or the nonlinear part of it, into `out`; both are
        contiguous."""
        table, (operands, threads) = self._table, self._counts
        table[0], table[1] = c.data_ptr(), out.data_ptr()
        arguments = (self._evaluations[linear], operands, table, ctypes.c_int64(rows))
        if self.by_torch:
            self._run(*arguments, _TO_GRID, threads)
            self._evaluate(t)
            self._run(*arguments, _FROM_GRID, threads)
        else:
            self._run(*arguments, _ALL, threads)

    def _new_buffers(self, chunk: int, group: int) -> dict[str, Tensor]:
        """What one thread writes to."""
        fine, columns = self.modes.fine[-1], self.modes.kept[-1]
        ins, outs, half = len(self.plan.inputs), len(self.plan.products), fine // 2 + 1
        new = partial(torch.zeros, dtype=torch.complex128 if self.dtype == torch.float64 else torch.complex64)
        real = partial(torch.empty, dtype=self.dtype)
        spectra, transformed = new(chunk, ins, half), new(chunk, outs, half)
        padded, cut = spectra, transformed
        if self.planes:
            padded, cut = new(group, ins, self._fine, columns), new(group, outs, self._fine, columns)
        return {
            "padded": padded,
            "cut": cut,
            "spectra": spectra,
            "values": real(chunk, ins, fine),
            "results": real(chunk, outs, fine),
            "transformed": transformed,
            "scratch": real(fine),
        }

    # Where things stand

    def _state(self, channel: int, operand: int = 0) -> Place:
        size = self.modes.size
        return Place(operand, channel * size, len(self.plan.unknowns) * size, self.modes.kept[-1])

    def _buffer_place(self, operand: int, i: int, count: int) -> Place:
        """Of one of `count` fields in a padded buffer."""
        if not self.planes:
            half = self.modes.fine[-1] // 2 + 1
            return Place(operand, i * half, count * half, half, 0, 1)
        columns = self.modes.kept[-1]
        image, jump = self._fine * columns, (self._fine - self.modes.kept[0]) * columns
        return Place(operand, i * image, count * image, columns, jump, 1)

    def _terms(self, row: Sequence[Symbol], place: Callable[[int], Place]) -> list[tuple[Tensor | None, Place]]:
        """A row of a table; a factor 1 is None."""
        return [
            (None if bool((symbol == 1).all()) else self._whole(symbol), place(j))
            for j, symbol in enumerate(row)
            if symbol is not None
        ]

    def _whole(self, symbol: Tensor) -> Tensor:
        """A symbol with every coefficient in its place, of every row its own if they differ."""
        kept = self.modes.kept
        batch = self.rows if symbol.ndim > len(kept) else ()
        return symbol.detach().expand(*batch, *kept).contiguous()

    def _evaluate(self, t: Time) -> None:
        """The products by torch, on all lines."""
        shape = (*self.rows, self._fine, -1) if self.planes else (*self.rows, -1)
        inputs = [part.view(shape) for part in self._values.unbind(-2)]
        for i, offset in self._offsets:
            inputs[i].add_(offset)
        input_names = [self.plan.name(factor) for factor in self.plan.inputs]
        wanted = set().union(*(names(product) for product in self.plan.products)) - set(input_names)
        values: dict[str, Number] = {**dict(zip(input_names, inputs, strict=True)), **self.given.values(wanted, t)}
        results = [part.view(shape) for part in self._results.unbind(-2)]
        for result, value in zip(results, evaluate_all(self.plan.products, values), strict=True):
            if isinstance(value, Tensor):
                result.copy_(value)
            else:
                result.fill_(value)


_TO_GRID, _FROM_GRID, _ALL = (ctypes.c_int(phases) for phases in (1, 2, 3))


def find_polynomials(plan: Plan, given: GivenFields, offsets: bool) -> list[list[tuple[float, list[int]]]] | None:
    """The products with numbers for coefficients; None if one is no polynomial, or has coefficients by row, or inputs
    have parts that do not depend on the state."""
    found: list[list[tuple[float, list[int]]]] = []
    for polynomial in plan.polynomials:
        terms: list[tuple[float, list[int]]] = []
        for monomial, coefficient in polynomial or ():
            number = evaluate(coefficient, given.parameters)
            if isinstance(number, Tensor) or not 2 <= len(monomial) <= fourier.MAX_DEGREE:
                return None
            terms.append((number, [plan.inputs.index(factor) for factor in monomial]))
        if not terms or offsets:
            return None
        found.append(terms)
    return found


def _monomials(polynomials: Sequence[Sequence[tuple[float, Sequence[int]]]]) -> ctypes.Array[fourier.Monomial]:
    found = []
    for result, terms in enumerate(polynomials):
        for place, (number, fields) in enumerate(terms):
            indices = (ctypes.c_int64 * fourier.MAX_DEGREE)(*fields)
            found.append(fourier.Monomial(number, result, int(place == 0), len(fields), indices))
    return (fourier.Monomial * len(found))(*found)


def rows_at_once(plan: Plan, modes: Modes) -> int:
    """How many rows a block has so that what is written and read again stays in the cache."""
    fields = max(1, len(plan.inputs), len(plan.products), len(plan.unknowns))
    return max(1, BLOCK_BYTES // (8 * fields * prod(modes.fine)))
