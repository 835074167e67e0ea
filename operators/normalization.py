"""A network between fields in physical units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sciml.errors import InputError

from .coordinates import coordinate_channels, coordinate_count


class Normalized(nn.Module):
    """y = output_mean + output_std network((x - input_mean)/input_std), each channel with its own numbers.

    The numbers do not depend on the place, so that the grid may be any that the network takes.

    Args:
        network: from `(batch, channels, *space)` to `(batch, channels, *space)`, of numbers of size one.
        input_mean, input_std: one number for each input channel, in its unit (of its logarithm where it is taken).
        output_mean, output_std: one number for each output channel, in its unit.
        logarithm: inputs that are positive, of which the network is given the natural logarithm before the rest: one
            bool for all channels or one a channel; default False. A value that is not positive gives NaN.
        coordinates: None, or one bool an axis, whether it is periodic: the network is then given the places of the
            points as further channels, see `coordinate_channels`. They are not normalized.

    Raises:
        InputError: for numbers that are not finite, a deviation that is not positive, or numbers of channels that do
            not fit together.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        input_mean: Tensor | Sequence[float],
        input_std: Tensor | Sequence[float],
        output_mean: Tensor | Sequence[float],
        output_std: Tensor | Sequence[float],
        *,
        logarithm: bool | Sequence[bool] = False,
        coordinates: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        like = next(network.parameters(), torch.zeros(()))
        given = {
            "input_mean": input_mean,
            "input_std": input_std,
            "output_mean": output_mean,
            "output_std": output_std,
        }
        for name, value in given.items():
            numbers = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach().clone()
            if numbers.dim() != 1 or not bool(torch.isfinite(numbers).all()):
                raise InputError(f"Normalized: {name} is one finite number a channel, got {value}")
            if name.endswith("std") and not bool((numbers > 0).all()):
                raise InputError(f"Normalized: {name} is {numbers.tolist()}; it must be positive for every channel")
            self.register_buffer(name, numbers)
        channels = len(self.input_mean)
        logged = [logarithm] * channels if isinstance(logarithm, bool) else [bool(flag) for flag in logarithm]
        if len(self.input_std) != channels or len(logged) != channels:
            raise InputError(
                f"Normalized: input_mean has {channels} channels, input_std {len(self.input_std)} and logarithm "
                f"{len(logged)}"
            )
        if len(self.output_mean) != len(self.output_std):
            raise InputError(
                f"Normalized: output_mean has {len(self.output_mean)} channels, output_std {len(self.output_std)}"
            )
        self.logarithm = tuple(logged)
        self.coordinates = None if coordinates is None else tuple(bool(flag) for flag in coordinates)
        extra = 0 if self.coordinates is None else coordinate_count(self.coordinates)
        _check_channels(network, channels, extra, len(self.output_mean))

    @property
    def settings(self) -> dict[str, Any]:
        """What makes it again, but for the network, as JSON values: `Normalized(network, **settings)`."""
        return {
            "input_mean": self.input_mean.tolist(),
            "input_std": self.input_std.tolist(),
            "output_mean": self.output_mean.tolist(),
            "output_std": self.output_std.tolist(),
            "logarithm": list(self.logarithm),
            "coordinates": None if self.coordinates is None else list(self.coordinates),
        }

    @classmethod
    def fit(
        cls,
        network: nn.Module,
        samples: Iterable[tuple[Tensor, Tensor]],
        *,
        logarithm: bool | Sequence[bool] = False,
        coordinates: Sequence[bool] | None = None,
    ) -> Normalized:
        """The normalization that gives training data mean 0 and standard deviation 1, read in one pass.

        A channel that is constant is only moved to 0.

        Args:
            network, logarithm, coordinates: as of the class.
            samples: batches of inputs and outputs, `(n, channels, *space)` each; every point counts the same.

        Raises:
            InputError: for no samples, values that are not finite, or a logarithm of one that is not positive.
        """
        inputs, outputs = _Moments("inputs"), _Moments("outputs")
        for x, y in samples:
            inputs.take(_logarithm(x, logarithm, check=True))
            outputs.take(y)
        return cls(network, *inputs.result(), *outputs.result(), logarithm=logarithm, coordinates=coordinates)

    def forward(self, x: Tensor) -> Tensor:
        """Fields `(batch, channels, *space)` in physical units to such fields.

        Fields in float64 keep their digits until the mean is off, and have answers in float64, whatever the network's
        weights are in.
        """
        if x.dim() < 3 or x.shape[1] != len(self.input_mean):
            raise InputError(
                f"Normalized: takes fields of shape (batch, {len(self.input_mean)} channels, *space), got "
                f"{tuple(x.shape)}"
            )
        line = (-1, *[1] * (x.dim() - 2))
        dtype = self.output_mean.dtype
        exact = torch.promote_types(x.dtype, dtype)
        mean, std = (number.to(exact).reshape(line) for number in (self.input_mean, self.input_std))
        u = ((_logarithm(x, self.logarithm) - mean) / std).to(dtype)
        if self.coordinates is not None:
            places = coordinate_channels(x.shape[2:], self.coordinates, dtype=u.dtype, device=u.device)
            u = torch.cat((u, places.expand(len(u), *places.shape)), 1)
        mean, std = (number.to(exact).reshape(line) for number in (self.output_mean, self.output_std))
        return mean + std * self.network(u).to(exact)


