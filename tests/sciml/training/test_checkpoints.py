"""Checkpoints: what is written comes back to the last bit, and what is damaged or foreign is refused by name."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sciml import InputError
from sciml.training import Adam, Cosine, Plan, TensorSamples, Training, TrainingError, checkpoint, load_weights, train
from sciml.training.log import Log, entries


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciml.training.curves.save", lambda training, path: None)


def network(width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, 1))


def samples(count: int = 30) -> TensorSamples:
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    return TensorSamples(x=x, y=x.sum(1, keepdim=True))


def loss(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
    return (module(batch["x"]) - batch["y"]).square().mean(1)


def run(folder: Path, module: nn.Module, steps: int = 8, **options: Any) -> Training:
    """Three steps an epoch: checkpoints of steps 3, 4, 5 are left of 5."""
    plan = Plan(steps=steps, batch_size=10, optimizer=Adam(1e-2), seed=4)
    given: dict[str, Any] = {"validation": samples(5), "save_every": 0.0, "keep": 3, **options}
    return train(module, loss, samples(), plan, folder=folder, **given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, dict[str, Tensor]]:
    """Eight steps without interruption."""
    module = network()
    plan = Plan(steps=8, batch_size=10, optimizer=Adam(1e-2), seed=4)
    return train(module, loss, samples(), plan, validation=samples(5)), module.state_dict()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five steps of them, never to be changed."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sciml.training.curves.save", lambda training, path: None)
        run(folder, network(), 5, validation=None)
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def newest(folder: Path) -> Path:
    return checkpoint.found(folder / "checkpoints")[0]


def same(training: Training, module: nn.Module, whole: tuple[Training, dict[str, Tensor]]) -> None:
    assert training.history["step"].tolist() == list(range(1, 9))
    for name in ("loss", "gradient", "rate", "epoch"):
        assert torch.equal(training.history[name], whole[0].history[name]), name
    for name, value in module.state_dict().items():
        assert torch.equal(value, whole[1][name]), name


def test_only_the_newest_are_kept(stopped: Path) -> None:
    assert [path.name for path in checkpoint.found(stopped / "checkpoints")] == [
        "step-000000005",
        "step-000000004",
        "step-000000003",
    ]


def test_resumed_in_the_middle_of_an_epoch_it_is_the_same(copy: Path, whole: Any) -> None:
    module = nn.Sequential(*network().children())
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    training = run(copy, module, resume=True)
    same(training, module, whole)
    again = run(copy, network(), resume=True)
    assert again.steps == 8 and again.why == training.why
    assert torch.equal(again.history["loss"], training.history["loss"])
    kinds = [entry["kind"] for entry in entries(copy / "log.jsonl")]
    assert kinds.count("end") == 1


def cut(path: Path) -> None:
    file = path / "network.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def flip(path: Path) -> None:
    file = path / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def newer(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (cut, "bytes and had"),
    (flip, "is damaged: the bytes of optimizer.safetensors are not those that were written"),
    (newer, "has version 2, and this sciml reads up to 1: use a newer sciml"),
    (lambda path: (path / "manifest.json").unlink(), "is damaged: manifest.json: No such file"),
    (lambda path: (path / "record.json").unlink(), "is damaged: record.json: No such file"),
    (lambda path: (path / "manifest.json").write_text("{"), "is damaged: its manifest or a file in it cannot be read"),
    (lambda path: (path / "manifest.json").write_text("[]"), "is damaged: its manifest or a file in it cannot be read"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=range(len(DAMAGES)))
def test_a_bad_checkpoint_is_refused_and_the_one_before_taken(
    damage: Callable[[Path], Any], message: str, copy: Path, whole: Any
) -> None:
    damage(newest(copy))
    module = network()
    with pytest.warns(RuntimeWarning, match="a checkpoint was refused"):
        training = run(copy, module, resume=True)
    same(training, module, whole)
    assert "step-000000005" in training.notes[0] and message in training.notes[0]
    assert [entry["step"] for entry in entries(copy / "log.jsonl") if entry["kind"] == "step"] == list(range(1, 9))
    assert len(list((copy / "checkpoints").glob("step-000000005.refused-*"))) == 1


def test_nothing_is_touched_where_no_checkpoint_is_good(copy: Path) -> None:
    for path in checkpoint.found(copy / "checkpoints"):
        flip(path)
    before = sorted(path.name for path in copy.rglob("*"))
    with pytest.raises(InputError, match="no checkpoint is of use") as caught:
        run(copy, network(), resume=True)
    assert all(f"step-{step:09d}" in str(caught.value) for step in (3, 4, 5))
    assert sorted(path.name for path in copy.rglob("*")) == before


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(data: st.DataObject, stopped: Path, tmp_path: Path) -> None:
    path = tmp_path / "step-000000005"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(newest(stopped), path)
    good = checkpoint.read(path)
    file = data.draw(st.sampled_from(sorted(path.iterdir())))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        read = checkpoint.read(path)
    except InputError:
        return
    assert read.record == good.record  # white space of the manifest, and nothing else
    assert file.name == "manifest.json"


def test_a_checkpoint_of_another_network_is_refused_with_both_named(copy: Path) -> None:
    for call in (lambda: run(copy, network(7), resume=True), lambda: load_weights(network(7), copy)):
        with pytest.raises(InputError, match="is of another network") as caught:
            call()
        assert "0.weight: (6, 3) there, (7, 3) here" in str(caught.value)
    other = nn.Linear(3, 1)
    with pytest.raises(InputError, match="network 'Sequential' there, 'Linear' here"):
        run(copy, other, resume=True)
    with pytest.raises(InputError, match=r"\(Sequential there, Linear here\): weight: absent there, \(1, 3\) here"):
        load_weights(other, copy)


def test_another_plan_is_refused_with_what_differs(copy: Path) -> None:
    plan = Plan(steps=8, batch_size=15, optimizer=Adam(1e-2), schedule=Cosine(), seed=4)
    with pytest.raises(InputError, match="is of another training") as caught:
        train(network(), loss, samples(), plan, folder=copy, resume=True)
    assert "batch_size 10 there, 15 here" in str(caught.value)
    assert "schedule.name 'Constant' there, 'Cosine' here" in str(caught.value)
    assert "schedule.final absent there, 0.0 here" in str(caught.value)
    with pytest.raises(InputError, match="samples 30 there, 29 here"):
        train(network(), loss, samples(29), Plan(steps=8, batch_size=10, optimizer=Adam(1e-2), seed=4), folder=copy,
              resume=True)  # fmt: skip


def test_what_a_training_is_about_is_compared(tmp_path: Path) -> None:
    about = {"loss": "L2", "data": {"name": "darcy", "sizes": (8, 8)}, "network": None}
    run(tmp_path, network(), 3, about=about)
    run(tmp_path, network(), 4, about=about, resume=True)
    others = [
        ({**about, "loss": "H1"}, r"\(loss 'L2' there, 'H1' here\)"),
        ({**about, "data": {"name": "burgers", "sizes": [8, 9]}}, r"\(data.name 'darcy' there, 'burgers' here; "
         r"data.sizes \[8, 8\] there, \[8, 9\] here\)"),
        (None, r"\(loss 'L2' there, absent here; data \{.*\} there, absent here; network None there, absent here\)"),
    ]  # fmt: skip
    for other, message in others:
        with pytest.raises(InputError, match=message):
            run(tmp_path, network(), about=other, resume=True)

    class Sequence(nn.Sequential):
        pass

    with pytest.raises(InputError, match=r"\(network 'Sequential' there, 'Sequence' here\)"):
        run(tmp_path, Sequence(*network().children()), about=about, resume=True)
    for wrong in ({"loss": loss}, {"limit": float("inf")}, ["loss"]):
        with pytest.raises(InputError, match="about holds JSON's values by name"):
            run(tmp_path / "other", network(), about=wrong)


def test_a_folder_is_not_used_twice(copy: Path) -> None:
    with pytest.raises(InputError, match="holds a training already: resume it"):
        run(copy, network())
    with open(copy / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is training in"):
            run(copy, network(), resume=True)
    with pytest.raises(InputError, match="is a file; a training needs a folder"):
        run(copy / "log.jsonl", network())


def test_a_folder_is_locked_before_a_checkpoint_is_chosen(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process would train on, and both would write a log."""
    choose, said = checkpoint.newest, []

    def meanwhile(folder: Path) -> Any:
        with pytest.raises(InputError) as caught:
            run(copy, network(), resume=True)
        said.append(str(caught.value))
        return choose(folder)

    monkeypatch.setattr(checkpoint, "newest", meanwhile)
    run(copy, network(), resume=True)
    assert len(said) == 1 and "another process is training in" in said[0]


