"""Nonlinear equations on meshes: orders, exact solutions, balances, iterations, status row by row, gradients."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import sciml
from sciml import Dirichlet, Equation, FiniteElement, InputError, Mesh, Neumann, Robin, SolveError, Status, solve
from sciml.solvers.linear import GMRES, ILU0, Direct
from sciml.solvers.nonlinear import Continuation, Newton, Picard

Function = Callable[..., Tensor]

BRATU = Equation("-laplacian(u) = lam*exp(u)", parameters={"lam": 1.0})
HEAT = Equation("-div((1 + u**2)*grad(u)) = f")
ZERO = Dirichlet(0.0)


def unstructured(n: int, dimension: int = 2, seed: int = 0) -> Mesh:
    """The unit square or cube, n intervals an axis, with the inner points moved by up to a fifth of a spacing."""
    box = Mesh.box((n,) * dimension, (0.0,) * dimension, (1.0,) * dimension)
    generator = torch.Generator().manual_seed(seed)
    inner = torch.ones(len(box.points), dtype=torch.bool)
    inner[box.facets.reshape(-1)] = False
    moves = (torch.rand(box.points.shape, generator=generator, dtype=torch.float64) - 0.5) * 0.4 / n
    return Mesh(torch.where(inner[:, None], box.points + moves, box.points), box.cells, box.boundaries)


# Orders of convergence


def wave(x: Tensor, y: Tensor, *z: Tensor) -> Tensor:
    plane = torch.sin(2 * x + 0.3) * torch.cos(1.5 * y) + 0.4 * x
    return plane * (1 + z[0] ** 2 / 2) if z else plane


def gentle(*c: Tensor) -> Tensor:
    """For equations of mean curvature and Hamilton-Jacobi, which have no solution for large sources."""
    return 0.2 * wave(*c)


def other(x: Tensor, y: Tensor) -> Tensor:
    return 0.5 + 0.3 * torch.cos(2 * x) * torch.sin(1 + y)


def medium(x: Tensor, y: Tensor, *z: Tensor) -> Tensor:
    return 1.5 + x * torch.sin(3 * y)


def sources(equation: Equation, functions: Mapping[str, Function], dimension: int) -> dict[str, Function]:
    """f, or f0, f1, ... of a system, that make the functions of the unknowns its solution."""

    def residual(number: int, *c: Tensor) -> Tensor:
        values: dict[str, Any] = dict(zip("xyz", c, strict=False))
        for name in equation.required(dimension) - set(values):
            base, _, letters = name.partition("_")
            if base not in functions:
                values[name] = 0.0  # a source
                continue
            function = functions[base]
            for letter in letters:
                function = partial(function, "xyz".index(letter))
            values[name] = function(*c).detach()
        found = equation.residual(values, dimension)
        return found[number] if isinstance(found, tuple) else found  # type: ignore[return-value]

    names = [name for name in equation.coefficients if name.startswith("f")]
    return {name: lambda *c, number=number: residual(number, *c) for number, name in enumerate(sorted(names))}


def partial(function: Function, axis: int) -> Function:
    def derived(*c: Tensor) -> Tensor:
        with torch.enable_grad():
            places = [x if x.requires_grad else x.detach().clone().requires_grad_() for x in c]
            value = function(*places) + 0.0 * places[axis]
            return torch.autograd.grad(value.sum(), places[axis], create_graph=True)[0]

    return derived


def orders(
    text: str | list[str],
    exact: Mapping[str, Function],
    boundary: Any,
    sizes: tuple[int, int],
    dimension: int = 2,
    parameters: Mapping[str, float] | None = None,
) -> Tensor:
    """(2,) or (2, channel): in L2 and in H1."""
    equation = Equation(text, unknowns=list(exact), parameters=dict(parameters or {}))
    coefficients = {"a": medium} if "a" in equation.coefficients else {}
    fields = {**coefficients, **sources(equation, {**coefficients, **exact}, dimension)}
    errors = []
    for n in sizes:
        solution = solve(equation, unstructured(n, dimension), fields=fields, boundary=boundary, rtol=1e-10)
        found = solution.error(exact if len(exact) > 1 else next(iter(exact.values())))
        errors.append(torch.stack([found["L2"], found["H1"]]))
    return torch.log2(errors[0] / errors[1])


CASES: dict[str, tuple[str, dict[str, float]]] = {
    "heat": ("-div((1 + u**2)*grad(u)) = f", {}),
    "heat in a medium": ("-div(a*(1 + u**2)*grad(u)) = f", {}),
    "heat in a mixture": ("-div((a + u**2)*grad(u)) = f", {}),
    "tensor": ("-div([(2 + u**2)*u_x + a*u*u_y, a*u*u_x + 3*u_y]) = f", {}),
    "Bratu": ("-laplacian(u) = p*exp(u) + f", {"p": 2.0}),
    "Burgers": ("u*u_x + u*u_y - p*laplacian(u) = f", {"p": 0.3}),
    "Burgers, conservative": ("div([u*u/2, u*u/2]) - p*laplacian(u) = f", {"p": 0.3}),
    "Allen-Cahn": ("-p**2*laplacian(u) + u**3 - u = f", {"p": 0.5}),
    "p-Laplacian": ("-div((0.1 + dot(grad(u), grad(u)))**p*grad(u)) = f", {"p": 0.5}),
    "minimal surface": ("-div(grad(u)/sqrt(1 + dot(grad(u), grad(u)))) = f", {}),
    "advective flux": ("-div((1 + u**2)*grad(u) - a*u**2*[1, 2]) = f", {}),
    "Hamilton-Jacobi": ("u + dot(grad(u), grad(u)) - p*laplacian(u) = f", {"p": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_orders_on_triangles(case: str) -> None:
    text, parameters = CASES[case]
    exact = gentle if case in ("minimal surface", "Hamilton-Jacobi") else wave
    l2, h1 = orders(text, {"u": exact}, Dirichlet(exact), (24, 48), parameters=parameters).tolist()
    assert abs(l2 - 2.0) < 0.1
    assert abs(h1 - 1.0) < 0.1


@pytest.mark.parametrize("case", ["heat in a medium", "Burgers", "p-Laplacian"])
def test_orders_on_tetrahedra(case: str) -> None:
    text, parameters = CASES[case]
    l2, h1 = orders(text, {"u": wave}, Dirichlet(wave), (8, 16), 3, parameters).tolist()
    assert abs(l2 - 2.0) < 0.1
    assert abs(h1 - 1.0) < 0.1


@pytest.mark.parametrize("text", ["-div(a*(1 + u**2)*grad(u) + [u**2, a*u]) = f", "-div({k}*grad(u)) + u**3 = f"])
def test_orders_with_conditions_on_the_flux(text: str) -> None:
    """The flux of the condition is all that holds derivatives: k du/dn, also where k depends on the gradient."""
    text = text.format(k="(1 + dot(grad(u), grad(u)))")

    def flux(axis: int, sign: float) -> Function:
        def normal(*c: Tensor) -> Tensor:
            slopes = [partial(wave, k)(*c).detach() for k in range(2)]
            k = 1 + slopes[0] ** 2 + slopes[1] ** 2 if "dot" in text else medium(*c) * (1 + wave(*c) ** 2)
            return sign * k * slopes[axis]

        return normal

    boundary = {
        "x_lower": Dirichlet(wave),
        "x_upper": Neumann(flux(0, 1.0)),
        "y_lower": Robin(1.5, lambda *c: flux(1, -1.0)(*c) + 1.5 * wave(*c)),
        "rest": Neumann(flux(1, 1.0)),
    }
    l2, h1 = orders(text, {"u": wave}, boundary, (24, 48)).tolist()
    assert abs(l2 - 2.0) < 0.1
    assert abs(h1 - 1.0) < 0.1


@pytest.mark.parametrize(
    "text",
    [
        ["-div((1 + v**2)*grad(u)) = f0", "-laplacian(v) - (1 + v**2)*dot(grad(u), grad(u)) = f1"],
        ["-p*laplacian(u) + u*v**2 - 0.04*(1 - u) = f0", "-p*laplacian(v) - u*v**2 + 0.1*v = f1"],
    ],
    ids=["thermistor", "Gray-Scott"],
)
def test_orders_of_systems(text: list[str]) -> None:
    parameters = {"p": 0.3} if "p*" in text[0] else {}
    boundary = {"u": Dirichlet(wave), "v": Dirichlet(other)}
    found = orders(text, {"u": wave, "v": other}, boundary, (16, 32), parameters=parameters)
    assert float((found[0] - 2.0).abs().max()) < 0.1
    assert float((found[1] - 1.0).abs().max()) < 0.1


# Exact solutions and balances


@pytest.mark.parametrize("dimension", [2, 3])
def test_linear_functions_are_solved_exactly(dimension: int) -> None:
    """u linear: div((1 + u) grad u) = |grad u|^2, and all integrals of it are exact."""
    mesh, slopes = unstructured(4, dimension), [1.0, -2.0, 0.5][:dimension]

    def linear(*c: Tensor) -> Tensor:
        return 3.25 + sum(slope * x for slope, x in zip(slopes, c, strict=True))

    boundary = {
        "x_upper": Robin(2.0, lambda *c: (1 + linear(*c)) * slopes[0] + 2.0 * linear(*c)),
        "rest": Dirichlet(linear),
    }
    equation = Equation("-div((1 + u)*grad(u)) = f")
    solution = solve(equation, mesh, fields={"f": -sum(s**2 for s in slopes)}, boundary=boundary, rtol=1e-13)
    torch.testing.assert_close(solution.value, linear(*mesh.coordinates), rtol=1e-12, atol=1e-12)
    middle = torch.rand(20, dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(solution.at(middle), linear(*middle.unbind(1)), rtol=1e-12, atol=1e-12)
    wanted = torch.tensor(slopes, dtype=torch.float64)[:, None].expand(-1, len(mesh.points))
    torch.testing.assert_close(solution.gradient(), wanted, rtol=1e-10, atol=1e-10)
    assert float(solution.integral()) == pytest.approx(3.25 + 0.5 * sum(slopes), rel=1e-12)
    for axis, name in enumerate("xyz"[:dimension]):
        for end, sign in (("upper", 1.0), ("lower", -1.0)):
            mean = 4.25 + 0.5 * sum(slopes) + 0.5 * sign * slopes[axis]  # of 1 + u over the side
            assert float(solution.flux(f"{name}_{end}")) == pytest.approx(sign * mean * slopes[axis], rel=1e-9)


def test_fluxes_balance_the_sources() -> None:
    """Over all boundaries: the integral of what else stands in the equation, to the accuracy of the solve."""
    mesh = unstructured(8).with_regions({"left": lambda x, y: x < 0.5})
    boundary = {"x_lower": Dirichlet(1.0), "x_upper": Neumann(0.3), "y_lower": Robin(2.0, 1.0), "y_upper": ZERO}
    equation = Equation("-div(a*(1 + u**2)*grad(u)) + div([b*u**2, u**3]) + 4*u = f")
    fields = {"a": {"left": 1.0, "rest": 5.0}, "b": lambda x, y: 1.0 + y, "f": 2.0}
    solution = solve(equation, mesh, fields=fields, boundary=boundary, rtol=1e-13)
    total = sum(float(solution.flux(name)) for name in boundary)
    assert total == pytest.approx(4.0 * float(solution.integral()) - 2.0, abs=1e-11)
    assert float(solution.flux("exterior")) == pytest.approx(total, abs=1e-11)
    assert float(solution.flux("x_upper")) != pytest.approx(0.3, abs=1e-3)  # carried with it
    with pytest.raises(InputError, match="no boundary 'outlet'"):
        solution.flux("outlet")


def test_flux_through_held_sides_converges() -> None:
    """Layers in series: of v = u + u**3/3 the flux is that of a linear problem, 4/3 / (0.5/1 + 0.5/4)."""
    mesh = Mesh.box((32, 4), (0.0, 0.0), (1.0, 1.0)).with_regions({"left": lambda x, y: x < 0.5})
    boundary = {"x_lower": ZERO, "x_upper": Dirichlet(1.0), "rest": Neumann(0.0)}
    equation = Equation("-div(a*(1 + u**2)*grad(u)) = 0")
    solution = solve(equation, mesh, fields={"a": {"left": 1.0, "rest": 4.0}}, boundary=boundary)
    assert float(solution.flux("x_upper")) == pytest.approx(4 / 3 / 0.625, rel=1e-3)
    assert float(solution.flux("x_lower")) == pytest.approx(-4 / 3 / 0.625, rel=1e-3)
    middle = float(solution.at([[0.5, 0.3]]))
    assert middle + middle**3 / 3 == pytest.approx(0.5 * 4 / 3 / 0.625, rel=1e-3)


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("-div((a + p*u**2)*grad(u)) + (1 + p*u)*a*u = f", "-div(a*grad(u)) + a*u = f"),
        ("-div(a*grad(u)) + (1 + p*u)*u_x + p*exp(u) = f", "-div(a*grad(u)) + u_x = f"),
    ],
)
def test_a_linear_equation_in_nonlinear_form_has_the_same_solution(disguised: str, plain: str) -> None:
    mesh = unstructured(8)
    fields = {"a": medium, "f": wave}
    boundary = {"x_lower": Dirichlet(1.0), "x_upper": Neumann(0.3), "rest": Robin(2.0, 1.0)}
    expected = solve(Equation(plain), mesh, fields=fields, boundary=boundary, scheme=FiniteElement("none"))
    equation = Equation(disguised, parameters={"p": 0.0})
    for found in (
        solve(equation, mesh, fields=fields, boundary=boundary),
        solve(Equation(plain), mesh, fields=fields, boundary=boundary, method=Newton()),
    ):
        torch.testing.assert_close(found.value, expected.value, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found.flux("x_lower"), expected.flux("x_lower"), rtol=1e-11, atol=0.0)
        assert int(found.statistics["iterations"]) == 1


# Iterations


def test_newton_converges_quadratically() -> None:
    method = Newton(linear=Direct(), rtol=1e-12)
    solution = solve(BRATU, unstructured(16), boundary=ZERO, parameters={"lam": 5.0}, method=method)
    norms = solution.history["residual_norm"] / solution.history["residual_norm"][0]
    assert float(norms[-2]) < 1e-4
    assert all(float(after) < 5.0 * float(before) ** 2 for before, after in pairwise(norms[1:]))


def test_large_problem_takes_few_steps_by_multigrid() -> None:
    pytest.importorskip("pyamg")
    mesh = unstructured(150)
    fields = {"f": lambda x, y: 50.0 * torch.sin(math.pi * x) * torch.sin(math.pi * y)}
    solution = solve(HEAT, mesh, fields=fields, boundary=ZERO, rtol=1e-10)
    assert int(solution.statistics["iterations"]) <= 6
    assert "GMRES(30) with algebraic multigrid V(2,2) (the Jacobian is not symmetric)" in solution.method
    # Kirchhoff: v = u + u**3/3 is 50/(2 pi^2) times the source.
    exact = 50.0 / (2 * math.pi**2) * torch.sin(math.pi * mesh.points[:, 0]) * torch.sin(math.pi * mesh.points[:, 1])
    assert float((solution.value + solution.value**3 / 3 - exact).abs().max()) < 2e-3
    symmetric = solve(BRATU, mesh, boundary=ZERO, parameters={"lam": 5.0})
    assert "conjugate gradients with algebraic multigrid V(2,2) (the Jacobian is symmetric)" in symmetric.method


def test_picard_reaches_the_same_solution() -> None:
    mesh, options = unstructured(12), {"fields": {"f": 5.0}, "boundary": ZERO, "rtol": 1e-9}
    newton = solve(HEAT, mesh, **options)
    picard = solve(HEAT, mesh, method=Picard(), **options)
    torch.testing.assert_close(picard.value, newton.value, rtol=1e-7, atol=1e-9)
    assert int(picard.statistics["iterations"]) > int(newton.statistics["iterations"])


def test_continuation_gets_where_newton_does_not() -> None:
    """p-Laplacian of a high power across a strip: u = (1 - |2 x - 1|^q) / (q 2^q), q = p/(p - 1)."""
    text = "-div((1e-6 + dot(grad(u), grad(u)))**(p/2 - 1)*grad(u)) = 1"
    equation = Equation(text, parameters={"p": 8.0}, unknowns=["u"])
    mesh = Mesh.box((64, 2), (0.0, 0.0), (1.0, 1 / 32))
    boundary = {"x_lower": ZERO, "x_upper": ZERO, "rest": Neumann(0.0)}
    solution = solve(equation, mesh, boundary=boundary, method=Continuation("p", start=2.0))
    q = 8.0 / 7.0
    exact = (1 - (2 * mesh.points[:, 0] - 1).abs() ** q) / (q * 2**q)
    assert float((solution.value - exact).abs().max()) < 2e-3
    assert float(solution.history["parameter"][0]) == 2.0
    assert float(solution.history["parameter"][-1]) == 8.0


def test_picard_makes_a_start_where_zero_is_too_far() -> None:
    """Between held sides of a strip K(u) = u/100 + u**5/5 is linear, and the mean of u that of u K'(u) over K(3)."""
    mesh = unstructured(24)
    boundary = {"x_lower": ZERO, "x_upper": Dirichlet(3.0), "rest": Neumann(0.0)}
    solution = solve(Equation("-div((0.01 + u**4)*grad(u)) = 0"), mesh, boundary=boundary)
    assert "from a start by Picard's iteration" in solution.method
    # What the first attempt and Picard's iteration took is counted too.
    assert int(solution.statistics["iterations"]) > len(solution.history["residual_norm"]) - 1
    assert float(solution.integral()) == pytest.approx((0.045 + 121.5) / 48.63, rel=1e-2)
    assert float(solution.flux("x_upper")) == pytest.approx(-float(solution.flux("x_lower")), rel=1e-8)


