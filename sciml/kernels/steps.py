"""The compiled kernels for time steps: their errors, and how the next steps follow from them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import build, layout


def fits(state: Tensor) -> bool:
    """Whether there are kernels for states like this one, on the CPU and contiguous; not inside forward differentiation
    and transforms."""
    return (
        state.is_cpu
        and state.is_contiguous()
        and state.dtype in layout.NAMES
        and not torch.compiler.is_compiling()
        and _is_plain()
        and not torch._C._functorch.is_legacy_batchedtensor(state)  # of autograd.grad(is_grads_batched=True)
        and build.library() is not None
    )


def _is_plain() -> bool:
    return forward_ad._current_level < 0 and torch._C._functorch.maybe_current_level() is None


def weighted_sum(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum w x of states of one shape and dtype that `fits`, as many as the kernel takes or any number; no gradients."""
    count = len(terms)
    if count > _MOST_TERMS:
        parts = range(0, count, _MOST_TERMS)
        sums = [weighted_sum(terms[k : k + _MOST_TERMS], weights[k : k + _MOST_TERMS]) for k in parts]
        return weighted_sum(sums, (1.0,) * len(sums))
    found = torch.empty_like(terms[0])
    _kernel("weighted_sum", found.dtype, "nippp")(
        found.numel(), count, layout.addresses(terms), _doubles(weights), found.data_ptr(), torch.get_num_threads()
    )
    return found


_MOST_TERMS = 64  # MAX_TERMS of rows.hpp

_KINDS = {"n": ctypes.c_int64, "i": ctypes.c_int, "d": ctypes.c_double, "p": ctypes.c_void_p}


@cache
def _kernel(name: str, dtype: torch.dtype, kinds: str) -> Any:
    """A kernel with the kinds of its arguments, behind which is the number of threads: they are called for every stage,
    so that conversions count, which are quickest where the kinds are known."""
    function = getattr(build.library(), f"{name}_{layout.NAMES[dtype]}")
    function.argtypes = [_KINDS[kind] for kind in kinds] + [ctypes.c_int]
    return function


def _doubles(numbers: Sequence[float]) -> object:
    return (ctypes.c_double * len(numbers))(*numbers)


def error_ratio(
    error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: float | Tensor, axes: int
) -> Tensor | None:
    """`sciml.evolving.root_mean_square_ratio` in one pass; None where there is no kernel for it: with gradients, off
    the CPU, and for tensors of other orders of memory than rows or columns contiguous.
    """
    shape, strides = error.shape, error.stride()
    if (
        error.device.type != "cpu"
        or torch.compiler.is_compiling()
        or not _is_plain()
        or before.stride() != strides
        or after.stride() != strides
        or before.shape != shape
        or after.shape != shape
        or (torch.is_grad_enabled() and (error.requires_grad or before.requires_grad or after.requires_grad))
        or not before.dtype == after.dtype == error.dtype
        or error.dtype not in layout.NAMES
    ):
        return None
    columns = not error.is_contiguous()
    if columns and not (axes == 1 and error.mT.is_contiguous()):
        return None
    if build.library() is None:
        return None
    ratio = torch.empty(shape[: error.ndim - axes], dtype=error.dtype)
    absolute, stride = _absolute(atol, ratio)
    _kernel("step_error", error.dtype, "pppnnidpnp")(
        error.data_ptr(),
        before.data_ptr(),
        after.data_ptr(),
        *_rows(error, axes),
        columns,
        rtol,
        absolute,
        stride,
        ratio.data_ptr(),
        torch.get_num_threads(),
    )
    return ratio


class Estimates(NamedTuple):
    """Of a step: its error, `(*batch, *space)`, the ratio of that to the tolerance, and of a pair of stages |v - u| and
    |y - x| squared, `(2, *batch)` in float64, and the root of their ratio, the stiffness."""

    error: Tensor
    ratio: Tensor
    squares: Tensor | None
    stiffness: Tensor | None


Pair = tuple[Tensor, Tensor, Tensor, Tensor]
"""States x and y at the same time, and their slopes u and v."""


