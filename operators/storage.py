"""Trained operators on the disk: a folder with operator.json and a file of weights.

operator.json names the file of weights, with its size and SHA-256, and carries a digest of its own; it is written last,
and replaced at once, so that a folder holds one whole operator at every moment. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from sciml.equations import Equation
from sciml.errors import InputError
from sciml.files import write_whole

from .deeponet import DeepONet
from .fno import FNO
from .mgno import MgNO
from .normalization import Normalized
from .trained import Channel, Place, TrainedOperator
from .unet import UNet

VERSION = 1
_FORMAT = "sciml operator"
_FILE = "operator.json"
NETWORKS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (DeepONet, FNO, MgNO, UNet)}
"""What files may name."""


def save(operator: TrainedOperator, folder: str | os.PathLike[str]) -> None:
    """Write an operator into a folder, which is made if need be; an operator that stands there is replaced.

    Raises:
        InputError: the network is not one of this package, or the folder cannot be one.
        OSError: the disk is full, or writing is not permitted; an operator that stood there is unharmed.
    """
    network = operator.network.network
    check(network)
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {place} cannot be made: {error.strerror}") from error
    weights = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    file = f"weights-{digest[:16]}.safetensors"
    content = {
        "format": _FORMAT,
        "version": VERSION,
        "network": {"kind": type(network).__name__, "settings": network.settings},
        "normalization": operator.network.settings,
        "inputs": [_finite(dataclasses.asdict(channel)) for channel in operator.inputs],
        "outputs": [_finite(dataclasses.asdict(channel)) for channel in operator.outputs],
        "place": dataclasses.asdict(operator.place),
        "equation": None if operator.equation is None else operator.equation.to_json(),
        "parameters": dict(operator.parameters),
        "interval": operator.interval,
        "origin": dict(operator.origin),
        "weights": {"file": file, "bytes": len(weights), "sha256": digest},
    }
    write_whole(place / file, weights)
    write_whole(place / _FILE, _signed(content))
    for other in place.glob("weights-*.safetensors"):
        if other.name != file:
            with contextlib.suppress(OSError):  # it is superfluous, not harmful
                other.unlink()


def check(network: nn.Module) -> None:
    """Refuse a network that could not be stored.

    Raises:
        InputError: it is not one of this package.
    """
    if NETWORKS.get(type(network).__name__) is not type(network):
        raise InputError(f"operator: only {', '.join(NETWORKS)} can be stored, not {type(network).__name__}")


def load(folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> TrainedOperator:
    """The operator in a folder, every byte of it checked.

    Args:
        folder: that `save` or a training wrote; also the folder of the training itself.
        device: where its network goes.

    Raises:
        InputError: there is no operator, it is damaged, of a newer version, or of a network that is unknown.
    """
    place = Path(folder)
    if not (place / _FILE).is_file() and (place / "operator" / _FILE).is_file():
        place = place / "operator"
    try:
        content = _read(place / _FILE)
        listed = content["weights"]
        data = (place / Path(listed["file"]).name).read_bytes()
        if len(data) != listed["bytes"] or hashlib.sha256(data).hexdigest() != listed["sha256"]:
            raise InputError(f"{place} is damaged: the bytes of {listed['file']} are not those that were written")
        kind, settings = content["network"]["kind"], content["network"]["settings"]
        if kind not in NETWORKS:
            raise InputError(f"{place} holds a network {kind!r}; this sciml knows {', '.join(NETWORKS)}")
        tensors = safetensors.torch.load(data)
        network = NETWORKS[kind](**settings).to(next(iter(tensors.values())).dtype)
        network.load_state_dict(tensors)
        described = content["place"]
        return TrainedOperator(
            Normalized(network, **content["normalization"]).to(device).eval(),
            tuple(_channel(item) for item in content["inputs"]),
            tuple(_channel(item) for item in content["outputs"]),
            Place(
                tuple(described["shape"]),
                tuple(described["lower"]),
                tuple(described["upper"]),
                tuple(described["periodic"]),
                described["conditions"],
            ),
            None if content["equation"] is None else Equation.from_json(content["equation"]),
            content["parameters"],
            content["interval"],
            content["origin"],
        )
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"{place} holds no operator: {Path(error.filename or place).name}: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{place} is damaged: {_FILE} or the weights cannot be read ({error})") from error


def _signed(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, allow_nan=False)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), **content}, indent=1).encode()


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path} is not an operator")
    if not isinstance(content["version"], int) or content["version"] > VERSION:
        raise InputError(f"{path} has version {content['version']}, and this sciml reads up to {VERSION}")
    stated = content.pop("sha256")
    if hashlib.sha256(json.dumps(content).encode()).hexdigest() != stated:
        raise InputError(f"{path} is damaged: its content is not what was written")
    return content


def _finite(described: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in described.items()}


def _channel(described: dict[str, Any]) -> Channel:
    lowest, highest = described["lowest"], described["highest"]
    return Channel(
        described["name"],
        described["kind"],
        tuple(described["components"]),
        -math.inf if lowest is None else lowest,
        math.inf if highest is None else highest,
    )
