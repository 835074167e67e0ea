"""The program `sciml`.

Every command loads what it needs when it runs: `sciml --help` waits for neither torch nor sympy. Exit codes: 0 done,
1 not done (a row did not converge, the disk is full), 2 bad input, said in one message on the error stream; 130 and 143
ended by SIGINT (Ctrl-C) and SIGTERM, what an evolution has reached being written first.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .benchmarks import SUITES, Device, Size
from .data_commands import data
from .errors import InputError
from .evaluate_command import evaluate
from .failures import complain, failures, remarks
from .train_command import train

if TYPE_CHECKING:
    from .problem_file import Problem
    from .solution import Solution

app = typer.Typer(
    name="sciml",
    help="Partial differential equations written as text, solved and learned in PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")
app.command()(train)
app.command()(evaluate)


def main() -> None:
    """Entry point of the program."""
    # Read once, when OpenMP starts, hence before torch is loaded: workers that spin for long slow down
    # a shared machine, and those that do not spin are slow to wake.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sciml {version_of('sciml-torch')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def solve(
    file: Annotated[Path, typer.Argument(help="The problem file (TOML).", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for the results; made if need be.")] = Path("."),
    device: Annotated[str | None, typer.Option(help="cpu or cuda, in place of the file's.", show_default=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Solve a problem file; write solution (.h5), picture (.png), file for ParaView (.vti, .vtu), summary (.json).

    Of an evolving equation the picture shows how it goes in time; .gif, .mp4 and .pvd (a series for ParaView) are
    written if asked for. Ctrl-C ends it: what was reached is written.
    """
    with failures():
        raise typer.Exit(_solve(file, output, device, quiet))


@app.command()
def bench(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...",
            help="All if none is named. " + "; ".join(f"{suite.name}: {suite.summary}" for suite in SUITES),
            show_default=False,
        ),
    ] = None,
    size: Annotated[Size, typer.Option(help="tiny only tries that everything runs.")] = Size.MEDIUM,
    device: Annotated[Device, typer.Option(help="Where the methods of this package run.")] = Device.CPU,
    case: Annotated[
        list[str] | None, typer.Option(help="Only cases whose name contains this text.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write all rows to this file, and pictures beside it.", show_default=False)
    ] = None,
) -> None:
    """Time the methods of this package against other libraries on this machine, and print tables of it."""
    from .benchmarks import program

    with failures():
        program.bench(suites or [], size, device, json, case or [])


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: less than a minute.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for the page; made if need be.")] = Path("sciml-demo"),
) -> None:
    """Solve a tour of equations; write one HTML page that shows it (demo.html), and its numbers (demo.json)."""
    # Those of numpy spin too, which made scipy's conjugate gradients 20 times slower on a machine with other work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with failures():
        from . import tour

        raise typer.Exit(tour.demo(output, quick))


def _solve(file: Path, output: Path, device: str | None, quiet: bool) -> int:
    start = time.perf_counter()
    ended = 0
    with remarks(quiet) as said:
        with _progress(quiet) as step:
            step("reading", file.name)
            from sciml.solvers import linear, nonlinear
            from sciml.solvers.solve import solve as solve_problem
            from sciml.solvers.time.by_name import INTEGRATORS

            from . import problem_file, summary

            methods = {name: getattr(kind, name) for kind in (linear, nonlinear) for name in kind.__all__}
            problem = problem_file.read(file, methods, device, INTEGRATORS)
            if output.exists() and not output.is_dir():
                raise InputError(f"{output} is no folder; give one with --output")
            output.mkdir(parents=True, exist_ok=True)
            step("evolving" if problem.times else "solving", f"{problem.equation}{summary.size_of(problem.domain)}")
            if problem.times is None:
                solution = solve_problem(
                    problem.equation,
                    problem.domain,  # type: ignore[arg-type] # what does not fit is refused there
                    fields=problem.fields,
                    boundary=problem.boundary,
                    scheme=problem.scheme,  # type: ignore[arg-type]
                    method=problem.method,
                    initial=problem.initial,
                    rtol=problem.rtol,
                    atol=problem.atol,
                    throw=False,
                )
        if problem.times is not None:
            solution, ended = _evolve(problem, problem.times, output, quiet)
        with _progress(quiet) as step:
            step("writing", str(output))
            files = _write(problem, solution, output)
            seconds = time.perf_counter() - start
            facts = summary.summarize(problem.path, solution, files, said, seconds, finished=not ended)
            files.append(output / f"{problem.name}.json")
            summary.write(files[-1], facts)
    if not quiet:
        summary.show(facts, files)
    if not bool(solution.converged.all()):
        for status in sorted({status for status in solution.status if status}):
            rows = [str(row) for row, other in enumerate(solution.status) if other == status]
            more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
            advice = status.advice if solution.times is None else status.advice_in_time
            complain(f"row {', '.join(rows[:8])}{more}: {status.name}: {advice}")
        return ended or 1
    return ended


def _evolve(problem: Problem, times: tuple[float, ...], output: Path, quiet: bool) -> tuple[Solution, int]:
    """The solution, or of a run that was ended from outside its beginning, and the exit code then."""
    from sciml.solvers.discretize import discretize
    from sciml.solvers.evolve import evolve

    from . import long_runs

    system = discretize(problem.equation, problem.domain, problem.fields, None, problem.boundary, problem.scheme)
    method = "" if problem.method is None else f"{problem.method.describe()} (as requested)"
    path = output / f"{problem.name}.h5" if "h5" in problem.formats else None
    with long_runs.progress(times, quiet) as show:
        record = long_runs.Record(system, times, method, path, show)
        try:
            with long_runs.orderly_end():
                solution = evolve(
                    system,
                    initial=problem.initial,
                    times=times,
                    method=problem.method,
                    step=problem.step,
                    rtol=problem.rtol,
                    atol=problem.atol,
                    control=problem.control,
                    observer=record,
                    throw=False,
                )
                return solution, 0
        except KeyboardInterrupt as ending:
            code = 143 if isinstance(ending, long_runs.Terminated) else 130
            if not record.values:
                complain("interrupted before anything was computed; nothing is written")
                raise typer.Exit(code) from ending
            solution = record.solution("interrupted")
    complain(solution.notes[-1])
    return solution, code


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """A function that says what is being done now: a spinner on a terminal, plain lines elsewhere."""
    if quiet:
        yield lambda word, detail: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        with Console(stderr=True).status("") as status:
            yield lambda word, detail: status.update(escape(f"{word} {detail}"))
    else:
        yield lambda word, detail: print(f"{word} {detail}", file=sys.stderr, flush=True)


def _write(problem: Problem, solution: Solution, output: Path) -> list[Path]:
    files: list[Path] = []
    for kind in problem.formats:
        path = output / f"{problem.name}.{kind}"
        if kind == "h5":
            solution.save(path)
            files.append(path)
            continue
        try:
            if kind in ("gif", "mp4"):
                solution.plot(path)
                files.append(path)
            elif kind == "png":
                curve = solution.history.get("residual_norm")
                solution.plot(path, history=curve is not None and len(curve) > 2)  # a direct solve has no curve
                files.append(path)
            else:
                from . import paraview

                written = paraview.write(solution, path)
                # Of a series the files of the times stand in a folder of its name.
                files.extend(part for part in written if solution.times is None or part.suffix == ".pvd")
        except InputError as error:  # a solve that failed may leave nothing to draw; the other files are still due
            complain(f"no {path.name}: {error}")
    return files
