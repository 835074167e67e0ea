"""What is said of a solution after `sciml solve`: to programs as JSON, to people as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .files import write_whole
from .grid import Grid
from .mesh import Mesh
from .solution import Solution
from .trajectories import take

_MOST_NAMES = 12  # in a line of the table


def size_of(domain: Grid | Mesh | None) -> str:
    """How many unknowns of each kind stand where, in words that follow the equation."""
    if domain is None:
        return ""
    if isinstance(domain, Grid):
        return f" on {' x '.join(str(n) for n in domain.shape)} unknowns"
    kind = "triangles" if domain.dimension == 2 else "tetrahedra"
    return f" on {len(domain.points)} points, {len(domain.cells)} {kind}"


def summarize(
    problem: Path,
    solution: Solution,
    files: list[Path],
    remarks: list[str],
    seconds: float,
    *,
    finished: bool = True,
) -> dict[str, Any]:
    """Everything worth knowing, as JSON can hold it; what is not finite is null.

    "rows" has one entry a row of the batch: "status", the counts and norms of the solver, "integrals" by unknown, of a
    mesh with regions "region_integrals" by unknown and region, and "fluxes" by unknown and boundary, outward, or null
    where the equation has none. Of an evolution integrals and fluxes are those at the last time, "initial_integrals"
    those at the first, and "times" says from when to when; without a domain "values" are the last ones by unknown.

    Args:
        problem: the file that was solved.
        solution: of a problem.
        files: those written.
        remarks: the warnings on the way.
        seconds: of the whole run.
        finished: whether nobody ended it before.
    """
    shape = solution.codes.shape
    counts = {n: s for n, s in solution.statistics.items() if isinstance(s, Tensor) and s.shape == shape}
    parts = _parts(solution)
    rows = [
        {
            "status": status.name,
            **{name: _finite(item.reshape(-1)[row].item()) for name, item in counts.items()},
            **{name: _pick(part, row) for name, part in parts.items()},
        }
        for row, status in enumerate(solution.status)
    ]
    return {
        "format": 1,
        "problem": str(problem),
        "equation": str(solution.equation),
        "unknowns": list(solution.unknowns),
        "domain": _describe(solution.domain),
        "times": _span(solution),
        "device": str(solution.value.device),
        "dtype": str(solution.value.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "method": solution.method,
        "notes": list(solution.notes),
        "warnings": remarks,
        "converged": bool(solution.converged.all()),
        "finished": finished,
        "rows": rows,
        "seconds": {
            name.removeprefix("seconds_"): item
            for name, item in {**solution.statistics, "seconds_in_all": seconds}.items()
            if name.startswith("seconds_")
        },
        "versions": solution.versions,
        "files": [path.name for path in files],
    }


def write(path: Path, summary: dict[str, Any]) -> None:
    """Write what `summarize` made."""
    write_whole(path, (json.dumps(summary, indent=2) + "\n").encode())


def show(summary: dict[str, Any], files: list[Path]) -> None:
    """Print it as a table of two columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = summary["rows"]
    failed = [row for row in rows if row["status"] != "CONVERGED"]
    evolved = summary["times"] is not None
    done, not_done = ("evolved", "FAILED") if evolved else ("converged", "NOT CONVERGED")
    outcome = done if not failed else f"{not_done}: {failed[0]['status']}"
    if len(rows) > 1:
        outcome = f"{len(rows) - len(failed)} of {len(rows)} rows {done}"
    if not summary["finished"]:
        outcome = "INTERRUPTED"
    numbers = {
        key: [row[key] for row in rows if row[key] is not None]
        for key in rows[0]
        if isinstance(rows[0][key], int | float)
    }
    worst = {key: max(column) for key, column in numbers.items() if column}
    seconds = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in summary["seconds"].items())
    names = [path.name for path in files]
    lines = {
        "equation": summary["equation"],
        **(_domain_lines(summary["domain"]) if summary["domain"] else {}),
        **_time_lines(summary["times"]),
        "machine": f"{summary['device']}, {summary['dtype']}, {summary['threads']} threads",
        "method": summary["method"],
        "notes": "\n".join(summary["notes"]),
        "result": outcome,
        "iterations": str(worst.get("iterations", "")),
        **_step_lines(numbers),
        "residual": f"{worst['relative_residual']:.2e} of the right side" if "relative_residual" in worst else "",
        **(_part_lines(rows[0]) if len(rows) == 1 else {}),
        "seconds": seconds,
        "files": _shortened(names),
        "folder": str(files[-1].parent),
    }
    alarming = failed or not summary["finished"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for name, line in lines.items():
        if line:
            table.add_row(
                Text(name, style="dim"), Text(line, style="bold red" if name == "result" and alarming else "")
            )
    Console().print(table)


def _parts(solution: Solution) -> dict[str, Any]:
    """Integrals and fluxes, of an evolution at its end: dicts by name of tensors of batch shape."""
    domain, end = solution.domain, solution
    parts: dict[str, Any] = {}
    if solution.times is not None:
        start, end = take(solution, [0]), take(solution, [-1])
        if domain is None:
            return {"values": _by_unknown(end, lambda: end.value)}
        parts["initial_integrals"] = _by_unknown(start, start.integral)
    parts["integrals"] = _by_unknown(end, end.integral)
    if isinstance(domain, Mesh) and domain.regions:
        regions = {name: _by_unknown(end, partial(end.integral, name)) for name in domain.regions}
        parts["region_integrals"] = _turned(regions)
    fluxes = {}
    try:
        for name in domain.boundaries if domain is not None else ():
            fluxes[name] = _by_unknown(end, partial(end.flux, name))
    except InputError:  # an equation without second derivatives, for example
        fluxes = {}
    parts["fluxes"] = _turned(fluxes) if fluxes else None
    return parts


def _by_unknown(solution: Solution, compute: Callable[[], Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        amount = compute()
    if solution.times is not None:
        amount = amount.select(solution.codes.ndim, 0)  # of one time
    several = len(solution.unknowns) > 1
    columns = amount.unbind(-1) if several else (amount,)
    batch = solution.codes.shape
    return {name: column.expand(batch) for name, column in zip(solution.unknowns, columns, strict=True)}


def _turned(parts: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """By unknown and part from by part and unknown."""
    unknowns = next(iter(parts.values()))
    return {unknown: {name: part[unknown] for name, part in parts.items()} for unknown in unknowns}


def _pick(part: Any, row: int) -> Any:
    if isinstance(part, dict):
        return {name: _pick(item, row) for name, item in part.items()}
    return None if part is None else _finite(part.reshape(-1)[row].item())


def _finite(number: float) -> float | None:
    """A number as JSON can hold it."""
    return number if math.isfinite(number) else None


def _describe(domain: Grid | Mesh | None) -> dict[str, Any]:
    if isinstance(domain, Grid):
        return {
            "shape": list(domain.shape),
            "lower": list(domain.lower),
            "upper": list(domain.upper),
            "periodic": list(domain.periodic),
            "solid_cells": 0 if domain.solid is None else int(domain.solid.sum()),
        }
    if domain is None:
        return {}
    return {
        "points": len(domain.points),
        "cells": len(domain.cells),
        "lower": domain.points.amin(0).tolist(),
        "upper": domain.points.amax(0).tolist(),
        "volume": float(domain.volume),
        "boundaries": {name: len(part) for name, part in domain.boundaries.items()},
        "regions": {name: len(part) for name, part in domain.regions.items()},
    }


def _span(solution: Solution) -> dict[str, Any] | None:
    times = solution.times
    return None if times is None else {"first": float(times[0]), "last": float(times[-1]), "count": len(times)}


def _time_lines(times: dict[str, Any] | None) -> dict[str, str]:
    return {} if times is None else {"times": f"{times['count']} from {times['first']:g} to {times['last']:g}"}


def _step_lines(numbers: dict[str, list[Any]]) -> dict[str, str]:
    """Steps and evaluations of an evolution, of a batch the most."""
    if not numbers.get("steps"):
        return {}
    sizes = [column for column in (numbers.get("smallest_step"), numbers.get("largest_step")) if column]
    between = f", of {min(sizes[0]):.3g} to {max(sizes[-1]):.3g}" if sizes else ""
    rejected = f" ({max(numbers['rejected'])} rejected)" if numbers.get("rejected") else ""
    return {
        "steps": f"{max(numbers['steps'])}{rejected}{between}",
        "evaluations": str(max(numbers["evaluations"])) if numbers.get("evaluations") else "",
    }


def _domain_lines(domain: dict[str, Any]) -> dict[str, str]:
    box = " x ".join(f"[{low:g}, {high:g}]" for low, high in zip(domain["lower"], domain["upper"], strict=True))
    if "shape" in domain:
        size = " x ".join(str(n) for n in domain["shape"])
        solid = f", {domain['solid_cells']} cells solid" if domain["solid_cells"] else ""
        return {"grid": f"{size} unknowns on {box}{solid}"}
    kind = "triangles" if len(domain["lower"]) == 2 else "tetrahedra"
    regions = domain["regions"]
    return {
        "mesh": f"{domain['points']} points, {domain['cells']} {kind} in {box}",
        "boundaries": _shortened([f"{name} ({count})" for name, count in domain["boundaries"].items()]),
        "regions": _shortened([f"{name} ({count})" for name, count in regions.items()]) if regions else "",
    }


def _part_lines(row: dict[str, Any]) -> dict[str, str]:
    """Integrals and fluxes of the only row."""
    if "values" in row:
        return {"last values": _amounts(row["values"])}
    several = len(row["integrals"]) > 1
    lines = {}
    for unknown, whole in row["integrals"].items():
        of = f" of {unknown}" if several else ""
        parts = {"": whole, **row.get("region_integrals", {}).get(unknown, {})}
        lines[f"integral{of}"] = _amounts(parts)
        lines[f"outward flux{of}"] = _amounts((row["fluxes"] or {}).get(unknown, {}))
    return lines


def _amounts(parts: dict[str, float | None]) -> str:
    shown = {name: "not finite" if amount is None else f"{amount:.6g}" for name, amount in parts.items()}
    return _shortened([f"{name} {amount}".strip() for name, amount in shown.items()])


def _shortened(words: list[str]) -> str:
    more = f" and {len(words) - _MOST_NAMES} more" if len(words) > _MOST_NAMES else ""
    return ", ".join(words[:_MOST_NAMES]) + more
