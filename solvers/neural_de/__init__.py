"""Neural ordinary and stochastic differential equations, trained so that they are easy to solve."""

from .annealing import ExponentialAnnealing
from .evidence import (
    DivergenceAnnealing,
    LatentDistribution,
    evidence_lower_bound,
    gaussian_log_likelihood,
)
from .flow import ContinuousNormalizingFlow
from .integrals import JacobianNorm, KineticEnergy, TaylorDerivative
from .latent import LatentODE, RecognitionGRU
from .layers import Autonomous, TimeDependent
from .local import LocalError, LocalStiffness
from .ode import NeuralODE
from .regularizers import ErrorEstimate, ErrorEstimateSquared, Regularizer, StiffnessEstimate
from .sde import NeuralSDE
from .steer import Steer

__all__ = [
    "Autonomous",
    "ContinuousNormalizingFlow",
    "DivergenceAnnealing",
    "ErrorEstimate",
    "ErrorEstimateSquared",
    "ExponentialAnnealing",
    "JacobianNorm",
    "KineticEnergy",
    "LatentDistribution",
    "LatentODE",
    "LocalError",
    "LocalStiffness",
    "NeuralODE",
    "NeuralSDE",
    "RecognitionGRU",
    "Regularizer",
    "Steer",
    "StiffnessEstimate",
    "TaylorDerivative",
    "TimeDependent",
    "evidence_lower_bound",
    "gaussian_log_likelihood",
]
