"""The state of a training in tensors and JSON's values, and back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as sharded_state
from torch.distributed.tensor import DTensor

from ..errors import InputError

_WHOLE = sharded_state.StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass
class Position:
    """Where a training is. Everything in it is part of a checkpoint.

    Args:
        step: optimizer steps taken.
        epoch: epochs completed.
        batch: batches taken of the epoch that is running.
        seconds: of training.
        validated: the step of the last validation, -1 for none.
        waited: validations since the best.
        best_value, best_step, best_epoch: of the best validation.
        skipped: steps that float16's scaler skipped.
        log: bytes of the log.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    validated: int = -1
    waited: int = 0
    best_value: float | None = None
    best_step: int = 0
    best_epoch: int = 0
    skipped: int = 0
    log: int = 0


def network_state(network: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers on the CPU, whole on every rank: a sharded one is gathered tensor by tensor.

    Raises:
        InputError: the network's state holds something else than tensors.
    """
    state = {}
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(f"the network's state has {name!r}, a {type(value).__name__}: only tensors can be saved")
        state[name] = _copied(value.full_tensor() if isinstance(value, DTensor) else value)
    return state


def set_network_state(network: nn.Module, state: Mapping[str, Tensor], sharded: bool) -> None:
    """Put a state into a network, sharded already or not."""
    if sharded:
        options = sharded_state.StateDictOptions(full_state_dict=True)
        sharded_state.set_model_state_dict(network, dict(state), options=options)
    else:
        network.load_state_dict(dict(state))


def optimizer_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, sharded: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by "PARAMETER/NAME", and what are numbers: "state" in the same way, and "groups"."""
    if not optimizer.state:  # torch would take a step of length 0 to have something, and Adam count it
        return {}, {"state": {}, "groups": []}
    if sharded:
        whole = sharded_state.get_optimizer_state_dict(network, optimizer, options=_WHOLE)
        by_name: Any = whole.get("state", {})
        groups: Any = whole.get("param_groups", [])
    else:
        names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
        by_name = {names[parameter]: entries for parameter, entries in optimizer.state.items()}
        groups = [
            {**group, "params": [names[parameter] for parameter in group["params"]]} for group in optimizer.param_groups
        ]
    tensors, numbers = {}, {}
    for name, entries in by_name.items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = _copied(value)
            else:
                numbers[f"{name}/{key}"] = value
    kept = [{key: value for key, value in group.items() if _is_plain(value)} for group in groups]
    return tensors, {"state": numbers, "groups": kept}


def set_optimizer_state(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    sharded: bool,
) -> None:
    """Put what `optimizer_state` gave into an optimizer of the same kind."""
    by_name: dict[str, dict[str, Any]] = {}
    for path, value in [*tensors.items(), *record["state"].items()]:
        name, _, key = path.rpartition("/")
        by_name.setdefault(name, {})[key] = value
    if not by_name:
        return
    if sharded:
        state: Any = {"state": by_name, "param_groups": record["groups"]}
        options = sharded_state.StateDictOptions(full_state_dict=True)
        sharded_state.set_optimizer_state_dict(network, optimizer, state, options=options)
        return
    parameters = dict(network.named_parameters())
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbered = {parameter: number for number, parameter in enumerate(ordered)}
    current = optimizer.state_dict()
    current["state"] = {
        numbered[parameters[name]]: {key: _laid_out(value, parameters[name]) for key, value in entries.items()}
        for name, entries in by_name.items()
    }
    for group, kept in zip(current["param_groups"], record["groups"], strict=True):
        for key, value in kept.items():
            if key != "params":
                group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
    optimizer.load_state_dict(current)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators of torch (CPU, and the GPU in use), NumPy and Python."""
    _, keys, place, has_gauss, gauss = numpy.random.get_state(legacy=True)
    version, words, waiting = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(numpy.asarray(keys).astype(numpy.int64)),
        "numpy_gauss": torch.tensor([place, has_gauss, gauss], dtype=torch.float64),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor([float("nan") if waiting is None else waiting], dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    place, has_gauss, gauss = state["numpy_gauss"].tolist()
    keys = state["numpy"].numpy().astype(numpy.uint32)
    numpy.random.set_state(("MT19937", keys, int(place), int(has_gauss), gauss))
    version, *words = state["python"].tolist()
    waiting = state["python_gauss"].item()
    random.setstate((version, tuple(words), None if waiting != waiting else waiting))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_all(seed: int) -> None:
    """Seed the generators of torch, NumPy and Python."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


def _copied(tensor: Tensor) -> Tensor:
    """A copy that shares no memory with another tensor: safetensors refuses those that do."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _laid_out(value: Any, like: Tensor) -> Any:
    """A tensor of a parameter's shape in the order that the parameter has in memory: fused optimizers take both by
    their place there."""
    if not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return torch.empty_like(like, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
