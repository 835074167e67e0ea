"""Rows: the keys that all suites share, and what is computed from rows."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from sciml import InputError
from sciml.benchmarks import Row, Rows
from sciml.benchmarks.row import KEYS

SHARED = (
    "suite case method library version unknowns device dtype threads setup_seconds solve_seconds iterations "
    "relative_residual error extra"
)


def row(method: str, total: float | None = None, **entries: Any) -> Row:
    extra = {} if total is None else {"total_seconds": total}
    return Row("suite", "case", method, "library", **{"extra": {**extra, **entries.pop("extra", {})}, **entries})


def test_the_keys_are_those_of_every_suite() -> None:
    assert KEYS == tuple(SHARED.split())
    assert tuple(row("a").to_json()) == KEYS


def test_a_row_survives_json() -> None:
    full = row("a", 0.5, version="1.2", unknowns=9, threads=2, iterations=3, relative_residual=1e-9, extra={"x": [1]})
    assert Row.from_json(json.loads(json.dumps(full.to_json()))) == full


def test_json_holds_no_nan_or_infinity() -> None:
    data = row("a", relative_residual=math.nan, error=math.inf, extra={"by": {"n": [1.0, -math.inf]}}).to_json()
    assert (data["relative_residual"], data["error"], data["extra"]) == (None, None, {"by": {"n": [1.0, None]}})
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize("change", [{"seconds": 1.0}, {"error": ...}])
def test_other_keys_are_refused(change: dict[str, Any]) -> None:
    data = row("a").to_json()
    for key, value in change.items():
        data.pop(key) if value is ... else data.update({key: value})
    with pytest.raises(InputError, match=next(iter(change))):
        Row.from_json(data)


def test_a_row_is_noisy_in_the_light_of_the_best_copy_of_the_whole_run() -> None:
    measured = row("a", 1.0, extra={"copy_seconds": 0.15})
    assert measured.judged(0.11, 1000).extra["noisy"] is False
    assert measured.judged(0.09, 1000).extra["noisy"] is True
    assert row("a").judged(0.1, 1000).extra == {}


def test_the_limit_stands_beside_achieved_bytes() -> None:
    assert row("a", extra={"bytes_per_second": 3.0}).judged(0.1, 1000).extra["copy_bytes_per_second"] == 10_000


def test_a_ratio_is_to_the_quickest_peer() -> None:
    rows = Rows([row("own", 1.0), row("slow", 8.0), row("quick", 4.0), row("other", 0.1)])
    assert rows.ratio("case", "own", ["slow", "quick"]) == 0.25


def test_peers_that_miss_the_tolerance_do_not_count() -> None:
    rows = Rows([row("own", 1.0), row("slow", 8.0), row("quick", 4.0, extra={"missed": True})])
    assert rows.ratio("case", "own", ["slow", "quick"]) == 0.125
    with pytest.raises(LookupError, match="missed the tolerance"):
        rows.ratio("case", "own", ["quick"])


@pytest.mark.parametrize("own", [row("own"), row("own", 1.0, extra={"missed": True}), row("another", 1.0)])
def test_no_ratio_without_a_time_that_counts(own: Row) -> None:
    with pytest.raises(LookupError):
        Rows([own, row("peer", 1.0)]).ratio("case", "own", ["peer"])


def test_a_failed_row_is_as_good_as_none() -> None:
    rows = Rows([row("a", extra={"failure": "no"}), row("b")])
    assert rows.one("case", "b").method == "b"
    for case, method in [("case", "a"), ("case", "c"), ("other", "b")]:
        with pytest.raises(LookupError):
            rows.one(case, method)
