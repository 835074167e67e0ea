"""What operators are made of: whether that is coefficients alone, and whether they are finite."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import torch
from torch import Tensor

from sciml.dense_operator import DenseOperator
from sciml.elements.operator import SparseBatch
from sciml.errors import InputError
from sciml.linear_operator import (
    BlockOperator,
    Identity,
    LinearOperator,
    ProductOperator,
    ScaledOperator,
    SumOperator,
)
from sciml.sparse import SparseOperator
from sciml.stencil import StencilOperator


def check_finite(operator: LinearOperator) -> None:
    """Raise InputError for NaN or infinity in the coefficients of an operator, as far as they are known."""
    bad = 0
    for coefficient in _coefficients(operator):
        # One cheap pass in the good case: a sum is finite only if every entry is, up to overflow.
        if not isfinite(coefficient.sum().item()):
            bad += int((~torch.isfinite(coefficient)).sum())
    if bad:
        raise InputError(f"the operator holds {bad} entries that are NaN or infinite")


def is_matrix(operator: LinearOperator) -> bool:
    """Whether all that an operator is made of are coefficients, no other functions."""
    if isinstance(operator, ScaledOperator):
        return is_matrix(operator.operator)
    if isinstance(operator, SumOperator):
        return all(map(is_matrix, operator.operators))
    if isinstance(operator, ProductOperator):
        return is_matrix(operator.left) and is_matrix(operator.right)
    if isinstance(operator, BlockOperator):
        return all(block is None or is_matrix(block) for row in operator.blocks for block in row)
    return isinstance(operator, StencilOperator | SparseOperator | SparseBatch | DenseOperator | Identity)


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
