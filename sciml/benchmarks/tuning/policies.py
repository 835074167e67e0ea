"""The policies that the suite compares, as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.solvers.tuning import ChebCB, ContextualTsallisINF, Policy, TsallisINF

TSALLIS, CONTEXTUAL, CHEB = "Tsallis-INF", "Tsallis-INF, contexts in bins", "ChebCB"
LEARNERS = (TSALLIS, CONTEXTUAL, CHEB)
RANGE = (1.0, 1.95)
ARMS = 20


def policies(interval: tuple[float, float], bins: int) -> dict[str, Policy]:
    """By name.

    Args:
        interval: least and greatest context.
        bins: of the contexts.
    """
    return {
        TSALLIS: TsallisINF(arms=ARMS),
        CONTEXTUAL: ContextualTsallisINF(arms=ARMS, interval=interval, bins=bins),
        CHEB: ChebCB(arms=ARMS, interval=interval),
    }


def fixed(relaxation: float) -> str:
    """Name of the method that keeps to one relaxation."""
    return f"relaxation {relaxation:g}"


def counted(mean: float, per_seed: list[float], **more: Any) -> Mapping[str, Any]:
    """What the rows say of their iterations in `extra`."""
    return {"iterations_per_solve": mean, "per_seed": per_seed, "note": f"{mean:.1f} iterations a solve", **more}
