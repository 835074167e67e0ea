"""What is recorded of an evolution on the way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml import Equation, Grid, Neumann, Periodic, Solution, Status, discretize, evolve, long_runs
from sciml.long_runs import Record
from sciml.solvers.time import Event, ExplicitRungeKutta, ImplicitRungeKutta

HEAT = Equation("u_t = laplacian(u)")
TIMES = (0.0, 0.05, 0.3, 1.0)
CLOSED, RING = Grid(8, boundary=Neumann(0.0)), Grid(8, upper=math.tau, boundary=Periodic())


def record_of(system: Any, times: tuple[float, ...] = TIMES) -> Record:
    return Record(system, times, "", None, lambda place, t: None)


@pytest.mark.parametrize(
    ("grid", "how"),
    [
        (CLOSED, {}),
        (CLOSED, {"method": ExplicitRungeKutta.rk4(), "step": 1e-3}),
        (CLOSED, {"method": ExplicitRungeKutta.prince_dormand()}),
        (CLOSED, {"method": ImplicitRungeKutta.kvaerno5()}),
        (CLOSED, {"control": "row"}),
        (CLOSED, {"events": Event(lambda u, t: u[..., 0] - 0.5)}),
        (RING, {}),
        (RING, {"step": 0.01}),
    ],
)
def test_what_was_told_is_the_result_to_the_last_bit(grid: Grid, how: dict[str, Any]) -> None:
    """Nothing is copied, and what has been told does not change any more."""
    system = discretize(HEAT, grid)
    record = record_of(system)
    start = torch.stack([torch.linspace(0.0, k, 8, dtype=torch.float64) for k in (1, 2, 3)])
    solution = evolve(system, initial=start, times=TIMES, observer=record, **how)
    assert record.times == tuple(solution.times.tolist())  # type: ignore[union-attr]
    assert torch.equal(record.solution("ended").value, solution.value)


def test_values_are_not_copied() -> None:
    record = record_of(discretize(HEAT, CLOSED))
    value = torch.ones(8, dtype=torch.float64, requires_grad=True)
    record(0, 0.0, value)
    assert record.values[0].data_ptr() == value.data_ptr()
    assert not record.values[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_values_are_finite(dtype: torch.dtype) -> None:
    """Though their sum is not; NaN and infinities of both signs are found."""
    record = record_of(discretize(HEAT, Grid(8, boundary=Neumann(0.0), dtype=dtype)))
    value = torch.full((4, 8), 0.9 * torch.finfo(dtype).max, dtype=dtype)
    value[1, 3], value[2, 5], value[3, 1], value[3, 2] = math.nan, math.inf, math.inf, -math.inf
    record(0, 0.0, value)
    failed = int(Status.NON_FINITE)
    assert record.solution("ended").codes.tolist() == [0, failed, failed, failed]


def test_numbers_without_space() -> None:
    record = record_of(discretize(Equation("u_t = -u", coordinates=())), (0.0, 1.0, 2.0))
    for place in range(2):
        record(place, float(place), torch.tensor([1.0, math.nan][: 2 - place] + [0.0] * place, dtype=torch.float64))
    found = record.solution("ended early")
    assert found.value.shape == (2, 2)
    assert found.codes.tolist() == [0, 0]
    assert found.notes[-1] == "ended early: ends at t = 1 of 2, with 2 of 3 times"


def test_no_file_holds_the_initial_state_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_runs, "SAVE_EVERY", 0.0)
    path = tmp_path / "part.h5"
    record = Record(discretize(HEAT, CLOSED), TIMES, "", path, lambda place, t: None)
    value = torch.ones(8, dtype=torch.float64)
    record(0, 0.0, value)
    assert not path.exists()
    record(1, 0.05, 2 * value)
    solution = Solution.load(path)
    assert torch.equal(solution.value, torch.stack((value, 2 * value)))
    assert solution.notes[-1] == "still running when this was written: ends at t = 0.05 of 1, with 2 of 4 times"


def test_rows_that_were_lost_on_the_way() -> None:
    system = discretize(Equation("u_t = u**2", coordinates=()))
    record = record_of(system, (0.0, 0.5))
    start = torch.tensor([0.5, 10.0], dtype=torch.float64)
    solution = evolve(system, initial=start, times=(0.0, 0.5), observer=record, throw=False)
    found = record.solution("ended")
    assert found.codes.tolist() == [0, int(Status.NON_FINITE)]
    assert torch.equal(found.value[0], solution.value[0])
    assert float(found.value[0, -1]) == pytest.approx(1 / (2 - 0.5), rel=1e-6)
    assert bool(found.value[1, -1].isnan())
