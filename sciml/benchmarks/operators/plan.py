"""The cases of the suite `operators` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..evolution.one_core import ENVIRONMENT
from ..row import Row, Rows
from ..suite import Case, Figure, Plan
from . import accuracy, reading, resume, rough, step
from .accuracy import Contest
from .contestants import MGNO, NEURALOPERATOR_FNO
from .reading import Reading
from .resume import Short
from .rough import Rough
from .step import Problem


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size.

    The accuracy takes `contest.seconds` of the processor for each of five networks and three seeds, all other cases
    together some minutes.

    Args:
        contest: networks trained for the same time, or None.
        steps: training steps that are timed.
        reading: of the data.
        short: the training that is resumed.
        rough: the data and time of the published problem, or None.
    """

    contest: Contest | None
    steps: Sequence[Problem]
    reading: Reading
    short: Short
    rough: Rough | None = None


_SMALL = Extent(Contest(), (Problem(),), Reading(Problem()), Short())
_FEW = {"train": 24, "valid": 4, "test": 6}
_LITTLE = Problem(points=16, batch=4, channels=4, layers=2, levels=(1, 2), modes=(6, 6), width=4, compiled=False)
EXTENTS = {
    "tiny": Extent(
        Contest(points=16, samples=_FEW, seconds=0.3, seeds=(0,), rounds=1, round_seconds=0.1),
        (_LITTLE,),
        Reading(_LITTLE, _FEW),
        Short(channels=3, points=16, steps=5, killed=3),
    ),
    "small": _SMALL,
    "medium": _SMALL,
    "large": _SMALL,
}
_LARGE_STEPS = (Problem(points=256, batch=8), Problem(points=256, batch=32))
ON_GPU = Extent(None, (Problem(), *_LARGE_STEPS), Reading(Problem()), Short(), Rough())


def plan(size: str, device: str) -> Plan:
    """The cases at a size on a device, and all figures; those of other sizes are then not measured."""
    extent = ON_GPU if device == "cuda" and size == "large" else EXTENTS[size]
    return Plan(tuple(_cases(extent, device)), FIGURES[device])


def _cases(extent: Extent, device: str) -> Iterator[Case]:
    # The environment that describes the machine comes first.
    environment = {} if device == "cuda" else ENVIRONMENT
    yield Case(step.GRAPHS, partial(step.measure_graphs, extent.steps[0]))
    for problem in extent.steps:
        yield Case(step.step_case(problem, False, device), partial(step.measure_step, problem, False))
        if device == "cpu":
            yield Case(step.step_case(problem, True), partial(step.measure_step, problem, True), environment)
    yield Case(reading.reading_case(extent.reading), partial(reading.measure_reading, extent.reading), environment)
    yield Case(resume.RESUME, partial(resume.measure_resume, extent.short), environment)
    if extent.contest is not None:
        name = accuracy.accuracy_case(extent.contest)
        yield Case(name, partial(accuracy.measure_accuracy, extent.contest), environment)
    if extent.rough is not None:
        yield Case(rough.rough_case(extent.rough), partial(rough.measure_rough, extent.rough))


# The figures


def _error(contest: Contest, name: str, rows: Rows) -> float:
    return float(_trained(contest, MGNO, rows).extra["errors"][name])


def _error_over_fno(contest: Contest, rows: Rows) -> float:
    other = _trained(contest, NEURALOPERATOR_FNO, rows).extra["errors"]["L2"]
    return _error(contest, "L2", rows) / float(other)


def _finer_over_coarse(contest: Contest, rows: Rows) -> float:
    return _error(contest, "L2 fine", rows) / _error(contest, "L2", rows)


def _parameters(contest: Contest, rows: Rows) -> float:
    return float(_trained(contest, MGNO, rows).extra["parameters"])


def _trained(contest: Contest, name: str, rows: Rows) -> Row:
    return rows.one(accuracy.accuracy_case(contest), name)


def _trained_note(contest: Contest, rows: Rows) -> str:
    row = _trained(contest, MGNO, rows)
    seeds = ", ".join(f"{100 * seed['errors']['L2']:.3g}" for seed in row.extra["seeds"])
    return f"L2 of the seeds in %: {seeds}; {row.extra['parameters']:,} parameters, {row.solve_seconds or 0:.0f} s"


def _ratio(case: str, method: str, peer: str, rows: Rows) -> float:
    return rows.ratio(case, method, [peer])


