"""Work that does not depend on torch's modes: its results outlive inference mode, and are not rounded by autocast."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_KINDS = ("cpu", "cuda")
_LOW = (torch.bfloat16, torch.float16)


def in_plain_mode(function: Callable[P, R]) -> Callable[P, R]:
    """The function, in inference mode run under no_grad instead, and under autocast without it, its arguments of half
    precision in float32.

    What it computes of a grid or mesh is kept with that, and tensors made in inference mode could not be used together
    with gradients later. Solvers need the digits that autocast takes off their sums.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        casting = [kind for kind in _KINDS if torch.is_autocast_enabled(kind)]
        if not casting and not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with ExitStack() as modes:
            if torch.is_inference_mode_enabled():
                modes.enter_context(torch.inference_mode(False))
                modes.enter_context(torch.no_grad())
            for kind in casting:
                modes.enter_context(torch.autocast(kind, enabled=False))
            if not casting:
                return function(*args, **kwargs)
            raised = {name: _raised(value) for name, value in kwargs.items()}
            return function(*map(_raised, args), **raised)  # type: ignore[arg-type]

    return called


def _raised(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in _LOW else value
