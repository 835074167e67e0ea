"""Partial differential equations written as text, solved and learned in PyTorch.

The public names are loaded when they are first used, so that `import sciml` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import datasets as datasets
    from . import equations as equations
    from . import operators as operators
    from . import solvers as solvers
    from .boundary import Dirichlet as Dirichlet
    from .boundary import Neumann as Neumann
    from .boundary import Periodic as Periodic
    from .boundary import Robin as Robin
    from .discretization import NonlinearSystem as NonlinearSystem
    from .discretization import System as System
    from .discretization import discretize_nonlinear as discretize_nonlinear
    from .elements import MeshSystem as MeshSystem
    from .elements import NonlinearMeshSystem as NonlinearMeshSystem
    from .equations import Equation as Equation
    from .errors import InputError as InputError
    from .errors import SolveError as SolveError
    from .function_system import FunctionSystem as FunctionSystem
    from .grid import Grid as Grid
    from .mesh import Mesh as Mesh
    from .scheme import FiniteDifference as FiniteDifference
    from .scheme import FiniteElement as FiniteElement
    from .scheme import FiniteVolume as FiniteVolume
    from .scheme import Spectral as Spectral
    from .solution import Solution as Solution
    from .solvers.discretize import discretize as discretize
    from .solvers.evolve import evolve as evolve
    from .solvers.solve import solve as solve
    from .status import Status as Status
    from .stochastic_system import StochasticSystem as StochasticSystem
    from .surfaces import surface_check as surface_check
    from .surfaces import surface_volume as surface_volume
else:
    # Hidden from type checkers: a module with __getattr__ would make every misspelt name an Any to them.
    _MODULES = ("datasets", "equations", "operators", "solvers")
    _EXPORTS = {
        "Dirichlet": "boundary",
        "Equation": "equations",
        "FiniteDifference": "scheme",
        "FiniteElement": "scheme",
        "FiniteVolume": "scheme",
        "FunctionSystem": "function_system",
        "Grid": "grid",
        "InputError": "errors",
        "Mesh": "mesh",
        "MeshSystem": "elements",
        "Neumann": "boundary",
        "NonlinearMeshSystem": "elements",
        "NonlinearSystem": "discretization",
        "Periodic": "boundary",
        "Robin": "boundary",
        "Solution": "solution",
        "SolveError": "errors",
        "Spectral": "scheme",
        "Status": "status",
        "StochasticSystem": "stochastic_system",
        "System": "discretization",
        "discretize": "solvers.discretize",
        "discretize_nonlinear": "discretization",
        "evolve": "solvers.evolve",
        "solve": "solvers.solve",
        "surface_check": "surfaces",
        "surface_volume": "surfaces",
    }
    __all__ = [*_EXPORTS, *_MODULES]  # noqa: PLE0604

    def __getattr__(name):
        from importlib import import_module

        if name in _EXPORTS:
            value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
        elif name in _MODULES:
            value = import_module(f".{name}", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
