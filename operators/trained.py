"""A trained operator: a network with all that its use needs to know."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal, cast, final

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid

from . import storage
from .normalization import Normalized
from .place import Place
from .resampling import resample


@final
@dataclass(frozen=True)
class Channel:
    """A field or parameter that an operator takes or gives.

    Args:
        name: of the field or parameter.
        kind: "field" with a value at every point, or "parameter", a number a row.
        components: `()` of a scalar field, `(d,)` of a vector.
        lowest, highest: values seen in training, in the unit of the field: one number for each component, or one for
            all.

    Raises:
        InputError: for another number of limits.
    """

    name: str
    kind: Literal["field", "parameter"] = "field"
    components: tuple[int, ...] = ()
    lowest: float | Sequence[float] = -math.inf
    highest: float | Sequence[float] = math.inf

    def __post_init__(self) -> None:
        for word in ("lowest", "highest"):
            given = getattr(self, word)
            numbers = tuple(given) if isinstance(given, Sequence) else (given,) * self.count
            if len(numbers) != self.count:
                raise InputError(f"Channel {self.name!r}: {self.count} components and {len(numbers)} {word} values")
            object.__setattr__(self, word, numbers)

    @property
    def count(self) -> int:
        """Number of channels of the network."""
        return math.prod(self.components)

    def outside(self, values: Tensor) -> str:
        """What of `(*any, channels, points)` lies outside the range of the training, as a sentence, or ""."""
        if not values.numel():
            return ""
        lows, highs = (extreme.tolist() for extreme in values.detach().movedim(-2, 0).flatten(1).aminmax(dim=1))
        known = zip(cast(Sequence[float], self.lowest), cast(Sequence[float], self.highest), strict=True)
        for number, (low, high, (lowest, highest)) in enumerate(zip(lows, highs, known, strict=True)):
            slack = 1e-3 * (highest - lowest) + 1e-6 * max(abs(highest), abs(lowest))
            if low < lowest - slack or high > highest + slack:
                component = f", component {number}," if self.count > 1 else ""
                return (
                    f"the input {self.name!r}{component} has values from {low:.4g} to {high:.4g}; the operator was "
                    f"trained with {lowest:.4g} to {highest:.4g}, and knows nothing of others"
                )
        return ""


@final
@dataclass(frozen=True, eq=False)
class TrainedOperator:
    """Fields of one problem to fields of its solution.

    Args:
        network: from `(batch, channels of inputs, *space)` to `(batch, channels of outputs, *space)`, in
            physical units.
        inputs, outputs: in the order of the channels.
        place: points, box and boundary conditions of the training, which are part of what was learned.
        equation: what the fields satisfy, or None if that is not known.
        parameters: numbers of the equation that were the same in all samples.
        interval: how far ahead in time the outputs lie, in the unit of the equation's time; None of a steady problem.
        origin: what the operator was made with and how good it was, JSON values.
        fixed: fields that were the same in all samples and are no inputs, `(*components, *space)` at the points of the
            training.
    """

    network: Normalized
    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    place: Place
    equation: Equation | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    interval: float | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(
        self, fields: Mapping[str, Any], grid: Grid | None = None, *, batch_size: int | None = None
    ) -> dict[str, Tensor]:
        """The solution's fields, on any grid of the box that was trained on.

        Networks made of convolutions answer at the points of the training: from others the inputs are brought there by
        means over cells or linear interpolation, and the answer back (`resample`). `FNO` and `DeepONet` take grids of
        any number of cells.

        Args:
            fields: by name, as tensors or arrays `(*batch, *components, *space)`, numbers, and for parameters
                `(*batch,)`.
            grid: where the fields stand; None for the training's box with as many points as the fields have.
            batch_size: rows that the network is given at once, which bounds the memory; None: all of them.

        Returns:
            By name `(*batch, *components, *space)`, in the dtype to which the tensors among the fields are promoted and
            on the device of the first, or those of the network; the batch shapes of the fields are broadcast. There is
            a gradient with respect to fields that require one, and none with respect to the network.

        Raises:
            InputError: a field that is missing or unknown, a shape that does not fit, a value that is not finite,
                another box, other boundary conditions or solid cells than those of the training.

        Warns:
            UserWarning: values outside the range of the training.
        """
        rows, asked = self._ask(fields, grid)
        for remark in self._remarks(rows).values():
            warnings.warn(remark, stacklevel=2)
        return self._answers(self._run(rows, asked, batch_size), asked)

    def rollout(
        self, fields: Mapping[str, Any], steps: int, grid: Grid | None = None, *, batch_size: int | None = None
    ) -> dict[str, Tensor]:
        """Answers at `interval`, 2 `interval`, ...: outputs that are inputs too are given back to the operator.

        A row whose answer is not finite is NaN from there on, and the others go on.

        Args:
            fields: as of a call, at the first time. What changes in time and is no output is a function of the number
                of the step, 0 for the first, that gives it at the begin of that step.
            steps: how many, at least 1.
            grid, batch_size: as of a call.

        Returns:
            By name `(*batch, steps, *components, *space)`.

        Raises:
            InputError: as of a call, and for an operator none of whose outputs is one of its inputs.

        Warns:
            UserWarning: values outside the range of the training, once for each input, with the step.
        """
        returned = {channel.name for channel in self.inputs} & {channel.name for channel in self.outputs}
        if not returned:
            outputs = ", ".join(channel.name for channel in self.outputs)
            raise InputError(f"operator: none of its outputs, {outputs}, is an input; it cannot go on from its answers")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"operator: steps is a whole number, at least 1, not {steps!r}")
        moving = {name for name, value in _named(fields).items() if callable(value)}

        def at(step: int) -> dict[str, Any]:
            return {name: value(step) if name in moving else value for name, value in fields.items()}

        rows, asked = self._ask(at(0), grid)
        remarks = self._remarks(rows)
        begin = state = {name: self._native(rows[name], asked) for name in returned}
        found: dict[str, list[Tensor]] = {channel.name: [] for channel in self.outputs}
        said: set[str] = set()
        alive = torch.ones((), dtype=torch.bool)
        for step in range(steps):
            if step:
                rows, asked = self._ask(at(step), grid) if moving else (rows, asked)
                remarks = self._remarks({**rows, **state})
            for name in remarks.keys() - said:
                warnings.warn(f"step {step + 1} of {steps}: {remarks[name]}", stacklevel=2)
            said |= remarks.keys()
            y = self._run(rows, asked, batch_size, state)
            alive = alive.to(y.device) & torch.isfinite(y).flatten(1).all(1)
            ended = ~alive.reshape(-1, *[1] * (y.dim() - 1))
            for name, values in self._answers(y.masked_fill(ended, math.nan), asked).items():
                found[name].append(values)
            parts = self._split(y)
            # A row that has ended is given what it began with: the others go on beside it.
            state = {name: torch.where(ended, begin[name], parts[name]) for name in returned}
        return {name: torch.stack(parts, len(asked.batch)) for name, parts in found.items()}

    def problem(self, fields: Mapping[str, Any], grid: Grid) -> dict[str, Any]:
        """What the solver takes for the same problem, all that was the same in training put in.

        `sciml.solve(operator.equation, grid, **operator.problem(fields, grid), initial=operator(fields, grid))`, and of
        an evolving equation `sciml.evolve(operator.equation, grid, **operator.problem(fields, grid))`.

        Args:
            fields: as of a call; scalar fields, numbers and parameters.
            grid: where the fields stand, with the boundary conditions.

        Returns:
            "fields" and "parameters"; of an evolving equation also "initial" and "times", from 0 to `interval`.

        Raises:
            InputError: as of a call; the equation is not known; the points of the grid are nodes.
        """
        equation = self.equation
        if equation is None:
            raise InputError("operator: it does not know its equation; its dataset did not say it")
        self._check_names(fields)
        if self.place.nodes_of(grid) != grid.periodic:
            raise InputError(
                f"operator: solvers have unknowns at the centres of cells, and this grid reaches from {grid.lower} to "
                f"{grid.upper} to have them on the boundary of the domain, {self.place.lower} to {self.place.upper}"
            )
        given = {
            name: resample(u, grid.shape, grid.periodic, nodes=self.place.nodes, to=grid.periodic, held=True)
            for name, u in self.fixed.items()
        }
        for channel in self.inputs:
            self._read(channel, fields[channel.name], grid.shape)
            value = _tensor(channel.name, fields[channel.name])
            if channel.kind == "parameter" and channel.name in equation.coefficients:
                value = value.reshape(*value.shape, *[1] * grid.dimension)
            given[channel.name] = value
        known = {**self.parameters, **{name: u.to(grid.device, grid.dtype) for name, u in given.items()}}
        found = {
            "fields": {name: known[name] for name in equation.coefficients if name in known},
            "parameters": {name: known[name] for name in equation.parameters if name in known},
        }
        if not equation.evolving:
            return found
        times = {} if self.interval is None else {"times": (0.0, self.interval)}
        return {**found, "initial": {name: known[name] for name in equation.unknowns if name in known}, **times}

    def to(self, device: torch.device | str) -> TrainedOperator:
        """The same operator with its network on a device; the network is moved, not copied."""
        self.network.to(device)
        return self

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the operator into a folder, which is made if need be; an operator that stands there is replaced.

        Raises:
            InputError: the network is not one of this package, or the folder cannot be one.
            OSError: the disk is full, or writing is not permitted; an operator that stood there is unharmed.
        """
        content = {
            "normalization": self.network.settings,
            "inputs": [_finite(dataclasses.asdict(channel)) for channel in self.inputs],
            "outputs": [_finite(dataclasses.asdict(channel)) for channel in self.outputs],
            "place": dataclasses.asdict(self.place),
            "equation": None if self.equation is None else self.equation.to_json(),
            "parameters": dict(self.parameters),
            "interval": self.interval,
            "origin": dict(self.origin),
        }
        storage.write(folder, self.network.network, content, self.fixed)

    @property
    def any_resolution(self) -> bool:
        """Whether the network takes grids of any number of cells, rather than that of the training alone."""
        network = self.network.network
        return bool(getattr(network, "any_resolution", False)) and self.place.nodes == self.place.periodic

    def _ask(self, fields: Mapping[str, Any], grid: Grid | None) -> tuple[dict[str, Tensor], _Asked]:
        """The inputs, `(rows, channels, *space)` each, and what the answer is to be."""
        self._check_names(fields)
        nodes = self.place.nodes if grid is None else self.place.nodes_of(grid)
        shape = self._shape(fields) if grid is None else grid.shape
        first = -len(shape) - 1  # the axis of channels
        given = {channel.name: self._read(channel, fields[channel.name], shape) for channel in self.inputs}
        batch = _broadcast({name: values.shape[:first] for name, values in given.items()})
        rows = {name: u.expand(*batch, *u.shape[first:]).reshape(-1, *u.shape[first:]) for name, u in given.items()}
        like = self.network.output_mean
        told = [_tensor(name, v) for name, v in fields.items() if not isinstance(v, int | float)] or [like]
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in told))
        target = self.place.shape
        if self.any_resolution:
            # Along a wall to wall axis there is a cell less than nodes.
            ends = [at and not wraps for at, wraps in zip(nodes, self.place.periodic, strict=True)]
            target = tuple(n - end for n, end in zip(shape, ends, strict=True))
        return rows, _Asked(batch, tuple(shape), nodes, target, told[0].device, dtype)

    def _remarks(self, rows: Mapping[str, Tensor]) -> dict[str, str]:
        """By input, what of it is outside the range of the training."""
        found = {channel.name: channel.outside(rows[channel.name].flatten(2)) for channel in self.inputs}
        return {name: remark for name, remark in found.items() if remark}

    def _native(self, u: Tensor, asked: _Asked) -> Tensor:
        """Rows of an input for the network, at its points; those in float64 stay so."""
        like, place = self.network.output_mean, self.place
        u = u.to(like.device, torch.promote_types(asked.dtype, like.dtype))
        return resample(u, asked.points, place.periodic, nodes=asked.nodes, to=place.nodes, held=True)

    def _run(
        self,
        rows: Mapping[str, Tensor],
        asked: _Asked,
        batch_size: int | None,
        state: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """`(rows, channels, *space)` at the points of the network; `state` is there already."""
        count = math.prod(asked.batch)
        if batch_size is not None and batch_size < 1:
            raise InputError(f"operator: batch_size is at least 1, not {batch_size}")
        size, ready = batch_size or max(1, count), state or {}
        tracked = torch.is_grad_enabled() and any(u.requires_grad for u in (*rows.values(), *ready.values()))
        parts = []
        with torch.set_grad_enabled(tracked):
            for start in range(0, count, size):
                own = slice(start, start + size)
                given = [ready[n][own] if n in ready else self._native(u[own], asked) for n, u in rows.items()]
                parts.append(self.network(torch.cat(given, 1)))
            if not parts:
                channels = sum(channel.count for channel in self.outputs)
                parts = [self.network.output_mean.new_zeros(0, channels, *asked.points)]
            return torch.cat(parts)

    def _answers(self, y: Tensor, asked: _Asked) -> dict[str, Tensor]:
        place = self.place
        y = resample(y, asked.shape, place.periodic, nodes=place.nodes, to=asked.nodes).to(asked.device, asked.dtype)
        own = {channel.name: channel.components for channel in self.outputs}
        return {name: u.reshape(*asked.batch, *own[name], *asked.shape) for name, u in self._split(y).items()}

    def _split(self, y: Tensor) -> dict[str, Tensor]:
        """The channels of each output."""
        parts = y.split([channel.count for channel in self.outputs], 1)
        return {channel.name: part for channel, part in zip(self.outputs, parts, strict=True)}

    def _check_names(self, fields: Mapping[str, Any]) -> None:
        names = [channel.name for channel in self.inputs]
        for name in _named(fields):
            if name not in names:
                raise InputError(f"operator: it takes no {name!r}{suggestion(str(name), names)}")
        missing = [name for name in names if name not in fields]
        if missing:
            raise InputError(f"operator: the input {missing[0]!r} is missing; it takes {', '.join(names)}")

    def _shape(self, fields: Mapping[str, Any]) -> tuple[int, ...]:
        for channel in self.inputs:
            shape = _tensor(channel.name, fields[channel.name]).shape
            axes = len(self.place.shape)
            if channel.kind == "field" and len(shape) >= axes:
                return tuple(shape[-axes:])
        return self.place.shape

    def _read(self, channel: Channel, value: Any, shape: tuple[int, ...]) -> Tensor:
        """`(*batch, channels, *space)`."""
        values = _tensor(channel.name, value)
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"operator: the input {channel.name!r} holds NaN or infinite values")
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


