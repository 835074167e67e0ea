"""Solvers that tune their own parameters while solving."""

from .cheb_cb import ChebCB
from .contexts import dominance
from .contextual_tsallis_inf import ContextualTsallisINF
from .policy import Choice, Policy
from .state import TunerState
from .thompson import ThompsonSampling
from .tsallis_inf import TsallisINF
from .tuner import BanditTuner

__all__ = [
    "BanditTuner",
    "ChebCB",
    "Choice",
    "ContextualTsallisINF",
    "Policy",
    "ThompsonSampling",
    "TsallisINF",
    "TunerState",
    "dominance",
]
