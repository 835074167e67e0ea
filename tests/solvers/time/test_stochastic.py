"""Stochastic methods in the loop over steps, against solutions that are known path by path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy
import pytest
import torch
import torchsde
from torch import Tensor, nn

import sciml
from sciml import FunctionSystem, InputError, SolveError, Status, StochasticSystem
from sciml.solvers.time import (
    BrownianPath,
    Controller,
    EulerMaruyama,
    Event,
    ExplicitRungeKutta,
    Milstein,
    StochasticRungeKutta,
)
from sciml.solvers.time.stochastic import StochasticIntegrator
from sciml.solvers.time.stochastic_tableau import SOSRI, SOSRI2, SRIW1, StochasticTableau

SOSRI2_METHOD = StochasticRungeKutta.sosri2()
ADAPTIVE = [StochasticRungeKutta.sriw1(), StochasticRungeKutta.sosri(), SOSRI2_METHOD]
Function = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Problem:
    """A system, and its solution at time 1 from W there."""

    drift: Function
    diffusion: Function
    initial: tuple[float, float]
    exact: Callable[[Tensor], Tensor]
    calculus: str = "ito"

    def system(self, path: object) -> StochasticSystem:
        return StochasticSystem(self.drift, self.diffusion, (2,), path=path, calculus=self.calculus)  # type: ignore[arg-type]

    def start(self) -> Tensor:
        return torch.tensor(self.initial, dtype=torch.float64)


def tangent(w: Tensor) -> Tensor:
    """Kloeden and Platen (1992), section 4.4."""
    return torch.atan(w + torch.tan(torch.tensor([0.0, 0.5])))


GEOMETRIC = Problem(
    lambda u, t: 0.5 * u,
    lambda u, t: 0.8 * u,
    (1.0, 2.0),
    lambda w: torch.tensor([1.0, 2.0]) * torch.exp(0.18 + 0.8 * w),
)
TANGENT = Problem(lambda u, t: -torch.sin(u) * torch.cos(u) ** 3, lambda u, t: torch.cos(u) ** 2, (0.0, 0.5), tangent)
MOVING = Problem(
    lambda u, t: (u - t * t) / (1 + t) + 2 * t, lambda u, t: 1 + t + 0 * u, (0.0, 0.0), lambda w: 1 + 2 * w
)
STRATONOVICH = [
    Problem(lambda u, t: 0.5 * u, lambda u, t: 0.8 * u, (1.0, 1.0), lambda w: torch.exp(0.5 + 0.8 * w), "stratonovich"),
    Problem(lambda u, t: 0 * u, lambda u, t: torch.cos(u) ** 2, (0.0, 0.5), tangent, "stratonovich"),
]


def evolve(
    problem: Problem, method: StochasticIntegrator | None, path: BrownianPath, **options: object
) -> sciml.Solution:
    with torch.no_grad():
        return sciml.evolve(problem.system(path), initial=problem.start(), times=(0.0, 1.0), method=method, **options)  # type: ignore[arg-type]


def root_mean_square(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def error(problem: Problem, path: BrownianPath, solution: sciml.Solution) -> float:
    return root_mean_square(solution.value[:, -1] - problem.exact(path.increments(0.0, 1.0)[0]))


# Tableaus


@pytest.mark.parametrize("tableau", [SRIW1, SOSRI, SOSRI2], ids=lambda tableau: tableau.name)
def test_order_conditions(tableau: StochasticTableau) -> None:
    """Rößler (2010): 25 conditions for strong order 3/2, and those of c."""

    def square(rows: tuple[tuple[float, ...], ...]) -> numpy.ndarray:
        return numpy.array([[*row, *[0.0] * (tableau.stages - len(row))] for row in rows])

    a0, b0, a1, b1 = map(square, (tableau.a_drift, tableau.b_drift, tableau.a_noise, tableau.b_noise))
    alpha, beta, one = numpy.array(tableau.alpha), numpy.array(tableau.beta), numpy.ones(tableau.stages)
    conditions = [
        alpha @ one - 1,
        *(beta @ one - [1, 0, 0, 0]),
        *(beta @ b1 @ one - [0, 1, 0, 0]),
        alpha @ a0 @ one - 1 / 2,
        alpha @ b0 @ one - 1,
        alpha @ (b0 @ one) ** 2 - 3 / 2,
        *(beta @ a1 @ one - [1, 0, -1, 0]),
        *(beta @ (b1 @ one) ** 2 - [1, 0, -1, 2]),
        *(beta @ b1 @ b1 @ one - [0, 0, 0, 1]),
        beta[0] @ a1 @ b0 @ one / 2 + beta[2] @ a1 @ b0 @ one / 3,
    ]
    assert len(conditions) == 25
    assert numpy.abs(conditions).max() < 1e-12
    numpy.testing.assert_allclose(tableau.c_drift, a0 @ one, atol=1e-15)
    if tableau.equal is not None:
        first, last = tableau.equal
        assert abs(tableau.c_drift[first] - tableau.c_drift[last]) < 1e-15
    else:
        assert tableau is not SOSRI2


# Orders


@pytest.mark.parametrize(
    ("method", "problem", "order"),
    [
        (EulerMaruyama(), GEOMETRIC, 0.5),
        (EulerMaruyama(), TANGENT, 0.5),
        (Milstein(), GEOMETRIC, 1.0),
        (Milstein(), TANGENT, 1.0),
        (Milstein(), STRATONOVICH[0], 1.0),
        (Milstein(), STRATONOVICH[1], 1.0),
        *((method, problem, 1.5) for method in ADAPTIVE for problem in (GEOMETRIC, TANGENT)),
    ],
    ids=lambda x: x.describe().partition(",")[0] if isinstance(x, StochasticIntegrator) else "",
)
def test_strong_order(method: StochasticIntegrator, problem: Problem, order: float) -> None:
    path = BrownianPath([k / 256 for k in range(257)], (400, 2), seed=1)
    steps = [16, 32, 64, 128, 256]
    errors = [error(problem, path, evolve(problem, method, path, step=1 / n)) for n in steps]
    slope = numpy.polyfit(numpy.log(steps), numpy.log(errors), 1)[0]
    assert abs(-slope - order) < (0.2 if order == 1.5 else 0.15)


@pytest.mark.parametrize("method", ADAPTIVE, ids=lambda method: method.tableau.name)
def test_times_of_the_stages(method: StochasticRungeKutta) -> None:
    path = BrownianPath([k / 128 for k in range(129)], (200, 2), seed=1)
    steps = [16, 32, 64, 128]
    errors = [error(MOVING, path, evolve(MOVING, method, path, step=1 / n)) for n in steps]
    slope = -numpy.polyfit(numpy.log(steps), numpy.log(errors), 1)[0]
    assert slope > 1.3, errors


def test_both_calculi_agree_where_entries_depend_on_each_other() -> None:
    """Without commuting noise the order is 1/2, and the limit is the same: in Ito's calculus with the drift that the
    diagonal of the diffusion's derivative adds."""

    def diffusion(u: Tensor, t: float) -> Tensor:
        return 0.5 * torch.sin(u) + 0.3 * u.flip(-1)

    def drift(u: Tensor, t: float) -> Tensor:
        return -u

    def corrected(u: Tensor, t: float) -> Tensor:
        return drift(u, t) + 0.5 * diffusion(u, t) * 0.5 * torch.cos(u)

    found = {}
    for n in (32, 512):
        path = BrownianPath([k / 512 for k in range(513)], (100, 2), seed=2)
        one = StochasticSystem(drift, diffusion, (2,), path=path, calculus="stratonovich")
        other = StochasticSystem(corrected, diffusion, (2,), path=path)
        with torch.no_grad():
            ends = [
                sciml.evolve(system, initial=torch.ones(2).double(), times=(0.0, 1.0), method=method, step=1 / n).value
                for system, method in ((one, Milstein()), (other, SOSRI2_METHOD), (other, Milstein()))
            ]
        found[n] = [root_mean_square((end - ends[0])[:, -1]) for end in ends[1:]]
    assert max(found[512]) < 0.015
    assert all(fine < coarse / 2.5 for fine, coarse in zip(found[512], found[32], strict=True))


