"""Training of an operator on a dataset."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.strategies.strategy import Strategy
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.training import Plan, Samples, Training, TrainingError, train
from sciml.training.checkpoint import newest
from sciml.training.state import network_state

from . import storage
from .coordinates import coordinate_count
from .data import OperatorData
from .losses import OperatorLoss, RelativeH1, RelativeL2, over_fields
from .normalization import Normalized
from .place import Place
from .symmetry import SymmetricSamples
from .trained import Channel, TrainedOperator

_PIECE = 1 << 24  # bytes of samples at a time where all are gone through
_MOMENTS = ("input_mean", "input_std", "output_mean", "output_std")


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
    resume: bool = False,
    device: str | torch.device = "cpu",
    devices: int = 1,
    nodes: int = 1,
    strategy: str | Strategy = "auto",
    save_every: float = 60.0,
    keep: int = 2,
    log_every: int = 1,
    tensorboard: bool = False,
    progress: bool = False,
    timeout: float = 600.0,
) -> tuple[TrainedOperator, Training]:
    """Train a network on the split "train" of a dataset, validated on "valid" where there is one.

    The network is given fields of mean 0 and standard deviation 1, and gives such; loss and errors are of fields in
    physical units. The operator is a copy of the network with the weights of the best validation, or the last ones
    where nothing is validated; it is the same on every rank, and is saved in the folder by the first.

    Args:
        network: from `(batch, in_channels, *space)` to `(batch, out_channels, *space)`.
        dataset: what `sciml.datasets.open` returns.
        plan: how it is trained; `monitor` may be "loss", "L2" or "H1".
        loss: default `RelativeL2()` of each output, and of several their mean (`MeanOverFields`).
        inputs, outputs: names of fields and parameters; None: the dataset's own.
        steps: how far apart in time input and output are where a field is both; None: 1.
        logarithm: inputs of which the network is given the logarithm, see `Normalized`.
        coordinates: whether the network is given the places of the points as further channels.
        mirrored, exchanged: axes along which the problem may be reversed, and which may take each other's place:
            their images are samples too, see `SymmetricSamples`. Of scalar fields only.
        folder: for checkpoints, log, curves, and the operator; None keeps everything in memory.
        resume: go on from the newest good checkpoint in the folder; data, network and everything above must be the
            same, but for the plan's epochs, steps, seconds and patience.
        device, devices, nodes, strategy, save_every, keep, log_every, tensorboard, progress, timeout: where it is
            trained, and what it leaves behind, see `sciml.training.train`.

    Raises:
        InputError: the network does not fit the dataset; both are named.
        TrainingError: see `sciml.training.train`; the operator of the best validation until then is in the folder.
    """
    chosen, validation = dataset.split("train"), dataset.split("valid") if "valid" in dataset.splits else None
    samples = chosen.samples(inputs, outputs, steps)
    takes, gives = _channels(dataset, inputs or dataset.inputs), _channels(dataset, outputs or dataset.outputs)
    shared = [name for name, kind in dataset.fields.items() if not (kind.sample_varying or kind.time_varying)]
    named = {channel.name for channel in (*takes, *gives)}
    fixed = {name: dataset.read(name, [0], None)[0] for name in shared if name not in named}
    seen = samples
    if mirrored or exchanged:
        if any(channel.components for channel in (*takes, *gives)):
            raise InputError("symmetry: components of vectors would change too; only scalar fields can be turned")
        seen = SymmetricSamples(samples, dataset.domain, mirrored, exchanged)
        for name, values in fixed.items():
            seen.check(name, values)
    # What the result needs besides the training is found out before it.
    interval = _interval(dataset, takes, gives, steps)
    if folder is not None:
        storage.check(network)
    counts = {channel.name: channel.count for channel in gives}
    errors = {
        "L2": over_fields(lambda name: RelativeL2(), counts),
        "H1": over_fields(lambda name: RelativeH1.on(dataset.grid, name), counts),
    }
    measure = loss or errors["L2"]
    if plan.monitor not in {"loss", *errors}:
        raise InputError(f"the plan monitors {plan.monitor!r}; an operator is validated by loss, {', '.join(errors)}")
    periodic = dataset.grid.periodic if coordinates else None
    _try_out(network, samples, dataset, takes, gives, logarithm, periodic)
    normalized, lowest, highest = _normalized(network, samples, logarithm, periodic, folder if resume else None)
    about = {
        "data": {
            "name": dataset.name,
            "train": chosen.digest[:16],
            "valid": None if validation is None else validation.digest[:16],
            "inputs": [channel.name for channel in takes],
            "outputs": [channel.name for channel in gives],
            "steps": steps or 1,
            "mirrored": [*mirrored],
            "exchanged": [*exchanged],
        },
        "operator": {"name": type(network).__name__, **getattr(network, "settings", {})},
        "loss": _described(measure),
        "normalization": {**normalized.settings, "lowest": lowest, "highest": highest},
    }
    result = copy.deepcopy(normalized)  # the other one may be sharded over several devices

    def made(training: Training) -> TrainedOperator:
        result.load_state_dict(dict(training.best.weights) if training.best else network_state(normalized))
        operator = TrainedOperator(
            result.to(next(normalized.parameters()).device).eval(),
            tuple(_with_range(takes, lowest, highest)),
            gives,
            Place.of(dataset.domain, dataset.points),
            dataset.equation,
            {name: value for name, value in dataset.parameters.items() if not isinstance(value, Tensor)},
            interval,
            _origin(dataset, plan, measure, training),
            fixed,
        )
        if folder is not None and training.first:
            operator.save(Path(folder) / "operator")
        return operator

    def measured(module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prediction = module(batch["input"])
        return {name: error(prediction, batch["output"]) for name, error in {"loss": measure, **errors}.items()}

    try:
        training = train(
            normalized,
            lambda module, batch: measure(module(batch["input"]), batch["output"]),
            seen,
            plan,
            folder=folder,
            validation=None if validation is None else validation.samples(inputs, outputs, steps),
            metrics=measured,
            resume=resume,
            about=about,
            device=device,
            devices=devices,
            nodes=nodes,
            strategy=strategy,
            save_every=save_every,
            keep=keep,
            log_every=log_every,
            tensorboard=tensorboard,
            progress=progress,
            timeout=timeout,
        )
    except TrainingError as error:
        if error.training.best is not None:
            made(error.training)
        raise
    return made(training), training


def _channels(dataset: OperatorData, names: Sequence[str]) -> tuple[Channel, ...]:
    return tuple(
        Channel(name, "field", tuple(dataset.fields[name].components))
        if name in dataset.fields
        else Channel(name, "parameter")
        for name in names
    )


def _normalized(
    network: nn.Module,
    samples: Samples,
    logarithm: bool | Sequence[bool],
    periodic: Sequence[bool] | None,
    resumed: str | os.PathLike[str] | None,
) -> tuple[Normalized, list[float], list[float]]:
    """The normalization, and the lowest and the highest value of every input; as a resumed training has them, or from
    one pass over the samples."""
    one = samples.batch(torch.zeros(1, dtype=torch.int64))
    wide, deep = one["input"].shape[1], one["output"].shape[1]
    if resumed is not None:
        found, _ = newest(Path(resumed) / "checkpoints")
        kept = {} if found is None else found.record["about"].get("normalization", {})
        if len(kept.get("input_mean", ())) == wide and len(kept["output_mean"]) == deep:
            moments = [kept[name] for name in _MOMENTS]
            made = Normalized(network, *moments, logarithm=logarithm, coordinates=periodic)
            return made, kept["lowest"], kept["highest"]

    lowest, highest = torch.full((wide,), math.inf), torch.full((wide,), -math.inf)

    def pieces() -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, _PIECE // sum(values.nbytes for values in one.values()))
        for start in range(0, len(samples), size):
            batch = samples.batch(torch.arange(start, min(start + size, len(samples))))
            for limits, extreme, better in ((lowest, torch.amin, torch.minimum), (highest, torch.amax, torch.maximum)):
                own = extreme(batch["input"], [0, *range(2, batch["input"].dim())])
                limits.copy_(better(limits, own.to(limits)))
            yield batch["input"], batch["output"]

    made = Normalized.fit(network, pieces(), logarithm=logarithm, coordinates=periodic)
    return made, lowest.tolist(), highest.tolist()


def _with_range(channels: Sequence[Channel], lowest: list[float], highest: list[float]) -> Iterator[Channel]:
    start = 0
    for channel in channels:
        own = slice(start, start + channel.count)
        yield Channel(channel.name, channel.kind, channel.components, lowest[own], highest[own])
        start += channel.count


def _try_out(
    network: nn.Module,
    samples: Samples,
    dataset: OperatorData,
    takes: Sequence[Channel],
    gives: Sequence[Channel],
    logarithm: bool | Sequence[bool],
    periodic: Sequence[bool] | None,
) -> None:
    """One sample through the network, so that what does not fit is said before all the data are read."""
    batch = samples.batch(torch.zeros(1, dtype=torch.int64))
    given, wanted = tuple(batch["input"].shape[1:]), tuple(batch["output"].shape[1:])
    places = 0 if periodic is None else coordinate_count(periodic)
    kind = type(network).__name__
    data = (
        f"dataset {dataset.name!r} has inputs {', '.join(c.name for c in takes)} of shape {given}"
        f"{f' and {places} channels of coordinates' if places else ''}, and outputs "
        f"{', '.join(c.name for c in gives)} of shape {wanted}"
    )
    was = {part: part.training for part in network.modules()}
    try:
        moments = (make(count) for count in (given[0], wanted[0]) for make in (torch.zeros, torch.ones))
        trial = Normalized(network, *moments, logarithm=logarithm, coordinates=periodic)
        like = trial.output_mean
        with torch.no_grad():
            y = trial.eval()(batch["input"].to(like.device, like.dtype))
    except (InputError, RuntimeError) as error:
        raise InputError(f"the network does not fit: {data}; {kind}: {str(error).removeprefix(f'{kind}: ')}") from error
    finally:
        for part, training in was.items():
            part.training = training
    if tuple(y.shape[1:]) != wanted:
        raise InputError(f"the network does not fit: {data}; {kind} gives {tuple(y.shape[1:])}")
    if getattr(network, "settings", {}).get("residual_output"):
        first = _names(takes)[: wanted[0]]
        moved = [name for n, name in enumerate(_names(gives)) if name in _names(takes) and first[n] != name]
        if moved:
            raise InputError(
                f"residual_output adds the first inputs, {', '.join(first)}, to the outputs, "
                f"{', '.join(_names(gives))}: name {', '.join(c.name for c in gives)} first among the inputs"
            )


def _names(channels: Sequence[Channel]) -> list[str]:
    """One a channel of the network."""
    return [channel.name for channel in channels for _ in range(channel.count)]


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


def _described(loss: OperatorLoss) -> str:
    """The same text in another process, of a loss with other settings another one."""
    if dataclasses.is_dataclass(loss):
        return repr(loss)
    return str(getattr(loss, "__qualname__", type(loss).__qualname__))


def _origin(dataset: OperatorData, plan: Plan, loss: OperatorLoss, training: Training) -> dict[str, Any]:
    found = training.validations
    chosen = -1 if training.best is None else found["step"].tolist().index(training.best.step)
    validation = {name: float(values[chosen]) for name, values in found.items() if len(values)}
    return {
        "dataset": dataset.name,
        "plan": plan.described(),
        "loss": _described(loss),
        "steps": training.steps,
        "epochs": training.epochs,
        "seconds": training.seconds,
        "validation": {name: value if math.isfinite(value) else None for name, value in validation.items()},
        "torch": torch.__version__,
    }
