"""One step of a learned multigrid hierarchy: cells are joined in pairs along an axis, as a small network says."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciml.errors import InputError

from ..settings import check_count
from .multigrid_conductances import Conductances, outer

FEATURES, ANSWERS = 7, 6
_LEAST = 1e-5
"""Bounds the ratio of a conductance to a smaller one, so that it stays a number where that one is zero."""
_LEAST_WEIGHT = 1e-20
_FLOOR = 1e-16
"""Shares below this count as this: the root of a root has no slope at zero."""


class CoarseningNetwork(nn.Module):
    """What is learned of a multigrid cycle: three layers, run once for every member of every pair of cells.

    Seen from one member of a pair, the shares of the pair's conductances (outward, between the two, outward of the
    mate, across of its own and of the mate, grounds of both), raised to the power 1/4, are mapped to six numbers, which
    correct the rules of `coarsen`; zeros leave these as they are. Dimensionless throughout, so a multiple of an
    operator gives the same cycle.

    Args:
        width: of the two hidden layers.
        sweeps: smoothing steps before and after a correction on the finest grid; one more on every coarser one.
        dimensions: numbers of axes it was trained for.
        seed: of the first weights.

    Raises:
        InputError: settings out of range.

    Attributes:
        settings: width, sweeps and dimensions, in JSON's values.
        smoothing: logarithm of the lower end of the interval that is smoothed, as a share of its upper end, times the
            square of the number of steps.
        correction: logarithm of the factor on corrections from the coarser grid.
        mismatch: logarithm of the weight of the energy by which neighbours' interpolations differ.
    """

    def __init__(self, width: int = 16, sweeps: int = 3, dimensions: Sequence[int] = (1, 2, 3), seed: int = 0) -> None:
        super().__init__()
        check_count(width, "CoarseningNetwork: width")
        check_count(sweeps, "CoarseningNetwork: sweeps")
        some = isinstance(dimensions, Sequence) and len(dimensions) > 0
        if not some or any(number not in (1, 2, 3) for number in dimensions):
            raise InputError(f"CoarseningNetwork: dimensions are some of 1, 2 and 3, got {dimensions!r}")
        self.width, self.sweeps, self.dimensions = width, sweeps, tuple(dimensions)
        self.settings: dict[str, Any] = {"width": width, "sweeps": sweeps, "dimensions": list(dimensions)}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first = nn.Linear(FEATURES, width)
            self.second = nn.Linear(width, width)
            self.last = nn.Linear(width, ANSWERS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.smoothing = nn.Parameter(torch.tensor(0.0))
        self.correction = nn.Parameter(torch.tensor(0.0))
        self.mismatch = nn.Parameter(torch.tensor(math.log(0.1)))

    def like(self, field: Tensor) -> CoarseningNetwork:
        """The same in the dtype and on the device of a field."""
        here = self.smoothing
        return self if (here.dtype, here.device) == (field.dtype, field.device) else copy.deepcopy(self).to(field)

    def forward(self, features: Tensor) -> Tensor:
        """Answers `(..., 6)` to features `(..., 7)`."""
        hidden = torch.relu(self.second(torch.relu(self.first(features))))
        answers: Tensor = self.last(hidden)
        return answers


@dataclass(frozen=True)
class PairTransfer:
    """Interpolation from pairs to their members along one axis, and its transpose.

    A member takes its own pair's value times `own`, and that of the pair on its other side times `outward`.

    Attributes:
        own, outward: of the first and of the second members, `(*batch, *coarse space)` each.
        axis: from the end, negative.
        cells: fine cells along it.
        periodic: whether it wraps.
    """

    own: tuple[Tensor, Tensor]
    outward: tuple[Tensor, Tensor]
    axis: int
    cells: int
    periodic: bool

    def prolong(self, coarse: Tensor) -> Tensor:
        """P times a field of the pairs."""
        low, high = outer(coarse, self.axis, self.periodic)
        first = self.own[0] * coarse + self.outward[0] * low
        second = self.own[1] * coarse + self.outward[1] * high
        return interleaved(first, second, self.axis, self.cells)

    def restrict(self, fine: Tensor) -> Tensor:
        """P^T times a field of the cells."""
        first, second = members(fine, self.axis)
        to_low, to_high = self.outward[0] * first, self.outward[1] * second
        from_high, from_low = outer(to_low, self.axis, self.periodic)[1], outer(to_high, self.axis, self.periodic)[0]
        return self.own[0] * first + self.own[1] * second + from_high + from_low


def members(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The first and the second members of the pairs along an axis; zeros for a mate that is missing."""
    first, second = _every_second(x, axis, 0), _every_second(x, axis, 1)
    if x.shape[axis] % 2:
        second = torch.cat([second, torch.zeros_like(first.narrow(axis, 0, 1))], axis)
    return first, second


