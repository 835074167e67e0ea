"""Evaluates sympy expressions with tensors, by a list of torch operations that is worked out once per expression."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy
import torch
from sympy.core.function import AppliedUndef
from torch import Tensor

from ..errors import InputError
from .expression import nearest

Value = Tensor | float

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
    missing = sorted(name for name in program.names if name not in values)
    if missing:
        raise InputError(_missing(missing, values))
    slots: list[Any] = []
    for step in program.steps:
        slots.append(step.action(values, [slots[place] for place in step.inputs]))
        for place in step.last_uses:
            slots[place] = None
    return tuple(slots[place] for place in program.outputs)


def _missing(missing: list[str], values: Mapping[str, Value]) -> str:
    parts = []
    for name in missing:
        suggestion = nearest(name, values)
        parts.append(f"'{name}'" + (f" (given: '{suggestion}')" if suggestion else ""))
    return f"no value for {', '.join(parts)}"


@dataclass(frozen=True)
class _Step:
    """One operation on earlier results; those it uses for the last time are released after it."""

    action: Callable[[Mapping[str, Value], list[Any]], Value]
    inputs: tuple[int, ...]
    last_uses: tuple[int, ...]


@dataclass(frozen=True)
class _Program:
    steps: tuple[_Step, ...]
    outputs: tuple[int, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=512)
def _program(expressions: tuple[sympy.Expr, ...]) -> _Program:
    places: dict[sympy.Expr, int] = {}
    found: list[tuple[Callable[[Mapping[str, Value], list[Any]], Value], tuple[int, ...]]] = []
    needed: dict[str, None] = {}

    def place(expression: sympy.Expr) -> int:
        if expression not in places:
            name = _name(expression)
            if name is not None:
                needed[name] = None
                found.append((lambda values, _: values[name], ()))
            else:
                action, arguments = _operation(expression)
                inputs = tuple(place(argument) for argument in arguments)
                found.append((lambda _, parts: action(*parts), inputs))
            places[expression] = len(found) - 1
        return places[expression]

    outputs = tuple(place(expression) for expression in expressions)
    last = {slot: step for step, (_, inputs) in enumerate(found) for slot in inputs}
    released: dict[int, list[int]] = {}
    for slot, step in last.items():
        if slot not in outputs:
            released.setdefault(step, []).append(slot)
    steps = tuple(_Step(action, inputs, tuple(released.get(k, ()))) for k, (action, inputs) in enumerate(found))
    return _Program(steps, outputs, tuple(needed))


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


def _operation(expression: sympy.Expr) -> tuple[Callable[..., Value], Sequence[sympy.Expr]]:
    """What to do with which parts of an expression."""
    if expression.is_number:
        if expression.is_real is False or expression.is_finite is False:
            raise InputError(f"'{str(expression)[:80]}' is no real number")
        try:
            number = float(expression)
        except OverflowError:
            raise InputError("an expression holds a number that is too large for a float") from None
        return lambda: number, ()
    if expression.is_Add:
        signs = [term.could_extract_minus_sign() for term in expression.args]
        plain = [-term if sign else term for term, sign in zip(expression.args, signs, strict=True)]
        return lambda *terms: _sum(signs, terms), plain
    if expression.is_Mul:
        below = [factor for factor in expression.args if _is_divisor(factor)]
        above = [factor for factor in expression.args if factor not in below]
        inverse = [1 / factor for factor in below]
        count = len(above)
        return lambda *factors: _quotient(factors[:count], factors[count:]), (*above, *inverse)
    if expression.is_Pow:
        return _power(*expression.args)
    if expression.func in _CALLS:
        function = _CALLS[expression.func]
        return lambda argument: _apply(function, argument), expression.args
    raise InputError(f"{expression.func.__name__} cannot be evaluated: '{str(expression)[:80]}'")


def _is_divisor(factor: sympy.Expr) -> bool:
    return bool(factor.is_Pow and factor.exp.is_Rational and factor.exp < 0)


def _power(base: sympy.Expr, exponent: sympy.Expr) -> tuple[Callable[..., Value], Sequence[sympy.Expr]]:
    if exponent == sympy.Rational(1, 2):
        return lambda value: _apply(torch.sqrt, value), (base,)
    if exponent == -1:
        return lambda value: _apply(torch.reciprocal, value), (base,)
    if exponent.is_Rational:
        number = int(exponent) if exponent.is_Integer else float(exponent)
        return lambda value: _apply(lambda tensor: torch.pow(tensor, number), value), (base,)
    return lambda first, second: _apply(torch.pow, first, second), (base, exponent)


def _apply(function: Callable[..., Tensor], *arguments: Any) -> Value:
    """Numbers go through torch too, so that they overflow and divide by zero as tensors do."""
    if any(isinstance(argument, Tensor) for argument in arguments):
        return function(*arguments)
    return float(function(*(torch.tensor(float(argument), dtype=torch.float64) for argument in arguments)))


def _sum(signs: list[bool], terms: Sequence[Any]) -> Value:
    total: Any = None
    for sign, term in sorted(zip(signs, terms, strict=True), key=lambda pair: pair[0]):
        if total is None:
            total = -term if sign else term
        else:
            total = total - term if sign else total + term
    return total


def _quotient(above: Sequence[Any], below: Sequence[Any]) -> Value:
    if not below:
        return _product(above)
    return _apply(operator.truediv, _product(above), _product(below))


def _product(factors: Sequence[Any]) -> Any:
    """Small factors first: numbers and fields that vary along few axes are multiplied at their own size."""
    ordered = sorted(factors, key=lambda factor: factor.numel() if isinstance(factor, Tensor) else 0)
    return math.prod(ordered[1:], start=ordered[0]) if ordered else 1.0
