"""Linear solvers and preconditioners that are learned.

What trains them is imported by its own name, such as `sciml.solvers.linear.learned.direction_training`: it takes longer
to load.
"""

from .deep_conjugate_direction import DeepConjugateDirection
from .direction_inverse import DeepDirection
from .direction_network import DirectionNetwork
from .learned_multigrid import LearnedMultigrid
from .multigrid_coarsening import CoarseningNetwork
from .ritz import RitzVectors, ritz_vectors
from .weights import about_weights, load_shipped, load_weights, save_weights, shipped

__all__ = [
    "CoarseningNetwork",
    "DeepConjugateDirection",
    "DeepDirection",
    "DirectionNetwork",
    "LearnedMultigrid",
    "RitzVectors",
    "about_weights",
    "load_shipped",
    "load_weights",
    "ritz_vectors",
    "save_weights",
    "shipped",
]
