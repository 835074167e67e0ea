"""Methods for stochastic differential equations with diagonal noise, in the loop of the deterministic ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import frexp, ldexp, sqrt
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
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

_AIM = 0.2  # error of the first step relative to the tolerance, as far as it can be known
_SIZES = 64  # sizes of steps whose coefficients are kept
_MANTISSA = 2.0**43


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
        falling, spreading = size(f), size(g)
        small = (0.01 * size(y)).clamp(min=1.0)  # of a state near 0 the tolerance
        guess = torch.minimum(small / falling, (small / spreading).square()).clamp(max=span)
        guess = torch.where((guess > 1e-6 * span) & torch.isfinite(guess), guess, 1e-6 * span)
        moved = y + by_row(guess, y) * f + by_row(guess.sqrt(), y) * g
        distance = size(moved - y)
        later = t + float(guess.min())
        k = (size(self.drift(moved, later) - f) / distance).nan_to_num(0.0)
        l = (size(self.diffusion(moved, later) - g) / distance).nan_to_num(0.0)  # noqa: E741
        noisy = (l * l * spreading + k * spreading + l * falling) / sqrt(3.0)
        smooth = k * falling / 2
        found = torch.minimum((_AIM / noisy) ** (2 / 3), (_AIM / smooth) ** 0.5)
        found = torch.minimum(found, 1e6 * guess)
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
        if in_transform() or forward_ad._current_level >= 0:
            pulled = vjp(lambda u: self.diffusion(u, t), y)
            return pulled[0], lambda v: pulled[1](v)[0]
        # Checkpoints do not give tensors back while they are made, so that what this needs is kept in any case.
        with torch.enable_grad(), saved_tensors_hooks(_same, _same):
            state = y if y.requires_grad else y.detach().requires_grad_()
            g = self.diffusion(state, t)
        # Where nothing else asks for derivatives, those by the state made here must not go on from step to step.
        tracked = torch.is_grad_enabled() and (y.requires_grad or _asks_besides(g, state))

        def transposed(v: Tensor) -> Tensor:
            if not g.requires_grad:
                return torch.zeros_like(v)
            with saved_tensors_hooks(_same, _same):
                (found,) = torch.autograd.grad(g, state, v, create_graph=tracked, allow_unused=True)
            return torch.zeros_like(v) if found is None else found

        return g if tracked else g.detach(), transposed


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _asks_besides(found: Tensor, state: Tensor) -> bool:
    """Whether derivatives of what was found by a leaf other than the state are asked for."""
    seen: set[Any] = set()
    left = [found.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if type(node).__name__ == "AccumulateGrad" and node.variable is not state:  # type: ignore[attr-defined]
            return True
        seen.add(node)
        left += [before for before, _ in node.next_functions]
    return False


@final
@dataclass(frozen=True)
class StochasticRungeKutta(StochasticIntegrator):
    """A stochastic Runge-Kutta method for diagonal noise in Ito's calculus, strong order 3/2, adaptive.

    A step evaluates the diffusion four times, and the drift as often (SRIW1: twice).

    Its error estimate is the distance from the embedded solution of strong order 1 that has the drift of the first
    stage only, and of the weights of the diffusions, see `StochasticTableau`, beta[0] and beta[1] only: all of it is of
    order h^(3/2), as the local error of Milstein's method. (The estimate of Rackauckas and Nie has the same part of the
    noise, and for the drift h sum_i f(P_i), which is no difference and falls with h only. The distance from Milstein's
    own solution gave no smaller errors for the same work.)

    Args:
        tableau: the method; the constructors below name them.
        controller: of the step size. Where it says nothing else a step is 9/8 of the one before at most: an estimate
            that is small by chance says little about the next step (Rackauckas and Nie, Discrete Contin. Dyn. Syst. B
            22 (2017) 2731-2761, with the exponents 7/(10k) and 2/(5k) that `Controller` has). Up to 3 took a third
            fewer steps, with errors twice as large, and more rejections.
        record: keep each step's error ratio and, of SOSRI2, stiffness estimate, row by row and with gradients, in the
            history; otherwise the error ratio that decided, without gradients.
    """

    usual: ClassVar[Controller] = Controller(largest=9 / 8)
    tableau: StochasticTableau
    controller: Controller = field(default_factory=Controller)
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
    """The coefficients of a tableau for one size of the step. They multiply rows: those of each stage are its drift, if
    anything depends on it, its diffusion, and, but of the last stage, its diffusion times k/h.

    Attributes:
        stages: for each stage but the first `(2, rows before it)`, of P_i - u and Q_i - u.
        last: `(2, all rows + 4)`, of the value, less u, and the error; the last four multiply the sums of diffusions.
    """

    stages: tuple[Tensor, ...]
    last: Tensor


@final
class _RungeKuttaStepper(StochasticStepper):
    def __init__(self, method: StochasticRungeKutta, system: StochasticSystem) -> None:
        super().__init__(system, 1.5, 0.5)
        self.method, self.tableau = method, method.tableau
        weights: list[list[float]] = [[], [], [], []]
        for kind, j in self._rows(self.tableau.stages):
            for row, beta in zip(weights, self.tableau.beta, strict=True):
                row.append(beta[j] if kind == "diffusion" else 0.0)
        self._beta = torch.tensor(weights, dtype=system.dtype, device=system.device)
        self._coefficients: OrderedDict[float, _Coefficients] = OrderedDict()
        self._work: _InPlace | None = None

    def step(self, y: Tensor, t: float, h: float, memory: None) -> Attempt:
        tableau, system, coefficients = self.tableau, self.system, self._coefficients_of(h)
        growth, integral = system.noise.increments(t, t + h)
        if integral is None:
            raise InputError("the path does not know the integral of the noise")
        rows = self._begun(y)
        factors = rows.factors
        _fill(factors, growth, integral, h, y)
        mean = factors[2].view(y.shape)
        both, pair = y.reshape(-1).expand(2, -1), (2, *y.shape)
        first = second = y
        equal: list[tuple[Tensor, Tensor]] = []
        for i in range(tableau.stages):
            if i:
                first, second = torch.addmm(both, coefficients.stages[i - 1], rows.matrix()).view(pair).unbind()
            if i in tableau.drifts:
                f = system.rate(first, t + tableau.c_drift[i] * h)
                rows.add(f)
                if self.method.record and tableau.equal is not None and i in tableau.equal:
                    equal.append((first, f))
            g = system.diffusion(second, t + tableau.c_noise[i] * h)
            rows.add(g)
            if i + 1 < tableau.stages:
                rows.add_product(g, mean)
        self._drifts += len(tableau.drifts)
        self._diffusions += tableau.stages
        change, error = torch.mm(coefficients.last, rows.with_sums(self._beta)).view(pair).unbind()
        return Attempt(y + change, None, error, stiffness=stiffness(equal, self.axes) if equal else None)

    def _rows(self, stages: int) -> list[tuple[str, int]]:
        """What the rows of the first stages are, and of which."""
        found: list[tuple[str, int]] = []
        for i in range(stages):
            found += [("drift", i)] if i in self.tableau.drifts else []
            found += [("diffusion", i)] + ([("scaled", i)] if i + 1 < self.tableau.stages else [])
        return found

    def _begun(self, y: Tensor) -> _Rows:
        if torch.is_grad_enabled() or forward_ad._current_level >= 0 or in_transform():
            return _Recorded(y)
        if self._work is None or self._work.shape != y.shape:
            self._work = _InPlace(y, self._beta.shape[1])
        return self._work.begin()

    def _coefficients_of(self, h: float) -> _Coefficients:
        # Steps that differ by rounding only, as those to ends of cells do, have the same coefficients.
        mantissa, exponent = frexp(h)
        h = ldexp(round(mantissa * _MANTISSA) / _MANTISSA, exponent)
        found = self._coefficients.get(h)
        if found is None:
            found = self._coefficients[h] = self._make(h)
            if len(self._coefficients) > _SIZES:
                self._coefficients.popitem(last=False)
        return found

    def _make(self, h: float) -> _Coefficients:
        tableau, root = self.tableau, sqrt(h)
        place: dict[str, Any] = {"dtype": self._beta.dtype, "device": self._beta.device}
        stages = []
        for i in range(1, tableau.stages):
            state, noise = [], []
            for kind, j in self._rows(i):
                state.append({"drift": h * tableau.a_drift[i][j], "scaled": tableau.b_drift[i][j]}.get(kind, 0.0))
                noise.append(
                    {"drift": h * tableau.a_noise[i][j], "diffusion": root * tableau.b_noise[i][j]}.get(kind, 0.0)
                )
            stages.append(torch.tensor((state, noise), **place))
        drifts = [h * tableau.alpha[j] if kind == "drift" else 0.0 for kind, j in self._rows(tableau.stages)]
        last = ([*drifts, 1.0, 1.0, 1.0, 1.0], [drifts[0] - h, *drifts[1:], 0.0, 0.0, 1.0, 1.0])
        return _Coefficients(tuple(stages), torch.tensor(last, **place))


class _Rows(ABC):
    """Drifts and diffusions, flattened, as the rows of a matrix; and the factors of the sums of diffusions.

    Attributes:
        factors: `(4, length)`.
    """

    factors: Tensor

    @abstractmethod
    def add(self, x: Tensor) -> None:
        """A further row."""

    @abstractmethod
    def add_product(self, x: Tensor, y: Tensor) -> None:
        """x y as a further row."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """`(rows, length)`, of the rows so far."""

    @abstractmethod
    def with_sums(self, weights: Tensor) -> Tensor:
        """`(rows + 4, length)`: below all rows their weighted sums times the factors."""


@final
class _Recorded(_Rows):
    """With gradients: a new matrix whenever it is asked for."""

    def __init__(self, like: Tensor) -> None:
        self.factors = torch.empty(4, like.numel(), dtype=like.dtype, device=like.device)
        self._rows: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        self._rows.append(x)

    def add_product(self, x: Tensor, y: Tensor) -> None:
        self._rows.append(x * y)

    def matrix(self) -> Tensor:
        return torch.stack(self._rows).reshape(len(self._rows), -1)

    def with_sums(self, weights: Tensor) -> Tensor:
        rows = self.matrix()
        return torch.cat((rows, (weights @ rows) * self.factors))


@final
class _InPlace(_Rows):
    """Without: one matrix for all steps with states of one shape, which is several times as fast for long rows."""

    def __init__(self, like: Tensor, count: int) -> None:
        work = torch.empty(count + 8, like.numel(), dtype=like.dtype, device=like.device)
        self.shape = like.shape
        self.factors, self._whole = work[-4:], work[:-4]
        self._each = [row.view(like.shape) for row in work[:count]]
        self._first = [work[:k] for k in range(count + 1)]
        self._sums = work[count:-4]
        self._count = 0

    def begin(self) -> _InPlace:
        """The same without rows."""
        self._count = 0
        return self

    def add(self, x: Tensor) -> None:
        self._each[self._count].copy_(x)
        self._count += 1

    def add_product(self, x: Tensor, y: Tensor) -> None:
        torch.mul(x, y, out=self._each[self._count])
        self._count += 1

    def matrix(self) -> Tensor:
        return self._first[self._count]

    def with_sums(self, weights: Tensor) -> Tensor:
        torch.mm(weights, self._first[-1], out=self._sums).mul_(self.factors)
        return self._whole


def _fill(factors: Tensor, growth: Tensor, integral: Tensor, h: float, y: Tensor) -> None:
    """Write what multiplies the sums of diffusions, see `StochasticTableau`, into `(4, length)`."""
    first, second, third, fourth = factors.view(4, *y.shape).unbind()
    first.copy_(growth)
    torch.mul(first, first, out=second)
    torch.sub(second, 3 * h, out=fourth).mul_(first).mul_(1 / (6 * h))
    second.sub_(h).mul_(0.5 / sqrt(h))
    third.copy_(integral).mul_(1 / h)


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