def interleaved(first: Tensor, second: Tensor, axis: int, cells: int) -> Tensor:
    """The field whose members along an axis these are."""
    shape = list(first.shape)
    shape[axis] *= 2
    place = first.ndim + axis + 1
    return torch.stack([first, second], place).reshape(shape).narrow(axis, 0, cells)


def positive(x: Tensor) -> Tensor:
    """x + sqrt(1 + x^2), the exponential of arsinh x: positive, 1 at 0, and inverted by a change of sign.

    Of x within 8 of zero: no rule is corrected by a factor beyond 16.
    """
    x = x.clamp(-8.0, 8.0)
    return x + torch.sqrt(1 + x * x)


def coarsen(fine: Conductances, axis: int, network: CoarseningNetwork) -> tuple[Conductances, PairTransfer]:
    """Join the cells in pairs along an axis.

    A pair's value stands between its members, nearer to the one of larger conductances. From there to the value of the
    next pair lead, in series, a part of the conductance between the members, the face between the pairs, and a part of
    that between the members of the next; interpolation to a member is linear along that line. Conductances across go
    with the members, as these are interpolated from the one pair or the other. Where neighbours across a face are
    interpolated with different weights, the energy of that difference is added to the conductance between the pairs.
    A member's ground goes to the pairs in the shares in which it is interpolated from them, which bounds its energy
    however much it differs from its neighbours'. The network corrects each of these rules by factors.

    Args:
        fine: the network of conductances.
        axis: along which to join, from 0.
        network: gives the corrections.
    """
    axes = len(fine.edges)
    place, n, periodic = axis - axes, fine.space[axis], fine.periodic[axis]
    faces = fine.edges[axis]
    across = fine.incident([other for other in range(axes) if other != axis])
    out_first, _ = members(faces.narrow(place, 0, n), place)
    inner, out_second = members(faces.narrow(place, 1, n), place)
    across_first, across_second = members(across, place)
    all_first, all_second = out_first + inner + across_first, inner + out_second + across_second
    ground_first, ground_second = members(fine.ground, place)
    pairs = out_first.shape[place]
    single = torch.zeros_like(inner, dtype=torch.bool)
    if n % 2:
        single.narrow(place, pairs - 1, 1).fill_(True)
        all_second = torch.where(single, 0.0, all_second)
        out_second, inner = torch.where(single, inner, out_second), torch.where(single, 0.0, inner)

    shares = [out_first, inner, out_second, across_first, across_second, ground_first, ground_second]
    total = sum(shares[1:], shares[0])
    total = torch.where(total > 0, total, 1.0)
    seen = [(share / total).clamp(min=_FLOOR).sqrt().sqrt() for share in shares]
    first = network(torch.stack(seen, -1)).unbind(-1)
    second = network(torch.stack([seen[k] for k in (2, 1, 0, 4, 3, 6, 5)], -1)).unbind(-1)

    alive = all_first > 0, all_second > 0
    weight_first = torch.where(alive[0], all_first * positive(first[5]), 0.0)
    weight_second = torch.where(alive[1], all_second * positive(second[5]), 0.0)
    weights = torch.where(alive[0] | alive[1], weight_first + weight_second, 1.0)
    alone = single | ~alive[0] | ~alive[1]
    away_first = torch.where(alone, 0.0, weight_second / weights * positive(first[0]))
    away_second = torch.where(alone, 0.0, weight_first / weights * positive(second[0]))
    away_first = away_first * _over(out_first, inner)
    away_second = away_second * _over(out_second, inner)

    def beside(first: Tensor, second: Tensor, wall: float) -> tuple[Tensor, Tensor]:
        """What stands before and behind every face between pairs."""
        last, begin = second.narrow(place, pairs - 1, 1), first.narrow(place, 0, 1)
        before = last if periodic else torch.full_like(last, wall)
        behind = begin if periodic else torch.full_like(begin, wall)
        return torch.cat([before, second], place), torch.cat([first, behind], place)

    between = torch.cat([out_first.narrow(place, 0, 1), out_second], place)
    away_low, away_high = beside(away_first, away_second, 0.0)
    length = 1 + away_low + away_high
    factor_low, factor_high = beside(positive(first[2]), positive(second[2]), 1.0)
    along = between / length * factor_low * factor_high
    to_high = torch.where(between > 0, away_low / length, 0.0).narrow(place, 1, pairs)
    to_low = torch.where(between > 0, away_high / length, 0.0).narrow(place, 0, pairs)
    along = along + torch.exp(network.mismatch) * _mismatch(fine, axis, to_low, to_high, between, beside)

    factor = positive(0.5 * (first[3] + second[3]))
    edges = []
    for other, across_faces in enumerate(fine.edges):
        if other == axis:
            edges.append(along)
            continue
        one, two = members(across_faces, place)
        below = one * _of_both(to_low, other - axes, fine.periodic[other])
        above = two * _of_both(to_high, other - axes, fine.periodic[other])
        to_next, to_previous = outer(above, place, periodic)[0], outer(below, place, periodic)[1]
        before, behind = _around(factor, other - axes, fine.periodic[other])
        edges.append((one - below + two - above + to_next + to_previous) * before * behind)
    ground_first = torch.where(alive[0], ground_first * positive(first[4]), 0.0)
    ground_second = torch.where(alive[1], ground_second * positive(second[4]), 0.0)
    from_previous, from_next = (outer(x, place, periodic) for x in (ground_second * to_high, ground_first * to_low))
    ground = ground_first * (1 - to_low) + ground_second * (1 - to_high) + from_previous[0] + from_next[1]
    scale_first = torch.where(alive[0], positive(first[1]), 0.0)
    scale_second = torch.where(alive[1] & ~single, positive(second[1]), 0.0)
    transfer = PairTransfer(
        (scale_first * (1 - to_low), scale_second * (1 - to_high)),
        (scale_first * to_low, scale_second * to_high),
        place,
        n,
        periodic,
    )
    return Conductances(tuple(edges), ground, fine.periodic), transfer


