"""Which Fourier coefficients are kept, and the transforms between them and values on grids."""

from __future__ import annotations

from functools import cached_property
from math import pi, prod

import torch
from torch import Tensor

from ..grid import Grid


class Modes:
    """Truncated real Fourier series on a periodic grid, u(x) = sum of c_k exp(i k (x - lower)).

    Of the last axis only k >= 0 is kept, the other half being the conjugate; along the others the order is
    0, 1, ..., -2, -1. Coefficients have the shape `(..., *kept)`.

    Args:
        grid: periodic.
        dealias: a word of `Spectral`.

    Attributes:
        shape: of the grid.
        kept: number of coefficients along each axis.
        fine: shape of the grid on which products are formed.
    """

    def __init__(self, grid: Grid, dealias: str) -> None:
        self.grid = grid
        self.dealias = dealias
        self.shape = grid.shape
        self.dimension = grid.dimension
        if dealias == "none":
            self.highest = tuple(n // 2 for n in self.shape)
            full = (*self.shape[:-1], self.shape[-1] // 2 + 1)
            self.kept = full
            self.fine = self.shape
        else:
            divisor = 3 if dealias == "2/3" else 2
            self.highest = tuple((n - 1) // divisor for n in self.shape)
            self.kept = (*(2 * k + 1 for k in self.highest[:-1]), self.highest[-1] + 1)
            finer = (fast_length(max(3 * k + 1, n)) for k, n in zip(self.highest, self.shape, strict=True))
            self.fine = self.shape if divisor == 3 else tuple(finer)

    @cached_property
    def numbers(self) -> tuple[Tensor, ...]:
        """The integer wavenumber along each axis, in float64, of shapes that broadcast to `kept`."""
        found = []
        for axis, count in enumerate(self.kept):
            numbers = torch.arange(count, dtype=torch.float64, device=self.grid.device)
            if axis < self.dimension - 1:
                numbers = torch.where(2 * numbers > count, numbers - count, numbers)
            found.append(numbers.reshape(-1, *[1] * (self.dimension - 1 - axis)))
        return tuple(found)

    def derivative(self, order: tuple[int, ...]) -> tuple[Tensor, int]:
        """The symbol of a derivative: a real float64 tensor that broadcasts to `kept`, and the power of i before it.

        An odd derivative of the highest cosine of an even number of points, whose sine cannot be seen, is 0.
        """
        symbol = torch.ones([1] * self.dimension, dtype=torch.float64, device=self.grid.device)
        for axis, count in enumerate(order):
            if count == 0:
                continue
            length = self.grid.upper[axis] - self.grid.lower[axis]
            factor = (self.numbers[axis] * (2 * pi / length)) ** count
            if count % 2 and self.dealias == "none":
                factor = torch.where(2 * self.numbers[axis].abs() == self.shape[axis], 0.0, factor)
            symbol = symbol * factor
        return symbol, sum(order) % 4

    @cached_property
    def weights(self) -> Tensor:
        """How often each coefficient counts in the mean square, of a shape that broadcasts to `kept`: Parseval."""
        numbers = self.numbers[-1]
        once = (numbers == 0) | (2 * numbers == self.shape[-1])
        return torch.where(once, 1.0, 2.0).to(self.grid.dtype)

    def forward(self, u: Tensor) -> Tensor:
        """The kept coefficients `(..., *kept)` of values on a grid of any size `(..., *space)`."""
        c = torch.fft.rfft(u, dim=-1, norm="forward")
        if c.shape[-1] != self.kept[-1]:
            c = c[..., : self.kept[-1]]
        for axis in range(self.dimension - 2, -1, -1):
            dim = axis - self.dimension
            c = self._cut(torch.fft.fft(c, dim=dim, norm="forward"), axis)
        return c

    def inverse(self, c: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The values `(..., *shape)` on a grid of a shape."""
        for axis in range(self.dimension - 1):
            c = torch.fft.ifft(self._padded(c, axis, shape[axis]), dim=axis - self.dimension, norm="forward")
        return torch.fft.irfft(c, n=shape[-1], dim=-1, norm="forward")

    def _padded(self, c: Tensor, axis: int, length: int) -> Tensor:
        """With zeros in the middle of an axis, where the higher wavenumbers stand."""
        count = self.kept[axis]
        if count == length:
            return c
        dim = axis - self.dimension
        size = list(c.shape)
        size[dim] = length - count
        lower = c.narrow(dim, 0, count // 2 + 1)
        upper = c.narrow(dim, count // 2 + 1, count - count // 2 - 1)
        return torch.cat([lower, c.new_zeros(size), upper], dim=dim)

    def _cut(self, c: Tensor, axis: int) -> Tensor:
        dim = axis - self.dimension
        count, length = self.kept[axis], c.shape[dim]
        if count == length:
            return c
        upper = count - count // 2 - 1
        return torch.cat([c.narrow(dim, 0, count // 2 + 1), c.narrow(dim, length - upper, upper)], dim=dim)

    @cached_property
    def doubled(self) -> list[int]:
        """The places along the last axis where both c(k) and c(-k) are kept."""
        last = self.kept[-1] - 1
        return [0, last] if last > 0 and 2 * last == self.shape[-1] else [0]

    def symmetrized(self, c: Tensor) -> Tensor:
        """Coefficients with c(-k) = conj(c(k)) also where both are kept."""
        dims = tuple(range(-self.dimension, -1))
        columns = []
        for place in self.doubled:
            column = c.narrow(-1, place, 1)
            mirrored = torch.roll(torch.flip(column, dims), [1] * len(dims), dims)
            columns.append((column + mirrored.conj()) / 2)
        inner = c.narrow(-1, 1, c.shape[-1] - len(self.doubled))
        return torch.cat([columns[0], inner, *columns[1:]], dim=-1)

    def mean(self, c: Tensor) -> Tensor:
        """The coefficient of the constant mode."""
        return c.flatten(-self.dimension)[..., 0]

    @property
    def size(self) -> int:
        """Number of coefficients of one field."""
        return prod(self.kept)


def fast_length(least: int) -> int:
    """The smallest even product of 2, 3 and 5 that is not below `least`, or `least` if it is 1."""
    if least == 1:
        return 1
    length = least + least % 2
    while not _smooth(length):
        length += 2
    return length


def _smooth(number: int) -> bool:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number == 1
