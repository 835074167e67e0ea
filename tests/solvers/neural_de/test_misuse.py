"""What users run into: gradients that would be missing, times close to each other, other modes of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchdiffeq
import torchsde
from torch import Tensor, nn

from sciml import InputError, SolveError
from sciml.solvers.neural_de import (
    ContinuousNormalizingFlow,
    ErrorEstimate,
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
    ode,
)
from sciml.solvers.neural_de.local import Sample, Watched
from sciml.solvers.time import BrownianPath, Controller, ExplicitRungeKutta, StochasticRungeKutta

BACKENDS = ["sciml", "torchdiffeq"]


class Rate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0, 0.5], dtype=torch.float64))

    def forward(self, u: Tensor, t: Any) -> Tensor:
        return torch.sin(self.weight * u) + torch.as_tensor(t, dtype=u.dtype)


def states() -> Tensor:
    return torch.tensor([[0.3, 0.2], [1.0, -0.5], [0.1, 0.4]], dtype=torch.float64)


# Times


@pytest.mark.parametrize("interval", [None, (0.0, 1e4)], ids=str)
def test_times_on_a_logarithmic_scale_stay_apart_from_the_ends(interval: tuple[float, float] | None) -> None:
    times = [0.0, 1e-5, 5e-3, 1.0, 1e4 - 5e-3, 1e4][interval is not None :]
    value, _ = NeuralODE(lambda u, t: torch.ones_like(u), interval=interval, axes=0)(torch.zeros(1).double(), times)
    torch.testing.assert_close(value[0], torch.tensor(times, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_a_time_just_beyond_an_end_is_that_end() -> None:
    model = NeuralODE(lambda u, t: -u, interval=(0.0, 0.3), axes=0)
    _, solution = model(torch.ones(1).double(), torch.arange(4, dtype=torch.float32) * 0.1 - 1e-8)
    assert solution.times is not None
    assert solution.times[0] == 0.0 and solution.times[-1] == 0.3 and len(solution.times) == 4
    with pytest.raises(InputError, match=r"times\[0\] = -0.1 lies outside"):
        model(torch.ones(1).double(), [-0.1, 0.2])


def values_at(times: Any, interval: tuple[float, float]) -> list[float]:
    """The times since the start of the interval, as a solution has them."""
    model = NeuralODE(lambda u, t: torch.ones_like(u), interval=interval, axes=0)
    return model(torch.zeros(1, dtype=torch.float64), times)[0][0].tolist()  # type: ignore[no-any-return]


def test_times_of_short_intervals_far_from_zero_are_not_taken_for_their_ends() -> None:
    start = 1.7e9
    assert values_at([start + 300.0], (start, start + 1000.0)) == pytest.approx([300.0])
    assert values_at([start], (start, start + 100.0)) == [0.0]
    assert values_at(torch.tensor([start + 256.0]), (start, start + 1000.0)) == pytest.approx([256.0])
    assert values_at([1.0 + 1e-7], (1.0, 2.0)) == pytest.approx([1e-7], rel=1e-6)
    assert values_at([1.0, 1.0 + 1e-7, 2.0 - 1e-7], (1.0, 2.0))[-1] == pytest.approx(1.0 - 1e-7, rel=1e-12)


def test_times_of_float32_are_put_onto_the_nearer_end() -> None:
    assert values_at(torch.linspace(0.1, 0.7, 4), (0.1, 0.7)) == pytest.approx([0.0, 0.2, 0.4, 0.6], abs=1e-7)
    # Of which 1000.1 lies before the start by 1/40000 of the interval.
    assert values_at(torch.tensor([1000.1, 1000.6]), (1000.1, 1001.1))[0] == 0.0
    assert values_at(torch.tensor([1001.1]), (1000.1, 1001.1)) == pytest.approx([1.0])
    with pytest.raises(InputError, match=r"times\[0\] = 1700001024.0 lies outside"):
        values_at(torch.tensor([1.7e9 + 1000.0]), (1.7e9, 1.7e9 + 1000.0))
    with pytest.raises(InputError, match=r"times\[2\] = 1.00000011920\d* lies outside"):  # no second one at the end
        values_at(torch.tensor([0.5, 1.0, 1.0 + 2**-23]), (0.0, 1.0))


# Gradients that would be missing


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("parameters", [False, True])
def test_what_the_continuous_adjoint_would_miss_is_refused(backend: Any, asks: bool, parameters: bool) -> None:
    outside = torch.ones(2, dtype=torch.float64, requires_grad=True)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = Rate() if parameters else torch.sin

        def forward(self, u: Tensor, t: Any) -> Tensor:
            return outside * (self.rate(u, t) if parameters else self.rate(u))

    with pytest.raises(InputError, match=r"a tensor of shape \(2,\) that asks for a gradient and is none of its param"):
        value, _ = NeuralODE(Scaled(), adjoint="continuous", backend=backend)(states().requires_grad_(asks))
        value.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flow", [False, True])
def test_functions_inside_what_rides_along_are_refused_by_the_continuous_adjoint(backend: Any, flow: bool) -> None:
    rate = Rate()

    def function(u: Tensor, t: Any) -> Tensor:
        return rate(u, t)  # type: ignore[no-any-return]

    options: dict[str, Any] = {"adjoint": "continuous", "backend": backend}
    model: nn.Module = NeuralODE(function, regularizer=KineticEnergy(), **options)
    if flow:
        model = ContinuousNormalizingFlow(function, 2, **options)
    with pytest.raises(InputError, match="none of its parameters"):
        model(states())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trained", [False, True])
def test_parameters_that_are_there_forwards_only_are_refused(backend: Any, trained: bool) -> None:
    model = NeuralODE(Rate().requires_grad_(trained), adjoint="continuous", backend=backend)
    others = {name: (1.1 * tensor).detach().requires_grad_() for name, tensor in model.named_parameters()}
    value, _ = torch.func.functional_call(model, others, (states(),))
    with pytest.raises(InputError, match=r"functional_call|none of its parameters"):
        value.sum().backward()


# Regularizers that would be without effect


class Unknown(Regularizer):
    def __repr__(self) -> str:
        return "Unknown()"


@pytest.mark.parametrize(
    ("regularizer", "words"),
    [
        (3.0, "is one of sciml.solvers.neural_de"),
        (2 * Unknown(), "nothing is known"),
        (ErrorEstimate(), "needs the stages of every step"),
    ],
    ids=str,
)
def test_regularizers_that_are_replaced_later_are_looked_at(regularizer: Any, words: str) -> None:
    model = NeuralODE(Rate(), backend="torchdiffeq")
    model.regularizer = regularizer
    with pytest.raises(InputError, match=words):
        model(states())
    sde = NeuralSDE(Rate(), Rate(), backend="torchsde")
    sde.regularizer = regularizer
    with pytest.raises(InputError, match=words):
        sde(states())


# Modes of torch


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("regularizer", [KineticEnergy(), JacobianNorm(), TaylorDerivative(2), LocalError()], ids=str)
def test_penalties_are_known_in_inference_mode(backend: Any, regularizer: Regularizer) -> None:
    model = NeuralODE(Rate(), backend=backend, regularizer=regularizer)
    torch.manual_seed(0)
    _, solution = model(states())
    torch.manual_seed(0)
    with torch.inference_mode():
        _, other = model(states())
    torch.testing.assert_close(other.statistics["penalty"], solution.statistics["penalty"].detach())


@pytest.mark.parametrize("regularizer", [KineticEnergy(), JacobianNorm(), TaylorDerivative(2), LocalError()], ids=str)
def test_penalties_have_gradients_by_torch_func(regularizer: Regularizer) -> None:
    model = NeuralODE(Rate(), regularizer=regularizer)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        torch.manual_seed(0)
        value, solution = torch.func.functional_call(model, parameters, (states(),))
        return value.sum() + solution.statistics["penalty"].sum()  # type: ignore[no-any-return]

    parameters = dict(model.named_parameters())
    found = torch.func.grad(loss)({name: tensor.detach() for name, tensor in parameters.items()})["rate.weight"]
    (expected,) = torch.autograd.grad(loss(parameters), parameters["rate.weight"])
    torch.testing.assert_close(found, expected)


def test_torchdiffeq_is_refused_inside_torch_func() -> None:
    model = NeuralODE(Rate(), backend="torchdiffeq")
    with pytest.raises(InputError, match="take backend='sciml'"):
        torch.func.grad(lambda u: model(u)[0].sum())(states())


def test_integrals_of_rows_that_are_one_number() -> None:
    model = NeuralODE(lambda u, t: -u, axes=0, regularizer=KineticEnergy() + JacobianNorm(), rtol=1e-9)
    _, solution = model(torch.tensor(1.0, dtype=torch.float64))
    # Of exp(-2t), and of e^2 with one normal number.
    assert solution.statistics["penalty"].shape == () and float(solution.statistics["penalty"]) > 0.43233


def test_a_rate_of_another_shape_is_refused_beside_integrals() -> None:
    with pytest.raises(InputError, match=r"returned a tensor of torch.float64 and shape \(2, 3\)"):
        NeuralODE(lambda u, t: u.T, regularizer=KineticEnergy())(states())


def test_dropout_goes_with_checkpoints_and_local_regularizers() -> None:
    """What is drawn when checkpoints repeat a step is what was drawn at first."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2)).double()
    even = Controller(first_step=0.125, largest_step=0.125)
    method = replace(ExplicitRungeKutta.tsit5(), controller=even)
    model = NeuralODE(
        lambda u, t: net(u), method=method, rtol=1e3, atol=1e3, adjoint="checkpointed", regularizer=LocalError()
    )

    def loss() -> Tensor:
        torch.manual_seed(1)
        value, solution = model(states())
        assert int(solution.statistics["steps"][0]) == 8
        return value.square().sum()

    bias = net[0].bias
    (gradient,) = torch.autograd.grad(loss(), bias)
    for place in range(8):
        with torch.no_grad():
            bias[place] += 1e-5
            above = loss()
            bias[place] -= 2e-5
            below = loss()
            bias[place] += 1e-5
        assert float(gradient[place]) == pytest.approx(float(above - below) / 2e-5, rel=1e-6, abs=1e-8)


