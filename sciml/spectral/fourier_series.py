"""Real Fourier series given by their values on the grid: values anywhere, and derivatives."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from .modes import Modes

_LARGEST = 1 << 22  # complex numbers held at a time


def evaluate(value: Tensor, modes: Modes, points: Tensor) -> Tensor:
    """The series at points, axis by axis; `(*batch, *space)` -> `(*batch, n)`, differentiable in both.

    Args:
        value: on the grid.
        modes: those that are kept.
        points: `(n, dimension)`, in the unit of length of the grid.
    """
    c = modes.forward(value) * modes.weights
    batch, last = c.shape[: c.ndim - modes.dimension], modes.kept[-1]
    rows = c.reshape(-1, last)
    size = max(1, _LARGEST // max(1, len(rows)))
    parts = [_sum(rows, batch, modes, part) for part in points.split(size)]
    return torch.cat(parts, -1) if parts else value.new_zeros(*batch, 0)


def gradient(value: Tensor, modes: Modes) -> Tensor:
    """The gradient on the grid, `(*batch, *space)` -> `(*batch, dimension, *space)`."""
    c = modes.forward(value)
    slopes = []
    for axis in range(modes.dimension):
        symbol, power = modes.derivative(tuple(int(k == axis) for k in range(modes.dimension)))
        slopes.append(c * (symbol * (1, 1j, -1, -1j)[power]).to(c.dtype))
    return modes.inverse(torch.stack(slopes, -1 - modes.dimension), modes.shape)


def _sum(rows: Tensor, batch: torch.Size, modes: Modes, points: Tensor) -> Tensor:
    waves = [_waves(modes, axis, points) for axis in range(modes.dimension)]
    total = (rows @ waves[-1]).reshape(*batch, *modes.kept[:-1], len(points))
    for wave in reversed(waves[:-1]):
        total = (total * wave).sum(-2)
    return total.real


def _waves(modes: Modes, axis: int, points: Tensor) -> Tensor:
    """exp(i k (x - lower)) of an axis, `(kept, n)`; of the highest cosine of an even number of points its real part."""
    grid, numbers = modes.grid, modes.numbers[axis].flatten()
    length = grid.upper[axis] - grid.lower[axis]
    phase = numbers[:, None] * ((points[:, axis].to(torch.float64) - grid.lower[axis]) * (2 * pi / length))
    imaginary = torch.where((2 * numbers.abs() == modes.shape[axis])[:, None], 0.0, phase.sin())
    wave = torch.complex(phase.cos(), imaginary)
    return wave.to(torch.complex128 if grid.dtype == torch.float64 else torch.complex64)
