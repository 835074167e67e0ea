"""NeuralSDE: known solutions, both backends on the same noise, regularizers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torchsde
from torch import Tensor, nn

from sciml import InputError, SolveError, Status
from sciml.solvers.neural_de import (
    ErrorEstimate,
    KineticEnergy,
    LocalError,
    LocalStiffness,
    NeuralSDE,
    Regularizer,
    Steer,
    StiffnessEstimate,
)
from sciml.solvers.time import BrownianPath, EulerMaruyama, Milstein, StochasticRungeKutta

GROWTH, SPREAD = -0.7, 0.6


class Geometric(nn.Module):
    """du = growth u dt + spread u dW: u0 exp((growth - spread^2 / 2) t + spread W) in Ito's calculus."""

    def __init__(self) -> None:
        super().__init__()
        self.growth = nn.Parameter(torch.tensor(GROWTH, dtype=torch.float64))
        self.spread = nn.Parameter(torch.tensor(SPREAD, dtype=torch.float64))

    def model(self, **options: Any) -> NeuralSDE:
        return NeuralSDE(lambda u, t: self.growth * u, lambda u, t: self.spread * u, **options)


class Drift(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(3, 16), nn.Linear(16, 3)
        self.to(dtype)

    def forward(self, u: Tensor, t: Any) -> Tensor:
        result: Tensor = self.second(torch.tanh(3 * self.first(u)))
        return result


def diffusion(u: Tensor, t: Any) -> Tensor:
    return 0.3 * torch.cos(u)


def states(rows: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(rows, 3, dtype=dtype, generator=torch.Generator().manual_seed(4)) + 0.5


@pytest.mark.parametrize("backend", ["sciml", "torchsde"])
@pytest.mark.parametrize(
    ("method", "step", "tolerance"),
    [(StochasticRungeKutta.sosri2(), 1 / 256, 2e-4), (Milstein(), 1 / 256, 4e-3), (EulerMaruyama(), 1 / 256, 0.06)],
    ids=str,
)
def test_values_and_gradients_of_a_path_that_is_known(backend: Any, method: Any, step: float, tolerance: float) -> None:
    sde, initial = Geometric(), states()
    path = BrownianPath((0.0, 0.5, 1.0), initial.shape, seed=7)
    value, solution = sde.model(method=method, step=step, backend=backend)(initial, [0.0, 0.5, 1.0], path=path)
    leaves = [sde.growth, sde.spread]
    moments = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[:, None]
    noise = torch.stack([path.increments(0.0, t)[0] for t in (0.0, 0.5, 1.0)], 1)
    exact = initial[:, None] * torch.exp((sde.growth - sde.spread**2 / 2) * moments + sde.spread * noise)
    torch.testing.assert_close(value, exact, rtol=tolerance, atol=0)
    assert solution.converged.all() and (solution.statistics["steps"] == 256).all()
    for found, expected in zip(
        torch.autograd.grad(value.sum(), leaves), torch.autograd.grad(exact.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=5 * tolerance, atol=5 * tolerance)


def test_stratonovich_has_the_other_solution() -> None:
    sde, initial = Geometric(), states()
    path = BrownianPath((0.0, 1.0), initial.shape, seed=7)
    for backend in ("sciml", "torchsde"):
        value, _ = sde.model(calculus="stratonovich", step=1 / 512, backend=backend)(initial, path=path)
        exact = initial * torch.exp(sde.growth + sde.spread * path.increments(0.0, 1.0)[0])
        torch.testing.assert_close(value, exact, rtol=3e-3, atol=0)


def test_stratonovich_where_entries_depend_on_each_other() -> None:
    """Against Heun's method, which has no derivative that could be of the wrong entry."""
    mixing = torch.tensor([[0.2, 1.5, 0.0], [-1.2, 0.3, 0.4], [0.5, 0.0, 1.0]], dtype=torch.float64)

    def coupled(u: Tensor, t: Any) -> Tensor:
        return torch.tanh(u @ mixing.mT + 0.3)

    initial, count = states(300), 256
    path = BrownianPath((0.0, 1.0), initial.shape, seed=3, step=1 / count)
    expected = initial
    for k in range(count):
        growth = path.increments(k / count, (k + 1) / count)[0]
        ahead = expected + coupled(expected, 0.0) * growth
        expected = expected + (coupled(expected, 0.0) + coupled(ahead, 0.0)) / 2 * growth
    for backend, limit in (("sciml", 0.05), ("torchsde", 1e-10)):
        options = {"calculus": "stratonovich", "step": 1 / count, "backend": backend}
        value, _ = NeuralSDE(lambda u, t: 0 * u, coupled, **options)(initial, path=path)
        assert float((value - expected).square().mean().sqrt()) < limit
        assert float((value - expected).mean(0).abs().max()) < 0.01


def test_tighter_tolerances_come_closer_to_the_same_path() -> None:
    model, initial = Drift(), states(50)
    path = BrownianPath((0.0, 1.0), initial.shape, seed=5)
    fine, _ = NeuralSDE(model, diffusion, step=1 / 1024)(initial, path=path)
    errors = []
    for tolerance in (1e-1, 1e-2, 1e-3):
        value, _ = NeuralSDE(model, diffusion, rtol=tolerance, atol=tolerance)(initial, path=path)
        errors.append(float((value - fine).detach().square().mean().sqrt()))
    assert errors[1] < 0.35 * errors[0] and errors[2] < 0.35 * errors[1] and errors[2] < 2e-3


def test_the_seed_is_the_path_and_none_draws_another() -> None:
    model, initial = NeuralSDE(Drift(), diffusion), states()
    first, again = model(initial, seed=5)[0], model(initial, seed=5)[0]
    assert torch.equal(first, again) and not torch.equal(first, model(initial, seed=6)[0])
    torch.manual_seed(3)
    drawn = model(initial)[0]
    assert not torch.equal(drawn, model(initial)[0])
    torch.manual_seed(3)
    assert torch.equal(drawn, model(initial)[0])


def test_noise_of_torchsde_gives_what_torchsde_makes_of_it() -> None:
    model, initial = Drift(), states()

    def noise() -> Any:
        return torchsde.BrownianInterval(
            0.0, 1.0, size=(5, 3), dtype=torch.float64, entropy=2, levy_area_approximation="space-time"
        )

    own, _ = NeuralSDE(model, diffusion, step=1 / 64)(initial, path=noise())
    box, _ = NeuralSDE(model, diffusion, step=1 / 64, backend="torchsde")(initial, path=noise())
    torch.testing.assert_close(own, box, rtol=2e-3, atol=2e-3)


def test_single_precision_and_checkpoints() -> None:
    initial = states(dtype=torch.float32)
    found = []
    for adjoint in ("recorded", "checkpointed"):
        drift = Drift(torch.float32)
        value, _ = NeuralSDE(drift, diffusion, adjoint=adjoint)(initial, [0.0, 0.5, 1.0], seed=3)  # type: ignore[arg-type]
        assert value.dtype == torch.float32
        value.square().sum().backward()
        found.append(drift.first.weight.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


# Regularizers


REGULARIZERS = [ErrorEstimate(), StiffnessEstimate(), LocalError(step_factor=False), LocalStiffness("biased")]


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=str)
def test_penalties_act_in_training_only_and_leave_the_path_alone(regularizer: Regularizer) -> None:
    drift, initial = Drift(), states()
    plain, reference = NeuralSDE(drift, diffusion)(initial, seed=5)
    model = NeuralSDE(drift, diffusion, regularizer=regularizer)
    value, solution = model(initial, seed=5)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
    assert torch.equal(solution.statistics["evaluations"], reference.statistics["evaluations"])
    penalty = solution.statistics["penalty"]
    assert (penalty > 0).all()
    assert torch.autograd.grad(penalty.sum(), drift.first.weight)[0].abs().max() > 0
    assert not model.eval()(initial, seed=5)[1].statistics["penalty"].any()


def test_the_error_estimate_is_the_sum_over_the_steps() -> None:
    _, solution = NeuralSDE(Drift(), diffusion, rtol=1e-3, atol=1e-3, regularizer=ErrorEstimate())(states(), seed=5)
    history = solution.history
    kept = history["accepted"][:, 0]
    expected = (history["error"][kept] * history["step"][kept]).sum(0)
    torch.testing.assert_close(solution.statistics["penalty"], expected, rtol=1e-12, atol=0)


def test_errors_of_fixed_steps_are_measured_by_the_tolerances() -> None:
    """Of a solve of one step the sum over all steps is that of a random one, however small the states are."""
    path, drift, sums = BrownianPath((0.0, 1.0), (5, 3), seed=1, step=1.0), Drift(), []
    settings: list[tuple[float, dict[str, float]]] = [(1.0, {}), (1e-3, {}), (1e-3, {"rtol": 1e-4, "atol": 1e-3})]
    for size, tolerances in settings:
        initial = (size * states()).requires_grad_()

        def penalty(regularizer: Regularizer, initial: Tensor, options: Any) -> Tensor:
            model = NeuralSDE(drift, diffusion, step=1.0, regularizer=regularizer, **options)
            return model(initial, path=path)[1].statistics["penalty"]

        whole, local = (penalty(regularizer, initial, tolerances) for regularizer in (ErrorEstimate(), LocalError()))
        torch.testing.assert_close(whole, local, rtol=1e-9, atol=0)
        direction, shift = torch.ones_like(initial), 1e-6 * size
        (slope,) = torch.autograd.grad(whole.sum(), initial)
        above, below = (
            float(penalty(ErrorEstimate(), initial.detach() + way * shift * direction, tolerances).sum())
            for way in (1, -1)
        )
        assert float((slope * direction).sum()) == pytest.approx((above - below) / (2 * shift), rel=1e-6)
        sums.append(whole)
    assert bool((sums[2] > 5 * sums[1]).all())


@pytest.mark.parametrize("regularizer", REGULARIZERS[:2], ids=str)
def test_gradients_against_differences_on_the_recorded_steps(regularizer: Any) -> None:
    """The steps of an adaptive run, given as steps of fixed size from output to output."""
    drift, initial = Drift(), states()
    _, solution = NeuralSDE(drift, diffusion, rtol=1e-2, atol=1e-2)(initial, seed=5)
    kept = solution.history["accepted"][:, 0]
    times = [*solution.history["time"][kept][:, 0].tolist(), 1.0]
    path = BrownianPath((0.0, 1.0), initial.shape, seed=5)
    model = NeuralSDE(drift, diffusion, step=1.0, regularizer=regularizer)

    def penalty() -> Tensor:
        found: Tensor = model(initial, times, path=path)[1].statistics["penalty"].sum()
        return found

    gradient = torch.autograd.grad(penalty(), drift.first.weight)[0]
    with torch.no_grad():
        drift.first.weight[3, 1] += 1e-5
        above = float(penalty())
        drift.first.weight[3, 1] -= 2e-5
        below = float(penalty())
    assert gradient[3, 1].item() == pytest.approx((above - below) / 2e-5, rel=1e-6)


def test_the_local_step_of_torchsde_is_one_of_its_own() -> None:
    drift, initial = Drift(), states()
    penalties = []
    for backend in ("sciml", "torchsde"):
        torch.manual_seed(1)
        model = NeuralSDE(drift, diffusion, step=1 / 16, backend=backend, regularizer=LocalError())  # type: ignore[arg-type]
        penalties.append(model(initial, [0.0, 0.25, 1.0], seed=5)[1].statistics["penalty"])
    torch.testing.assert_close(penalties[0], penalties[1], rtol=2e-2, atol=0)


def test_an_error_estimate_makes_a_noisy_problem_cheaper() -> None:
    """Training on the estimate alone slows a rotation down."""
    speed = nn.Parameter(torch.tensor(20.0, dtype=torch.float64))
    turn = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    model = NeuralSDE(lambda u, t: speed * u @ turn, lambda u, t: 0.1 * u, regularizer=ErrorEstimate())
    optimizer = torch.optim.Adam([speed], lr=0.5)
    counts = []
    for k in range(20):
        _, solution = model(states(20), seed=k)
        counts.append(int(solution.statistics["steps"][0]))
        optimizer.zero_grad()
        solution.statistics["penalty"].mean().backward()
        optimizer.step()
    assert float(speed.detach()) < 15.0 and counts[-1] < 0.7 * counts[0]


# Bad input


@pytest.mark.parametrize("backend", ["sciml", "torchsde"])
def test_rows_that_turn_nan_are_named(backend: Any) -> None:
    def drift(u: Tensor, t: Any) -> Tensor:
        return torch.where((u[..., :1] > 4.0) & (float(t) > 0.5), torch.nan, -u)

    initial = states()
    initial[3, 0] = 50.0
    model = NeuralSDE(drift, diffusion, step=1 / 16, backend=backend)
    with pytest.raises(SolveError, match="row 3") as caught:
        model(initial, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert caught.value.solution.status[3] is Status.NON_FINITE
    model.throw = False
    value, solution = model(initial, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert value[[0, 1, 2, 4]].isfinite().all() and 0.5 < float(solution.statistics["failed_at"][3]) <= 0.75


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NeuralSDE(Drift(), diffusion, method=EulerMaruyama()), "give step="),
        (lambda: NeuralSDE(Drift(), diffusion, method=Milstein()), "give step="),
        (
            lambda: NeuralSDE(Drift(), diffusion, method=EulerMaruyama(), step=0.1, calculus="stratonovich"),
            "is for Ito's calculus",
        ),
        (
            lambda: NeuralSDE(Drift(), diffusion, method=StochasticRungeKutta.sosri2(), calculus="stratonovich"),
            "is for Ito's calculus",
        ),
        (lambda: NeuralSDE(Drift(), diffusion, step=0.1, rtol=1e-3), "not both"),
        (lambda: NeuralSDE(Drift(), diffusion, step=0.1, rtol=1e-3, regularizer=Steer(0.1)), "not both"),
        (
            lambda: NeuralSDE(Drift(), diffusion, step=0.1, adjoint="checkpointed", regularizer=ErrorEstimate()),
            "which adjoint='checkpointed' does for adaptive ones only",
        ),
        (lambda: NeuralSDE(Drift(), diffusion, step=-0.1)(states()), "step"),
        (lambda: NeuralSDE(Drift(), diffusion, calculus="Ito"), "'ito', 'stratonovich'"),
        (lambda: NeuralSDE(Drift(), diffusion, backend="diffrax"), "'sciml', 'torchsde'"),
        (lambda: NeuralSDE(Drift(), diffusion, backend="torchsde", regularizer=ErrorEstimate()), "LocalError"),
        (lambda: NeuralSDE(Drift(), diffusion, backend="torchsde", regularizer=LocalError()), "give step="),
        (
            lambda: NeuralSDE(Drift(), diffusion, method=Milstein(), step=0.1, regularizer=LocalError()),
            "StochasticRungeKutta.sosri2",
        ),
        (lambda: NeuralSDE(Drift(), diffusion, regularizer=KineticEnergy()), "ordinary differential equations"),
        (lambda: NeuralSDE(Drift(), diffusion, regularizer=Steer(3.0))(states()), "does not fit"),
        (lambda: NeuralSDE(Drift(), diffusion, interval=(0, 1))(states(), [0.5, 2.0]), "lies outside"),
        (lambda: NeuralSDE(Drift(), lambda u, t: u[..., :1])(states()), "the diffusion returned"),
        (lambda: NeuralSDE(lambda u, t: u[..., :1], diffusion)(states()), "the drift returned"),
        (
            lambda: NeuralSDE(Drift(), diffusion)(states(), path=BrownianPath((0.0, 1.0), (4, 3), seed=0)),
            "broadcast|shape",
        ),
        (
            lambda: NeuralSDE(Drift(), diffusion)(states(), [0.0, 2.0], path=BrownianPath((0.0, 1.0), (5, 3), seed=0)),
            "2",
        ),
        (
            lambda: NeuralSDE(Drift(), diffusion)(
                states(), path=torchsde.BrownianInterval(0.0, 1.0, size=(5, 3), dtype=torch.float64)
            ),
            "space-time",
        ),
        (lambda: NeuralSDE(Drift(), diffusion)(states(), path="noise"), "BrownianPath"),
        (
            lambda: NeuralSDE(Drift(), diffusion)(states(), path=BrownianPath((0, 1), (5, 3), seed=0), seed=1),
            "either path or seed",
        ),
    ],
)
def test_bad_input_is_refused(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_methods_are_settings() -> None:
    assert replace(StochasticRungeKutta.sosri2(), record=True) != StochasticRungeKutta.sosri2()
    assert "SOSRI2" in repr(NeuralSDE(Drift(), diffusion))
