"""Methods that are compiled: their first run is made apart from the timing."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy

from ..bench import version_of
from ..timing import Contender, Outcome


def compiled(
    method: str, library: str, build: Callable[[Any], tuple[Callable[[Any], Any], Any]], steps: int, evaluations: int
) -> Contender:
    """A function of JAX as a contender, in double precision; it is built and compiled in the first run.

    Args:
        method, library: names.
        build: jax -> the function to compile and its argument.
        steps, evaluations: that a call makes.
    """
    kept: list[tuple[Callable[[Any], Any], Any, float]] = []

    def solve(_: Any) -> Any:
        import jax

        if not kept:
            jax.config.update("jax_enable_x64", True)
            function, start = build(jax)
            begin = time.perf_counter()
            ready = jax.jit(function).lower(start).compile()
            kept.append((ready, start, time.perf_counter() - begin))
        ready, start, _ = kept[0]
        return jax.block_until_ready(ready(start))

    def finish(found: Any) -> Outcome:
        extra = {"compile_seconds": kept[0][2], "evaluations": evaluations}
        return Outcome(numpy.asarray(found), steps, f"compilation {kept[0][2]:.1f} s", extra)

    return Contender(method, library, version_of(library), solve, finish)


def warmed(contender: Contender) -> Contender:
    """The contender after a first run, in which it compiles, with a note of what that took.

    An exception in that run is left to the next one, which is timed and tells it.
    """
    begin = time.perf_counter()
    with suppress(Exception):
        contender.solve(contender.prepare() if contender.prepare else None)
    seconds = time.perf_counter() - begin

    def finish(found: Any) -> Outcome:
        outcome = contender.finish(found)
        notes = [note for note in (outcome.note, f"first run {seconds:.1f} s") if note]
        return replace(outcome, note="; ".join(notes), extra={**outcome.extra, "first_seconds": seconds})

    return replace(contender, finish=finish)
