"""The problems of the suite `learned`, what the preconditioner reaches on them, and cases at their smallest."""

from __future__ import annotations

import math

import numpy
import pytest
import scipy.ndimage
import torch
from scipy.sparse.linalg import eigsh, spsolve

from sciml.benchmarks.bench import Bench
from sciml.benchmarks.geometry.scans import TRIANGLES, bumpy_sphere
from sciml.benchmarks.learned import methods, plan, problems, solves
from sciml.benchmarks.linear.peers import MULTIGRID_CG
from sciml.benchmarks.linear.problems import darcy_coefficient, poisson
from sciml.benchmarks.row import Rows
from sciml.benchmarks.runner import reached
from sciml.solvers.linear import ConjugateGradient, IncompleteCholesky
from sciml.solvers.linear.learned import save_weights
from sciml.surfaces import surface_volume

ALL = (problems.BOX, *problems.GEOMETRIES, *problems.COEFFICIENTS)


def coefficient(problem, *offset):
    """Minus the coupling to the neighbour there, in units of the squared number of cells along its axis."""
    axis = [abs(part) for part in offset].index(1)
    place = problem.operator.offsets.index(offset)
    values = problem.operator.coefficients[place].expand(problem.operator.space)
    n = problem.operator.space[axis]
    return -values.narrow(axis, 0 if offset[axis] == 1 else 1, n - 1) / n**2


@pytest.mark.parametrize("name", ALL)
def test_problems_have_one_solution(name):
    problem = problems.make(name, (10, 10, 10), "cpu")
    matrix = problem.matrix
    assert abs(matrix - matrix.T).max() <= 1e-12 * abs(matrix).max()
    assert eigsh(matrix, k=1, sigma=0.0, return_eigenvectors=False)[0] > 0
    assert problem.relative_residual(spsolve(matrix.tocsc(), problem.right_side)) < 1e-8
    again = problems.make(name, (10, 10, 10), "cpu")
    assert (again.matrix != matrix).nnz == 0
    assert torch.equal(again.b, problem.b)


def test_a_plume_comes_out_of_nowhere_only_as_far_as_it_leaves_through_the_top():
    """Gauss: the divergence over all cells is what the velocity carries through the open side; and it converges to
    that of the formula."""
    shape = (12, 14, 16)
    places = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape]
    top = torch.meshgrid(*places[:2], torch.ones(1, dtype=torch.float64), indexing="ij")
    through = problems.plume_velocity(*top)[2].mean()
    assert float(problems.plume_divergence(shape).mean()) == pytest.approx(float(through), abs=1e-15)
    errors = []
    for n in (16, 32):
        x, y, z = torch.meshgrid(*[(torch.arange(n, dtype=torch.float64) + 0.5) / n] * 3, indexing="ij")
        x, y, z = (place.requires_grad_() for place in (x, y, z))
        exact = torch.zeros_like(x)
        for component, place in zip(problems.plume_velocity(x, y, z), (x, y, z), strict=True):
            exact = exact + torch.autograd.grad(component.sum(), place, retain_graph=True)[0]
        inside = (slice(2, -2),) * 3
        errors.append(float((problems.plume_divergence((n, n, n)) - exact)[inside].norm() / exact[inside].norm()))
    assert errors[1] < 0.3 * errors[0]


def test_a_plume_is_open_above_only():
    problem = problems.plume((6, 7, 8), "cpu")
    sums = numpy.asarray(problem.matrix.sum(axis=1)).reshape(6, 7, 8) / 8**2
    numpy.testing.assert_allclose(sums[..., -1], 2.0, atol=1e-12)
    numpy.testing.assert_allclose(sums[..., :-1], 0.0, atol=1e-12)


@pytest.mark.parametrize("name", [problems.SPHERES, problems.SCAN])
def test_around_obstacles_every_cell_can_be_reached(name):
    solid = problems.make(name, (24, 24, 24), "cpu").solid
    parts, count = scipy.ndimage.label(~solid.numpy())
    assert all((parts[0] == part).any() for part in range(1, count + 1))
    assert 0.02 < float(solid.double().mean()) < 0.5


def test_pockets_are_filled():
    solid = torch.zeros(9, 9, 9, dtype=torch.bool)
    solid[3:8, 3:8, 3:8] = True
    expected = solid.clone()
    solid[5, 5, 5] = False
    assert torch.equal(problems.without_pockets(solid), expected)
    assert torch.equal(problems.without_pockets(expected), expected)


def test_the_scan_fills_its_surface():
    volume = int(problems.scan(48, "cpu").solid.sum()) / 48**3
    assert volume == pytest.approx(float(surface_volume(*bumpy_sphere(TRIANGLES))), rel=0.01)


def test_inclusions_conduct_up_to_the_contrast():
    a = coefficient(problems.inclusions((40, 40), "cpu"), 1, 0)
    assert float(a.min()) == pytest.approx(1.0)
    assert 1e3 < float(a.max()) <= problems.CONTRAST * (1 + 1e-12)
    assert len(a.unique()) > 20


def test_a_rough_field_has_two_values_and_single_cells():
    a = coefficient(problems.rough((64, 64), "cpu"), 0, 1)
    k = problems.CONTRAST
    values = torch.tensor([1.0, 2 * k / (1 + k), k], dtype=torch.float64)
    assert float((a[..., None] / values - 1).abs().amin(-1).max()) < 1e-12
    assert 0.3 < float((a > 10).double().mean()) < 0.6


