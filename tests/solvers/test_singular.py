"""Equations without a unique solution: what `solve` says of them, and how one of many solutions is found."""

from __future__ import annotations

import math

import numpy
import pytest
import scipy.linalg
import torch

import sciml
from sciml import Dirichlet, Grid, InputError, Mesh, Neumann, SolveError
from sciml.solvers.linear import GMRES, Direct

ADVECTED = sciml.Equation("-nu*laplacian(u) + p*u_x + q*u_y = f", parameters={"nu": 0.1})
SWIRL = {"p": lambda x, y: y - 0.5, "q": lambda x, y: 0.5 - x, "f": lambda x, y: x - 0.5}
EXCHANGE = sciml.Equation(["-laplacian(u) + u - v = 1", "-laplacian(v) + v - u = -1"], unknowns=["u", "v"])
DARCY = sciml.Equation("-div(a*grad(u)) = 1")


@pytest.mark.parametrize(
    ("equation", "fields", "boundary", "message"),
    [
        (ADVECTED, SWIRL, Neumann(0.0), "nothing fixes the value of u: give a Dirichlet or Robin.*method=GMRES"),
        (EXCHANGE, {}, Neumann(0.0), "nothing fixes the value of u, v: give a Dirichlet"),
        (DARCY, {"a": 0.0}, {"x_lower": Dirichlet(0.0), "rest": Neumann(0.0)}, "42 of 49 of them do not contain the"),
        (DARCY, {"a": {"left": 0.0, "rest": 1.0}}, Dirichlet(0.0), "10 of 49 of them do not contain the unknown.*is 0"),
    ],
)
def test_equations_without_a_unique_solution_say_why(equation, fields, boundary, message) -> None:
    mesh = Mesh.box((6, 6)).with_regions({"left": lambda x, y: x < 0.5})
    with pytest.raises(InputError, match=rf"have no unique solution.*{message}.*the operator is singular"):
        sciml.solve(equation, mesh, fields=fields, boundary=boundary)


def test_an_eigenvalue_is_not_taken_for_a_missing_condition() -> None:
    mesh = Mesh.box((8, 8))
    plain = sciml.discretize(sciml.Equation("-laplacian(u) = 0"), mesh, boundary=Dirichlet(0.0)).operator
    mass = sciml.discretize(sciml.Equation("-0*laplacian(u) + u = 0", unknowns=["u"]), mesh, boundary=Neumann(0.0))
    inner = numpy.setdiff1d(numpy.arange(81), mesh.boundary_points().numpy())
    stiffness, weights = (
        operator.to_sparse().to_dense().numpy()[numpy.ix_(inner, inner)] for operator in (plain, mass.operator)
    )
    least = float(scipy.linalg.eigh(stiffness, weights, eigvals_only=True)[0])
    assert least == pytest.approx(2 * math.pi**2, rel=0.05)
    with pytest.raises(InputError, match=r"though conditions fix the value of u: a reaction may cancel diffusion"):
        sciml.solve(sciml.Equation(f"-laplacian(u) - {least!r}*u = 1"), mesh, boundary=Dirichlet(0.0))


def test_gmres_finds_one_of_many_solutions() -> None:
    """As the refusal of the direct solver says, where the sources balance."""
    mesh = Mesh.box((12, 12))
    solution = sciml.solve(ADVECTED, mesh, fields=SWIRL, boundary=Neumann(0.0), method=GMRES(rtol=1e-10))
    held = {"x_lower": Dirichlet(lambda x, y: solution.value[mesh.boundary_points("x_lower")]), "rest": Neumann(0.0)}
    again = sciml.solve(ADVECTED, mesh, fields=SWIRL, boundary=held)
    torch.testing.assert_close(again.value, solution.value, rtol=0, atol=1e-8)


def test_grids_say_the_same_as_meshes() -> None:
    closed = Grid((8, 8), boundary=Neumann(0.0))
    with pytest.raises(InputError, match="have no unique solution, for nothing fixes the value of u: give a Dirichlet"):
        sciml.solve(ADVECTED, closed, fields=SWIRL, method=Direct())
    with pytest.raises(SolveError, match=r"a direct solve is impossible: .* nothing fixes the value of u"):
        sciml.solve(ADVECTED, closed, fields={**SWIRL, "f": 1.0})
    held = Grid((8, 8), boundary=Neumann(0.0), solid=torch.arange(64).reshape(8, 8) < 8, walls=Dirichlet(1.0))
    assert sciml.solve(ADVECTED, held, fields=SWIRL).converged
