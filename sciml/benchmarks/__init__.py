"""Benchmarks: methods timed in turn with other libraries, under one stopping rule, on the user's own machine."""

from .row import Row, Rows
from .suite import Case, Device, Figure, Plan, Size, Suite
from .suites import SUITES

__all__ = ["SUITES", "Case", "Device", "Figure", "Plan", "Row", "Rows", "Size", "Suite"]
