"""The continuous adjoint against the exact solution, recorded steps, differences and torchdiffeq."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import sciml
from sciml import FunctionSystem, InputError, SolveError, Status
from sciml.solvers.neural_de.continuous import evolve_with_continuous_adjoint
from sciml.solvers.time import Controller, ExplicitRungeKutta

TSIT5 = ExplicitRungeKutta.tsit5()
TIMES = (0.0, 0.7, 1.0, 2.5)


class Network(nn.Module):
    """Two layers, and a rate that changes with time."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(3, 16, dtype=dtype), nn.Linear(16, 3, dtype=dtype)
        self.evaluations = 0

    def forward(self, u: Tensor, t: float) -> Tensor:
        self.evaluations += 1
        return self.second(torch.tanh(self.first(u))) * torch.cos(torch.as_tensor(t, dtype=u.dtype))


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def loss(value: Tensor) -> Tensor:
    """Of all output times, and no two alike."""
    weights = torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)
    return (weights * value).sum() + value.square().sum()


def gradients(value: Tensor, network: nn.Module, initial: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss(value), [initial, *network.parameters()]))


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative to the largest entry of the same tensor."""
    pairs = zip(found, expected, strict=True)
    return max(float((one.double() - two).abs().max() / two.abs().max()) for one, two in pairs)


@pytest.fixture(scope="module")
def exact() -> list[Tensor]:
    """Through recorded steps, to rounding."""
    network, initial = Network(), start()
    system = FunctionSystem(network, (3,))
    solution = sciml.evolve(
        system, initial=initial, times=TIMES, method=ExplicitRungeKutta.prince_dormand(), rtol=1e-13, atol=1e-13
    )
    return gradients(solution.value, network, initial)


@pytest.mark.parametrize(
    ("method", "tolerances"),
    [
        (TSIT5, (1e-3, 1e-5, 1e-7, 1e-9, 1e-11)),
        (ExplicitRungeKutta.dormand_prince(), (1e-3, 1e-5, 1e-7, 1e-9)),
        (ExplicitRungeKutta.bogacki_shampine(), (1e-3, 1e-5, 1e-7)),
        (ExplicitRungeKutta.prince_dormand(), (1e-3, 1e-6, 1e-9)),
    ],
    ids=["tsit5", "dormand_prince", "bogacki_shampine", "prince_dormand"],
)
def test_the_gradient_is_as_exact_as_the_tolerance(
    method: ExplicitRungeKutta, tolerances: tuple[float, ...], exact: list[Tensor]
) -> None:
    for tolerance in tolerances:
        network, initial = Network(), start()
        solution = evolve_with_continuous_adjoint(
            network, initial, TIMES, axes=1, method=method, rtol=tolerance, atol=tolerance
        )
        assert distance(gradients(solution.value, network, initial), exact) < 5 * tolerance, tolerance
        assert set(solution.adjoint_status or ()) == {Status.CONVERGED}


def test_it_is_that_of_differences() -> None:
    network, initial = Network(), start().detach()

    def value() -> Tensor:
        solution = evolve_with_continuous_adjoint(network, initial, TIMES, axes=1, method=TSIT5, rtol=1e-11, atol=1e-11)
        return loss(solution.value)

    found = torch.autograd.grad(value(), [network.first.weight, network.second.bias])
    for tensor, gradient in zip((network.first.weight, network.second.bias), found, strict=True):
        for place in range(0, tensor.numel(), 17):
            ends = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    tensor.view(-1)[place] += shift
                    ends.append(float(value()))
                    tensor.view(-1)[place] -= shift
            assert float(gradient.reshape(-1)[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
def test_it_is_that_of_torchdiffeq(tolerance: float, exact: list[Tensor]) -> None:
    """Both are as far from the exact one as the tolerance, ours no farther."""
    network, initial = Network(), start()
    method = ExplicitRungeKutta.dormand_prince()
    own = evolve_with_continuous_adjoint(
        network, initial, TIMES, axes=1, method=method, rtol=tolerance, atol=tolerance
    ).value
    ours = gradients(own, network, initial)

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, t: Tensor, u: Tensor) -> Tensor:
            return self.network(u, t)

    times = torch.tensor(TIMES, dtype=torch.float64)
    other = torchdiffeq.odeint_adjoint(Turned(), initial, times, rtol=tolerance, atol=tolerance)
    theirs = gradients(other.movedim(0, 1), network, initial)
    assert distance(ours, theirs) < 100 * tolerance
    assert distance(ours, exact) < distance(theirs, exact)


def test_single_precision() -> None:
    network, initial = Network(torch.float32), start(torch.float32)
    solution = evolve_with_continuous_adjoint(network, initial, TIMES, axes=1, method=TSIT5, rtol=1e-5, atol=1e-5)
    found = gradients(solution.value, network, initial)
    assert {gradient.dtype for gradient in found} == {torch.float32}
    double, begin = Network(), start(torch.float32).detach().double().requires_grad_()
    double.load_state_dict(network.state_dict())
    reference = evolve_with_continuous_adjoint(double, begin, TIMES, axes=1, method=TSIT5, rtol=1e-10, atol=1e-10)
    assert distance(found, gradients(reference.value, double, begin)) < 1e-5


@pytest.mark.parametrize("shape", [(2,), (5, 2), (2, 3, 2)], ids=str)
def test_a_linear_system_at_several_times(shape: tuple[int, ...]) -> None:
    """Of u' = A u the gradient of sum(g_i u(t_i)) is the sum of exp(A t_i)^T g_i."""
    matrix = torch.tensor([[-0.3, 2.0], [-1.5, 0.1]], dtype=torch.float64)
    initial = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(*shape[:-1], len(TIMES), 2, dtype=torch.float64)
    solution = evolve_with_continuous_adjoint(
        lambda u, t: u @ matrix.t(), initial, TIMES, axes=1, method=TSIT5, rtol=1e-11, atol=1e-11, parameters=()
    )
    (found,) = torch.autograd.grad((weights * solution.value).sum(), initial)
    flows = torch.linalg.matrix_exp(torch.tensor(TIMES, dtype=torch.float64)[:, None, None] * matrix)
    expected = torch.einsum("tij,...ti->...j", flows, weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_rows_that_are_numbers_or_fields() -> None:
    """u' = -k u with rows of no axis and of two: the derivative of exp(-k t) in k."""
    for axes, shape in ((0, (3,)), (2, (3, 2, 2)), (3, (2, 1, 3))):
        k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        initial = torch.rand(shape, dtype=torch.float64) + 0.5
        solution = evolve_with_continuous_adjoint(
            lambda u, t, k=k: -k * u,
            initial,
            (0.0, 1.0),
            axes=axes,
            method=TSIT5,
            rtol=1e-10,
            atol=1e-10,
            parameters=(k,),
        )
        (found,) = torch.autograd.grad(solution.value.movedim(len(shape) - axes, 0)[-1].sum(), k)
        torch.testing.assert_close(found, -torch.exp(-k.detach()) * initial.sum(), rtol=1e-9, atol=0)


class VanDerPol(nn.Module):
    def __init__(self, mu: float) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(mu, dtype=torch.float64))

    def forward(self, u: Tensor, t: float) -> Tensor:
        x, v = u.unbind(-1)
        return torch.stack((v, self.mu * (1 - x * x) * v - x), -1)


