"""The cases of the suite `tuning` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ..evolution.one_core import ENVIRONMENT
from ..row import Rows
from ..suite import Case, Figure, Plan
from . import choice, decisions, heat, relaxation, sweeps
from .choice import CHANGING, Choice
from .decisions import Decisions
from .heat import Heat
from .policies import CHEB, LEARNERS, TSALLIS, fixed
from .relaxation import HIGH, LOW, Experiment


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size.

    Args:
        relaxation: the experiments with SOR.
        heat: that with the heat equation.
        choices: those with whole preconditioners.
        decisions: how many are timed.
        grids: points along an axis of those that are swept.
        batch: systems that are solved at once.
    """

    relaxation: Sequence[Experiment] = (HIGH, LOW)
    heat: Sequence[Heat] = (Heat(),)
    choices: Sequence[Choice] = (Choice(), Choice(CHANGING))
    decisions: Decisions = field(default_factory=Decisions)
    grids: Sequence[int] = (99, 500)
    batch: int = 512


_FEW = (0, 1)
EXTENTS = {
    "tiny": Extent(
        tuple(replace(each, rounds=6, seeds=_FEW) for each in (HIGH, LOW)),
        (Heat(intervals=10, steps=4, seeds=(0,)),),
        tuple(Choice(kind, cells=12, systems=4, seeds=(0,)) for kind in (choice.DRIFTING, CHANGING)),
        Decisions(20, 4),
        (9,),
        10,
    ),
    "small": Extent(
        tuple(replace(each, rounds=1000, seeds=_FEW) for each in (HIGH, LOW)),
        (Heat(intervals=50, steps=1000, seeds=_FEW),),
        tuple(Choice(kind, cells=96, systems=60, seeds=_FEW) for kind in (choice.DRIFTING, CHANGING)),
    ),
    "medium": Extent(),
    "large": Extent(heat=(Heat(), Heat(intervals=200, searched=False)), grids=(99, 500, 2000), batch=4096),
}


def plan(size: str, device: str) -> Plan:
    """The cases at a size on a device, and all figures; those of other sizes are then not measured."""
    extent = EXTENTS[size]
    return Plan(tuple(_cases_on_gpu(extent) if device == "cuda" else _cases(extent)), tuple(_figures()))


def _cases(extent: Extent) -> Iterator[Case]:
    for experiment in extent.relaxation:
        yield Case(experiment.name, partial(relaxation.measure_relaxation, experiment), ENVIRONMENT)
    yield Case(decisions.DECISIONS, partial(decisions.measure_decisions, extent.decisions), ENVIRONMENT)
    yield Case(decisions.ROUNDS, partial(decisions.measure_rounds, extent.decisions), ENVIRONMENT)
    for each in extent.heat:
        yield Case(each.name, partial(heat.measure_heat, each), ENVIRONMENT)
    for sequence in extent.choices:
        yield Case(sequence.name, partial(choice.measure_choice, sequence), ENVIRONMENT)
    for n in extent.grids:
        yield Case(sweeps.sweeps_case(n), partial(sweeps.measure_sweeps, n), ENVIRONMENT)
    yield Case(sweeps.batch_case(extent.batch), partial(sweeps.measure_batch, extent.batch), ENVIRONMENT)


def _cases_on_gpu(extent: Extent) -> Iterator[Case]:
    for n in extent.grids:
        yield Case(sweeps.sweeps_case(n), partial(sweeps.measure_sweeps, n))
    yield Case(sweeps.batch_case(extent.batch), partial(sweeps.measure_batch, extent.batch))


# The figures


def _figures() -> Iterator[Figure]:
    for experiment, method, goal in ((HIGH, TSALLIS, 122), (HIGH, CHEB, 68), (LOW, TSALLIS, 67), (LOW, CHEB, 48)):
        what = f"{experiment.name}, {method}, iterations a solve"
        yield Figure(what, goal, "count", partial(_iterations, experiment, method), partial(_beside, experiment))
    for method, most in ((TSALLIS, 73_000), (CHEB, 52_000)):
        what = f"{Heat().name}, {method}, iterations"
        yield Figure(what, most, "count", partial(_total, method), _heat_note)
    slowest = _slowest(decisions.DECISIONS, "seconds_per_decision")
    yield Figure("a decision of 20 arms, of the slowest policy", 5e-4, "seconds", slowest, _round_note)
    for sequence, times in ((Choice(), 1.10), (Choice(CHANGING), 1.0)):
        what = f"{sequence.name}, the tuner over the best preconditioner that is kept to"
        yield Figure(what, times, "times", partial(_over_best, sequence), partial(_choice_note, sequence))
    for n, method in ((99, sweeps.NATURAL), (500, sweeps.NATURAL), (500, sweeps.COLOURED)):
        case = sweeps.sweeps_case(n)
        what = f"{case}, {method}, over scipy's triangular solves"
        yield Figure(what, 0.2, "share", partial(_over_scipy, case, method))
    case = sweeps.batch_case(Extent().batch)
    yield Figure(f"{case}, at once over one after the other", 0.2, "share", partial(_abreast, case))


def _iterations(experiment: Experiment, method: str, rows: Rows) -> float:
    return float(rows.one(experiment.name, method).extra["iterations_per_solve"])


def _beside(experiment: Experiment, rows: Rows) -> str:
    kept = min(_iterations(experiment, fixed(omega), rows) for omega in relaxation.FIXED)
    best = _iterations(experiment, relaxation.BEST, rows)
    return f"best that is kept to {kept:.1f}, best of each system {best:.1f}"


def _total(method: str, rows: Rows) -> float:
    return float(rows.one(Heat().name, method).extra["total_iterations"])


def _heat_note(rows: Rows) -> str:
    kept = min(_total(fixed(omega), rows) for omega in heat.FIXED)
    return f"best that is kept to {kept:,.0f}, best of each step {_total(heat.BEST, rows):,.0f}"


def _slowest(case: str, name: str) -> Callable[[Rows], float]:
    return lambda rows: max(float(rows.one(case, method).extra[name]) for method in LEARNERS)


def _round_note(rows: Rows) -> str:
    try:
        whole = _slowest(decisions.ROUNDS, "seconds_of_the_tuner")(rows)
    except LookupError:
        return ""
    return f"all that a tuner adds to a solve: {1e6 * whole:.0f} us"


def _over_best(sequence: Choice, rows: Rows) -> float:
    return float(rows.one(sequence.name, choice.TUNED).extra["over_best_fixed"])


def _choice_note(sequence: Choice, rows: Rows) -> str:
    own = {name: rows.one(sequence.name, name).solve_seconds or 0.0 for name in choice.preconditioners()}
    name = min(own, key=own.__getitem__)
    return f"{name}: {own[name]:.1f} s"


def _over_scipy(case: str, method: str, rows: Rows) -> float | None:
    own = rows.one(case, method).solve_seconds
    other = rows.one(case, sweeps.SCIPY).solve_seconds
    return None if own is None or other is None else own / other


def _abreast(case: str, rows: Rows) -> float | None:
    own, other = (rows.one(case, method).solve_seconds for method in (sweeps.ABREAST, sweeps.IN_TURN))
    return None if own is None or other is None else own / other
