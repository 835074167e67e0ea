"""The nonlinear part of a spectral system in memory that is used again and again: without gradients, on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from ..equations.evaluation import evaluate, evaluate_all, names
from ..evolving import Time
from ..given import Number
from ..kernels import fourier
from ..kernels.fourier import Combination, Multiplication, Place, Sum
from . import mkl
from .given_fields import GivenFields
from .modes import Modes
from .plan import Plan
from .tables import Symbol

BLOCK_BYTES = 2**19  # coefficients or values of one block of rows; what belongs to it fits a cache
CHUNK_BYTES = 2**17  # values of the lines that are transformed, multiplied and transformed back together

Operation = Callable[[], Any]


def available() -> bool:
    """Whether the compiled kernels and MKL's transforms are there."""
    return mkl.available() and fourier.available()


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

    Padded buffers keep the zeros of the wavenumbers that are not kept, so that nothing is copied in order to pad. Of
    each line of the grid the fields stand one after another, so that lines can be taken back to coefficients as soon as
    they have been multiplied.

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
        self.threads = torch.get_num_threads()
        self.dtype = modes.grid.dtype
        self._complex = partial(torch.zeros, dtype=torch.complex128 if self.dtype == torch.float64 else torch.complex64)
        self._shape = self.shape_of_lines()
        self._offsets = [(i, offset.detach()) for i, offset in enumerate(offsets) if offset is not None]
        self._polynomials = self._find_polynomials()
        self._allocate()
        products = len(plan.products)
        spread = [
            Sum(self._padded_place(i, len(plan.inputs)), self._terms(row, self.state_place))
            for i, row in enumerate(inputs)
        ]
        self._spread = Combination(spread, 1, [self._padded], self._shape, self.dtype, self.threads)
        held, gather = [self._cut], list[Sum]()
        for channel, (row, source) in enumerate(zip(outputs, sources, strict=True)):
            terms = self._terms(row, lambda r: self._padded_place(r, products))
            if source is not None:
                held.append(self._whole(source))
                own = self.modes.size if held[-1].numel() > self.modes.size else 0
                terms.append((None, Place(len(held), 0, own, self.modes.kept[-1])))
            gather.append(Sum(self.state_place(channel), terms))
        self._gather = Combination(gather, 1, held, self._shape, self.dtype, self.threads)

    def explicit(self, c: Tensor, t: Time, out: Tensor) -> Tensor:
        """Write the nonlinear part of the rate of coefficients `(*rows, [channel,] *kept)`, contiguous, into `out`."""
        if self.plan.inputs:
            self._spread.run(c.data_ptr())
        for run in self._back:
            run()
        for lines in self._chunks:
            for run in lines:
                run()
        if self._polynomials is None:
            self._evaluate(t)
        for run in self._ahead:
            run()
        self._gather.run(out.data_ptr())
        return out

    # Where things stand

    def shape_of_lines(self) -> tuple[int, int, int, int]:
        """Rows, lines, lines before the negative wavenumbers, length of a line of the kept coefficients."""
        lines = prod(self.modes.kept[:-1])
        return prod(self.rows), lines, lines // 2 + 1, self.modes.kept[-1]

    def state_place(self, channel: int, operand: int = 0) -> Place:
        """Of a channel in a state."""
        return Place(operand, channel * self.modes.size, self.channels * self.modes.size, self.modes.kept[-1])

    def _padded_place(self, i: int, count: int) -> Place:
        """Of one of `count` fields in the padded buffer, which is the second operand."""
        if self.modes.dimension == 1:
            half = self.modes.fine[-1] // 2 + 1
            return Place(1, i * half, count * half, half)
        length, columns = self.modes.fine[0], self.modes.kept[-1]
        jump = (length - self.modes.kept[0]) * columns
        return Place(1, i * length * columns, count * length * columns, columns, jump)

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

    # Transforms and products

    def _allocate(self) -> None:
        """The buffers, and what is done with them: back to the grid, products line by line, and ahead."""
        fine, columns = self.modes.fine, self.modes.kept[-1]
        ins, outs, images = len(self.plan.inputs), len(self.plan.products), prod(self.rows)
        half, length, lines = fine[-1] // 2 + 1, fine[-1], prod(self.rows) * prod(fine[:-1])
        spread, gathered = self._complex(lines, ins, half), self._complex(lines, outs, half)
        self._padded, self._cut = spread, gathered
        self._back: list[Operation] = []
        self._ahead: list[Operation] = []
        transform = partial(mkl.transform, dtype=self.dtype, threads=self.threads)
        if self.modes.dimension == 2:
            self._padded = self._complex(images, ins, fine[0], columns)
            self._cut = self._complex(images, outs, fine[0], columns)
            for run, count, kind in ((self._back, ins, "ifft"), (self._ahead, outs, "fft")):
                for image in range(images * count):
                    row, field = divmod(image, count)
                    near = (row * fine[0] * count + field) * half
                    far = image * fine[0] * columns
                    if kind == "ifft":
                        along = transform(kind, fine[0], columns, (columns, count * half), (1, 1))
                        run.append(partial(along.run, _at(self._padded, far), _at(spread, near)))
                    else:
                        along = transform(kind, fine[0], columns, (count * half, columns), (1, 1))
                        run.append(partial(along.run, _at(gathered, near), _at(self._cut, far)))
        chunk = max(1, CHUNK_BYTES // (8 * length * max(1, ins, outs)))
        chunk = ceil(lines / ceil(lines / chunk)) if self._polynomials is not None else lines
        self._values = torch.empty(chunk, ins, length, dtype=self.dtype)
        self._results = torch.empty(chunk, outs, length, dtype=self.dtype)
        self._held = (spread, gathered)
        self._chunks: list[list[Operation]] = []
        values, results = self._values.data_ptr(), self._results.data_ptr()
        for start in range(0, lines if outs else 0, chunk):
            count = min(chunk, lines - start)
            back, ahead = None, None
            if ins:
                plan = transform("irfft", length, count * ins, (1, 1), (half, length))
                back = partial(plan.run, _at(spread, start * ins * half), values)
            plan = transform("rfft", length, count * outs, (1, 1), (length, half))
            ahead = partial(plan.run, results, _at(gathered, start * outs * half))
            if self._polynomials is None:
                self._back += [back] if back else []
                self._ahead.insert(0, ahead)
            elif back:
                formula = Multiplication(self._polynomials, ins, (count, length), self.dtype, self.threads)
                self._chunks.append([back, partial(formula.run, values, results), ahead])

    def _find_polynomials(self) -> list[list[tuple[float, list[int]]]] | None:
        """The products with numbers for coefficients; None if one is no polynomial or has coefficients by row."""
        found: list[list[tuple[float, list[int]]]] = []
        for polynomial in self.plan.polynomials:
            terms: list[tuple[float, list[int]]] = []
            for monomial, coefficient in polynomial or ():
                number = evaluate(coefficient, self.given.parameters)
                if isinstance(number, Tensor) or not 2 <= len(monomial) <= fourier.MAX_DEGREE:
                    return None
                terms.append((number, [self.plan.inputs.index(factor) for factor in monomial]))
            if not terms or self._offsets:
                return None
            found.append(terms)
        return found

    def _evaluate(self, t: Time) -> None:
        """The products by torch, on all lines."""
        shape = (*self.rows, *self.modes.fine[:-1])
        inputs = [part.view(*shape, -1) for part in self._values.unbind(-2)] if self.plan.inputs else []
        for i, offset in self._offsets:
            inputs[i].add_(offset)
        input_names = [self.plan.name(factor) for factor in self.plan.inputs]
        wanted = set().union(*(names(product) for product in self.plan.products)) - set(input_names)
        values: dict[str, Number] = {**dict(zip(input_names, inputs, strict=True)), **self.given.values(wanted, t)}
        results = [part.view(*shape, -1) for part in self._results.unbind(-2)] if self.plan.products else []
        for result, value in zip(results, evaluate_all(self.plan.products, values), strict=True):
            if isinstance(value, Tensor):
                result.copy_(value)
            else:
                result.fill_(value)


def _at(tensor: Tensor, place: int) -> int:
    """The address of an entry of a contiguous tensor."""
    return tensor.data_ptr() + place * tensor.element_size()


def rows_at_once(plan: Plan, modes: Modes) -> int:
    """How many rows a block has so that what is written and read again stays in the cache."""
    fields = max(1, len(plan.inputs), len(plan.products), len(plan.unknowns))
    return max(1, BLOCK_BYTES // (8 * fields * prod(modes.fine)))