def test_torchsde_has_no_checkpoints() -> None:
    with pytest.raises(InputError, match="torchsde has no checkpoints"):
        NeuralSDE(Rate(), Rate(), backend="torchsde", adjoint="checkpointed", step=0.1)


def test_steer_needs_a_path_that_reaches_the_latest_end() -> None:
    def model(**options: Any) -> NeuralSDE:
        return NeuralSDE(Rate(), lambda u, t: 0.1 * u, step=0.25, regularizer=2 * Steer(0.5), **options)

    noise = {"dtype": torch.float64, "levy_area_approximation": "space-time"}
    short = torchsde.BrownianInterval(0.0, 1.2, size=(3, 2), **noise)
    for seed in range(10):
        torch.manual_seed(seed)
        for path, covered in ((BrownianPath((0.0, 1.0), (3, 2), seed=0), "1"), (short, "1.2")):
            words = f"Steer: with width 0.5 .* up to 1.5, and the path is known from 0 to {covered}: give .* 0 to 1.5"
            with pytest.raises(InputError, match=words):
                model()(states(), path=path)
            with pytest.raises(InputError, match=r"Steer: .* half of the interval before each, up to 1\.375, and"):
                model()(states(), [0.25, 1.0], path=path)
        model()(states(), path=BrownianPath((0.0, 1.5), (3, 2), seed=0))
        model(interval=(0, 1))(states(), [0.5, 1.0], path=BrownianPath((0.0, 1.25), (3, 2), seed=0))
    model().eval()(states(), path=BrownianPath((0.0, 1.0), (3, 2), seed=0))


