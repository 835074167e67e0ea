"""What a training that goes on must find as it was: modes, optimizers, checkpoints, validations, signals."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciml import InputError
from sciml.training import SGD, Adam, Adamax, Optimizer, Plan, Samples, TensorSamples, train
from sciml.training import checkpoint as checkpoints


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))


def samples(count: int = 12) -> TensorSamples:
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    return TensorSamples(x=x, y=x.sum(1, keepdim=True).sin())


def loss(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
    return (module(batch["x"]) - batch["y"]).square().mean(1)


def plan(**changes: Any) -> Plan:
    return Plan(**{"batch_size": 4, "optimizer": Adam(1e-2), **changes})


def test_a_frozen_part_stays_in_its_mode() -> None:
    made = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    made[0].eval().requires_grad_(False)
    before = made[0].running_mean.clone()
    train(made, loss, samples(), plan(epochs=2), validation=samples())
    assert torch.equal(made[0].running_mean, before)
    assert [part.training for part in made.modules()] == [True, False, True]


def test_validation_leaves_what_is_trained_alone() -> None:
    """Also one that draws random numbers, as samples made when they are asked for do."""

    class Drawn(Samples):
        def __len__(self) -> int:
            return 12

        def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
            x = torch.rand(len(indices), 3)
            return {"x": x, "y": x.sum(1, keepdim=True).sin()}

    often, seldom, never = network(), network(), network()
    train(often, loss, Drawn(), plan(epochs=4), validation=Drawn())
    train(seldom, loss, Drawn(), plan(epochs=4, validate_every=3), validation=Drawn())
    train(never, loss, Drawn(), plan(epochs=4))
    for made in (often, seldom):
        assert all(torch.equal(a, b) for a, b in zip(made.parameters(), never.parameters(), strict=True))


def test_values_that_are_not_finite_come_back(tmp_path: Path) -> None:
    def metrics(module: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"score": torch.full((len(batch["x"]),), torch.inf), "none": torch.full((len(batch["x"]),), torch.nan)}

    for epochs in (1, 2):
        training = train(
            network(), loss, samples(), plan(epochs=epochs), folder=tmp_path, validation=samples(), metrics=metrics,
            resume=True,
        )  # fmt: skip
    assert training.validations["score"].tolist() == [torch.inf, torch.inf]
    assert training.validations["none"].isnan().tolist() == [True, True]


class Averaging(Optimizer):
    """Steps that become shorter by a number in the optimizer's groups."""

    rate = 0.1

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        return _Averaging(network.parameters(), {"lr": self.rate, "taken": 0})


class _Averaging(torch.optim.Optimizer):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["taken"] += 1
            for parameter in group["params"]:
                self.state[parameter].setdefault("seen", torch.zeros(()))
                parameter.data.add_(parameter.grad, alpha=-group["lr"] / group["taken"])


@pytest.mark.parametrize("optimizer", [Averaging(), Adamax(), SGD(), SGD(0.1, 0.9), SGD(0.1, 0.9, nesterov=True)])
def test_the_state_of_an_optimizer_is_resumed(optimizer: Optimizer, tmp_path: Path) -> None:
    """Numbers in its groups too."""
    whole, parts = network(), network()
    train(whole, loss, samples(), plan(steps=8, optimizer=optimizer))
    train(parts, loss, samples(), plan(steps=5, optimizer=optimizer), folder=tmp_path)
    train(parts, loss, samples(), plan(steps=8, optimizer=optimizer), folder=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(parts.parameters(), whole.parameters(), strict=True))


def test_tensors_come_in_one_order(tmp_path: Path) -> None:
    """Ranks put them back one by one, together."""
    tensors = {str(number): torch.zeros(1) for number in (7, 3, 11, 0, 5)}
    path = checkpoints.write(tmp_path, 1, {"network": tensors}, {}, 1)
    assert list(checkpoints.read(path).tensors["network"]) == sorted(tensors)


class Killed(BaseException):
    """Nothing is tidied up after it."""


