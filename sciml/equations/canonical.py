"""The meaning of an equation in one form, so that two of them can be compared."""

from __future__ import annotations

from collections.abc import Hashable

import sympy

from .forms import ComponentSystem, expand


def canonical(system: ComponentSystem) -> Hashable:
    """What all ways of writing the same system have in common.

    Args:
        system: written out for all coordinates with `flux=False` and `pad=True`. What is equal there is equal for
            fewer axes too, where fields do not depend on the last ones.

    Raises:
        InputError: if an equation has too many terms to be multiplied out.
    """
    rows = {
        (row.unknown, _up_to_a_constant(row.rest) if row.unknown is None else _expanded(-row.rest / row.factor))
        for row in system.rows
    }
    return frozenset(rows), frozenset(_up_to_a_constant(row.rest) for row in system.constraints)


def _expanded(expression: sympy.Expr) -> sympy.Expr:
    """Multiplied out, and u*u**(m - 1) written as u**m."""
    expanded = expand(expression)
    if any(not power.exp.is_number for power in expanded.atoms(sympy.Pow)):
        expanded = sympy.Add(*(sympy.powsimp(term, combine="exp") for term in sympy.Add.make_args(expanded)))
    return expanded


def _up_to_a_constant(expression: sympy.Expr) -> sympy.Expr:
    """The expression divided by the constant factor of its first term."""
    expanded = _expanded(expression)
    if expanded == 0:
        return expanded
    symbols = expanded.free_symbols
    parts = [term.as_independent(*symbols, as_Add=False) for term in sympy.Add.make_args(expanded)]
    constant, _ = min(parts, key=lambda part: part[1].sort_key())
    return _expanded(expanded / constant)