def _compiled_note(case: str, peer: str, rows: Rows) -> str:
    try:
        return f"compiled {rows.ratio(case, step.COMPILED, [peer]):.2f} x"
    except LookupError:
        return ""


def _graph_breaks(rows: Rows) -> float:
    return float(rows.one(step.GRAPHS, MGNO).extra["graph_breaks"])


def _share_of_reading(method: str, rows: Rows) -> float:
    case = reading.reading_case(_SMALL.reading)
    own, whole = (rows.one(case, name).extra["seconds_per_step"] for name in (method, MGNO))
    return float(own / whole)


def _losses_that_differ(rows: Rows) -> float:
    extra = rows.one(resume.RESUME, MGNO).extra
    return float(extra["losses_that_differ"] + (not extra["weights_are_equal"]))


def _figures_of_training() -> Iterator[Figure]:
    contest = Contest()
    what = accuracy.accuracy_case(contest)
    note = partial(_trained_note, contest)
    yield Figure(f"{what}, MgNO, L2", 0.019, "number", partial(_error, contest, "L2"), note)
    yield Figure(f"{what}, MgNO, true H1", 0.040, "number", partial(_error, contest, "H1"))
    yield Figure(f"{what}, MgNO, L2 over neuraloperator's FNO", 0.55, "times", partial(_error_over_fno, contest))
    yield Figure(f"{what}, MgNO, L2 at 128x128 over 64x64", 1.5, "times", partial(_finer_over_coarse, contest))
    yield Figure(f"{what}, MgNO, parameters", 580_000, "count", partial(_parameters, contest))


def _figures_of_engine() -> Iterator[Figure]:
    for method in (reading.IN_MEMORY, reading.FROM_FILES):
        what = f"{reading.reading_case(_SMALL.reading)}, {method}, over the steps of MgNO"
        yield Figure(what, 0.05, "number", partial(_share_of_reading, method))
    yield Figure(f"{step.GRAPHS}, breaks of MgNO", 0, "count", _graph_breaks)
    yield Figure(f"{resume.RESUME} after a kill, losses and weights that differ", 0, "count", _losses_that_differ)


def _cpu_figures() -> Iterator[Figure]:
    yield from _figures_of_training()
    for one_thread in (True, False):
        case = step.step_case(Problem(), one_thread)
        for peer, goal in ((step.PLAIN, 1 / 1.8), (NEURALOPERATOR_FNO, 1.0)):
            reached, note = partial(_ratio, case, MGNO, peer), partial(_compiled_note, case, peer)
            yield Figure(f"{case}, MgNO over {peer}", goal, "times", reached, note)
    yield from _figures_of_engine()


def _rough_row(precision: str, rows: Rows) -> Row:
    return rows.one(rough.rough_case(Rough()), rough.method(precision))


def _seconds_per_epoch(rows: Rows) -> float:
    return float(min(_rough_row(precision, rows).extra["seconds_per_epoch"] for precision in rough.PRECISIONS))


def _rough_error(rows: Rows) -> float:
    return float(_rough_row("float32", rows).extra["errors"]["L2"])


def _bf16_over_float32(rows: Rows) -> float:
    return float(_rough_row("bf16", rows).extra["errors"]["L2"]) / _rough_error(rows)


def _memory_note(rows: Rows) -> str:
    return ", ".join(
        f"{precision} {_rough_row(precision, rows).extra['peak_bytes'] / 1e9:.2f} GB" for precision in rough.PRECISIONS
    )


def _gpu_figures() -> Iterator[Figure]:
    what = rough.rough_case(Rough())
    yield Figure(f"{what}, on an H200, an epoch", 1.5, "seconds", _seconds_per_epoch, _memory_note)
    yield Figure(f"{what}, L2", 0.0045, "number", _rough_error)
    yield Figure(f"{what}, L2 in bf16 over float32", 1.05, "times", _bf16_over_float32)
    for problem in _LARGE_STEPS:
        case = step.step_case(problem, False, "cuda")
        for peer, goal in ((step.PLAIN, 1 / 3), (NEURALOPERATOR_FNO, 1.0)):
            reached = partial(_ratio, case, step.COMPILED, peer)
            yield Figure(f"{case}, MgNO compiled over {peer}", goal, "times", reached)
    yield from _figures_of_engine()


FIGURES = {"cpu": tuple(_cpu_figures()), "cuda": tuple(_gpu_figures())}
