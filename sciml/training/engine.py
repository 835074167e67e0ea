"""The loop of a training: steps, what is fetched of them, validations and checkpoints."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..machine import processor
from . import checkpoint
from .evaluation import Loss, Metrics, batch_on, check_per_sample, over
from .log import Log
from .optimizers import parameters
from .order import batches, permutation, pieces
from .plan import Plan
from .progress import Show
from .ranks import Ranks
from .result import Best, Training, TrainingError
from .samples import Samples
from .state import Position, network_state, optimizer_state, random_state, set_random_state

_FETCH_STEPS = 64  # losses stay on the device for at most so many steps
_FETCH_SECONDS = 0.25  # and about so long
_PARTS = 10_000.0  # into which a schedule divides a training of seconds
_NAMED = 8  # samples in a message


class _Step(NamedTuple):
    """A step whose loss has not been fetched yet."""

    number: int
    epoch: int
    indices: Tensor
    parts: list[tuple[Tensor, bool, Tensor]]
    total: Tensor
    gradient: Tensor
    rate: float
    seconds: float


@final
@dataclass(eq=False, kw_only=True)
class Run:
    """A training in progress, on one rank.

    Args:
        network: on its device.
        module: the same, set up by fabric: what is called.
        optimizer: of the network's parameters.
        prepared: the same, set up by fabric.
        loss, samples, plan, validation, metrics: as in `train`.
        ranks: of which this is one.
        folder: where checkpoints go, or None.
        log: on the first rank, where there is a folder.
        board: TensorBoard's writer, or None.
        show: told of progress.
        save_every, keep, log_every: as in `train`.
        given: what a checkpoint says of network, samples, plan and more.
        signal: the one that was received; the run ends after the step.
    """

    network: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    prepared: Any
    loss: Loss
    samples: Samples
    plan: Plan
    validation: Samples | None
    metrics: Metrics | None
    ranks: Ranks
    folder: Path | None
    log: Log | None
    board: Any
    show: Show
    save_every: float
    keep: int
    log_every: int
    given: Mapping[str, Any]
    position: Position = field(default_factory=Position)
    history: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in ("step", "epoch", "loss", "rate", "gradient", "seconds")}
    )
    validations: dict[str, list[float]] = field(default_factory=dict)
    best_weights: Mapping[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    last_good: Path | None = None
    signal: int = 0

    def __post_init__(self) -> None:
        plan = self.plan
        self._trained = parameters(self.network)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._batches = batches(len(self.samples), plan.batch_size, plan.drop_last)
        self._clock = time.process_time if plan.clock == "cpu" and plan.seconds is not None else time.monotonic
        self._waiting: list[_Step] = []
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._fetched = self._saved = time.monotonic()
        self._save_failed = self._log_failed = False
        self._latest = ""

    def go(self) -> str:
        """Train until the plan is done; why it ended, or "" if a signal ended it."""
        position, plan = self.position, self.plan
        if position.step == 0 and self.last_good is None:
            self.save()
        if not self.network.training:
            self.module.train()
        why = self.done()
        if why is not None and self.validation is not None and position.validated != position.step:
            self.validate()  # interrupted, and now told to end here
            self.save()
        while why is None:
            begun = self._clock()
            self._step(self._next())
            ended = position.batch == 0
            now = time.monotonic()
            number, seconds, fetch, save = self.ranks.largest(
                (
                    self.signal,
                    position.seconds + self._clock() - begun,
                    len(self._waiting) >= _FETCH_STEPS or now - self._fetched >= _FETCH_SECONDS,
                    self.folder is not None and now - self._saved >= self.save_every,
                )
            )
            position.seconds = seconds
            why = self.done()
            validate = self.validation is not None and (
                (ended and position.epoch % plan.validate_every == 0) or why is not None
            )
            if fetch or save or validate or number or why is not None:
                begun = self._clock()
                self.fetch()
                position.seconds += self._clock() - begun
            if validate:
                self.validate()
                why = self.done()
            if number and why is None:
                self.signal = int(number)
                self.save()
                return ""
            if save and why is None:
                self.save()
        return why

    def done(self) -> str | None:
        """Why the training is at its end, if it is."""
        plan, position = self.plan, self.position
        if plan.patience is not None and position.waited >= plan.patience:
            best = (
                "none was finite"
                if position.best_value is None
                else (f"the best, {position.best_value:.4g}, is that of step {position.best_step}")
            )
            return f"no better {plan.monitor} in {position.waited} validations: {best}"
        if plan.epochs is not None and position.epoch >= plan.epochs:
            return f"all {plan.epochs} epochs are done"
        if plan.steps is not None and position.step >= plan.steps:
            return f"all {plan.steps} steps are done"
        if plan.seconds is not None and position.seconds >= plan.seconds:
            return f"the {plan.seconds:g} {plan.clock} seconds are over, in {position.step} steps"
        return None

    def _share(self) -> float:
        plan, position = self.plan, self.position
        if plan.epochs is not None:
            return (position.epoch + position.batch / self._batches) / plan.epochs
        if plan.steps is not None:
            return position.step / plan.steps
        return min(position.seconds / (plan.seconds or 1.0), 1.0)

    def _factor(self) -> float:
        plan, position = self.plan, self.position
        if plan.seconds is not None:
            return plan.schedule.factor(self._share() * _PARTS, _PARTS)
        return plan.schedule.factor(position.step, plan.steps or (plan.epochs or 1) * self._batches)

    def _next(self) -> Tensor:
        """The indices of the next batch; the position moves behind it."""
        position, size = self.position, self.plan.batch_size
        if self._order[0] != position.epoch:
            self._order = (position.epoch, permutation(len(self.samples), self.plan.seed, position.epoch))
        return self._order[1][position.batch * size : (position.batch + 1) * size]

    def _step(self, indices: Tensor) -> None:
        position, ranks, count = self.position, self.ranks, len(indices)
        for parameter in self._trained:
            parameter.grad = None
        own = pieces(indices, ranks.rank, ranks.count, self.plan.accumulate)
        parts: list[tuple[Tensor, bool, Tensor]] = []
        sums: list[Tensor] = []
        for number, (part, counts) in enumerate(own, 1):
            with ranks.accumulating(self.module, number < len(own)):
                values = self.loss(self.module, batch_on(self.samples, part, ranks.device))
                check_per_sample(values, len(part), "the loss")
                summed = values.sum() if counts else 0.0 * values.sum()
                # Gradients are averaged over the ranks, and each is a mean over the samples of all of them.
                ranks.backward(summed * (ranks.count / count))
            parts.append((part, counts, values.detach()))
            sums.append(summed.detach())
        gradient = self._clipped()
        factor = self._factor()
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.prepared.step()
        position.step += 1
        total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        rate = self._rates[0] * factor
        self._waiting.append(
            _Step(position.step, position.epoch, indices, parts, total, gradient, rate, position.seconds)
        )
        position.batch += 1
        if position.batch == self._batches:
            position.epoch, position.batch = position.epoch + 1, 0

    def _clipped(self) -> Tensor:
        """Clip the gradient; its norm before that."""
        if self.ranks.scaler is not None:
            self.ranks.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        if not gradients:
            raise InputError("the loss does not depend on any trained parameter of the network: there is no gradient")
        # What nn.utils.get_total_norm computes for gradients on one device, in a third of its time.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.plan.clip is not None:
            nn.utils.clip_grads_with_norm_(self._trained, self.plan.clip, norm)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def fetch(self) -> None:
        """Bring the losses of the latest steps to the CPU, all in one copy, and log them.

        Raises:
            TrainingError: a loss or a gradient is not finite.
        """
        steps, self._waiting = self._waiting, []
        self._fetched = time.monotonic()
        if not steps:
            return
        columns = [torch.stack([step.total for step in steps]), torch.stack([step.gradient for step in steps])]
        totals, norms = torch.stack([column.double() for column in columns]).cpu()
        for step, total, norm in zip(steps, self.ranks.total(totals.clone()).tolist(), norms.tolist(), strict=True):
            loss = total / len(step.indices)
            if not math.isfinite(loss):
                self._fail(self._blame(step))
            if not math.isfinite(norm):
                if self.ranks.scaler is None:
                    self._fail(
                        f"the gradient of step {step.number} (epoch {step.epoch}) is not finite, while its loss, "
                        f"{loss:.6g}, is: the training diverges, or the network or the loss has a root, norm or "
                        f"quotient at 0; the batch was {_listed(step.indices)}"
                    )
                self._skipped()
            self._write(step, loss, norm)
        self.flush()
        self._latest = f"step {self.position.step}, epoch {self.position.epoch}, loss {loss:.4g}"
        self._told(news=False)

    def _skipped(self) -> None:
        self.position.skipped += 1
        scaler = self.ranks.scaler
        if scaler is not None and scaler.get_scale() < 2.0**-14:
            self._fail(
                f"float16 has no room for the gradients: {self.position.skipped} steps were skipped, the loss scaled "
                "down to nothing; use bf16 or float32"
            )

    def _write(self, step: _Step, loss: float, norm: float) -> None:
        if step.number % self.log_every:
            return
        entry = {
            "step": step.number,
            "epoch": step.epoch,
            "loss": loss,
            "rate": step.rate,
            "gradient": norm,
            "seconds": step.seconds,
        }
        for name, value in entry.items():
            self.history[name].append(value)
        if self.log is not None:
            self.log.add({"kind": "step", **entry})
        if self.board is not None:
            for name in ("loss", "rate", "gradient"):
                self.board.add_scalar(f"training/{name}", entry[name], step.number)

    def _blame(self, step: _Step) -> str:
        mask = torch.zeros(len(step.indices), dtype=torch.float64)
        for part, counts, values in step.parts:
            if counts:
                bad = part[~torch.isfinite(values).cpu()]
                mask[torch.isin(step.indices, bad)] = 1.0
        guilty = step.indices[self.ranks.total(mask) > 0]
        where = f"the loss of step {step.number} (epoch {step.epoch}) is not finite"
        advice = "lower the rate, clip the gradient, or warm up longer"
        if len(guilty) == 0:
            return f"{where}, only because its sum over the samples has no room: the training diverges; {advice}"
        if len(guilty) == len(step.indices) > 1:
            return (
                f"{where} at every sample of the batch, {_listed(guilty)}: the training diverges, or the samples are "
                f"not finite; {advice}"
            )
        return f"{where} at {_listed(guilty)}: look at what the data set has there"

    def _fail(self, what: str) -> None:
        if self.log is not None:
            self.log.add({"kind": "failure", "text": what})
        self.flush()
        raise TrainingError(f"{what}. {self.kept()}", self.training(what))

    def kept(self) -> str:
        """What remains of a training that failed."""
        if self.last_good is not None:
            return f"The last good checkpoint is {self.last_good}"
        if self.folder is None:
            return "Nothing was saved: no folder was given"
        return "Nothing was saved before" if self.ranks.first else f"Checkpoints are in {self.folder}"

    def validate(self) -> None:
        """Evaluate over the validation samples, and keep the weights if they are the best so far.

        Raises:
            InputError: metrics without the one that the plan monitors, or that do not give one value a sample.
        """
        position, plan = self.position, self.plan
        if self.validation is None or position.validated == position.step:
            return
        before = random_state(self.ranks.device)
        means = over(self.validation, self._values, self.module, self.ranks, plan.batch_size).means
        set_random_state(before, self.ranks.device)  # what is trained does not depend on how often one looks
        if plan.monitor not in means:
            raise InputError(f"the plan monitors {plan.monitor!r}, and validation gives {', '.join(means)}")
        position.validated = position.step
        value = means[plan.monitor]
        if not math.isfinite(value):
            self.note(f"validation after step {position.step}: {plan.monitor} is not finite")
        if math.isfinite(value) and (position.best_value is None or value < position.best_value):
            position.best_value, position.best_step, position.best_epoch = value, position.step, position.epoch
            position.waited = 0
            self.best_weights = network_state(self.network)
        elif position.batch == 0 and position.epoch % plan.validate_every == 0:
            position.waited += 1  # not at an end out of turn, which a longer training would not have
        entry = {"step": position.step, "epoch": position.epoch, **means, "seconds": position.seconds}
        for name, number in entry.items():
            self.validations.setdefault(name, []).append(number)
        if self.log is not None:
            self.log.add({"kind": "validation", **entry})
        self.flush()
        if self.board is not None:
            for name, number in means.items():
                self.board.add_scalar(f"validation/{name}", number, position.step)
        self._latest += ", validation " + ", ".join(f"{name} {number:.4g}" for name, number in means.items())
        self._told(news=True)

    def _values(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        values = {} if self.metrics is None else dict(self.metrics(module, batch))
        taken = {"step", "epoch", "seconds", "kind"}.intersection(values)
        if taken:
            raise InputError(f"a metric cannot have the name {sorted(taken)[0]!r}: the log uses it for something else")
        loss = values.pop("loss") if "loss" in values else self.loss(module, batch)
        return {"loss": loss, **values}

    def _told(self, news: bool) -> None:
        self.show(self._share(), self._latest, news)

    def note(self, text: str) -> None:
        """Something the user should know and that does not end the training."""
        self.notes.append(text)
        if self.log is not None:
            self.log.add({"kind": "note", "text": text})
        warnings.warn(text, RuntimeWarning, stacklevel=2)

    def flush(self, lasting: bool = False) -> bool:
        """Write the log; whether that went well."""
        if self.log is None:
            return True
        try:
            self.log.flush(lasting)
            self._log_failed = False
        except OSError as error:
            if not self._log_failed:
                self._log_failed = True
                self.note(f"the log could not be written ({error.strerror}); its lines wait in memory. {self.kept()}")
        return not self._log_failed

    def save(self) -> None:
        """Write a checkpoint. A disk that is full is noted, and the earlier checkpoints stay."""
        self._saved = time.monotonic()
        if self.folder is None:
            return
        ranks, position = self.ranks, self.position
        weights = network_state(self.network)
        tensors, numbers = optimizer_state(self.network, self.optimizer, ranks.sharded)
        states = {name: ranks.gathered(state) for name, state in random_state(ranks.device).items()}
        if self.log is None:
            return
        trained = {name for name, parameter in self.network.named_parameters() if parameter.requires_grad}
        for name in trained & weights.keys():
            if not torch.isfinite(weights[name]).all():
                self._fail(f"after step {position.step} the weights {name!r} are not finite, while the losses are")
        groups = {
            "network": weights,
            "best": self.best_weights,
            "optimizer": tensors,
            "random": {f"{name}/{rank}": state for name, part in states.items() for rank, state in enumerate(part)},
        }
        if not self.flush(lasting=True):
            return  # resumed from here, the log would have a gap
        position.log = self.log.position
        record = {
            **self.given,
            "position": dataclasses.asdict(position),
            "optimizer": numbers,
            "scaler": ranks.scaler.state_dict() if ranks.scaler is not None else None,
            "conditions": conditions(ranks),
        }
        try:
            self.last_good = checkpoint.write(self.folder / "checkpoints", position.step, groups, record, self.keep)
            self._save_failed = False
        except OSError as error:
            if not self._save_failed:
                self.note(
                    f"the checkpoint of step {position.step} could not be written ({error.strerror}); training goes "
                    f"on. {self.kept()}, unharmed"
                )
            self._save_failed = True
        self._saved = time.monotonic()

    @property
    def saved(self) -> bool:
        """Whether the last checkpoint was written."""
        return not (self._save_failed or self._log_failed)

    def training(self, why: str) -> Training:
        """What there is, as a result."""
        position = self.position
        best = None
        if position.best_value is not None:
            best = Best(position.best_value, position.best_step, position.best_epoch, self.best_weights)
        notes = list(self.notes)
        if position.skipped:
            notes.append(f"{position.skipped} steps were skipped: their gradients overflowed float16")
        return Training(
            {name: torch.tensor(values, dtype=torch.float64) for name, values in self.history.items()},
            {name: torch.tensor(values, dtype=torch.float64) for name, values in self.validations.items()},
            best,
            position.step,
            position.epoch,
            position.seconds,
            why,
            tuple(notes),
            self.folder,
            self.ranks.first,
        )


def conditions(ranks: Ranks) -> dict[str, Any]:
    """On what the last bits of a training depend, apart from the plan."""
    return {
        "processor": processor(ranks.device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "strategy": type(ranks.fabric.strategy).__name__,
        "ranks": ranks.count,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _listed(indices: Tensor) -> str:
    shown = ", ".join(map(str, indices[:_NAMED].tolist()))
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return f"sample{'s' if len(indices) > 1 else ''} {shown}{more} (counted from 0 in the data set)"
