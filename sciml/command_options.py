"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

RecipeName = Annotated[
    str | None,
    typer.Argument(help="The recipe: a TOML file, or the name of one that is shipped.", show_default=False),
]
ListRecipes = Annotated[bool, typer.Option("--list", help="Print the recipes that are shipped, and leave.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def chosen_recipe(name: str | None, listed: bool, shipped: Callable[[], Mapping[str, str]]) -> str:
    """The recipe that was named.

    Args:
        name: as given.
        listed: whether the list is asked for in its place; it is printed, and the command ends.
        shipped: returns name -> what it makes.

    Raises:
        typer.BadParameter: none was named.
    """
    if listed:
        for known, description in shipped().items():
            print(f"{known:28} {description}")
        raise typer.Exit
    if name is None:
        raise typer.BadParameter("name a recipe, or ask for a --list of those that are shipped")
    return name
