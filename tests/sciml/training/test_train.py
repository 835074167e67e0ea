"""What training computes: against loops written out, and against what is known to come."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciml import InputError
from sciml.training import (
    SGD,
    Adam,
    Adamax,
    AdamW,
    Constant,
    Exponential,
    OneCycle,
    Optimizer,
    Plan,
    Samples,
    TensorSamples,
    Training,
    TrainingError,
    first_process,
    train,
)
from sciml.training import curves as curves_of
from sciml.training.order import mixed, permutation, pieces


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 1))


def samples(count: int = 50) -> TensorSamples:
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    return TensorSamples(x=x, y=torch.sin(3 * x.sum(1, keepdim=True)), number=torch.arange(count))


def loss(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
    return (module(batch["x"]) - batch["y"]).square().mean(1)


def close(first: nn.Module, second: nn.Module, tolerance: float = 1e-5) -> None:
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=1e-7)


PEERS: dict[type[Optimizer], tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    Adam: (torch.optim.Adam, {}),
    AdamW: (torch.optim.AdamW, {}),
    Adamax: (torch.optim.Adamax, {"betas": (0.8, 0.99)}),
    SGD: (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("clip", [None, 0.3])
def test_it_is_the_plain_loop(kind: Any, clip: float | None) -> None:
    peer, settings = PEERS[kind]
    optimizer = kind(1e-2, weight_decay=0.1, **settings)
    plan = Plan(epochs=4, batch_size=8, optimizer=optimizer, schedule=OneCycle(), clip=clip, seed=5)
    trained, expected, data = network(), network(), samples()
    training = train(trained, loss, data, plan)

    optimizer = peer(expected.parameters(), lr=1e-2, weight_decay=0.1, **settings)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=28, cycle_momentum=False)
    losses, norms = [], []
    for epoch in range(4):
        for indices in permutation(50, 5, epoch).split(8):
            optimizer.zero_grad()
            value = loss(expected, data.batch(indices)).mean()
            value.backward()
            norms.append(nn.utils.clip_grad_norm_(expected.parameters(), clip or math.inf).item())
            optimizer.step()
            scheduler.step()
            losses.append(value.item())
    assert training.steps == len(losses) == 28
    assert training.history["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    assert training.history["gradient"].tolist() == pytest.approx(norms, rel=1e-4)
    close(trained, expected)


@pytest.mark.parametrize("accumulate", [2, 5, 8])
def test_accumulated_pieces_are_the_whole_batch(accumulate: int) -> None:
    """Batches of 9 and a last one of 5, in pieces that do not divide them, and more pieces than samples."""
    whole, cut = network(), network()
    plan = {"epochs": 3, "batch_size": 9, "clip": 0.5}
    first = train(whole, loss, samples(), Plan(**plan))
    second = train(cut, loss, samples(), Plan(**plan, accumulate=accumulate))
    assert second.history["loss"].tolist() == pytest.approx(first.history["loss"].tolist(), rel=1e-5)
    close(whole, cut)


@pytest.mark.parametrize(("ranks", "accumulate", "count"), [(1, 1, 7), (2, 1, 7), (3, 2, 4), (2, 4, 3), (4, 3, 1)])
def test_pieces_share_out_every_sample_once(ranks: int, accumulate: int, count: int) -> None:
    indices = torch.arange(10, 10 + count)
    shares = [pieces(indices, rank, ranks, accumulate) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1, "ranks with different numbers of pieces wait for ever"
    assert all(len(part) > 0 for share in shares for part, _ in share)
    counted = torch.cat([part for share in shares for part, counts in share if counts])
    assert sorted(counted.tolist()) == indices.tolist()


def test_seeds_from_several_numbers_are_unrelated() -> None:
    """Also to the first of them, from which random numbers are drawn in the training."""
    numbers = [(), (0,), (0, 0), (3,), (3, 0), (0, 3), (3, 0, 0), (2,), (2, 3)]
    assert len({mixed(*each) for each in numbers}) == len(numbers)


def test_the_order_is_a_permutation_of_seed_and_epoch_alone() -> None:
    first = permutation(1000, 1, 2)
    torch.rand(5)
    assert torch.equal(first, permutation(1000, 1, 2))
    assert torch.equal(first.sort().values, torch.arange(1000))
    for other in (permutation(1000, 2, 1), permutation(1000, 1, 3), permutation(1000, 2, 2)):
        assert (first == other).sum() < 10  # 1 on average


def test_the_callers_random_numbers_and_modes_stay(tmp_path: Path) -> None:
    module = network().eval()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(nn.Sequential(module, nn.Dropout()).eval(), loss, samples(), Plan(steps=3), folder=tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert not module.training


def test_it_stops_when_validation_no_longer_improves() -> None:
    script = [3.0, 2.0, 2.5, math.nan, 1.5, 1.7, 1.6, 1.9, 1.0]
    weights: list[Tensor] = []

    def scripted(module: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        weights.append(module[0].weight.detach().clone())
        return {"score": torch.full((len(batch["x"]),), script[len(weights) - 1])}

    plan = Plan(epochs=50, batch_size=25, patience=3, monitor="score", validate_every=2)
    with pytest.warns(RuntimeWarning, match="score is not finite"):
        training = train(network(), loss, samples(), plan, validation=samples(10), metrics=scripted)
    assert training.why == "no better score in 3 validations: the best, 1.5, is that of step 20"
    assert training.steps == 32
    assert training.validations["score"].tolist() == pytest.approx(script[:8], nan_ok=True)
    assert training.validations["epoch"].tolist() == [2, 4, 6, 8, 10, 12, 14, 16]
    assert training.best is not None
    assert (training.best.value, training.best.step, training.best.epoch) == (1.5, 20, 10)
    assert torch.equal(training.best.weights["0.weight"], weights[4])


def test_a_validation_needs_one_pass_where_the_metrics_give_the_loss() -> None:
    module, passes = network(), []
    module.register_forward_hook(lambda module, given, answer: passes.append(module.training))

    def both(module: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        error = (module(batch["x"]) - batch["y"]).abs().amax(1)
        return {"largest": error, "loss": error.square()}

    plan = Plan(steps=2, batch_size=25)
    training = train(module, loss, samples(), plan, validation=samples(10), metrics=both)
    assert passes == [True, True, False]
    assert list(training.validations) == ["step", "epoch", "loss", "largest", "seconds"]
    with torch.no_grad():
        expected = both(module.eval(), samples(10).tensors)["loss"].double().mean().item()
    assert training.validations["loss"].item() == pytest.approx(expected)


def test_a_schedule_follows_the_seconds() -> None:
    plan = Plan(seconds=0.2, optimizer=Adam(1.0), schedule=Exponential(0.1), batch_size=8, clock="cpu")
    training = train(network(), loss, samples(), plan)
    assert training.seconds >= 0.2
    # Storing losses takes time as well: where the seconds run out in it, one step at the end of the schedule is left.
    assert (training.history["seconds"] < 0.2)[:-1].all()
    expected = 0.1 ** (training.history["seconds"] / 0.2).clamp(max=1.0)
    torch.testing.assert_close(training.history["rate"], expected, rtol=1e-9, atol=0)
    assert training.why.startswith("the 0.2 cpu seconds are over")


class Seen(nn.Module):
    """Notes in which dtypes it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.dtypes: set[tuple[torch.dtype, torch.dtype]] = set()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner[0](x)
        self.dtypes.add((x.dtype, hidden.dtype))
        return self.inner[1:](hidden)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("float16", torch.float16)])
