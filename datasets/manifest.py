"""manifest.json: which files make up a dataset, what they held when they were written, and where they come from."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from sciml import container
from sciml.errors import InputError
from sciml.files import write_whole

NAME = "manifest.json"
KIND = "dataset shard"
FORMAT = 1
FIRST_SPLITS = ("train", "valid", "test")

_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class ShardEntry:
    """What the manifest says of one file.

    Args:
        split: which one its samples belong to, a word.
        number: of the file within the split, from 0.
        samples: how many it holds.
        bytes: its length.
        sha256: digest of its content, as its first bytes bear it.
        identities: of its samples, in order: 32 hexadecimal digits each, of the SHA-256 digest of their inputs.

    Raises:
        InputError: for a split that is no word, or counts that disagree.
    """

    split: str
    number: int
    samples: int
    bytes: int
    sha256: str
    identities: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        shard_file(self.split, self.number)
        if len(self.identities) != self.samples:
            raise InputError(f"{self.file}: {self.samples} samples, but {len(self.identities)} identities")

    @property
    def file(self) -> str:
        """Its place in the dataset's folder."""
        return shard_file(self.split, self.number)


def shard_file(split: str, number: int) -> str:
    """Where a shard stands in the dataset's folder, in the folders that the readers of The Well expect."""
    if not isinstance(split, str) or not _SPLIT.fullmatch(split):
        raise InputError(f"a split is named by a word such as train, valid or test; got {split!r}")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise InputError(f"split {split!r}: shards are numbered from 0, got {number!r}")
    return f"data/{split}/shard-{number:05d}.hdf5"


@dataclass(frozen=True)
class Manifest:
    """The files of a dataset.

    Args:
        name: of the dataset.
        shards: all files, in any order.
        provenance: what can be said in JSON of where the data come from: recipe, seed, versions, source files.

    Raises:
        InputError: two shards of the same split and number, or none.
    """

    name: str
    shards: tuple[ShardEntry, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.shards:
            raise InputError(f"dataset {self.name!r} has no shards")
        ordered = sorted(self.shards, key=lambda shard: (*split_order(shard.split), shard.number))
        for one, other in pairwise(ordered):
            if one.file == other.file:
                raise InputError(f"dataset {self.name!r} lists {one.file} twice")
        object.__setattr__(self, "shards", tuple(ordered))

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write `folder`/manifest.json, whole or not at all; the same manifest gives the same bytes.

        Raises:
            InputError: a sample stands in two splits.
            OSError: the disk is full or not writable.
        """
        check_disjoint((shard.split, shard.file, shard.identities) for shard in self.shards)
        shards = [
            {
                "file": shard.file,
                **{f.name: getattr(shard, f.name) for f in fields(shard) if f.name != "identities"},
                "identities": " ".join(shard.identities),
            }
            for shard in self.shards
        ]
        content = {"kind": "sciml dataset", "format": FORMAT, "name": self.name, "shards": shards}
        content["provenance"] = dict(self.provenance)
        try:
            content["sha256"] = _digest(content)
            text = json.dumps(content, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"the provenance of dataset {self.name!r} does not fit into JSON: {error}") from error
        write_whole(Path(folder) / NAME, (text + "\n").encode())

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Read and check `folder`/manifest.json.

        Raises:
            InputError: it is missing, damaged, or of a newer version; or a sample stands in two splits.
        """
        path = Path(folder) / NAME
        try:
            content = json.loads(path.read_bytes())
            stranger = content["kind"] != "sciml dataset"
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}; a dataset's folder holds one") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is damaged, or not the manifest of a dataset") from error
        if stranger:
            raise InputError(f"{path} is the manifest of a {content['kind']}, not of a dataset")
        if isinstance(content.get("format"), int) and content["format"] > FORMAT:
            raise InputError(
                f"{path} was written by a newer version of sciml (format {content['format']}; this one reads up to "
                f"{FORMAT}): upgrade sciml"
            )
        if content.pop("sha256", None) != _digest(content):
            raise InputError(f"{path} is damaged: its content is no longer what was written (SHA-256 differs)")
        try:
            shards = tuple(
                ShardEntry(
                    **{
                        **{name: item for name, item in shard.items() if name != "file"},
                        "identities": tuple(shard["identities"].split()),
                    }
                )
                for shard in content["shards"]
            )
            manifest = cls(content["name"], shards, content["provenance"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} does not have the layout of a dataset's manifest: {error}") from error
        check_disjoint((shard.split, shard.file, shard.identities) for shard in shards)
        return manifest

    def damaged(self, folder: str | os.PathLike[str], *, content: bool = True) -> dict[ShardEntry, str]:
        """The shards that have to be made again, and why: missing, cut short, changed, or not the ones listed.

        Args:
            folder: of the dataset.
            content: False compares lengths only, without reading the files.
        """
        found = {}
        for shard in self.shards:
            path = Path(folder) / shard.file
            try:
                size, digest = container.check(path, KIND, FORMAT, content=content)
            except InputError as error:
                found[shard] = str(error)
                continue
            if (size, digest) != (shard.bytes, shard.sha256):
                found[shard] = f"{path} is not the file that the manifest lists: its content differs"
        return found


def split_order(split: str) -> tuple[int, str]:
    """Sorts train, valid, test, then others by name."""
    return (FIRST_SPLITS.index(split) if split in FIRST_SPLITS else len(FIRST_SPLITS), split)


Place = tuple[str, str, int]
"""Split, file, and number of a sample in it."""


def check_disjoint(files: Iterable[tuple[str, str, Iterable[str]]]) -> None:
    """Refuse a sample that stands in two splits.

    Args:
        files: split and name of each file with the identities of its samples.

    Raises:
        InputError: naming both places.
    """
    crossing = [pair for pair in duplicates(files) if pair[0][0] != pair[1][0]]
    if crossing:
        one, other = crossing[0]
        raise InputError(
            f"splits must not overlap, but sample {other[2]} of {other[1]} ({other[0]}) has the inputs of sample "
            f"{one[2]} of {one[1]} ({one[0]})" + (f"; and {len(crossing) - 1} more" if len(crossing) > 1 else "")
        )


def duplicates(files: Iterable[tuple[str, str, Iterable[str]]]) -> list[tuple[Place, Place]]:
    """Pairs of places where the same sample stands: the first one and a later one, in another split if there is one."""
    seen: dict[str, list[Place]] = {}
    found = []
    for split, file, identities in files:
        for number, identity in enumerate(identities):
            here = (split, file, number)
            before = seen.setdefault(identity, [])
            if before:
                found.append((next((place for place in before if place[0] != split), before[0]), here))
            before.append(here)
    return found


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
