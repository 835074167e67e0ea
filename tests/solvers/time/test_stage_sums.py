"""Sums of stages and estimates of steps by compiled kernels: derivatives of first and second order, against differences
and against the same as torch operations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sciml
from sciml import FunctionSystem
from sciml.kernels import build
from sciml.solvers.time import ExplicitRungeKutta, stage_sums
from sciml.solvers.time.control import Controller

PAIRS = [
    ExplicitRungeKutta.heun(),
    ExplicitRungeKutta.bogacki_shampine(),
    ExplicitRungeKutta.dormand_prince(),
    ExplicitRungeKutta.tsit5(),
    ExplicitRungeKutta.prince_dormand(),
]
OF_ALL = pytest.mark.parametrize("method", PAIRS, ids=lambda method: method.tableau.name)

# Everything grows, so that no entry passes the kink of max(|before|, |after|).
START = 0.1 + torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MATRIX = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For states of any size."""
    if build.library() is None:
        pytest.skip("there is no compiler")
    monkeypatch.setattr(stage_sums, "FEWEST", 1)
    yield


def system_of(data: Tensor) -> FunctionSystem:
    return FunctionSystem(lambda u, t: torch.tanh((u @ MATRIX + t) * data[0]) + data[1] * u, (4,))


def results(method: ExplicitRungeKutta, data: Tensor, start: Tensor, steps: list[float]) -> dict[str, Tensor]:
    """The end, and the sums of error ratios and of stiffness estimates, after steps of given sizes."""
    stepper = replace(method, record=True).stepper(system_of(data), 1e-5, 1e-5)
    y, t = start + data[2], 0.0
    memory = stepper.begin(y, t)
    errors, rates = [], []
    for h in steps:
        attempt = stepper.step(y, t, h, memory)
        ratio = attempt.ratio
        if ratio is None:
            assert attempt.error is not None
            ratio = stepper.system.error_ratio(attempt.error, y, attempt.value, 1e-5, 1e-5)  # type: ignore[attr-defined]
        errors.append(ratio * h)
        if attempt.stiffness is not None:
            rates.append(attempt.stiffness * h)
        y, t, memory = attempt.value, t + h, attempt.memory
    found = {"end": (y * WEIGHTS).sum(), "error": torch.stack(errors).sum()}
    if rates:
        found["stiffness"] = (torch.stack(rates) * torch.tensor([1.0, -2.0, 3.0])).sum()
    return found


