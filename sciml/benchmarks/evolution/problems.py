"""Evolving fields that the suite steps through, all of them on periodic grids, with the data of every library's run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi

import numpy
from numpy.typing import NDArray

Array = NDArray[numpy.float64]


@dataclass(frozen=True, eq=False)
class FieldProblem:
    """An equation on a periodic box, stepped with a fixed step.

    Args:
        equation, constraints, parameters: as `Equation` takes them.
        length: of every side of the box, dimensionless.
        initial: `(batch, *grid)`, of several unknowns `(batch, channel, *grid)`; axes in the order x, y.
        axes: of the grid.
        step: dimensionless.
        steps: how many.
    """

    equation: str | Sequence[str]
    constraints: Sequence[str]
    parameters: Mapping[str, float]
    length: float
    initial: Array
    axes: int
    step: float
    steps: int

    @property
    def batch(self) -> int:
        """Number of members."""
        return int(self.initial.shape[0])

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of points along each axis."""
        return tuple(self.initial.shape[-self.axes :])

    @property
    def end(self) -> float:
        """Time at the end."""
        return self.steps * self.step


def smooth(batch: int, grid: tuple[int, ...], highest: int, seed: int) -> Array:
    """Random periodic fields of mean 0 and root mean square 1, `(batch, *grid)`, of wavenumbers up to `highest`."""
    generator = numpy.random.default_rng(seed)
    axes = tuple(range(1, 1 + len(grid)))
    spectrum = numpy.fft.fftn(generator.standard_normal((batch, *grid)), axes=axes)
    for axis, n in zip(axes, grid, strict=True):
        shape = [1] * spectrum.ndim
        shape[axis] = n
        spectrum = spectrum * (numpy.abs(numpy.fft.fftfreq(n, 1 / n)) <= highest).reshape(shape)
    field = numpy.fft.ifftn(spectrum, axes=axes).real
    field -= field.mean(axis=axes, keepdims=True)
    scaled: Array = field / numpy.sqrt((field**2).mean(axis=axes, keepdims=True))
    return scaled


def kuramoto_sivashinsky(batch: int, n: int, steps: int) -> FieldProblem:
    """u_t = -u u_x - u_xx - u_xxxx on a ring of length n/5 (rounded), long enough for chaos."""
    length = 2 * pi * round(n / 10 / pi)
    initial = smooth(batch, (n,), max(2, n // 32), seed=0)
    return FieldProblem("u_t = -u*u_x - u_xx - u_xxxx", (), {}, length, initial, 1, 0.025, steps)


NAVIER_STOKES = "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)"


def navier_stokes(batch: int, n: int, steps: int) -> FieldProblem:
    """Decaying vorticity on the square of side 2 pi, with viscosity 0.001."""
    initial = 2.0 * smooth(batch, (n, n), 4, seed=1)
    return FieldProblem(NAVIER_STOKES, ("laplacian(psi) = -w",), {"nu": 1e-3}, 2 * pi, initial, 2, 0.01, steps)


# The eddy configuration of pyqg (a box of 1000 km, deformation radius 15 km, shear 2.5 cm/s, beta 1.5e-11 /m/s, drag
# 5.787e-7 /s, layers 1 to 4), in units of 1000 km / 2 pi and 2.5 cm/s.
_UNIT = 1e6 / (2 * pi)
RADIUS = 15e3 / _UNIT
THICKNESSES = 0.25
SHEAR = 1.0
BETA = 1.5e-11 * _UNIT**2 / 0.025
DRAG = 5.787e-7 * _UNIT / 0.025
_F1 = RADIUS**-2 / (1 + THICKNESSES)
_F2 = THICKNESSES * _F1

QUASI_GEOSTROPHIC = (
    "q1_t = psi1_y*q1_x - psi1_x*q1_y - U*q1_x - G1*psi1_x",
    "q2_t = psi2_y*q2_x - psi2_x*q2_y - G2*psi2_x - r*laplacian(psi2)",
)
LAYERS = ("laplacian(psi1) + F1*(psi2 - psi1) = q1", "laplacian(psi2) + F2*(psi1 - psi2) = q2")


def quasi_geostrophic(batch: int, n: int, steps: int) -> FieldProblem:
    """Two layers on a beta plane, sheared and baroclinically unstable, after Phillips (Tellus 6 (1954) 273-286).

    q are the anomalies of the potential vorticity beside a background whose gradients along y are G1 and G2.
    """
    parameters = {
        "U": SHEAR,
        "F1": _F1,
        "F2": _F2,
        "G1": BETA + _F1 * SHEAR,
        "G2": BETA - _F2 * SHEAR,
        "r": DRAG,
    }
    layers = smooth(2 * batch, (n, n), 4, seed=2).reshape(batch, 2, n, n)
    initial = layers * numpy.array([20.0, 5.0]).reshape(2, 1, 1)
    return FieldProblem(QUASI_GEOSTROPHIC, LAYERS, parameters, 2 * pi, initial, 2, 1e-3, steps)