@pytest.mark.parametrize("width", ["a", float("nan"), float("inf"), torch.ones(2), None], ids=str)
def test_widths_of_steer_that_are_no_positive_numbers_are_refused(width: Any) -> None:
    with pytest.raises(InputError, match="Steer: width is a positive time, got"):
        Steer(width)


# Plain torchdiffeq


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = Rate()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.rate(y, t)  # type: ignore[no-any-return]


def solved(watched: Callable[[Tensor, Tensor], Tensor], *times: float, y: Tensor | None = None) -> Any:
    y = states() if y is None else y
    return torchdiffeq.odeint(watched, y, torch.tensor(times, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_a_watched_step_back_in_time_goes_back() -> None:
    """The same as forwards with the opposite rate of the opposite time."""
    back = LocalError("biased").watch(Turned(), rtol=1e-6, atol=1e-6)
    function = Turned()
    forth = LocalError("biased").watch(lambda t, y: -function(-t, y), rtol=1e-6, atol=1e-6)
    penalties = []
    for watched, times in ((back, (1.0, 0.2)), (forth, (-1.0, -0.2))):
        torch.manual_seed(0)
        solved(watched, *times)
        penalties.append(watched.penalty())
    assert (penalties[0] > 0).all()
    torch.testing.assert_close(*penalties)


def test_the_penalty_is_that_of_the_latest_solve() -> None:
    watched = LocalError("biased").watch(Turned(), rtol=1e-6, atol=1e-6)
    for seed in range(8):
        torch.manual_seed(seed)
        solved(watched, 0.0, 0.5)  # such as a validation, whose penalty is not asked for
        solved(watched, 0.0, 0.5, y=states()[:2])
        assert watched.penalty().shape == (2,)


def drawn(watched: Any) -> float:
    """The start of the step whose penalty it would be."""
    sample = watched._sampler.sample
    watched.penalty()
    return sample.time  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("first", "second"), [((0.0, 1.0), (3.0, 4.0)), ((4.0, 3.0), (1.0, 0.0)), ((0.0, 1.0), (1.0, 0.0))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cut", [False, True])
def test_a_later_solve_elsewhere_is_another_one(first: Any, second: Any, dtype: torch.dtype, cut: bool) -> None:
    """Of float32 the stages of the first, short steps are rounded beyond their start; rejected steps are among them."""
    watched = LocalError("biased").watch(lambda t, y: -y * torch.sin(20 * t), rtol=1e-5, atol=1e-5)
    for seed in range(20):
        torch.manual_seed(seed)
        for ends in (first, second):
            times = torch.tensor(ends, dtype=torch.float64)
            options = {"first_step": 1e-8 if seed % 2 else 0.9, **({"step_t": times[1:].abs()} if cut else {})}
            if cut and ends[1] < ends[0]:
                options["step_t"] = -times[1:]  # torchdiffeq turns the times around, but not these
            torchdiffeq.odeint(watched, states().to(dtype), times, rtol=1e-5, atol=1e-5, options=options)
        low, high = sorted(second)
        sample = watched._sampler.sample
        assert sample is not None and low <= drawn(watched) <= high
        assert (sample.step < 0) == (second[1] < second[0])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("time_dtype", [torch.float32, torch.float64], ids=str)
def test_all_steps_of_one_solve_are_drawn_from(backwards: bool, time_dtype: torch.dtype) -> None:
    steps: list[float] = []
    watched = LocalError("biased").watch(lambda t, y: -y * torch.sin(20 * t), rtol=1e-5, atol=1e-5)
    times = torch.tensor([5.0, 3.7, 1.0] if backwards else [1.0, 3.3, 5.0], dtype=time_dtype)
    options = {"first_step": 0.9, "dtype": time_dtype}
    tell = watched.callback_accept_step

    def telling(t: Tensor, y: Tensor, h: Tensor) -> None:
        steps.append(float(t))
        tell(t, y, h)

    watched.callback_accept_step = telling  # type: ignore[method-assign]
    torchdiffeq.odeint(watched, states().to(time_dtype), times, rtol=1e-5, atol=1e-5, options=options)
    assert len(steps) > 20 and watched._sampler.total == len(steps)


def test_solves_that_meet_count_as_one() -> None:
    """As is said of them: [0, 1] and [1, 2] by steps that end on 1 look like one solve."""
    watched = LocalError("biased").watch(lambda t, y: -y, rtol=1e-6, atol=1e-6)
    starts = []
    for seed in range(40):
        torch.manual_seed(seed)
        for ends in ((0.0, 1.0), (1.0, 2.0)):
            times = torch.tensor(ends, dtype=torch.float64)
            torchdiffeq.odeint(watched, states(), times, rtol=1e-6, atol=1e-6, options={"step_t": times[1:]})
        starts.append(drawn(watched))
    assert min(starts) < 1.0 <= max(starts)


def check_shares(starts: list[float], steps: list[tuple[float, float]], end: float) -> None:
    """Of starts of steps that were drawn, against the lengths that steps `(start, length)` have before an end."""
    last, length = steps[-1]
    assert length > 1.5 * abs(end - last)  # or there would be little to tell
    inside = [min(length, abs(end - start)) for start, length in steps]
    for (start, _), part in zip(steps, inside, strict=True):
        share = part / sum(inside)
        assert abs(starts.count(start) / len(starts) - share) < 4 * (share * (1 - share) / len(starts)) ** 0.5


@pytest.mark.parametrize("span", [(0.0, 0.4), (1.0, 0.6)], ids=str)
def test_a_watched_step_beyond_the_end_counts_by_its_share_within(span: tuple[float, float]) -> None:
    watched = LocalError().watch(lambda t, y: -y, rtol=1e-3, atol=1e-3, end=span[1])
    steps, tell = list[tuple[float, float]](), watched.callback_accept_step

    def telling(t: Tensor, y: Tensor, h: Tensor) -> None:
        steps.append((float(t), float(h)))
        tell(t, y, h)

    watched.callback_accept_step = telling  # type: ignore[method-assign]
    torch.manual_seed(0)
    starts = []
    for _ in range(300):
        steps.clear()
        torchdiffeq.odeint(watched, states(), torch.tensor(span).double(), rtol=1e-3, atol=1e-3)
        starts.append(drawn(watched))
    check_shares(starts, steps, span[1])


def test_a_step_of_torchdiffeq_beyond_the_end_counts_by_its_share_within(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, repeat = list[Sample](), ode.repeated

    def repeating(method: Any, system: Any, sample: Sample, *tolerances: Any) -> Any:
        samples.append(sample)
        return repeat(method, system, sample, *tolerances)

    monkeypatch.setattr(ode, "repeated", repeating)
    model = NeuralODE(lambda u, t: -u, interval=(0, 0.4), backend="torchdiffeq", rtol=1e-3, regularizer=LocalError())
    torch.manual_seed(0)
    for _ in range(300):
        _, solution = model(states())
    times, sizes = (solution.history[name][solution.history["accepted"][:, 0], 0].tolist() for name in ("time", "step"))
    steps = list(zip(times, sizes, strict=True))
    check_shares([sample.time for sample in samples], steps, 0.4)
    assert {(sample.time, sample.step) for sample in samples} == set(steps)  # repeated whole, as they were taken


def test_all_steps_beyond_the_end_are_said() -> None:
    watched = LocalError().watch(Turned(), rtol=1e-6, atol=1e-6, end=1.0)
    solved(watched, 2.0, 3.0)
    with pytest.raises(InputError, match=r"all steps lie beyond end=1.0, the latest at [23]\."):
        watched.penalty()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"atol": torch.ones(2)}, r"atol is a positive number, got tensor"),
        ({"rtol": "1e-6"}, "rtol is a positive number, got '1e-6'"),
        ({"end": torch.ones(2)}, "end is a time, the last one of every solve, or None, got tensor"),
        ({"end": float("inf")}, "end is a time, the last one of every solve, or None, got inf"),
    ],
)
def test_settings_of_watch_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LocalError().watch(Turned(), **{"rtol": 1e-6, "atol": 1e-6, **settings})


