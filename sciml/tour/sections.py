"""The sections of the tour, in order. This is the one place where a section is registered."""

from __future__ import annotations

from . import batch, boundaries, comparison, convergence, jumping_coefficient, obstacles, poisson, recovery
from .chapter import Section

SECTIONS: tuple[Section, ...] = (
    poisson.SECTION,
    jumping_coefficient.SECTION,
    obstacles.SECTION,
    boundaries.SECTION,
    convergence.SECTION,
    recovery.SECTION,
    batch.SECTION,
    comparison.SECTION,
)
