"""What there is to say of a dataset, after looking at every value of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sciml.boundary import Periodic, Unstated
from sciml.errors import InputError
from sciml.files import write_whole
from sciml.grid import Grid

from .columns import Array
from .dataset import Dataset
from .manifest import duplicates
from .shard import input_names, varies


@dataclass
class _Range:
    """Counts, extremes and moments of values that come in pieces; the moments by Chan, Golub and LeVeque (1983)."""

    count: int = 0
    bad: int = 0
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Array) -> None:
        values = values.reshape(-1).astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            self.bad += int((~finite).sum())
            values = values[finite]
        if not len(values):
            return
        mean, n = float(values.mean()), len(values)
        shift = mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + shift * shift * self.count * n / (self.count + n)
        self.mean += shift * n / (self.count + n)
        self.count += n
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def facts(self) -> dict[str, Any]:
        there = self.count > 0
        return {
            "min": self.low if there else None,
            "max": self.high if there else None,
            "mean": self.mean if there else None,
            "std": math.sqrt(self.squares / self.count) if there else None,
            "not_finite": self.bad,
        }


def examine(dataset: Dataset, path: Path) -> dict[str, Any]:
    """Everything worth knowing, as JSON can hold it, after reading all values and the inputs of all samples.

    "problems" lists what is wrong: files that cannot be used, values that are NaN or infinite, samples in two splits,
    samples whose inputs are not the ones that were written.

    Args:
        dataset: of any format.
        path: where it stands.
    """
    description = dataset.description
    times = dataset.times
    ranges = {name: _Range() for name in dataset.fields}
    for name in dataset.fields:
        if varies(description, name):
            for _, _, values in dataset.blocks([name]):
                ranges[name].add(values[name])
        else:
            ranges[name].add(dataset.read(name, [0]).numpy())
    problems = [f"{file}: {why}" for file, why in dataset.damaged.items()]
    problems += [f"{r.bad} values of {name!r} are NaN or infinite" for name, r in ranges.items() if r.bad]
    computed = [(part, dataset.identities_of(part)) for part in dataset.parts]
    for part, identities in computed:
        if part.identities is not None and list(part.identities) != identities:
            wrong = sum(a != b for a, b in zip(part.identities, identities, strict=True))
            problems.append(f"{part.file}: the inputs of {wrong} samples are not those whose digests it bears")
    pairs = duplicates((part.split, part.file, identities) for part, identities in computed)
    crossing = [(one, other) for one, other in pairs if one[0] != other[0]]
    problems += [
        f"sample {other[2]} of {other[1]} has the inputs of sample {one[2]} of {one[1]}, which is of another split"
        for one, other in crossing[:8]
    ]
    if len(crossing) > 8:
        problems.append(f"{len(crossing) - 8} more samples stand in two splits")
    return {
        "format": 1,
        "path": str(path),
        "name": dataset.name,
        "equation": None if dataset.equation is None else str(dataset.equation),
        "samples": len(dataset),
        "splits": {name: len(dataset.split(name)) for name in dataset.splits},
        "files": len(dataset.parts),
        "grid": {
            "shape": list(dataset.grid.shape),
            "lower": list(dataset.domain.lower),
            "upper": list(dataset.domain.upper),
            "points": dataset.points,
            "boundary": _boundary(dataset.domain),
        },
        "times": None if times is None else {"count": len(times), "first": float(times[0]), "last": float(times[-1])},
        "fields": {
            name: {
                "shape": list(description.shape(name, len(dataset))),
                "dtype": str(dataset.parts[0].columns[name].dtype),
                "sample_varying": kind.sample_varying,
                "time_varying": kind.time_varying,
                "components": list(kind.components),
                "unit": kind.unit,
                **ranges[name].facts(),
            }
            for name, kind in dataset.fields.items()
        },
        "parameters": {name: _parameter(value) for name, value in dataset.parameters.items()},
        "inputs": list(dataset.inputs),
        "outputs": list(dataset.outputs),
        "identified_by": list(input_names(description, dataset.parts[0].parameters)),
        "duplicates": len(pairs),
        "duplicates_across_splits": len(crossing),
        "notes": list(dataset.notes),
        "provenance": dataset.provenance,
        "problems": problems,
    }


def write(facts: Mapping[str, Any], path: Path) -> None:
    """Write what `examine` found."""
    write_whole(path, (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode())


def _boundary(grid: Grid) -> dict[str, Any]:
    def words(sides: Mapping[str, Any]) -> dict[str, str]:
        return {
            axis: "periodic" if isinstance(pair[0], Periodic) else ", ".join(_condition(side) for side in pair)
            for axis, pair in sides.items()
        }

    if next(iter(grid.boundary)) in grid.axes:
        return words(grid.boundary)
    return {unknown: words(sides) for unknown, sides in grid.boundary.items()}


def _condition(condition: Any) -> str:
    if isinstance(condition, Unstated):
        return "not stated"
    values = [
        f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value:g}"
        for value in vars(condition).values()
    ]
    return f"{type(condition).__name__}({', '.join(values)})"


def _parameter(value: float | Tensor) -> dict[str, Any]:
    if not isinstance(value, Tensor):
        return {"value": value}
    span = _Range()
    span.add(value.numpy())
    return span.facts()


def show(facts: Mapping[str, Any]) -> None:
    """Print it as tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid, times = facts["grid"], facts["times"]
    splits = ", ".join(f"{name} {count}" for name, count in facts["splits"].items())
    box = " x ".join(f"[{low:g}, {high:g}]" for low, high in zip(grid["lower"], grid["upper"], strict=True))
    unit = "cells" if grid["points"] == "cells" else "nodes, the outermost on the boundary,"
    lines = {
        "name": facts["name"],
        "equation": facts["equation"] or "not stated",
        "samples": f"{facts['samples']}{f' ({splits})' if splits else ''} in {facts['files']} files",
        "grid": f"{' x '.join(str(n) for n in grid['shape'])} {unit} of {box}",
        "boundary": "\n".join(_boundary_lines(grid["boundary"])),
        "times": "" if times is None else f"{times['count']}, from {times['first']:g} to {times['last']:g}",
        "inputs": ", ".join(facts["inputs"]) or "not stated",
        "outputs": ", ".join(facts["outputs"]) or "not stated",
        "notes": "\n".join(facts["notes"]),
        "duplicates": "" if not facts["duplicates"] else f"{facts['duplicates']} samples have the inputs of another",
        "problems": "\n".join(facts["problems"]) or "none",
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, line in lines.items():
        if line:
            style = "" if name != "problems" else "bold red" if facts["problems"] else "green"
            table.add_row(name, Text(line, style=style))
    values = Table(box=None, pad_edge=False)
    for heading in ("field", "shape", "dtype", "min", "max", "mean", "std", "not finite"):
        left = heading in ("field", "shape", "dtype")
        values.add_column(heading, justify="left" if left else "right", no_wrap=heading != "not finite")
    for name, item in facts["fields"].items():
        shape = " x ".join(str(n) for n in item["shape"])
        unit = f"{name} [{item['unit']}]" if item["unit"] else name
        values.add_row(Text(unit), shape, item["dtype"], *_numbers(item))
    for name, item in facts["parameters"].items():
        if "value" in item:
            values.add_row(Text(name), "1", "parameter", f"{item['value']:.6g}", "", "", "", "")
        else:
            values.add_row(Text(name), str(facts["samples"]), "parameter", *_numbers(item))
    console = Console()
    console.print(table)
    console.print()
    console.print(values)


def _boundary_lines(boundary: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: " + ("; ".join(_boundary_lines(item)) if isinstance(item, Mapping) else item)
        for name, item in boundary.items()
    ]


def _numbers(item: Mapping[str, Any]) -> list[str]:
    shown = ["" if item[name] is None else f"{item[name]:.4g}" for name in ("min", "max", "mean", "std")]
    return [*shown, str(item["not_finite"])]


def picture(dataset: Dataset, path: Path, samples: int = 3) -> None:
    """Draw all fields of a few samples, spread over the dataset; of evolving fields the last time.

    Args:
        dataset: of any format.
        path: of a .png, .pdf or .svg file.
        samples: how many.

    Raises:
        InputError: nothing to draw, or the path cannot become a file.
    """
    from sciml import pictures

    if not len(dataset):
        raise InputError("there are no samples to draw")
    pictures.write(_figure(dataset, samples), path)


def _figure(dataset: Dataset, samples: int) -> Any:
    from sciml import pictures

    count = min(samples, len(dataset))
    rows = [number * (len(dataset) - 1) // max(1, count - 1) for number in range(count)]
    last = None if dataset.times is None else [len(dataset.times) - 1] * count
    fields: dict[str, Tensor] = {}
    for name, kind in dataset.fields.items():
        values = dataset.read(name, rows, last).double()
        flat = values.reshape(count, -1, *dataset.grid.shape)
        names = [name] if not kind.components else [f"{name} {number}" for number in range(flat.shape[1])]
        fields.update({label: flat[:, number] for number, label in enumerate(names)})
    return pictures.draw_fields(dataset.grid, fields, [f"sample {row}" for row in rows])