def test_torchdiffeq_still_asks_for_the_parameters_of_a_function() -> None:
    function = Turned()
    watched: Watched = LocalError().watch(lambda t, y: function(t, y), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"must be an instance of nn\.Module"):
        torchdiffeq.odeint_adjoint(watched, states(), torch.tensor([0.0, 1.0]).double())


def test_a_watched_state_is_no_tuple() -> None:
    watched = LocalError().watch(lambda t, y: (-y[0], y[1]), rtol=1e-6, atol=1e-6)  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match="put them into one tensor"):
        torchdiffeq.odeint(watched, (states(), states()), torch.tensor([0.0, 1.0]).double())


def test_parameters_that_were_lent_are_missed_by_checkpoints() -> None:
    model = NeuralODE(Rate(), adjoint="checkpointed")
    lent = {name: (1.1 * value.detach()).requires_grad_() for name, value in model.named_parameters()}
    value, _ = torch.func.functional_call(model, lent, (states(),))
    with pytest.raises(InputError, match="other parameters by then"):
        value.sum().backward()


def test_times_that_ask_for_a_gradient_are_refused() -> None:
    with pytest.raises(InputError, match=r"times.detach\(\)"):
        NeuralODE(Rate())(states(), torch.tensor([0.0, 1.0], requires_grad=True))


