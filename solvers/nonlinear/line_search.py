"""How far to go along a Newton direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear.rows import Rows
from ..linear.settings import check_number


@dataclass(frozen=True)
class Backtracking:
    """Shorten the step, row by row, until |F(u + s d)| <= (1 - decrease s) |F(u)|.

    The rule of L. Armijo, Pacific J. Math. 16 (1966) 1-3, on |F|, as in C. T. Kelley, Iterative Methods for Linear and
    Nonlinear Equations, SIAM 1995, algorithm 8.2.1. A trial that is not finite counts as one that is too long.

    Args:
        decrease: dimensionless, in (0, 1/2).
        contraction: factor of each shortening, in (0, 1).
        shortest: share of the full step below which a row gives up.

    Raises:
        InputError: for numbers out of range.
    """

    decrease: float = 1e-4
    contraction: float = 0.5
    shortest: float = 1e-4

    def __post_init__(self) -> None:
        check_number(self.decrease, "Backtracking: decrease", 0.0, 0.5)
        check_number(self.contraction, "Backtracking: contraction", 0.0, 1.0)
        check_number(self.shortest, "Backtracking: shortest", 0.0, 1.0, "(]")

    def search(
        self,
        residual: Callable[[Tensor], Tensor],
        rows: Rows,
        u: Tensor,
        direction: Tensor,
        norms: Tensor,
        active: Tensor,
    ) -> Step:
        """Go along a direction.

        Args:
            residual: u -> F(u), without gradients.
            rows: operations row by row.
            u, direction: `(*batch, *space)`.
            norms: |F(u)|, of batch shape.
            active: bool of batch shape, the rows to advance; the others stay where they are.
        """
        share = active.double()
        searching, stopped = active, torch.zeros_like(active)
        evaluations = torch.zeros_like(active, dtype=torch.int64)
        while True:
            factor = rows.spread(share, u)
            trial = torch.where(factor > 0.0, u + factor * direction, u)
            left = residual(trial)
            evaluations = evaluations + searching
            found = rows.norm(left.contiguous())
            # A comparison with NaN is false, so that such a trial is too long.
            searching = searching & ~(found <= (1.0 - self.decrease * share) * norms)
            if not bool(searching.any()):
                return Step(trial, left, found, evaluations, stopped)
            share = torch.where(searching, share * self.contraction, share)
            given_up = searching & (share < self.shortest)
            share = torch.where(given_up, 0.0, share)
            searching, stopped = searching & ~given_up, stopped | given_up


@dataclass(frozen=True, eq=False)
class Step:
    """Where a line search ended.

    Attributes:
        u, residual, norms: there.
        evaluations: of F, int64 of batch shape.
        stopped: bool of batch shape, the rows for which no step was short enough; they stay where they were.
    """

    u: Tensor
    residual: Tensor
    norms: Tensor
    evaluations: Tensor
    stopped: Tensor
