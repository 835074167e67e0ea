"""The spiral stochastic equation: strong order, and time at equal strong error against torchsde."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.evolve import evolve
from sciml.solvers.time import BrownianPath, StochasticRungeKutta

from ...stochastic_system import StochasticSystem
from ..bench import Bench, version_of
from ..row import Row, Rows
from ..timing import Contender, Outcome
from .order import slope

SOSRI2, SRK = "SOSRI2", "srk"

_MATRIX = ((-0.1, -2.0), (2.0, -0.1))
_GAMMA = 0.2
_SEED = 1


@dataclass(frozen=True)
class Spiral:
    """du = (-0.1 u^3 + 2 v^3) dt + 0.2 u dW1, dv = (-2 u^3 - 0.1 v^3) dt + 0.2 v dW2 from (2, 0) in [0, 1].

    Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021, section 4.2.1.

    Args:
        paths: at once.
        counts: of steps.
        reference: steps of the reference on the same paths.
        theirs: steps of the reference of torchsde's paths, which answer more slowly.
    """

    paths: int = 100
    counts: Sequence[int] = (64, 128, 256, 512)
    reference: int = 4096
    theirs: int = 2048

    @property
    def name(self) -> str:
        """Of the case."""
        return f"spiral SDE, {self.paths} paths, steps of fixed size"


def method_name(method: str, count: int) -> str:
    """Of a row."""
    return f"{method}, {count} steps"


def measure_spiral(spiral: Spiral, bench: Bench) -> list[Row]:
    """All methods and numbers of steps in turn.

    The error is the root mean square over paths and entries of the difference to SOSRI2 with many steps on the same
    path. What is timed makes the path, too, with the steps of the method in mind.
    """
    bench.say(f"{spiral.name}: references")
    fine = BrownianPath(_knots(spiral.reference), (spiral.paths, 2), seed=_SEED)
    reference = _own(fine, StochasticRungeKutta.sosri2(), spiral.reference)
    contenders = []
    for own, theirs in zip(_sosri2(spiral, fine, reference), _torchsde(spiral), strict=True):
        contenders += [own, theirs]
    unknowns = 2 * spiral.paths
    return bench.compare(spiral.name, contenders, unknowns=unknowns, error=lambda error: float(error))


def _knots(count: int) -> list[float]:
    return [k / count for k in range(count + 1)]


def _drift(u: Tensor, t: Any) -> Tensor:
    matrix = torch.tensor(_MATRIX, dtype=u.dtype)
    return u * u * u @ matrix


def _diffusion(u: Tensor, t: Any) -> Tensor:
    return _GAMMA * u


def _initial(spiral: Spiral) -> Tensor:
    return torch.tensor([2.0, 0.0], dtype=torch.float64).expand(spiral.paths, 2).contiguous()


def _own(path: Any, method: Any, count: int) -> Tensor:
    with torch.no_grad():
        system = StochasticSystem(_drift, _diffusion, (2,), path=path)
        initial = torch.tensor([2.0, 0.0], dtype=torch.float64)
        return evolve(system, initial=initial, times=(0.0, 1.0), method=method, step=1 / count).value[:, -1]


def _root_mean_square(difference: Tensor) -> float:
    return float(difference.square().mean().sqrt())


def _sosri2(spiral: Spiral, fine: BrownianPath, reference: Tensor) -> list[Contender]:
    method = StochasticRungeKutta.sosri2()

    def contender(count: int) -> Contender:
        def solve(_: Any) -> Tensor:
            return _own(BrownianPath(_knots(count), (spiral.paths, 2), seed=_SEED), method, count)

        def finish(_: Any) -> Outcome:
            return Outcome(_root_mean_square(_own(fine, method, count) - reference), count)

        return Contender(method_name(SOSRI2, count), "sciml", version_of("sciml"), solve, finish)

    return [contender(count) for count in spiral.counts]


def _torchsde(spiral: Spiral) -> list[Contender]:
    version = version_of("torchsde")
    if version is None:

        def missing(_: Any) -> None:
            raise ModuleNotFoundError("torchsde is not installed", name="torchsde")

        return [
            Contender(method_name(SRK, count), "torchsde", None, missing, lambda _: Outcome())
            for count in spiral.counts
        ]
    import torchsde

    class Equation:
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Any, y: Tensor) -> Tensor:
            return _drift(y, t)

        def g(self, t: Any, y: Tensor) -> Tensor:
            return _diffusion(y, t)

    def interval(count: int) -> Any:
        return torchsde.BrownianInterval(
            0.0,
            1.0,
            size=(spiral.paths, 2),
            dtype=torch.float64,
            entropy=_SEED,
            levy_area_approximation="space-time",
            dt=1 / count,
        )

    def integrated(path: Any, count: int) -> Tensor:
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        with torch.no_grad():
            values: Tensor = torchsde.sdeint(Equation(), _initial(spiral), times, bm=path, method="srk", dt=1 / count)
        return values[-1]

    fine: list[tuple[Any, Tensor]] = []

    def error(count: int) -> float:
        if not fine:
            path = interval(spiral.theirs)
            fine.append((path, _own(path, StochasticRungeKutta.sosri2(), spiral.theirs)))
        path, reference = fine[0]
        return _root_mean_square(integrated(path, count) - reference)

    def contender(count: int) -> Contender:
        def finish(_: Any) -> Outcome:
            return Outcome(error(count), count)

        return Contender(
            method_name(SRK, count), "torchsde", version, lambda _: integrated(interval(count), count), finish
        )

    return [contender(count) for count in spiral.counts]


# What the rows say


def observed_order(spiral: Spiral, method: str, rows: Rows) -> float:
    """The order that fits the rows best.

    Raises:
        LookupError: if a row is missing.
    """
    return slope(spiral.counts, [_error(rows, spiral, method, count) for count in spiral.counts])


def ratios(spiral: Spiral, rows: Rows) -> dict[int, float]:
    """Seconds of SOSRI2 over those of torchsde's srk at the error of the latter, by its number of steps.

    Between the rows of SOSRI2 the logarithm of the seconds is linear in that of the error.

    Raises:
        LookupError: if a row is missing, or no error of torchsde's lies between those of SOSRI2.
    """
    own = [(_error(rows, spiral, SOSRI2, count), _seconds(rows, spiral, SOSRI2, count)) for count in spiral.counts]
    found = {}
    for count in spiral.counts:
        error, seconds = _error(rows, spiral, SRK, count), _seconds(rows, spiral, SRK, count)
        for (upper, before), (lower, after) in pairwise(own):
            if upper >= error >= lower:
                share = math.log(upper / error) / math.log(upper / lower)
                found[count] = before ** (1 - share) * after**share / seconds
    if not found:
        raise LookupError(f"{spiral.name}: the errors of {SRK} lie outside those of {SOSRI2}")
    return found


def _error(rows: Rows, spiral: Spiral, method: str, count: int) -> float:
    return _given(rows.one(spiral.name, method_name(method, count)), lambda row: row.error)


def _seconds(rows: Rows, spiral: Spiral, method: str, count: int) -> float:
    return _given(rows.one(spiral.name, method_name(method, count)), lambda row: row.solve_seconds)


def _given(row: Row, number: Callable[[Row], float | None]) -> float:
    found = number(row)
    if found is None:
        raise LookupError(f"{row.method!r} on {row.case!r} has no such number")
    return found
