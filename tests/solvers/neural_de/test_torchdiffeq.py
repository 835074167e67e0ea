"""torchdiffeq in its box against torchdiffeq itself, and against our own integrators."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import sciml
from sciml import FunctionSystem, InputError, SolveError, Status
from sciml.solvers.neural_de.torchdiffeq_backend import solve_with_torchdiffeq
from sciml.solvers.time import Controller, ExplicitRungeKutta

TIMES = (0.0, 0.7, 1.0, 2.5)
DORMAND_PRINCE = ExplicitRungeKutta.dormand_prince()
MEAN = Controller(rows="mean")


class Network(nn.Module):
    """Two layers, and a rate that changes with time, which is a float."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(3, 16, dtype=dtype), nn.Linear(16, 3, dtype=dtype)

    def forward(self, u: Tensor, t: float) -> Tensor:
        return self.second(torch.tanh(self.first(u))) * math.cos(3 * t)


class Counted(nn.Module):
    """A rate in torchdiffeq's order of arguments that counts for itself what is done with it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.evaluations = 0
        self.steps: list[tuple[float, float, bool]] = []

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        self.evaluations += 1
        return self.network(u, float(t.detach()))

    def callback_accept_step(self, t: Tensor, u: Tensor, h: Tensor) -> None:
        self.steps.append((float(t), float(h), True))

    def callback_reject_step(self, t: Tensor, u: Tensor, h: Tensor) -> None:
        self.steps.append((float(t), float(h), False))


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def loss(value: Tensor) -> Tensor:
    weights = torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)
    return (weights * value).sum() + value.square().sum()


def gradients(value: Tensor, network: nn.Module, initial: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss(value), [initial, *network.parameters()]))


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((one.double() - two).abs().max() / two.abs().max()) for one, two in pairs)


PAIRS = [
    ("dopri5", DORMAND_PRINCE),
    ("bosh3", ExplicitRungeKutta.bogacki_shampine()),
    ("adaptive_heun", ExplicitRungeKutta.heun()),
    ("dopri8", ExplicitRungeKutta.prince_dormand()),
]


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=[name for name, _ in PAIRS])
def test_it_is_torchdiffeq(name: str, method: ExplicitRungeKutta) -> None:
    """Bit for bit, with its own counts, where all rows decide together as they do there."""
    network, initial = Network(), start().detach()
    seen: list[tuple[float, float]] = []
    with torch.no_grad():
        found = solve_with_torchdiffeq(
            network,
            initial,
            TIMES,
            axes=1,
            method=replace(method, controller=MEAN),
            rtol=1e-5,
            atol=1e-6,
            step_observer=lambda t, h, y: seen.append((t, h)),
        )
        counted = Counted(network)
        times = torch.tensor(TIMES, dtype=torch.float64)
        own = torchdiffeq.odeint(counted, initial, times, rtol=1e-5, atol=1e-6, method=name)
    assert torch.equal(found.value, own.movedim(0, 1))
    taken = [(t, h) for t, h, accepted in counted.steps if accepted]
    assert found.statistics["evaluations"].tolist() == [counted.evaluations] * 4
    assert found.statistics["steps"].tolist() == [len(taken)] * 4
    assert found.statistics["rejected"].tolist() == [len(counted.steps) - len(taken)] * 4
    assert seen == taken
    history = found.history
    rows = zip(*(history[key][:, 2].tolist() for key in ("time", "step", "accepted")), strict=True)
    assert list(rows) == counted.steps
    assert float(found.statistics["smallest_step"][0]) == min(h for _, h in taken)
    assert set(found.status) == {Status.CONVERGED}
    assert f"torchdiffeq {torchdiffeq.__version__} {name}" in found.method


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=[name for name, _ in PAIRS])
def test_its_values_are_ours(name: str, method: ExplicitRungeKutta) -> None:
    """With steps that end on the output times, where it does not interpolate; one row of the largest error."""
    tolerance = {"adaptive_heun": 1e-6, "bosh3": 1e-8}.get(name, 1e-12)
    network, initial = Network(), start().detach()
    method = replace(method, dense=False)
    how: dict[str, Any] = {"method": method, "rtol": tolerance, "atol": tolerance}
    with torch.no_grad():
        box = solve_with_torchdiffeq(network, initial, TIMES, axes=1, **how)
        own = sciml.evolve(FunctionSystem(network, (3,)), initial=initial, times=TIMES, **how)
    torch.testing.assert_close(box.value, own.value, rtol=0, atol=5 * tolerance)
    ends = box.history["time"][:, 0] + box.history["step"][:, 0]
    assert all(bool((ends[box.history["accepted"][:, 0]] - time).abs().min() < 1e-12) for time in TIMES[1:])


@pytest.mark.parametrize("adjoint", ["recorded", "continuous"])
def test_gradients_are_ours(adjoint: Any) -> None:
    network, initial = Network(), start()
    method = replace(DORMAND_PRINCE, dense=False)
    box = solve_with_torchdiffeq(
        network, initial, TIMES, axes=1, method=method, rtol=1e-10, atol=1e-10, adjoint=adjoint
    )
    own = sciml.evolve(
        FunctionSystem(network, (3,)), initial=initial, times=TIMES, method=DORMAND_PRINCE, rtol=1e-12, atol=1e-12
    )
    pair = (gradients(one.value, network, initial) for one in (box, own))
    assert distance(*pair) < 1e-7
    if adjoint == "recorded":
        return
    first = {name: int(box.statistics[f"backward_{name}"][0]) for name in ("evaluations", "steps", "rejected")}
    # At each output time one evaluation at the start and one for the first step.
    assert first["evaluations"] == 6 * (first["steps"] + first["rejected"]) + 3 * 2
    assert first["steps"] > 3


def test_backward_counts_are_of_the_latest_pass() -> None:
    network, initial = Network(), start()
    box = solve_with_torchdiffeq(network, initial, TIMES, axes=1, method=DORMAND_PRINCE, adjoint="continuous")
    counts = [box.statistics[f"backward_{name}"] for name in ("evaluations", "steps", "rejected")]
    assert [int(count.sum()) for count in counts] == [0, 0, 0]
    forward = box.statistics["evaluations"].clone()
    found = []
    for _ in range(2):
        loss(box.value).backward(retain_graph=True)
        found.append([count.tolist() for count in counts])
    assert found[0] == found[1]
    assert min(found[0][0]) > 0
    assert torch.equal(box.statistics["evaluations"], forward)


def test_the_first_step_is_a_constant() -> None:
    """Of its own odeint the size of the first step has a gradient, which moves all stages in time; here it has none:
    the gradient is the same if that size is given."""
    network, initial = Network(), start()
    found = []
    first = None
    for _ in range(2):
        method = replace(DORMAND_PRINCE, controller=Controller(first_step=first))
        box = solve_with_torchdiffeq(network, initial, TIMES, axes=1, method=method, rtol=1e-2, atol=1e-2)
        found.append((box.value, gradients(box.value, network, initial)))
        first = float(box.history["step"][0, 0])
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)
    assert distance(found[0][1], found[1][1]) < 1e-12


@pytest.mark.parametrize("adjoint", ["recorded", "continuous"])
@pytest.mark.parametrize(
    ("method", "order"), [(ExplicitRungeKutta.euler(), 1), (ExplicitRungeKutta.rk4(), 4)], ids=["euler", "rk4"]
)
def test_steps_of_fixed_size(method: ExplicitRungeKutta, order: int, adjoint: Any) -> None:
    """Values and gradients are of the method's order, at output times between which the steps are equal."""
    network, initial = Network(), start()
    own = sciml.evolve(
        FunctionSystem(network, (3,)), initial=initial, times=TIMES, method=DORMAND_PRINCE, rtol=1e-12, atol=1e-12
    )
    exact = gradients(own.value, network, initial)
    errors = []
    for step in (0.05, 0.025):
        box = solve_with_torchdiffeq(network, initial, TIMES, axes=1, method=method, step=step, adjoint=adjoint)
        assert box.statistics["steps"].tolist() == [round(2.5 / step)] * 4
        assert box.statistics["evaluations"].tolist() == [order * round(2.5 / step)] * 4
        assert float(box.statistics["largest_step"][0]) == pytest.approx(step)
        worst = float((box.value - own.value).detach().abs().max())
        errors.append((worst, distance(gradients(box.value, network, initial), exact)))
    for coarse, fine in zip(*errors, strict=True):
        assert coarse / fine == pytest.approx(2**order, rel=0.25)


