"""A trained operator: a network with all that its use needs to know."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal, cast, final

import torch
from torch import Tensor

from sciml.boundary import Periodic, suggestion
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid

from .normalization import Normalized
from .resampling import resample


@final
@dataclass(frozen=True)
class Channel:
    """A field or parameter that an operator takes or gives.

    Args:
        name: of the field or parameter.
        kind: "field" with a value at every point, or "parameter", a number a row.
        components: `()` of a scalar field, `(d,)` of a vector.
        lowest, highest: values seen in training, in the unit of the field.
    """

    name: str
    kind: Literal["field", "parameter"] = "field"
    components: tuple[int, ...] = ()
    lowest: float = -math.inf
    highest: float = math.inf

    @property
    def count(self) -> int:
        """Number of channels of the network."""
        return math.prod(self.components)


@final
@dataclass(frozen=True)
class Place:
    """Where an operator was trained.

    Args:
        shape: points along each axis.
        lower, upper: corners of the box, in the unit of length of the problem.
        periodic: one bool an axis.
        conditions: kind and constant values of the condition on every side, by its name; None for values that vary.
    """

    shape: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    periodic: tuple[bool, ...]
    conditions: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, grid: Grid) -> Place:
        """That of a grid."""
        conditions = {}
        by_unknown = {"": grid.boundary} if next(iter(grid.boundary)) in grid.axes else grid.boundary
        for unknown, sides in by_unknown.items():
            for axis in grid.axes:
                for side, condition in zip(("lower", "upper"), sides[axis], strict=True):
                    words = {} if isinstance(condition, Periodic) else vars(condition)
                    values = {word: float(v) if isinstance(v, int | float) else None for word, v in words.items()}
                    name = f"{axis}_{side} for {unknown}" if unknown else f"{axis}_{side}"
                    conditions[name] = {"kind": type(condition).__name__, **values}
        return cls(grid.shape, grid.lower, grid.upper, grid.periodic, conditions)

    def check(self, grid: Grid) -> None:
        """Refuse a grid of another box or other conditions.

        Raises:
            InputError: it says what differs.
        """
        other = Place.of(grid)
        extent = max(high - low for low, high in zip(self.lower, self.upper, strict=True))
        corners, others = (*self.lower, *self.upper), (*other.lower, *other.upper)
        if len(corners) != len(others) or any(abs(a - b) > 1e-9 * extent for a, b in zip(corners, others, strict=True)):
            raise InputError(
                f"operator: trained on the box {self.lower} to {self.upper}, and the grid reaches from {grid.lower} to "
                f"{grid.upper}; scale the problem to that box"
            )
        for name, condition in self.conditions.items():
            if other.conditions.get(name) != condition:
                raise InputError(
                    f"operator: trained with {_shown(condition)} at {name}, and the grid has "
                    f"{_shown(other.conditions.get(name))} there; the conditions are part of what was learned"
                )


@final
@dataclass(frozen=True, eq=False)
class TrainedOperator:
    """Fields of one problem to fields of its solution.

    Args:
        network: from `(batch, channels of inputs, *space)` to `(batch, channels of outputs, *space)`, in
            physical units.
        inputs, outputs: in the order of the channels.
        place: grid, box and boundary conditions of the training, which are part of what was learned.
        equation: what the fields satisfy, or None if that is not known.
        parameters: numbers of the equation that were the same in all samples.
        interval: how far ahead in time the outputs lie, in the unit of the equation's time; None of a steady problem.
        origin: what the operator was made with and how good it was, JSON values.
    """

    network: Normalized
    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    place: Place
    equation: Equation | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    interval: float | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, fields: Mapping[str, Tensor | float], grid: Grid | None = None) -> dict[str, Tensor]:
        """The solution's fields, on any grid of the box that was trained on.

        Networks made of convolutions answer on the grid of the training: on another the inputs are brought there by
        means over cells or linear interpolation, and the answer back (`resample`). `FNO` and `DeepONet` take any grid.

        Args:
            fields: by name, as tensors `(*batch, *components, *space)`, numbers, and for parameters `(*batch,)`.
            grid: where the fields stand; None for the training's box with as many points as the fields have.

        Returns:
            By name `(*batch, *components, *space)`, in the dtype to which the tensors among the fields are promoted and
            on the device of the first, or those of the network; the batch shapes of the fields are broadcast. There is
            a gradient with respect to fields that require one, and none with respect to the network.

        Raises:
            InputError: a field that is missing or unknown, a shape that does not fit, a value that is not finite,
                another box or other boundary conditions than those of the training.

        Warns:
            UserWarning: values outside the range of the training.
        """
        self._check_names(fields)
        if grid is not None:
            self.place.check(grid)
        shape = self._shape(fields) if grid is None else grid.shape
        first = -len(shape) - 1  # the axis of channels
        given = {channel.name: self._read(channel, fields[channel.name], shape) for channel in self.inputs}
        batch = _broadcast({name: values.shape[:first] for name, values in given.items()})
        x = torch.cat([values.expand(*batch, *values.shape[first:]) for values in given.values()], first)
        tensors = [value for value in fields.values() if isinstance(value, Tensor)] or [self.network.output_mean]
        dtype = reduce(torch.promote_types, (torch.result_type(tensor, 1.0) for tensor in tensors))
        tracked = torch.is_grad_enabled() and x.requires_grad
        with torch.set_grad_enabled(tracked):
            y = self._apply(x.reshape(-1, *x.shape[first:]), shape).to(tensors[0].device, dtype)
        found, start = {}, 0
        for channel in self.outputs:
            part = y.narrow(1, start, channel.count)
            found[channel.name] = part.reshape(*batch, *channel.components, *shape)
            start += channel.count
        return found

    def to(self, device: torch.device | str) -> TrainedOperator:
        """The same operator with its network on a device; the network is moved, not copied."""
        self.network.to(device)
        return self

    def _apply(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        like = self.network.output_mean
        x = x.to(like.device, like.dtype)
        place = self.place
        if tuple(shape) == place.shape or getattr(self.network.network, "any_resolution", False):
            return cast(Tensor, self.network(x))
        given = resample(x, place.shape, place.periodic, held=True)
        return resample(self.network(given), shape, place.periodic)

    def _check_names(self, fields: Mapping[str, Any]) -> None:
        names = [channel.name for channel in self.inputs]
        for name in fields:
            if name not in names:
                raise InputError(f"operator: it takes no {name!r}{suggestion(name, names)}")
        missing = [name for name in names if name not in fields]
        if missing:
            raise InputError(f"operator: the input {missing[0]!r} is missing; it takes {', '.join(names)}")

    def _shape(self, fields: Mapping[str, Any]) -> tuple[int, ...]:
        for channel in self.inputs:
            value = fields[channel.name]
            axes = len(self.place.shape)
            if channel.kind == "field" and isinstance(value, Tensor) and value.dim() >= axes:
                return tuple(value.shape[-axes:])
        return self.place.shape

    def _read(self, channel: Channel, value: Tensor | float, shape: tuple[int, ...]) -> Tensor:
        """`(*batch, channels, *space)`."""
        values = torch.as_tensor(value).to(self.network.output_mean.device)
        values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"operator: the input {channel.name!r} holds NaN or infinite values")
        if not values.numel():
            raise InputError(f"operator: the input {channel.name!r} is empty")
        low, high = (float(extreme) for extreme in values.detach().aminmax())
        slack = 1e-3 * (channel.highest - channel.lowest) + 1e-6 * max(abs(channel.highest), abs(channel.lowest))
        if low < channel.lowest - slack or high > channel.highest + slack:
            warnings.warn(
                f"the input {channel.name!r} has values from {low:.4g} to {high:.4g}; the operator was trained with "
                f"{channel.lowest:.4g} to {channel.highest:.4g}, and knows nothing of others",
                stacklevel=3,
            )
        axes = len(shape)
        if channel.kind == "parameter":
            return values.reshape(*values.shape, 1, *[1] * axes).expand(*values.shape, 1, *shape)
        if values.dim() == 0 and not channel.components:
            values = values.expand(shape)
        own = (*channel.components, *shape)
        if tuple(values.shape[max(0, values.dim() - len(own)) :]) != own:
            raise InputError(
                f"operator: the input {channel.name!r} has shape {tuple(values.shape)}; (*batch, "
                f"{', '.join(map(str, own))}) is needed"
            )
        return values.reshape(*values.shape[: values.dim() - len(own)], channel.count, *shape)


def _shown(described: Mapping[str, Any] | None) -> str:
    if described is None:
        return "nothing"
    values = ", ".join("values" if v is None else f"{v:g}" for word, v in described.items() if word != "kind")
    return f"{described['kind']}({values})"


def _broadcast(shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    try:
        return tuple(torch.broadcast_shapes(*map(tuple, shapes.values())))
    except RuntimeError as error:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise InputError(f"operator: the batch shapes of its inputs do not broadcast: {listed}") from error
