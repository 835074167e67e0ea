"""One-dimensional Fourier transforms by MKL's own plans, kept.

torch.fft makes and drops a plan a call, which takes ten times as long as a transform of a thousand points. torch
carries MKL on x86 and exports its functions; where it does not, `available` says so and torch.fft is used.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache, lru_cache
from pathlib import Path

import torch

# Named as in mkl_dfti.h (oneAPI Math Kernel Library, DFT functions).
_FORWARD_SCALE, _NUMBER_OF_TRANSFORMS, _CONJUGATE_EVEN_STORAGE, _PLACEMENT = 4, 7, 10, 11
_INPUT_STRIDES, _OUTPUT_STRIDES, _INPUT_DISTANCE, _OUTPUT_DISTANCE = 12, 13, 14, 15
_THREAD_LIMIT = 27
_COMPLEX, _REAL, _COMPLEX_COMPLEX, _INPLACE, _NOT_INPLACE = 32, 33, 39, 43, 44


@cache
def _library() -> ctypes.CDLL | None:
    folder = Path(torch.__file__).parent / "lib"
    for path in sorted(folder.glob("libtorch_cpu.*")):
        try:
            library = ctypes.CDLL(str(path))
            library.DftiCreateDescriptor_d_1d, library.DftiCreateDescriptor_s_1d, library.DftiSetValue  # noqa: B018
        except (OSError, AttributeError):
            continue
        return library
    return None


def available() -> bool:
    """Whether MKL's functions are there."""
    return torch.backends.mkl.is_available() and _library() is not None


def address(name: str) -> int:
    """The address of one of MKL's functions."""
    return ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value or 0


class Transform:
    """Many transforms of one length; complex ones are in place, real ones not. Forward ones divide by the length.

    They run on the thread that calls: they are short, and whoever calls works on several of them at once.

    Attributes:
        handle: what MKL's functions at `address` take; it is valid as long as this object lives.
    """

    def __init__(
        self,
        kind: str,
        length: int,
        count: int,
        strides: tuple[int, int],
        distances: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        library = _library()
        if library is None:
            raise RuntimeError("MKL is not available")
        handle = ctypes.c_void_p()
        create = library.DftiCreateDescriptor_d_1d if dtype == torch.float64 else library.DftiCreateDescriptor_s_1d
        create.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_long]
        real = kind in ("rfft", "irfft")
        _check(create(ctypes.byref(handle), _REAL if real else _COMPLEX, length))
        self._finalizer = weakref.finalize(self, _free, library, handle.value or 0)
        self._finalizer.atexit = False
        pairs = {
            _NUMBER_OF_TRANSFORMS: ctypes.c_long(count),
            _PLACEMENT: ctypes.c_int(_NOT_INPLACE if real else _INPLACE),
            _INPUT_STRIDES: (ctypes.c_long * 2)(0, strides[0]),
            _OUTPUT_STRIDES: (ctypes.c_long * 2)(0, strides[1]),
            _INPUT_DISTANCE: ctypes.c_long(distances[0]),
            _OUTPUT_DISTANCE: ctypes.c_long(distances[1]),
            _THREAD_LIMIT: ctypes.c_long(1),
            _FORWARD_SCALE: ctypes.c_double(1 / length),
        }
        if real:
            pairs[_CONJUGATE_EVEN_STORAGE] = ctypes.c_int(_COMPLEX_COMPLEX)
        for key, value in pairs.items():
            _check(library.DftiSetValue(handle, key, value))
        _check(library.DftiCommitDescriptor(handle))
        self.handle = handle.value


@lru_cache(maxsize=256)
def transform(
    kind: str,
    length: int,
    count: int,
    strides: tuple[int, int],
    distances: tuple[int, int],
    dtype: torch.dtype,
) -> Transform:
    """A transform, made once.

    Args:
        kind: "fft", "ifft", "rfft" or "irfft".
        length: number of points.
        count: number of transforms.
        strides: between neighbouring entries of input and output, in entries of their own kind.
        distances: between the transforms.
        dtype: torch.float64 or torch.float32.
    """
    return Transform(kind, length, count, strides, distances, dtype)


def _free(library: ctypes.CDLL, handle: int) -> None:
    library.DftiFreeDescriptor(ctypes.byref(ctypes.c_void_p(handle)))


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"MKL refused a Fourier transform with status {status}")