def test_single_precision() -> None:
    """As in double precision, but for rounding."""
    network, initial = Network(torch.float32), start(torch.float32)
    double, begin = Network(), start(torch.float32).detach().double().requires_grad_()
    double.load_state_dict(network.state_dict())
    how: dict[str, Any] = {"axes": 1, "method": replace(DORMAND_PRINCE, dense=False), "rtol": 1e-5, "atol": 1e-5}
    one = solve_with_torchdiffeq(network, initial, TIMES, **how)
    two = solve_with_torchdiffeq(double, begin, TIMES, **how)
    assert one.value.dtype == torch.float32
    torch.testing.assert_close(one.value.double(), two.value, rtol=0, atol=1e-5)
    assert distance(gradients(one.value, network, initial), gradients(two.value, double, begin)) < 1e-5


def test_which_rows_decide() -> None:
    """A fast row among many slow ones: by the mean its errors are a small part of the whole."""
    initial = torch.zeros(100, 1, dtype=torch.float64)
    initial[0] = 1.0

    def rate(u: Tensor, t: float) -> Tensor:
        return torch.cat((-20 * torch.sin(10 * u[:1]), -u[1:]))

    steps = []
    for rows in ("largest", "mean"):
        method = replace(DORMAND_PRINCE, controller=Controller(rows=rows))
        box = solve_with_torchdiffeq(rate, initial, (0.0, 1.0), axes=1, method=method, rtol=1e-6, atol=1e-6)
        steps.append(int(box.statistics["steps"][0]))
    assert steps[0] > steps[1]


