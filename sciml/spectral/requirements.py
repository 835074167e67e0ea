"""What a Fourier discretization asks of an equation and a grid."""

from __future__ import annotations

from ..equations import Equation
from ..errors import InputError
from ..grid import Grid


def require_periodic(equation: Equation, grid: Grid) -> None:
    """Raise InputError unless the equation evolves, and the grid is periodic, without solid cells, of enough axes."""
    instead = "take scheme=FiniteDifference() or FiniteVolume()"
    if not isinstance(grid, Grid):
        raise InputError(f"Spectral: Fourier series live on a periodic Grid, not on a {type(grid).__name__}")
    if not all(grid.periodic):
        walls = ", ".join(axis for axis, wraps in zip(grid.axes, grid.periodic, strict=True) if not wraps)
        raise InputError(
            f"Spectral: Fourier series need a grid that is periodic in all axes, and {walls} has walls: {instead}, or "
            "make the grid with boundary=Periodic()"
        )
    if grid.solid is not None:
        raise InputError(f"Spectral: Fourier series know no solid cells: {instead}, or a grid without solid=")
    if not equation.evolving:
        raise InputError(f"Spectral: '{equation}' does not evolve in time; solve(...) takes steady equations")
    if not equation.dimension <= grid.dimension <= len(equation.coordinates):
        raise InputError(
            f"'{equation}' can be written for {equation.dimension} to {len(equation.coordinates)} axes, the grid has "
            f"{grid.dimension}"
        )
