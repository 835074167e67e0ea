"""The tuner where a solver is accepted: batches, float32, singular systems, Newton's method, transforms."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import sciml
from sciml.solvers.linear import SOR, SSOR, ConjugateGradient, Direct, Jacobi, Multigrid
from sciml.solvers.nonlinear import Newton
from sciml.solvers.tuning import BanditTuner, ThompsonSampling, TsallisINF, dominance

CG_SSOR = ConjugateGradient(preconditioner=SSOR())
CHOICES = {"preconditioner": [Jacobi(), SSOR(1.5), Multigrid()]}


def tuned(**given):
    return BanditTuner(ConjugateGradient(), CHOICES, policy=ThompsonSampling(), **given)


def test_a_batch_of_operators():
    grid = sciml.Grid((12, 12), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 12, 12, generator=generator, dtype=torch.float64).exp()
    operator = sciml.discretize(sciml.Equation("-div(a*grad(u)) = f"), grid, {"a": a, "f": 0.0}).operator
    b = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    exact = Direct().solve(operator, b).value
    tuner = tuned(fallback="best", patience=1.1, context=dominance)
    for _ in range(6):
        solution = tuner.solve(operator, b)
        assert torch.allclose(solution.value, exact, rtol=1e-6, atol=1e-9)
        assert solution.statistics["cost"] == float(solution.statistics["iterations"].double().mean())


def test_rows_of_all_sizes_through_a_cut_off(laplacian):
    """One right side is beyond what float64 holds when squared, one is zero; the limit cuts them in their midst."""
    b = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b[1] *= 1e200
    b[2] = 0.0
    operator = laplacian(0.0, 16)
    tuner = BanditTuner(SOR(), {"relaxation": [1.0, 1.9]}, policy=TsallisINF(), fallback=SOR(1.7), patience=0.3)
    exact = Direct().solve(operator, b).value
    for _ in range(6):
        solution = tuner.solve(operator, b)
        assert bool(solution.converged.all())
        for row in range(4):
            assert torch.allclose(solution.value[row], exact[row], rtol=1e-5, atol=1e-7 * float(exact[row].abs().max()))


def test_float32(laplacian):
    grid = sciml.Grid((16, 16), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0), dtype=torch.float32)
    equation = sciml.Equation("-laplacian(u) = f")
    solution = sciml.solve(equation, grid, fields={"f": 1.0}, method=tuned(cost="seconds"))
    exact = sciml.solve(equation, grid, fields={"f": 1.0}, method=Direct())
    assert solution.value.dtype == torch.float32
    assert torch.allclose(solution.value, exact.value, rtol=1e-3)


def test_singular_systems():
    grid = sciml.Grid((16, 16), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Neumann(0.0))
    x, y = grid.coordinates
    f = torch.cos(torch.pi * x) * torch.cos(2 * torch.pi * y)
    tuner = BanditTuner(
        ConjugateGradient(),
        {"preconditioner": [None, SSOR(1.0), SSOR(1.7)]},
        policy=TsallisINF(),
        fallback=ConjugateGradient(preconditioner=SSOR(1.3)),
        patience=0.5,
    )
    operator = sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, {"f": f}).operator
    values = [tuner.solve(operator, f).value for _ in range(8)]
    assert tuner.state.learned.cut_off > 0
    for value in values:
        assert float(value.mean().abs()) < 1e-12
        assert float((operator.apply(value) - f).norm()) <= 1.001e-8 * float(f.norm())


def test_newtons_method():
    grid = sciml.Grid((12, 12), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    equation = sciml.Equation("-laplacian(u) + u**3 = f")
    tuner = tuned()
    solution = sciml.solve(equation, grid, fields={"f": 10.0}, method=Newton(linear=tuner))
    exact = sciml.solve(equation, grid, fields={"f": 10.0}, method=Newton(linear=Direct()))
    assert torch.allclose(solution.value, exact.value, rtol=1e-7)
    assert tuner.state.learned.rounds > 0


def test_forward_derivatives(laplacian, right_side):
    operator, b, tangent = laplacian(0.5), right_side(0), right_side(1)
    tuner = BanditTuner(CG_SSOR, {"preconditioner.relaxation": (1.0, 1.8)}, rtol=1e-12)
    value, found = torch.func.jvp(lambda right: tuner.solve(operator, right).value, (b,), (tangent,))
    assert torch.allclose(value, Direct().solve(operator, b).value, rtol=1e-9)
    assert torch.allclose(found, Direct().solve(operator, tangent).value, rtol=1e-9)
    assert tuner.state.learned.rounds == 1


def test_in_inference_mode_and_after(laplacian, right_side):
    prepared = tuned().prepare(laplacian(0.1))
    b = right_side()
    with torch.inference_mode():
        for _ in range(4):
            prepared.solve(b)
    right = b.clone().requires_grad_()
    for _ in range(4):
        prepared.solve(right).value.sum().backward()
    assert bool(right.grad.isfinite().all())


def test_a_copy_of_what_is_prepared_solves(laplacian, right_side):
    prepared = tuned().prepare(laplacian(0.1))
    prepared.solve(right_side())
    other = copy.deepcopy(prepared)
    assert torch.allclose(other.solve(right_side()).value, prepared.solve(right_side()).value, rtol=1e-6, atol=1e-10)
    assert prepared.solver.state.learned.rounds == 2 == other.solver.state.learned.rounds


def test_the_transposed_system_of_an_unsymmetric_one():
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = matrix + 12 * torch.eye(12, dtype=torch.float64)
    b = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prepared = BanditTuner(SOR(), {"relaxation": [0.8, 1.0, 1.1]}).prepare(matrix)
    assert torch.allclose(prepared.transpose().solve(b).value, torch.linalg.solve(matrix.T, b), rtol=1e-6)
    assert prepared.transpose().transpose() is prepared


@pytest.mark.parametrize("cost", ["iterations", "seconds"])
def test_the_limit_on_iterations_is_reported(cost, laplacian, right_side):
    tuner = tuned(cost=cost, max_iterations=1, fallback="best")
    solution = tuner.solve(laplacian(0.0, 24), right_side(0, 24), throw=False)
    assert [status.name for status in solution.status] == ["MAX_ITERATIONS"]
    assert int(solution.statistics["iterations"]) == 2  # the arm's, and that of what took over
    assert replace(tuner, max_iterations=1000).solve(laplacian(0.0, 24), right_side(0, 24)).converged.all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cost", ["iterations", "seconds"])
def test_on_a_gpu(cost):
    grid = sciml.Grid((64, 64), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0), device="cuda")
    operator = sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, {"f": 0.0}).operator
    b = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cuda()
    tuner = BanditTuner(
        ConjugateGradient(),
        {"preconditioner": [Jacobi(), SSOR(1.0, "multicolour"), Multigrid()]},
        policy=ThompsonSampling(),
        cost=cost,
        context=dominance,
        fallback="best",
        patience=1.5,
    )
    for _ in range(12):
        solution = tuner.solve(operator, b)
        assert float((operator.apply(solution.value) - b).norm()) <= 1.001e-8 * float(b.norm())
    if cost == "iterations":
        assert tuner.settled() == ConjugateGradient(preconditioner=Multigrid())
