"""MgNO: a neural operator whose linear parts are learned multigrid cycles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sciml.errors import InputError

from .inputs import check_counts, check_dimension, check_fields
from .multigrid_layer import CoarseStart, Cycle, MultigridLayer, Restriction, at_points
from .padding import Side, read_sides

# By axes of space; torch's convolutions take half the time with channels last.
_LAYOUTS = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)


class MgNO(nn.Module):
    """u_0 = x; u_l = gelu(W_l u_{l-1} + K_l u_{l-1} + b_l), l = 1 ... layers; y = Q u_layers.

    W_l is a multigrid cycle (`MultigridLayer`), K_l mixes the channels of each point, Q does so too. Nothing depends on
    the number of points, so that any grid will do.

    He, Liu and Xu, MgNO: Efficient Parameterization of Linear Operators via Multigrid, ICLR 2024.

    Args:
        in_channels, out_channels: of x and y.
        channels: of u_l, one number for all levels or one a level.
        layers: their number.
        levels: smoothing steps before and after the coarser levels, one pair a level, finest first.
        dimension: number of axes of space, 1 to 3.
        padding: how fields go on beyond the walls: one word of `padding.Side`, or a word or a pair an axis.
        pointwise: whether there are K_l and b_l.
        residual_output: adds the first channels of x to y, those that are predicted.
        cycle, restriction, coarse_start, bias, prolongation, normalized: see `MultigridLayer`.

    Raises:
        InputError: for settings that do not fit together.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int = 1,
        channels: int | Sequence[int] = 24,
        layers: int = 4,
        levels: Sequence[Sequence[int]] = ((1, 0), (1, 0), (1, 0), (1, 0), (1, 0), (2, 0)),
        dimension: int = 2,
        padding: Side | Sequence[Side | Sequence[Side]] = "zeros",
        pointwise: bool = True,
        residual_output: bool = False,
        cycle: Cycle = "V",
        restriction: Restriction = "right_side",
        coarse_start: CoarseStart = "restricted",
        bias: bool = False,
        prolongation: int | Sequence[int] = 4,
        normalized: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": _listed(channels),
            "layers": layers,
            "levels": _listed(levels),
            "dimension": dimension,
            "padding": _listed(padding),
            "pointwise": pointwise,
            "residual_output": residual_output,
            "cycle": cycle,
            "restriction": restriction,
            "coarse_start": coarse_start,
            "bias": bias,
            "prolongation": _listed(prolongation),
            "normalized": _listed(normalized),
        }
        check_counts("MgNO", in_channels=in_channels, out_channels=out_channels, layers=layers, channels=channels)
        if residual_output and in_channels < out_channels:
            raise InputError(
                f"residual_output: {in_channels} channels in cannot be added to {out_channels} out; it needs as many in"
            )
        check_dimension("MgNO", "dimension", dimension)
        if any(not isinstance(level, list | tuple) or len(level) != 2 for level in levels):
            raise InputError(f"MgNO: levels are pairs (steps before, steps after the coarser levels), got {levels!r}")
        if normalized is not None:
            check_counts("MgNO", normalized=normalized)
            if len(normalized) != dimension:
                raise InputError(
                    f"MgNO: normalized is {normalized}; give a number of points for each of {dimension} axes"
                )
        sides = read_sides(padding, dimension)
        width = channels if isinstance(channels, int) else channels[0]
        inward = [in_channels, *[width] * (layers - 1)]
        self.cycles = nn.ModuleList(
            MultigridLayer(
                number,
                channels,
                [(before, after) for before, after in levels],
                dimension,
                sides,
                cycle=cycle,
                restriction=restriction,
                coarse_start=coarse_start,
                bias=bias,
                prolongation=prolongation,
                normalized=normalized,
            )
            for number in inward
        )
        self.mixing = nn.ModuleList(nn.Linear(number, width) for number in inward) if pointwise else None
        self.project = nn.Linear(width, out_channels, bias=False)
        self.residual_output = residual_output

    def forward(self, x: Tensor) -> Tensor:
        """Fields `(batch, in_channels, *space)` to `(batch, out_channels, *space)`."""
        check_fields(x, "MgNO", self.settings["in_channels"], self.settings["dimension"], self.project.weight.dtype)
        layout = (
            torch.contiguous_format if cast(MultigridLayer, self.cycles[0]).has_kernels(x) else _LAYOUTS[x.dim() - 3]
        )
        u = x.contiguous(memory_format=layout)
        for number, cycle in enumerate(self.cycles):
            u = nn.functional.gelu(cycle(u, None if self.mixing is None else self.mixing[number]))
        y = at_points(self.project, u)
        return y + x[:, : y.shape[1]] if self.residual_output else y


def _listed(value: Any) -> Any:
    """Sequences as JSON has them."""
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value
