"""Tight references, written apart from every library that is timed."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import numpy
from numpy.typing import NDArray

from .problems import Array, FieldProblem

Spectrum = NDArray[numpy.complex128]


def lawson(
    linear: Array, nonlinear: Callable[[Spectrum], Spectrum], spectrum: Spectrum, step: float, steps: int
) -> Spectrum:
    """The classical Runge-Kutta method on exp(-t L) y for dy/dt = L y + N(y), L diagonal.

    Lawson, SIAM J. Numer. Anal. 4 (1967) 372-380.

    Args:
        linear: L, `(..., *modes)`.
        nonlinear: N.
        spectrum: y at the start.
        step, steps: size and number of steps, dimensionless.
    """
    half = numpy.exp(linear * (step / 2))
    whole = half**2
    y = spectrum
    for _ in range(steps):
        a = nonlinear(y)
        moved = half * y
        b = nonlinear(moved + (step / 2) * half * a)
        c = nonlinear(moved + (step / 2) * b)
        d = nonlinear(whole * y + step * half * c)
        y = whole * (y + (step / 6) * a) + (step / 3) * half * (b + c) + (step / 6) * d
    return y


def _wavenumbers(problem: FieldProblem) -> tuple[list[Array], NDArray[numpy.bool_]]:
    """Along each axis, shaped to be broadcast, and which modes the 2/3 rule keeps."""
    *others, last = problem.grid
    integers = [numpy.fft.fftfreq(n, 1 / n) for n in others] + [numpy.fft.rfftfreq(last, 1 / last)]
    shaped: list[Array] = [
        whole.astype(numpy.float64).reshape([-1 if axis == place else 1 for axis in range(problem.axes)])
        for place, whole in enumerate(integers)
    ]
    kept = numpy.ones((), dtype=bool)
    for whole, n in zip(shaped, problem.grid, strict=True):
        kept = kept & (numpy.abs(whole) < n / 3)
    return [2 * pi / problem.length * whole for whole in shaped], kept


def _run(
    problem: FieldProblem,
    rows: int,
    linear: Array,
    kept: NDArray[numpy.bool_],
    nonlinear: Callable[[Spectrum], Spectrum],
    refine: int,
) -> Array:
    axes = tuple(range(-problem.axes, 0))
    start = numpy.fft.rfftn(problem.initial[:rows], axes=axes) * kept
    end = lawson(linear, nonlinear, start, problem.step / refine, problem.steps * refine)
    field: Array = numpy.fft.irfftn(end, s=problem.grid, axes=axes)
    return field


def kuramoto_sivashinsky(problem: FieldProblem, rows: int, refine: int = 8) -> Array:
    """The first rows at the end, with `refine` steps for one of the problem's."""
    (k,), kept = _wavenumbers(problem)
    (n,) = problem.grid
    factor = -0.5j * k * kept

    def nonlinear(y: Spectrum) -> Spectrum:
        product: Spectrum = factor * numpy.fft.rfft(numpy.fft.irfft(y, n) ** 2)
        return product

    return _run(problem, rows, k**2 - k**4, kept, nonlinear, refine)


def navier_stokes(problem: FieldProblem, rows: int, refine: int = 4) -> Array:
    """The same of the vorticity."""
    (k, m), kept = _wavenumbers(problem)
    square = k**2 + m**2
    inverse = numpy.divide(1.0, square, out=numpy.zeros_like(square), where=square > 0)

    def nonlinear(w: Spectrum) -> Spectrum:
        psi = inverse * w
        psi_x, psi_y, w_x, w_y = (
            numpy.fft.irfft2(1j * wave * field, problem.grid) for field in (psi, w) for wave in (k, m)
        )
        product: Spectrum = kept * numpy.fft.rfft2(psi_x * w_y - psi_y * w_x)
        return product

    return _run(problem, rows, -problem.parameters["nu"] * square, kept, nonlinear, refine)


def quasi_geostrophic(problem: FieldProblem, rows: int, refine: int = 1) -> Array:
    """The same of both layers; one step for one, since the problem's method has order 3 and this one 4."""
    (k, m), kept = _wavenumbers(problem)
    given = problem.parameters
    f1, f2 = given["F1"], given["F2"]
    square = k**2 + m**2
    determinant = square * (square + f1 + f2)
    inverse = numpy.divide(1.0, determinant, out=numpy.zeros_like(square), where=square > 0)
    gradients = numpy.array([given["G1"], given["G2"]]).reshape(2, 1, 1)
    flow = numpy.array([given["U"], 0.0]).reshape(2, 1, 1)
    drag = numpy.array([0.0, given["r"]]).reshape(2, 1, 1)

    def nonlinear(q: Spectrum) -> Spectrum:
        first, second = q[..., 0, :, :], q[..., 1, :, :]
        psi = -inverse * numpy.stack([(square + f2) * first + f1 * second, f2 * first + (square + f1) * second], -3)
        psi_x, psi_y, q_x, q_y = (
            numpy.fft.irfft2(1j * wave * field, problem.grid) for field in (psi, q) for wave in (k, m)
        )
        product = kept * numpy.fft.rfft2(psi_y * q_x - psi_x * q_y)
        whole: Spectrum = product - 1j * k * (flow * q + gradients * psi) + drag * square * psi
        return whole

    return _run(problem, rows, numpy.zeros((1, 1)), kept, nonlinear, refine)
