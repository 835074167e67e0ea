"""Checkpoints on the disk: one folder each, written whole or not at all, and never unpickled.

    FOLDER/checkpoints/step-000001200/NAME.safetensors, record.json, manifest.json

A checkpoint is written under a hidden name, the manifest with size and SHA-256 of every file last; everything is
flushed to the disk and renamed, and the folder flushed. A process killed at any moment leaves the earlier ones as they
were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor, nn

from ..errors import InputError

VERSION = 1
_FORMAT = "sciml training checkpoint"
_NAME = re.compile(r"step-(\d{9,})(?:-(\d+))?")  # the second number where a step was written again


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: tensors by file and name, on the CPU, and a record of JSON's values.

    Its digest is that of the manifest, and so of all bytes.
    """

    path: Path
    digest: str
    tensors: Mapping[str, Mapping[str, Tensor]]
    record: Mapping[str, Any]


def write(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any], keep: int
) -> Path:
    """Write a checkpoint into `folder`, and remove all but the newest `keep`.

    Raises:
        OSError: the disk is full, or writing is not permitted; nothing of the attempt is left.
    """
    final = folder / f"step-{step:09d}"
    again = 0
    while final.exists():  # of a run that goes on where it was told to end: what is there stays until this one stands
        again += 1
        final = folder / f"step-{step:09d}-{again}"
    part = folder / f".{final.name}.{secrets.token_hex(8)}.part"
    files: dict[str, dict[str, Any]] = {}

    def add(name: str, data: bytes) -> None:
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        _write_flushed(part / name, data)

    try:
        part.mkdir()
        for name, group in tensors.items():
            add(f"{name}.safetensors", safetensors.torch.save(dict(group)))
        add("record.json", json.dumps(record, indent=1, allow_nan=False).encode())
        manifest = {"format": _FORMAT, "version": VERSION, "files": files}
        _write_flushed(part / "manifest.json", json.dumps(manifest, indent=1).encode())
        _flush_folder(part)
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _flush_folder(folder)
    for old in found(folder)[keep:]:
        _remove(old)
    return final


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first, whether they are good or not."""
    if not folder.is_dir():
        return []
    matches = {path: _NAME.fullmatch(path.name) for path in folder.iterdir()}
    steps = {path: (int(match[1]), int(match[2] or 0)) for path, match in matches.items() if match}
    return sorted(steps, key=steps.__getitem__, reverse=True)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint, every byte of it checked.

    Raises:
        InputError: it is not a checkpoint, of a newer version, or damaged; the message says what and where.
        OSError: the disk or the system failed, which says nothing about the checkpoint.
    """
    try:
        data = (path / "manifest.json").read_bytes()
        manifest = json.loads(data)
        kind, version, listed = manifest["format"], manifest["version"], manifest["files"]
        if kind != _FORMAT or not isinstance(version, int) or "record.json" not in listed:
            raise InputError(f"{path} is not a checkpoint of a training")
        if version > VERSION:
            raise InputError(f"{path} has version {version}, and this sciml reads up to {VERSION}: use a newer sciml")
        for name in listed:
            if name in ("", ".", "..") or Path(name).name != name:
                raise InputError(f"{path} is damaged: its manifest lists {name!r}, which is no file in it")
        contents = {name: _checked(path / name, entry) for name, entry in listed.items()}
        tensors = {
            # In one order on every rank, which safetensors does not keep: sharded states are put back by a collective
            # operation for each tensor.
            name.removesuffix(".safetensors"): dict(sorted(safetensors.torch.load(data).items()))
            for name, data in contents.items()
            if name.endswith(".safetensors")
        }
        return Checkpoint(path, hashlib.sha256(data).hexdigest(), tensors, json.loads(contents["record.json"]))
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{path} is damaged: {Path(error.filename or path).name}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is damaged: its manifest or a file in it cannot be read ({error})") from error


def newest(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest good checkpoint in a folder, and why newer ones are not.

    Raises:
        InputError: there are checkpoints, and none is good.
        OSError: one could not be read, and may be good.
    """
    refused: dict[Path, str] = {}
    for path in found(folder):
        try:
            return read(path), refused
        except InputError as error:
            refused[path] = str(error)
    if refused:
        raise InputError("no checkpoint is of use:\n" + "\n".join(refused.values()))
    return None, {}


def set_aside(path: Path) -> None:
    """Rename a checkpoint so that it is no longer found, and nothing of it is lost."""
    path.rename(path.with_name(f"{path.name}.refused-{secrets.token_hex(4)}"))


def clean(folder: Path) -> None:
    """Remove what killed processes left behind."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def load_weights(network: nn.Module, folder: str | os.PathLike[str], which: Literal["best", "last"] = "best") -> None:
    """Put the weights of a training's newest good checkpoint into a network, on the devices of its own.

    Args:
        network: of the same architecture.
        folder: that of the training, or one of its checkpoints.
        which: "best" is that of the best validation, or the last where nothing was validated.

    Raises:
        InputError: there is no good checkpoint, or it is one of another network; what differs is named.
    """
    place = Path(folder)
    checkpoint = read(place) if _NAME.fullmatch(place.name) else newest(place / "checkpoints")[0]
    if checkpoint is None:
        raise InputError(f"{place} holds no checkpoint of a training")
    check_network(network, checkpoint)
    weights = checkpoint.tensors["best"] if which == "best" else None
    network.load_state_dict(dict(weights or checkpoint.tensors["network"]))


def check_network(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose tensors are not those of the network.

    Raises:
        InputError: both are named, tensor by tensor.
    """
    stored = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors["network"].items()}
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    differences = [
        f"{name}: {stored.get(name, 'absent')} there, {own.get(name, 'absent')} here"
        for name in {**own, **stored}
        if stored.get(name) != own.get(name)
    ]
    if differences:
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        kind = checkpoint.record.get("network", "?")
        raise InputError(
            f"{checkpoint.path} is of another network ({kind} there, {type(network).__name__} here): "
            f"{'; '.join(differences[:5])}{more}"
        )


def _checked(path: Path, entry: Mapping[str, Any]) -> bytes:
    data = path.read_bytes()
    if len(data) != entry["bytes"]:
        raise InputError(f"{path.parent} is damaged: {path.name} has {len(data)} bytes and had {entry['bytes']}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise InputError(f"{path.parent} is damaged: the bytes of {path.name} are not those that were written")
    return data


def _write_flushed(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Out of sight first: a removal that is interrupted must not leave half a checkpoint to be found."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(8)}.old")
    with contextlib.suppress(OSError):
        path.rename(hidden)
        shutil.rmtree(hidden)
