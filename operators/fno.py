"""The Fourier neural operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.errors import InputError

from .inputs import check_counts, check_dimension, check_fields
from .spectral_convolution import FourierBasis, SpectralConvolution, fourier_basis


class FNO(nn.Module):
    """u_0 = lift(x, positions); v = gelu(K_l u_l-1 + W_l u_l-1 + b_l), u_l = gelu(M_l v + g_l u_l-1); y = project(u_L).

    K_l multiplies the lowest Fourier modes by learned matrices (`SpectralConvolution`), W_l mixes the channels of each
    point, M_l is a perceptron on the channels of each point and g_l one factor a channel; the last layer has no gelu.
    It runs on any grid. The modes are periodic: on other domains `padding` keeps the ends of an axis apart.

    Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, ICLR 2021, in the form that
    neuraloperator 2.0.0 has by default; `fno_from_neuraloperator` takes over its weights.

    Args:
        in_channels, out_channels: of x and of the result.
        modes: wave numbers kept along each axis, one to three numbers: m of them, -(m//2) the lowest; along the last
            axis those up to m//2. On a grid of fewer points those that it has are used.
        width: channels of u.
        layers: their number L.
        lifting: channels inside the perceptron that lifts, over width; 0 for a single linear map.
        projection: channels inside the perceptron that projects, over width.
        mixing: channels inside M_l, over width; 0 leaves M_l and g_l out.
        positions: where the first point of an axis stands, in spacings: point i of n is given as the channel
            (i + positions)/n for each axis, 0 as in neuraloperator, 0.5 for cell centres; None for no such channels,
            which makes the network equivariant under translations of the torus.
        padding: zeros put beyond each end of an axis before the layers, over its length; one number, or one an axis.

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
        modes: Sequence[int],
        width: int,
        layers: int = 4,
        lifting: float = 2.0,
        projection: float = 2.0,
        mixing: float = 0.5,
        positions: float | None = 0.0,
        padding: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        check_counts("FNO", in_channels=in_channels, out_channels=out_channels, modes=modes, width=width, layers=layers)
        check_dimension("FNO", "modes", len(modes))
        margins = [float(padding)] * len(modes) if isinstance(padding, int | float) else [float(p) for p in padding]
        if len(margins) != len(modes) or min(margins) < 0:
            raise InputError(f"FNO: padding is {padding!r}; give a number >= 0, or one for each of {len(modes)} axes")
        if int(projection * width) < 1 or min(lifting, mixing) < 0:
            raise InputError(
                f"FNO: lifting {lifting}, projection {projection} and mixing {mixing} are ratios of channels to width, "
                "and projection must come to one channel at least"
            )
        self.settings: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "modes": list(modes),
            "width": width,
            "layers": layers,
            "lifting": lifting,
            "projection": projection,
            "mixing": mixing,
            "positions": positions,
            "padding": margins,
        }
        self.modes = tuple(modes)
        self.positions = positions
        self.margins = tuple(margins)
        lifted = in_channels + (0 if positions is None else len(modes))
        self.lift = Perceptron(lifted, int(lifting * width), width)
        self.blocks = nn.ModuleList(_Block(width, self.modes, round(mixing * width)) for _ in range(layers))
        self.project = Perceptron(width, int(projection * width), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Fields `(batch, in_channels, *space)` to `(batch, out_channels, *space)`."""
        dimension = len(self.modes)
        weight = self.project.second.weight
        check_fields(x, "FNO", self.settings["in_channels"], dimension, weight.dtype)
        # The channel last makes every product below one of matrices whose rows lie together.
        u = x.movedim(1, -1)
        if self.positions is not None:
            u = torch.cat((u, _position_channels(u, self.positions)), -1)
        u = self.lift(u)
        margins = [round(share * points) for share, points in zip(self.margins, x.shape[2:], strict=True)]
        if any(margins):
            u = functional.pad(u, (0, 0, *(n for margin in margins[::-1] for n in (margin, margin))))
        basis = fourier_basis(u.shape[1:-1], self.modes, weight.dtype, x.device)
        for number, block in enumerate(self.blocks, 1):
            u = block(u, basis, last=number == len(self.blocks))
        for axis, margin in enumerate(margins, 1):
            u = u.narrow(axis, margin, u.shape[axis] - 2 * margin)
        return self.project(u).movedim(-1, 1)


def _position_channels(u: Tensor, start: float) -> Tensor:
    """(i + start)/n of the points of a field `(batch, *space, channel)`, one channel an axis."""
    lines = [(torch.arange(n, device=u.device, dtype=torch.float64) + start) / n for n in u.shape[1:-1]]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    return places.to(u.dtype).expand(len(u), *places.shape)


class _Block(nn.Module):
    """One layer: v = gelu(K u + W u + b), then gelu(M v + g u)."""

    def __init__(self, width: int, modes: tuple[int, ...], inside: int) -> None:
        super().__init__()
        self.spectral = SpectralConvolution(width, width, modes)
        # Its bias is that of the spectral convolution, drawn as in neuraloperator.
        self.local = nn.Linear(width, width)
        nn.init.normal_(self.local.bias, std=width**-0.5)
        self.mixing = Perceptron(width, inside, width) if inside else None
        self.gate = nn.Parameter(torch.ones(width)) if inside else None

    def forward(self, u: Tensor, basis: FourierBasis, last: bool) -> Tensor:
        v = self.spectral(u, basis, self.local(u))
        if not last:
            v = functional.gelu(v)
        if self.mixing is not None and self.gate is not None:
            v = torch.addcmul(self.mixing(v), self.gate, u)
            if not last:
                v = functional.gelu(v)
        return v


class Perceptron(nn.Module):
    """B gelu(A u + a) + b on the last axis; with nothing inside, B u + b.

    Args:
        in_channels, inside, out_channels: of u, of the hidden layer (0 for none), of the result.
    """

    def __init__(self, in_channels: int, inside: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_channels, inside) if inside else None
        self.second = nn.Linear(inside or in_channels, out_channels)

    def forward(self, u: Tensor) -> Tensor:
        """`(..., in_channels)` to `(..., out_channels)`."""
        if self.first is not None:
            u = functional.gelu(self.first(u))
        return self.second(u)
