"""sciml.solve: what it chooses, that the answer is right, gradients through it, and what it refuses."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import sciml
from sciml.solvers.linear import AlgebraicMultigrid, ConjugateGradient, Direct, Jacobi, Multigrid
from sciml.stencil import StencilOperator

POISSON = sciml.Equation("-laplacian(u) = f")
DARCY = sciml.Equation("-div(a*grad(u)) = f")


def test_unit_square_poisson_value():
    """The centre of -laplacian(u) = 1 on the unit square: 0.0736713532814 (series solution)."""
    values = [
        float(sciml.solve(POISSON, sciml.Grid((n, n)), fields={"f": 1.0}).at(torch.tensor([[0.5, 0.5]]).double()))
        for n in (32, 64)
    ]
    extrapolated = values[1] + (values[1] - values[0]) / 3
    assert extrapolated == pytest.approx(0.0736713532814, rel=1e-4)
    assert values[1] == pytest.approx(0.0736713532814, rel=2e-3)


CHOICES = [
    ("-laplacian(u) = f", {}, (40, 40), {}, "conjugate gradients with geometric multigrid", 12),
    ("laplacian(u) = f", {}, (40, 40), {}, "conjugate gradients with geometric multigrid", 12),
    ("-laplacian(u) = f", {}, (500,), {}, "direct LU", 1),
    ("-nu*laplacian(u) + u_x = f", {"nu": 1.0}, (48, 48), {}, "GMRES", 20),
    ("-nu*laplacian(u) + u_x = f", {"nu": 1e-4}, (48, 48), {}, "direct LU", 1),
    ("-laplacian(u) - k*k*u = f", {"k": 20.0}, (48, 48), {}, "direct LU", 1),
    ("-nu*laplacian(u) + u_x = f", {"nu": 0.1}, (48, 48), {"boundary": sciml.Periodic()}, "GMRES", 20),
]


@pytest.mark.parametrize(("text", "parameters", "shape", "grid", "method", "most"), CHOICES)
def test_choice_and_true_residual(text, parameters, shape, grid, method, most):
    domain = sciml.Grid(shape, **grid)

    def source(*x):
        return torch.sin(2 * math.pi * x[0])

    solution = sciml.solve(sciml.Equation(text, parameters=parameters), domain, fields={"f": source})
    assert solution.method.startswith(method), solution.method
    assert "(" in solution.method
    assert int(solution.statistics["iterations"]) <= most
    system = solution.system
    residual = system.right_side - system.operator.apply(solution.value)
    if system.operator.null_space is not None:
        residual = residual - residual.mean()
    assert float(residual.norm() / system.right_side.norm()) <= 1.01e-8


def test_system_of_two_unknowns_against_its_exact_solution():
    """-laplacian(u) + v = f, -laplacian(v) - u = g with u = sin sin, v = 2 sin sin."""
    equation = sciml.Equation(["-laplacian(u) + v = f", "-laplacian(v) - u = g"], unknowns=("u", "v"))

    def s(x, y):
        return torch.sin(math.pi * x) * torch.sin(math.pi * y)

    lam = 2 * math.pi**2
    errors = []
    for n in (24, 48):
        fields = {"f": lambda x, y: (lam + 2) * s(x, y), "g": lambda x, y: (2 * lam - 1) * s(x, y)}
        solution = sciml.solve(equation, sciml.Grid((n, n)), fields=fields)
        exact = s(*sciml.Grid((n, n)).coordinates)
        errors.append(float((solution.fields["v"] - 2 * exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


SINGULAR_SYSTEMS = {
    "apart": ["-laplacian(u) = f", "-laplacian(v) = g"],
    "exchange": ["-laplacian(u) + 3*(u - v) = f", "-laplacian(v) + 3*(v - u) = g"],
}


@pytest.mark.parametrize("shape", [(24, 20), (170, 170)], ids=str)
@pytest.mark.parametrize("texts", SINGULAR_SYSTEMS.values(), ids=SINGULAR_SYSTEMS)
@pytest.mark.parametrize("boundary", [sciml.Periodic(), sciml.Neumann(0.0)])
def test_singular_systems_have_zero_mean(boundary, texts, shape):
    equation, grid = sciml.Equation(texts, unknowns=("u", "v")), sciml.Grid(shape, boundary=boundary)
    fields = {"f": lambda x, y: torch.cos(2 * math.pi * x), "g": lambda x, y: torch.cos(4 * math.pi * y)}
    solution = sciml.solve(equation, grid, fields=fields)
    system = solution.system
    residual = system.right_side - system.operator.apply(solution.value)
    assert float(residual.norm() / system.right_side.norm()) <= 1.01e-8
    assert float(solution.value.mean(dim=(-2, -1)).abs().max()) < 1e-9
    assert any("zero mean" in note for note in solution.notes)


def test_an_unbalanced_source_of_a_system_is_refused_by_name():
    grid, fields = sciml.Grid((16, 16), boundary=sciml.Neumann(0.0)), {"f": lambda x, y: x - 0.5, "g": 1.0}
    for name, unknowns in (("apart", "v"), ("exchange", "u and v")):
        equation = sciml.Equation(SINGULAR_SYSTEMS[name], unknowns=("u", "v"))
        with pytest.raises(sciml.InputError, match=f"no side fixes the value of {unknowns}, so .* must balance"):
            sciml.solve(equation, grid, fields=fields)
    balanced = sciml.solve(equation, grid, fields={"f": -1.0, "g": 1.0})
    torch.testing.assert_close(balanced.fields["v"] - balanced.fields["u"], torch.full((16, 16), 1 / 3).double())


def test_large_system_is_solved_iteratively():
    equation = sciml.Equation(["-laplacian(u) + v = f", "-laplacian(v) - u = 0"], unknowns=("u", "v"))
    solution = sciml.solve(equation, sciml.Grid((170, 170)), fields={"f": 1.0})
    assert "block-diagonal" in solution.method
    assert int(solution.statistics["iterations"]) <= 20


def test_pure_neumann_has_zero_mean_and_balances():
    grid = sciml.Grid((33, 40), boundary={"x": (sciml.Neumann(-1.0), sciml.Neumann(1.0)), "y": sciml.Neumann(0.0)})
    solution = sciml.solve(POISSON, grid, fields={"f": 0.0})
    x = grid.coordinates[0]
    torch.testing.assert_close(solution.value, x - 0.5, rtol=0, atol=1e-8)
    assert any("zero mean" in note for note in solution.notes)


@pytest.mark.parametrize("method", [None, ConjugateGradient(preconditioner=Multigrid()), Direct()])
def test_a_periodic_axis_of_one_point(method):
    """Nothing varies along it: the solution is that of the other axes, and 0 where there are none."""
    alone = sciml.solve(POISSON, sciml.Grid((1,), boundary=sciml.Periodic()), fields={"f": 0.0}, method=method)
    assert alone.value.tolist() == [0.0]
    line = sciml.solve(POISSON, sciml.Grid((9,)), fields={"f": lambda x: 1 + x}, method=method)
    thin = sciml.Grid((9, 1), boundary={"x": sciml.Dirichlet(0.0), "y": sciml.Periodic()})
    plane = sciml.solve(POISSON, thin, fields={"f": lambda x, y: 1 + x}, method=method)
    torch.testing.assert_close(plane.value[:, 0], line.value)


def test_incompatible_problem_is_refused():
    grid = sciml.Grid((32, 32), boundary=sciml.Neumann(0.0))
    with pytest.raises(sciml.InputError, match=r"must balance.*there is no solution"):
        sciml.solve(POISSON, grid, fields={"f": 1.0})


@pytest.mark.parametrize("text", ["-div(a*grad(u)) = f", "div(a*grad(u)) = f"])
@pytest.mark.parametrize("boundary", [sciml.Dirichlet(0.0), sciml.Neumann(0.0)])
def test_the_sign_of_the_diffusion_is_free(text, boundary):
    grid, equation = sciml.Grid((16, 16), boundary=boundary), sciml.Equation(text)
    a = 1 + torch.rand(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = [
        sciml.solve(equation, grid, fields={"a": sign * a, "f": lambda x, y: torch.cos(math.pi * x)}).value
        for sign in (1, -1)
    ]
    torch.testing.assert_close(values[0], -values[1])


def zero_in_cells(*cells):
    a = torch.ones(12, 12, dtype=torch.float64)
    for cell in cells:
        a[cell] = 0.0
    return a


@pytest.mark.parametrize("boundary", [sciml.Dirichlet(0.0), sciml.Neumann(0.0)])
@pytest.mark.parametrize(
    ("a", "count"), [(zero_in_cells((3, 4), (3, 5)), 2), (0 * zero_in_cells(), 144), (0.0, 144)], ids=str
)
def test_cells_without_diffusion_need_another_term(a, count, boundary):
    grid, fields = sciml.Grid((12, 12), boundary=boundary), {"a": a, "f": lambda x, y: torch.cos(math.pi * x)}
    with pytest.raises(
        sciml.InputError, match=rf"field 'a' is 0 where nothing else determines u: {count} of 144 cells"
    ):
        sciml.solve(DARCY, grid, fields=fields)
    reacting = sciml.solve(sciml.Equation("-div(a*grad(u)) + u = f"), grid, fields=fields)
    cells = (a == 0.0) if isinstance(a, torch.Tensor) else torch.ones(12, 12, dtype=torch.bool)
    source = torch.cos(math.pi * grid.coordinates[0])
    torch.testing.assert_close(reacting.value[cells], source[cells])


def test_zero_diffusion_that_leaves_no_cell_alone():
    """With arithmetic means a cell of zero diffusion is still linked to its neighbours."""
    fields, scheme = {"a": zero_in_cells((3, 4)), "f": 1.0}, sciml.FiniteVolume("arithmetic")
    solution = sciml.solve(DARCY, sciml.Grid((12, 12)), fields=fields, scheme=scheme)
    assert bool(solution.converged)
    residual = solution.system.right_side - solution.system.operator.apply(solution.value)
    assert float(residual.norm()) < 1e-8 * float(solution.system.right_side.norm())


def test_small_imbalance_of_the_discretization_is_subtracted_and_said():
    """exp(x) - (e - 1) balances as an integral, not as a sum over cells."""
    grid = sciml.Grid((20, 20), boundary=sciml.Neumann(0.0))
    solution = sciml.solve(POISSON, grid, fields={"f": lambda x, y: torch.exp(x) - (math.e - 1)})
    assert any("error of the discretization" in note for note in solution.notes)


def test_method_and_tolerance_are_honoured():
    method = ConjugateGradient(preconditioner=Jacobi(), max_iterations=2000)
    solution = sciml.solve(POISSON, sciml.Grid((30, 30)), fields={"f": 1.0}, method=method, rtol=1e-3)
    assert "as requested" in solution.method
    assert 1e-5 < float(solution.statistics["relative_residual"]) <= 1e-3


@pytest.mark.parametrize(("atol", "iterations"), [(None, 0), (0.0, 1), (1e-3, 1)])
def test_an_absolute_tolerance_of_the_call_replaces_that_of_the_method(atol, iterations):
    method = ConjugateGradient(preconditioner=Multigrid(), atol=1e3)
    solution = sciml.solve(POISSON, sciml.Grid((30, 30)), fields={"f": 1.0}, method=method, atol=atol)
    assert min(int(solution.statistics["iterations"]), 1) == iterations


def test_initial_value_saves_iterations():
    grid = sciml.Grid((64, 64))
    method = ConjugateGradient(preconditioner=Multigrid())
    first = sciml.solve(POISSON, grid, fields={"f": 1.0}, method=method, rtol=1e-6)
    again = sciml.solve(POISSON, grid, fields={"f": 1.0}, method=method, rtol=1e-8, initial=first)
    cold = sciml.solve(POISSON, grid, fields={"f": 1.0}, method=method, rtol=1e-8)
    assert int(again.statistics["iterations"]) < int(cold.statistics["iterations"])


def test_initial_value_by_name():
    """What a trained operator answers: fields by name, of which those that are missing are zero."""
    grid = sciml.Grid((32, 32))
    method = ConjugateGradient(preconditioner=Multigrid())
    start = {"u": sciml.solve(POISSON, grid, fields={"f": 1.0}, rtol=1e-6).value}
    given = {"fields": {"f": 1.0}, "method": method}
    named, plain = (sciml.solve(POISSON, grid, initial=value, **given) for value in (start, start["u"]))
    assert torch.equal(named.value, plain.value)
    assert torch.equal(named.history["residual_norm"], plain.history["residual_norm"])
    pair = sciml.Equation(["-laplacian(u) + v = f", "-laplacian(v) = f"], unknowns=("u", "v"))
    both = sciml.solve(pair, grid, fields={"f": 1.0})
    again = sciml.solve(pair, grid, fields={"f": 1.0}, initial=both.fields)
    assert int(again.statistics["iterations"].max()) <= 1
    torch.testing.assert_close(again.value, both.value, rtol=1e-6, atol=1e-9)
    with pytest.raises(sciml.InputError, match="'w' is not an unknown"):
        sciml.solve(POISSON, grid, fields={"f": 1.0}, initial={"w": start["u"]})


def test_where_geometric_multigrid_is_slow_another_takes_over():
    pytest.importorskip("pyamg")
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(75, 75, generator=generator, dtype=torch.float64) < 0.5
    a = torch.where(high, 1e4, 1.0).double()
    a = a.repeat_interleave(2, 0).repeat_interleave(2, 1).requires_grad_()
    grid, fields = sciml.Grid((150, 150)), {"a": a, "f": lambda x, y: x - y**2}
    solution = sciml.solve(DARCY, grid, fields=fields)
    assert "algebraic" in solution.method and "geometric multigrid(2,2) had not converged in 60" in solution.method
    reference = sciml.solve(DARCY, grid, fields=fields, method=Direct())
    # The condition number, about 1e8, stands between residual and error.
    torch.testing.assert_close(solution.value, reference.value, rtol=1e-5, atol=1e-7)
    iterations = int(solution.statistics["iterations"])
    assert 60 < iterations < 100 and len(solution.history["residual_norm"]) == iterations + 1
    (found,) = torch.autograd.grad(solution.value.square().sum(), a)
    (expected,) = torch.autograd.grad(reference.value.square().sum(), a)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_algebraic_multigrid_does_not_take_over_where_its_smoother_fails():
    """A reaction that makes a part of the diagonal negative: what is left is a direct solve."""
    fields = {"f": lambda x, y: x - y**2, "k": lambda x, y: 17000.0 * ((x - 0.3).abs() < 0.1).to(x)}
    equation = sciml.Equation("-laplacian(u) + u_x - k*u = f")
    solution = sciml.solve(equation, sciml.Grid((64, 64)), fields=fields)
    assert "a direct solve, since GMRES(30) with geometric multigrid" in solution.method
    reference = sciml.solve(equation, sciml.Grid((64, 64)), fields=fields, method=Direct())
    torch.testing.assert_close(solution.value, reference.value, rtol=1e-10, atol=0.0)


def test_float32_reaches_rounding_and_warns():
    with pytest.warns(UserWarning, match="level of rounding"):
        solution = sciml.solve(POISSON, sciml.Grid((256, 256), dtype=torch.float32), fields={"f": 1.0})
    assert bool(solution.converged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reference = sciml.solve(POISSON, sciml.Grid((256, 256)), fields={"f": 1.0})
    assert float((solution.value - reference.value).norm() / reference.value.norm()) < 1e-3


def test_failing_row_is_reported_alone():
    a = torch.stack([torch.ones(24, 24), torch.ones(24, 24)]).double()
    a[1, ::2] = 1e7
    f = torch.ones(2, 24, 24, dtype=torch.float64, requires_grad=True)
    method = ConjugateGradient(max_iterations=60)
    solution = sciml.solve(DARCY, sciml.Grid((24, 24)), fields={"a": a, "f": f}, method=method, throw=False)
    assert [status.name for status in solution.status] == ["CONVERGED", "MAX_ITERATIONS"]
    assert "raise max_iterations" in solution.status[1].advice
    solution.value.sum().backward()
    assert float(f.grad[1].abs().max()) == 0.0
    assert float(f.grad[0].abs().min()) > 0.0
    with pytest.raises(sciml.SolveError, match=r"row 1 .*MAX_ITERATIONS") as caught:
        sciml.solve(DARCY, sciml.Grid((24, 24)), fields={"a": a, "f": f.detach()}, method=method)
    assert bool(caught.value.solution.converged[0])
    assert caught.value.solution.system is not None


def problem(shape=(4, 3)):
    """A function of coefficient, source and boundary value, solved tightly."""
    grid_sides = {"y": (sciml.Robin(1.5, 0.3), sciml.Neumann(0.2))}

    def value(a, f, g):
        sides = {"x": (sciml.Dirichlet(g), sciml.Dirichlet(0.5)), **grid_sides}
        grid = sciml.Grid(shape, boundary=sides)
        return sciml.solve(DARCY, grid, fields={"a": a, "f": f}, rtol=1e-13).value

    generator = torch.Generator().manual_seed(0)
    a = 1 + torch.rand(shape, generator=generator, dtype=torch.float64)
    f = torch.randn(shape, generator=generator, dtype=torch.float64)
    g = torch.tensor(0.7, dtype=torch.float64)
    return value, [t.requires_grad_() for t in (a, f, g)]


def test_first_and_second_gradients_against_finite_differences():
    value, inputs = problem()
    # The step balances the truncation error, eps^2, with the solver's, 1e-13 / eps.
    assert torch.autograd.gradcheck(value, inputs, eps=1e-4, rtol=1e-6, atol=1e-8, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(value, inputs, eps=1e-4, rtol=1e-6, atol=1e-7)


def test_gradient_of_a_batch_with_obstacles_and_parameters():
    """d/d nu of the mean of the solution of -nu laplacian(u) = 1 is -mean/nu, row by row, around an obstacle."""
    solid = torch.zeros(20, 20, dtype=torch.bool)
    solid[5:9, 6:12] = True
    nu = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64, requires_grad=True)
    equation = sciml.Equation("-nu*laplacian(u) = f", parameters={"nu": 1.0})
    grid = sciml.Grid((20, 20), solid=solid, walls=sciml.Dirichlet(0.0))
    solution = sciml.solve(equation, grid, fields={"f": 1.0}, parameters={"nu": nu}, rtol=1e-12)
    assert solution.value.shape == (3, 20, 20)
    assert float(solution.value[:, solid].abs().max()) == 0.0
    mean = solution.integral()
    (gradient,) = torch.autograd.grad(mean.sum(), nu)
    torch.testing.assert_close(gradient, -mean.detach() / nu.detach(), rtol=1e-9, atol=0)
    assert [status.name for status in solution.adjoint_status] == ["CONVERGED"] * 3


@pytest.mark.parametrize("domain", [sciml.Grid((6, 5)), sciml.Mesh.box((4, 4))], ids=["grid", "mesh"])
@pytest.mark.parametrize("make", [sciml.solve, sciml.discretize], ids=["solve", "discretize"])
def test_domains_first_used_in_inference_mode_still_carry_gradients(domain, make):
    equation = sciml.Equation("-div(a*grad(u)) + b*u_x = c*f")
    fields = {"a": lambda x, y: 2.0 + 0.0 * x, "b": 0.5, "f": lambda x, y: 1.0 + x * y}
    with torch.inference_mode():
        first = make(equation, domain, fields={**fields, "c": 1.0}, boundary=sciml.Dirichlet(0.0))
    c = torch.ones((), dtype=torch.float64, requires_grad=True)
    second = sciml.solve(equation, domain, fields={**fields, "c": c}, boundary=sciml.Dirichlet(0.0))
    (gradient,) = torch.autograd.grad(second.integral(), c)
    assert float(gradient) == pytest.approx(float(second.integral()), rel=1e-9)  # the solution is linear in c
    if make is sciml.solve:
        torch.testing.assert_close(second.value.detach(), first.value, rtol=1e-7, atol=1e-10)


def test_what_is_no_equation_or_domain_is_refused():
    grid, equation = sciml.Grid((4, 4)), sciml.Equation("-laplacian(u) = 1")
    for call in (sciml.solve, sciml.discretize, sciml.discretize_nonlinear):
        with pytest.raises(
            sciml.InputError, match=r"expected an Equation, got str; write sciml.Equation\('-laplacian\(u\)"
        ):
            call("-laplacian(u) = 1", grid)
        with pytest.raises(sciml.InputError, match="expected an Equation, got NoneType"):
            call(None, grid)
        with pytest.raises(sciml.InputError, match="domain: expected a Grid or a Mesh, got tuple"):
            call(equation, (4, 4))


def test_wrong_method_is_refused():
    with pytest.raises(sciml.InputError, match="method must be a linear solver"):
        sciml.solve(POISSON, sciml.Grid((8, 8)), fields={"f": 1.0}, method="cg")


def test_initial_value_of_a_singular_problem_is_projected():
    grid = sciml.Grid((24, 24), boundary=sciml.Neumann(0.0))
    fields = {"f": lambda x, y: torch.cos(math.pi * x)}
    first = sciml.solve(POISSON, grid, fields=fields)
    again = sciml.solve(POISSON, grid, fields=fields, initial=first.value + 5)
    assert abs(float(again.value.mean())) < 1e-12


def test_a_row_that_overflows_does_not_touch_the_gradients_of_others():
    k = torch.full((2, 10, 10), 4.0, dtype=torch.float64)
    k[1, 3, 3] = 1e308
    o = torch.full((1, 1), -1.0, dtype=torch.float64, requires_grad=True)
    offsets = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    operator = StencilOperator((10, 10), offsets, [k, o, o, o, o], (False, False), symmetric=True)
    b = torch.ones(2, 10, 10, dtype=torch.float64)
    solution = ConjugateGradient().solve(operator, b, throw=False)
    assert solution.status[0].name == "CONVERGED"
    assert solution.status[1].name == "NON_FINITE"
    assert not bool(torch.isfinite(solution.value[1]).all())
    solution.value[0].sum().backward()
    both = float(o.grad)
    o.grad = None
    ConjugateGradient().solve(operator[0], b[0]).value.sum().backward()
    assert both == pytest.approx(float(o.grad), rel=1e-6)


def test_batches_that_do_not_broadcast_are_refused():
    operator = sciml.discretize(DARCY, sciml.Grid((8, 8)), {"a": torch.ones(3, 8, 8).double(), "f": 1.0}).operator
    with pytest.raises(sciml.InputError, match=r"batch shapes that do not broadcast: the operator \(3,\)"):
        ConjugateGradient().solve(operator, torch.ones(2, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(40, 36), (20, 18, 22)])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("method", [None, ConjugateGradient(preconditioner=AlgebraicMultigrid(coarsest=20))])
def test_cells_that_obstacles_cut_off(shape, width, method):
    """Coarse grids have points there that are coupled to none."""
    solid = torch.zeros(shape, dtype=torch.bool)
    solid[tuple(slice(7, 9 + width) for _ in shape)] = True
    pocket = tuple(slice(8, 8 + width) for _ in shape)
    solid[pocket] = False
    sides = {axis: sciml.Neumann(0.0) for axis in "xyz"[: len(shape)]}
    grid = sciml.Grid(shape, boundary={**sides, "x": (sciml.Dirichlet(1.0), sciml.Dirichlet(0.0))}, solid=solid)
    a = 10 ** (3 * torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(width)))
    equation = sciml.Equation("-div(a*grad(u)) = f")
    solution = sciml.solve(equation, grid, fields={"a": a, "f": 0.0}, method=method)
    exact = sciml.solve(equation, grid, fields={"a": a, "f": 0.0}, method=Direct()).value
    exact[pocket] = 0.0
    torch.testing.assert_close(solution.value, exact, rtol=0, atol=1e-6)

    f = torch.zeros(shape, dtype=torch.float64)
    f[pocket] = 1e9
    with pytest.raises(sciml.InputError, match=rf"value of u in the {width ** len(shape)} cells around \(\d+, .* cut"):
        sciml.solve(equation, grid, fields={"a": a, "f": f}, method=method)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_geometric_multigrid_tells_small_coefficients_from_rounding(dtype):
    a = torch.ones(64, 64, dtype=dtype)
    a[:32] = 1e7
    grid = sciml.Grid((64, 64), boundary=sciml.Dirichlet(0.0), dtype=dtype)
    system = sciml.discretize(sciml.Equation("-div(a*grad(u)) = f"), grid, fields={"a": a, "f": 1.0})
    method = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-4)
    assert int(method.solve(system.operator, system.right_side).statistics["iterations"]) <= 5
