"""The command `sciml train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a training in the folder ended; begin if there is none.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ..., in place of the file's.", show_default=False)
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out files of the dataset that are damaged.")
    ] = False,
    list_: ListRecipes = False,
    quiet: Quiet = False,
) -> None:
    """Train an operator on a dataset, the network of a preconditioner, or a neural differential equation on a task.

    The folder gets the operator or the weights, checkpoints, a log, and pictures of how it went.

    Ctrl-C ends it after the running step, with a checkpoint from which --resume goes on to the same last bit.
    """
    with failures():
        from sciml.operators import recipe as of_operators
        from sciml.solvers.linear.learned import recipe as of_preconditioners
        from sciml.solvers.neural_de.tasks import recipe as of_tasks

        def shipped() -> dict[str, str]:
            return {
                **of_operators.shipped_recipes(),
                **of_preconditioners.shipped_recipes(),
                **of_tasks.shipped_recipes(),
            }

        name = chosen_recipe(recipe, list_, shipped)
        if not Path(name).is_file() and name not in shipped():
            from .recipe_files import unknown_recipe

            raise unknown_recipe(name, shipped())
        if of_preconditioners.is_recipe(name):
            _refuse(data, skip_damaged, f"{name} is about a preconditioner, whose problems are made as they are needed")
            return _train(of_preconditioners.load_recipe(name), output, resume, device, quiet)
        if of_tasks.is_recipe(name):
            task = of_tasks.load_recipe(name)
            if not hasattr(task.problem, "folder"):
                _refuse(data, skip_damaged, f"{name} is about a task whose data are made, or come with a library")
            _refuse(None, skip_damaged, f"{name} is about a task, of whose files none may be damaged")
            return _train(task if data is None else task.with_changes(folder=str(data)), output, resume, device, quiet)

        from sciml import datasets
        from sciml.operators import train_operator

        from .training import first_process

        made = of_operators.load_recipe(name)
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


class _Trained(Protocol):
    """What a training left behind."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know besides."""

    @property
    def usage(self) -> str:
        """The line that loads it."""

    def lines(self) -> list[str]:
        """What to tell of it."""


class _Recipe(Protocol):
    """What trains itself."""

    @property
    def name(self) -> str:
        """That of the folder, where no other is given."""

    def train(
        self, folder: Path, *, resume: bool = False, device: str | None = None, progress: bool = False
    ) -> _Trained:
        """Train, and write everything into the folder."""


def _train(made: _Recipe, output: Path | None, resume: bool, device: str | None, quiet: bool) -> None:
    folder = Path(made.name) if output is None else output
    with _ends(), remarks(quiet) as said:
        done = made.train(folder, resume=resume, device=device, progress=not quiet)
    if quiet:
        return
    print("\n".join(done.lines()))
    for note in done.notes:
        if note not in said:
            complain(f"note: {note}")
    print(f"folder {folder}")
    print(f"use it by: {done.usage}")


def _refuse(data: Path | None, skip_damaged: bool, why: str) -> None:
    """Options that are about datasets only."""
    given = "--data" if data is not None else "--skip-damaged" if skip_damaged else ""
    if given:
        raise InputError(f"{why}: there is no {given}")


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
