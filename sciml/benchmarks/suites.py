"""The suites that `sciml bench` knows. A new one is added here."""

from __future__ import annotations

from collections.abc import Sequence

from .row import Row
from .suite import Plan, Suite


def _linear(size: str, device: str) -> Plan:
    from .linear.plan import plan

    return plan(size, device)


def _geometry(size: str, device: str) -> Plan:
    from .geometry.plan import plan

    return plan(size, device)


def _evolution(size: str, device: str) -> Plan:
    from .evolution.plan import plan

    return plan(size, device)


def _datasets(size: str, device: str) -> Plan:
    from .datasets.plan import plan

    return plan(size, device)


def _operators(size: str, device: str) -> Plan:
    from .operators.plan import plan

    return plan(size, device)


def _tuning(size: str, device: str) -> Plan:
    from .tuning.plan import plan

    return plan(size, device)


def _learned(size: str, device: str) -> Plan:
    from .learned.plan import plan

    return plan(size, device)


def _neural_de(size: str, device: str) -> Plan:
    from .neural_de.plan import plan

    return plan(size, device)


def _neural_de_picture(rows: Sequence[Row]) -> bytes | None:
    from .neural_de.picture import picture

    return picture(rows)


SUITES = (
    Suite("linear", "linear solvers against scipy, pyamg and torch-sla", _linear),
    Suite("geometry", "jumping and directed coefficients, meshes, scans, nonlinear equations", _geometry),
    Suite("evolution", "integration in time against exponax, pyqg-jax, torchdiffeq, torchode and scipy", _evolution),
    Suite("datasets", "samples generated against scipy's SuperLU and pyamg", _datasets),
    Suite("operators", "neural operators trained and timed against neuraloperator's FNO", _operators),
    Suite("tuning", "relaxation and preconditioners chosen by bandits while solving, and the sweeps behind", _tuning),
    Suite("learned", "learned preconditioners against computed ones, on problems unseen in training", _learned),
    Suite(
        "neural-de",
        "neural ODEs and SDEs trained to be easy to solve, against plain ones, torchdiffeq and torchsde",
        _neural_de,
        _neural_de_picture,
    ),
)
