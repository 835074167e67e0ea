"""Linear solvers and preconditioners."""

from .algebraic_multigrid import AlgebraicMultigrid
from .bicgstab import BiCGStab
from .block_diagonal import BlockDiagonal
from .chebyshev import Chebyshev
from .conjugate_gradient import ConjugateGradient, FlexibleConjugateGradient
from .direct import Direct
from .gmres import GMRES
from .ilu import ILU0
from .incomplete_cholesky import IncompleteCholesky
from .jacobi import Jacobi
from .learned.deep_conjugate_direction import DeepConjugateDirection
from .learned.learned_multigrid import LearnedMultigrid
from .minres import MINRES
from .multigrid import Multigrid
from .sor import SOR
from .ssor import SSOR

__all__ = [
    "GMRES",
    "ILU0",
    "MINRES",
    "SOR",
    "SSOR",
    "AlgebraicMultigrid",
    "BiCGStab",
    "BlockDiagonal",
    "Chebyshev",
    "ConjugateGradient",
    "DeepConjugateDirection",
    "Direct",
    "FlexibleConjugateGradient",
    "IncompleteCholesky",
    "Jacobi",
    "LearnedMultigrid",
    "Multigrid",
]
