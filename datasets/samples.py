"""Datasets as what networks are trained with: channels of inputs and outputs, in memory or read batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.errors import InputError
from sciml.training import Samples

if TYPE_CHECKING:
    from .dataset import Dataset


@dataclass(frozen=True)
class _Channels:
    """The part of an input or output that one field or parameter makes up.

    Args:
        name: of either.
        shift: added to the time of a sample.
        moves: whether it has an axis of time.
        labels: of its channels.
    """

    name: str
    shift: int
    moves: bool
    labels: tuple[str, ...]


@final
class DatasetSamples(Samples):
    """Samples of a dataset for training, as `Dataset.samples` makes them.

    Attributes:
        input_channels: names, in order; of the components of a vector `v_x`, `v_y`.
        output_channels: as `input_channels`.
        in_memory: whether all values are held there.
    """

    def __init__(
        self, dataset: Dataset, inputs: Sequence[_Channels], outputs: Sequence[_Channels], starts: int, in_memory: bool
    ) -> None:
        self._dataset = dataset
        self._roles = {"input": tuple(inputs), "output": tuple(outputs)}
        self._starts = starts  # times at which samples begin in every trajectory
        self.input_channels = tuple(label for item in inputs for label in item.labels)
        self.output_channels = tuple(label for item in outputs for label in item.labels)
        self.in_memory = in_memory
        # One tensor a field, with samples and times in one axis: what is both input and output is held once.
        names = {item.name for items in self._roles.values() for item in items} if in_memory else ()
        self._held = {name: self._load(name) for name in sorted(names)}

    def __len__(self) -> int:
        return len(self._dataset) * self._starts

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        rows, starts = indices // self._starts, indices % self._starts
        found = {}
        for role, items in self._roles.items():
            parts = [self._take(item, rows, starts) for item in items]
            found[role] = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return found

    def _take(self, item: _Channels, rows: Tensor, starts: Tensor) -> Tensor:
        times = starts + item.shift if item.moves else None
        if self.in_memory:
            steps = 1 if self._dataset.times is None or not item.moves else len(self._dataset.times)
            return self._held[item.name].index_select(0, rows if times is None else rows * steps + times)
        return self._shaped(item.name, self._dataset.read(item.name, rows, times))

    def _load(self, name: str) -> Tensor:
        values = self._dataset.read(name)
        if name in self._dataset.fields and self._dataset.fields[name].time_varying:
            values = values.flatten(0, 1)
        return self._shaped(name, values)

    def _shaped(self, name: str, values: Tensor) -> Tensor:
        """`(n, channel, *space)`."""
        space = self._dataset.grid.shape
        values = values.to(torch.float32)
        if name not in self._dataset.fields:
            return values.reshape(-1, *(1,) * (len(space) + 1)).expand(-1, 1, *space)
        return values.reshape(values.shape[0], -1, *space)


def make_samples(
    dataset: Dataset,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    steps: int | None,
    memory: int,
) -> DatasetSamples:
    """See `Dataset.samples`."""
    names = {"inputs": tuple(inputs or dataset.inputs), "outputs": tuple(outputs or dataset.outputs)}
    for role, chosen in names.items():
        if isinstance(inputs if role == "inputs" else outputs, str):
            raise InputError(f"samples: {role} is a list of names, got one text")
        if not chosen:
            raise InputError(
                f"samples: dataset {dataset.name!r} does not say what its {role} are; give {role}=[...] of "
                f"{', '.join(dataset.fields)}"
            )
        if len(set(chosen)) < len(chosen):
            raise InputError(f"samples: {role} names one twice: {', '.join(chosen)}")
    fields = dataset.fields
    for name in names["outputs"]:
        if name not in fields:
            raise InputError(f"samples: the output {name!r} is no field of the dataset{suggestion(name, fields)}")
    for name in names["inputs"]:
        dataset.read(name, [])  # refuses an unknown name
    moving = {name for name, kind in fields.items() if kind.time_varying}
    total = 1 if dataset.times is None else len(dataset.times)
    same = set(names["inputs"]) & set(names["outputs"])
    if same - moving:
        raise InputError(f"samples: {min(same - moving)!r} is both input and output and does not change in time")
    if steps is not None and not same:
        raise InputError("samples: steps counts times between input and output of one field; none is both here")
    ahead = total - 1 if not same else 1 if steps is None else steps
    if same and (not isinstance(ahead, int) or isinstance(ahead, bool) or not 1 <= ahead < total):
        raise InputError(f"samples: of {total} times steps can be an integer from 1 to {total - 1}, got {ahead!r}")
    starts = total - ahead if same else 1
    roles = [
        [_Channels(name, shift, name in moving, _labels(dataset, name)) for name in chosen]
        for chosen, shift in ((names["inputs"], 0), (names["outputs"], ahead))
    ]
    needed = sum(_bytes(dataset, name, total) for name in {*names["inputs"], *names["outputs"]})
    return DatasetSamples(dataset, roles[0], roles[1], starts, needed <= memory)


def _labels(dataset: Dataset, name: str) -> tuple[str, ...]:
    components = dataset.fields[name].components if name in dataset.fields else ()
    ends = [""]
    for _ in components:
        ends = [end + axis for end in ends for axis in dataset.grid.axes]
    return tuple(f"{name}_{end}" if end else name for end in ends)


def _bytes(dataset: Dataset, name: str, total: int) -> int:
    """Of a field in float32; parameters are views."""
    if name not in dataset.fields:
        return 0
    kind = dataset.fields[name]
    return 4 * len(dataset) * (total if kind.time_varying else 1) * prod(kind.components) * prod(dataset.grid.shape)
