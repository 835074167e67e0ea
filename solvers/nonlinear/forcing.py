"""How accurately the linear equation of a Newton step is to be solved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear.settings import check_number


@dataclass(frozen=True)
class EisenstatWalker:
    """Relative inner tolerances that follow the convergence of the outer iteration.

    eta_k = gamma (|F_k| / |F_k-1|)^exponent, no less than gamma eta_k-1^exponent while that exceeds 0.1, and no larger
    than `largest`: choice 2 of S. C. Eisenstat and H. F. Walker, SIAM J. Sci. Comput. 17 (1996) 16-32, (2.6) and the
    safeguard after it. The last steps are solved no further than the outer tolerance asks for: C. T. Kelley, Iterative
    Methods for Linear and Nonlinear Equations, SIAM 1995, (6.20). A batch takes the smallest of its rows.

    Args:
        gamma, exponent: dimensionless; in (0, 1] and (1, 2].
        largest: also of the first step, dimensionless, in (0, 1).
        smallest: dimensionless.

    Raises:
        InputError: for numbers out of range.
    """

    gamma: float = 0.9
    exponent: float = 2.0
    largest: float = 0.01
    smallest: float = 1e-10

    def __post_init__(self) -> None:
        check_number(self.gamma, "EisenstatWalker: gamma", 0.0, 1.0, "(]")
        check_number(self.exponent, "EisenstatWalker: exponent", 1.0, 2.0, "(]")
        check_number(self.largest, "EisenstatWalker: largest", 0.0, 1.0)
        check_number(self.smallest, "EisenstatWalker: smallest", 0.0, self.largest, "(]")

    def first(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """The tolerances of the first step, one a row."""
        return torch.full(shape, self.largest, dtype=torch.float64, device=device)

    def following(self, eta: Tensor, norms: Tensor, previous: Tensor, tolerance: Tensor) -> Tensor:
        """The tolerances of the next step.

        Args:
            eta: of the last step.
            norms, previous: |F| now and before it.
            tolerance: the outer tolerance on |F|.
        """
        wanted = self.gamma * (norms / previous.clamp(min=torch.finfo(previous.dtype).tiny)) ** self.exponent
        safeguard = self.gamma * eta**self.exponent
        wanted = torch.where(safeguard > 0.1, torch.maximum(wanted, safeguard), wanted)
        enough = 0.5 * tolerance / norms.clamp(min=torch.finfo(norms.dtype).tiny)
        return torch.maximum(wanted, enough).clamp(self.smallest, self.largest)
