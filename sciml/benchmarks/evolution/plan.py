"""The cases of the suite `evolution` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ..row import Rows
from ..suite import Case, Figure, Plan
from . import exponax_peer, fields, ordinary, pyqg_peer, scipy_peer, torchdiffeq_peer, torchode_peer
from .one_core import ENVIRONMENT


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size; of fields the points along an axis, and the steps for every batch.

    `share` is that of the span of time of ordinary systems. Compiled steps take their time to compile; `thorough` asks
    for those of rows that step alone too, and for torchode on the trajectories.
    """

    ring: int
    ring_steps: Mapping[int, int]
    plane: int
    plane_steps: Mapping[int, int]
    layers: int
    layer_steps: Mapping[int, int]
    network: int
    oscillators: int
    outputs: tuple[int, ...]
    trajectories: int
    sample: int
    share: float = 1.0
    compiled: bool = True
    thorough: bool = True


EXTENTS = {
    "tiny": Extent(64, {2: 4}, 24, {2: 3}, 48, {2: 4}, 4, 4, (5,), 8, 1, 0.1, False, False),
    "small": Extent(
        ring=1024,
        ring_steps={1: 400, 8: 400, 64: 100, 1024: 10},
        plane=128,
        plane_steps={1: 25, 8: 5},
        layers=128,
        layer_steps={1: 100, 8: 30},
        network=64,
        oscillators=256,
        outputs=(1, 100),
        trajectories=10_000,
        sample=20,
        thorough=False,
    ),
    "medium": Extent(
        ring=1024,
        ring_steps={1: 800, 8: 400, 64: 200, 1024: 20},
        plane=128,
        plane_steps={1: 50, 8: 10},
        layers=128,
        layer_steps={1: 200, 8: 50, 64: 5},
        network=64,
        oscillators=256,
        outputs=(1, 100),
        trajectories=10_000,
        sample=40,
    ),
    "large": Extent(
        ring=4096,
        ring_steps={1: 400, 64: 100, 1024: 10},
        plane=512,
        plane_steps={1: 20, 8: 5},
        layers=256,
        layer_steps={1: 50, 8: 20, 64: 5},
        network=1024,
        oscillators=4096,
        outputs=(1, 100),
        trajectories=100_000,
        sample=100,
    ),
}
# What a GPU is for: batches that fill it.
ON_GPU = {"ring_steps": {8192: 200}, "plane_steps": {64: 50}, "layer_steps": {64: 500}}


def plan(size: str, device: str) -> Plan:
    """The cases at a size on a device, and all figures; those of other sizes are then not measured."""
    return Plan(tuple(_cases(EXTENTS[size], size, device)), FIGURES[device])


def _cases(extent: Extent, size: str, device: str) -> Iterator[Case]:
    # The environment that describes the machine comes first.
    lorenz = partial(
        ordinary.measure_lorenz, extent.trajectories, extent.sample, extent.share, extent.compiled, extent.thorough
    )
    yield Case(ordinary.lorenz_case(extent.trajectories), lorenz)
    gpu = ON_GPU if device == "cuda" and size != "tiny" else {}
    environment = {} if device == "cuda" else ENVIRONMENT
    for n, given, added, case, measure in (
        (
            extent.ring,
            extent.ring_steps,
            "ring_steps",
            fields.kuramoto_sivashinsky_case,
            fields.measure_kuramoto_sivashinsky,
        ),
        (extent.plane, extent.plane_steps, "plane_steps", fields.navier_stokes_case, fields.measure_navier_stokes),
        (
            extent.layers,
            extent.layer_steps,
            "layer_steps",
            fields.quasi_geostrophic_case,
            fields.measure_quasi_geostrophic,
        ),
    ):
        for batch, steps in {**given, **gpu.get(added, {})}.items():
            yield Case(case(n, batch), partial(measure, n, batch, steps), environment)
    for backward in (False, True):
        name = ordinary.network_case(extent.network, backward)
        network = partial(ordinary.measure_network, extent.network, extent.share, extent.compiled, backward)
        yield Case(name, network, environment)
    for outputs in extent.outputs:
        name = ordinary.van_der_pol_case(extent.oscillators, outputs)
        oscillators = partial(ordinary.measure_van_der_pol, extent.oscillators, outputs, extent.share, extent.thorough)
        yield Case(name, oscillators, environment)


# The figures


