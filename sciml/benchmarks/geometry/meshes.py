"""Finite elements: assembly against scikit-fem, and Poisson's equation on tetrahedra against pyamg."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy
import scipy.sparse
import torch
from torch import Tensor

from sciml.solvers.linear import AlgebraicMultigrid, ConjugateGradient
from sciml.solvers.solve import solve

from ...boundary import Dirichlet
from ...csr import csr_from_starts
from ...discretization import discretize
from ...elements.assembly import MatrixSum
from ...elements.geometry import Geometry, make_geometry
from ...elements.pattern import Pattern, make_pattern
from ...equations import Equation
from ...linear_operator import LinearOperator
from ...mesh import Mesh
from ..bench import Bench, version_of
from ..linear.peers import RUGE_STUBEN, SMOOTHED_AGGREGATION, own, pyamg_cg
from ..linear.problems import Array, random_right_side
from ..row import Row
from ..timing import Contender, Outcome

ASSEMBLY = "pattern and matrix"
KEPT = "matrix, pattern kept"
WHOLE = "discretize, with the load and u held on the boundary"
SKFEM = "Basis and assemble"
SKFEM_KEPT = "assemble"
OWN = "CG + AlgebraicMultigrid"
POISSON = Equation("-laplacian(u) = f")


def unstructured(shape: tuple[int, ...], device: str = "cpu", seed: int = 0) -> Mesh:
    """A box of triangles or tetrahedra whose inner points are moved at random by up to a fifth of the spacing."""
    mesh = Mesh.box(shape)
    generator = torch.Generator().manual_seed(seed)
    inside = torch.ones(len(mesh.points), 1, dtype=torch.bool)
    inside[mesh.boundary_points()] = False
    moves = 0.4 * (torch.rand(mesh.points.shape, generator=generator, dtype=mesh.dtype) - 0.5)
    points = mesh.points + torch.where(inside, moves / torch.tensor(shape, dtype=mesh.dtype), 0.0)
    return Mesh(points, mesh.cells, mesh.boundaries).to(device)


def _cells(shape: tuple[int, ...]) -> str:
    return f"{(2 if len(shape) == 2 else 6) * math.prod(shape):,} {'triangles' if len(shape) == 2 else 'tetrahedra'}"


# Assembly


def assembly_case(shape: tuple[int, ...]) -> str:
    """Name of the case, on a box of as many smaller ones along each axis."""
    return f"P1 assembly to CSR, {_cells(shape)}"


def measure_assembly(shape: tuple[int, ...], bench: Bench) -> list[Row]:
    """The stiffness matrix from points and cells, and again where the pattern (scikit-fem: the basis) is there."""
    mesh = unstructured(shape, bench.device)
    expected = stiffness(mesh)

    def error(value: Any) -> float:
        difference = _as_scipy(value) - expected
        return float(abs(difference).max() / abs(expected).max())

    fresh = Contender(
        ASSEMBLY,
        "sciml",
        version_of("sciml"),
        lambda _: _assembled(make_pattern(mesh.cells, len(mesh.points)), make_geometry(mesh)),
        Outcome,
        device=bench.device,
    )
    pattern = make_pattern(mesh.cells, len(mesh.points))
    _assembled(pattern, make_geometry(mesh))
    whole = partial(discretize, POISSON, fields={"f": 1.0}, boundary=Dirichlet(0.0))
    contenders = [
        fresh,
        replace(fresh, method=KEPT, solve=lambda _: _assembled(pattern, make_geometry(mesh))),
        replace(
            fresh,
            method=WHOLE,
            prepare=lambda: Mesh(mesh.points, mesh.cells, mesh.boundaries),
            solve=lambda other: whole(domain=other).operator.to_sparse(),
            finish=lambda _: Outcome(),
        ),
        Contender(
            SKFEM,
            "scikit-fem",
            version_of("scikit-fem"),
            lambda other: _skfem(_skfem_basis(other)),
            Outcome,
            lambda: _skfem_mesh(mesh),
        ),
        Contender(
            SKFEM_KEPT,
            "scikit-fem",
            version_of("scikit-fem"),
            _skfem,
            Outcome,
            lambda: _skfem_basis(_skfem_mesh(mesh)),
        ),
    ]
    return bench.compare(assembly_case(shape), contenders, unknowns=len(mesh.points), error=error)


@torch.no_grad()
def _assembled(pattern: Pattern, geometry: Geometry) -> Tensor:
    matrix = MatrixSum(pattern, geometry)
    matrix.add_isotropic(1.0)
    values = matrix.entries(symmetric=True)
    return csr_from_starts(pattern.starts, pattern.columns, values, (pattern.size, pattern.size))


def _as_scipy(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    parts = (part.cpu().numpy() for part in (value.values(), value.col_indices(), value.crow_indices()))
    return scipy.sparse.csr_matrix(tuple(parts), shape=tuple(value.shape))


def _skfem_mesh(mesh: Mesh) -> Any:
    import skfem

    points = numpy.ascontiguousarray(mesh.points.cpu().numpy().T)
    cells = numpy.ascontiguousarray(mesh.cells.cpu().numpy().T)
    return (skfem.MeshTri if len(points) == 2 else skfem.MeshTet)(points, cells)


def _skfem_basis(mesh: Any) -> Any:
    import skfem

    return skfem.Basis(mesh, skfem.ElementTriP1() if mesh.dim() == 2 else skfem.ElementTetP1())


def _skfem(basis: Any) -> Any:
    from skfem.models.poisson import laplace

    return laplace.assemble(basis)


def stiffness(mesh: Mesh) -> scipy.sparse.csr_matrix:
    """The integrals of grad(phi_i) . grad(phi_j) in numpy, by the definition and none of the code that assembles."""
    points, cells = mesh.points.cpu().numpy(), mesh.cells.cpu().numpy()
    corners = points[cells]
    ones = numpy.ones((*cells.shape, 1))
    # The columns of the inverse hold, for each vertex, the constant and the gradient of its linear function.
    gradients = numpy.linalg.inv(numpy.concatenate([ones, corners], -1))[:, 1:]
    volumes = numpy.abs(numpy.linalg.det(corners[:, 1:] - corners[:, :1])) / math.factorial(points.shape[1])
    local = volumes[:, None, None] * numpy.einsum("mki,mkj->mij", gradients, gradients)
    rows, columns = numpy.broadcast_arrays(cells[:, :, None], cells[:, None, :])
    return scipy.sparse.csr_matrix((local.ravel(), (rows.ravel(), columns.ravel())), shape=(len(points),) * 2)


# Poisson's equation on tetrahedra


@dataclass(frozen=True)
class MatrixProblem:
    """A sparse system for all contenders alike.

    Args:
        operator: A, one matrix.
        b: right side, `(n,)`.
    """

    operator: LinearOperator
    b: Tensor

    @property
    def unknowns(self) -> int:
        """Number of rows."""
        return self.operator.size

    @cached_property
    def matrix(self) -> scipy.sparse.csr_matrix:
        """A for scipy and pyamg, with indices of 32 bits as they are quickest with."""
        matrix = _as_scipy(self.operator.to_sparse())
        matrix.indices, matrix.indptr = matrix.indices.astype(numpy.int32), matrix.indptr.astype(numpy.int32)
        return matrix

    @cached_property
    def right_side(self) -> Array:
        """b for `matrix`."""
        return self.b.cpu().numpy()

    def relative_residual(self, value: Tensor | Array) -> float:
        """|b - A x| / |b| by scipy."""
        x = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        b = self.right_side
        return float(numpy.linalg.norm(b - self.matrix @ x) / numpy.linalg.norm(b))


def tetrahedra_case(n: int) -> str:
    """Name of the case."""
    return f"Poisson on {_cells((n, n, n))} to 1e-8"


def measure_tetrahedra(n: int, bench: Bench) -> list[Row]:
    """Set-up and solve to 1e-8 on a box of moved points, u zero on its surface, f random; rows of the surface too."""
    mesh = unstructured((n, n, n), bench.device)
    system = discretize(POISSON, mesh, {"f": 0.0}, boundary=Dirichlet(0.0))
    b = random_right_side((len(mesh.points),), bench.device)
    b[mesh.boundary_points()] = 0.0
    problem = MatrixProblem(system.operator, b)
    contenders = [
        own(problem, OWN, ConjugateGradient(preconditioner=AlgebraicMultigrid(), rtol=1e-8)),
        pyamg_cg(problem, SMOOTHED_AGGREGATION, 1e-8),
        pyamg_cg(problem, RUGE_STUBEN, 1e-8),
    ]
    return bench.compare(
        tetrahedra_case(n),
        contenders,
        unknowns=problem.unknowns,
        residual=problem.relative_residual,
        tolerance=1e-8,
    )


# Orders of convergence


def orders_case(dimension: int) -> str:
    """Name of the case."""
    return f"orders on unstructured {'triangles' if dimension == 2 else 'tetrahedra'}"


def measure_orders(dimension: int, bench: Bench) -> list[Row]:
    """Distance of the measured orders from 2 in L2 and 1 in H1, for -div(a*grad(u)) = f with a smooth solution."""
    equation = Equation("-div((1 + x)*grad(u)) = f")
    sizes = (24, 48) if dimension == 2 else (8, 16)
    errors = []
    for n in sizes:
        mesh = unstructured((n,) * dimension, bench.device, seed=n)
        bench.say(f"{orders_case(dimension)}: {n}")
        solution = solve(equation, mesh, fields={"f": _source}, boundary=Dirichlet(_exact), rtol=1e-11)
        errors.append(solution.error(_exact))
    rows = []
    for norm, order in (("L2", 2), ("H1", 1)):
        coarse, fine = (float(found[norm]) for found in errors)
        measured = float(numpy.log2(coarse / fine) / numpy.log2(sizes[1] / sizes[0]))
        extra = {"order": measured, "errors": [coarse, fine]}
        rows.append(bench.row(orders_case(dimension), norm, error=abs(measured - order), extra=extra))
    return rows


def _exact(*x: Tensor) -> Tensor:
    return torch.exp(x[0]) * torch.cos(2 * x[1]) * (torch.sin(x[2]) if len(x) == 3 else 1.0)


def _source(*x: Tensor) -> Tensor:
    # -(1 + x) laplacian(u) - u_x with laplacian(u) = -3 u or, with the factor sin(z), -4 u, and u_x = u
    return ((1 + x[0]) * (3.0 if len(x) == 2 else 4.0) - 1.0) * _exact(*x)