def test_a_stiff_oscillator() -> None:
    """Van der Pol's with mu = 10, over its fast passage, where trajectories run apart backwards in time by e^100: from
    output to output, which are close enough, the gradient is right."""
    times = torch.linspace(0.0, 12.0, 61).tolist()
    found = []
    for continuous in (True, False):
        rate = VanDerPol(10.0)
        initial = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64, requires_grad=True)
        how: dict[str, Any] = {"method": TSIT5, "rtol": 1e-9, "atol": 1e-9}
        if continuous:
            value = evolve_with_continuous_adjoint(rate, initial, times, axes=1, **how).value
        else:
            value = sciml.evolve(FunctionSystem(rate, (2,)), initial=initial, times=times, **how).value
        found.append(torch.autograd.grad(value[:, 1::3].square().sum(), [initial, rate.mu]))
    assert distance(*found) < 1e-5


class Decays(nn.Module):
    """u' = -k u, k for each row."""

    def __init__(self, *k: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64)[:, None])

    def forward(self, u: Tensor, t: float) -> Tensor:
        return -self.k * u


@pytest.mark.parametrize(
    ("method", "step"), [(TSIT5, None), (ExplicitRungeKutta.rk4(), 1e-3)], ids=["adaptive", "fixed"]
)
def test_a_row_that_cannot_go_back_contributes_no_gradient(method: ExplicitRungeKutta, step: float | None) -> None:
    """exp(-1000 t) backwards grows beyond all numbers."""
    rate, initial = Decays(1.0, 1000.0, 0.5), torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    how: dict[str, Any] = {"axes": 1, "method": method, "step": step}
    if step is None:
        how |= {"rtol": 1e-6, "atol": 1e-9}
    solution = evolve_with_continuous_adjoint(rate, initial, (0.0, 2.0), throw=False, **how)
    assert set(solution.status) == {Status.CONVERGED}
    assert solution.adjoint_status is None
    found = torch.autograd.grad(solution.value[:, -1].sum(), [initial, rate.k])
    decay = torch.exp(-2 * rate.k.detach())
    for gradient, expected in zip(found, (decay, -2 * decay), strict=True):
        assert float(gradient[1]) == 0.0
        torch.testing.assert_close(gradient[::2], expected[::2], rtol=1e-6, atol=0)
    assert solution.adjoint_status == (Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED)
    solution = evolve_with_continuous_adjoint(rate, initial, (0.0, 2.0), **how)
    with pytest.raises(
        SolveError, match=r"row 1 \(1 of 3 rows failed\) ended with NON_FINITE in the backward"
    ) as error:
        solution.value[:, -1].sum().backward()
    assert error.value.solution.status[1] is Status.NON_FINITE