def test_rates_that_make_a_number_of_the_time_have_no_taylor_derivative() -> None:
    for rate in (lambda u, t: torch.ones_like(u) * float(t) ** 2, lambda u, t: torch.full_like(u, float(t))):
        with pytest.raises(InputError, match=r"TaylorDerivative: .*as_tensor"):
            NeuralODE(rate, regularizer=TaylorDerivative(2))(states())
    dropout = nn.Dropout(0.5)
    NeuralODE(lambda u, t: dropout(u), rtol=0.1, regularizer=TaylorDerivative(2))(states())


@pytest.mark.parametrize(
    "regularizer", [KineticEnergy(), LocalError(), ErrorEstimate(), ErrorEstimate("mean"), JacobianNorm()], ids=str
)
def test_rows_that_failed_have_no_penalty(regularizer: Any) -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    def rate(u: Tensor, t: Any) -> Tensor:
        return torch.where(u > 3.0, 20.0 * u**3, -scale * u)

    y = torch.tensor([[0.5], [4.0]], dtype=torch.float64)
    _, solution = NeuralODE(rate, throw=False, regularizer=regularizer)(y)
    penalty = solution.statistics["penalty"]
    assert penalty[1] == 0.0 and penalty[0] > 0.0
    assert torch.autograd.grad(penalty.sum(), scale)[0].isfinite()