# Adaptive steps


@pytest.mark.parametrize("problem", [GEOMETRIC, TANGENT], ids=["geometric", "tangent"])
@pytest.mark.parametrize("method", ADAPTIVE, ids=lambda method: method.tableau.name)
def test_errors_fall_with_the_tolerance(method: StochasticRungeKutta, problem: Problem) -> None:
    path = BrownianPath((0.0, 1.0), (20, 2), seed=3)
    errors = []
    for tolerance in (1e-1, 1e-2, 1e-3):
        solution = evolve(problem, method, path, rtol=tolerance, atol=tolerance)
        errors.append(error(problem, path, solution))
        assert errors[-1] < 2 * tolerance
    assert errors[2] < errors[1] / 3 < errors[0] / 3


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("problem", [GEOMETRIC, TANGENT, MOVING], ids=["geometric", "tangent", "moving"])
def test_first_step_is_a_good_guess(problem: Problem, tolerance: float) -> None:
    path = BrownianPath((0.0, 1.0), (40, 2), seed=3)
    with torch.no_grad():
        solution = sciml.evolve(
            problem.system(path),
            initial=problem.start(),
            times=(0.0, 20 * tolerance if tolerance < 0.01 else 1.0),
            method=replace(SOSRI2_METHOD, record=True),
            rtol=tolerance,
            atol=tolerance,
        )
    assert 0.003 < float(solution.history["error"][0].max()) < 1.0