def estimates(
    stages: Sequence[Tensor],
    weights: Sequence[float],
    before: Tensor,
    after: Tensor,
    rtol: float,
    atol: float | Tensor,
    axes: int,
    pair: Pair | None,
) -> Estimates:
    """Of a step with the error sum w k, for states that `fits`; without gradients."""
    batch = before.shape[: before.ndim - axes]
    error, ratio = torch.empty(before.shape, dtype=before.dtype), torch.empty(batch, dtype=before.dtype)
    squares = stiffness = None
    if pair is not None:
        squares, stiffness = torch.empty(2, *batch, dtype=torch.float64), torch.empty_like(ratio)
    absolute, stride = _absolute(atol, ratio)
    _kernel("estimate_step", before.dtype, "nnippppdpnppppp")(
        *_rows(before, axes),
        len(stages),
        layout.addresses(stages),
        _doubles(weights),
        before.data_ptr(),
        after.data_ptr(),
        rtol,
        absolute,
        stride,
        error.data_ptr(),
        ratio.data_ptr(),
        None if pair is None else layout.addresses(pair),
        None if squares is None else squares.data_ptr(),
        None if stiffness is None else stiffness.data_ptr(),
        torch.get_num_threads(),
    )
    return Estimates(error, ratio, squares, stiffness)


def _rows(state: Tensor, axes: int) -> tuple[int, int]:
    """Their number and length."""
    rows = prod(state.shape[: state.ndim - axes])
    return rows, state.numel() // max(1, rows)


def _absolute(atol: float | Tensor, ratio: Tensor) -> tuple[object, int]:
    """An absolute tolerance as doubles, and its stride over rows."""
    if not isinstance(atol, Tensor):
        return ctypes.byref(ctypes.c_double(atol)), 0
    return _Doubles(atol.detach().to(torch.float64).expand(ratio.shape).contiguous()), 1


class _Doubles:
    """A tensor in float64 as an argument of a kernel."""

    def __init__(self, tensor: Tensor) -> None:
        self._held = tensor
        self._as_parameter_ = ctypes.c_void_p(tensor.data_ptr())