def _solve_ratio(case: str, method: str, peer: str, rows: Rows) -> float | None:
    own, other = (rows.one(case, name).solve_seconds for name in (method, peer))
    return None if own is None or other is None else own / other


def _step_ratio(case: str, method: str, peer: str, rows: Rows) -> float | None:
    own, other = (rows.one(case, name).extra.get("seconds_per_step") for name in (method, peer))
    return None if own is None or other is None else own / other


def _member_step(case: str, method: str, rows: Rows) -> float | None:
    rate = rows.one(case, method).extra.get("per_second")
    return None if rate is None else 1 / rate


def _transforms_note(case: str, rows: Rows) -> str:
    rate = rows.one(case, fields.TRANSFORMS).extra.get("per_second")
    return "" if rate is None else f"its transforms alone, by torch.fft: {1e6 / rate:.3g} us"


def _accurate_trajectory(case: str, rows: Rows) -> float | None:
    accurate = [
        row.extra["seconds_per_trajectory"]
        for row in rows
        if row.case == case and row.library == "sciml" and row.error is not None and row.error <= _MEDIAN_ERROR
    ]
    return min(accurate, default=None)


def _share_of_scipy(case: str, rows: Rows) -> float | None:
    own, other = _accurate_trajectory(case, rows), rows.one(case, scipy_peer.RK45).extra.get("seconds_per_trajectory")
    return None if own is None or other is None else own / other


_MEDIAN_ERROR = 1e-5


def _cpu_figures() -> Iterator[Figure]:
    # At least 0.65, 1, 1.2 and 1.7 of exponax's steps in a second.
    for batch, times in ((1, 0.65), (8, 1.0), (64, 1.2), (1024, 1.7)):
        case = fields.kuramoto_sivashinsky_case(1024, batch)
        reached = partial(_solve_ratio, case, fields.ETDRK4, exponax_peer.ETDRK4)
        yield Figure(f"{case}, ETDRK4, over exponax", 1 / times, "times", reached, partial(_transforms_note, case))
    for batch in (1, 8):
        case = fields.navier_stokes_case(128, batch)
        reached = partial(_solve_ratio, case, fields.ETDRK4, exponax_peer.ETDRK4)
        yield Figure(f"{case}, ETDRK4, over exponax", 1.0, "times", reached, partial(_transforms_note, case))
    for batch in (1, 8):
        case = fields.quasi_geostrophic_case(128, batch)
        reached = partial(_member_step, case, fields.AB3)
        note = partial(_transforms_note, case)
        yield Figure(f"{case}, a member-step", 1 / 2000, "seconds", reached, note)
        reached = partial(_solve_ratio, case, fields.AB3, pyqg_peer.AB3)
        yield Figure(f"{case}, over pyqg-jax", 1.0, "times", reached)
    for backward, eager, compiled in ((False, 0.35, 0.20), (True, 0.50, 0.30)):
        case = ordinary.network_case(64, backward)
        for method, goal in ((ordinary.DORMAND_PRINCE, eager), (ordinary.COMPILED, compiled)):
            reached = partial(_step_ratio, case, method, torchdiffeq_peer.DOPRI5)
            yield Figure(f"{case}, {method}, a step over torchdiffeq's", goal, "times", reached)
    for outputs, goal in ((1, 0.35), (100, 0.50)):
        case = ordinary.van_der_pol_case(256, outputs)
        reached = partial(_solve_ratio, case, ordinary.ROWS, torchode_peer.DOPRI5)
        yield Figure(f"{case}, row by row, over torchode", goal, "times", reached)
    case = ordinary.lorenz_case(10_000)
    reached = partial(_accurate_trajectory, case)
    yield Figure(f"{case}, one of them, at median error 1e-5", 1 / 40_000, "seconds", reached)
    # The goal above was set where scipy made 60 in a second.
    yield Figure(f"{case}, the same over scipy's solve_ivp", 60 / 40_000, "share", partial(_share_of_scipy, case))


def _gpu_figures() -> Iterator[Figure]:
    for case, method, rate in (
        (fields.kuramoto_sivashinsky_case(1024, 8192), fields.ETDRK4, 5e6),
        (fields.quasi_geostrophic_case(128, 64), fields.AB3, 5e4),
    ):
        reached = partial(_member_step, case, method)
        note = partial(_transforms_note, case)
        yield Figure(f"{case}, single precision, a member-step on an H200", 1 / rate, "seconds", reached, note)


FIGURES = {"cpu": tuple(_cpu_figures()), "cuda": tuple(_gpu_figures())}