def test_entries_that_do_not_count() -> None:
    """The integral of a pendulum's motion does not change its steps."""

    def pendulum(u: Tensor, t: float) -> Tensor:
        return torch.stack((u[..., 1], -torch.sin(u[..., 0])), -1)

    def beside(u: Tensor, t: float) -> Tensor:
        return torch.cat((pendulum(u, t), 1e6 * torch.sin(40 * u[..., :1])), -1)

    how: dict[str, Any] = {"axes": 1, "method": DORMAND_PRINCE, "rtol": 1e-6, "atol": 1e-6}
    two = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    three = torch.cat((two, torch.zeros(1, 1).double()), -1)
    alone = solve_with_torchdiffeq(pendulum, two, (0.0, 3.0), **how)
    riding = solve_with_torchdiffeq(beside, three, (0.0, 3.0), counted=2, **how)
    assert torch.equal(riding.statistics["steps"], alone.statistics["steps"])
    torch.testing.assert_close(riding.value[..., :2], alone.value, rtol=1e-9, atol=0)


def square(u: Tensor, t: float) -> Tensor:
    return u * u


def becomes_nothing(u: Tensor, t: float) -> Tensor:
    return torch.where(u > 2, torch.nan, u * u)


def is_nothing(u: Tensor, t: float) -> Tensor:
    return torch.where(u > 0.9, torch.nan, u * u)