def test_rejected_steps_leave_the_path_as_it_is() -> None:
    path = BrownianPath((0.0, 1.0), (20, 2), seed=4)
    hasty = replace(SOSRI2_METHOD, controller=Controller(first_step=0.5, largest=5.0))
    one = evolve(TANGENT, hasty, path, rtol=1e-3, atol=1e-3)
    assert int(one.statistics["rejected"].max()) > 5
    fine = BrownianPath((0.0, 1.0), (20, 2), seed=4)
    other = evolve(TANGENT, SOSRI2_METHOD, fine, step=1 / 512)
    assert int(other.statistics["steps"].max()) > 3 * int(one.statistics["steps"].max())
    assert root_mean_square((one.value - other.value)[:, -1]) < 2e-3
    assert error(TANGENT, fine, other) < 1e-4
    again = evolve(TANGENT, hasty, BrownianPath((0.0, 1.0), (20, 2), seed=4), rtol=1e-3, atol=1e-3)
    assert torch.equal(again.value, one.value)
    assert torch.equal(again.history["step"], one.history["step"])


def test_a_controller_has_the_usual_growth_of_the_method_where_it_says_nothing_else() -> None:
    def largest_growth(controller: Controller) -> float:
        path = BrownianPath((0.0, 1.0), (20, 2), seed=4)
        method = replace(SOSRI2_METHOD, controller=controller)
        steps = evolve(TANGENT, method, path, rtol=1e-2, atol=1e-2).history["step"][:, 0]
        return float((steps[1:] / steps[:-1]).max())

    first = 1e-4
    assert largest_growth(Controller(first_step=first, rows="mean")) == pytest.approx(9 / 8)
    assert largest_growth(Controller(first_step=first, rows="mean", largest=3.0)) == pytest.approx(3.0)


def test_steps_end_on_output_times() -> None:
    path = BrownianPath((0.0, 1.0), (5, 2), seed=4)
    times = (0.0, 0.1, 1 / 3, 0.7, 1.0)
    with torch.no_grad():
        solution = sciml.evolve(GEOMETRIC.system(path), initial=GEOMETRIC.start(), times=times, rtol=1e-3, atol=1e-3)
    for place, time in enumerate(times[1:], 1):
        w = path.increments(0.0, time)[0]
        exact = GEOMETRIC.start() * torch.exp(0.18 * time + 0.8 * w)
        torch.testing.assert_close(solution.value[:, place], exact, rtol=2e-3, atol=0.0)
    ends = (solution.history["time"] + solution.history["step"])[:, 0]
    assert all(float((ends - time).abs().min()) < 1e-15 for time in times[1:])


