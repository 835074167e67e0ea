"""Orders of convergence, measured on equations whose source and boundary values come from a known solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.linear import GMRES, ILU0
from sciml.solvers.solve import solve

from ...boundary import Dirichlet, Neumann, Periodic, Robin
from ...equations import Equation
from ...grid import Grid
from ...scheme import FiniteDifference
from ..bench import Bench
from ..row import Row

Function = Callable[..., Tensor]

_ROBIN = 1.5
_UPPER = (1.0, 1.2, 0.9)


@dataclass(frozen=True)
class Manufactured:
    """An equation with the source f that makes `exact` its solution.

    Args:
        text: the equation.
        kinds: letters of the lower and upper side of each axis: D, N, R, or P for both of a periodic one.
        exact: the solution, a function of the coordinates.
        fields: coefficients, functions of the coordinates.
        cells: along x on the coarser of the two grids, at order 2.
    """

    text: str
    kinds: tuple[str, ...]
    exact: Function
    fields: Mapping[str, Function] = field(default_factory=dict)
    cells: int = 24

    def order(self, order: int) -> float:
        """How the error falls from a grid to one of half the spacing, as a power of the spacing."""
        cells = self.cells * (2 if order == 4 and len(self.kinds) < 3 else 1)
        return math.log2(self.error(cells, order) / self.error(2 * cells, order))

    def error(self, cells: int, order: int) -> float:
        """Root mean square error of the discrete solution."""
        equation = Equation(self.text)
        shape = [cells * (4 + axis) // 4 for axis in range(len(self.kinds))]
        grid = Grid(shape, upper=_UPPER[: len(shape)], boundary=self._sides())
        names: dict[str, Any] = {**self.fields, "u": self.exact}
        values: dict[str, Any] = dict(zip("xyz", grid.coordinates, strict=False))
        for name in equation.required(len(shape)):
            base, _, letters = name.partition("_")
            if base in names:
                function = names[base]
                for letter in letters:
                    function = _derivative(function, "xyz".index(letter))
                values[name] = function(*grid.coordinates).detach()
            elif name not in values:
                values[name] = 0.0  # the source
        source = equation.residual(values, len(shape))
        scheme = FiniteDifference(order=order) if order == 4 else None
        method = GMRES(preconditioner=ILU0(), restart=60) if order == 4 and len(shape) == 3 else None
        # The residual counts the error times the second power of the spacing, hence far below the smallest error.
        found = solve(equation, grid, fields={**self.fields, "f": source}, scheme=scheme, method=method, rtol=1e-11)
        return float((found.value - self.exact(*grid.coordinates)).square().mean().sqrt())

    def _sides(self) -> dict[str, Any]:
        sides: dict[str, Any] = {}
        for axis, letters in enumerate(self.kinds):
            pair = tuple(self._side(axis, side, kind) for side, kind in enumerate(letters))
            sides["xyz"[axis]] = Periodic() if letters == "P" else pair
        return sides

    def _side(self, axis: int, side: int, kind: str) -> Any:
        if kind in "DP":
            return Dirichlet(self.exact)
        slope = _derivative(self.exact, axis)

        def flux(*coordinates: Tensor) -> Tensor:
            a = self.fields["a"](*coordinates) if "a" in self.fields else 1.0
            return ((1.0 if side else -1.0) * a * slope(*coordinates)).detach()

        if kind == "N":
            return Neumann(flux)
        return Robin(_ROBIN, lambda *coordinates: flux(*coordinates) + _ROBIN * self.exact(*coordinates))


def _derivative(function: Function, axis: int) -> Function:
    def derived(*coordinates: Tensor) -> Tensor:
        with torch.enable_grad():
            places = [c if c.requires_grad else c.detach().clone().requires_grad_() for c in coordinates]
            value = function(*places) + 0.0 * places[axis]
            return torch.autograd.grad(value.sum(), places[axis], create_graph=True)[0]

    return derived


def _line(x: Tensor) -> Tensor:
    return torch.sin(4.0 * x + 0.2) + x * x


def _plane(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(4.0 * x + 0.2) * torch.cos(3.0 * y + 0.3) + x * y


def _space(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.sin(2.1 * x + 0.2) * torch.cos(1.4 * y + 0.3) * torch.exp(0.5 * z) + x * y * z


def _around(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(torch.sin(2 * math.pi * x)) * torch.cos(2.0 * y + 0.3)


def _coefficient(x: Tensor, y: Tensor) -> Tensor:
    return 1.5 + torch.sin(2.0 * x + y)


def _coefficient_in_space(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 1.5 + torch.sin(x + y - z)


_LAPLACE, _DIFFUSION = "-laplacian(u) = f", "-div(a*grad(u)) = f"


def problems(quick: bool) -> dict[str, Manufactured]:
    """Every boundary kind on every axis, in one to three dimensions; a part of them if `quick`."""
    found = {f"1D {kinds}": Manufactured(_LAPLACE, (kinds,), _line, cells=64) for kinds in ("DD", "DN", "NR", "RD")}
    if quick:
        return found
    for kinds in [("ND", "DD"), ("DR", "DD"), ("DD", "DN"), ("DD", "RD"), ("RN", "NR")]:
        found[f"2D {'/'.join(kinds)}"] = Manufactured(_LAPLACE, kinds, _plane)
    for kinds in [("DD", "DD"), ("ND", "DR"), ("NN", "DN")]:
        found[f"2D {'/'.join(kinds)}, variable a"] = Manufactured(_DIFFUSION, kinds, _plane, {"a": _coefficient})
    found["2D P/NR"] = Manufactured(_LAPLACE, ("P", "NR"), _around)
    variable = {"a": _coefficient_in_space}
    found["3D DD/DN/RD, variable a"] = Manufactured(_DIFFUSION, ("DD", "DN", "RD"), _space, variable, cells=12)
    return found


def orders_case(order: int) -> str:
    """Name of the case."""
    return f"manufactured solutions, order {order}"


def measure_orders(order: int, bench: Bench) -> list[Row]:
    """How far the measured order is from the claimed one, at worst."""
    found = {}
    for name, problem in problems(quick=bench.size == "tiny").items():
        bench.say(f"{orders_case(order)}: {name}")
        found[name] = problem.order(order)
    worst = max(abs(measured - order) for measured in found.values())
    extra = {"error_is": "largest distance of a measured order to the claimed one", "orders": found}
    return [bench.row(orders_case(order), f"order {order}", error=worst, device="cpu", extra=extra)]