def test_a_checkpoint_that_cannot_be_read_now_is_not_given_up(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files, or a file system that is away: it may be as good as ever."""
    before = sorted(path.name for path in copy.rglob("*"))

    def failing(path: Path, entry: Mapping[str, Any]) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_checked", failing)
        with pytest.raises(OSError, match=r"Input/output error: .*step-000000005"):
            run(copy, network(), resume=True)
    assert sorted(path.name for path in copy.rglob("*")) == before
    assert run(copy, network(), resume=True).notes == ()


def test_another_processor_is_noted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciml.training.engine.processor", lambda device: "Abacus 3")
    with pytest.warns(RuntimeWarning, match="resumed, but not to the last bit: processor was .*, and is Abacus 3"):
        run(copy, network(), resume=True)


def test_other_conditions_are_said(copy: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    try:
        with pytest.warns(RuntimeWarning, match="resumed, but not to the last bit: threads was"):
            training = run(copy, network(), resume=True)
    finally:
        torch.set_num_threads(threads)
    assert training.steps == 8


def test_the_best_weights_survive_a_resume(tmp_path: Path) -> None:
    script = [2.0, 1.0, 3.0, 4.0]
    calls = iter(script)

    def scripted(module: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"score": torch.full((len(batch["x"]),), next(calls))}

    plan = {"batch_size": 10, "monitor": "score"}
    options: dict[str, Any] = {"folder": tmp_path, "validation": samples(5), "metrics": scripted}
    first = train(network(), loss, samples(), Plan(epochs=2, **plan), **options)
    module = network()
    second = train(module, loss, samples(), Plan(epochs=4, **plan), resume=True, **options)
    assert second.validations["score"].tolist() == script
    assert first.best is not None and second.best is not None
    assert (second.best.value, second.best.step) == (1.0, 6)
    loaded, last = network(), network()
    load_weights(loaded, tmp_path)
    load_weights(last, newest(tmp_path), "last")
    for name, value in first.best.weights.items():
        assert torch.equal(second.best.weights[name], value)
        assert torch.equal(loaded.state_dict()[name], value)
        assert torch.equal(last.state_dict()[name], module.state_dict()[name])
    assert not torch.equal(loaded.state_dict()["0.weight"], last.state_dict()["0.weight"])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """A disk that can be full: half of a file is written, and then nothing."""
    state = {"full": False}
    write = checkpoint._write_flushed

    def limited(path: Path, data: bytes) -> None:
        write(path, data[: len(data) // 2] if state["full"] else data)
        if state["full"]:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "_write_flushed", limited)
    yield state


def test_training_goes_on_while_the_disk_is_full(disk: dict[str, bool], tmp_path: Path, whole: Any) -> None:
    calls = 0

    def watched(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += module.training
        disk["full"] = 3 <= calls <= 5
        return loss(module, batch)

    plan = Plan(steps=8, batch_size=10, optimizer=Adam(1e-2), seed=4)
    module = network()
    with pytest.warns(RuntimeWarning, match="could not be written"):
        training = train(module, watched, samples(), plan, folder=tmp_path, save_every=0.0, validation=samples(5))
    same(training, module, whole)
    assert len(training.notes) == 1
    assert (
        "the checkpoint of step 3 could not be written (No space left on device); training goes on" in training.notes[0]
    )
    assert "The last good checkpoint is" in training.notes[0] and "step-000000002, unharmed" in training.notes[0]
    assert newest(tmp_path).name == "step-000000008"
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_last_checkpoint_that_fails_is_an_error(disk: dict[str, bool], tmp_path: Path) -> None:
    def watched(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        disk["full"] = True
        return loss(module, batch)

    with (
        warnings.catch_warnings(),
        pytest.raises(TrainingError, match="all 2 steps are done, but the last checkpoint could not be") as caught,
    ):
        warnings.simplefilter("ignore")
        train(network(), watched, samples(), Plan(steps=2), folder=tmp_path)
    assert caught.value.training.steps == 2
    assert newest(tmp_path).name == "step-000000000"
    checkpoint.read(newest(tmp_path))


def test_lines_of_the_log_wait_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path, 0)
    log.add({"step": 1})
    log.flush()
    file = log._file

    class Full:
        def write(self, data: bytes) -> int:
            return file.write(data[:4])

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

    monkeypatch.setattr(log, "_file", Full())
    log.add({"step": 2})
    with pytest.raises(OSError, match="No space left"):
        log.flush()
    assert path.read_text() == '{"step": 1}\n'
    monkeypatch.setattr(log, "_file", file)
    log.add({"step": 3, "loss": float("nan")})
    log.close()
    assert list(entries(path)) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": "nan"}]
    assert Log(path, 12).position == 12
    assert path.read_text() == '{"step": 1}\n'
    assert Log(path, 100).lost == 88
    path.write_text("{\n")
    with pytest.raises(InputError, match="line 1: not JSON"):
        list(entries(path))
