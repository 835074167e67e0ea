"""Evaluates sympy expressions with tensors, by a list of torch operations that is worked out once per expression."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import sympy
import torch
from sympy.core.function import AppliedUndef
from torch import Tensor

from ..errors import InputError
from .expression import nearest

Value = Tensor | float

_PRODUCTS = 8  # powers up to this are products, which are quicker than a power

_CALLS: dict[Any, Callable[[Tensor], Tensor]] = {
    sympy.Abs: torch.abs,
    sympy.cos: torch.cos,
    sympy.exp: torch.exp,
    sympy.log: torch.log,
    sympy.sign: torch.sign,
    sympy.sin: torch.sin,
    sympy.tan: torch.tan,
    sympy.tanh: torch.tanh,
}


def names(expression: sympy.Expr) -> set[str]:
    """The names whose values an expression needs.

    Args:
        expression: component form. A derivative is named `field_letters` with the letters in the order of the
            coordinates, then t: `u_xxy`, `a_x`.

    Returns:
        Names of fields, derivatives, coordinates and parameters; no number such as pi.

    Raises:
        InputError: for a part that cannot be evaluated.
    """
    return set(_program((expression,)).names)


def shown(expression: sympy.Expr) -> str:
    """An expression for messages: with names as they were written, `a*k_x` and not `a*Derivative(k(x, y, t), x)`."""
    applied = {part: sympy.Symbol(name) for part in sympy.preorder_traversal(expression) if (name := _name(part))}
    return str(expression.xreplace(applied))


def evaluate(expression: sympy.Expr, values: Mapping[str, Value]) -> Value:
    """The value of an expression; differentiable in all tensors.

    Args:
        expression: component form, in the functions of the grammar.
        values: number or tensor of each name of `names(expression)`, of shapes that broadcast; other names are ignored.
            Dimensionless or in the units of the problem.

    Returns:
        A tensor of the broadcast shape, dtype and device by torch's rules; a number if no tensor went in.

    Raises:
        InputError: if a value is missing, or for a part that cannot be evaluated.
    """
    return evaluate_all((expression,), values)[0]


def evaluate_all(expressions: Sequence[sympy.Expr], values: Mapping[str, Value]) -> tuple[Value, ...]:
    """`evaluate` for several expressions; what they have in common is computed once."""
    program = _program(tuple(expressions))
    try:
        slots: list[Any] = [values[name] for name in program.names]
    except KeyError:
        missing = sorted(name for name in program.names if name not in values)
        raise InputError(_missing(missing, values)) from None
    slots += program.constants
    for action, inputs, released in program.steps:
        if len(inputs) == 2:
            slots.append(action(slots[inputs[0]], slots[inputs[1]]))
        else:
            slots.append(action(*[slots[place] for place in inputs]))
        for place in released:
            slots[place] = None
    return tuple([slots[place] for place in program.outputs])


@dataclass(frozen=True)
class Operations:
    """Expressions as operations on registers, which hold the values of `names`, then `constants`, then the results of
    `steps`, in this order.

    Attributes:
        steps: of each its name, as in `OPERATIONS`, and the registers of its one or two arguments.
        outputs: the registers of the expressions.
    """

    names: tuple[str, ...]
    constants: tuple[float, ...]
    steps: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[int, ...]


OPERATIONS = ("add", "subtract", "multiply", "divide", "negate", "sqrt", "abs", "sin", "cos", "exp", "log", "tanh")


def operations(expressions: Sequence[sympy.Expr]) -> Operations | None:
    """The expressions in terms of `OPERATIONS`, None where they hold others.

    Raises:
        InputError: for a part that cannot be evaluated.
    """
    program = _program(tuple(expressions))
    known: dict[Action, str] = {
        operator.add: "add",
        operator.sub: "subtract",
        operator.mul: "multiply",
        _product: "multiply",
        _divide: "divide",
        operator.neg: "negate",
        **{_applied(getattr(torch, name)): name for name in OPERATIONS[5:]},
    }
    steps: list[tuple[str, tuple[int, ...]]] = []
    leaves = len(program.names) + len(program.constants)
    register = list(range(leaves))
    for action, inputs, _ in program.steps:
        if action not in known:
            return None
        arguments = [register[slot] for slot in inputs]
        while len(arguments) > 2:
            steps.append((known[action], (arguments[0], arguments[1])))
            arguments[:2] = [leaves + len(steps) - 1]
        steps.append((known[action], tuple(arguments)))
        register.append(leaves + len(steps) - 1)
    outputs = tuple(register[slot] for slot in program.outputs)
    return Operations(program.names, program.constants, tuple(steps), outputs)


def _missing(missing: list[str], values: Mapping[str, Value]) -> str:
    parts = []
    for name in missing:
        suggestion = nearest(name, values)
        parts.append(f"'{name}'" + (f" (given: '{suggestion}')" if suggestion else ""))
    return f"no value for {', '.join(parts)}"


Action = Callable[..., Value]


@dataclass(frozen=True)
class _Program:
    """Operations on slots, of which the first hold the values of `names`, and the next `constants`.

    Each step is an action, the slots that it takes, and those that it takes as the last one, to be released. It fills
    the next slot.
    """

    names: tuple[str, ...]
    constants: tuple[float, ...]
    steps: tuple[tuple[Action, tuple[int, ...], tuple[int, ...]], ...]
    outputs: tuple[int, ...]


@lru_cache(maxsize=512)
def _program(expressions: tuple[sympy.Expr, ...]) -> _Program:
    writer = _Writer()
    places = [writer.place(expression) for expression in expressions]
    leaves = (*writer.names.values(), *writer.constants.values())
    order = {place: slot for slot, place in enumerate([*leaves, *(place for place, _, _ in writer.steps)])}
    outputs = tuple(order[place] for place in places)
    steps = [(action, tuple(order[k] for k in inputs)) for _, action, inputs in writer.steps]
    last = {slot: step for step, (_, inputs) in enumerate(steps) for slot in inputs}
    released: dict[int, list[int]] = {}
    for slot, step in last.items():
        if slot not in outputs and slot >= len(leaves):
            released.setdefault(step, []).append(slot)
    return _Program(
        tuple(writer.names),
        tuple(writer.constants),
        tuple((action, inputs, tuple(released.get(k, ()))) for k, (action, inputs) in enumerate(steps)),
        outputs,
    )


class _Writer:
    """Lowers expressions to operations on one or two values, numbered in the order in which they are met."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.constants: dict[float, int] = {}
        self.steps: list[tuple[int, Action, tuple[int, ...]]] = []
        self._known: dict[sympy.Expr, int] = {}
        self._count = 0

    def place(self, expression: sympy.Expr) -> int:
        """The number of an expression's value."""
        if expression not in self._known:
            self._known[expression] = self._write(expression)
        return self._known[expression]

    def _write(self, expression: sympy.Expr) -> int:
        name = _name(expression)
        if name is not None:
            return self._leaf(self.names, name)
        if expression.is_number:
            return self._leaf(self.constants, _number(expression))
        if expression.is_Add:
            return self._sum(expression)
        if expression.is_Mul:
            below = [factor for factor in expression.args if _is_divisor(factor)]
            above = self._product([factor for factor in expression.args if factor not in below])
            if not below:
                return above
            return self._step(_divide, above, self._product([1 / factor for factor in below]))
        if expression.is_Pow:
            action, arguments = _power(*expression.args)
        elif expression.func in _CALLS:
            action, arguments = _applied(_CALLS[expression.func]), expression.args
        else:
            raise InputError(f"{expression.func.__name__} cannot be evaluated: '{str(expression)[:80]}'")
        return self._step(action, *(self.place(argument) for argument in arguments))

    def _leaf(self, leaves: dict[Any, int], key: Any) -> int:
        if key not in leaves:
            leaves[key] = self._count
            self._count += 1
        return leaves[key]

    def _step(self, action: Action, *inputs: int) -> int:
        self.steps.append((self._count, action, inputs))
        self._count += 1
        return self._count - 1

    def _sum(self, expression: sympy.Expr) -> int:
        """What is subtracted comes last."""
        signs = [term.could_extract_minus_sign() for term in expression.args]
        added = [self.place(term) for term, sign in zip(expression.args, signs, strict=True) if not sign]
        taken = [self.place(-term) for term, sign in zip(expression.args, signs, strict=True) if sign]
        total = added.pop(0) if added else self._step(operator.neg, taken.pop(0))
        for place in added:
            total = self._step(operator.add, total, place)
        for place in taken:
            total = self._step(operator.sub, total, place)
        return total

    def _product(self, factors: Sequence[sympy.Expr]) -> int:
        if not factors:
            return self._leaf(self.constants, 1.0)
        places = [self.place(factor) for factor in factors]
        if len(places) == 1:
            return places[0]
        return self._step(operator.mul if len(places) == 2 else _product, *places)


