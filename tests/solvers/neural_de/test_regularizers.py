"""Regularizers: what their values and gradients are, against sums written out, quadrature and finite differences."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import sciml
from sciml import InputError
from sciml.solvers.neural_de import (
    ErrorEstimate,
    ErrorEstimateSquared,
    ExponentialAnnealing,
    JacobianNorm,
    KineticEnergy,
    LocalError,
    LocalStiffness,
    NeuralODE,
    NeuralSDE,
    Regularizer,
    Steer,
    StiffnessEstimate,
    TaylorDerivative,
)
from sciml.solvers.neural_de.local import Sampler, repeated, samplers_of
from sciml.solvers.time import Controller, ExplicitRungeKutta

TSIT5 = replace(ExplicitRungeKutta.tsit5(), record=True)
MATRIX = torch.tensor([[-0.3, 2.0, 0.1], [-1.5, -0.2, 0.4], [0.3, 0.1, -0.8]], dtype=torch.float64)


class Rate(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(width + 1, 16), nn.Linear(16, width)
        self.double()

    def forward(self, u: Tensor, t: Any) -> Tensor:
        time = torch.as_tensor(t, dtype=u.dtype).expand(u[..., :1].shape)
        result: Tensor = self.second(torch.tanh(3 * self.first(torch.cat((u, time), -1))))
        return result


def states(rows: int = 4, width: int = 3) -> Tensor:
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def recorded(rate: Any = None) -> sciml.Solution:
    system = sciml.FunctionSystem(rate or Rate(), (3,))
    method = replace(TSIT5, controller=replace(TSIT5.controller, first_step=1.5))
    return sciml.evolve(system, initial=states(), times=(0.0, 2.0), method=method, rtol=1e-5, atol=1e-5)


def test_estimates_are_the_sums_that_the_papers_write() -> None:
    solution = recorded()
    history = {name: entry.detach() for name, entry in solution.history.items()}
    kept = history["accepted"][:, 0].tolist()
    assert True in kept and False in kept  # a rejected step is among them, which must not count
    steps = [k for k, accepted in enumerate(kept) if accepted]
    ratios, sizes, rates = history["error"], history["step"], history["stiffness"]
    for row in range(4):
        products = [float(ratios[k, row] * sizes[k, row]) for k in steps]
        assert ErrorEstimate()(solution)[row].item() == pytest.approx(sum(products), rel=1e-12)
        assert ErrorEstimate("mean")(solution)[row].item() == pytest.approx(sum(products) / len(steps), rel=1e-12)
        squares = sum(float(ratios[k, row]) ** 2 for k in steps)
        assert ErrorEstimateSquared()(solution)[row].item() == pytest.approx(squares, rel=1e-12)
        largest = max(float(rates[k, row]) for k in steps)
        assert StiffnessEstimate("max", step_factor=False)(solution)[row].item() == pytest.approx(largest, rel=1e-12)
        products = [float(rates[k, row] * sizes[k, row]) for k in steps]
        assert StiffnessEstimate()(solution)[row].item() == pytest.approx(sum(products), rel=1e-12)
        of_batch = sum(float(ratios[k].square().mean().sqrt() * sizes[k, row]) for k in steps)
        assert ErrorEstimate(rows="together")(solution)[row].item() == pytest.approx(of_batch, rel=1e-12)


def test_stiffness_of_a_linear_system_is_between_its_eigenvalues() -> None:
    matrix = torch.diag(torch.tensor([-0.1, -1.0, -30.0], dtype=torch.float64))
    estimate = StiffnessEstimate("max", step_factor=False)(recorded(lambda u, t: u @ matrix.T))
    assert (estimate < 30.0 * (1 + 1e-9)).all() and (estimate > 29.0).all()


@pytest.mark.parametrize("regularizer", [ErrorEstimate(), ErrorEstimateSquared(), StiffnessEstimate()], ids=str)
def test_a_step_that_overflowed_leaves_the_gradient_finite(regularizer: Any) -> None:
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def rate(u: Tensor, t: Any) -> Tensor:
        return -scale * u**9  # of which the stages of the first trial step overflow

    method = replace(TSIT5, controller=replace(TSIT5.controller, first_step=1.0))
    system = sciml.FunctionSystem(rate, (1,))
    initial = torch.full((2, 1), 3.0, dtype=torch.float64)
    solution = sciml.evolve(system, initial=initial, times=(0.0, 1.0), method=method, rtol=1e-6, atol=1e-6)
    assert not solution.history["error"][0].isfinite().all()
    (slope,) = torch.autograd.grad(regularizer(solution).sum(), scale)
    assert slope.isfinite() and slope != 0


def test_rows_that_fail_have_no_part_in_the_mean_over_the_rows() -> None:
    """They fail in the first step, or later; the steps are those that the good rows take alone."""
    inner, good = Rate(), states(2)

    def rate(u: Tensor, t: Any) -> Tensor:
        return inner(u, t) + torch.where(u.abs() > 50, torch.nan, 0.0) + torch.where(u > 5, u**3, 0.0)

    far = torch.tensor([[100.0, 0.0, 0.0], [4.9, 4.9, 4.9]], dtype=torch.float64)
    method = replace(TSIT5, controller=Controller(first_step=0.01, largest_step=0.01))
    together, each = ErrorEstimate(rows="together"), ErrorEstimate()
    found = []
    for initial in (good, torch.cat((good, far))):
        ode = NeuralODE(rate, rtol=1e-2, atol=1e-2, method=method, regularizer=together, throw=False)
        start = initial.clone().requires_grad_()
        solution = ode(start)[1]
        penalty = solution.statistics["penalty"]
        found.append((penalty[:2], torch.autograd.grad(penalty.sum(), start)[0]))
        squares = solution.history["error"].detach()[:, :2].square().mean(1).sqrt() * solution.history["step"][:, 0]
        torch.testing.assert_close(penalty[0].detach(), squares[solution.history["accepted"][:, 0]].sum())
    assert solution.codes.bool().tolist() == [False, False, True, True]
    assert not penalty[2:].any() and not found[1][1][2:].any()
    assert bool((each(solution)[:2] != penalty[:2]).all())


def test_no_error_at_all_has_a_gradient() -> None:
    """As of a network whose last layer begins with zeros."""
    rate = Rate()
    for parameter in rate.second.parameters():
        nn.init.zeros_(parameter)
    for rows in ("each", "together"):
        ode = NeuralODE(rate, regularizer=ErrorEstimate(rows=rows))  # type: ignore[arg-type]
        ode(states())[1].statistics["penalty"].sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in rate.parameters())


def test_checkpoints_inside_torch_func_are_refused() -> None:
    ode = NeuralODE(Rate(), adjoint="checkpointed")
    with pytest.raises(InputError, match=r"gradient='checkpointed' inside torch\.func is supported by jvp alone"):
        torch.func.grad(lambda u: ode(u)[0].sum())(states())
    slope = torch.func.jvp(lambda u: ode(u)[0], (states(),), (torch.ones(4, 3, dtype=torch.float64),))[1]
    expected = torch.func.jvp(lambda u: NeuralODE(ode.rate)(u)[0], (states(),), (torch.ones(4, 3).double(),))[1]
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=0)


def test_sums_and_weights_are_those_of_the_parts() -> None:
    together = 0.5 * ErrorEstimate("mean") + 2 * (StiffnessEstimate() + ErrorEstimateSquared() * 3.0)
    rate, initial = Rate(), states()
    _, solution = NeuralODE(rate, interval=(0, 2), rtol=1e-5, regularizer=together)(initial)
    parts = 0.5 * ErrorEstimate("mean")(solution) + 2 * StiffnessEstimate()(solution)
    expected = parts + 6 * ErrorEstimateSquared()(solution)
    torch.testing.assert_close(solution.statistics["penalty"], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("stochastic", [False, True])
def test_checkpoints_change_neither_penalty_nor_gradient(stochastic: bool) -> None:
    """With first steps that are rejected, and outputs in between."""
    regularizer = 0.5 * ErrorEstimate() + StiffnessEstimate()
    found = []
    for adjoint in ("recorded", "checkpointed"):
        rate = Rate()
        options: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5, "adjoint": adjoint, "regularizer": regularizer}
        if stochastic:
            value, solution = NeuralSDE(rate, lambda u, t: 0.2 * u, **options)(states(), [0.0, 0.4, 1.0], seed=1)
        else:
            method = replace(TSIT5, controller=replace(TSIT5.controller, first_step=0.9))
            value, solution = NeuralODE(rate, method=method, **options)(states(), [0.0, 0.4, 3.0])
            assert (solution.statistics["rejected"] > 0).all()
        penalty = solution.statistics["penalty"]
        (value.square().sum() + penalty.sum()).backward()
        found.append((penalty, *(parameter.grad for parameter in rate.parameters())))
    for recorded_one, repeated_one in zip(*found, strict=True):
        torch.testing.assert_close(recorded_one, repeated_one, rtol=1e-9, atol=1e-12)


def test_nothing_acts_in_evaluation_mode() -> None:
    rate, initial = Rate(), states()
    plain, reference = NeuralODE(rate)(initial)
    for regularizer in (ErrorEstimate(), LocalError(), Steer(), KineticEnergy() + JacobianNorm(), TaylorDerivative()):
        model = NeuralODE(rate, regularizer=regularizer).eval()
        value, solution = model(initial)
        assert torch.equal(value, plain)
        assert not solution.statistics["penalty"].any()
        assert torch.equal(solution.statistics["evaluations"], reference.statistics["evaluations"])


@pytest.mark.parametrize(
    "regularizer",
    [ErrorEstimate(), StiffnessEstimate(), LocalError(), KineticEnergy() + JacobianNorm(), TaylorDerivative(3)],
    ids=str,
)
def test_the_trajectory_and_its_steps_stay_what_they_are(regularizer: Regularizer) -> None:
    rate, initial = Rate(), states()
    plain, reference = NeuralODE(rate)(initial)
    value, solution = NeuralODE(rate, regularizer=regularizer)(initial)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
    assert torch.equal(solution.statistics["evaluations"], reference.statistics["evaluations"])


# Local regularizers


@pytest.mark.parametrize("sampling", ["unbiased", "biased"])
def test_steps_are_drawn_with_the_probabilities_that_are_said(sampling: Any) -> None:
    sizes = [0.1, 0.4, 0.2, 0.3]
    generator, counts = torch.Generator().manual_seed(0), [0] * len(sizes)
    draws = 8000
    for _ in range(draws):
        sampler = Sampler(sampling, generator)
        for k, size in enumerate(sizes):
            sampler(float(k), size, torch.zeros(1))
        assert sampler.sample is not None
        counts[int(sampler.sample.time)] += 1
    for count, size in zip(counts, sizes, strict=True):
        share = size if sampling == "unbiased" else 0.25
        assert abs(count / draws - share) < 4 * (share * (1 - share) / draws) ** 0.5


def test_the_repeated_step_is_the_one_that_was_taken_and_its_mean_the_global_estimate() -> None:
    system = sciml.FunctionSystem(Rate(), (3,))
    steps: list[tuple[float, float, Tensor]] = []

    def watch(t: float, h: float, y: Tensor) -> None:
        steps.append((t, h, y))

    solution = sciml.evolve(
        system, initial=states(), times=(0.0, 2.0), method=TSIT5, rtol=1e-5, atol=1e-5, step_observer=watch
    )
    total, mean = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for t, h, y in steps:
        sampler = Sampler("unbiased")
        sampler(t, h, y)
        assert sampler.sample is not None
        attempt, h = repeated(TSIT5, system, sampler.sample, 1e-5, 1e-5)
        # Each step in proportion to its length: the expected value is the integral over the interval of length 2.
        total += (h / 2.0) * LocalError(step_factor=False).of_step(attempt, h).detach()
        mean += LocalError("biased").of_step(attempt, h).detach() / len(steps)
    torch.testing.assert_close(2.0 * total, ErrorEstimate()(solution).detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(mean, ErrorEstimate("mean")(solution).detach(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("local", [LocalError(), LocalError("biased", step_factor=False), LocalStiffness()], ids=str)
@pytest.mark.parametrize("options", [{}, {"adjoint": "checkpointed"}, {"adjoint": "continuous"}], ids=str)
def test_gradients_of_local_estimates_against_differences(local: Any, options: Any) -> None:
    rate, initial = Rate(), states()
    model = NeuralODE(rate, interval=(0, 2), rtol=1e-5, regularizer=local, **options)

    def penalty() -> tuple[Tensor, Tensor]:
        torch.manual_seed(12)
        _, solution = model(initial)
        return solution.statistics["penalty"], solution.value

    values, _ = penalty()
    gradient = torch.autograd.grad(values.sum(), rate.first.weight)[0]
    # Of the same step from the same state: what differences of the whole model would move as well.
    torch.manual_seed(12)
    sampler = samplers_of(((1.0, local),), options.get("adjoint") == "checkpointed")[local.sampling]
    system = sciml.FunctionSystem(rate, (3,))
    sciml.evolve(
        system,
        initial=initial,
        times=(0.0, 2.0),
        rtol=1e-5,
        atol=1e-5,
        step_observer=sampler,
        method=ExplicitRungeKutta.tsit5(),
    )
    sample = sampler.sample
    assert sample is not None

    def again(change: float) -> float:
        with torch.no_grad():
            rate.first.weight[2, 1] += change
            found = local.of_step(*repeated(TSIT5, system, sample, 1e-5, 1e-5)).sum()
            rate.first.weight[2, 1] -= change
        return float(found)

    assert again(0.0) == pytest.approx(values.sum().item(), rel=1e-12)
    difference = (again(1e-5) - again(-1e-5)) / 2e-5
    assert gradient[2, 1].item() == pytest.approx(difference, rel=1e-6)


def test_a_local_step_costs_seven_evaluations_and_all_others_none() -> None:
    rate, calls = Rate(), [0]

    def counted(u: Tensor, t: Any) -> Tensor:
        calls[0] += 1
        found: Tensor = rate(u, t)
        return found

    found = []
    for regularizer in (None, ErrorEstimate() + StiffnessEstimate(), LocalError(), LocalError() + LocalStiffness()):
        calls[0] = 0
        NeuralODE(counted, regularizer=regularizer)(states())
        found.append(calls[0])
    assert [count - found[0] for count in found] == [0, 0, 7, 7]


def test_five_lines_around_torchdiffeq() -> None:
    rate = Rate()
    for solve in (torchdiffeq.odeint, torchdiffeq.odeint_adjoint):
        torch.manual_seed(0)
        watched = LocalError("biased").watch(lambda t, y: rate(y, t), rtol=1e-5, atol=1e-5)
        if solve is torchdiffeq.odeint_adjoint:
            watched = LocalError("biased").watch(_Turned(rate), rtol=1e-5, atol=1e-5)
        y = solve(watched, states(), torch.tensor([0.0, 2.0], dtype=torch.float64), rtol=1e-5, atol=1e-5)
        penalty = watched.penalty()
        assert penalty.shape == (4,) and 0 < float(penalty.detach().max()) <= 2.0
        (y[-1].sum() + penalty.sum()).backward()
        assert rate.first.weight.grad is not None
        with pytest.raises(InputError, match="integrate the watched function first"):
            watched.penalty()


class _Turned(nn.Module):
    def __init__(self, rate: nn.Module) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, t: Tensor, y: Tensor) -> Any:
        return self.rate(y, t)


# Integrals along the trajectory


def _quadrature(rate: Any, integrand: Any, end: float = 1.0) -> Tensor:
    """The integral of a function of (u, t), by Simpson's rule over a fine solution."""
    times = torch.linspace(0, end, 401, dtype=torch.float64)
    solution = sciml.evolve(
        sciml.FunctionSystem(rate, (3,)), initial=states(), times=times, method=TSIT5, rtol=1e-11, atol=1e-11
    )
    weights = torch.full((401,), 2.0, dtype=torch.float64)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    values = torch.stack([integrand(solution.value[:, k], t) for k, t in enumerate(times)], -1)
    return (values * weights).sum(-1) * end / 1200.0


