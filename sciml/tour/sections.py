"""The sections of the tour, in order. This is the one place where a section is registered."""

from __future__ import annotations

from . import (
    batch,
    boundaries,
    comparison,
    convergence,
    hard_coefficients,
    jumping_coefficient,
    learned_solvers,
    learning,
    neural_equations,
    nonlinear,
    obstacles,
    part,
    patterns,
    poisson,
    recovery,
    ring,
    scan,
    sensitivity,
    shock,
    tuned_solvers,
    turbulence,
    warming,
)
from .chapter import Section

SECTIONS: tuple[Section, ...] = (
    poisson.SECTION,
    jumping_coefficient.SECTION,
    obstacles.SECTION,
    scan.SECTION,
    boundaries.SECTION,
    convergence.SECTION,
    part.SECTION,
    hard_coefficients.SECTION,
    nonlinear.SECTION,
    recovery.SECTION,
    batch.SECTION,
    warming.SECTION,
    ring.SECTION,
    turbulence.SECTION,
    patterns.SECTION,
    shock.SECTION,
    sensitivity.SECTION,
    learning.SECTION,
    neural_equations.SECTION,
    learned_solvers.SECTION,
    tuned_solvers.SECTION,
    comparison.SECTION,
)
