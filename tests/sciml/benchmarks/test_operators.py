"""The peers and tools of the suite `operators`, and one run of all of it at its smallest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml import datasets
from sciml.benchmarks.bench import Bench
from sciml.benchmarks.operators import accuracy, child, kept, plan, reading, resume, rough, step, training
from sciml.benchmarks.operators.contestants import DEEPONET, MGNO, NEURALOPERATOR_FNO, OWN_FNO, UNET
from sciml.benchmarks.operators.peers import NeuraloperatorFNO, PlainMgNO, real_numbers, take_weights
from sciml.benchmarks.row import Row, Rows
from sciml.benchmarks.runner import reached
from sciml.operators import FNO, MgNO
from sciml.training import Samples

NETWORKS = [MGNO, OWN_FNO, UNET, DEEPONET, NEURALOPERATOR_FNO]
TINY = plan.EXTENTS["tiny"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is kept stands here, and samples are made in this process."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("kept")
        patch.setattr(kept, "folder", lambda: place)
        patch.setattr(kept, "generate", partial(datasets.generate, workers=0))
        yield place


@pytest.fixture(scope="module")
def data(folder: Path) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The samples of the size tiny, and those on the finer grid."""
    assert TINY.contest is not None
    coarse = kept.dataset("darcy-64", 16, dict(TINY.contest.samples or {}), "cpu")
    fine = kept.dataset("darcy-128", 32, {"train": 1, "valid": 0, "test": 6}, "cpu")
    return datasets.open(coarse), datasets.open(fine)


def test_the_plain_writing_is_the_published_network() -> None:
    ours, plain = MgNO(in_channels=1).double(), PlainMgNO().double()
    assert real_numbers(plain) == real_numbers(ours) == 572_661
    take_weights(plain, ours)
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), ours(x), rtol=1e-11, atol=1e-13)


def test_both_fnos_have_the_same_count_of_real_numbers() -> None:
    pytest.importorskip("neuralop")
    theirs = NeuraloperatorFNO(in_channels=1, out_channels=1, modes=(6, 4), width=3)
    ours = FNO(in_channels=1, out_channels=1, modes=(6, 4), width=3)
    assert real_numbers(theirs) == real_numbers(ours)
    state = {name: value.clone() for name, value in theirs.state_dict().items()}
    x = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = theirs(x)
        for value in theirs.parameters():
            value.zero_()
        assert not torch.equal(theirs(x), answer)
        theirs.load_state_dict(state)
        assert torch.equal(theirs(x), answer)


def test_the_finer_test_samples_are_the_same_media(data: tuple[datasets.Dataset, datasets.Dataset]) -> None:
    coarse, fine = (item.split("test") for item in data)
    (a, u), (a_fine, u_fine) = ((item.read("a"), item.read("u")) for item in (coarse, fine))
    cells = a_fine.reshape(6, 16, 2, 16, 2).mean((2, 4))
    pure = (cells == 3.0) | (cells == 12.0)
    assert float((cells[pure] == a[pure]).float().mean()) > 0.99  # the finer field has waves that the other one lacks
    means = u_fine.reshape(6, 16, 2, 16, 2).mean((2, 4))
    assert float((means - u).norm() / u.norm()) < 0.05
    assert not set(data[0].split("train").identities) & set(coarse.identities)


def test_the_errors_are_those_of_the_test_samples(data: tuple[datasets.Dataset, datasets.Dataset]) -> None:
    """1 % more than the solution is an error of 1 % in every norm; the answers follow the samples' order."""
    test = data[0].split("test")
    a, u = test.read("a"), test.read("u")

    def operator(fields: Mapping[str, Tensor], grid: Any) -> dict[str, Tensor]:
        assert torch.equal(fields["a"], a)
        return {"u": 1.01 * u}

    found = training.errors_on_test(operator, data[0])  # type: ignore[arg-type]
    assert found == pytest.approx({"L2": 0.01, "H1": 0.01}, rel=1e-4)


def test_an_epoch_is_read_once() -> None:
    class Counted(Samples):
        seen: list[int]

        def __init__(self) -> None:
            self.seen = []

        def __len__(self) -> int:
            return 21

        def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
            self.seen += indices.tolist()
            return {"input": indices[:, None], "output": indices[:, None]}

    samples = Counted()
    reading.read_epoch(samples, 4, "cpu")
    assert sorted(samples.seen) == list(range(21))
    assert samples.seen != list(range(21))


