"""Schedules against torch's own, step by step."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler

from sciml import InputError
from sciml.training import Constant, Cosine, Exponential, InverseDecay, Linear, OneCycle, Schedule, Steps

STEPS = 60


def onecycle(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=STEPS, pct_start=0.2, div_factor=2.0, final_div_factor=100.0
    )


def warm_cosine(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    warm = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=15)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, STEPS - 15, eta_min=0.05)
    return lr_scheduler.SequentialLR(optimizer, [warm, fall], [15])


def warm_line(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    warm = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=15)
    fall = lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=STEPS - 15)
    return lr_scheduler.SequentialLR(optimizer, [warm, fall], [15])


TABLE: list[tuple[Schedule, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]]] = [
    (Constant(), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    (Constant(warmup=0.25, start=0.2), lambda o: lr_scheduler.LinearLR(o, 0.2, 1.0, total_iters=15)),
    (OneCycle(0.2, 2.0, 100.0), onecycle),
    (OneCycle(), lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=STEPS)),
    (Cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
    (Cosine(warmup=0.25, start=0.1, final=0.05), warm_cosine),
    (Linear(), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=STEPS)),
    (Linear(warmup=0.25, start=0.1, final=0.05), warm_line),
    (Exponential(0.01), lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / STEPS))),
    (InverseDecay(0.02), lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + 0.02 * step))),
    (Steps((0.25, 0.5, 0.9), 0.3), lambda o: lr_scheduler.MultiStepLR(o, [15, 30, 54], 0.3)),
]


@pytest.mark.parametrize(("schedule", "torchs"), TABLE, ids=[repr(schedule) for schedule, _ in TABLE])
def test_factors_are_those_of_torch(
    schedule: Schedule, torchs: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = torchs(optimizer)
        expected = []
        for _ in range(STEPS):
            expected.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
    assert [schedule.factor(step, STEPS) for step in range(STEPS)] == pytest.approx(expected, rel=1e-10, abs=1e-12)


MISTAKES = [
    lambda: Constant(1.0),
    lambda: Cosine(final=2.0),
    lambda: OneCycle(peak=0.0),
    lambda: InverseDecay(-1.0),
]


@pytest.mark.parametrize("make", MISTAKES)
def test_impossible_settings_are_refused(make: Callable[[], Schedule]) -> None:
    with pytest.raises(InputError, match="got"):
        make()
