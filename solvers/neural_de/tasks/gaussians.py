"""A density with several modes: normal distributions around a circle."""

from __future__ import annotations

from math import cos, pi, sin

import torch
from torch import Tensor

from sciml.errors import InputError


def gaussians(
    count: int,
    *,
    modes: int = 6,
    radius: float = 4.0,
    deviation: float = 0.5,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Tensor:
    """Points `(count, 2)` from a mixture of normal distributions whose centres stand on a circle.

    Args:
        count: points.
        modes: distributions, of equal weight.
        radius: of the circle, dimensionless.
        deviation: standard deviation of each coordinate about its centre, dimensionless.
        dtype: of the points.
        seed: of the points.

    Raises:
        InputError: no point or mode, or a radius or deviation that is not positive.
    """
    _check(modes, radius, deviation)
    if count < 1:
        raise InputError(f"count: at least one point is needed, got {count}")
    generator = torch.Generator().manual_seed(seed)
    mode = torch.randint(modes, (count,), generator=generator)
    spread = deviation * torch.randn(count, 2, dtype=torch.float64, generator=generator)
    return (_centres(modes, radius)[mode] + spread).to(dtype)


def log_density(points: Tensor, *, modes: int = 6, radius: float = 4.0, deviation: float = 0.5) -> Tensor:
    """The logarithm of the density that `gaussians` draws from, `(*batch,)` at points `(*batch, 2)`.

    The mean of its negative over points of the mixture is what no model can go below.
    """
    _check(modes, radius, deviation)
    distance = (points[..., None, :].double() - _centres(modes, radius).to(points.device)) / deviation
    exponents = -0.5 * distance.square().sum(-1)
    normalization = torch.tensor(2 * pi * deviation**2 * modes, dtype=torch.float64, device=points.device).log()
    return (torch.logsumexp(exponents, -1) - normalization).to(points.dtype)


def _centres(modes: int, radius: float) -> Tensor:
    angles = [2 * pi * mode / modes for mode in range(modes)]
    return radius * torch.tensor([(cos(angle), sin(angle)) for angle in angles], dtype=torch.float64)


def _check(modes: int, radius: float, deviation: float) -> None:
    if modes < 1:
        raise InputError(f"modes: at least one is needed, got {modes}")
    for name, value in (("radius", radius), ("deviation", deviation)):
        if not value > 0:
            raise InputError(f"{name} must be positive, got {value!r}")