def _logarithm(x: Tensor, logarithm: bool | Sequence[bool], check: bool = False) -> Tensor:
    """x with the logarithm of the channels that are marked."""
    flags = [logarithm] * x.shape[1] if isinstance(logarithm, bool) else list(logarithm)
    if not any(flags):
        return x
    channels = list(x.unbind(1))
    for number, flag in enumerate(flags):
        if flag:
            if check and not bool((channels[number] > 0).all()):
                raise InputError(
                    f"Normalized: logarithm of input channel {number}, which has the value {channels[number].min():g}; "
                    "only positive channels have one"
                )
            channels[number] = channels[number].log()
    return torch.stack(channels, 1)


class _Moments:
    """Mean and standard deviation of each channel, batch by batch in float64.

    Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979, equation
    2.1: exact however far the mean is from zero.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.precision = 0.0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def take(self, u: Tensor) -> None:
        self.precision = max(self.precision, torch.finfo(u.dtype).eps)
        values = u.detach().movedim(1, 0).flatten(1).double()
        count = values.shape[1]
        mean = values.mean(1)
        squares = (values - mean[:, None]).square().sum(1)
        if not bool(torch.isfinite(squares).all()):
            bad = [number for number, finite in enumerate(torch.isfinite(squares).tolist()) if not finite]
            raise InputError(f"Normalized.fit: the {self.name} hold NaN or infinite values in channels {bad}")
        if not self.count:
            self.count, self.mean, self.squares = count, mean, squares
            return
        if len(mean) != len(self.mean):
            raise InputError(
                f"Normalized.fit: the {self.name} have {len(self.mean)} channels in one batch, {len(mean)} in another"
            )
        total = self.count + count
        step = mean - self.mean
        self.squares = self.squares + squares + step.square() * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    def result(self) -> tuple[Tensor, Tensor]:
        if not self.count:
            raise InputError("Normalized.fit: no samples were given")
        deviation = (self.squares / self.count).sqrt()
        # Rounding leaves a constant channel a deviation near the precision of its dtype.
        constant = deviation <= 4 * self.precision * self.mean.abs()
        return self.mean, torch.where(constant, 1.0, deviation)


def _check_channels(network: nn.Module, inputs: int, extra: int, outputs: int) -> None:
    settings = getattr(network, "settings", None)
    if not isinstance(settings, dict):
        return
    for name, number in (("in_channels", inputs + extra), ("out_channels", outputs)):
        if settings.get(name, number) != number:
            more = f" ({inputs} and {extra} of coordinates)" if extra and name == "in_channels" else ""
            raise InputError(
                f"Normalized: {name} of {type(network).__name__} is {settings[name]}, but there are {number}{more}"
            )
