"""Weights of difference formulas, solved for exactly from the Vandermonde conditions and held in units of h = 1."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import factorial

Rational = int | Fraction


@lru_cache(maxsize=1024)
def derivative_weights(nodes: tuple[Rational, ...], order: int, at: Rational = 0) -> tuple[float, ...]:
    """Weights w with sum_j w_j u(nodes_j) = u^(order)(at) for every polynomial u of degree < len(nodes).

    Exact rational elimination, so that central weights are exactly symmetric or antisymmetric.
    """
    size = len(nodes)
    rows = [[Fraction(node - at) ** power for node in nodes] for power in range(size)]
    for power, row in enumerate(rows):
        row.append(Fraction(factorial(order) if power == order else 0))
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [entry / rows[column][column] for entry in rows[column]]
        for i in range(size):
            if i != column and rows[i][column]:
                rows[i] = [a - rows[i][column] * b for a, b in zip(rows[i], rows[column], strict=True)]
    return tuple(float(row[-1]) for row in rows)


@lru_cache(maxsize=64)
def central_weights(order: int, accuracy: int) -> tuple[tuple[int, float], ...]:
    """Pairs (offset, weight) of the central difference for the derivative of `order`, exact to h^accuracy (even)."""
    if order == 0:
        return ((0, 1.0),)
    reach = (order + 1) // 2 + accuracy // 2 - 1
    offsets = tuple(range(-reach, reach + 1))
    return tuple((o, w) for o, w in zip(offsets, derivative_weights(offsets, order), strict=True) if w)
