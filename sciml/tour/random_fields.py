"""Gaussian random fields on the cells of a unit square."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MODES = 64


def gaussian_field(shape: tuple[int, int], generator: torch.Generator, tau: float = 3.0, alpha: float = 2.0) -> Tensor:
    """A sample of N(0, (-laplacian + tau^2)^-alpha) with no flux through the sides, by its cosine series.

    The measure of the Darcy problems of Li et al., Fourier neural operator for parametric partial differential equations
    (2021), appendix A.3.2; scaled to a standard deviation near 1, the mean mode left out. The first 64 modes along each
    axis are drawn whatever the shape, so that a seed means the same field on every grid.

    Args:
        shape: cells along x and y.
        generator: source of the random numbers.
        tau: inverse length of correlation, in units of one over the side.
        alpha: smoothness.
    """
    coefficients = torch.randn(MODES, MODES, generator=generator, dtype=torch.float64)
    numbers = torch.arange(MODES, dtype=torch.float64)
    frequency = math.pi**2 * (numbers[:, None] ** 2 + numbers[None, :] ** 2)
    deviation = (frequency + tau**2) ** (-alpha / 2)
    deviation[0, 0] = 0.0
    spectrum = coefficients * deviation / deviation.square().sum().sqrt()
    x, y = (torch.cos(math.pi * ((torch.arange(n) + 0.5) / n).to(torch.float64)[:, None] * numbers) for n in shape)
    scale = torch.where(numbers > 0, math.sqrt(2.0), 1.0)
    return (x * scale) @ spectrum @ (y * scale).T
