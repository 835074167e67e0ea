"""A dataset written as ours: in shards of The Well's layout, with splits that do not overlap and a manifest."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.grid import Grid

from .dataset import Dataset, check_same
from .description import Description, common_parameters
from .manifest import FIRST_SPLITS, Manifest, ShardEntry, check_disjoint, shard_file
from .shard import varies, write_shard

_SHARD = 128 << 20  # bytes


def import_dataset(
    source: Dataset | Mapping[str, Dataset],
    folder: str | os.PathLike[str],
    counts: Mapping[str, int] | None = None,
    *,
    shuffle: int | None = None,
    to_cells: bool = False,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = _SHARD,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write a dataset as ours into an empty folder.

    Args:
        source: what to write, as `sciml.datasets.read` found it; or one for every split.
        folder: made if need be; nothing may stand in it.
        counts: samples by split, taken one after the other; None keeps the splits of the source, and makes all
            "train" where it has none.
        shuffle: seed by which samples are drawn into the splits; None takes them in their order.
        to_cells: where values stand on the boundary ("nodes"), replace them by their means over the cells between
            them, which is of second order and moves jumps by half a cell.
        dtype: in which values are stored.
        shard_bytes: about the length of a file.
        progress: called with the samples written so far and all of them.

    Raises:
        InputError: the folder is not empty, counts do not fit, values are NaN or infinite, or a sample stands in two
            splits.
        OSError: the disk is full or not writable.
    """
    target = Path(os.path.abspath(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not an empty folder; a dataset is written into one of its own")
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"values are stored in float32 or float64, got {dtype}")
    chosen = _common(_choose(source, counts, shuffle))
    parts = [(split, dataset, rows) for split, (dataset, rows) in chosen.items()]
    check_disjoint(
        (split, f"split {split}", [dataset.identities[int(row)] for row in rows]) for split, dataset, rows in parts
    )
    name = parts[0][1].name
    total, done = sum(len(rows) for _, _, rows in parts), 0
    entries: list[ShardEntry] = []
    with _becoming(target) as work:
        for split, dataset, rows in parts:
            description = dataset.description
            converted = _to_cells(description) if to_cells and description.points == "nodes" else description
            size = max(1, shard_bytes // max(1, _sample_bytes(converted, dtype)))
            for number, chunk in enumerate(rows.split(size)):
                values, parameters = _values(dataset, chunk, dtype)
                if converted is not description:
                    values = {name: _average(value, description.grid) for name, value in values.items()}
                entries.append(write_shard(work, split, number, converted, values, parameters))
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        manifest = Manifest(name, tuple(entries), _provenance(chosen, counts, shuffle, to_cells))
        manifest.write(work)
    return manifest


@contextmanager
def _becoming(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, which takes its place at the end; what a killed process left of one goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name[:200]}.part")
    work.mkdir(exist_ok=True)
    held = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = work.exists() and os.path.samestat(os.fstat(held), work.stat())
        except BlockingIOError:
            there = False
        if not there:
            raise InputError(f"{target} is being written by another process")
        try:
            for remains in work.iterdir():
                shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
            yield work
            os.rename(work, target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    finally:
        os.close(held)


def _choose(
    source: Dataset | Mapping[str, Dataset], counts: Mapping[str, int] | None, shuffle: int | None
) -> dict[str, tuple[Dataset, Tensor]]:
    """The dataset and its samples for each split."""
    if isinstance(source, Mapping):
        if counts is not None:
            raise InputError("splits are given by files or by counts, not both")
        whole = {split: (dataset, torch.arange(len(dataset))) for split, dataset in source.items()}
    elif counts is None and source.splits:
        parts = {split: source.split(split) for split in source.splits}
        whole = {split: (dataset, torch.arange(len(dataset))) for split, dataset in parts.items()}
    else:
        counts = {FIRST_SPLITS[0]: len(source)} if counts is None else counts
        if any(count < 1 for count in counts.values()) or sum(counts.values()) > len(source):
            listed = ", ".join(f"{split} {count}" for split, count in counts.items())
            raise InputError(f"splits of {listed} do not fit a source of {len(source)} samples")
        order = torch.arange(len(source))
        if shuffle is not None:
            order = torch.randperm(len(source), generator=torch.Generator().manual_seed(shuffle))
        pieces = order[: sum(counts.values())].split(list(counts.values()))
        return {split: (source, piece) for split, piece in zip(counts, pieces, strict=True)}
    for split, (dataset, rows) in whole.items():
        shard_file(split, 0)
        if not len(dataset):
            raise InputError(f"split {split!r} has no samples")
        if shuffle is not None:
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(shuffle))
            whole[split] = (dataset, rows[order])
    return whole


def _common(chosen: Mapping[str, tuple[Dataset, Tensor]]) -> dict[str, tuple[Dataset, Tensor]]:
    """The same as splits of one dataset: parameters that differ between them become numbers of the samples."""
    same, others = common_parameters([dataset.description.parameters for dataset, _ in chosen.values()])
    (first_split, (first, _)), found = next(iter(chosen.items())), {}
    for (split, (dataset, rows)), numbers in zip(chosen.items(), others, strict=True):
        described = replace(dataset.description, name=first.name, parameters=same)
        parts = [part.with_parameters(numbers) for part in dataset.parts]
        found[split] = Dataset(described, parts), rows
        where = f"the splits {first_split!r} and {split!r}"
        check_same(found[first_split][0].description, described, where)
        names = [sorted({*same, *one.parts[0].parameters}) for one, _ in (found[first_split], found[split])]
        if names[0] != names[1]:
            raise InputError(f"{where} have different parameters: {names[0]} and {names[1]}")
    return found


def _values(dataset: Dataset, rows: Tensor, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    values: dict[str, Tensor] = {}
    for name in dataset.fields:
        one_for_all = not varies(dataset.description, name)
        found = dataset.read(name, rows[:1] if one_for_all else rows).to(dtype)
        bad = ~found.isfinite().reshape(len(found), -1)
        if bool(bad.any()):
            first = int(rows[int(bad.any(1).int().argmax())])
            raise InputError(
                f"dataset {dataset.name!r}: {int(bad.sum())} values of {name!r} are NaN or infinite in {dtype}, first "
                f"in sample {first} ({dataset.part_of(first).file})"
            )
        values[name] = found[0] if one_for_all else found
    return values, {name: dataset.read(name, rows) for name in dataset.parts[0].parameters}


def _sample_bytes(description: Description, dtype: torch.dtype) -> int:
    shapes = [description.shape(name, 1) for name in description.fields if varies(description, name)]
    return sum(int(np.prod(shape)) for shape in shapes) * dtype.itemsize


def _to_cells(description: Description) -> Description:
    note = "values at nodes were replaced by their means over the cells between them"
    return replace(description, points="cells", notes=(*description.notes, note))


def _average(values: Tensor, grid: Grid) -> Tensor:
    for place, wraps in enumerate(grid.periodic):
        if not wraps:
            along = place - grid.dimension
            n = values.shape[along] - 1
            values = (values.narrow(along, 0, n) + values.narrow(along, 1, n)) / 2
    return values


def _provenance(
    chosen: Mapping[str, tuple[Dataset, Tensor]], counts: Mapping[str, int] | None, shuffle: int | None, to_cells: bool
) -> dict[str, Any]:
    sources = {(part.file, part.digest): None for dataset, _ in chosen.values() for part in dataset.parts}
    return {
        "imported": [{"file": Path(file).name, "sha256": digest or _digest(Path(file))} for file, digest in sources],
        "splits": None if counts is None else dict(counts),
        "shuffle": shuffle,
        "to_cells": to_cells,
        "versions": {"sciml": version_of("sciml-torch")},
    }


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
