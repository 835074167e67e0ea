"""The measuring process and what becomes of its rows, figures and failures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sciml.benchmarks import Case, Figure, Plan, Row, Rows, Suite, runner, suites, worker

SAID: list[str] = []


def suite(cases: Sequence[Case], figures: Sequence[Figure] = ()) -> Suite:
    return Suite("made up", "for tests", lambda size, device: Plan(tuple(cases), tuple(figures)))


def row(case: str, **entries: Any) -> Row:
    return Row("made up", case, "method", "library", **entries)


def case(name: str, **settings: Any) -> Case:
    return Case(name, lambda bench: [row(name)], **settings)


def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let a few lines of Python be the measuring process; `order` and `say` are given to them."""
    path = tmp_path / "process.py"
    start = ["import json, os, sys", "order = json.loads(sys.stdin.readline())"]
    start += ["def say(kind, **content): print(json.dumps({'event': kind, **content}), flush=True)"]
    start += [f"row = {row('').to_json()!r}"]
    path.write_text("\n".join([*start, *lines]) + "\n")
    monkeypatch.setattr(runner, "COMMAND", (sys.executable, str(path)))


def run(made: Suite) -> runner.Run:
    return runner.run(made, "tiny", "cpu", SAID.append)


MEASURE = """
for name in order["cases"]:
    say("case", name=name)
    say("row", row={**row, "case": name, "extra": {"copy_seconds": 0.3, "environment": os.environ.get("MODE")}})
    say("done", case=name, best_copy=0.1, copy_bytes=50)
"""


def test_rows_come_back_in_the_order_of_the_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, monkeypatch, MEASURE)
    result = run(suite([case("a"), case("b", environment={"MODE": "other"}), case("c")]))
    assert [(row.case, row.extra["environment"]) for row in result.rows] == [("a", None), ("b", "other"), ("c", None)]
    assert [row.extra["noisy"] for row in result.rows] == [True] * 3
    assert result.machine["copy_bytes_per_second"] == pytest.approx(500)
    assert result.notes == []


def test_one_process_describes_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the cases that ask for nothing, else the first."""
    script(tmp_path, monkeypatch, 'if order["machine"]: say("machine", machine={"processor": os.environ.get("MODE")})')
    first, second = (case(mode, environment={"MODE": mode}) for mode in ("one", "other"))
    assert run(suite([first, case("plain"), second])).machine["processor"] is None
    assert run(suite([first, second])).machine["processor"] == "one"


def test_environment_against_spinning_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in runner.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    names = list(runner.ENVIRONMENT)
    lines = [f"row['extra'] = {{name: os.environ[name] for name in {names}}}", "say('row', row=row)"]
    script(tmp_path, monkeypatch, *lines)
    assert run(suite([case("")])).rows[0].extra == {"GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": "PASSIVE"}


def test_a_process_that_dies_costs_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed at the second case; another process goes on with the third."""
    lines = MEASURE.replace('    say("row"', "    if name == 'b': os.kill(os.getpid(), 9)\n    say(\"row\"", 1)
    script(tmp_path, monkeypatch, lines)
    result = run(suite([case("a"), case("b"), case("c")]))
    assert [row.case for row in result.rows] == ["a", "c"]
    assert len(result.notes) == 1
    assert "'b'" in result.notes[0] and "SIGKILL" in result.notes[0]


def test_a_process_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, monkeypatch, "sys.exit('no torch')")
    result = run(suite([case("a"), case("b")]))
    assert result.rows == []
    assert len(result.notes) == 1
    assert "before the first case" in result.notes[0] and "no torch" in result.notes[0]


def test_a_line_cut_short_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, monkeypatch, MEASURE, "print('{\"event\": \"ro', end='', flush=True)", "os._exit(3)")
    result = run(suite([case("a")]))
    assert [row.case for row in result.rows] == ["a"]
    assert "exit code 3" in result.notes[0]


def test_an_interrupt_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, monkeypatch, MEASURE, "say('say', text='last')", "import time", "time.sleep(60)")

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    result = runner.run(suite([case("a"), case("b")]), "tiny", "cpu", interrupt)
    assert [row.case for row in result.rows] == ["a", "b"]
    assert "interrupted" in result.notes[0]


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, monkeypatch, MEASURE)
    missing: Any = lambda rows: rows.one("nowhere", "method").error  # noqa: E731
    figures = [
        Figure("low enough", 2.0, "number", lambda rows: float(len(rows)), lambda rows: "a note"),
        Figure("too high", 1.0, "number", lambda rows: float(len(rows))),
        Figure("missing", 1.0, "number", missing),
        Figure("nothing", 1.0, "number", lambda rows: None),
    ]
    result = run(suite([case("a"), case("b")], figures))
    assert [(item.value, item.met, item.note) for item in result.figures] == [
        (2.0, True, "a note"),
        (2.0, False, ""),
        (None, None, ""),
        (None, None, ""),
    ]
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [item["met"] for item in data["figures"]] == [True, False, None, None]
    assert Rows([Row.from_json(item) for item in data["rows"]]).one("a", "method").threads is None


def test_the_worker_measures_the_cases_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bench: Any) -> Sequence[Row]:
        raise ZeroDivisionError("division by zero")

    made = suite([case("a"), Case("b", fail), case("c")])
    monkeypatch.setattr(suites, "SUITES", (made,))
    order = {"suite": "made up", "size": "tiny", "device": "cpu", "cases": ["b", "c"], "best_copy": 1e-9}
    events: list[tuple[str, dict[str, Any]]] = []
    worker.work({**order, "machine": True}, lambda kind, **content: events.append((kind, content)))
    assert [kind for kind, _ in events] == ["say", "machine", "case", "row", "done", "case", "row", "done"]
    machine, rows = events[1][1]["machine"], [content["row"] for kind, content in events if kind == "row"]
    assert machine["versions"]["torch"]
    assert machine["threads"] >= 1
    assert rows[0]["case"] == "b"
    assert rows[0]["extra"]["failure"] == "ZeroDivisionError: division by zero"
    assert rows[1]["case"] == "c"
    assert events[-1][1]["best_copy"] == 1e-9, "the best copy known from before stays the best"
