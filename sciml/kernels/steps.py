"""The compiled kernels for time steps: their errors, and how the next steps follow from them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import build, layout


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
        or forward_ad._current_level >= 0
        or torch._C._functorch.maybe_current_level() is not None
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
    library = build.library()
    if library is None:
        return None
    batch = shape[: error.ndim - axes]
    rows = prod(batch)
    ratio = torch.empty(batch, dtype=error.dtype)
    by_row = isinstance(atol, Tensor)
    absolute: Any
    if isinstance(atol, Tensor):
        tolerances = atol.to(torch.float64).expand(batch).contiguous()
        absolute = ctypes.c_void_p(tolerances.data_ptr())
    else:
        absolute = ctypes.byref(ctypes.c_double(atol))
    function = library.step_error_float64 if error.dtype == torch.float64 else library.step_error_float32
    function(
        ctypes.c_void_p(error.data_ptr()),
        ctypes.c_void_p(before.data_ptr()),
        ctypes.c_void_p(after.data_ptr()),
        ctypes.c_int64(rows),
        ctypes.c_int64(error.numel() // max(1, rows)),
        ctypes.c_int(columns),
        ctypes.c_double(rtol),
        absolute,
        ctypes.c_int64(by_row),
        ctypes.c_void_p(ratio.data_ptr()),
        layout.threads(),
    )
    return ratio


_CONTROL = (
    "target",
    "latest",
    "middle",
    "oldest",
    "rejected",
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
    after a rejected step by that of rejected * s_n.

    Attributes:
        c: times of the stages within a step.
        target, latest, middle, oldest, rejected: see above.
        smallest, largest: bounds of the logarithm of the growth.
        least, forgotten: bounds from below of s_n, and of s_(n-1) and s_(n-2).
        longest: the largest step.
    """

    c: tuple[float, ...]
    target: float
    latest: float
    middle: float
    oldest: float
    rejected: float
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
