"""Neural operators: models that map the fields of one problem to the fields of its solution.

The public names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if not __name__.startswith("sciml."):
    raise ImportError("this folder is the package sciml.operators: import it by that name", name=__name__)

if TYPE_CHECKING:
    from .deeponet import DeepONet as DeepONet
    from .evaluation import evaluate as evaluate
    from .fitting import train_operator as train_operator
    from .fno import FNO as FNO
    from .losses import LegacyH1 as LegacyH1
    from .losses import MeanOverFields as MeanOverFields
    from .losses import RelativeH1 as RelativeH1
    from .losses import RelativeL2 as RelativeL2
    from .mgno import MgNO as MgNO
    from .neuraloperator_weights import fno_from_neuraloperator as fno_from_neuraloperator
    from .normalization import Normalized as Normalized
    from .report import Report as Report
    from .trained import TrainedOperator as TrainedOperator
    from .trained import load as load
    from .unet import UNet as UNet
else:
    # Hidden from type checkers: a module with __getattr__ would make every misspelt name an Any to them.
    _EXPORTS = {
        "DeepONet": "deeponet",
        "FNO": "fno",
        "LegacyH1": "losses",
        "MeanOverFields": "losses",
        "MgNO": "mgno",
        "Normalized": "normalization",
        "RelativeH1": "losses",
        "RelativeL2": "losses",
        "Report": "report",
        "TrainedOperator": "trained",
        "UNet": "unet",
        "evaluate": "evaluation",
        "fno_from_neuraloperator": "neuraloperator_weights",
        "load": "trained",
        "train_operator": "fitting",
    }
    __all__ = list(_EXPORTS)

    def __getattr__(name):
        from importlib import import_module

        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