def test_mixed_precision_trains_as_well(precision: Any, dtype: torch.dtype) -> None:
    plan = {"steps": 100, "batch_size": 50, "optimizer": Adam(1e-2), "clip": 1.0}
    full = train(network(), loss, samples(), Plan(**plan))
    module = Seen()
    mixed = train(module, loss, samples(), Plan(**plan, precision=precision))
    assert module.dtypes == {(torch.float32, dtype)}
    assert next(module.parameters()).dtype == torch.float32
    last = [training.history["loss"][-5:].mean().item() for training in (full, mixed)]
    assert last[0] < 0.5 * full.history["loss"][0]
    assert last[1] == pytest.approx(last[0], rel=0.05)
    kept = torch.isfinite(mixed.history["gradient"])
    torch.testing.assert_close(mixed.history["gradient"][kept][:5], full.history["gradient"][:5], rtol=0.02, atol=0)


def test_float16_skips_steps_whose_gradient_overflows(tmp_path: Path) -> None:
    def large(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return 100.0 * loss(module, batch)

    module = network()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    one = train(module, large, samples(), Plan(steps=1, batch_size=50, precision="float16"))
    assert not math.isfinite(one.history["gradient"][0])
    assert math.isfinite(one.history["loss"][0])
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert one.notes == ("1 steps were skipped: their gradients overflowed float16",)
    for steps in (1, 2):
        plan = Plan(steps=steps, batch_size=50, precision="float16")
        again = train(network(), large, samples(), plan, folder=tmp_path, resume=True)
        torch.testing.assert_close(again.history["gradient"][:1], one.history["gradient"], equal_nan=True)
    many = train(module, large, samples(), Plan(steps=20, batch_size=50, precision="float16"))
    assert many.history["loss"][-1] < many.history["loss"][0]


def test_a_network_in_float64_stays_in_it() -> None:
    data = TensorSamples(**{name: tensor.double() for name, tensor in samples().tensors.items()})
    module = network().double()
    training = train(module, loss, data, Plan(steps=10, batch_size=50))
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float64}
    single = train(network(), loss, samples(), Plan(steps=10, batch_size=50))
    differences = (training.history["loss"] - single.history["loss"]).abs()
    assert 0 < differences.max() < 1e-5


