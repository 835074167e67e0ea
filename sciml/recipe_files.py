"""Files of recipes: those that users write, and those that come with a package in its folder "recipes"."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from .boundary import suggestion
from .errors import InputError
from .tables import parse


def shipped_files(package: str) -> dict[str, Path]:
    """The recipes that come with a package, such as "sciml.operators": name -> file, sorted by the latter."""
    found = (Path(str(item)) for item in files(package).joinpath("recipes").iterdir())
    return {path.stem: path for path in sorted(found) if path.suffix == ".toml"}


def described(package: str) -> dict[str, str]:
    """The recipes that come with a package: name -> the "description" in the file."""
    return {name: str(parse(path).get("description", "")) for name, path in shipped_files(package).items()}


def read_recipe(source: str | os.PathLike[str], package: str) -> tuple[Path, dict[str, Any]]:
    """Find a recipe and read its tables, not checked yet.

    Args:
        source: the path of a TOML file, or else the name of a recipe that comes with the package.
        package: see `shipped_files`.

    Returns:
        The file, and what it holds.

    Raises:
        InputError: there is neither, or the file cannot be read or is not TOML.
    """
    path = Path(source)
    if not path.is_file():
        shipped = shipped_files(package)
        if str(source) not in shipped:
            raise unknown_recipe(str(source), shipped)
        path = shipped[str(source)]
    return path, parse(path)


def unknown_recipe(source: str, known: Iterable[str]) -> InputError:
    """What to raise where something is neither a file nor one of the recipes that are known."""
    return InputError(f"there is no file {source!r}, and no recipe of this name{suggestion(source, known)}")
