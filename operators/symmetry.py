"""Samples turned and mirrored, where the equation, the box and the conditions on its walls are the same afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations
from typing import final

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.grid import Grid
from sciml.training import Samples
from sciml.training.samples import moved

_ROUNDING = 1e-5  # of values in float32 at places that mirror each other


@final
class SymmetricSamples(Samples):
    """Samples and their images: mirrored along axes, and with axes exchanged.

    What a network learns of one sample it then learns of its images too: eight on a square, 48 on a cube. An image is a
    sample of its own, so that an epoch takes as many times longer, and which images a batch has does not depend on how
    it is divided. That the equation has these symmetries is for its author to say; the grid is checked.

    Args:
        samples: of scalar fields, `(n, channel, *space)`.
        grid: where they stand.
        mirrored: axes that may be reversed, such as ("x", "y").
        exchanged: axes that may take each other's place, such as ("x", "y"); or none.

    Raises:
        InputError: an axis that the grid lacks, or a grid that is another one afterwards: a periodic axis among the
            mirrored (its first point would move), conditions that differ between sides or vary along them, solid cells
            that are not symmetric, exchanged axes of different lengths.
    """

    def __init__(
        self, samples: Samples, grid: Grid, mirrored: Iterable[str] = (), exchanged: Iterable[str] = ()
    ) -> None:
        self.samples = samples
        self.images = _images(grid, tuple(mirrored), tuple(exchanged))

    def __len__(self) -> int:
        return len(self.samples) * len(self.images)

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        image, rows = indices // len(self.samples), indices % len(self.samples)
        found = {name: values.clone() for name, values in self.samples.batch(rows).items()}
        for number in set(image.tolist()) - {0}:
            order, flips = self.images[number]
            here = (image == number).nonzero().flatten()
            for values in found.values():
                place = moved(here, values.device)
                values.index_copy_(0, place, _turned(values.index_select(0, place), order, flips))
        return found

    def check(self, name: str, field: Tensor) -> None:
        """Refuse a scalar field `(*space)` of the problem, the same in all samples, that is another one in an image.

        Raises:
            InputError: it is; it is named.
        """
        for order, flips in self.images:
            if float((_turned(field, order, flips) - field).abs().max()) > _ROUNDING * float(field.abs().max()):
                raise InputError(f"symmetry: the field {name!r}, the same in all samples, is another one in an image")


def _turned(values: Tensor, order: Sequence[int], flips: Sequence[int]) -> Tensor:
    """Fields whose last axes are exchanged and reversed, counted from the first axis of space."""
    first = values.dim() - len(order)
    turned = values.permute(*range(first), *(first + axis for axis in order))
    return turned.flip([first + axis for axis in flips])


def _images(
    grid: Grid, mirrored: tuple[str, ...], exchanged: tuple[str, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Order of the axes and axes to reverse of every image; the first is the sample itself."""
    _check(grid, mirrored, exchanged)
    own = [grid.axes.index(axis) for axis in exchanged]
    orders = []
    for places in permutations(own):
        order = list(range(grid.dimension))
        for here, there in zip(own, places, strict=True):
            order[here] = there
        orders.append(tuple(order))
    reversible = [grid.axes.index(axis) for axis in mirrored]
    flips = [chosen for count in range(len(reversible) + 1) for chosen in combinations(reversible, count)]
    images = [(order, chosen) for order in orders for chosen in flips]
    for turned, chosen in images:
        if grid.solid is not None and not torch.equal(grid.solid, _turned(grid.solid, turned, chosen)):
            raise InputError("symmetry: the solid cells of the grid are other ones in an image")
    return images


def _check(grid: Grid, mirrored: tuple[str, ...], exchanged: tuple[str, ...]) -> None:
    for named in (mirrored, exchanged):
        if len(set(named)) < len(named):
            raise InputError(f"symmetry: an axis is named twice: {', '.join(named)}")
    for axis in (*mirrored, *exchanged):
        if axis not in grid.axes:
            raise InputError(f"symmetry: the grid has the axes {', '.join(grid.axes)}, and none called {axis!r}")
    by_axis = next(iter(grid.boundary)) in grid.axes
    conditions = [grid.boundary] if by_axis else list(grid.boundary.values())
    values = [
        value for sides in conditions for pair in sides.values() for side in pair for value in vars(side).values()
    ]
    if not all(isinstance(value, int | float) for value in values):
        raise InputError("symmetry: only conditions with a number for a value are known to be the same in an image")
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
