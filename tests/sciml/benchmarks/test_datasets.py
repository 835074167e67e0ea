"""The problems of the suite `datasets`, and one run of all of it at its smallest."""

from __future__ import annotations

import numpy

from sciml import Dirichlet, Equation, Grid, discretize
from sciml.benchmarks.bench import Bench
from sciml.benchmarks.datasets import darcy, plan


def test_the_peers_matrix_is_that_of_the_equation():
    a = darcy.coefficients(darcy.TWELVE_AND_THREE, 7, 2)
    assert a.unique().tolist() == [3.0, 12.0]
    system = discretize(Equation("-div(a*grad(u)) = f"), Grid((7, 7), boundary=Dirichlet(0.0)), {"a": a[1], "f": 1.0})
    ours = system.operator.to_sparse().to_dense().numpy()
    numpy.testing.assert_allclose(darcy.assemble(a[1].numpy()).toarray(), ours, rtol=1e-13, atol=1e-10)


def test_the_residual_is_that_of_the_worst_sample():
    a = darcy.coefficients(darcy.TWELVE_AND_THREE, 5, 2)
    exact = [numpy.linalg.solve(darcy.assemble(sample).toarray(), numpy.ones(25)) for sample in a.numpy()]
    exact[1] = exact[1] * (1 - 1e-3)
    value = numpy.stack(exact).reshape(2, 5, 5)
    numpy.testing.assert_allclose(darcy.relative_residual(a, value), 1e-3, rtol=1e-9)


def test_every_figure_follows_from_the_rows_of_some_case():
    for device in ("cpu", "cuda"):
        cases = {case.name for size in plan.EXTENTS for case in plan.plan(size, device).cases}
        for figure in plan.FIGURES[device]:
            assert any(name in figure.what for name in cases), figure.what


def test_every_case_runs_and_is_solved():
    bench = Bench("datasets", "tiny", "cpu", lambda line: None)
    for case in plan.plan("tiny", "cpu").cases:
        for row in case.measure(bench):
            if "is not installed" in row.extra.get("failure", ""):
                continue
            assert "failure" not in row.extra, row.extra
            assert row.relative_residual is not None
            assert row.relative_residual < 1.01e-8, row
