"""Numbers by which a linear system tells how hard it is, at the cost of one product with its matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.linear_operator import LinearOperator


def dominance(operator: LinearOperator, b: Tensor) -> float:
    """The mean of the row sums of A over that of its diagonal, dimensionless; the mean over a batch.

    1 for a diagonal matrix, 0 for a Laplacian but for its boundary values, 1 / (1 + 4 a / h^2) for 1 - a laplacian in
    two dimensions: of an implicit step it says how long that is.

    Args:
        operator: of any kind.
        b: the right side, which does not matter.
    """
    ones = torch.ones((*operator.batch, *operator.space), dtype=b.dtype, device=b.device)
    return float(operator.apply(ones).mean() / operator.diagonal().mean())
