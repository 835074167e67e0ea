"""Values of a trained network over all samples of a set, each counted once, on one device or many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ..errors import InputError
from .order import pieces
from .plan import Precision
from .ranks import Ranks
from .samples import Samples, moved

Loss = Callable[[Any, Mapping[str, Tensor]], Tensor]
"""Of a network and a batch of n samples: one loss a sample, shape (n,)."""

Metrics = Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Of a network and a batch of n samples: values by name, each of shape (n,)."""


@final
@dataclass(frozen=True)
class Evaluation:
    """Values by name, each a float64 tensor on the CPU with one entry a sample, in the order of the samples."""

    values: Mapping[str, Tensor]

    @property
    def means(self) -> dict[str, float]:
        """The mean of each value over the samples."""
        return {name: value.mean().item() for name, value in self.values.items()}

    def percentiles(self, percent: Sequence[float] = (50.0, 90.0, 95.0, 99.0, 100.0)) -> dict[str, dict[float, float]]:
        """For each value what so many percent of the samples do not exceed, interpolated linearly between samples.

        Raises:
            InputError: a percentage below 0 or above 100.
        """
        if any(not 0 <= p <= 100 for p in percent):
            raise InputError(f"percentages lie between 0 and 100, got {list(percent)}")
        at = torch.tensor(percent, dtype=torch.float64) / 100
        return {
            name: dict(zip(percent, torch.quantile(value, at).tolist(), strict=True))
            for name, value in self.values.items()
        }


def evaluate(
    network: nn.Module,
    metrics: Metrics,
    samples: Samples,
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    devices: int = 1,
    nodes: int = 1,
    precision: Precision = "float32",
) -> Evaluation:
    """Evaluate a network over all samples, in its evaluation mode and without gradient.

    Args:
        network: moved to `device`.
        metrics: values of a batch, each of shape (n,); one that needs derivatives turns them on by torch.enable_grad.
        samples: what it is evaluated over.
        batch_size: samples at a time, over all ranks; default 32.
        device, devices, nodes: as in `train`.
        precision: as in a Plan.

    Raises:
        InputError: metrics that do not give one value a sample.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    ranks = Ranks(device, devices, nodes, precision=precision)
    try:
        return over(samples, metrics, ranks.set_up(network), ranks, batch_size)
    finally:
        ranks.close()


def over(samples: Samples, metrics: Metrics, module: nn.Module, ranks: Ranks, batch_size: int) -> Evaluation:
    """Evaluate a module that has been set up; every rank gets all values."""
    count = len(samples)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            for start in range(0, count, batch_size):
                indices = torch.arange(start, min(start + batch_size, count))
                for part, counts in pieces(indices, ranks.rank, ranks.count, 1):
                    values = metrics(module, batch_on(samples, part, ranks.device))
                    for name, value in values.items():
                        check_per_sample(value, len(part), f"metric {name!r}")
                    found.append((part if counts else part[:0], {n: v.detach() for n, v in values.items()}))
    finally:
        set_modes(modes)
    whole = {}
    for name in found[0][1]:
        gathered = torch.zeros(count, dtype=torch.float64)
        for part, values in found:
            if name not in values:
                raise InputError(f"metric {name!r} is missing in some batches: every batch gives the same names")
            gathered[part] = values[name][: len(part)].to("cpu", torch.float64)
        whole[name] = ranks.total(gathered)
    return Evaluation(whole)


def set_modes(modes: Mapping[nn.Module, bool]) -> None:
    """Put every module into its own mode: parts that are frozen stay in that of evaluation."""
    for module, training in modes.items():
        module.training = training


def batch_on(samples: Samples, indices: Tensor, device: torch.device) -> dict[str, Tensor]:
    """A batch on a device.

    Raises:
        InputError: a tensor of it does not have one entry a sample.
    """
    batch = {}
    for name, tensor in samples.batch(indices).items():
        if tensor.ndim == 0 or len(tensor) != len(indices):
            raise InputError(
                f"samples {name!r}: a batch of {len(indices)} has the shape {tuple(tensor.shape)}; "
                f"the first axis must be {len(indices)}"
            )
        batch[name] = moved(tensor, device)
    return batch


def check_per_sample(values: object, count: int, what: str) -> None:
    """Refuse what is not one value a sample.

    Raises:
        InputError: it says what was given.
    """
    if not isinstance(values, Tensor) or values.shape != (count,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"{what} must be a tensor with one value a sample, of shape ({count},), and is {got}: "
            "take means over all axes but the first"
        )
