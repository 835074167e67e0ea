"""Compiles `kernels.cpp` once a machine and loads it; without a compiler everything runs as torch operations."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.cpp")
HEADERS = sorted(SOURCE.parent.glob("*.hpp"))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno")

logger = logging.getLogger("sciml")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where `SCIML_KERNELS=0` or no working C++ compiler is found (said once)."""
    if os.environ.get("SCIML_KERNELS") == "0":
        return None
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        logger.warning("no C++ compiler found: stencils run as sums of slices, two to three times slower on the CPU")
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        logger.warning("the compiled kernels are not available, stencils run as sums of slices: %s", detail)
        return None


def _compiled(compiler: str) -> Path:
    """Path of the shared library, built if this source, compiler and processor have not been met before."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    key = "\n".join([*(path.read_text() for path in (SOURCE, *HEADERS)), *FLAGS, version, _processor()])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "sciml"
    target = folder / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="sciml-"))
        target = folder / target.name
    with _one_at_a_time(folder), tempfile.TemporaryDirectory(dir=folder) as scratch:
        if not target.exists():
            logger.warning("compiling the CPU kernels, once for this machine: half a minute")
            built = Path(scratch) / target.name
            command = [compiler, *FLAGS, str(SOURCE), "-o", str(built)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
            os.replace(built, target)
    return target


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Processes that begin together wait for the one that compiles, where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(folder / "compiling.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _processor() -> str:
    """What `-march=native` depends on: machine and instruction set."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {features}"
