"""An operator against the solver of this package: time at the same accuracy, and its answer as the solver's start."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from sciml.equations import Equation
from sciml.errors import InputError, SolveError
from sciml.grid import Grid
from sciml.scheme import Scheme, Spectral
from sciml.solution import Solution
from sciml.solvers.evolve import evolve
from sciml.solvers.solve import solve

from .losses import RelativeL2
from .resampling import resample

if TYPE_CHECKING:
    from rich.console import RenderableType

Answer = Callable[[Tensor], dict[str, Tensor]]
"""Of the numbers of samples, `(n,)`: what an operator says of them, `(n, *space)` by name."""

_COARSER = (8, 4, 2, 1)
_FEWEST = 4  # points along an axis of a coarser grid
_TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
_SETTLED = 0.01  # change of the error, relative, below which a smaller tolerance is of no use on a grid
_REPEATS, _FEW, _LONG = 5, 2, 5.0  # of a timing, and how many of one that takes so many seconds


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """Samples of a dataset as the solver takes them, in float64.

    Args:
        equation, scheme: see `sciml.solve`.
        grid: the domain; its unknowns stand between the values of a dataset at nodes.
        fields: by name, `(n, *space)` or what is the same for all: a number, a function, `space`.
        parameters: by name, a number or `(n,)`.
        truth: by name, `(n, *space)`.
        initial: of an evolving equation the state at the first of `times`, by name, `(n, *space)`.
        times: from when to when; None of a steady equation.
        shape, nodes: points of the dataset, see `resample`.
    """

    equation: Equation
    grid: Grid
    scheme: Scheme | Spectral | None
    fields: Mapping[str, Any]
    parameters: Mapping[str, Any]
    truth: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    times: tuple[float, float] | None
    shape: tuple[int, ...]
    nodes: tuple[bool, ...]

    def __len__(self) -> int:
        return len(next(iter(self.truth.values())))

    def rows(self, chosen: Tensor) -> Problem:
        """Some of the samples."""

        def pick(value: Any, axes: int) -> Any:
            return value[chosen] if isinstance(value, Tensor) and value.dim() == axes + 1 else value

        axes = self.grid.dimension
        fields, truth, initial = (
            {name: pick(value, axes) for name, value in part.items()}
            for part in (self.fields, self.truth, self.initial)
        )
        numbers = {name: pick(value, 0) for name, value in self.parameters.items()}
        return replace(self, fields=fields, truth=truth, initial=initial, parameters=numbers)

    def solve(self, shape: tuple[int, ...], rtol: float, start: Any = None) -> tuple[dict[str, Tensor], Solution]:
        """All samples at once: the answers on the grid of the dataset, and the solution on the grid of `shape`."""
        axes, alone, wraps = self.grid.dimension, len(self) == 1, self.grid.periodic
        grid = self.grid if shape == self.grid.shape else replace(self.grid, shape=shape)

        def place(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dim() < axes:
                return value
            moved = resample(value, shape, wraps, nodes=self.nodes, to=wraps, held=True)
            return moved[0] if alone and moved.dim() > axes else moved

        fields = {name: place(value) for name, value in self.fields.items()}
        numbers = {n: v[0] if alone and isinstance(v, Tensor) and v.dim() else v for n, v in self.parameters.items()}
        given: dict[str, Any] = {"fields": fields, "parameters": numbers, "rtol": rtol, "throw": False}
        if self.times is None:
            begin = None if start is None else {name: place(value) for name, value in start.items()}
            solution = solve(self.equation, grid, scheme=self.scheme, initial=begin, **given)  # type: ignore[arg-type]
            values = solution.value
        else:
            state = {name: place(value) for name, value in self.initial.items()}
            solution = evolve(self.equation, grid, initial=state, times=self.times, scheme=self.scheme, **given)
            values = solution.value.select(solution.codes.dim(), -1)
        found = _by_unknown(values, solution.unknowns, axes)
        if set(self.truth) - set(found):  # fields of constraints take solves of their own
            found = solution.fields
            if self.times is not None:
                found = {name: value.select(solution.codes.dim(), -1) for name, value in found.items()}
        answers = {}
        for name in self.truth:
            value = resample(found[name], self.shape, wraps, nodes=wraps, to=self.nodes)
            answers[name] = value.expand(len(self), *self.shape)
        return answers, solution


@final
@dataclass(frozen=True)
class Timing:
    """Seconds a sample.

    Args:
        batch: samples at once.
        operator, solver: least and median; None of a solver that was not timed.
        repeats: of both, in turn, after one that does not count.
    """

    batch: int
    operator: tuple[float, float]
    solver: tuple[float, float] | None
    repeats: int


@final
@dataclass(frozen=True)
class Guess:
    """The solver from the operator's answer, beside the solver from zero.

    Args:
        samples: how many were solved, at once.
        rtol: of both; the tolerance is relative to the residual of zero.
        iterations, inner: means from zero and from the answer; of a nonlinear equation `iterations` are Newton steps
            and `inner` those within them, else `inner` is None.
        residual: of the answer, relative to that of zero, mean.
        seconds: a sample, least: from zero, and from the answer with the time of the operator.
        method: of the solver.
    """

    samples: int
    rtol: float
    iterations: tuple[float, float]
    inner: tuple[float, float] | None
    residual: float | None
    seconds: tuple[float, float]
    method: str


@final
@dataclass(frozen=True)
class Comparison:
    """Operator and solver at the same accuracy.

    Args:
        samples: on which both were measured.
        error: mean relative L2 error of the operator on them.
        times: from when to when they go; None of a steady problem.
        timings: by size of the batch.
        device, threads: where both ran.
        shape, rtol, reached, method: the quickest setting of the solver whose error is no larger: the grid that it
            solves on, its tolerance, its error, and its method. None where no setting was good enough.
        nearest: least error of all settings that were tried.
        guess: None where an answer is no start: of evolving equations, and of solvers that do not iterate.
        why_not: why there is no solver to compare with, or no guess.
    """

    samples: int
    error: float
    times: tuple[float, float] | None
    timings: tuple[Timing, ...]
    device: str
    threads: int
    shape: tuple[int, ...] | None = None
    rtol: float | None = None
    reached: float | None = None
    method: str | None = None
    nearest: float | None = None
    guess: Guess | None = None
    why_not: str = ""

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        guess = None if self.guess is None else vars(self.guess)
        return {**vars(self), "timings": [vars(timing) for timing in self.timings], "guess": guess}

    def renderables(self) -> Iterator[RenderableType]:
        """Tables and sentences for people."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column(f"ms a sample, least (median); {self.device}, {_threads(self.threads)}")
        for timing in self.timings:
            table.add_column(f"batch {timing.batch}", justify="right")
        when = "" if self.times is None else f" from time {self.times[0]:g} to {self.times[1]:g}"
        table.add_row(f"operator{when}, L2 {_share(self.error)} %", *(_milliseconds(t.operator) for t in self.timings))
        if self.shape is not None and self.reached is not None:
            name = f"solver on {' x '.join(map(str, self.shape))}, rtol {self.rtol:g}, L2 {_share(self.reached)} %"
            table.add_row(name, *(_milliseconds(t.solver) for t in self.timings))
        yield table
        for sentence in self.sentences():
            yield Text(sentence)

    def sentences(self) -> tuple[str, ...]:
        """What the numbers come to."""
        said = []
        for timing in self.timings:
            if timing.solver is not None:
                ratio = timing.solver[0] / timing.operator[0]
                winner = "operator" if ratio >= 1 else "solver"
                said.append(
                    f"one by one the {winner} is" if timing.batch == 1 else f"of {timing.batch} at once the {winner} is"
                )
                said[-1] += f" {max(ratio, 1 / ratio):.3g} times quicker at this accuracy or better, set-up included"
        if self.method is not None:
            said.append(f"solver: {self.method}; the answer of another grid is brought to this one within its time")
        elif self.nearest is not None:
            said.append(
                "no setting of the solver that was tried comes as near to the dataset as the operator: "
                f"{_share(self.nearest)} % against {_share(self.error)} %"
            )
        if self.guess is not None:
            said.append(_guess_sentence(self.guess))
        if self.why_not:
            said.append(self.why_not)
        return tuple(said)


