"""Section: the gradient of a solve, used to find a coefficient from noisy measurements."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.solve import solve

from ..boundary import Dirichlet
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section
from .random_fields import gaussian_field

NOISE = 0.01
SMOOTHNESS = 3e-3


def solve_darcy(log_a: Tensor, f: Tensor) -> Solution:
    equation = Equation("-div(a*grad(u)) = f")
    square = Grid(tuple(log_a.shape), boundary=Dirichlet(0.0))
    return solve(equation, square, fields={"a": log_a.exp(), "f": f}, rtol=1e-10)


def misfit(log_a: Tensor, f: Tensor, points: Tensor, measured: Tensor) -> Tensor:
    predicted = solve_darcy(log_a, f).at(points)
    roughness = log_a.diff(dim=0).square().sum() + log_a.diff(dim=1).square().sum()
    return ((predicted - measured) / NOISE).square().mean() + SMOOTHNESS * roughness


def recover(start: Tensor, f: Tensor, points: Tensor, measured: Tensor, steps: int) -> tuple[Tensor, list[float]]:
    log_a, losses = start.clone().requires_grad_(), []
    descent = torch.optim.LBFGS([log_a], max_iter=steps, max_eval=2 * steps, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        loss = misfit(log_a, f, points, measured)
        loss.backward()
        losses.append(loss.item())
        return loss

    descent.step(closure)
    return log_a.detach(), losses
