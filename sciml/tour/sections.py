"""The sections of the tour, in order. This is the one place where a section is registered."""

from __future__ import annotations

from . import boundaries, convergence, jumping_coefficient, obstacles, poisson
from .chapter import Section

SECTIONS: tuple[Section, ...] = (
    poisson.SECTION,
    jumping_coefficient.SECTION,
    obstacles.SECTION,
    boundaries.SECTION,
    convergence.SECTION,
)