def test_counts() -> None:
    path = BrownianPath((0.0, 1.0), (3, 2), seed=4)
    for method, drifts, diffusions in (
        (SOSRI2_METHOD, 4, 4),
        (StochasticRungeKutta.sriw1(), 2, 4),
        (Milstein(), 1, 1),
        (EulerMaruyama(), 1, 1),
    ):
        statistics = evolve(GEOMETRIC, method, path, step=1 / 8).statistics
        assert statistics["evaluations"].tolist() == [8 * drifts] * 3
        assert statistics["diffusion_evaluations"].tolist() == [8 * diffusions] * 3
    statistics = evolve(GEOMETRIC, SOSRI2_METHOD, path, rtol=1e-2, atol=1e-2).statistics
    tried = statistics["steps"] + statistics["rejected"]
    assert torch.equal(statistics["evaluations"], 4 * tried + 2)
    assert torch.equal(statistics["diffusion_evaluations"], 4 * tried + 2)


# What comes with a step


def test_stiffness_is_the_rate_of_a_linear_drift() -> None:
    path = BrownianPath((0.0, 1.0), (3, 2), seed=4)
    system = StochasticSystem(lambda u, t: -40.0 * u, lambda u, t: 0.1 * u, (2,), path=path)
    with torch.no_grad():
        solution = sciml.evolve(
            system,
            initial=torch.ones(2).double(),
            times=(0.0, 1.0),
            method=replace(SOSRI2_METHOD, record=True),
            rtol=1e-2,
        )
    found = solution.history["stiffness"]
    assert found.shape == solution.history["error"].shape == solution.history["step"].shape
    torch.testing.assert_close(found, torch.full_like(found, 40.0), rtol=1e-9, atol=0.0)


class Drift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(2, 2, generator=generator, dtype=torch.float64))
        self.spread = nn.Parameter(torch.tensor([0.3, 0.6], dtype=torch.float64))

    def forward(self, u: Tensor, t: float) -> Tensor:
        return torch.tanh(u @ self.weight) * (1 + t) - u

    def diffusion(self, u: Tensor, t: float) -> Tensor:
        return self.spread * torch.cos(u)


def recorded(method: StochasticRungeKutta, drift: Drift, path: BrownianPath, **options: object) -> sciml.Solution:
    system = StochasticSystem(drift, drift.diffusion, (2,), path=path)
    start = torch.tensor([1.0, -0.5], dtype=torch.float64)
    return sciml.evolve(system, initial=start, times=(0.0, 0.4, 1.0), method=method, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ADAPTIVE, ids=lambda method: method.tableau.name)
