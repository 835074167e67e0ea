"""Integrators in time for du/dt = f(u, t)."""

from .bdf2 import Bdf2
from .control import Controller
from .events import Event
from .explicit import ExplicitRungeKutta
from .exponential import ExponentialRungeKutta
from .implicit import ImplicitRungeKutta
from .implicit_explicit import ImplicitExplicit
from .multistep import AdamsBashforth3, Leapfrog
from .tableau import Tableau

__all__ = [
    "AdamsBashforth3",
    "Bdf2",
    "Controller",
    "Event",
    "ExplicitRungeKutta",
    "ExponentialRungeKutta",
    "ImplicitExplicit",
    "ImplicitRungeKutta",
    "Leapfrog",
    "Tableau",
]
