"""The commands `sciml data ...`. Each loads what it needs when it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command_options import ListRecipes, Quiet, RecipeName, chosen_recipe
from .failures import failures

if TYPE_CHECKING:
    from sciml.datasets.formats import Reading
    from sciml.datasets.generation import Progress

data = typer.Typer(
    help="Make datasets from recipes, read those of other programs, describe and check them.", no_args_is_help=True
)

_LINE_EVERY = 5.0  # seconds between two plain lines

# What can be said of a file of another program.
_Field = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME=ARRAY", help="An array to take; repeat it.", show_default=False),
]
_Axes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=AXIS,...",
        help="What the axes of a field are: sample, time, x, y, z, component, channel, - (of length 1); repeat it.",
        show_default=False,
    ),
]
_Inputs = Annotated[str | None, typer.Option(metavar="NAME,...", help="Input fields.", show_default=False)]
_Outputs = Annotated[str | None, typer.Option(metavar="NAME,...", help="Output fields.", show_default=False)]
_Boundary = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[SIDE=]KIND[:VALUE]",
        help="periodic, dirichlet or neumann, of all sides or one: x, y_upper, ...; repeat it.",
        show_default=False,
    ),
]
_Points = Annotated[
    str | None,
    typer.Option(help="cells, or nodes if the outermost values stand on the boundary.", show_default=False),
]
_Lower = Annotated[str | None, typer.Option(metavar="X,...", help="Corner of the domain.", show_default=False)]
_Upper = Annotated[str | None, typer.Option(metavar="X,...", help="Corner of the domain.", show_default=False)]
_Times = Annotated[str | None, typer.Option(metavar="T,...", help="Of evolving fields.", show_default=False)]
_Name = Annotated[str | None, typer.Option(help="Of the dataset.", show_default=False)]
_Equation = Annotated[str | None, typer.Option(help="That the fields satisfy, as text.", show_default=False)]


@data.command()
def generate(
    recipe: RecipeName = None,
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
    list_: ListRecipes = False,
    quiet: Quiet = False,
) -> None:
    """Make a dataset, or what is missing of it: the same command goes on where an earlier one was ended."""
    with failures():
        from sciml.datasets.generation import generate as make
        from sciml.datasets.recipe import load_recipe, shipped_recipes

        name = chosen_recipe(recipe, list_, shipped_recipes)
        given = {"train": train, "valid": valid, "test": test}
        made = load_recipe(name, sizes={split: number for split, number in given.items() if number is not None})
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


@data.command("import")
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A file or folder of The Well, PDEBench, MATLAB, NumPy or safetensors; or train=FILE test=FILE.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the dataset; must be new or empty.", show_default=False)],
    split: Annotated[
        str | None,
        typer.Option(metavar="N/N/N", help="Samples for train/valid/test, one after the other.", show_default=False),
    ] = None,
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Draw them instead.", show_default=False)] = None,
    field: _Field = None,
    axes: _Axes = None,
    inputs: _Inputs = None,
    outputs: _Outputs = None,
    boundary: _Boundary = None,
    points: _Points = None,
    to_cells: Annotated[
        bool, typer.Option("--to-cells", help="Replace values at nodes by means over the cells between them.")
    ] = False,
    lower: _Lower = None,
    upper: _Upper = None,
    times: _Times = None,
    name: _Name = None,
    equation: _Equation = None,
    double: Annotated[bool, typer.Option("--double", help="Store float64 in place of float32.")] = False,
    quiet: Quiet = False,
) -> None:
    """Read a dataset of another program, check it, and write it as ours: what the file says itself need not be said."""
    with failures():
        import torch

        from sciml.datasets.formats import options, read
        from sciml.datasets.importing import import_dataset

        reading = _reading(field, axes, inputs, outputs, points, boundary, lower, upper, times, name, equation)
        single = len(sources) == 1 and (Path(sources[0]).exists() or "=" not in sources[0])
        given = (
            read(Path(sources[0]), reading)
            if single
            else {key: read(Path(path), reading) for key, path in options.read_pairs(sources, "SOURCE").items()}
        )
        counts = options.read_split(split)
        whole = sum(map(len, given.values())) if isinstance(given, dict) else len(given)
        with _progress(sum(counts.values()) if counts else whole, quiet) as show:
            manifest = import_dataset(
                given,
                output,
                counts,
                shuffle=shuffle,
                to_cells=to_cells,
                dtype=torch.float64 if double else torch.float32,
                progress=lambda done, total: show(done, total, "written"),
            )
        if not quiet:
            print(
                f"{output}: {sum(shard.samples for shard in manifest.shards)} samples in {len(manifest.shards)} shards"
            )


@data.command()
def info(
    path: Annotated[Path, typer.Argument(help="A dataset, or a file or folder that can be imported.")],
    json: Annotated[Path | None, typer.Option(help="Write all of it to this file.", show_default=False)] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw a few samples to this file.", show_default=False)] = None,
    field: _Field = None,
    axes: _Axes = None,
    inputs: _Inputs = None,
    outputs: _Outputs = None,
    boundary: _Boundary = None,
    points: _Points = None,
    lower: _Lower = None,
    upper: _Upper = None,
    times: _Times = None,
    name: _Name = None,
    equation: _Equation = None,
    quiet: Quiet = False,
) -> None:
    """Describe and check a dataset: shapes, ranges, boundary, checksums, samples in two splits. Exit code 1: a problem.

    Of a dataset with damaged files the rest is described, and the files to be made again are listed.
    """
    with failures():
        from sciml.datasets import info as about
        from sciml.datasets.formats import read

        from .files import target

        for file in (json, picture):
            if file is not None:
                target(file)
        reading = _reading(field, axes, inputs, outputs, points, boundary, lower, upper, times, name, equation)
        dataset = read(path, reading, damaged="skip")
        facts = about.examine(dataset, path)
        if json is not None:
            about.write(facts, json)
        if picture is not None:
            about.picture(dataset, picture)
        if not quiet:
            about.show(facts)
        if facts["problems"]:
            raise typer.Exit(1)


def _reading(
    field: list[str] | None,
    axes: list[str] | None,
    inputs: str | None,
    outputs: str | None,
    points: str | None,
    boundary: list[str] | None,
    lower: str | None,
    upper: str | None,
    times: str | None,
    name: str | None,
    equation: str | None,
) -> Reading:
    """What the options say of a file."""
    from sciml.datasets.formats import Reading, options

    from .equations import Equation

    return Reading(
        options.read_pairs(field or (), "--field"),
        {key: options.read_words(text) for key, text in options.read_pairs(axes or (), "--axes").items()},
        options.read_words(inputs),
        options.read_words(outputs),
        points,  # type: ignore[arg-type] # what is neither is refused there
        options.read_boundary(boundary or ()),
        options.read_numbers(lower, "--lower"),
        options.read_numbers(upper, "--upper"),
        options.read_numbers(times, "--times"),
        name,
        None if equation is None else Equation(equation),
    )


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
