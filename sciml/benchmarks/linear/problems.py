"""The systems A x = b that the suite solves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import pi, prod
from typing import Any, Protocol

import numpy
import scipy.fft
import scipy.sparse
import torch
from torch import Tensor

from ...boundary import Dirichlet, Neumann
from ...discretization import discretize
from ...equations import Equation
from ...grid import Grid
from ...linear_operator import LinearOperator
from ...stencil import StencilOperator, shifted_slices

Array = numpy.ndarray[Any, numpy.dtype[Any]]

DARCY_VALUES = (12.0, 3.0)


class LinearProblem(Protocol):
    """A x = b as the contenders take it."""

    @property
    def operator(self) -> LinearOperator:
        """A, for this package."""

    @property
    def b(self) -> Tensor:
        """Right side for `operator`."""

    @property
    def matrix(self) -> scipy.sparse.csr_matrix:
        """A, for scipy and pyamg."""

    @property
    def right_side(self) -> Array:
        """Right side for `matrix`."""


@dataclass(frozen=True)
class Problem:
    """A system for all contenders alike.

    Args:
        operator: A, on the device; one matrix, or a batch.
        b: right side, `(*batch, *space)`, on the device.
        solid: bool, `space`: cells in which A is the identity and b zero. Matrices for other libraries leave them out.
    """

    operator: StencilOperator
    b: Tensor
    solid: Tensor | None = None

    @property
    def unknowns(self) -> int:
        """Over the whole batch, solid cells left out."""
        cells = self.operator.size - (0 if self.solid is None else int(self.solid.sum()))
        return cells * prod(self.operator.batch)

    @cached_property
    def _fluid(self) -> Array:
        solid = torch.zeros(self.operator.space, dtype=torch.bool) if self.solid is None else self.solid.cpu()
        return numpy.flatnonzero(~solid.numpy())

    @cached_property
    def matrix(self) -> scipy.sparse.csr_matrix:
        """A for scipy and pyamg, with indices of 32 bits as they are quickest with."""
        tensor = self.operator.to_sparse().cpu()
        parts = [tensor.values(), tensor.col_indices().to(torch.int32), tensor.crow_indices().to(torch.int32)]
        matrix = scipy.sparse.csr_matrix(tuple(part.numpy() for part in parts), shape=tuple(tensor.shape))
        return matrix if self.solid is None else matrix[self._fluid][:, self._fluid].tocsr()

    @cached_property
    def right_side(self) -> Array:
        """b for `matrix`."""
        return self.b.cpu().numpy().reshape(-1)[self._fluid]

    def relative_residual(self, value: Tensor | Array) -> float:
        """|b - A x| / |b| by numpy from the stencil's coefficients, the largest of a batch.

        Args:
            value: shaped as b, or as `right_side`.
        """
        if isinstance(value, Tensor):
            x = value.detach().cpu().numpy()
        else:
            x = numpy.zeros(self.operator.size)
            x[self._fluid] = value
        b = self.b.cpu().numpy()
        residual = b - stencil_product(self.operator, x.reshape(b.shape))
        axes = tuple(range(-len(self.operator.space), 0))
        return float((numpy.sqrt((residual**2).sum(axes)) / numpy.sqrt((b**2).sum(axes))).max())


def stencil_product(operator: StencilOperator, x: Array) -> Array:
    """A x in numpy, by the definition of a stencil and none of the code that the solvers use."""
    result = numpy.zeros_like(x)
    for offset, tensor in zip(operator.offsets, operator.coefficients, strict=True):
        coefficient = tensor.detach().cpu().numpy()
        shape = numpy.broadcast_shapes(coefficient.shape, operator.space)
        coefficient = numpy.broadcast_to(coefficient, shape)
        for here, there in shifted_slices(operator.space, offset, operator.periodic):
            at: Any = (..., *here)
            neighbours: Any = (..., *there)
            result[at] += coefficient[at] * x[neighbours]
    return result


def random_right_side(shape: Sequence[int], device: str, seed: int = 0) -> Tensor:
    """Independent standard normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(device)


def poisson(shape: Sequence[int], device: str, seed: int = 0) -> Problem:
    """-laplacian(u) = f, zero on all sides of a box with equal spacings, f random."""
    upper = [n / max(shape) for n in shape]
    grid = Grid(tuple(shape), upper=upper, boundary=Dirichlet(0.0), device=device)
    operator = _stencil(Equation("-laplacian(u) = f"), grid, {"f": 0.0})
    return Problem(operator, random_right_side(shape, device, seed))


