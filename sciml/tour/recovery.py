"""Section: the gradient of a solve, used to find a coefficient from noisy measurements."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.solve import solve

from ..benchmarks.linear.problems import gaussian_field
from ..boundary import Dirichlet
from ..equations import Equation
from ..grid import Grid
from . import figures
from .chapter import Chapter, Section

WELLS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
POINTS = 200
Data = tuple[Tensor, ...]


def predict(log_a: Tensor, f: Tensor, points: Tensor) -> Tensor:
    equation = Equation("-div(a*grad(u)) = f")
    square = Grid(tuple(log_a.shape), boundary=Dirichlet(0.0))
    fields = {"a": log_a.exp(), "f": f}
    return solve(equation, square, fields=fields, rtol=1e-10).at(points)


def objective(log_a: Tensor, data: Data) -> Tensor:
    f, points, measured, noise = data
    misfit = ((predict(log_a, f, points) - measured) / noise).square().mean()
    slopes = [log_a.diff(dim=axis).square().sum() for axis in (0, 1)]
    return misfit + 0.01 * (slopes[0] + slopes[1])


def recover(data: Data, cells: int, steps: int) -> tuple[Tensor, list[float]]:
    log_a = torch.zeros(cells, cells, dtype=torch.float64, requires_grad=True)
    wolfe = "strong_wolfe"
    descent = torch.optim.LBFGS([log_a], max_iter=steps, line_search_fn=wolfe)
    losses = []

    def closure() -> Tensor:
        descent.zero_grad()
        loss = objective(log_a, data)
        loss.backward()
        losses.append(loss.item())
        return loss

    descent.step(closure)
    return log_a.detach(), losses


def write(chapter: Chapter, quick: bool) -> None:
    cells, steps = 64, 15 if quick else 40
    generator = torch.Generator().manual_seed(7)
    square = Grid((cells, cells))
    truth = gaussian_field((cells, cells), seed=7, shift=25.0, power=2.5)
    truth /= truth.std()
    x, y = square.coordinates
    f = torch.stack([100 * torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.02) for a, b in WELLS])
    points = 0.03 + 0.94 * torch.rand(POINTS, 2, generator=generator, dtype=torch.float64)
    clean = predict(truth, f, points)
    noise = 0.01 * clean.abs().max()
    measured = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    data = (f, points, measured, noise)
    found, losses = recover(data, cells, steps)

    error = float(torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth))
    correlation = float(torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1])
    misfit = float(((predict(found, f, points) - measured) / noise).square().mean().sqrt())
    slope, quotient = _check_gradient(data, truth, generator)
    agreement = abs(slope - quotient) / abs(quotient)

    chapter.say(
        f"A solve can be differentiated: with respect to right side, coefficients and boundary values. Here that finds "
        f"a permeability field. Four experiments inject fluid at four wells; in each the pressure is measured at the "
        f"same {POINTS} points, with noise of 1 percent of its largest value. The unknowns are the logarithms of a in "
        f"{cells * cells:,} cells, {cells * cells / (POINTS * len(WELLS)):.0f} times as many as there are "
        "measurements, so that a penalty on roughness decides where they are silent. The four experiments are a "
        "batch: one operator, four right sides."
    )
    chapter.code(predict, objective, recover)
    low, high = float(truth.exp().min()), float(truth.exp().max())
    options: dict[str, Any] = {"limits": (low, high), "logarithmic": True, "ticks": (0.3, 1.0, 3.0)}
    chapter.pictures(
        "The coefficient that made the data, with the points of measurement and the wells (triangles), and the one "
        "that was found, in the same logarithmic colours. The search began with a = 1 everywhere.",
        (_truth_figure(square, truth, points, options), "map of the true coefficient with points of measurement"),
        (
            figures.map_figure(square, found.exp(), 4.0, title="a, recovered", **options),
            "map of the recovered coefficient, a smoother copy of the true one",
        ),
    )
    chapter.pictures(
        f"The objective in {len(losses)} evaluations by L-BFGS, each one batched solve and one batched adjoint solve.",
        (
            figures.history_figure(
                {"objective": torch.tensor(losses)}, figures.HALF, 2.5, label="evaluation", ordinate="objective"
            ),
            "the objective falls steeply at first and levels off",
        ),
    )
    chapter.facts(
        {
            "error of log a": f"{error:.0%} of its norm, from 100%",
            "correlation": f"{correlation:.3f}",
            "misfit": f"{misfit:.2f} standard deviations",
            "objective": f"{losses[0]:.1f} to {min(losses):.2f}",
        }
    )
    chapter.claim(
        f"The slope of the objective along a random direction, by the adjoint solve {slope:.9f}, by central "
        f"differences {quotient:.9f}: relative difference {agreement:.1e}.",
        agreement <= 1e-5,
    )
    chapter.claim(f"The error of log a fell to {error:.0%} of what it was.", error <= 0.5)
    chapter.claim(
        f"The prediction fits the data to within their noise: {misfit:.2f} standard deviations.", misfit <= 1.2
    )
    chapter.headline = (
        f"{cells * cells:,} cells of a coefficient from {POINTS * len(WELLS)} noisy values, error {error:.0%}"
    )
    chapter.numbers = {
        "error": error,
        "correlation": correlation,
        "misfit": misfit,
        "losses": losses,
        "gradient_agreement": agreement,
    }


def _check_gradient(data: Data, at: Tensor, generator: torch.Generator, step: float = 1e-4) -> tuple[float, float]:
    """The derivative of the objective along a random direction, by the adjoint and by a difference quotient."""
    direction = torch.randn(at.shape, generator=generator, dtype=torch.float64)
    place = (0.5 * at).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(place, data), place)
    with torch.no_grad():
        above, below = (objective(place + sign * step * direction, data) for sign in (1, -1))
    return float((gradient * direction).sum()), float((above - below) / (2 * step))


def _truth_figure(square: Grid, truth: Tensor, points: Tensor, options: dict[str, Any]) -> Figure:
    figure = figures.map_figure(square, truth.exp(), 4.0, title="a, true", **options)
    axes = figure.axes[0]
    axes.plot(*points.T, ".", color="white", markersize=4.5, markeredgewidth=0.4, markeredgecolor="#101010")
    axes.plot(*zip(*WELLS, strict=True), "^", color="white", markersize=6.5, markeredgecolor="#101010")
    return figure


SECTION = Section("recovery", "A coefficient recovered through the gradient of a solve", write)
