"""Trainings that are killed, interrupted, and spread over two processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import runpy
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sciml.training import AdamW, Plan, checkpoint, evaluate, load_weights, train

SCENARIO = str(Path(__file__).with_name("scenario.py"))
STEPS_KEPT = ["step-000000032", "step-000000000"]  # of the training on both ranks
STEPS = 30  # of the training that is killed: 6 epochs of 5 batches


class Server:
    """Forks of a process that has loaded the libraries."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["sciml.training.train"])
        self.started: list[BaseProcess] = []

    def start(self, task: str, folder: Path, environment: dict[str, str] | None = None) -> BaseProcess:
        given = {"task": task, "folder": str(folder), "environment": environment or {}}
        process = self.context.Process(target=runpy.run_path, args=(SCENARIO, given, "__main__"))
        process.start()
        self.started.append(process)
        return process


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    for process in server.started:
        process.kill()
        process.join()


def result(folder: Path, rank: int = 0) -> dict[str, Any]:
    path = folder / f"{rank}.json"
    errors = folder / f"errors-{rank}"
    assert path.exists(), errors.read_text() if errors.exists() else "the process did not begin"
    return json.loads(path.read_text())


def newest(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")), default=-1)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in entry.items() if name != "seconds"}
        for entry in entries
        if entry["kind"] == kind
    ]


