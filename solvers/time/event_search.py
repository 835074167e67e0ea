"""Looks for events within accepted steps, and holds the rows that stop at one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.evolving import EvolvingSystem

from .events import Event, locate
from .stepper import Attempt, Stepper


class EventSearch:
    """The events of one run.

    Args:
        events: what to look for.
        system: whose states are looked at.
        stepper: takes the part of a step up to an event where a step cannot be interpolated.
        batch: shape of the batch.
    """

    def __init__(
        self, events: tuple[Event, ...], system: EvolvingSystem, stepper: Stepper, batch: tuple[int, ...]
    ) -> None:
        self._events = events
        self._system = system
        self._stepper = stepper
        self._batch = batch
        self._before: list[Tensor] = []
        self._times: list[Tensor] = []
        self._states: list[Tensor | None] = [None] * len(events)
        self._stopped: Tensor | None = None  # when rows stopped, infinite where they go on
        self._held: Tensor | None = None

    def begin(self, y: Tensor, t: float) -> None:
        """Take the signs at the start."""
        self._before = self._values(y, t)
        self._times = [torch.full(self._batch, torch.nan, dtype=y.dtype, device=y.device) for _ in self._events]

    @property
    def over(self) -> bool:
        """Whether all rows have stopped."""
        return self._stopped is not None and bool(torch.isfinite(self._stopped).all())

    def look(self, y: Tensor, attempt: Attempt, t: float, h: float) -> Tensor:
        """The state at the end of an accepted step, where rows that stopped are held."""
        value = self.hold(attempt.value, t + h)
        after = self._values(value, t + h)
        for place, event in enumerate(self._events):
            rows = event.crossed(self._before[place].detach(), after[place].detach()) & self._times[place].isnan()
            if bool(rows.any()):
                for row in rows.reshape(-1).nonzero().squeeze(-1).tolist():
                    self._locate(place, row, y, attempt, t, h, after[place])
        value = self.hold(attempt.value, t + h)
        self._before = self._values(value, t + h) if self._stopped is not None else after
        return value

    def hold(self, state: Tensor, t: float) -> Tensor:
        """A state at a time, with the states at their events of the rows that stopped before it."""
        if self._stopped is None or self._held is None:
            return state
        return torch.where(self._spread(self._stopped <= t), self._held, state)

    def results(self) -> tuple[dict[str, Tensor], ...]:
        """For each event its times and fields; see `Event`."""
        found = []
        for times, state in zip(self._times, self._states, strict=True):
            if state is None:
                state = torch.full((*self._batch, *self._system.state_space), torch.nan, dtype=times.dtype)
            value = self._system.decode(torch.nan_to_num(state).to(times.device))
            axes = (1,) * len(self._system.space)
            unseen = times.detach().isnan().reshape((*self._batch, *axes))
            found.append({"time": times, "value": torch.where(unseen, torch.nan, value)})
        return tuple(found)

    def _values(self, y: Tensor, t: float) -> list[Tensor]:
        u = self._system.decode(y)
        return [event.value(u, t, self._batch) for event in self._events]

    def _spread(self, mask: Tensor) -> Tensor:
        return mask.reshape((*self._batch, *(1,) * len(self._system.state_space)))

    def _locate(self, place: int, row: int, y: Tensor, attempt: Attempt, t: float, h: float, after: Tensor) -> None:
        """Find the event of one row, and remember its time and state."""
        event = self._events[place]

        def state_at(theta: float) -> Tensor:
            if attempt.interpolate is not None:
                return attempt.interpolate(theta)
            return self._stepper.step(y, t, theta * h, self._stepper.begin(y, t)).value

        def function(theta: float) -> float:
            with torch.no_grad():
                u = self._system.decode(state_at(theta))
                return float(event.value(u, t + theta * h, self._batch).reshape(-1)[row])

        left = float(self._before[place].reshape(-1)[row])
        theta = locate(function, left, float(after.reshape(-1)[row]), event.tolerance)
        state, time = state_at(theta), torch.tensor(t + theta * h, dtype=y.dtype, device=y.device)
        if state.requires_grad:
            state, time = self._moving(event, row, state, t, theta, h, function)
        chosen = torch.zeros(self._batch, dtype=torch.bool, device=y.device)
        chosen.reshape(-1)[row] = True
        self._times[place] = torch.where(chosen, time, self._times[place])
        known = self._states[place]
        self._states[place] = torch.where(self._spread(chosen), state, torch.nan if known is None else known)
        if not event.stop:
            return
        if self._stopped is None or self._held is None:
            self._stopped = torch.full(self._batch, torch.inf, dtype=y.dtype, device=y.device)
            self._held = torch.zeros_like(state.detach())
        first = chosen & (time.detach() < self._stopped)
        self._stopped = torch.where(first, time.detach(), self._stopped)
        self._held = torch.where(self._spread(first), state, self._held)

    def _moving(
        self,
        event: Event,
        row: int,
        state: Tensor,
        t: float,
        theta: float,
        h: float,
        function: Callable[[float], float],
    ) -> tuple[Tensor, Tensor]:
        """State and time of an event with the derivatives that the implicit function theorem gives them."""
        time = t + theta * h
        value = event.value(self._system.decode(state), time, self._batch).reshape(-1)[row]
        step = max(1e-6, 10 * event.tolerance)
        low, high = max(0.0, theta - step), min(1.0, theta + step)
        speed = (function(high) - function(low)) / ((high - low) * h)
        moved = -(value - value.detach()) / speed if speed else torch.zeros_like(value)
        slope = self._system.slope(state.detach(), time).detach()
        return state + slope * moved, moved + time
