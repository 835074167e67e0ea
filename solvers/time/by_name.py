"""Integrators by the names that files call them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .bdf2 import Bdf2
from .explicit import ExplicitRungeKutta
from .exponential import ExponentialRungeKutta
from .implicit import ImplicitRungeKutta
from .implicit_explicit import ImplicitExplicit
from .multistep import AdamsBashforth3, Leapfrog
from .stepper import Integrator

INTEGRATORS: Mapping[str, Callable[[], Integrator]] = MappingProxyType(
    {
        "euler": ExplicitRungeKutta.euler,
        "heun": ExplicitRungeKutta.heun,
        "rk4": ExplicitRungeKutta.rk4,
        "bogacki_shampine": ExplicitRungeKutta.bogacki_shampine,
        "dormand_prince": ExplicitRungeKutta.dormand_prince,
        "tsit5": ExplicitRungeKutta.tsit5,
        "prince_dormand": ExplicitRungeKutta.prince_dormand,
        "etd1": ExponentialRungeKutta.etd1,
        "etd2": ExponentialRungeKutta.etd2,
        "etd3": ExponentialRungeKutta.etd3,
        "etd4": ExponentialRungeKutta.etd4,
        "pair": ExponentialRungeKutta.pair,
        "backward_euler": ImplicitRungeKutta.backward_euler,
        "crank_nicolson": ImplicitRungeKutta.crank_nicolson,
        "sdirk2": ImplicitRungeKutta.sdirk2,
        "kvaerno3": ImplicitRungeKutta.kvaerno3,
        "kvaerno4": ImplicitRungeKutta.kvaerno4,
        "kvaerno5": ImplicitRungeKutta.kvaerno5,
        "bdf2": Bdf2,
        "cnab2": ImplicitExplicit.cnab2,
        "ark3": ImplicitExplicit.ark3,
        "ark4": ImplicitExplicit.ark4,
        "ab3": AdamsBashforth3,
        "leapfrog": Leapfrog,
    }
)
