"""The cases of the suite `neural-de` at each size, and the figures that it is to reach."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..evolution.one_core import ENVIRONMENT
from ..row import Row, Rows
from ..suite import Case, Figure, Plan
from . import gradients, order, sde, step, stiffness
from .gradients import Interval
from .methods import BIASED, BOTH, ER, SR, UNBIASED, VANILLA
from .order import Geometric
from .sde import SOSRI2, Spiral
from .step import Digits
from .stiffness import Oscillator
from .training import Course, measure_training

DIGITS, DIGITS_SDE, LATENT = "digits-ode", "digits-sde", "latent-spirals"
POINTS, SHARE = 0.7, 1.05
"""What a regularizer may cost: points of accuracy, or another loss over that of the vanilla model."""


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size.

    Args:
        courses: what is trained.
        digits: the model that is stepped with.
        spiral, geometric: stochastic equations.
        oscillators: with estimates of stiffness.
        ode, sde: with gradients.
    """

    courses: Sequence[Course]
    digits: Digits = field(default_factory=Digits)
    spiral: Spiral = field(default_factory=Spiral)
    geometric: Geometric = field(default_factory=Geometric)
    oscillators: Sequence[Oscillator] = stiffness.OSCILLATORS
    ode: Interval = field(default_factory=lambda: Interval(2.0))
    sde: Interval = field(default_factory=lambda: Interval(1.0))


_ALL = tuple(Course(task) for task in (DIGITS, DIGITS_SDE, "spiral-ode", "spiral-sde", LATENT, "gaussians"))
_MOMENT = {"steps": 2, "tolerance": 1e-2, "hidden": 4}
EXTENTS = {
    "tiny": Extent(
        (
            Course(DIGITS, (0, 1), (VANILLA, ER, UNBIASED), _MOMENT),
            Course(DIGITS_SDE, (0,), (VANILLA, ER), {**_MOMENT, "trajectories": 2}),
        ),
        Digits(epochs=1, batch=8, hidden=4, tolerance=1e-3),
        Spiral(4, (8, 16), 32, 32),
        Geometric(10, (4, 8)),
        stiffness.OSCILLATORS[:2],
        Interval(0.1),
        Interval(0.1),
    ),
    "small": Extent((Course(DIGITS, (0,)), Course(DIGITS_SDE, (0,)))),
    "medium": Extent(_ALL),
    "large": Extent(_ALL),
}


def plan(size: str, device: str) -> Plan:
    """The cases and the figures at a size on a device; at the size tiny, which says nothing of the figures, those of
    medium, which are then not measured."""
    extent = EXTENTS[size]
    return Plan(tuple(_cases(extent, device)), tuple(figures(EXTENTS["medium"] if size == "tiny" else extent)))


def _cases(extent: Extent, device: str) -> Iterator[Case]:
    # One thread: the matrices are small, and so are the peers'.
    environment = {} if device == "cuda" else ENVIRONMENT
    digits = extent.digits
    yield Case(digits.peers_case, partial(step.measure_peers, digits), environment)
    yield Case(digits.regularizers_case, partial(step.measure_regularizers, digits), environment)
    if device == "cpu":
        yield Case(extent.spiral.name, partial(sde.measure_spiral, extent.spiral), environment)
        yield Case(extent.geometric.name, partial(order.measure_order, extent.geometric), environment)
        for oscillator in extent.oscillators:
            yield Case(oscillator.name, partial(stiffness.measure_stiffness, oscillator), environment)
        yield Case(extent.ode.case, partial(gradients.measure_ode, extent.ode), environment)
        yield Case(extent.sde.stochastic, partial(gradients.measure_sde, extent.sde), environment)
    for course in extent.courses:
        yield Case(course.name, partial(measure_training, course), environment)


# The figures


