"""Where an evolution goes on from: order of unknowns, domains, times, rows that failed or stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Dirichlet, Equation, Grid, InputError, Mesh, Neumann, Solution, Status
from sciml.evolving import EvolvingSystem
from sciml.function_system import FunctionSystem
from sciml.ordinary import OrdinarySystem
from sciml.solvers.linear import GMRES
from sciml.solvers.nonlinear import Newton
from sciml.solvers.start import continued
from sciml.solvers.time import Event

HEAT = Equation("u_t = laplacian(u)")
DECAY = Equation("u_t = -u", coordinates=())


def made(system: EvolvingSystem, value: Tensor, times: tuple[float, ...], codes: object = 0) -> Solution:
    """A solution without running anything."""
    batch = value.shape[: value.ndim - 1 - len(system.space)]
    return Solution(
        value,
        torch.as_tensor(codes).expand(batch),
        {},
        {},
        system=system,
        times=torch.tensor(times, dtype=torch.float64),
    )


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def on_grid(n: int = 6, upper: float = 1.0, boundary: object = None, solid: Tensor | None = None) -> EvolvingSystem:
    grid = Grid((n,), 0.0, upper, boundary=boundary or Dirichlet(0.0), solid=solid)  # type: ignore[arg-type]
    system: EvolvingSystem = sciml.discretize(HEAT, grid)
    return system


def test_the_last_value_and_no_other_axis() -> None:
    """A batch, the times and the grid of the same length."""
    system, value = on_grid(3), noise(3, 3, 3)
    field, codes = continued(made(system, value, (0.0, 1.0, 2.0)), system, 2.0)
    assert torch.equal(field, value[:, -1])
    assert codes.tolist() == [0, 0, 0]


def test_channels_are_taken_by_name() -> None:
    old = OrdinarySystem(Equation(["a_t = -a", "b_t = -2*b", "c_t = -3*c"], coordinates=()))
    new = OrdinarySystem(Equation(["a_t = 0*a", "b_t = 0*b", "c_t = 0*c"], unknowns=["c", "a", "b"], coordinates=()))
    field, _ = continued(made(old, noise(5, 2, 3), (0.0, 1.0)), new, 1.0)
    assert torch.equal(field, noise(5, 2, 3)[:, -1, [2, 0, 1]])
    grid = Grid((4, 3), boundary=Neumann(0.0))
    texts = ["u_t = laplacian(u) - v", "v_t = laplacian(v) + u"]
    one, other = (sciml.discretize(Equation(texts, unknowns=list(names)), grid) for names in ("uv", "vu"))
    value = noise(2, 2, 4, 3)
    assert torch.equal(continued(made(one, value, (0.0, 1.0)), other, 1.0)[0], value[-1].flip(0))


def test_a_run_in_two_parts_is_that_in_one_whatever_the_order_of_unknowns() -> None:
    texts = ["u_t = -3*v", "v_t = 3*u"]
    first = sciml.evolve(Equation(texts, coordinates=()), initial={"u": 1.0, "v": 0.0}, times=(0.0, 0.7), rtol=1e-10)
    system = OrdinarySystem(Equation(texts, unknowns=["v", "u"], coordinates=()))
    start, _ = continued(first, system, 0.7)
    v, u = start.tolist()
    assert u == pytest.approx(math.cos(2.1), abs=1e-8)
    assert v == pytest.approx(math.sin(2.1), abs=1e-8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (on_grid(), on_grid(7), r"shape \(6,\), not \(7,\)"),
        (on_grid(), on_grid(upper=7.0), r"a box from \(0.0,\) to \(1.0,\), not from \(0.0,\) to \(7.0,\)"),
        (on_grid(), on_grid(boundary=sciml.Periodic()), r"periodic \(False,\), not \(True,\)"),
        (on_grid(), on_grid(solid=torch.arange(6) > 3), "other cells are solid"),
        (on_grid(solid=torch.arange(6) > 2), on_grid(solid=torch.arange(6) > 3), "other cells are solid"),
        (OrdinarySystem(DECAY), on_grid(), "none, not a Grid"),
        (on_grid(), OrdinarySystem(DECAY), "a Grid, not none"),
        (OrdinarySystem(DECAY), FunctionSystem(lambda u, t: -u, (6,)), r"shape \(\), not \(6,\)"),
        (OrdinarySystem(Equation("v_t = -v", coordinates=())), OrdinarySystem(DECAY), "one for v, and the equation"),
    ],
)
def test_another_domain_is_refused(old: EvolvingSystem, new: EvolvingSystem, message: str) -> None:
    """Also where the numbers would fit: a batch of 6 rows is no field on 6 cells."""
    value = noise(6, 2, *old.space)
    with pytest.raises(InputError, match=message):
        continued(made(old, value, (0.0, 1.0)), new, 1.0)


def test_the_same_domain_made_again_with_other_conditions() -> None:
    value = noise(2, 6)
    solution = made(on_grid(), value, (0.0, 1.0))
    assert torch.equal(continued(solution, on_grid(boundary=Neumann(1.0)), 1.0)[0], value[-1])
    mesh = Mesh.box((2, 2))
    old, again, other = (
        sciml.discretize(HEAT, where, boundary={"exterior": Dirichlet(0.0)})
        for where in (mesh, Mesh.box((2, 2)), replace(mesh, points=1.001 * mesh.points))
    )
    value = noise(2, 9)
    solution = made(old, value, (0.0, 1.0))
    assert torch.equal(continued(solution, again, 1.0)[0], value[-1])
    with pytest.raises(InputError, match="a mesh with other points or cells"):
        continued(solution, other, 1.0)
    finer = sciml.discretize(HEAT, mesh.refine(), boundary={"exterior": Dirichlet(0.0)})
    with pytest.raises(InputError, match="9 points and 8 cells, not 25 points and 32 cells"):
        continued(solution, finer, 1.0)


@pytest.mark.parametrize(
    ("times", "start"),
    [
        ((0.0, 0.3), 0.1 + 0.2),
        ((0.0, 10.0), sum([0.1] * 100)),
        ((-1.0, 0.0), 2e-17),
        ((1e9, 1e9 + 1), 1e9 + 1),
        ((0.0, 1e-10), 1e-10),
        ((3.0,), 3.0),
    ],
)
def test_times_may_differ_by_rounding(times: tuple[float, ...], start: float) -> None:
    system = OrdinarySystem(DECAY)
    value = noise(len(times))
    assert torch.equal(continued(made(system, value, times), system, start)[0], value[-1])


@pytest.mark.parametrize(
    ("times", "start"),
    [((0.0, 1e-10), 0.0), ((0.0, 1e9), 1e9 + 0.9), ((0.0, 1.0), 1.0 + 1e-12), ((0.0, 1.0), 0.0), ((-1e-3, 0.0), 1e-9)],
)
def test_a_gap_or_an_overlap_is_refused(times: tuple[float, float], start: float) -> None:
    system = OrdinarySystem(DECAY)
    with pytest.raises(InputError, match=r"ends at time .* and times begins at"):
        continued(made(system, noise(2), times), system, start)


def test_rows_that_failed_stay_so_and_stand_still_where_others_are() -> None:
    """They carry no gradient, and take none from the row whose state they have."""
    system = on_grid()
    value = noise(3, 2, 6)
    value[0], value[2, 1] = math.nan, math.inf
    value.requires_grad_()
    codes = [int(Status.STEP_UNDERFLOW), 0, int(Status.NON_FINITE)]
    field, found = continued(made(system, value, (0.0, 1.0), codes), system, 1.0)
    assert found.tolist() == codes
    assert torch.equal(field, value[1, 1].expand(3, 6))
    (gradient,) = torch.autograd.grad(field.sum(), value)
    expected = torch.zeros(3, 2, 6, dtype=torch.float64)
    expected[1, 1] = 1.0
    assert torch.equal(gradient, expected)


def test_nothing_to_go_on_from() -> None:
    system = OrdinarySystem(DECAY)
    failed = int(Status.NON_FINITE)
    with pytest.raises(InputError, match=r"every row of the given solution has failed \(NON_FINITE\)"):
        continued(made(system, noise(2, 2), (0.0, 1.0), failed), system, 1.0)
    with pytest.raises(InputError, match=r"initial: the given solution has failed \(NON_FINITE\)"):
        continued(made(system, noise(2), (0.0, 1.0), failed), system, 1.0)
    with pytest.raises(InputError, match="steady equation and has no time"):
        continued(sciml.solve(Equation("-laplacian(u) = 1"), Grid(4)), system, 1.0)
    with pytest.raises(InputError, match="1 of 2 values are NaN"):
        continued(made(system, torch.tensor([[0.0, math.nan], [1.0, 2.0]]).double(), (0.0, 1.0)), system, 1.0)
    with pytest.raises(InputError, match=r"dtype torch.float32.*convert with .to\(torch.float64\)"):
        continued(made(system, noise(2).float(), (0.0, 1.0)), system, 1.0)


def test_rows_that_stopped_go_on_from_when_they_did() -> None:
    system, value = OrdinarySystem(DECAY), noise(2, 2)
    solution = made(system, value, (0.0, 1.0))
    stopped = replace(solution, statistics={"stopped_at": torch.tensor([0.5, math.nan], dtype=torch.float64)})
    with pytest.raises(InputError, match=r"row 0 of the given solution stopped at an event at time 0.5, and times"):
        continued(stopped, system, 1.0)
    with pytest.raises(InputError, match=r"ends at time 1.0, and times begins at 0.5"):
        continued(stopped, system, 0.5)
    together = replace(solution, statistics={"stopped_at": torch.tensor([0.5, 0.5], dtype=torch.float64)})
    assert torch.equal(continued(together, system, 0.5)[0], value[:, 1])
    # A row that failed says nothing about the time.
    codes = torch.tensor([0, int(Status.NON_FINITE)])
    assert torch.equal(continued(replace(stopped, codes=codes), system, 0.5)[0], value[0, 1].expand(2))


@pytest.mark.parametrize(("more", "method"), [("", GMRES()), (" - u**3", Newton())])
def test_a_steady_solve_begins_where_an_evolution_ended(more: str, method: Any) -> None:
    """Of all times the last, channels by name: at the solution itself there is nothing to do."""
    grid, rates = Grid(12), ["laplacian(u) - v + 1", f"laplacian(v) + u{more}"]
    evolving = Equation([f"{name}_t = {rate}" for name, rate in zip("uv", rates, strict=True)], unknowns=["u", "v"])
    ended = sciml.evolve(evolving, grid, initial={"u": 0.0, "v": 0.0}, times=(0.0, 1.0, 10.0), rtol=1e-8)
    steady = Equation([f"{rate} = 0" for rate in rates], unknowns=["v", "u"])
    near = sciml.solve(steady, grid, initial=ended, rtol=1e-5, method=method)
    assert near.value.shape == (2, 12)
    assert int(near.statistics["iterations"]) == 0
    assert torch.equal(near.fields["u"], ended.fields["u"][-1])


# Runs


BLOW_UP = Equation("u_t = k*u**2", parameters={"k": 1.0}, coordinates=())


@pytest.mark.parametrize("control", ["joint", "row"])
def test_a_row_that_failed_takes_nobody_down(control: Any) -> None:
    """u = 1 / (1/u(0) - k t); the second row has no value after 0.1, and none of its gradients."""
    k = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    start = torch.tensor([0.1, 10.0, 0.2], dtype=torch.float64)
    given: dict[str, Any] = {"parameters": {"k": k}, "control": control, "throw": False, "rtol": 1e-9, "atol": 1e-9}
    first = sciml.evolve(BLOW_UP, initial=start, times=(0.0, 1.0), **given)
    second = sciml.evolve(BLOW_UP, initial=first, times=(1.0, 1.5, 2.0), **given)
    assert second.status == first.status
    assert [bool(status) for status in second.status] == [False, True, False]
    exact = 1 / (1 / start - k.detach() * 2.0)
    torch.testing.assert_close(second.value[[0, 2], -1].detach(), exact[[0, 2]], rtol=1e-7, atol=0)
    assert bool(second.value[1].isnan().all())
    (gradient,) = torch.autograd.grad(second.value[[0, 2], -1].sum(), k)
    torch.testing.assert_close(gradient[[0, 2]], (2 * exact**2)[[0, 2]], rtol=1e-6, atol=0)
    assert float(gradient[1]) == 0.0


def test_one_row_goes_on_as_many() -> None:
    """The batch of the second run is that of its parameters."""
    first = sciml.evolve(BLOW_UP, initial=0.1, times=(0.0, 1.0), rtol=1e-9)
    k = torch.tensor([1.0, 2.0], dtype=torch.float64)
    second = sciml.evolve(BLOW_UP, initial=first, times=(1.0, 2.0), parameters={"k": k}, rtol=1e-9)
    torch.testing.assert_close(second.value[:, -1], 1 / (9.0 - k), rtol=1e-7, atol=0)


def test_a_ball_that_bounced_flies_on() -> None:
    """Rows that stopped at the same time go on from there, whatever output times came after."""
    fall = Equation(["h_t = v", "v_t = -9.81"], coordinates=())
    ground = Event(lambda u, t: u[..., 0], direction=-1)
    speeds = torch.tensor([[0.0, 2.0], [0.0, 2.0]], dtype=torch.float64)
    down = sciml.evolve(fall, initial=speeds, times=(0.0, 0.3, 1.0), events=ground)
    stopped_at = down.statistics["stopped_at"]
    torch.testing.assert_close(stopped_at, torch.full((2,), 4.0 / 9.81, dtype=torch.float64))
    moment = float(stopped_at[0])
    on = sciml.evolve(fall, initial=down, times=(moment, moment + 0.1))
    torch.testing.assert_close(on.value[:, -1, 1], torch.full((2,), -2.0 - 0.981, dtype=torch.float64))
    with pytest.raises(InputError, match=r"row 0 .* stopped at an event at time 0\.40774.*, and times begins at 1\.0"):
        sciml.evolve(fall, initial=down, times=(1.0, 2.0))


def test_single_precision_goes_on_in_single_precision() -> None:
    first = sciml.evolve(DECAY, initial=torch.ones(2), times=(0.0, 1.0))
    second = sciml.evolve(DECAY, initial=first, times=(1.0, 2.0))
    assert second.value.dtype == torch.float32
    torch.testing.assert_close(second.value[:, -1], torch.full((2,), math.exp(-2.0)), rtol=1e-3, atol=0)
