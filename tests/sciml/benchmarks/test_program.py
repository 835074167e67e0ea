"""`sciml bench`: a whole run at the smallest size, what it prints and what it writes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sciml import command_line
from sciml.benchmarks import Row, Rows, Size, Suite
from sciml.benchmarks.linear import manufactured, plan, solves, table
from sciml.benchmarks.report import HEADINGS, cells, plain_table, seconds
from sciml.benchmarks.row import KEYS


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Result]:
    """What the program wrote, and what it said. The process that measures is one of its own."""
    path = tmp_path_factory.mktemp("bench") / "rows.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        result = invoke("linear", "--size", "tiny", "--json", str(path))
    assert result.exit_code == 0, result.output
    return json.loads(path.read_text()), result


def rows_of(bench: tuple[dict[str, Any], Any]) -> list[Row]:
    return [Row.from_json(item) for item in bench[0]["runs"][0]["rows"]]


def test_every_row_has_the_shared_keys_with_the_right_types(bench: Any) -> None:
    number, count, text = (int, float, type(None)), (int, type(None)), (str, type(None))
    kinds = {
        **dict.fromkeys(("suite", "case", "method", "library", "device"), str),
        **dict.fromkeys(("version", "dtype"), text),
        **dict.fromkeys(("unknowns", "threads", "iterations"), count),
        **dict.fromkeys(("setup_seconds", "solve_seconds", "relative_residual", "error"), number),
        "extra": dict,
    }
    assert tuple(kinds) != KEYS and set(kinds) == set(KEYS)
    for item in bench[0]["runs"][0]["rows"]:
        for key, kind in kinds.items():
            assert isinstance(item[key], kind), (key, item)
        for key in ("setup_seconds", "solve_seconds", "relative_residual", "error"):
            assert item[key] is None or (math.isfinite(item[key]) and item[key] >= 0)
        assert (item["suite"], item["threads"], item["dtype"]) == ("linear", 1, "float64")


def test_the_machine_and_the_versions_are_written_down(bench: Any) -> None:
    written = bench[0]["runs"][0]
    assert (bench[0]["format"], written["suite"], written["size"], written["device"]) == (1, "linear", "tiny", "cpu")
    machine = written["machine"]
    assert machine["versions"]["torch"] == torch.__version__
    assert machine["threads"] == 1
    assert machine["copy_bytes_per_second"] > 0
    assert written["notes"] == []


def test_every_case_was_measured_and_every_method_of_ours_met_its_tolerance(bench: Any) -> None:
    rows = rows_of(bench)
    assert list(dict.fromkeys(row.case for row in rows)) == [case.name for case in plan.plan("tiny", "cpu").cases]
    for row in rows:
        if row.library == "sciml":
            assert "failure" not in row.extra, row
            assert not row.missed, row
        elif row.library != "torch-sla":
            assert "failure" not in row.extra, row
    timed = [row for row in rows if row.total_seconds is not None]
    assert len(timed) > 30
    for row in timed:
        assert row.total_seconds == pytest.approx((row.setup_seconds or 0.0) + (row.solve_seconds or 0.0), rel=1e-6)


def test_all_methods_stand_in_one_table(bench: Any) -> None:
    shape = plan.EXTENTS["tiny"].tables[0]
    found = {(row.method, row.library) for row in rows_of(bench) if row.case == table.table_case(shape)}
    own = {(name, "sciml") for name in table.methods(shape, "cpu")}
    peers = {"cg": "scipy", "spsolve": "scipy", "Ruge-Stuben + CG": "pyamg", "smoothed aggregation + CG": "pyamg"}
    assert found == own | set(peers.items()) | {("cg + Jacobi", "torch-sla"), ("cg + AMG", "torch-sla")}


def test_methods_agree_with_each_other(bench: Any) -> None:
    """CG takes as many iterations here as in scipy; products agree with the matrix; without kernels too."""
    rows = Rows(rows_of(bench))
    case = table.table_case(plan.EXTENTS["tiny"].tables[0])
    assert abs((rows.one(case, "CG").iterations or 0) - (rows.one(case, "cg").iterations or 0)) <= 1
    products = [row.error for row in rows if row.case.startswith("5-point apply") and row.method != "copy"]
    assert len(products) == 4
    assert max(error or 0.0 for error in products) < 1e-14


def test_what_is_printed(bench: Any) -> None:
    output = bench[1].stdout
    for row in rows_of(bench):
        assert row.case in output
        assert row.method in output
    for word in ("figures", "at most", "not measured here", "threads", f"torch {torch.__version__}", "written:"):
        assert word in output
    assert "loading torch" in bench[1].stderr, "progress; what follows is shown where it takes long enough"


def test_figures_that_hold_at_any_size_are_reached(bench: Any) -> None:
    figures = {item["what"]: item for item in bench[0]["runs"][0]["figures"]}
    for what in (
        "iterations on boxes to 1e-06, at most",
        "iterations on boxes to 1e-10, at most",
        "measured order of convergence, distance to 2",
        "measured order of convergence, distance to 4",
        "adjoint gradients against finite differences, first derivative",
        "adjoint gradients against finite differences, second derivative",
    ):
        assert figures[what]["met"] is True, figures[what]


class Asked(Rows):
    """Rows that hold whatever is asked for, and remember it."""

    def __init__(self) -> None:
        super().__init__([])
        self.cases: set[str] = set()
        self.methods: set[str] = set()

    def one(self, case: str, method: str) -> Row:
        self.cases.add(case)
        self.methods.add(method)
        extra = {"seconds_per_iteration": 1.0, "bytes_per_second": 1e12, "copy_bytes_per_second": 2e12}
        return Row(
            "linear", case, method, "sciml", device="cuda", iterations=5, solve_seconds=1.0, error=0.1, extra=extra
        )

    def ratio(self, case: str, method: str, peers: Any) -> float:
        self.cases.add(case)
        self.methods |= {method, *peers}
        return 0.5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_figures_ask_for_rows_that_the_medium_size_has(device: str, bench: Any) -> None:
    asked = Asked()
    planned = plan.plan("medium", device)
    for figure in planned.figures:
        assert figure.reached(asked) is not None
        if figure.note:
            assert "1.00 of 2.00 TB/s" in figure.note(asked)
    assert asked.cases <= {case.name for case in planned.cases}
    assert asked.methods <= {row.method for row in rows_of(bench)}


def test_figures_are_those_of_the_goals() -> None:
    goals = sorted(figure.goal for figure in plan.FIGURES["cpu"])
    shares = [1 / 22, 1 / 40, 1 / 8, 1 / 6, 1 / 5]
    assert goals == sorted([2.5, 2.5, 6, 6, 0.35, *shares, 6, 9, 9, 9, 0.1, 0.1, 1e-6, 1e-6])
    assert sorted(figure.goal for figure in plan.FIGURES["cuda"] if figure.form == "seconds") == [0.02, 0.15]


@pytest.mark.parametrize("size", list(Size))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_case_names_are_unique(size: Size, device: str) -> None:
    names = [case.name for case in plan.plan(size.value, device).cases]
    assert len(names) == len(set(names))


def test_the_larger_set_of_manufactured_problems_has_every_kind_of_side() -> None:
    problems = manufactured.problems(quick=False)
    assert {kind for problem in problems.values() for kinds in problem.kinds for kind in kinds} == set("DNRP")
    assert {len(problem.kinds) for problem in problems.values()} == {1, 2, 3}


def test_boxes_cover_the_range_of_the_figure() -> None:
    planes, cubes = plan.EXTENTS["medium"].boxes
    assert (min(map(min, planes)), max(map(max, planes))) == (31, 1023)
    assert (min(map(min, cubes)), max(map(max, cubes))) == (31, 127)
    assert solves.boxes_case(2, 1e-6) != solves.boxes_case(2, 1e-10)


# Refusals


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(command_line.app, ["bench", *arguments])


ANSWER = """
import json, sys
order = json.loads(sys.stdin.readline())
for case in order["cases"]:
    print(json.dumps({"event": "case", "name": case}))
    print(json.dumps({"event": "row", "row": {**ROW, "case": case}}))
    print(json.dumps({"event": "done", "case": case, "best_copy": 0.1, "copy_bytes": 1}))