def figures(extent: Extent) -> Iterator[Figure]:
    """What is to be reached by the cases of an extent."""
    yield from _of_digits()
    yield from _of_latent()
    digits = extent.digits
    case = digits.regularizers_case
    what = "of the open regularizers, the slowest over the plain model"
    yield Figure(f"{case}, a step {what}", 1.05, "times", partial(_overhead, case), partial(_overheads, case))
    for names, goal in (((ER, SR, BOTH), 0), ((UNBIASED, BIASED), 7)):
        what = f"{case}, further evaluations of {' and '.join(names) if goal else 'the open ones'}"
        yield Figure(what, goal, "count", partial(_further, case, names))
    for name in (extent.ode.case, extent.sde.stochastic):
        what = f"{name}, the largest relative difference from differences"
        yield Figure(what, 1e-6, "number", partial(_largest, name))
    spiral, geometric = extent.spiral, extent.geometric
    what = f"{spiral.name}, {SOSRI2} over torchsde's srk at equal strong error"
    yield Figure(what, 0.5, "times", partial(_over_torchsde, spiral), partial(_all_ratios, spiral))
    what = f"{geometric.name}, observed order of {SOSRI2} from 1.5"
    yield Figure(what, 0.2, "number", partial(_from_theory, geometric), partial(_orders, extent))
    for oscillator in extent.oscillators:
        what = f"{oscillator.name}, estimate and eigenvalue apart, where stability limits the step"
        yield Figure(what, 2.0, "times", partial(_factor, oscillator), partial(_share, oscillator))
    case = digits.peers_case
    what = f"{case}, seconds an evaluation over torchdiffeq's"
    yield Figure(what, 0.6, "times", partial(_over_torchdiffeq, case), partial(_evaluations, case))


def _of_digits() -> Iterator[Figure]:
    for name, goal in (("evaluations", 0.40), ("training_seconds", 0.60), ("prediction_seconds", 0.55)):
        yield _to_vanilla(DIGITS, ER, name, goal)
    yield from _quality(DIGITS, ER)
    for method in (UNBIASED, BIASED):
        yield _to_vanilla(DIGITS, method, "evaluations", 0.55)
        yield from _quality(DIGITS, method)
    yield _to_vanilla(DIGITS_SDE, ER, "evaluations", 0.50)
    yield from _quality(DIGITS_SDE, ER)


def _to_vanilla(task: str, method: str, name: str, goal: float) -> Figure:
    case = Course(task).name
    what = f"{case}, {method}, {name.replace('_', ' ')} over vanilla's"
    return Figure(what, goal, "times", partial(_median_ratio, case, method, name), partial(_both, case, method, name))


def _quality(task: str, method: str) -> Iterator[Figure]:
    """Of a classifier: accuracy, which counts images, and cross-entropy, which weighs how sure it is of them."""
    case = Course(task).name
    lost, entropy = f"{case}, {method}, points of accuracy lost", f"{case}, {method}, cross-entropy over vanilla's"
    yield Figure(lost, POINTS, "number", partial(_lost, case, method), partial(_accuracies, case, method))
    yield Figure(entropy, SHARE, "times", partial(_of_entropy, case, method), partial(_entropies, case, method))


def _of_latent() -> Iterator[Figure]:
    case = Course(LATENT).name
    for name, goal in (("evaluations", 0.40), ("training_seconds", 0.55)):
        what = f"{case}, the better of ER and SR, {name.replace('_', ' ')} over vanilla's"
        yield Figure(what, goal, "times", partial(_of_better, case, name), partial(_better_note, case, name))
    what = f"{case}, the same, error over vanilla's"
    yield Figure(what, SHARE, "times", lambda rows: _loss_ratio(case, _better(case, rows), rows))


def _by_seed(row: Row, name: str) -> dict[int, float]:
    return {seed["seed"]: float(seed[name]) for seed in row.extra["seeds"]}


def _median_ratio(case: str, method: str, name: str, rows: Rows) -> float:
    """The median over the seeds of ratios to the vanilla model of the same first weights."""
    own, other = (_by_seed(rows.one(case, which), name) for which in (method, VANILLA))
    return statistics.median(own[seed] / other[seed] for seed in own)


def _both(case: str, method: str, name: str, rows: Rows) -> str:
    own, other = (rows.one(case, which).extra for which in (method, VANILLA))
    published = [extra["published"] for extra in (own, other)]
    note = f"{own[name]:.3g} against {other[name]:.3g}"
    if name == "evaluations" and None not in published and method == ER:
        note += f"; published {published[0]['evaluations']:g} against {published[1]['evaluations']:g}"
    return note


def _measured(case: str, method: str, metric: str, rows: Rows) -> dict[int, float]:
    """Of the test, by seed."""
    return {seed["seed"]: float(seed["metrics"][metric]) for seed in rows.one(case, method).extra["seeds"]}


def _lost(case: str, method: str, rows: Rows) -> float:
    """The median over the seeds, in points; below 0 where the regularizer is the better one."""
    own, other = (_measured(case, which, "accuracy", rows) for which in (method, VANILLA))
    return 100 * statistics.median(other[seed] - own[seed] for seed in own)


def _accuracies(case: str, method: str, rows: Rows) -> str:
    own, other = (
        ", ".join(f"{100 * accuracy:.2f}" for accuracy in _measured(case, which, "accuracy", rows).values())
        for which in (method, VANILLA)
    )
    return f"{own} against {other}"


