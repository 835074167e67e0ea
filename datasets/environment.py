"""The device a dataset is made on, and what its last bits depend on besides the recipe."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from sciml.errors import InputError
from sciml.kernels.build import library
from sciml.machine import processor

from .recipe import Recipe

_LIBRARIES = ("sciml-torch", "torch", "numpy", "scipy", "h5py")


def devices_of(device: str) -> list[str]:
    """The devices of this machine that are meant by "cpu", "cuda" (all there are), "cuda:1", ...

    Raises:
        InputError: there is none.
    """
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"{device!r} is not a device; known: cpu, cuda, cuda:1, ...") from error
    if kind.type != "cuda":
        return [device]
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or (kind.index or 0) >= count:
        raise InputError(f"{device!r}: there is no such CUDA device here; use cpu")
    return [device] if kind.index is not None else [f"cuda:{index}" for index in range(count)]


def environment(recipe: Recipe, device: str) -> dict[str, Any]:
    """What the last bits of results depend on besides the recipe, and what helps to understand them."""
    return {
        "device": torch.device(device).type,
        "processor": processor(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": recipe.threads,
        "kernels": "compiled" if library() is not None else "sums of slices",
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }
