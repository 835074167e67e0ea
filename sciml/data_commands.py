"""The commands `sciml data ...`. Each loads what it needs when it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .failures import failures

if TYPE_CHECKING:
    from sciml.datasets.generation import Progress

data = typer.Typer(
    help="Make datasets from recipes, read those of other programs, describe and check them.", no_args_is_help=True
)

_LINE_EVERY = 5.0  # seconds between two plain lines


@data.command()
def generate(
    recipe: Annotated[
        str | None,
        typer.Argument(help="The recipe: a TOML file, or the name of one that is shipped.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the dataset; by default the recipe's name.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that compute.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Scheduler of a Dask cluster whose machines share the folder.", show_default=False
        ),
    ] = None,
    train: Annotated[int | None, typer.Option(min=1, help="Another number of samples.", show_default=False)] = None,
    valid: Annotated[int | None, typer.Option(min=0, help="Another number of samples.", show_default=False)] = None,
    test: Annotated[int | None, typer.Option(min=0, help="Another number of samples.", show_default=False)] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the recipes that are shipped, and leave.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Make a dataset, or what is missing of it: the same command goes on where an earlier one was ended."""
    with failures():
        from sciml.datasets.generation import generate as make
        from sciml.datasets.recipe import load_recipe, shipped_recipes

        if list_:
            for name, description in shipped_recipes().items():
                print(f"{name:28} {description}")
            raise typer.Exit
        if recipe is None:
            raise typer.BadParameter("name a recipe, or ask for a --list of those that are shipped")
        given = {"train": train, "valid": valid, "test": test}
        made = load_recipe(recipe, sizes={split: number for split, number in given.items() if number is not None})
        folder = Path(made.name) if output is None else output
        with _progress(sum(made.sizes.values()), quiet) as show:
            client = None if dask is None else _connected(dask)
            try:
                manifest = make(made, folder, workers=workers, device=device, client=client, progress=show)
            except KeyboardInterrupt as ending:
                print("sciml: interrupted; the same command goes on from here", file=sys.stderr)
                raise typer.Exit(130) from ending
            finally:
                if client is not None:
                    client.close()
        if not quiet:
            sizes = ", ".join(f"{number} {split}" for split, number in made.sizes.items() if number)
            print(f"{folder}: {sizes} in {len(manifest.shards)} shards")


def _connected(address: str) -> Any:
    from .errors import InputError

    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--dask needs the extra: pip install 'sciml-torch[dask]'") from error
    try:
        return Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise InputError(f"--dask {address}: no scheduler answers there ({error})") from error


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal, plain lines now and then elsewhere."""
    if quiet:
        yield lambda done, total, what: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns: tuple[Any, ...] = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("samples", total=total, what="")
            yield lambda done, total, what: shown.update(task, completed=done, what=what)
    else:
        said = [0.0]

        def show(done: int, total: int, what: str) -> None:
            now = time.monotonic()
            if done == total or now >= said[0] + _LINE_EVERY:
                said[0] = now
                print(f"{done} of {total} samples: {what}", file=sys.stderr, flush=True)

        yield show
