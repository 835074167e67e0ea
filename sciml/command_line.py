"""The program `sciml`.

Every command loads what it needs when it runs: `sciml --help` waits for neither torch nor sympy. Exit codes: 0 done,
1 not done (a row did not converge, the disk is full), 2 bad input, said in one message on the error stream.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .benchmarks import SUITES, Device, Size
from .errors import InputError

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


def main() -> None:
    """Entry point of the program."""
    # Read once, when OpenMP starts, hence before torch is loaded: workers that spin slow down a shared machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
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
    """Solve a problem file; write solution (.h5), picture (.png), a file for ParaView (.vti) and a summary (.json)."""
    with _failures():
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
    json: Annotated[Path | None, typer.Option(help="Write all rows to this file.", show_default=False)] = None,
) -> None:
    """Time the methods of this package against other libraries on this machine, and print tables of it."""
    from .benchmarks import program

    with _failures():
        program.bench(suites or [], size, device, json, case or [])


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: less than a minute.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for the page; made if need be.")] = Path("sciml-demo"),
) -> None:
    """Solve a tour of equations; write one HTML page that shows it (demo.html), and its numbers (demo.json)."""
    with _failures():
        from . import tour

        raise typer.Exit(tour.demo(output, quick))


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what can go wrong outside the program into one message and an exit code."""
    try:
        yield
    except InputError as error:
        _complain(str(error))
        raise typer.Exit(2) from error
    except OSError as error:
        _complain(f"{error.filename or 'file'}: {error.strerror or error}")
        raise typer.Exit(1) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|allocate memory|enough memory", str(error)):
            raise
        _complain("there is not enough memory for a problem of this size")
        raise typer.Exit(1) from error


def _complain(message: str) -> None:
    print("\n".join(f"sciml: {line}" for line in message.splitlines()), file=sys.stderr)


def _solve(file: Path, output: Path, device: str | None, quiet: bool) -> int:
    start = time.perf_counter()
    # torch's remarks on the age of its sparse matrices say nothing to someone who runs a program.
    warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
    with _progress(quiet) as step:
        step("reading", file.name)
        from sciml.solvers import linear
        from sciml.solvers.solve import solve as solve_problem

        from . import problem_file

        problem = problem_file.read(file, {name: getattr(linear, name) for name in linear.__all__}, device)
        if output.exists() and not output.is_dir():
            raise InputError(f"{output} is no folder; give one with --output")
        output.mkdir(parents=True, exist_ok=True)
        step("solving", f"{problem.equation} on {_size(problem)} unknowns")
        solution = solve_problem(
            problem.equation,
            problem.domain,
            fields=problem.fields,
            scheme=problem.scheme,
            method=problem.method,
            rtol=problem.rtol,
            atol=problem.atol,
            throw=False,
        )
        step("writing", str(output))
        files = _write(problem, solution, output)
        summary = _summarize(problem, solution, files, time.perf_counter() - start)
        files.append(output / f"{problem.name}.json")
        _write_json(files[-1], summary)
    if not quiet:
        _print_summary(summary, files)
    if not bool(solution.converged.all()):
        for status in sorted({status for status in solution.status if status}):
            rows = [str(row) for row, other in enumerate(solution.status) if other == status]
            more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
            _complain(f"row {', '.join(rows[:8])}{more}: {status.name}: {status.advice}")
        return 1
    return 0


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
        elif kind == "png":
            try:
                solution.plot(path, history=True)
                files.append(path)
            except InputError as error:  # a solve that failed may leave nothing to draw; the other files are still due
                _complain(f"no picture: {error}")
        else:
            from . import paraview

            files.extend(paraview.write(solution, path))
    return files


def _write_json(path: Path, summary: dict[str, Any]) -> None:
    import json

    from .files import write_whole

    write_whole(path, (json.dumps(summary, indent=2) + "\n").encode())


def _summarize(problem: Problem, solution: Solution, files: list[Path], seconds: float) -> dict[str, Any]:
    import torch

    grid = problem.domain
    shape = solution.codes.shape
    counts = {n: s for n, s in solution.statistics.items() if isinstance(s, torch.Tensor) and s.shape == shape}
    rows = [
        {"status": status.name, **{name: _finite(item.reshape(-1)[row].item()) for name, item in counts.items()}}
        for row, status in enumerate(solution.status)
    ]
    return {
        "format": 1,
        "problem": str(problem.path),
        "equation": str(problem.equation),
        "unknowns": list(solution.unknowns),
        "domain": {
            "shape": list(grid.shape),
            "lower": list(grid.lower),
            "upper": list(grid.upper),
            "periodic": list(grid.periodic),
            "solid_cells": 0 if grid.solid is None else int(grid.solid.sum()),
        },
        "device": str(solution.value.device),
        "dtype": str(solution.value.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "method": solution.method,
        "notes": list(solution.notes),
        "converged": bool(solution.converged.all()),
        "rows": rows,
        "seconds": {
            name.removeprefix("seconds_"): item
            for name, item in {**solution.statistics, "seconds_in_all": seconds}.items()
            if name.startswith("seconds_")
        },
        "versions": solution.versions,
        "files": [path.name for path in files],
    }


def _finite(number: float) -> float | None:
    """A number as JSON can hold it."""
    return number if math.isfinite(number) else None


def _size(problem: Problem) -> str:
    return " x ".join(str(n) for n in problem.domain.shape)


def _print_summary(summary: dict[str, Any], files: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    domain, rows = summary["domain"], summary["rows"]
    box = " x ".join(f"[{low:g}, {high:g}]" for low, high in zip(domain["lower"], domain["upper"], strict=True))
    size = " x ".join(str(n) for n in domain["shape"])
    solid = f", {domain['solid_cells']} cells solid" if domain["solid_cells"] else ""
    failed = [row for row in rows if row["status"] != "CONVERGED"]
    outcome = "converged" if not failed else f"NOT CONVERGED: {failed[0]['status']}"
    if len(rows) > 1:
        outcome = f"{len(rows) - len(failed)} of {len(rows)} rows converged"
    numbers = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0] if key != "status"}
    worst = {key: max(column) for key, column in numbers.items() if column}
    seconds = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in summary["seconds"].items())
    names = [path.name for path in files]
    lines = {
        "equation": summary["equation"],
        "grid": f"{size} unknowns on {box}{solid}",
        "machine": f"{summary['device']}, {summary['dtype']}, {summary['threads']} threads",
        "method": summary["method"],
        "notes": "\n".join(summary["notes"]),
        "result": outcome,
        "iterations": str(worst.get("iterations", "")),
        "residual": f"{worst['relative_residual']:.2e} of the right side" if "relative_residual" in worst else "",
        "seconds": seconds,
        "files": ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else ""),
        "folder": str(files[-1].parent),
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for name, line in lines.items():
        if line:
            table.add_row(Text(name, style="dim"), Text(line, style="bold red" if name == "result" and failed else ""))
    Console().print(table)