def deadly(patch: pytest.MonkeyPatch, last: int) -> None:
    """Before the `last` operation on files the process is killed, in the middle of a file that it writes."""
    done = 0

    def counted(operation: Any) -> Any:
        def do(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done > last:
                if operation is write and done == last + 1:
                    write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Killed
            return operation(*arguments, **options)

        return do

    write = checkpoints._write_flushed
    patch.setattr(checkpoints, "_write_flushed", counted(write))
    patch.setattr(Path, "rename", counted(Path.rename))
    patch.setattr(checkpoints.shutil, "rmtree", counted(shutil.rmtree))


def test_killed_at_any_operation_on_files_and_resumed_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints, six files and a name each; then the first one is removed, under another name."""
    monkeypatch.setattr("sciml.training.curves.save", lambda training, path: None)
    whole = network()
    expected = train(whole, loss, samples(), plan(steps=2), validation=samples()).history
    operations = 2 * (6 + 1) + 2
    for last in range(operations + 1):
        folder, killed = tmp_path / str(last), False
        options: dict[str, Any] = {"folder": folder, "validation": samples(), "keep": 1}
        with monkeypatch.context() as patch:
            deadly(patch, last)
            try:
                train(network(), loss, samples(), plan(steps=2), **options)
            except Killed:
                killed = True
        assert killed == (last < operations)
        parts = network()
        training = train(parts, loss, samples(), plan(steps=2), resume=True, **options)
        assert training.notes == ()
        assert all(torch.equal(training.history[name], expected[name]) for name in ("step", "loss", "gradient"))
        assert all(torch.equal(a, b) for a, b in zip(parts.parameters(), whole.parameters(), strict=True))
        names = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert names[-1] == "step-000000002" and not names[0].startswith(".")


@pytest.mark.slow
def test_compiled_and_resumed_it_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    """With code that torch's compiler generates; the last batch of an epoch is smaller, and cut into pieces."""
    settings = {"batch_size": 8, "accumulate": 2, "clip": 1.0, "compile": True}
    whole, parts = network(), network()
    expected = train(whole, loss, samples(20), plan(steps=8, **settings)).history
    train(network(), loss, samples(20), plan(steps=4, **settings), folder=tmp_path)
    found = train(parts, loss, samples(20), plan(steps=8, **settings), folder=tmp_path, resume=True).history
    assert all(torch.equal(found[name], expected[name]) for name in ("loss", "gradient"))
    assert all(torch.equal(a, b) for a, b in zip(parts.parameters(), whole.parameters(), strict=True))
    plain = train(network(), loss, samples(20), plan(steps=8, **{**settings, "compile": False})).history
    torch.testing.assert_close(found["loss"], plain["loss"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("moment", ["rename", "after"])
def test_a_step_that_is_written_again_is_never_missing(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run ended by a signal and told to end there: killed before or after the new checkpoint has its name."""
    train(network(), loss, samples(), plan(steps=5), folder=tmp_path, keep=1)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        moved = None if moment == "rename" else rename(self, target)
        raise KeyboardInterrupt(str(moved))

    kept = tmp_path / "checkpoints"
    groups = {"network": network().state_dict()}
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(kept, 5, groups, {}, 1)
    monkeypatch.undo()
    assert checkpoints.read(checkpoints.found(kept)[0])
    again = checkpoints.write(kept, 5, groups, {"again": True}, 1)
    assert checkpoints.found(kept) == [again]
    assert sorted(path.name for path in kept.iterdir() if not path.name.startswith(".")) == [again.name]


def test_a_signal_at_the_very_end_is_not_lost(tmp_path: Path) -> None:
    calls = []

    def metrics(module: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        calls.append(len(batch["x"]))
        os.kill(os.getpid(), signal.SIGINT)
        return {"one": torch.ones(len(batch["x"]))}

    # A shell has it ignored in what it starts in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match="at its end: everything is saved"):
            train(network(), loss, samples(4), plan(steps=1), folder=tmp_path, validation=samples(4), metrics=metrics)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [4]
    assert (tmp_path / "curves.png").exists()
    training = train(network(), loss, samples(4), plan(steps=1), folder=tmp_path, resume=True)
    assert training.steps == 1


@pytest.mark.parametrize("name", ["../../../etc/hostname", "/etc/hostname", "..", "a/../network.safetensors"])
def test_a_manifest_names_only_its_own_files(name: str, tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path, 1, {"network": {"w": torch.zeros(1)}}, {}, 1)
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("network.safetensors", name))
    with pytest.raises(InputError, match="which is no file in it"):
        checkpoints.read(path)


def test_patience_does_not_count_an_end_out_of_turn(tmp_path: Path) -> None:
    """A training that ends between two validations and goes on waits as long as one in one go."""
    settings = {"validate_every": 2, "monitor": "score", "patience": 2}

    def worse(module: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"score": torch.ones(len(batch["x"]))}

    for epochs, folder in ((20, tmp_path / "whole"), (3, tmp_path / "parts"), (20, tmp_path / "parts")):
        training = train(
            network(), loss, samples(), plan(epochs=epochs, **settings), folder=folder, validation=samples(),
            metrics=worse, resume=folder.exists(),
        )  # fmt: skip
        if folder.name == "whole":
            expected = training.epochs
    assert training.epochs == expected == 6