def test_gradients_are_those_of_the_recorded_steps(method: StochasticRungeKutta) -> None:
    """Of the final state, of the error ratios and of stiffness, against central differences on the same steps."""
    method = replace(method, record=True)
    drift, path = Drift(), BrownianPath((0.0, 1.0), (4, 2), seed=6)
    solution = recorded(method, drift, path, rtol=1e-2, atol=1e-2)
    accepted = solution.history["accepted"][:, 0]
    grid = [
        (float(t), float(h))
        for t, h in zip(solution.history["time"][accepted, 0], solution.history["step"][accepted, 0], strict=True)
    ]
    assert 8 < len(grid) < 100

    def totals() -> list[Tensor]:
        """The same quantities of the steps of this grid."""
        system = StochasticSystem(drift, drift.diffusion, (2,), path=path)
        stepper = method.stepper(system)
        y = torch.tensor([1.0, -0.5], dtype=torch.float64).expand(4, 2).contiguous()
        errors, rates = torch.zeros(4).double(), torch.zeros(4).double()
        for t, h in grid:
            attempt = stepper.step(y, t, h, None)
            assert attempt.error is not None
            errors = errors + h * system.error_ratio(attempt.error, y, attempt.value, 1e-2, 1e-2)
            if attempt.stiffness is not None:
                rates = rates + h * attempt.stiffness
            y = attempt.value
        return [y.square().sum(), errors.sum(), rates.sum()]

    sizes = solution.history["step"][accepted]
    found = [solution.value[:, -1].square().sum(), (sizes * solution.history["error"][accepted]).sum()]
    if method.tableau.equal is not None:
        found.append((sizes * solution.history["stiffness"][accepted]).sum())
    with torch.no_grad():
        expected = totals()
    for one, other in zip(found, expected, strict=False):
        assert float((one - other).detach().abs()) < 1e-12 * float(other)
    computed = [torch.autograd.grad(quantity, list(drift.parameters()), retain_graph=True) for quantity in found]
    for place, gradients in enumerate(computed):
        for parameter, gradient in zip(drift.parameters(), gradients, strict=True):
            flat = parameter.detach().view(-1)
            for entry in range(len(flat)):
                value, width = float(flat[entry]), 1e-4
                sides = []
                for factor in (-2, -1, 1, 2):
                    flat[entry] = value + factor * width
                    with torch.no_grad():
                        sides.append(float(totals()[place]))
                flat[entry] = value
                difference = (sides[0] - 8 * sides[1] + 8 * sides[2] - sides[3]) / (12 * width)
                assert abs(float(gradient.view(-1)[entry]) - difference) < 1e-6 * float(gradient.abs().max())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (replace(SOSRI2_METHOD, record=True), {"rtol": 1e-2, "atol": 1e-2}),
        (SOSRI2_METHOD, {"rtol": 1e-2, "atol": 1e-2}),
        (SOSRI2_METHOD, {"step": 0.02}),
        (Milstein(), {"step": 0.02}),
        (EulerMaruyama(), {"step": 0.02}),
    ],
    ids=["SOSRI2, recorded", "SOSRI2", "SOSRI2, fixed", "Milstein", "Euler-Maruyama"],
)
def test_checkpointed_is_recorded(method: StochasticRungeKutta, options: dict[str, float]) -> None:
    found = []
    for gradient in ("recorded", "checkpointed"):
        drift = Drift()
        solution = recorded(method, drift, BrownianPath((0.0, 1.0), (4, 2), seed=6), gradient=gradient, **options)
        loss = solution.value.square().sum()
        if method.describe().startswith("SOSRI2") and method.record:
            loss = loss + (solution.history["step"] * (solution.history["error"] + solution.history["stiffness"])).sum()
        loss.backward()
        found.append((solution.value.detach(), [p.grad for p in drift.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", [SOSRI2_METHOD, Milstein(), EulerMaruyama()], ids=lambda method: method.describe())
def test_forward_mode_agrees_with_backward(method: StochasticIntegrator) -> None:
    path = BrownianPath((0.0, 1.0), (4, 2), seed=6)
    start, direction = torch.tensor([1.0, -0.5]).double(), torch.tensor([0.3, 0.7]).double()

    def end(initial: Tensor) -> Tensor:
        return sciml.evolve(TANGENT_LIKE.system(path), initial=initial, times=(0.0, 1.0), method=method, step=0.1).value

    forward = torch.func.jvp(end, (start,), (direction,))[1]
    width = 1e-5
    with torch.no_grad():
        difference = (end(start + width * direction) - end(start - width * direction)) / (2 * width)
    torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-8)
    start.requires_grad_()
    weights = torch.linspace(-1, 1, forward.numel(), dtype=torch.float64).reshape(forward.shape)
    (gradient,) = torch.autograd.grad((end(start) * weights).sum(), start)
    torch.testing.assert_close(gradient @ direction, (forward * weights).sum(), rtol=1e-10, atol=0.0)


TANGENT_LIKE = Problem(lambda u, t: -torch.sin(u), lambda u, t: 0.5 * torch.cos(u), (1.0, 1.0), tangent)


def test_float32() -> None:
    ends = []
    for dtype in (torch.float32, torch.float64):
        path = BrownianPath([k / 32 for k in range(33)], (20, 2), seed=6, dtype=dtype)
        with torch.no_grad():
            solution = sciml.evolve(
                TANGENT.system(path), initial=torch.zeros(2, dtype=dtype), times=(0.0, 1.0), step=1 / 32
            )
        assert solution.value.dtype == dtype
        ends.append(solution.value[:, -1].double())
    assert float((ends[0] - ends[1]).abs().max()) < 1e-5


def test_rows_may_share_their_noise() -> None:
    path = BrownianPath((0.0, 1.0), (2,), seed=6)
    start = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]).double()
    with torch.no_grad():
        solution = sciml.evolve(GEOMETRIC.system(path), initial=start, times=(0.0, 1.0), step=1 / 64)
    exact = start * torch.exp(0.18 + 0.8 * path.increments(0.0, 1.0)[0])
    torch.testing.assert_close(solution.value[:, -1], exact, rtol=1e-2, atol=0.0)
    assert torch.equal(solution.value[0], solution.value[2])


