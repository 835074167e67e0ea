"""Gaussian random fields by their Karhunen-Loeve series: a normal number for every eigenfunction of the Laplacian.

The numbers belong to modes and not to points, so that a field is the same function on every grid but for the modes that
the coarser one cannot hold.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sciml.boundary import Boundary, Dirichlet, Neumann, Periodic, Robin, read_sides
from sciml.errors import InputError
from sciml.grid import Grid

Kind = Literal["periodic", "cosine", "sine", "sine_quarter", "cosine_quarter"]
"""Eigenfunctions along an axis: cosines between closed sides, sines between held ones, quarter waves between unlike."""

_KINDS: dict[tuple[bool, bool], Kind] = {
    (True, True): "sine",
    (False, False): "cosine",
    (True, False): "sine_quarter",
    (False, True): "cosine_quarter",
}
_SHIFT = {"cosine": 0.0, "sine": 1.0, "sine_quarter": 0.5, "cosine_quarter": 0.5}  # first wavenumber, in pi/length


_MATRIX = 1024  # up to this many unknowns along an axis a product with a matrix is quicker than transforms


class Covariance(ABC):
    """The covariance operator C = s(-Laplacian) of a Gaussian field, s being the variance of a mode."""

    @abstractmethod
    def spectrum(self, eigenvalues: Tensor, dimension: int) -> Tensor:
        """Variances of the coefficients of orthonormal modes, in the field's unit squared times length**dimension.

        Args:
            eigenvalues: of -Laplacian, not negative, one over length squared; any shape.
            dimension: number of axes.
        """

    @abstractmethod
    def check(self, dimension: int, constant: bool) -> None:
        """Refuse a covariance that is none.

        Args:
            dimension: number of axes.
            constant: whether the constant function is among the modes.

        Raises:
            InputError: with the reason.
        """


@dataclass(frozen=True)
class InversePower(Covariance):
    """C = sigma**2 (-Laplacian + tau**2)**(-alpha), as in the data of Fourier neural operators.

    Args:
        alpha: smoothness, dimensionless; above half the number of axes, or the variance is infinite.
        tau: inverse length beyond which fields decorrelate; zero only where the constant mode is left out.
        sigma: amplitude; None is tau**(alpha - dimension/2), with which the variance depends little on tau; in two
            dimensions sigma**2 is the tau**(2 alpha - 2) of the literature.

    Raises:
        InputError: for numbers that make no covariance.

    Source: Z. Li et al., Fourier neural operator for parametric partial differential equations, ICLR 2021, section 5.
    """

    alpha: float
    tau: float
    sigma: float | None = None

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha, "InversePower")
        _check_positive("sigma", self.sigma, "InversePower")
        if not math.isfinite(self.tau) or self.tau < 0:
            raise InputError(f"InversePower: tau is an inverse length, zero or positive, got {self.tau}")
        if self.tau == 0 and self.sigma is None:
            raise InputError("InversePower: with tau = 0 there is no natural amplitude; give sigma")

    def spectrum(self, eigenvalues: Tensor, dimension: int) -> Tensor:
        sigma = self.tau ** (self.alpha - dimension / 2) if self.sigma is None else self.sigma
        return sigma**2 * (eigenvalues + self.tau**2) ** -self.alpha

    def check(self, dimension: int, constant: bool) -> None:
        if self.alpha <= dimension / 2:
            raise InputError(
                f"alpha = {self.alpha:g} gives no field in {dimension} dimension{'s'[: dimension > 1]}: the variances "
                f"(k**2 + tau**2)**(-alpha) of the modes have no finite sum unless alpha > {dimension / 2:g}"
            )
        if self.tau == 0 and constant:
            raise InputError("tau = 0 gives the constant mode infinite variance: give tau > 0, or zero_mean = true")


@dataclass(frozen=True)
class Matern(Covariance):
    """Matern's covariance: a Gaussian field of stated correlation length and smoothness.

    Far from boundaries the variance is deviation**2; near closed (held) sides it is up to twice that (down to nothing)
    in every axis, as reflection makes it.

    Args:
        length: correlation length, a length.
        smoothness: number of mean-square derivatives; 1/2 is the exponential covariance. Dimensionless.
        deviation: standard deviation, in the unit of the field.

    Raises:
        InputError: for numbers that are not positive.

    Source: F. Lindgren, H. Rue and J. Lindstrom, J. R. Statist. Soc. B 73 (2011) 423-498, equations 1 to 3.
    """

    length: float
    smoothness: float = 1.5
    deviation: float = 1.0

    def __post_init__(self) -> None:
        for name in ("length", "smoothness", "deviation"):
            _check_positive(name, getattr(self, name), "Matern")

    def spectrum(self, eigenvalues: Tensor, dimension: int) -> Tensor:
        half = dimension / 2
        kappa = math.sqrt(2 * self.smoothness) / self.length
        ratio = math.exp(math.lgamma(self.smoothness + half) - math.lgamma(self.smoothness))
        scale = self.deviation**2 * ratio * (4 * math.pi) ** half * kappa ** (2 * self.smoothness)
        return scale * (eigenvalues + kappa**2) ** -(self.smoothness + half)

    def check(self, dimension: int, constant: bool) -> None:
        pass


@dataclass(frozen=True)
class SquaredExponential(Covariance):
    """deviation**2 exp(-|x - y|**2 / (2 length**2)) far from boundaries; near them as `Matern`.

    Args:
        length: correlation length, a length.
        deviation: standard deviation, in the unit of the field.

    Raises:
        InputError: for numbers that are not positive.

    Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, MIT Press 2006, equation 4.9
        and the transform below it.
    """

    length: float
    deviation: float = 1.0

    def __post_init__(self) -> None:
        for name in ("length", "deviation"):
            _check_positive(name, getattr(self, name), "SquaredExponential")

    def spectrum(self, eigenvalues: Tensor, dimension: int) -> Tensor:
        scale = self.deviation**2 * (2 * math.pi * self.length**2) ** (dimension / 2)
        return scale * torch.exp(-0.5 * self.length**2 * eigenvalues)

    def check(self, dimension: int, constant: bool) -> None:
        pass


@dataclass(frozen=True)
class Modes:
    """Orthonormal eigenfunctions of the Laplacian along one axis, and where they are evaluated.

    Args:
        kind: which.
        count: number of unknowns, and of modes.
        length: of the axis.
        offset: of the first unknown from the lower side, in spacings: 1/2 at cell centres, 0 at nodes.
    """

    kind: Kind
    count: int
    length: float
    offset: float

    def eigenvalues(self) -> Tensor:
        """Of -d2/dx2, shape `(count,)`."""
        index = torch.arange(self.count, dtype=torch.float64)
        if self.kind == "periodic":
            return (2 * math.pi / self.length * torch.div(index + 1, 2, rounding_mode="floor")) ** 2
        return (math.pi / self.length * (index + _SHIFT[self.kind])) ** 2

    def scale(self) -> Tensor:
        """Factors that make the modes orthonormal, shape `(count,)`; zero of the wave that the grid cannot hold."""
        factors = torch.full((self.count,), math.sqrt(2 / self.length), dtype=torch.float64)
        if self.kind in ("periodic", "cosine"):
            factors[0] = math.sqrt(1 / self.length)
        if self.kind == "periodic" and self.count % 2 == 0:
            factors[-1] = 0.0
        return factors

    def functions(self) -> Tensor:
        """The modes at the unknowns, `(count of modes, count of unknowns)`."""
        return _functions(self)

    def evaluate(self, coefficients: Tensor) -> Tensor:
        """The series of these coefficients along the last axis, at the unknowns; both real, of equal shape."""
        scaled = coefficients * self.scale().to(coefficients)
        if self.kind == "periodic":
            return self._periodic(scaled)
        # sum_k c_k exp(i pi (k + s)(j + o)/n): its imaginary part for sines, its real part for cosines.
        n, shift = self.count, _SHIFT[self.kind]
        index = torch.arange(n, dtype=torch.float64)
        before, after = (
            torch.polar(torch.ones_like(angle), angle).to(coefficients.device)
            for angle in (math.pi * (index + shift) * self.offset / n, math.pi * shift * index / n)
        )
        waves = torch.fft.ifft(scaled * before, n=2 * n, norm="forward")[..., :n] * after
        return (waves.imag if self.kind in ("sine", "sine_quarter") else waves.real).to(coefficients.dtype)

    def _periodic(self, scaled: Tensor) -> Tensor:
        """Coefficients are of 1, cos 1, sin 1, cos 2, sin 2, ..."""
        n, highest = self.count, (self.count - 1) // 2
        half = torch.zeros(*scaled.shape[:-1], n // 2 + 1, dtype=torch.complex128, device=scaled.device)
        half[..., 0] = 2 * scaled[..., 0]  # irfft adds the conjugate of all but this one
        half[..., 1 : highest + 1] = torch.complex(
            scaled[..., 1 : 2 * highest + 1 : 2].double(), -scaled[..., 2 : 2 * highest + 1 : 2].double()
        )
        angle = 2 * math.pi * self.offset / n * torch.arange(n // 2 + 1, dtype=torch.float64)
        half = half * torch.polar(torch.ones_like(angle), angle).to(half.device)
        return (0.5 * torch.fft.irfft(half, n=n, norm="forward")).to(scaled.dtype)


def modes_of(grid: Grid, boundary: Boundary | None) -> tuple[Modes, ...]:
    """Eigenfunctions along each axis.

    Args:
        grid: where they are evaluated.
        boundary: kinds of sides, their values being without meaning; axes it does not name are as the grid's, and all
            of them with None. Robin counts as closed.

    Raises:
        InputError: for a boundary that is none of the grid.
    """
    sides = {**grid.sides(), **({} if boundary is None else read_sides(boundary, grid.axes))}
    return tuple(
        Modes(_kind(*sides[axis]), n, high - low, 0.0 if wraps else 0.5)
        for axis, n, low, high, wraps in zip(grid.axes, grid.shape, grid.lower, grid.upper, grid.periodic, strict=True)
    )


def _kind(lower: Any, upper: Any) -> Kind:
    if isinstance(lower, Periodic):
        return "periodic"
    return _KINDS[isinstance(lower, Dirichlet), isinstance(upper, Dirichlet)]


def condition_named(name: str) -> Dirichlet | Neumann | Robin | Periodic:
    """The condition that a word of a file stands for."""
    known: Mapping[str, type] = {"dirichlet": Dirichlet, "neumann": Neumann, "periodic": Periodic}
    if name not in known:
        raise InputError(f"a kind of side is {', '.join(known)}, got {name!r}")
    condition: Dirichlet | Neumann | Periodic = known[name]()
    return condition


def variances(modes: Sequence[Modes], covariance: Covariance, zero_mean: bool, most: int | None) -> Tensor:
    """Variances of the coefficients, one axis of the tensor for each axis of space.

    Args:
        modes: of each axis.
        covariance: of the field.
        zero_mean: leave out the constant.
        most: largest number of modes along an axis; None is all that the grid holds.

    Raises:
        InputError: if the covariance is none.
    """
    dimension = len(modes)
    has_constant = all(axis.kind in ("periodic", "cosine") for axis in modes)
    covariance.check(dimension, has_constant and not zero_mean)
    total = torch.zeros((), dtype=torch.float64)
    for place, axis in enumerate(modes):
        total = total + axis.eigenvalues().reshape(-1, *[1] * (dimension - 1 - place))
    first = (0,) * dimension
    if has_constant and zero_mean:
        total[first] = 1.0  # any other number than the zero of the constant mode, which may have no variance
    spectrum = covariance.spectrum(total, dimension)
    if has_constant and zero_mean:
        spectrum[first] = 0.0
    if most is not None:
        for place, axis in enumerate(modes):
            kept = min(most, axis.count)
            spectrum.narrow(place, kept, axis.count - kept).zero_()
    return spectrum


def evaluate_series(coefficients: Tensor, modes: Sequence[Modes]) -> Tensor:
    """The field with these coefficients `(*batch, *space)`, of the same shape."""
    shape = coefficients.shape
    for place, axis in enumerate(modes):
        dim = place - len(modes)
        if axis.count > _MATRIX:
            coefficients = axis.evaluate(coefficients.movedim(dim, -1)).movedim(-1, dim)
            continue
        functions = axis.functions().to(coefficients)
        if dim == -1:
            coefficients = coefficients @ functions
        else:
            rows = coefficients.reshape(-1, axis.count, math.prod(shape[dim + 1 :]))
            coefficients = (functions.T @ rows).reshape(shape)
    return coefficients.contiguous()


def normal_numbers(shape: tuple[int, ...], seeds: Sequence[int]) -> Tensor:
    """Standard normal numbers `(len(seeds), *shape)`, float64: a mode has the same number in every shape.

    They are drawn by as many threads as torch has, which changes no bit of them.

    Modes are numbered by their largest index first, so that a larger cube of them begins with the smaller one.
    """
    side = max(shape)
    order = _order(side, len(shape))
    part = order[tuple(slice(n) for n in shape)].reshape(-1)
    numbers = np.empty((len(seeds), *shape))

    def draw(row: int) -> None:
        drawn = np.random.default_rng(seeds[row]).standard_normal(side ** len(shape))
        np.take(drawn, part, out=numbers[row].reshape(-1), mode="clip")  # other modes go through a buffer

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy lets go of the interpreter meanwhile
        list(pool.map(draw, range(len(seeds))))
    return torch.from_numpy(numbers)


@lru_cache(maxsize=8)
def _functions(modes: Modes) -> Tensor:
    return modes.evaluate(torch.eye(modes.count, dtype=torch.float64))


@lru_cache(maxsize=4)
def _order(side: int, dimension: int) -> np.ndarray[Any, Any]:
    """The number of each mode of a cube of them."""
    if dimension == 1:
        return np.arange(side)
    index = np.indices((side,) * dimension).reshape(dimension, -1)
    sequence = np.lexsort((*index[::-1], index.max(0)))
    order = np.empty_like(sequence)
    order[sequence] = np.arange(len(sequence))
    return order.reshape((side,) * dimension)


def _check_positive(name: str, value: float | None, kind: str) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InputError(f"{kind}: {name} must be a positive number, got {value}")
