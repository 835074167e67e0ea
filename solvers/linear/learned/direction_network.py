"""The convolutional networks of the deep conjugate direction method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.stencil import on

from ..settings import check_count
from .weights import fill, load_shipped, load_weights, save_weights

KIND = "direction-network"
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_PUBLISHED = {64: (1, 3, 2), 128: (2, 5, 3)}


@final
class DirectionNetwork(nn.Module):
    """From a residual of norm 1 to a search direction of any length: two resolutions, of which the coarse one has half
    the points along every axis.

    A convolution from one channel to `channels`, without activation; then convolutions with ReLU: one, `blocks[0]`
    pairs, one; the mean over cells of 2 points an axis; `blocks[1]` pairs; constant interpolation back, added to the
    fine features; `blocks[2]` pairs; and the sum of the channels with weights. What a pair is given is added to what it
    returns. All convolutions have 3 points an axis, zeros around the grid, and biases: the network is not linear.

    Any size will do, odd ones too: where a cell of the coarse grid has only one point along an axis, it is the mean of
    what it has. The source is Kaneda, Akar, Chen, Kala, Hyde and Teran, A Deep Conjugate Direction Method for
    Iteratively Solving Linear Systems (ICML 2023).

    Args:
        dimension: axes of the grid.
        channels: of every convolution.
        blocks: pairs of convolutions before, at and after the coarse resolution.
        mean_square: whether the input is first multiplied by the root of the number of points, so that its mean square
            is 1 whatever the size of the grid. At the size of the training this is a matter of the scale of the first
            convolution; at others the biases stay in proportion to the residual. The published networks do not.
        seed: of the first weights.

    Raises:
        InputError: for a dimension other than 1, 2 and 3, or counts that are none.
    """

    def __init__(
        self,
        dimension: int = 3,
        channels: int = 16,
        blocks: tuple[int, int, int] = _PUBLISHED[64],
        mean_square: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if dimension not in (1, 2, 3):
            raise InputError(f"dimension must be 1, 2 or 3, got {dimension!r}")
        check_count(channels, "channels")
        if not isinstance(blocks, Sequence) or len(blocks) != 3:
            raise InputError(f"blocks are three counts: before, at and after the coarse resolution, got {blocks}")
        for count in blocks:
            check_count(count, "blocks")
        self.settings: dict[str, Any] = {
            "dimension": dimension,
            "channels": channels,
            "blocks": list(blocks),
            "mean_square": mean_square,
        }
        self.dimension = dimension
        self.mean_square = mean_square
        fine, coarse, end = blocks
        with torch.random.fork_rng(devices=[]):  # torch's own first weights are replaced
            self.first = self._convolution(1, channels)
            self.enter = self._convolution(channels, channels)
            self.fine = self._pairs(fine, channels)
            self.leave = self._convolution(channels, channels)
            self.coarse = self._pairs(coarse, channels)
            self.end = self._pairs(end, channels)
            self.last = nn.Linear(channels, 1)
        self._initialize(torch.Generator().manual_seed(seed))
        for parameter in self.parameters():
            if parameter.ndim > 3:
                parameter.data = parameter.data.contiguous(memory_format=self._layout())

    @classmethod
    def published(cls, size: int, *, mean_square: bool = False, seed: int = 0) -> DirectionNetwork:
        """One of the two published networks, with weights yet to be trained.

        Args:
            size: 64 (97,457 parameters) or 128 (152,881): points an axis of the grid that it was made for.
            mean_square, seed: see DirectionNetwork.
        """
        if size not in _PUBLISHED:
            raise InputError(f"the published networks are those for 64 and 128 points an axis, got {size!r}")
        return cls(3, 16, _PUBLISHED[size], mean_square, seed)

    @classmethod
    def pretrained(
        cls, name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> DirectionNetwork:
        """A network with weights that come with the package.

        Args:
            name: "box-3d": the published network for 64, for -laplacian(u) = f on a box with Dirichlet conditions on
                all faces; see BOX_3D in `sciml.solvers.linear.learned.direction_recipe`.
            device: where it will be applied.
            dtype: in which it will be; torch.bfloat16 is several times faster on processors that have units for it.

        Raises:
            InputError: there are no weights of that name; those there are, are named.
        """
        return cls._of(*load_shipped(name, KIND), f"{name!r}").to(device, dtype)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DirectionNetwork:
        """What `save` wrote.

        Raises:
            InputError: there is no such file, it is damaged, of another network or version, or not finite.
        """
        return cls._of(*load_weights(path, KIND), str(path))

    def save(self, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> None:
        """Write settings and weights.

        Args:
            path: a file name ending in .safetensors.
            about: on what it was trained and what that cost, in JSON's values.

        Raises:
            InputError: weights that are not finite, or a path that cannot be a file.
        """
        save_weights(path, KIND, self.settings, self, about)

    @classmethod
    def _of(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> DirectionNetwork:
        try:
            network = cls(**settings)
        except (TypeError, InputError) as error:
            raise InputError(f"the weights of {source} have settings of no such network: {error}") from None
        fill(network, tensors, source)
        return network

    def forward(self, residual: Tensor) -> Tensor:
        """Directions for residuals of norm 1, both `(rows, *space)` in the dtype of the weights."""
        if residual.ndim != self.dimension + 1:
            raise InputError(
                f"the network is of dimension {self.dimension}: residuals have shape (rows, *space), got "
                f"{tuple(residual.shape)}"
            )
        space = residual.shape[1:]
        x = residual.unsqueeze(1)
        if self.mean_square:
            x = x * prod(space) ** 0.5
        if self.dimension > 1:
            x = x.contiguous(memory_format=self._layout())
        fine = _convolved(self.enter, _convolved(self.first, x)).relu_()
        for pair in self.fine:
            fine = pair(fine)
        fine = _convolved(self.leave, fine).relu_()
        x = _halved(fine)
        for pair in self.coarse:
            x = pair(x)
        x = _doubled(x, space) + fine
        for pair in self.end:
            x = pair(x)
        return self.last(x.movedim(1, -1)).squeeze(-1)

    def _convolution(self, inward: int, outward: int) -> Convolution:
        return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.dimension - 1](inward, outward, 3, padding=1)

    def _pairs(self, count: int, channels: int) -> nn.ModuleList:
        return nn.ModuleList(
            _Pair(self._convolution(channels, channels), self._convolution(channels, channels)) for _ in range(count)
        )

    def _layout(self) -> torch.memory_format:
        """Channels side by side: the layout that convolutions of few channels are fastest in."""
        return torch.channels_last_3d if self.dimension == 3 else torch.channels_last

    def _initialize(self, generator: torch.Generator) -> None:
        """Glorot and Bengio's uniform weights, no biases: those that the published networks begin with."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)


