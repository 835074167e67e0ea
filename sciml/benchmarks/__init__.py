"""Benchmarks: methods timed in turn with other libraries, under one stopping rule, on the user's own machine."""

from .row import Row, Rows
from .suite import Case, Figure, Plan, Suite
from .suites import SUITES

__all__ = ["SUITES", "Case", "Figure", "Plan", "Row", "Rows", "Suite"]
