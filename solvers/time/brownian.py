"""Brownian motion that answers for any interval, always the same."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from math import floor, inf, isfinite, log2, sqrt, ulp
from numbers import Real
from operator import index
from typing import NamedTuple, final

import numpy
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.noise import Noise

from .clock import ends_of_steps

PARTS = 4  # into which a cell is divided at once
_NORMALS = 2 * (PARTS - 1)  # that this takes, for each entry
_ROUNDING = 1e-10  # of an interval between two knots, by which times are taken for the same
_KEY = 0x6A09E667F3BCC908  # beside the seed

# Within an interval of length 1 in which W grows by w and has the integral k, with W = 0 at its start: their covariance
# and its inverse.
_COVARIANCE = numpy.array([[1.0, 0.5], [0.5, 1 / 3]])
_PRECISION = numpy.array([[4.0, -6.0], [-6.0, 12.0]])


class _Cell(NamedTuple):
    """One of PARTS**depth equal parts of the interval that begins at a knot, counted from 0."""

    knot: int
    depth: int
    place: int


class _Position(NamedTuple):
    """A time: `place` finest cells, and `fraction` of the next, after a knot."""

    knot: int
    place: int
    fraction: float


@final
class BrownianPath(Noise):
    """A path of independent Brownian motions, held as a tree of which only the parts in use are kept.

    What is drawn is the pair of the growth w of W and of the integral k of W, both over a cell: for each interval
    between two knots from their law there, and for parts of a cell, which are four, from their law given w and k of the
    whole. Both are Gaussian, and so the law of the path is exact down to the finest cells. The normal numbers of a cell
    come from Philox, a generator that computes them from a key, the seed, and a counter, the name of the cell
    (Salmon et al., SC 2011): so the path depends on knots, shape, seed, levels and kind of device, and on nothing else,
    and is the same to rounding in float32 and in float64. A growth over some cells is computed from these alone, never
    as a difference of large numbers.

    A question about ends of cells a few levels below its own length, as `fitted` makes them, costs a few draws; one
    about other times descends to the finest cells, and takes levels / 2 of them at each end. Within a finest cell W and
    its integral up to one point have their exact law, too, given those of the cell, but of two points in one finest
    cell both come from the same numbers: intervals shorter than it are too smooth.

    Args:
        times: the knots, increasing, at least two, in the unit of time: the path is known between first and last. Best
            are the output times of a run.
        shape: of W, `(*batch, *space)`.
        seed: an integer from 0 to 2**64 - 1. Paths of one seed and other knots or shapes are not independent.
        dtype, device: of the path.
        step: of a run with steps of fixed size, the same number: the ends of its steps are knots, too, and the noise
            of a step is one draw.
        levels: how often the interval between two knots is halved at least, so that its finest cells are
            2**-levels of it.

    Raises:
        InputError: for times that do not increase, and the like.
    """

    def __init__(
        self,
        times: Sequence[float] | Tensor,
        shape: Sequence[int],
        *,
        seed: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        step: float | None = None,
        levels: int = 24,
    ) -> None:
        self.times = _knots(times)
        if step is not None:
            if not isinstance(step, Real) or not 0.0 < step < inf:
                raise InputError(f"step: expected a positive number in the unit of time, got {step!r}")
            self.times = ends_of_steps(self.times, float(step))
        if not isinstance(shape, Sequence) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise InputError(f"shape: expected that of W, positive numbers such as (100, 2), got {shape!r}")
        try:
            number = -1 if isinstance(seed, bool) else index(seed)  # NumPy's integers, too
        except TypeError:
            number = -1
        if not 0 <= number < 2**64:
            raise InputError(f"seed: expected an integer from 0 to 2**64 - 1, got {seed!r}")
        if not isinstance(levels, int) or not 2 <= levels <= 40:
            raise InputError(f"levels: expected a number of halvings from 2 to 40, got {levels!r}")
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise InputError(f"dtype: expected one of real numbers such as torch.float64, got {dtype!r}")
        self.shape = tuple(shape)
        self.seed, self.dtype, self.device = number, dtype, torch.device(device)
        self.levels = levels
        self.start, self.end = self.times[0], self.times[-1]
        self.has_integrals = True
        self._depth = -(-levels // 2)
        self._finest = PARTS**self._depth
        self._length = torch.Size(self.shape).numel()
        self._draw = _Philox(number) if self.device.type == "cpu" else _OfDevice(number, self.device)
        self._whole = torch.tensor([[1.0, 0.0], [0.5, sqrt(1 / 12)]], dtype=dtype, device=self.device)
        self._division = torch.tensor(_division(), dtype=dtype, device=self.device)
        self._kept: dict[_Cell, Tensor] = {}  # parts of the cells that the latest question divided

    def increments(self, t0: float, t1: float) -> tuple[Tensor, Tensor]:
        first, last = self._position(t0), self._position(t1)
        if t1 < t0:
            raise InputError(f"increments(t0, t1): t0 comes first, got {t0!r} and {t1!r}")
        used: dict[_Cell, Tensor] = {}
        pairs: list[Tensor] = []
        spans: list[tuple[float, float]] = []  # length, and time from its end to that of the interval
        end = self._time(last)
        for knot in range(first.knot, last.knot + 1):
            left = first if knot == first.knot else _Position(knot, 0, 0.0)
            right = last if knot == last.knot else _Position(knot, self._finest, 0.0)
            if (left.place, left.fraction) < (right.place, right.fraction):
                self._collect(left, right, end, pairs, spans, used)
        self._kept = used
        if not pairs:
            zero = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
            return zero, zero.clone()
        if len(spans) == 1:  # the end of which is that of the interval
            root = sqrt(spans[0][0])
            growth, integral = pairs[0][0] * root, pairs[0][1] * (spans[0][0] * root)
            return growth.view(self.shape), integral.view(self.shape)
        of_growth: list[float] = []
        of_integral: list[float] = []
        for length, rest in spans:
            root = sqrt(length)
            of_growth += (root, 0.0)
            of_integral += (rest * root, length * root)
        table = torch.tensor((of_growth, of_integral), dtype=self.dtype, device=self.device)
        growth, integral = (table @ (pairs[0] if len(pairs) == 1 else torch.cat(pairs))).unbind()
        return growth.view(self.shape), integral.view(self.shape)

    def fitted(self, t: float, h: float) -> float:
        """The step that ends at an end of cells not longer than h / 8, at most h and more than 7/8 of it; h itself
        where finest cells are longer."""
        end = min(t + h, self.end)
        knot = min(bisect_right(self.times, end), len(self.times) - 1) - 1
        begin, length = self.times[knot], self.times[knot + 1] - self.times[knot]
        halvings = max(0, -floor(log2(h / 8 / length)))
        if halvings > 2 * self._depth or not self.start <= t < end:
            return h
        cell = length / 2**halvings
        found = begin + floor((end - begin) / cell * (1 + 1e-12)) * cell - t
        return found if 0.8 * h < found else h

    # Times

    def _position(self, t: float) -> _Position:
        """Where a time lies; one that rounding may have moved is taken for the end of a cell."""
        slack = _ROUNDING * (self.end - self.start)
        if not self.start - slack <= t <= self.end + slack:
            raise InputError(f"the path is known from {self.start} to {self.end}, and was asked for {t!r}")
        knot = min(max(bisect_right(self.times, t), 1), len(self.times) - 1) - 1
        begin, length = self.times[knot], self.times[knot + 1] - self.times[knot]
        at = (t - begin) / length * self._finest
        near = round(at)
        if abs(at - near) <= min(0.25, self._finest * max(_ROUNDING, 16 * ulp(abs(t)) / length)):
            near = min(max(near, 0), self._finest)
            return _Position(knot, near, 0.0)
        return _Position(knot, floor(at), at - floor(at))

    def _time(self, position: _Position) -> float:
        begin, length = self.times[position.knot], self.times[position.knot + 1] - self.times[position.knot]
        if position.place == self._finest:
            return self.times[position.knot + 1]
        return begin + (position.place + position.fraction) / self._finest * length

    # The tree

    def _collect(
        self,
        left: _Position,
        right: _Position,
        end: float,
        pairs: list[Tensor],
        spans: list[tuple[float, float]],
        used: dict[_Cell, Tensor],
    ) -> None:
        """The largest cells that make up what lies between two positions after one knot: their pairs
        `(2 * count, length)`, and of each its length and the time from its end to `end`."""
        knot, length = left.knot, self.times[left.knot + 1] - self.times[left.knot]

        def add(pair: Tensor, extent: float, until: float) -> None:
            """Parts of equal extent, of which the last ends so many finest cells after the knot."""
            pairs.append(pair)
            count, size = len(pair) // 2, extent / self._finest * length
            rest = end - self._time(_Position(knot, floor(until), until - floor(until)))
            spans.extend((size, max(0.0, rest + (count - 1 - number) * size)) for number in range(count))

        place, stop = left.place, right.place
        if left.fraction:
            until = right.fraction if place == stop else 1.0
            add(
                self._within(_Cell(knot, self._depth, place), left.fraction, until, used),
                until - left.fraction,
                place + until,
            )
            if place == stop:
                return
            place += 1
        while place < stop:
            size, depth = 1, self._depth
            while depth and place % (size * PARTS) == 0 and place + size * PARTS <= stop:
                size, depth = size * PARTS, depth - 1
            at = place // size
            if depth == 0:
                add(self._pair(_Cell(knot, 0, 0), used), size, size)
                return
            first = at % PARTS
            count = min(PARTS - first, (stop - place) // size)
            parts = self._parts(_Cell(knot, depth - 1, at // PARTS), used)
            place += count * size
            add(parts[2 * first : 2 * (first + count)], size, place)
        if right.fraction:
            add(
                self._within(_Cell(knot, self._depth, stop), 0.0, right.fraction, used),
                right.fraction,
                stop + right.fraction,
            )

    def _pair(self, cell: _Cell, used: dict[_Cell, Tensor]) -> Tensor:
        """`(2, length)`: w and k of a cell in units of its own length."""
        if cell.depth:
            part = 2 * (cell.place % PARTS)
            return self._parts(_Cell(cell.knot, cell.depth - 1, cell.place // PARTS), used)[part : part + 2]
        # Those of the whole interval are kept under the name of the one above.
        above = _Cell(cell.knot, -1, 0)
        found = self._kept.get(above) if above not in used else used[above]
        if found is None:
            found = self._whole @ self._normal(above, 2)
        used[above] = found
        return found

    def _parts(self, cell: _Cell, used: dict[_Cell, Tensor]) -> Tensor:
        """`(2 * PARTS, length)`: w and k of the parts of a cell, one after the other, in units of their own length."""
        found = used.get(cell)
        if found is None:
            pair = self._pair(cell, used)  # the cells above are kept, too
            found = self._kept.get(cell)
            if found is None:
                found = self._division @ torch.cat((pair, self._normal(cell, _NORMALS)))
            used[cell] = found
        return found

    def _within(self, cell: _Cell, first: float, last: float, used: dict[_Cell, Tensor]) -> Tensor:
        """`(2, length)`: w and k from one place in a finest cell to another, in units of the length between."""
        known = torch.cat((self._pair(cell, used), self._normal(cell, 2)))
        table = _bridge(last) if last < 1.0 else numpy.eye(2, 4)
        if first:
            before = _bridge(first)
            table = table - before
            table[1] -= (last - first) * before[0]
        length = last - first
        table = table / numpy.array([[sqrt(length)], [length * sqrt(length)]])
        return torch.tensor(table, dtype=self.dtype, device=self.device) @ known

    def _normal(self, cell: _Cell, count: int) -> Tensor:
        """`(count, length)` normal numbers that belong to a cell."""
        return self._draw(cell, count, self._length).to(self.dtype)


class _Philox:
    """Normal numbers from the counter (number of the draw, place, depth, knot) and the key (seed, constant)."""

    def __init__(self, seed: int) -> None:
        self._bits = numpy.random.Philox(0)
        self._generator = numpy.random.Generator(self._bits)
        self._state = self._bits.state
        self._state["state"]["key"] = numpy.array([seed, _KEY], dtype=numpy.uint64)

    def __call__(self, cell: _Cell, count: int, length: int) -> Tensor:
        self._state["state"]["counter"][:] = (0, cell.place, cell.depth + 1, cell.knot)
        self._bits.state = self._state
        return torch.from_numpy(self._generator.standard_normal((count, length)))


class _OfDevice:
    """Normal numbers from the generator of a device, seeded with a hash of seed and cell."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self._seed = seed

    def __call__(self, cell: _Cell, count: int, length: int) -> Tensor:
        name = b"".join(number.to_bytes(8, "little") for number in (self._seed, cell.knot, cell.depth + 1, cell.place))
        self._generator.manual_seed(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1)
        place = self._generator.device
        return torch.randn(count, length, dtype=torch.float64, device=place, generator=self._generator)


