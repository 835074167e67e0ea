"""DeepONet, with a convolutional branch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.errors import InputError

from .coordinates import coordinate_channels, coordinate_count
from .inputs import check_counts, check_dimension, check_fields
from .resampling import resample

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class DeepONet(nn.Module):
    """y(p) = sum over j of b_j(x) t_j(p) + constant: coefficients from the input, basis functions of the place.

    The branch b sees the input on one stated grid; other grids are brought to it as cell averages. It halves the grid
    by convolutions until at most four points an axis are left, from which two linear maps make the coefficients. The
    trunk t is a perceptron of the coordinates, so that the answer can be had on any grid.

    Lu, Jin, Pang, Zhang and Karniadakis, Learning nonlinear operators via DeepONet, Nature Machine Intelligence 3
    (2021), equation 2.

    Args:
        in_channels, out_channels: of x and y.
        grid: points along each axis, one to three axes, of the grid that the branch sees.
        basis: number of basis functions, shared by the channels of y.
        width: channels of the branch's first convolution; each further one has twice as many, to at most eight times.
        layers: hidden layers of the trunk.
        periodic: whether the axes are periodic for the trunk, one bool for all or one an axis.
        harmonics: sines and cosines of each coordinate that the trunk is given, see `coordinate_channels`.

    Raises:
        InputError: for settings that make no network.
    """

    any_resolution = True
    """Whether fields on a finer grid than that of the training are answered as well as there."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Sequence[int],
        basis: int = 128,
        width: int = 32,
        layers: int = 3,
        periodic: bool | Sequence[bool] = False,
        harmonics: int = 4,
    ) -> None:
        super().__init__()
        check_counts(
            "DeepONet",
            in_channels=in_channels,
            out_channels=out_channels,
            grid=grid,
            basis=basis,
            width=width,
            layers=layers,
        )
        check_dimension("DeepONet", "grid", len(grid))
        wraps = [periodic] * len(grid) if isinstance(periodic, bool) else list(periodic)
        if len(wraps) != len(grid) or harmonics < 0:
            raise InputError(
                f"DeepONet: grid has {len(grid)} axes, periodic is {periodic} and harmonics {harmonics}; give a bool, "
                "or one for each axis, and harmonics >= 0"
            )
        self.settings: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "grid": list(grid),
            "basis": basis,
            "width": width,
            "layers": layers,
            "periodic": wraps,
            "harmonics": harmonics,
        }
        self.grid, self.periodic, self.harmonics = tuple(grid), tuple(wraps), harmonics
        self.out_channels = out_channels
        kind = _CONVOLUTIONS[len(grid) - 1]
        points, before, after = self.grid, in_channels, width
        convolutions = []
        while max(points) > 4:
            convolutions.append(kind(before, after, 3, stride=2, padding=1))
            points = tuple(-(-n // 2) for n in points)
            before, after = after, min(2 * after, 8 * width)
        self.convolutions = nn.ModuleList(convolutions)
        self.gather = nn.Linear(before * prod(points), 2 * basis)
        self.coefficients = nn.Linear(2 * basis, out_channels * basis)
        inside = [coordinate_count(wraps, harmonics), *[basis] * (layers + 1)]
        self.trunk = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(inside))
        self.constant = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Fields `(batch, in_channels, *space)` to `(batch, out_channels, *shape)`.

        Args:
            x: on any grid; the branch sees its cell averages on the grid that it was made for.
            shape: points of the answer's grid along each axis; None: those of x.
        """
        weight = self.gather.weight
        check_fields(x, "DeepONet", self.settings["in_channels"], len(self.grid), weight.dtype)
        u = resample(x, self.grid, self.periodic, held=True)
        for convolution in self.convolutions:
            u = functional.gelu(convolution(u))
        u = self.coefficients(functional.gelu(self.gather(u.flatten(1))))
        shape = tuple(x.shape[2:]) if shape is None else tuple(shape)
        places = coordinate_channels(
            shape, self.periodic, harmonics=self.harmonics, dtype=weight.dtype, device=x.device
        )
        t = places.flatten(1).T
        for number, layer in enumerate(self.trunk):
            t = layer(functional.gelu(t) if number else t)
        # Independent terms of size one make a sum of the size of the root of their number.
        y = u.reshape(-1, t.shape[1]) @ t.T * t.shape[1] ** -0.5
        return y.reshape(len(x), self.out_channels, *shape) + self.constant.reshape(-1, *[1] * len(shape))
