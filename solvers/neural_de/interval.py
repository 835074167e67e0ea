"""Intervals of time that models integrate over, and the times at which their values are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Real

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.solution import Solution

from .regularizers import Regularizer
from .steer import Steer


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
    onto its ends where they are these but for the rounding of float32.

    Raises:
        InputError: for times that do not increase, or lie outside of the interval.
    """
    if times is None:
        return interval or (0.0, 1.0), None
    if isinstance(times, Tensor):
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
    found[0] = _put_onto(found[0], start, start - found[0], end - start)
    found[-1] = _put_onto(found[-1], end, found[-1] - end, end - start)
    for place, time in enumerate(found):
        if not start <= time <= end:
            raise InputError(f"times[{place}] = {time} lies outside the interval of integration, from {start} to {end}")
    return (start, end), tuple(found)


def _put_onto(time: float, end: float, beyond: float, length: float) -> float:
    """The end of an interval in place of a time that is so little beyond it, or so close to it, that float32 cannot
    tell; times within are apart from it however short they are against the interval, as those of a logarithmic scale.
    """
    close = 1e-6 * length if beyond > 0 else 2e-7 * abs(end)
    return end if abs(time - end) <= close else time


def steered(
    terms: Sequence[tuple[float, Regularizer]], span: tuple[float, float], wanted: tuple[float, ...] | None
) -> tuple[tuple[float, float], tuple[float, ...] | None]:
    """Interval and times as `Steer` moves them, if it is among the terms."""
    steer = next((term for _, term in terms if isinstance(term, Steer)), None)
    if steer is None:
        return span, wanted
    start, end = span
    if wanted is None:
        return (start, steer.end(start, end)), None
    moved = steer.moved((start, *wanted) if wanted[0] > start else wanted)
    if wanted[0] > start:
        moved = moved[1:]
    return (start, max(end, moved[-1])), moved


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
