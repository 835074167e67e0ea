"""What a network refuses to take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.errors import InputError


def check_fields(x: Tensor, name: str, channels: int, dimension: int, dtype: torch.dtype) -> None:
    """Raises InputError unless x is `(batch, channels, *space)` and of the dtype of the network's weights.

    Args:
        x: the fields.
        name: of the network, for the message.
        channels: that the network takes.
        dimension: number of axes of space.
        dtype: of the weights.
    """
    axes = ", ".join("xyz"[:dimension])
    if x.dim() != dimension + 2 or x.shape[1] != channels:
        raise InputError(f"{name}: takes fields of shape (batch, {channels} channels, {axes}), got {tuple(x.shape)}")
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise InputError(f"{name}: has weights in {dtype}, got fields in {x.dtype}; convert one with .to(...)")


def check_counts(name: str, **counts: int | Sequence[int]) -> None:
    """Raises InputError unless every count, or every entry of a sequence of them, is a positive int.

    Args:
        name: of the network, for the message.
        counts: name of the setting -> its value.
    """
    for setting, value in counts.items():
        entries = list(value) if isinstance(value, Sequence) else [value]
        if not entries or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in entries):
            raise InputError(f"{name}: {setting} is {value!r}; it must be made of positive whole numbers")


def check_dimension(name: str, setting: str, dimension: int) -> None:
    """Raises InputError unless there are one to three axes of space.

    Args:
        name: of the network, for the message.
        setting: what the number of axes was read from.
        dimension: number of axes.
    """
    if dimension not in (1, 2, 3):
        raise InputError(f"{name}: {setting} speaks of {dimension} axes of space; one to three are possible")
