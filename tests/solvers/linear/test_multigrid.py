"""Geometric multigrid: transfers and Galerkin products as matrices, iteration counts on the problems it is for."""

from __future__ import annotations

import copy
import ctypes
import itertools
import pickle

import pytest
import torch

import sciml
from sciml.errors import InputError
from sciml.kernels import build, layout
from sciml.linear_operator import Kind
from sciml.solvers.linear import ConjugateGradient, Multigrid
from sciml.solvers.linear.coarse_stencils import _add_products, _split_seams, compact, galerkin, interpolation
from sciml.solvers.linear.coarsening import General, Separable, coarsenable
from sciml.solvers.linear.transfer import Coarsening, FieldTransfer
from sciml.stencil import StencilOperator

POISSON = sciml.Equation("-laplacian(u) = f")
DARCY = sciml.Equation("-div(a*grad(u)) = f")
SIDE = sciml.Dirichlet(0.0)
FLUX = sciml.Neumann(0.0)

SHAPES = [
    ((9,), (False,)),
    ((8,), (True,)),
    ((9,), (True,)),
    ((7, 8), (False, False)),
    ((8, 9), (True, True)),
    ((7, 9), (True, False)),
    ((3, 9), (False, True)),
    ((6, 5, 7), (False, False, False)),
    ((6, 5, 7), (True, True, True)),
    ((6, 4, 8), (True, False, True)),
]


