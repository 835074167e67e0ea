"""What outlasts a run: datasets, and the parts of a long case until it is complete, in the user's folder of caches."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sciml import operators
from sciml.datasets import generate, load_recipe

from ... import training
from ...files import write_whole
from ..bench import version_of

Result = dict[str, Any]


def folder() -> Path:
    """Where everything here is kept; it may be removed at any time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return cache / "sciml" / "bench-operators"


def dataset(recipe: str, points: int, sizes: Mapping[str, int], device: str) -> Path:
    """The folder of a dataset, which is made, or what is missing of it.

    Args:
        recipe: name of a shipped one.
        points: along each axis of the grid that is stored, in place of the recipe's.
        sizes: numbers of samples by split, likewise.
        device: where samples are made.
    """
    shipped = load_recipe(recipe, sizes=sizes)
    content = json.loads(json.dumps(shipped.content))
    content["domain"]["shape"] = [points * shipped.coarsen] * shipped.grid.dimension
    digest = _digest(content, device, torch.__version__)
    place = folder() / f"{recipe}-{digest}"
    generate(load_recipe(content), place, device=device)
    return place


class Parts:
    """Results of the parts of a case, each kept until the whole case is complete.

    A part is known by its order, by the versions of the libraries, and by the programs that it is computed by: parts
    that were measured with others are measured again.

    Args:
        case: name of the folder.
    """

    def __init__(self, case: str) -> None:
        self._folder = folder() / case
        self._programs = _programs()

    def result(self, name: str, order: Mapping[str, Any], measure: Callable[[Mapping[str, Any]], Result]) -> Result:
        """That of a part, from before or measured now."""
        place = self._folder / f"{name}-{_digest(dict(order), self._programs)}.json"
        if place.is_file():
            found: Result = json.loads(place.read_bytes())
            return found
        found = measure(order)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps(found).encode())
        return found

    def complete(self) -> None:
        """Remove what was kept: the next run measures everything anew."""
        for place in self._folder.glob("*.json"):
            place.unlink(missing_ok=True)


def _programs() -> str:
    versions = {library: version_of(library) for library in ("sciml", "torch", "neuraloperator")}
    folders = (Path(__file__).parent, *map(Path, operators.__path__), *map(Path, training.__path__))
    files = sorted(path for place in folders for path in place.rglob("*") if path.suffix in (".py", ".toml"))
    return _digest(versions, sys.version, [hashlib.sha256(path.read_bytes()).hexdigest() for path in files])


def _digest(*items: Any) -> str:
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()[:16]
