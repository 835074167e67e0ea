"""Ordinary differential equations in the compiled kernels: their rates, and whole Runge-Kutta steps."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..equations.evaluation import OPERATIONS, Operations
from . import build, layout


class _Tape(ctypes.Structure):
    """`Tape` of tape.hpp."""

    _fields_ = (
        ("inputs", ctypes.c_int64),
        ("constants", ctypes.c_int64),
        ("operations", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("constant", ctypes.c_void_p),
        ("code", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
    )


class _Inputs(ctypes.Structure):
    """`TapeInputs` of tape.hpp."""

    _fields_ = (
        ("unknown", ctypes.c_void_p),
        ("is_time", ctypes.c_void_p),
        ("number", ctypes.c_void_p),
        ("array", ctypes.c_void_p),
    )


class Tape:
    """The rates of a system for batches of one shape.

    States are `(*batch, unknowns)`, every unknown contiguous: `y.movedim(-1, 0)` is.

    Args:
        operations: one output an unknown, in terms of the unknowns, "t" and `known`.
        unknowns: their names.
        known: numbers, or tensors of the batch's shape, of the other names.
        batch: shape of the batch.
        like: a state, whose dtype is that of all.

    Raises:
        ValueError: where there is no compiler.
    """

    def __init__(
        self,
        operations: Operations,
        unknowns: Sequence[str],
        known: Mapping[str, float | Tensor],
        batch: tuple[int, ...],
        like: Tensor,
    ) -> None:
        library = build.library()
        if library is None:
            raise ValueError("there are no compiled kernels")
        suffix = layout.NAMES[like.dtype]
        self._rate, self._step = getattr(library, f"tape_rate_{suffix}"), getattr(library, f"tape_step_{suffix}")
        self._unknowns = len(unknowns)
        names = operations.names
        numbers, tensors = [0.0] * len(names), [None] * len(names)
        for place, name in enumerate(names):
            value = known.get(name, 0.0)
            if isinstance(value, Tensor):
                tensors[place] = value.detach().to(like.dtype).expand(batch).contiguous()  # type: ignore[call-overload]
            else:
                numbers[place] = float(value)
        steps = operations.steps
        arrays = (
            (ctypes.c_double * len(operations.constants))(*operations.constants),
            layout.flags(*(OPERATIONS.index(name) for name, _ in steps)),
            layout.flags(*(inputs[0] for _, inputs in steps)),
            layout.flags(*(inputs[-1] for _, inputs in steps)),
            layout.flags(*operations.outputs),
        )
        self._tape = _Tape(
            len(names), len(operations.constants), len(steps), len(operations.outputs), *map(layout.address, arrays)
        )
        places = layout.flags(*(unknowns.index(name) if name in unknowns else -1 for name in names))
        times, no_times = layout.flags(*(name == "t" for name in names)), layout.flags(*(0 for _ in names))
        given = (ctypes.c_double * len(names))(*numbers)
        self._addresses = (ctypes.c_void_p * len(names))(*(None if x is None else x.data_ptr() for x in tensors))
        self._time = names.index("t") if "t" in names else None
        self._inputs, self._inputs_by_row = (
            _Inputs(*map(layout.address, (places, flags, given, self._addresses))) for flags in (times, no_times)
        )
        self._held = (arrays, places, times, no_times, given, tensors)

    def rate(self, y: Tensor, t: float | Tensor, rate: Tensor) -> None:
        """rate = f(y, t), t a number or a tensor of the batch's shape and the dtype of y."""
        inputs = self._inputs
        if isinstance(t, Tensor):
            inputs = self._inputs_by_row
            if self._time is not None:
                self._addresses[self._time] = t.data_ptr()
            t = 0.0
        self._rate(
            ctypes.byref(self._tape),
            ctypes.byref(inputs),
            ctypes.c_int64(self._unknowns),
            ctypes.c_int64(y.numel() // self._unknowns),
            layout.pointer(y),
            ctypes.c_double(t),
            layout.pointer(rate),
            layout.threads(),
        )

    def step(
        self,
        y: Tensor,
        t: float,
        h: float,
        weights: Tensor,
        c: object,
        stages: Tensor,
        value: Tensor,
        error: Tensor | None,
        *,
        whole: bool,
        last_is_end: bool,
    ) -> None:
        """One explicit Runge-Kutta step.

        Args:
            y: the state at t.
            h: the step.
            weights: `(s + 2, s)`, the method's matrix, weights and error weights, times h.
            c: array of the times of the stages within a step.
            stages: `(s, size)`, filled; its first row is given unless `whole`.
            value, error: filled, error unless it is None.
            last_is_end: whether the last stage is taken at the value.
        """
        self._step(
            ctypes.byref(self._tape),
            ctypes.byref(self._inputs),
            ctypes.c_int64(self._unknowns),
            ctypes.c_int64(y.numel() // self._unknowns),
            layout.pointer(y),
            ctypes.c_double(t),
            ctypes.c_double(h),
            ctypes.c_int64(weights.shape[1]),
            layout.pointer(weights),
            c,
            ctypes.c_int(whole),
            ctypes.c_int(last_is_end),
            layout.pointer(stages),
            layout.pointer(value),
            None if error is None else layout.pointer(error),
            layout.threads(),
        )
