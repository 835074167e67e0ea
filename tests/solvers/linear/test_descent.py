"""Conjugate gradients compiled row by row against the same written in torch, and the forms that the kernels read."""

from __future__ import annotations

import pytest
import torch

from sciml import Dirichlet, Equation, Grid, Neumann, Periodic, discretize
from sciml.kernels import build
from sciml.solvers.linear import ConjugateGradient, Multigrid
from sciml.solvers.linear import survey as surveys
from sciml.solvers.linear.coarse_stencils import compact
from sciml.solvers.linear.multigrid import MultigridCycle
from sciml.status import Status
from sciml.stencil import StencilOperator

pytestmark = pytest.mark.skipif(build.library() is None, reason="needs the compiled kernels")

DIFFUSION = Equation("-div(a*grad(u)) = f")
GRIDS = {
    "even": Grid((32, 24), boundary=Dirichlet(0.0)),
    "odd": Grid((29, 53), boundary={"x": Dirichlet(0.0), "y": (Neumann(0.0), Dirichlet(0.0))}),
    "narrow": Grid((3, 47), upper=(0.1, 1.0), boundary=Dirichlet(0.0)),
    "stretched": Grid((20, 40), upper=(10.0, 1.0), boundary=Dirichlet(0.0)),
    "ring": Grid((26, 27), boundary={"x": Periodic(), "y": Dirichlet(0.0)}),
    "singular": Grid((24, 22), boundary=Neumann(0.0)),
    "box": Grid((11, 10, 13), boundary=Dirichlet(0.0)),
}


def diffusion(grid: Grid, rows: int, contrast: float = 4.0, seed: int = 0) -> StencilOperator:
    generator = torch.Generator().manual_seed(seed)
    a = torch.where(torch.rand(rows, *grid.shape, generator=generator) < 0.5, contrast, 1.0).double()
    operator = discretize(DIFFUSION, grid, {"a": a, "f": 0.0}).operator
    assert isinstance(operator, StencilOperator)
    return operator


def right_side(operator: StencilOperator, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(*operator.batch, *operator.space, generator=generator, dtype=operator.dtype)
    axes = tuple(range(-len(operator.space), 0))
    return b if operator.null_space is None else b - b.mean(axes, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", GRIDS)
def test_a_batch_equals_the_loop_in_torch_and_every_row_alone(name, dtype, monkeypatch):
    operator = diffusion(GRIDS[name], 3).to(dtype)
    b = right_side(operator)
    solver = ConjugateGradient(preconditioner=Multigrid(coarsest=20))
    compiled = solver.solve(operator, b)
    monkeypatch.setattr(MultigridCycle, "descend", lambda self, task: False)
    looped = solver.solve(operator, b)
    assert compiled.statistics["iterations"].tolist() == looped.statistics["iterations"].tolist()
    assert compiled.history["residual_norm"].shape == looped.history["residual_norm"].shape
    tolerance = 1e-6 if dtype == torch.float64 else 1e-3
    scale = float(looped.value.abs().max())
    torch.testing.assert_close(compiled.value, looped.value, rtol=0, atol=tolerance * scale)
    first = slice(0, 3)  # later norms amplify the rounding of float32 cycles
    torch.testing.assert_close(
        compiled.history["residual_norm"][first], looped.history["residual_norm"][first], rtol=1e-3, atol=0
    )
    monkeypatch.undo()
    for row in range(3):
        alone = solver.solve(operator[row], b[row])
        torch.testing.assert_close(alone.value, compiled.value[row], rtol=0, atol=tolerance * scale)
    rest = torch.linalg.vector_norm((b - operator.apply(compiled.value)).reshape(3, -1), dim=1)
    wanted = 1e-8 if dtype == torch.float64 else 1e-5
    assert bool((rest <= 1.01 * wanted * torch.linalg.vector_norm(b.reshape(3, -1), dim=1)).all())


def test_right_sides_beyond_the_operators_batch_use_its_rows_in_turn():
    operator = diffusion(GRIDS["odd"], 2)
    b = torch.randn(3, 2, *operator.space, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = ConjugateGradient(preconditioner=Multigrid()).solve(operator, b).value
    rest = torch.linalg.vector_norm((b - operator.apply(x)).reshape(6, -1), dim=1)
    assert bool((rest <= 1.01e-8 * torch.linalg.vector_norm(b.reshape(6, -1), dim=1)).all())


def test_a_row_ends_without_the_others():
    operator = diffusion(GRIDS["even"], 3)
    b = right_side(operator)
    b[1] = 0.0
    solver = ConjugateGradient(preconditioner=Multigrid(coarsest=20))
    whole = solver.solve(operator, b)
    assert int(whole.statistics["iterations"][1]) == 0
    assert not bool(whole.value[1].any())
    short = ConjugateGradient(preconditioner=Multigrid(coarsest=20), max_iterations=2).solve(operator, b, throw=False)
    assert short.status == (Status.MAX_ITERATIONS, Status.CONVERGED, Status.MAX_ITERATIONS)
    assert short.statistics["iterations"].tolist() == [2, 0, 2]
    torch.testing.assert_close(short.history["residual_norm"], whole.history["residual_norm"][:3])


def test_an_indefinite_row_is_told():
    operator = diffusion(GRIDS["even"], 2)
    centre = operator.offsets.index((0, 0))
    coefficients = list(operator.coefficients)
    coefficients[centre] = coefficients[centre].clone()
    coefficients[centre][1] *= 0.5
    broken = StencilOperator(operator.space, operator.offsets, coefficients, operator.periodic, symmetric=True)
    solution = ConjugateGradient(preconditioner=Multigrid()).solve(broken, right_side(broken), throw=False)
    assert solution.status[0] is Status.CONVERGED
    assert solution.status[1] is not Status.CONVERGED


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", ["even", "odd", "narrow", "box"])
def test_the_flat_form_is_the_same_operator(name, symmetric):
    operator = diffusion(GRIDS[name], 2)
    stencil = compact(operator)
    flat = stencil.flat_operator(symmetric, torch.float64)
    x = right_side(operator)
    torch.testing.assert_close(flat.apply(x), operator.apply(x), rtol=1e-12, atol=1e-9)
    storages = {c.untyped_storage().data_ptr() for c in flat.coefficients}
    assert len(storages) == 1


@pytest.mark.parametrize("name", ["odd", "ring", "singular", "box"])
def test_the_compiled_survey_counts_what_the_eager_one_counts(name):
    coefficients = compact(diffusion(GRIDS[name], 2, contrast=100.0)).coefficients.clone()
    coefficients[1] += 2 * float(coefficients[1].abs().max())  # some positive couplings
    coefficients[1:, 0, 0] = 0.0  # and points without any
    dimension = len(GRIDS[name].shape)
    eager, compiled = (function(coefficients, 0, dimension) for function in (surveys._eager, surveys._compiled))
    torch.testing.assert_close(compiled, eager, rtol=1e-12, atol=0)
    found = surveys.Survey.of(coefficients, 0, dimension)
    assert found.has_positive_couplings
    assert found.has_obstacles