@pytest.mark.parametrize("adjoint", ["recorded", "checkpointed"])
def test_kinetic_energy_and_derivatives_are_their_integrals(adjoint: Any) -> None:
    def rate(u: Tensor, t: Any) -> Tensor:
        return u @ MATRIX.T

    powers = {1: MATRIX, 2: MATRIX @ MATRIX, 3: MATRIX @ MATRIX @ MATRIX}
    cases = [(KineticEnergy(), 1), (TaylorDerivative(1), 1), (TaylorDerivative(2), 2), (TaylorDerivative(3), 3)]
    for regularizer, order in cases:
        model = NeuralODE(rate, rtol=1e-10, adjoint=adjoint, regularizer=regularizer)
        found = model(states())[1].statistics["penalty"]
        expected = _quadrature(rate, lambda u, t, power=powers[order]: (u @ power.T).square().sum(-1))
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


def test_total_derivatives_hold_the_derivative_by_time() -> None:
    def rate(u: Tensor, t: Any) -> Tensor:
        return torch.sin(2.0 * torch.as_tensor(t, dtype=u.dtype)) * torch.ones_like(u)

    found = NeuralODE(rate, rtol=1e-10, regularizer=TaylorDerivative(2))(states())[1].statistics["penalty"]
    exact = 3 * 4 * (0.5 + torch.sin(torch.tensor(4.0, dtype=torch.float64)) / 8)  # of 3 |2 cos(2t)|^2
    torch.testing.assert_close(found, exact.expand(4), rtol=1e-8, atol=0)


