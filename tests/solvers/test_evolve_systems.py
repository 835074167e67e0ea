"""evolve with what is discretized already, and with right-hand sides that are functions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Dirichlet, Equation, FiniteDifference, FunctionSystem, Grid, InputError, Mesh, Periodic
from sciml.solvers.time import ExplicitRungeKutta, ImplicitRungeKutta

HEAT = Equation("u_t = k*laplacian(u)", coefficients=["k"])
TURN = Equation(["x_t = -w*y", "y_t = w*x"], parameters={"w": 2.0}, coordinates=())


@pytest.mark.parametrize(
    ("equation", "given", "initial"),
    [
        (HEAT, {"domain": Grid(16), "fields": {"k": 0.1}, "scheme": FiniteDifference(order=4)}, torch.sin),
        (HEAT, {"domain": Grid(16, upper=math.tau, boundary=Periodic()), "fields": {"k": 0.1}}, torch.sin),
        (
            HEAT,
            {"domain": Mesh.box((4, 4)), "fields": {"k": 0.1}, "boundary": {"exterior": Dirichlet(1.0)}},
            lambda x, y: x * y,
        ),
        (TURN, {"parameters": {"w": 3.0}}, {"x": 1.0, "y": 0.0}),
    ],
    ids=["grid", "series", "mesh", "ordinary"],
)
def test_a_system_is_its_equation(equation: Equation, given: dict[str, Any], initial: Any) -> None:
    """Bit for bit, and as often as wanted."""
    times = (0.0, 0.1, 0.3)
    whole = sciml.evolve(equation, initial=initial, times=times, **given)
    system = sciml.discretize(equation, **given)
    for _ in range(2):
        found = sciml.evolve(system, initial=initial, times=times)
        assert found.system is system
        assert found.method == whole.method
        assert torch.equal(found.value, whole.value)


def test_an_ordinary_system_takes_the_dtype_of_its_start() -> None:
    system = sciml.discretize(TURN)
    start = torch.tensor([1.0, 0.0])
    found = sciml.evolve(system, initial=start, times=(0.0, 1.0))
    assert found.value.dtype == torch.float32
    assert torch.equal(found.value, sciml.evolve(TURN, initial=start, times=(0.0, 1.0)).value)


def test_gradients_reach_what_a_system_was_made_of() -> None:
    """Of u_t = k u_xx the lowest wave on a ring decays with k, and two runs of one system add up."""
    grid = Grid(8, upper=math.tau, boundary=Periodic())
    k = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    system = sciml.discretize(Equation("u_t = k*u_xx", parameters={"k": 1.0}), grid, parameters={"k": k})
    wave = torch.sin(grid.coordinates[0])
    one, two = (sciml.evolve(system, initial=a * wave, times=(0.0, 1.0), rtol=1e-10).value[-1, 2] for a in (1.0, 2.0))
    (found,) = torch.autograd.grad(one + two, k)
    assert float(found) == pytest.approx(-3 * math.exp(-0.5), rel=1e-9)


class Rate(torch.nn.Module):
    """-k u cos(t), for t of any kind."""

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([0.5, 1.0], dtype=torch.float64))

    def forward(self, u: Tensor, t: float | Tensor) -> Tensor:
        clock = torch.as_tensor(t, dtype=u.dtype)
        return -self.k * u * torch.cos(clock)[..., None]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"gradient": "checkpointed"},
        {"control": "row"},
        {"method": ImplicitRungeKutta.kvaerno5()},
        {"method": ExplicitRungeKutta.rk4(), "step": 0.01},
    ],
    ids=["joint", "checkpointed", "row", "implicit", "fixed"],
)
def test_a_module_as_right_hand_side(how: dict[str, Any]) -> None:
    """u(t) = u(0) exp(-k sin t), and its derivative in k."""
    network = Rate()
    start = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.1, 0.2]], dtype=torch.float64)
    tolerances = {} if "step" in how else {"rtol": 1e-9, "atol": 1e-9}
    solution = sciml.evolve(FunctionSystem(network, (2,)), initial=start, times=(0.0, 0.5, 1.5), **tolerances, **how)
    k, sine = network.k.detach(), torch.sin(torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64))[:, None]
    exact = start[:, None] * torch.exp(-k * sine)
    torch.testing.assert_close(solution.value.detach(), exact, rtol=0, atol=2e-8)
    (found,) = torch.autograd.grad(solution.value[:, -1].sum(), network.k)
    torch.testing.assert_close(found, -(sine * exact)[:, -1].sum(0), rtol=0, atol=2e-7)


@pytest.mark.parametrize("control", ["joint", "row"])
def test_derivatives_that_come_late(control: Any) -> None:
    """A push that begins at t = 1 has no derivative before."""
    push = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def rate(u: Tensor, t: Any) -> Tensor:
        late = torch.as_tensor(t) > 1.0
        return push * late.to(u) + 0.0 * u if bool(late.any()) else torch.zeros_like(u)

    solution = sciml.evolve(
        FunctionSystem(rate), initial=torch.zeros(2).double(), times=(0.0, 1.0, 2.0), control=control
    )
    (found,) = torch.autograd.grad(solution.value[:, -1].sum(), push)
    assert float(found) == pytest.approx(2.0, abs=1e-3)


def test_what_a_function_has_no_equation_for() -> None:
    solution = sciml.evolve(FunctionSystem(lambda u, t: -u, (3,)), initial=1.0, times=(0.0, 1.0))
    assert solution.equation is None
    assert list(solution.fields) == ["u"]
    assert repr(solution).startswith("Solution of du/dt = function(u, t) for u at 2 times from 0 to 1")
    assert torch.equal(copy.deepcopy(solution).value, solution.value)
    error = solution.error(lambda t: torch.exp(-t).expand(3))["L2"]
    assert error.shape == (2, 3)
    assert float(error.max()) < 1e-6
    with pytest.raises(InputError, match="no equation as text, cannot be stored"):
        solution.save("nowhere.h5")


@pytest.mark.parametrize(
    "function",
    [lambda u, t: u, lambda u, t: u.flip(-1), lambda u, t: torch.ones((), dtype=u.dtype).expand_as(u)],
    ids=["state", "flipped", "expanded"],
)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"control": "row"},
        {"method": ExplicitRungeKutta.rk4(), "step": 0.1},
        {"method": ImplicitRungeKutta.kvaerno5()},
        {"method": sciml.solvers.time.Bdf2(), "step": 0.1},
        {"method": sciml.solvers.time.Leapfrog(), "step": 0.1},
    ],
    ids=["joint", "row", "rk4", "implicit", "bdf2", "leapfrog"],
)
def test_a_function_may_return_its_argument(function: Callable[..., Tensor], how: dict[str, Any]) -> None:
    """What is returned is not written to: nothing changes where it is a copy."""
    start = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    one, other = (
        sciml.evolve(FunctionSystem(rate, (3,)), initial=start, times=(0.0, 0.5, 1.0), **how).value
        for rate in (function, lambda u, t: function(u, t).clone())
    )
    assert torch.equal(start, torch.arange(6, dtype=torch.float64).reshape(2, 3))
    torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


def test_a_batch_is_no_vmap() -> None:
    system = FunctionSystem(lambda u, t: -u)
    with pytest.raises(InputError, match="leading axes of fields, parameters and initial states being a batch"):
        torch.func.vmap(lambda u: sciml.evolve(system, initial=u, times=(0.0, 1.0)).value)(torch.ones(3).double())


def still(u: Tensor, t: Any) -> Tensor:
    return torch.zeros_like(u)


@pytest.mark.parametrize(
    ("equation", "given", "message"),
    [
        (FunctionSystem(still), {"domain": Grid(4)}, "domain: given beside a system that is discretized"),
        (
            sciml.discretize(TURN),
            {"fields": {}, "parameters": {"w": 1.0}},
            r"fields, parameters: given beside .*\(OrdinarySystem\)",
        ),
        (still, {}, r"given as sciml.FunctionSystem\(function, space\)"),
        (torch.nn.Linear(2, 2), {}, r"given as sciml.FunctionSystem\(function, space\)"),
        ("u_t = -u", {}, r"write sciml.Equation\('u_t = -u'\)"),
        (Equation("laplacian(u) = 1"), {"domain": Grid(4)}, "no time derivative: it is steady"),
        (FunctionSystem(lambda u, t: u[0]), {"initial": torch.zeros(2).double()}, r"of torch.float64 and shape \(\)"),
        (FunctionSystem(lambda u, t: u.float()), {}, "a tensor of torch.float32"),
        (FunctionSystem(lambda u, t: 1.0), {}, "returned float"),
        (FunctionSystem(still), {"initial": torch.zeros(2)}, "dtype torch.float32"),
    ],
)
def test_refused_right_hand_sides(equation: Any, given: dict[str, Any], message: str) -> None:
    arguments = {"initial": 0.0, "times": (0.0, 1.0), **given}
    with pytest.raises(InputError, match=message):
        sciml.evolve(equation, **arguments)


@pytest.mark.parametrize(
    ("function", "space", "message"),
    [
        (lambda u: u, (), "called with the state u and the time t"),
        (torch.nn.Linear(2, 2), (2,), "called with the state u and the time t"),
        (3, (), r"expected \(u, t\) -> du/dt, got int"),
        (still, 2, r"space: expected the shape of one row of u, such as \(3,\), got 2"),
        (still, (0,), "space: expected"),
        (still, (2.0,), "space: expected"),
    ],
)
def test_refused_functions(function: Any, space: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FunctionSystem(function, space)


def _pendulum(u: Tensor, t: Any) -> Tensor:
    return torch.stack((u[..., 1], -torch.sin(u[..., 0])), -1)


@pytest.mark.parametrize("space", [(3,), (1, 3)], ids=["one axis", "two axes"])
@pytest.mark.parametrize("control", ["joint", "row"])
def test_entries_that_do_not_count_ride_along(space: tuple[int, ...], control: Any) -> None:
    """A pendulum takes the same steps with an integral of its motion beside it, wild as that may be."""

    def with_integral(u: Tensor, t: Any) -> Tensor:
        state = u[..., :2]
        return torch.cat((_pendulum(state, t), 1e6 * torch.sin(40 * state[..., :1])), -1)

    alone = torch.tensor([[1.0, 0.5], [2.0, -0.3]], dtype=torch.float64)
    beside = torch.cat((alone, torch.zeros(2, 1).double()), -1).reshape(2, *space)
    how: dict[str, Any] = {"times": (0.0, 1.0, 3.0), "control": control, "method": ExplicitRungeKutta.tsit5()}
    one = sciml.evolve(FunctionSystem(_pendulum, (2,)), initial=alone, **how)
    two = sciml.evolve(FunctionSystem(with_integral, space, counted=2), initial=beside, **how)
    torch.testing.assert_close(two.value.reshape(2, 3, 3)[..., :2], one.value, rtol=1e-9, atol=1e-9)
    for name in ("evaluations", "steps", "rejected"):
        assert torch.equal(two.statistics[name], one.statistics[name]), name
    torch.testing.assert_close(two.statistics["largest_step"], one.statistics["largest_step"], rtol=1e-6, atol=0)
    every = sciml.evolve(FunctionSystem(with_integral, space), initial=beside, **how)
    assert int(every.statistics["steps"].min()) > 3 * int(one.statistics["steps"].max())


def test_another_measure_of_errors() -> None:
    """By the largest entry of a row, which is the same of a row of one entry."""

    def largest(error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Any) -> Tensor:
        scale = torch.as_tensor(atol)[..., None] + rtol * torch.maximum(before.abs(), after.abs())
        return (error / scale).abs().amax(-1)

    start = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    usual = sciml.evolve(FunctionSystem(_pendulum, (2,)), initial=start, times=(0.0, 30.0))
    strict = sciml.evolve(FunctionSystem(_pendulum, (2,), ratio=largest), initial=start, times=(0.0, 30.0))
    assert int(strict.statistics["steps"]) > int(usual.statistics["steps"])
    one, same = (
        sciml.evolve(FunctionSystem(lambda u, t: -u, (1,), ratio=ratio), initial=start[:, :1], times=(0.0, 3.0))
        for ratio in (None, largest)
    )
    torch.testing.assert_close(one.value, same.value, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"counted": 4}, r"counted: expected .* whose shape is \(3,\), got 4"),
        ({"counted": 0}, "counted: expected"),
        ({"counted": 1.0}, "counted: expected"),
        ({"space": (), "counted": 1}, r"counted: expected .* whose shape is \(\), got 1"),
        ({"counted": 2, "ratio": torch.add}, "either counted or ratio"),
    ],
)
def test_refused_counts(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FunctionSystem(still, **{"space": (3,), **given})