def test_the_start_selects_the_solution() -> None:
    """Allen-Cahn has the solutions 1 and -1."""
    equation, mesh = Equation("-0.01*laplacian(u) + u**3 - u = 0"), unstructured(6)
    first = solve(equation, mesh, boundary=Neumann(0.0), initial=0.8, atol=1e-9)
    near = torch.full_like(first.value, 0.9)
    for initial, expected in ((lambda x, y: -1 + 0.1 * x, -1.0), (near, 1.0), (first, 1.0), ({"u": -0.9}, -1.0)):
        solution = solve(equation, mesh, boundary=Neumann(0.0), initial=initial, atol=1e-9)
        torch.testing.assert_close(solution.value, torch.full_like(solution.value, expected))
    both = solve(equation, mesh, boundary=Neumann(0.0), initial=torch.stack([near, -near]), atol=1e-9)
    torch.testing.assert_close(both.value, torch.stack([torch.ones_like(near), -torch.ones_like(near)]))


# Status row by row


def test_beyond_the_fold_a_row_stagnates_alone() -> None:
    """The fold of Bratu's problem on the unit square is at 6.808124423."""
    mesh, lam = unstructured(16), torch.tensor([1.0, 6.0, 7.5], dtype=torch.float64)
    solution = solve(BRATU, mesh, boundary=ZERO, parameters={"lam": lam}, throw=False)
    assert solution.status == (Status.CONVERGED, Status.CONVERGED, Status.STAGNATED)
    assert all(word in solution.status[2].advice for word in ("line search", "initial guess", "Continuation"))
    assert bool(torch.isfinite(solution.value).all())
    for row in range(2):
        alone = solve(BRATU, mesh, boundary=ZERO, parameters={"lam": lam[row]})
        torch.testing.assert_close(solution.value[row], alone.value, rtol=1e-6, atol=1e-8)
    with pytest.raises(SolveError, match=r"row 2 \(1 of 3 rows failed\) ended with STAGNATED") as failure:
        solve(BRATU, mesh, boundary=ZERO, parameters={"lam": lam})
    assert bool(failure.value.solution.converged[:2].all())


def test_continuation_ends_at_the_fold() -> None:
    mesh = unstructured(16)
    method = Continuation("lam", steps=8)
    solution = solve(BRATU, mesh, boundary=ZERO, parameters={"lam": 9.0}, method=method, throw=False)
    assert solution.status == (Status.STAGNATED,)
    assert 6.808 * 0.98 < float(solution.history["parameter"][-1]) < 6.808 * 1.02


def test_singular_jacobian_is_reported() -> None:
    """The derivative of u**2 vanishes at the start."""
    equation = Equation("u**2 + 0*u_xx = 1", unknowns=["u"])
    solution = solve(equation, unstructured(3), boundary=Neumann(0.0), throw=False)
    assert solution.status == (Status.SINGULAR,)
    assert "Jacobian is singular" in solution.status[0].advice


def test_a_row_without_a_number_fails_alone() -> None:
    equation = Equation("-laplacian(u) + sqrt(u + c) = 1", parameters={"c": 1.0})
    c = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    solution = solve(equation, unstructured(6), boundary=ZERO, parameters={"c": c}, throw=False)
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED)


@pytest.mark.parametrize("method", [None, Newton(linear=GMRES(preconditioner=ILU0())), Picard()])
def test_rows_of_a_batch_equal_a_loop(method: Any) -> None:
    mesh = unstructured(6)
    generator = torch.Generator().manual_seed(5)
    a = torch.rand(3, 1, len(mesh.cells), generator=generator, dtype=torch.float64) + 0.5
    g = torch.rand(2, len(mesh.points), generator=generator, dtype=torch.float64)
    k = torch.tensor([0.5, 2.0], dtype=torch.float64)
    equation = Equation("-div(a*(1 + k*u**2)*grad(u)) + 0.1*u**3 = f", parameters={"k": 1.0})

    def run(a: Tensor, g: Tensor, k: Tensor) -> sciml.Solution:
        boundary = {"x_lower": Dirichlet(g), "rest": Neumann(g)}
        fields = {"a": a, "f": g}
        return solve(equation, mesh, fields=fields, parameters={"k": k}, boundary=boundary, method=method, rtol=1e-11)

    together = run(a, g, k)
    assert together.value.shape == (3, 2, len(mesh.points))
    for i in range(3):
        for j in range(2):
            single = run(a[i, 0], g[j], k[j])
            torch.testing.assert_close(together.value[i, j], single.value, rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(together.flux("x_lower")[i, j], single.flux("x_lower"), rtol=1e-8, atol=1e-9)
            if method is None:
                assert int(together.statistics["iterations"][i, j]) == int(single.statistics["iterations"])


def test_float32() -> None:
    mesh = unstructured(12)
    single = Mesh(mesh.points.float(), mesh.cells, mesh.boundaries)
    expected = solve(HEAT, mesh, fields={"f": 5.0}, boundary=ZERO).value
    found = solve(HEAT, single, fields={"f": 5.0}, boundary=ZERO).value
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("equation", [BRATU, HEAT], ids=["symmetric", "not symmetric"])
def test_on_a_gpu(equation: Equation) -> None:
    mesh, fields = unstructured(12), {"f": 5.0} if "f" in equation.coefficients else {}
    expected = solve(equation, mesh, fields=fields, boundary=ZERO)
    found = solve(equation, mesh.to("cuda"), fields=fields, boundary=ZERO)
    assert found.value.device.type == "cuda"
    torch.testing.assert_close(found.value.cpu(), expected.value, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.flux("exterior").cpu(), expected.flux("exterior"), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda solution: pickle.loads(pickle.dumps(solution))])