def load(folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> TrainedOperator:
    """The operator in a folder, every byte of it checked.

    Args:
        folder: that `TrainedOperator.save` or a training wrote; also the folder of the training itself.
        device: where its network goes.

    Raises:
        InputError: there is no operator, it is damaged, of another version, or of a network that is unknown.
    """
    with storage.reading(folder) as (network, content, fixed):
        place: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content["place"].items()}
        operator = TrainedOperator(
            Normalized(network, **content["normalization"]).eval(),
            tuple(_channel(item) for item in content["inputs"]),
            tuple(_channel(item) for item in content["outputs"]),
            Place(**place),
            None if content["equation"] is None else Equation.from_json(content["equation"]),
            content["parameters"],
            content["interval"],
            content["origin"],
            fixed,
        )
    return operator.to(device)


@dataclass(frozen=True)
class _Asked:
    """What an answer is to be.

    Attributes:
        batch: its axes.
        shape, nodes: its points, see `resample`.
        points: of the network.
        device, dtype: of the answer.
    """

    batch: tuple[int, ...]
    shape: tuple[int, ...]
    nodes: tuple[bool, ...]
    points: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype


def _named(fields: Any) -> Mapping[str, Any]:
    if not isinstance(fields, Mapping):
        raise InputError(f"operator: fields are given by name, {{'a': ...}}; got {type(fields).__name__}")
    return fields


def _tensor(name: str, value: Any) -> Tensor:
    try:
        values = torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"operator: the input {name!r} is no tensor, array or number: {error}") from error
    if values.is_complex():
        raise InputError(f"operator: the input {name!r} is complex")
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def _broadcast(shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    try:
        return tuple(torch.broadcast_shapes(*map(tuple, shapes.values())))
    except RuntimeError as error:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise InputError(f"operator: the batch shapes of its inputs do not broadcast: {listed}") from error


def _finite(described: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {
        **described,
        **{word: [v if math.isfinite(v) else None for v in described[word]] for word in ("lowest", "highest")},
    }


def _channel(described: Mapping[str, Any]) -> Channel:
    lowest, highest = (
        tuple(bound if v is None else v for v in described[word])
        for word, bound in (("lowest", -math.inf), ("highest", math.inf))
    )
    return Channel(described["name"], described["kind"], tuple(described["components"]), lowest, highest)