@pytest.mark.parametrize("shape", [(9, 8), (7, 8, 6)])
def test_along_x_it_conducts_a_hundred_times_better(shape):
    directed, plain = problems.along(shape, "cpu", 3), problems.darcy(shape, "cpu", 3)
    for axis in range(len(shape)):
        offset = tuple(int(axis == other) for other in range(len(shape)))
        factor = problems.RATIO if axis == 0 else 1.0
        torch.testing.assert_close(coefficient(directed, *offset), factor * coefficient(plain, *offset))
    a = darcy_coefficient(shape, 3)
    expected = 2 / (1 / a[1:] + 1 / a[:-1])
    torch.testing.assert_close(coefficient(plain, 1, *[0] * (len(shape) - 1)), expected)


@pytest.mark.parametrize("shape", [(60, 60), (32, 32, 32)])
def test_in_every_region_one_axis_conducts_a_hundred_times_better(shape):
    """A face resists as the mean of its two cells do: 0.01 in one of as many regions as axes and 1 in the others."""
    problem = problems.regions(shape, "cpu")
    share = 1 / len(shape)
    for axis in range(len(shape)):
        offset = tuple(int(axis == other) for other in range(len(shape)))
        resistance = 1 / coefficient(problem, *offset)
        kinds = torch.tensor([0.01, 0.505, 1.0], dtype=torch.float64)
        assert float((resistance[..., None] - kinds).abs().amin(-1).max()) < 1e-12
        assert float(resistance.mean()) == pytest.approx(1 - 0.99 * share, abs=0.02)


@pytest.mark.parametrize("name", (*problems.GEOMETRIES, *problems.COEFFICIENTS))
def test_on_what_no_training_has_seen_iterations_are_a_third_of_those_without_and_fewer_than_with_ic0(name):
    problem = problems.make(name, (24, 24, 24), "cpu")
    counts = []
    for preconditioner in (methods.learned(3), None, IncompleteCholesky()):
        solution = ConjugateGradient(preconditioner=preconditioner, rtol=1e-6).solve(problem.operator, problem.b)
        assert problem.relative_residual(solution.value) <= 1.01e-6
        counts.append(int(solution.statistics["iterations"]))
    own, plain, incomplete = counts
    assert own <= plain / 3
    assert own < incomplete


def test_the_ssor_is_that_of_the_laplacian():
    name, ssor = methods._ssor((5, 64, 7), "cpu")
    assert ssor.relaxation == pytest.approx(2 / (1 + 2 * math.sin(math.pi / 128)))
    assert name == "CG + SSOR(1.91)"


def test_rows_say_what_training_cost(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    about = {"seconds": 123.0, "samples": 4}
    save_weights(folder / "some-kind-name.safetensors", "some-kind", {}, {"w": torch.ones(2)}, about)
    monkeypatch.setattr(methods.importlib.resources, "files", lambda package: tmp_path)
    assert methods.training("some-kind", "name") == about
    assert methods.training("some-kind", "other") == {}


def test_cases_are_named_apart_and_figures_look_at_them():
    for size in plan.EXTENTS:
        made = plan.plan(size, "cpu")
        names = [case.name for case in made.cases]
        assert len(set(names)) == len(names)
        assert len({figure.what for figure in made.figures}) == len(made.figures)
    assert len(plan.plan("large", "cuda").cases) == len(plan.plan("large", "cpu").cases) + 27


def test_every_method_solves_and_every_figure_follows_from_the_rows():
    bench = Bench("learned", "tiny", "cpu", lambda line: None)
    made = plan.plan("tiny", "cpu")
    wanted = {solves.case_of(problems.BOX, (12,) * 3, 1e-4), solves.case_of(problems.ROUGH, (24, 24), 1e-8)}
    found = []
    for case in made.cases:
        if case.name in wanted or (case.name.endswith("1e-6") and not case.name.startswith("box")):
            found += case.measure(bench)
    for row in found:
        assert row.relative_residual <= 1.01 * row.extra["tolerance"], (row.case, row.method)
        assert not row.missed
        assert row.setup_seconds > 0
        assert row.solve_seconds > 0
        assert row.iterations > 0
        assert ("training" in row.extra) == (row.method in (methods.LEARNED, methods.DEEP))
    rows = Rows(found)
    assert not any("12x12" in figure.what for figure in made.figures), "nothing is claimed of tiny problems"
    for figure in plan.figures(plan.EXTENTS["tiny"]):
        value = reached(figure, rows).value
        assert value is not None, figure.what
        assert value > 0, figure.what


def test_figures_are_quotients_of_the_rows():
    bench = Bench("learned", "tiny", "cpu", lambda line: None)
    name = problems.INCLUSIONS
    case = solves.case_of(name, (12, 12, 12), 1e-6)
    rows = Rows(solves.measure(name, (12, 12, 12), 1e-6, bench))
    own, plain = rows.one(case, methods.LEARNED), rows.one(case, methods.CG)
    figures = {figure.what: reached(figure, rows) for figure in plan.figures(plan.EXTENTS["tiny"])}
    over = figures[f"learned multigrid, {case}, iterations over CG's"]
    assert over.value == own.iterations / plain.iterations
    assert over.note == f"{methods.LEARNED} {own.iterations}, CG {plain.iterations}, CG + IC(0) " + str(
        rows.one(case, methods.IC).iterations
    )
    timed = figures[f"learned multigrid, {case}, set-up and solve over the quicker geometric cycle"]
    others = [rows.one(case, method).total_seconds for method in (MULTIGRID_CG, methods.V_CYCLE)]
    assert timed.value == own.total_seconds / min(others)


def test_the_box_is_that_of_the_directions():
    assert (problems.make(problems.BOX, (8,) * 3, "cpu").matrix != poisson((8,) * 3, "cpu").matrix).nnz == 0
