"""Looks for events within accepted steps, and keeps the rows that stop at one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.evolving import EvolvingSystem, Time

from .events import Event, locate
from .stepper import Attempt, Stepper, by_row

# Offsets and weights of the derivative of order 4 from five values, Fornberg, Math. Comp. 51 (1988) 699-706.
_CENTRAL = ((-2.0, 1 / 12), (-1.0, -2 / 3), (0.0, 0.0), (1.0, 2 / 3), (2.0, -1 / 12))
_FORWARD = ((0.0, -25 / 12), (1.0, 4.0), (2.0, -3.0), (3.0, 4 / 3), (4.0, -1 / 4))


class EventSearch:
    """The events of one run.

    Attributes:
        stopped: which rows have stopped, None as long as all go on; the states of these are no longer looked at.
        stopped_at: when, float64 of batch shape, infinite for the rows that go on.
        over: whether all rows have stopped.

    Args:
        events: what to look for.
        system: whose states are looked at.
        stepper: one of its own, which takes the part of a step up to an event where a step cannot be interpolated; None
            where all can.
        batch: shape of the batch.
    """

    def __init__(
        self, events: tuple[Event, ...], system: EvolvingSystem, stepper: Stepper | None, batch: tuple[int, ...]
    ) -> None:
        self._events = events
        self._system = system
        self._stepper = stepper
        self._batch = batch
        self.stopped: Tensor | None = None
        self.over = False

    @property
    def evaluations(self) -> int:
        """How often the search has evaluated the right-hand side of the batch."""
        return 0 if self._stepper is None else self._stepper.counts()["evaluations"]

    def begin(self, y: Tensor, t: float) -> None:
        """Take the signs at the start."""
        self._before = self._values(y, t)
        never = torch.full(self._batch, torch.nan, dtype=torch.float64, device=y.device)
        self._times: list[Tensor] = [never] * len(self._events)
        self._states: list[Tensor] = [torch.zeros_like(y.detach())] * len(self._events)
        self.stopped_at = torch.full_like(never, torch.inf)
        self._held = torch.zeros_like(y.detach())

    def look(self, y: Tensor, attempt: Attempt, t: Time, h: Time, over: Tensor | None = None) -> None:
        """Look into an accepted step.

        Args:
            y: the states at its start.
            attempt: the step.
            t, h: its start and size; of steps with a size of their own for every row one number a row, and a row whose
                step was not accepted has the value of `attempt` that it had before.
            over: rows that have ended for another reason.
        """
        after = self._values(attempt.value, t + h)
        crossed = torch.stack([e.crossed(*ends) for e, *ends in zip(self._events, self._before, after, strict=True)])
        crossed &= torch.stack(self._times).isnan()
        for gone in (self.stopped, over):
            if gone is not None:
                crossed &= ~gone
        if bool(crossed.any()):
            step = _Step(self._stepper, y, attempt, t, h)
            places = [
                self._locate(*part, step) for part in zip(self._events, self._before, after, crossed, strict=True)
            ]
            self._keep(places, step)
        self._before = after

    def hold(self, state: Tensor, t: Time) -> Tensor:
        """A state at a time, with the states at their events of the rows that stopped before it."""
        if self.stopped is None:
            return state
        return torch.where(_spread(self.stopped_at <= t, state), self._held, state)

    def results(self) -> tuple[dict[str, Tensor], ...]:
        """For each event its times and fields; see `Event`."""
        found = []
        for times, state in zip(self._times, self._states, strict=True):
            value = self._system.decode(state)
            unseen = _spread(times.detach().isnan(), value)
            found.append({"time": times, "value": torch.where(unseen, torch.nan, value)})
        return tuple(found)

    def _values(self, y: Tensor, t: Time) -> list[Tensor]:
        """Of all events, without derivatives."""
        with torch.no_grad():
            t = torch.as_tensor(t, dtype=torch.float64, device=y.device).expand(self._batch)
            u = self._system.decode(y.detach())
            return [event.value(u, t).detach() for event in self._events]

    def _locate(self, event: Event, before: Tensor, after: Tensor, rows: Tensor, step: _Step) -> Tensor:
        """Where in a step an event happens to these rows; infinite for the others."""

        def function(theta: Tensor, asked: Tensor) -> Tensor:
            return event.value(self._system.decode(step.at(theta, asked).detach()), step.time(theta)).detach()

        with torch.no_grad():
            return torch.where(rows, locate(function, before, after, rows, event.tolerance), torch.inf)

    def _keep(self, places: list[Tensor], step: _Step) -> None:
        """Remember times and states of what happened to rows before they stopped."""
        stop = [place for event, place in zip(self._events, places, strict=True) if event.stop]
        first = torch.stack(stop).amin(0) if stop else torch.full_like(places[0], torch.inf)
        for number, (event, place) in enumerate(zip(self._events, places, strict=True)):
            rows = place.isfinite() & (place <= first)
            if not bool(rows.any()):
                continue
            state, time = self._moving(event, rows, torch.where(rows, place, 1.0), step)
            self._times[number] = torch.where(rows, time, self._times[number])
            self._states[number] = torch.where(_spread(rows, state), state, self._states[number])
            if event.stop:
                self.stopped_at = torch.where(rows, time.detach(), self.stopped_at)
                self._held = torch.where(_spread(rows, state), state, self._held)
                self.stopped = self.stopped_at.isfinite()
        self.over = self.stopped is not None and bool(self.stopped.all())

    def _moving(self, event: Event, rows: Tensor, theta: Tensor, step: _Step) -> tuple[Tensor, Tensor]:
        """State and time of an event with the derivatives that the implicit function theorem gives them."""
        state, time = step.at(theta, rows), step.time(theta)
        # The function is differentiated at the states of the event alone, where the others cannot make it infinite.
        flat = state.detach().reshape(rows.numel(), -1)
        other = flat[rows.reshape(-1).int().argmax()].reshape(self._system.state_space)
        value = event.value(self._system.decode(torch.where(_spread(rows, state), state, other)), time)
        if not (value.requires_grad or forward_ad._current_level >= 0):
            return state, time
        with torch.no_grad():
            width = torch.finfo(state.dtype).eps ** 0.2
            early = theta < 2 * width  # no step goes back in time
            slope, speed = torch.zeros_like(state), torch.zeros_like(value)
            for middle, start in zip(theta.new_tensor(_CENTRAL), theta.new_tensor(_FORWARD), strict=True):
                place = theta + width * torch.where(early, start[0], middle[0])
                weight = torch.where(early, start[1], middle[1])
                end = step.at(place, rows).detach()
                slope += by_row(weight, state) * end
                speed += weight.to(value.dtype) * event.value(self._system.decode(end), step.time(place)).detach()
            duration = torch.where(rows, torch.ones_like(theta) * width * step.h, 1.0)
            slope, speed = slope / by_row(duration, state), speed / duration
            inverse = torch.where(rows & (speed != 0), 1 / speed, 0.0)
        moved = torch.where(rows, value - value.detach(), 0.0) * -inverse
        return state + slope * by_row(moved, state), time + moved


class _Step:
    """An accepted step, within which states are asked for.

    Attributes:
        h: its size.
    """

    def __init__(self, stepper: Stepper | None, y: Tensor, attempt: Attempt, t: Time, h: Time) -> None:
        self._stepper, self._y, self._attempt, self._t, self.h = stepper, y, attempt, t, h
        self._memories: dict[bool, Any] = {}

    def time(self, theta: Tensor) -> Tensor:
        return self._t + theta * self.h

    def at(self, theta: Tensor, rows: Tensor) -> Tensor:
        """The states at t + theta h, right for these rows."""
        attempt, stepper = self._attempt, self._stepper
        if attempt.interpolate is not None or stepper is None:
            return attempt.interpolate(theta) if attempt.interpolate is not None else attempt.value
        t, h, recorded = float(self._t), float(self.h), torch.is_grad_enabled()
        if recorded not in self._memories:
            self._memories[recorded] = stepper.begin(self._y, t)
        state = attempt.value
        # A step has one size for the whole batch, so that rows with an event elsewhere need one more.
        for place in theta[rows].unique().tolist():
            if place != 1.0:
                part = stepper.step(self._y, t, place * h, self._memories[recorded])
                state = torch.where(_spread(rows & (theta == place), state), part.value, state)
        return state


def _spread(rows: Tensor, like: Tensor) -> Tensor:
    """A mask of rows that goes with tensors like this one."""
    return rows.reshape((*rows.shape, *(1,) * (like.ndim - rows.ndim)))
