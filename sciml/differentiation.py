"""What is asked of tensors where torch differentiates backward or forward, or transforms functions (torch.func)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def may_carry_derivatives(tensor: Tensor) -> bool:
    """Whether a tensor has a graph, or may have a tangent: then it is not to be left out even where it is all zeros."""
    return tensor.requires_grad or forward_ad._current_level >= 0 or in_transform()


def in_transform() -> bool:
    """Whether this runs inside torch.func.jvp, vjp, grad, vmap, or what is made of them."""
    return torch._C._functorch.maybe_current_level() is not None


def is_vmapped(tensor: Tensor) -> bool:
    """Whether torch.func.vmap hides an axis of a tensor."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False
