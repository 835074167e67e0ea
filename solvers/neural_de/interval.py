"""Intervals of time that models integrate over, and the times at which their values are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.noise import Noise, TorchsdeNoise
from sciml.solution import Solution

from .regularizers import Regularizer
from .steer import Steer

_ULPS = 4  # by which a time may differ from an end and be meant by it
_SHARE = 1e-3  # of the interval, the most that this may be
_BEYOND = 1e-6  # of the interval, by which any time may lie beyond it


def checked_interval(interval: tuple[float, float]) -> tuple[float, float]:
    """An interval of time.

    Raises:
        InputError: if it is none.
    """
    if not (
        isinstance(interval, tuple | list)
        and len(interval) == 2
        and all(isinstance(end, Real) and isfinite(end) for end in interval)
        and interval[0] < interval[1]
    ):
        raise InputError(f"interval is a pair (t0, t1) of times, t0 before t1, got {interval!r}")
    return float(interval[0]), float(interval[1])


def spread_times(
    interval: tuple[float, float] | None, times: Sequence[float] | Tensor | None
) -> tuple[tuple[float, float], tuple[float, ...] | None]:
    """The interval that is integrated over, and the times that are asked for, of which the first and the last are put
    onto its ends where they are these but for rounding: that of float32 if they come as such a tensor, else of float64.

    Raises:
        InputError: for times that do not increase, or lie outside of the interval.
    """
    if times is None:
        return interval or (0.0, 1.0), None
    precision = torch.float64
    if isinstance(times, Tensor):
        if times.dtype == torch.float32:
            precision = torch.float32
        if times.requires_grad:
            raise InputError("times asks for a gradient, and there is none with respect to times: give times.detach()")
        if times.ndim != 1:
            raise InputError(f"times is a list of numbers, got a tensor of shape {tuple(times.shape)}")
        times = times.detach().to("cpu", torch.float64).tolist()
    try:
        found = [float(time) for time in times]
    except (TypeError, ValueError) as error:
        raise InputError(f"times is a list of numbers, increasing, got {times!r}") from error
    if not found or (interval is None and len(found) < 2):
        raise InputError(
            f"times: at least one is needed, and two where they are to say the interval, got {len(found)}; "
            "or give the model an interval, interval=(t0, t1)"
        )
    for place, time in enumerate(found):
        if not isfinite(time) or (place and time <= found[place - 1]):
            raise InputError(f"times must increase: times[{place}] is {time}, after {found[max(place - 1, 0)]}")
    start, end = interval or (found[0], found[-1])
    if len(found) == 1 or found[1] > start:
        found[0] = _put_onto(start, found[0], (start, end), precision)
    if len(found) == 1 or found[-2] < end:
        found[-1] = _put_onto(end, found[-1], (start, end), precision)
    for place, time in enumerate(found):
        if not start <= time <= end:
            raise InputError(f"times[{place}] = {time} lies outside the interval of integration, from {start} to {end}")
    return (start, end), tuple(found)


def _put_onto(end: float, time: float, span: tuple[float, float], precision: torch.dtype) -> float:
    """One end of an interval in place of a time that differs from it by rounding alone. Times within are apart from it
    however short they are against the interval, as those of a logarithmic scale; a time beyond has no value of its own.
    """
    length, inside = span[1] - span[0], span[0] <= time <= span[1]
    larger = max(map(abs, (time, end) if inside else span))
    close = min(_ULPS * torch.finfo(precision).eps * larger, _SHARE * length)
    return end if abs(time - end) <= (close if inside else max(close, _BEYOND * length)) else time


def steered(
    terms: Sequence[tuple[float, Regularizer]], span: tuple[float, float], wanted: tuple[float, ...] | None
) -> tuple[tuple[float, float], tuple[float, ...] | None]:
    """Interval and times as `Steer` moves them, if it is among the terms."""
    steer = _steer_of(terms)
    if steer is None:
        return span, wanted
    start, end = span
    if wanted is None:
        return (start, steer.end(start, end)), None
    moved = steer.moved((start, *wanted) if wanted[0] > start else wanted)
    if wanted[0] > start:
        moved = moved[1:]
    return (start, max(end, moved[-1])), moved


def check_reach(
    terms: Sequence[tuple[float, Regularizer]],
    span: tuple[float, float],
    wanted: tuple[float, ...] | None,
    path: Any,
) -> None:
    """Refuse a path of noise that ends before the latest time which `Steer`, if it is among the terms, may draw.

    Args:
        terms: pairs of weight and regularizer.
        span, wanted: interval and times before they are moved.
        path: a `Noise`, or a Brownian motion of torchsde.

    Raises:
        InputError: for such a path, one that is none, or a width that does not fit the interval.
    """
    steer = _steer_of(terms)
    if steer is None:
        return
    noise = path if isinstance(path, Noise) else TorchsdeNoise(path)
    start, end = span
    if wanted is None:
        latest, what = steer.latest_end(start, end), "draws the end of the interval"
    else:
        latest = max(end, steer.latest_moved((start, *wanted) if wanted[0] > start else wanted))
        what = "moves times by up to half of the interval before each,"
    if noise.end < latest - 1e-10 * (latest - start):
        raise InputError(
            f"Steer: with width {steer.width:g} it {what} up to {latest:g}, and the path is known from {noise.start:g} "
            f"to {noise.end:g}: give one from {start:g} to {latest:g}"
        )


def _steer_of(terms: Sequence[tuple[float, Regularizer]]) -> Steer | None:
    return next((term for _, term in terms if isinstance(term, Steer)), None)


def all_times(span: tuple[float, float], wanted: tuple[float, ...] | None) -> tuple[float, ...]:
    """The times of a solution: both ends of the interval, and those that are asked for."""
    start, end = span
    if wanted is None:
        return span
    return (*((start,) if wanted[0] > start else ()), *wanted, *((end,) if wanted[-1] < end else ()))


def at_times(solution: Solution, known: tuple[float, ...], wanted: tuple[float, ...] | None) -> Tensor:
    """The values of a solution at some of its times, `(*batch, time, *space)`; at its end for None, without the axis
    of time."""
    axis = solution.codes.ndim
    if wanted is None:
        return solution.value.select(axis, -1)
    return solution.value.narrow(axis, known.index(wanted[0]), len(wanted))
