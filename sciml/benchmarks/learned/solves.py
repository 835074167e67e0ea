"""One problem solved by all methods to one tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from ..bench import Bench
from ..linear.peers import RUGE_STUBEN, SMOOTHED_AGGREGATION, pyamg_cg
from ..linear.solves import size
from ..row import Row
from ..suite import Size
from ..timing import Patience
from .methods import deep, with_multigrid, without_multigrid
from .problems import BOX, BOXES, PLUME, make

TOLERANCES = (1e-4, 1e-6, 1e-8)
TIMED = 1e-6
"""The tolerance at which runs are repeated as a comparison of times needs it."""
THOROUGH = Patience(repeats=4, quick_repeats=10, retries=2, most_seconds=20.0)
BRIEF = Patience(repeats=1, quick_repeats=3, retries=0, warm_up=0.0)

_DEEP = {BOX: (1e-4, 1e-6), PLUME: (1e-4,), BOXES: (1e-4,)}
_LARGEST_DEEP = 64**3  # unknowns of the problems that the network was not trained for: it takes minutes to fail
_LARGEST_FOR_PYAMG = {"cpu": 3_000_000, "cuda": 300_000}


def case_of(name: str, shape: Sequence[int], tolerance: float) -> str:
    """Name of the case."""
    return f"{name} {size(shape)} to {_text(tolerance)}"


def measure(name: str, shape: tuple[int, ...], tolerance: float, bench: Bench) -> list[Row]:
    """Set-up and solve by all methods; those that take long, and other tolerances than TIMED, with fewer repeats."""
    problem = make(name, shape, bench.device)
    case = case_of(name, shape, tolerance)
    thorough, brief = copy(bench), copy(bench)
    if bench.size != Size.TINY:
        thorough.patience, brief.patience = THOROUGH, BRIEF
    quick = with_multigrid(problem, tolerance)
    if problem.unknowns <= _LARGEST_FOR_PYAMG[bench.device]:
        quick += [pyamg_cg(problem, method, tolerance) for method in (RUGE_STUBEN, SMOOTHED_AGGREGATION)]
    slow = without_multigrid(problem, tolerance)
    if tolerance in _DEEP.get(name, ()) and (name == BOX or problem.unknowns <= _LARGEST_DEEP):
        slow.append(deep(problem, tolerance))
    rows = []
    for contenders, patient in ((quick, thorough if tolerance == TIMED else brief), (slow, brief)):
        rows += patient.compare(
            case, contenders, unknowns=problem.unknowns, residual=problem.relative_residual, tolerance=tolerance
        )
    return rows


def _text(tolerance: float) -> str:
    return f"{tolerance:.0e}".replace("e-0", "e-")
