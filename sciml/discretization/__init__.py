"""From a symbolic equation on a domain to an operator and a right side, made of tensors."""

from __future__ import annotations

from .evolving import GridEvolution
from .linearization import NonlinearSystem
from .nonlinear import discretize_nonlinear
from .system import System, discretize

__all__ = ["GridEvolution", "NonlinearSystem", "System", "discretize", "discretize_nonlinear"]
