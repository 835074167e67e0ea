"""Makes a dataset from a recipe, shard by shard, and takes up what was begun before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.errors import InputError
from sciml.files import alone_in, write_whole

from .environment import devices_of, environment
from .making import Task, redrawn_file, tasks
from .manifest import NAME, Manifest, ShardEntry
from .recipe import Recipe, load_recipe
from .shard import inspect_shard
from .workers import Outcome, environment_on_dask, in_processes, make_here, on_dask

if TYPE_CHECKING:
    from distributed import Client

STATE = "generation.json"

Progress = Callable[[int, int, str], None]
"""Told of what was done: samples there are, samples in all, and in words."""


def generate(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    workers: int = 1,
    device: str = "cpu",
    client: Client | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Make a dataset, or what is missing of it.

    The folder may hold a part of the same dataset, from a run that was ended in whatever way, or shards that were
    damaged since: only what is missing or damaged is made. Shards have the same bytes for any number of workers, on
    one kind of processor and with one version of torch.

    Args:
        recipe: or its name, path or content, see `load_recipe`.
        folder: for the dataset, made if need be.
        workers: processes on this machine, each with the recipe's number of threads. 0 computes in this process, with
            its environment, which can change last bits where other libraries than torch use several threads.
        device: where they compute: "cpu", "cuda" (processes take turns at the devices there are), "cuda:1", ... On a
            GPU several processes are worth while: it solves for one while others draw numbers and write files.
        client: of a Dask cluster, whose machines see `folder` by the same path; then `workers` is without meaning.
        progress: told of every shard.

    Returns:
        The manifest, which is also written, last of all.

    Raises:
        InputError: the folder holds something else, a recipe is wrong, or a sample could not be made.
        OSError: the disk is full; what there is stays valid. ChildProcessError: a process died.
    """
    made = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if not isinstance(workers, int) or workers < 0:
        raise InputError(f"workers is a number of processes, or 0 for none, got {workers!r}")
    place = Path(folder)
    devices = devices_of(device) if client is None else [device]
    here = environment(made, devices[0]) if client is None else environment_on_dask(made, client, device)
    _enter(place)
    with alone_in(place, "making a dataset"):
        state = _begin(made, place, here)
        make = partial(_outcomes, made, place, workers, devices, client)
        return _go_on(made, place, state, make, progress or (lambda done, total, what: None))


def _go_on(
    recipe: Recipe,
    folder: Path,
    state: Mapping[str, Any],
    make: Callable[[Sequence[Task]], Generator[Outcome, None, None]],
    say: Progress,
) -> Manifest:
    """Make what is missing of a dataset."""
    everything = tasks(recipe)
    total = sum(task.count for task in everything)
    entries, damaged = _present(everything, folder)
    done = sum(entry.samples for entry in entries.values())
    for task, why in damaged.items():
        say(done, total, f"{task.split} shard {task.number} is made again: {why}")
    if entries:
        say(done, total, f"{len(entries)} of {len(everything)} shards are there")
    missing = [task for task in everything if task not in entries]
    if not missing and (folder / NAME).is_file() and not damaged:
        return Manifest.read(folder)
    _remember(folder, state)
    failures: list[Exception] = []
    with closing(make(missing)) as outcomes:
        for task, outcome in outcomes:
            if isinstance(outcome, Exception):
                failures.append(outcome)
                continue
            entries[task] = outcome
            done += outcome.samples
            say(done, total, f"{outcome.file} with {outcome.samples} samples")
    if failures:
        raise _failure(failures, folder, len(entries), len(everything))
    _remove_remains(folder)
    provenance = {**state, "redrawn": _redrawn(everything, folder)}
    manifest = Manifest(recipe.name, tuple(entries[task] for task in everything), provenance)
    manifest.write(folder)
    return manifest


