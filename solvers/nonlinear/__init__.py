"""Solvers of steady nonlinear equations."""

from .continuation import Continuation
from .forcing import EisenstatWalker
from .line_search import Backtracking
from .newton import Newton
from .picard import Picard

__all__ = ["Backtracking", "Continuation", "EisenstatWalker", "Newton", "Picard"]