def test_compiled_it_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Traced by torch's compiler; its code generation takes too long for a test."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, compiled = network(), network()
    first = train(plain, loss, samples(), Plan(epochs=2, batch_size=20))
    second = train(compiled, loss, samples(), Plan(epochs=2, batch_size=20, compile=True), folder=tmp_path)
    assert first.history["loss"].tolist() == pytest.approx(second.history["loss"].tolist(), rel=1e-6)
    close(plain, compiled)


class Gaussians(nn.Module):
    """Nothing like an operator: no input, a method of its own, a parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.tensor(0.5))
        self.width = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def energy(self, at: Tensor) -> Tensor:
        return ((at - self.centre) / self.width).square()


class Draws(Samples):
    """Made on the fly, from the index."""

    def __len__(self) -> int:
        return 40

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        return {"at": indices / 39.0 + 1.0}


def test_any_module_and_any_samples_can_be_trained() -> None:
    """The minimum of the mean energy is the mean of the points, 1.5."""
    module = Gaussians()
    plan = Plan(epochs=300, batch_size=40, optimizer=Adam(0.05), schedule=Exponential(0.01))
    train(module, lambda gaussians, batch: gaussians.energy(batch["at"]), Draws(), plan)
    assert module.centre.item() == pytest.approx(1.5, abs=1e-4)
    assert module.width.item() == 2.0


class Descent(Optimizer):
    """A user's own."""

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(network.parameters(), 0.1)


class Climb(Optimizer):
    """One that leads away from every minimum."""

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(network.parameters(), 0.5, maximize=True)


def test_an_optimizer_of_ones_own() -> None:
    module = Gaussians()
    train(module, lambda gaussians, batch: gaussians.energy(batch["at"]), Draws(), Plan(steps=3, optimizer=Descent()))
    order = permutation(40, 0, 0)
    centre = 0.5
    for indices in (order[:32], order[32:], permutation(40, 0, 1)[:32]):
        centre -= 0.1 * 2 / 4 * (centre - (indices / 39.0 + 1.0).mean().item())
    assert module.centre.item() == pytest.approx(centre, rel=1e-5)


def test_a_loss_that_is_not_finite_is_traced_to_its_sample(tmp_path: Path) -> None:
    data = samples()
    data.tensors["y"][17] = torch.nan
    where = (permutation(50, 0, 0) == 17).nonzero().item()
    with pytest.raises(TrainingError) as caught:
        train(network(), loss, data, Plan(epochs=2, batch_size=4), folder=tmp_path)
    step = int(where) // 4 + 1
    said = str(caught.value)
    assert f"the loss of step {step} (epoch 0) is not finite at sample 17 (counted from 0 in the data set)" in said
    assert f"The last good checkpoint is {tmp_path / 'checkpoints/step-000000000'}" in said
    assert caught.value.training.history["step"].tolist() == list(range(1, step))
    failure = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert failure["kind"] == "failure"


