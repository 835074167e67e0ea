"""Methods for stochastic differential equations with diagonal noise, in the loop of the deterministic ones."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.func import vjp

from sciml.differentiation import in_transform
from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Tolerance
from sciml.stochastic_system import Calculus, StochasticSystem

from . import stochastic_tableau as tableaus
from .control import Controller
from .explicit import stiffness
from .stepper import Attempt, Integrator, Stepper, by_row
from .stochastic_tableau import StochasticTableau

_AIM = 0.1  # error of the first step relative to the tolerance, as far as it can be known
_SIZES = 64  # sizes of steps whose coefficients are kept


class StochasticIntegrator(Integrator):
    """A method for du = f(u, t) dt + g(u, t) dW with diagonal noise."""


class StochasticStepper(Stepper):
    """A stochastic method prepared for one system; it has no memory, and the noise is that of the system's path.

    Args:
        system: what is to evolve.
        embedded: strong order of the embedded solution, less 1/2: that of the error of a step in h is `embedded` + 1.
    """

    def __init__(self, system: StochasticSystem, order: float, embedded: float) -> None:
        self.system, self.order, self.embedded, self.even = system, order, embedded, False
        self.axes = len(system.state_space)
        self._drifts = self._diffusions = 0

    def begin(self, y: Tensor, t: float) -> None:
        return None

    def counts(self) -> dict[str, int]:
        """Also "diffusion_evaluations"; "evaluations" are those of the drift."""
        return {"evaluations": self._drifts, "diffusion_evaluations": self._diffusions}

    def fitted(self, t: float, h: float) -> float:
        """A step from t of about this size, and not more, for which the noise is cheap."""
        return self.system.noise.fitted(t, h)

    def drift(self, y: Tensor, t: float) -> Tensor:
        self._drifts += 1
        return self.system.rate(y, t)

    def diffusion(self, y: Tensor, t: float) -> Tensor:
        self._diffusions += 1
        return self.system.diffusion(y, t)

    def first_step(self, y: Tensor, t: float, rtol: float, atol: Tolerance, span: float) -> Tensor:
        """A first step for each row, at most `span`: `(*batch)`; costs two evaluations of drift and diffusion.

        Drift and diffusion are compared at two states as far apart as a small step moves: that gives Lipschitz
        constants K and L of both, and with these the size of the leading terms in the local error of Milstein's method,
        h^(3/2) (L^2 |g| + K |g| + L |f|) / sqrt(3) and h^2 K |f| / 2 (of iterated integrals whose standard deviations
        are h^(3/2) / sqrt(6) and h^(3/2) / sqrt(3)).
        """
        system = self.system

        def size(x: Tensor) -> Tensor:
            return system.error_ratio(x, y, y, rtol, atol)

        f, g = self.drift(y, t), self.diffusion(y, t)
        whole, falling, spreading = size(y), size(f), size(g)
        guess = torch.minimum(0.01 * whole / falling, (0.01 * whole / spreading).square()).clamp(max=span)
        guess = torch.where((guess > 1e-6 * span) & torch.isfinite(guess), guess, 1e-6 * span)
        moved = y + by_row(guess, y) * f + by_row(guess.sqrt(), y) * g
        distance = size(moved - y)
        later = t + float(guess.min())
        k = (size(self.drift(moved, later) - f) / distance).nan_to_num(0.0)
        l = (size(self.diffusion(moved, later) - g) / distance).nan_to_num(0.0)  # noqa: E741
        noisy = (l * l * spreading + k * spreading + l * falling) / sqrt(3.0)
        smooth = k * falling / 2
        found = torch.minimum((_AIM / noisy) ** (2 / 3), (_AIM / smooth) ** 0.5)
        found = torch.minimum(found, 1000 * guess)
        return torch.where(torch.isfinite(found), found, 1e-6 * span).clamp(max=span)

    @abstractmethod
    def step(self, y: Tensor, t: float, h: float, memory: None) -> Attempt:
        """See `Stepper.step`."""


@final
@dataclass(frozen=True)
class EulerMaruyama(StochasticIntegrator):
    """The method of Euler and Maruyama for Ito's calculus, strong order 1/2 (1 where the diffusion does not depend on
    u), of fixed step. One evaluation of drift and of diffusion a step."""

    def describe(self) -> str:
        return "Euler-Maruyama"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        return _EulerStepper(_suited(self, system, "ito"), 0.5, 0)


@final
class _EulerStepper(StochasticStepper):
    def step(self, y: Tensor, t: float, h: float, memory: None) -> Attempt:
        growth, _ = self.system.noise.increments(t, t + h)
        moved = torch.add(y, self.drift(y, t), alpha=h)
        return Attempt(torch.addcmul(moved, self.diffusion(y, t), growth), None)


@final
@dataclass(frozen=True)
class Milstein(StochasticIntegrator):
    """Milstein's method for diagonal noise, in the calculus of the system, strong order 1, of fixed step.

    A step evaluates the drift and the diffusion once, and goes once backward through the diffusion.

    Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, Springer 1992, section 10.3.
    """

    def describe(self) -> str:
        return "Milstein"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        return _MilsteinStepper(_suited(self, system), 1.0, 0)


@final
class _MilsteinStepper(StochasticStepper):
    def step(self, y: Tensor, t: float, h: float, memory: None) -> Attempt:
        growth, _ = self.system.noise.increments(t, t + h)
        g, transposed = self._with_derivative(y, t)
        moved = torch.addcmul(torch.add(y, self.drift(y, t), alpha=h), g, growth)
        if self.system.calculus == "ito":
            bend = transposed(g) * growth.square().sub_(h)
        else:
            # Where the diffusion of an entry depends on others, the mean is right in this order alone.
            bend = transposed(g * growth) * growth
        return Attempt(torch.add(moved, bend, alpha=0.5), None)

    def _with_derivative(self, y: Tensor, t: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The diffusion, and v -> (its derivative by u) transposed times v. That is diagonal, and going backward is
        several times as fast as torch.func.jvp."""
        if in_transform():
            g, pull = vjp(lambda u: self.diffusion(u, t), y)
            return g, lambda v: pull(v)[0]
        tracked = torch.is_grad_enabled()
        with torch.enable_grad():
            state = y if y.requires_grad else y.detach().requires_grad_()
            g = self.diffusion(state, t)

        def transposed(v: Tensor) -> Tensor:
            if not g.requires_grad:
                return torch.zeros_like(v)
            (found,) = torch.autograd.grad(g, state, v, create_graph=tracked, retain_graph=tracked, allow_unused=True)
            return torch.zeros_like(v) if found is None else found

        return g if tracked else g.detach(), transposed