@pytest.mark.parametrize(
    ("rate", "step", "status", "failed_at"),
    [
        (square, None, Status.STEP_UNDERFLOW, 1.0),
        (becomes_nothing, None, Status.NON_FINITE, 0.5),
        (is_nothing, None, Status.NON_FINITE, 0.0),
        (square, 0.01, Status.NON_FINITE, 1.5),
        (becomes_nothing, 0.01, Status.NON_FINITE, 0.6),
    ],
)
def test_a_row_that_fails(rate: Any, step: float | None, status: Status, failed_at: float) -> None:
    """u' = u^2 from 1, beyond its pole at t = 1: the others are what they are without it, and so are gradients."""
    initial = torch.tensor([[0.1], [1.0], [0.3]], dtype=torch.float64, requires_grad=True)
    how: dict[str, Any] = {"axes": 1, "method": DORMAND_PRINCE, "rtol": 1e-9, "atol": 1e-9}
    if step is not None:
        how = {"axes": 1, "method": ExplicitRungeKutta.rk4(), "step": step}
    times = (0.0, 0.6, 1.5)
    with pytest.raises(SolveError, match=rf"row 1 \(1 of 3 rows failed\) ended with {status.name} by time") as error:
        solve_with_torchdiffeq(rate, initial, times, **how)
    assert error.value.solution.status == (Status.CONVERGED, status, Status.CONVERGED)
    box = solve_with_torchdiffeq(rate, initial, times, throw=False, **how)
    assert box.status == (Status.CONVERGED, status, Status.CONVERGED)
    assert float(box.statistics["failed_at"][1]) == pytest.approx(failed_at, abs=0.02)
    assert box.statistics["failed_at"].isnan().tolist() == [True, False, True]
    u0, t = initial.detach(), torch.tensor(times, dtype=torch.float64)[:, None]
    exact = (u0[:, None] / (1 - u0[:, None] * t))[::2]
    torch.testing.assert_close(box.value.detach()[::2], exact, rtol=1e-6, atol=0)
    assert box.value[1, 0].tolist() == [1.0]
    assert bool(box.value[1, 1:].isnan().all())
    assert int(box.statistics["evaluations"][1]) < int(box.statistics["evaluations"][0])
    (found,) = torch.autograd.grad(box.value[:, -1].nansum(), initial)
    torch.testing.assert_close(found[::2], (1 / (1 - 1.5 * u0) ** 2)[::2], rtol=1e-5, atol=0)
    assert found[1].tolist() == [0.0]


def test_when_nothing_is_left() -> None:
    """All rows have failed; a state that is not finite to begin with has before it begins."""
    how: dict[str, Any] = {"axes": 1, "method": DORMAND_PRINCE, "throw": False}
    initial = torch.tensor([[1.0], [torch.inf]], dtype=torch.float64)
    box = solve_with_torchdiffeq(square, initial, (0.0, 2.0), **how)
    assert box.status == (Status.STEP_UNDERFLOW, Status.NON_FINITE)
    torch.testing.assert_close(box.statistics["failed_at"], torch.tensor([1.0, 0.0]).double(), rtol=0, atol=1e-3)
    assert box.statistics["evaluations"][1] == 0
    alone = solve_with_torchdiffeq(square, initial[0], (0.0, 2.0), **how)
    assert alone.status == (Status.STEP_UNDERFLOW,)
    limited = replace(DORMAND_PRINCE, controller=Controller(max_steps=3))
    late = solve_with_torchdiffeq(Network(), start(), TIMES, **{**how, "method": limited}, rtol=1e-9)
    assert set(late.status) == {Status.MAX_STEPS}
    assert int(late.statistics["steps"][0] + late.statistics["rejected"][0]) >= 3


def test_other_assertions_are_not_hidden() -> None:
    def rate(u: Tensor, t: float) -> Tensor:
        raise AssertionError("of the user")

    with pytest.raises(AssertionError, match="of the user"):
        solve_with_torchdiffeq(rate, start(), TIMES, axes=1, method=DORMAND_PRINCE, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": ExplicitRungeKutta.tsit5()}, r"does not have Tsitouras 5\(4\), explicit; it has .*dormand_prince"),
        ({"method": "dopri5"}, r"does not have 'dopri5'; it has ExplicitRungeKutta.dormand_prince"),
        ({"method": ExplicitRungeKutta.rk4()}, "no error estimate: give step="),
        ({"step": 0.1}, "dopri5 adapts its steps: give rtol and atol instead of step"),
        ({"adjoint": "checkpointed"}, "adjoint is 'recorded' or 'continuous' with torchdiffeq, got 'checkpointed'"),
        ({"adjoint": "continuous", "rate": square}, "make it a torch.nn.Module"),
        ({"initial": [1.0]}, "initial is a tensor with at least 1 axes"),
        ({"times": (1.0, 0.0)}, "times must increase"),
        ({"rtol": 0.0}, "rtol must be positive"),
        ({"rate": lambda u, t: u[0]}, "the right-hand side returned a tensor of torch.float64 and shape"),
    ],
)
def test_refused(given: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "rate": Network(),
        "initial": start(),
        "times": TIMES,
        "axes": 1,
        "method": DORMAND_PRINCE,
    }
    with pytest.raises(InputError, match=message):
        solve_with_torchdiffeq(**{**arguments, **given})