def error_gradient(
    slope: Tensor,
    error: Tensor,
    before: Tensor,
    after: Tensor,
    ratio: Tensor,
    rtol: float,
    atol: float | Tensor,
    axes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of something with respect to an error and the states, from that with respect to their ratio; with
    a graph where one is asked for."""
    slope = slope.contiguous()
    if torch.is_grad_enabled() or not fits(slope):
        return _error_gradient(slope, error, before, after, rtol, atol, axes)
    found = torch.empty_like(error), torch.empty_like(error), torch.empty_like(error)
    absolute, stride = _absolute(atol, ratio)
    states, gradients = (error, before, after), (ratio, slope, *found)
    _kernel("step_error_gradient", error.dtype, "pppnndpnppppp")(
        *(x.data_ptr() for x in states),
        *_rows(error, axes),
        rtol,
        absolute,
        stride,
        *(x.data_ptr() for x in gradients),
        torch.get_num_threads(),
    )
    return found


def _error_gradient(
    slope: Tensor, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: float | Tensor, axes: int
) -> tuple[Tensor, Tensor, Tensor]:
    trailing, tiny = (1,) * axes, torch.finfo(error.dtype).tiny
    u, v = before.abs(), after.abs()
    absolute = torch.as_tensor(atol, dtype=error.dtype).clamp(min=tiny)
    scale = torch.maximum(u, v) * rtol + absolute.reshape((*absolute.shape, *trailing))
    relation = error / scale
    squares = relation * relation
    mean = squares.flatten(-axes).mean(-1) if axes else squares
    told = mean > tiny
    root = torch.where(told, mean, 1.0).sqrt()
    factor = torch.where(told, slope / (error.numel() / mean.numel() * root), 0.0)
    along = factor.reshape((*factor.shape, *trailing)) * relation / scale
    steeper = -rtol * along * relation
    share = 0.5 * ((u >= v).to(error.dtype) + (u > v).to(error.dtype))
    return along, steeper * share * before.sign(), steeper * (1 - share) * after.sign()


def stiffness_gradient(slope: Tensor, pair: Pair, squares: Tensor, axes: int) -> Pair:
    """The derivatives of something with respect to a pair, from that with respect to its stiffness; with a graph where
    one is asked for."""
    x, y, u, v = pair
    if torch.is_grad_enabled() or not fits(slope.contiguous()):
        return _stiffness_gradient(slope, y - x, v - u, axes)
    slope = slope.contiguous()
    found = torch.empty_like(x), torch.empty_like(y), torch.empty_like(u), torch.empty_like(v)
    _kernel("stiffness_gradient", x.dtype, "pnnppp")(
        layout.addresses(pair),
        *_rows(x, axes),
        squares.data_ptr(),
        slope.data_ptr(),
        layout.addresses(found),
        torch.get_num_threads(),
    )
    return found


def _stiffness_gradient(slope: Tensor, way: Tensor, change: Tensor, axes: int) -> Pair:
    finfo = torch.finfo(way.dtype)
    squares = zip((change, way), (finfo.tiny, finfo.tiny / finfo.eps**2), strict=True)
    above, below = (((x * x).flatten(-axes).sum(-1) if axes else x * x) + floor for x, floor in squares)
    factor = slope * above.sqrt() / below.sqrt()
    shape = (*factor.shape, *(1,) * axes)
    of_way, of_change = (-factor / below).reshape(shape) * way, (factor / above).reshape(shape) * change
    return -of_way, of_way, -of_change, of_change


_CONTROL = (
    "target",
    "latest",
    "middle",
    "oldest",
    "alone",
    "far_below",
    "smallest",
    "largest",
    "least",
    "forgotten",
    "longest",
)


class _Control(ctypes.Structure):
    """`StepControl` of steps.hpp."""

    _fields_ = tuple((name, ctypes.c_double) for name in _CONTROL)


_NUMBERS = ("t", "wanted", "taken", "memory", "before", "limit")  # of a row


class _RowSteps(ctypes.Structure):
    """`RowSteps` of steps.hpp."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in (*_NUMBERS, "last", "times"))


class RowSteps:
    """Where the rows of a batch stand between two steps: tensors of batch shape, and one of each stage's times.

    Attributes:
        t, wanted, taken: the time, the step that the error suggests, and the one taken, which ends at the last time.
        memory, before, limit: what the growth of the step depends on besides its error, in logarithms.
        last: whether `taken` ends at the last time.
        times: of the stages.
    """

    def __init__(self, batch: Sequence[int], stages: int) -> None:
        numbers = torch.empty(len(_NUMBERS) + stages, *batch, dtype=torch.float64)
        self.t, self.wanted, self.taken, self.memory, self.before, self.limit, *times = numbers.unbind(0)
        self.times = tuple(times)
        self.last = torch.empty(tuple(batch), dtype=torch.bool)
        self.table = _RowSteps(
            *(part.data_ptr() for part in numbers[: len(_NUMBERS)]),
            self.last.data_ptr(),
            numbers[len(_NUMBERS) :].data_ptr(),
        )
        self._held = numbers


@dataclass(frozen=True, eq=False)
class RowControl:
    """How steps follow from errors: with s the logarithm of an error relative to the tolerance, less `target`, the step
    grows by the exponential of latest * s_n + middle * s_(n-1) + oldest * s_(n-2), the latter two of accepted steps;
    where s_n is less than `far_below`, and after a rejected step, by that of alone * s_n. Earlier s less than
    that count as 0.

    Attributes:
        c: times of the stages within a step.
        target, latest, middle, oldest, alone, far_below: see above.
        smallest, largest: bounds of the logarithm of the growth.
        least, forgotten: bounds from below of s_n, and of s_(n-1) and s_(n-2).
        longest: the largest step.
    """

    c: tuple[float, ...]
    target: float
    latest: float
    middle: float
    oldest: float
    alone: float
    far_below: float
    smallest: float
    largest: float
    least: float
    forgotten: float
    longest: float

    @cached_property
    def _arguments(self) -> tuple[Any, Any, Any] | None:
        library = build.library()
        if library is None:
            return None
        control = _Control(*(getattr(self, name) for name in _CONTROL))
        return library.advance_rows_float64, control, (ctypes.c_double * len(self.c))(*self.c)

    @property
    def compiled(self) -> bool:
        """Whether `advance` can be called."""
        return self._arguments is not None

    def advance(self, ratio: Tensor, end: Tensor, now: RowSteps, following: RowSteps, accepted: Tensor) -> None:
        """Fill `following` and `accepted` from the error ratios of the steps that `now` describes, in float64."""
        if self._arguments is None:
            return
        function, control, c = self._arguments
        function(
            ctypes.c_int64(ratio.numel()),
            ctypes.byref(control),
            ctypes.c_void_p(ratio.data_ptr()),
            ctypes.c_void_p(end.data_ptr()),
            ctypes.c_int64(len(self.c)),
            c,
            ctypes.byref(now.table),
            ctypes.byref(following.table),
            ctypes.c_void_p(accepted.data_ptr()),
            layout.threads(),
        )