def test_solutions_can_be_copied(copied: Callable[[sciml.Solution], sciml.Solution]) -> None:
    scales = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    equation = Equation("-div(a*(1 + p*u**2)*grad(u)) = 1", parameters={"p": 1.0})
    solution = solve(equation, unstructured(4), fields={"a": scales}, boundary=ZERO)
    twin = copied(solution)
    assert torch.equal(twin.flux("exterior"), solution.flux("exterior"))
    changed = twin.system.with_parameters({"p": 0.5})
    expected = solution.system.with_parameters({"p": 0.5})
    assert torch.equal(changed.residual(solution.value), expected.residual(solution.value))


# Gradients

TRANSPORT = Equation("-div(a*(1 + k*u**2)*grad(u)) + div([b*u**2, 0]) + u*u_y + c*u**3 = f", parameters={"k": 1.0})
MESH = unstructured(4)


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    points, cells = (len(MESH.points),), (len(MESH.cells),)
    shapes = {"a": cells, "b": points, "c": cells, "f": points, "k": (), "g": points, "q": (4,), "r": points}
    values = {name: 0.5 + torch.rand(s, dtype=torch.float64, generator=generator) for name, s in shapes.items()}
    return {name: value.requires_grad_() for name, value in values.items()}


def objective(values: Mapping[str, Tensor]) -> Tensor:
    g, q, r = (values[name] for name in "gqr")
    boundary = {"x_lower": Dirichlet(g), "x_upper": Robin(r, g), "y_lower": Neumann(q), "rest": ZERO}
    fields = {"a": values["a"], "b": values["b"], "c": values["c"], "f": 5 * values["f"]}
    solution = solve(TRANSPORT, MESH, fields=fields, parameters={"k": values["k"]}, boundary=boundary, rtol=1e-13)
    return solution.value.square().sum() + solution.flux("x_lower") + solution.integral()


