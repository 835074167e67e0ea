"""Samples turned and mirrored, where the equation, the box and the conditions on its walls are the same afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import final

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.grid import Grid
from sciml.training import Samples


@final
class SymmetricSamples(Samples):
    """Every batch mirrored along axes, and its axes exchanged, as drawn from torch's generator.

    What a network learns of one sample it then learns of its images too: eight of them on a square, sixteen times three
    on a cube. That the problem has these symmetries is for its author to say; the grid is checked.

    Args:
        samples: of scalar fields, `(n, channel, *space)`.
        grid: where they stand.
        mirrored: axes that may be reversed, such as ("x", "y").
        exchanged: axes that may take each other's place, such as ("x", "y"); or none.

    Raises:
        InputError: an axis that the grid lacks, one that is periodic (its first point would move) among the mirrored,
            sides with different conditions, or exchanged axes that differ.
    """

    def __init__(
        self, samples: Samples, grid: Grid, mirrored: Iterable[str] = (), exchanged: Iterable[str] = ()
    ) -> None:
        self.samples = samples
        self.mirrored, self.exchanged = tuple(mirrored), tuple(exchanged)
        _check(grid, self.mirrored, self.exchanged)
        first = 2  # axis of x
        self._flips = [first + grid.axes.index(axis) for axis in self.mirrored]
        own = [first + grid.axes.index(axis) for axis in self.exchanged]
        order = list(range(first + grid.dimension))
        self._orders = []
        for places in permutations(own):
            changed = list(order)
            for here, there in zip(own, places, strict=True):
                changed[here] = there
            self._orders.append(changed)

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        order = self._orders[int(torch.randint(len(self._orders), ()))]
        flips = [axis for axis in self._flips if int(torch.randint(2, ()))]
        return {name: values.permute(order).flip(flips) for name, values in self.samples.batch(indices).items()}


def _check(grid: Grid, mirrored: tuple[str, ...], exchanged: tuple[str, ...]) -> None:
    for axis in (*mirrored, *exchanged):
        if axis not in grid.axes:
            raise InputError(f"symmetry: the grid has the axes {', '.join(grid.axes)}, and none called {axis!r}")
    by_axis = next(iter(grid.boundary)) in grid.axes
    conditions = [grid.boundary] if by_axis else list(grid.boundary.values())
    for axis in mirrored:
        if grid.periodic[grid.axes.index(axis)]:
            raise InputError(f"symmetry: {axis} is periodic; reversing it would move its first point")
        if any(sides[axis][0] != sides[axis][1] for sides in conditions):
            raise InputError(f"symmetry: the two sides along {axis} have different conditions")
    if len(exchanged) == 1:
        raise InputError(f"symmetry: {exchanged[0]} alone cannot be exchanged; name two axes or more")
    numbers = [grid.axes.index(axis) for axis in exchanged]
    extents = {(grid.shape[i], grid.upper[i] - grid.lower[i]) for i in numbers}
    if len(extents) > 1 or any(sides[axis] != sides[exchanged[0]] for sides in conditions for axis in exchanged):
        raise InputError(
            f"symmetry: {' and '.join(exchanged)} can be exchanged only where they have the same points, lengths and "
            "conditions"
        )
