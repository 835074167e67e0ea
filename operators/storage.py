"""Trained operators on the disk: a folder with operator.json and a file of weights.

operator.json names the file of weights, with its size and SHA-256, and carries a digest of its own; it is written last,
and replaced at once, so that a folder holds one whole operator at every moment. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.files import write_whole

from .deeponet import DeepONet
from .fno import FNO
from .mgno import MgNO
from .unet import UNet

VERSION = 2
_FORMAT = "sciml operator"
_FILE = "operator.json"
_FIXED = "fixed/"  # names of modules have no slash
NETWORKS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (DeepONet, FNO, MgNO, UNet)}
"""What files may name."""


def check(network: nn.Module) -> None:
    """Refuse a network that could not be stored.

    Raises:
        InputError: it is not one of this package.
    """
    if NETWORKS.get(type(network).__name__) is not type(network):
        raise InputError(f"operator: only {', '.join(NETWORKS)} can be stored, not {type(network).__name__}")


def write(
    folder: str | os.PathLike[str], network: nn.Module, content: Mapping[str, Any], fixed: Mapping[str, Tensor]
) -> None:
    """Write a network, JSON values and fields into a folder, in place of what stands there.

    Raises:
        InputError: the network is not one of this package, or the folder cannot be one.
        OSError: the disk is full, or writing is not permitted; what stood there is unharmed.
    """
    check(network)
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {place} cannot be made: {error.strerror}") from error
    tensors = {**network.state_dict(), **{f"{_FIXED}{name}": u for name, u in fixed.items()}}
    weights = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    digest = hashlib.sha256(weights).hexdigest()
    file = f"weights-{digest[:16]}.safetensors"
    whole = {
        "format": _FORMAT,
        "version": VERSION,
        "network": {"kind": type(network).__name__, "settings": network.settings},
        **content,
        "weights": {"file": file, "bytes": len(weights), "sha256": digest},
    }
    write_whole(place / file, weights)
    write_whole(place / _FILE, _signed(whole))
    for other in place.glob("weights-*.safetensors"):
        if other.name != file:
            with contextlib.suppress(OSError):  # it is superfluous, not harmful
                other.unlink()


@contextmanager
def reading(folder: str | os.PathLike[str]) -> Iterator[tuple[nn.Module, dict[str, Any], dict[str, Tensor]]]:
    """What `write` wrote, every byte of it checked; what goes wrong with it inside the block is said of the folder.

    Raises:
        InputError: there is nothing, it is damaged, of another version, or of a network that is unknown.
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
        fixed = {name.removeprefix(_FIXED): tensors.pop(name) for name in [*tensors] if name.startswith(_FIXED)}
        network = NETWORKS[kind](**settings).to(next(iter(tensors.values())).dtype)
        network.load_state_dict(tensors)
        yield network, content, fixed
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
    if content["version"] != VERSION:
        raise InputError(f"{path} has version {content['version']}, and this sciml reads version {VERSION}")
    stated = content.pop("sha256")
    if hashlib.sha256(json.dumps(content).encode()).hexdigest() != stated:
        raise InputError(f"{path} is damaged: its content is not what was written")
    return content