def _over(outward: Tensor, inner: Tensor) -> Tensor:
    """outward / inner, at most 1e5."""
    least = inner + _LEAST * outward
    return outward / torch.where(least > 0, least, 1.0)


def _mismatch(
    fine: Conductances,
    axis: int,
    to_low: Tensor,
    to_high: Tensor,
    between: Tensor,
    beside: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]],
) -> Tensor:
    """At every face between pairs, half of c (w - w')^2 summed over the faces across next to its two members."""
    axes = len(fine.edges)
    place, n = axis - axes, fine.space[axis]
    weight = interleaved(to_low, to_high, place, n)
    energy = torch.zeros_like(weight)
    for other, faces in enumerate(fine.edges):
        if other == axis:
            continue
        across, cells = other - axes, fine.space[other]
        low, high = outer(weight, across, fine.periodic[other])
        below, above = faces.narrow(across, 0, cells), faces.narrow(across, 1, cells)
        if not fine.periodic[other]:  # walls have no weights to differ from
            below = torch.cat(
                [torch.zeros_like(below.narrow(across, 0, 1)), below.narrow(across, 1, cells - 1)], across
            )
            above = torch.cat(
                [above.narrow(across, 0, cells - 1), torch.zeros_like(above.narrow(across, 0, 1))], across
            )
        energy = energy + 0.5 * (below * (weight - low) ** 2 + above * (weight - high) ** 2)
    first, second = members(energy, place)
    low, high = beside(first, second, 0.0)
    return torch.where(between > 0, low + high, 0.0)


def _of_both(weight: Tensor, axis: int, periodic: bool) -> Tensor:
    """At every face across an axis the share of its conductance that goes to the next pair.

    With the outward weights w and v of the members beside it: w v / (w v + (1 - w) (1 - v)), and v = w at a wall.
    """
    first, last = weight.narrow(axis, 0, 1), weight.narrow(axis, weight.shape[axis] - 1, 1)
    before = torch.cat([last if periodic else first, weight], axis)
    behind = torch.cat([weight, first if periodic else last], axis)
    both, neither = before * behind, (1 - before) * (1 - behind)
    return both / (both + neither).clamp(min=_LEAST_WEIGHT)


def _around(x: Tensor, axis: int, periodic: bool) -> tuple[Tensor, Tensor]:
    """What stands before and behind every face across an axis, 1 outside."""
    one = torch.ones_like(x.narrow(axis, 0, 1))
    before = x.narrow(axis, x.shape[axis] - 1, 1) if periodic else one
    behind = x.narrow(axis, 0, 1) if periodic else one
    return torch.cat([before, x], axis), torch.cat([x, behind], axis)


def _every_second(x: Tensor, axis: int, start: int) -> Tensor:
    place = x.ndim + axis
    return x[(slice(None),) * place + (slice(start, None, 2),)]