def _of_entropy(case: str, method: str, rows: Rows) -> float:
    """The median over the seeds."""
    own, other = (_measured(case, which, "loss", rows) for which in (method, VANILLA))
    return statistics.median(own[seed] / other[seed] for seed in own)


def _entropies(case: str, method: str, rows: Rows) -> str:
    own, other = (
        ", ".join(f"{loss:.4f}" for loss in _measured(case, which, "loss", rows).values())
        for which in (method, VANILLA)
    )
    return f"{own} against {other}"


def _loss_ratio(case: str, method: str, rows: Rows) -> float:
    own, other = (rows.one(case, which).extra for which in (method, VANILLA))
    return float(own["value"]) / float(other["value"])


def _better(case: str, rows: Rows) -> str:
    """Of ER and SR the one with fewer evaluations, of those that are good enough, if any is."""
    good = [method for method in (ER, SR) if _loss_ratio(case, method, rows) <= SHARE]
    return min(good or (ER, SR), key=lambda method: _median_ratio(case, method, "evaluations", rows))


def _of_better(case: str, name: str, rows: Rows) -> float:
    return _median_ratio(case, _better(case, rows), name, rows)


def _better_note(case: str, name: str, rows: Rows) -> str:
    method = _better(case, rows)
    return f"{method}, {_both(case, method, name, rows)}"


def _overhead(case: str, rows: Rows) -> float:
    return max(rows.ratio(case, method, [VANILLA]) for method in (ER, SR, BOTH))


def _overheads(case: str, rows: Rows) -> str:
    methods = [
        row.method for row in rows if row.case == case and row.method != VANILLA and not row.extra.get("failure")
    ]
    return ", ".join(f"{method} {rows.ratio(case, method, [VANILLA]):.2f} x" for method in methods)


def _further(case: str, methods: Sequence[str], rows: Rows) -> float:
    counts = [rows.one(case, method).extra["evaluations"] for method in (*methods, VANILLA)]
    return float(max(counts[:-1]) - counts[-1])


def _largest(case: str, rows: Rows) -> float:
    errors = [row.error for row in rows if row.case == case]
    known = [error for error in errors if error is not None]
    if not known or len(known) < len(errors):
        raise LookupError(f"{case}: not all were measured")
    return max(known)


def _over_torchsde(spiral: Spiral, rows: Rows) -> float:
    return statistics.median(sde.ratios(spiral, rows).values())


def _all_ratios(spiral: Spiral, rows: Rows) -> str:
    return ", ".join(f"{ratio:.2f} x at {count} steps of srk" for count, ratio in sde.ratios(spiral, rows).items())


def _from_theory(geometric: Geometric, rows: Rows) -> float:
    extra = rows.one(geometric.name, SOSRI2).extra
    return abs(float(extra["order"]) - float(extra["of_method"]))


def _orders(extent: Extent, rows: Rows) -> str:
    found = [f"{name} {rows.one(extent.geometric.name, name).extra['order']:.2f}" for name in order.METHODS]
    try:
        spiral = sde.observed_order(extent.spiral, SOSRI2, rows)
    except LookupError:
        return ", ".join(found)
    return f"{', '.join(found)}; on the spiral, of little noise, {spiral:.2f}"


def _factor(oscillator: Oscillator, rows: Rows) -> float | None:
    factors = [rows.one(oscillator.name, name).extra["factor"] for name in stiffness.METHODS]
    return max((float(factor) for factor in factors if factor is not None), default=None)


def _share(oscillator: Oscillator, rows: Rows) -> str:
    shares = (rows.one(oscillator.name, name).extra["share"] for name in stiffness.METHODS)
    return " and ".join(f"{100 * share:.0f} %" for share in shares) + " of the steps limited by stability"


def _over_torchdiffeq(case: str, rows: Rows) -> float:
    counts = [rows.one(case, method).extra["evaluations"] for method in (step.OWN, step.TORCHDIFFEQ)]
    return rows.ratio(case, step.OWN, [step.TORCHDIFFEQ]) * counts[1] / counts[0]


def _evaluations(case: str, rows: Rows) -> str:
    counts = {method: rows.one(case, method).extra["evaluations"] for method in (step.OWN, step.TORCHDIFFEQ)}
    whole = rows.ratio(case, step.OWN, [step.TORCHDIFFEQ])
    other = rows.ratio(case, step.TSITOURAS, [step.TORCHDIFFEQ])
    return (
        f"{counts[step.OWN]} evaluations against {counts[step.TORCHDIFFEQ]}, {whole:.2f} x in all; "
        f"Tsitouras' method {other:.2f} x"
    )
