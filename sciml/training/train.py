"""`train`: a network, a loss, samples and a plan become a training."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning_fabric.strategies.strategy import Strategy
from torch import nn

from ..errors import InputError
from ..long_runs import Terminated
from .beginning import Beginning, begin, continued, identity
from .checkpoint import Checkpoint
from .engine import Run, conditions
from .evaluation import Loss, Metrics, set_modes
from .order import mixed
from .plan import Plan
from .progress import progress as shown_progress
from .ranks import Ranks, is_loss_of_a_rank
from .result import Training, TrainingError
from .samples import Samples
from .state import (
    Position,
    random_state,
    seed_all,
    set_network_state,
    set_optimizer_state,
    set_random_state,
)


def train(
    network: nn.Module,
    loss: Loss,
    samples: Samples,
    plan: Plan,
    *,
    folder: str | os.PathLike[str] | None = None,
    validation: Samples | None = None,
    metrics: Metrics | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    devices: int = 1,
    nodes: int = 1,
    strategy: str | Strategy = "auto",
    save_every: float = 60.0,
    keep: int = 2,
    log_every: int = 1,
    tensorboard: bool = False,
    progress: bool = False,
    timeout: float = 600.0,
) -> Training:
    """Train a network.

    The samples come in an order that depends on the plan's seed and the epoch alone. A batch is divided among the
    ranks, and its loss is the mean over its samples, also where they cannot be divided evenly. The same network,
    samples, plan, number of ranks and of threads, and torch on the same kind of processor give the same result to the
    last bit, resumed or not, where torch's own kernels do (on a GPU: torch.use_deterministic_algorithms; with more than
    two ranks sums over them may round differently after a resume). A plan of seconds never does.

    With a folder, SIGINT and SIGTERM end the training after the running step, with a checkpoint; a second one at once.

    Args:
        network: any module. It is moved to the device and holds the last weights afterwards; under "fsdp" it stays
            sharded, and the whole weights are in `best` and in the checkpoints.
        loss: called with the network and a batch; one loss a sample, shape (n,). Of networks on several devices only
            `forward` may be called, not other methods.
        samples: what is trained with.
        plan: how.
        folder: for checkpoints, log.jsonl and curves.png; None keeps everything in memory. Machines share it.
        validation: samples that the plan's validations are made with.
        metrics: further values of a validation, each of shape (n,). Where "loss" is among them it is taken for the
            loss, which then needs no pass of its own.
        resume: go on from the newest good checkpoint in the folder, or begin if there is none, which the progress then
            says first. The plan, the number of samples, the class and the shapes of the network, and `about` must be
            the same, but for the plan's epochs, steps, seconds and patience.
        about: what else the training is about and no checkpoint shows, such as the loss, the data and the settings of
            the network, in JSON's values; kept with the checkpoints.
        device: "cpu", "cuda", or one of several, "cuda:1".
        devices: processes on this machine, one a device; launched here by running the program again, or by torchrun,
            whose counts are taken.
        nodes: machines.
        strategy: "auto", "ddp", "fsdp", or a strategy of lightning-fabric.
        save_every: seconds between two checkpoints; the first and the last step, and a signal, have one too.
        keep: how many checkpoints stay.
        log_every: steps between two lines of the log.
        tensorboard: write the log also for TensorBoard, into FOLDER/tensorboard.
        progress: show a bar on a terminal, plain lines elsewhere, on the error stream.
        timeout: seconds after which a rank that says nothing counts as lost.

    Returns:
        How it went.

    Raises:
        InputError: something given cannot be used: it says what, and what could be.
        TrainingError: a loss or gradient that is not finite, a rank that was lost, a last checkpoint that could not be
            written. It has the training so far.
        KeyboardInterrupt: SIGINT ended it, after a checkpoint; SIGTERM raises sciml.long_runs.Terminated, a kind of it.
    """
    place = None if folder is None else Path(folder)
    _check(samples, validation, place, resume, save_every, keep, log_every, tensorboard)
    given = identity(network, plan, about)
    ranks = Ranks(device, devices, nodes, strategy, plan.precision, timeout)
    before, modes = random_state(ranks.device), {part: part.training for part in network.modules()}
    run: Run | None = None
    try:
        with contextlib.ExitStack() as stack:
            beginning = begin(network, samples, validation, given, place, resume, ranks, stack)
            found = beginning.found
            stack.callback(set_random_state, before, ranks.device)
            log = board = None
            if place is not None and ranks.first:
                log, board = continued(place, beginning, tensorboard, stack)
            seed_all(mixed(plan.seed, ranks.rank, found.record["position"]["step"] if found else 0))
            module = ranks.set_up(cast(nn.Module, torch.compile(network)) if plan.compile else network)
            optimizer = plan.optimizer.build(network)
            prepared = ranks.set_up_optimizer(optimizer)
            opening = f"nothing to resume in {place}: beginning" if resume and found is None else ""
            show = stack.enter_context(shown_progress(progress and ranks.first, opening))
            run = Run(
                network=network,
                module=module,
                optimizer=optimizer,
                prepared=prepared,
                loss=loss,
                samples=samples,
                plan=plan,
                validation=validation,
                metrics=metrics,
                ranks=ranks,
                folder=place,
                log=log,
                board=board,
                show=show,
                save_every=save_every,
                keep=keep,
                log_every=log_every,
                given={**given, "samples": len(samples)},
            )
            _announce(run, beginning)
            if found is not None:
                _restore(run, found, beginning.entries)
            stack.enter_context(_signals(run))
            why = run.go()
            training = _ended(run, why, found)
        if run.signal:  # it came when there was nothing left to end
            raise _ending(run, "came when the training was at its end: everything is saved")
        return training
    except RuntimeError as error:
        if ranks.count == 1 or run is None or not is_loss_of_a_rank(error):
            raise
        reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        what = (
            f"rank {ranks.rank} of {ranks.count} stops at step {run.position.step}: another rank has ended, or has not "
            f"answered within {timeout:g} s ({reason})"
        )
        raise TrainingError(f"{what}. {run.kept()}", run.training(what)) from error
    finally:
        set_modes(modes)
        ranks.close()


def _check(
    samples: Samples,
    validation: Samples | None,
    place: Path | None,
    resume: bool,
    save_every: float,
    keep: int,
    log_every: int,
    tensorboard: bool,
) -> None:
    for name, given in (("samples", samples), ("validation", validation)):
        if given is not None and not isinstance(given, Samples):
            raise InputError(f"{name} must be Samples, such as TensorSamples(input=..., output=...), got {given!r}")
    if place is None and (resume or tensorboard):
        raise InputError(f"{'resume' if resume else 'tensorboard'} needs a folder")
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("TensorBoard is not installed: pip install 'sciml-torch[tensorboard]'")
    if not save_every >= 0:
        raise InputError(f"save_every is a number of seconds, at least 0, got {save_every}")
    for name, value in (("keep", keep), ("log_every", log_every)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number, at least 1, got {value!r}")
    if place is not None and place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; a training needs a folder")


def _announce(run: Run, beginning: Beginning) -> None:
    """The first line of the log, or of its continuation."""
    here, found = conditions(run.ranks), beginning.found
    if run.log is not None:
        kind = {"kind": "start"} if found is None else {"kind": "resume", "step": found.record["position"]["step"]}
        run.log.add({**kind, "plan": run.plan.described(), "conditions": here})
    for reason in beginning.refused.values():
        run.note(f"a checkpoint was refused: {reason}")
    if run.log is not None and run.log.lost:
        run.note(f"the log lacks {run.log.lost} bytes that the checkpoint knew: steps are missing in it")
    there = found.record["conditions"] if found is not None else here
    for name, value in there.items():
        if here.get(name) != value:
            run.note(f"resumed, but not to the last bit: {name} was {value}, and is {here.get(name)}")


def _restore(run: Run, found: Checkpoint, entries: Iterable[Mapping[str, Any]]) -> None:
    ranks, record, tensors = run.ranks, found.record, found.tensors
    for entry in entries:
        table = {"step": run.history, "validation": run.validations}.get(entry.get("kind", ""))
        if table is not None:
            for name in entry:
                if name != "kind":
                    table.setdefault(name, []).append(float(entry[name]))
    run.position = Position(**record["position"])
    run.last_good = found.path
    run.best_weights = tensors["best"]
    set_network_state(run.network, tensors["network"], ranks.sharded)
    set_optimizer_state(run.network, run.optimizer, tensors["optimizer"], record["optimizer"], ranks.sharded)
    if ranks.scaler is not None:
        ranks.scaler.load_state_dict(record["scaler"])
    if record["conditions"]["ranks"] == ranks.count:
        ending = f"/{ranks.rank}"
        own = {name.removesuffix(ending): state for name, state in tensors["random"].items() if name.endswith(ending)}
        set_random_state(own, ranks.device)


def _ended(run: Run, why: str, found: Checkpoint | None) -> Training:
    """The last checkpoint, line and picture, or the exception of a signal."""
    if not why:
        raise _ending(run, f"ended it after step {run.position.step}. {run.kept()}")
    if found is None or found.record["position"]["step"] != run.position.step:
        run.save()
    training = run.training(why)
    if run.log is not None and run.folder is not None:
        run.log.add({"kind": "end", "why": why, "step": run.position.step, "seconds": run.position.seconds})
        run.flush(lasting=True)
        from . import curves  # matplotlib takes its time, and most processes never draw

        with contextlib.suppress(OSError):
            curves.save(training, run.folder / "curves.png")
    if not run.saved:
        raise TrainingError(f"{why}, but the last checkpoint could not be written. {run.kept()}", training)
    return training


def _ending(run: Run, what: str) -> KeyboardInterrupt:
    kind = Terminated if run.signal == signal.SIGTERM else KeyboardInterrupt
    return kind(f"{signal.Signals(run.signal).name} {what}")


@contextlib.contextmanager
def _signals(run: Run) -> Iterator[None]:
    """Where there is a folder to save into, a first SIGINT or SIGTERM is noted and a second one acts at once."""
    if run.folder is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def received(number: int, frame: FrameType | None) -> None:
        if run.signal:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        run.signal = number

    before = {
        number: signal.signal(number, received)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