def test_a_part_is_measured_once_until_the_case_is_complete(folder: Path) -> None:
    measured: list[int] = []

    def measure(order: Mapping[str, Any]) -> dict[str, Any]:
        measured.append(order["seed"])
        return {"twice": 2 * order["seed"]}

    first = kept.Parts("trial")
    assert first.result("seed", {"seed": 1}, measure) == {"twice": 2}
    again = kept.Parts("trial")  # after an interruption
    assert again.result("seed", {"seed": 1}, measure) == {"twice": 2}
    assert again.result("seed", {"seed": 2}, measure) == {"twice": 4}
    assert measured == [1, 2]
    again.complete()
    assert kept.Parts("trial").result("seed", {"seed": 1}, measure) == {"twice": 2}
    assert measured == [1, 2, 1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_figure_follows_from_the_rows_of_the_cases(device: str) -> None:
    """With a row of every method on every case no figure is missing, and MgNO being half of all others shows."""
    methods = [*NETWORKS, step.COMPILED, step.PLAIN, reading.IN_MEMORY, reading.FROM_FILES]
    methods += [rough.method(precision) for precision in rough.PRECISIONS]
    rows = []
    for case in plan.plan("large", device).cases:
        for method in methods:
            half = 0.5 if method in (MGNO, step.COMPILED) else 1.0
            extra = {
                "total_seconds": half,
                "seconds_per_step": half,
                "seconds_per_epoch": 1.25,
                "errors": {"L2": half * 0.02, "H1": 0.03, "L2 fine": half * 0.025},
                "seeds": [{"errors": {"L2": 0.01}}],
                "parameters": 5,
                "peak_bytes": 10**9,
                "graph_breaks": 0,
                "losses_that_differ": 0,
                "weights_are_equal": method == MGNO,
            }
            rows.append(Row("operators", case.name, method, "sciml", solve_seconds=half, extra=extra))
    found = {item.figure.what: item.value for item in (reached(f, Rows(rows)) for f in plan.FIGURES[device])}
    assert [what for what, value in found.items() if value is None] == []
    over_peers = [value for what, value in found.items() if "over plain" in what or "over FNO" in what]
    assert set(over_peers) <= {0.5}
    if device == "cpu":
        values = [value for what, value in found.items() if what.startswith("accuracy")]
        assert values == pytest.approx([0.01, 0.03, 0.5, 1.25, 5])


def test_a_network_that_is_half_as_quick_takes_half_as_many_steps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[str, int] = {}

    def run(work: str, order: Mapping[str, Any]) -> dict[str, Any]:
        if work == "measure_steps":
            return {"step_seconds": {MGNO: 0.01, OWN_FNO: 0.02}, "missing": {NEURALOPERATOR_FNO: "neuralop"}}
        steps[order["network"]] = order["steps"]
        if order["network"] == OWN_FNO:
            raise RuntimeError("it died")
        error = [0.03, 0.01, 0.5][order["seed"]]
        errors = {"L2": error, "H1": error, "L2 fine": error, "H1 fine": error}
        return {"seconds": 3.0, "steps": 5, "parameters": 7, "peak_bytes": 10**8, "errors": errors}

    monkeypatch.setattr(child, "run", run)
    monkeypatch.setattr(accuracy, "contestants", lambda size: plan_of(size, [MGNO, OWN_FNO, NEURALOPERATOR_FNO]))
    contest = accuracy.Contest(points=16, samples={"train": 24, "valid": 4, "test": 6}, seconds=6.0)
    rows = Rows(accuracy.measure_accuracy(contest, Bench("operators", "tiny", "cpu", lambda line: None)))
    assert steps == {MGNO: 600, OWN_FNO: 300}
    assert rows.one(accuracy.accuracy_case(contest), MGNO).error == 0.03  # the median of the seeds
    assert [row.extra.get("failure") for row in rows] == [
        None,
        "it died",
        "neuralop is not installed (pip install 'sciml-torch[bench]')",
    ]


def plan_of(size: str, names: list[str]) -> list[Any]:
    from sciml.benchmarks.operators.contestants import contestant

    return [contestant(size, name) for name in names]


@pytest.fixture
def quick_processes(forks: ForkServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that train are forks of one with all loaded."""

    def start(work: str, order: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        with ProcessPoolExecutor(1, mp_context=forks) as pool:
            try:
                result = pool.submit(child.work_on, work, order).result()
            except BrokenProcessPool:
                return subprocess.CompletedProcess([], -signal.SIGKILL, "", "")
        return subprocess.CompletedProcess([], 0, json.dumps(result), "")

    monkeypatch.setattr(child, "start", start)


def test_every_case_runs(folder: Path, quick_processes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no neuraloperator, but in the processes that train."""
    monkeypatch.delitem(sys.modules, "neuralop.models", raising=False)
    monkeypatch.setitem(sys.modules, "neuralop", None)
    bench = Bench("operators", "tiny", "cpu", lambda line: None)
    rows: list[Row] = []
    for case in plan.plan("tiny", "cpu").cases:
        rows += case.measure(bench)
    measured = []
    for row in rows:
        if "is not installed" in row.extra.get("failure", ""):
            assert row.method == NEURALOPERATOR_FNO
            continue
        assert "failure" not in row.extra, row
        assert row.case == step.GRAPHS or row.case == resume.RESUME or row.solve_seconds > 0
        measured.append((row.case, row.method))
    found = Rows(rows)
    assert TINY.contest is not None
    accurate = accuracy.accuracy_case(TINY.contest)
    assert {(accurate, name) for name in NETWORKS[:4]} <= set(measured)
    for row in rows:
        if row.case == accurate and "failure" not in row.extra:
            assert row.extra["seeds"][0]["steps"] == row.iterations
            assert 0 < row.error < 1.5, row
            assert row.extra["peak_bytes"] > 10**8
    assert found.one(step.GRAPHS, MGNO).extra["graph_breaks"] == 0
    resumed = found.one(resume.RESUME, MGNO).extra
    assert (resumed["killed"], resumed["losses_that_differ"], resumed["weights_are_equal"]) == (True, 0, True)
    assert not list((folder / "accuracy").glob("*.json"))


def test_the_case_of_a_gpu_runs_on_little(folder: Path, quick_processes: None) -> None:
    samples = {"train": 20, "valid": 4, "test": 4}
    little = rough.Rough(points=16, samples=samples, seconds=0.2, compile=False)
    rows = rough.measure_rough(little, Bench("operators", "tiny", "cpu", lambda line: None))
    assert [row.method for row in rows] == [rough.method("float32"), rough.method("bf16")]
    for row in rows:
        assert "failure" not in row.extra, row
        # 20 samples in batches of 8 are 3 steps an epoch.
        assert row.extra["seconds_per_epoch"] == pytest.approx(3 * row.solve_seconds / row.iterations)
        assert 0 < row.error < 1.5
