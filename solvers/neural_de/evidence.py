"""The evidence lower bound of a latent variable model of series with gaps, and its parts."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, log, pi
from numbers import Real
from typing import Literal, NamedTuple, final, get_args

import torch
from torch import Tensor

from sciml.differentiation import in_transform
from sciml.errors import InputError

Counting = Literal["sum", "mean"]


@final
class LatentDistribution(NamedTuple):
    """A normal distribution with independent components for each series.

    Attributes:
        mean: `(*batch, latent)`.
        log_variance: of the same shape.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, count: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """mean + deviation * noise, differentiable in both: `(*batch, latent)`, or `(count, *batch, latent)`.

        Args:
            count: of samples of each series; None: one, without an axis for it.
            generator: of the noise; None: torch's own.
        """
        shape = self.mean.shape if count is None else (count, *self.mean.shape)
        noise = torch.randn(shape, dtype=self.mean.dtype, device=self.mean.device, generator=generator)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Tensor:
        """The Kullback-Leibler divergence from it to the standard normal distribution, `(*batch)`, in nats.

        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, appendix B.
        """
        return 0.5 * (self.mean.square() + self.log_variance.exp() - self.log_variance - 1).sum(-1)


@final
@dataclass(frozen=True)
class DivergenceAnnealing:
    """A weight of the divergence that grows from 0 to 1: 1 - base^(step - wait), 0 until step `wait`.

    Rubanova, Chen and Duvenaud, "Latent ODEs for Irregularly-Sampled Time Series", NeurIPS 2019, whose program counts
    epochs and waits for ten of them; what a step is, the caller says.

    Args:
        base: at least 0, below 1, dimensionless.
        wait: steps.

    Raises:
        InputError: for numbers out of range.
    """

    base: float = 0.99
    wait: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.base, Real) or not 0 <= self.base < 1:
            raise InputError(f"DivergenceAnnealing: base is a number, at least 0 and below 1, got {self.base!r}")
        if not isinstance(self.wait, int) or self.wait < 0:
            raise InputError(f"DivergenceAnnealing: wait is a number of steps, at least 0, got {self.wait!r}")

    def weight(self, step: int) -> float:
        """The weight at a step, counted from 0."""
        return float(1.0 - self.base ** max(step - self.wait, 0))


def gaussian_log_likelihood(
    prediction: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    deviation: float | Tensor,
    counting: Counting = "sum",
) -> Tensor:
    """The logarithm of the density of what was observed, given the prediction, in nats.

    Args:
        prediction: `(*samples, batch, time, channel)`.
        values: `(batch, time, channel)`, in the unit of the prediction; anything, NaN included, where not observed.
        mask: bool, of the shape of the values, True where observed.
        deviation: standard deviation of the observations' noise, in the unit of the values: a positive number, or a
            tensor of positive entries that broadcasts to `(batch, time, channel)`, such as a parameter `(channel,)`;
            inside torch.func they are not looked at.
        counting: "sum" over the observations of a series, or their "mean".

    Returns:
        `(*samples, batch)`; 0 for a series without observations.

    Raises:
        InputError: for shapes that do not go together, or a deviation that is not positive.
    """
    check_series(values, mask)
    if prediction.shape[-3:] != values.shape:
        raise InputError(
            f"the prediction, of shape {tuple(prediction.shape)}, has other last axes than the values, "
            f"{tuple(values.shape)}: predict at the times of the observations"
        )
    if counting not in get_args(Counting):
        raise InputError(f"counting is 'sum' or 'mean', got {counting!r}")
    if not isinstance(deviation, Tensor):
        if not isinstance(deviation, Real) or not (isfinite(deviation) and deviation > 0):
            raise InputError(f"deviation is a positive number or a tensor, got {deviation!r}")
        scale = values.new_tensor(deviation)
    else:
        scale = deviation
        try:
            matches = torch.broadcast_shapes(scale.shape, values.shape) == values.shape
        except RuntimeError:
            matches = False
        if not matches:
            raise InputError(
                f"deviation, of shape {tuple(scale.shape)}, does not broadcast to the values, {tuple(values.shape)}"
            )
        # Inside torch.func.vmap there is no saying so of all of a batch.
        if not in_transform() and not bool((scale > 0).all()):
            raise InputError(f"deviation is positive, got a tensor whose smallest entry is {float(scale.min()):g}")
    # Before anything is computed of it: where a value is NaN even a gradient of zero would become NaN.
    error = torch.where(mask, values, 0.0) - torch.where(mask, prediction, 0.0)
    density = -0.5 * ((error / scale).square() + log(2 * pi)) - scale.log()
    total = torch.where(mask, density, 0.0).sum((-2, -1))
    return total if counting == "sum" else total / mask.sum((-2, -1)).clamp(min=1)


def evidence_lower_bound(
    prediction: Tensor,
    values: Tensor,
    mask: Tensor,
    latent: LatentDistribution,
    *,
    deviation: float | Tensor,
    divergence_weight: float = 1.0,
    counting: Counting = "sum",
) -> Tensor:
    """A lower bound of the log-likelihood of each series in expectation, to be maximized: `(batch,)`, in nats.

    The likelihood, as a mean over the samples, minus the weighted divergence of the latent distribution from the
    standard normal one. With counting="mean" or another weight than 1 it is a loss but no bound; the program of
    Rubanova, Chen and Duvenaud (see `LatentODE`) weighs the divergence against means: over the observations of each
    channel, then over the channels. For several samples that program takes the logarithm of the mean of exponentials,
    which is another objective.

    Args:
        prediction: `(batch, time, channel)` or `(samples, batch, time, channel)`, at the times of the values.
        values, mask, deviation, counting: see `gaussian_log_likelihood`.
        latent: `solution.statistics["latent"]` of `LatentODE`.
        divergence_weight: dimensionless, at least 0; see `DivergenceAnnealing`.

    Raises:
        InputError: for shapes that do not go together, or numbers out of range.
    """
    if not isinstance(divergence_weight, Real) or not (isfinite(divergence_weight) and divergence_weight >= 0):
        raise InputError(f"divergence_weight is a number, at least 0, got {divergence_weight!r}")
    likelihood = gaussian_log_likelihood(prediction, values, mask, deviation=deviation, counting=counting)
    divergence = latent.divergence()
    if divergence.shape != values.shape[:1]:
        raise InputError(
            f"the latent distribution is one of {tuple(divergence.shape)} series, and the values of {len(values)}"
        )
    if likelihood.ndim > 1:
        likelihood = likelihood.flatten(0, -2).mean(0)
    return likelihood - divergence_weight * divergence


def check_series(values: Tensor, mask: Tensor) -> None:
    """Refuse what is no batch of masked series.

    Raises:
        InputError: for other types or shapes.
    """
    if not isinstance(values, Tensor) or values.ndim != 3 or not values.is_floating_point():
        what = f"{values.dtype} and shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise InputError(f"values is a real tensor (batch, time, channel), got {what}")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != values.shape:
        what = f"{mask.dtype} and shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
        raise InputError(
            f"mask is a bool tensor of the shape of the values, {tuple(values.shape)}, True where observed; got {what}"
        )
