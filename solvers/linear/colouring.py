"""Colourings of the unknowns: within one colour none depends on another, so that all can be relaxed at once."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

from sciml.linear_operator import LinearOperator
from sciml.stencil import Offset, StencilOperator

from .inverse import Entries

_MAX_PERIOD = 16


def colouring(operator: LinearOperator, entries: Entries) -> Tensor:
    """A colour for every row of the block-diagonal matrix of an operator, int64 `(entries.size,)`.

    On stencils it repeats with a short period (red and black for the five-point stencil); otherwise it follows the
    pattern of the matrix.
    """
    if isinstance(operator, StencilOperator):
        colours = periodic_colouring(operator)
        if colours is not None:
            return colours.reshape(-1).repeat(entries.size // operator.size)
    return pattern_colouring(entries)


def periodic_colouring(operator: StencilOperator) -> Tensor | None:
    """Colours (w . i) mod p at grid point i, None without such; see `periodic_weights`."""
    found = periodic_weights(operator.space, operator.offsets, operator.periodic)
    if found is None:
        return None
    period, weights = found
    total = torch.zeros(operator.space, dtype=torch.int64, device=operator.device)
    for axis, (n, w) in enumerate(zip(operator.space, weights, strict=True)):
        part = torch.arange(n, device=operator.device) * w
        total += part.reshape([-1 if k == axis else 1 for k in range(len(operator.space))])
    return total % period


@functools.lru_cache(maxsize=64)
def periodic_weights(
    space: tuple[int, ...], offsets: tuple[Offset, ...], periodic: tuple[bool, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """The smallest p, and a w, for which no offset of a stencil leads to the same colour (w . i) mod p.

    None if there is no such p up to 16: periodic axes must hold a whole number of periods.
    """
    others = [
        offset
        for offset in set(offsets)
        if not all(o == 0 or (p and o % n == 0) for o, p, n in zip(offset, periodic, space, strict=True))
    ]
    for period in range(1, _MAX_PERIOD + 1):
        for weights in itertools.product(range(period), repeat=len(space)):
            wraps = all(w * n % period == 0 for w, n, p in zip(weights, space, periodic, strict=True) if p)
            if wraps and all(sum(w * o for w, o in zip(weights, offset, strict=True)) % period for offset in others):
                return period, weights
    return None


def pattern_colouring(entries: Entries) -> Tensor:
    """One maximal independent set after another, each by Luby's parallel algorithm with fixed random priorities.

    Source: Luby, A simple parallel algorithm for the maximal independent set problem, SIAM J. Comput. 15 (1986).
    """
    rows, columns, size = entries.rows, entries.columns, entries.size
    apart = rows != columns
    first = torch.cat([rows[apart], columns[apart]])
    second = torch.cat([columns[apart], rows[apart]])
    generator = torch.Generator().manual_seed(0)
    priority = torch.randperm(size, generator=generator).to(rows.device)
    colours = torch.full((size,), -1, dtype=torch.int64, device=rows.device)
    colour = 0
    while bool((colours < 0).any()):
        candidate = colours < 0
        while bool(candidate.any()):
            strength = torch.where(candidate, priority, -1)
            rival = torch.full_like(strength, -1).scatter_reduce(0, first, strength[second], "amax")
            chosen = candidate & (strength > rival)
            colours[chosen] = colour
            candidate = candidate & ~chosen
            candidate[first[chosen[second]]] = False
        colour += 1
    return colours
