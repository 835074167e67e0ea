"""What all the files of a dataset share: its fields, the grid they stand on, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from sciml.boundary import Periodic, Unstated, suggestion
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid

Points = Literal["cells", "nodes"]

_NAME = re.compile(r"[^\W\d]\w*(-\w+)*")


@dataclass(frozen=True)
class Field:
    """How one field of a dataset varies.

    Args:
        sample_varying: whether it differs between samples.
        time_varying: whether it changes in time.
        components: `()` of a scalar, `(d,)` of a vector and `(d, d)` of a tensor on a grid of d axes.
        unit: as text; "" means dimensionless or not stated.
    """

    sample_varying: bool = True
    time_varying: bool = False
    components: tuple[int, ...] = ()
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Description:
    """What all the files of a dataset share.

    Args:
        name: of the dataset.
        grid: the domain, its cells and its boundary. Conditions that are functions are kept by their values.
        fields: coefficients, forcing, initial states, unknowns, by name.
        times: `(time,)`, increasing, in the unit of the equation; None of a steady problem.
        equation: what the fields satisfy, or None if that is not known.
        parameters: numbers that are the same for all samples.
        inputs: names of the fields and of the parameters that determine a sample; an evolving field counts by its
            first time. None named: all that varies between samples.
        outputs: names of the fields that are to be predicted.
        points: "cells" where values stand as the unknowns of `grid` do; "nodes" where they stand between its cells,
            the first and the last along an axis that is not periodic on the boundary itself.
        notes: what a user of the data should know.

    Raises:
        InputError: for a name that cannot be one, times that do not increase, an input or output that is no field,
            components that do not fit the grid, or values at the nodes of a grid with solid cells.
    """

    name: str
    grid: Grid
    fields: Mapping[str, Field]
    times: Tensor | None = None
    equation: Equation | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    points: Points = "cells"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.fields, *self.parameters):
            if not is_name(name):
                raise InputError(f"dataset: {name!r} cannot name a field or a parameter; letters, digits and _ can")
        if not self.fields:
            raise InputError("dataset: at least one field is needed")
        doubled = sorted(set(self.fields) & set(self.parameters))
        if doubled:
            raise InputError(f"dataset: {doubled[0]!r} is both a field and a parameter")
        d = self.grid.dimension
        for name, kind in self.fields.items():
            if kind.components not in ((), (d,), (d, d)):
                raise InputError(
                    f"dataset: field {name!r} has components {kind.components}; on a grid of {d} axes a vector has "
                    f"({d},) and a tensor ({d}, {d}); anything else goes into scalar fields of its own"
                )
            if kind.time_varying and self.times is None:
                raise InputError(f"dataset: field {name!r} changes in time, and no times are given")
        if self.points not in ("cells", "nodes"):
            raise InputError(f"dataset: points are 'cells' or 'nodes', got {self.points!r}")
        if self.points == "nodes" and self.grid.solid is not None:
            raise InputError("dataset: values at nodes and solid cells exclude each other")
        for name in self.outputs:
            if name not in self.fields:
                raise InputError(f"dataset: the output {name!r} is none of its fields{suggestion(name, self.fields)}")
        if self.times is not None:
            object.__setattr__(self, "times", _read_times(self.times))

    @cached_property
    def places(self) -> Grid:
        """The grid whose unknowns stand where the values do.

        Of values at nodes it reaches half a spacing beyond the domain, where nothing is known to hold: `Unstated`.
        """
        grid = self.grid
        if self.points == "cells":
            return grid
        wraps = grid.periodic
        rim = [0.0 if periodic else h / 2 for h, periodic in zip(grid.spacing, wraps, strict=True)]
        return Grid(
            tuple(n if periodic else n + 1 for n, periodic in zip(grid.shape, wraps, strict=True)),
            tuple(x - r for x, r in zip(grid.lower, rim, strict=True)),
            tuple(x + r for x, r in zip(grid.upper, rim, strict=True)),
            {a: Periodic() if periodic else Unstated() for a, periodic in zip(grid.axes, wraps, strict=True)},
            dtype=grid.dtype,
        )

    def shape(self, name: str, samples: int) -> tuple[int, ...]:
        """Shape of the values of a field: `([samples,] [time,] *components, *space)`."""
        kind = self.fields[name]
        steps = () if self.times is None or not kind.time_varying else (len(self.times),)
        return (*((samples,) if kind.sample_varying else ()), *steps, *kind.components, *self.places.shape)


def is_name(name: str) -> bool:
    """Whether a field or a parameter can be called so."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def common_parameters(
    given: Sequence[Mapping[str, float]],
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The parameters that are the same in several descriptions, and those that are left of each."""
    first, *others = given
    same = {n: x for n, x in first.items() if all(n in other and other[n] == x for other in others)}
    return same, [{name: value for name, value in one.items() if name not in same} for one in given]


def _read_times(times: Tensor) -> Tensor:
    read = torch.as_tensor(times, dtype=torch.float64).detach().cpu()
    if read.ndim != 1 or not len(read) or not bool(torch.isfinite(read).all()) or bool((read.diff() <= 0).any()):
        raise InputError(f"dataset: times are finite numbers that increase, in one axis; got {times}")
    return read
