"""Nonlinear residuals on meshes: their derivative, what they share with the linear elements, balance, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml import (
    Dirichlet,
    Equation,
    FiniteElement,
    InputError,
    Mesh,
    Neumann,
    NonlinearMeshSystem,
    Robin,
    discretize,
    discretize_nonlinear,
)

MIXED = {
    "x_lower": Dirichlet(lambda *c: 0.3 + c[0] * c[1]),
    "x_upper": Robin(0.7, 0.2),
    "y_lower": Neumann(0.4),
    "rest": Robin(lambda *c: 1.0 + c[0], lambda *c: c[1]),
}
CARRIED = "-div((1 + u**2)*grad(u)) + div([u*u/2, a*u*u])"

# Text, and whether the Jacobian and the lagged operator are symmetric.
CASES: dict[str, tuple[str | list[str], bool, bool]] = {
    "coefficient of u": ("-div((1 + u**2)*grad(u)) = f", False, True),
    "a field times it": ("-div(a*(1 + u**2)*grad(u)) + u**3 = f", False, True),
    "a tensor of u": ("-div([(1 + u**2)*u_x + a*u*u_y, a*u*u_x + 2*u_y]) = f", False, True),
    "reaction": ("-laplacian(u) - p*exp(u) = f", True, True),
    "reaction alone": ("u**3 + 0.1*u = f", True, True),
    "p-Laplacian": ("-div((0.1 + dot(grad(u), grad(u)))**p*grad(u)) = f", True, True),
    "minimal surface": ("-div(a*grad(u)/sqrt(1 + dot(grad(u), grad(u)))) + u**3 = f", True, True),
    "flux of another gradient": ("-div([u_x + u_y**3, u_y]) = f", False, False),
    "first derivatives": ("-laplacian(u) + u*u_x + a*u_y**2 = f", False, False),
    "carried flux": (f"{CARRIED} = f", False, True),
    "thermistor": (["-div((1 + v**2)*grad(u)) = f", "-laplacian(v) = dot(grad(u), grad(u))"], False, False),
    "Gray-Scott": (["-p*laplacian(u) + u*v**2 - 1 + u = 0", "-p*laplacian(v) - u*v**2 + v = f"], False, False),
}


def medium(*c: Tensor) -> Tensor:
    return 1.0 + c[0] * c[1] ** 2


def make(text: str | Sequence[str], mesh: Mesh, boundary: Any = MIXED, **options: Any) -> NonlinearMeshSystem:
    unknowns = ["u"] if isinstance(text, str) else ["u", "v"]
    equation = Equation(text, unknowns=unknowns, parameters={"p": 1.3} if re.search(r"\bp\b", str(text)) else {})
    fields = dict.fromkeys(equation.coefficients, medium)
    return discretize_nonlinear(equation, mesh, fields, boundary=boundary, **options)


def random_fields(system: NonlinearMeshSystem, count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    u, v = (torch.rand(count, *system.space, dtype=torch.float64, generator=generator) + 0.1 for _ in range(2))
    return u, v - 0.6


@pytest.fixture(params=[2, 3])
def mesh(request: pytest.FixtureRequest, unstructured: Callable[..., Mesh]) -> Mesh:
    return unstructured(4 if request.param == 2 else 3, request.param)


@pytest.mark.parametrize("lumped", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_jacobian_is_the_derivative_of_the_residual(case: str, lumped: bool, mesh: Mesh) -> None:
    text, symmetric, lagged_symmetric = CASES[case]
    if "[" in str(text) and mesh.dimension == 3 and isinstance(text, str):
        text = text.replace("])", ", u*u_z])") if "grad" not in text else text.replace("a*u*u]", "a*u*u, u]")
        symmetric = lagged_symmetric = False
    system = make(text, mesh, scheme=FiniteElement(lumped=lumped))
    u, v = random_fields(system)
    _, expected = torch.autograd.functional.jvp(system.residual, u, v)
    jacobian = system.jacobian(u)
    assert float((jacobian.apply(v) - expected).abs().max()) < 1e-13 * float(expected.abs().max())
    if mesh.dimension == 2:
        assert (jacobian.symmetric, system.lagged(u).symmetric) == (symmetric, lagged_symmetric)
    for operator in (jacobian, system.lagged(u)):
        if operator.symmetric:
            matrix = (operator[0] if operator.batch else operator).to_sparse().to_dense()
            assert torch.equal(matrix, matrix.mT)


def test_lagged_operator_of_a_coefficient_is_the_linear_one(mesh: Mesh) -> None:
    """With u in the coefficient known, -div(k(u) grad(u)) is linear with k at the centres of the cells."""
    system = make("-div((1 + u**2)*grad(u)) = f", mesh)
    u = random_fields(system, 1)[0][0]
    held = system.rows[0].held
    u = torch.where(held, system.rows[0].form.conditions.lift, u)
    k = 1.0 + u[mesh.cells].mean(-1) ** 2
    linear = discretize(Equation("-div(k*grad(u)) = f"), mesh, {"k": k, "f": medium}, boundary=MIXED)
    free = ~held
    found, expected = (o.to_sparse().to_dense()[free][:, free] for o in (system.lagged(u), linear.operator))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)
    # F(u) = A(u) u - b at that u, since the held points have their values.
    left = linear.operator.apply(u) - linear.right_side
    torch.testing.assert_close(system.residual(u)[free], left[free], rtol=1e-12, atol=1e-13)


LINEAR = {
    "diffusion and reaction": ("-div(a*(1 + p*u)*grad(u)) + (2 + p*u)*a*u = f", "-div(a*grad(u)) + 2*a*u = f"),
    "advection": ("-laplacian(u) + (a + p*u)*u_x = f", "-laplacian(u) + a*u_x = f"),
    "carried": ("-laplacian(u) + diff((a + p*u)*u, x) = f", "-laplacian(u) + diff(a*u, x) = f"),
    "gradients": ("-div((1 + p*dot(grad(u), grad(u)))*grad(u)) = f", "-div(grad(u)) = f"),
}


@pytest.mark.parametrize("lumped", [False, True])
@pytest.mark.parametrize("case", LINEAR)
def test_what_is_linear_after_all_gets_the_linear_matrix(case: str, lumped: bool, mesh: Mesh) -> None:
    disguised, plain = LINEAR[case]
    equation = Equation(disguised, parameters={"p": 0.0}, unknowns=["u"])
    fields = dict.fromkeys(equation.coefficients, medium)
    system = discretize_nonlinear(equation, mesh, fields, boundary=MIXED, scheme=FiniteElement(lumped=lumped))
    scheme = FiniteElement(stabilization="none", lumped=lumped)
    linear = discretize(Equation(plain, unknowns=["u"]), mesh, fields, boundary=MIXED, scheme=scheme)
    u, v = (fields[0] for fields in random_fields(system, 1))
    free = ~system.rows[0].held
    scale = float(linear.operator.diagonal().abs().max())
    found, expected = system.jacobian(u).apply(v), linear.operator.apply(v)
    torch.testing.assert_close(found[free], expected[free], rtol=0.0, atol=1e-14 * scale)
    found, expected = system.residual(u), linear.operator.apply(u) - linear.right_side
    torch.testing.assert_close(found[free], expected[free], rtol=0.0, atol=1e-14 * scale)


@pytest.mark.parametrize("text", ["-div(a*grad(u)) + 2*u = f", "-0.01*laplacian(u) + a*u_x = f", "a*laplacian(u) = f"])
def test_linear_equation_has_the_linear_residual(text: str, mesh: Mesh) -> None:
    """Stabilization, factors outside and signs included."""
    system = make(text, mesh)
    linear = discretize(system.equation, mesh, dict.fromkeys(system.equation.coefficients, medium), boundary=MIXED)
    u, _ = random_fields(system)
    torch.testing.assert_close(system.residual(u), linear.operator.apply(u) - linear.right_side, rtol=1e-13, atol=1e-14)
    assert system.notes == linear.notes


def test_residual_is_the_derivative_of_an_energy(mesh: Mesh) -> None:
    """The area of the graph of u, whose gradient is constant in each cell."""
    system = make("-div(grad(u)/sqrt(1 + dot(grad(u), grad(u)))) = 0", mesh, Neumann(0.0))
    u = random_fields(system, 1)[0][0].requires_grad_()
    corners = u[mesh.cells]
    frame = torch.linalg.inv(mesh.points[mesh.cells[:, 1:]] - mesh.points[mesh.cells[:, :1]])
    gradient = (frame @ (corners[:, 1:] - corners[:, :1]).unsqueeze(-1)).squeeze(-1)
    energy = (mesh.volumes * (1.0 + gradient.square().sum(-1)).sqrt()).sum()
    (expected,) = torch.autograd.grad(energy, u)
    torch.testing.assert_close(system.residual(u.detach()), expected, rtol=1e-12, atol=1e-14)


def test_parameters_can_be_changed(mesh: Mesh) -> None:
    system = make("-div((1 + p*u**2)*grad(u)) = f", mesh)
    u, _ = random_fields(system)
    p = torch.tensor([0.3, 2.0], dtype=torch.float64)
    together = system.with_parameters({"p": p}).residual(u)
    for row in range(2):
        alone = system.with_parameters({"p": float(p[row])}).residual(u[row])
        torch.testing.assert_close(together[row], alone, rtol=1e-14, atol=1e-15)
    with pytest.raises(InputError, match="the equation has no 'q'"):
        system.with_parameters({"q": 1.0})


REFUSALS: list[tuple[Any, str]] = [
    ("-(1 + u**2)*laplacian(u) = 1", "holds u_xx in a nonlinear term.*write second derivatives as that of a flux"),
    ("-laplacian(u**3) = 1", "holds u_xx in a nonlinear term"),
    ("-u*div(u*grad(u)) = 1", "has the factor -u before a divergence.*bring the factor under div"),
    ("-a*div((1 + u**2)*grad(u)) = 1", "has the factor -a before a divergence"),
    (["-laplacian(u) + div(u*grad(v)) = 0", "-laplacian(v) = u**2"], "derivatives of another unknown"),
    (["-laplacian(u) - v**2 = 0", "u**2 + u_x = 1"], "the equation paired with v does not hold it"),
    ("u_t = laplacian(u) + u**2", "has time derivatives"),
    ("-u_xx - u_yy - u_zz + u**2 = 1", "needs 3 axes, the mesh has 2"),
    ("u_xxx + u**2 = 1", "derivatives of order 3"),
]


@pytest.mark.parametrize(("text", "message"), REFUSALS)
def test_refused(text: Any, message: str, unstructured: Callable[..., Mesh]) -> None:
    with pytest.raises(InputError, match=message):
        make(text, unstructured(3, 2), Dirichlet(0.0))


def test_other_refusals(unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(3, 2)
    with pytest.raises(InputError, match=r"stabilization='streamline'\) is for linear equations"):
        make("-laplacian(u) + u*u_x = f", mesh, scheme=FiniteElement(stabilization="streamline"))
    with pytest.raises(InputError, match=r"u has shape \(7,\), expected \(\*batch, 16\)"):
        make("-laplacian(u) + u*u_x = f", mesh).residual(torch.zeros(7, dtype=torch.float64))
    with pytest.raises(InputError, match="has the coefficient f, and no value is given"):
        discretize_nonlinear(Equation("-laplacian(u) + u**2 = f"), mesh, boundary=Dirichlet(0.0))
    with pytest.raises(InputError, match="the factors -1, -2, so that the flux through the boundary has no one"):
        make("-div((1 + u**2)*grad(u)) - 2*div(u**2*grad(u)) = f", mesh, Robin(1.0))
