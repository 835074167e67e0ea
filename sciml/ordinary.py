"""Systems of ordinary differential equations written as text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, final

import sympy
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .dense_operator import DenseOperator
from .equations.evaluation import evaluate_all, names, operations
from .equations.residuals import partial
from .errors import InputError
from .evolving import EvolvingSystem, Time, Tolerance, root_mean_square_ratio
from .given import Number, batch_shape, check_value, refuse_strangers
from .kernels import build
from .kernels.tape import Tape
from .linear_operator import LinearOperator
from .time_functions import clock

if TYPE_CHECKING:
    from .equations import Equation


@final
class OrdinarySystem(EvolvingSystem):
    """du/dt = f(u, t) of an equation without coordinates.

    Args:
        equation: evolving, with `coordinates=()`.
        fields: one value for each of `equation.coefficients`: a number, a tensor of the batch's shape, or a function of
            t that returns either. It is called with a float64 tensor without axes, or of the batch's shape where rows
            have steps of their own.
        parameters: values that replace those stored in the equation: numbers, or tensors of the batch's shape.
        dtype, device: of the states; torch.float64 or torch.float32.

    Raises:
        InputError: for an equation that does not evolve, has coordinates or constraints, and for values that do not
            fit.
    """

    def __init__(
        self,
        equation: Equation,
        fields: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if equation.coordinates or not equation.evolving:
            raise InputError(
                f"'{equation}' is no system of ordinary differential equations: these have time derivatives and are "
                "written with coordinates=()"
            )
        if equation.constrained:
            raise InputError(
                "constraints are not handled in ordinary differential equations in this version: solve them for "
                f"{', '.join(equation.constrained)} and put the result into the equations"
            )
        self.equation = equation
        self.domain = None
        self.unknowns = equation.unknowns
        self.boundary = None
        self.scheme = None
        self.notes = ()
        self.dtype, self.device = dtype, torch.device(device)
        given = dict(fields or {})
        refuse_strangers(given, equation.coefficients, "fields")
        missing = [name for name in equation.coefficients if name not in given]
        if missing:
            raise InputError(f"fields: no value is given for the coefficient {', '.join(missing)}")
        self._functions = {name: value for name, value in given.items() if _is_function(value)}
        self.fields = {
            name: value if name in self._functions else check_value(value, self, f"field {name!r}", wanted=_WANTED)
            for name, value in given.items()
        }
        refuse_strangers(parameters or {}, equation.parameters, "parameters")
        self.parameters = {
            name: check_value(value, self, f"parameter {name!r}")
            for name, value in {**equation.parameters, **(parameters or {})}.items()
        }
        self._known: dict[str, Number] = {
            **{name: value for name, value in self.fields.items() if name not in self._functions},
            **self.parameters,
        }
        self.batch = batch_shape(self._known.items(), 0)
        self.axes = 0
        self.space = () if len(self.unknowns) == 1 else (len(self.unknowns),)
        self.state_space = self.space
        forms = equation.residual_forms(0, varying=("t", *self._functions))
        self._linear = [
            {term.unknown: -term.coefficient for term in form.terms if term.unknown is not None} for form in forms
        ]
        self._rest = tuple(
            -form.rest - sympy.Add(*(term.coefficient for term in form.terms if term.unknown is None)) for form in forms
        )
        self._tapes: dict[tuple[tuple[int, ...], torch.dtype], Tape | None] = {}
        symbols = {name: sympy.Symbol(name, real=True) for name in self.unknowns}
        self._rates = tuple(
            sympy.Add(rest, *(coefficient * symbols[name] for name, coefficient in linear.items()))
            for rest, linear in zip(self._rest, self._linear, strict=True)
        )
        self._jacobian = {
            (i, j): slope
            for i, rate in enumerate(self._rates)
            for j, symbol in enumerate(symbols.values())
            if (slope := partial(rate, symbol)) != 0
        }
        unknown = set().union(*(names(rate) for rate in self._rates)) - {"t", *self.unknowns, *self.fields}
        for name in sorted(unknown - self.parameters.keys()):
            raise InputError(f"the equation needs a value for {name!r}, which has none without coordinates")

    @cached_property
    def linear_part(self) -> LinearOperator | None:  # type: ignore[override]
        """The constant matrix of the linear terms, None if there are none."""
        entries = {
            (row, self.unknowns.index(name)): coefficient
            for row, linear in enumerate(self._linear)
            for name, coefficient in linear.items()
        }
        return self._dense(entries, self._known) if entries else None

    def rate(self, u: Tensor, t: Time) -> Tensor:
        return self._evaluate(self._rates, u, t)

    def nonlinear_part(self, u: Tensor, t: Time) -> Tensor:
        return self._evaluate(self._rest, u, t)

    def constrained(self, u: Tensor, t: Time) -> dict[str, Tensor]:
        return {}

    def hold(self, u: Tensor, t: Time) -> Tensor:
        return u

    def encode(self, u: Tensor) -> Tensor:
        """The same, each channel contiguous: equations are evaluated channel by channel, for the whole batch."""
        return u.movedim(-1, 0).contiguous().movedim(0, -1) if self.space else u

    def decode(self, y: Tensor) -> Tensor:
        return y

    def slope(self, y: Tensor, t: Time) -> Tensor:
        tape = self.tape(y)
        if tape is None:
            return self._evaluate(self._rates, y, t)
        if isinstance(t, Tensor):
            t = t.to(y.dtype).expand(y.shape[: y.ndim - len(self.space)]).contiguous()
        rate = torch.empty_strided(y.shape, y.stride(), dtype=y.dtype)
        tape.rate(y, t, rate)
        return rate

    def tape(self, y: Tensor) -> Tape | None:
        """The compiled right-hand side for states like this one; None with gradients, off the CPU, for states whose
        unknowns are not contiguous, and for fields that are functions of the time."""
        if (
            y.device.type != "cpu"
            or torch.is_grad_enabled()
            or forward_ad._current_level >= 0
            or torch.compiler.is_compiling()
            or torch._C._functorch.maybe_current_level() is not None
            or y.dtype not in (torch.float64, torch.float32)
            or not (y.is_contiguous() if len(self.space) == 0 or y.ndim == 1 else y.movedim(-1, 0).is_contiguous())
        ):
            return None
        batch = tuple(y.shape[: y.ndim - len(self.space)])
        key = (batch, y.dtype)
        if key not in self._tapes:
            compilable = None if self._functions else operations(self._rates)
            fits = build.library() is not None and compilable is not None
            self._tapes[key] = None
            if fits and compilable is not None and torch.broadcast_shapes(batch, self.batch) == batch:
                self._tapes[key] = Tape(compilable, self.unknowns, self._known, batch, y)
        return self._tapes[key]

    def __getstate__(self) -> dict[str, Any]:
        """Without what holds addresses."""
        return {**self.__dict__, "_tapes": {}}

    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        return root_mean_square_ratio(error, before, after, rtol, atol, len(self.space))

    def apply_mass(self, y: Tensor) -> Tensor:
        return y

    def force(self, y: Tensor, t: Time) -> Tensor:
        return self._evaluate(self._rates, y, t)

    def explicit_force(self, y: Tensor, t: Time) -> Tensor:
        return self._evaluate(self._rest, y, t)

    def shifted(self, y: Tensor, t: Time, step: float) -> LinearOperator:
        jacobian = self._dense(self._jacobian, self._values(y, t))
        return DenseOperator(self._identity() - step * jacobian.matrices, self.space)

    def shifted_linear(self, step: float) -> LinearOperator:
        linear = self.linear_part
        matrices = linear.matrices if isinstance(linear, DenseOperator) else 0.0
        return DenseOperator(self._identity() - step * matrices, self.space)

    def _values(self, u: Tensor, t: Time) -> dict[str, Number]:
        channels = (u,) if not self.space else u.unbind(-1)
        values = {**self._known, **dict(zip(self.unknowns, channels, strict=True)), "t": t}
        if self._functions:
            now = clock(t, 0, self.device)
            values.update({name: function(now) for name, function in self._functions.items()})
        return values

    def _evaluate(self, expressions: tuple[sympy.Expr, ...], u: Tensor, t: Time) -> Tensor:
        found = evaluate_all(expressions, self._values(u, t))
        if not self.space:
            return self._full(found[0], u)
        like = u[..., 0]
        rates = [rate.to(u.dtype) if isinstance(rate, Tensor) else self._full(rate, like) for rate in found]
        if any(rate.shape != like.shape for rate in rates):
            rates = list(torch.broadcast_tensors(like, *rates)[1:])
        return torch.stack(rates).movedim(0, -1)

    def _full(self, rate: Number, like: Tensor) -> Tensor:
        if not isinstance(rate, Tensor):
            return torch.full_like(like, rate)
        rate = rate.to(like.dtype)  # times of the rows are in float64
        return rate if rate.shape == like.shape else rate.expand(torch.broadcast_shapes(rate.shape, like.shape))

    def _dense(self, entries: Mapping[tuple[int, int], sympy.Expr], values: Mapping[str, Number]) -> DenseOperator:
        n = prod(self.space)
        found = evaluate_all(tuple(entries.values()), values)
        given = [torch.as_tensor(value, dtype=self.dtype, device=self.device) for value in found]
        batch = torch.broadcast_shapes(*(value.shape for value in given))
        by_place = dict(zip(entries, given, strict=True))
        zero = torch.zeros((), dtype=self.dtype, device=self.device)
        rows = [torch.stack([by_place.get((i, j), zero).expand(batch) for j in range(n)], -1) for i in range(n)]
        return DenseOperator(torch.stack(rows, -2), self.space)

    def _identity(self) -> Tensor:
        return torch.eye(prod(self.space), dtype=self.dtype, device=self.device)


_WANTED = "a number, a tensor of the batch's shape or a function of t"


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, Tensor)
