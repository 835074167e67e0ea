"""Forward-mode derivatives with respect to states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, maybe_current_level
from torch.autograd import forward_ad


def active() -> bool:
    """Whether torch differentiates forwards, or transforms functions in any way."""
    return forward_ad._current_level >= 0 or maybe_current_level() is not None


def alone(*tensors: Tensor) -> bool:
    """Whether torch differentiates forwards, once, and nothing else."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    if maybe_current_level() is None:
        return forward_ad._current_level >= 0
    stack = get_interpreter_stack()
    return stack is not None and len(stack) == 1 and stack[0].key() == TransformType.Jvp


def along(
    function: Callable[..., Tensor],
    derivative: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
    *tensors: Tensor,
) -> Tensor:
    """function(*tensors), its derivative along directions being derivative(tensors, directions).

    torch's own forward mode gives constants tangents of zero, which costs it half a millisecond an operation.
    """
    return _Along.apply(function, derivative, *tensors)


class _Along(torch.autograd.Function):
    @staticmethod
    def forward(function: Any, derivative: Any, *tensors: Tensor) -> Tensor:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.derivative = inputs[1]
        ctx.save_for_forward(*inputs[2:])

    @staticmethod
    def jvp(ctx: Any, *directions: Tensor | None) -> Tensor:
        tensors = ctx.saved_tensors
        pairs = zip(directions[2:], tensors, strict=True)
        return ctx.derivative(tensors, [torch.zeros_like(x) if d is None else d for d, x in pairs])
