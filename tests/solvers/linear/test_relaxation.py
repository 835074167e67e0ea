"""Compiled relaxation against the same through torch, and its rate of convergence against Young's theory."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import pytest
import torch

import sciml
from sciml.errors import InputError
from sciml.kernels import build
from sciml.kernels.relaxation import CompiledLines, CompiledRows
from sciml.solvers.linear import GMRES, SOR, SSOR, ConjugateGradient
from sciml.solvers.linear.inverse import MatrixInverse
from sciml.solvers.linear.relaxation import RelaxationInverse
from sciml.status import Status
from sciml.stencil import StencilOperator

compiled_only = pytest.mark.skipif(build.library() is None, reason="needs the compiled kernels")
SWEEPS = [SOR(1.4), SOR(0.8, "multicolour"), SSOR(1.4), SSOR(1.2, "multicolour")]
RING = {"x": sciml.Periodic(), "y": sciml.Periodic()}


def describe(solver):
    return solver.describe()


def in_torch(monkeypatch, action):
    """What an action returns without compiled kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "library", lambda: None)
        return action()


def wide(*shape, periodic):
    """Every neighbour up to two places along an axis and one across, at random and dominated by the diagonal."""
    generator = torch.Generator().manual_seed(3)
    box = [o for o in itertools.product((-2, -1, 0, 1, 2), repeat=len(shape)) if sum(map(abs, o)) <= 2]
    values = [torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5 for _ in box]
    values[box.index((0,) * len(shape))] = 1.0 + sum(value.abs() for value in values)
    return StencilOperator(shape, box, values, periodic)


MATRICES = {
    "plain": lambda operators: operators.named("darcy 2D"),
    "box": lambda operators: operators.named("poisson 3D"),
    "line": lambda operators: operators.named("poisson 1D"),
    "ring": lambda operators: operators.poisson(8, 6, boundary={"x": sciml.Periodic(), "y": sciml.Dirichlet(0.0)}),
    "along the lines": lambda operators: operators.poisson(6, 8, boundary={"x": sciml.Dirichlet(0.0), "y": RING["y"]}),
    "odd torus": lambda operators: wide(7, 11, periodic=(True, True)),
    "unsymmetric": lambda operators: operators.named("upwind 2D"),
    "fourth order": lambda operators: operators.named("fourth order 2D"),
    "wide": lambda operators: wide(9, 12, periodic=(False, False)),
    "wide in space": lambda operators: wide(4, 5, 6, periodic=(False, True, False)),
    "thin": lambda operators: wide(40, 1, periodic=(False, False)),
    "coupled": lambda operators: operators.named("coupled"),
    "matrix": lambda operators: operators.named("random general"),
}


@compiled_only
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("method", SWEEPS, ids=describe)
@pytest.mark.parametrize("name", MATRICES)
def test_a_compiled_sweep_is_that_in_torch(name, method, dtype, operators, monkeypatch):
    operator = MATRICES[name](operators).to(dtype)
    x = operators.field((2, *operator.space), seed=1, dtype=dtype)
    inverse = method.prepare(operator).state
    assert isinstance(inverse, RelaxationInverse)
    expected = in_torch(monkeypatch, lambda: method.prepare(operator).state)
    assert isinstance(expected, MatrixInverse)
    tolerance = {"rtol": 0.0, "atol": 50 * torch.finfo(dtype).eps * float(expected.apply(x).abs().max())}
    torch.testing.assert_close(inverse.apply(x), expected.apply(x), **tolerance)
    torch.testing.assert_close(inverse.transpose().apply(x), expected.transpose().apply(x), **tolerance)
    assert torch.equal(inverse.apply(x)[1], inverse.apply(x[1]))


@compiled_only
def test_stencils_are_relaxed_as_they_are(operators):
    """And matrices, and stencils whose colours do not repeat, by rows."""
    forms = {
        "plain": (CompiledLines, CompiledLines),
        "odd torus": (CompiledLines, CompiledRows),
        "matrix": (CompiledRows, CompiledRows),
    }
    for name, expected in forms.items():
        operator = MATRICES[name](operators)
        for ordering, form in zip(("natural", "multicolour"), expected, strict=True):
            assert type(SOR(1.0, ordering).prepare(operator).state._compiled) is form


def apart(rows):
    """Matrices with zeros in places of their own, which their CSR forms leave out."""
    steep = torch.linspace(0.0, 2.0, rows, dtype=torch.float64).reshape(-1, 1, 1)
    one = torch.ones(1, 1, dtype=torch.float64)
    couplings = [4.0 + one, -one * (steep > 0.5), -one * (steep > 0.5), -one * (steep < 1.5), -one]
    offsets = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    first = StencilOperator((6, 5), offsets, couplings, (False, False))
    return first + first.transpose()


