"""Training of an operator on a dataset."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.training import Plan, Samples, Training, TrainingError, train

from . import storage
from .data import OperatorData
from .losses import RelativeH1, RelativeL2
from .normalization import Normalized
from .symmetry import SymmetricSamples
from .trained import Channel, Place, TrainedOperator

OperatorLoss = Callable[[Tensor, Tensor], Tensor]
"""Of a prediction and the truth, `(n, channel, *space)` in physical units: one loss a sample, `(n,)`."""

_PIECE = 64  # samples at a time where all are gone through


def train_operator(
    network: nn.Module,
    dataset: OperatorData,
    plan: Plan,
    *,
    loss: OperatorLoss | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    steps: int | None = None,
    logarithm: bool | Sequence[bool] = False,
    coordinates: bool = False,
    mirrored: Sequence[str] = (),
    exchanged: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[TrainedOperator, Training]:
    """Train a network on the split "train" of a dataset, validated on "valid" where there is one.

    The network is given fields of mean 0 and standard deviation 1, and gives such; loss and errors are of fields in
    physical units. The operator has the weights of the best validation, and is saved in the folder as well.

    Args:
        network: from `(batch, in_channels, *space)` to `(batch, out_channels, *space)`.
        dataset: what `sciml.datasets.open` returns.
        plan: how it is trained; `monitor` may be "loss", "L2" or "H1".
        loss: default `RelativeL2()`.
        inputs, outputs: names of fields and parameters; None: the dataset's own.
        steps: how far apart in time input and output are where a field is both; None: 1.
        logarithm: inputs of which the network is given the logarithm, see `Normalized`.
        coordinates: whether the network is given the places of the points as further channels.
        mirrored, exchanged: axes along which the problem may be reversed, and which may take each other's place:
            their images are samples too, see `SymmetricSamples`. Of scalar fields only.
        folder: for checkpoints, log, curves, and the operator; None keeps everything in memory.
        options: further arguments of `sciml.training.train`: resume, device, devices, progress, ...

    Raises:
        InputError: the network does not fit the dataset; both are named.
        TrainingError: see `sciml.training.train`; the operator of the best validation until then is in the folder.
    """
    chosen = dataset.split("train").samples(inputs, outputs, steps)
    validation = dataset.split("valid").samples(inputs, outputs, steps) if "valid" in dataset.splits else None
    grid = dataset.grid
    takes, gives = _channels(dataset, inputs or dataset.inputs), _channels(dataset, outputs or dataset.outputs)
    limits: list[tuple[Tensor, Tensor]] = []

    def pieces() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(chosen), _PIECE):
            batch = chosen.batch(torch.arange(start, min(start + _PIECE, len(chosen))))
            limits.append((_extreme(batch["input"], torch.amin), _extreme(batch["input"], torch.amax)))
            yield batch["input"], batch["output"]

    normalized = Normalized.fit(
        network, pieces(), logarithm=logarithm, coordinates=grid.periodic if coordinates else None
    )
    if (mirrored or exchanged) and any(channel.components for channel in (*takes, *gives)):
        raise InputError("symmetry: components of vectors would change too; only scalar fields can be turned")
    _try_out(normalized, chosen, dataset, takes, gives)
    measure = loss or RelativeL2()
    errors: dict[str, OperatorLoss] = {
        "L2": RelativeL2(),
        "H1": RelativeH1.on(grid, *(channel.name for channel in gives)),
    }
    # What the result needs besides the training is found out before it.
    interval = _interval(dataset, takes, gives, steps)
    if folder is not None:
        storage.check(network)
    lowest = torch.stack([low for low, _ in limits]).amin(0).tolist()
    highest = torch.stack([high for _, high in limits]).amax(0).tolist()

    def made(training: Training) -> TrainedOperator:
        if training.best is not None and training.best.weights:
            normalized.load_state_dict(dict(training.best.weights))
        operator = TrainedOperator(
            normalized.eval(),
            tuple(_with_range(takes, lowest, highest)),
            gives,
            Place.of(grid),
            dataset.equation,
            {name: value for name, value in dataset.parameters.items() if not isinstance(value, Tensor)},
            interval,
            _origin(dataset, plan, measure, training),
        )
        if folder is not None and int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0:
            storage.save(operator, Path(folder) / "operator")
        return operator

    try:
        training = train(
            normalized,
            lambda network, batch: measure(network(batch["input"]), batch["output"]),
            SymmetricSamples(chosen, grid, mirrored, exchanged) if mirrored or exchanged else chosen,
            plan,
            folder=folder,
            validation=validation,
            metrics=None if validation is None else lambda network, batch: _errors(network, batch, errors),
            **options,
        )
    except TrainingError as error:
        if error.training.best is not None and error.training.best.weights:
            made(error.training)
        raise
    return made(training), training


def _errors(network: nn.Module, batch: Mapping[str, Tensor], errors: Mapping[str, OperatorLoss]) -> dict[str, Tensor]:
    prediction = network(batch["input"])
    return {name: error(prediction, batch["output"]) for name, error in errors.items()}


def _channels(dataset: OperatorData, names: Sequence[str]) -> tuple[Channel, ...]:
    return tuple(
        Channel(name, "field", tuple(dataset.fields[name].components))
        if name in dataset.fields
        else Channel(name, "parameter")
        for name in names
    )


def _extreme(x: Tensor, of: Callable[..., Tensor]) -> Tensor:
    return of(x, [0, *range(2, x.dim())])


def _with_range(channels: Sequence[Channel], lowest: list[float], highest: list[float]) -> Iterator[Channel]:
    start = 0
    for channel in channels:
        own = slice(start, start + channel.count)
        yield Channel(channel.name, channel.kind, channel.components, min(lowest[own]), max(highest[own]))
        start += channel.count


def _try_out(
    network: Normalized, samples: Samples, dataset: OperatorData, takes: Sequence[Channel], gives: Sequence[Channel]
) -> None:
    """One sample through the network, so that what does not fit is said before anything is trained."""
    batch = samples.batch(torch.zeros(1, dtype=torch.int64))
    kind = type(network.network).__name__
    was, device = network.training, network.output_mean.device
    given, wanted = tuple(batch["input"].shape[1:]), tuple(batch["output"].shape[1:])
    data = (
        f"dataset {dataset.name!r} has inputs {', '.join(c.name for c in takes)} of shape {given} and outputs "
        f"{', '.join(c.name for c in gives)} of shape {wanted}"
    )
    try:
        with torch.no_grad():
            y = network.eval()(batch["input"].to(device, network.output_mean.dtype))
    except (InputError, RuntimeError) as error:
        raise InputError(f"the network does not fit: {data}; {kind}: {error}") from error
    finally:
        network.train(was)
    if tuple(y.shape[1:]) != wanted:
        raise InputError(f"the network does not fit: {data}; {kind} gives {tuple(y.shape[1:])}")


def _interval(
    dataset: OperatorData, takes: Sequence[Channel], gives: Sequence[Channel], steps: int | None
) -> float | None:
    times = dataset.times
    if times is None or len(times) < 2:
        return None
    if not {channel.name for channel in takes} & {channel.name for channel in gives}:
        return float(times[-1] - times[0])
    ahead = steps or 1
    intervals = times[ahead:] - times[:-ahead]
    if float(intervals.max() - intervals.min()) > 1e-6 * float(intervals.max()):
        raise InputError(
            f"dataset {dataset.name!r}: its times are not equally spaced, and an operator from one to the next needs "
            "equal intervals"
        )
    return float(intervals.mean())


def _origin(dataset: OperatorData, plan: Plan, loss: OperatorLoss, training: Training) -> dict[str, Any]:
    found = training.validations
    chosen = -1 if training.best is None else found["step"].tolist().index(training.best.step)
    validation = {name: float(values[chosen]) for name, values in found.items() if len(values)}
    return {
        "dataset": dataset.name,
        "plan": plan.described(),
        "loss": type(loss).__name__,
        "steps": training.steps,
        "epochs": training.epochs,
        "seconds": training.seconds,
        "validation": {name: value if math.isfinite(value) else None for name, value in validation.items()},
        "torch": torch.__version__,
    }