class _Pair(nn.Module):
    """Two convolutions with ReLU, added to what they are given."""

    def __init__(self, first: Convolution, second: Convolution) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        return _convolved(self.second, _convolved(self.first, x).relu_()).relu_() + x


def _convolved(layer: Convolution, x: Tensor) -> Tensor:
    """layer(x). For a single small field torch takes a convolution of its own that is thirty times slower than
    oneDNN's, which is called by name here."""
    if len(x) > 1 or x.ndim < 5 or x.device.type != "cpu" or x.dtype != torch.float32 or layer.weight.dtype != x.dtype:
        return layer(x)
    if torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():
        return layer(x)
    ones = [1, 1, 1]
    return torch.mkldnn_convolution(x, layer.weight, layer.bias, ones, ones, ones, 1)


def _halved(x: Tensor) -> Tensor:
    """Means over cells of 2 points an axis; the last cell of an odd axis has 1.

    Sums of slices: torch's own means have no bfloat16 on the CPU.
    """
    for axis in range(2, x.ndim):
        length = x.shape[axis]
        if length % 2:
            x = torch.cat((x, x.narrow(axis, length - 1, 1)), axis)
        pairs = (slice(None),) * axis
        x = torch.add(0.5 * x[(*pairs, slice(0, None, 2))], x[(*pairs, slice(1, None, 2))], alpha=0.5)
    return x


def _doubled(x: Tensor, space: Sequence[int]) -> Tensor:
    """Constant over cells of 2 points an axis, cut to a grid."""
    with torch.autocast(x.device.type, enabled=False):  # which would go to float32 and back for a copy
        x = nn.functional.interpolate(x, scale_factor=2.0)
    return x[on([slice(0, length) for length in space])]