@compiled_only
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("solver", [*SWEEPS, ConjugateGradient(SSOR(1.3))], ids=describe)
@pytest.mark.parametrize("own", [True, False], ids=["a matrix each", "one matrix"])
@pytest.mark.parametrize("rows", [1, 3, 21])
def test_compiled_solves_are_those_in_torch(own, rows, solver, dtype, operators, monkeypatch):
    """Of as many systems as are relaxed one after the other, and of more than a vector holds: iterations are equal,
    and each ends by itself, as it would alone."""
    operator = operators.darcy(9, 10, batch=(rows,) if own else ()).to(dtype)
    if dtype == torch.float32:
        solver = replace(solver, rtol=1e-3)  # clear of its rounding, which the order of sums decides
    b = operators.field((rows, *operator.space), seed=2, dtype=dtype)
    b[-1] *= 1.0 if rows == 1 else 1e-3
    start = torch.zeros_like(b)
    start[0] = operators.field(operator.space, seed=3, dtype=dtype)
    solution = solver.solve(operator, b, start)
    expected = in_torch(monkeypatch, lambda: solver.solve(operator, b, start))
    assert solution.statistics["iterations"].tolist() == expected.statistics["iterations"].tolist()
    assert len(set(solution.statistics["iterations"].tolist())) > 1 or rows == 1
    scale = float(expected.value.abs().max())
    close = {"rtol": 0.0, "atol": (1e-10 if dtype == torch.float64 else 1e-4) * scale}
    torch.testing.assert_close(solution.value, expected.value, **close)
    norms, expected_norms = (each.history["residual_norm"] for each in (solution, expected))
    torch.testing.assert_close(norms, expected_norms, rtol=1e-6 if dtype == torch.float64 else 1e-2, atol=0.0)
    row = rows - 1
    alone = solver.solve(operator[row] if operator.batch else operator, b[row], start[row])
    assert int(alone.statistics["iterations"]) == int(solution.statistics["iterations"][row])
    torch.testing.assert_close(alone.value, solution.value[row], **close)


