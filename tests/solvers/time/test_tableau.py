"""Every tableau meets the order conditions of its order, and not those of the next."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import prod

import numpy
import pytest

from sciml.solvers.time import tableau
from sciml.solvers.time.tableau import Tableau

ALL = [value for value in vars(tableau).values() if isinstance(value, Tableau)]
NAMED = pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)

Tree = tuple["Tree", ...]  # a rooted tree: those that hang on its root, in order


@cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with as many nodes: 1, 1, 2, 4, 9, 20, 48, 115, 286."""

    def forests(nodes: int, largest: int) -> Iterator[Tree]:
        if nodes == 0:
            yield ()
        for size in range(min(nodes, largest), 0, -1):
            for tree in trees(size):
                for rest in forests(nodes - size, size):
                    if not rest or (size, tree) >= (count(rest[0]), rest[0]):
                        yield (tree, *rest)

    return tuple(forests(order - 1, order - 1))


def count(tree: Tree) -> int:
    return 1 + sum(count(part) for part in tree)


def density(tree: Tree) -> int:
    return count(tree) * prod(density(part) for part in tree)


def elementary(tree: Tree, a: numpy.ndarray) -> numpy.ndarray:
    """The stages' elementary weights without the last sum over b."""
    return prod((a @ elementary(part, a) for part in tree), start=numpy.ones(len(a)))


def defect(method: Tableau, b: numpy.ndarray, order: int, theta: float = 1.0) -> float:
    a = numpy.zeros((method.stages, method.stages))
    for i, row in enumerate(method.a):
        a[i, : len(row)] = row
    return max(abs(b @ elementary(tree, a) - theta**order / density(tree)) for tree in trees(order))


def test_number_of_rooted_trees():
    assert [len(trees(order)) for order in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]


@NAMED
def test_order(method):
    b = numpy.array(method.b)
    assert max(defect(method, b, order) for order in range(1, method.order + 1)) < 1e-13
    assert defect(method, b, method.order + 1) > 1e-6


@NAMED
def test_order_of_the_embedded_solution(method):
    if method.error is None:
        return
    b = numpy.array(method.b) - numpy.array(method.error)
    assert max(defect(method, b, order) for order in range(1, method.embedded + 1)) < 1e-13
    assert defect(method, b, method.embedded + 1) > 1e-6


@NAMED
def test_dense_output_is_of_fourth_order_everywhere_and_meets_the_step(method):
    if method.dense is None:
        return
    coefficients = numpy.array(method.dense)
    powers = numpy.arange(1, coefficients.shape[1] + 1)
    for theta in (0.1, 0.5, 0.83, 1.0):
        b = coefficients @ theta**powers
        assert max(defect(method, b, order, theta) for order in range(1, 5)) < 1e-13
    numpy.testing.assert_allclose(coefficients.sum(1), method.b, atol=1e-13)
    # The slopes at both ends are f there, so that the interpolant is continuously differentiable.
    first, last = numpy.eye(method.stages)[[0, -1]]
    numpy.testing.assert_allclose(coefficients[:, 0], first, atol=1e-13)
    numpy.testing.assert_allclose(coefficients @ powers, last, atol=1e-12)


@NAMED
def test_equal_stages_have_equal_times(method):
    if method.equal is None:
        return
    i, j = method.equal
    assert method.c[i] == pytest.approx(method.c[j], abs=1e-12)