def compare(
    answer: Answer,
    problem: Problem | None,
    error: float,
    samples: int,
    device: torch.device,
    batches: Sequence[int],
    times: tuple[float, float] | None = None,
) -> Comparison:
    """Time an operator, look for a solver as accurate as it is, and time that in turn with it.

    Args:
        answer: of the operator.
        problem: the samples that `answer` knows by number; None to time the operator alone.
        error: of the operator, the mean over the samples and outputs.
        samples: how many there are.
        device: where the operator runs.
        batches: samples at once.
        times: from when to when it goes, for the reader.

    Raises:
        InputError: the solver refuses the problem.
        SolveError: it fails.
    """
    setting, nearest, together = (None, None, True) if problem is None else _search(problem, error)
    timings = []
    for batch in batches:
        chosen = torch.arange(batch) % samples
        tried: list[Callable[[], object]] = [partial(answer, chosen)]
        if problem is not None and setting is not None:
            tried.append(partial(_solve_all, problem.rows(chosen), setting.shape, setting.rtol, together))
        seconds = in_turn(tried, device)
        per_sample = [(min(column) / batch, median(column) / batch) for column in seconds]
        timings.append(Timing(batch, per_sample[0], per_sample[1] if len(tried) > 1 else None, len(seconds[0])))
    found = Comparison(samples, error, times, tuple(timings), str(device), torch.get_num_threads(), nearest=nearest)
    if setting is not None:
        found = replace(found, shape=setting.shape, rtol=setting.rtol, reached=setting.error, method=setting.method)
    if problem is None or problem.times is not None:
        return found
    guess, why_not = _try_guess(answer, problem, together, device)
    return replace(found, guess=guess, why_not=why_not)


