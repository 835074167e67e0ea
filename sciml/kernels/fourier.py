"""The compiled sums and products of pseudo-spectral methods."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import build, layout

MAX_DEGREE = 4


class Place(NamedTuple):
    """Where lines of complex coefficients stand, counted in complex numbers.

    Args:
        operand: index of the tensor that holds them.
        offset: of the first from the beginning of that tensor.
        row, line: from one row, or line, to the next.
        jump: how much further those lines are that stand for negative wavenumbers.
    """

    operand: int
    offset: int
    row: int
    line: int
    jump: int = 0


class Sum(NamedTuple):
    """out = sum of factor * part, coefficient by coefficient.

    Args:
        out: where the result stands.
        terms: factor (complex and contiguous, one line after another, of every row its own if it holds more than one;
            None for 1), and where the part stands.
    """

    out: Place
    terms: Sequence[tuple[Tensor | None, Place]]


class _Lines(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in Place._fields)


class _Term(ctypes.Structure):
    _fields_ = (("factor", _Lines), ("part", _Lines))


class _Sum(ctypes.Structure):
    _fields_ = (("out", _Lines), ("begin", ctypes.c_int64), ("end", ctypes.c_int64))


class _Monomial(ctypes.Structure):
    _fields_ = (
        ("number", ctypes.c_double),
        ("result", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("degree", ctypes.c_int64),
        ("fields", ctypes.c_int64 * MAX_DEGREE),
    )


def available() -> bool:
    """Whether the kernels are there."""
    return build.library() is not None


class Combination:
    """Several sums, formed one after another.

    Args:
        sums: what to form.
        given: how many operands `run` is given the addresses of; they come first.
        held: the other operands.
        shape: rows, lines, lines before the negative wavenumbers, length of a line.
        dtype: torch.float64 or torch.float32.
        threads: how many may work on it.
    """

    def __init__(
        self,
        sums: Sequence[Sum],
        given: int,
        held: Sequence[Tensor],
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        threads: int,
    ) -> None:
        _, lines, _, length = shape
        self._held = list(held)
        table = (_Sum * len(sums))()
        terms: list[_Term] = []
        for entry, (out, parts) in zip(table, sums, strict=True):
            entry.out, entry.begin, entry.end = _Lines(*out), len(terms), len(terms) + len(parts)
            for factor, place in parts:
                where = Place(-1, 0, 0, 0)
                if factor is not None:
                    row = lines * length if factor.numel() > lines * length else 0
                    where = Place(given + len(self._held), 0, row, length)
                    self._held.append(factor)
                terms.append(_Term(_Lines(*where), _Lines(*place)))
        self._operands = (ctypes.c_void_p * (given + len(self._held)))(
            *[None] * given, *(tensor.data_ptr() for tensor in self._held)
        )
        self._function: Callable[..., None] = getattr(build.library(), f"combine_{layout.NAMES[dtype]}")
        sizes = (ctypes.c_int64(size) for size in shape)
        self._arguments = (
            ctypes.c_int64(len(sums)),
            table,
            (_Term * len(terms))(*terms),
            self._operands,
            *sizes,
            ctypes.c_int(threads),
        )

    def run(self, *addresses: int) -> None:
        """Args: the addresses of the operands that are given."""
        for place, address in enumerate(addresses):
            self._operands[place] = address
        self._function(*self._arguments)


class Multiplication:
    """Polynomials in fields, point by point.

    Args:
        polynomials: of each result, (number, indices of two to four fields) for every term.
        inputs: number of fields.
        shape: lines, and points of a line.
        dtype: torch.float64 or torch.float32.
        threads: how many may work on it.
    """

    def __init__(
        self,
        polynomials: Sequence[Sequence[tuple[float, Sequence[int]]]],
        inputs: int,
        shape: tuple[int, int],
        dtype: torch.dtype,
        threads: int,
    ) -> None:
        entries = []
        for result, terms in enumerate(polynomials):
            for place, (number, fields) in enumerate(terms):
                indices = (ctypes.c_int64 * MAX_DEGREE)(*fields)
                entries.append(_Monomial(number, result, int(place == 0), len(fields), indices))
        self._function: Callable[..., None] = getattr(build.library(), f"multiply_fields_{layout.NAMES[dtype]}")
        self._inputs, self._outputs = ctypes.c_int64(inputs), ctypes.c_int64(len(polynomials))
        self._arguments = (
            *(ctypes.c_int64(size) for size in (*shape, len(entries))),
            (_Monomial * len(entries))(*entries),
            ctypes.c_int(threads),
        )

    def run(self, values: int, results: int) -> None:
        """Args: the addresses of values `(lines, inputs, points)` and results `(lines, outputs, points)`."""
        self._function(ctypes.c_void_p(values), self._inputs, ctypes.c_void_p(results), self._outputs, *self._arguments)