@pytest.mark.parametrize("method", PAIRS[:-1], ids=lambda method: method.tableau.name)
def test_gradients_on_the_recorded_grid_against_differences(method: ExplicitRungeKutta, kernels: None) -> None:
    data = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    recorded = replace(method, record=True, controller=Controller(rows="mean"))
    solution = sciml.evolve(
        system_of(data), initial=START + data[2], times=(0.0, 0.6), method=recorded, rtol=1e-5, atol=1e-5
    )
    history = solution.history
    steps = history["step"][history["accepted"][:, 0], 0].tolist()
    found = {"end": (solution.value[:, 1] * WEIGHTS).sum()}
    kept, sizes = history["accepted"], history["step"]
    found["error"] = torch.where(kept, history["error"] * sizes, 0.0).sum()
    if "stiffness" in history:
        rates = history["stiffness"] * sizes * torch.tensor([1.0, -2.0, 3.0])
        found["stiffness"] = torch.where(kept, rates, 0.0).sum()
    again = results(method, data, START, steps)
    assert found.keys() == again.keys() and ("stiffness" in found) == (method.tableau.equal is not None)
    for name, value in found.items():
        (gradient,) = torch.autograd.grad(value, data, retain_graph=True)
        (repeated,) = torch.autograd.grad(again[name], data, retain_graph=True)
        torch.testing.assert_close(repeated, gradient, rtol=1e-9, atol=1e-12)
        differences = []
        for unit in 1e-4 * torch.eye(3, dtype=torch.float64):
            near, far = (
                results(method, data.detach() + factor * unit, START, steps)[name]
                - results(method, data.detach() - factor * unit, START, steps)[name]
                for factor in (1, 2)
            )
            differences.append((8 * near - far) / 12e-4)
        expected = torch.stack(differences)
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@OF_ALL
@pytest.mark.parametrize("name", ["end", "error", "stiffness"])
def test_all_derivatives_are_those_of_torch_operations(
    method: ExplicitRungeKutta, name: str, kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, twice, and for several right-hand sides at a time."""
    if name == "stiffness" and method.tableau.equal is None:
        return
    data = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    start = START.clone().requires_grad_()
    found = []
    for fewest in (1, 1 << 40):
        monkeypatch.setattr(stage_sums, "FEWEST", fewest)
        value = results(method, data, start, [0.1, 0.3, 0.2])[name]
        values = {"value": value}
        values["first"], values["start"] = torch.autograd.grad(value, (data, start), retain_graph=True)
        values["again"] = torch.autograd.grad(value, data, retain_graph=True)[0]
        graph, of_start = torch.autograd.grad(value, (data, start), create_graph=True)
        total = graph.square().sum() + (of_start * WEIGHTS).sum()
        values["second"], values["mixed"] = torch.autograd.grad(total, (data, start), retain_graph=True)
        factors = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
        values["several"] = torch.autograd.grad(value, data, factors, retain_graph=True, is_grads_batched=True)[0]
        torch.testing.assert_close(values["again"], values["first"], rtol=0, atol=0)
        found.append(values)
    # Of order 8 errors, and differences of the two stages at the same time, are little more than rounding.
    exact = 1e-6 if method.tableau.order == 8 else 1e-9
    for part, value in found[1].items():
        scale = float(value.detach().abs().max())
        torch.testing.assert_close(
            found[0][part], value, rtol=exact, atol=exact * scale, msg=lambda m, p=part: f"{p}: {m}"
        )


def test_outputs_within_steps_and_checkpoints(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    times = torch.linspace(0, 2, 23, dtype=torch.float64)
    found = []
    for fewest, gradient in ((1 << 40, "recorded"), (1, "recorded"), (1, "checkpointed")):
        monkeypatch.setattr(stage_sums, "FEWEST", fewest)
        data = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
        solution = sciml.evolve(
            system_of(data),
            initial=START + data[2],
            times=times,
            method=replace(ExplicitRungeKutta.tsit5(), record=True),
            gradient=gradient,  # type: ignore[arg-type]
            rtol=1e-4,
        )
        penalty = (solution.history["error"] + solution.history["stiffness"]).mean()
        found.append(torch.autograd.grad(solution.value.square().sum() + penalty, data)[0])
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], rtol=1e-9, atol=0)


def test_derivatives_of_a_part_are_not_mixed_with_those_of_the_whole(kernels: None) -> None:
    """A backward pass may end within a step, and another go through all of it later."""
    data = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    stepper = ExplicitRungeKutta.tsit5().stepper(system_of(data), 1e-5, 1e-5)
    y = START + data[2]
    attempt = stepper.step(y, 0.0, 0.2, stepper.begin(y, 0.0))
    assert attempt.interpolate is not None
    middle, end = attempt.interpolate(0.5).sum(), attempt.value.sum()
    apart = [torch.autograd.grad(one, data, retain_graph=True)[0] for one in (middle, end, middle)]
    torch.testing.assert_close(apart[2], apart[0], rtol=0, atol=0)
    (of_y,) = torch.autograd.grad(end, y, retain_graph=True)
    assert bool((of_y != 0).all())
    (together,) = torch.autograd.grad(middle + end, data)
    torch.testing.assert_close(together, apart[0] + apart[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("by_row", [False, True])
def test_ratio_and_stiffness_of_large_rows_are_those_of_torch_operations(
    dtype: torch.dtype, by_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows longer than the blocks of the kernels, entries of equal size before and after, and one of no error."""
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(2, 3, 3000, dtype=dtype, generator=generator)
    start[..., 5] = 0.0
    turn = torch.randn(3000, dtype=dtype, generator=generator)
    turn[7] = turn[5] = 0.0
    tolerance = torch.tensor([1e-3, 1e-2], dtype=dtype) if by_row else 1e-3
    found = []
    for fewest in (1, 1 << 40):
        monkeypatch.setattr(stage_sums, "FEWEST", fewest)
        u, a = start.clone().requires_grad_(), turn.clone().requires_grad_()
        system = FunctionSystem(lambda u, t, a=a: a * torch.sin(3 * u), (3, 3000), dtype=dtype)
        stepper = replace(ExplicitRungeKutta.tsit5(), record=True).stepper(system, 1e-3, tolerance)
        attempt = stepper.step(u, 0.0, 0.3, stepper.begin(u, 0.0))
        ratio, rate = attempt.ratio, attempt.stiffness
        assert attempt.error is not None and rate is not None
        if ratio is None:
            ratio = system.error_ratio(attempt.error, u, attempt.value, 1e-3, tolerance)
        weights = torch.tensor([1.0, 2.0], dtype=dtype)
        gradients = torch.autograd.grad((ratio * weights).sum() + (rate * weights).sum(), (u, a))
        found.append((ratio.detach(), rate.detach(), *gradients))
    exact = 1e-9 if dtype == torch.float64 else 1e-3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=exact, atol=exact * float(other.abs().max()))


