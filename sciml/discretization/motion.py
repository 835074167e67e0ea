"""What of a discretized evolving equation changes in time besides its unknowns, and the equation at a given time.

Fields and boundary values that are functions of time stand in no operator. What depends on boundary values does so
linearly: right sides and derivatives at walls are a fixed part plus, for every wall, a weight in the cells next to it
times the value there. The weights are found once, with the value 1 on one wall and 0 elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..differentiation import may_carry_derivatives
from ..evolving import Time
from .assembly import Assembly
from .conditions import Moving, MovingValues
from .inputs import Number
from .jets import JetMap, Side, jet_map
from .linearization import NonlinearSystem, Row
from .nonlinear import Builder
from .problem import Problem
from .walls import Scattered, Slab, Wall

Key = tuple[str, int]
"""Unknown and number of a wall."""

JetKey = tuple[str, tuple[int, ...], Side]
"""Unknown, derivative and the side it is taken from."""


class Motion:
    """A discretized evolving equation through time.

    Args:
        builder: what `system` was built with.
        system: the equation with zeros in place of what changes in time.
        fields: those that change in time, by name.
        values: boundary values that do.
    """

    def __init__(
        self, builder: Builder, system: NonlinearSystem, fields: Mapping[str, Moving], values: MovingValues
    ) -> None:
        self.system = system
        self.problem = builder.problem
        self.fields = dict(fields)
        self.wanted = builder.wanted()
        self.jets = dict(builder.jets)
        self.walls: dict[Key, Moving] = {}
        for unknown in self.problem.unknowns:
            for number, wall in enumerate(self.problem.walls(unknown)):
                key = (unknown, wall.axis, wall.side, isinstance(wall.place, Scattered))
                if key in values:
                    self.walls[unknown, number] = values[key]
        self._given = dict(self.walls)
        self._everywhere = dict(self.walls)
        # Off-diagonal entries of a tensor spread a value along its wall, which weights by cell do not say.
        self.local = not any(p.mixed for row in self.problem.rows for pieces in row.values() for p in pieces)
        self._shares: dict[Key, _Shares] = {}
        if self.local:
            self._shares = {key: self._unit_response(key) for key in self.walls}
            if not any(row.fluxes for row in system.rows):
                unused = [key for key, shares in self._shares.items() if not shares.rows and not shares.jets]
                self.walls = {key: moving for key, moving in self.walls.items() if key not in unused}
        self.changes = "t" in self.wanted or bool(self.fields) or bool(self.walls)

    def at(self, t: Time) -> NonlinearSystem:
        """The equation at a time, a number or a tensor of the batch's shape."""
        if not self.changes:
            return self.system
        problem = self._problem_at(t, self.walls)
        system, known = self.system, problem.values(self.wanted)
        if not self.fields and not self.walls:
            return replace(system, known=known)
        sources, jets = self._affine_parts(problem)
        moved = {id(self.jets[key]): jet for key, jet in jets.items()}
        rows = tuple(_row_at(row, problem, moved) for row in system.rows)
        return replace(system, known=known, sources=sources, rows=rows)

    def complete(self, t: Time) -> NonlinearSystem:
        """The same, with all that fluxes through boundaries and values on them are made of."""
        system, problem = self.at(t), self._problem_at(t, self._given)
        assembly = copy.copy(system.assembly)
        assembly.problem = problem
        return replace(system, assembly=assembly)

    def _problem_at(self, t: Time, walls: Mapping[Key, Moving]) -> Problem:
        grid = self.problem.grid
        time: Number = t.reshape(*t.shape, *[1] * grid.dimension) if isinstance(t, Tensor) and t.ndim else t
        fields = {name: moving.at(t) for name, moving in self.fields.items()}
        return self.problem.at(time, fields, {key: moving.at(t) for key, moving in walls.items()})

    def _affine_parts(self, problem: Problem) -> tuple[tuple[Tensor, ...], dict[JetKey, JetMap]]:
        """The right sides, and the derivatives that boundary values have a share in."""
        if not self.walls:
            return self.system.sources, {}
        if not self.local:
            assembly = Assembly(problem)
            return tuple(assembly.right_sides), {key: jet_map(assembly, *key) for key in self.jets}
        sources = list(self.system.sources)
        data: dict[JetKey, Number] = {}
        for key in self.walls:
            shares, value = self._shares[key], problem.walls(key[0])[key[1]].value
            for row, share in shares.rows.items():
                sources[row] = sources[row] + share.of(value)
            for name, share in shares.jets.items():
                data[name] = data.get(name, self.jets[name].datum) + share.of(value)
        return tuple(sources), {name: replace(self.jets[name], datum=datum) for name, datum in data.items()}

    def _unit_response(self, key: Key) -> _Shares:
        problem, grid = self.problem, self.problem.grid
        one = torch.ones((1,) * grid.dimension, dtype=grid.dtype, device=grid.device)
        everywhere = {(name, number): 0.0 for name in problem.unknowns for number in range(len(problem.walls(name)))}
        unit = problem.at(0.0, {}, {**everywhere, key: one})
        unit.sources = [[] for _ in problem.sources]
        assembly = Assembly(unit)
        wall = unit.walls(key[0])[key[1]]
        rows = {row: self._share(wall, right) for row, right in enumerate(assembly.right_sides)}
        jets = {name: self._share(wall, jet_map(assembly, *name).datum) for name in self.jets if name[0] == key[0]}
        return _Shares(
            {row: share for row, share in rows.items() if share is not None},
            {name: share for name, share in jets.items() if share is not None},
        )

    def _share(self, wall: Wall, response: Number) -> _Share | None:
        if not isinstance(response, Tensor):
            return None
        if not may_carry_derivatives(response) and not bool(response.any()):
            return None
        place, dimension = wall.place, self.problem.grid.dimension
        if not isinstance(place, Slab):
            return _Share(response, None)
        n = self.problem.grid.shape[place.axis]
        depth = min(n, 2 if self.problem.order == 4 else 1)
        start = n - depth if wall.side else 0
        pad = [0, 0] * (dimension - 1 - place.axis) + [start, n - depth - start]
        return _Share(response.narrow(place.axis - dimension, start, depth), pad)


@dataclass(frozen=True, eq=False)
class _Share:
    """What the value on a wall contributes to a field: `weight` times it, filled up with zeros to the grid's shape."""

    weight: Tensor
    pad: list[int] | None

    def of(self, value: Number) -> Tensor:
        share = self.weight * value
        return share if self.pad is None else torch.nn.functional.pad(share, self.pad)


@dataclass(frozen=True, eq=False)
class _Shares:
    """Of one wall, by number of the row and by derivative."""

    rows: dict[int, _Share]
    jets: dict[JetKey, _Share]


def _row_at(row: Row, problem: Problem, moved: Mapping[int, JetMap]) -> Row:
    def new(jet: JetMap) -> JetMap:
        return moved.get(id(jet), jet)

    return replace(
        row,
        jets={symbol: new(jet) for symbol, jet in row.jets.items()},
        upwind={symbol: (new(before), new(after)) for symbol, (before, after) in row.upwind.items()},
        fluxes={
            symbol: flux.at(problem, {tangent: new(jet) for tangent, jet in flux.tangents.items()})
            for symbol, flux in row.fluxes.items()
        },
    )
