"""What is asked of tensors, and done with them, where torch differentiates or transforms functions (torch.func)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

from .errors import InputError

S = TypeVar("S")
T = TypeVar("T")


def may_carry_derivatives(tensor: Tensor) -> bool:
    """Whether a tensor has a graph, or may have a tangent: then it is not to be left out even where it is all zeros."""
    return tensor.requires_grad or forward_ad._current_level >= 0 or in_transform()


def in_transform() -> bool:
    """Whether this runs inside torch.func.jvp, vjp, grad, vmap, or what is made of them."""
    return _functorch.maybe_current_level() is not None


def in_one_jvp() -> bool:
    """Whether it runs inside a single torch.func.jvp, and no other transform."""
    stack = _functorch.get_interpreter_stack()
    return stack is not None and len(stack) == 1 and stack[0].key() == _functorch.TransformType.Jvp


def refuse_transforms_but_jvp(what: str) -> None:
    """Raise InputError inside torch.func.vmap, grad and vjp, and inside transforms in each other."""
    if in_transform() and not in_one_jvp():
        raise InputError(
            f"{what} inside torch.func is supported by jvp alone, and not by vmap, grad and vjp, or one in another: "
            "give a batch as leading axes, and use torch.autograd for derivatives"
        )


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a tensor belongs to a transform."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def is_vmapped(tensor: Tensor) -> bool:
    """Whether torch.func.vmap hides an axis of a tensor."""
    while is_wrapped(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def detached(tensor: Tensor) -> Tensor:
    """The values alone, without a graph, a tangent, and what torch.func wraps around them."""
    while is_wrapped(tensor):
        if _functorch.is_batchedtensor(tensor):
            return tensor.detach()
        tensor = _functorch.get_unwrapped(tensor)
    return tensor.detach()


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Work with plain tensors as if no transform were there: for what is kept, and for what torch knows nothing of.

    What torch.func computes is wrapped, even where it depends on constants alone, and dead as soon as it is left.
    """
    with forward_ad._set_fwd_grad_enabled(False), temporarily_clear_interpreter_stack():
        yield


def directional_derivative(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> Tensor:
    """The derivative of a function of a tensor along a direction, also inside forward differentiation."""
    if forward_ad._current_level < 0 or in_transform():
        return torch.func.jvp(function, (at,), (direction,))[1]
    # Dual numbers do not nest: what the function makes of weights on its values is differentiated by these.
    with torch.enable_grad():
        place = at if at.requires_grad else at.detach().requires_grad_()
        value = function(place)
        weights = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, place, weights, create_graph=True)
        return torch.autograd.grad(pulled, weights, direction, create_graph=at.requires_grad)[0]


def kept(function: Callable[[S], T]) -> cached_property[T]:
    """A property of plain tensors that is computed once, `outside_transforms`."""
    return cached_property(outside_transforms()(function))
