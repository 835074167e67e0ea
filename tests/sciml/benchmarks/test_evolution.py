"""One run of the suite `evolution` at its smallest, and its figures."""

from __future__ import annotations

import sys

import pytest

from sciml.benchmarks.bench import Bench
from sciml.benchmarks.evolution import (
    exponax_peer,
    fields,
    ordinary,
    plan,
    pyqg_peer,
    scipy_peer,
    torchdiffeq_peer,
    torchode_peer,
)
from sciml.benchmarks.row import Row, Rows
from sciml.benchmarks.runner import reached

PEERS = {
    "exponax": [exponax_peer.ETDRK4],
    "pyqg-jax": [pyqg_peer.AB3],
    "torchdiffeq": [torchdiffeq_peer.DOPRI5],
    "torchode": [torchode_peer.DOPRI5],
    "scipy": [scipy_peer.RK45],
    "torch": [fields.TRANSFORMS],
}
OWN = [fields.ETDRK4, fields.AB3, ordinary.DORMAND_PRINCE, ordinary.COMPILED, ordinary.ROWS]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_figure_follows_from_the_rows_of_the_cases(device: str) -> None:
    """With a row of every method on every case, where a peer takes a second and we half of it, no figure is missing."""
    rows = [
        Row("evolution", case.name, method, library, solve_seconds=seconds, iterations=100, error=1e-6, extra=extra)
        for case in plan.plan("small", device).cases
        for library, methods in {"sciml": OWN, **PEERS}.items()
        for method in methods
        for seconds in [0.5 if library == "sciml" else 1.0]
        for extra in [{"seconds_per_step": seconds / 100, "per_second": 8e3, "seconds_per_trajectory": seconds / 1e4}]
    ]
    found = [reached(figure, Rows(rows)) for figure in plan.FIGURES[device]]
    assert [item.figure.what for item in found if item.value is None] == []
    assert {item.value for item in found if item.figure.form == "times"} <= {0.5}
    per_step = {item.value for item in found if item.figure.form == "seconds" and "member-step" in item.figure.what}
    assert per_step == {1 / 8e3}


def test_an_inaccurate_data_set_does_not_count() -> None:
    figure, _ = (item for item in plan.FIGURES["cpu"] if "Lorenz" in item.what)
    case = ordinary.lorenz_case(10_000)

    def row(method: str, error: float, seconds: float) -> Row:
        return Row("evolution", case, method, "sciml", error=error, extra={"seconds_per_trajectory": seconds})

    assert reached(figure, Rows([row("quick", 1e-3, 1e-6), row("exact", 1e-6, 1e-5)])).value == 1e-5
    assert reached(figure, Rows([row("quick", 1e-3, 1e-6)])).value is None


def test_every_case_runs_and_agrees_with_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no JAX, whose compilations take longer than all the rest; its peers have their own tests."""
    monkeypatch.setitem(sys.modules, "jax", None)
    bench = Bench("evolution", "tiny", "cpu", lambda line: None)
    for case in plan.plan("tiny", "cpu").cases:
        rows = case.measure(bench)
        assert rows, case.name
        for row in rows:
            if row.library in ("exponax", "pyqg-jax"):
                assert row.extra["failure"] == "jax is not installed (pip install 'sciml-torch[bench]')"
                continue
            if "is not installed" in row.extra.get("failure", ""):
                continue
            assert "failure" not in row.extra, row
            assert row.solve_seconds > 0, row
            if row.method != fields.TRANSFORMS:
                assert row.error < 1e-4, row
                assert row.extra["evaluations"] >= (row.iterations or 1), row
