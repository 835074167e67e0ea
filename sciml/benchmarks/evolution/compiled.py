"""What the peers written in JAX have in common: double precision, compilation apart from the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy

from ..bench import version_of
from ..timing import Contender, Outcome


def compiled(
    method: str, library: str, build: Callable[[Any], tuple[Callable[[Any], Any], Any]], steps: int, evaluations: int
) -> Contender:
    """A function of JAX as a contender; it is built and compiled in the first run, which is not counted.

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
        seconds = kept[0][2]
        extra = {"compile_seconds": seconds, "evaluations": evaluations}
        return Outcome(numpy.asarray(found), steps, f"compiled before, in {seconds:.1f} s", extra)

    return Contender(method, library, version_of(library), solve, finish)