def _name(expression: sympy.Expr) -> str | None:
    if expression.is_Symbol:
        return str(expression.name)
    if isinstance(expression, AppliedUndef):
        return str(expression.func.__name__)
    if isinstance(expression, sympy.Derivative) and isinstance(expression.expr, AppliedUndef):
        counts = {variable: int(count) for variable, count in expression.variable_count}
        letters = "".join(variable.name * counts.get(variable, 0) for variable in expression.expr.args)
        return f"{expression.expr.func.__name__}_{letters}"
    return None


def _number(expression: sympy.Expr) -> float:
    if expression.is_real is False or expression.is_finite is False:
        raise InputError(f"'{str(expression)[:80]}' is no real number")
    try:
        return float(expression)
    except OverflowError:
        raise InputError("an expression holds a number that is too large for a float") from None


def _is_divisor(factor: sympy.Expr) -> bool:
    return bool(factor.is_Pow and factor.exp.is_Rational and factor.exp < 0)


def _power(base: sympy.Expr, exponent: sympy.Expr) -> tuple[Action, Sequence[sympy.Expr]]:
    if exponent.is_Integer and 2 <= exponent <= _PRODUCTS:
        half = exponent // 2
        return operator.mul, (base**half, base ** (exponent - half))
    if exponent == sympy.Rational(1, 2):
        return _applied(torch.sqrt), (base,)
    if exponent == -1:
        return _divide, (sympy.Integer(1), base)
    if exponent.is_Rational:
        number = int(exponent) if exponent.is_Integer else float(exponent)
        return lambda value: _apply(lambda tensor: torch.pow(tensor, number), value), (base,)
    return lambda first, second: _apply(torch.pow, first, second), (base, exponent)


@lru_cache
def _applied(function: Callable[[Tensor], Tensor]) -> Action:
    """The function for numbers too."""
    return partial(_apply, function)


def _apply(function: Callable[..., Tensor], *arguments: Any) -> Value:
    """Numbers go through torch too, so that they overflow and divide by zero as tensors do."""
    if any(isinstance(argument, Tensor) for argument in arguments):
        return function(*arguments)
    return float(function(*(torch.tensor(float(argument), dtype=torch.float64) for argument in arguments)))


def _divide(above: Value, below: Value) -> Value:
    return _apply(operator.truediv, above, below)


def _product(*factors: Any) -> Any:
    """Small factors first: numbers and fields that vary along few axes are multiplied at their own size."""
    ordered = sorted(factors, key=lambda factor: factor.numel() if isinstance(factor, Tensor) else 0)
    return math.prod(ordered[1:], start=ordered[0])
