"""solve on meshes: orders of convergence, patch tests, balances, gradients, batches."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Dirichlet, Equation, FiniteElement, InputError, Mesh, Neumann, Robin, solve
from sciml.solvers.linear import GMRES, ILU0, ConjugateGradient, Direct, IncompleteCholesky
from sciml.solvers.nonlinear import Continuation

ZERO = Dirichlet(0.0)


def unstructured(n: int, dimension: int = 2, seed: int = 0) -> Mesh:
    """The unit square or cube, n intervals an axis, with the inner points moved by up to a fifth of a spacing."""
    box = Mesh.box((n,) * dimension, (0.0,) * dimension, (1.0,) * dimension)
    generator = torch.Generator().manual_seed(seed)
    inner = torch.ones(len(box.points), dtype=torch.bool)
    inner[box.facets.reshape(-1)] = False
    moves = (torch.rand(box.points.shape, generator=generator, dtype=torch.float64) - 0.5) * 0.4 / n
    return Mesh(torch.where(inner[:, None], box.points + moves, box.points), box.cells, box.boundaries)


def wave(*c: Tensor) -> Tensor:
    return math.prod([torch.sin((2.0 + k) * x + 0.3) for k, x in enumerate(c)], start=torch.ones_like(c[0]))


def coefficient(*c: Tensor) -> Tensor:
    return 1.0 + c[0] * c[1]


def partial(function: Callable[..., Tensor], axis: int) -> Callable[..., Tensor]:
    def slope(*c: Tensor) -> Tensor:
        with torch.enable_grad():
            places = [x.detach().clone().requires_grad_() for x in c] if not c[0].requires_grad else list(c)
            value = function(*places) + 0.0 * sum(places)
            return torch.autograd.grad(value.sum(), places[axis], create_graph=True)[0]

    return slope


def source_of(equation: Equation, dimension: int, fields: Mapping[str, Any]) -> Callable[..., Tensor]:
    """The f for which `wave` solves an equation ... = f."""

    def source(*c: Tensor) -> Tensor:
        places = [x.detach().clone().requires_grad_() for x in c]
        values: dict[str, Any] = dict(zip("xyz", places, strict=False))
        for name in equation.required(dimension):
            base, _, letters = name.partition("_")
            if name == "f":
                values[name] = 0.0
            elif base in fields or base == "u":
                function = wave if base == "u" else fields[base]
                for letter in letters:
                    function = partial(function, "xyz".index(letter))
                values[name] = function(*places)
        residual = equation.residual(values, dimension)
        return (residual[0] if isinstance(residual, tuple) else residual).detach()

    return source


CASES = {
    "div(a grad)": ("-div(a*grad(u)) + u = f", {"a": coefficient}),
    "tensor": ("-div([2*u_x + a*u_y, a*u_x + 3*u_y]) = f", {"a": coefficient}),
    "unsymmetric tensor": ("-div([2*u_x + u_y, 3*u_y - u_x]) = f", {}),
    "mixed": ("-2*u_xx - u_xy - u_yy = f", {}),
    "advection": ("-laplacian(u) + a*u_x - u_y = f", {"a": coefficient}),
    "conserved": ("-laplacian(u) + div([a*u, -u]) = f", {"a": coefficient}),
    "factor outside": ("-a*laplacian(u) = f", {"a": coefficient}),
    "upwinded": ("-1e-4*laplacian(u) + u_x + a*u_y = f", {"a": coefficient}),
}


def orders(text: str, fields: Mapping[str, Any], boundary: Any, sizes: tuple[int, int], dimension: int) -> list[float]:
    equation = Equation(text, unknowns=["u"], coefficients=["f", *fields])
    given = {**fields, "f": source_of(equation, dimension, fields)}
    errors = []
    for n in sizes:
        solution = solve(equation, unstructured(n, dimension), fields=given, boundary=boundary, method=Direct())
        found = solution.error(wave)
        errors.append([float(found["L2"]), float(found["H1"])])
    return [math.log2(coarse / fine) for coarse, fine in zip(*errors, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_orders_on_triangles(name: str) -> None:
    text, fields = CASES[name]
    l2, h1 = orders(text, fields, Dirichlet(wave), (32, 64), 2)
    assert abs(l2 - 2.0) < 0.1 and abs(h1 - 1.0) < 0.1


def test_orders_on_triangles_with_fluxes() -> None:
    def normal(sign: float, axis: int) -> Callable[..., Tensor]:
        return lambda *c: sign * coefficient(*c) * partial(wave, axis)(*c).detach()

    boundary = {
        "x_lower": Neumann(normal(-1.0, 0)),
        "x_upper": Robin(lambda x, y: 1.0 + y, lambda *c: normal(1.0, 0)(*c) + (1.0 + c[1]) * wave(*c)),
        "y_lower": Neumann(normal(-1.0, 1)),
        "rest": Dirichlet(wave),
    }
    l2, h1 = orders("-div(a*grad(u)) = f", {"a": coefficient}, boundary, (32, 64), 2)
    assert abs(l2 - 2.0) < 0.1 and abs(h1 - 1.0) < 0.1


@pytest.mark.parametrize("name", ["div(a grad)", "advection"])
def test_orders_on_tetrahedra(name: str) -> None:
    text, fields = CASES[name]
    text = text if name == "div(a grad)" else "-laplacian(u) + a*u_x - u_z = f"
    l2, h1 = orders(text, fields, Dirichlet(wave), (10, 20), 3)
    assert abs(l2 - 2.0) < 0.1 and abs(h1 - 1.0) < 0.1


@pytest.mark.parametrize("dimension", [2, 3])
def test_linear_functions_are_solved_exactly(dimension: int) -> None:
    mesh = unstructured(5, dimension)
    slopes = [1.0, -2.0, 0.5][:dimension]

    def linear(*c: Tensor) -> Tensor:
        return 0.25 + sum(slope * x for slope, x in zip(slopes, c, strict=True))

    robin = Robin(3.0, lambda *c: 2.0 + 3.0 * linear(*c))
    boundary = {"x_lower": Neumann(-2.0), "x_upper": robin, "rest": Dirichlet(linear)}
    fields = {"f": lambda *c: 1.0 + 3.0 * linear(*c)}
    solution = solve(Equation("-div(2*grad(u)) + u_x + 3*u = f"), mesh, fields=fields, boundary=boundary)
    torch.testing.assert_close(solution.value, linear(*mesh.coordinates), rtol=1e-12, atol=1e-12)
    middle = torch.rand(50, dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(solution.at(middle), linear(*middle.unbind(1)), rtol=1e-12, atol=1e-12)
    wanted = torch.tensor(slopes, dtype=torch.float64)[:, None].expand(-1, len(mesh.points))
    torch.testing.assert_close(solution.gradient(), wanted, rtol=1e-10, atol=1e-10)
    assert float(solution.integral()) == pytest.approx(0.25 + 0.5 * sum(slopes), rel=1e-12)
    for axis, name in enumerate("xyz"[:dimension]):
        assert float(solution.flux(f"{name}_upper")) == pytest.approx(2.0 * slopes[axis], rel=1e-10)
        assert float(solution.flux(f"{name}_lower")) == pytest.approx(-2.0 * slopes[axis], rel=1e-10)
    norms = solution.error(linear)
    assert float(norms["L2"]) < 1e-12 and float(norms["H1"]) < 1e-11


def test_fluxes_balance_the_source_and_converge() -> None:
    # u = x (1 - x) y: through x = 0 the flux is -1/2, through y = 1 it is 1/6.
    sides = ("x_lower", "x_upper", "y_lower", "y_upper")
    errors = []
    for n in (16, 32):
        solution = solve(
            Equation("-laplacian(u) = 2*y"), unstructured(n), boundary=Dirichlet(lambda x, y: x * (1.0 - x) * y)
        )
        fluxes = [float(solution.flux(side)) for side in sides]
        assert sum(fluxes) == pytest.approx(-1.0, abs=1e-12)
        assert float(solution.flux("exterior")) == pytest.approx(-1.0, abs=1e-12)
        errors.append(max(abs(f - e) for f, e in zip(fluxes, (-0.5, -0.5, -1 / 6, 1 / 6), strict=True)))
    assert errors[1] < 1e-3 and errors[1] < errors[0] / 2.8


def test_fluxes_balance_with_all_kinds_of_conditions_and_a_carried_field() -> None:
    mesh = unstructured(8)
    boundary = {"x_lower": Dirichlet(1.0), "x_upper": Neumann(0.3), "y_lower": Robin(2.0, 1.0), "y_upper": ZERO}
    equation = Equation("-div(a*grad(u)) + div([b*u, u]) = f")
    solution = solve(equation, mesh, fields={"a": coefficient, "b": lambda x, y: 1.0 + y, "f": 2.0}, boundary=boundary)
    total = sum(float(solution.flux(name)) for name in boundary)
    assert total == pytest.approx(-2.0, abs=1e-11)
    assert float(solution.flux("exterior")) == pytest.approx(total, abs=1e-12)
    with pytest.raises(InputError, match="no boundary 'outlet'"):
        solution.flux("outlet")


def test_pure_neumann_problem_has_zero_mean() -> None:
    mesh = unstructured(16)
    equation = Equation("-laplacian(u) = f")
    solution = solve(equation, mesh, fields={"f": lambda x, y: torch.cos(math.pi * x)}, boundary=Neumann(0.0))
    assert abs(float(solution.value.mean())) < 1e-12
    value = solution.value - solution.integral()
    exact = torch.cos(math.pi * mesh.points[:, 0]) / math.pi**2
    assert float((value - exact).abs().max()) < 2e-3
    with pytest.raises(InputError, match="must balance"):
        solve(equation, mesh, fields={"f": 1.0}, boundary=Neumann(0.0))


def test_regions_with_a_jump_are_solved_exactly() -> None:
    # Two layers in series: the flux is 1 / (0.5 / 1 + 0.5 / 4), the value on the interface 0.5 times that.
    mesh = Mesh.box((4, 4), (0.0, 0.0), (1.0, 1.0)).with_regions({"left": lambda x, y: x < 0.5})
    boundary = {"x_lower": ZERO, "x_upper": Dirichlet(1.0), "rest": Neumann(0.0)}
    fields = {"a": {"left": 1.0, "rest": 4.0}}
    solution = solve(Equation("-div(a*grad(u)) = 0"), mesh, fields=fields, boundary=boundary)
    flux = 1.0 / 0.625
    assert float(solution.flux("x_upper")) == pytest.approx(flux, rel=1e-12)
    assert float(solution.at([[0.5, 0.3]])) == pytest.approx(0.5 * flux, rel=1e-12)
    assert float(solution.integral("left")) == pytest.approx(0.5 * 0.25 * flux, rel=1e-12)


def test_a_stiff_inclusion_does_not_loosen_the_tolerance() -> None:
    def inside(x: Tensor, y: Tensor) -> Tensor:
        return ((x - 0.5).abs() < 0.25) & ((y - 0.5).abs() < 0.25)

    mesh = Mesh.box((24, 24)).with_regions({"inclusion": inside})
    boundary = {"x_lower": Dirichlet(0.0), "x_upper": Dirichlet(1.0), "rest": Neumann(0.0)}
    equation, fields = Equation("-div(a*grad(u)) = 0"), {"a": {"inclusion": 1e6, "rest": 1.0}}
    method = ConjugateGradient(preconditioner=IncompleteCholesky())
    iterated = solve(equation, mesh, fields=fields, boundary=boundary, method=method)
    exact = solve(equation, mesh, fields=fields, boundary=boundary, method=Direct())
    assert float((iterated.flux("x_lower") + iterated.flux("x_upper")).abs()) < 1e-6
    assert float((iterated.value - exact.value).abs().max()) < 1e-6


def test_regions_are_cells_where_there_are_as_many_points() -> None:
    mesh = Mesh.box((2, 3)).with_regions({"left": lambda x, y: x < 0.5})
    assert len(mesh.points) == len(mesh.cells)
    held = {"x_lower": Dirichlet(0.0), "x_upper": Dirichlet(1.0), "rest": Neumann(0.0)}
    fields = {"a": {"left": 1.0, "rest": 10.0}}
    solution = solve(Equation("-div(a*grad(u)) = 0"), mesh, fields=fields, boundary=held)
    assert float(solution.flux("x_upper")) == pytest.approx(1 / (0.5 / 1.0 + 0.5 / 10.0), rel=1e-12)
    equation = Equation("-div(a*(1 + beta*u)*grad(u)) = 0", parameters={"beta": 0.0})
    solution = solve(equation, mesh, fields=fields, boundary=held, method=Continuation("beta", 1.0), rtol=1e-13)
    assert float(solution.flux("x_upper")) == pytest.approx(1 / (0.5 / 1.0 + 0.5 / 10.0), rel=1e-12)


def test_prevailing_advection_does_not_oscillate() -> None:
    mesh = unstructured(24)
    equation = Equation("-1e-4*laplacian(u) + u_x + 0.5*u_y = 1")
    stabilized = solve(equation, mesh, boundary=ZERO)
    plain = solve(equation, mesh, boundary=ZERO, scheme=FiniteElement(stabilization="none"))
    # Outside of the layers u is what the wind has gathered since it entered: min(x, 2 y).
    x, y = mesh.coordinates
    away = (x < 0.85) & (y < 0.85) & ((x - 2.0 * y).abs() > 0.2)
    exact = torch.minimum(x, 2.0 * y)
    assert float((stabilized.value - exact)[away].abs().max()) < 0.02
    assert float((plain.value - exact)[away].abs().max()) > 0.3
    assert float(stabilized.value.min()) > -0.01
    # Within the layers, which the mesh does not resolve, the method is known to overshoot.
    assert float(stabilized.value.max()) - 1.0 < (float(plain.value.max()) - 1.0) / 20.0
    assert any("streamline-upwind Petrov-Galerkin" in note and "Peclet number" in note for note in stabilized.notes)


def test_lumped_masses_keep_a_strong_reaction_between_its_bounds() -> None:
    # Kuhn triangles have no obtuse angle, so that with lumped masses the matrix is an M-matrix.
    mesh = Mesh.box((8, 8), (0.0, 0.0), (1.0, 1.0))
    equation = Equation("-1e-5*laplacian(u) + u = 0")
    consistent = solve(equation, mesh, boundary=Dirichlet(1.0))
    lumped = solve(equation, mesh, boundary=Dirichlet(1.0), scheme=FiniteElement(lumped=True))
    assert float(consistent.value.min()) < -0.1
    assert float(lumped.value.min()) >= 0.0 and float(lumped.value.max()) <= 1.0


def test_gradients_agree_with_finite_differences() -> None:
    mesh = unstructured(5)
    generator = torch.Generator().manual_seed(3)
    inputs = {
        "a": torch.rand(len(mesh.cells), generator=generator, dtype=torch.float64) + 0.5,
        "b": torch.rand(len(mesh.points), generator=generator, dtype=torch.float64),
        "f": torch.rand(len(mesh.points), generator=generator, dtype=torch.float64),
        "g": torch.rand(len(mesh.points), generator=generator, dtype=torch.float64),
        "c": torch.rand(5, generator=generator, dtype=torch.float64) + 0.5,
        "nu": torch.tensor(0.02, dtype=torch.float64),
    }
    equation = Equation("-div(a*grad(u)) + b*u_x + 3*u_y + nu*u = f", parameters={"nu": 1.0})

    def functional(*tensors: Tensor) -> Tensor:
        a, b, f, g, c, nu = tensors
        boundary = {"x_lower": Dirichlet(g), "x_upper": Robin(c, g), "y_lower": Neumann(g), "rest": ZERO}
        scheme = FiniteElement(stabilization="streamline")
        solution = solve(
            equation, mesh, fields={"a": a, "b": b, "f": f}, parameters={"nu": nu}, boundary=boundary, scheme=scheme
        )
        return solution.value.square().sum() + solution.flux("x_lower")

    tensors = [t.requires_grad_() for t in inputs.values()]
    gradients = torch.autograd.grad(functional(*tensors), tensors)
    for name, place, gradient in zip(inputs, range(len(tensors)), gradients, strict=True):
        direction = torch.rand(gradient.shape, generator=generator, dtype=torch.float64) - 0.5
        step = 1e-4
        f = []
        for count in (-2, -1, 1, 2):
            with torch.no_grad():
                moved = tensors[place] + count * step * direction
                f.append(float(functional(*tensors[:place], moved, *tensors[place + 1 :])))
        quotient = (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * step)
        assert float((gradient * direction).sum()) == pytest.approx(quotient, rel=1e-6), name


def test_second_derivatives_and_gradients_of_points() -> None:
    box = unstructured(3)
    equation = Equation("-div(a*grad(u)) = 1")

    def energy(a: Tensor, points: Tensor) -> Tensor:
        mesh = Mesh(points, box.cells, box.boundaries)
        return solve(equation, mesh, fields={"a": a}, boundary={"x_lower": ZERO, "rest": Robin(0.5)}).integral()

    a = torch.full((len(box.cells),), 1.3, dtype=torch.float64, requires_grad=True)
    points = box.points.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy, (a, points), rtol=1e-6)
    assert torch.autograd.gradgradcheck(lambda a: energy(a, box.points), (a,), rtol=1e-6)


@pytest.mark.parametrize("method", [None, ConjugateGradient(preconditioner=IncompleteCholesky(), rtol=1e-12), Direct()])
def test_rows_of_a_batch_equal_a_loop(method: Any) -> None:
    mesh = unstructured(6)
    generator = torch.Generator().manual_seed(5)
    a = torch.rand(3, 1, len(mesh.cells), generator=generator, dtype=torch.float64) + 0.5
    g = torch.rand(2, len(mesh.points), generator=generator, dtype=torch.float64)
    equation = Equation("-div(a*grad(u)) + k*u = f", parameters={"k": 1.0})
    k = torch.tensor([0.5, 2.0], dtype=torch.float64)

    def run(a: Tensor, g: Tensor, k: Any) -> sciml.Solution:
        boundary = {"x_lower": Dirichlet(g), "rest": Neumann(g)}
        return solve(equation, mesh, fields={"a": a, "f": g}, parameters={"k": k}, boundary=boundary, method=method)

    together = run(a, g, k)
    assert together.value.shape == (3, 2, len(mesh.points))
    for i in range(3):
        for j in range(2):
            single = run(a[i, 0], g[j], k[j])
            torch.testing.assert_close(together.value[i, j], single.value, rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(together.flux("x_lower")[i, j], single.flux("x_lower"), rtol=1e-7, atol=1e-9)
    (gradient,) = torch.autograd.grad(run(a.requires_grad_(), g, k).integral().sum(), a)
    for i in range(3):
        own = a[i, 0].detach().requires_grad_()
        total = run(own, g[0], k[0]).integral() + run(own, g[1], k[1]).integral()
        torch.testing.assert_close(gradient[i, 0], torch.autograd.grad(total, own)[0], rtol=1e-6, atol=1e-9)


def test_unsymmetric_batch_and_its_adjoint() -> None:
    mesh = unstructured(5)
    b = torch.tensor([[1.0], [-3.0]], dtype=torch.float64, requires_grad=True)
    equation = Equation("-laplacian(u) + b*u_x = 1")

    def run(b: Tensor) -> Tensor:
        solver = GMRES(preconditioner=ILU0(), rtol=1e-12)
        return solve(equation, mesh, fields={"b": b}, boundary=ZERO, method=solver).integral()

    assert torch.autograd.gradcheck(run, (b,), rtol=1e-6)


def test_two_unknowns() -> None:
    # -laplacian(u) = 2 pi^2 v, -laplacian(v) + u = g with u = v = sin(pi x) sin(pi y).
    equation = Equation(["-laplacian(u) - c*v = 0", "-laplacian(v) + u = g"], parameters={"c": 2.0 * math.pi**2})

    def exact(x: Tensor, y: Tensor) -> Tensor:
        return torch.sin(math.pi * x) * torch.sin(math.pi * y)

    def source(x: Tensor, y: Tensor) -> Tensor:
        return (1.0 + 2.0 * math.pi**2) * exact(x, y)

    boundary = {"u": ZERO, "v": {"x_lower": Dirichlet(exact), "rest": Dirichlet(exact)}}
    errors = []
    for n in (16, 32):
        mesh = unstructured(n)
        solution = solve(equation, mesh, fields={"g": source}, boundary=boundary)
        errors.append(solution.error({"u": exact, "v": exact})["L2"])
        assert torch.equal(solution.fields["v"], solution.value[1])
    rates = torch.log2(errors[0] / errors[1])
    assert rates.shape == (2,) and float((rates - 2.0).abs().max()) < 0.1
    assert float(solution.flux("x_upper")[0]) == pytest.approx(-2.0, abs=0.01)  # the integral of -pi sin(pi y)


def test_points_outside_are_refused() -> None:
    solution = solve(Equation("-laplacian(u) = 1"), unstructured(4), boundary=ZERO)
    with pytest.raises(InputError, match=r"2 of 3 lie outside the mesh, the first of them \(1.5, 0.5\)"):
        solution.at([[0.5, 0.5], [1.5, 0.5], [0.5, -0.1]])
    for points in ("here", None, [[0.5, 0.5], [0.1]]):
        with pytest.raises(InputError, match="points: expected a tensor or nested lists of numbers"):
            solution.at(points)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"points: coordinates are real numbers, got torch.complex128"):
        solution.at(torch.zeros(1, 2, dtype=torch.complex128))
    with pytest.raises(InputError, match="no region 'core'"):
        solution.integral("core")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda solution: pickle.loads(pickle.dumps(solution))])
def test_solutions_can_be_copied(copied: Callable[[sciml.Solution], sciml.Solution]) -> None:
    scales = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    solution = solve(Equation("-div(a*grad(u)) = 1"), unstructured(4), fields={"a": scales}, boundary=ZERO)
    twin = copied(solution)
    assert torch.equal(twin.flux("exterior"), solution.flux("exterior"))
    assert twin.system.operator is not solution.system.operator
    torch.testing.assert_close(twin.system.operator.apply(twin.value), twin.system.right_side, rtol=1e-10, atol=1e-12)


def test_evolving_equations_are_refused() -> None:
    with pytest.raises(InputError, match=r"has time derivatives: take sciml\.evolve"):
        solve(Equation("u_t = laplacian(u)"), unstructured(3), boundary=ZERO)


def test_method_is_chosen_and_explained() -> None:
    small = solve(Equation("-laplacian(u) = 1"), unstructured(4), boundary=ZERO)
    assert small.method == "direct LU factorization (25 unknowns, few enough to factorize)"
    assert "289 unknowns" not in repr(small) and "on 25 unknowns" in repr(small)
    large = solve(Equation("-laplacian(u) = 1"), unstructured(150), boundary=ZERO)
    assert large.method.startswith("conjugate gradients") and bool(large.converged)
    # The largest value of the torsion function of the square, by Fourier series.
    assert float(large.value.max()) == pytest.approx(0.0736713, abs=1e-5)


def test_advection_decides_between_multigrid_and_factors() -> None:
    pytest.importorskip("pyamg")
    equation, mesh = Equation("-laplacian(u) + b*u_x + c*u_y = s", parameters={"s": 1.0}), Mesh.box((160, 160))

    def whirl(speed: float, method: Any = None) -> tuple[sciml.Solution, Tensor]:
        fields = {"b": lambda x, y: speed * (0.5 - y), "c": lambda x, y: speed * (x - 0.5)}
        strength = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        parameters = {"s": strength}
        solution = solve(equation, mesh, fields=fields, parameters=parameters, boundary=ZERO, method=method)
        (slope,) = torch.autograd.grad(solution.integral(), strength)
        return solution, slope

    slow, slope = whirl(30.0)
    assert slow.method.startswith("GMRES(30) with algebraic multigrid") and "diffusion prevails" in slow.method
    exact, exact_slope = whirl(30.0, Direct())
    assert float((slow.value - exact.value).detach().abs().max()) < 1e-6 * float(exact.value.detach().max())
    assert float(slope) == pytest.approx(float(exact_slope), rel=1e-6)
    assert float(slope) == pytest.approx(float(exact.integral()), rel=1e-10)
    quick, _ = whirl(1e4)
    assert quick.method == "direct LU factorization (not symmetric, and small enough to factorize)"


def test_systems_in_space_are_iterated_early() -> None:
    text = ["-laplacian(u) + u - v = 1", "-laplacian(v) + v - u = 1"]
    solution = solve(Equation(text, unknowns=["u", "v"]), Mesh.box((16, 16, 16)), boundary={"u": ZERO, "v": ZERO})
    assert "block-diagonal" in solution.method
    alone = solve(Equation("-laplacian(u) = 1"), Mesh.box((16, 16, 16)), boundary=ZERO)
    for value in solution.fields.values():
        assert float((value - alone.value).abs().max()) < 1e-6 * float(alone.value.max())
