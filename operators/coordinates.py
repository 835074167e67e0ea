"""The places of a grid's points as channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor


def coordinate_count(periodic: Sequence[bool], harmonics: int = 0) -> int:
    """Number of channels that `coordinate_channels` makes."""
    return sum(2 * max(harmonics, 1) if wraps else 1 + 2 * harmonics for wraps in periodic)


def coordinate_channels(
    shape: Sequence[int],
    periodic: Sequence[bool],
    *,
    harmonics: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Coordinates between 0 and 1 along each axis, and sines and cosines of them.

    Point i of n has x = (i + 1/2)/n, and x = i/n on a periodic axis, as `Grid` places its unknowns. A periodic axis has
    sin 2 pi j x and cos 2 pi j x for j = 1 ... harmonics, at least j = 1; any other has x itself, then sin pi j x and
    cos pi j x.

    Args:
        shape: points along each axis.
        periodic: one bool an axis.
        harmonics: how many sines and cosines; default 0.
        dtype: of the result; default float32.
        device: of the result; default the CPU.

    Returns:
        `(channels, *shape)`, dimensionless, with `coordinate_count(periodic, harmonics)` channels.
    """
    channels = []
    for axis, (n, wraps) in enumerate(zip(shape, periodic, strict=True)):
        x = (torch.arange(n, dtype=torch.float64, device=device) + (0.0 if wraps else 0.5)) / n
        lines = [] if wraps else [x]
        for j in range(1, max(harmonics, 1 if wraps else 0) + 1):
            angle = (2 * pi if wraps else pi) * j * x
            lines += [torch.sin(angle), torch.cos(angle)]
        view = [n if place == axis else 1 for place in range(len(shape))]
        channels += [line.reshape(view).expand(tuple(shape)) for line in lines]
    return torch.stack(channels).to(dtype)