def in_turn(tried: Sequence[Callable[[], object]], device: torch.device) -> list[list[float]]:
    """Seconds of several functions, run in turn so that a busy machine is busy for all of them; each is warmed first.

    Returns:
        For each function its times.
    """

    def clock(function: Callable[[], object]) -> float:
        begun = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        longest = max([clock(function) for function in tried])
        rounds = [[clock(function) for function in tried] for _ in range(_REPEATS if longest < _LONG else _FEW)]
    return [list(column) for column in zip(*rounds, strict=True)]


@dataclass(frozen=True)
class _Setting:
    shape: tuple[int, ...]
    rtol: float
    error: float
    method: str


def _search(problem: Problem, wanted: float) -> tuple[_Setting | None, float | None, bool]:
    """The quickest setting that is as accurate as wanted, the least error of all, and whether samples go at once."""
    together = _solves_together(problem)
    good: list[_Setting] = []
    nearest = float("inf")
    shapes = dict.fromkeys(tuple(n // coarser for n in problem.grid.shape) for coarser in _COARSER)
    for shape in (shape for shape in shapes if min(shape) >= _FEWEST or shape == problem.grid.shape):
        before = float("inf")
        for rtol in _TOLERANCES:
            try:
                answers, solution = _solve_all(problem, shape, rtol, together)
            except (InputError, SolveError):
                if shape == problem.grid.shape:
                    raise
                break  # values on the boundary, or solid cells, that belong to the grid of the dataset
            error = _error(answers, problem.truth)
            nearest = min(nearest, error)
            if error <= wanted:
                good.append(_Setting(shape, rtol, error, solution.method))
                break
            if abs(before - error) < _SETTLED * error < float("inf"):
                break
            before = error
    return _quickest(problem, good, together), nearest, together


def _quickest(problem: Problem, good: Sequence[_Setting], together: bool) -> _Setting | None:
    if len(good) < 2:
        return good[0] if good else None
    tried = [partial(_solve_all, problem, setting.shape, setting.rtol, together) for setting in good]
    seconds = [min(column) for column in in_turn(tried, problem.grid.device)]
    return good[seconds.index(min(seconds))]


def _solves_together(problem: Problem) -> bool:
    """Whether the solver takes a batch: direct ones do not."""
    if len(problem) == 1:
        return True
    try:
        _solve_all(problem.rows(torch.arange(2)), problem.grid.shape, _TOLERANCES[0], True)
    except (InputError, SolveError):
        return False
    return True


def _solve_all(
    problem: Problem, shape: tuple[int, ...], rtol: float, together: bool, start: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], Solution]:
    """Answers for all samples, and the solution of all or of the last of them."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if together:
            return problem.solve(shape, rtol, start)
        answers: dict[str, list[Tensor]] = {name: [] for name in problem.truth}
        for row in range(len(problem)):
            own = None if start is None else {name: value[row : row + 1] for name, value in start.items()}
            found, solution = problem.rows(torch.tensor([row])).solve(shape, rtol, own)
            for name, value in found.items():
                answers[name].append(value)
        return {name: torch.cat(values) for name, values in answers.items()}, solution


def _try_guess(answer: Answer, problem: Problem, together: bool, device: torch.device) -> tuple[Guess | None, str]:
    """The solver from zero and from the operator's answer, on the grid of the dataset."""
    everything, shape, rtol = torch.arange(len(problem)), problem.grid.shape, _TOLERANCES[-1]
    if not together:
        return (
            None,
            "the solver of this equation does not iterate, or not on a batch: an answer is of no use as its start",
        )

    def start() -> dict[str, Tensor]:
        return {name: u for name, u in answer(everything).items() if name in problem.equation.unknowns}

    if not all(bool(torch.isfinite(u).all()) for u in start().values()):
        return None, "an answer that is not finite is no start for the solver"
    _, cold = _solve_all(problem, shape, rtol, True)
    _, warm = _solve_all(problem, shape, rtol, True, start())
    both = (cold.converged & warm.converged).flatten()
    if "iterations" not in cold.statistics or not bool(both.any()):
        return None, f"with the operator's answer for a start the solver does not converge ({warm.method})"

    def mean(solution: Solution, name: str) -> float:
        return float(solution.statistics[name].flatten()[both].double().mean())

    inner = "inner_iterations" in cold.statistics and "inner_iterations" in warm.statistics
    residual = None
    if "residual_norm" in warm.history and "residual_norm" in cold.history:
        first = [solution.history["residual_norm"][0].flatten()[both] for solution in (warm, cold)]
        residual = float((first[0] / first[1]).mean())
    seconds = in_turn(
        [
            partial(_solve_all, problem, shape, rtol, True),
            lambda: _solve_all(problem, shape, rtol, True, start()),
        ],
        device,
    )
    return Guess(
        len(problem),
        rtol,
        (mean(cold, "iterations"), mean(warm, "iterations")),
        (mean(cold, "inner_iterations"), mean(warm, "inner_iterations")) if inner else None,
        residual,
        (min(seconds[0]) / len(problem), min(seconds[1]) / len(problem)),
        warm.method,
    ), ""


def _by_unknown(values: Tensor, unknowns: Sequence[str], axes: int) -> dict[str, Tensor]:
    if len(unknowns) == 1:
        return {unknowns[0]: values}
    return dict(zip(unknowns, values.unbind(-1 - axes), strict=True))


def _error(answers: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """Mean over samples and fields; infinite where an answer is not finite."""
    measure = RelativeL2()
    errors = torch.stack([measure(answers[name][:, None], value[:, None]) for name, value in truth.items()])
    return float(errors.nan_to_num(nan=float("inf"), posinf=float("inf")).mean())


def _guess_sentence(guess: Guess) -> str:
    unit = "Newton steps" if guess.inner is not None else "iterations"
    counts = f"{guess.iterations[1]:.3g} {unit} in place of {guess.iterations[0]:.3g} from zero"
    if guess.inner is not None:
        counts += f" ({guess.inner[1]:.3g} inner iterations in place of {guess.inner[0]:.3g})"
    begin = f", its residual being {guess.residual:.2g} of that of zero" if guess.residual is not None else ""
    cold, warm = (1e3 * seconds for seconds in guess.seconds)
    worth = "quicker" if warm < cold else "slower"
    return (
        f"as a start of the solver, to rtol {guess.rtol:g}, the operator's answer takes {counts}{begin}; with the time "
        f"of the operator {warm:.3g} ms a sample in place of {cold:.3g}: {worth}"
    )


def _milliseconds(seconds: tuple[float, float] | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds[0]:.3g} ({1e3 * seconds[1]:.3g})"


def _share(value: float) -> str:
    return f"{100 * value:.3g}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