def dominant_stencil(space, periodic, batch=()):
    """All 3^d neighbours with random coefficients of either sign, dominated by the diagonal."""
    generator = torch.Generator().manual_seed(0)
    offsets = list(itertools.product((-1, 0, 1), repeat=len(space)))
    coefficients = [torch.randn(*batch, *space, generator=generator, dtype=torch.float64) for _ in offsets]
    coefficients[len(offsets) // 2] += 4.0 * len(offsets)
    return StencilOperator(space, offsets, coefficients, periodic)


def dense(function, source, target):
    """The matrix of a linear map between two grids."""
    unit = torch.eye(torch.Size(source).numel(), dtype=torch.float64)
    columns = [function(e.reshape(source), torch.zeros(target, dtype=torch.float64)).reshape(-1) for e in unit]
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize(("space", "periodic"), SHAPES)
def test_coarse_operator_is_the_galerkin_product(space, periodic):
    operator = dominant_stencil(space, periodic)
    coarsening = Coarsening.of(space, [n > 3 for n in space], periodic)
    stencil = compact(operator)
    up, down = interpolation(stencil, coarsening), interpolation(compact(operator.transpose()), coarsening)
    transfer = FieldTransfer(coarsening, up, down)
    prolongation = dense(lambda e, out: transfer.prolong_add(e.contiguous(), out), coarsening.coarse, space)
    restriction = dense(lambda e, out: transfer.restrict(e.contiguous(), out), space, coarsening.coarse)
    expected = restriction @ operator.to_sparse().to_dense() @ prolongation
    coarse = galerkin(stencil, coarsening, up, down, symmetric=False)
    torch.testing.assert_close(
        coarse.operator(periodic, False).to_sparse().to_dense(), expected, rtol=1e-12, atol=1e-10
    )
    eager = {m: torch.zeros(coarsening.coarse, dtype=torch.float64) for m in coarse.offsets}
    _add_products(_split_seams(stencil, coarsening), coarsening, up, down, eager)
    torch.testing.assert_close(torch.stack(list(eager.values())), coarse.coefficients, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("space", "periodic"), SHAPES)
def test_compiled_transfers_equal_eager_ones(space, periodic, monkeypatch):
    operator = dominant_stencil(space, periodic, batch=(2,))
    coarsening = Coarsening.of(space, [n > 3 for n in space], periodic)
    weights = interpolation(compact(operator), coarsening)
    field = FieldTransfer(coarsening, weights, weights)
    line = coarsenable(sciml.discretize(POISSON, periodic_grid(space, periodic), {"f": 0.0}).operator)
    assert isinstance(line, Separable)
    product = line.coarsen(coarsening)[1]
    fine = torch.randn(2, *space, dtype=torch.float64)
    coarse = torch.randn(2, *coarsening.coarse, dtype=torch.float64)

    def results():
        return [
            (t.restrict(fine, torch.zeros_like(coarse)), t.prolong_add(coarse, fine.clone())) for t in (field, product)
        ]

    compiled = results()
    monkeypatch.setattr(build, "library", lambda: None)
    for one, other in zip(compiled, results(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(build.library() is None, reason="no C++ compiler")
@pytest.mark.parametrize(("space", "periodic"), SHAPES)
def test_compiled_interpolation_equals_eager(space, periodic, monkeypatch):
    """Also with couplings of both signs, and points without couplings, as in obstacles."""
    coarsening = Coarsening.of(space, [n > 3 for n in space], periodic)
    solid = torch.rand(space, generator=torch.Generator().manual_seed(1)) < 0.2
    mixed = dominant_stencil(space, periodic, batch=(2,))
    around_solids = []
    for offset in mixed.offsets:
        fluid = -1.0 if any(offset) else float(len(mixed.offsets))
        around_solids.append(torch.where(solid, float(not any(offset)), fluid).double())
    operators = [mixed, StencilOperator(space, mixed.offsets, around_solids, periodic)]
    compiled = [interpolation(compact(operator), coarsening) for operator in operators]
    monkeypatch.setattr(build, "library", lambda: None)
    for operator, weights in zip(operators, compiled, strict=True):
        torch.testing.assert_close(weights, interpolation(compact(operator), coarsening), rtol=1e-12, atol=1e-12)


def some_operators():
    """Separable, with a jumping coefficient, in a batch, with obstacles, and not symmetric."""
    generator = torch.Generator().manual_seed(0)
    jumping = torch.where(torch.rand(2, 40, 36, generator=generator) < 0.5, 1.0, 10.0).double()
    solid = torch.rand(12, 14, 11, generator=generator) < 0.2
    walls = {"x": (SIDE, FLUX), "y": FLUX, "z": FLUX}
    wind = sciml.Equation("-laplacian(u) + 5*u_x = f")
    return {
        "separable": sciml.discretize(POISSON, sciml.Grid((200, 190)), {"f": 0.0}).operator,
        "batch": sciml.discretize(DARCY, sciml.Grid((40, 36)), {"a": jumping, "f": 0.0}).operator,
        "solid": sciml.discretize(POISSON, sciml.Grid((12, 14, 11), boundary=walls, solid=solid), {"f": 0.0}).operator,
        "one-sided": sciml.discretize(wind, sciml.Grid((30, 31)), {"f": 0.0}).operator,
        "general": dominant_stencil((30, 31), (False, True)),
    }


@pytest.mark.skipif(build.library() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", some_operators())
@pytest.mark.parametrize("cycle", [1, 2])
def test_compiled_cycle_equals_the_eager_one(name, cycle, monkeypatch):
    operator = some_operators()[name]
    inverse = Multigrid(cycle=cycle, precision=torch.float64, coarsest=20).prepare(operator)
    r = torch.randn(3, *operator.batch, *operator.space, dtype=torch.float64)
    compiled, product = torch.empty_like(r), torch.empty(r.shape[: r.ndim - len(operator.space)], dtype=torch.float64)
    product.copy_(inverse.state.apply_and_dot(r, compiled))
    monkeypatch.setattr(build, "library", lambda: None)
    eager = inverse.apply(r)
    torch.testing.assert_close(compiled, eager, rtol=1e-10, atol=1e-12 * float(eager.abs().max()))
    torch.testing.assert_close(product, (r * eager).flatten(-len(operator.space)).sum(-1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", some_operators())
def test_a_cycle_does_not_depend_on_the_number_of_threads(name, monkeypatch):
    operator = some_operators()[name]
    inverse = Multigrid().prepare(operator)
    r = torch.randn(*operator.batch, *operator.space, dtype=torch.float64)
    results = []
    for count in (1, 2, 3):
        monkeypatch.setattr(layout, "threads", lambda count=count: ctypes.c_int(count))
        results.append(inverse.apply(r))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", some_operators())
def test_gradients_pass_through_a_cycle(name):
    """Of a loss by the residual that a cycle is applied to: the transposed cycle, applied to the loss's gradient."""
    operator = some_operators()[name]
    inverse = Multigrid(precision=torch.float64).prepare(operator)
    generator = torch.Generator().manual_seed(3)
    r, w, direction = torch.randn(3, *operator.batch, *operator.space, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((inverse.apply(r.requires_grad_()) * w).sum(), r)
    expected = float((inverse.apply(direction) * w).sum())
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_prepared_cycle_can_be_copied_and_pickled():
    operator = some_operators()["batch"]
    inverse = Multigrid().prepare(operator)
    r = torch.randn(*operator.batch, *operator.space, dtype=torch.float64)
    expected = inverse.apply(r)
    for other in (copy.deepcopy(inverse), pickle.loads(pickle.dumps(inverse))):
        assert torch.equal(other.apply(r), expected)


def periodic_grid(space, periodic):
    sides = {axis: sciml.Periodic() if p else SIDE for axis, p in zip("xyz", periodic, strict=False)}
    return sciml.Grid(space, boundary=sides)


def test_interpolation_of_the_laplacian_is_linear():
    """Away from walls the weights are 1/2 and 1/4, and the first coarse operator is the nine-point one."""
    system = sciml.discretize(DARCY, sciml.Grid((32, 32)), {"a": 1.0, "f": 0.0})
    coarsening = Coarsening.of((32, 32), (True, True), (False, False))
    weights = interpolation(compact(system.operator), coarsening)
    for k, weight in weights.items():
        assert float(weight[8, 8]) == pytest.approx(0.5 ** sum(map(abs, k)))


def iterations(
    shape, rtol, boundary=SIDE, fields=None, equation=POISSON, solid=None, walls=FLUX, upper=1.0, **settings
):
    """Iterations of multigrid-preconditioned conjugate gradients for a random right side."""
    grid = sciml.Grid(shape, upper=upper, boundary=boundary, solid=solid, walls=walls)
    system = sciml.discretize(equation, grid, {"f": 0.0, **(fields or {})})
    b = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if solid is not None:
        b[solid] = 0
    solution = ConjugateGradient(preconditioner=Multigrid(), rtol=rtol).solve(system.operator, b)
    assert float((b - system.operator.apply(solution.value)).norm() / b.norm()) <= rtol
    return int(solution.statistics["iterations"])


@pytest.mark.parametrize("shape", [(31, 31), (50, 63), (100, 100), (255, 254), (31, 31, 31), (47, 40, 36)])
def test_boxes_of_any_size(shape):
    upper = [n / shape[0] for n in shape]
    assert iterations(shape, 1e-6, upper=upper) <= 6
    assert iterations(shape, 1e-10, upper=upper) <= 9


@pytest.mark.parametrize(
    "boundary",
    [
        {"x": (SIDE, FLUX), "y": (FLUX, FLUX)},
        {"x": (sciml.Robin(1.0, 0.0), FLUX), "y": (SIDE, sciml.Robin(10.0, 0.0))},
        {"x": sciml.Periodic(), "y": (SIDE, FLUX)},
    ],
)
@pytest.mark.parametrize("shape", [(64, 64), (77, 65)])
def test_mixed_boundaries(boundary, shape):
    assert iterations(shape, 1e-8, boundary) <= 9


@pytest.mark.parametrize("shape", [(64, 64), (33, 45), (15, 14, 13)])
@pytest.mark.parametrize("kind", [FLUX, sciml.Periodic()])
def test_singular_problems(shape, kind):
    grid = sciml.Grid(shape, boundary=kind)
    operator = sciml.discretize(POISSON, grid, {"f": 0.0}).operator
    b = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b -= b.mean()
    solution = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-8).solve(operator, b)
    assert abs(float(solution.value.mean())) <= 1e-12 * float(solution.value.abs().max())
    assert int(solution.statistics["iterations"]) <= 10


@pytest.mark.parametrize("ratio", [2, 8, 32])
def test_unequal_spacings(ratio):
    assert iterations((256, 256 // ratio), 1e-8) <= 10


@pytest.mark.parametrize("seed", range(3))
def test_jumping_coefficient(seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(noise[None, None], size=(201, 201), mode="bicubic")[0, 0]
    a = torch.where(smooth > 0, 12.0, 3.0).double()
    assert iterations((201, 201), 1e-8, fields={"a": a}, equation=DARCY) <= 8


@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 30, 29)])
@pytest.mark.parametrize("seed", range(3))
def test_voxel_obstacles_with_one_open_face(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    solid = torch.zeros(shape, dtype=torch.bool)
    for _ in range(12):
        low = [int(torch.randint(2, n - 8, (), generator=generator)) for n in shape]
        size = torch.randint(3, 7, (3,), generator=generator).tolist()
        solid[tuple(slice(start, start + length) for start, length in zip(low, size, strict=True))] = True
    sides = {"x": (SIDE, FLUX), "y": FLUX, "z": FLUX}
    assert iterations(shape, 1e-6, sides, solid=solid, equation=DARCY, fields={"a": 1.0}) <= 9


def test_fourth_order_operator_is_preconditioned():
    grid = sciml.Grid((64, 64), boundary=sciml.Periodic())
    equation = sciml.Equation("-laplacian(u) + u = f")
    system = sciml.discretize(equation, grid, {"f": 0.0}, scheme=sciml.FiniteDifference(order=4))
    b = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-8).solve(system.operator, b)
    assert int(solution.statistics["iterations"]) <= 14


def test_cycle_is_symmetric_and_positive():
    grid = sciml.Grid((20, 17), boundary={"x": (SIDE, FLUX), "y": (sciml.Robin(2.0, 0.0), FLUX)})
    a = 1 + torch.rand(20, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for fields, equation in (({"f": 0.0}, POISSON), ({"a": a, "f": 0.0}, DARCY)):
        operator = sciml.discretize(equation, grid, fields).operator
        inverse = Multigrid(precision=torch.float64, coarsest=20).prepare(operator)
        assert inverse.kind is Kind.SYMMETRIC_POSITIVE
        matrix = inverse.to_sparse().to_dense()
        torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12 * float(matrix.abs().max()))
        product = matrix @ operator.to_sparse().to_dense()
        spectrum = torch.linalg.eigvals(product).real
        assert float(spectrum.min()) > 0.5
        assert float(spectrum.max()) < 1.1


def test_batch_of_coefficients_is_a_loop():
    a = 1 + 10 * torch.rand(4, 40, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grid = sciml.Grid((40, 33))
    operator = sciml.discretize(DARCY, grid, {"a": a, "f": 0.0}).operator
    assert isinstance(coarsenable(operator), General)
    b = torch.randn(4, 40, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    solver = ConjugateGradient(preconditioner=Multigrid(coarsest=100), rtol=1e-10)
    together = solver.solve(operator, b)
    for row in range(4):
        alone = solver.solve(operator[row], b[row])
        torch.testing.assert_close(together.value[row], alone.value, rtol=1e-8, atol=1e-12)


def test_multigrid_alone_is_a_solver():
    operator = sciml.discretize(POISSON, sciml.Grid((63, 63)), {"f": 0.0}).operator
    b = torch.randn(63, 63, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = Multigrid(rtol=1e-8).solve(operator, b)
    assert bool(solution.converged)
    assert int(solution.statistics["iterations"]) <= 12


def test_scale_of_the_right_side_does_not_matter():
    """The float32 cycle inside must neither overflow nor underflow."""
    operator = sciml.discretize(POISSON, sciml.Grid((40, 40)), {"f": 0.0}).operator
    b = torch.randn(40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = ConjugateGradient(preconditioner=Multigrid()).prepare(operator)
    reference = solver.solve(b).value
    for scale in (1e-60, 1e60):
        torch.testing.assert_close(solver.solve(scale * b).value / scale, reference, rtol=1e-9, atol=1e-14)


def test_refusals():
    matrix = torch.eye(4, dtype=torch.float64).to_sparse_csr()
    with pytest.raises(InputError, match="stencil on a grid"):
        Multigrid().prepare(matrix)
    with pytest.raises(InputError, match="Multigrid: sweeps must be a whole number of at least 1, got 0"):
        Multigrid(sweeps=0)
    with pytest.raises(InputError, match=r"smoothing_interval must be a number in \(0, 1\), got 1.5"):
        Multigrid(smoothing_interval=1.5)
