"""What a network is trained with: a number of samples, from which the engine asks for batches by index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from ..errors import InputError


class Samples(ABC):
    """A number of samples, held in memory, read from files, or made when they are asked for.

    The engine moves a batch to the device of the network; where it comes from is the matter of the samples. Samples
    made with random numbers draw them from torch's global generator, whose state is part of a checkpoint, or from a
    generator seeded by the index: then a run that is resumed sees the same samples as one never interrupted.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples, which makes the length of an epoch; at least 1."""

    @abstractmethod
    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        """The samples with these indices, in this order.

        Args:
            indices: int64 on the CPU, shape (n,), each in [0, len(self)); n is at least 1.

        Returns:
            Tensors by name, each with the leading axis n, on any device.
        """


@final
class TensorSamples(Samples):
    """Samples held as tensors.

    Args:
        tensors: by name, each of shape (samples, ...), with the same number of samples, on any device: those that lie
            on a GPU already are not copied to it batch by batch.

    Raises:
        InputError: no tensor, one that is not a tensor or has no samples, or lengths that differ.
    """

    def __init__(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise InputError(f"samples {name!r}: a tensor is needed, got {type(tensor).__name__}")
            if tensor.ndim == 0 or len(tensor) == 0:
                raise InputError(f"samples {name!r} have shape {tuple(tensor.shape)}: the first axis counts samples")
        if not tensors:
            raise InputError("samples need at least one tensor: TensorSamples(input=..., output=...)")
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InputError(f"samples differ in number: {listed}; the first axis of every tensor counts the samples")
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        there = {device: moved(indices, device) for device in {tensor.device for tensor in self.tensors.values()}}
        return {name: tensor.index_select(0, there[tensor.device]) for name, tensor in self.tensors.items()}

    def to(self, device: str | torch.device) -> TensorSamples:
        """The same samples on another device."""
        return TensorSamples(**{name: tensor.to(device) for name, tensor in self.tensors.items()})


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. Nothing waits for a copy to a GPU, which therefore begins in pinned memory."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
