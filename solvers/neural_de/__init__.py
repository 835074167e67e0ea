"""Neural ordinary and stochastic differential equations, trained so that they are easy to solve."""

from .annealing import ExponentialAnnealing
from .integrals import JacobianNorm, KineticEnergy, TaylorDerivative
from .local import LocalError, LocalStiffness
from .ode import NeuralODE
from .regularizers import ErrorEstimate, ErrorEstimateSquared, Regularizer, StiffnessEstimate
from .steer import Steer

__all__ = [
    "ErrorEstimate",
    "ErrorEstimateSquared",
    "ExponentialAnnealing",
    "JacobianNorm",
    "KineticEnergy",
    "LocalError",
    "LocalStiffness",
    "NeuralODE",
    "Regularizer",
    "Steer",
    "StiffnessEstimate",
    "TaylorDerivative",
]