def test_events_are_found_without_gradients() -> None:
    path = BrownianPath((0.0, 1.0), (30, 2), seed=6)
    system = GEOMETRIC.system(path)
    event = Event(lambda u, t: u[..., 0] - 1.5, stop=True)
    with torch.no_grad():
        solution = sciml.evolve(system, initial=torch.ones(2).double(), times=(0.0, 1.0), events=event, step=1 / 64)
    times = solution.events[0]["time"]
    stopped = times.isfinite()
    assert 5 < int(stopped.sum()) < 30
    torch.testing.assert_close(solution.value[stopped, -1, 0], torch.full((int(stopped.sum()),), 1.5).double())
    with pytest.raises(InputError, match="have no derivatives: take"):
        sciml.evolve(system, initial=torch.ones(2).double(), times=(0.0, 1.0), events=event, step=1 / 64)


# torchsde


class Peer:
    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return TANGENT.drift(y, t)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return TANGENT.diffusion(y, t)


@pytest.mark.parametrize(("name", "method"), [("euler", EulerMaruyama()), ("milstein", Milstein())])
def test_torchsde_takes_the_same_steps(name: str, method: StochasticIntegrator) -> None:
    brownian = torchsde.BrownianInterval(0.0, 1.0, size=(5, 2), dtype=torch.float64, entropy=1, dt=0.125)
    start = torch.tensor([0.0, 0.5], dtype=torch.float64).expand(5, 2).contiguous()
    with torch.no_grad():
        peer = torchsde.sdeint(Peer(), start, torch.tensor([0.0, 1.0]).double(), bm=brownian, method=name, dt=0.125)
        own = sciml.evolve(TANGENT.system(brownian), initial=start, times=(0.0, 1.0), method=method, step=0.125)
    torch.testing.assert_close(own.value[:, -1], peer[-1], rtol=1e-12, atol=1e-13)


def test_the_path_of_torchsde_is_followed() -> None:
    brownian = torchsde.BrownianInterval(
        0.0, 1.0, size=(50, 2), dtype=torch.float64, entropy=1, levy_area_approximation="space-time"
    )
    with torch.no_grad():
        own = sciml.evolve(TANGENT.system(brownian), initial=TANGENT.start(), times=(0.0, 1.0), rtol=1e-3, atol=1e-3)
    assert root_mean_square(own.value[:, -1] - TANGENT.exact(brownian(0.0, 1.0))) < 1e-3


# Failures and refusals


def test_rows_that_fail_are_named() -> None:
    path = BrownianPath((0.0, 1.0), (4, 2), seed=6)
    system = StochasticSystem(lambda u, t: u * u, lambda u, t: 0.1 * u, (2,), path=path)
    start = torch.tensor([[0.1, 0.2], [50.0, 0.1], [0.3, 0.1], [0.1, 0.1]]).double()
    with torch.no_grad():
        for options in ({"step": 1 / 16}, {"rtol": 1e-2, "atol": 1e-2}):
            with pytest.raises(SolveError, match="row 1 \\(1 of 4 rows failed\\)"):
                sciml.evolve(system, initial=start, times=(0.0, 1.0), **options)
            solution = sciml.evolve(system, initial=start, times=(0.0, 1.0), throw=False, **options)
            assert [status is Status.CONVERGED for status in solution.status] == [True, False, True, True]
            assert torch.isfinite(solution.value[[0, 2, 3]]).all()
            assert torch.isnan(solution.value[1, -1]).all()
            steps = solution.statistics["steps"]
    assert int(steps[0] - steps[1]) < 30  # those of the failed row are forgotten at once
    alone = BrownianPath((0.0, 1.0), (4, 2), seed=6)
    start[1] = 0.1
    with torch.no_grad():
        other = sciml.evolve(replace_path(system, alone), initial=start, times=(0.0, 1.0), step=1 / 16)
        solution = sciml.evolve(system, initial=start, times=(0.0, 1.0), step=1 / 16)
    assert torch.equal(other.value[[0, 2, 3]], solution.value[[0, 2, 3]])