def test_the_norm_of_the_jacobian_is_met_in_the_mean() -> None:
    def rate(u: Tensor, t: Any) -> Tensor:
        return u @ MATRIX.T

    torch.manual_seed(0)
    initial = states(20_000)
    found = NeuralODE(rate, rtol=1e-6, regularizer=JacobianNorm())(initial)[1].statistics["penalty"]
    squares = MATRIX @ MATRIX.T  # the variance of e^T A A^T e is 2 |A A^T|^2
    error = 4 * (2 * squares.square().sum().item() / 20_000) ** 0.5
    assert found.mean().item() == pytest.approx(MATRIX.square().sum().item(), abs=error)


@pytest.mark.parametrize("regularizer", [KineticEnergy(), JacobianNorm(), TaylorDerivative(2)], ids=str)
def test_gradients_of_integrals_against_differences(regularizer: Regularizer) -> None:
    rate = Rate()
    model = NeuralODE(rate, rtol=1e-9, regularizer=regularizer)

    def penalty() -> Tensor:
        torch.manual_seed(2)
        found: Tensor = model(states())[1].statistics["penalty"].sum()
        return found

    gradient = torch.autograd.grad(penalty(), rate.second.weight)[0]
    with torch.no_grad():
        rate.second.weight[1, 4] += 1e-5
        above = penalty().item()
        rate.second.weight[1, 4] -= 2e-5
        below = penalty().item()
    assert gradient[1, 4].item() == pytest.approx((above - below) / 2e-5, rel=1e-6)