def directions() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: torch.randn(x.shape, dtype=torch.float64, generator=generator) for n, x in inputs().items()}


def slopes(values: Mapping[str, Tensor], **options: Any) -> dict[str, Tensor]:
    return dict(zip(values, torch.autograd.grad(objective(values), list(values.values()), **options), strict=True))


def along(gradients: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(gradients[n] * d).sum() for n, d in directions().items()]).sum()


def test_first_derivatives() -> None:
    found, step = slopes(inputs()), 1e-3
    for name, direction in directions().items():
        f = []
        for count in (-2, -1, 1, 2):
            values = {n: x.detach() for n, x in inputs().items()}
            values[name] = values[name] + count * step * direction
            f.append(float(objective(values)))
        quotient = (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * step)
        assert float((found[name] * direction).sum()) == pytest.approx(quotient, rel=1e-6), name


def test_forward_derivative() -> None:
    with forward_ad.dual_level():
        duals = {n: forward_ad.make_dual(x.detach(), directions()[n]) for n, x in inputs().items()}
        tangent = forward_ad.unpack_dual(objective(duals)).tangent
    torch.testing.assert_close(tangent, along(slopes(inputs())), rtol=1e-8, atol=0.0)


def test_second_derivatives() -> None:
    values, step = inputs(), 1e-5
    found = torch.autograd.grad(along(slopes(values, create_graph=True)), list(values.values()))
    moved = [
        slopes({n: (x.detach() + sign * step * directions()[n]).requires_grad_() for n, x in inputs().items()})
        for sign in (1, -1)
    ]
    for name, second in zip(values, found, strict=True):
        expected = (moved[0][name] - moved[1][name]) / (2 * step)
        torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


