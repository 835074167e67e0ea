"""Functions of the coordinates and the time, kept by what they gave at some times, as files hold them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .errors import InputError

Lookup = Callable[[tuple[Tensor, ...]], Tensor]
"""The coordinates of places -> values there `(time, ...)`."""


class AtTimes:
    """A function of the coordinates and the time that another one was when it was saved.

    Args:
        lookup: finds the values by the coordinates.
        times: when they were taken.
        dimension: number of coordinates.
        name: of the function, for messages.
        slopes: finds its derivatives in time, where these are asked for.

    Attributes:
        strict: whether other times are refused; a discretization that is being made asks at 0 to see the shape.
    """

    def __init__(self, lookup: Lookup, times: Tensor, dimension: int, name: str, slopes: Lookup | None = None) -> None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        words = (*"xyz"[:dimension], "t")
        self.__signature__ = inspect.Signature([inspect.Parameter(word, kind) for word in words])
        self.strict = False
        self._lookup, self._slopes, self._times, self._name = lookup, slopes, times.cpu(), name

    def __call__(self, *arguments: Tensor) -> Tensor:
        *coordinates, t = arguments
        places, index = tuple(coordinates), self._place(t)
        value = self._lookup(places)[index]
        if self._slopes is None or not isinstance(t, Tensor):
            return value
        return value + self._slopes(places)[index] * (t - self._times[index].to(t.device, t.dtype))

    def _place(self, t: Tensor | float) -> int:
        asked = torch.as_tensor(t).detach().to("cpu", torch.float64).reshape(-1)
        away = (self._times[:, None] - asked).abs().amax(1)
        place = int(away.argmin())
        close = 1e-6 * max(float(self._times.abs().max()), float(self._times[-1] - self._times[0]))
        if self.strict and float(away[place]) > close:
            raise InputError(
                f"{self._name} was read from a file, which has its values at the {len(self._times)} times of the "
                f"solution only, and not at t = {float(asked[0]):.6g}: give the function in its place"
            )
        return place


def anywhere(values: Tensor) -> Lookup:
    """The same values `(time, ...)` whatever the places."""
    return lambda _: values


def at_places(values: Tensor, places: Sequence[Tensor], name: str) -> Lookup:
    """Values `(time, ..., n)` at n places; fewer of them may be asked for, with the same coordinates.

    Args:
        values: a last axis of 1 stands for all places.
        places: the coordinates, `(n,)` each.
        name: of the function, for messages.
    """
    known = torch.stack(tuple(places), -1).detach()

    def lookup(coordinates: tuple[Tensor, ...]) -> Tensor:
        asked = torch.stack(torch.broadcast_tensors(*coordinates), -1).detach()
        if values.shape[-1] == 1 or torch.equal(asked, known):
            return values
        _, group = torch.cat((known, asked)).unique(dim=0, return_inverse=True)
        where = torch.full((int(group.max()) + 1,), -1, device=group.device)
        where[group[: len(known)]] = torch.arange(len(known), device=group.device)
        found = where[group[len(known) :]]
        if bool((found < 0).any()):
            raise InputError(
                f"{name} was read from a file, which has its values at {len(known)} places of the mesh only: give the "
                "function in its place"
            )
        return values[..., found]

    return lookup


def over_times(function: Callable[[Tensor], Tensor], times: Tensor) -> Tensor:
    """`(time, ...)`, a function of the time at all of them."""
    found = torch.broadcast_tensors(*(function(t) for t in times))
    return torch.stack(found)
