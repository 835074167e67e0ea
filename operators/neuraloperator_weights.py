"""Weights of the library neuraloperator, taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.errors import InputError

from .fno import FNO, Perceptron

# What `FNO` has no counterpart of: setting of neuraloperator -> the one value that can be taken over.
_REQUIRED = {
    "norm": None,
    "complex_data": False,
    "use_channel_mlp": True,  # without, it applies the nonlinearity twice in a row
    "channel_mlp_skip": "soft-gating",
    "fno_skip": "linear",
    "non_linearity": functional.gelu,
    "resolution_scaling_factor": None,
    "fno_block_precision": "full",
    "stabilizer": None,
    "max_n_modes": None,
    "separable": False,
    "preactivation": False,
}


def fno_from_neuraloperator(model: nn.Module) -> FNO:
    """An `FNO` that computes what a model of neuraloperator 2.0.0 does, in eval mode, to rounding.

    That library's inverse transform moves the spectrum by one wave number along every axis but the last that has an odd
    number of points; there the two differ, and this one is right: its answers on 65 points approach those on 64.

    Args:
        model: a `neuralop.models.FNO` with dense weights, no normalization and its default skip connections.

    Raises:
        InputError: for a model with settings that have no counterpart, which are named.
    """
    state: Mapping[str, Any] = model.state_dict()
    given = state.get("_metadata")
    if not isinstance(given, Mapping) or given.get("_name") not in ("FNO", "TFNO"):
        raise InputError(
            f"fno_from_neuraloperator: {type(model).__name__} does not record the settings of an FNO in its "
            "state_dict, as neuralop.models.FNO of neuraloperator 2.0.0 does"
        )
    if "fno_blocks.convs.0.weight.tensor" not in state:
        raise InputError("fno_from_neuraloperator: factorized weights have no counterpart in FNO; only dense ones have")
    for name, value in _REQUIRED.items():
        if given[name] != value:
            raise InputError(
                f"fno_from_neuraloperator: {name}={given[name]!r} has no counterpart in FNO; only {value!r} has"
            )
    if given["positional_embedding"] not in ("grid", None):
        raise InputError("fno_from_neuraloperator: of positional embeddings only 'grid' and None have a counterpart")
    network = FNO(
        in_channels=given["in_channels"],
        out_channels=given["out_channels"],
        modes=given["n_modes"],
        width=given["hidden_channels"],
        layers=given["n_layers"],
        lifting=given["lifting_channel_ratio"],
        projection=given["projection_channel_ratio"],
        mixing=given["channel_mlp_expansion"],
        positions=None if given["positional_embedding"] is None else 0.0,
        padding=given["domain_padding"] or 0.0,
    )
    with torch.no_grad():
        _take_perceptron(network.lift, state, "lifting")
        _take_perceptron(network.project, state, "projection")
        blocks: Any = network.blocks
        for number, block in enumerate(blocks):
            # Theirs have the channels first.
            weight = state[f"fno_blocks.convs.{number}.weight.tensor"].movedim((0, 1), (-2, -1))
            block.spectral.real.copy_(weight.real)
            block.spectral.imaginary.copy_(weight.imag)
            block.local.weight.copy_(state[f"fno_blocks.fno_skips.{number}.conv.weight"].squeeze(-1))
            block.local.bias.copy_(state[f"fno_blocks.convs.{number}.bias"].flatten())
            _take_perceptron(block.mixing, state, f"fno_blocks.channel_mlp.{number}")
            block.gate.copy_(state[f"fno_blocks.channel_mlp_skips.{number}.weight"].flatten())
    return network.to(state["projection.fcs.0.weight"])


def _take_perceptron(perceptron: Perceptron, state: Mapping[str, Tensor], prefix: str) -> None:
    parts = [part for part in (perceptron.first, perceptron.second) if part is not None]
    for number, part in enumerate(parts):
        part.weight.copy_(state[f"{prefix}.fcs.{number}.weight"].squeeze(-1))
        part.bias.copy_(state[f"{prefix}.fcs.{number}.bias"])