def test_a_row_that_failed_before_contributes_no_gradient() -> None:
    """u' = u^2 from 1 has no solution beyond t = 1; and a gradient that is NaN is one that failed."""
    k = torch.ones(1, dtype=torch.float64, requires_grad=True)
    initial = torch.tensor([[1.0], [0.1], [0.2]], dtype=torch.float64, requires_grad=True)
    solution = evolve_with_continuous_adjoint(
        lambda u, t: k * u * u,
        initial,
        (0.0, 0.5, 1.5),
        axes=1,
        method=TSIT5,
        rtol=1e-10,
        atol=1e-10,
        parameters=(k,),
        throw=False,
    )
    assert [bool(status) for status in solution.status] == [True, False, False]
    at_start, of_k = torch.autograd.grad(solution.value[:, -1].sum(), [initial, k], retain_graph=True)
    # u(t) = u0 / (1 - k u0 t)
    u0, t = initial.detach(), 1.5
    exact = torch.where(u0 < 0.5, 1 / (1 - u0 * t) ** 2, 0.0)
    torch.testing.assert_close(at_start, exact, rtol=1e-8, atol=0)
    torch.testing.assert_close(of_k, (u0 * u0 * t * exact).sum(0), rtol=1e-8, atol=0)
    assert solution.adjoint_status == (solution.status[0], Status.CONVERGED, Status.CONVERGED)
    weights = torch.tensor([1.0, torch.nan, 1.0], dtype=torch.float64)
    (again,) = torch.autograd.grad((weights[:, None] * solution.value[:, -1]).nansum(), initial)
    assert solution.adjoint_status[1] is Status.NON_FINITE
    torch.testing.assert_close(again[2], exact[2], rtol=1e-8, atol=0)
    assert again[:2].tolist() == [[0.0], [0.0]]


