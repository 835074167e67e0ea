"""Datasets: made from equations, or read from other formats.

The public names are loaded when they are first used: reading files loads h5py.
"""

if not __name__.startswith("sciml."):
    raise ImportError("this folder is the package sciml.datasets: import it by that name", name=__name__)

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import Dataset as Dataset
    from .dataset import open as open
    from .description import Description as Description
    from .description import Field as Field
    from .distributions import Constant as Constant
    from .distributions import Distribution as Distribution
    from .distributions import Formula as Formula
    from .distributions import GaussianField as GaussianField
    from .distributions import LogUniform as LogUniform
    from .distributions import Number as Number
    from .distributions import Threshold as Threshold
    from .distributions import TrigonometricMultiscale as TrigonometricMultiscale
    from .distributions import Uniform as Uniform
    from .formats import Reading as Reading
    from .formats import read as read
    from .generation import generate as generate
    from .importing import import_dataset as import_dataset
    from .manifest import Manifest as Manifest
    from .manifest import ShardEntry as ShardEntry
    from .random_fields import Covariance as Covariance
    from .random_fields import InversePower as InversePower
    from .random_fields import Matern as Matern
    from .random_fields import SquaredExponential as SquaredExponential
    from .recipe import Recipe as Recipe
    from .recipe import load_recipe as load_recipe
    from .recipe import shipped_recipes as shipped_recipes
    from .shard import inspect_shard as inspect_shard
    from .shard import write_shard as write_shard
else:
    # Hidden from type checkers: a module with __getattr__ would make every misspelt name an Any to them.
    _EXPORTS = {
        "Constant": "distributions",
        "Covariance": "random_fields",
        "Dataset": "dataset",
        "Description": "description",
        "Distribution": "distributions",
        "Field": "description",
        "Formula": "distributions",
        "GaussianField": "distributions",
        "InversePower": "random_fields",
        "LogUniform": "distributions",
        "Manifest": "manifest",
        "Matern": "random_fields",
        "Number": "distributions",
        "Recipe": "recipe",
        "ShardEntry": "manifest",
        "SquaredExponential": "random_fields",
        "Threshold": "distributions",
        "TrigonometricMultiscale": "distributions",
        "Uniform": "distributions",
        "generate": "generation",
        "inspect_shard": "shard",
        "load_recipe": "recipe",
        "Reading": "formats",
        "import_dataset": "importing",
        "open": "dataset",
        "read": "formats",
        "shipped_recipes": "recipe",
        "write_shard": "shard",
    }
    __all__ = [*_EXPORTS]  # noqa: PLE0604

    def __getattr__(name):
        from importlib import import_module

        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
