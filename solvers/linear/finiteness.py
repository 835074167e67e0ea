"""Refuses operators that hold NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import BlockOperator, LinearOperator, ProductOperator, ScaledOperator, SumOperator
from sciml.sparse import SparseOperator
from sciml.stencil import StencilOperator


def check_finite(operator: LinearOperator) -> None:
    """Raise InputError for NaN or infinity in the coefficients of an operator, as far as they are known."""
    bad = 0
    for coefficient in _coefficients(operator):
        # One cheap pass in the good case: a sum is finite only if every entry is, up to overflow.
        if not bool(torch.isfinite(coefficient.sum())):
            bad += int((~torch.isfinite(coefficient)).sum())
    if bad:
        raise InputError(f"the operator holds {bad} entries that are NaN or infinite")


def _coefficients(operator: LinearOperator) -> Iterator[Tensor]:
    parts: tuple[LinearOperator | None, ...] = ()
    if isinstance(operator, StencilOperator):
        yield from operator.coefficients
    elif isinstance(operator, SparseOperator):
        yield operator.values
    elif isinstance(operator, ScaledOperator):
        yield torch.as_tensor(operator.scale)
        parts = (operator.operator,)
    elif isinstance(operator, SumOperator):
        parts = operator.operators
    elif isinstance(operator, ProductOperator):
        parts = (operator.left, operator.right)
    elif isinstance(operator, BlockOperator):
        parts = tuple(block for row in operator.blocks for block in row)
    for part in parts:
        if part is not None:
            yield from _coefficients(part)
