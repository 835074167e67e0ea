"""Direct solves, and manufactured problems whose sources and boundary values come from an exact solution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.linalg import bicgstab, spsolve
from torch import Tensor

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.discretization import System, discretize
from sciml.equations import Equation
from sciml.grid import Grid

Function = Callable[..., Tensor]
ALPHA = 1.5


def matrix_of(system: System) -> csr_array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its CSR support is in beta
        matrix = system.operator.to_sparse().detach()
    parts = (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy())
    return csr_array(parts, shape=tuple(matrix.shape))


def solve(system: System) -> Tensor:
    """The solution by scipy: a direct solver in one and two dimensions, an iterative one in three."""
    right_side = system.right_side.detach()
    matrix, b = matrix_of(system), right_side.flatten().numpy()
    if len(system.domain.shape) < 3:
        x = spsolve(matrix.tocsc(), b)
    else:
        x, failure = bicgstab(matrix, b, rtol=1e-12, maxiter=2000)
        assert not failure
    return torch.from_numpy(x).reshape(right_side.shape)


def partial(function: Function, axis: int) -> Function:
    """The derivative of a function of the coordinates, itself one, by automatic differentiation."""

    def derived(*coordinates: Tensor) -> Tensor:
        with torch.enable_grad():
            places = [c if c.requires_grad else c.detach().clone().requires_grad_() for c in coordinates]
            value = function(*places) + 0.0 * places[axis]
            return torch.autograd.grad(value.sum(), places[axis], create_graph=True)[0]

    return derived


@dataclass(frozen=True)
class Manufactured:
    """An equation with the sources f (or f0, f1, ... of a system) that make `exact` its solution.

    `fields` are its other coefficients; `normal` names, by unknown and axis, that of du/dn in boundary fluxes.
    `kinds` are letters: D, N, R for the lower and upper side of each axis, P for a periodic one ("DN", "P").
    """

    text: str | Sequence[str]
    exact: Mapping[str, Function]
    kinds: Sequence[str]
    fields: Mapping[str, Function] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    normal: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unknowns: Sequence[str] | None = None
    upper: Sequence[float] = (1.0, 1.2, 0.9)
    scheme: Any = None

    @property
    def dimension(self) -> int:
        return len(self.kinds)

    def discretize(self, n: int) -> System:
        equation = Equation(self.text, parameters=dict(self.parameters), unknowns=self.unknowns)
        sides = {unknown: self._sides(unknown) for unknown in self.exact}
        grid = Grid(
            [n * (4 + k) // 4 for k in range(self.dimension)],
            upper=self.upper[: self.dimension],
            boundary=sides if len(sides) > 1 else next(iter(sides.values())),
        )
        functions = {**self.fields, **self.exact}
        values: dict[str, Any] = dict(zip("xyz", grid.coordinates, strict=False))
        for name in equation.required(self.dimension):
            base, _, letters = name.partition("_")
            if base in functions:
                function = functions[base]
                for letter in letters:
                    function = partial(function, "xyz".index(letter))
                values[name] = function(*grid.coordinates).detach()
            elif name not in values:
                values[name] = 0.0  # a source
        residuals = equation.residual(values, self.dimension)
        sources = (residuals,) if isinstance(residuals, Tensor) else residuals
        names = ["f"] if len(sources) == 1 else [f"f{i}" for i in range(len(sources))]
        return discretize(equation, grid, {**self.fields, **dict(zip(names, sources, strict=True))}, scheme=self.scheme)

    def error(self, n: int) -> float:
        """Root mean square error of the discrete solution."""
        system = self.discretize(n)
        exact = [function(*system.domain.coordinates) for function in self.exact.values()]
        expected = exact[0] if len(exact) == 1 else torch.stack(exact)
        return float((solve(system) - expected).square().mean().sqrt())

    def order(self, n: int) -> float:
        """Measured between n and 2 n cells along x, and more along the other axes."""
        coarse, fine = self.error(n), self.error(2 * n)
        return math.log(coarse / fine) / math.log(2.0)

    def _sides(self, unknown: str) -> dict[str, Any]:
        sides: dict[str, Any] = {}
        for axis, letters in enumerate(self.kinds):
            if letters == "P":
                sides["xyz"[axis]] = Periodic()
            else:
                sides["xyz"[axis]] = tuple(self._side(unknown, axis, side, kind) for side, kind in enumerate(letters))
        return sides

    def _side(self, unknown: str, axis: int, side: int, kind: str) -> Any:
        exact = self.exact[unknown]
        if kind == "D":
            return Dirichlet(exact)
        slope = partial(exact, axis)

        def flux(*c: Tensor) -> Tensor:
            a = self.fields[self.normal[unknown][axis]](*c) if unknown in self.normal else 1.0
            return ((1.0 if side else -1.0) * a * slope(*c)).detach()

        if kind == "N":
            return Neumann(flux)
        return Robin(ALPHA, lambda *c: flux(*c) + ALPHA * exact(*c))


@pytest.fixture
def manufactured() -> type[Manufactured]:
    return Manufactured


@pytest.fixture(name="solve")
def solve_fixture() -> Callable[[System], Tensor]:
    return solve


@pytest.fixture(name="matrix_of")
def matrix_fixture() -> Callable[[System], csr_array]:
    return matrix_of