def _outcomes(
    recipe: Recipe,
    folder: Path,
    workers: int,
    devices: Sequence[str],
    client: Client | None,
    missing: Sequence[Task],
) -> Generator[Outcome, None, None]:
    if client is not None:
        yield from on_dask(recipe, missing, folder, client, devices[0])
    elif workers:
        yield from in_processes(recipe, missing, folder, workers, devices)
    else:
        for task in missing:
            try:
                yield task, make_here(recipe, task, folder, devices[0])
            except (InputError, OSError) as error:
                yield task, error
                return


# What a folder holds


_LEFT = (".lock", ".part")  # ends of the names of what a run leaves that was killed before it wrote anything


def _enter(folder: Path) -> None:
    """Make the folder if need be; one that holds other things than a dataset is refused, and nothing put into it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / STATE).is_file() and any(not item.name.endswith(_LEFT) for item in folder.iterdir()):
        raise InputError(f"{folder} is not empty, and no dataset was begun in it; give another folder")


def _begin(recipe: Recipe, folder: Path, here: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe and the environments of all runs, this one's among them; the folder of another dataset is refused."""
    state: dict[str, Any] = {"recipe": json.loads(json.dumps(recipe.content)), "environments": []}
    path = folder / STATE
    if path.is_file():
        try:
            before = json.loads(path.read_bytes())
            other, environments = before["recipe"], list(before["environments"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is damaged; remove the folder, or give another one") from error
        if other != state["recipe"]:
            where = ", ".join(_differences(other, state["recipe"]))
            raise InputError(
                f"{folder} holds a dataset of another recipe (they differ in {where}); give another folder"
            )
        state["environments"] = environments
    if here not in state["environments"]:
        state["environments"].append(here)
    return state


def _differences(one: Any, other: Any, place: str = "") -> list[str]:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [place]
    found = [_differences(one.get(key), other.get(key), f"{place}.{key}" if place else key) for key in {**one, **other}]
    return [item for part in found for item in part]


def _remember(folder: Path, state: Mapping[str, Any]) -> None:
    text = json.dumps(state, indent=1) + "\n"
    path = folder / STATE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text.encode())


def _present(everything: Sequence[Task], folder: Path) -> tuple[dict[Task, ShardEntry], dict[Task, str]]:
    """Shards that are there whole, and why others have to be made again."""
    listed: dict[str, ShardEntry] = {}
    if (folder / NAME).is_file():
        try:
            listed = {entry.file: entry for entry in Manifest.read(folder).shards}
        except InputError:
            (folder / NAME).unlink()  # it is made anew from what the shards say
    entries: dict[Task, ShardEntry] = {}
    damaged: dict[Task, str] = {}
    for task in everything:
        try:
            entry = inspect_shard(folder, task.split, task.number)
        except InputError as error:
            damaged[task] = str(error)
            continue
        if entry is None:
            continue
        if entry.samples != task.count or listed.get(entry.file, entry) != entry:
            damaged[task] = f"{entry.file} is not the file that was written"
        else:
            entries[task] = entry
    return entries, damaged


def _redrawn(everything: Sequence[Task], folder: Path) -> dict[str, dict[str, int]]:
    """By split: number of a sample -> how often it was drawn anew."""
    found: dict[str, dict[str, int]] = {}
    for task in everything:
        path = redrawn_file(folder, task)
        if path.is_file():
            found.setdefault(task.split, {}).update(json.loads(path.read_bytes()))
    return found


def _remove_remains(folder: Path) -> None:
    """Files that a killed process had begun to write."""
    for path in folder.glob("**/.*.part"):
        path.unlink(missing_ok=True)


def _failure(failures: Sequence[Exception], folder: Path, done: int, count: int) -> Exception:
    """What to raise: the first failure, and what is to be done about it."""
    first = failures[0]
    if not isinstance(first, OSError):
        return first
    more = f" ({len(failures) - 1} more failed)" if len(failures) > 1 else ""
    rest = f"{done} of {count} shards are there and stay valid: the same command makes the rest"
    return type(first)(first.errno, f"{first.strerror}{more}; {rest}", first.filename or str(folder))
