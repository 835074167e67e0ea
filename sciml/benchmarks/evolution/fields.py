"""Fields on periodic grids by steps of fixed size: the same method, step and number of steps for every library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import prod
from typing import Any

import numpy
import torch

from sciml.solvers.time import AdamsBashforth3, ExponentialRungeKutta

from ..bench import Bench, version_of
from ..row import Row
from ..timing import Contender, Outcome
from . import exponax_peer, own, problems, pyqg_peer, references
from .compiled import warmed
from .one_core import one_core
from .problems import Array, FieldProblem

ETDRK4 = "ETDRK4"
AB3 = "AB3"
TRANSFORMS = "the transforms alone, by torch.fft"

_COMPARED = 2  # rows of a batch that are compared with the reference


def kuramoto_sivashinsky_case(n: int, batch: int) -> str:
    """Name of the case."""
    return f"Kuramoto-Sivashinsky {n}, batch {batch}"


def navier_stokes_case(n: int, batch: int) -> str:
    """Name of the case."""
    return f"Navier-Stokes {n}x{n}, batch {batch}"


def quasi_geostrophic_case(n: int, batch: int) -> str:
    """Name of the case."""
    return f"two-layer quasi-geostrophic {n}x{n}, batch {batch}"


def measure_kuramoto_sivashinsky(n: int, batch: int, steps: int, bench: Bench) -> list[Row]:
    """Two transforms an evaluation, four evaluations a step."""
    problem = problems.kuramoto_sivashinsky(batch, n, steps)
    return _measure(
        kuramoto_sivashinsky_case(n, batch),
        problem,
        lambda dtype: own.stepped(problem, ETDRK4, ExponentialRungeKutta.etd4(), bench.device, dtype),
        exponax_peer.kuramoto_sivashinsky(problem),
        (4, 4),
        references.kuramoto_sivashinsky,
        bench,
    )


def measure_navier_stokes(n: int, batch: int, steps: int, bench: Bench) -> list[Row]:
    """Four transforms an evaluation at least (u, v; uv, v^2 - u^2), four evaluations a step."""
    problem = problems.navier_stokes(batch, n, steps)
    return _measure(
        navier_stokes_case(n, batch),
        problem,
        lambda dtype: own.stepped(problem, ETDRK4, ExponentialRungeKutta.etd4(), bench.device, dtype),
        exponax_peer.navier_stokes(problem),
        (8, 8),
        references.navier_stokes,
        bench,
    )


def measure_quasi_geostrophic(n: int, batch: int, steps: int, bench: Bench) -> list[Row]:
    """Nine transforms an evaluation (u, v of both layers; uv, v^2 - u^2 of both, u1 v2 - u2 v1), one a step."""
    problem = problems.quasi_geostrophic(batch, n, steps)
    return _measure(
        quasi_geostrophic_case(n, batch),
        problem,
        lambda dtype: own.stepped(problem, AB3, AdamsBashforth3(), bench.device, dtype),
        pyqg_peer.quasi_geostrophic(problem),
        (4, 5),
        references.quasi_geostrophic,
        bench,
    )


def _measure(
    case: str,
    problem: FieldProblem,
    method: Callable[[torch.dtype], Contender],
    peer: Contender,
    transforms: tuple[int, int],
    reference: Callable[[FieldProblem, int], Array],
    bench: Bench,
) -> list[Row]:
    """On a CPU one core, double precision, beside the peer; on a GPU single precision, alone."""
    on_gpu = bench.device == "cuda"
    dtype = torch.float32 if on_gpu else torch.float64
    with nullcontext() if on_gpu else one_core():
        bench.say(f"{case}: reference, and compilation of the peer")
        tight = reference(problem, min(_COMPARED, problem.batch))
        peers = [] if on_gpu else [warmed(peer)]
        contenders = [method(dtype), *peers, _transforms(problem, transforms, bench.device, dtype)]
        rows = bench.compare(
            case,
            contenders,
            unknowns=prod(problem.initial.shape),
            error=lambda value: _distance(value[: len(tight)], tight),
        )
    return [replace(row, dtype=str(dtype).removeprefix("torch.")) for row in per_member(rows, problem.batch)]


def _distance(value: Any, tight: Array) -> float:
    return float(numpy.linalg.norm(value - tight) / numpy.linalg.norm(tight))


def _transforms(problem: FieldProblem, counts: tuple[int, int], device: str, dtype: torch.dtype) -> Contender:
    """So many inverse and forward transforms a step by torch.fft, one field of the batch at a time or 64 lines."""
    inverse, forward = counts
    block = 64 if problem.axes == 1 or device == "cuda" else 1
    axes = tuple(range(-problem.axes, 0))
    field = torch.zeros(min(block, problem.batch), *problem.grid, dtype=dtype, device=device)
    spectrum = torch.fft.rfftn(field, dim=axes)
    calls = -(-problem.batch // block) * problem.steps

    @torch.no_grad()
    def solve(_: Any) -> None:
        for _ in range(calls):
            for _ in range(inverse):
                torch.fft.irfftn(spectrum, problem.grid, dim=axes)
            for _ in range(forward):
                torch.fft.rfftn(field, dim=axes)

    note = f"{inverse} inverse, {forward} forward a step"
    version = version_of("torch")
    return Contender(TRANSFORMS, "torch", version, solve, lambda _: Outcome(None, problem.steps, note), device=device)


def per_member(rows: Sequence[Row], members: int) -> list[Row]:
    """The rows with their time a step, and how many steps of one member they make in a second."""
    told = []
    for row in rows:
        extra = dict(row.extra)
        if row.solve_seconds and row.iterations:
            extra["seconds_per_step"] = row.solve_seconds / row.iterations
            extra["per_second"] = members * row.iterations / row.solve_seconds
            extra["counted"] = "member-steps"
        told.append(replace(row, extra=extra))
    return told
