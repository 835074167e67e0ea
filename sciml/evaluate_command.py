"""The command `sciml evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command_options import Quiet
from .failures import complain, failures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciml.datasets import Dataset
    from sciml.operators.report import Report


def evaluate(
    operator: Annotated[Path, typer.Argument(help="Folder of a trained operator, or of its training.")],
    data: Annotated[Path, typer.Option(help="Folder of a dataset.", show_default=False)],
    split: Annotated[str, typer.Option(help="Of the dataset; of one without splits all is taken.")] = "test",
    output: Annotated[Path, typer.Option(help="Folder for the results; made if need be.")] = Path("evaluation"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; the solver runs there too.")] = "cpu",
    samples: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many samples.", show_default=False)
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure an operator on a dataset: errors, spectra, going on in time, and its time against that of the solver.

    Writes evaluation.json and pictures: cases.png (the worst two samples and the median one), spectra.png, and
    rollout.png of an operator in time. Exit code 1: an answer is NaN or infinite.
    """
    with failures():
        import torch

        from sciml.datasets import open as open_dataset
        from sciml.operators import load
        from sciml.operators.evaluation import evaluate as measure

        from .errors import InputError
        from .files import write_whole

        if output.exists() and not output.is_dir():
            raise InputError(f"{output} is no folder; give one with --output")
        try:
            place = torch.device(device)
            trained = load(operator, place)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error
        dataset = open_dataset(data)
        scheme, fields = _of_recipe(dataset)
        report = measure(
            trained, dataset, split=split if dataset.splits else None, samples=samples, scheme=scheme, fields=fields
        )
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / "evaluation.json", report.to_json().encode())
        files = ["evaluation.json", *_draw(report, output)]
        if not quiet:
            from rich.console import Console

            console = Console()
            console.print(report)
            console.print(f"{output}: {', '.join(files)}", highlight=False)
        if report.not_finite:
            complain(
                f"answers for {len(report.not_finite)} samples are NaN or infinite; the first is {report.not_finite[0]}"
            )
            raise typer.Exit(1)


def _of_recipe(dataset: Dataset) -> tuple[Any, dict[str, Any]]:
    """What the solver needs and the dataset does not hold: the scheme, and fields that are the same for all samples."""
    from sciml.datasets import load_recipe

    from .errors import InputError

    content = dataset.provenance.get("recipe")
    if not isinstance(content, dict):
        return None, {}
    try:
        recipe = load_recipe(content)
    except InputError as error:  # of another version
        complain(f"note: how the dataset was solved cannot be read, the solver's defaults are taken: {error}")
        return None, {}
    known = {**dataset.fields, **dataset.parameters}
    fields = {
        name: item.sample(dataset.grid, [0])[0]
        for name, item in recipe.fields.items()
        if name not in known and not item.random
    }
    return recipe.scheme, fields


def _draw(report: Report, folder: Path) -> list[str]:
    """The pictures there are, by name."""
    from sciml.operators import pictures

    from .errors import InputError
    from .pictures import write

    wanted: dict[str, Callable[[Report], Figure]] = {
        "cases.png": pictures.draw_cases,
        "spectra.png": pictures.draw_spectra,
    }
    if report.rollout is not None:
        wanted["rollout.png"] = pictures.draw_rollout
    written = []
    for name, draw in wanted.items():
        try:
            write(draw(report), folder / name)
        except InputError as error:
            complain(f"no {name}: {error}")
        else:
            written.append(name)
    return written