def test_memory_does_not_grow_with_steps() -> None:
    """What is kept for the backward pass: the states at the output times, and the parameters, which are there."""

    def kept(recorded: bool, tolerance: float) -> tuple[int, int]:
        network, initial = Network(), start()
        sizes = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        how: dict[str, Any] = {"times": TIMES, "method": TSIT5, "rtol": tolerance, "atol": tolerance}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if recorded:
                solution = sciml.evolve(FunctionSystem(network, (3,)), initial=initial, **how)
            else:
                solution = evolve_with_continuous_adjoint(network, initial, axes=1, **how)
        return sum(sizes), int(solution.statistics["steps"][0])

    (loose, few), (tight, many) = kept(False, 1e-3), kept(False, 1e-10)
    assert many > 7 * few
    assert loose == tight == len(TIMES) * 12 + sum(parameter.numel() for parameter in Network().parameters())
    assert kept(True, 1e-10)[0] > 7 * kept(True, 1e-3)[0]


class Sensitive(nn.Module):
    """A pendulum, with a parameter to which it is as sensitive as can be and that is 0."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.scale = scale

    def forward(self, u: Tensor, t: float) -> Tensor:
        x, v = u.unbind(-1)
        return torch.stack((v, -torch.sin(x) + self.scale * self.p * torch.sin(40 * x)), -1)


def test_the_gradient_of_parameters_does_not_decide_steps() -> None:
    counts = []
    for scale in (1.0, 1e8):
        rate, initial = Sensitive(scale), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        solution = evolve_with_continuous_adjoint(rate, initial, (0.0, 3.0), axes=1, method=TSIT5, rtol=1e-6, atol=1e-6)
        solution.value[:, -1].sum().backward()
        counts.append([int(solution.statistics[f"backward_{name}"][0]) for name in ("steps", "rejected")])
    assert counts[0] == counts[1]


def test_integrals_that_ride_along() -> None:
    """The gradient of the integral of sin(4 x)^2 along a pendulum."""

    def rate(u: Tensor, t: float) -> Tensor:
        x, v, *_ = u.unbind(-1)
        return torch.stack((v, -torch.sin(x), torch.sin(4 * x) ** 2), -1)

    def solved(counted: int | None, tolerance: float) -> Tensor:
        initial = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        solution = evolve_with_continuous_adjoint(
            rate,
            initial,
            (0.0, 3.0),
            axes=1,
            method=TSIT5,
            rtol=tolerance,
            atol=tolerance,
            counted=counted,
            parameters=(),
        )
        return torch.autograd.grad(solution.value[:, -1, 2].sum(), initial)[0]

    found, exact = solved(2, 1e-8), solved(None, 1e-12)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6 * float(exact.abs().max()))
    assert float(found[0, 2]) == pytest.approx(1.0)


def test_statistics_of_the_backward_pass() -> None:
    network, initial = Network(), start()
    solution = evolve_with_continuous_adjoint(network, initial, TIMES, axes=1, method=TSIT5, rtol=1e-6, atol=1e-6)
    names = [f"backward_{name}" for name in ("evaluations", "steps", "rejected")]
    assert network.evaluations == int(solution.statistics["evaluations"][0])
    assert all(int(solution.statistics[name].sum()) == 0 for name in names)
    for _ in range(2):  # the latest one counts
        before = network.evaluations
        loss(solution.value).backward(retain_graph=True)
        evaluations, steps, rejected = (solution.statistics[name] for name in names)
        assert evaluations.tolist() == [network.evaluations - before] * 4
        # One at each output time, one to find the first step.
        assert torch.equal(evaluations, 6 * (steps + rejected) + 3 + 1)


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_the_unit_of_the_loss_does_not_decide_steps(scale: float) -> None:
    network, initial = Network(), start()
    solution = evolve_with_continuous_adjoint(network, initial, TIMES, axes=1, method=TSIT5, rtol=1e-6, atol=1e-6)
    found, counts = [], []
    for factor in (1.0, scale):
        (gradient,) = torch.autograd.grad(factor * loss(solution.value), initial, retain_graph=True)
        found.append(gradient / factor)
        counts.append(solution.statistics["backward_evaluations"].tolist())
    assert counts[0] == counts[1]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=0)


def test_parameters_of_another_precision() -> None:
    """Each gets a gradient of its own dtype."""
    network = nn.Linear(3, 3)

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, u: Tensor, t: float) -> Tensor:
            return self.scale * torch.tanh(u @ self.network.weight.double().t() + self.network.bias.double())

    found = []
    for continuous in (True, False):
        rate, initial = Cast(), start()
        how: dict[str, Any] = {"initial": initial, "times": TIMES, "method": TSIT5, "rtol": 1e-9, "atol": 1e-9}
        if continuous:
            value = evolve_with_continuous_adjoint(rate, axes=1, **how).value
        else:
            value = sciml.evolve(FunctionSystem(rate, (3,)), **how).value
        found.append(gradients(value, rate, initial))
    assert [gradient.dtype for gradient in found[0]] == [gradient.dtype for gradient in found[1]]
    assert distance(found[0], [gradient.double() for gradient in found[1]]) < 1e-6


def test_only_what_the_loss_depends_on_is_integrated() -> None:
    network, initial = Network(), start()
    solution = evolve_with_continuous_adjoint(network, initial, TIMES, axes=1, method=TSIT5, rtol=1e-6, atol=1e-6)
    (found,) = torch.autograd.grad(2 * solution.value[:, 0].sum(), initial, retain_graph=True)
    assert torch.equal(found, torch.full_like(initial, 2.0))
    assert int(solution.statistics["backward_evaluations"].sum()) == 0
    torch.autograd.grad(solution.value[:, 1].sum(), initial, retain_graph=True)
    first = int(solution.statistics["backward_evaluations"][0])
    torch.autograd.grad(solution.value[:, -1].sum(), initial)
    assert 0 < first < int(solution.statistics["backward_evaluations"][0])


def test_the_value_is_that_of_evolve() -> None:
    network, initial = Network(), start()
    method = replace(TSIT5, controller=Controller(rows="mean"))
    seen: list[float] = []
    how: dict[str, Any] = {"times": TIMES, "method": method, "rtol": 1e-6, "atol": 1e-6}
    with torch.no_grad():
        plain = sciml.evolve(FunctionSystem(network, (3,)), initial=initial, **how)
        untracked = evolve_with_continuous_adjoint(network, initial, axes=1, **how)
    solution = evolve_with_continuous_adjoint(
        network, initial, axes=1, step_observer=lambda t, h, y: seen.append(t), **how
    )
    with torch.inference_mode():
        inferred = evolve_with_continuous_adjoint(network, initial, axes=1, **how)
    assert torch.equal(inferred.value, plain.value)
    assert torch.equal(solution.value, plain.value)
    assert torch.equal(untracked.value, plain.value)
    assert not untracked.value.requires_grad
    assert seen == plain.history["time"][plain.history["accepted"]].unique().tolist()
    exact = sciml.evolve(FunctionSystem(network, (3,)), initial=initial, **{**how, "rtol": 1e-10, "atol": 1e-10})
    pair = (gradients(one.value, network, initial) for one in (solution, exact))
    assert distance(*pair) < 3e-6


def test_steps_of_fixed_size() -> None:
    """Of order 4 in the step."""
    errors = []
    for step in (0.1, 0.05):
        network, initial = Network(), start()
        solution = evolve_with_continuous_adjoint(
            network, initial, TIMES, axes=1, method=ExplicitRungeKutta.rk4(), step=step
        )
        tight = sciml.evolve(
            FunctionSystem(network, (3,)), initial=initial, times=TIMES, method=TSIT5, rtol=1e-12, atol=1e-12
        )
        errors.append(distance(*(gradients(one.value, network, initial) for one in (solution, tight))))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)


def test_parameters_that_are_made_of_others() -> None:
    """A context that an encoder makes of data: gradients go on through it, and tensors that ask for none get none."""
    encoder = nn.Linear(2, 3, dtype=torch.float64)
    frozen = torch.ones(3, dtype=torch.float64)
    found = []
    for continuous in (True, False):
        context = encoder(torch.tensor([0.3, -1.0], dtype=torch.float64))

        def rate(u: Tensor, t: float, context: Tensor = context) -> Tensor:
            return torch.tanh(context * u) - frozen * u

        how: dict[str, Any] = {"times": TIMES, "method": TSIT5, "rtol": 1e-10, "atol": 1e-10}
        if continuous:
            value = evolve_with_continuous_adjoint(
                rate, start().detach(), axes=1, parameters=(context, frozen), **how
            ).value
        else:
            value = sciml.evolve(FunctionSystem(rate, (3,)), initial=start().detach(), **how).value
        found.append(torch.autograd.grad(loss(value), encoder.weight))
    assert distance(*(list(pair) for pair in found)) < 1e-8


class Hiding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3, dtype=torch.float64)
        self.hidden = [torch.ones(3, dtype=torch.float64, requires_grad=True)]

    def forward(self, u: Tensor, t: float) -> Tensor:
        return self.inner(u) * self.hidden[0]


def test_what_the_gradient_would_miss() -> None:
    solution = evolve_with_continuous_adjoint(Hiding(), start(), TIMES, axes=1, method=TSIT5)
    with pytest.raises(InputError, match=r"a tensor of shape \(3,\) that asks for a gradient and is none of its param"):
        loss(solution.value).backward()


def test_what_changes_before_the_backward_pass() -> None:
    network, initial = Network(), start()
    solution = evolve_with_continuous_adjoint(network, initial, TIMES, axes=1, method=TSIT5)
    with torch.no_grad():
        network.second.bias += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(solution.value).backward()


def test_second_derivatives_are_refused() -> None:
    network, initial = Network(), start()
    solution = evolve_with_continuous_adjoint(network, initial, TIMES, axes=1, method=TSIT5)
    (found,) = torch.autograd.grad(loss(solution.value), initial, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found.sum().backward()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": lambda u, t: -u}, "make it a torch.nn.Module, .*got function"),
        ({"parameters": [1.0]}, "parameters are tensors, got 1.0 at place 0"),
        ({"method": sciml.solvers.time.ImplicitRungeKutta.kvaerno5()}, "for explicit Runge-Kutta methods, got"),
        ({"method": ExplicitRungeKutta.rk4()}, "no error estimate: give step="),
        ({"times": (0.0, 1.0, 0.5)}, "times must increase"),
        ({"initial": 1.0}, "initial is a tensor with at least 1 axes, those of a row, got 1.0"),
        ({"initial": torch.tensor(1.0)}, r"got one of shape \(\)"),
        ({"rtol": -1.0}, "rtol must be positive"),
    ],
)
def test_refused(given: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"rate": Network(), "initial": start(), "times": TIMES, "axes": 1, "method": TSIT5}
    with pytest.raises(InputError, match=message):
        evolve_with_continuous_adjoint(**{**arguments, **given})


def test_not_through_torch_func() -> None:
    with pytest.raises(InputError, match=r"does not go through torch\.func: take adjoint='recorded'"):
        torch.func.grad(
            lambda u: evolve_with_continuous_adjoint(Network(), u, TIMES, axes=1, method=TSIT5).value.sum()
        )(start())
