"""Newton's and Picard's iterations and continuation: known solutions, status row by row, gradients."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.autograd import forward_ad

import sciml
from sciml import Dirichlet, Grid, InputError, Mesh, Neumann, SolveError, Status
from sciml.solvers.linear import GMRES, ConjugateGradient, Direct, IncompleteCholesky, Multigrid
from sciml.solvers.nonlinear import Backtracking, Continuation, EisenstatWalker, Newton, Picard

BRATU = sciml.Equation("-laplacian(u) = lam*exp(u)", parameters={"lam": 1.0})
HEAT = sciml.Equation("-div((1 + u**2)*grad(u)) = f")
FOLD = 3.513830719  # of Bratu's problem on the unit interval: Davis, Introduction to Nonlinear Differential Equations
FOLD_SQUARE = 6.808124423  # and on the unit square: Mohsen, Comput. Math. Appl. 67 (2014) 26-33


def bratu(x: Tensor, lam: float) -> Tensor:
    """The lower solution on the unit interval: -2 log(cosh((x - 1/2) theta/2) / cosh(theta/4)), theta = sqrt(2 lam)
    cosh(theta/4)."""
    theta = brentq(lambda t: t - math.sqrt(2 * lam) * math.cosh(t / 4), 0.0, 4.798)
    return -2 * torch.log(torch.cosh((x - 0.5) * theta / 2) / math.cosh(theta / 4))


@pytest.mark.parametrize("lam", [1.0, 2.0, 3.5])
def test_bratu_on_an_interval(lam: float) -> None:
    errors = []
    for n in (50, 100):
        solution = sciml.solve(BRATU, Grid(n), parameters={"lam": lam}, rtol=1e-10)
        errors.append(float((solution.value - bratu(solution.domain.coordinates[0], lam)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)


def test_beyond_the_fold_a_row_stagnates_alone() -> None:
    lam = torch.tensor([1.0, 6.0, 7.5], dtype=torch.float64)
    solution = sciml.solve(BRATU, Grid((24, 24)), parameters={"lam": lam}, throw=False)
    assert solution.status == (Status.CONVERGED, Status.CONVERGED, Status.STAGNATED)
    assert all(word in solution.status[2].advice for word in ("line search", "initial guess", "Continuation"))
    for row in range(2):
        alone = sciml.solve(BRATU, Grid((24, 24)), parameters={"lam": lam[row]})
        torch.testing.assert_close(solution.value[row], alone.value, rtol=1e-6, atol=1e-8)
    with pytest.raises(SolveError, match=r"row 2 \(1 of 3 rows failed\) ended with STAGNATED") as failure:
        sciml.solve(BRATU, Grid((24, 24)), parameters={"lam": lam})
    assert bool(failure.value.solution.converged[:2].all())


def test_continuation_ends_at_the_fold() -> None:
    method = Continuation("lam", steps=8)
    solution = sciml.solve(BRATU, Grid((24, 24)), parameters={"lam": 9.0}, method=method, throw=False)
    assert solution.status == (Status.STAGNATED,)
    reached = float(solution.history["parameter"][-1])
    assert FOLD_SQUARE * 0.99 < reached < FOLD_SQUARE * 1.005  # that of the discrete equation, and the last step
    system = sciml.discretize_nonlinear(BRATU, Grid((24, 24)), parameters={"lam": reached})
    assert float(system.residual(solution.value).norm()) < 1e-7 * float(system.residual(0 * solution.value).norm())


def test_continuation_gets_where_newton_does_not() -> None:
    """p-Laplacian of a high power: from p = 2, the Laplacian, to p = 8."""
    text = "-div((1e-6 + dot(grad(u), grad(u)))**(p/2 - 1)*grad(u)) = 1"
    equation = sciml.Equation(text, parameters={"p": 8.0})
    solution = sciml.solve(equation, Grid(64), method=Continuation("p", start=2.0))
    x = solution.domain.coordinates[0]
    q = 8.0 / 7.0  # u = (1 - |2 x - 1|^q) / (q 2^q) on the unit interval
    exact = (1 - (2 * x - 1).abs() ** q) / (q * 2**q)
    assert float((solution.value - exact).abs().max()) < 2e-3
    parameters = solution.history["parameter"]
    assert float(parameters[0]) == 2.0
    assert float(parameters[-1]) == 8.0
    assert bool((parameters.diff() > 0).all())


def test_newton_converges_quadratically() -> None:
    method = Newton(linear=Direct(), rtol=1e-12)
    solution = sciml.solve(BRATU, Grid((20, 20)), parameters={"lam": 5.0}, method=method)
    norms = solution.history["residual_norm"] / solution.history["residual_norm"][0]
    assert float(norms[-2]) < 1e-4
    assert all(float(after) < 5.0 * float(before) ** 2 for before, after in pairwise(norms[1:]))


def test_inexact_steps_cost_less_and_end_at_the_same_place() -> None:
    grid, options = Grid((48, 48)), {"fields": {"f": 30.0}, "rtol": 1e-10}
    linear = GMRES(preconditioner=Multigrid(cycle=1))
    tight = EisenstatWalker(largest=1e-9, smallest=1e-9)
    exact = sciml.solve(HEAT, grid, method=Newton(linear=linear, forcing=tight), **options)
    inexact = sciml.solve(HEAT, grid, method=Newton(linear=linear), **options)
    assert int(inexact.statistics["inner_iterations"]) < 0.8 * int(exact.statistics["inner_iterations"])
    torch.testing.assert_close(inexact.value, exact.value, rtol=1e-8, atol=1e-10)


def test_kirchhoff() -> None:
    """v = u + u**3/3 solves -laplacian(v) = f, which is linear."""
    grid = Grid((64, 64))
    heat = sciml.solve(HEAT, grid, fields={"f": 20.0}, rtol=1e-10).value
    linear = sciml.solve(sciml.Equation("-laplacian(v) = f"), grid, fields={"f": 20.0}, rtol=1e-10).value
    assert float((heat + heat**3 / 3 - linear).abs().max()) < 5e-3 * float(linear.max())


def test_picard_reaches_the_same_solution() -> None:
    newton = sciml.solve(HEAT, Grid((32, 32)), fields={"f": 5.0}, rtol=1e-9)
    picard = sciml.solve(HEAT, Grid((32, 32)), fields={"f": 5.0}, rtol=1e-9, method=Picard())
    torch.testing.assert_close(picard.value, newton.value, rtol=1e-7, atol=1e-9)
    assert int(picard.statistics["iterations"]) > int(newton.statistics["iterations"])


def test_the_start_selects_the_solution() -> None:
    """Allen-Cahn has the solutions 1 and -1."""
    equation = sciml.Equation("-0.01*laplacian(u) + u**3 - u = 0")
    grid = Grid((16, 16), boundary=Neumann(0.0))
    for initial, expected in ((0.8, 1.0), (lambda x, y: -1 + 0.1 * x, -1.0), (0.9 * torch.ones(16, 16).double(), 1.0)):
        solution = sciml.solve(equation, grid, initial=initial, atol=1e-9)
        torch.testing.assert_close(solution.value, torch.full((16, 16), expected, dtype=torch.float64))


def test_singular_jacobian_is_reported() -> None:
    """The derivative of u**2 vanishes at the start."""
    equation = sciml.Equation("u**2 + 0*u_xx = 1", unknowns=["u"])
    solution = sciml.solve(equation, Grid(8), method=Newton(linear=Direct()), throw=False)
    assert solution.status == (Status.SINGULAR,)
    assert "Jacobian is singular" in solution.status[0].advice


def test_a_row_without_a_number_fails_alone() -> None:
    equation = sciml.Equation("-laplacian(u) + sqrt(u + c) = 1", parameters={"c": 1.0})
    c = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    solution = sciml.solve(equation, Grid((12, 12)), parameters={"c": c}, throw=False)
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED)


def test_float32() -> None:
    double = sciml.solve(HEAT, Grid((24, 24)), fields={"f": 5.0})
    single = sciml.solve(HEAT, Grid((24, 24), dtype=torch.float32), fields={"f": 5.0})
    torch.testing.assert_close(single.value.double(), double.value, rtol=1e-3, atol=1e-5)


# Gradients

TRANSPORT = sciml.Equation("-div(a*(1 + k*u**2)*grad(u)) + u*u_x = f", parameters={"k": 1.0})


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 5), (), (5,), (6, 5))
    return [(0.5 + torch.rand(s, dtype=torch.float64, generator=generator)).requires_grad_() for s in shapes]


def objective(a: Tensor, k: Tensor, v: Tensor, f: Tensor) -> Tensor:
    grid = Grid((6, 5), boundary={"x": (Dirichlet(v), Neumann(0.0)), "y": Dirichlet(0.3)})
    solution = sciml.solve(TRANSPORT, grid, fields={"a": a, "f": 5 * f}, parameters={"k": k}, rtol=1e-13)
    return (solution.value**2).sum()


def directions() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(x.shape, dtype=torch.float64, generator=generator) for x in inputs()]


def moved(step: float) -> list[Tensor]:
    pairs = zip(inputs(), directions(), strict=True)
    return [(x.detach() + step * d).requires_grad_() for x, d in pairs]


def slope(values: list[Tensor], **options: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(objective(*values), values, **options)


def along(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([(g * d).sum() for g, d in zip(gradients, directions(), strict=True)]).sum()


def test_first_derivatives() -> None:
    step = 1e-5
    for number in range(4):
        values = {sign: [x.detach() for x in inputs()] for sign in (-1, 1)}
        for sign, value in values.items():
            value[number] = value[number] + sign * step * directions()[number]
        expected = (objective(*values[1]) - objective(*values[-1])) / (2 * step)
        found = (slope(inputs())[number] * directions()[number]).sum()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_forward_derivative() -> None:
    with forward_ad.dual_level():
        pairs = zip(inputs(), directions(), strict=True)
        value = objective(*(forward_ad.make_dual(x.detach(), d) for x, d in pairs))
        tangent = forward_ad.unpack_dual(value).tangent
    torch.testing.assert_close(tangent, along(slope(inputs())), rtol=1e-8, atol=0.0)


def test_second_derivatives() -> None:
    values, step = inputs(), 1e-5
    found = torch.autograd.grad(along(slope(values, create_graph=True)), values)
    after, before = slope(moved(step)), slope(moved(-step))
    for second, high, low in zip(found, after, before, strict=True):
        expected = (high - low) / (2 * step)
        torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


@pytest.mark.parametrize("initial", [None, "the solution"])
def test_the_sign_of_the_equation_does_not_matter_to_the_gradient(initial: Any) -> None:
    slopes = []
    for text in ("-laplacian(u) = lam*exp(u)", "laplacian(u) + lam*exp(u) = 0"):
        equation = sciml.Equation(text, parameters={"lam": 1.0})
        lam = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        start = sciml.solve(equation, Grid((8, 8)), parameters={"lam": 2.0}, rtol=1e-12) if initial else None
        solution = sciml.solve(equation, Grid((8, 8)), parameters={"lam": lam}, initial=start, rtol=1e-10)
        slopes.append(torch.autograd.grad(solution.value.sum(), lam)[0])
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-8, atol=0.0)
    assert float(slopes[0]) > 0.0


def test_failed_rows_have_no_gradient() -> None:
    lam = torch.tensor([1.0, 7.5], dtype=torch.float64, requires_grad=True)
    solution = sciml.solve(BRATU, Grid((16, 16)), parameters={"lam": lam}, throw=False)
    (gradient,) = torch.autograd.grad(solution.value.sum(), lam)
    assert float(gradient[0]) > 0.0
    assert float(gradient[1]) == 0.0


def test_a_start_where_the_equation_is_not_defined_is_told() -> None:
    equation = sciml.Equation("-laplacian(u) + log(u) = 1")
    one = Dirichlet(1.0)
    with pytest.raises(SolveError, match=r"NON_FINITE.*begin where it is defined, with another initial guess"):
        sciml.solve(equation, Grid((8, 8)), boundary=one)
    assert sciml.solve(equation, Grid((8, 8)), boundary=one, initial=1.0).converged


# What is refused


@pytest.mark.parametrize(
    ("linear", "message"),
    [
        (ConjugateGradient(), "need.* a symmetric operator.*use GMRES or BiCGStab"),
        (ConjugateGradient(IncompleteCholesky()), "IncompleteCholesky needs a symmetric operator"),
    ],
)
def test_a_linear_solver_that_does_not_suit_is_not_taken_for_a_singular_jacobian(linear: Any, message: str) -> None:
    burgers = sciml.Equation("-laplacian(u) + u*u_x = 1")
    with pytest.raises(InputError, match=message):
        sciml.solve(burgers, Grid((8, 8)), method=Newton(linear=linear))
    on_grids = Newton(linear=GMRES(preconditioner=Multigrid()))
    with pytest.raises(InputError, match="geometric multigrid needs a stencil on a grid"):
        sciml.solve(burgers, Mesh.box((4, 4)), boundary=Dirichlet(0.0), method=on_grids)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Newton(rtol=2.0), r"rtol must be a number in \[0, 1\), got 2.0"),
        (lambda: Newton(linear="direct"), "linear must be a linear solver"),  # type: ignore[arg-type]
        (lambda: Newton(max_iterations=0), "max_iterations must be a whole number of at least 1"),
        (lambda: Backtracking(contraction=1.0), r"contraction must be a number in \(0, 1\)"),
        (lambda: EisenstatWalker(exponent=3.0), r"exponent must be a number in \(1, 2\]"),
        (lambda: Continuation("lam", steps=0), "steps must be a whole number"),
        (lambda: sciml.solve(BRATU, Grid(8), method="newton"), "method must be a linear solver"),
        (lambda: sciml.solve(BRATU, Grid(8), method=Continuation("mu")), "no parameter 'mu'; it has: lam"),
        (lambda: sciml.solve(BRATU, Grid(8), initial=torch.zeros(7).double()), r"initial has shape \(7,\)"),
        (lambda: sciml.solve(BRATU, Grid(8), initial={"v": 1.0}), "initial: 'v' is not an unknown"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