def test_a_gradient_that_is_not_finite_is_told_from_the_loss() -> None:
    def rooted(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return (module(batch["x"]) * (batch["number"][:, None] != 23)).square().sum(1).sqrt()

    where = (permutation(50, 0, 0) == 23).nonzero().item()
    step = int(where) // 5 + 1
    with pytest.raises(TrainingError, match=rf"the gradient of step {step} \(epoch 0\) is not finite, while its loss"):
        train(network(), rooted, samples(), Plan(epochs=1, batch_size=5))


def test_a_training_that_diverges_says_so() -> None:
    def grows(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return -module(batch["x"]).exp().exp().sum(1)

    with pytest.raises(TrainingError, match=r"is not finite, while its loss, -.*: the training diverges, or"):
        train(network(), grows, samples(), Plan(epochs=100, batch_size=10, optimizer=Adam(0.01)))

    def huge(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return 1e38 + loss(module, batch)

    with pytest.raises(TrainingError, match="not finite, only because its sum over the samples has no room"):
        train(network(), huge, samples(), Plan(steps=1, batch_size=10))

    def breaks(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return loss(module, batch) / (loss(module, batch).max() < 100.0)

    with pytest.raises(TrainingError, match=r"not finite at every sample of the batch.*the training diverges, or"):
        train(network(), breaks, samples(), Plan(epochs=100, batch_size=10, optimizer=Climb()))


def test_history_and_log_have_every_nth_step(tmp_path: Path) -> None:
    plan = Plan(epochs=3, batch_size=10)
    training = train(
        network(), loss, samples(), plan, folder=tmp_path, log_every=4, validation=samples(7), tensorboard=True
    )
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    assert [entry["step"] for entry in steps] == [4, 8, 12]
    assert [entry["loss"] for entry in steps] == training.history["loss"].tolist()
    validations = [entry for entry in entries if entry["kind"] == "validation"]
    assert [entry["loss"] for entry in validations] == training.validations["loss"].tolist()
    assert [entry["kind"] for entry in (entries[0], entries[-1])] == ["start", "end"]
    assert entries[0]["plan"] == plan.described()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [4, 8, 12]
    assert [e.value for e in events.Scalars("validation/loss")] == pytest.approx(training.validations["loss"].tolist())


@pytest.mark.parametrize(("lowest", "scale"), [(-2.0, "linear"), (0.0, "linear"), (0.5, "log")])
def test_the_picture_shows_losses_of_any_sign(lowest: float, scale: str) -> None:
    losses = torch.tensor([3.0, math.inf, 1.0, lowest], dtype=torch.float64)
    steps = torch.arange(1, 5, dtype=torch.float64)
    history = {"step": steps, "loss": losses, "rate": torch.ones(4)}
    training = Training(history, {"step": steps[-1:], "loss": torch.tensor([0.7])}, None, 4, 1, 0.1, "it is done")
    upper = curves_of.draw(training).axes[0]
    drawn = {line.get_label(): line.get_ydata().tolist() for line in upper.get_lines()}
    assert upper.get_yscale() == scale
    assert drawn["training"] == [3.0, 1.0, lowest]


def test_the_last_line_of_the_progress_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    train(network(), loss, samples(), Plan(epochs=3, batch_size=10), validation=samples(7), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "100%" in line] == lines[-1:]
    assert re.fullmatch(r"training 100%  step 15, epoch 3, loss [0-9.]+, validation loss [0-9.]+", lines[-1])


def test_where_there_is_nothing_to_resume_the_progress_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(folder: Path, epochs: int = 1, *, resume: bool = True, progress: bool = True) -> list[str]:
        plan = Plan(epochs=epochs, batch_size=10)
        train(network(), loss, samples(), plan, folder=folder, resume=resume, progress=progress)
        return [line for line in capsys.readouterr().err.splitlines() if "resume" in line]

    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        assert told(tmp_path / name) == [f"nothing to resume in {tmp_path / name}: beginning"]
        assert told(tmp_path / name, 2) == []
    assert told(tmp_path / "quiet", progress=False) == told(tmp_path / "new", resume=False) == []


def test_the_best_of_zero_is_named() -> None:
    def perfect(module: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"score": torch.zeros(len(batch["x"]))}

    plan = Plan(epochs=9, batch_size=25, patience=1, monitor="score")
    training = train(network(), loss, samples(), plan, validation=samples(10), metrics=perfect)
    assert training.why == "no better score in 1 validations: the best, 0, is that of step 2"


def test_the_picture_shows_the_losses() -> None:
    training = train(network(), loss, samples(), Plan(epochs=3, batch_size=10), validation=samples(7))
    upper, lower = curves_of.draw(training).axes
    assert upper.get_yscale() == "log"
    drawn = {line.get_label(): line for line in upper.get_lines()}
    assert drawn["training"].get_ydata().tolist() == training.history["loss"].tolist()
    assert drawn["validation"].get_xdata().tolist() == [5.0, 10.0, 15.0]
    assert lower.get_lines()[0].get_ydata().tolist() == training.history["rate"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": lambda m, b: loss(m, b).mean()}, r"the loss must be a tensor with one value a sample"),
        ({"loss": lambda m, b: m(b["x"])}, r"of shape \(32,\), and is \(32, 1\)"),
        ({"loss": lambda m, b: torch.zeros(32, requires_grad=True)}, "does not depend on any trained parameter"),
        ({"network": nn.Tanh()}, "Tanh has no parameter with requires_grad=True"),
        ({"samples": {"x": torch.rand(3)}}, "samples must be Samples, such as TensorSamples"),
        ({"plan": Plan(epochs=1, monitor="l2"), "validation": samples()}, "monitors 'l2', and validation gives loss"),
        ({"metrics": lambda m, b: {"step": loss(m, b)}, "validation": samples()}, "name 'step'"),
        ({"metrics": lambda m, b: {"e": m(b["x"])}, "validation": samples()}, "metric 'e' must be a tensor with one"),
        ({"resume": True}, "resume needs a folder"),
        ({"device": "cuda:99"}, "device cuda:99: this machine has [0-9]+ CUDA devices"),
        ({"device": "meta"}, "device meta cannot be used: .*accelerator"),
        ({"device": "abacus"}, "device 'abacus' is not known to torch"),
        ({"devices": 0}, "devices must be a whole number, at least 1, got 0"),
        ({"strategy": "dpp"}, "strategy is 'auto', 'ddp', 'fsdp' or an object of lightning-fabric, got 'dpp'"),
    ],
)
def test_what_cannot_be_used_is_refused(change: dict[str, Any], message: str) -> None:
    given = {"network": network(), "loss": loss, "samples": samples(), "plan": Plan(epochs=1)} | change
    with pytest.raises(InputError, match=message):
        train(**given)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "at least one tensor"),
        ({"a": torch.rand(3, 2), "b": torch.rand(4)}, "samples differ in number: a 3, b 4"),
        ({"a": torch.tensor(1.0)}, r"samples 'a' have shape \(\)"),
        ({"a": [1.0]}, "samples 'a': a tensor is needed, got list"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TensorSamples(**tensors)


def test_samples_are_taken_in_the_order_asked_for() -> None:
    batch = samples().batch(torch.tensor([4, 4, 0]))
    assert batch["number"].tolist() == [4, 4, 0]
    assert torch.equal(batch["x"][0], samples().tensors["x"][4])


def test_a_plan_says_how_long_exactly_once() -> None:
    for wrong in ({}, {"epochs": 1, "steps": 1}, {"epochs": 1, "seconds": 1.0}):
        with pytest.raises(InputError, match="exactly one of epochs, steps and seconds"):
            Plan(**wrong)
    assert Plan(epochs=1).schedule == Constant()


@pytest.mark.cuda
@pytest.mark.parametrize("place", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_steps_do_not_wait_for_the_gpu(precision: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two fetches of the losses."""
    monkeypatch.setattr("sciml.training.engine._FETCH_SECONDS", math.inf)
    calls = 0

    def watched(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        torch.cuda.set_sync_debug_mode("error" if calls < 40 else "default")
        return loss(module, batch)

    plan = Plan(steps=40, batch_size=8, clip=1.0, precision=precision)
    try:
        train(network(), watched, samples().to(place), plan, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert calls == 40


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bf16", "float16"])
def test_on_a_gpu_it_is_the_same_and_resumes_to_the_last_bit(precision: Any, tmp_path: Path) -> None:
    plan = {"batch_size": 10, "precision": precision, "clip": 1.0}
    here, there, parts = network(), network(), network()
    expected = train(here, loss, samples(), Plan(steps=12, batch_size=10, clip=1.0))
    on_gpu: dict[str, Any] = {"device": "cuda", "folder": tmp_path / "whole"}
    whole = train(there, loss, samples(), Plan(steps=12, **plan), **on_gpu)
    tolerance = 1e-3 if precision == "float32" else 0.05
    assert whole.history["loss"].tolist() == pytest.approx(expected.history["loss"].tolist(), rel=tolerance)
    on_gpu["folder"] = tmp_path / "parts"
    train(parts, loss, samples(), Plan(steps=7, **plan), **on_gpu)
    resumed = train(network(), loss, samples(), Plan(steps=12, **plan), resume=True, **on_gpu)
    assert torch.equal(resumed.history["loss"], whole.history["loss"])


def test_the_first_process_is_known_before_the_training() -> None:
    assert first_process()
    code = "from sciml.training import first_process; print(first_process())"
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "RANK": "3"}, capture_output=True, text=True
    )
    assert found.stdout == "False\n"