@pytest.mark.parametrize("local", [None, LocalError(step_factor=False)], ids=str)
def test_a_row_that_fails_in_torchsde_leaves_the_gradients_of_the_others_alone(local: Any) -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    def drift(u: Tensor, t: Any) -> Tensor:
        return -scale * u + torch.where(u > 4.0, 20.0 * scale * u**3, 0.0)

    def gradient(y: Tensor, rows: list[int]) -> Tensor:
        torch.manual_seed(0)
        model = NeuralSDE(drift, lambda u, t: 0.0 * u, backend="torchsde", step=0.05, throw=False, regularizer=local)
        value, solution = model(y, seed=1)
        assert solution.converged.tolist() == [row in rows for row in range(len(y))]
        return torch.autograd.grad(value[rows].sum() + solution.statistics["penalty"].sum(), scale)[0]

    y = states().abs()
    worse = y.clone()
    worse[1] = 9.0
    torch.testing.assert_close(gradient(worse, [0, 2]), gradient(y[[0, 2]], [0, 1]), rtol=1e-12, atol=0)


def test_adaptive_steps_of_torchsde_fail_with_a_status() -> None:
    with pytest.raises(SolveError, match="NON_FINITE"):
        NeuralSDE(lambda u, t: u * torch.nan, lambda u, t: u, backend="torchsde")(states())


@pytest.mark.parametrize("shape", [(5, 3, 2), (4, 2)], ids=str)
def test_a_path_of_another_batch_is_refused_by_torchsde(shape: tuple[int, ...]) -> None:
    path = BrownianPath((0.0, 1.0), shape, seed=1)
    with pytest.raises(InputError, match="path has the shape"):
        NeuralSDE(lambda u, t: -u, lambda u, t: u, backend="torchsde", step=0.1)(states(), path=path)


def test_where_all_rows_fail_in_torchsde_the_penalty_has_no_gradient() -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    model = NeuralSDE(
        lambda u, t: scale * u * torch.nan,
        lambda u, t: u,
        backend="torchsde",
        step=0.1,
        throw=False,
        regularizer=LocalError(),
    )
    penalty = model(states(), seed=1)[1].statistics["penalty"]
    assert not penalty.any()
    assert not penalty.requires_grad or torch.autograd.grad(penalty.sum(), scale)[0] == 0.0


def test_stiffness_that_a_method_does_not_estimate_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="has no stiffness estimate"):
        NeuralODE(Rate(), method=ExplicitRungeKutta.bogacki_shampine(), regularizer=StiffnessEstimate())
    with pytest.raises(InputError, match="has no stiffness estimate"):
        NeuralSDE(Rate(), Rate(), method=StochasticRungeKutta.sriw1(), regularizer=LocalStiffness())


def test_sums_and_quotients_of_regularizers() -> None:
    total = sum([ErrorEstimate(), StiffnessEstimate()])
    assert total / 2 == 0.5 * ErrorEstimate() + 0.5 * StiffnessEstimate()


def test_the_stiffness_of_rows_that_do_not_move_is_nothing() -> None:
    """By torch operations, and by kernels where states are large."""
    usual = ExplicitRungeKutta.tsit5()
    method = replace(usual, controller=replace(usual.controller, first_step=0.2))  # not so small that all is rounding
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    for rows in (2, 20_000):
        u = torch.rand(rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        u[1] = 0.0
        _, solution = NeuralODE(
            lambda u, t: -3.0 * scale * u, method=method, regularizer=StiffnessEstimate("max", False)
        )(u)
        penalty = solution.statistics["penalty"]
        assert penalty[1] < 1e-12 and penalty[0].item() == pytest.approx(3.0, rel=1e-9)
        assert torch.autograd.grad(penalty[:2].sum(), scale)[0].item() == pytest.approx(3.0, rel=1e-6)
