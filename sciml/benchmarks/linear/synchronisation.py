"""How often a computation makes the processor wait for the GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch


def count_synchronisations(compute: Callable[[], Any]) -> int:
    """The number of waits that torch sees while `compute` runs on the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compute()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(warning.message) for warning in caught)
