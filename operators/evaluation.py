"""How good a trained operator is on a dataset: errors, spectra, rollouts, and time against the solver."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.errors import InputError, SolveError
from sciml.grid import Grid
from sciml.scheme import Scheme, Spectral

from .against_solver import Comparison, Problem, compare
from .data import EvaluationData
from .losses import OperatorLoss, RelativeH1, RelativeL2
from .place import Place
from .report import Case, Report, Rollout
from .spectrum import RadialEnergy, Spectrum
from .trained import Channel, TrainedOperator

_PIECE = 1 << 21  # values of a field at a time
_COMPARED = 32  # samples on which operator and solver are compared
_ROUNDING = 1e-6  # of times, relative


def evaluate(
    operator: TrainedOperator,
    dataset: EvaluationData,
    *,
    split: str | None = "test",
    samples: int | None = None,
    solver: bool = True,
    scheme: Scheme | Spectral | None = None,
    fields: Mapping[str, Any] | None = None,
    batches: Sequence[int] = (1, 32),
) -> Report:
    """Errors of an operator on the samples of a dataset, on any grid of the box that it was trained on.

    An operator that goes from one time to a later one is measured on all pairs of times of the dataset, and on what
    comes of going on from its own answers. Everything runs on the device of the operator.

    The solver is timed in the setting that is quickest among those whose mean relative L2 error against the dataset is
    no larger than the operator's: grids of 1/8, 1/4, 1/2 and all of the points, each with the loosest tolerance; of at
    most 32 samples, in turn with the operator, from the coefficients to the answer on the grid of the dataset. Of an
    evolving equation it goes as far in time as the operator does at once.

    Args:
        operator: what is evaluated.
        dataset: what `sciml.datasets.open` returns.
        split: of the dataset; None: all of it. Default "test".
        samples: how many of the first are taken; None: all.
        solver: whether it is compared with the solver, of datasets that say their equation.
        scheme: of the solver, as `sciml.solve` takes it.
        fields: of the equation that the dataset does not hold, as `sciml.solve` takes them: numbers, functions, or
            tensors on the grid of the dataset.
        batches: samples at once where time is measured.

    Raises:
        InputError: there is no such split, or the dataset lacks fields of the operator, has them in another shape, in
            another box, with other boundary conditions or at other times, or holds values that are not finite.
    """
    data = dataset if split is None else dataset.split(split)
    if samples is not None and samples < 1:
        raise InputError(f"evaluate: samples is the number of samples that are taken, at least 1, not {samples}")
    operator.place.nodes_of(data.domain)
    task = _Task(operator, data, min(samples or len(data), len(data)))
    notes = [*_notes_on(operator, data, split)]
    with torch.no_grad():
        with _remarks(notes, ""):
            measured = _measure(task)
        rollout = None
        if task.steps:
            with _remarks(notes, "going on from its own answers: "):
                rollout = _roll_out(task)
        comparison = _compared(task, solver, scheme, fields or {}, batches, notes)
        with _remarks([], ""):  # said before
            cases = _cases(task, measured.errors)
    network = operator.network.network
    return Report(
        {
            "network": type(network).__name__,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "shape": operator.place.shape,
            "trained_on": operator.origin.get("dataset"),
            "inputs": [channel.name for channel in operator.inputs],
            "outputs": [channel.name for channel in operator.outputs],
            "interval": operator.interval,
        },
        {
            "name": data.name,
            "split": split,
            "samples": task.samples,
            "pairs": task.samples * task.starts,
            "shape": data.grid.shape,
            "equation": None if data.equation is None else str(data.equation),
        },
        data.grid,
        measured.errors,
        measured.not_finite,
        measured.spectra,
        rollout,
        cases,
        comparison,
        tuple(notes),
    )


class _Task:
    """What is asked of an operator on a dataset.

    Attributes:
        samples: how many.
        ahead: how many times of the dataset the truth lies after the inputs; 0 of a steady problem.
        starts: at how many times samples begin.
        steps: of a rollout; 0 of an operator that cannot go on from its answers.
        device: of the operator.
    """

    def __init__(self, operator: TrainedOperator, data: EvaluationData, samples: int) -> None:
        self.operator, self.data, self.samples = operator, data, samples
        self.device = operator.network.output_mean.device
        for role, channels in (("input", operator.inputs), ("output", operator.outputs)):
            for channel in channels:
                _check_channel(role, channel, data)
        moving = any(data.fields[channel.name].time_varying for channel in operator.outputs)
        self.ahead, self.starts, self.steps = 0, 1, 0
        if not moving:
            return
        times = torch.as_tensor(data.times)
        self.ahead = _ahead(operator, times, data.name)
        given = {channel.name for channel in operator.inputs}
        moving_inputs = {name for name in given if name in data.fields and data.fields[name].time_varying}
        if given & {channel.name for channel in operator.outputs}:
            self.starts = len(times) - self.ahead
            reached = times[self.ahead :] - times[: -self.ahead]
            interval = torch.full_like(reached, operator.interval or 0.0)
            if not torch.allclose(reached, interval, rtol=_ROUNDING, atol=0.0):
                raise InputError(
                    f"dataset {data.name!r}: its times are not equally spaced, and the operator always goes "
                    f"{operator.interval:g} ahead"
                )
            if moving_inputs & {channel.name for channel in operator.outputs}:
                self.steps = (len(times) - 1) // self.ahead

    def inputs(self, rows: Tensor, start: int) -> dict[str, Tensor]:
        """By name, on the device of the operator."""
        return {c.name: self._read(c.name, rows, start).to(self.device) for c in self.operator.inputs}

    def input_at(self, name: str, rows: Tensor, step: int) -> Tensor:
        """An input that changes in time, at the begin of a step of a rollout."""
        return self._read(name, rows, step * self.ahead).to(self.device)

    def truth(self, rows: Tensor, start: int) -> dict[str, Tensor]:
        """By name, float64, on the device of the operator."""
        found = {}
        for channel in self.operator.outputs:
            value = self._read(channel.name, rows, start + self.ahead).to(self.device, torch.float64)
            finite = torch.isfinite(value).flatten(1).all(1)
            if not bool(finite.all()):
                bad = int(rows[int((~finite).to(torch.int64).argmax())])
                raise InputError(
                    f"dataset {self.data.name!r}: {channel.name!r} of sample {bad} has values that are not finite"
                )
            found[channel.name] = value
        return found

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the operator, float64."""
        return {name: value.double() for name, value in self.operator(inputs, self.data.grid).items()}

    def pieces(self, times: int = 1) -> Iterator[Tensor]:
        """Numbers of samples, as many as may be held at so many times."""
        yield from torch.arange(self.samples).split(max(1, _PIECE // (times * prod(self.data.grid.shape))))

    def _read(self, name: str, rows: Tensor, time: int) -> Tensor:
        field = self.data.fields.get(name)
        moves = field is not None and field.time_varying
        return self.data.read(name, rows, [time] * len(rows) if moves else None)


@dataclass(frozen=True)
class _Measured:
    errors: dict[str, dict[str, Tensor]]
    not_finite: tuple[int, ...]
    spectra: dict[str, Spectrum]


def _measure(task: _Task) -> _Measured:
    """Errors of single answers."""
    grid = task.data.grid
    names = [channel.name for channel in task.operator.outputs]
    norms: dict[str, dict[str, OperatorLoss]] = {
        name: {"L2": RelativeL2(), "H1": RelativeH1.on(grid, name)} for name in names
    }
    errors: dict[str, dict[str, list[Tensor]]] = {name: {"L2": [], "H1": [], "largest": []} for name in names}
    domain, at_nodes = task.data.domain.to(task.device), task.data.points == "nodes"
    by_unknown = set(names) <= set(domain.boundary)
    measures = {name: RadialEnergy(domain, name if by_unknown else None, at_nodes) for name in names}
    energies = {name: torch.zeros(2, len(measures[name].wavenumbers), dtype=torch.float64) for name in names}
    counted, bad = dict.fromkeys(names, 0), set()
    for start in range(task.starts):
        for rows in task.pieces():
            truth, prediction = task.truth(rows, start), task.answer(task.inputs(rows, start))
            for name in names:
                u, v = (_channelled(values[name], grid) for values in (truth, prediction))
                finite = torch.isfinite(v).flatten(1).all(1)
                bad.update(rows[~finite.cpu()].tolist())
                for norm, measure in norms[name].items():
                    errors[name][norm].append(_or_infinite(measure(v, u), finite))
                error, size = (w.abs().flatten(1).amax(1) for w in (v - u, u))
                largest = torch.where(error == 0, 0.0, error / size)
                errors[name]["largest"].append(_or_infinite(largest, finite))
                energies[name] += torch.stack([measures[name](w[finite]).sum(0) for w in (u, v - u)])
                counted[name] += int(finite.sum())
    spectra = {
        name: _spectrum(item, energies[name] / counted[name]) for name, item in measures.items() if counted[name]
    }
    joined = {name: {norm: torch.cat(parts) for norm, parts in norms.items()} for name, norms in errors.items()}
    return _Measured(joined, tuple(sorted(bad)), spectra)


def _spectrum(measure: RadialEnergy, energies: Tensor) -> Spectrum:
    return Spectrum(measure.wavenumbers, energies[0], energies[1], measure.resolved, measure.basis)


def _roll_out(task: _Task) -> Rollout:
    """The operator from the first time on, from its own answers."""
    outputs = [channel.name for channel in task.operator.outputs]
    times = torch.as_tensor(task.data.times)[task.ahead :: task.ahead][: task.steps]
    measure, grid = RelativeL2(), task.data.grid
    fields = task.data.fields
    moving = [c.name for c in task.operator.inputs if c.name in fields and fields[c.name].time_varying]
    moving = [name for name in moving if name not in outputs]
    errors: dict[str, list[Tensor]] = {name: [] for name in outputs}
    standing: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for rows in task.pieces(task.steps):
        given: dict[str, Any] = {**task.inputs(rows, 0)}
        for name in moving:
            given[name] = partial(task.input_at, name, rows)
        answers = task.operator.rollout(given, task.steps, grid)
        first = task.truth(rows, -task.ahead)
        found = {name: torch.empty(2, len(rows), task.steps, dtype=torch.float64) for name in outputs}
        for step in range(task.steps):
            for name, value in task.truth(rows, step * task.ahead).items():
                u, start = _channelled(value, grid), _channelled(first[name], grid)
                v = _channelled(answers[name][:, step].double(), grid)
                found[name][0, :, step] = _or_infinite(measure(v, u), torch.isfinite(v).flatten(1).all(1))
                found[name][1, :, step] = measure(start, u).cpu()
        for name, (wrong, unmoved) in found.items():
            errors[name].append(wrong)
            standing[name].append(unmoved)
    return Rollout(
        times,
        {name: torch.cat(parts) for name, parts in errors.items()},
        {name: torch.cat(parts) for name, parts in standing.items()},
    )


def _cases(task: _Task, errors: Mapping[str, Mapping[str, Tensor]]) -> tuple[Case, ...]:
    """The worst two and the median of the samples with finite answers, each at its worst time."""
    score = torch.stack([norms["L2"] for norms in errors.values()]).mean(0).reshape(task.starts, task.samples)
    score, begin = score.where(torch.isfinite(score), -1.0).max(0)
    order = [sample for sample in score.argsort().tolist() if score[sample] >= 0]
    if not order:
        return ()
    chosen = {"worst": order[-1]}
    if len(order) > 2:
        chosen |= {"second worst": order[-2], "median": order[(len(order) - 1) // 2]}
    found = []
    for title, sample in chosen.items():
        start = int(begin[sample])
        row = torch.tensor([sample])
        given = task.inputs(row, start)
        parts = [
            {name: value[0].cpu() for name, value in values.items()}
            for values in (given, task.truth(row, start), task.answer(given))
        ]
        time = None if not task.ahead else float(torch.as_tensor(task.data.times)[start + task.ahead])
        found.append(Case(title, sample, time, float(score[sample]), *parts))
    return tuple(found)


def _compared(
    task: _Task,
    solver: bool,
    scheme: Scheme | Spectral | None,
    extra: Mapping[str, Any],
    batches: Sequence[int],
    notes: list[str],
) -> Comparison:
    """Times, with those of the solver if it is asked for and can be."""
    start = (task.starts - 1) // 2
    count = min(_COMPARED, task.samples)
    rows = torch.arange(count)
    inputs, truth = task.inputs(rows, start), task.truth(rows, start)
    between = None
    if task.ahead:
        times = torch.as_tensor(task.data.times)
        between = (float(times[start]), float(times[start + task.ahead]))

    def answer(chosen: Tensor) -> dict[str, Tensor]:
        given = {name: value[chosen.to(value.device)] for name, value in inputs.items()}
        return task.answer(given)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said before
        found = answer(rows)
        measure = RelativeL2()
        grid = task.data.grid
        errors = [measure(_channelled(found[name], grid), _channelled(u, grid)) for name, u in truth.items()]
        error = float(torch.stack(errors).nan_to_num(nan=float("inf"), posinf=float("inf")).mean())
        problem = None
        if solver and not isfinite(error):
            notes.append("not compared with the solver: answers are not finite")
        elif solver:
            try:
                problem = _problem(task, rows, start, scheme, extra, truth, between)
                return compare(answer, problem, error, count, task.device, batches, between)
            except (InputError, SolveError) as refusal:
                notes.append(f"not compared with the solver: {refusal}")
        return compare(answer, None, error, count, task.device, batches, between)


def _problem(
    task: _Task,
    rows: Tensor,
    start: int,
    scheme: Scheme | Spectral | None,
    extra: Mapping[str, Any],
    truth: Mapping[str, Tensor],
    between: tuple[float, float] | None,
) -> Problem:
    """What the operator answered, for the solver."""
    data = task.data
    equation = data.equation
    if equation is None:
        raise InputError("the dataset does not say its equation")
    known = {*equation.unknowns, *equation.constrained}
    for name in truth:
        if name not in known:
            raise InputError(f"the equation {equation} has no unknown {name!r}")

    def read(name: str, time: int | None = None) -> Any:
        if name in data.fields:
            field = data.fields[name]
            if field.time_varying and time is None:
                raise InputError(f"{name!r} changes in time")
            values = data.read(name, rows, [time] * len(rows) if field.time_varying and time is not None else None)
            return values.to(task.device, torch.float64)
        value = data.parameters.get(name, extra.get(name))
        if value is None:
            raise InputError(f"the dataset does not hold {name!r}, which the equation needs")
        if not isinstance(value, Tensor):
            return value
        return (value[rows] if name in data.parameters else value).to(task.device, torch.float64)

    fields = {}
    for name in equation.coefficients:
        value = read(name)
        number = isinstance(value, Tensor) and value.dim() == 1 and name in data.parameters
        fields[name] = value.reshape(-1, *[1] * data.grid.dimension) if number else value
    parameters = {name: read(name) for name in equation.parameters if name in data.parameters}
    initial: dict[str, Tensor] = {}
    if equation.evolving:
        if between is None:
            raise InputError("the equation evolves, and the outputs do not change in time")
        initial = {name: read(name, start) for name in equation.unknowns}
    place = Place.of(data.domain, data.points)
    grid = data.domain.to(task.device, torch.float64)
    return Problem(equation, grid, scheme, fields, parameters, truth, initial, between, place.shape, place.nodes)


def _check_channel(role: str, channel: Channel, data: EvaluationData) -> None:
    known = (*data.fields, *(data.parameters if channel.kind == "parameter" else ()))
    if channel.name not in known:
        raise InputError(
            f"the operator has the {role} {channel.name!r}, which dataset {data.name!r} lacks"
            f"{suggestion(channel.name, known)}"
        )
    components = tuple(data.fields[channel.name].components) if channel.name in data.fields else ()
    if components != tuple(channel.components):
        raise InputError(
            f"the {role} {channel.name!r} of the operator has components {tuple(channel.components)}, that of dataset "
            f"{data.name!r} {components}"
        )


def _ahead(operator: TrainedOperator, times: Tensor, name: str) -> int:
    """How many times further the truth stands."""
    if operator.interval is None:
        raise InputError(f"the outputs of dataset {name!r} change in time, and the operator is one of a steady problem")
    gap = (times - times[0] - operator.interval).abs()
    ahead = int(gap.argmin())
    if not ahead or float(gap[ahead]) > _ROUNDING * operator.interval:
        first = ", ".join(f"{float(t - times[0]):g}" for t in times[1:4])
        raise InputError(
            f"the operator goes {operator.interval:g} ahead in time, and the values of dataset {name!r} lie {first}"
            f"{', ...' if len(times) > 4 else ''} after the first"
        )
    return ahead


def _notes_on(operator: TrainedOperator, data: EvaluationData, split: str | None) -> Iterator[str]:
    shape, trained = data.grid.shape, operator.place.shape
    if tuple(shape) != tuple(trained):
        at, here = (" x ".join(map(str, counts)) for counts in (trained, shape))
        how = (
            "the network takes any grid"
            if operator.any_resolution
            else "inputs are brought to the grid of the training and answers back, by means and linear interpolation"
        )
        yield f"trained at {at}, evaluated at {here}: {how}"
    if split in ("train", None) and operator.origin.get("dataset") == data.name:
        yield f"these samples {'are' if split else 'may be'} among those of the training: errors of others are larger"


@contextmanager
def _remarks(notes: list[str], begin: str) -> Iterator[None]:
    """Warnings become notes, one of each kind."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    kinds: set[str] = set()
    for item in caught:
        text = str(item.message)
        kind = text.partition(" has values ")[0]
        if kind not in kinds and not any(text.endswith(note) for note in notes):
            kinds.add(kind)
            notes.append(begin + text)


def _channelled(values: Tensor, grid: Grid) -> Tensor:
    """`(n, channel, *space)`."""
    return values.reshape(len(values), -1, *grid.shape)


def _or_infinite(errors: Tensor, finite: Tensor) -> Tensor:
    return torch.where(finite & ~errors.isnan(), errors, float("inf")).cpu()
