"""Operators of every kind that the linear solvers are for, and the matrices behind them for scipy."""

from __future__ import annotations

import functools
import warnings
from types import SimpleNamespace

import numpy
import pytest
import torch
from scipy.sparse import csr_array, random_array
from torch import Tensor

import sciml
from sciml.linear_operator import BlockOperator, LinearOperator
from sciml.sparse import as_operator

FLUX = sciml.Neumann(0.0)
SIDE = sciml.Dirichlet(0.0)


def field(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def matrix_of(operator: LinearOperator) -> csr_array:
    """The matrix for scipy, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its CSR support is in beta
        matrix = operator.detach().to_sparse()
    parts = (matrix.values().double().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy())
    return csr_array(parts, shape=tuple(matrix.shape))


def poisson(*shape: int, boundary=SIDE) -> LinearOperator:
    grid = sciml.Grid(shape, (0.0,) * len(shape), (1.0,) * len(shape), boundary=boundary)
    return sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, {"f": 0.0}).operator


def darcy(*shape: int, seed: int = 0, batch: tuple[int, ...] = (), contrast: float = 1.0) -> LinearOperator:
    grid = sciml.Grid(shape, (0.0,) * len(shape), (1.0,) * len(shape), boundary={"x": (SIDE, FLUX), "y": SIDE})
    a = (contrast * field((*batch, *shape), seed)).exp()
    return sciml.discretize(sciml.Equation("-div(a*grad(u)) = f"), grid, {"a": a, "f": 0.0}).operator


def advection(*shape: int, scheme=None) -> LinearOperator:
    grid = sciml.Grid(shape, (0.0,) * len(shape), (1.0,) * len(shape), boundary=SIDE)
    equation = sciml.Equation("-laplacian(u) + p*u_x - q*u_y = f", parameters={"p": 20.0, "q": 5.0})
    return sciml.discretize(equation, grid, {"f": 0.0}, scheme=scheme).operator


def shifted(*shape: int, shift: float) -> LinearOperator:
    """-laplacian - shift, indefinite beyond the first eigenvalue (about 20 on the unit square)."""
    grid = sciml.Grid(shape, (0.0,) * len(shape), (1.0,) * len(shape), boundary=SIDE)
    equation = sciml.Equation("-laplacian(u) - k*u = f", parameters={"k": shift})
    return sciml.discretize(equation, grid, {"f": 0.0}).operator


def random_matrix(size: int, *, symmetric: bool, seed: int = 0) -> csr_array:
    """Well conditioned, diagonally dominant, with an unstructured pattern."""
    generator = numpy.random.default_rng(seed)
    matrix = random_array((size, size), density=6 / size, rng=generator).tocsr()
    matrix.data = matrix.data - 0.5
    matrix = matrix + matrix.T if symmetric else matrix
    weight = numpy.asarray(abs(matrix).sum(axis=1)).ravel()
    diagonal = csr_array((1.2 * weight + 0.1, (range(size), range(size))), shape=(size, size))
    return csr_array(matrix + diagonal)


def coupled(*shape: int) -> LinearOperator:
    """Two unknowns on one grid, coupled in one direction more strongly than in the other."""
    first, second = poisson(*shape), advection(*shape)
    return BlockOperator([[first, 3.0 * _identity(first)], [-1.0 * _identity(first), second]])


def _identity(like: LinearOperator) -> LinearOperator:
    return sciml.linear_operator.Identity(like.space, like.dtype)


OPERATORS = {
    "poisson 1D": lambda: poisson(40),
    "poisson 2D": lambda: poisson(17, 13),
    "poisson 3D": lambda: poisson(7, 6, 5, boundary={"x": (SIDE, FLUX), "y": sciml.Periodic(), "z": FLUX}),
    "darcy 2D": lambda: darcy(14, 17),
    "poisson CSR": lambda: as_operator(poisson(15, 14).to_sparse()),
    "random symmetric": lambda: as_operator(random_matrix(150, symmetric=True)),
    "indefinite 2D": lambda: shifted(13, 12, shift=90.0),
    "upwind 2D": lambda: advection(15, 14),
    "fourth order 2D": lambda: advection(12, 13, scheme=sciml.FiniteDifference(4)),
    "coupled": lambda: coupled(9, 8),
    "random general": lambda: as_operator(random_matrix(150, symmetric=False)),
}


@functools.cache
def named(name: str) -> LinearOperator:
    return OPERATORS[name]()


@pytest.fixture(scope="session")
def operators() -> SimpleNamespace:
    """The builders of this file."""
    return SimpleNamespace(
        named=named,
        names=tuple(OPERATORS),
        poisson=poisson,
        darcy=darcy,
        advection=advection,
        shifted=shifted,
        random_matrix=random_matrix,
        matrix_of=matrix_of,
        field=field,
    )
