"""Exponential Runge-Kutta methods: the linear part exactly, the rest by quadrature with exponential weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Tolerance
from sciml.kernels.fourier import Combination, Place, Sum
from sciml.modes import in_plain_mode
from sciml.spectral import SpectralSystem, forward_mode

from .control import Controller
from .exponential_functions import PhiOfMatrices, phi
from .stepper import Attempt, Integrator, Stepper

KEPT_STEP_SIZES = 8
BLOCK_BYTES = 2**20  # start, value, stages and their nonlinear parts of one block of rows; they fit a cache

Weights = tuple[tuple[int, Tensor], ...]
"""(stage, factor): what is summed over the stages' nonlinear parts."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A step y(t + h) = E_1 y + sum of b_i N_i, from stages y_i = E_{c_i} y + sum of a_ij N_j; N_i = N(y_i, t + c_i h).

    Attributes:
        exponentials: E_c by c.
        rows: of the stages after the first.
        weights: of the value.
        error: of the difference to the embedded solution; None if there is none. The stage after the last stands for
            the nonlinear part at the value.
        compiled: the same for the kernels, by the rows whose data differ.
    """

    exponentials: dict[float, Tensor]
    rows: tuple[Weights, ...]
    weights: Weights
    error: Weights | None = None
    compiled: dict[tuple[int, ...], list[Combination]] = field(default_factory=dict)


class Memory(NamedTuple):
    """What a step starts from.

    Attributes:
        force: the nonlinear part at the state, of the pair.
        formed: what belongs to the latest step sizes, where derivatives with respect to the linear part are recorded.
            It goes from step to step, and is not kept elsewhere, because a part of the recording that is run again
            must form again what it formed at first, and find what it found.
    """

    force: Tensor | None = None
    formed: tuple[tuple[float, Coefficients], ...] = ()


Functions = Callable[[float], list[Tensor]]
"""c -> [phi_0(c h L), ..., phi_3(c h L)]."""
Product = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True)
class ExponentialRungeKutta(Integrator):
    """An exponential Runge-Kutta method for du/dt = L u + N(u, t), L solved exactly wavenumber by wavenumber.

    The classical order is reached where solution and coefficients are smooth. Where they are not, so that N does not
    lie where L is bounded, it drops towards the stiff order, which is 1, 2, 3 and 2 for orders 1 to 4 and 3 for the
    pair (Hochbruck and Ostermann, SIAM J. Numer. Anal. 43 (2005) 1069-1090): with a coefficient a that jumps between
    -1 and 1 in u_t = u_xx + a u (2 - u) + a, 512 points, 1.0, 2.0, 2.8, 2.5 and 2.5 were measured.

    Args:
        name: of the method; the constructors below give it.
        controller: of the step size, of the pair.

    Raises:
        InputError: for an unknown name.
    """

    usual: ClassVar[Controller] = Controller(far_below=0.0)
    name: str
    controller: Controller = field(default_factory=Controller, kw_only=True)

    def __post_init__(self) -> None:
        if self.name not in _SCHEMES:
            raise InputError(
                f"ExponentialRungeKutta: {self.name!r} is none of {', '.join(_SCHEMES)}; "
                "write ExponentialRungeKutta.etd4()"
            )

    @classmethod
    def etd1(cls) -> ExponentialRungeKutta:
        """The exponential Euler method, order 1, fixed step."""
        return cls("ETDRK1")

    @classmethod
    def etd2(cls) -> ExponentialRungeKutta:
        """ETD2RK of Cox and Matthews (J. Comput. Phys. 176 (2002) 430-455, equation 22), order 2, fixed step."""
        return cls("ETDRK2")

    @classmethod
    def etd3(cls) -> ExponentialRungeKutta:
        """ETD3RK of Cox and Matthews (J. Comput. Phys. 176 (2002) 430-455, equations 23-25), order 3, fixed step."""
        return cls("ETDRK3")

    @classmethod
    def etd4(cls) -> ExponentialRungeKutta:
        """ETD4RK of Cox and Matthews (J. Comput. Phys. 176 (2002) 430-455, equations 26-29), order 4, fixed step."""
        return cls("ETDRK4")

    @classmethod
    def pair(cls) -> ExponentialRungeKutta:
        """A pair of orders 4 and 3, four evaluations a step.

        The value is Krogstad's ETDRK4-B (J. Comput. Phys. 203 (2005) 72-88, equation 51). In the embedded solution the
        nonlinear part at the value takes the place of the last stage's; it is the first stage of the next step.
        """
        return cls("exponential 4(3)")

    @property
    def order(self) -> int:
        """Of the solution that is carried on."""
        return _SCHEMES[self.name].order

    def describe(self) -> str:
        return f"{self.name}, exponential Runge-Kutta"

    def stepper(self, system: EvolvingSystem, rtol: float | None = None, atol: Tolerance = 0.0) -> Stepper:
        if not isinstance(system, SpectralSystem):
            raise InputError(
                f"{self.describe()}, needs a linear part that is a number or a small matrix for each wavenumber, as "
                "scheme=Spectral() gives on a periodic grid; take ImplicitRungeKutta or ImplicitExplicit here"
            )
        return ExponentialStepper(self, system)


@final
class ExponentialStepper(Stepper):
    """Prepared for one system; what belongs to a step size is kept for the latest ones."""

    def __init__(self, method: ExponentialRungeKutta, system: SpectralSystem) -> None:
        scheme = _SCHEMES[method.name]
        self.system = system
        self.order, self.embedded, self.nodes = scheme.order, scheme.embedded, scheme.nodes
        self.even = True
        self._formula = scheme.formula
        self._functions = self._prepared()
        self._known: OrderedDict[float, Coefficients] = OrderedDict()
        self._buffers: dict[torch.Size, list[Tensor]] = {}
        self._evaluations = 0

    def counts(self) -> dict[str, int]:
        return {"evaluations": self._evaluations}

    def begin(self, y: Tensor, t: float) -> Memory:
        if not self.embedded:
            return Memory()
        self._evaluations += 1
        return Memory(self.system.explicit_force(y, t))

    def step(self, y: Tensor, t: float, h: float, memory: Memory) -> Attempt:
        coefficients, formed = self._coefficients(h, memory.formed)
        first = memory.force
        tensors = (y,) if first is None else (y, first)
        if not self.system.tracked(*tensors):
            run = self._fast if self.system.fast else self._plain
        else:
            run = self._along if self.system.constant_data and forward_mode.alone(*tensors) else self._plain
        value, error, last = run(y, t, h, first, coefficients)
        self._evaluations += len(self.nodes) - (first is not None) + (self.embedded > 0)
        return Attempt(value, Memory(last, formed), error)

    def _coefficients(
        self, h: float, formed: tuple[tuple[float, Coefficients], ...]
    ) -> tuple[Coefficients, tuple[tuple[float, Coefficients], ...]]:
        """What belongs to a step size, and what the next step is to remember."""
        if torch.is_grad_enabled() and self.system.symbol.requires_grad:
            found = next((coefficients for size, coefficients in formed if size == h), None)
            others = tuple(pair for pair in formed if pair[0] != h)
            found = self._formed(h) if found is None else found
            return found, ((h, found), *others[: KEPT_STEP_SIZES - 1])
        if h not in self._known:
            while len(self._known) >= KEPT_STEP_SIZES:
                self._known.popitem(last=False)
            self._known[h] = self._formed(h)
        self._known.move_to_end(h)
        return self._known[h], ()

    @in_plain_mode
    def _prepared(self) -> Callable[[float], Functions]:
        """h -> c -> [phi_0(c h L), ..., phi_3(c h L)] for the nodes c."""
        symbol, steps = self.system.symbol, sorted({*self.nodes, 1.0} - {0.0})
        if self.system.channels == 1:
            scales = torch.tensor(steps, dtype=torch.float64, device=symbol.device)
            scales = scales.reshape(-1, *[1] * symbol.ndim)

            def numbers(h: float) -> Functions:
                found = [part.unbind(0) for part in phi(h * scales * symbol, 3)]
                return lambda c: [part[steps.index(c)] for part in found]

            return numbers
        matrices = PhiOfMatrices(torch.movedim(symbol, self._places, (-2, -1)))

        def all_of(h: float) -> Functions:
            found = {c: matrices(c * h, 3) for c in steps}
            return lambda c: found[c]

        return all_of

    @property
    def _places(self) -> tuple[int, int]:
        """Axes of the matrices of the symbol."""
        return -2 - self.system.axes, -1 - self.system.axes

    @in_plain_mode
    def _formed(self, h: float) -> Coefficients:
        system = self.system
        dtype = torch.complex128 if system.dtype == torch.float64 else torch.complex64
        matrices = system.channels > 1

        def stored(factor: Tensor) -> Tensor:
            return (torch.movedim(factor, (-2, -1), self._places) if matrices else factor).to(dtype).contiguous()

        found = self._formula(self._functions(h), h, torch.matmul if matrices else torch.mul)
        return Coefficients(
            {c: stored(factor) for c, factor in found.exponentials.items()},
            tuple(tuple((j, stored(factor)) for j, factor in row) for row in found.rows),
            tuple((j, stored(factor)) for j, factor in found.weights),
            None if found.error is None else tuple((j, stored(factor)) for j, factor in found.error),
        )

    def _plain(
        self, y: Tensor, t: float, h: float, first: Tensor | None, coefficients: Coefficients
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Value, error and the nonlinear part at the value, by operations that can be differentiated."""
        system, nodes = self.system, self.nodes
        stages = [system.explicit_force(y, t) if first is None else first]
        for c, row in zip(nodes[1:], coefficients.rows, strict=True):
            stage = self._combined(y, coefficients.exponentials[c], row, stages)
            stages.append(system.explicit_force(stage, t + c * h))
        value = system.project(self._combined(y, coefficients.exponentials[1.0], coefficients.weights, stages))
        if coefficients.error is None:
            return value, None, None
        stages.append(system.explicit_force(value, t + h))
        return value, self._combined(None, None, coefficients.error, stages), stages[-1]

    def _along(
        self, y: Tensor, t: float, h: float, first: Tensor | None, coefficients: Coefficients
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The same where torch differentiates forwards, as one operation whose derivative is known."""
        system, nodes = self.system, self.nodes

        def function(state: Tensor, force: Tensor | None = None) -> Tensor:
            found = (self._fast if system.fast else self._plain)(state, t, h, force, coefficients)
            return torch.stack([part for part in found if part is not None])

        def derivative(tensors: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
            state, ahead = tensors[0], directions[0]
            stages = [system.plain_force(state, t) if first is None else tensors[1]]
            slopes = [system.explicit_derivative(state, ahead, t) if first is None else directions[1]]
            for c, row in zip(nodes[1:], coefficients.rows, strict=True):
                exponential = coefficients.exponentials[c]
                stage, slope = (
                    self._combined(*start, row, known)
                    for start, known in (((state, exponential), stages), ((ahead, exponential), slopes))
                )
                stages.append(system.plain_force(stage, t + c * h))
                slopes.append(system.explicit_derivative(stage, slope, t + c * h))
            one = coefficients.exponentials[1.0]
            value = system.project(self._combined(ahead, one, coefficients.weights, slopes))
            if coefficients.error is None:
                return value.unsqueeze(0)
            end = system.project(self._combined(state, one, coefficients.weights, stages))
            slopes.append(system.explicit_derivative(end, value, t + h))
            return torch.stack([value, self._combined(None, None, coefficients.error, slopes), slopes[-1]])

        tensors = (y,) if first is None else (y, first)
        found = forward_mode.along(function, derivative, *tensors).unbind(0)
        return found[0], *(found[1:] if self.embedded else (None, None))

    def _fast(
        self, y: Tensor, t: float, h: float, first: Tensor | None, coefficients: Coefficients
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The same in memory that is used again, through all stages with a few rows at a time."""
        system, nodes = self.system, self.nodes
        c = system.coefficients(y)
        rows = c.shape[: c.ndim - len(system.state_space) + 1]
        sums = self._compiled(coefficients, rows)
        parts = [c, torch.empty_like(c)]
        if self.embedded:
            parts += [torch.empty_like(c), torch.empty_like(c)]
        if first is not None:
            parts.append(system.coefficients(first))
        size = max(1, BLOCK_BYTES // ((len(nodes) + 3) * c.element_size() * prod(c.shape[len(rows) :])))
        for start, value, *more in system.blocks(rows, *parts, size=size):
            count = prod(start.shape[: start.ndim - len(system.state_space) + 1])
            stage, *forces = self._memory(start)
            addresses = [force.data_ptr() for force in forces[: len(nodes)]]
            if first is None:
                system.evaluate(start, t, forces[0], linear=False)
            else:
                addresses[0] = more[2].data_ptr()
            origin = start.data_ptr()
            for i, node in enumerate(nodes[1:], 1):
                sums[i - 1].run(count, stage.data_ptr(), origin, *addresses)
                system.evaluate(stage, t + node * h, forces[i], linear=False)
            sums[len(nodes) - 1].run(count, value.data_ptr(), origin, *addresses)
            system.project_(value)
            if self.embedded:
                system.evaluate(value, t + h, more[1], linear=False)
                sums[-1].run(count, more[0].data_ptr(), origin, *addresses, more[1].data_ptr())
        found = [torch.view_as_real(part) for part in parts[1:4]]
        return found[0], *(found[1:3] if self.embedded else (None, None))

    def _memory(self, c: Tensor) -> list[Tensor]:
        """A stage and the nonlinear part at every node, for coefficients of a shape; kept for the two latest shapes,
        since the last block of rows is smaller than the others."""
        found = self._buffers.get(c.shape)
        if found is None:
            if len(self._buffers) == 2:
                self._buffers.clear()
            with torch.inference_mode(False):
                found = [torch.empty(c.shape, dtype=c.dtype) for _ in range(len(self.nodes) + 1)]
            self._buffers[c.shape] = found
        return found

    def _compiled(self, coefficients: Coefficients, rows: tuple[int, ...]) -> list[Combination]:
        """The stages after the first, the value and the error as sums; operands are result, start and stages."""
        key = rows if self.system.batch else ()
        if key not in coefficients.compiled:
            nodes, one = self.nodes, coefficients.exponentials[1.0]
            found = [(coefficients.exponentials[c], row) for c, row in zip(nodes[1:], coefficients.rows, strict=True)]
            found.append((one, coefficients.weights))
            combined = [self._sum([(1, e), *((j + 2, w) for j, w in row)], rows, len(nodes)) for e, row in found]
            if coefficients.error is not None:
                combined.append(self._sum([(j + 2, w) for j, w in coefficients.error], rows, len(nodes) + 1))
            coefficients.compiled[key] = combined
        return coefficients.compiled[key]

    def _sum(self, terms: list[tuple[int, Tensor]], rows: tuple[int, ...], stages: int) -> Combination:
        modes, channels = self.system.modes, self.system.channels
        lines, columns = prod(modes.kept[:-1]), modes.kept[-1]

        def place(operand: int, channel: int) -> Place:
            return Place(operand, channel * modes.size, channels * modes.size, columns)

        sums = []
        for i in range(channels):
            parts: list[tuple[Tensor | None, Place]] = []
            for operand, factor in terms:
                entries = (
                    [factor]
                    if channels == 1
                    else list(factor.select(-2 - modes.dimension, i).unbind(-1 - modes.dimension))
                )
                for j, entry in enumerate(entries):
                    if channels == 1 or bool(entry.any()):
                        whole = entry.expand(*(rows if self.system.batch else ()), *modes.kept)
                        parts.append((whole.contiguous(), place(operand, j)))
            sums.append(Sum(place(0, i), parts))
        return Combination(sums, stages + 2, (lines, lines // 2 + 1, columns), self.system.dtype)

    def _combined(self, y: Tensor | None, exponential: Tensor | None, weights: Weights, stages: list[Tensor]) -> Tensor:
        parts = [] if y is None or exponential is None else [self.system.multiplied(exponential, y)]
        parts += [self.system.multiplied(factor, stages[j]) for j, factor in weights]
        return sum(parts[1:], parts[0])


def _etd1(phi: Functions, h: float, times: Product) -> Coefficients:
    full = phi(1.0)
    return Coefficients({1.0: full[0]}, (), ((0, h * full[1]),))


def _etd2(phi: Functions, h: float, times: Product) -> Coefficients:
    full = phi(1.0)
    second = h * full[2]
    return Coefficients({1.0: full[0]}, (((0, h * full[1]),),), ((0, h * full[1] - second), (1, second)))


def _etd3(phi: Functions, h: float, times: Product) -> Coefficients:
    half, full = phi(0.5), phi(1.0)
    return Coefficients(
        {0.5: half[0], 1.0: full[0]},
        (((0, h / 2 * half[1]),), ((0, -h * full[1]), (1, 2 * h * full[1]))),
        (
            (0, h * (full[1] - 3 * full[2] + 4 * full[3])),
            (1, h * (4 * full[2] - 8 * full[3])),
            (2, h * (4 * full[3] - full[2])),
        ),
    )


def _weights(full: list[Tensor], h: float) -> Weights:
    middle = h * (2 * full[2] - 4 * full[3])
    last = h * (4 * full[3] - full[2])
    return (0, h * (full[1] - 3 * full[2] + 4 * full[3])), (1, middle), (2, middle), (3, last)


def _etd4(phi: Functions, h: float, times: Product) -> Coefficients:
    half, full = phi(0.5), phi(1.0)
    first = h / 2 * half[1]
    rows: tuple[Weights, ...] = (
        ((0, first),),
        ((1, first),),
        ((0, times(half[0], first) - first), (2, 2 * first)),
    )
    return Coefficients({0.5: half[0], 1.0: full[0]}, rows, _weights(full, h))


def _pair(phi: Functions, h: float, times: Product) -> Coefficients:
    half, full = phi(0.5), phi(1.0)
    rows: tuple[Weights, ...] = (
        ((0, h / 2 * half[1]),),
        ((0, h * (half[1] / 2 - half[2])), (1, h * half[2])),
        ((0, h * (full[1] - 2 * full[2])), (2, 2 * h * full[2])),
    )
    weights = _weights(full, h)
    last = weights[-1][1]
    return Coefficients({0.5: half[0], 1.0: full[0]}, rows, weights, ((3, last), (4, -last)))


class _Scheme(NamedTuple):
    """A method: its order, the times of the stages within a step, the order of the embedded solution (0 without), and
    what forms its coefficients from the functions phi."""

    order: int
    nodes: tuple[float, ...]
    embedded: int
    formula: Callable[[Functions, float, Product], Coefficients]


_SCHEMES = {
    "ETDRK1": _Scheme(1, (0.0,), 0, _etd1),
    "ETDRK2": _Scheme(2, (0.0, 1.0), 0, _etd2),
    "ETDRK3": _Scheme(3, (0.0, 0.5, 1.0), 0, _etd3),
    "ETDRK4": _Scheme(4, (0.0, 0.5, 0.5, 1.0), 0, _etd4),
    "exponential 4(3)": _Scheme(4, (0.0, 0.5, 0.5, 1.0), 3, _pair),
}
