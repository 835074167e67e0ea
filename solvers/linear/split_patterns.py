"""Matrices split for compiled relaxation: what depends on the pattern alone is made once for stencils of one shape."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sciml.csr import ascending
from sciml.kernels.relaxation import SplitPattern
from sciml.linear_operator import LinearOperator
from sciml.stencil import Offset, StencilOperator, shifted_slices

from .colouring import colouring, pattern_colouring, periodic_colouring
from .inverse import Entries
from .successive_over_relaxation import Ordering

_KEPT = 1_000_000  # terms times unknowns of patterns that are kept, some 30 MB each


@dataclass(frozen=True)
class _StencilPattern:
    """The pattern of all stencils with the same offsets on a grid.

    Attributes:
        pattern: where their entries stand.
        places: of each term the unknowns at which it has a neighbour, and where its entries stand.
    """

    pattern: SplitPattern
    places: tuple[tuple[Tensor, Tensor], ...]


def split_stencils(operator: StencilOperator, ordering: Ordering) -> tuple[SplitPattern, Tensor]:
    """The stencils of an operator's batch, and their entries `(systems, entries)`."""
    make = _stencil_pattern if operator.size * len(operator.offsets) <= _KEPT else _stencil_pattern.__wrapped__
    made = make(operator.space, operator.offsets, operator.periodic, ordering)
    systems, count = max(1, prod(operator.batch)), len(made.pattern.columns)
    values = torch.zeros(systems, count, dtype=operator.dtype)
    for coefficient, (unknowns, places) in zip(operator.coefficients, made.places, strict=True):
        if coefficient.numel() == 1:
            values[:, places] += coefficient.reshape(())
        else:
            whole = coefficient.expand(*operator.batch, *operator.space).reshape(systems, operator.size)
            values[:, places] += whole[:, unknowns]
    return made.pattern, values


@functools.lru_cache(maxsize=8)
def _stencil_pattern(
    space: tuple[int, ...], offsets: tuple[Offset, ...], periodic: tuple[bool, ...], ordering: Ordering
) -> _StencilPattern:
    index = torch.arange(prod(space)).reshape(space)
    rows, columns, terms = [], [], []
    for term, offset in enumerate(offsets):
        for here, there in shifted_slices(space, offset, periodic):
            rows.append(index[here].reshape(-1))
            columns.append(index[there].reshape(-1))
            terms.append(torch.full_like(rows[-1], term))
    row, column, owner = torch.cat(rows), torch.cat(columns), torch.cat(terms)
    size = prod(space)
    entries = Entries.from_places(row, column, torch.ones(len(row), dtype=torch.float64), size)
    colours = None
    if ordering == "multicolour":
        one = torch.ones((1,) * len(space), dtype=torch.float64)
        colours = periodic_colouring(StencilOperator(space, offsets, [one] * len(offsets), periodic))
        colours = pattern_colouring(entries) if colours is None else colours.reshape(-1)
    pattern, order = _split(entries.rows, entries.columns, size, 1, colours)
    # Entries of several terms may share a place.
    keys = entries.rows * size + entries.columns
    found = torch.searchsorted(keys, row * size + column)
    if order is None:
        whole = found
    else:
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        whole = place[found]
    places = tuple((row[owner == k], whole[owner == k]) for k in range(len(offsets)))
    return _StencilPattern(pattern, places)


def split_matrices(operator: LinearOperator, entries: Entries, ordering: Ordering) -> tuple[SplitPattern, Tensor]:
    """The matrices of an operator's batch, and their entries: `(systems, entries)`, or all of patterns apart.

    Args:
        operator: the operator.
        entries: those of its batch, as one block-diagonal matrix.
        ordering: see SOR.
    """
    systems = max(1, prod(operator.batch))
    colours = colouring(operator, entries) if ordering == "multicolour" else None
    pattern, order = _split(entries.rows, entries.columns, operator.size, systems, colours)
    values = entries.values.contiguous() if order is None else entries.values[order]
    return pattern, values if pattern.apart else values.reshape(systems, -1)


def _split(
    rows: Tensor, columns: Tensor, size: int, systems: int, colours: Tensor | None
) -> tuple[SplitPattern, Tensor | None]:
    """The pattern of a block-diagonal matrix, and the order in which it has the entries, None if as they stand."""
    total = systems * size
    entries = order = None
    if colours is None:
        bounds = torch.tensor([0, size]).expand(systems, 2)
    else:
        blocks = colours.reshape(systems, size)
        count = int(colours.max()) + 1
        order = torch.argsort(blocks, dim=1, stable=True)
        place = torch.empty_like(order).scatter_(1, order, torch.arange(size).expand(systems, size))
        place = (place + size * torch.arange(systems)[:, None]).reshape(-1)
        counts = torch.zeros(systems, count, dtype=torch.int64).scatter_add_(1, blocks, torch.ones_like(blocks))
        bounds = torch.nn.functional.pad(counts.cumsum(1), (1, 0))
        entries = ascending(rows * total + place[columns])
        rows, columns = rows[entries], columns[entries]
    starts = torch.zeros(total + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(rows, minlength=total), 0, out=starts[1:])
    middles = torch.nonzero(rows == columns).squeeze(-1)
    columns = columns if systems == 1 else columns % size
    apart = False
    if systems > 1:
        each = starts.diff().reshape(systems, size)
        per_system = len(columns) // systems
        apart = not (
            bool((each == each[0]).all())
            and bool((columns.reshape(systems, per_system) == columns[:per_system]).all())
            and (order is None or bool((order == order[0]).all()))
        )
        if not apart:
            starts, middles, columns, bounds = starts[: size + 1], middles[:size], columns[:per_system], bounds[0]
            order = None if order is None else order[0]
    starts, middles, columns = (part.to(torch.int32).contiguous() for part in (starts, middles, columns))
    order = None if order is None else order.to(torch.int32).contiguous()
    return SplitPattern(size, starts, middles, columns, order, bounds.contiguous(), apart), entries
