"""A U-Net for fields on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .inputs import check_counts, check_dimension, check_fields
from .padding import Side, Sides, pad_by_one, read_sides
from .resampling import resample

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class UNet(nn.Module):
    """Convolutions on coarser and coarser grids, then back, with the features of each grid handed across.

    Every level has two convolutions of 3 points an axis, each followed by a normalization of the sample and gelu; a
    coarser level has ceil(n/2) points of n and twice the channels. Fields go down as cell averages and come up by
    linear interpolation, both for any n, so that nothing is padded to a power of two or cut, and a grid of 65 points
    gives nearly what 64 give. On a finer grid the convolutions see less of the domain: it is no operator between
    functions, and is used at the resolution that it was trained at.

    Ronneberger, Fischer and Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, with
    other transfers and normalization.

    Args:
        in_channels, out_channels: of the input and of the result.
        dimension: number of axes of space, 1 to 3.
        width: channels of the finest level.
        levels: number of grids.
        padding: how fields go on beyond the walls: one word of `padding.Side`, or a word or a pair an axis.

    Raises:
        InputError: for settings that make no network.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        dimension: int = 2,
        width: int = 32,
        levels: int = 4,
        padding: Side | Sequence[Side | Sequence[Side]] = "zeros",
    ) -> None:
        super().__init__()
        check_counts("UNet", in_channels=in_channels, out_channels=out_channels, width=width, levels=levels)
        check_dimension("UNet", "dimension", dimension)
        sides = read_sides(padding, dimension)
        self.settings: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "dimension": dimension,
            "width": width,
            "levels": levels,
            "padding": [list(pair) for pair in sides],
        }
        self.periodic = tuple(pair[0] == "circular" for pair in sides)
        channels = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            _Stage(before, after, sides) for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        self.up = nn.ModuleList(_Stage(coarse + fine, fine, sides) for fine, coarse in pairwise(channels))
        self.project = _CONVOLUTIONS[dimension - 1](width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Fields `(batch, in_channels, *space)` to `(batch, out_channels, *space)`."""
        settings = self.settings
        check_fields(x, "UNet", settings["in_channels"], settings["dimension"], self.project.weight.dtype)
        u = self.down[0](x)
        passed = []
        for stage in self.down[1:]:
            passed.append(u)
            u = stage(self._resample(u, [-(-n // 2) for n in u.shape[2:]]))
        for fine, stage in zip(passed[::-1], reversed(self.up), strict=True):
            u = stage(torch.cat((fine, self._resample(u, fine.shape[2:])), 1))
        return self.project(u)

    def _resample(self, u: Tensor, shape: Sequence[int]) -> Tensor:
        # Cells on periodic axes as well: two make one, and mirroring stays a symmetry.
        return resample(u, shape, self.periodic, nodes=[False] * len(shape), held=True)


class _Stage(nn.Module):
    """Two convolutions with normalization and gelu."""

    def __init__(self, in_channels: int, out_channels: int, sides: Sides) -> None:
        super().__init__()
        self.sides = sides
        kind = _CONVOLUTIONS[len(sides) - 1]
        # The normalization has the constants.
        self.first = kind(in_channels, out_channels, 3, bias=False)
        self.second = kind(out_channels, out_channels, 3, bias=False)
        # All channels together: the ratios of their sizes stay.
        self.first_norm = nn.GroupNorm(1, out_channels)
        self.second_norm = nn.GroupNorm(1, out_channels)

    def forward(self, u: Tensor) -> Tensor:
        if u.dim() in _FORMATS:
            # Convolutions on the CPU take half the time in this layout.
            u = u.contiguous(memory_format=_FORMATS[u.dim()])
        u = functional.gelu(self.first_norm(self.first(pad_by_one(u, self.sides))))
        return functional.gelu(self.second_norm(self.second(pad_by_one(u, self.sides))))
