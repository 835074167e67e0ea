"""Gradients of loss and regularizers against differences along the steps that were recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sciml.solvers.evolve import evolve
from sciml.solvers.neural_de import (
    ErrorEstimate,
    ErrorEstimateSquared,
    JacobianNorm,
    KineticEnergy,
    LocalError,
    LocalStiffness,
    NeuralODE,
    NeuralSDE,
    Regularizer,
    StiffnessEstimate,
    TaylorDerivative,
)
from sciml.solvers.neural_de.integrals import Augmented, IntegralRegularizer
from sciml.solvers.neural_de.local import LocalRegularizer, Sampler, repeated
from sciml.solvers.neural_de.regularizers import StepRegularizer, terms_of
from sciml.solvers.time import BrownianPath, ExplicitRungeKutta, StochasticRungeKutta
from sciml.solvers.time.march import integrate
from sciml.solvers.time.trajectory import Task

from ...function_system import FunctionSystem
from ...solution import Solution
from ...stochastic_system import StochasticSystem
from ..bench import Bench
from ..row import Row

LOSS = "loss"
ESTIMATES: Mapping[str, Regularizer] = {
    "ER": ErrorEstimate(),
    "ER, mean over the steps, rows together": ErrorEstimate("mean", rows="together"),
    "ER squared": ErrorEstimateSquared(),
    "SR": StiffnessEstimate(),
    "SR, maximum, no step size": StiffnessEstimate("max", step_factor=False),
    "ER + SR": 0.5 * ErrorEstimate() + 0.1 * StiffnessEstimate(),
}
LOCAL: Mapping[str, LocalRegularizer] = {
    "local error, unbiased": LocalError(),
    "local error, biased": LocalError("biased"),
    "local stiffness": LocalStiffness(),
}
INTEGRALS: Mapping[str, IntegralRegularizer] = {
    "kinetic energy": KineticEnergy(),
    "Jacobian": JacobianNorm(),
    "TayNODE": TaylorDerivative(3),
}
_SEED = 11
_TOLERANCES: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
_LOOSE: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2}
_WIDTH, _WIDTH_SDE = 1e-4, 1e-5
"""Of differences: the shorter one's errors, of rounding, are larger, and with the looser tolerance still small."""
_TSIT5 = ExplicitRungeKutta.tsit5()
_SOSRI2 = StochasticRungeKutta.sosri2()
_SAME = 1e-8  # relative

Quantity = Callable[[], Tensor]


class _Network(nn.Module):
    """Turning, and changing with time."""

    def __init__(self, width: int = 3, hidden: int = 12) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.first, self.second = nn.Linear(width, hidden).double(), nn.Linear(hidden, width).double()

    def forward(self, u: Tensor, t: Any) -> Tensor:
        clock = torch.as_tensor(t, dtype=u.dtype)
        found: Tensor = 2 * self.second(torch.tanh(3 * self.first(u))) * torch.cos(3 * clock)
        return found


@dataclass(frozen=True)
class Interval:
    """Where solutions are differentiated.

    Args:
        end: from 0 to here.
    """

    end: float = 2.0

    @property
    def case(self) -> str:
        """Name of the case of a neural ODE."""
        return f"gradients, neural ODE to t = {self.end:g}"

    @property
    def stochastic(self) -> str:
        """Name of the case of a neural SDE."""
        return f"gradients, neural SDE to t = {self.end:g}"


@dataclass(frozen=True, eq=False)
class _Both:
    """A number, as the library has it with its gradient, and again along the same steps."""

    once: Tensor
    again: Quantity


def measure_ode(interval: Interval, bench: Bench) -> list[Row]:
    """One row a quantity: its "error" is the largest difference of a derivative along a random direction of any
    parameter, or of the initial states, over the norm of the gradient there."""
    trial = _Trial(interval.end, _Network(), _initial())
    pairs: dict[str, Callable[[], _Both]] = {LOSS: trial.loss}
    pairs |= {name: partial(trial.estimate, term) for name, term in ESTIMATES.items()}
    pairs |= {name: partial(trial.integral, term) for name, term in INTEGRALS.items()}
    pairs |= {name: partial(trial.local, term) for name, term in LOCAL.items()}
    tensors = [trial.initial, *trial.network.parameters()]
    return [_row(interval.case, name, make, tensors, _WIDTH, bench) for name, make in pairs.items()]


def measure_sde(interval: Interval, bench: Bench) -> list[Row]:
    """As `measure_ode`, on one Brownian path."""
    trial = _StochasticTrial(interval.end, _Network(), _Network(hidden=6), _initial())
    terms: dict[str, Regularizer | None] = {LOSS: None, **ESTIMATES}
    tensors = [trial.initial, *trial.network.parameters(), *trial.noise.parameters()]
    return [
        _row(interval.stochastic, name, partial(trial.both, term), tensors, _WIDTH_SDE, bench)
        for name, term in terms.items()
    ]


def _initial() -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()


def _weighted(numbers: Tensor) -> Tensor:
    """A sum in which no two entries count alike."""
    return (numbers * torch.linspace(0.5, 1.5, numbers.numel(), dtype=numbers.dtype).reshape(numbers.shape)).sum()


def _row(case: str, name: str, make: Callable[[], _Both], tensors: Sequence[Tensor], width: float, bench: Bench) -> Row:
    bench.say(f"{case}: {name}")
    both = make()
    with torch.no_grad():
        apart = abs(float(both.again()) / float(both.once) - 1.0)
    if apart > _SAME:
        raise ArithmeticError(f"{name}: its value along the recorded steps differs by {apart:.1e}")
    gradients = torch.autograd.grad(both.once, tensors, allow_unused=True)
    generator, worst = torch.Generator().manual_seed(4), 0.0
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if gradient is None:  # of a local step with respect to the initial states: it begins where it is told
            continue
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        expected = _difference(both.again, tensor, direction, width)
        worst = max(worst, abs(float((gradient * direction).sum()) - expected) / float(gradient.norm()))
    unknowns = sum(tensor.numel() for tensor in tensors)
    return bench.row(case, name, device="cpu", unknowns=unknowns, error=worst)


