"""Integrators in time for du/dt = f(u, t), and for du = f(u, t) dt + g(u, t) dW."""

from .bdf2 import Bdf2
from .brownian import BrownianPath
from .control import Controller
from .events import Event
from .explicit import ExplicitRungeKutta
from .exponential import ExponentialRungeKutta
from .implicit import ImplicitRungeKutta
from .implicit_explicit import ImplicitExplicit
from .multistep import AdamsBashforth3, Leapfrog
from .stochastic import EulerMaruyama, Milstein, StochasticRungeKutta
from .tableau import Tableau

__all__ = [
    "AdamsBashforth3",
    "Bdf2",
    "BrownianPath",
    "Controller",
    "EulerMaruyama",
    "Event",
    "ExplicitRungeKutta",
    "ExponentialRungeKutta",
    "ImplicitExplicit",
    "ImplicitRungeKutta",
    "Leapfrog",
    "Milstein",
    "StochasticRungeKutta",
    "Tableau",
]