def _conditional(covariance: numpy.ndarray, cross: numpy.ndarray) -> numpy.ndarray:
    """The table that takes (w, k, normal numbers) to Gaussian variables given w and k.

    Args:
        covariance: `(n, n)`, of the variables.
        cross: `(n, 2)`, with w and k.
    """
    mean = cross @ _PRECISION
    return numpy.concatenate((mean, numpy.linalg.cholesky(covariance - mean @ cross.T)), axis=1)


@cache
def _division() -> numpy.ndarray:
    """`(2 * PARTS, 2 * PARTS)`: from w and k of a cell of length 1 and normal numbers to w and k of its parts, in units
    of their own length."""
    scale = numpy.array([PARTS**-0.5, PARTS**-1.5])
    own = _COVARIANCE * numpy.outer(scale, scale)
    # w and k of the whole as sums over the parts: k_i, and w_i times what comes after part i.
    sums = numpy.zeros((2, 2 * PARTS))
    sums[0, ::2], sums[1, 1::2] = 1.0, 1.0
    sums[1, ::2] = [1 - (i + 1) / PARTS for i in range(PARTS)]
    covariance = numpy.kron(numpy.eye(PARTS), own)
    free = 2 * (PARTS - 1)
    table = numpy.zeros((2 * PARTS, 2 * PARTS))
    table[:free] = _conditional(covariance[:free, :free], (covariance @ sums.T)[:free])
    # The last part is what the others leave.
    table[free, 0] = table[free + 1, 1] = 1.0
    table[free:] -= sums[:, :free] @ table[:free]
    return table / numpy.tile(scale, PARTS)[:, None]


def _bridge(theta: float) -> numpy.ndarray:
    """`(2, 4)`: from w and k of a cell of length 1 and two normal numbers to W and its integral at one place in it."""
    covariance = numpy.array([[theta, theta**2 / 2], [theta**2 / 2, theta**3 / 3]])
    cross = numpy.array([[theta, theta - theta**2 / 2], [theta**2 / 2, theta**2 / 2 - theta**3 / 6]])
    return _conditional(covariance, cross)


def _knots(times: Sequence[float] | Tensor) -> tuple[float, ...]:
    if isinstance(times, Tensor):
        times = times.detach().to("cpu", torch.float64).tolist()
    if isinstance(times, str):
        raise InputError(f"times: expected a list of increasing numbers, got {times!r}")
    try:
        found = tuple(float(time) for time in times)
    except (TypeError, ValueError) as error:
        raise InputError(f"times: expected a list of increasing numbers, got {times!r}") from error
    if len(found) < 2:
        raise InputError(f"times: expected the start and the end of the path at least, got {len(found)}")
    for place, (first, second) in enumerate(pairwise(found)):
        if not (isfinite(first) and isfinite(second) and first < second):
            raise InputError(f"times must increase: times[{place}] is {first} and times[{place + 1}] is {second}")
    return found
