"""Linear solvers and preconditioners."""

from .conjugate_gradient import ConjugateGradient, FlexibleConjugateGradient
from .multigrid import Multigrid

__all__ = ["ConjugateGradient", "FlexibleConjugateGradient", "Multigrid"]