def voxels(n: int, device: str, seed: int = 0, boxes: int = 12) -> Problem:
    """`around` random solid boxes, of 2 to n/4 cells along each axis, each drawn alike, which may overlap."""
    generator = torch.Generator().manual_seed(seed)
    solid = torch.zeros(n, n, n, dtype=torch.bool)
    for _ in range(boxes):
        lengths = torch.randint(2, n // 4 + 1, (3,), generator=generator)
        corner = [int(torch.randint(0, n - int(length) + 1, (), generator=generator)) for length in lengths]
        solid[tuple(slice(start, start + int(length)) for start, length in zip(corner, lengths, strict=True))] = True
    return around(solid.to(device), seed)


def around(solid: Tensor, seed: int = 0) -> Problem:
    """-laplacian(u) = f around the solid cells of a cube, insulated but for one side where u is zero; f random."""
    shape, device = tuple(solid.shape), str(solid.device)
    sides = {"x": (Dirichlet(0.0), Neumann(0.0)), "y": Neumann(0.0), "z": Neumann(0.0)}
    grid = Grid(shape, boundary=sides, solid=solid, device=device)
    operator = _stencil(Equation("-laplacian(u) = f"), grid, {"f": 0.0})
    b = random_right_side(shape, device, seed)
    return Problem(operator, b.masked_fill(grid.solid, 0.0) if grid.solid is not None else b, grid.solid)


def darcy(n: int, device: str, seeds: Sequence[int] = (0,), smooth: bool = False) -> Problem:
    """-div(a*grad(u)) = f, zero on all sides, with a two-valued a (see `darcy_coefficient`) and f random.

    Several seeds make a batch, one seed a single system; `smooth` makes f 1.
    """
    a = torch.stack([darcy_coefficient((n, n), seed) for seed in seeds]).to(device)
    b = torch.ones_like(a) if smooth else torch.stack([random_right_side((n, n), device, seed) for seed in seeds])
    if len(seeds) == 1:
        a, b = a[0], b[0]
    grid = Grid((n, n), boundary=Dirichlet(0.0), device=device)
    return Problem(_stencil(Equation("-div(a*grad(u)) = f"), grid, {"a": a, "f": 0.0}), b)


def darcy_coefficient(shape: Sequence[int], seed: int) -> Tensor:
    """12 where a Gaussian random field is positive and 3 elsewhere.

    The field's covariance is (-laplacian + 9)^-2 with Neumann sides on the unit cube, its mean zero: the coefficient of
    the Darcy flow of Li et al., Fourier Neural Operator for Parametric Partial Differential Equations (2021),
    appendix A.3.2.
    """
    high, low = DARCY_VALUES
    field = gaussian_field(shape, seed)
    return torch.full_like(field, low).masked_fill(field > 0, high)


def gaussian_field(shape: Sequence[int], seed: int, shift: float = 9.0, power: float = 2.0) -> Tensor:
    """A sample of N(0, (-laplacian + shift)^-power) with Neumann sides on the unit cube, the constant left out.

    Args:
        shape: number of cells along each axis; the values stand at their centres.
        seed: of the random numbers.
        shift, power: of the covariance, dimensionless.

    Returns:
        float64 tensor of `shape`.
    """
    squares = [(pi * numpy.arange(n)) ** 2 for n in shape]
    eigenvalues = (sum(numpy.meshgrid(*squares, indexing="ij")) + shift) ** -power
    eigenvalues.flat[0] = 0.0
    noise = random_right_side(shape, "cpu", seed).numpy()
    # The cosines of an orthonormal transform are those of the unit cube divided by the root of the number of cells.
    field = scipy.fft.idctn(numpy.sqrt(eigenvalues) * noise, norm="ortho") * prod(shape) ** 0.5
    return torch.from_numpy(numpy.ascontiguousarray(field))


def _stencil(equation: Equation, grid: Grid, fields: dict[str, Any]) -> StencilOperator:
    operator = discretize(equation, grid, fields).operator
    if not isinstance(operator, StencilOperator):
        raise TypeError(f"{equation} on {grid} became {operator}")
    return operator
