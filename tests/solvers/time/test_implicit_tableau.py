"""Tableaus of implicit methods, and of pairs with an explicit one, meet the conditions of their orders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy
import pytest

from sciml.solvers.time import implicit_tableau
from sciml.solvers.time.implicit_tableau import AdditiveTableau, ImplicitTableau

IMPLICIT = [value for value in vars(implicit_tableau).values() if isinstance(value, ImplicitTableau)]
ADDITIVE = [value for value in vars(implicit_tableau).values() if isinstance(value, AdditiveTableau)]
NAMED = pytest.mark.parametrize("method", IMPLICIT, ids=lambda method: method.name)
PAIRS = pytest.mark.parametrize("method", ADDITIVE, ids=lambda method: method.name)


class Conditions:
    """Elementary weights of all rooted trees whose edges carry one of several matrices."""

    def __init__(self, matrices: Sequence[numpy.ndarray]) -> None:
        self.matrices = matrices
        self.one = numpy.ones(len(matrices[0]))

    @cache  # noqa: B019
    def trees(self, nodes: int) -> tuple[tuple[numpy.ndarray, int], ...]:
        """Weights of the stages, and the tree's density."""
        return tuple((vector, nodes * density) for vector, density in self.forests(nodes - 1))

    def forests(self, nodes: int) -> Iterator[tuple[numpy.ndarray, int]]:
        if nodes == 0:
            yield self.one, 1
        for first in range(1, nodes + 1):
            for vector, density in self.trees(first):
                for matrix in self.matrices:
                    for rest, others in self.forests(nodes - first):
                        yield (matrix @ vector) * rest, density * others

    def defect(self, b: numpy.ndarray, order: int, theta: float = 1.0) -> float:
        return max(abs(b @ vector - theta**order / density) for vector, density in self.trees(order))


def square(rows: Sequence[Sequence[float]]) -> numpy.ndarray:
    a = numpy.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        a[i, : len(row)] = row
    return a


def amplification(a: numpy.ndarray, b: numpy.ndarray, z: complex) -> float:
    return abs(1 + z * b @ numpy.linalg.solve(numpy.eye(len(a)) - z * a, numpy.ones(len(a))))


def limit(a: numpy.ndarray) -> float:
    """|R(z)| for z to -infinity, of a method that ends with its last stage."""
    if a[0, 0]:
        return abs(1 - a[-1] @ numpy.linalg.solve(a, numpy.ones(len(a))))
    return abs(numpy.linalg.solve(a[1:, 1:], a[1:, 0])[-1])


@NAMED
def test_order(method):
    a = square(method.a)
    conditions = Conditions([a])
    assert max(conditions.defect(a[-1], order) for order in range(1, method.order + 1)) < 1e-14
    assert conditions.defect(a[-1], method.order + 1) > 1e-4


@NAMED
def test_order_of_the_embedded_solution(method):
    if not method.embedded:
        return
    a = square(method.a)
    conditions = Conditions([a])
    assert max(conditions.defect(a[-2], order) for order in range(1, method.embedded + 1)) < 1e-14
    assert conditions.defect(a[-2], method.embedded + 1) > 1e-4


@NAMED
def test_stages_share_one_diagonal_entry(method):
    assert {row[-1] for row in method.a[method.explicit_first :]} == {method.diagonal}
    assert method.c[-1] == pytest.approx(1.0, abs=1e-14)


@NAMED
def test_a_stable_and_all_but_crank_nicolson_l_stable(method):
    a = square(method.a)
    assert max(amplification(a, a[-1], 1j * y) for y in numpy.geomspace(1e-3, 1e4, 400)) <= 1 + 1e-12
    assert all(numpy.linalg.eigvals(a) >= 0)  # no pole on the left
    assert limit(a) == pytest.approx(1.0 if method.name == "Crank-Nicolson" else 0.0, abs=1e-14)


@NAMED
def test_the_embedded_solution_is_bounded_for_stiff_terms(method):
    if method.embedded:
        a = square(method.a)
        assert max(amplification(a, a[-2], z) for z in (-1e2, -1e4, -1e8)) < 1


@NAMED
def test_dense_output_is_of_fourth_order_everywhere_and_meets_the_step(method):
    if method.dense is None:
        return
    a, coefficients = square(method.a), numpy.array(method.dense)
    conditions, powers = Conditions([a]), numpy.arange(1, 5)
    for theta in (0.1, 0.5, 0.83, 1.0):
        assert max(conditions.defect(coefficients @ theta**powers, order, theta) for order in range(1, 5)) < 1e-13
    numpy.testing.assert_allclose(coefficients.sum(1), a[-1], atol=1e-14)
    first, last = numpy.eye(method.stages)[[0, -1]]
    numpy.testing.assert_allclose(coefficients[:, 0], first, atol=1e-14)
    numpy.testing.assert_allclose(coefficients @ powers, last, atol=1e-13)


@PAIRS
def test_order_of_pairs_with_every_coupling(method):
    conditions = Conditions([square(method.implicit), square(method.explicit)])
    b = numpy.array(method.b)
    embedded = b - numpy.array(method.error)
    assert max(conditions.defect(b, order) for order in range(1, method.order + 1)) < 1e-13
    assert conditions.defect(b, method.order + 1) > 1e-5
    assert max(conditions.defect(embedded, order) for order in range(1, method.embedded + 1)) < 1e-13
    assert conditions.defect(embedded, method.embedded + 1) > 1e-5


@PAIRS
def test_pairs_share_their_times_and_are_l_stable(method):
    a = square(method.implicit)
    numpy.testing.assert_allclose(a.sum(1), method.c, atol=1e-14)
    assert {row[-1] for row in method.implicit[1:]} == {method.diagonal}
    assert max(amplification(a, a[-1], 1j * y) for y in numpy.geomspace(1e-3, 1e4, 400)) <= 1 + 1e-12
    assert limit(a) < 1e-14
