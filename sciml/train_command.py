"""The command `sciml train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .command_options import ListRecipes, Quiet, RecipeName, chosen_recipe
from .errors import InputError
from .failures import complain, failures, remarks


def train(
    recipe: RecipeName = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the dataset, in place of the recipe's.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for what is made; by default the recipe's name.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a training in the folder ended.")] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ..., in place of the file's.", show_default=False)
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out files of the dataset that are damaged.")
    ] = False,
    list_: ListRecipes = False,
    quiet: Quiet = False,
) -> None:
    """Train an operator on a dataset, or the network of a preconditioner on problems that are made as they are needed.

    The folder gets the operator or the weights, checkpoints, a log, and a picture of the losses.

    Ctrl-C ends it after the running step, with a checkpoint from which --resume goes on to the same last bit.
    """
    with failures():
        from sciml.operators.recipe import load_recipe
        from sciml.operators.recipe import shipped_recipes as recipes_of_operators
        from sciml.solvers.linear.learned.recipe import is_recipe
        from sciml.solvers.linear.learned.recipe import shipped_recipes as recipes_of_preconditioners

        def shipped() -> dict[str, str]:
            return {**recipes_of_operators(), **recipes_of_preconditioners()}

        name = chosen_recipe(recipe, list_, shipped)
        if not Path(name).is_file() and name not in shipped():
            from .boundary import suggestion

            raise InputError(f"there is no file {name!r}, and no recipe of this name{suggestion(name, shipped())}")
        if is_recipe(name):
            if data is not None or skip_damaged:
                raise InputError(
                    f"{name} is about a preconditioner, whose problems are made as they are needed: there is no "
                    f"{'--data' if data is not None else '--skip-damaged'}"
                )
            return _train_preconditioner(name, output, resume, device, quiet)

        from sciml import datasets
        from sciml.operators import train_operator

        from .training import first_process

        made = load_recipe(name)
        # All must agree on what is left out; else one process checks the files for all.
        dataset = datasets.open(
            _folder(made.folder if data is None else data),
            damaged="skip" if skip_damaged else "refuse",
            verify=skip_damaged or first_process(),
        )
        for why in dataset.damaged.values():
            complain(f"left out: {why}")
        network = made.make_network(dataset)
        kind = type(network).__name__  # which sharding changes
        options = {**made.options, **({} if device is None else {"device": device})}
        with _ends(), remarks(quiet or not first_process()) as said:
            operator, training = train_operator(
                network,
                dataset,
                made.plan,
                loss=made.make_loss(dataset),
                inputs=made.inputs,
                outputs=made.outputs,
                steps=made.steps,
                logarithm=made.logarithm,
                coordinates=made.coordinates,
                mirrored=made.mirrored,
                exchanged=made.exchanged,
                folder=Path(made.name) if output is None else output,
                resume=resume,
                progress=not quiet,
                **options,
            )
        if training.first and not quiet:
            count = sum(parameter.numel() for parameter in operator.network.parameters())
            print(
                f"{kind} of {count:,} parameters, {training.steps:,} steps in {training.seconds:.0f} s: {training.why}"
            )
            validation = operator.origin["validation"]
            for norm in ("L2", "H1"):
                if validation.get(norm) is not None:
                    print(f"{norm:4} {100 * validation[norm]:.3f} %, the mean over the validation samples")
            for note in training.notes:
                if note not in said:
                    complain(f"note: {note}")
            print(f"folder {training.folder}")


def _train_preconditioner(name: str, output: Path | None, resume: bool, device: str | None, quiet: bool) -> None:
    from sciml.solvers.linear.learned.recipe import load_recipe

    made = load_recipe(name)
    folder = Path(made.name) if output is None else output
    with _ends(), remarks(quiet) as said:
        done = made.train(folder, resume=resume, device=device, progress=not quiet)
    if quiet:
        return
    print(f"{made.kind} of {done.parameters:,} parameters, {done.steps:,} steps in {done.seconds:.0f} s: {done.why}")
    print(f"loss {done.loss:.4g}, the mean over the validation samples")
    for note in done.notes:
        if note not in said:
            complain(f"note: {note}")
    print(f"folder {folder}")
    print(f"use it by: {done.usage}")


@contextmanager
def _ends() -> Iterator[None]:
    """What a training that failed or was interrupted says, and its exit status."""
    from .long_runs import Terminated
    from .training import TrainingError

    try:
        yield
    except TrainingError as error:
        complain(str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as ending:
        complain(f"{ending}; --resume goes on from here")
        raise typer.Exit(143 if isinstance(ending, Terminated) else 130) from ending


def _folder(path: str | Path) -> Path:
    """The dataset, or how to get it."""
    from sciml.datasets.recipe import shipped_recipes

    folder = Path(path)
    if not folder.exists() and folder.name in shipped_recipes():
        raise InputError(
            f"there is no dataset {folder}; make it by: sciml data generate {folder.name} --output {folder}"
        )
    return folder