# STEER, annealing, refusals


def test_steer_moves_the_end_uniformly() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([Steer(0.25).end(0.0, 1.0, generator) for _ in range(4000)])
    assert 0.75 <= ends.min() < 0.76 and 1.24 < ends.max() <= 1.25
    assert abs(ends.mean() - 1.0) < 4 * (0.5 / 12**0.5) / 4000**0.5
    _, solution = NeuralODE(Rate(), interval=(0, 1), regularizer=Steer(0.25))(states())
    assert solution.times is not None and 0.75 <= float(solution.times[-1]) <= 1.25
    assert float(solution.times[-1]) != 1.0


def test_steer_keeps_the_order_of_times() -> None:
    times = [0.0, 0.1, 0.9, 1.0, 1.05]
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        moved = Steer().moved(times, generator)
        assert moved[0] == 0.0 and all(a < b for a, b in pairwise(moved))
    value, solution = NeuralODE(Rate(), regularizer=Steer())(states(), times)
    assert value.shape == (4, 5, 3) and torch.equal(value, solution.value[:, :5])


def test_annealing_goes_down_by_the_same_factor() -> None:
    annealing = ExponentialAnnealing(100.0, 10.0, 50)
    assert annealing.weight(0) == 100.0 and annealing.weight(50) == pytest.approx(10.0, rel=1e-12)
    assert annealing.weight(25) == pytest.approx(1000.0**0.5, rel=1e-12)
    assert annealing.weight(80) == annealing.weight(50)
    for first, last, steps in ((0.0, 1.0, 5), (1.0, float("nan"), 5), (1.0, 0.5, 0)):
        with pytest.raises(InputError):
            ExponentialAnnealing(first, last, steps)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NeuralODE(Rate(), adjoint="continuous", regularizer=ErrorEstimate()), "work with any adjoint"),
        (lambda: NeuralODE(Rate(), backend="torchdiffeq", regularizer=StiffnessEstimate()), "LocalError"),
        (lambda: NeuralODE(Rate(), adjoint="checkpointed", regularizer=JacobianNorm()), "'recorded' or 'continuous'"),
        (lambda: NeuralODE(Rate(), regularizer=torch.tensor(1.0)), "regularizer is one of"),
        (lambda: NeuralODE(Rate(), regularizer=Steer(2.0))(states()), "does not fit"),
        (lambda: float("nan") * ErrorEstimate(), "finite"),
        (lambda: ErrorEstimate("median"), "'sum', 'mean', 'max'"),
        (lambda: LocalError("random"), "'unbiased' or 'biased'"),
        (lambda: Steer(0.0), "positive"),
        (lambda: TaylorDerivative(0), "at least 1"),
        (
            lambda: NeuralODE(Rate(), method=ExplicitRungeKutta.bogacki_shampine(), regularizer=LocalStiffness())(
                states()
            ),
            "no stiffness estimate",
        ),
        (
            lambda: ErrorEstimate()(
                sciml.evolve(sciml.FunctionSystem(Rate(), (3,)), initial=states(), times=(0.0, 1.0), step=0.1)
            ),
            "no error ratios",
        ),
        (
            lambda: ErrorEstimate()(sciml.evolve(sciml.FunctionSystem(Rate(), (3,)), initial=states(), times=(0, 1))),
            "carry no gradient",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()
