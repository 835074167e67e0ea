"""The problems of the suite `tuning`, and one run of all of it at its smallest."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch

from sciml.benchmarks.bench import Bench
from sciml.benchmarks.row import Rows
from sciml.benchmarks.tuning import choice, heat, plan, policies, relaxation, sweeps
from sciml.benchmarks.tuning.heat import Heat
from sciml.benchmarks.tuning.relaxation import HIGH, LOW
from sciml.solvers.linear import SOR, SSOR, ConjugateGradient, Direct


@pytest.mark.parametrize("experiment", [HIGH, LOW], ids=["high", "low"])
def test_systems_are_those_of_the_paper(experiment):
    """-0.15 + 0.6 times beta distributions of mean 1/4; |b| at most 10; the Laplacian on a square with walls."""
    shifts, right = replace(experiment, rounds=4000).systems(3)
    spread = {"high": 0.6 * (3 / 48) ** 0.5, "low": 0.6 * (12 / 576) ** 0.5}[experiment.law]
    assert float(shifts.mean()) == pytest.approx(0.0, abs=4 * spread / 4000**0.5)
    assert float(shifts.std()) == pytest.approx(spread, rel=0.05)
    assert float(right.reshape(4000, -1).norm(dim=1).max()) <= 10.0
    assert right.shape == (4000, 10, 10)
    again, _ = replace(experiment, rounds=4000).systems(3)
    assert torch.equal(shifts, again)
    matrix = relaxation.shifted(torch.tensor(0.3, dtype=torch.float64)).to_sparse().to_dense().numpy()
    line = 2 * numpy.eye(10) - numpy.eye(10, k=1) - numpy.eye(10, k=-1)
    expected = numpy.kron(line, numpy.eye(10)) + numpy.kron(numpy.eye(10), line) + 0.3 * numpy.eye(100)
    numpy.testing.assert_array_equal(matrix, expected)


def test_fixed_relaxations_cost_what_was_published_of_them():
    """Means measured by another implementation: 599.6, 252.0 and 103.0 of the one law, 63.8 of the other."""
    for experiment, omega, expected in ((HIGH, 1.0, 599.6), (HIGH, 1.4, 252.0), (HIGH, 1.8, 103.0), (LOW, 1.6, 63.8)):
        shifts, right = replace(experiment, rounds=2000).systems(0)
        solution = SOR(omega, rtol=1e-8, max_iterations=10_000).solve(relaxation.shifted(shifts), right)
        assert float(solution.statistics["iterations"].double().mean()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("shift", [-0.15, 0.0, 0.3])
def test_the_best_relaxation_is_that_of_the_spectrum(shift):
    """Of all relaxations the iteration matrix 1 - M^-1 A has the least spectral radius there, relaxation - 1."""
    operator = relaxation.shifted(torch.tensor(shift, dtype=torch.float64))
    matrix = operator.to_sparse().to_dense().numpy()

    def radius(omega):
        splitting = numpy.tril(matrix, -1) + numpy.diag(matrix.diagonal() / omega)
        return abs(numpy.linalg.eigvals(numpy.eye(100) - numpy.linalg.solve(splitting, matrix))).max()

    best = relaxation.best_relaxation(shift)
    assert radius(best) == pytest.approx(best - 1, abs=1e-4)  # a defective eigenvalue
    assert radius(best - 0.02) > radius(best) + 0.01
    assert radius(best + 0.02) > radius(best) + 0.01


def test_a_step_of_the_heat_equation_is_that_of_crank_and_nicolson():
    problem = Heat(intervals=20, steps=3)
    _, state = heat.simulate(problem, lambda _: Direct())
    places = numpy.arange(1, 20) / 20
    x, y = numpy.meshgrid(places, places, indexing="ij")

    def bump(centre, radius):
        square = numpy.minimum(1.0, ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2)
        with numpy.errstate(divide="ignore"):
            return numpy.exp(1 - 1 / (1 - square)).reshape(-1)

    line = -2 * numpy.eye(19) + numpy.eye(19, k=1) + numpy.eye(19, k=-1)
    laplacian = 400.0 * (numpy.kron(line, numpy.eye(19)) + numpy.kron(numpy.eye(19), line))
    u = bump((0.5, 0.5), 0.25)
    for step in range(3):
        t = (step + 0.5) * 1e-3
        half = 0.5e-3 * max(0.1 * numpy.sin(2 * numpy.pi * t), -10 * numpy.sin(2 * numpy.pi * t)) * laplacian
        angle = 16 * numpy.pi * t
        f = 32 * bump((0.5 + numpy.cos(angle) / 4, 0.5 + numpy.sin(angle) / 4), 0.125)
        u = numpy.linalg.solve(numpy.eye(361) - half, u + half @ u + 1e-3 * f)
    numpy.testing.assert_allclose(state.numpy().reshape(-1), u, rtol=1e-12, atol=1e-14)


def test_the_simulation_needs_what_was_published_of_it():
    """Total iterations of 5,000 steps with 576 unknowns, here of the first fifth, which is one period: 32,793 and
    29,746 for relaxations of 1 and 1.3."""
    problem = Heat(intervals=25, steps=1000)
    for omega, expected in ((1.0, 32_793), (1.3, 29_746)):
        solver = ConjugateGradient(SSOR(omega), rtol=1e-8)
        counts, _ = heat.simulate(problem, lambda _, solver=solver: solver)
        assert sum(counts) == pytest.approx(expected / 5, rel=0.02)


def test_the_best_of_several_solvers_counts():
    problem = Heat(intervals=25, steps=40)
    solvers = [ConjugateGradient(SSOR(omega), rtol=1e-8) for omega in (1.0, 1.5, 1.9)]
    apart = []
    for solver in solvers:
        apart.append(heat.simulate(problem, lambda _, solver=solver: solver)[0])
    counts, _ = heat.simulate(problem, lambda _: solvers[1], [solvers[0], solvers[2]])
    assert sum(counts) == pytest.approx(sum(map(min, *apart)), abs=3)  # the states differ within the tolerance
    assert sum(counts) < min(map(sum, apart)) + 1


def test_every_figure_follows_from_the_rows_of_some_case():
    """The names of cases and methods in the figures are those that the cases write: at the smallest size every figure
    has a number, if it looks at the cases of that size."""
    cases = {case.name for case in plan.plan("medium", "cpu").cases}
    assert {HIGH.name, LOW.name, Heat().name, sweeps.sweeps_case(99), sweeps.sweeps_case(500)} <= cases
    assert {choice.Choice().name, choice.Choice(choice.CHANGING).name} <= cases


def test_every_case_runs_and_its_rows_are_whole(monkeypatch):
    bench = Bench("tuning", "tiny", "cpu", lambda line: None)
    found = []
    for case in plan.plan("tiny", "cpu").cases:
        rows = case.measure(bench)
        assert rows, case.name
        for row in rows:
            assert "failure" not in row.extra, row.extra
            assert row.solve_seconds > 0
            assert row.error is None or row.error < 1e-12
            if row.case.startswith("SOR, n=100"):
                assert len(row.extra["per_seed"]) == 2
                assert row.extra["iterations_per_solve"] == pytest.approx(sum(row.extra["per_seed"]) / 2)
        found += rows
    tiny = plan.EXTENTS["tiny"]
    names = {row.method for row in found if row.case == tiny.relaxation[0].name}
    assert names == {*map(policies.fixed, relaxation.FIXED), relaxation.UNIFORM, *policies.LEARNERS, relaxation.BEST}
    # The figures look at the cases of the size medium; here at those of this size instead.
    monkeypatch.setattr(plan, "HIGH", tiny.relaxation[0])
    monkeypatch.setattr(plan, "LOW", tiny.relaxation[1])
    monkeypatch.setattr(plan, "Heat", lambda: tiny.heat[0])
    monkeypatch.setattr(plan, "Choice", lambda kind=choice.DRIFTING: tiny.choices[kind == choice.CHANGING])
    monkeypatch.setattr(plan, "Extent", lambda: tiny)
    monkeypatch.setattr(sweeps, "sweeps_case", lambda n, name=sweeps.sweeps_case: name(9))
    for figure in plan.plan("tiny", "cpu").figures:
        assert figure.reached(Rows(found)) > 0, figure.what
        assert figure.note is None or figure.note(Rows(found)) is not None


def test_the_tuner_costs_no_more_than_the_arms_it_tries():
    """In iterations, which do not depend on the machine: on the systems of the paper, learning pays at once."""
    experiment = replace(HIGH, rounds=400, seeds=(0,))
    rows = Rows(relaxation.measure_relaxation(experiment, Bench("tuning", "tiny", "cpu", lambda line: None)))
    each = {row.method: row.extra["iterations_per_solve"] for row in rows}
    assert each[relaxation.BEST] < each[policies.CHEB] < each[relaxation.UNIFORM]
    assert each[policies.TSALLIS] < each[relaxation.UNIFORM]