def test_recorded_ratios_are_of_rows_and_their_mean_decides(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    method = ExplicitRungeKutta.tsit5()
    recorded = replace(method, record=True, controller=Controller(rows="mean", first_step=2.0))
    history = sciml.evolve(
        system_of(data), initial=START, times=(0.0, 2.0), method=recorded, rtol=1e-6, atol=1e-8
    ).history
    monkeypatch.setattr(stage_sums, "FEWEST", 1 << 40)
    stepper, y = method.stepper(system_of(data.detach())), START
    times, sizes, accepted = (history[name][:, 0].tolist() for name in ("time", "step", "accepted"))
    for place, (t, h) in enumerate(zip(times, sizes, strict=True)):
        attempt = stepper.step(y, t, h, stepper.begin(y, t))
        assert attempt.error is not None
        relative = attempt.error / (1e-8 + 1e-6 * torch.maximum(y.abs(), attempt.value.abs()))
        torch.testing.assert_close(
            history["error"][place].detach(), relative.square().mean(-1).sqrt(), rtol=1e-6, atol=1e-9
        )
        assert accepted[place] == bool(relative.square().mean() <= 1)
        y = attempt.value if accepted[place] else y
    assert 0 < sum(accepted) < len(accepted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("twice", [False, True])
def test_rows_without_an_error_have_no_part_in_gradients(
    dtype: torch.dtype, twice: bool, kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row is at rest, and of one the squares of errors underflow: the others have the gradients that they have
    alone, as torch operations."""
    lowest = 1e-22 if dtype == torch.float32 else 1e-170
    whole = torch.tensor([[0.0, 0.0], [1.0, 0.5], [lowest, lowest]], dtype=dtype)
    method = replace(ExplicitRungeKutta.tsit5(), record=True, controller=Controller(first_step=0.1))

    def gradients(values: Tensor, fewest: int) -> tuple[Tensor, ...]:
        monkeypatch.setattr(stage_sums, "FEWEST", fewest)
        start, speed = values.clone().requires_grad_(), torch.ones((), dtype=dtype, requires_grad=True)
        system = FunctionSystem(lambda u, t: -speed * u * (1 + u * u), (2,), dtype=dtype)
        solution = sciml.evolve(system, initial=start, times=(0.0, 1.0), method=method, rtol=1e-3, atol=1e-3)
        once = torch.autograd.grad(solution.history["error"].sum(), (start, speed), create_graph=twice)
        return torch.autograd.grad(once[1], (start, speed)) if twice else once

    of_start, of_speed = gradients(whole, 1)
    alone, of_speed_alone = gradients(whole[1:2], 1 << 40)
    assert not of_start[0].any() and not of_start[2].any()
    near = {"rtol": 1e-9 if dtype == torch.float64 else 1e-2, "atol": 1e-12 if dtype == torch.float64 else 1e-6}
    torch.testing.assert_close(of_start[1:2], alone, **near)
    torch.testing.assert_close(of_speed, of_speed_alone, **near)