def replace_path(system: StochasticSystem, path: BrownianPath) -> StochasticSystem:
    return StochasticSystem(system.drift, system.fields["diffusion"], system.space, path=path)


def test_what_is_chosen_is_said() -> None:
    path = BrownianPath((0.0, 1.0), (2, 2), seed=6)
    solution = evolve(GEOMETRIC, None, path)
    assert solution.method == "SOSRI2, stochastic Runge-Kutta (a stochastic system in Ito's calculus)"
    assert repr(solution).startswith("Solution of du = drift(u, t) dt + diffusion(u, t) dW for u at 2 times from 0")
    other = evolve(STRATONOVICH[0], None, path, step=0.1)
    assert other.method == "Milstein (a stochastic system, Stratonovich's calculus)"


def test_refused() -> None:
    path = BrownianPath((0.0, 1.0), (4, 2), seed=6)
    start = torch.ones(2).double()
    ito, other = GEOMETRIC.system(path), STRATONOVICH[0].system(path)

    def refused(message: str, system: object = ito, **options: object) -> None:
        with pytest.raises(InputError, match=message):
            sciml.evolve(system, initial=start, **{"times": (0.0, 1.0), **options})  # type: ignore[arg-type]

    refused("knows no noise, and the system is stochastic: take Stoch", method=ExplicitRungeKutta.tsit5())
    refused("has no error estimate: give step=", method=EulerMaruyama())
    refused("has no error estimate: give step=", method=Milstein())
    refused("has no error estimate: give step=", other)
    refused("is for Ito's calculus, and the system is in Strat.*take Milstein", other, method=SOSRI2_METHOD)
    refused("is for Ito's calculus, and the system is in Strat.*add", other, method=EulerMaruyama(), step=0.1)
    refused("this one has no noise: take Explicit", FunctionSystem(GEOMETRIC.drift, (2,)), method=SOSRI2_METHOD)
    refused("path is known from time 0.0 to 1.0, and times go from 0.0 to 2.0", times=(0.0, 2.0))
    refused("control='row' is for explicit", control="row")
    refused("'checkpointed': take", method=replace(SOSRI2_METHOD, record=True), gradient="checkpointed", step=0.1)
    plain = torchsde.BrownianInterval(0.0, 1.0, size=(4, 2), dtype=torch.float64)
    refused("make it with levy_area_approximation='space-time'", GEOMETRIC.system(plain), method=SOSRI2_METHOD)
    with pytest.raises(InputError, match="calculus is 'ito' or 'stratonovich', got 'strat'"):
        StochasticSystem(GEOMETRIC.drift, GEOMETRIC.diffusion, (2,), path=path, calculus="strat")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="or a Brownian motion of torchsde such as"):
        GEOMETRIC.system(torch.ones(2))
    with pytest.raises(InputError, match=r"shape \(4, 2\), which does not end in that of a row, \(3,\)"):
        StochasticSystem(GEOMETRIC.drift, GEOMETRIC.diffusion, (3,), path=path)
    with pytest.raises(InputError, match=r"path is of torch\.float64 on cpu, and the states are of torch\.float32"):
        StochasticSystem(GEOMETRIC.drift, GEOMETRIC.diffusion, (2,), path=path, dtype=torch.float32)
    with pytest.raises(InputError, match="diffusion: it is called with the state u and the time t"):
        StochasticSystem(GEOMETRIC.drift, lambda u: u, (2,), path=path)  # type: ignore[arg-type, misc]
    with pytest.raises(InputError, match=r"the diffusion returned a tensor of torch\.float64 and shape \(4, 2, 2\)"):
        sciml.evolve(
            StochasticSystem(GEOMETRIC.drift, lambda u, t: torch.diag_embed(u), (2,), path=path),
            initial=start,
            times=(0.0, 1.0),
        )
