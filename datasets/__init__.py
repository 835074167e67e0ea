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
    from .manifest import Manifest as Manifest
    from .manifest import ShardEntry as ShardEntry
    from .shard import inspect_shard as inspect_shard
    from .shard import write_shard as write_shard
else:
    # Hidden from type checkers: a module with __getattr__ would make every misspelt name an Any to them.
    _EXPORTS = {
        "Dataset": "dataset",
        "Description": "description",
        "Field": "description",
        "Manifest": "manifest",
        "ShardEntry": "manifest",
        "inspect_shard": "shard",
        "open": "dataset",
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
