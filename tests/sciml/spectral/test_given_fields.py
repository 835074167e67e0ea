"""Fields of spectral systems: their derivatives with gradients, functions of time, modules, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.scheme import FiniteDifference, Spectral
from sciml.spectral import discretize_spectral
from sciml.status import Status

Rings = Callable[..., Grid]
HEATED = Equation("u_t = nu*u_xx + f", parameters={"nu": 0.1})


def largest(difference: Tensor) -> float:
    return float(difference.detach().abs().max())


@pytest.mark.parametrize(
    ("text", "dealias"), [("u_t = nu*u_xx + a_x*u_x + a_xx*u", "2/3"), ("u_t = nu*u_xx + a*u", "3/2")]
)
def test_gradients_to_fields_do_not_depend_on_calls_before(ring: Rings, text: str, dealias: str) -> None:
    grid = ring(24)
    (x,) = grid.coordinates
    equation = Equation(text, parameters={"nu": 0.1}, coefficients=["a"])
    weights = torch.sin(x) + torch.cos(2 * x)

    def found(a: Tensor, *, before: bool) -> Tensor:
        system = discretize_spectral(equation, grid, {"a": a}, {}, Spectral(dealias))
        if before:
            with torch.no_grad():
                system.rate(torch.cos(x), 0.0)
                system.slope(system.encode(torch.cos(x)), 0.0)
        return (system.rate(torch.cos(x), 0.0) * weights).sum()

    a = (1 + 0.3 * torch.sin(x)).requires_grad_()
    (slope,) = torch.autograd.grad(found(a, before=True), a)
    direction = torch.cos(x) + torch.sin(3 * x)
    with torch.no_grad():
        quotient = (found(a + 0.5 * direction, before=False) - found(a - 0.5 * direction, before=False)) / 1.0
    assert largest((slope * direction).sum() - quotient) < 1e-12 * abs(float(quotient))  # linear in a


@pytest.mark.parametrize(
    ("text", "dealias"), [("u_t = nu*u_xx + a_x*u_x + a_xx*u", "2/3"), ("u_t = nu*u_xx + a*u", "3/2")]
)
def test_checkpointed_gradients_to_fields_and_initial_state(ring: Rings, text: str, dealias: str) -> None:
    grid = ring(16)
    (x,) = grid.coordinates
    equation = Equation(text, parameters={"nu": 0.1}, coefficients=["a"])
    found = []
    for gradient in ("recorded", "checkpointed"):
        a, u = torch.sin(x).requires_grad_(), torch.cos(x).requires_grad_()
        solution = sciml.evolve(
            equation,
            grid,
            initial=u,
            times=[0.0, 0.1],
            step=0.02,
            fields={"a": a},
            scheme=Spectral(dealias),
            gradient=gradient,
        )
        found.append(torch.autograd.grad(solution.value[-1].square().sum(), (a, u)))
    for first, second in zip(*found, strict=True):
        assert largest(first) > 0.01 and largest(first - second) < 1e-14 * largest(first)


class Forcing(torch.nn.Module):
    """A cos(x) cos(t), A being learned."""

    def __init__(self) -> None:
        super().__init__()
        self.amplitude = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.amplitude * torch.cos(x) * torch.cos(t)


@pytest.mark.parametrize("scheme", [Spectral(), FiniteDifference()])
def test_a_module_is_a_function_of_time(ring: Rings, scheme: Any) -> None:
    grid, forcing = ring(16), Forcing()
    (x,) = grid.coordinates
    rate = sciml.discretize(HEATED, grid, {"f": forcing}, scheme=scheme).rate(0 * x, 0.5)
    assert largest(rate - 2 * torch.cos(x) * torch.cos(torch.tensor(0.5, dtype=torch.float64))) < 1e-14
    (slope,) = torch.autograd.grad((rate * torch.cos(x)).sum(), forcing.amplitude)
    assert largest(slope - 8 * torch.cos(torch.tensor(0.5, dtype=torch.float64))) < 1e-13


def test_which_functions_depend_on_time(ring: Rings) -> None:
    """t with a default does, and in two dimensions (x, t) is refused rather than read as (x, y)."""
    grid = ring(16)
    (x,) = grid.coordinates
    system = discretize_spectral(HEATED, grid, {"f": lambda x, t=0.0: torch.cos(x) * t}, {})
    assert largest(system.rate(0 * x, 3.0) - 3 * torch.cos(x)) < 1e-14
    plane = Equation("u_t = laplacian(u) + f")
    with pytest.raises(InputError, match=r"field 'f': a function of the time takes all 2 coordinates"):
        discretize_spectral(plane, ring(8, 8), {"f": lambda x, t: torch.cos(x) * t}, {})


@pytest.mark.parametrize("dealias", ["2/3", "3/2"])
def test_functions_of_time_with_rows(ring: Rings, dealias: str) -> None:
    """The batch is that of the function too; rows with steps of their own need it row by row."""
    grid = ring(16)
    size = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    equation = Equation("u_t = nu*u_xx - u*u_x + f", parameters={"nu": 0.1})
    options: dict[str, Any] = {"times": [0.0, 0.3], "scheme": Spectral(dealias), "rtol": 1e-8}
    together = sciml.evolve(
        equation, grid, initial=0.0, fields={"f": lambda x, t: size * torch.cos(x) * torch.cos(t)}, **options
    )
    assert together.system.batch == (2,)
    alone = [
        sciml.evolve(
            equation, grid, initial=0.0, fields={"f": lambda x, t, a=a: a * torch.cos(x) * torch.cos(t)}, **options
        )
        for a in (1.0, 3.0)
    ]
    by_row = sciml.evolve(
        equation,
        grid,
        initial=0.0,
        fields={"f": lambda x, t: size * torch.cos(x) * torch.cos(t)},
        control="row",
        **options,
    )
    for row in range(2):
        assert largest(together.value[row] - alone[row].value) < 1e-7
        assert largest(by_row.value[row] - alone[row].value) < 1e-7
    with pytest.raises(InputError, match="must compute row by row, or take control='joint'"):
        sciml.evolve(
            equation,
            grid,
            initial=torch.zeros(2, 16, dtype=torch.float64),
            fields={"f": lambda x, t: torch.stack([torch.cos(x) * t, torch.sin(x) * t])},
            control="row",
            **options,
        )


def test_values_of_functions_of_time_are_checked(ring: Rings) -> None:
    """Shapes where they enter; a value that is not finite takes its row down, at its time."""
    grid = ring(16)
    with pytest.raises(InputError, match=r"field 'f' has shape \(7,\) at t = 0.0"):
        discretize_spectral(HEATED, grid, {"f": lambda x, t: torch.ones(7, dtype=torch.float64) * t}, {})

    def broken(x: Tensor, t: Tensor) -> Tensor:
        rows = torch.tensor([[1.0], [torch.nan if float(t) > 0.5 else 1.0]], dtype=torch.float64)
        return rows * torch.cos(x)

    solution = sciml.evolve(HEATED, grid, initial=0.0, times=[0.0, 1.0], fields={"f": broken}, throw=False)
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    assert 0.4 < float(solution.statistics["failed_at"][1]) < 0.6
    exact = -torch.expm1(torch.tensor(-0.1, dtype=torch.float64)) / 0.1 * torch.cos(grid.coordinates[0])
    assert largest(solution.value[0, -1] - exact) < 1e-5


def test_an_axis_of_two_points(ring: Rings) -> None:
    """Products on a finer grid, which is no coarser than the grid along any axis."""
    grid = ring(2, 8)
    _, y = grid.coordinates
    system = discretize_spectral(Equation("u_t = a*u"), grid, {"a": torch.cos(y)}, {}, Spectral("3/2"))
    assert largest(system.rate(torch.cos(y), 0.0) - torch.cos(y).square()) < 1e-14


@pytest.mark.parametrize("scheme", [Spectral(), FiniteDifference()])
def test_late_times_in_float32(ring: Rings, scheme: Any) -> None:
    grid, late = ring(16, dtype=torch.float32), 1e8
    (x,) = grid.coordinates
    system = sciml.discretize(HEATED, grid, {"f": lambda x, t: torch.cos(x) * torch.cos(t - late)}, scheme=scheme)
    now = late + torch.tensor([1.0, 2.0], dtype=torch.float64)
    expected = torch.cos(now - late).float()[:, None] * torch.cos(x)
    rates = [system.rate(0 * x, float(now[0])), system.rate(torch.zeros(2, 16), now)]
    assert rates[0].dtype == rates[1].dtype == torch.float32
    assert largest(rates[0] - expected[0]) < 1e-6 and largest(rates[1] - expected) < 1e-6


def test_times_of_rows_in_the_text_in_float32(ring: Rings) -> None:
    grid = ring(16, dtype=torch.float32)
    (x,) = grid.coordinates
    system = discretize_spectral(Equation("u_t = u_xx + cos(t)*u**2"), grid, {}, {})
    times = torch.tensor([0.5, 1.5], dtype=torch.float64)
    u = torch.sin(x).expand(2, 16)
    rate = system.rate(u, times)
    assert rate.dtype == torch.float32
    assert largest(rate - (torch.cos(times).float()[:, None] * u.square() - u)) < 1e-5
    with torch.no_grad():
        assert largest(system.decode(system.slope(system.encode(u), times)) - rate) < 1e-5


def test_rows_in_blocks_with_a_function_of_time(ring: Rings) -> None:
    """More rows than fit a cache, cut into blocks that the kernels take one after another."""
    grid = ring(64)
    system = discretize_spectral(Equation("u_t = a*u*u_x"), grid, {"a": lambda x, t: torch.cos(x) * t}, {})
    y = torch.randn(2500, *system.state_space, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y[:, 0, 1] = 0.0
    assert len(list(system.blocks((2500,), torch.view_as_complex(y)))) > 1
    with torch.no_grad():
        together = system.slope(y, 0.5)
    for row in (0, 1700, 2499):
        assert largest(together[row] - system.plain_force(y[row], 0.5)) < 1e-13 * largest(together)


def test_memory_of_the_latest_shapes_is_kept(ring: Rings) -> None:
    """One shape that comes again and again among many others keeps its memory."""
    system = discretize_spectral(Equation("u_t = a*u*u_x"), ring(16), {"a": lambda x: torch.cos(x)}, {})
    kept = None
    for rows in range(1, 20):
        with torch.no_grad():
            for count in (rows, 50):
                system.slope(torch.zeros(count, *system.state_space, dtype=torch.float64), 0.0)
        latest = next(reversed(system._workspaces.known.values()))
        assert kept is None or latest is kept
        kept = latest
    assert len(system._workspaces.known) == 8
