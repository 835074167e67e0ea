"""The stiffness estimate against the eigenvalues of the Jacobian, where these limit the steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sciml
from sciml import FunctionSystem
from sciml.solvers.time import ExplicitRungeKutta

SIZES = {"tsit5": 3.5068, "dormand_prince": 3.3066}  # |h lambda| of stable steps, on the negative real axis


def largest_eigenvalue(mu: float, u: Tensor) -> Tensor:
    x, v = u.unbind(-1)
    upper = torch.stack((torch.zeros_like(x), torch.ones_like(x)), -1)
    lower = torch.stack((-2 * mu * x * v - 1, mu * (1 - x * x)), -1)
    return torch.linalg.eigvals(torch.stack((upper, lower), -2)).abs().amax(-1)


@pytest.mark.parametrize("name", list(SIZES))
@pytest.mark.parametrize(
    ("mu", "x", "end", "share"),
    [(1.0, 2.0, 20.0, 0.0), (10.0, 2.0, 20.0, 0.25), (100.0, 1.05, 10.0, 0.8), (1000.0, 1.05, 4.0, 0.8)],
    ids=["mu=1", "mu=10", "mu=100", "mu=1000"],
)
def test_van_der_pol(name: str, mu: float, x: float, end: float, share: float) -> None:
    """Of slow motion and a fast passage at least; `share` of the steps are limited by stability, as the true eigenvalue
    says, and there the estimate at the end of a step agrees with it."""

    def rate(u: Tensor, t: float) -> Tensor:
        x, v = u.unbind(-1)
        return torch.stack((v, mu * (1 - x * x) * v - x), -1)

    initial = torch.tensor([x, x / (mu * (1 - x * x))], dtype=torch.float64)  # on the slow manifold
    method = replace(getattr(ExplicitRungeKutta, name)(), record=True)
    starts: list[Tensor] = []
    with torch.no_grad():
        solution = sciml.evolve(
            FunctionSystem(rate, (2,)),
            initial=initial,
            times=(0.0, end),
            method=method,
            rtol=1e-6,
            atol=1e-6,
            step_observer=lambda t, h, y: starts.append(y.clone()),
        )
    accepted = solution.history["accepted"]
    steps, estimates = solution.history["step"][accepted], solution.history["stiffness"][accepted]
    exact = largest_eigenvalue(mu, torch.stack([*starts[1:], solution.value[-1]]))
    relative = steps * exact / SIZES[name]
    assert float(relative.max()) < 1.4
    limited = relative > 0.7
    assert float(limited.double().mean()) >= share
    if not share:
        assert not bool(limited.any())
        return
    ratio = (estimates / exact)[limited]
    assert 0.5 < float(ratio.min()), float(ratio.min())
    assert float(ratio.max()) < 2.0, float(ratio.max())
    assert float((ratio - 1).abs().median()) < 0.01
