"""Makes one shard of a dataset: draws what its recipe says, solves, coarsens, writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.files import write_whole
from sciml.grid import Grid
from sciml.solution import Solution
from sciml.solvers.evolve import evolve
from sciml.solvers.solve import solve
from sciml.status import Status

from .description import Description, Field
from .distributions import Constant, Distribution, Number, seed_of
from .manifest import ShardEntry
from .recipe import Recipe
from .shard import write_shard

_ATTEMPTS = 10


@dataclass(frozen=True)
class Task:
    """One shard to be made.

    Args:
        split, number: which.
        first, count: its samples, by their numbers in the split.
    """

    split: str
    number: int
    first: int
    count: int


def tasks(recipe: Recipe) -> tuple[Task, ...]:
    """All shards of a dataset, in order."""
    return tuple(
        Task(split, number, first, min(recipe.shard, size - first))
        for split, size in recipe.sizes.items()
        for number, first in enumerate(range(0, size, recipe.shard))
    )


def describe(recipe: Recipe) -> Description:
    """What the shards of a dataset share."""
    grid, equation = recipe.stored_grid, recipe.equation
    unknowns = {*equation.unknowns, *equation.constrained}
    evolving = recipe.times is not None
    numbers = {name: item for name, item in recipe.fields.items() if isinstance(item, Number)}
    drawn = {**recipe.parameters, **numbers}
    constants = {name: item.value for name, item in drawn.items() if isinstance(item, Constant)}
    inputs = [name for name, item in recipe.fields.items() if item.random and name in recipe.stored]
    inputs += [name for name in equation.unknowns if evolving and name in recipe.stored]
    inputs += [name for name, item in drawn.items() if item.random]
    return Description(
        name=recipe.name,
        grid=grid,
        fields={
            name: Field(sample_varying=name in unknowns or recipe.fields[name].random, time_varying=evolving)
            if name in unknowns
            else Field(sample_varying=recipe.fields[name].random)
            for name in recipe.stored
        },
        times=None if recipe.times is None else torch.tensor(recipe.times, dtype=torch.float64),
        equation=equation,
        parameters={**{name: x for name, x in equation.parameters.items() if name not in drawn}, **constants},
        inputs=tuple(inputs),
        outputs=tuple(name for name in recipe.stored if name in unknowns),
        notes=(recipe.description,) if recipe.description else (),
    )


def make_shard(recipe: Recipe, task: Task, folder: str | os.PathLike[str], device: str) -> ShardEntry:
    """Make one shard and write it, whole or not at all; its bytes depend on the recipe and the task alone.

    Raises:
        InputError: a solve failed that the recipe does not allow to; it says which sample and what to do.
        OSError: the disk is full.
    """
    grid = recipe.grid.to(device)
    samples = range(task.first, task.first + task.count)
    batches = [
        _make_batch(recipe, grid, task.split, samples[first : first + recipe.batch])
        for first in range(0, task.count, recipe.batch)
    ]
    redrawn = {str(number): times for batch in batches for number, times in batch.redrawn.items()}
    if redrawn:
        place = redrawn_file(folder, task)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps(redrawn).encode())
    description = describe(recipe)
    values = {
        name: torch.cat([batch.fields[name] for batch in batches]) if field.sample_varying else batches[0].fields[name]
        for name, field in description.fields.items()
    }
    numbers = {name: torch.cat([batch.numbers[name] for batch in batches]) for name in batches[0].numbers}
    return write_shard(folder, task.split, task.number, description, values, numbers)


def redrawn_file(folder: str | os.PathLike[str], task: Task) -> Path:
    """Where it is written which samples of a shard were drawn more than once: number in the split -> times."""
    return Path(folder) / "redrawn" / f"{task.split}-{task.number:05d}.json"


@dataclass(frozen=True)
class _Batch:
    """Samples as they are stored, on the CPU.

    Attributes:
        fields: `(n, [time,] *space)`, without n where they do not vary.
        numbers: those that vary, `(n,)`.
        codes: status of the solves, `(n,)`.
        redrawn: how often samples were drawn anew, by their number.
    """

    fields: dict[str, Tensor]
    numbers: dict[str, Tensor]
    codes: Tensor
    redrawn: dict[int, int]


def _make_batch(recipe: Recipe, grid: Grid, split: str, samples: Sequence[int]) -> _Batch:
    batch = _attempt(recipe, grid, split, samples, 0)
    failed, codes = _failures(batch.codes), batch.codes
    attempt = 0
    while failed:
        attempt += 1
        if not recipe.redraw or attempt == _ATTEMPTS:
            raise InputError(_refusal(recipe, f"{split} sample {samples[failed[0]]}", codes, attempt))
        again = [samples[row] for row in failed]
        better = _attempt(recipe, grid, split, again, attempt)
        for kind in ("fields", "numbers"):
            for name, value in getattr(batch, kind).items():
                if len(value) == len(samples) and varies(recipe, name):
                    value[failed] = getattr(better, kind)[name]
        batch.redrawn.update(dict.fromkeys(again, attempt))
        failed, codes = [failed[row] for row in _failures(better.codes)], better.codes
    return batch


def varies(recipe: Recipe, name: str) -> bool:
    """Whether a field or number differs between samples; solutions do."""
    distribution = recipe.fields.get(name) or recipe.parameters.get(name)
    return distribution is None or distribution.random


def _attempt(recipe: Recipe, grid: Grid, split: str, samples: Sequence[int], attempt: int) -> _Batch:
    """Draw and solve, once."""

    def seeds(kind: str, name: str) -> list[int]:
        return [seed_of(recipe.seed, split, sample, kind, name, attempt) for sample in samples]

    def sample(kind: str, name: str, distribution: Distribution) -> Tensor:
        if distribution.random:
            return distribution.sample(grid, seeds(kind, name))
        return distribution.sample(grid, [0])[0]

    numbers = {**recipe.parameters, **{name: x for name, x in recipe.fields.items() if isinstance(x, Number)}}
    drawn = {name: x.draw(seeds("number", name)) for name, x in numbers.items() if x.random}
    fields = {name: sample("field", name, x) for name, x in recipe.fields.items() if name not in numbers}
    initial = {name: sample("initial", name, x) for name, x in recipe.initial.items()}
    found, codes = _solve(recipe, grid, len(samples), fields, drawn, initial)
    kept = {name: coarsen({**fields, **found}[name], recipe) for name in recipe.stored}
    return _Batch(
        {name: value.to("cpu", recipe.dtype) for name, value in kept.items()},
        {name: value.to(recipe.dtype) for name, value in drawn.items()},
        codes.cpu(),
        {},
    )


def coarsen(values: Tensor, recipe: Recipe) -> Tensor:
    """Means over blocks of cells, and every so manieth value along periodic axes, of `(*leading, *space)`."""
    factor, axes = recipe.coarsen, recipe.grid.dimension
    if factor == 1:
        return values
    for axis, (n, wraps) in enumerate(zip(recipe.grid.shape, recipe.grid.periodic, strict=True)):
        blocks = values.unflatten(axis - axes, (n // factor, factor))
        values = blocks.select(axis - axes, 0) if wraps else blocks.mean(axis - axes)
    return values


def _solve(
    recipe: Recipe,
    grid: Grid,
    count: int,
    drawn_fields: Mapping[str, Tensor],
    drawn: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], Tensor]:
    """Fields of the solutions, `(count, [time,] *space)`, and the codes of their status, `(count,)`."""
    alone = count == 1  # then without an axis for the batch, so that direct solvers take it

    def rows(value: Tensor, random: bool) -> Tensor:
        return value[0] if alone and random else value

    fields: dict[str, Any] = {}
    for name, distribution in recipe.fields.items():
        if isinstance(distribution, Constant):
            fields[name] = distribution.value
        elif isinstance(distribution, Number):
            number = drawn[name].to(grid.device, grid.dtype).reshape(-1, *[1] * grid.dimension)
            fields[name] = rows(number, True)
        else:
            fields[name] = rows(drawn_fields[name], distribution.random)
    parameters: dict[str, Any] = {
        name: rows(drawn[name].to(grid.device, grid.dtype), True) if name in drawn else float(distribution.draw([0])[0])
        for name, distribution in recipe.parameters.items()
    }
    solution: Solution
    if recipe.times is None:
        solution = solve(
            recipe.equation,
            grid,
            fields=fields,
            parameters=parameters,
            scheme=recipe.scheme,  # type: ignore[arg-type] # what does not fit is refused there
            method=recipe.method,
            rtol=recipe.rtol,
            atol=recipe.atol,
            throw=False,
        )
    else:
        states = {name: rows(value, recipe.initial[name].random) for name, value in initial.items()}
        solution = evolve(
            recipe.equation,
            grid,
            initial=states,
            times=recipe.times,
            fields=fields,
            parameters=parameters,
            scheme=recipe.scheme,
            method=recipe.method,
            step=recipe.step,
            rtol=recipe.rtol,
            atol=recipe.atol,
            control=recipe.control,
            throw=False,
        )
    # Fields that constraints determine take a solve for every time.
    constrained = set(recipe.stored) & set(recipe.equation.constrained)
    known = solution.fields if constrained else _unknowns(solution, grid.dimension)
    shape = (count, *([] if recipe.times is None else [len(recipe.times)]), *grid.shape)
    found = {name: known[name].detach().expand(shape) for name in recipe.stored if name in known}
    return found, solution.codes.reshape(-1).expand(count)


def _unknowns(solution: Solution, axes: int) -> dict[str, Tensor]:
    names = solution.unknowns
    if len(names) == 1:
        return {names[0]: solution.value}
    return dict(zip(names, solution.value.unbind(-1 - axes), strict=True))


def _failures(codes: Tensor) -> list[int]:
    return [row for row, code in enumerate(codes.tolist()) if code != Status.CONVERGED]


def _refusal(recipe: Recipe, sample: str, codes: Tensor, attempts: int) -> str:
    failures = _failures(codes)
    status = Status(int(codes[failures[0]]))
    advice = status.advice if recipe.times is None else status.advice_in_time
    if recipe.redraw:
        return f"{recipe.name}: the solve of {sample} failed in each of {attempts} draws: {status.name}: {advice}"
    return (
        f"{recipe.name}: the solve of {sample} failed: {status.name}: {advice}. Nothing is kept of its file; change "
        '[solver], or say failures = "redraw" in [samples] to draw such samples anew'
    )