@final
@dataclass(frozen=True)
class StochasticRungeKutta(StochasticIntegrator):
    """A stochastic Runge-Kutta method for diagonal noise in Ito's calculus, strong order 3/2, adaptive.

    A step evaluates the diffusion four times, and the drift as often (SRIW1: twice).

    Its error estimate is the distance from the embedded solution of strong order 1 that has the drift of the first stage
    for all, and of the diffusions, in the words of `StochasticTableau`, beta[0] and beta[1] alone: all of it is of order
    h^(3/2), as the local error of Milstein's method. (The estimate of Rackauckas and Nie has the same part of the noise,
    and for the drift h sum_i f(P_i), which is no difference and falls with h only. The distance from Milstein's own
    solution makes other terms small, and gave no smaller errors for the same work.)

    Args:
        tableau: the method; the constructors below name them.
        controller: of the step size. By default a step is 9/8 of the one before at most: an estimate that is small by
            chance says little about the next step (Rackauckas and Nie, Discrete Contin. Dyn. Syst. B 22 (2017)
            2731-2761, with the exponents 7/(10k) and 2/(5k) that `Controller` has). Up to 3 took a third fewer steps,
            with errors twice as large, and more rejections.
        record: keep each step's error ratio and, of SOSRI2, stiffness estimate, row by row and with gradients, in the
            history; otherwise the error ratio that decided, without gradients.
    """

    tableau: StochasticTableau
    controller: Controller = field(default_factory=lambda: Controller(largest=9 / 8))
    record: bool = False

    @classmethod
    def sosri(cls) -> StochasticRungeKutta:
        """SOSRI of Rackauckas and Nie, stable for larger steps than SRIW1."""
        return cls(tableaus.SOSRI)

    @classmethod
    def sosri2(cls) -> StochasticRungeKutta:
        """SOSRI2 of Rackauckas and Nie, stable for larger steps than SRIW1, with an estimate of stiffness."""
        return cls(tableaus.SOSRI2)

    @classmethod
    def sriw1(cls) -> StochasticRungeKutta:
        """SRIW1 of Rößler, of two evaluations of the drift only."""
        return cls(tableaus.SRIW1)

    def describe(self) -> str:
        return f"{self.tableau.name}, stochastic Runge-Kutta"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        system = _suited(self, system, "ito")
        if not system.noise.has_integrals:
            raise InputError(
                f"{self.tableau.name} needs the integral of the noise over each step, which the path does not know: "
                "make it with levy_area_approximation='space-time', or take Milstein()"
            )
        return _RungeKuttaStepper(self, system)


class _Coefficients(NamedTuple):
    """The coefficients of a tableau for one size of the step.

    Attributes:
        stages: for each stage but the first `(2, rows)`, of P_i - u and Q_i - u in the drifts, the diffusions, and the
            diffusions times k/h.
        last: `(2, rows)`, of the value, less u, and the error in the drifts and the four sums of diffusions.
    """

    stages: tuple[Tensor, ...]
    last: Tensor


