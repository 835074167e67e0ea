"""Nonlinear problems whose sources and boundary values come from an exact solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml

Function = Callable[..., Tensor]


def partial(function: Function, axis: int) -> Function:
    """The derivative of a function of the coordinates, itself one, by automatic differentiation."""

    def derived(*coordinates: Tensor) -> Tensor:
        with torch.enable_grad():
            places = [c if c.requires_grad else c.detach().clone().requires_grad_() for c in coordinates]
            value = function(*places) + 0.0 * places[axis]
            return torch.autograd.grad(value.sum(), places[axis], create_graph=True)[0]

    return derived


@dataclass(frozen=True)
class Problem:
    """An equation with the sources f (f0, f1, ... of a system) that make `exact` its solution.

    `boundary` makes the sides from the exact solution of one unknown.
    """

    text: str | Sequence[str]
    exact: Mapping[str, Function]
    boundary: Callable[[Function], Any]
    fields: Mapping[str, Function] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    dimension: int = 2
    scheme: Any = None

    def solve(self, n: int, **options: Any) -> sciml.Solution:
        equation = sciml.Equation(self.text, parameters=dict(self.parameters), unknowns=list(self.exact))
        shape = [n + 2 * k for k in range(self.dimension)]
        sides = {name: self.boundary(function) for name, function in self.exact.items()}
        grid = sciml.Grid(shape, boundary=sides if len(sides) > 1 else next(iter(sides.values())))
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
        fields = {**self.fields, **dict(zip(names, sources, strict=True))}
        return sciml.solve(equation, grid, fields=fields, scheme=self.scheme, **options)

    def error(self, n: int, **options: Any) -> float:
        """Root mean square error."""
        solution = self.solve(n, **options)
        exact = [function(*solution.domain.coordinates) for function in self.exact.values()]
        expected = exact[0] if len(exact) == 1 else torch.stack(exact)
        return float((solution.value - expected).square().mean().sqrt())

    def order(self, n: int, **options: Any) -> float:
        """Measured between n and 2 n cells."""
        return math.log2(self.error(n, **options) / self.error(2 * n, **options))


@pytest.fixture
def problem() -> type[Problem]:
    return Problem


@pytest.fixture(name="partial")
def partial_fixture() -> Callable[[Function, int], Function]:
    return partial
