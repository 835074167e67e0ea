"""Multiplication of a field's lowest Fourier coefficients by learned matrices, in real arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Transforms to more coefficients than this are quicker by FFT, whatever the number of points (measured on a CPU core:
# equal at 130 for 1024 points, 8 times quicker as products at 5 to 33 for 64 points).
MOST_BY_PRODUCT = 128


class _Axis(NamedTuple):
    """One axis of the transform: its points, and the wave numbers `first`, `first` + 1, ..., `first` + `kept` - 1.

    The matrices are None where an FFT is quicker. On the last axis fields are real: `forward` is (2 kept, points), rows
    for real parts above rows for imaginary parts. On the others points have a real and an imaginary part too, which
    lie side by side: (2 kept, 2 points).
    """

    points: int
    first: int
    kept: int
    forward: Tensor | None
    backward: Tensor | None


class FourierBasis(NamedTuple):
    """The lowest Fourier modes of a periodic grid, and transforms between fields and their coefficients.

    A field is `(batch, *space, channel)`. Its coefficients are `(batch, 2, modes, channel)`, real parts and imaginary
    parts, with all axes of wave numbers in one. They are those of `torch.fft.rfftn(..., norm="forward")`: c_k = 1/N
    sum_i u_i exp(-2 pi i k.i/n), the field being the sum of c_k exp(2 pi i k.i/n) over k and, their conjugates, -k.

    Args:
        axes: one entry an axis of space; make it with `fourier_basis`.
    """

    axes: tuple[_Axis, ...]

    @property
    def modes(self) -> tuple[int, ...]:
        """Number of kept wave numbers along each axis."""
        return tuple(axis.kept for axis in self.axes)

    def coefficients(self, u: Tensor) -> Tensor:
        """Coefficients `(batch, 2, modes, channel)` of a field `(batch, *space, channel)`."""
        batch, channels = u.shape[0], u.shape[-1]
        a = _real_forward(u.reshape(-1, self.axes[-1].points, channels), self.axes[-1])
        for axis in self.axes[-2::-1]:
            a = _complex_forward(a.reshape(-1, axis.points, 2, a.shape[-2] * a.shape[-1]), axis)
        return a.reshape(batch, 2, -1, channels)

    def field(self, c: Tensor, added: Tensor) -> Tensor:
        """The field `(batch, *space, channel)` of coefficients `(batch, 2, modes, channel)`, plus a field `added`."""
        a = c
        for axis in self.axes[:-1]:
            a = _complex_backward(a.reshape(len(a), 2, axis.kept, -1), axis).flatten(0, 1)
        last = self.axes[-1]
        shape = -1, last.points, c.shape[-1]
        return _real_backward(a.reshape(len(a), 2, last.kept, -1), last, added.reshape(shape)).reshape(added.shape)


def fourier_basis(shape: Sequence[int], modes: Sequence[int], dtype: torch.dtype, device: torch.device) -> FourierBasis:
    """The modes of a grid that a spectral convolution keeps.

    Args:
        shape: points along each axis.
        modes: how many wave numbers to keep along each axis: -(m//2), ..., m - m//2 - 1; 0, ..., m//2 along the last,
            whose negative ones are conjugates; those that the grid does not have are left out.
        dtype: of the fields.
        device: of the fields.
    """
    axes = []
    for position, (points, number) in enumerate(zip(shape, modes, strict=True)):
        real = position == len(modes) - 1
        first = 0 if real else max(-(number // 2), -(points // 2))
        last = min(number // 2, points // 2) if real else min(number - number // 2 - 1, (points - 1) // 2)
        kept = last - first + 1
        if kept > MOST_BY_PRODUCT:
            axes.append(_Axis(points, first, kept, None, None))
            continue
        wave = torch.arange(first, first + kept, device=device)
        place = torch.arange(points, device=device)
        angle = place.double() * (2 * pi / points)
        # A whole number of turns, taken off in integers, costs no digits.
        index = wave[:, None] * place % points
        cosine, sine = torch.cos(angle)[index], torch.sin(angle)[index]
        if real:
            forward = torch.cat((cosine, -sine))
            # A wave number that is its own negative has no conjugate to be added.
            twice = torch.where((wave == 0) | (2 * wave == points), 1.0, 2.0).double()
            backward = forward.T * twice.repeat(2)
        else:
            forward = torch.cat((torch.stack((cosine, sine), -1), torch.stack((-sine, cosine), -1))).flatten(1)
            backward = forward.T
        axes.append(_Axis(points, first, kept, (forward / points).to(dtype), backward.to(dtype).contiguous()))
    return FourierBasis(tuple(axes))


class SpectralConvolution(nn.Module):
    """v = sum over the lowest k of (W_k c_k) exp(2 pi i k.x), c_k being the Fourier coefficients of u.

    Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, ICLR 2021, section 4. The complex
    matrices W_k are held as real and imaginary parts, each of shape `(*wave numbers, in_channels, out_channels)`, wave
    numbers in increasing order from -(m//2) (from 0 on the last axis).

    Args:
        in_channels, out_channels: of u and v.
        modes: wave numbers along each axis, see `fourier_basis`. On a grid without some of them the rest is used.
    """

    def __init__(self, in_channels: int, out_channels: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.modes = tuple(modes)
        shape = (*self.modes[:-1], self.modes[-1] // 2 + 1, in_channels, out_channels)
        # Variance 2/(in + out) of the complex number, as in neuraloperator.
        deviation = (in_channels + out_channels) ** -0.5
        self.real = nn.Parameter(torch.randn(shape) * deviation)
        self.imaginary = nn.Parameter(torch.randn(shape) * deviation)

    def forward(self, u: Tensor, basis: FourierBasis, added: Tensor) -> Tensor:
        """v plus another field.

        Args:
            u: `(batch, *space, in_channels)`.
            basis: `fourier_basis` of the grid and of `modes`; all layers of a network share it.
            added: `(batch, *space, out_channels)`, the field that v is added to.

        Returns:
            `(batch, *space, out_channels)`.
        """
        # Half-precision products would round every coefficient to three digits.
        with torch.autocast(u.device.type, enabled=False):
            dtype = self.real.dtype
            c = basis.coefficients(u.to(dtype))
            return basis.field(self._multiply(c, basis), added.to(dtype))

    def _multiply(self, c: Tensor, basis: FourierBasis) -> Tensor:
        """W_k c_k for coefficients `(batch, 2, modes, in_channels)`."""
        batch, _, number, channels = c.shape
        real, imaginary = self._kept(self.real, basis), self._kept(self.imaginary, basis)
        # One product for real and imaginary parts of all rows: (modes, 2 batch, channels) by (modes, channels, out).
        rows = c.permute(2, 1, 0, 3).reshape(number, 2 * batch, channels)
        by_real = torch.bmm(rows, real).reshape(number, 2, batch, -1)
        by_imaginary = torch.bmm(rows, imaginary).reshape(number, 2, batch, -1)
        p, q = by_imaginary.unbind(1)
        return (by_real + torch.stack((-q, p), 1)).permute(2, 1, 0, 3)

    def _kept(self, weight: Tensor, basis: FourierBasis) -> Tensor:
        """The matrices of the wave numbers that the grid has, `(modes, in_channels, out_channels)`."""
        for place, axis in enumerate(basis.axes):
            if axis.kept < weight.shape[place]:
                lowest = 0 if place == len(basis.axes) - 1 else -(self.modes[place] // 2)
                weight = weight.narrow(place, axis.first - lowest, axis.kept)
        return weight.reshape(prod(basis.modes), *weight.shape[-2:])


# In the four functions below the axis of length 2 holds real and imaginary parts, and `rest` all axes that the
# transform leaves alone, the channel among them.


def _real_forward(u: Tensor, axis: _Axis) -> Tensor:
    """(rows, points, rest) -> (rows, 2, kept, rest)."""
    if axis.forward is None:
        c = torch.fft.rfft(u, dim=1, norm="forward")[:, : axis.kept]
        return torch.stack((c.real, c.imag), 1)
    return torch.matmul(axis.forward, u).unflatten(1, (2, axis.kept))


def _complex_forward(a: Tensor, axis: _Axis) -> Tensor:
    """(rows, points, 2, rest) -> (rows, 2, kept, rest)."""
    if axis.forward is None:
        c = torch.fft.fft(torch.complex(*a.unbind(2)), dim=1, norm="forward")
        c = torch.cat((c[:, axis.points + axis.first :], c[:, : axis.kept + axis.first]), 1)
        return torch.stack((c.real, c.imag), 1)
    return torch.matmul(axis.forward, a.flatten(1, 2)).unflatten(1, (2, axis.kept))


def _complex_backward(c: Tensor, axis: _Axis) -> Tensor:
    """(rows, 2, kept, rest) -> (rows, points, 2, rest)."""
    if axis.backward is None:
        z = torch.complex(*c.unbind(1))
        gap = z.new_zeros(len(z), axis.points - axis.kept, z.shape[-1])
        z = torch.fft.ifft(torch.cat((z[:, -axis.first :], gap, z[:, : -axis.first]), 1), dim=1, norm="forward")
        return torch.stack((z.real, z.imag), 2)
    return torch.matmul(axis.backward, c.flatten(1, 2)).unflatten(1, (axis.points, 2))


def _real_backward(c: Tensor, axis: _Axis, added: Tensor) -> Tensor:
    """(rows, 2, kept, rest) -> (rows, points, rest), plus `added` of that shape."""
    if axis.backward is None:
        return added + torch.fft.irfft(torch.complex(*c.unbind(1)), n=axis.points, dim=1, norm="forward")
    return torch.baddbmm(added, axis.backward.expand(len(c), -1, -1), c.flatten(1, 2))
