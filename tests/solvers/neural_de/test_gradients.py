"""Gradients of solutions, error estimates and stiffness estimates against differences, the steps held as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sciml
from sciml import FunctionSystem
from sciml.solvers.time import ExplicitRungeKutta
from sciml.solvers.time.march import integrate
from sciml.solvers.time.trajectory import Task

TOLERANCES = {"rtol": 1e-3, "atol": 1e-4}
END = 2.0


class Network(nn.Module):
    """A turning network whose rate changes with time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(3, 12, dtype=torch.float64), nn.Linear(12, 3, dtype=torch.float64)
        with torch.no_grad():
            self.first.weight *= 3

    def forward(self, u: Tensor, t: Any) -> Tensor:
        clock = torch.as_tensor(t, dtype=u.dtype)
        return 4 * self.second(torch.tanh(self.first(u))) * torch.cos(3 * clock)[..., None]


QUANTITIES = ("value", "error", "stiffness")
METHODS = {
    "tsit5": ExplicitRungeKutta.tsit5(),
    "dormand_prince": ExplicitRungeKutta.dormand_prince(),
    "bogacki_shampine": ExplicitRungeKutta.bogacki_shampine(),
    "prince_dormand": ExplicitRungeKutta.prince_dormand(),
    "heun": ExplicitRungeKutta.heun(),
}


def weighted(numbers: Tensor) -> Tensor:
    """A sum in which no two entries count alike."""
    return (numbers * torch.linspace(0.5, 1.5, numbers.numel(), dtype=numbers.dtype).reshape(numbers.shape)).sum()


def losses(value: Tensor, history: dict[str, Tensor], steps: Tensor) -> dict[str, Tensor]:
    """One number each of a row, from its state at the end and from its steps, times their sizes as regularizers have
    them."""
    found = {"value": weighted(value)}
    for name in ("error", "stiffness"):
        if name in history:
            found[name] = weighted(history[name] * steps)
    return found


def differences(function: Callable[[], dict[str, float]], shift: Callable[[float], None]) -> dict[str, float]:
    """Derivatives by central differences of order 4, where `shift` moves what the function depends on."""
    width = 1e-4
    found: dict[str, float] = {}
    for place, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
        shift(place * width)
        for name, number in function().items():
            found[name] = found.get(name, 0.0) + weight * number / (12 * width)
        shift(-place * width)
    return found


def along_grids(
    method: ExplicitRungeKutta, network: Network, initial: Tensor, grids: Sequence[tuple[float, ...]]
) -> dict[str, float]:
    """The losses of all rows, each with one step from every time of its grid to the next."""
    found = dict.fromkeys(QUANTITIES, 0.0)
    for row, grid in zip(initial, grids, strict=True):
        task = Task(grid, step=END, **TOLERANCES)
        with torch.no_grad():
            one = integrate(replace(method, record=True), FunctionSystem(network, (3,)), row, task)
        assert len(one.history["step"]) == len(grid) - 1
        for name, number in losses(one.states[-1], one.history, one.history["step"]).items():
            found[name] += float(number)
    return found


@pytest.mark.parametrize(
    ("name", "control"), [*((name, "joint") for name in METHODS), ("tsit5", "row"), ("dormand_prince", "row")]
)
def test_gradients_against_differences_on_the_same_steps(name: str, control: Any) -> None:
    """To 1e-6 of the derivative along random directions of the parameters and of the initial state."""
    method = METHODS[name]
    network = Network()
    generator = torch.Generator().manual_seed(4)
    initial = torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    solution = sciml.evolve(
        FunctionSystem(network, (3,)),
        initial=initial,
        times=(0.0, END),
        method=replace(method, record=True),
        control=control,
        **TOLERANCES,
    )
    assert int(solution.statistics["steps"].min()) > 3
    grids, parts = [], []
    for row in range(2):
        accepted = solution.history["accepted"][:, row]
        history = {key: column[accepted, row] for key, column in solution.history.items()}
        grids.append((*history["time"].tolist(), END))
        parts.append(losses(solution.value[row, -1], history, history["step"]))
    totals = {key: parts[0][key] + parts[1][key] for key in parts[0]}
    assert set(totals) == set(QUANTITIES) - (set() if method.tableau.equal else {"stiffness"})
    again = along_grids(method, network, initial.detach(), grids)
    for key, total in totals.items():
        assert again[key] == pytest.approx(float(total.detach()), rel=1e-9), key
    tensors = [initial, *network.parameters()]
    of = {
        key: torch.autograd.grad(total, tensors, retain_graph=True, allow_unused=True) for key, total in totals.items()
    }
    for place in range(len(tensors)):
        tensor = tensors[place]
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()

        def shift(width: float, tensor: Tensor = tensor, direction: Tensor = direction) -> None:
            with torch.no_grad():
                tensor.add_(direction, alpha=width)

        expected = differences(lambda: along_grids(method, network, initial.detach(), grids), shift)
        for key, gradient in of.items():
            size = float(gradient[place].norm())
            assert float((gradient[place] * direction).sum()) == pytest.approx(expected[key], abs=1e-6 * size), (
                key,
                place,
            )
