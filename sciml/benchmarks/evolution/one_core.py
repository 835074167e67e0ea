"""One core for everybody: what libraries are told before they are loaded, and the process kept to a single core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# XLA runs transforms on all cores that it sees when it starts, whatever its flags say: hence the affinity below.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "1",
}


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and the threads that it starts meanwhile, to one core and torch to one thread.

    Where the system cannot bind processes to cores (anything but Linux), only torch is bound.
    """
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)
