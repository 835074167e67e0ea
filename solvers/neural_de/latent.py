"""Series with gaps as trajectories of a latent ordinary differential equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite, log
from typing import final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.evolving import Time
from sciml.solution import Solution

from ..time.explicit import ExplicitRungeKutta
from .evidence import LatentDistribution, check_series
from .ode import Adjoint, Backend, NeuralODE
from .regularizers import Regularizer

Encoder = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Of values `(batch, time, channel)`, 0 where not observed, mask of the same shape, and times `(time,)` since that of
the latent state: mean and log-variance of the latent state, each `(batch, latent)`."""


@final
class RecognitionGRU(nn.Module):
    """A gated recurrent network that reads a series backwards and says what the latent state at its start may be.

    At each time at which a series has an observation, the latest first, it takes the observed values, the mask, and the
    time that passed since the observation before (for the earliest: since the start). Times at which a series has none
    are left out, so that the cost goes with the largest number of observations. Values that are not observed have no
    influence.

    The recurrent part is torch.nn.GRU. That of Rubanova et al. (see `LatentODE`) has gates of two layers and carries
    along a second state, called a deviation, by the same gates.

    Args:
        channels: of the series.
        latent: length of the latent state.
        hidden: length of the recurrent state; PhysioNet in the paper: 40.
        units: of the layer between the recurrent and the latent state.
        time_unit: by which times are divided, in the unit of time; about a usual distance of observations.
        at_once: observations that it reads in one step, of which it then takes fewer.
        deviation: standard deviation of the latent states before training; None: about 1, as of the prior, which hides
            small differences of their means from the decoder.

    Raises:
        InputError: for settings that make no network.
    """

    def __init__(
        self,
        channels: int,
        latent: int,
        *,
        hidden: int = 40,
        units: int = 50,
        time_unit: float = 1.0,
        at_once: int = 1,
        deviation: float | None = None,
    ) -> None:
        super().__init__()
        counts = {"channels": channels, "latent": latent, "hidden": hidden, "units": units, "at_once": at_once}
        for name, count in counts.items():
            if not isinstance(count, int) or count < 1:
                raise InputError(f"RecognitionGRU: {name} is a number of at least 1, got {count!r}")
        if not (isfinite(time_unit) and time_unit > 0):
            raise InputError(f"RecognitionGRU: time_unit is a positive time, got {time_unit!r}")
        if deviation is not None and not (isfinite(deviation) and deviation > 0):
            raise InputError(f"RecognitionGRU: deviation is a positive number or None, got {deviation!r}")
        self.channels, self.latent, self.time_unit, self.at_once = channels, latent, time_unit, at_once
        self.recurrent = nn.GRU(at_once * (2 * channels + 1), hidden, batch_first=True)
        first, last = nn.Linear(hidden, units), nn.Linear(units, 2 * latent)
        self.to_latent = nn.Sequential(first, nn.Tanh(), last)
        if deviation is not None:
            with torch.no_grad():
                last.weight[latent:] = 0.0
                last.bias[latent:] = 2.0 * log(deviation)

    def extra_repr(self) -> str:
        numbers = f"channels={self.channels}, latent={self.latent}, time_unit={self.time_unit:g}"
        return numbers if self.at_once == 1 else f"{numbers}, at_once={self.at_once}"

    def forward(self, values: Tensor, mask: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent state, each `(batch, latent)`.

        Args:
            values: `(batch, time, channel)`.
            mask: bool, of the same shape, True where observed.
            times: `(time,)`, increasing, since that of the latent state.

        Raises:
            InputError: for another number of channels or another dtype.
        """
        check_series(values, mask)
        wanted = self.recurrent.weight_ih_l0
        if values.shape[-1] != self.channels or values.dtype != wanted.dtype:
            raise InputError(
                f"RecognitionGRU is for {self.channels} channels in {wanted.dtype}, and the values have "
                f"{values.shape[-1]} in {values.dtype}"
            )
        seen = mask.any(-1)
        counts = seen.sum(1)
        longest = max(int(counts.max()), 1) if seen.numel() else 1
        longest += -longest % self.at_once
        numbers = torch.arange(1, seen.shape[1] + 1, device=seen.device)
        # Those with observations in decreasing order; which of the others follow makes no difference.
        order = torch.where(seen, numbers, 0).argsort(1, descending=True)[:, :longest]
        order = nn.functional.pad(order, (0, longest - order.shape[1]))
        valid = torch.arange(longest, device=seen.device) < counts[:, None]
        at = torch.where(valid, times.to(values.dtype)[order], 0.0)
        gaps = at - nn.functional.pad(at[:, 1:], (0, 1))  # behind the earliest of a series stands 0, the start
        entries = order[..., None].expand(-1, -1, self.channels)
        known = mask.gather(1, entries) & valid[..., None]
        read = torch.where(known, values.gather(1, entries), 0.0)
        features = torch.cat((read, known.to(read.dtype), gaps[..., None] / self.time_unit), -1)
        states, _ = self.recurrent(features.unflatten(1, (-1, self.at_once)).flatten(2))
        steps = (counts - 1).clamp(min=0) // self.at_once
        last = states.gather(1, steps[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        mean, log_variance = self.to_latent(torch.where(counts[:, None] > 0, last, 0.0)).chunk(2, -1)
        return mean, log_variance


@final
class LatentODE(nn.Module):
    """A model of series that were observed at some times, and some channels of them: each follows a trajectory of
    dz/dt = rate(z, t) in a latent space, whose initial value an encoder infers from the observations.

    Rubanova, Chen and Duvenaud, "Latent ODEs for Irregularly-Sampled Time Series", NeurIPS 2019, section 3, with a
    recurrent network as encoder. The prior of the initial value is the standard normal distribution; a series without
    any observation has it for its latent distribution, whatever the encoder says.

    A loss, one number a series, with DivergenceAnnealing() for the weight:

        prediction, solution = model(values, mask, times)
        bound = evidence_lower_bound(prediction, values, mask, solution.statistics["latent"], deviation=0.1)
        loss = solution.statistics["penalty"] - bound

    Args:
        encoder: a module as `RecognitionGRU`: values, 0 where not observed, mask and times since that of the latent
            state, to mean and log-variance `(batch, latent)`.
        rate: (z, t) -> dz/dt on `(*batch, latent)`; see `NeuralODE`.
        decoder: from `(*batch, time, latent)` to `(*batch, time, channel)`, each state by itself.
        interval: (t0, t1) in the unit of time: the latent state is that at t0, no observation may stand before it, and
            predictions are made up to t1. None: from the first time of the observations to the last that is asked for.
        method, rtol, atol, adjoint, backend, regularizer, throw: see `NeuralODE`.

    Attributes:
        ode: the NeuralODE; `ode.regularizer` may be replaced in the course of a training.

    Raises:
        InputError: for settings that do not go together.
    """

    def __init__(
        self,
        encoder: Encoder,
        rate: Callable[[Tensor, Time], Tensor],
        decoder: Callable[[Tensor], Tensor],
        *,
        interval: tuple[float, float] | None = None,
        method: ExplicitRungeKutta | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        adjoint: Adjoint = "recorded",
        backend: Backend = "sciml",
        regularizer: Regularizer | None = None,
        throw: bool = True,
    ) -> None:
        super().__init__()
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            if not callable(part):
                raise InputError(f"LatentODE: {name} is a torch.nn.Module or a function, got {part!r}")
        self.encoder, self.decoder = encoder, decoder
        self.ode = NeuralODE(
            rate,
            interval=interval,
            method=method,
            rtol=rtol,
            atol=atol,
            adjoint=adjoint,
            backend=backend,
            regularizer=regularizer,
            throw=throw,
        )
        self.interval = self.ode.interval

    def encode(self, values: Tensor, mask: Tensor, times: Sequence[float] | Tensor) -> LatentDistribution:
        """What is known of the latent state at the start, given the observations.

        Args:
            values, mask, times: see `forward`.

        Raises:
            InputError: see `forward`.
        """
        check_series(values, mask)
        found = _checked_times(times, "times")
        if len(found) != values.shape[1]:
            raise InputError(f"times has {len(found)} entries, and the values stand at {values.shape[1]} times")
        found = self._from_start(found, found, "times")
        start = self._start(found)
        bad = (mask & ~values.isfinite()).any(-1).any(-1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise InputError(
                f"values: series {row} is not finite at a place that the mask calls observed; set the mask to False "
                "where a value is missing"
            )
        elapsed = values.new_tensor([time - start for time in found])
        mean, log_variance = self.encoder(torch.where(mask, values, 0.0), mask, elapsed)
        if mean.ndim != 2 or len(mean) != len(values) or mean.shape != log_variance.shape:
            raise InputError(
                "the encoder must return mean and log-variance, each (batch, latent), and returned shapes "
                f"{tuple(mean.shape)} and {tuple(log_variance.shape)} for {len(values)} series"
            )
        any_seen = mask.flatten(1).any(1)[:, None]
        return LatentDistribution(torch.where(any_seen, mean, 0.0), torch.where(any_seen, log_variance, 0.0))

    def forward(
        self,
        values: Tensor,
        mask: Tensor,
        times: Sequence[float] | Tensor,
        at: Sequence[float] | Tensor | None = None,
        *,
        where: Tensor | None = None,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Solution]:
        """Predict.

        Args:
            values: `(batch, time, channel)`; anything, NaN included, where not observed.
            mask: bool, of the same shape, True where observed.
            times: of the values, `(time,)`, increasing, in the unit of time, the same for all series: those that one
                series does not have are masked.
            at: the times of the prediction, increasing, not before the latent state; None: those of the values.
            where: bool, `(batch, time)` of the times of the prediction: the decoder is asked at these only, and
                elsewhere the prediction is 0; None: at all. A loss of what was observed needs no more than
                `where=mask.any(-1)`.
            samples: how many latent states of each series are drawn; None: one; 0: none, the mean is taken.
            generator: of the draws; None: torch's own.

        Returns:
            the prediction `(batch, time, channel)`, or `(samples, batch, time, channel)` with a number of samples; and
            the solution in the latent space, whose `statistics["latent"]` is the LatentDistribution.

        Raises:
            InputError: for tensors or times that do not go together, values that are not finite where observed, or
                parts of the model that return another shape.
            SolveError: where a row failed.
        """
        if samples is not None and (not isinstance(samples, int) or samples < 0):
            raise InputError(f"samples is a number, at least 0, or None, got {samples!r}")
        latent = self.encode(values, mask, times)
        known = _checked_times(times, "times")
        start = self._start(known)
        wanted = self._from_start(known if at is None else _checked_times(at, "at"), known, "at")
        initial = latent.mean if samples == 0 else latent.sample(samples, generator)
        added = self.interval is None and wanted[0] > start
        if self.interval is None and wanted == (start,):
            raise InputError(
                f"the only time that is asked for, {start}, is that of the latent state: give `at` more times, or "
                "LatentODE an interval"
            )
        trajectory, solution = self.ode(initial, (start, *wanted) if added else wanted)
        trajectory = trajectory[..., 1:, :] if added else trajectory
        places = tuple(trajectory.shape[-3:-1])
        asked = isinstance(where, Tensor) and where.dtype == torch.bool and where.shape == places
        if where is not None and not asked:
            what = f"{where.dtype} and shape {tuple(where.shape)}" if isinstance(where, Tensor) else repr(where)
            raise InputError(f"where is a bool tensor {places}, (batch, time), got {what}")
        states = trajectory if where is None else trajectory[..., where, :]
        prediction = self.decoder(states)
        if prediction.shape[:-1] != states.shape[:-1]:
            raise InputError(
                f"the decoder returned shape {tuple(prediction.shape)} for latent states {tuple(states.shape)}; "
                "only the last axis may have another length"
            )
        if where is not None:
            whole = prediction.new_zeros(*trajectory.shape[:-1], prediction.shape[-1])
            whole[..., where, :] = prediction
            prediction = whole
        solution.statistics["latent"] = latent
        return prediction, solution

    def _start(self, times: tuple[float, ...]) -> float:
        return times[0] if self.interval is None else self.interval[0]

    def _from_start(self, times: tuple[float, ...], known: tuple[float, ...], name: str) -> tuple[float, ...]:
        """The times, of which the first is put onto the start where it is that but for the rounding of float32."""
        start, end = self.interval or (known[0], times[-1])
        close = 1e-6 * abs(end - start)
        if times[0] < start - close:
            raise InputError(f"{name}[0] = {times[0]} stands before the latent state, which is that at {start}")
        return (start, *times[1:]) if times[0] <= start + close else times


def _checked_times(times: Sequence[float] | Tensor, name: str) -> tuple[float, ...]:
    if isinstance(times, Tensor):
        if times.ndim != 1:
            raise InputError(
                f"{name} has one time for each entry, the same for all series, got a tensor of shape "
                f"{tuple(times.shape)}: put the times of all series into one list, and mask those that a series lacks"
            )
        times = times.detach().to("cpu", torch.float64).tolist()
    try:
        found = tuple(float(time) for time in times)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a list of numbers, increasing, got {times!r}") from error
    if not found:
        raise InputError(f"{name} is empty; at least one time is needed")
    for place, time in enumerate(found):
        if not isfinite(time):
            raise InputError(f"{name} must be finite: {name}[{place}] is {time}")
    for place, (first, second) in enumerate(pairwise(found)):
        if not first < second:
            raise InputError(f"{name} must increase: {name}[{place}] is {first} and {name}[{place + 1}] is {second}")
    return found
