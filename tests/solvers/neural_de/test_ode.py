"""NeuralODE: values, times, backends and adjoints that agree, and what is refused."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciml import InputError, SolveError, Status
from sciml.solvers.neural_de import NeuralODE
from sciml.solvers.time import Controller, ExplicitRungeKutta

TURN = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)


class Linear(nn.Module):
    """du/dt = A u, whose solution is known."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.matrix = nn.Parameter(TURN.to(dtype))

    def forward(self, u: Tensor, t: Any) -> Tensor:
        return u @ self.matrix.T


def initial(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([[2.0, 0.0], [0.5, -1.0], [0.0, 3.0]], dtype=dtype)


def exact(times: list[float]) -> Tensor:
    return torch.stack([initial() @ torch.linalg.matrix_exp(t * TURN).T for t in times], 1)


BACKENDS = [
    {},
    {"adjoint": "checkpointed"},
    {"adjoint": "continuous"},
    {"backend": "torchdiffeq"},
    {"backend": "torchdiffeq", "adjoint": "continuous"},
]


@pytest.mark.parametrize("options", BACKENDS, ids=str)
def test_values_and_gradients_are_those_of_the_matrix_exponential(options: dict[str, Any]) -> None:
    model = NeuralODE(Linear(), interval=(0.5, 2.0), rtol=1e-10, **options)
    times = [0.7, 1.1, 1.9]
    value, solution = model(initial(), times)
    torch.testing.assert_close(value, exact([0.2, 0.6, 1.4]), rtol=1e-8, atol=1e-8)
    end, _ = model(initial())
    torch.testing.assert_close(end, exact([1.5])[:, 0], rtol=1e-8, atol=1e-8)
    assert solution.times is not None and solution.times.tolist() == [0.5, 0.7, 1.1, 1.9, 2.0]
    assert solution.converged.all() and (solution.statistics["steps"] > 5).all()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (value.square().sum((0, 2)) * weights).sum().backward()
    matrix = TURN.clone().requires_grad_()
    states = torch.stack([initial() @ torch.linalg.matrix_exp(t * matrix).T for t in (0.2, 0.6, 1.4)], 1)
    (expected,) = torch.autograd.grad((states.square().sum((0, 2)) * weights).sum(), matrix)
    torch.testing.assert_close(model.rate.matrix.grad, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("options", BACKENDS, ids=str)
def test_single_precision_stays_single(options: dict[str, Any]) -> None:
    model = NeuralODE(Linear(torch.float32), **options)
    value, solution = model(initial(torch.float32), torch.linspace(0, 1, 5))
    assert value.dtype == solution.value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact([0.0, 0.25, 0.5, 0.75, 1.0]), rtol=2e-3, atol=2e-3)
    value.square().sum().backward()
    assert model.rate.matrix.grad is not None and model.rate.matrix.grad.dtype == torch.float32


def test_rows_with_several_axes_and_without_any() -> None:
    u = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, solution = NeuralODE(lambda u, t: -2.0 * u, axes=3, rtol=1e-9)(u)
    torch.testing.assert_close(value, u * math.exp(-2.0), rtol=1e-7, atol=0)
    assert solution.codes.shape == (2,)
    value, solution = NeuralODE(lambda u, t: -2.0 * u, axes=0, rtol=1e-9)(u[0, 0, 0], [0.0, 0.5, 1.0])
    assert value.shape == (4, 3) and solution.codes.shape == (4,)
    torch.testing.assert_close(value[:, 1], u[0, 0, 0] * math.exp(-1.0), rtol=1e-7, atol=0)


def test_the_batch_can_decide_by_its_mean() -> None:
    """With one row that is hard among many easy ones the mean takes fewer steps: about those of torchdiffeq, whose pair
    has a larger estimate of the same error."""
    u = torch.cat((torch.full((63, 1), 1e-3), torch.full((1, 1), 3.0))).double()

    def rate(u: Tensor, t: Any) -> Tensor:
        return -(u**3)

    found = {}
    for rows in ("largest", "mean"):
        method = ExplicitRungeKutta(ExplicitRungeKutta.dormand_prince().tableau, controller=Controller(rows=rows))  # type: ignore[arg-type]
        _, solution = NeuralODE(rate, rtol=1e-7, atol=1e-7, method=method)(u)
        found[rows] = int(solution.statistics["steps"][0])
        assert solution.history["error"][solution.history["accepted"]].max() <= 1.0
    _, solution = NeuralODE(rate, rtol=1e-7, atol=1e-7, backend="torchdiffeq")(u)
    assert found["mean"] < found["largest"]
    assert 0.75 < found["mean"] / int(solution.statistics["steps"][0]) <= 1.0


@pytest.mark.parametrize("options", BACKENDS[:1] + BACKENDS[2:4], ids=str)
def test_a_network_that_turns_nan_is_told_with_row_and_time(options: dict[str, Any]) -> None:
    def rate(u: Tensor, t: Any) -> Tensor:
        late = float(t) > 0.6
        return torch.where((u[..., :1] > 1.0) & late, torch.nan, -u)

    u = torch.tensor([[0.5, 0.0], [5.0, 0.0]], dtype=torch.float64)
    if "adjoint" in options:
        options = {**options, "adjoint": "recorded"}
    with pytest.raises(SolveError, match="row 1") as caught:
        NeuralODE(rate, **options)(u)
    solution = caught.value.solution
    assert solution.status[1] is Status.NON_FINITE
    value, solution = NeuralODE(rate, throw=False, **options)(u)
    assert not value[1].isfinite().any()
    assert 0.5 < float(solution.statistics["failed_at"][1]) < 0.7
    if not options.get("backend"):
        assert value[0, 0].item() == pytest.approx(0.5 * math.exp(-1), rel=1e-5)
        assert solution.status[0] is Status.CONVERGED


def test_a_tolerance_below_the_precision_is_said() -> None:
    with pytest.warns(UserWarning, match="beyond what torch.float32 can resolve"):
        NeuralODE(Linear(torch.float32), rtol=1.4e-8, atol=1.4e-8)(initial(torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NeuralODE(Linear(), rtol=1.4e-8, atol=1.4e-8)(initial())


def test_it_saves_and_loads_as_a_module() -> None:
    model, other = NeuralODE(Linear()), NeuralODE(Linear())
    with torch.no_grad():
        model.rate.matrix += 0.1
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(initial())[0], model(initial())[0])
    assert "Tsitouras" in repr(model)


def test_double_precision_of_times_in_single() -> None:
    """0.1 in float32 is not 0.1: ends of the interval are met all the same, and nothing lies outside."""
    times = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float32)
    value, solution = NeuralODE(Linear(), interval=(0.1, 0.7))(initial(), times)
    assert value.shape == (3, 3, 2)
    assert solution.times is not None and solution.times.tolist()[0] == 0.1 and solution.times.tolist()[-1] == 0.7


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NeuralODE(lambda u, t: u[..., :1])(initial()), r"shape \(3, 1\) for a state"),
        (lambda: NeuralODE(lambda u: u)(initial()), "the state u and the time t"),
        (lambda: NeuralODE(Linear(), interval=(0, 1))(initial(), [0.0, 1.5]), r"times\[1\] = 1.5 lies outside"),
        (lambda: NeuralODE(Linear(), interval=(0, 1))(initial(), [-0.5, 1.0]), r"times\[0\] = -0.5 lies outside"),
        (lambda: NeuralODE(Linear())(initial(), [0.5]), "two where they are to say the interval"),
        (lambda: NeuralODE(Linear())(initial(), [0.0, 1.0, 1.0]), "must increase"),
        (lambda: NeuralODE(Linear())(initial(), [0.0, float("nan")]), "must increase"),
        (lambda: NeuralODE(Linear())(initial(), torch.zeros(2, 2)), "list of numbers"),
        (lambda: NeuralODE(Linear(), interval=(1, 0)), "t0 before t1"),
        (lambda: NeuralODE(Linear())([1.0, 2.0]), "initial is a real tensor"),
        (lambda: NeuralODE(Linear())(torch.tensor([1, 2])), "initial is a real tensor"),
        (lambda: NeuralODE(Linear())(initial() * torch.nan), "nan|NaN|finite"),
        (lambda: NeuralODE(Linear(), method=ExplicitRungeKutta.rk4()), "no error estimate"),
        (lambda: NeuralODE(Linear(), method="tsit5"), "method is an ExplicitRungeKutta"),
        (lambda: NeuralODE(Linear(), adjoint="interpolating"), "'recorded', 'checkpointed', 'continuous'"),
        (lambda: NeuralODE(Linear(), backend="diffrax"), "'sciml', 'torchdiffeq'"),
        (lambda: NeuralODE(Linear(), backend="torchdiffeq", adjoint="checkpointed"), "no checkpoints"),
        (lambda: NeuralODE(Linear(), rtol=-1.0)(initial()), "rtol"),
        (
            lambda: NeuralODE(Linear(), backend="torchdiffeq", method=ExplicitRungeKutta.tsit5())(initial()),
            "dormand_prince",
        ),
    ],
)
def test_bad_input_is_refused(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_that_reaches_states_of_no_rate_is_named_at_once(dtype: torch.dtype) -> None:
    """In float32 steps that end before such a state no longer move it."""
    initial = torch.tensor([[-1.0], [0.8], [0.1]], dtype=dtype)
    ode = NeuralODE(lambda u, t: torch.where(u > 1.0, torch.nan, u), throw=False)
    solution = ode(initial)[1]
    assert list(solution.status) == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    assert float(solution.statistics["failed_at"][1]) == pytest.approx(math.log(1 / 0.8), abs=1e-4)
    assert int(solution.statistics["steps"].max()) < 200
