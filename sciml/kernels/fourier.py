"""The compiled sums and products of pseudo-spectral methods."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import build, layout

MAX_DEGREE = 4
_ONE, _REAL, _IMAGINARY, _COMPLEX = range(4)


class Place(NamedTuple):
    """Where lines of complex coefficients stand, counted in complex numbers.

    Args:
        operand: index of what holds them.
        offset: of the first from its beginning.
        row, line: from one row, or line, to the next.
        jump: how much further those lines are that stand for negative wavenumbers.
        buffer: 1 where only the rows at work are held.
    """

    operand: int
    offset: int
    row: int
    line: int
    jump: int = 0
    buffer: int = 0


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
    _fields_ = (("factor", _Lines), ("part", _Lines), ("kind", ctypes.c_int64))


class _Sum(ctypes.Structure):
    _fields_ = (("out", _Lines), ("begin", ctypes.c_int64), ("end", ctypes.c_int64))


class Monomial(ctypes.Structure):
    """A term of a product: number * fields, added to the result unless it is the first."""

    _fields_ = (
        ("number", ctypes.c_double),
        ("result", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("degree", ctypes.c_int64),
        ("fields", ctypes.c_int64 * MAX_DEGREE),
    )


class Evaluation(ctypes.Structure):
    """See fourier.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("planes", "lines", "low", "kept", "fine", "length")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "sums", "count", "group", "chunk")),
        *((name, ctypes.c_void_p) for name in ("spread", "gather", "spread_terms", "gather_terms", "monomials")),
        *((name, ctypes.c_void_p) for name in ("ahead", "back", "columns_back", "columns_ahead")),
        *((name, ctypes.c_void_p) for name in ("lines_back", "lines_ahead", "line_back", "line_ahead")),
        *((name, ctypes.c_void_p) for name in ("padded", "cut", "spectra", "values", "results", "transformed")),
        ("scratch", ctypes.c_void_p),
    )


def available() -> bool:
    """Whether the kernels are there."""
    return build.library() is not None


def function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """A function of the library for a real dtype."""
    return getattr(build.library(), f"{name}_{layout.NAMES[dtype]}")


class Operands:
    """The table of addresses that sums refer to.

    Args:
        given: how many come with every call; they are first.
        held: the others.
        coefficients: of one row in one factor.
    """

    def __init__(self, given: int, held: Iterable[Tensor], lines: int, length: int) -> None:
        self.given = given
        self.lines, self.length = lines, length
        self._held = list(held)
        self._factors: list[tuple[Tensor, _Lines, int]] = []

    def hold(self, tensor: Tensor) -> int:
        """The index of one more."""
        self._held.append(tensor)
        return self.given + len(self._held) - 1

    def table(self) -> ctypes.Array[ctypes.c_void_p]:
        """The addresses, null for those given."""
        known = (tensor.data_ptr() for tensor in self._held)
        return (ctypes.c_void_p * (self.given + len(self._held)))(*[None] * self.given, *known)

    def compile(self, sums: Sequence[Sum]) -> tuple[Any, Any]:
        """Sums and their terms as the kernels read them; equal factors are held once, real and imaginary ones as
        numbers."""
        table = (_Sum * len(sums))()
        terms: list[_Term] = []
        for entry, (out, parts) in zip(table, sums, strict=True):
            entry.out, entry.begin, entry.end = _Lines(*out), len(terms), len(terms) + len(parts)
            for factor, place in parts:
                where, kind = self._factor(factor)
                terms.append(_Term(where, _Lines(*place), kind))
        return table, (_Term * len(terms))(*terms)

    def _factor(self, factor: Tensor | None) -> tuple[_Lines, int]:
        if factor is None:
            return _Lines(), _ONE
        for known, place, kind in self._factors:
            if known.shape == factor.shape and torch.equal(known, factor):
                return place, kind
        kind, stored = _COMPLEX, factor
        if not factor.imag.any():
            kind, stored = _REAL, factor.real.contiguous()
        elif not factor.real.any():
            kind, stored = _IMAGINARY, factor.imag.contiguous()
        size = self.lines * self.length
        place = _Lines(self.hold(stored), 0, size if factor.numel() > size else 0, self.length, 0, 0)
        self._factors.append((factor, place, kind))
        return place, kind


class Combination:
    """Several sums, formed one after another.

    Args:
        sums: what to form.
        given: how many operands `run` is given the addresses of.
        shape: lines, lines before the negative wavenumbers, length of a line.
        dtype: torch.float64 or torch.float32.
    """

    def __init__(self, sums: Sequence[Sum], given: int, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        lines, low, length = shape
        self._operands = Operands(given, (), lines, length)
        self._sums, self._terms = self._operands.compile(sums)
        self._table = self._operands.table()
        self._function = function("combine", dtype)
        self._before = (ctypes.c_int64(len(sums)), self._sums, self._terms, self._table)
        self._after = tuple(ctypes.c_int64(size) for size in (lines, low, length))

    def run(self, rows: int, *addresses: int) -> None:
        """Args: the number of rows, and the addresses of the operands."""
        for place, address in enumerate(addresses):
            self._table[place] = address
        self._function(*self._before, ctypes.c_int64(rows), *self._after, layout.threads())


def symmetrize(c: Tensor, columns: Sequence[int]) -> None:
    """Make coefficients `(..., lines, length)`, contiguous, conjugate to those of the opposite wavenumber, in columns
    that hold both."""
    lines, length = c.shape[-2:]
    run = function("symmetrize", torch.float64 if c.dtype == torch.complex128 else torch.float32)
    sizes = [ctypes.c_int64(size) for size in (c.numel() // (lines * length), lines, length)]
    for column in columns:
        run(layout.pointer(c), *sizes, ctypes.c_int64(column))
