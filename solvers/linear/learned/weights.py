"""Weights of learned solvers: safetensors files that say in their metadata what they are the weights of.

The metadata has one entry, "sciml", a JSON object with the kind of network, the version of the format, the settings
from which the network is built, what the training was about, and a SHA-256 of the tensors. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sciml.boundary import suggestion
from sciml.errors import InputError
from sciml.files import target, write_whole

VERSION = 1
_ENDING = ".safetensors"
_KEY = "sciml"


class Weights(NamedTuple):
    """What a network is made of.

    Attributes:
        settings: from which it is built.
        tensors: by the names of its `state_dict`, on the CPU.
    """

    settings: dict[str, Any]
    tensors: dict[str, Tensor]


def save_weights(
    path: str | os.PathLike[str],
    kind: str,
    settings: Mapping[str, Any],
    weights: nn.Module | Mapping[str, Tensor],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write weights whole, in place of what stands there, or not at all.

    Args:
        path: a file name ending in .safetensors.
        kind: of network, such as "direction-network"; only the same kind reads it.
        settings: what the network is built from, in JSON's values.
        weights: a network or its `state_dict`.
        about: what it was trained on and what that cost, in JSON's values.

    Raises:
        InputError: weights that are not finite, settings that JSON does not know, or a path that cannot be a file.
        OSError: the disk is full, or writing is not permitted; what stood there is unharmed.
    """
    target(path, (_ENDING,))
    state = weights.state_dict() if isinstance(weights, nn.Module) else dict(weights)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    _check_finite(tensors, "the weights to save")
    content = {
        "kind": kind,
        "version": VERSION,
        "settings": dict(settings),
        "about": dict(about or {}),
        "sha256": _digest(tensors),
    }
    try:
        text = json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the settings of weights are numbers, texts, lists and dicts of them: {error}") from None
    write_whole(path, safetensors.torch.save(tensors, {_KEY: text}))


def load_weights(path: str | os.PathLike[str], kind: str) -> Weights:
    """Read what `save_weights` wrote.

    Args:
        path: the file.
        kind: of network that is wanted.

    Raises:
        InputError: there is no such file, it is damaged, of another kind, of a newer version, or not finite.
    """
    content, tensors = _read(path)
    if content["kind"] != kind:
        raise InputError(f"{path} holds weights of kind {content['kind']!r}, and {kind!r} is needed")
    _check_finite(tensors, str(path))
    if _digest(tensors) != content["sha256"]:
        raise InputError(f"{path} is damaged: the weights are not those that were written")
    return Weights(content["settings"], tensors)


def about_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file of weights says of their training.

    Raises:
        InputError: there is no such file, it is damaged, or of a newer version.
    """
    about: dict[str, Any] = _read(path)[0]["about"]
    return about


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is no file of weights, or is damaged: {error}") from error
    if _KEY not in metadata:
        raise InputError(f"{path} holds tensors, but does not say of which network: it was not written by sciml")
    try:
        content = json.loads(metadata[_KEY])
        missing = {"kind", "version", "settings", "about", "sha256"} - content.keys()
        newer = content.get("version", 0) > VERSION
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is damaged: its metadata cannot be read ({error})") from error
    if newer:
        raise InputError(
            f"{path} has version {content['version']}, and this sciml reads up to version {VERSION}: update sciml"
        )
    if missing:
        raise InputError(f"{path} is damaged: its metadata lack {', '.join(sorted(missing))}")
    return content, tensors


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a network.

    Args:
        network: built from the settings that came with them.
        tensors: its `state_dict`, complete.
        source: where they come from, for the message.

    Raises:
        InputError: a tensor is missing, superfluous, or of another shape; it is named.
    """
    wanted = network.state_dict()
    problems = [f"{name!r} is missing" for name in wanted.keys() - tensors.keys()]
    problems += [f"{name!r} is not of this network" for name in tensors.keys() - wanted.keys()]
    problems += [
        f"{name!r} has shape {tuple(tensors[name].shape)}, the network {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:4]) + ("" if len(problems) <= 4 else f"; and {len(problems) - 4} more")
        raise InputError(f"the weights of {source} are of another architecture than {type(network).__name__}: {shown}")
    network.load_state_dict(dict(tensors))


def shipped(kind: str) -> tuple[str, ...]:
    """The names of the weights of a kind that come with the package."""
    start = f"{kind}-"
    files = (file.name for file in _folder().iterdir()) if _folder().is_dir() else iter(())
    return tuple(sorted(name.removeprefix(start).removesuffix(_ENDING) for name in files if name.startswith(start)))


def load_shipped(name: str, kind: str) -> Weights:
    """Weights that come with the package, from the file KIND-NAME.safetensors.

    Raises:
        InputError: there are none of that name; those there are, are named.
    """
    known = shipped(kind)
    if name not in known:
        raise InputError(f"no weights of kind {kind!r} are called {name!r}{suggestion(str(name), known)}")
    with importlib.resources.as_file(_folder() / f"{kind}-{name}{_ENDING}") as path:
        return load_weights(path, kind)


def _folder() -> Traversable:
    return importlib.resources.files(__package__) / "weights"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}\n".encode())
        total.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InputError(f"{source}: {bad} of {tensor.numel()} values of {name!r} are NaN or infinite")
