"""Convolutions of fields of several channels in two dimensions, zero beyond the walls, and their derivatives.

A kernel `(coarse channel, fine channel, p, p)` ties fields on a fine grid, of n points along an axis, to fields on a
coarse one, of ceil(n/s), s the stride. The functions are all its derivatives, and those of each other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..differentiation import in_transform
from ..errors import InputError
from . import build, layout


def applies(x: Tensor, w: Tensor) -> bool:
    """Whether there are kernels for fields and weights like these; if not, torch's convolutions are to be used."""
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and x.dtype == w.dtype
        and x.dtype in layout.NAMES
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not in_transform()
        and forward_ad._current_level < 0
        and build.library() is not None
    )


def gather(
    f: Tensor, w: Tensor, stride: int, add: Tensor | None = None, factor: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """`add + factor (bias + w f)`, from fine to coarse: torch's convolution with padding 1 (0 where p is 1).

    Args:
        f: `(batch, fine channel, *fine)`.
        w: `(coarse channel, fine channel, p, p)`; p is 1 or 3 with stride 1, 3 or 4 with stride 2.
        stride: 1 or 2.
        add: `(batch, coarse channel, *coarse)`, or None for zero.
        factor: dimensionless.
        bias: `(coarse channel,)`, or None for zero.

    Returns:
        `(batch, coarse channel, *coarse)`.
    """
    return _Gather.apply(f, w, add, stride, factor, bias)


def spread(
    c: Tensor, w: Tensor, stride: int, fine: Sequence[int], add: Tensor | None = None, factor: float = 1.0
) -> Tensor:
    """`add + factor w' c`, from coarse to fine: torch's transposed convolution with padding 1.

    Args:
        c: `(batch, coarse channel, *coarse)`.
        w, stride: as in `gather`.
        fine: points of the fine grid, of which `coarse` are ceil(n/stride).
        add: `(batch, fine channel, *fine)`, or None for zero.
        factor: dimensionless.

    Returns:
        `(batch, fine channel, *fine)`.
    """
    return _Spread.apply(c, w, add, stride, tuple(fine), factor)


def correlate(f: Tensor, c: Tensor, stride: int, points: int) -> Tensor:
    """The derivative of `sum(c * gather(f, w))` with respect to w, `(coarse channel, fine channel, points, points)`."""
    return _Correlate.apply(f, c, stride, points)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, f: Tensor, w: Tensor, add: Tensor | None, stride: int, factor: float, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(f, w)
        ctx.stride, ctx.factor = stride, factor
        coarse = [-(-n // stride) for n in f.shape[2:]]
        return _run("gather", f, w, f.new_empty(len(f), len(w), *coarse), stride, add, factor, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        f, w = ctx.saved_tensors
        of_f = spread(g, w, ctx.stride, f.shape[2:], factor=ctx.factor) if ctx.needs_input_grad[0] else None
        of_w = _times(ctx.factor, correlate(f, g, ctx.stride, w.shape[-1])) if ctx.needs_input_grad[1] else None
        of_bias = _times(ctx.factor, g.sum((0, 2, 3))) if ctx.needs_input_grad[5] else None
        return of_f, of_w, g if ctx.needs_input_grad[2] else None, None, None, of_bias


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, c: Tensor, w: Tensor, add: Tensor | None, stride: int, fine: tuple[int, ...], factor: float
    ) -> Tensor:
        ctx.save_for_backward(c, w)
        ctx.stride, ctx.factor = stride, factor
        return _run("spread", c, w, c.new_empty(len(c), w.shape[1], *fine), stride, add, factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        c, w = ctx.saved_tensors
        of_c = gather(g, w, ctx.stride, factor=ctx.factor) if ctx.needs_input_grad[0] else None
        of_w = _times(ctx.factor, correlate(g, c, ctx.stride, w.shape[-1])) if ctx.needs_input_grad[1] else None
        return of_c, of_w, g if ctx.needs_input_grad[2] else None, None, None, None


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, c: Tensor, stride: int, points: int) -> Tensor:
        ctx.save_for_backward(f, c)
        ctx.stride = stride
        return _correlated(f, c, stride, points)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        f, c = ctx.saved_tensors
        of_f = spread(c, g, ctx.stride, f.shape[2:]) if ctx.needs_input_grad[0] else None
        of_c = gather(f, g, ctx.stride) if ctx.needs_input_grad[1] else None
        return of_f, of_c, None, None


class Tape:
    """Steps of `gather` and `spread` that are done without a graph and kept, to go back through them.

    Args:
        inputs: the tensors, beside what the steps make, that derivatives are wanted of.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.values = list(inputs)
        self.steps: list[_Step] = []
        self._places = {id(tensor): place for place, tensor in enumerate(inputs)}

    def gather(
        self,
        f: Tensor,
        w: Tensor,
        stride: int,
        add: Tensor | None = None,
        factor: float = 1.0,
        bias: Tensor | None = None,
    ) -> Tensor:
        """See `gather`."""
        c = f.new_empty(len(f), len(w), *(-(-n // stride) for n in f.shape[2:]))
        return self._keep("gather", f, w, _run("gather", f, w, c, stride, add, factor, bias), stride, add, factor, bias)

    def spread(
        self, c: Tensor, w: Tensor, stride: int, fine: Sequence[int], add: Tensor | None = None, factor: float = 1.0
    ) -> Tensor:
        """See `spread`."""
        f = c.new_empty(len(c), w.shape[1], *fine)
        return self._keep("spread", c, w, _run("spread", c, w, f, stride, add, factor), stride, add, factor, None)

    def _keep(
        self,
        name: str,
        x: Tensor,
        w: Tensor,
        y: Tensor,
        stride: int,
        add: Tensor | None,
        factor: float,
        bias: Tensor | None,
    ) -> Tensor:
        places = [None if t is None else self._places[id(t)] for t in (add, bias)]
        self.steps.append(
            _Step(name, self._places[id(x)], self._places[id(w)], len(self.values), stride, factor, *places)
        )
        self._places[id(y)] = len(self.values)
        self.values.append(y)
        return y


class _Step(NamedTuple):
    """y = add + factor (bias + K x), tensors by their places on the tape."""

    name: str
    x: int
    w: int
    y: int
    stride: int
    factor: float
    add: int | None
    bias: int | None


def backward(
    steps: Sequence[_Step], values: Sequence[Tensor], g: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Derivatives with respect to the inputs of a tape, those that are wanted, of `sum(g * y)`, y its last value.

    The values are those of the tape without y. What comes to one tensor from several steps is added by the kernels
    themselves.
    """
    g = g.contiguous()
    grads: list[Tensor | None] = [None] * (len(values) + 1)
    grads[steps[-1].y] = g
    needed = [*wanted, *[True] * (len(values) - len(wanted))]

    def add_to(place: int | None, amount: Tensor) -> None:
        if place is not None and needed[place]:
            before = grads[place]
            grads[place] = amount if before is None else before + amount

    for step in reversed(steps):
        g_y, x, w = grads[step.y], values[step.x], values[step.w]
        grads[step.y] = None
        if g_y is None:
            continue
        add_to(step.add, g_y)
        if needed[step.x]:
            adjoint = "spread" if step.name == "gather" else "gather"
            rest = () if adjoint == "spread" else (None,)
            before = grads[step.x]
            after = x.new_empty(x.shape) if before is None or before is g_y or before is g else before
            grads[step.x] = _run(adjoint, g_y, w, after, step.stride, before, step.factor, *rest)
        if needed[step.w]:
            fine, coarse = (x, g_y) if step.name == "gather" else (g_y, x)
            add_to(step.w, _times(step.factor, _correlated(fine, coarse, step.stride, w.shape[-1])))
        if step.bias is not None and needed[step.bias]:
            add_to(step.bias, _times(step.factor, g_y.sum((0, 2, 3))))
    return grads[: len(wanted)]


class Plain:
    """The steps of a tape as functions of tensors with graphs."""

    gather = staticmethod(gather)
    spread = staticmethod(spread)


PLAIN = Plain()


def recorded(function: Callable[[Tape | Plain, Tensor], Tensor], x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """`function(steps, x)` as one node of the graph; function makes tensors by the methods of `steps` alone.

    Args:
        function: of x and `weights`.
        x: `(batch, channel, *space)`.
        weights: all other tensors that it uses.

    Returns:
        What function returns, the value of its last step.
    """
    return _Recorded.apply(function, x, *weights)


class _Recorded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[[Tape | Plain, Tensor], Tensor], *inputs: Tensor) -> Tensor:
        tape = Tape(inputs)
        y = function(tape, inputs[0])
        ctx.steps = tape.steps
        ctx.save_for_backward(*tape.values[:-1])  # of y only the shape is needed, and users may change it in place
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():
            return None, *backward(ctx.steps, values, grads[0], wanted)
        # This derivative is to be differentiated too: the steps once more, with a graph that ends at the inputs.
        inputs = [value.view_as(value) if need else value for value, need in zip(values, wanted, strict=False)]
        y = _replayed(ctx.steps, inputs, [*(value.shape for value in values), grads[0].shape])
        sought = [value for value, need in zip(inputs, wanted, strict=True) if need]
        found = iter(torch.autograd.grad(y, sought, grads[0], create_graph=True, allow_unused=True))
        return None, *(next(found) if need else None for need in wanted)


def _replayed(steps: Sequence[_Step], inputs: Sequence[Tensor], shapes: Sequence[torch.Size]) -> Tensor:
    tape = list(inputs)
    for step in steps:
        add, bias = (None if place is None else tape[place] for place in (step.add, step.bias))
        x, w = tape[step.x], tape[step.w]
        if step.name == "gather":
            tape.append(gather(x, w, step.stride, add, step.factor, bias))
        else:
            tape.append(spread(x, w, step.stride, shapes[step.y][2:], add, step.factor))
    return tape[-1]


def _times(factor: float, tensor: Tensor) -> Tensor:
    return tensor if factor == 1 else factor * tensor


def _run(
    name: str,
    x: Tensor,
    w: Tensor,
    y: Tensor,
    stride: int,
    add: Tensor | None,
    factor: float,
    *bias: Tensor | None,
) -> Tensor:
    x, w = x.contiguous(), w.contiguous()
    added = [None if t is None else t.contiguous() for t in (add, *bias)]
    if any(t is not None and t.dtype != x.dtype for t in (w, *added)) or (add is not None and add.shape != y.shape):
        given = ", ".join(f"{tuple(t.shape)} of {t.dtype}" for t in (x, w, *added) if t is not None)
        raise InputError(f"a sum of shape {tuple(y.shape)} cannot be made of fields and weights {given}")
    add_pointer, *bias_pointer = [None if t is None else layout.pointer(t) for t in added]
    fine, coarse = (x, y) if name == "gather" else (y, x)
    _function(name, x)(
        _geometry(fine.shape, coarse.shape, w.shape, stride),
        layout.pointer(x),
        layout.pointer(w),
        add_pointer,
        ctypes.c_double(factor),
        *bias_pointer,
        layout.pointer(y),
        layout.threads(),
    )
    return y


def _correlated(f: Tensor, c: Tensor, stride: int, points: int) -> Tensor:
    f, c = f.contiguous(), c.contiguous()
    w = f.new_empty(c.shape[1], f.shape[1], points, points)
    _function("correlate", f)(
        _geometry(f.shape, c.shape, w.shape, stride),
        layout.pointer(f),
        layout.pointer(c),
        layout.pointer(w),
        layout.threads(),
    )
    return w


def _function(name: str, x: Tensor) -> Any:
    return getattr(build.library(), f"{name}_{layout.NAMES[x.dtype]}")


@lru_cache(maxsize=1024)
def _geometry(f: torch.Size, c: torch.Size, w: torch.Size, stride: int) -> Any:
    (batch, fine, *fine_space), (others, coarse, *coarse_space) = f, c
    points = w[-1]
    halved = [-(-n // stride) for n in fine_space]
    if tuple(w[:2]) != (coarse, fine) or batch != others or halved != coarse_space:
        raise InputError(
            f"a kernel {tuple(w)} with stride {stride} does not lead from a field {tuple(f)} to one {tuple(c)}"
        )
    return ctypes.byref(_Convolution(batch, fine, coarse, tuple(fine_space), tuple(coarse_space), points, stride))


_Two = ctypes.c_int64 * 2


class _Convolution(ctypes.Structure):
    """`Convolution` of convolution.hpp."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("fine_channels", ctypes.c_int64),
        ("coarse_channels", ctypes.c_int64),
        ("fine", _Two),
        ("coarse", _Two),
        ("points", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )
