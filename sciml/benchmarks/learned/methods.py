"""The methods that are compared, and what the training of the learned ones cost."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sciml.solvers.linear import (
    SSOR,
    Chebyshev,
    ConjugateGradient,
    IncompleteCholesky,
    Multigrid,
)
from sciml.solvers.linear.base import LinearSolver, Preconditioner
from sciml.solvers.linear.learned import (
    DeepConjugateDirection,
    DirectionNetwork,
    LearnedMultigrid,
    about_weights,
)
from sciml.solvers.linear.learned.direction_network import KIND as DIRECTIONS
from sciml.solvers.linear.learned.learned_multigrid import KIND as COARSENING
from sciml.solvers.linear.successive_over_relaxation import Ordering

from ..linear.peers import MULTIGRID_CG, own
from ..linear.problems import Problem
from ..timing import Contender

LEARNED = "CG + LearnedMultigrid"
UNTRAINED = "CG + LearnedMultigrid, untrained"
V_CYCLE = "CG + Multigrid(cycle=1)"
DEEP = "DeepConjugateDirection"
CG, IC, CHEBYSHEV = "CG", "CG + IC(0)", "CG + Chebyshev"

OWN_CLASS = "box-3d"
# Iterations after which a method has failed: those of one kind take about as long.
_MOST = {"alone": 5_000, "neighbours": 1_500, "cycles": 500, "directions": 300}


def learned(dimension: int) -> LearnedMultigrid:
    """With the weights that ship."""
    return LearnedMultigrid.pretrained(_weights(dimension))


def with_multigrid(problem: Problem, tolerance: float) -> list[Contender]:
    """Conjugate gradients with cycles, learned and not."""
    dimension = len(problem.operator.space)
    cycles: dict[str, Preconditioner] = {
        LEARNED: learned(dimension),
        UNTRAINED: LearnedMultigrid(),
        MULTIGRID_CG: Multigrid(),
        V_CYCLE: Multigrid(cycle=1),
    }
    found = [
        own(problem, name, ConjugateGradient(preconditioner=cycle, rtol=tolerance, max_iterations=_MOST["cycles"]))
        for name, cycle in cycles.items()
    ]
    return [_saying(found[0], training(COARSENING, _weights(dimension))), *found[1:]]


def without_multigrid(problem: Problem, tolerance: float) -> list[Contender]:
    """Conjugate gradients alone and with preconditioners of next neighbours."""
    name, ssor = _ssor(problem.operator.space, problem.operator.device.type)
    solvers: dict[str, LinearSolver] = {
        CG: ConjugateGradient(),
        IC: ConjugateGradient(preconditioner=IncompleteCholesky()),
        name: ConjugateGradient(preconditioner=ssor),
        CHEBYSHEV: ConjugateGradient(preconditioner=Chebyshev()),
    }
    most = {CG: _MOST["alone"]}
    return [
        own(problem, name, replace(solver, rtol=tolerance, max_iterations=most.get(name, _MOST["neighbours"])))
        for name, solver in solvers.items()
    ]


def deep(problem: Problem, tolerance: float) -> Contender:
    """Deep conjugate directions; the set-up contains reading the weights."""
    made = own(problem, DEEP, ConjugateGradient())

    def prepare() -> Any:
        network = DirectionNetwork.pretrained(OWN_CLASS).to(problem.operator.device)
        solver = DeepConjugateDirection(network, rtol=tolerance, max_iterations=_MOST["directions"])
        return solver.prepare(problem.operator)

    return _saying(replace(made, prepare=prepare), training(DIRECTIONS, OWN_CLASS))


def training(kind: str, name: str) -> dict[str, Any]:
    """What weights that ship say of their training; nothing where there are none of that name."""
    place = importlib.resources.files("sciml.solvers.linear.learned") / "weights" / f"{kind}-{name}.safetensors"
    if not place.is_file():
        return {}
    with importlib.resources.as_file(place) as path:
        return about_weights(path)


def _weights(dimension: int) -> str:
    return f"poisson-{dimension}d"


def _saying(contender: Contender, about: dict[str, Any]) -> Contender:
    """The contender with what its training was in the `extra` of its rows."""

    def finish(found: Any) -> Any:
        outcome = contender.finish(found)
        return replace(outcome, extra={**outcome.extra, "training": about})

    return replace(contender, finish=finish)


def _ssor(space: Sequence[int], device: str) -> tuple[str, SSOR]:
    """With the relaxation that is known to be best for the Laplacian on a cube."""
    relaxation = 2 / (1 + 2 * math.sin(math.pi / (2 * max(space))))  # Young, Adv. Math. 23 (1977) 215-271
    ordering: Ordering = "natural"
    if device != "cpu":
        ordering, relaxation = "multicolour", 1.0  # over-relaxation does not help SSOR in coloured order
    return f"CG + SSOR({relaxation:.3g})", SSOR(relaxation=relaxation, ordering=ordering)
