"""The clock of the sections that compare: that of the benchmarks, with less patience."""

from __future__ import annotations

from ..benchmarks.bench import Bench
from ..benchmarks.suite import Size
from ..benchmarks.timing import IMPATIENCE, Patience


def make_bench(quick: bool) -> Bench:
    """A bench that takes five runs of every method, one if it has to be quick."""
    patience = IMPATIENCE if quick else Patience(repeats=5, quick_repeats=5, retries=0, settle=0.3)
    return Bench("tour", Size.SMALL, "cpu", lambda line: None, patience=patience)
