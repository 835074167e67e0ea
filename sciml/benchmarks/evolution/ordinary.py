"""Systems of ordinary differential equations by adaptive steps: the same tolerance and pair for every library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy
import torch

from sciml.solvers.time import ExplicitRungeKutta

from ..bench import Bench
from ..row import Row
from ..timing import Contender
from . import own, scipy_peer, systems, torchdiffeq_peer, torchode_peer
from .compiled import warmed
from .one_core import one_core
from .problems import Array

DORMAND_PRINCE = "Dormand-Prince"
TSIT5 = "Tsitouras"
TSIT5_LOOSER = "Tsitouras, to 5e-6"
COMPILED = "Dormand-Prince, step compiled"
ROWS = "Dormand-Prince, row by row"
TSIT5_ROWS = "Tsitouras, row by row"
ROWS_COMPILED = "Dormand-Prince, row by row, step compiled"

_NETWORK_END = 10.0
_VAN_DER_POL_END = 10.0
_LORENZ_END = 6.0
_REFERENCE_STEPS = 1000
_LORENZ_COMPARED = 64


def network_case(batch: int, backward: bool) -> str:
    """Name of the case."""
    return f"ODE of a network 4-32-4, batch {batch}, forward{' and backward' if backward else ''}"


def van_der_pol_case(batch: int, outputs: int) -> str:
    """Name of the case."""
    return f"Van der Pol, batch {batch}, {outputs} output time{'' if outputs == 1 else 's'}"


def lorenz_case(batch: int) -> str:
    """Name of the case."""
    return f"Lorenz, {batch} trajectories, 192 times"


def measure_network(batch: int, share: float, compiled: bool, backward: bool, bench: Bench) -> list[Row]:
    """One step size for the batch; torchode has one for every row.

    Args:
        batch: rows.
        share: of the span of time that is measured usually.
        compiled: whether compiled steps are measured too.
        backward: whether the gradient is, too.
        bench: the tools.
    """
    dopri5 = ExplicitRungeKutta.dormand_prince()
    methods = {DORMAND_PRINCE: dopri5, TSIT5: ExplicitRungeKutta.tsit5()}
    if compiled:
        methods[COMPILED] = replace(dopri5, compile=True)
    with one_core():
        problem = systems.network(batch, share * _NETWORK_END, bench.device)
        exact = systems.classical(problem, round(share * _REFERENCE_STEPS))
        if backward:
            tight = systems.gradient_of(problem, exact).cpu().numpy()
            contenders = [_ready(own.gradient(problem, name, method), method) for name, method in methods.items()]
            contenders += [
                torchdiffeq_peer.gradient(problem),
                torchode_peer.gradient(problem, torchode_peer.DOPRI5),
                torchode_peer.gradient(problem, torchode_peer.TSIT5),
            ]
        else:
            with torch.no_grad():
                tight = exact(problem.initial).cpu().numpy()
            contenders = [_ready(own.forward(problem, name, method), method) for name, method in methods.items()]
            contenders += [
                torchdiffeq_peer.forward(problem),
                torchode_peer.forward(problem, torchode_peer.DOPRI5),
                torchode_peer.forward(problem, torchode_peer.TSIT5),
            ]
        rows = bench.compare(
            network_case(batch, backward),
            contenders,
            unknowns=4 * batch,
            error=lambda value: _relative(value if backward else value[:, -1], tight),
        )
    return per_step(rows)


def measure_van_der_pol(batch: int, outputs: int, share: float, compiled: bool, bench: Bench) -> list[Row]:
    """Steps of its own for every row."""
    dopri5, tsit5 = ExplicitRungeKutta.dormand_prince(), ExplicitRungeKutta.tsit5()
    methods = {ROWS: dopri5, TSIT5_ROWS: tsit5}
    if compiled:
        methods[ROWS_COMPILED] = replace(dopri5, compile=True)
    with one_core():
        problem = systems.van_der_pol(batch, outputs, share * _VAN_DER_POL_END, bench.device)
        tight = systems.by_scipy(problem, batch)
        contenders = [
            _ready(own.written(problem, name, method, rows_alone=True), method) for name, method in methods.items()
        ]
        contenders += [
            torchode_peer.forward(problem, torchode_peer.DOPRI5),
            torchode_peer.forward(problem, torchode_peer.TSIT5),
        ]
        rows = bench.compare(
            van_der_pol_case(batch, outputs),
            contenders,
            unknowns=2 * batch,
            error=lambda value: _relative(value[:, -outputs:], tight[:, -outputs:]),
        )
    return per_step(rows)


def measure_lorenz(batch: int, sample: int, share: float, compiled: bool, thorough: bool, bench: Bench) -> list[Row]:
    """A data set of trajectories on all cores; scipy's, one after the other, are a sample. Errors are medians.

    Of all libraries that step jointly ours alone keeps the worst trajectory to the tolerance, and not their mean. The
    row with a looser one has an error nearer to those of the others.

    Args:
        batch: trajectories.
        sample: of scipy's.
        share: of the span of time that is measured usually.
        compiled: whether compiled steps are measured too.
        thorough: whether torchode is measured too, which takes longest.
        bench: the tools.
    """
    dopri5, tsit5 = ExplicitRungeKutta.dormand_prince(), ExplicitRungeKutta.tsit5()
    methods = {DORMAND_PRINCE: dopri5, TSIT5: tsit5}
    if compiled:
        methods[COMPILED] = replace(dopri5, compile=True)
    problem = systems.lorenz(batch, share * _LORENZ_END, bench.device)
    tight = systems.by_scipy(problem, min(batch, _LORENZ_COMPARED))
    contenders = [
        _ready(own.written(problem, name, method, rows_alone=False), method) for name, method in methods.items()
    ]
    looser = replace(problem, tolerance=5e-6)
    contenders += [
        own.written(looser, TSIT5_LOOSER, tsit5, rows_alone=False),
        scipy_peer.lorenz(problem, min(batch, sample)),
        torchdiffeq_peer.forward(problem),
        *([torchode_peer.forward(problem, torchode_peer.DOPRI5)] if thorough else []),
    ]
    rows = bench.compare(lorenz_case(batch), contenders, unknowns=3 * batch, error=lambda value: _median(value, tight))
    return [_trajectories(row, batch) for row in per_step(rows)]


def _ready(contender: Contender, method: ExplicitRungeKutta) -> Contender:
    return warmed(contender) if method.compile else contender


def _relative(value: Any, tight: Array) -> float:
    return float(numpy.linalg.norm(value - tight) / numpy.linalg.norm(tight))


def _median(value: Any, tight: Array) -> float:
    return float(numpy.median([_relative(one, other) for one, other in zip(value, tight, strict=False)]))


def per_step(rows: Sequence[Row]) -> list[Row]:
    """The rows with their time a step."""

    def told(row: Row) -> Row:
        if not row.solve_seconds or not row.iterations:
            return row
        return replace(row, extra={**row.extra, "seconds_per_step": row.solve_seconds / row.iterations})

    return [told(row) for row in rows]


def _trajectories(row: Row, batch: int) -> Row:
    if not row.solve_seconds:
        return row
    count = row.extra.get("trajectories", batch)
    extra = {"seconds_per_trajectory": row.solve_seconds / count, "per_second": count / row.solve_seconds}
    return replace(row, extra={**row.extra, **extra, "counted": "trajectories"})