"""


def test_cases_are_chosen_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that answers every case that it is asked for stands for the one that measures."""
    row = Row("linear", "", "method", "library").to_json()
    monkeypatch.setattr("sciml.benchmarks.runner.COMMAND", (sys.executable, "-c", f"ROW = {row!r}{ANSWER}"))
    path = tmp_path / "rows.json"
    result = invoke("linear", "--size", "tiny", "--case", "systems", "--case", "voxels", "--json", str(path))
    assert result.exit_code == 0, result.stderr
    rows = json.loads(path.read_text())["runs"][0]["rows"]
    assert {row["case"] for row in rows} == {solves.batch_case(3, 31), solves.voxel_case(12)}


def test_a_case_that_is_not_there_is_refused_with_those_that_are() -> None:
    result = invoke("linear", "--size", "tiny", "--case", "elastic")
    assert result.exit_code != 0
    assert "'elastic'" in result.stderr and solves.batch_case(3, 31) in result.stderr


def test_an_unknown_suite_is_refused_with_a_suggestion() -> None:
    result = invoke("liner")
    assert result.exit_code == 2
    assert "there is no suite 'liner'; did you mean 'linear'?" in result.stderr


def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = invoke("linear", "--device", "cuda")
    assert result.exit_code == 2
    assert "there is no CUDA device here" in result.stderr


def test_a_file_that_cannot_be_written_is_refused_before_measuring(tmp_path: Path) -> None:
    result = invoke("linear", "--json", str(tmp_path / "nowhere" / "rows.json"))
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.parametrize("option", [["--size", "huge"], ["--device", "tpu"]])
def test_other_sizes_and_devices_are_refused(option: list[str]) -> None:
    assert invoke("linear", *option).exit_code == 2


def test_all_suites_are_listed_in_the_help() -> None:
    text = " ".join(invoke("--help").output.replace("│", " ").split())
    for suite in command_line.SUITES:
        assert isinstance(suite, Suite)
        assert f"{suite.name}: {suite.summary}" in text


# How rows look


def test_a_row_says_what_is_wrong_with_it() -> None:
    first = Row("s", "c", "own", "sciml", extra={"total_seconds": 0.5})
    missed = Row("s", "c", "peer", "scipy", extra={"total_seconds": 1.5, "missed": True, "noisy": True, "repeats": 2})
    line = dict(zip(HEADINGS, cells(missed, first), strict=True))
    assert line["ratio"] == "3"
    assert line[""] == "MISSES the tolerance; noisy; only 2 runs"
    failed = Row("s", "c", "peer", "scipy", extra={"failure": "scipy is not installed"})
    assert cells(failed, first)[-1] == "not measured: scipy is not installed"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (123.4, "123 s"), (1.234, "1.23 s"), (0.0456, "45.6 ms"), (0.00123, "1.23 ms"), (4.5e-6, "4.5 us")],
)
def test_times_have_units(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_plain_tables_are_columns() -> None:
    text = plain_table("title", ["name", "n"], [["a", "10"], ["long", "9"]], [False, True])
    assert text.splitlines() == ["title", "  name   n", "  a     10", "  long   9"]