@final
class _RungeKuttaStepper(StochasticStepper):
    def __init__(self, method: StochasticRungeKutta, system: StochasticSystem) -> None:
        super().__init__(system, 1.5, 0.5)
        self.method, self.tableau = method, method.tableau
        self.beta = torch.tensor(self.tableau.beta, dtype=system.dtype, device=system.device)
        self._coefficients: OrderedDict[float, _Coefficients] = OrderedDict()

    def step(self, y: Tensor, t: float, h: float, memory: None) -> Attempt:
        tableau, system, coefficients = self.tableau, self.system, self._coefficients_of(h)
        growth, integral = system.noise.increments(t, t + h)
        if integral is None:
            raise InputError("the path does not know the integral of the noise")
        factors = _factors(growth, integral, h, y)
        mean = factors[2].view(y.shape)
        both, pair = y.reshape(-1).expand(2, -1), (2, *y.shape)
        drifts: list[Tensor] = []
        diffusions: list[Tensor] = []
        scaled: list[Tensor] = []
        states: list[Tensor] = []
        first = second = y
        for i in range(tableau.stages):
            if i:
                rows = torch.stack([*drifts, *diffusions, *scaled]).flatten(1)
                first, second = torch.addmm(both, coefficients.stages[i - 1], rows).view(pair).unbind()
            if i in tableau.drifts:
                drifts.append(system.rate(first, t + tableau.c_drift[i] * h))
                if tableau.equal is not None and i in tableau.equal:
                    states.append(first)
            diffusions.append(system.diffusion(second, t + tableau.c_noise[i] * h))
            if i + 1 < tableau.stages:
                scaled.append(diffusions[i] * mean)
        self._drifts += len(drifts)
        self._diffusions += len(diffusions)
        sums = (self.beta @ torch.stack(diffusions).flatten(1)) * factors
        rows = torch.cat((torch.stack(drifts).flatten(1), sums))
        change, error = torch.mm(coefficients.last, rows).view(pair).unbind()
        estimate = None
        if self.method.record and tableau.equal is not None:
            pairs = zip(states, (drifts[i] for i in tableau.equal), strict=True)
            estimate = stiffness(list(pairs), self.axes)
        return Attempt(y + change, None, error, stiffness=estimate)

    def _coefficients_of(self, h: float) -> _Coefficients:
        found = self._coefficients.get(h)
        if found is None:
            found = self._coefficients[h] = self._make(h)
            if len(self._coefficients) > _SIZES:
                self._coefficients.popitem(last=False)
        return found

    def _make(self, h: float) -> _Coefficients:
        tableau, root = self.tableau, sqrt(h)
        place: dict[str, Any] = {"dtype": self.beta.dtype, "device": self.beta.device}
        stages = []
        for i in range(1, tableau.stages):
            earlier = [j for j in tableau.drifts if j < i]
            none = [0.0] * i
            drift = [h * tableau.a_drift[i][j] for j in earlier] + none + list(tableau.b_drift[i])
            noise = [h * tableau.a_noise[i][j] for j in earlier] + [root * b for b in tableau.b_noise[i]] + none
            stages.append(torch.tensor([drift, noise], **place))
        value = [h * tableau.alpha[j] for j in tableau.drifts] + [1.0, 1.0, 1.0, 1.0]
        error = [h * (tableau.alpha[j] - (j == 0)) for j in tableau.drifts] + [0.0, 0.0, 1.0, 1.0]
        return _Coefficients(tuple(stages), torch.tensor([value, error], **place))


def _factors(growth: Tensor, integral: Tensor, h: float, y: Tensor) -> Tensor:
    """`(4, length)`: what multiplies the sums of diffusions, see `StochasticTableau`."""
    if growth.shape != y.shape:
        growth, integral = growth.expand(y.shape), integral.expand(y.shape)
    growth = growth.reshape(-1)
    square = growth * growth
    last = (square - 3 * h).mul_(growth).mul_(1 / (6 * h))
    return torch.stack((growth, square.sub_(h).mul_(0.5 / sqrt(h)), integral.reshape(-1) / h, last))


def _suited(method: StochasticIntegrator, system: EvolvingSystem, calculus: Calculus | None = None) -> StochasticSystem:
    """The system, if the method goes with it."""
    if not isinstance(system, StochasticSystem):
        raise InputError(
            f"{method.describe()} is for stochastic systems (sciml.StochasticSystem), and this one has no noise: take "
            "ExplicitRungeKutta.tsit5(), or method=None"
        )
    if calculus is not None and system.calculus != calculus:
        raise InputError(
            f"{method.describe()} is for Ito's calculus, and the system is in Stratonovich's: take Milstein(), or add "
            "to entry i of the drift half of g_i dg_i/du_i, g being the diffusion, and give calculus='ito'"
        )
    return system
