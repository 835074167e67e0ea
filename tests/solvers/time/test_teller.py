"""An observer of rows with steps of their own hears of every output, in order, with the values of the result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml import Equation, evolve


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.1, 0.4, 2.0, 9.0)])
@pytest.mark.parametrize("control", ["row", "joint"])
def test_all_outputs_are_told_in_order(times: tuple[float, ...], control: str) -> None:
    equation = Equation("x_tt = mu*(1 - x**2)*x_t - x", parameters={"mu": 1.0}, coordinates=())
    told: list[tuple[int, float, Tensor]] = []
    solution = evolve(
        equation,
        initial={"x": torch.linspace(0.1, 2.0, 5, dtype=torch.float64), "x_t": 0.0},
        parameters={"mu": torch.linspace(0.1, 20.0, 5, dtype=torch.float64)},
        times=times,
        control=control,  # type: ignore[arg-type]
        observer=lambda place, t, value: told.append((place, t, value.clone())),
    )
    assert [place for place, _, _ in told] == list(range(len(times)))
    assert [t for _, t, _ in told] == list(times)
    assert torch.equal(torch.stack([value for _, _, value in told], 1), solution.value)


def test_a_row_that_fails_keeps_nobody_waiting() -> None:
    told: list[Tensor] = []
    solution = evolve(
        Equation("x_t = x**2", coordinates=()),
        initial=torch.tensor([0.1, 2.0], dtype=torch.float64),
        times=(0.0, 0.4, 1.0, 2.0),
        control="row",
        observer=lambda place, t, value: told.append(value.clone()),
        throw=False,
    )
    torch.testing.assert_close(torch.stack(told, 1), solution.value, rtol=0, atol=0, equal_nan=True)
    assert bool(solution.value[1, -1].isnan())