def test_killed_at_any_moment_and_resumed_it_is_the_same_to_the_last_bit(server: Server, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    server.start("killed_anywhere", whole).join(60)
    chance = random.Random(0)
    reached = []
    for step in (0, 4, 11, 12, 20):
        process = server.start("killed_anywhere", parts)
        while newest(parts / "run") < step and process.is_alive():
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.04))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
        reached.append(newest(parts / "run"))
    assert reached == sorted(reached) and reached[-1] < STEPS
    last = server.start("killed_anywhere", parts)
    last.join(60)
    assert last.exitcode == 0
    assert result(parts) == result(whole)
    assert [line["step"] for line in lines(parts / "run", "step")] == list(range(1, STEPS + 1))
    assert lines(parts / "run", "step") == lines(whole / "run", "step")
    assert lines(parts / "run", "validation") == lines(whole / "run", "validation")
    ends = [
        safetensors.torch.load_file(place / f"run/checkpoints/step-{STEPS:09d}/network.safetensors")
        for place in (whole, parts)
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not list((parts / "run/checkpoints").glob(".*")), "killed processes left something behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_the_step(number: signal.Signals, server: Server, tmp_path: Path) -> None:
    process = server.start("interrupted", tmp_path)
    while not (tmp_path / "begun").exists() and process.is_alive():
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(process.pid or 0, number)
    process.join(30)
    said = (tmp_path / "errors-0").read_text()
    assert f"{number.name} ended it after step" in said, said
    step = newest(tmp_path / "run")
    assert 0 < step < 100
    assert f"after step {step}. The last good checkpoint is" in said
    assert [line["step"] for line in lines(tmp_path / "run", "step")] == list(range(1, step + 1))


@pytest.fixture(scope="module")
def pair(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int | None]]:
    """What two ranks have done, and their exit codes."""
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    processes = [server.start("together", folder, {**common, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in (0, 1)]
    for process in processes:
        process.join(90)
    return folder, [process.exitcode for process in processes]


def close(first: Any, second: Any, tolerance: float = 1e-5) -> bool:
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    return a.shape == b.shape and len(a) > 0 and torch.allclose(a, b, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("kind", ["plain", "sharded"])
def test_two_ranks_do_what_one_does(kind: str, pair: tuple[Path, list[int | None]]) -> None:
    """70 samples in batches of 9, each cut into 4 pieces: neither divides, and the last batch is of 7."""
    here = runpy.run_path(SCENARIO)
    network = here["network"]()
    common = {"validation": here["samples"](21, 2), "metrics": here["metrics"]}
    alone = train(network, here["loss"], here["samples"](70, 1), here["PLAN"], **common)
    together = result(pair[0])[kind]
    expected = here["outcome"](alone, network)
    for name in ("loss", "gradient", "validation", "largest"):
        assert close(together[name], expected[name]), name
    for name, value in expected["best"].items():
        assert close(together["best"][name], value, 1e-3), name
    loaded = here["network"]()
    load_weights(loaded, pair[0] / kind)
    for name, value in loaded.state_dict().items():
        assert close(value.tolist(), expected["best"][name], 1e-3), name


def test_every_sample_is_evaluated_once_and_in_order(pair: tuple[Path, list[int | None]]) -> None:
    here = runpy.run_path(SCENARIO)
    network = here["network"]()
    load_weights(network, pair[0] / "plain", "last")
    samples = here["samples"](21, 2)
    error = (network(samples.tensors["x"]) - samples.tensors["y"]).abs().amax(1)
    alone = evaluate(network, here["metrics"], samples, batch_size=5)
    assert close(alone.values["largest"].tolist(), error.tolist(), 1e-6)
    assert close(result(pair[0])["evaluated"], error.tolist(), 1e-6)
    assert alone.means["largest"] == pytest.approx(error.double().mean().item(), rel=1e-6)
    quantiles = alone.percentiles((0, 25, 50, 100))["largest"]
    ordered = error.double().sort().values
    assert list(quantiles.values()) == pytest.approx(ordered[[0, 5, 10, 20]].tolist(), rel=1e-6)


@pytest.mark.parametrize("prefix", ["", "sharded-"])
def test_two_ranks_resume_to_the_last_bit(prefix: str, pair: tuple[Path, list[int | None]]) -> None:
    found = result(pair[0])
    assert found[f"{prefix}parts"] == found[f"{prefix}whole"]


def test_weights_of_any_layout_are_sharded_and_whole_on_every_rank(pair: tuple[Path, list[int | None]]) -> None:
    here = runpy.run_path(SCENARIO)
    plan = Plan(epochs=4, batch_size=9, optimizer=AdamW(1e-2), accumulate=2, clip=0.5)
    alone = train(here["convolutions"](), here["loss"], here["images"](), plan, validation=here["images"]())
    best = [json.loads((pair[0] / f"best-{rank}.json").read_text()) for rank in (0, 1)]
    assert best[0] == best[1] != {}
    assert close(result(pair[0])["sharded-parts"]["loss"], alone.history["loss"].tolist())
    for name, value in here["outcome"](alone)["best"].items():
        assert close(best[0][name], value, 1e-3), name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "/absent/checkpoints/step-000000032 is damaged: manifest.json: No such file or directory"),
        ("other", "the ranks do not train the same: checkpoint '[0-9a-f]{64}' on rank 0, '[0-9a-f]{64}' on rank 1"),
        ("samples", "the ranks do not train the same: samples 70 on rank 0, 69 on rank 1"),
        ("none", "there are no samples: at least one is needed"),
        ("twice", "/plain holds a training already: resume it"),
    ],
)
def test_what_one_rank_refuses_is_refused_on_both(name: str, message: str, pair: tuple[Path, list[int | None]]) -> None:
    said = [(pair[0] / f"{name}-{rank}.txt").read_text() for rank in (0, 1)]
    assert all(re.search(message, text) for text in said), said
    assert [path.name for path in checkpoint.found(pair[0] / "plain/checkpoints")] == STEPS_KEPT


def test_ranks_name_the_sample_whose_loss_is_not_finite(pair: tuple[Path, list[int | None]]) -> None:
    assert "is not finite at sample 41 (counted from 0 in the data set)" in result(pair[0])["poisoned"]


def test_a_rank_that_is_killed_does_not_leave_the_other_waiting(pair: tuple[Path, list[int | None]]) -> None:
    folder, codes = pair
    assert codes == [0, -signal.SIGKILL]
    found = result(folder)
    assert "rank 0 of 2 stops at step 5: another rank has ended, or has not answered within 30 s" in found["deadly"]
    assert found["waited"] < 30
    assert f"The last good checkpoint is {folder / 'deadly/checkpoints/step-000000005'}" in found["deadly"]