@compiled_only
@pytest.mark.parametrize("method", SWEEPS, ids=describe)
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_rows_of_patterns_apart_and_axes_of_the_batch_apart(method, lead, operators, monkeypatch):
    operator = apart(5)
    b = operators.field((*lead, *operator.batch, *operator.space), seed=2)
    solution = method.solve(operator, b)
    expected = in_torch(monkeypatch, lambda: method.solve(operator, b))
    assert solution.statistics["iterations"].tolist() == expected.statistics["iterations"].tolist()
    torch.testing.assert_close(solution.value, expected.value, rtol=0.0, atol=1e-10)
    across = operators.darcy(6, 7, batch=(3, 1))
    b = operators.field((3, 5, 6, 7), seed=4)
    solution = method.solve(across, b)
    expected = in_torch(monkeypatch, lambda: method.solve(across, b))
    assert solution.statistics["iterations"].tolist() == expected.statistics["iterations"].tolist()
    torch.testing.assert_close(solution.value, expected.value, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("solver", [SOR(1.3), SSOR(1.3), ConjugateGradient(SSOR(1.3))], ids=describe)
@pytest.mark.parametrize("rows", [2, 12])
def test_a_row_ends_without_the_others(solver, rows, operators):
    operator = operators.darcy(9, 10, batch=(rows,))
    b = operators.field((rows, *operator.space), seed=2)
    b[1] = 0.0
    whole = solver.solve(operator, b)
    assert int(whole.statistics["iterations"][1]) == 0
    assert not bool(whole.value[1].any())
    short = replace(solver, max_iterations=3).solve(operator, b, throw=False)
    assert set(short.status) == {Status.MAX_ITERATIONS, Status.CONVERGED}
    assert short.statistics["iterations"].tolist() == [3, 0] + [3] * (rows - 2)
    torch.testing.assert_close(short.history["residual_norm"], whole.history["residual_norm"][:4])


@pytest.mark.parametrize("rows", [2, 12])
def test_what_diverges_or_is_indefinite_is_told(rows, operators):
    """Row 1 alone: its couplings outweigh its diagonal."""
    diagonal = torch.full((rows, 1, 1), 4.5, dtype=torch.float64)
    diagonal[1] = 1.0
    one = torch.ones(1, 1, dtype=torch.float64)
    offsets = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    operator = StencilOperator((12, 12), offsets, [diagonal, *[-one] * 4], (False, False), symmetric=True)
    b = operators.field((rows, 12, 12), seed=2)
    solution = SOR(1.2, max_iterations=20_000).solve(operator, b, throw=False)
    assert solution.status[1] is Status.NON_FINITE
    assert all(status is Status.CONVERGED for row, status in enumerate(solution.status) if row != 1)
    solution = ConjugateGradient(SSOR(1.2)).solve(operator, b, throw=False)
    assert solution.status[1] is Status.INDEFINITE
    assert all(status is Status.CONVERGED for row, status in enumerate(solution.status) if row != 1)


def test_relaxation_of_another_matrix_is_no_shortcut(operators):
    """The compiled method multiplies by the matrix that it relaxes; a preconditioner may be made of another."""

    class Lagging:
        def prepare(self, operator):
            return SSOR(1.2).prepare(operators.darcy(14, 17, seed=0))

    operator = operators.darcy(14, 17, seed=8)
    b = operators.field((14, 17), seed=1)
    solution = ConjugateGradient(Lagging()).solve(operator, b)
    assert float(torch.linalg.vector_norm(b - operator.apply(solution.value))) <= 1.01e-8 * float(b.norm())
    assert torch.allclose(solution.value, GMRES(rtol=1e-10).solve(operator, b).value, rtol=1e-5, atol=1e-8)


@compiled_only
@pytest.mark.parametrize("name", ["plain", "matrix"])
def test_fields_as_they_come(name, operators):
    """Strided, negated by a view, the result in their own place, of another type."""
    operator = MATRICES[name](operators)
    inverse = SSOR(1.2).prepare(operator).state
    x = operators.field((3, *operator.space), seed=1)
    expected = inverse.apply(x)
    reversed_axes = x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    assert not reversed_axes.is_contiguous()
    assert torch.equal(inverse.apply(reversed_axes), expected)
    negated = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert negated.is_neg()
    assert torch.equal(inverse.apply(negated), expected)
    place = x.clone()
    assert inverse.apply(place, out=place) is place
    assert torch.equal(place, expected)
    spread = torch.empty(3, *operator.space, 2, dtype=x.dtype)[..., 0]
    assert inverse.apply(x, out=spread) is spread
    assert torch.equal(spread, expected)
    with pytest.raises(InputError, match=r"torch.float32, on cpu, .* prepared for \(\*batch, .*torch.float64"):
        inverse.apply(x.float())


def model_problem(n):
    """The 5-point Laplacian on n x n points within the unit square."""
    values = [torch.full((1, 1), v, dtype=torch.float64) for v in (4.0, -1.0, -1.0, -1.0, -1.0)]
    offsets = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    return StencilOperator((n, n), offsets, values, (False, False), symmetric=True)


@pytest.mark.parametrize("ordering", ["natural", "multicolour"])
@pytest.mark.parametrize("n", [10, 19])
def test_rates_of_relaxation_are_those_of_young(n, ordering, operators):
    """Iterative Solution of Large Linear Systems (1971), theorem 6-2.3: of a consistently ordered matrix whose Jacobi
    iteration contracts by beta, SOR contracts by omega - 1 beyond the best omega, and below it by the larger root of
    lambda - omega beta sqrt(lambda) + omega - 1 = 0, squared."""
    beta = math.cos(math.pi / (n + 1))
    best = 1 + (beta / (1 + math.sqrt(1 - beta**2))) ** 2
    operator, b = model_problem(n), operators.field((n, n), seed=1)
    for omega in (1.0, 0.5 * (1.0 + best)):
        history = SOR(omega, ordering, rtol=1e-13, max_iterations=5000).solve(operator, b).history["residual_norm"]
        root = (omega * beta + math.sqrt((omega * beta) ** 2 - 4 * (omega - 1))) / 2
        steps = len(history) // 3
        measured = float(history[-1] / history[-1 - steps]) ** (1 / steps)
        assert measured == pytest.approx(root**2, abs=2e-4)
    counts = {
        omega: int(SOR(omega, ordering).solve(operator, b).statistics["iterations"])
        for omega in (best - 0.1, best, min(1.99, best + 0.1))
    }
    assert counts[best] == min(counts.values())


def test_a_deadline_is_kept(operators):
    """The compiled steps are called in portions."""
    operator = model_problem(200)
    prepared = SOR(1.0, rtol=1e-14, max_iterations=10_000_000).prepare(operator)
    seen = []

    def late(task, state, iterate=SOR.iterate):
        task.deadline = time.perf_counter() + 0.2
        seen.append(task)
        iterate(prepared.solver, task, state)

    object.__setattr__(prepared.solver, "iterate", late)
    start = time.perf_counter()
    solution = prepared.solve(operators.field((200, 200), seed=1), throw=False)
    assert time.perf_counter() - start < 30.0
    assert not bool(solution.converged)
    assert 0 < int(solution.statistics["iterations"]) < 1_000_000