def test_gradient_of_the_points() -> None:
    box = unstructured(2)

    def energy(points: Tensor) -> Tensor:
        mesh = Mesh(points, box.cells, box.boundaries)
        boundary = {"x_lower": ZERO, "rest": Robin(0.5)}
        return solve(HEAT, mesh, fields={"f": lambda x, y: 5 * x}, boundary=boundary, rtol=1e-13).integral()

    assert torch.autograd.gradcheck(energy, (box.points.clone().requires_grad_(),), rtol=1e-6)


@pytest.mark.parametrize("method", [None, Newton(linear=GMRES(preconditioner=ILU0(), rtol=1e-13))])
def test_gradient_of_a_batch(method: Any) -> None:
    """A row that fails has none; the others have what they have alone."""
    lam = torch.tensor([1.0, 7.5, 4.0], dtype=torch.float64, requires_grad=True)
    solution = solve(BRATU, unstructured(8), boundary=ZERO, parameters={"lam": lam}, method=method, throw=False)
    (gradient,) = torch.autograd.grad(solution.value.sum(), lam)
    assert float(gradient[1]) == 0.0
    for row in (0, 2):
        own = lam.detach()[row].requires_grad_()
        alone = solve(BRATU, unstructured(8), boundary=ZERO, parameters={"lam": own})
        (expected,) = torch.autograd.grad(alone.value.sum(), own)
        torch.testing.assert_close(gradient[row], expected, rtol=1e-6, atol=0.0)


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundary": None}, "a mesh has no conditions of its own"),
        ({"boundary": {"inlet": ZERO}}, "no boundary 'inlet'"),
        ({"method": "newton"}, "method must be a linear solver"),
        ({"method": Continuation("mu")}, "no parameter 'mu'; it has: lam"),
        ({"initial": torch.zeros(7).double()}, r"initial has shape \(7,\), expected \(\*batch, 16\)"),
        ({"initial": torch.zeros(16)}, "initial has dtype torch.float32, the mesh torch.float64"),
        ({"initial": float("nan")}, "initial is nan"),
        ({"initial": {"v": 1.0}}, "initial: 'v' is not an unknown"),
        ({"scheme": sciml.FiniteVolume()}, r"on a mesh it is FiniteElement\(...\) or None"),
        ({"fields": {"a": 1.0}}, "fields: the equation has no 'a'"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        solve(BRATU, unstructured(3), **{"boundary": ZERO, **options})