def _difference(quantity: Quantity, tensor: Tensor, direction: Tensor, width: float) -> float:
    """The derivative along a direction, by central differences of order 4."""
    found = 0.0
    with torch.no_grad():
        for place, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
            tensor.add_(direction, alpha=place * width)
            found += weight * float(quantity()) / (12 * width)
            tensor.add_(direction, alpha=-place * width)
    return found


def _grid(solution: Solution, end: float) -> tuple[float, ...]:
    """The times of the accepted steps, which all rows have in common."""
    accepted = solution.history["accepted"][:, 0]
    return (*solution.history["time"][accepted, 0].tolist(), end)


def _sum(term: Regularizer, solution: Solution) -> Tensor:
    """A regularizer, or a sum, of a solution."""
    parts = [weight * part(solution) for weight, part in terms_of(term) if isinstance(part, StepRegularizer)]
    return torch.stack(parts).sum(0)


class _Trial:
    """A neural ODE whose numbers are computed once with the model and again along its steps.

    Args:
        end: of the interval.
        network, initial: of the model.
    """

    def __init__(self, end: float, network: nn.Module, initial: Tensor) -> None:
        self.end, self.network, self.initial = end, network, initial
        self._system = FunctionSystem(network, (3,))

    def loss(self) -> _Both:
        """Of the states at the end."""
        value, solution = self._solved(None)
        grid = _grid(solution, self.end)
        return _Both(_weighted(value), lambda: _weighted(self._along(solution, grid).value[..., -1, :]))

    def estimate(self, term: Regularizer) -> _Both:
        """Of all steps."""
        _, solution = self._solved(term)
        grid = _grid(solution, self.end)
        penalty = solution.statistics["penalty"]
        return _Both(_weighted(penalty), lambda: _weighted(_sum(term, self._along(solution, grid))))

    def local(self, term: LocalRegularizer) -> _Both:
        """Of the same step from the same state, which the penalty takes as given."""
        _, solution = self._solved(term)
        sampler = Sampler(term.sampling)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_SEED)
            times, options = (0.0, self.end), {**_TOLERANCES, "step_observer": sampler}
            evolve(self._system, initial=self.initial, times=times, method=_TSIT5, **options)
        sample = sampler.sample
        if sample is None:
            raise ArithmeticError("no step was taken")
        method = replace(_TSIT5, record=True)

        def again() -> Tensor:
            return _weighted(term.of_step(*repeated(method, self._system, sample, *_TOLERANCES.values())))

        return _Both(_weighted(solution.statistics["penalty"]), again)

    def integral(self, term: IntegralRegularizer) -> _Both:
        """Of the integral that is solved for beside the states."""
        _, solution = self._solved(term)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            noise = torch.randn_like(self.initial)
        grid = _grid(solution, self.end)
        system = FunctionSystem(Augmented(self.network, (3,), (term,), noise), (4,), counted=3)

        def again() -> Tensor:
            states = torch.cat((self.initial.detach(), self.initial.new_zeros(len(self.initial), 1)), -1)
            task = Task(grid, step=self.end, **_TOLERANCES)
            return _weighted(integrate(_TSIT5, system, states, task).states[..., -1, 3])

        return _Both(_weighted(solution.statistics["penalty"]), again)

    def _solved(self, term: Regularizer | None) -> tuple[Tensor, Solution]:
        model = NeuralODE(self.network, interval=(0.0, self.end), method=_TSIT5, regularizer=term, **_TOLERANCES)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            value: Tensor
            value, solution = model(self.initial)
        return value, solution

    def _along(self, solution: Solution, grid: tuple[float, ...]) -> Solution:
        """With one step from every time of the grid to the next."""
        task = Task(grid, step=self.end, **_TOLERANCES)
        found = integrate(replace(_TSIT5, record=True), self._system, self.initial.detach(), task)
        return replace(solution, value=found.states, history=found.history)


class _StochasticTrial:
    """As `_Trial`, of a neural SDE with this diffusion."""

    def __init__(self, end: float, network: nn.Module, noise: nn.Module, initial: Tensor) -> None:
        self.end, self.network, self.noise, self.initial = end, network, noise, initial
        self._path = BrownianPath((0.0, end), initial.shape, seed=1)

    def diffusion(self, u: Tensor, t: Any) -> Tensor:
        """What multiplies dW."""
        found: Tensor = 0.2 * self.noise(u, t)
        return found

    def both(self, term: Regularizer | None) -> _Both:
        """Of a regularizer, or of the states at the end."""
        interval = (0.0, self.end)
        model = NeuralSDE(self.network, self.diffusion, interval=interval, method=_SOSRI2, regularizer=term, **_LOOSE)
        value, solution = model(self.initial, path=self._path)
        system = StochasticSystem(self.network, self.diffusion, (3,), path=self._path)
        task = Task(_grid(solution, self.end), step=self.end, **_LOOSE)

        def again() -> Tensor:
            found = integrate(replace(_SOSRI2, record=True), system, self.initial.detach(), task)
            once_more = replace(solution, value=found.states, history=found.history)
            return _weighted(once_more.value[..., -1, :] if term is None else _sum(term, once_more))

        return _Both(_weighted(value if term is None else solution.statistics["penalty"]), again)
